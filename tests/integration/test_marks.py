"""What says that something is done, or at work, is damaged or left behind: it is seen for what it is, and done again."""

import dataclasses
import datetime as dt
import os
import subprocess
import sys

import pytest
from county import FEATURE, ORIGIN, OWNER
from psycopg2 import sql

from pipeline.catalog.model import Check
from pipeline.database import runs
from pipeline.database.engine import transaction
from pipeline.errors import StagingStale
from pipeline.load.checkpoints import Origin

ROWS = [("1", "ANN", None), ("2", "BOB", None), ("2", "BOB", None), ("3", "EVE", None)]
NOW = dt.datetime(2026, 3, 1)
DAMAGE = {
    "wrong figure": "update etl.checkpoint set rows_staged = rows_staged + 1 where part = 0",
    "checkpoint gone": "delete from etl.checkpoint where part = 0",
    "all checkpoints gone": "delete from etl.checkpoint",
    "table's marker gone": "delete from etl.staged_table",
    "rows gone": "delete from etl_staging.i1_owner_keys where acct = '1'",
}


def stage(world, key):
    """As StageTable does it: what is there is looked at, parts that lack a checkpoint are staged, the table is settled."""
    parts = [ROWS[:2], ROWS[2:]]
    world.loads.open_import(key, OWNER)
    taken_back = world.loads.expect_parts(key, OWNER, ORIGIN)
    for number, rows in enumerate(parts):
        world.loads.stage_part(key, OWNER, world.part(OWNER, rows, part=number, first_line=1 + 2 * number), origin=ORIGIN)
    return taken_back, world.settle(key, OWNER, parts=len(parts), records=len(ROWS))


@pytest.mark.fault(71)
@pytest.mark.parametrize("damage", DAMAGE)
def test_staging_that_its_checkpoints_do_not_describe_is_staged_anew(world, damage):
    key = world.key("a")
    _, whole = stage(world, key)
    assert (whole.rows_loaded, whole.duplicate) == (3, 1)
    with transaction(world.engine) as cursor:
        cursor.execute(DAMAGE[damage])
        cursor.execute(sql.SQL("delete from etl.staged_table"))
    taken_back, again = stage(world, key)
    assert taken_back >= 1
    assert (again.rows_loaded, again.duplicate, again.rows_read) == (3, 1, 4)
    assert world.rows("select count(*), count(distinct acct) from etl_staging.i1_owner_keys") == [(3, 3)]


BEFORE = [(f"{number:03}", f"NAME {number}", None) for number in range(1, 21)]
AFTER = [*BEFORE[:15], *((acct, "OTHER", value) for acct, _, value in BEFORE[15:18]), ("021", "NEW", None), ("021", "NEW", None)]
#: What a fault of the disk, or a person, makes of staging: import, statement, and how it is told.
LOST = {
    "whole rows": (2, "truncate etl_staging.i2_owner_rows", "owner .* 4 rows were staged whole, and 0 are"),
    "one whole row": (2, "delete from etl_staging.i2_owner_rows where acct = '016'", "owner .* 4 rows were staged whole, and 3 are"),
    "narrow rows": (2, "truncate etl_staging.i2_owner_keys", "owner .* 19 rows were staged, and 0 are"),
    "whole rows without a key": (2, "truncate etl_staging.i2_feature_rows", "feature .* 1 rows were staged whole, and 0 are"),
    "rows of a first import": (1, "truncate etl_staging.i1_owner_rows", "owner .* 20 rows were staged, and 0 are"),
    "rows of a first import without a key": (1, "delete from etl_staging.i1_feature_rows", "feature .* 1 rows were staged, and 0 are"),
}


def to_the_gate(world, release, owners, code):
    key = world.key(release)
    half = len(owners) // 2
    world.stage(key, OWNER, [owners[:half], owners[half:]], origin=Origin(f"{release}-owner", "t1", "c1"))
    world.stage(key, FEATURE, [[("001", code)]], origin=Origin(f"{release}-feature", "t1", "c1"))
    world.loads.check_release(key, world.county)
    return key


