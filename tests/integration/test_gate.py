"""The gate: budgets exact at their bounds, and the checks that schema files declare, on the tables as they would be published."""

import dataclasses
import json
from decimal import Decimal

import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.catalog.model import Check
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.errors import GateRefused
from pipeline.load.checkpoints import Origin
from pipeline.load.next_state import next_views
from pipeline.load.staging import staged_tables
from pipeline.load.table_checks import TableChecks
from pipeline.status import read_status, status_lines

OWNERS = [(str(n), f"N{n}", Decimal(n)) for n in range(10)]
FEATURES = [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]


def check(kind, *columns, name="one", least=None, most=None, **more):
    return Check(name, kind, columns, least, most, **more)


def bring(world, release, owners, features, publish=True):
    """Stage a release with the county's declared tables, judge it and publish it."""
    key = world.key(release)
    for table, rows in ((world.county.table("owner"), owners), (world.county.table("feature"), features)):
        world.stage(key, table, [rows], origin=origin_of(release, table))
    world.loads.check_release(key, world.county)
    return world.loads.publish(key, world.county) if publish else None


def origin_of(release, table):
    return Origin(f"{release}-{table.name}", "t1", "c1")


def results(world, table="owner"):
    """Name, kind, severity, whether it passed and what was seen, of the declared checks of the newest import."""
    return world.rows(
        """select check_name, kind, severity, passed, seen from etl.gate_result
            where kind <> 'built_in' and table_name = %s and import_id = (select max(import_id) from etl.import) order by 1""",
        table,
    )


#: The check, what it sees of OWNERS, and a bound that just fails.
CASES = {
    "rows": (check("rows", least=10, most=10), "10 rows", {"minimum": 11}),
    "rows, too many": (check("rows", most=10), "10 rows", {"maximum": 9}),
    "fill": (check("fill", "name", least=Decimal("0.9")), "9 of 10 rows have name", {"minimum": Decimal("0.9000001")}),
    "fill of two": (check("fill", "name", "value", least=Decimal("0.8")), "8 of 10 rows have name, value", {"minimum": Decimal("0.81")}),
    "fill, too many": (check("fill", "name", most=Decimal("0.9")), "9 of 10 rows have name", {"maximum": Decimal("0.8999")}),
    "sum": (check("sum", "value", least=Decimal("42.00"), most=42), "the sum of value is 42.00", {"minimum": Decimal("42.01")}),
    "reference": (
        check("reference", "name", table="feature", to=("code",), least=Decimal("0.11")),
        "8 of 9 rows have name that is not in feature.code, among them acct 0 name N0; acct 2 name N2; acct 4 name N4; acct 5 name N5; "
        "acct 6 name N6",
        {"minimum": Decimal("0.1112")},
    ),
}
HOLED = [(acct, None if acct == "1" else name, None if acct == "3" else value) for acct, name, value in OWNERS]


@pytest.mark.fault(49)
@pytest.mark.parametrize("is_refresh", [False, True], ids=["first import", "refresh"])
@pytest.mark.parametrize(("passing", "seen", "stricter"), CASES.values(), ids=CASES)
def test_check_is_exact_at_its_bound_on_a_first_import_and_on_a_refresh(world, passing, seen, stricter, is_refresh):
    if is_refresh:
        # Half of the rows stay as they are, one changes, one vanishes, the others are new.
        world.publish("0", [*HOLED[:5], ("5", "X", Decimal("9.99")), ("99", "GONE", Decimal(1000))], FEATURES)
    features = [*FEATURES, ("1", "N3")]
    world.declare(dataclasses.replace(OWNER, checks=(passing,)))
    bring(world, "a", HOLED, features, publish=False)
    assert results(world) == [("one", passing.kind, "error", True, seen)]
    world.declare(dataclasses.replace(OWNER, checks=(dataclasses.replace(passing, **stricter),)))
    with pytest.raises(GateRefused) as refused:
        world.loads.check_release(world.key("a"), world.county)
    assert f"owner one: {seen}, expected" in refused.value.seen
    assert results(world) == [("one", passing.kind, "error", False, seen)]
    assert world.rows("select count(*) from county.owner") == [(7 if is_refresh else 0,)]


