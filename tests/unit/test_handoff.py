"""What passes between stages reads back equal, and its file is whole or not there."""

import dataclasses

import pytest

from pipeline.handoff import Manifest, Member, Part, PartReport, publish_folder, read_json, write_json

MEMBER = Member("a.txt", "a.txt", 10, "00", 2, "é", "b", 2, 0, False, {4: 2}, 0, (Part(0, 0, 10, 1, 2),))


@pytest.mark.parametrize("document", [Manifest("a", "00", (MEMBER,)), PartReport("t", 0, 3, 1, 1, 0, {"blank_line": 1})])
def test_document_reads_back_equal(tmp_path, document):
    write_json(tmp_path / "d" / "x.json", document)
    assert type(document).from_json(read_json(tmp_path / "d" / "x.json")) == document


def test_balance_of_a_report_is_exact():
    report = PartReport("t", 0, 3, 1, 1, 0, {"blank_line": 1})
    assert report.is_balanced
    assert not dataclasses.replace(report, read=4).is_balanced


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_second_folder_of_the_same_work_is_dropped(tmp_path):
    for name, text in (("first", "1"), ("second", "2")):
        part = tmp_path / f".{name}.part"
        part.mkdir()
        (part / "file").write_text(text)
        publish_folder(part, tmp_path / "done")
    assert (tmp_path / "done" / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
