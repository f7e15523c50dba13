"""The identity of an archive reads back as it was written, and a file is named after it."""

import pytest

from pipeline.releases import ArchiveIdentity, Release, archive_file, archive_files, note_altered, read_stand_ins, with_editions


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
    note_altered(tmp_path, "tiny", 2025, archive_file("roll", "e-aa"), "1" * 64)
    note_altered(tmp_path, "tiny", 2025, archive_file("roll", "mb-bb", is_fallback=True), "2" * 64)
    assert with_editions(tmp_path, "tiny", 2025, seen) == {"roll": "e-aa~11111111+mb-bb~22222222", "other": "e-aa"}
    assert with_editions(tmp_path, "tiny", 2024, seen) == seen


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
