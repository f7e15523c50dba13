"""What a body is by its own bytes: an archive of a known kind or something else, whole or broken off.

The name and the content type prove nothing (an error page arrives as ``200 OK`` under the archive's name). The kind is
told by magic bytes. A zip and a tar say themselves where they end; a gzip is read through when the server gave no length.
Nothing here unpacks to disk or judges members: that is the extract stage's work.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Literal

ArchiveKind = Literal["zip", "gzip", "tar"]

_TAR_MAGIC_AT = 257
_TAR_END = bytes(1024)
_HEAD_BYTES = 512
_READ_BYTES = 1 << 20


def archive_kind(path: Path) -> ArchiveKind | None:
    """Return the kind that the first bytes (or, behind a self-extractor, the end record) show; None: no archive."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    if head.startswith(b"MZ") and zipfile.is_zipfile(path):
        return "zip"
    return None


def is_whole(path: Path, kind: ArchiveKind, *, length_was_stated: bool) -> bool:
    """Whether the archive has its end.

    Args:
        path: the body on disk.
        kind: what it is.
        length_was_stated: the bytes received are as many as the server announced; then a gzip is not read through here.
    """
    if kind == "zip":
        return zipfile.is_zipfile(path)
    if kind == "tar":
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_TAR_END)))
            return file.read() == _TAR_END
    return length_was_stated or _gzip_reads_through(path)


def first_bytes(path: Path, count: int = 48) -> str:
    """The first bytes as a Python literal, for an error's text."""
    with open(path, "rb") as file:
        return repr(file.read(count))


def _gzip_reads_through(path: Path) -> bool:
    try:
        with gzip.open(path, "rb") as file:
            while file.read(_READ_BYTES):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return True
