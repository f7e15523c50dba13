"""Checkpoints: what is behind one is not done again, what no longer fits is staged anew, and why is told and kept."""

import os
import re
import signal
from pathlib import Path

import pytest
from county import FEATURE, ORIGIN, OWNER, World

from pipeline.database import ledger
from pipeline.database.embedded import EmbeddedPostgres
from pipeline.database.engine import make_engine, transaction
from pipeline.errors import AccountingError, StagingStale
from pipeline.load.checkpoints import Origin
from pipeline.load.manager import LoadManager

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
FIRST = [("1", "ANN", None), ("2", "BOB", None), ("3", "EVE", None)]
SECOND = [("1", "ANN", None), ("2", "BEN", None), ("4", "NEW", None)]
THIRD = [[("1", "ANA", None), ("2", "BEN", None)], [("3", "EVE", None), ("5", "LAST", None)]]


@pytest.fixture
def told(world):
    """The events of the world's loads."""
    events = []
    world.loads.on_event = lambda event, figures: events.append((event, dict(figures)))
    return events


def of(told, event):
    return [figures for name, figures in told if name == event]


def alter(world, *statements):
    with transaction(world.engine) as cursor:
        for statement in statements:
            cursor.execute(statement)


def parts_of(world, rows, origin, key):
    """Stage a table's parts as the tasks do: those that have no checkpoint; returns their numbers."""
    found = world.loads.open_import(key, OWNER)
    world.loads.expect_parts(key, OWNER, origin)
    done = world.loads.resume_from_checkpoint(found.import_id).parts.get("owner", ())
    missing = [number for number in range(len(rows)) if number not in done]
    for number in missing:
        line = 1 + sum(map(len, rows[:number]))
        world.loads.stage_part(key, OWNER, world.part(OWNER, rows[number], part=number, first_line=line), origin=origin)
    return missing


def finish(world, key, origin, records=4, parts=2):
    world.settle(key, OWNER, parts=parts, records=records, origin=origin)
    world.stage(key, FEATURE, [[("1", "POOL")]], origin=Origin("feature", "t1", "c1"))
    world.loads.check_release(key, world.county)
    return world.loads.publish(key, world.county)


