"""A target exists exactly when all of its work is there; one with something missing is made anew."""

import pytest

from pipeline.handoff import Manifest, Member, Receipt, write_json
from pipeline.targets import ArchiveTarget, FileTarget, MembersTarget, PartTarget, Refusal

MEMBER = Member("a.txt", "a.txt", 4, "00", 1, "abc", "abc", 0, 1, False, {3: 1}, 0, ())


@pytest.fixture
def members(tmp_path):
    folder = tmp_path / "members"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"abc\n")
    write_json(folder / "manifest.json", Manifest("a", "00", (MEMBER,)))
    return MembersTarget(folder)


@pytest.mark.fault(73)
@pytest.mark.parametrize("damage", ["remove", "shorten"])
def test_extraction_with_a_member_missing_or_short_is_not_there_and_is_cleared(members, damage):
    assert members.exists()
    member = members.path / "a.txt"
    if damage == "remove":
        member.unlink()
    else:
        member.write_bytes(b"ab")
    assert not members.exists()
    assert not members.prepare().exists()


def test_whole_extraction_is_not_cleared(members):
    members.prepare()
    assert members.exists()


@pytest.mark.fault(73)
@pytest.mark.parametrize("missing", ["rows.parquet", "quarantine.jsonl", "report.json"])
def test_part_with_a_file_missing_is_not_there(tmp_path, missing):
    for name in ("rows.parquet", "quarantine.jsonl", "report.json"):
        (tmp_path / name).write_text("x")
    assert PartTarget(tmp_path).exists()
    (tmp_path / missing).unlink()
    assert not PartTarget(tmp_path).exists()


@pytest.mark.fault(73)
def test_archive_of_another_length_than_its_receipt_is_not_there(tmp_path):
    target = ArchiveTarget(tmp_path / "roll-1")
    assert not target.exists()
    target.path.write_bytes(b"1234")
    assert not target.exists()
    write_json(target.receipt, Receipt("http://h/a", "roll-1", "00", 4, "f", None, None, 1, "2026-01-01T00:00:00+00:00"))
    assert target.exists()
    target.path.write_bytes(b"123")
    assert not target.exists()


@pytest.mark.fault(73)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_file_that_is_empty_or_damaged_is_not_there(tmp_path, content):
    target = FileTarget(tmp_path / "x.json")
    assert not target.exists()
    write_json(target.path, {"release": None})
    assert target.exists()
    target.path.write_bytes(content)
    assert not target.exists()


DAMAGED = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"url": "x"}', b'{"members": 5, "archive": "a", "sha256": "0"}', b"[" * 100_000]


@pytest.mark.fault(73)
@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: ascii(content[:12]))
def test_receipt_that_cannot_be_read_means_no_archive(tmp_path, content):
    told = []
    target = ArchiveTarget(tmp_path / "roll-1", on_event=lambda event, figures: told.append((event, figures["path"])))
    target.path.write_bytes(b"1234")
    target.receipt.write_bytes(content)
    assert not target.exists()
    assert told == [("state.unreadable", str(target.receipt))]


@pytest.mark.fault(73)
@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: ascii(content[:12]))
def test_manifest_that_cannot_be_read_means_no_members_and_is_cleared(members, content):
    told = []
    target = MembersTarget(members.path, on_event=lambda event, figures: told.append(event))
    (members.path / "manifest.json").write_bytes(content)
    assert not target.exists() and told == ["state.unreadable"]
    assert not target.prepare().exists()


@pytest.mark.fault(73)
@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: ascii(content[:12]))
def test_note_of_a_bad_archive_that_cannot_be_read_is_none(tmp_path, content):
    told = []
    for target in (ArchiveTarget(tmp_path / "a", may_be_bad=True, on_event=lambda event, figures: told.append(event)),
                   MembersTarget(tmp_path / "b", may_be_bad=True, on_event=lambda event, figures: told.append(event))):  # fmt: skip
        write_json(target.bad, Refusal("E_ARCHIVE", "bad"))
        assert target.exists() and target.refusal() == Refusal("E_ARCHIVE", "bad")
        target.bad.write_bytes(content)
        assert not target.exists() and target.refusal() is None
    target.first_bad.write_bytes(content)
    assert target.first_refusal() is None
    assert set(told) == {"state.unreadable"}