@pytest.mark.fault(71)
@pytest.mark.parametrize("kind", LOST)
def test_staging_that_lost_rows_after_the_gate_is_not_published_and_staged_anew(world, kind):
    import_id, statement, words = LOST[kind]
    told = []
    if import_id == 2:
        world.publish("a", BEFORE, [("001", "POOL")])
    release = ("b", AFTER, "SHED") if import_id == 2 else ("a", BEFORE, "POOL")
    key = to_the_gate(world, *release)
    before = world.hashes()
    with transaction(world.engine) as cursor:
        cursor.execute(statement)
    world.loads.on_event = lambda event, figures: told.append((event, figures))
    with pytest.raises(StagingStale, match=words):
        world.loads.publish(key, world.county)
    assert [event for event, _ in told] == ["load.parts_taken_back"]
    assert world.hashes() == before
    assert world.rows("select max(import_id) from etl.import where state = 'published'") == [(import_id - 1 or None,)]
    # The next run.
    assert to_the_gate(world, *release) == key
    world.loads.publish(key, world.county)
    assert world.rows("select name, count(*) from county.owner where acct between '015' and '030' group by 1 order by 1") == (
        [("NAME 15", 1), ("NEW", 1), ("OTHER", 3)] if import_id == 2 else [(f"NAME {number}", 1) for number in range(15, 21)]
    )
    assert world.rows("select code from county.feature") == [(release[2],)]
    assert world.leftovers() == ([], [0, 0, 0])


@pytest.mark.fault(71)
def test_staging_that_lost_rows_before_the_gate_does_not_hold_the_release(world):
    world.publish("a", BEFORE, [("001", "POOL")])
    key = world.key("b")
    world.stage(key, OWNER, [AFTER])
    world.stage(key, FEATURE, [[("001", "POOL")]])
    named = Check("all have names", "fill", columns=("name",), minimum=1.0)
    world.declare(dataclasses.replace(OWNER, checks=(named,)))
    with transaction(world.engine) as cursor:
        cursor.execute("truncate etl_staging.i2_owner_rows")
    with pytest.raises(StagingStale, match="4 rows were staged whole, and 0 are"):
        world.loads.check_release(key, world.county)
    assert world.rows("select state, error_code from etl.import where import_id = 2") == [("staging", None)]
    world.stage(key, OWNER, [AFTER])
    world.loads.check_release(key, world.county)
    assert world.loads.publish(key, world.county)["owner"].updated == 3


@pytest.mark.fault(71)
def test_whole_rows_that_are_gone_before_their_table_is_settled_are_staged_anew_with_their_part(world):
    world.publish("a", BEFORE, [("001", "POOL")])
    key, told = world.key("b"), []
    world.loads.open_import(key, OWNER)
    parts = [AFTER[:17], AFTER[17:]]
    folders = [world.part(OWNER, rows, part=number, first_line=1 + 17 * number) for number, rows in enumerate(parts)]
    for folder in folders:
        world.loads.stage_part(key, OWNER, folder, origin=ORIGIN)
    with transaction(world.engine) as cursor:
        cursor.execute("delete from etl_staging.i2_owner_rows where part = 1")
    world.loads.on_event = lambda event, figures: told.append((event, figures.get("part"), figures.get("why")))
    with pytest.raises(StagingStale, match="damaged in part 1: it says 2 rows whole, and 0 are staged"):
        world.settle(key, OWNER, parts=2, records=20)
    assert told == [("load.damaged_checkpoint", 1, "it says 2 rows whole, and 0 are staged")]
    assert [bool(world.loads.stage_part(key, OWNER, folder, origin=ORIGIN)) for folder in folders] == [False, True]
    assert world.settle(key, OWNER, parts=2, records=20).rows_loaded == 19


@pytest.mark.fault(63)
def test_second_run_that_comes_late_to_a_settled_table_leaves_it_settled(world):
    key = world.key("a")
    stage(world, key)
    assert stage(world, key)[0] == 0
    assert world.rows("select count(*) from etl_staging.i1_owner_keys") == [(3,)]


@pytest.mark.fault(63, 71)
def test_settled_table_that_another_cut_takes_back_is_neither_settled_nor_checked_any_more(world):
    key = world.key("a")
    stage(world, key)
    with transaction(world.engine) as cursor:
        cursor.execute("insert into etl.checked (import_id, outcome) values (1, 'passed')")
    assert world.loads.expect_parts(key, OWNER, Origin("m1", "t1", "another")) == 2
    assert world.rows("select (select count(*) from etl.staged_table), (select count(*) from etl.checked)") == [(0, 0)]


@pytest.mark.fault(54)
def test_run_that_died_before_it_had_a_source_is_marked_by_the_next_and_one_that_lives_is_not(world):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    dead, alive, elsewhere, ours = (runs.start_run(world.engine, "run", "test", NOW) for _ in range(4))
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.run set pid = %s where run_id in (%s, %s)", [int(gone.stdout), dead, elsewhere])
        cursor.execute("update etl.run set host = 'another' where run_id = %s", [elsewhere])
    with runs.SourceLocks(world.engine, ours, ["county"]):
        found = dict(world.rows("select run_id, outcome from etl.run"))
    assert found == {dead: "killed", alive: None, elsewhere: None, ours: None}
    assert world.rows("select pid from etl.run where run_id = %s", alive) == [(os.getpid(),)]
