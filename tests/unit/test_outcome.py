"""The exit code of a run says the worst that happened, and Luigi's own code counts only where the ledger is silent."""

from dataclasses import replace

import pytest

from pipeline import outcome
from pipeline.database.runs import FailedAttempt
from pipeline.extract.wanted import cuts_of
from pipeline.outcome import SyncOutcome, run_outcome
from pipeline.releases import Release
from pipeline.settings import find_source, process_settings


def sync(code, state="failed", message="why"):
    return SyncOutcome("hcad", 2025, state, code, message, None, ())


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 20], 20), ([20, 30], 30), ([30, 31, 20], 31), ([31, 40], 40), ([35, 31], 35), ([0, 99], 99)],
)
def test_worst_of_several_codes_is_the_runs(codes, expected):
    assert run_outcome([sync(code) for code in codes], [], 0)[0] == expected


def test_message_is_that_of_the_worst():
    code, word, message = run_outcome([sync(20, message="not yet"), sync(31, message="header")], [], 30)
    assert (code, word, message) == (31, "refused", "header")


@pytest.mark.parametrize(("luigi_code", "expected"), [(0, 0), (25, 30), (30, 30), (35, 35), (40, 40), (1, 40), (-9, 30)])
def test_luigi_has_a_word_when_the_ledger_has_none(luigi_code, expected):
    assert run_outcome([sync(0, "unchanged", "")], [], luigi_code)[0] == expected


def test_luigis_word_does_not_count_where_a_task_said_why():
    failure = FailedAttempt("StageTable", {}, "E_HEADER", 31, "header")
    assert run_outcome([sync(31)], [failure], 30)[0] == 31


def test_what_was_published_is_named():
    outcomes = [sync(0, "published", ""), sync(0, "unchanged", "")]
    assert run_outcome(outcomes, [], 0) == (0, "done", "published hcad 2025")
    assert run_outcome([sync(0, "unchanged", "")], [], 0) == (0, "done", "nothing new")


def test_archive_that_was_bad_before_a_schema_file_was_mended_is_not_said_to_be_bad(tmp_path):
    settings, source = replace(process_settings(), state=tmp_path), find_source("hcad")
    archive = source.archives[0].name
    release = Release.of("hcad", 2025, "production", {archive: "e-aa"})
    release.write(tmp_path)
    folder = tmp_path / "members" / "hcad" / "2025"
    folder.mkdir(parents=True)
    (folder / f"{archive}-e-aa-0123456789ab.bad.json").write_text('{"code": "E_MEMBER", "message": "no member"}')
    cut = cuts_of(source, 2025, settings.part_bytes)[archive]
    (folder / f"{archive}-e-aa-{cut}").mkdir()
    assert outcome._stand_ins(settings, "hcad", 2025, {"release": release.release}) == []
    (folder / f"{archive}-e-aa-{cut}.bad.json").write_text('{"code": "E_MEMBER", "message": "still none"}')
    (said,) = outcome._stand_ins(settings, "hcad", 2025, {"release": release.release})
    assert said == f"{archive} is bad, and the last good one stands in: still none"