def killed_after_copy(world, key, folder, origin):
    """A process of its own stages a part and is killed between its COPY and its commit."""

    class Killed(LoadManager):
        def bulk_upsert(self, *arguments, **named):
            super().bulk_upsert(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

    url = world.engine.url
    child = os.fork()
    if child == 0:
        try:
            Killed(make_engine(url)).stage_part(key, OWNER, folder, origin=origin)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.fault(55)
def test_stage_kill_roll_back_the_base_resume(world, told):
    """Each of the four for real: what was compared with the import that was taken back is not mixed with what is compared now."""
    world.publish("a", FIRST, [("1", "POOL")])
    world.publish("b", SECOND, [("1", "POOL")])
    key, origin = world.key("c"), Origin("m3", "t1", "c1")
    assert parts_of(world, THIRD[:1], origin, key) == [0]
    # Against b, BEN is live and not staged whole; against a, he is not.
    assert world.rows("select acct from etl_staging.i3_owner_rows order by 1") == [("1",)]
    second = world.part(OWNER, THIRD[1], part=1, first_line=3)
    killed_after_copy(world, key, second, origin)
    assert world.loads.resume_from_checkpoint(3).parts == {"owner": (0,)}

    world.loads.rollback_import(2)
    with pytest.raises(StagingStale, match="is gone"):
        world.loads.stage_part(key, OWNER, second, origin=origin)
    assert world.loads.resume_from_checkpoint(3).parts == {}
    assert parts_of(world, THIRD, origin, key) == [0, 1]
    assert world.rows("select acct from etl_staging.i4_owner_rows order by 1") == [("1",), ("2",), ("5",)]
    why = "import 2, which it was compared with, was rolled back"
    assert of(told, "load.staged_anew") == [{"import_id": 4, "instead_of": 3, "why": why}]
    assert world.rows("select state, message from etl.import where import_id = 3") == [("superseded", why)]

    changes = finish(world, key, origin)["owner"]
    assert (changes.inserted, changes.updated, changes.deleted) == (1, 2, 0)
    resumed = world.hashes()
    assert world.leftovers()[0] == []
    world.loads.rollback_import(4)
    world.publish("d", THIRD, [("1", "POOL")])
    assert world.hashes() == resumed, "as if nothing had happened in between"


@pytest.mark.fault(71)
def test_staging_that_another_import_overtook_is_begun_anew_and_says_with_what_it_was_compared(world, told):
    world.publish("a", FIRST, [("1", "POOL")])
    key = world.key("c")
    assert parts_of(world, THIRD, ORIGIN, key) == [0, 1]
    # What a plain luigi of another release does, which holds no lock.
    alter(world, "update etl.import set base_import_id = null where import_id = 2")
    with pytest.raises(StagingStale, match="compared with import none, and import 1 is current"):
        world.settle(key, OWNER, parts=2, records=4)
    assert parts_of(world, THIRD, ORIGIN, key) == [0, 1]
    assert [figures["why"] for figures in of(told, "load.staged_anew")] == ["it was compared with import none, and import 1 is current"]


@pytest.mark.fault(71, 82)
def test_what_another_revision_of_the_program_staged_is_staged_anew_and_why_is_told(world, told, monkeypatch):
    key = world.key("a")
    with monkeypatch.context() as older:
        older.setattr(ledger, "STAGING_REVISION", ledger.STAGING_REVISION - 1)
        assert parts_of(world, THIRD, ORIGIN, key) == [0, 1]
    with pytest.raises(StagingStale, match="revision"):
        world.settle(key, OWNER, parts=2, records=4)
    assert parts_of(world, THIRD, ORIGIN, key) == [0, 1]
    (figures,) = of(told, "load.staged_anew")
    assert figures["why"] == f"its staging tables are of revision {ledger.STAGING_REVISION - 1}, and this program's of {ledger.STAGING_REVISION}"
    finish(world, key, ORIGIN)
    assert world.hashes()["owner"][0] == 4


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Origin("m1", "t1", "c2"), "another cut"),
        (Origin("m1", "t2", "c1"), "another recipe"),
        (Origin("m2", "t1", "c2"), "another member, another cut"),
    ],
    ids=["cut", "recipe", "member"],
)
def test_checkpoints_of_another_origin_are_ignored_and_why_is_told(world, told, other, why):
    key = world.key("a")
    parts_of(world, THIRD, ORIGIN, key)
    assert parts_of(world, THIRD, other, key) == [0, 1]
    assert of(told, "load.parts_taken_back") == [{"table": "county.owner", "parts": 2, "why": why}]
    finish(world, key, other)


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("update etl.checkpoint set rows_staged = rows_staged + 1 where part = 1", "it says 3 rows, and 2 are staged"),
        ("update etl.checkpoint set rows_read = 7 where part = 1", "it does not balance"),
        ("update etl.checkpoint set quarantined = 1, rows_read = 3 where part = 1", "it says 1 quarantined, and the ledger 0"),
        ("insert into etl.checkpoint select (json_populate_record(c, '{\"part\": -3}')).* from etl.checkpoint c where part = 1",
         "-3: the member has no such part"),
        ("delete from etl_staging.i1_owner_rows where part = 1; delete from etl_staging.i1_owner_keys where part = 1",
         "it says 2 rows, and 0 are staged"),
        ("update etl.checkpoint set rows_read = 7, duplicate = 5 where part = 1",
         "0: the account over all parts does not add up, and which of them is wrong cannot be told; "
         "1: the account over all parts does not add up, and which of them is wrong cannot be told"),
    ],
    ids=["rows", "balance", "quarantine", "invented", "rows gone", "undetectable"],
)  # fmt: skip
def test_damaged_checkpoint_is_ignored_with_its_reason_and_its_part_staged_again(world, told, damage, why):
    key = world.key("a")
    parts_of(world, THIRD, ORIGIN, key)
    alter(world, damage)
    expected = AccountingError if "cannot be told" in why else StagingStale
    with pytest.raises(expected):
        world.settle(key, OWNER, parts=2, records=4)
    events = of(told, "load.damaged_checkpoint")
    said = {figures["part"]: figures["why"] for figures in events}
    wanted = dict((int(part), words) for part, words in re.findall(r"(-?\d+): ([^;]+)", why)) or {1: why}
    assert said == wanted and {figures["table"] for figures in events} == {"county.owner"}
    again = parts_of(world, THIRD, ORIGIN, key)
    assert set(again) == {part for part in said if 0 <= part < 2}
    finish(world, key, ORIGIN)
    assert world.hashes()["owner"][0] == 4
    assert world.leftovers()[0] == []


