"""Archives as tests need them, made with the standard library, and one by 7-Zip."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile
from collections.abc import Mapping

RECORD = b"0001\t2025\tCURRENT OWNER\t1001 MAIN ST\r\n"
#: What DEFLATE64 holds: its last line repeats the first from further back than plain Deflate can reach.
DEFLATE64_CONTENT = RECORD + b"".join(b"%013d\t%d\r\n" % (i * 7919, i) for i in range(30)) + b" " * 150_000 + b"\r\n" + RECORD
#: ``7z a -tzip -mm=Deflate64 a.zip a.txt``
DEFLATE64 = base64.b64decode(
    """
    UEsDBBUAAAAJAAAAIQA0ZfgaQAMAAFBMAgAFAAAAYS50eHTk0juO1UAQhtG4kNjDXUJXP90hQgQEDNIwiP3vBEPS3sM54RdYv8supWTUUkd8/f3+/u3t4/Xz
    z9u398i7v358+f72+vXx+VN5ivIIa+eOPCHH1a6oJ9S2xop2Qsu5ZvRH2GOPGCf0NbLHPGGM3lqsE2Zro8Z1wsq6Mva/cHaV+y1OuVaWe+pj6x6lXpFnbJa6
    +4psp2S55ozsj3Kta0SOU+pcpUfOU1qftUWuU3odvUZep4zSZ0b+33xOV+6Pccqcde+oecrqNe/7PjZfNduK+ti874vNqP1R1l4j6tlcy7h2j3o230+5skVd
    p9RcrUa9HmXPcf8u9+YXj8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4
    PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+Px
    eDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px/tLHhwIAAAAAAD5vxaCXq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1e
    r9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9
    Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9Xq9Xq/X6/V6vV6v1+v1er1er9fr9ZQjBycAggAA
    AN8G7eAIKjRAhI8eGZjR/pvUGnH3PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8Xg8Ho/H4/F4PB6Px+Px
    eDwej8fj8Xg8Ho/H4/F4PB6Px+PxeDwej8fj8f5inlJKOZRUlrDdvdc24vm02kP+Ph7r3uI15ukFUEsBAj8DFQAAAAkAAAAhADRl+BpAAwAAUEwCAAUAAAAA
    AAAAAAAggKSBAAAAAGEudHh0UEsFBgAAAAABAAEAMwAAAGMDAAAAAA==
    """
)


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped:
        for name, content in files.items():
            zipped.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A plain tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return out.getvalue()