@pytest.mark.fault(49)
@pytest.mark.parametrize("factor", [10, Decimal("0.1")])
def test_sums_a_power_of_ten_away_stop_before_anything_is_visible(world, factor):
    world.declare(dataclasses.replace(OWNER, checks=(check("sum", "value", least=40, most=50),)))
    bring(world, "a", OWNERS, FEATURES)
    before = world.hashes()
    with pytest.raises(GateRefused, match="owner one: the sum of value is (450.00|4.50), expected at least 40 and at most 50"):
        bring(world, "b", [(acct, name, value * factor) for acct, name, value in OWNERS], FEATURES)
    assert world.hashes() == before


@pytest.mark.fault(49)
def test_column_that_is_suddenly_empty_stops_the_release(world):
    world.declare(dataclasses.replace(OWNER, checks=(check("fill", "name", name="named", least=Decimal("0.5")),)))
    bring(world, "a", OWNERS, FEATURES)
    with pytest.raises(GateRefused, match="owner named: 4 of 10 rows have name, expected a share of at least 0.5"):
        bring(world, "b", [(acct, name if int(acct) < 4 else None, value) for acct, name, value in OWNERS], FEATURES)


def test_warning_is_told_and_publishes(world):
    world.declare(dataclasses.replace(OWNER, checks=(check("rows", least=11, severity="warn"),)))
    told = []
    world.loads.on_event = lambda event, figures: told.append((event, figures))
    bring(world, "a", OWNERS, FEATURES)
    assert world.rows("select count(*) from county.owner") == [(10,)]
    assert results(world) == [("one", "rows", "warn", False, "10 rows")]
    assert [figures["check"] for event, figures in told if event == "load.check"] == ["one"]
    assert "  county 2025: owner one: 10 rows, expected at least 11 (a warning)" in status_lines(read_status(world.engine))


@pytest.mark.parametrize("is_refresh", [False, True], ids=["first import", "refresh"])
def test_values_that_stand_twice_are_named(world, is_refresh):
    if is_refresh:
        world.publish("0", OWNERS[:7], FEATURES)
    world.declare(dataclasses.replace(OWNER, checks=(check("unique", "name"),)))
    with pytest.raises(GateRefused, match="owner one: 1 values of name stand in more than one row, among them name N3, expected no two"):
        bring(world, "a", [*OWNERS[:9], ("9", "N3", None)], FEATURES)


def test_rows_without_a_value_are_not_alike(world):
    world.declare(dataclasses.replace(OWNER, checks=(check("unique", "name"),)))
    bring(world, "a", [("1", None, None), ("2", None, None)], FEATURES)
    assert results(world) == [("one", "unique", "error", True, "each name once")]


def tell_apart(world):
    """Have what the newest import's checks saw say that it is of that import."""
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.gate_result set seen = seen || ', import ' || import_id where kind not in ('built_in', 'drift')")


#: The last one is of a table without a key, of which as many rows may be others: it is looked up again.
ASKED = (
    check("rows", name="rows", least=1),
    check("fill", "name", name="fill", least=Decimal("0.1")),
    check("reference", "acct", name="own", table="owner", to=("acct",), least=0),
    check("reference", "name", name="other", table="feature", to=("code",), least=0),
)


