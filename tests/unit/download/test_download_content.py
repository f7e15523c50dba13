"""What a body is, and whether it is whole, by its own bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inflate64
import pytest

from pipeline.download import DownloadManager, content
from pipeline.download.content import archive_kind, condition
from pipeline.errors import ArchiveError, DownloadError

TEXT = b"".join(b"%013d\t%d\r\n" % (number, number**3) for number in range(3000))


def zip_with(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped:
        for name, text in (members or {"a": TEXT}).items():
            zipped.writestr(name, text)
    return out.getvalue()


def tar_of(text: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("a")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def deflate64_zip(text: bytes) -> bytes:
    """A zip with one member in Deflate64, which zipfile does not write: a stored one that is said to be such."""
    deflater = inflate64.Deflater()
    compressed = deflater.deflate(text) + deflater.flush()
    data = bytearray(zip_with(zipfile.ZIP_STORED, a=compressed))
    for at in (0, data.rindex(b"PK\x01\x02") + 2):
        struct.pack_into("<H", data, at + 8, 9)
        struct.pack_into("<LLL", data, at + 14, zlib.crc32(text), len(compressed), len(text))
    return bytes(data)


BODIES = {
    "deflate": (zip_with(), "zip"),
    "stored": (zip_with(zipfile.ZIP_STORED), "zip"),
    "bzip2 member": (zip_with(zipfile.ZIP_BZIP2), "zip"),
    "lzma member": (zip_with(zipfile.ZIP_LZMA), "zip"),
    "self-extracting": (b"MZ" + bytes(500) + zip_with(), "zip"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "zip"),
    "gzip": (gzip.compress(TEXT), "gzip"),
    "bzip2": (bz2.compress(TEXT), "bzip2"),
    "xz": (lzma.compress(TEXT), "xz"),
    "tar": (tar_of(TEXT), "tar"),
    "tar of zeros": (tar_of(bytes(5000)), "tar"),
    "Deflate64 member": (deflate64_zip(TEXT), "zip"),
}


@pytest.fixture
def body(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "body"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("name", BODIES)
def test_whole_archive_of_each_kind_is_recognised(body: Callable[[bytes], Path], name: str) -> None:
    data, kind = BODIES[name]
    path = body(data)
    found = archive_kind(path)
    assert found == kind
    assert condition(path, found, read_through=False) == condition(path, found, read_through=True) == "whole"


@pytest.mark.fault(4)
@pytest.mark.parametrize("name", [name for name in BODIES if name != "empty zip"])
def test_archive_cut_anywhere_is_not_whole(body: Callable[[bytes], Path], name: str) -> None:
    data = BODIES[name][0]
    # A tar is padded with blocks of zeros that say nothing, behind two that say that it ends.
    end = 1536 + -(-(len(TEXT) if name == "tar" else 5000) // 512) * 512 if "tar" in name.split() else len(data)
    assert condition(body(data[:end]), BODIES[name][1], read_through=True) == "whole"
    for cut in [*range(1, min(60, end)), *random.Random(1).sample(range(60, end), 60), end - 1]:
        path = body(data[:cut])
        found = archive_kind(path)
        assert found is None or condition(path, found, read_through=True) != "whole", cut


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", [name for name in BODIES if name not in ("tar", "tar of zeros", "empty zip", "self-extracting")])
def test_flipped_byte_never_ends_in_another_exception_and_never_in_other_contents(body: Callable[[bytes], Path], name: str) -> None:
    data, kind = BODIES[name]
    for at in [*range(0, 80), *random.Random(2).sample(range(len(data)), 150), *range(len(data) - 80, len(data))]:
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        path = body(bytes(flipped))
        found = archive_kind(path)
        if found is not None and condition(path, found, read_through=True) == "whole" and found == kind == "zip":
            # A date, an attribute, a version: nothing that a checksum covers.
            with zipfile.ZipFile(path) as zipped:
                for entry in zipped.infolist():
                    assert entry.flag_bits & 1 or entry.compress_type not in (0, 8, 12, 14) or zipped.read(entry) == TEXT, at


@pytest.mark.fault(4)
def test_end_of_a_zip_inside_a_zip_is_not_the_end_of_the_outer_one(body: Callable[[bytes], Path]) -> None:
    inner = zip_with()
    outer = zip_with(zipfile.ZIP_STORED, inner=inner, further=TEXT)
    cut = outer[: outer.index(inner) + len(inner)]
    assert zipfile.is_zipfile(io.BytesIO(cut)), "the library takes it for a zip behind a program"
    assert condition(body(cut), "zip", read_through=True) == "cut"


@pytest.mark.fault(4)
def test_checksum_of_every_member_counts_where_no_length_was_stated(
    server: Any, hostile: Any, manager: DownloadManager, tmp_path: Path
) -> None:
    damaged = bytearray(zip_with(zipfile.ZIP_STORED, first=TEXT, second=TEXT))
    damaged[damaged.rindex(b"0000000000042\t")] ^= 1
    route = server.routes["/a.zip"] = hostile.Faithful(bytes(damaged), states_length=False)
    with pytest.raises(DownloadError, match="does not hold what its checksums say"):
        manager.download_file(server.url("/a.zip"), tmp_path / "a.zip", max_retries=1)
    assert route.statuses == [200, 200] and list(tmp_path.iterdir()) == []
    # With its length it is here as the publisher has it; which member is damaged, and whether it is wanted, extraction says.
    server.routes["/a.zip"] = hostile.Faithful(bytes(damaged))
    assert manager.download_file(server.url("/a.zip"), tmp_path / "a.zip").bytes == len(damaged)


@pytest.mark.fault(32)
@pytest.mark.parametrize("at", [60, 200, 7000])
def test_damaged_deflate64_member_is_told_where_no_length_was_stated(body: Callable[[bytes], Path], at: int) -> None:
    data = bytearray(deflate64_zip(TEXT))
    data[at] ^= 1
    assert condition(body(bytes(data)), "zip", read_through=True) == "damaged"


@pytest.mark.fault(4)
def test_tar_is_read_header_by_header_whatever_its_entries_are(body: Callable[[bytes], Path]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, size in (("d", tarfile.DIRTYPE, 0), ("l", tarfile.SYMTYPE, 0), ("\u00e4" * 200, tarfile.REGTYPE, 700)):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, size, "d" * 150
            tar.addfile(member, io.BytesIO(b"x" * size))
    data = out.getvalue()
    assert condition(body(data), "tar", read_through=True) == "whole"
    # One that says in a header of its own, as those beyond 8 GiB do, how long it is.
    member = tarfile.TarInfo("big")
    assert condition(body(pax_size(600) + member.tobuf() + b"x" * 1024 + bytes(1024)), "tar", read_through=True) == "whole"
    lone = tar_of(TEXT).rstrip(b"\0")
    lone += bytes(-len(lone) % 512) + bytes(512) + b"x" * 512
    assert condition(body(lone), "tar", read_through=True) == "damaged"


def pax_size(size: int) -> bytes:
    record = b"%d size=%d\n" % (len(str(size)) + 9, size)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    return header.tobuf() + record.ljust(512, b"\0")


@pytest.mark.fault(32)
@pytest.mark.parametrize(("offset", "value"), [(8, 99), (6, 1)], ids=["AES", "encrypted"])
def test_member_that_cannot_be_read_here_is_left_to_extraction(body: Callable[[bytes], Path], offset: int, value: int) -> None:
    data = bytearray(zip_with())
    central = data.index(b"PK\x01\x02")
    for start in (0 + offset, central + offset + 2):
        data[start : start + 2] = struct.pack("<H", value)
    assert condition(body(bytes(data)), "zip", read_through=True) == "whole"


@pytest.mark.fault(29)
def test_body_that_unpacks_without_end_is_given_up(
    server: Any, hostile: Any, manager: DownloadManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "READ_THROUGH_BYTES", 50 << 20)
    server.routes["/a"] = hostile.Faithful(gzip.compress(bytes(100 << 20)), states_length=False)
    with pytest.raises(ArchiveError, match="unpacks to more than 52428800 bytes"):
        manager.download_file(server.url("/a"), tmp_path / "a.gz")
    assert len(server.requests) == 1 and list(tmp_path.iterdir()) == []
