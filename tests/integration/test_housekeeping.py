"""After a run the state folder holds what the current releases need, and nothing of what they do not."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from county import OWNER
from psycopg2.extras import Json

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from small_disk import mounted

from pipeline import runner
from pipeline.database import ledger, runs
from pipeline.database.engine import transaction
from pipeline.housekeeping import Retention, sweep


@pytest.fixture
def state(world, tmp_path):
    """Three releases: a and b were published, c is being staged when ``staging`` says so."""
    for release, state_name in (("a", "superseded"), ("b", "superseded"), ("c", "published")):
        with transaction(world.engine) as cursor:
            cursor.execute(
                "insert into etl.release (source, tax_year, release, profile, archives) values ('county', 2025, %s, 'test', %s)",
                [release, Json({"roll": f"{release}111"})],
            )
            cursor.execute(
                """insert into etl.import (source, tax_year, release, recipe, profile, state, published_at)
                   values ('county', 2025, %s, 'r', 'test', %s, now())""",
                [release, state_name],
            )
        for kind in ("archives", "members", "parts"):
            folder = tmp_path / "var" / kind / "county" / "2025"
            folder.mkdir(parents=True, exist_ok=True)
            if kind == "archives":
                (folder / f"roll-{release}111").write_bytes(b"x" * 10)
                (folder / f"roll-{release}111.receipt.json").write_bytes(b"x" * 10)
            else:
                (folder / f"roll-{release}111-cut").mkdir()
                (folder / f"roll-{release}111-cut" / "file").write_bytes(b"x" * 10)
    return tmp_path / "var"


def left(state, kind):
    return sorted(path.name for path in (state / kind / "county" / "2025").iterdir())


def test_parts_go_members_stay_for_the_current_release_and_archives_for_two(world, state):
    assert sweep(world.engine, state, "county", 2025) == 30 + 20 + 20
    assert left(state, "parts") == []
    assert left(state, "members") == ["roll-c111-cut"]
    assert left(state, "archives") == ["roll-b111", "roll-b111.receipt.json", "roll-c111", "roll-c111.receipt.json"]
    assert sweep(world.engine, state, "county", 2025) == 0


@pytest.mark.parametrize(
    ("keep", "members", "archives"),
    [(Retention(1, 0), [], ["c"]), (Retention(3, 2), ["b", "c"], ["a", "b", "c"]), (Retention(1, 3), ["a", "b", "c"], ["c"])],
)
def test_policy_says_of_how_many_releases_members_and_archives_stay(world, state, keep, members, archives):
    sweep(world.engine, state, "county", 2025, keep=keep)
    assert left(state, "members") == [f"roll-{release}111-cut" for release in members]
    assert [name for name in left(state, "archives") if "receipt" not in name] == [f"roll-{release}111" for release in archives]


def test_document_that_a_killed_process_was_writing_goes_and_one_that_is_being_written_stays(world, state):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True).stdout.strip()
    folder = state / "releases" / "county" / "2025"
    folder.mkdir(parents=True)
    kept = ["2026-01-01T000000Z.json", f".2026-01-02T000000Z.json.{os.getpid()}.part"]
    for name in (*kept, f".2026-01-03T000000Z.json.{dead}.part"):
        (folder / name).write_text("{}")
    sweep(world.engine, state, "county", 2025)
    assert left(state, "releases") == sorted(kept)


def test_leftovers_of_killed_attempts_go_whatever_the_policy(world, state):
    leftover = state / "members" / "county" / "2025" / ".roll-c111-cut.4711.part"
    leftover.mkdir()
    (leftover / "file").write_bytes(b"half")
    sweep(world.engine, state, "county", 2025, keep=Retention(9, 9))
    assert not leftover.exists() and left(state, "members") == [f"roll-{release}111-cut" for release in "abc"]


def test_nothing_goes_while_something_is_being_staged_or_nothing_is_current(world, state):
    with transaction(world.engine) as cursor:
        cursor.execute("insert into etl.import (source, tax_year, release, recipe, profile) values ('county', 2025, 'd', 'r', 'test')")
    assert sweep(world.engine, state, "county", 2025) == 0
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.import set state = 'refused' where state in ('staging', 'published')")
    assert sweep(world.engine, state, "county", 2025) == 0
    assert len(left(state, "parts")) == 3


def test_edition_that_is_no_releases_goes_though_its_name_begins_as_one_that_is(world, state):
    archives, members = (state / kind / "county" / "2025" for kind in ("archives", "members"))
    (archives / "roll-c111~0a").write_bytes(b"x")
    (archives / "roll-c111~0a.receipt.json").write_bytes(b"x")
    (members / "roll-c111~0a-cut").mkdir()
    (members / "roll-c111-more-cut.bad.json").write_bytes(b"x")
    sweep(world.engine, state, "county", 2025)
    assert left(state, "archives") == ["roll-b111", "roll-b111.receipt.json", "roll-c111", "roll-c111.receipt.json"]
    assert left(state, "members") == ["roll-c111-cut"]


def test_members_and_notes_of_what_is_no_longer_asked_for_go(world, state):
    members = state / "members" / "county" / "2025"
    for name in ("roll-c111-cut.first-bad.json", "roll-c111-old.bad.json", "roll-b111-cut.bad.json"):
        (members / name).write_bytes(b"x")
    (members / "roll-c111-old").mkdir()
    sweep(world.engine, state, "county", 2025, keep=Retention(members=2), cuts={"roll": "cut"})
    assert left(state, "members") == ["roll-b111-cut", "roll-c111-cut", "roll-c111-cut.first-bad.json"]
    # Nothing was made of another limit yet: what was asked for before is still what is live, and why.
    sweep(world.engine, state, "county", 2025, cuts={"roll": "other"})
    assert left(state, "members") == ["roll-c111-cut", "roll-c111-cut.first-bad.json"]


def test_notes_beside_an_archive_stay_as_long_as_it_and_no_longer(world, state):
    archives = state / "archives" / "county" / "2025"
    ends = ("suspect", "bad", "distrusted", "part")
    for release in "abc":
        for end in ends:
            (archives / f"roll-{release}111.{end}.json").write_bytes(b"x")
    sweep(world.engine, state, "county", 2025, keep=Retention(archives=1))
    assert left(state, "archives") == sorted(["roll-c111", "roll-c111.receipt.json", *(f"roll-c111.{end}.json" for end in ends)])


def test_fallback_and_edition_of_a_kept_release_stay_with_it(world, state):
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.release set archives = %s where release = 'c'", [Json({"roll": "c111~0a+f222"})])
    archives, members = (state / kind / "county" / "2025" for kind in ("archives", "members"))
    for name in ("roll-c111~0a", "roll.fallback-f222", "roll.fallback-f222.receipt.json", "roll.fallback-old"):
        (archives / name).write_bytes(b"x")
    (members / "roll-c111~0a+f222-cut.first-bad.json").write_bytes(b"x")
    sweep(world.engine, state, "county", 2025)
    kept = ["roll-b111", "roll-b111.receipt.json", "roll-c111~0a", "roll.fallback-f222", "roll.fallback-f222.receipt.json"]
    assert left(state, "archives") == kept
    assert left(state, "members") == ["roll-c111~0a+f222-cut.first-bad.json"]
    sweep(world.engine, state, "county", 2025, keep=Retention(members=0))
    assert left(state, "members") == ["roll-c111~0a+f222-cut.first-bad.json"]


@pytest.mark.fault(69)
def test_cleaning_up_that_fails_is_a_warning_and_the_next_run_does_it(world, state, monkeypatch, caplog):
    parts = state / "parts" / "county" / "2025"
    settings = SimpleNamespace(state=state, kept_archives=2, kept_members=1, part_bytes=1_000_000)
    monkeypatch.setattr(runner, "find_source", lambda _: world.county)
    sync = SimpleNamespace(source="county", year=2025)
    token = taken(world)
    with mounted(parts, "--bind", str(parts)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(parts)], check=True)
        runner._tidy(world.engine, settings, sync, token)
        assert "run.not_swept" in caplog.text
        assert len(left(state, "parts")) == 3
    caplog.clear()
    runner._tidy(world.engine, settings, sync, token)
    assert "run.not_swept" not in caplog.text
    assert left(state, "parts") == []
    assert world.rows("select count(*) from etl.import where state = 'published'") == [(1,)]


@pytest.mark.fault(63)
def test_run_that_was_taken_over_leaves_what_the_newer_one_stages(world, state, monkeypatch, caplog):
    settings = SimpleNamespace(state=state, kept_archives=2, kept_members=1, part_bytes=1_000_000)
    monkeypatch.setattr(runner, "find_source", lambda _: world.county)
    ours, theirs = taken(world), taken(world)
    world.loads.open_import(world.key("d"), OWNER)
    runner._tidy(world.engine, settings, SimpleNamespace(source="county", year=2025), ours)
    assert "run.not_swept" in caplog.text and "E_FENCED" in caplog.text
    assert world.rows("select state from etl.import where release = 'd'") == [("staging",)]
    assert len(left(state, "parts")) == 3
    runner._tidy(world.engine, settings, SimpleNamespace(source="county", year=2025), theirs)
    assert left(state, "parts") == []


def taken(world):
    """The token of a run that takes the source now."""
    run = runs.start_run(world.engine, "run", "test", dt.datetime(2026, 3, 1))
    with transaction(world.engine) as cursor:
        return ledger.take_source(cursor, "county", run)
