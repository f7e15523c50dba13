"""Drift: what a release may lose, or turn into, before a person must look; exact at its bounds, and a mass update is none of it."""

import dataclasses
import json
from decimal import Decimal

import pytest
from county import FEATURE, OWNER, text

from pipeline import outcome
from pipeline.catalog.model import Column, ColumnType, Drift, Layout
from pipeline.catalog.recipe import layout_recipe
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.errors import ConfigurationError, GateRefused
from pipeline.gate_report import read_report
from pipeline.load.checkpoints import Origin
from pipeline.status import read_status, status_lines

MANY = [(f"{n:05}", f"N{n % 3}", Decimal(n)) for n in range(10_000)]
POOLS = [(f"{n:05}", "POOL") for n in range(200) for _ in range(2)]
CODED = tuple(text(name) for name in ("status", "zone", "city", "use"))
ROLL = dataclasses.replace(
    OWNER, columns=(text("acct", required=True), *CODED, Column("value", ColumnType("bigint"), "value"), text("exempt"))
)
#: A thousand accounts with four codes, a value, and an exemption that one in five has.
ACCOUNTS = [
    {"acct": f"{n:05}", "status": "NOTICED", "zone": f"Z{n % 4}", "city": f"C{n % 5}", "use": f"U{n % 6}", "value": 1000 + n,
     "exempt": f"E{n:050}" if n % 5 == 0 else None}
    for n in range(1000)
]  # fmt: skip


def judge(world, release, rows, features=(), table=OWNER, recipe="t1", publish=False):
    """Stage a release and run the gate; what refuses it, or "" and it is published where that is asked for."""
    key = world.key(release, recipe)
    for one, its_rows in ((table, rows), (FEATURE, features)):
        world.stage(key, one, [list(its_rows)], origin=Origin(f"{release}-{one.name}", recipe, "c1"))
    try:
        world.loads.check_release(key, world.county)
    except GateRefused as refused:
        return refused.seen
    if publish:
        world.loads.publish(key, world.county)
    return ""


def drift(world, check, table="owner"):
    """Severity, whether it passed, and what was seen, of a drift check of the newest import."""
    ((*result, figure, bound),) = world.rows(
        """select severity, passed, seen, figure, bound from etl.gate_result where kind = 'drift' and check_name = %s and table_name = %s
              and import_id = (select max(import_id) from etl.import)""",
        check, table,
    )  # fmt: skip
    assert check == "columns changed" or result[0] != "error" or result[1] == (figure <= bound)
    return tuple(result)


@pytest.mark.fault(49)
def test_keys_lost_are_held_to_one_percent_exactly(world):
    assert judge(world, "a", MANY, publish=True) == ""
    before = world.hashes()
    for release, lost in (("half", 5000), ("twentieth", 500), ("more", 101)):
        told = judge(world, release, MANY[lost:])
        assert told.startswith(f"county 2025: owner keys lost: {lost} of 10000 keys are gone, among them acct 00000; acct 00001;")
        assert "expected at most 1 %" in told
    others = [(f"X{n}", name, value) for n, (_, name, value) in enumerate(MANY[:101])]
    assert "owner keys lost: 101 of 10000 keys are gone and 101 are new, among them acct 00000;" in judge(world, "others", MANY[101:] + others)
    assert world.rows("select state, error_code from etl.import where import_id > 1 and state <> 'superseded'") == [("refused", "E_GATE")] * 4
    assert world.hashes() == before
    assert judge(world, "exact", MANY[100:]) == ""
    assert drift(world, "keys lost")[:2] == ("error", True)