@pytest.mark.fault(57)
def test_crash_of_the_server_empties_checkpoints_and_staging_together_and_the_ledger_stays(open_folder, tmp_path):
    server = EmbeddedPostgres(open_folder / "pg")
    world = World(server.start(), tmp_path)
    try:
        world.publish("a", FIRST, [("1", "POOL")])
        key, before = world.key("c"), world.hashes()
        line = '{"line": 5, "offset": 9, "raw": "x", "rules": ["acct:regex"], "reasons": {"acct": ["no"]}}'
        world.loads.open_import(key, OWNER)
        folder = world.part(OWNER, [row for rows in THIRD for row in rows], quarantined=[line])
        world.loads.stage_part(key, OWNER, folder, origin=ORIGIN)
        world.settle(key, OWNER, parts=1, records=5)
        # What was committed a moment ago may be lost of an unlogged table; that it is empty is the promise.
        os.kill(server._recorded().postmaster(), signal.SIGKILL)
        world.engine.dispose()
        server.start()
        for name in ("etl.checkpoint", "etl.staged_table", "etl_staging.i2_owner_keys", "etl_staging.i2_owner_rows"):
            assert world.rows(f"select count(*) from {name}") == [(0,)], name
        assert world.hashes() == before
        assert world.rows("select state from etl.import order by import_id") == [("published",), ("staging",)]
        assert world.rows("select count(*) from etl.quarantine") == [(1,)]
        assert world.loads.resume_from_checkpoint(2).parts == {}
        assert world.loads.stage_part(key, OWNER, folder, origin=ORIGIN).written == 4
        changes = finish(world, key, ORIGIN, records=5, parts=1)["owner"]
        assert (changes.inserted, changes.updated, changes.deleted) == (1, 2, 0)
        assert world.rows("select count(*) from etl.quarantine") == [(1,)]
    finally:
        world.engine.dispose()
        server.stop()


def test_example_of_checkpoints_in_the_operators_guide_goes_on_where_it_broke_off(world, database_url):
    """The example as it is printed, broken off in its second round of three and started again."""
    (example,) = re.findall(r"```python\n(.*?checkpoint_progress.*?)```", OPERATIONS.read_text(), re.DOTALL)
    alter(world, "create table public.parcel (acct text primary key, owner text)")
    records = [{"acct": f"{number:05}", "owner": "ANN"} for number in range(12_000)]

    class Broken(list):
        def __getitem__(self, place):
            if isinstance(place, slice) and place.start == 5000:
                raise InterruptedError
            return super().__getitem__(place)

    names = {"DATABASE_URL": database_url}
    with pytest.raises(InterruptedError):
        exec(example, names | {"records": Broken(records)})
    assert world.rows("select count(*) from public.parcel") == [(5000,)]
    exec(example, names | {"records": records})
    assert world.rows("select count(*) from public.parcel") == [(12_000,)]
    assert world.rows("select rows_read from etl.checkpoint") == [(12_000,)]
