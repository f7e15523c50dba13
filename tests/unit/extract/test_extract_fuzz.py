"""Whatever is done to an archive's bytes: an error of this project or the right files, and nothing outside the folder."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import itertools
import lzma
import os
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from archive_maker import DEFLATE64, DEFLATE64_CONTENT, tar_of, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ArchiveError, ChecksumMismatch, MemberError
from pipeline.extract import ExtractManager, WantedMember

SMALL = {"real_acct.txt": b"0001\tMAIN\r\n" * 20, "owners.txt": b"acct\tname\n0001\tCURRENT OWNER"}
WANTED = [WantedMember(name) for name in SMALL]
ZIPS: dict[str, bytes] = {
    "deflate": zip_of(SMALL),
    "stored": zip_of(SMALL, zipfile.ZIP_STORED),
    "bzip2": zip_of(SMALL, zipfile.ZIP_BZIP2),
    "lzma": zip_of(SMALL, zipfile.ZIP_LZMA),
    "nested": zip_of({"x.zip": zip_of(SMALL)}),
}
TARS: dict[str, bytes] = {
    "tar.gz": gzip.compress(tar_of(SMALL), mtime=0),
    "tar.bz2": bz2.compress(tar_of(SMALL)),
    "tar.xz": lzma.compress(tar_of(SMALL)),
}
REFUSALS = (ArchiveError, MemberError)


def streamed(manager: ExtractManager, path: Path) -> dict[str, bytes]:
    return {Path(name).name: b"".join(chunks) for name, chunks in manager.stream_extract(path, nested=True)}


def flips(path: Path, content: bytes, seed: int, *, each: int = 3) -> Iterator[int]:
    """Give every offset while its byte in the file is changed: all its bits, one bit, and at random, or the first ``each`` of these.

    The file is changed in place: to write it anew for each of some thousand changes takes most of a test's time.
    """
    chosen = random.Random(seed)
    path.write_bytes(content)
    with open(path, "r+b", buffering=0) as file:
        for at in range(len(content)):
            for mask in sorted({0xFF, 1 << chosen.randrange(8), chosen.randrange(1, 256)}, reverse=True)[:each]:
                os.pwrite(file.fileno(), bytes([content[at] ^ mask]), at)
                yield at
            os.pwrite(file.fileno(), content[at : at + 1], at)


def cuts(path: Path, content: bytes, lengths: Sequence[int]) -> Iterator[int]:
    """Give every length, the longest first, while the file has it."""
    path.write_bytes(content)
    with open(path, "r+b", buffering=0) as file:
        for length in sorted(lengths, reverse=True):
            file.truncate(length)
            yield length


@pytest.mark.fault(26)
@pytest.mark.parametrize("kind", [*ZIPS, *TARS])
def test_flipped_byte_at_any_offset_is_refused_or_does_no_harm(manager: ExtractManager, quick_path: Path, kind: str) -> None:
    content = (ZIPS | TARS)[kind]
    archive, refused = quick_path / "a.bin", 0
    for at in flips(archive, content, 20):
        try:
            found = streamed(manager, archive)
        except REFUSALS:
            refused += 1
        else:
            # A flipped name, or a directory that no longer lists a file, is not a wrong content.
            assert all(content in SMALL.values() for content in found.values()), at
    assert refused > len(content)
    assert [path.name for path in quick_path.iterdir()] == ["a.bin"]


@pytest.mark.fault(26)
@pytest.mark.parametrize("kind", ["deflate", "stored", "tar.gz"])
def test_flipped_byte_at_any_offset_never_gives_a_wrong_folder(manager: ExtractManager, quick_path: Path, kind: str) -> None:
    archive, content = quick_path / "a.bin", (ZIPS | TARS)[kind]
    for at in flips(archive, content, 21, each=1):
        out = quick_path / f"out{at}"
        try:
            manager.extract_archive(archive, out, members=WANTED)
        except REFUSALS:
            assert not out.exists()
        else:
            assert {name: (out / name).read_bytes() for name in SMALL} == SMALL
            shutil.rmtree(out)
    assert [path.name for path in quick_path.iterdir()] == ["a.bin"]


@pytest.mark.fault(26)
def test_flipped_byte_of_a_plain_tar_is_told_by_the_archives_own_hash(manager: ExtractManager, quick_path: Path) -> None:
    content = tar_of({"owners.txt": SMALL["owners.txt"]})[:2048]
    sha256, archive = hashlib.sha256(content).hexdigest(), quick_path / "a.bin"
    for _ in flips(archive, content, 22, each=1):
        with pytest.raises(ChecksumMismatch):
            manager.extract_archive(archive, quick_path / "out", members=WANTED, sha256=sha256)
        with contextlib.suppress(*REFUSALS):
            streamed(manager, archive)
    assert [path.name for path in quick_path.iterdir()] == ["a.bin"]


@pytest.mark.fault(26)
@pytest.mark.parametrize("kind", [*ZIPS, *TARS, "tar"])
def test_truncation_at_every_length_is_an_archive_error(manager: ExtractManager, quick_path: Path, kind: str) -> None:
    content = (ZIPS | TARS | {"tar": tar_of(SMALL)})[kind]
    # A tar is whole from its second block of zeros on; zeros behind an archive are padding.
    whole_from = len(content) if kind != "tar" else len(content.rstrip(b"\0")) // 512 * 512 + 1536
    archive = quick_path / "a.bin"
    for _ in cuts(archive, content, range(whole_from)):
        with pytest.raises(ArchiveError):
            streamed(manager, archive)
    for _ in cuts(archive, content, range(whole_from, len(content) + 1, 211)):
        assert streamed(manager, archive) == SMALL
    with pytest.raises(ArchiveError):
        archive.write_bytes(content[: whole_from - 1])
        manager.extract_archive(archive, quick_path / "out")
    assert [path.name for path in quick_path.iterdir()] == ["a.bin"]


@pytest.mark.fault(26)
@pytest.mark.fault(32)
def test_damaged_deflate64_is_refused_at_every_offset_and_length(manager: ExtractManager, quick_path: Path) -> None:
    archive = quick_path / "a.bin"
    for _ in itertools.chain(cuts(archive, DEFLATE64, range(len(DEFLATE64))), flips(archive, DEFLATE64, 5, each=2)):
        with contextlib.suppress(*REFUSALS):
            assert list(streamed(manager, archive).values()) in ([DEFLATE64_CONTENT], [])


BYTES16, BYTES32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
NAMES = st.one_of(
    st.just(b"../x"),
    st.sampled_from([b"a.txt", b"/x", b"C:\\x", b"\\\\s\\x", b"nul", b"", b"a/", b"a\0b", b"\xff\xfe", b"x" * 300]),
    st.binary(max_size=40),
)
ZIP64_EXTRAS = st.binary(max_size=24).map(lambda sizes: b"\x01\x00" + bytes([len(sizes), 0]) + sizes)
TAR_VALUES = st.sampled_from([b"0004755", b"77777777777", b"x", b"L", b"S"])
RANDOM = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


#: What a header says, and what else it may say.
LIES: Mapping[str, st.SearchStrategy[int]] = {
    "flags": st.sampled_from([1, 8, 0x40, 0x800, 0xFFFF]),
    "method": st.one_of(st.sampled_from([8, 9, 12, 14]), BYTES16),
    "crc": BYTES32,
    "size": BYTES32,
    "full": BYTES32,
    "mode": BYTES32,
    "offset": BYTES32,
    "disk": BYTES16,
}


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """One to three entries with any names, of whose headers a few say anything, under an end record that mostly fits."""
    body, directory = b"", b""
    count = draw(st.integers(1, 3))
    for _ in range(count):
        name, content = draw(NAMES), draw(st.binary(max_size=60))
        extra = draw(st.one_of(st.just(b""), st.binary(max_size=30), ZIP64_EXTRAS))
        says = dict.fromkeys(LIES, 0) | {"crc": zlib.crc32(content), "size": len(content), "full": len(content), "offset": len(body)}
        says |= {field: draw(LIES[field]) for field in draw(st.sets(st.sampled_from(sorted(LIES)), max_size=2))}
        fixed = (says["flags"], says["method"], 0, 33, says["crc"], says["size"], says["full"], len(name), len(extra))
        body += struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, *fixed) + name + extra + content
        directory += struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 0x314, 20, *fixed, 0, says["disk"], 0, says["mode"], says["offset"])
        directory += name + extra
    end = draw(st.one_of(st.just((count, len(directory), len(body))), st.tuples(BYTES16, BYTES32, BYTES32)))
    return body + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, end[0], end[0], end[1], end[2], 0)


@pytest.mark.fault(26)
@pytest.mark.fault(30)
@given(content=zips())
@RANDOM
def test_zip_with_any_headers_gives_errors_of_this_project_and_nothing_outside(
    manager: ExtractManager, quick_path: Path, content: bytes
) -> None:
    nothing_outside(manager, quick_path, content)


FIELDS: Mapping[str, tuple[int, int]] = {
    "name": (0, 100), "mode": (100, 8), "size": (124, 12), "type": (156, 1), "link": (157, 100), "magic": (257, 8), "prefix": (345, 155),
}  # fmt: skip


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar of two files with fields of its headers replaced and their checksums made right again."""
    content = bytearray(tar_of({"a.txt": b"1\n", "b.txt": draw(st.binary(max_size=40))}))
    for start in (0, 1024):
        for field in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)):
            at, width = FIELDS[field]
            value = draw(NAMES if field == "name" else st.one_of(st.binary(min_size=width, max_size=width), NAMES, TAR_VALUES))
            content[start + at : start + at + width] = value[:width].ljust(width, b"\0")
        block = bytes(content[start : start + 148]) + b" " * 8 + bytes(content[start + 156 : start + 512])
        content[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(content)


@pytest.mark.fault(26)
@pytest.mark.fault(30)
@given(content=tars(), compress=st.sampled_from([bytes, gzip.compress, bz2.compress]))
@RANDOM
def test_tar_with_any_headers_gives_errors_of_this_project_and_nothing_outside(
    manager: ExtractManager, quick_path: Path, content: bytes, compress: Callable[[bytes], bytes]
) -> None:
    nothing_outside(manager, quick_path, compress(content))


def nothing_outside(manager: ExtractManager, folder: Path, content: bytes) -> None:
    """Extract everything; whatever comes of it lies in the folder, as plain files, and is as the manifest says."""
    root = folder / "fuzz"
    out = root / "inner" / "out"
    out.parent.mkdir(parents=True)
    archive = root / "a.bin"
    archive.write_bytes(content)
    try:
        manager.extract_archive(archive, out)
    except REFUSALS:
        assert not out.exists()
    else:
        assert manager.verify_members(out) == ()
        assert all(path.resolve().is_relative_to(out) for path in out.rglob("*"))
    assert {path.name for path in root.iterdir()} == {"a.bin", "inner"}
    assert {path.name for path in out.parent.iterdir()} <= {"out"}
    shutil.rmtree(root)