@pytest.mark.parametrize(
    ("owners", "known"),
    [
        (OWNERS, {"rows", "fill", "own"}),
        ([*OWNERS, OWNERS[3]], {"rows", "fill", "own"}),
        ([*OWNERS[:9], ("9", "OTHER", Decimal(9))], set()),
        ([*OWNERS, ("10", "N10", None)], set()),
        (OWNERS[:9], set()),
    ],
    ids=["same", "repeated line", "changed", "new", "gone"],
)
def test_checks_are_not_made_again_of_rows_that_stay_as_they_are_and_of_all_others(world, owners, known):
    world.declare(dataclasses.replace(OWNER, checks=ASKED), max_conflicting_share=1.0)
    bring(world, "a", OWNERS, FEATURES)
    tell_apart(world)
    bring(world, "b", owners, FEATURES)
    assert {name for name, *_, seen in results(world) if seen.endswith("import 1")} == known
    # Another question is asked anew, of the same rows too; another name or severity is not another question.
    tell_apart(world)
    asked = (dataclasses.replace(ASKED[0], minimum=2), dataclasses.replace(ASKED[1], name="filled", severity="warn"))
    world.declare(dataclasses.replace(OWNER, checks=asked))
    bring(world, "c", owners, FEATURES)
    told = {(name, severity) for name, _, severity, _, seen in results(world) if "import" in seen}
    assert told == {("filled", "warn")}


def test_what_a_check_saw_of_a_column_that_has_become_personal_is_not_told_again(world):
    twice = check("unique", "name", name="twice", severity="warn")
    table = dataclasses.replace(OWNER, checks=(twice,))
    rows = [("1", "CANARY", None), ("2", "CANARY", None)]
    world.declare(table)
    bring(world, "a", rows, [])
    assert "CANARY" in results(world)[0][-1]
    personal = tuple(dataclasses.replace(column, personal=column.name == "name") for column in OWNER.columns)
    world.declare(dataclasses.replace(table, columns=personal))
    bring(world, "b", rows, [])
    assert [(name, "CANARY" in seen) for name, *_, seen in results(world)] == [("twice", False)]


PARENT = check("reference", "acct", name="parent", table="owner", to=("acct",))


@pytest.mark.fault(47)
def test_orphans_are_counted_and_the_first_are_named_and_none_is_dropped(world):
    world.declare(dataclasses.replace(FEATURE, checks=(dataclasses.replace(PARENT, severity="warn"),)))
    orphans = [(f"x{n}", "POOL") for n in range(8)] + [("x1", "POOL")]
    bring(world, "a", OWNERS, [*FEATURES, *orphans])
    ((_, kind, severity, passed, seen),) = results(world, "feature")
    assert world.rows("select figure from etl.gate_result where check_name = 'parent'") == [(Decimal("0.25"),)]
    assert (kind, severity, passed) == ("reference", "warn", False)
    assert seen == "9 of 12 rows have acct that is not in owner.acct, among them acct x0; acct x1; acct x2; acct x3; acct x4"
    assert world.rows("select count(*) from county.feature") == [(12,)]


@pytest.mark.fault(47)
def test_orphans_above_the_share_that_is_allowed_hold_the_release(world):
    allowed = dataclasses.replace(PARENT, minimum=Decimal("0.75"))
    world.declare(dataclasses.replace(FEATURE, checks=(allowed,)))
    bring(world, "a", OWNERS, [*FEATURES, ("x", "POOL")])
    with pytest.raises(GateRefused, match="feature parent: 2 of 5 rows have acct .* expected a share of at least 0.75"):
        bring(world, "b", OWNERS, [*FEATURES, ("x", "POOL"), ("x", "POOL")])


@pytest.mark.fault(47)
def test_unchanged_table_loses_its_parents_to_another_table_of_the_release(world):
    world.declare(dataclasses.replace(FEATURE, checks=(PARENT,)))
    bring(world, "a", OWNERS, FEATURES)
    key = world.key("b")
    for disposition, member in (("unchanged", "a-feature"), ("carried_over", None)):
        world.stage(key, OWNER, [[row for row in OWNERS if row[0] != "1"]])
        world.loads.open_import(key, world.county.table("feature"))
        assert world.loads.keep_table(key, world.county.table("feature"), member_sha256=member, recipe="t1").disposition == disposition
        with pytest.raises(GateRefused, match="feature parent: 2 of 3 rows have acct that is not in owner.acct, among them acct 1,"):
            world.loads.check_release(key, world.county)
        key = world.key("c")


