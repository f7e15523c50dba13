"""Archives become folders, whole and measured, whichever kind they are and whatever lies beside the wanted members."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from archive_maker import tar_of, zip_of

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError, ChecksumMismatch, ConfigurationError, DiskError, MemberError
from pipeline.extract import ExtractManager, WantedMember, cut_id
from pipeline.handoff import Manifest, read_json

ACCOUNTS = b"".join(b"%013d\t%d MAIN ST\r\n" % (number, number) for number in range(500))
OWNERS = b"acct\tname\n0001\tCURRENT OWNER"
FILES = {"real_acct.txt": ACCOUNTS, "owners.txt": OWNERS, "empty.txt": b""}


def written(folder: Path, content: bytes, name: str = "a.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def no_leftovers(folder: Path, *expected: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(expected)


KINDS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "zip": zip_of,
    "stored": lambda files: zip_of(files, zipfile.ZIP_STORED),
    "self-extracting": lambda files: b"MZ" + bytes(3000) + zip_of(files),
    "junk behind": lambda files: zip_of(files) + bytes(100),
    "tar": tar_of,
    "bzip2": lambda files: zip_of(files, zipfile.ZIP_BZIP2),
    "lzma": lambda files: zip_of(files, zipfile.ZIP_LZMA),
    "tar.gz": lambda files: gzip.compress(tar_of(files)),
    "tar.bz2": lambda files: bz2.compress(tar_of(files)),
    "tar.xz": lambda files: lzma.compress(tar_of(files)),
    "tar.gz of two streams": lambda files: b"".join(gzip.compress(half) for half in halves(tar_of(files))) + bytes(50),
}


def halves(content: bytes) -> tuple[bytes, bytes]:
    return content[: len(content) // 2], content[len(content) // 2 :]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_files_and_figures(manager: ExtractManager, tmp_path: Path, kind: str) -> None:
    content = KINDS[kind]({"folder/REAL_ACCT.TXT": ACCOUNTS, "Owners.txt": OWNERS, "empty.txt": b"", "other.txt": b"x"})
    members = [
        WantedMember("real_acct.txt"),
        WantedMember("owners.txt"),
        WantedMember("empty.txt"),
        WantedMember("no.txt", (), False),
    ]
    dest = tmp_path / "members"
    manifest = manager.extract_archive(written(tmp_path, content), dest, members=members, archive_name="Real_acct_owner.zip")
    assert no_leftovers(tmp_path, "a.bin", "members") and no_leftovers(dest, *FILES, "manifest.json")
    assert manifest.archive == "Real_acct_owner.zip" and manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert Manifest.from_json(read_json(dest / "manifest.json")) == manifest
    for member in manifest.members:
        assert (dest / member.file).read_bytes() == FILES[member.name]
        assert member.sha256 == hashlib.sha256(FILES[member.name]).hexdigest()
        assert (dest / member.file).stat().st_mode & 0o777 == 0o640
    accounts, owners, empty = manifest.members
    assert (accounts.lines, accounts.crlf, accounts.lf, accounts.unterminated) == (500, 500, 0, False)
    assert len(accounts.parts) > 5 and accounts.first_line == "0000000000000\t0 MAIN ST"
    assert (owners.lines, owners.lf, owners.unterminated, owners.last_line) == (2, 1, True, "0001\tCURRENT OWNER")
    assert (empty.lines, empty.parts) == (0, ())
    assert dest.stat().st_mode & 0o777 == 0o750


def test_gz_is_one_member_named_after_the_file(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, gzip.compress(ACCOUNTS[:5000]) + gzip.compress(ACCOUNTS[5000:]), "arb_protest_real_2019.txt.gz")
    manifest = manager.extract_archive(archive, tmp_path / "out")
    assert [member.name for member in manifest.members] == ["arb_protest_real_2019.txt"]
    assert (tmp_path / "out" / "arb_protest_real_2019.txt").read_bytes() == ACCOUNTS


def test_without_wanted_members_every_file_keeps_its_path(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of({"a/": b"", "a/x.txt": b"1\n", "b/x.txt": b"2\n"}))
    manifest = manager.extract_archive(archive, tmp_path / "out")
    assert [member.file for member in manifest.members] == ["a/x.txt", "b/x.txt"]
    assert (tmp_path / "out" / "b" / "x.txt").read_bytes() == b"2\n"


@pytest.mark.parametrize("files", [{"manifest.json": b""}, {"a": b"", "a/b": b""}], ids=["manifest", "file and folder"])
def test_files_in_each_others_way_are_refused(manager: ExtractManager, tmp_path: Path, files: Mapping[str, bytes]) -> None:
    with pytest.raises(MemberError, match="cannot stand"):
        manager.extract_archive(written(tmp_path, zip_of(files)), tmp_path / "out")
    assert no_leftovers(tmp_path, "a.bin")


@pytest.mark.fault(33)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (["other.txt"], "no member real_acct.txt or acct.txt; it holds other.txt"),
        (["real_acct.txt", "old/Real_Acct.TXT"], "2 entries stand for real_acct.txt: real_acct.txt, old/Real_Acct.TXT"),
        (["acct.txt", "real_acct.txt"], "2 entries stand for real_acct.txt"),
    ],
)
def test_missing_or_ambiguous_member_is_refused_with_a_list(
    manager: ExtractManager, tmp_path: Path, kind: str, names: list[str], seen: str
) -> None:
    archive = written(tmp_path, KINDS[kind](dict.fromkeys(names, b"x\n")))
    with pytest.raises(MemberError) as error:
        manager.extract_archive(archive, tmp_path / "out", members=[WantedMember("real_acct.txt", ("acct.txt",))])
    assert seen in str(error.value) and no_leftovers(tmp_path, "a.bin")


@pytest.mark.fault(33)
def test_empty_zip_is_said_to_hold_nothing(manager: ExtractManager, tmp_path: Path) -> None:
    with pytest.raises(MemberError, match="it holds nothing"):
        manager.extract_archive(written(tmp_path, zip_of({})), tmp_path / "out", members=[WantedMember("a.txt")])


@pytest.mark.fault(33)
def test_alias_is_found_and_takes_the_declared_name(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of({"2025/EXPORT/ACCT_2025.TXT": b"1\n"}))
    manifest = manager.extract_archive(archive, tmp_path / "out", members=[WantedMember("acct.txt", ("acct_2025.txt",))])
    assert [(member.name, member.file) for member in manifest.members] == [("acct.txt", "acct.txt")]


def test_members_that_do_as_well_stand_in_for_a_required_one_when_all_are_there(manager: ExtractManager, tmp_path: Path) -> None:
    wide = ("values.txt", "rates.txt")
    wanted = [WantedMember("long.txt", (), True, wide), *(WantedMember(name, (), False) for name in wide)]
    for number, names in enumerate([["long.txt"], [*wide], ["long.txt", "values.txt"]]):
        archive = written(tmp_path, zip_of(dict.fromkeys(names, b"1\n")))
        found = manager.extract_archive(archive, tmp_path / f"out{number}", members=wanted).members
        assert sorted(member.name for member in found) == sorted(names)
    with pytest.raises(MemberError, match=r"no member long\.txt, nor values\.txt and rates\.txt"):
        manager.extract_archive(written(tmp_path, zip_of({"values.txt": b"1\n"})), tmp_path / "none", members=wanted)
    plain = [WantedMember("long.txt"), *wanted[1:]]
    limits = Limits(1, 1, 1.0)
    assert cut_id(wanted, limits, 1) != cut_id(plain, limits, 1)


@pytest.mark.parametrize(
    "members",
    [
        [WantedMember("a/b.txt")],
        [WantedMember("../b.txt")],
        [WantedMember("..")],
        [WantedMember("")],
        [WantedMember("a", ("B",)), WantedMember("b")],
        [WantedMember("manifest.json")],
    ],
)
def test_wanted_names_that_make_no_sense_are_a_configuration_error(
    manager: ExtractManager, tmp_path: Path, members: list[WantedMember]
) -> None:
    with pytest.raises(ConfigurationError):
        manager.extract_archive(written(tmp_path, zip_of(FILES)), tmp_path / "out", members=members)


def damaged_in(content: bytes, marker: bytes) -> bytes:
    """Flip a bit in the first stored content with this marker."""
    at = content.index(marker)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.fault(27)
@pytest.mark.fault(28)
def test_wrong_crc_counts_where_the_member_is_wanted(make_manager: Callable[..., ExtractManager], tmp_path: Path) -> None:
    events: list[tuple[str, Any]] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, figures)))
    archive = written(tmp_path, damaged_in(zip_of(FILES, zipfile.ZIP_STORED), b"CURRENT OWNER"))
    wanted = [WantedMember("real_acct.txt")]
    assert len(manager.extract_archive(archive, tmp_path / "good", members=wanted).members) == 1
    warnings = [figures for name, figures in events if name == "extract.unneeded_member_damaged"]
    assert [figures["member"] for figures in warnings] == ["owners.txt"]
    manager.extract_archive(archive, tmp_path / "quick", False, members=wanted)
    assert len([1 for name, _ in events if name == "extract.unneeded_member_damaged"]) == 1
    at = archive.read_bytes().index(b"acct\tname")
    for members in (None, [WantedMember("owners.txt")]):
        with pytest.raises(ArchiveError, match=rf"E_ARCHIVE: .*owners\.txt, at or after byte {at} of the archive, .*CRC-32"):
            manager.extract_archive(archive, tmp_path / "bad", members=members)
    with pytest.raises(ArchiveError, match=r"owners\.txt"):
        manager.verify_archive(archive)
    assert no_leftovers(tmp_path, "a.bin", "good", "quick")


UNNEEDED = b"acct\tname\n0001\tCURRENT OWNER" * 200
METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.fault(27)
@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damage", ["content", "crc", "header", "cut short"])
def test_damage_in_an_unneeded_member_never_touches_a_wanted_one(
    make_manager: Callable[..., ExtractManager], tmp_path: Path, method: str, damage: str, place: str
) -> None:
    events: list[tuple[str, str]] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, str(figures.get("error", "")))))
    files = {"other.txt": UNNEEDED, "real_acct.txt": ACCOUNTS}
    names = list(files) if place == "before" else list(reversed(files))
    content = bytearray(zip_of({name: files[name] for name in names}, METHODS[method]))
    local = content.index(b"other.txt") - 30
    central = content.index(b"other.txt", content.index(b"PK\x01\x02")) - 46
    (size,) = struct.unpack_from("<L", content, central + 20)
    if damage == "content":
        content[local + 39 + size // 2] ^= 0x55
    elif damage == "crc":
        content[central + 16] ^= 1
    elif damage == "header":
        content[local + 30] ^= 1
    else:
        struct.pack_into("<L", content, central + 20, size // 2)
    archive, wanted = written(tmp_path, bytes(content)), [WantedMember("real_acct.txt")]
    manifest = manager.extract_archive(archive, tmp_path / "out", members=wanted)
    (member,) = manifest.members
    assert member.sha256 == hashlib.sha256(ACCOUNTS).hexdigest() and (tmp_path / "out" / member.file).read_bytes() == ACCOUNTS
    assert no_leftovers(tmp_path / "out", "real_acct.txt", "manifest.json")
    (warning,) = [error for name, error in events if name == "extract.unneeded_member_damaged"]
    assert "member other.txt, at or after byte" in warning and "E_ARCHIVE" in warning
    with pytest.raises(ArchiveError, match=r"E_ARCHIVE: .*member other\.txt, at or after byte \d+"):
        manager.extract_archive(archive, tmp_path / "all", members=[*wanted, WantedMember("other.txt")])
    assert no_leftovers(tmp_path, "a.bin", "out")


@pytest.mark.fault(27)
def test_damage_in_an_unneeded_member_of_a_gzipped_tar_cannot_be_told_from_any_other(manager: ExtractManager, tmp_path: Path) -> None:
    """One checksum covers all: what lies behind the damage is not to be had, and what lies before it is not vouched for."""
    content = bytearray(gzip.compress(tar_of({"real_acct.txt": ACCOUNTS, "other.txt": UNNEEDED})))
    content[-6] ^= 1
    with pytest.raises(ArchiveError, match="E_ARCHIVE: .*is damaged"):
        manager.extract_archive(written(tmp_path, bytes(content)), tmp_path / "out", members=[WantedMember("real_acct.txt")])
    assert no_leftovers(tmp_path, "a.bin")


@pytest.mark.fault(26)
def test_tar_with_a_damaged_second_header_loses_no_member_silently(manager: ExtractManager, tmp_path: Path) -> None:
    content = bytearray(tar_of({"a.txt": b"1\n", "b.txt": b"2\n", "c.txt": b"3\n"}))
    content[1024 + 150] ^= 0xFF  # in the checksum of the second header
    with pytest.raises(ArchiveError, match="E_ARCHIVE: .*after 1 entries"):
        manager.extract_archive(written(tmp_path, bytes(content)), tmp_path / "out")


@pytest.mark.fault(34)
def test_zip64_is_read(manager: ExtractManager, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("a.txt", "w", force_zip64=True) as member:
        member.write(ACCOUNTS)
    assert manager.verify_archive(written(tmp_path, out.getvalue())).bytes == len(ACCOUNTS)


@pytest.mark.fault(34)
def test_more_than_65535_members_are_read_when_the_limit_allows(
    make_manager: Callable[..., ExtractManager], tmp_path: Path
) -> None:
    archive = written(
        tmp_path, zip_of({f"{number}.txt": b"" for number in range(65_540)} | {"a.txt": ACCOUNTS}, zipfile.ZIP_STORED)
    )
    manifest = make_manager(max_members=70_000).extract_archive(archive, tmp_path / "out", False, members=[WantedMember("a.txt")])
    assert manifest.members[0].lines == 500


def test_finished_folder_is_returned_without_reading_the_archive(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of(FILES))
    first = manager.extract_archive(archive, tmp_path / "out")
    archive.unlink()
    assert manager.extract_archive(archive, tmp_path / "out") == first
    (tmp_path / "out" / "owners.txt").write_bytes(b"")
    with pytest.raises(ArchiveError, match="0 bytes"):
        manager.extract_archive(archive, tmp_path / "out")
    with pytest.raises(DiskError, match="No such file"):
        manager.extract_archive(archive, tmp_path / "other")


def test_archive_that_is_not_the_downloaded_one_is_refused(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of(FILES))
    with pytest.raises(ChecksumMismatch):
        manager.extract_archive(archive, tmp_path / "out", sha256="0" * 64)
    manager.extract_archive(archive, tmp_path / "out", sha256=hashlib.sha256(archive.read_bytes()).hexdigest().upper())


@pytest.mark.fault(36)
def test_full_disk_leaves_nothing_behind(make_manager: Callable[..., ExtractManager], tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of({"a.txt": ACCOUNTS * 100}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(DiskError, match=os.strerror(errno.EFBIG)):
            make_manager().extract_archive(archive, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert no_leftovers(tmp_path, "a.bin")


@pytest.mark.fault(36)
def test_leftovers_of_a_killed_extraction_are_removed_by_the_next(manager: ExtractManager, tmp_path: Path) -> None:
    archive = written(tmp_path, zip_of({"a.txt": ACCOUNTS * 3000}))
    code = textwrap.dedent("""
        import pathlib, sys
        from pipeline.catalog.model import Limits
        from pipeline.extract import ExtractManager
        wait = lambda *_: (print("written", flush=True), sys.stdin.read())
        slow = ExtractManager(limits=Limits(9, 1 << 40, 1e9), on_event=wait)
        slow.extract_archive(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(archive), str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdin is not None and child.stdout.readline() == b"written\n"
    live = tmp_path / f".out.{child.pid}.part"
    assert (live / "a.txt").exists()
    small = written(tmp_path, zip_of(FILES), "small.bin")
    other = manager.extract_archive(small, tmp_path / "out")
    assert live.exists(), "the working folder of a live process is left alone"
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert live.exists()
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    (tmp_path / "out").rmdir()
    assert manager.extract_archive(small, tmp_path / "out") == other
    assert no_leftovers(tmp_path, "a.bin", "small.bin", "out")


def test_stream_gives_the_accepted_files_and_writes_none(manager: ExtractManager, tmp_path: Path) -> None:
    for kind, make in KINDS.items():
        archive = written(tmp_path, make(FILES))
        streamed = {name: b"".join(chunks) for name, chunks in manager.stream_extract(archive)}
        assert streamed == FILES, kind
        taken = [name for name, _ in manager.stream_extract(archive, lambda name: name.startswith("o"))]
        assert taken == ["owners.txt"]
    assert no_leftovers(tmp_path, "a.bin")


def test_verify_reports_what_it_read(manager: ExtractManager, tmp_path: Path) -> None:
    report = manager.verify_archive(written(tmp_path, KINDS["tar.gz"](FILES)))
    assert (report.kind, report.members, report.bytes) == ("tar.gz", 3, sum(map(len, FILES.values())))


def test_cut_id_changes_with_what_is_asked_for_and_not_with_order() -> None:
    limits = Limits(10, 1000, 5.0)
    a, b = WantedMember("a", ("x", "y")), WantedMember("b")
    first = cut_id([a, b], limits, 100)
    assert len(first) == 12 and first == cut_id([b, WantedMember("a", ("y", "x"))], limits, 100)
    others = {
        cut_id([a], limits, 100),
        cut_id(None, limits, 100),
        cut_id([a, b], limits, 101),
        cut_id([a, b], Limits(11, 1000, 5.0), 100),
        cut_id([a, WantedMember("b", (), False)], limits, 100),
        cut_id([WantedMember("a"), b], limits, 100),
        cut_id([a, b], limits, 100, nested=True),
    }
    assert len(others | {first}) == 8


def test_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped, zipped.open("a.txt", "w") as member:
        for _ in range(60):
            member.write(b"x" * (1 << 20))
    code = textwrap.dedent("""
        import pathlib, resource, sys
        from pipeline.catalog.model import Limits
        from pipeline.extract import ExtractManager
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ExtractManager(limits=Limits(9, 1 << 40, 1e9)).extract_archive(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    started = time.monotonic()
    grown_kb = int(subprocess.check_output([sys.executable, "-c", code, str(archive), str(tmp_path / "out")]))
    assert grown_kb < 30_000 and time.monotonic() - started < 20
