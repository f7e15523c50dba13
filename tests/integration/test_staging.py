"""Staging: a part and its checkpoint are one commit; whoever lost the right to write cannot."""

import dataclasses
import datetime as dt
import threading
from decimal import Decimal

import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.catalog.model import Column, ColumnType
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.errors import AccountingError, DatabaseUnavailable, FencedOut, StagingStale
from pipeline.handoff import PartReport, read_json, write_json
from pipeline.load.checkpoints import Origin, Resume
from pipeline.load.manager import LoadManager

ROWS = [("1", "ANN", Decimal("10.00")), ("2", "BOB", None)]


def stage(world, key, folder, loads=None):
    return (loads or world.loads).stage_part(key, OWNER, folder, origin=ORIGIN)


@pytest.fixture
def key(world):
    world.loads.open_import(world.key("a"), OWNER)
    return world.key("a")


def test_part_staged_twice_is_there_once(world, key):
    folder = world.part(OWNER, ROWS)
    assert stage(world, key, folder).written == 2
    assert stage(world, key, folder) is None
    assert world.rows("select count(*) from etl_staging.i1_owner_keys") == [(2,)]


def test_same_part_from_two_processes_at_once_is_there_once(world, key):
    folder = world.part(OWNER, ROWS * 1)
    results = []
    threads = [threading.Thread(target=lambda: results.append(stage(world, key, folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result is not None for result in results) == 1
    assert world.rows("select count(*) from etl_staging.i1_owner_keys") == [(2,)]


@pytest.mark.fault(55)
def test_connection_lost_in_a_part_leaves_neither_rows_nor_checkpoint(world, key):
    folder = world.part(OWNER, ROWS)

    class Cut(LoadManager):
        def bulk_upsert(self, records, model_class, batch_size=5000, *, cursor=None):
            done = super().bulk_upsert(records, model_class, batch_size, cursor=cursor)
            cursor.execute("select pg_terminate_backend(pg_backend_pid())")
            return done

    with pytest.raises(DatabaseUnavailable):
        stage(world, key, folder, Cut(world.engine))
    assert world.rows("select count(*) from etl_staging.i1_owner_keys") == [(0,)]
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]
    assert stage(world, key, folder).written == 2


def test_settling_without_all_parts_is_refused(world, key):
    stage(world, key, world.part(OWNER, ROWS))
    with pytest.raises(StagingStale, match="1 of 2 parts"):
        world.settle(key, OWNER, parts=2, records=2)


def test_records_that_do_not_add_up_stop_before_publication(world, key):
    stage(world, key, world.part(OWNER, ROWS))
    with pytest.raises(AccountingError, match="3 records in the member, 2 read"):
        world.settle(key, OWNER, parts=1, records=3)


def test_report_that_lies_about_its_rows_stages_nothing(world, key):
    folder = world.part(OWNER, ROWS)
    report = read_json(folder / "report.json")
    write_json(folder / "report.json", PartReport.from_json(report | {"read": 3, "written": 3}))
    with pytest.raises(AccountingError, match="gave 2 rows"):
        stage(world, key, folder)
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]


def test_quarantine_of_a_part_is_in_the_ledger_once_also_when_staged_again(world, key):
    line = '{"line": 3, "offset": 9, "raw": "x\\\\x00y", "rules": ["*:field_count"], "reasons": {"*": ["2 fields, not 3"]}}'
    folder = world.part(OWNER, ROWS, quarantined=[line])
    stage(world, key, folder)
    with transaction(world.engine) as cursor:
        # What a crash of the server leaves: the unlogged tables are empty, the ledger is not.
        cursor.execute("truncate etl.checkpoint, etl_staging.i1_owner_rows")
    stage(world, key, folder)
    assert world.rows("select table_name, line, raw, reasons from etl.quarantine") == [("owner", 3, "x\\x00y", {"*": ["2 fields, not 3"]})]


@pytest.mark.fault(63)
def test_run_that_lost_its_source_cannot_stage_or_publish(world, key):
    with transaction(world.engine) as cursor:
        cursor.execute("insert into etl.run (command, profile, as_of, host, pid) values ('run', 'test', now(), 'h', 1) returning run_id")
        run = cursor.fetchone()[0]
        old, new = (ledger.take_source(cursor, "county", run) for _ in range(2))
    folder = world.part(OWNER, ROWS)
    with pytest.raises(FencedOut, match=f"token {new}, ours is {old}"):
        stage(world, key, folder, LoadManager(world.engine, tokens={"county": old}))
    with pytest.raises(FencedOut):
        LoadManager(world.engine, tokens={"another": new}).publish(key, world.county)
    assert stage(world, key, folder, LoadManager(world.engine, tokens={"county": new})).written == 2


def test_refresh_of_an_unchanged_table_stages_no_whole_row(world):
    world.publish("a", ROWS, [("1", "POOL")])
    world.stage(world.key("b"), OWNER, [[*ROWS, ("3", "NEW", None)]])
    assert world.rows("select count(*) from etl_staging.i2_owner_keys") == [(3,)]
    assert world.rows("select acct from etl_staging.i2_owner_rows") == [("3",)]


def test_new_import_of_a_tax_year_replaces_what_was_being_staged(world, key):
    stage(world, key, world.part(OWNER, ROWS))
    world.loads.open_import(world.key("b"), OWNER)
    assert world.rows("select state from etl.import order by import_id") == [("superseded",), ("staging",)]
    assert {name for (name,) in world.rows("select relname from pg_class where relnamespace = 'etl_staging'::regnamespace")} == {
        "i2_owner_keys",
        "i2_owner_rows",
    }
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]


