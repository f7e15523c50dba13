"""Rows that PostgreSQL itself refuses: each is quarantined with the server's words, and nothing else of its part is lost."""

from decimal import Decimal

import psycopg2
import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.database.engine import transaction
from pipeline.errors import PartRefused
from pipeline.handoff import RawLine
from pipeline.load.bisect import MOST_REFUSED

ROWS = [(f"{number:03}", f"OWNER {number}", Decimal(number)) for number in range(1, 38)]


def raw_lines(numbers):
    return {number: RawLine(100 * number, f"raw {number}") for number in numbers}


def alter(world, *statements):
    with transaction(world.engine) as cursor:
        for statement in statements:
            cursor.execute(statement)


def stage(world, key, rows=ROWS, table=OWNER, lines=raw_lines, **more):
    return world.loads.stage_part(key, table, world.part(table, rows, **more), origin=ORIGIN, raw_lines=lines)


@pytest.fixture
def key(world):
    world.loads.open_import(world.key("a"), OWNER)
    return world.key("a")


@pytest.mark.parametrize("refused", [[1, 19, 37], list(range(1, 38)), list(range(2, 38, 2))], ids=["few", "all", "every other"])
def test_rows_that_postgresql_refuses_are_quarantined_and_the_others_staged(world, key, refused):
    numbers = ", ".join(map(str, refused))
    alter(world, f"alter table etl_staging.i1_owner_rows add constraint of_mine check (value not in ({numbers}))")
    report = stage(world, key)
    assert (report.written, report.quarantined, report.refused) == (37 - len(refused), len(refused), {"*:database": len(refused)})
    for name in ("keys", "rows"):
        assert {line for (line,) in world.rows(f"select line from etl_staging.i1_owner_{name}")} == set(range(1, 38)) - set(refused)
    kept = world.rows("select line, raw, byte_offset, rules, reasons from etl.quarantine order by line")
    message = 'new row for relation "i1_owner_rows" violates check constraint "of_mine" (SQLSTATE 23514)'
    assert kept == [(line, f"raw {line}", 100 * line, ["*:database"], {"*": [message]}) for line in refused]
    assert stage(world, key) is None
    settled = world.settle(key, OWNER, parts=1, records=37)
    assert (settled.rows_loaded, settled.quarantined, settled.refused) == (37 - len(refused), len(refused), {"*:database": len(refused)})


@pytest.mark.parametrize(
    ("statement", "refused", "code"),
    [
        ("alter table etl_staging.i1_owner_rows alter column value type numeric(3, 2)", list(range(10, 38)), "22003"),
        ("alter table etl_staging.i1_owner_rows alter column name type varchar(7)", list(range(10, 38)), "22001"),
        ("alter table etl_staging.i1_owner_rows alter column name type date using null", list(range(1, 38)), "22007"),
    ],
    ids=["narrower number", "narrower text", "another type"],
)  # fmt: skip
def test_types_and_constraints_by_hand_refuse_their_rows_and_no_others(world, key, statement, refused, code):
    alter(world, statement)
    assert stage(world, key).quarantined == len(refused)
    kept = world.rows("select line, reasons->'*'->>0 from etl.quarantine order by line")
    assert [line for line, _ in kept] == refused and all(f"SQLSTATE {code}" in message for _, message in kept)


def test_release_with_refused_rows_is_published_and_its_account_balances(world, key):
    world.publish("a", ROWS, [("001", "POOL")])
    key = world.key("b")
    world.loads.open_import(key, OWNER)
    world.loads.open_import(key, FEATURE)
    alter(world, "alter table etl_staging.i2_owner_rows add check (name <> 'REFUSED')")
    alter(world, "alter table etl_staging.i2_owner_keys add check (acct <> '005')")
    changed = [*ROWS[:35], ("036", "REFUSED", None), ("037", "CHANGED", None)]
    report = stage(world, key, changed, quarantined=['{"line": 38, "offset": 9, "raw": "x", "rules": ["acct:regex"], "reasons": {}}'])
    assert (report.written, report.quarantined) == (35, 3)
    assert world.rows("select line from etl_staging.i2_owner_rows") == [(37,)]
    world.settle(key, OWNER, parts=1, records=38)
    stage(world, key, [("001", "POOL")], table=FEATURE)
    world.settle(key, FEATURE, parts=1, records=1)
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)
    account = "select rows_read, rows_loaded, quarantined, refused from etl.import_table where import_id = 2 and table_name = 'owner'"
    assert world.rows(account) == [(38, 35, 3, {"*:database": 2, "acct:regex": 1})]
    assert world.rows("select count(*), count(*) filter (where name = 'CHANGED') from county.owner") == [(35, 1)]


def test_figures_are_those_of_the_rows_that_were_accepted(world, key):
    """The part has measured all of its rows; the next release would be held to sums and codes that nobody has."""
    alter(world, "alter table etl_staging.i1_owner_rows add check (value > 5)")
    stage(world, key, [(acct, "REFUSED" if value <= 5 else "ACCEPTED", value) for acct, _, value in ROWS])
    world.settle(key, OWNER, parts=1, records=37)
    world.stage(key, FEATURE, [[("001", "POOL")]])
    world.loads.check_release(key, world.county)
    kept = world.rows("select column_name, rows, total, codes from etl.table_figure where table_name = 'owner' order by 1")
    assert kept[1:] == [("name", 32, None, {"ACCEPTED": 32}), ("value", 32, sum(range(6, 38)), None)]


def test_part_that_is_refused_nearly_whole_fails_and_leaves_nothing(world, key):
    alter(world, "alter table etl_staging.i1_owner_rows alter column name type date using null")
    rows = [(f"{number:04}", "SMITH", None) for number in range(MOST_REFUSED + 1)]
    with pytest.raises(PartRefused, match=f"more than {MOST_REFUSED} rows of a part") as failed:
        stage(world, key, rows)
    assert "SMITH" not in str(failed.value)
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]
    assert world.rows("select count(*) from etl.quarantine") == [(0,)]
    assert stage(world, key, rows[1:]).quarantined == MOST_REFUSED


def test_refused_row_stops_the_part_where_nobody_can_give_its_line(world, key):
    alter(world, "alter table etl_staging.i1_owner_rows alter column name type date using null")
    with pytest.raises(PartRefused, match="raw_lines") as failed:
        stage(world, key, lines=None)
    assert "OWNER 1" not in str(failed.value) and "(a value)" in str(failed.value)
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]


def test_rows_that_are_refused_only_together_are_not_guessed_at(world, key):
    alter(world, "alter table etl_staging.i1_owner_rows add exclude (name with =)")
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        stage(world, key, [("1", "SAME", None), ("2", "OTHER", None), ("3", "SAME", None), ("4", "FOURTH", None)])
    assert world.rows("select count(*) from etl.checkpoint") == [(0,)]


def test_part_is_staged_again_with_the_same_account_after_staging_was_emptied(world):
    world.publish("a", [("another", None, None)], [("another", "POOL")])
    key = world.key("b")
    world.loads.open_import(key, OWNER)
    alter(world, "alter table etl_staging.i2_owner_rows add check (value <> 7)")
    for _ in range(2):
        assert stage(world, key).quarantined == 1
        assert world.rows("select quarantined, refused from etl.quarantine_part where import_id = 2") == [(1, {"*:database": 1})]
        assert world.rows("select line from etl.quarantine") == [(7,)]
        alter(world, "truncate etl.checkpoint, etl_staging.i2_owner_keys, etl_staging.i2_owner_rows")