@pytest.mark.fault(49)
def test_table_without_a_key_is_held_to_its_parents_and_its_rows(world):
    judge(world, "a", MANY[:200], POOLS, publish=True)
    assert "feature keys lost: of 6 of 400 rows acct is gone, among them acct 00000;" in judge(world, "b", MANY[:200], POOLS[6:])
    assert judge(world, "c", MANY[:200], POOLS[4:]) == ""
    one_each = [row for n, row in enumerate(POOLS) if n > 41 or n % 2]
    assert "feature rows lost: 21 rows fewer than 400, expected at most 5 %" in judge(world, "d", MANY[:200], one_each)
    assert judge(world, "e", MANY[:200], [POOLS[0], *one_each]) == ""
    # Every row has another content, and every parent is there.
    assert judge(world, "f", MANY[:200], [(acct, "SPA") for acct, _ in POOLS]) == ""
    assert judge(world, "g", MANY[:200], POOLS * 2) == ""
    assert drift(world, "rows gained", "feature") == ("warn", False, "400 rows more than 400")


def rolled(change=None, share=1000):
    """The accounts, the first so many of them changed."""
    rows = [account | (change(account) if change and n < share else {}) for n, account in enumerate(ACCOUNTS)]
    return [tuple(row[column.name] for column in ROLL.columns) for row in rows]