def test_checkpoints_are_read_back_by_table_and_part(world, key):
    for number in range(3):
        stage(world, key, world.part(OWNER, ROWS, part=number, first_line=1 + 2 * number))
    assert world.loads.resume_from_checkpoint(1) == Resume(1, 6, {"owner": (0, 1, 2)})
    assert world.loads.checkpoint_progress(99, 10)
    assert world.loads.checkpoint_progress(99, 25)
    assert world.loads.resume_from_checkpoint(99) == Resume(99, 25, {})


def test_two_opens_at_once_give_one_import(world):
    results = []
    threads = [
        threading.Thread(target=lambda table=table: results.append(world.loads.open_import(world.key("a"), table).import_id))
        for table in (OWNER, FEATURE) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and len(set(results)) == 1


@pytest.mark.fault(71)
@pytest.mark.parametrize("other", [Origin("m1", "t1", "c2"), Origin("m1", "t2", "c1"), Origin("m2", "t1", "c1")])
def test_parts_of_another_cut_recipe_or_member_are_taken_back_and_never_mixed(world, key, other):
    stage(world, key, world.part(OWNER, ROWS, quarantined=['{"line": 3, "offset": 9, "raw": "x", "rules": ["acct:regex"], "reasons": {}}']))
    with pytest.raises(StagingStale, match="0 of 1 parts"):
        world.settle(key, OWNER, parts=1, records=3, origin=other)
    assert world.loads.expect_parts(key, OWNER, ORIGIN) == 0
    assert world.loads.expect_parts(key, OWNER, other) == 1
    assert world.rows("select count(*) from etl_staging.i1_owner_keys") == [(0,)]
    assert world.rows("select count(*) from etl.quarantine") == [(0,)]
    assert world.stage(key, OWNER, [ROWS[:1], ROWS[1:]], origin=other).rows_loaded == 2


def test_settling_twice_or_at_once_is_settling_once(world, key):
    repeated = [("1", "ANN", None), ("1", "ANN", None), ("1", "EVE", None)]
    stage(world, key, world.part(OWNER, repeated))
    results, threads = [], []
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: results.append(world.settle(key, OWNER, parts=1, records=3))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    results.append(world.settle(key, OWNER, parts=1, records=3))
    assert len(results) == 4
    assert {(done.rows_loaded, done.duplicate, done.quarantined) for done in results} == {(1, 1, 1)}
    assert world.rows("select count(*) from etl.quarantine") == [(1,)]


def test_values_nulled_and_changed_are_counted_over_all_parts_into_the_ledger(world, key):
    for number in range(2):
        folder = world.part(OWNER, ROWS, part=number, first_line=1 + 2 * number)
        counts = {"nulled": {"value:declared": 1, f"name:{number}": 2}, "changed": {"name:truncated": 3 + number}}
        write_json(folder / "report.json", PartReport.from_json(read_json(folder / "report.json") | counts))
        stage(world, key, folder)
    settled = world.settle(key, OWNER, parts=2, records=4)
    assert (settled.nulled, settled.changed) == ({"value:declared": 2, "name:0": 2, "name:1": 2}, {"name:truncated": 7})


@pytest.mark.parametrize("kind", ["boolean", "date", "bigint", "numeric(9,2)"])
def test_key_of_any_type_tells_which_rows_are_live(world, kind):
    """A part is compared with its own stretch of the keys: from its smallest to its largest."""
    type_ = ColumnType("numeric", 9, 2) if kind.startswith("numeric") else ColumnType(kind)
    days, numbers = [dt.date(2025, 1, 1), dt.date(2025, 1, 2)], [Decimal(1), Decimal(2)]
    first = {"boolean": [False, True], "date": days, "bigint": [1, 2]}.get(kind, numbers)
    table = dataclasses.replace(OWNER, key=("first", "acct"), columns=(Column("first", type_, "first", required=True), *OWNER.columns))
    world.declare(table)
    for release, name in (("a", "ANN"), ("b", "EVE")):
        key = world.key(release)
        rows = [(first[0], "1", "ANN", None), (first[1], "1", name, None)]
        world.stage(key, table, [rows[:1], rows[1:]], origin=Origin(release, "t1", "c1"))
        world.stage(key, FEATURE, [[("1", "POOL")]], origin=Origin(release, "t1", "c1"))
        if release == "b":
            assert world.rows("select name from etl_staging.i2_owner_rows") == [("EVE",)]
        world.loads.check_release(key, world.county)
        world.loads.publish(key, world.county)
    assert sorted(name for (name,) in world.rows("select name from county.owner")) == ["ANN", "EVE"]