def test_reference_to_a_table_that_is_carried_over_and_was_never_there_is_not_judged(world):
    world.declare(
        dataclasses.replace(FEATURE, checks=(PARENT,)), dataclasses.replace(OWNER, checks=(check("rows", least=1),))
    )
    key = world.key("a")
    world.loads.open_import(key, OWNER)
    world.loads.keep_table(key, OWNER, member_sha256=None, recipe="")
    world.stage(key, world.county.table("feature"), [FEATURES])
    world.loads.check_release(key, world.county)
    assert results(world, "feature") == [("parent", "reference", "error", True, "not judged: this release has no owner")]
    assert results(world) == []


def test_personal_values_are_in_no_result(world):
    columns = tuple(dataclasses.replace(column, personal=column.name == "name") for column in OWNER.columns)
    checks = (
        check("reference", "name", name="a", table="feature", to=("code",), severity="warn"),
        check("unique", "name", name="b", severity="warn"),
    )
    world.declare(dataclasses.replace(OWNER, columns=columns, checks=checks))
    bring(world, "a", [("1", "SMITH", None), ("2", "SMITH", None)], FEATURES)
    assert [seen for *_, seen in results(world)] == [
        "2 of 2 rows have name that is not in feature.code, among them acct 1; acct 2",
        "1 values of name stand in more than one row",
    ]


def test_check_may_have_the_name_of_a_built_in_one(world):
    world.declare(dataclasses.replace(OWNER, checks=(check("rows", name="rows", least=1),)))
    bring(world, "a", OWNERS, FEATURES)
    assert results(world) == [("rows", "rows", "error", True, "10 rows")]


def test_shares_of_nothing_pass(world):
    checks = (check("fill", "name", least=1), check("reference", "name", name="two", table="feature", to=("code",)))
    world.declare(dataclasses.replace(OWNER, checks=checks))
    bring(world, "a", [], FEATURES)
    assert [passed for *_, passed, _ in results(world)] == [True, True]


def next_content(world, key):
    """What the next state of both tables holds."""
    with transaction(world.engine) as cursor:
        found = ledger.require_open(cursor, key)
        with next_views(cursor, found, world.county, staged_tables(cursor, found.import_id)) as views:
            names = {name: view.as_string(cursor) for name, view in views.items()}
            cursor.execute(f"select tax_year, acct, name, value, row_hash::text from {names['owner']} order by 2")
            owners = cursor.fetchall()
            cursor.execute(f"select tax_year, acct, code, row_hash::text from {names['feature']} order by 2, 3")
            return owners, cursor.fetchall()


def test_next_state_is_what_the_publish_makes_and_leaves_nothing_behind(world):
    """Over a first import, a refresh that changes a little of everything, an empty one and an unchanged one."""
    many = [("1", "POOL")] * 3 + [("2", "SHED")] * 2 + [("3", "BARN")]
    states = [
        (OWNERS, many),
        ([*OWNERS[2:], ("1", "CHANGED", None), ("77", "NEW", None)], [("1", "POOL")] * 2 + [("2", "SHED")] * 4 + [("3", "BARN"), ("4", "SPA")]),
        (OWNERS, many),
        (OWNERS, many),
        (OWNERS[:1], []),
    ]
    for number, (owners, features) in enumerate(states):
        key = world.key(str(number))
        for table, rows in ((OWNER, owners), (FEATURE, features)):
            world.stage(key, table, [rows], origin=origin_of(str(number), table))
        expected = next_content(world, key)
        world.loads.check_release(key, world.county)
        world.loads.publish(key, world.county)
        assert expected == (
            world.rows("select tax_year, acct, name, value, row_hash::text from county.owner order by 2"),
            world.rows("select tax_year, acct, code, row_hash::text from county.feature order by 2, 3"),
        )
        assert len(expected[1]) == len(features)
    assert world.leftovers() == ([], [0, 0, 0])


