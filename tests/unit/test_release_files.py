"""The identity of an archive reads back as it was written, and a file is named after it."""

import hashlib
import multiprocessing

import pytest

from pipeline.errors import DiskError
from pipeline.releases import (
    ArchiveIdentity,
    Release,
    archive_file,
    archive_files,
    is_file_of,
    next_edition,
    note_altered,
    read_stand_ins,
    with_editions,
)


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("e-0123456789ab", ArchiveIdentity("e-0123456789ab")),
        ("e-0123456789ab~deadbeef", ArchiveIdentity("e-0123456789ab", "deadbeef")),
        ("el-01-02+mb-03", ArchiveIdentity("el-01-02", None, "mb-03")),
        ("el-01-02~aa+mb-03~bb", ArchiveIdentity("el-01-02", "aa", "mb-03~bb")),
    ],
)
def test_identity_reads_back_as_it_was_written(text, identity):
    assert ArchiveIdentity.parse(text) == identity and str(identity) == text
    assert identity.own == text.partition("+")[0]


def test_files_of_an_archive_and_of_its_fallback_never_share_a_name():
    assert archive_file("roll", "l-0-aa") != archive_file("roll", "l-0-aa", is_fallback=True)
    assert archive_files("roll", "e-aa~bb+mb-cc~dd") == {"roll-e-aa~bb", "roll.fallback-mb-cc~dd"}
    assert archive_files("roll", "e-aa") == {"roll-e-aa"}


def test_altered_archives_and_fallbacks_get_an_edition_and_others_do_not(tmp_path):
    seen = {"roll": "e-aa+mb-bb", "other": "e-aa"}
    assert with_editions(tmp_path, "tiny", 2025, seen) == seen
    note_altered(tmp_path, "tiny", 2025, archive_file("roll", "e-aa"), "1" * 9)
    # What a version before noted: the whole sum.
    note_altered(tmp_path, "tiny", 2025, archive_file("roll", "mb-bb", is_fallback=True), "2" * 64)
    assert with_editions(tmp_path, "tiny", 2025, seen) == {"roll": "e-aa~111111111+mb-bb~22222222", "other": "e-aa"}
    assert with_editions(tmp_path, "tiny", 2024, seen) == seen


def test_edition_of_the_same_bytes_is_another_each_time_and_always_the_beginning_of_their_sum(tmp_path):
    sha256, editions = hashlib.sha256(b"x").hexdigest(), [None]
    for _ in range(56):
        editions.append(next_edition(sha256, editions[-1]))
    assert len(set(editions)) == 57 and all(sha256.startswith(edition) for edition in editions[1:])
    assert [len(edition) for edition in editions[1:3]] == [8, 9]
    assert next_edition(sha256, editions[-1]) == editions[1], "the whole sum is none: it was what was noted once"
    assert next_edition("f" * 64, editions[3]) == "f" * 8


@pytest.mark.fault(73)
@pytest.mark.parametrize("text", ["", "{", "[]", '{"roll-e-aa": 5}', "[" * 100_000])
def test_damaged_files_of_releases_are_the_disks_fault_and_say_what_to_do(tmp_path, text):
    folder = tmp_path / "releases" / "tiny" / "2025"
    folder.mkdir(parents=True)
    (folder / "altered.json").write_text(text)
    for ask in (
        lambda: with_editions(tmp_path, "tiny", 2025, {"roll": "e-aa"}),
        lambda: note_altered(tmp_path, "tiny", 2025, "roll-e-aa", "1" * 8),
    ):
        with pytest.raises(DiskError, match=r"altered\.json cannot be read.*run with --force"):
            ask()
    assert (folder / "altered.json").read_text() == text, "what it said before may still be had from it by hand"
    (folder / "release-abc.json").write_text(text)
    with pytest.raises(DiskError, match=r"release-abc\.json cannot be read.*the next probe writes it anew"):
        Release.read(tmp_path, "tiny", 2025, "abc")


