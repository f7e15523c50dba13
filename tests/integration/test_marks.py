"""What says that something is done, or at work, is damaged or left behind: it is seen for what it is, and done again."""

import datetime as dt
import os
import subprocess
import sys

import pytest
from county import ORIGIN, OWNER
from psycopg2 import sql

from pipeline.database import runs
from pipeline.database.engine import transaction
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