def test_other_tax_years_play_no_part(world):
    world.publish("a", OWNERS, FEATURES)
    with transaction(world.engine) as cursor:
        cursor.execute("create table county.owner_2024 partition of county.owner for values in (2024)")
        cursor.execute("insert into county.owner select 2024, acct, name, value, import_id, row_hash from county.owner")
    world.declare(dataclasses.replace(OWNER, checks=(check("sum", "value", least=45, most=45),)))
    bring(world, "b", OWNERS, FEATURES, publish=False)
    assert results(world)[0][3:] == (True, "the sum of value is 45.00")
    kept = world.key("c")
    for table in (OWNER, FEATURE):
        world.loads.open_import(kept, table)
        assert world.loads.keep_table(kept, table, member_sha256=f"a-{table.name}", recipe="t1")
    world.loads.check_release(kept, world.county)
    assert results(world)[0][3:] == (True, "the sum of value is 45.00")


def bad(count):
    row = {"offset": 0, "raw": "x", "rules": ["acct:regex"], "reasons": {"acct": ["no"]}}
    return [json.dumps({"line": n, **row}) for n in range(1000, 1000 + count)]


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_quarantined_share": 0.29}, "owner quarantined: 30 of 100 rows, most for acct:regex (30), expected at most 29.0000%"),
        ({"quarantined_shares": {"owner": 0.29}}, "owner quarantined: 30 of 100 rows"),
        ({"max_quarantined_rows": 29}, "owner quarantined rows: 30 rows, most for acct:regex (30), expected at most 29"),
        ({"max_quarantined_rows": 5, "quarantined_rows": {"owner": 29}}, "owner quarantined rows: 30 rows"),
    ],
)
def test_quarantine_over_a_budget_stops_and_at_the_budget_does_not(world, budget, message):
    world.declare(**budget)
    for release, count, passes in (("a", 29, True), ("b", 30, False)):
        key = world.key(release)
        world.loads.open_import(key, OWNER)
        rows = [(str(n), None, None) for n in range(100 - count)]
        world.loads.stage_part(key, OWNER, world.part(OWNER, rows, quarantined=bad(count)), origin=ORIGIN)
        world.settle(key, OWNER, parts=1, records=100)
        world.stage(key, FEATURE, [FEATURES])
        if passes:
            world.loads.check_release(key, world.county)
            continue
        with pytest.raises(GateRefused) as refused:
            world.loads.check_release(key, world.county)
        assert message in refused.value.seen
        assert world.rows("select count(*) from county.owner") == [(0,)]


def test_reference_over_two_columns_looks_at_rows_that_have_both(world):
    world.declare(
        dataclasses.replace(FEATURE, checks=(check("reference", "acct", "code", table="owner", to=("acct", "name"), least=Decimal("0.5")),))
    )
    bring(world, "a", OWNERS, [("1", "N1"), ("2", "N1"), ("2", "N2"), ("3", None)])
    assert [seen for *_, seen in results(world, "feature")] == [
        "1 of 3 rows have acct, code that is not in owner.acct, name, among them acct 2 code N1"
    ]


def test_figures_of_a_refresh_are_those_of_before_and_what_came_and_went(world, monkeypatch):
    """Rows that stay are not read again; the figures are what a scan would have seen."""
    asked = (check("fill", "name", name="named", least=Decimal("0.1")), check("sum", "value", name="worth", least=1))
    world.declare(dataclasses.replace(OWNER, checks=asked))
    owners = [(f"{n:03}", f"N{n}" if n % 2 else None, Decimal(n)) for n in range(60)]
    bring(world, "r1", owners, FEATURES)
    monkeypatch.setattr(TableChecks, "_read", None)
    changed = [*owners[1:40], ("040", None, Decimal("7.50")), *owners[41:], ("900", "N900", None), ("901", None, Decimal(5))]
    bring(world, "r2", changed, FEATURES)
    named, worth = sum(row[1] is not None for row in changed), sum(row[2] or 0 for row in changed)
    assert [row[-1] for row in results(world) if row[1] in ("fill", "sum")] == [
        f"{named} of {len(changed)} rows have name", f"the sum of value is {worth:.2f}",
    ]  # fmt: skip
    bring(world, "r3", owners, FEATURES)
    assert [row[-1] for row in results(world) if row[1] == "sum"] == [f"the sum of value is {sum(row[2] for row in owners):.2f}"]