def test_what_stands_in_is_told_of_this_release_only_and_the_last_word_counts(tmp_path):
    folder = tmp_path / "members" / "tiny" / "2025"
    folder.mkdir(parents=True)
    for name in ("roll-e-aa+mb-bb-cut.first-bad.json", "hearings-e-cc-cut.bad.json", "hearings-e-dd-cut.bad.json"):
        (folder / name).write_text(f'{{"code": "E_ARCHIVE", "message": "{name}"}}')
    release = Release.of("tiny", 2025, "production", {"roll": "e-aa+mb-bb", "hearings": "e-cc", "other": "e-cc"})
    assert read_stand_ins(tmp_path, release) == {
        "roll": ("its fallback stands in", "roll-e-aa+mb-bb-cut.first-bad.json"),
        "hearings": ("the last good one stands in", "hearings-e-cc-cut.bad.json"),
    }
    (folder / "roll-e-aa+mb-bb-cut.bad.json").write_text('{"code": "E_ARCHIVE", "message": "both"}')
    assert read_stand_ins(tmp_path, release)["roll"] == ("the last good one stands in", "both")


def test_note_of_what_was_asked_for_before_says_nothing_of_what_is_asked_for_now(tmp_path):
    folder = tmp_path / "members" / "tiny" / "2025"
    folder.mkdir(parents=True)
    (folder / "roll-e-aa-old.bad.json").write_text('{"code": "E_MEMBER", "message": "no member owner.txt"}')
    (folder / "roll-e-aa+mb-bb-now.first-bad.json").write_text('{"code": "E_MEMBER", "message": "of another release"}')
    release = Release.of("tiny", 2025, "production", {"roll": "e-aa"})
    # While nothing was made of what is asked for now, what is live was made of what was asked for before.
    assert read_stand_ins(tmp_path, release, cuts={"roll": "now"})["roll"][1] == "no member owner.txt"
    (folder / "roll-e-aa-now").mkdir()
    assert read_stand_ins(tmp_path, release, cuts={"roll": "now"}) == {}
    assert read_stand_ins(tmp_path, release, cuts={"roll": "old"})["roll"][1] == "no member owner.txt"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '\"x\"'])
def test_damaged_note_still_says_that_something_stands_in(tmp_path, text):
    folder = tmp_path / "members" / "tiny" / "2025"
    folder.mkdir(parents=True)
    (folder / "roll-e-aa-cut.bad.json").write_text(text)
    found = read_stand_ins(tmp_path, Release.of("tiny", 2025, "production", {"roll": "e-aa"}))
    assert found["roll"][0] == "the last good one stands in" and "cannot be read" in found["roll"][1]


def note_many(state, archive, together):
    together.wait()
    for number in range(20):
        note_altered(state, "tiny", 2025, archive_file(archive, f"e-{number}"), "1" * 64)


def test_archives_that_several_processes_find_altered_at_once_are_all_noted(tmp_path):
    spawn = multiprocessing.get_context("fork")
    together = spawn.Barrier(4)
    noting = [spawn.Process(target=note_many, args=(tmp_path, archive, together)) for archive in "abcd"]
    for process in noting:
        process.start()
    for process in noting:
        process.join()
    assert [process.exitcode for process in noting] == [0] * 4
    for archive in "abcd":
        for number in range(20):
            assert with_editions(tmp_path, "tiny", 2025, {archive: f"e-{number}"}) == {archive: f"e-{number}~11111111"}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("roll-e-aa", True), ("roll-e-aa.receipt.json", True), ("roll-e-aa.part.json", True), ("roll-e-aa.bad.json", True),
        ("roll-e-aa~bb", False), ("roll-e-aab", False), ("roll-e-aa~bb.receipt.json", False), ("roll-e-aa.x-e-0123", False),
        (".roll-e-aa.receipt.json.12.part", False),
    ],
)  # fmt: skip
def test_file_of_an_archive_is_told_by_its_whole_name(name, is_one):
    assert is_file_of(name, "roll-e-aa") is is_one
