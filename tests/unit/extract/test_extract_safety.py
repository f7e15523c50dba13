"""Nothing leaves the folder, and no archive takes more than it may."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipeline.errors import ArchiveError, ArchiveTooLarge, DiskError, UnsafeArchive
from pipeline.extract import ExtractManager, WantedMember

WANTED = [WantedMember("a.txt")]


def only_archive_in(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["a.bin"]


def zip_with(*entries: zipfile.ZipInfo | str, content: bytes = b"x\n") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("a.txt", b"good\n")
        for entry in entries:
            zipped.writestr(entry, content)
    return out.getvalue()


def named(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    return info


NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "\\\\server\\share\\evil",
    "C:\\evil",
    "c:evil",
    "evil\x00.txt",
    "evil\n.txt",
    "x" * 5000,
    "/".join(["d" * 200] * 10),
    "NUL",
    "folder/com1.txt",
    "..",
]


@pytest.mark.fault(30)
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", NAMES, ids=[ascii(name[:20]) for name in NAMES])
def test_unsafe_name_in_a_zip_writes_nothing_even_when_unwanted(
    manager: ExtractManager, tmp_path: Path, name: str, validate: bool
) -> None:
    (tmp_path / "inner").mkdir()
    archive = tmp_path / "inner" / "a.bin"
    archive.write_bytes(zip_with(named(name)))
    with pytest.raises(UnsafeArchive, match="unsafe"):
        manager.extract_archive(archive, tmp_path / "inner" / "out", validate, members=WANTED)
    with pytest.raises(UnsafeArchive, match="unsafe"):
        list(manager.stream_extract(archive, lambda name: name == "a.txt"))
    assert only_archive_in(tmp_path / "inner") and [path.name for path in tmp_path.iterdir()] == ["inner"]


@pytest.mark.fault(30)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("name", [name for name in NAMES if "\x00" not in name], ids=lambda name: ascii(name[:20]))
def test_unsafe_name_in_a_tar_leaves_nothing_even_behind_the_wanted_member(
    manager: ExtractManager, tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "inner").mkdir()
    archive = tmp_path / "inner" / "a.bin"
    archive.write_bytes(compress(tar_with(named_header(name))))
    with pytest.raises(UnsafeArchive, match="unsafe"):
        manager.extract_archive(archive, tmp_path / "inner" / "out", False, members=WANTED)
    assert only_archive_in(tmp_path / "inner") and [path.name for path in tmp_path.iterdir()] == ["inner"]


def named_header(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.linkname = kind, mode, "/etc/passwd"
    return header


def tar_with(*headers: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        good = tarfile.TarInfo("a.txt")
        good.size = 5
        tar.addfile(good, io.BytesIO(b"good\n"))
        for header in headers:
            tar.addfile(header)
    return out.getvalue()


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFREG | stat.S_ISUID]
)
def test_entry_of_a_zip_that_is_no_plain_file_is_refused(manager: ExtractManager, tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o644) << 16
    archive = tmp_path / "a.bin"
    archive.write_bytes(zip_with(info, content=b"/etc/passwd"))
    with pytest.raises(UnsafeArchive, match="mode"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    assert only_archive_in(tmp_path)


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]
)
def test_entry_of_a_tar_that_is_no_plain_file_is_refused(manager: ExtractManager, tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "a.bin"
    archive.write_bytes(tar_with(named_header("link", kind)))
    with pytest.raises(UnsafeArchive, match="type"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    archive.write_bytes(tar_with(named_header("setuid", tarfile.REGTYPE, 0o4755)))
    with pytest.raises(UnsafeArchive, match="mode"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    assert only_archive_in(tmp_path)


@pytest.mark.fault(31)
def test_planted_links_are_not_followed(manager: ExtractManager, tmp_path: Path) -> None:
    archive = tmp_path / "a.bin"
    archive.write_bytes(zip_with())
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "out").symlink_to(victim)
    with pytest.raises(ArchiveError, match="is a link"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    (tmp_path / "out").unlink()
    (tmp_path / f".out.{os.getpid()}.part").symlink_to(victim)
    manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    assert not list(victim.iterdir()) and not (tmp_path / "out").is_symlink()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder with a file that no extraction may touch."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"precious")
    (folder / "manifest.json").write_bytes(b"precious")
    return folder


def untouched(victim: Path) -> bool:
    return {path.name: path.read_bytes() for path in victim.iterdir()} == {"a.txt": b"precious", "manifest.json": b"precious"}


@pytest.mark.fault(31)
@pytest.mark.parametrize("planted", ["folder", "file", "nothing", "itself"])
def test_link_under_the_destinations_name_is_neither_followed_nor_replaced(
    manager: ExtractManager, tmp_path: Path, victim: Path, planted: str
) -> None:
    archive, out = tmp_path / "a.bin", tmp_path / "out"
    archive.write_bytes(zip_with())
    out.symlink_to({"folder": victim, "file": victim / "a.txt", "nothing": tmp_path / "later", "itself": out}[planted])
    with pytest.raises(ArchiveError, match="is a link"):
        manager.extract_archive(archive, out, members=WANTED)
    assert untouched(victim) and out.is_symlink() and not (tmp_path / "later").exists()


@pytest.mark.fault(31)
@pytest.mark.parametrize("planted", ["folder", "file", "nothing"])
def test_link_under_a_working_folders_name_is_removed_and_not_followed(
    manager: ExtractManager, tmp_path: Path, victim: Path, planted: str
) -> None:
    archive, out = tmp_path / "a.bin", tmp_path / "out"
    archive.write_bytes(zip_with())
    target = {"folder": victim, "file": victim / "a.txt", "nothing": tmp_path / "later"}[planted]
    for pid in (os.getpid(), 4_194_305):
        (tmp_path / f".out.{pid}.part").symlink_to(target)
    manager.extract_archive(archive, out, members=WANTED)
    assert untouched(victim) and (out / "a.txt").read_bytes() == b"good\n" and not out.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "out", "victim"]


@pytest.mark.fault(31)
@pytest.mark.parametrize(("planted", "said"), [("a.txt", "File exists"), ("manifest.json", None)])
def test_link_planted_while_an_extraction_runs_is_not_written_through(
    make_manager: Callable[..., ExtractManager], tmp_path: Path, victim: Path, planted: str, said: str | None
) -> None:
    """Somebody else writes into the working folder between its making and the member's, or the manifest's."""
    archive, out = tmp_path / "a.bin", tmp_path / "out"
    # b.txt first, then what the link lies in the way of.
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("b.txt", b"x\n")
        zipped.writestr("a.txt", b"good\n")

    def plant(event: str, figures: Mapping[str, object]) -> None:
        if figures["member"] == "b.txt":
            (tmp_path / f".out.{os.getpid()}.part" / planted).symlink_to(victim / planted)

    manager = make_manager(on_event=plant)
    if said:
        with pytest.raises(DiskError, match=said):
            manager.extract_archive(archive, out)
        assert not out.exists()
    else:
        assert len(manager.extract_archive(archive, out).members) == 2
        assert not (out / "manifest.json").is_symlink()
    assert untouched(victim)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.fault(31)
def test_link_inside_a_finished_folder_is_told_by_verification(manager: ExtractManager, tmp_path: Path, victim: Path) -> None:
    archive, out = tmp_path / "a.bin", tmp_path / "out"
    archive.write_bytes(zip_with())
    manager.extract_archive(archive, out)
    (out / "a.txt").unlink()
    (out / "a.txt").symlink_to(victim / "a.txt")
    assert manager.verify_members(out) == ("a.txt is missing",)


@pytest.mark.fault(29)
def test_overlapping_entries_are_refused(manager: ExtractManager, tmp_path: Path) -> None:
    """Two directory entries on the same bytes, as the zip bombs of that kind have them."""
    content = zip_with()
    directory = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    record = content[directory:end]
    doubled = content[:directory] + record + record
    doubled += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(record), directory, 0)
    archive = tmp_path / "a.bin"
    archive.write_bytes(doubled)
    with pytest.raises(UnsafeArchive, match="overlap"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    # An entry whose content quotes the next entry's header.
    two = bytearray(zip_with("b.txt"))
    directory = two.index(b"PK\x01\x02")
    two[directory + 20 : directory + 28] = struct.pack("<LL", 20, 20)
    archive.write_bytes(two)
    with pytest.raises(UnsafeArchive, match="overlap"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    # An entry whose own header's extra field reaches over the next entry.
    three = bytearray(zip_with("b.txt"))
    three[28:30] = struct.pack("<H", 40)
    archive.write_bytes(three)
    with pytest.raises(UnsafeArchive, match="overlap"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)
    assert only_archive_in(tmp_path)


@pytest.mark.fault(26)
def test_end_record_that_states_another_number_of_entries_is_damage(manager: ExtractManager, tmp_path: Path) -> None:
    content = bytearray(zip_with("b.txt"))
    end = content.index(b"PK\x05\x06")
    content[end + 10 : end + 12] = struct.pack("<H", 1)
    archive = tmp_path / "a.bin"
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="2 entries where its end record states 1"):
        manager.extract_archive(archive, tmp_path / "out", members=WANTED)


@pytest.mark.fault(29)
def test_header_of_a_tar_cannot_ask_for_memory(make_manager: Callable[..., ExtractManager], tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.txt")
    header.type, header.size = tarfile.XHDTYPE, 1 << 28
    archive = tmp_path / "a.bin"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + zeros(20, 31))
    with pytest.raises(UnsafeArchive, match="a header of"):
        make_manager(max_ratio=1e9).extract_archive(archive, tmp_path / "out")


@pytest.mark.fault(29)
def test_million_entries_are_refused_at_once(manager: ExtractManager, tmp_path: Path) -> None:
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"n"
    count = 1_000_000
    for stated, seen in (
        (count % 65_536, "at least 16960 entries"),
        (5, "a directory of"),
    ):  # The truth as far as it fits, and a lie.
        body = b"PK\x03\x04" + bytes(26) + record * count
        body += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, stated, stated, len(record) * count, 30, 0)
        archive = tmp_path / "a.bin"
        archive.write_bytes(body)
        started = time.process_time()  # what other programs take, and a machine that stands still, do not count
        with pytest.raises(ArchiveTooLarge, match=f"{seen}.*max_members"):
            manager.extract_archive(archive, tmp_path / "out", sha256="0" * 64, validate=False)
        assert time.process_time() - started < 1 and only_archive_in(tmp_path)


def test_number_of_entries_is_limited_in_a_tar_too(make_manager: Callable[..., ExtractManager], tmp_path: Path) -> None:
    archive = tmp_path / "a.bin"
    archive.write_bytes(tar_with(*(named_header(str(number)) for number in range(20))))
    with pytest.raises(ArchiveTooLarge, match="max_members"):
        make_manager(max_members=20).extract_archive(archive, tmp_path / "out", members=WANTED)
    make_manager(max_members=21).extract_archive(archive, tmp_path / "out", members=WANTED)


def zeros(megabytes: int, wbits: int) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(deflate.compress(bytes(1 << 20)) for _ in range(megabytes)) + deflate.flush()


@pytest.mark.fault(29)
@pytest.mark.parametrize("kind", ["gz", "tar.gz"])
def test_bomb_without_a_stated_size_is_stopped_while_inflating(manager: ExtractManager, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "a.bin"
    bomb = zeros(100, 31)
    if kind == "tar.gz":
        header = tarfile.TarInfo("a.txt")
        header.size = 100 << 20
        bomb = gzip.compress(header.tobuf()) + bomb
    archive.write_bytes(bomb)
    with pytest.raises(ArchiveTooLarge, match="max_ratio"):
        manager.extract_archive(archive, tmp_path / "out")
    assert only_archive_in(tmp_path)


@pytest.mark.fault(29)
def test_bomb_that_states_its_size_is_refused_before_inflating(
    make_manager: Callable[..., ExtractManager], tmp_path: Path
) -> None:
    archive = tmp_path / "a.bin"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("a.txt", "w") as member:
        for _ in range(100):
            member.write(bytes(1 << 20))
    started = time.process_time()
    with zipfile.ZipFile(archive) as zipped:
        zipped.testzip()
    inflating = time.process_time() - started
    started = time.process_time()
    with pytest.raises(ArchiveTooLarge, match="max_ratio"):
        make_manager().extract_archive(archive, tmp_path / "out")
    with pytest.raises(ArchiveTooLarge, match="max_member_bytes"):
        make_manager(max_member_bytes=1 << 20).extract_archive(archive, tmp_path / "out")
    assert time.process_time() - started < inflating / 2 and only_archive_in(tmp_path)


@pytest.mark.fault(29)
def test_bomb_that_states_less_than_it_holds_gives_no_byte_beyond_what_it_states(manager: ExtractManager, tmp_path: Path) -> None:
    archive = tmp_path / "a.bin"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.txt", bytes(100 << 20))
    content = bytearray(archive.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 1 << 20)
    archive.write_bytes(content)
    given = 0
    stream = manager.stream_extract(archive)
    _, chunks = next(stream)
    with pytest.raises(ArchiveError, match="E_ARCHIVE: .*more than the 1048576 bytes that the directory states"):
        for chunk in chunks:
            given += len(chunk)
    assert given <= 1 << 20
    with pytest.raises(ArchiveError):
        manager.extract_archive(archive, tmp_path / "out")
    assert only_archive_in(tmp_path)


def test_blank_padded_member_below_the_budget_passes_any_ratio(
    make_manager: Callable[..., ExtractManager], tmp_path: Path
) -> None:
    archive = tmp_path / "a.bin"
    archive.write_bytes(zeros(10, 31))
    assert make_manager(max_ratio=2).extract_archive(archive, tmp_path / "out").members[0].bytes == 10 << 20


@pytest.mark.fault(26)
@pytest.mark.parametrize("stated", [3, 6])
def test_member_of_another_size_than_stated_is_damage(manager: ExtractManager, tmp_path: Path, stated: int) -> None:
    content = bytearray(zip_with())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<L", stated)
    archive = tmp_path / "a.bin"
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"a\.txt"):
        manager.extract_archive(archive, tmp_path / "out")


def test_what_is_no_archive_is_named_by_its_first_bytes(manager: ExtractManager, tmp_path: Path) -> None:
    archive = tmp_path / "a.bin"
    archive.write_bytes(b"<html>")
    with pytest.raises(ArchiveError, match="<html>"):
        manager.extract_archive(archive, tmp_path / "out")