@pytest.mark.fault(49)
def test_columns_are_held_to_what_they_were_and_a_mass_update_is_told(world):
    world.declare(ROLL, drift=Drift(min_rows=10))
    assert judge(world, "0", rolled(lambda row: {"exempt": None}, 950), table=ROLL, publish=True) == ""
    none = {"value": None}
    held = {
        "sum factor: the sum of value is 14995000, before 1499500": lambda row: {"value": 10 * row["value"]},
        "sum factor: the sum of value is 149500, before 1499500": lambda row: {"value": row["value"] // 10},
        "null rise: exempt has no value in 100 % of the rows, before 99 %": lambda row: {"exempt": None},
        "shifted columns: 4 of 4 columns of codes: city; status; use; zone": lambda row: {name: "1" for name in ("status", "zone", "city", "use")},
    }  # fmt: skip
    for number, (told, change) in enumerate(held.items()):
        assert f"owner {told}" in judge(world, f"held{number}", rolled(change), table=ROLL)
    assert "null rise: value has no value in 5.1 % of the rows, before 0 %, expected at most 5 %" in (
        judge(world, "51", rolled(lambda row: none, 51), table=ROLL)
    )
    assert judge(world, "50", rolled(lambda row: none, 50), table=ROLL) == ""

    told = []
    world.loads.on_event = lambda event, figures: told.append((figures.get("check"), figures.get("severity")))
    certified = rolled(lambda row: {"status": "CERTIFIED", "value": row["value"] + 1}, 980)
    assert judge(world, "august", certified, table=ROLL, publish=True) == ""
    assert drift(world, "columns changed") == ("note", True, "of 1000 rows that stay, status in 98 %; value in 98 % have another value")
    shifted = "status ('CERTIFIED' 0 % -> 98 %, 'NOTICED' 100 % -> 2 %)"
    assert drift(world, "value shift") == ("warn", False, shifted)
    assert [pair for pair in told if pair[0]] == [("columns changed", "note"), ("value shift", "warn")]
    assert f"  county 2025: owner value shift: {shifted}, expected at most 10 % (a warning)" in status_lines(read_status(world.engine))
    with transaction(world.engine) as cursor:
        ((newest,),) = world.rows("select max(import_id) from etl.import")
        said = [outcome._told_checks(cursor, newest, with_notes=is_new) for is_new in (True, False)]
    assert [len(lines) for lines in said] == [2, 1]
    assert said[0][0] == "owner columns changed: of 1000 rows that stay, status in 98 %; value in 98 % have another value"


def test_values_that_arrive_are_no_drift(world):
    """In January values are blank, or 0, and come account by account until the notices."""
    world.declare(ROLL)
    judge(world, "0", rolled(lambda row: {"value": 0 if row["acct"] < "00400" else None, "exempt": None}, 850), table=ROLL, publish=True)
    assert judge(world, "1", rolled(), table=ROLL) == ""
    assert drift(world, "sum factor")[:2] == ("error", True)


def test_first_import_and_a_small_table_are_held_to_floors_alone(world):
    judge(world, "a", MANY[:99], publish=True)
    assert judge(world, "b", MANY[98:99]) == ""
    assert world.rows("select count(*) from etl.gate_result where kind = 'drift'") == [(0,)]
    world.declare(drift=Drift(min_rows=99))
    assert "98 of 99 keys are gone" in judge(world, "c", MANY[98:99])
    world.declare(table_drift={"owner": Drift(min_rows=1, max_keys_lost=Decimal(1))})
    assert judge(world, "d", MANY[98:99]) == ""
    world.declare(dataclasses.replace(OWNER, columns=(dataclasses.replace(OWNER.columns[0], personal=True), *OWNER.columns[1:])), table_drift={})
    assert "owner keys lost: 98 of 99 keys are gone, expected" in judge(world, "e", MANY[98:99])


def test_column_whose_declaration_was_mended_or_that_the_layout_leaves_out_is_not_held(world):
    world.declare(ROLL)
    judge(world, "0", rolled(), table=ROLL, publish=True)
    gone = rolled(lambda row: {"value": None, "exempt": None})
    assert "value has no value" in judge(world, "1", gone, table=ROLL)
    columns = tuple(dataclasses.replace(column, nulls=("0",)) if column.name == "value" else column for column in ROLL.columns)
    mended = dataclasses.replace(ROLL, columns=columns)
    world.declare(mended)
    told = judge(world, "2", gone, table=mended)
    assert "exempt has no value" in told and "value has" not in told
    without = dataclasses.replace(mended, layouts=(Layout("delimited", absent=("exempt",)),))
    world.declare(without)
    assert judge(world, "3", gone, table=without, recipe=layout_recipe(without, without.layouts[0])) == ""
    # A key that is written otherwise now is another key in every row.
    keyed = dataclasses.replace(ROLL, columns=(dataclasses.replace(ROLL.columns[0], normalize=("upper",)), *ROLL.columns[1:]))
    world.declare(keyed)
    assert judge(world, "4", [("X" + row[0], *row[1:]) for row in rolled()], table=keyed) == ""
    assert drift(world, "keys lost")[:2] == ("warn", False)


@pytest.mark.fault(49)
def test_acceptance_is_kept_with_what_it_is_about_and_covers_nothing_else(world):
    judge(world, "a", MANY[:1000], publish=True)
    fewer = MANY[11:1000]
    assert "11 of 1000 keys are gone" in judge(world, "b", fewer)
    world.loads.accept_import(2, reason="annexed by the next county", decided_by="clerk")
    assert world.rows("select import_id, action, reason, decided_by, checks from etl.decision") == [
        (2, "accept", "annexed by the next county", "clerk", [["owner", "drift", "keys lost"]])
    ]
    # Staged anew, something else is wrong with it.
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.import set state = 'superseded' where import_id = 2")
    assert "owner sum factor" in judge(world, "b", [(acct, name, value * 10) for acct, name, value in fewer])
    world.loads.accept_import(3, reason="in cents now", decided_by="clerk")
    assert judge(world, "b", [(acct, name, value * 10) for acct, name, value in fewer], publish=True) == ""
    assert world.rows("select state from etl.import where import_id = 3") == [("published",)]
    lines = status_lines(read_status(world.engine))
    assert sum("(accepted by a person)" in line for line in lines) == 2
    with transaction(world.engine) as cursor:
        assert ledger.refused_by_gate(cursor, "county", None) == []


def test_report_begins_with_what_holds_the_import_and_has_figures_for_a_program(world):
    world.declare(ROLL)
    judge(world, "a", rolled(), table=ROLL, publish=True)
    judge(world, "b", rolled(lambda row: {"value": row["value"] * 10})[11:], table=ROLL)
    with transaction(world.engine) as cursor:
        assert [found.import_id for found in ledger.refused_by_gate(cursor, "county", 2025)] == [2]
        assert ledger.refused_by_gate(cursor, "county", 2024) == ledger.refused_by_gate(cursor, "other", None) == []
    report = read_report(world.engine, 2)
    lines = list(report.lines())
    assert "is refused, compared with import 1" in lines[0]
    failed = lines[lines.index("checks") + 1 :][:2]
    assert failed[0].startswith("  FAILED   owner keys lost: 11 of 1000 keys are gone, among them acct 00000; acct 00001;")
    assert failed[1] == "  FAILED   owner sum factor: the sum of value is 14884450, before 1499500, expected a factor of at most 5"
    assert lines[-3:] == [
        "  table  column  no value  before  sum         before",
        "  owner  exempt  80.08%    80.00%",
        "  owner  value   0.00%     0.00%   14,884,450  1,499,500",
    ]
    document = json.loads(json.dumps(report.document()))
    assert [(check["check"], check["figure"], check["bound"]) for check in document["checks"][:1]] == [("keys lost", 0.011, 0.01)]
    (value,) = [row for row in document["columns"] if row["column"] == "value"]
    assert (value["sum"], value["sum_before"], value["rows"]) == (14884450, 1499500, 989)
    assert {type(value[name]) for name in ("sum", "sum_before", "nulls", "zeros")} == {int}
    assert {row["table"] for row in read_report(world.engine, 2, "feature").columns} <= {"feature"}
    with pytest.raises(ConfigurationError, match="no import 99"):
        read_report(world.engine, 99)


def counted(world):
    """The figures of the live owners, counted in the table."""
    ((rows, *nulls, zeros, total),) = world.rows(
        "select count(*), count(*) - count(acct), count(*) - count(name), count(*) - count(value), count(*) filter (where value = 0), sum(value) "
        "from county.owner"
    )
    codes = dict(world.rows("select name, count(*) from county.owner where name is not null group by 1"))
    return [("acct", rows, nulls[0], None, None, None), ("name", rows, nulls[1], None, None, codes), ("value", rows, nulls[2], zeros, total, None)]


def test_figures_in_the_ledger_are_those_of_the_published_rows(world):
    """Over a first import, a refresh, rows that give way to others of their key, a part without figures, and a table that stays."""
    kept = "select column_name, rows, nulls, zeros, total, codes from etl.table_figure where table_name = 'owner' and import_id = %s order by 1"
    world.declare(drift=Drift(min_rows=1000))
    twice = [*MANY[:50], ("00007", "OTHER", Decimal(1)), ("90000", None, None)]
    for number, parts in enumerate(([MANY[:60], MANY[60:120]], [MANY[1:118], [("x", None, None)]], [twice, MANY[45:120]]), 1):
        key = world.key(str(number))
        world.stage(key, OWNER, parts, origin=Origin(str(number), "t1", "c1"))
        world.stage(key, FEATURE, [POOLS[:4]], origin=Origin("same", "t1", "c1"))
        world.loads.check_release(key, world.county)
        world.loads.publish(key, world.county)
        assert world.rows(kept, number) == counted(world)
    key = world.key("4")
    for table in (OWNER, FEATURE):
        world.loads.open_import(key, table)
        world.loads.keep_table(key, table, member_sha256=None, recipe="")
    world.loads.check_release(key, world.county)
    assert world.rows(kept, 4) == counted(world)
    judge(world, "5", MANY[:119])
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.checkpoint set figures = null")
    world.loads.check_release(world.key("5", "t1"), world.county)
    world.loads.publish(world.key("5", "t1"), world.county)
    # What an older version staged is counted, but for its codes.
    assert [row[:5] for row in world.rows(kept, 5)] == [row[:5] for row in counted(world)]


def test_row_that_was_deleted_by_hand_is_no_lost_key(world):
    judge(world, "a", MANY[:200], publish=True)
    with transaction(world.engine) as cursor:
        cursor.execute("delete from county.owner where acct < '00100'")
    assert judge(world, "b", MANY[:200], publish=True) == ""
    assert world.rows("select count(*) from county.owner") == [(200,)]
