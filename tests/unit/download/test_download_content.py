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
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    end = len(data) - (9216 if name == "tar" else 0)  # a tar is padded with blocks of zeros that say nothing
    for cut in [*range(1, min(60, end)), *random.Random(1).sample(range(60, end), 60), end - 1]:
        path = body(data[:cut])
        found = archive_kind(path)
        assert found is None or condition(path, found, read_through=True) != "whole", cut


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", [name for name in BODIES if name not in ("tar", "empty zip", "self-extracting")])
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
@pytest.mark.parametrize(("offset", "value"), [(8, 9), (6, 1)], ids=["Deflate64", "encrypted"])
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
