"""Computed tables: staged from what the others will be, recomputed where something changed, published and taken back with them."""

import dataclasses
import random

import pytest
from county import FEATURE, OWNER, text

from pipeline.catalog.model import Check, Column, ColumnType, Index
from pipeline.catalog.roll import Roll, RollInput, rolls_for
from pipeline.database.engine import transaction
from pipeline.errors import CatalogError, ShapeError, StagingStale
from pipeline.load import gate
from pipeline.load.changes import read_changes
from pipeline.load.checkpoints import Origin
from pipeline.load.history import query_as_of
from pipeline.load.shape import ensure_live
from pipeline.verify import verify_rolls

CODES = dataclasses.replace(
    OWNER, name="codes", member="codes.txt", key=("code",), columns=(text("code", required=True), text("meaning"))
)
PROPERTY = dataclasses.replace(
    OWNER, name="roll_property", archive="", member="", layouts=(), key=("acct",),
    columns=(text("acct", required=True), text("name", doc="Owner"), Column("value", ColumnType("numeric", 14, 2), "value"),
             Column("features", ColumnType("integer"), "features", required=True), text("first_feature")),
    indexes=(Index(("name",)),), doc="One row an account",
)  # fmt: skip
PROPERTY_SQL = """
select o.acct, o.name, o.value, f.features, (select c.meaning from {codes} c where c.code = f.least) as first_feature
  from {owner} o
  cross join lateral (select count(*)::integer as features, min(code) as least from {feature} f where f.acct = o.acct) f
"""
EXTRA = dataclasses.replace(
    PROPERTY, name="roll_extra", key=(), parent=("acct",), columns=(text("acct", required=True), text("code")), indexes=()
)
EXTRA_SQL = "select f.acct, f.code from {feature} f join {owner} o on o.acct = f.acct"
#: One row a name, which is not the key of its table; and a table of equal rows of which every row matters to all.
NAMED = dataclasses.replace(
    EXTRA, name="roll_named", key=("name",), parent=(),
    columns=(text("name", required=True), Column("accounts", ColumnType("integer"), "accounts"), Column("pools", ColumnType("integer"), "pools")),
)  # fmt: skip
NAMED_SQL = """
select o.name, count(*)::integer as accounts, (select count(*) from {feature} f where f.code like 'P%')::integer as pools
  from {owner} o where o.name is not null group by o.name
"""
ROLLS = (
    Roll(PROPERTY, (RollInput(OWNER, "acct"), RollInput(FEATURE, "acct"), RollInput(CODES, None)), PROPERTY_SQL),
    Roll(EXTRA, (RollInput(FEATURE, "acct"), RollInput(OWNER, "acct")), EXTRA_SQL),
    Roll(NAMED, (RollInput(OWNER, "name"), RollInput(FEATURE, None)), NAMED_SQL),
)
MEANT = [("POOL", "a pool"), ("SHED", "a shed")]
OWNERS = [("1", "ANN", 10), ("2", "BOB", 20), ("3", None, None)]
FEATURES = [("1", "POOL"), ("1", "POOL"), ("2", "SHED"), ("9", "POOL")]


@pytest.fixture
def county(world):
    """The county with a table of codes and two computed tables, and how to publish a release of it."""
    world.county = dataclasses.replace(world.county, tables=(OWNER, FEATURE, CODES), rolls=ROLLS)

    def staged(release, *, recipe="r1", **tables):
        key = world.key(release, recipe)
        rows = {"owner": OWNERS, "feature": FEATURES, "codes": MEANT} | tables
        for table in world.county.tables:
            if rows[table.name] is None:
                world.loads.open_import(key, table)
                world.loads.keep_table(key, table, member_sha256=None, recipe="")
            else:
                world.stage(key, table, [rows[table.name]], origin=Origin(f"{release}-{table.name}", "t1", "c1"))
        return key, {roll.table.name: world.loads.stage_roll(key, world.county, roll.table.name) for roll in world.county.rolls}

    def publish(release, **tables):
        key, _ = staged(release, **tables)
        world.loads.check_release(key, world.county)
        return world.loads.publish(key, world.county)

    world.staged, world.publish_roll = staged, publish
    return world


def properties(world):
    return world.rows("select acct, name, value, features, first_feature from roll.property where source = 'county' order by 1")


def extras(world):
    return world.rows("select acct, code from roll.extra where (source, tax_year) = ('county', 2025) order by 1, 2")


def test_first_release_fills_the_computed_tables(county):
    changes = county.publish_roll("a")
    assert changes["roll_property"].inserted == 3 and changes["roll_property"].is_first
    assert properties(county) == [("1", "ANN", 10, 2, "a pool"), ("2", "BOB", 20, 1, "a shed"), ("3", None, None, 0, None)]
    # Equal rows are real; one without a parent is left out.
    assert extras(county) == [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]


def test_only_accounts_of_which_something_changed_are_written(county):
    county.publish_roll("a")
    changes = county.publish_roll("b", owner=[("1", "ANN", 11), ("2", "BOB", 20), ("3", None, None), ("9", "NEW", 1)])
    assert (changes["roll_property"].inserted, changes["roll_property"].updated, changes["roll_property"].deleted) == (1, 1, 0)
    # The parent of a feature has come.
    assert changes["roll_extra"].inserted == 1 and ("9", "POOL") in extras(county)
    assert properties(county)[0] == ("1", "ANN", 11, 2, "a pool")
    assert county.rows("select count(*) from history.county_roll_property") == [(2,)]


def test_release_that_changes_nothing_computes_nothing(county):
    county.publish_roll("a")
    _, made = county.staged("b")
    assert {name: table.disposition for name, table in made.items()} == dict.fromkeys(("roll_property", "roll_extra", "roll_named"), "unchanged")
    assert made["roll_property"].rows_loaded == 3


def test_rollback_takes_computed_tables_back_exactly(county):
    county.publish_roll("a")
    before = [county.loads.content_hash(roll.table, 2025) for roll in ROLLS]
    county.publish_roll("b", owner=[("1", "ANN", 11), ("4", "DAN", 3)], feature=[("1", "POOL"), ("4", "SHED"), ("4", "SHED")])
    assert properties(county) == [("1", "ANN", 11, 1, "a pool"), ("4", "DAN", 3, 2, "a shed")]
    (newest,) = county.rows("select import_id from etl.import where state = 'published'")[0]
    county.loads.rollback_import(newest)
    assert [county.loads.content_hash(roll.table, 2025) for roll in ROLLS] == before
    assert extras(county) == [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]


def recomputed(world, year=2025):
    """What a full recompute says of each computed table."""
    return {one.name: (one.count, one.differences, one.note) for one in verify_rolls(world.engine, [(world.county, year)])}


def require_recomputed(world):
    assert [name for name, (_, differences, note) in recomputed(world).items() if differences or note] == []


class Sequence:
    """Releases, each made from the one before by inserts, updates, deletes, moves, codes that change and tables that are not there."""

    def __init__(self, county, seed):
        self.county, self.rng = county, random.Random(seed)
        self.recipes = {roll.table.name: 0 for roll in ROLLS}
        self.owners = {str(n): (f"owner {n}", n) for n in range(8)}
        self.features = [(str(self.rng.randrange(10)), self.rng.choice("PSX")) for _ in range(20)]
        self.codes = {"P": "a pool", "S": "a shed"}

    def change(self):
        rng = self.rng
        for acct in rng.sample(sorted(self.owners), min(2, len(self.owners))):
            self.owners[acct] = (rng.choice([None, "ANN", "BOB"]), rng.choice([None, 0, 1, 2]))
        if rng.random() < 0.5 and self.owners:
            del self.owners[rng.choice(sorted(self.owners))]
        if rng.random() < 0.5:
            self.owners[str(rng.randrange(12))] = ("NEW", 5)
        self.features = [row for row in self.features if rng.random() > 0.1]
        self.features += rng.choices([*self.features, ("3", "P"), ("11", "S")], k=rng.randrange(3))
        if rng.random() < 0.2:
            self.codes[rng.choice("PSX")] = rng.choice(["one", "two", None])
        if rng.random() < 0.1:
            self.codes.pop(rng.choice("PSX"), None)
        if rng.random() < 0.2:  # the SQL is edited, and gives the same rows or others
            edited = rng.choice([PROPERTY_SQL, f"{PROPERTY_SQL} where o.acct <> '5'", f"{PROPERTY_SQL} -- mended"])
            rolls = (dataclasses.replace(ROLLS[0], sql=edited), *ROLLS[1:])
            self.county.county = dataclasses.replace(self.county.county, rolls=rolls)

    def publish(self, number):
        absent = self.rng.choice(["owner", "feature", "codes"]) if self.rng.random() < 0.3 else ""
        tables = {
            "owner": [(acct, *values) for acct, values in self.owners.items()], "feature": list(self.features),
            "codes": list(self.codes.items()),
        }  # fmt: skip
        for rows in tables.values():
            self.rng.shuffle(rows)
        self.county.publish_roll(f"r{number}", **{name: None if name == absent else rows for name, rows in tables.items()})

    def state(self):
        return [self.county.loads.content_hash(table, 2025) for table in (OWNER, FEATURE, CODES, PROPERTY, EXTRA, NAMED)]


def run_sequence(county, seed, steps):
    made = Sequence(county, seed)
    made.publish(0)
    states = [(made.state(), county.county)]
    for number in range(1, steps + 1):
        made.change()
        made.publish(number)
        require_recomputed(county)
        states.append((made.state(), county.county))
        while len(states) > 1 and made.rng.random() < 0.3:
            states.pop()
            (newest,) = county.rows("select import_id from etl.import where state = 'published'")[0]
            county.loads.rollback_import(newest)
            before, county.county = states[-1]
            assert made.state() == before
            require_recomputed(county)


@pytest.mark.parametrize("seed", [3, 8])
def test_incremental_equals_full_after_any_sequence_of_releases(county, seed):
    run_sequence(county, seed, 8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_incremental_equals_full_after_long_sequences(county, seed):
    run_sequence(county, seed, 25)


def test_input_that_the_tax_year_does_not_have_is_read_as_empty_or_leaves_the_table_out(county):
    absent = dataclasses.replace(CODES, years=(2030, 2040))
    tables = (OWNER, FEATURE, absent)
    without = {True: RollInput(absent, None), False: RollInput(absent, None, required=False)}
    for is_required, one in without.items():
        roll = dataclasses.replace(ROLLS[0], inputs=(*ROLLS[0].inputs[:2], one))
        source = dataclasses.replace(county.county, tables=tables, rolls=(roll,))
        assert [found.table.name for found in rolls_for(source, 2025)] == ([] if is_required else ["roll_property"])
    county.county = dataclasses.replace(source, tables=(OWNER, FEATURE))
    roll = dataclasses.replace(county.county.rolls[0], inputs=(*ROLLS[0].inputs[:2], without[False]))
    county.county = dataclasses.replace(county.county, rolls=(roll,))
    county.publish_roll("a")
    assert properties(county)[0] == ("1", "ANN", 10, 2, None)


@pytest.mark.parametrize(
    ("table", "query", "said"),
    [
        (0, "select acct, name, value from {owner}", "gives no features, first_feature"),
        (0, f"select *, 1 as more from ({PROPERTY_SQL}) q", "gives more"),
        (0, f"{PROPERTY_SQL} union all select acct, 'BOB', null, 0, null from {{owner}}", "gives a key twice: 1; 2; 3"),
        (1, "select acct, nothing as code from {owner}", "nothing"),
        (1, "select acct, (1 / (length(acct) - 1))::text as code from {owner}", "division by zero"),
        (1, "select nullif(acct, '1') as acct, 'X' as code from {owner}", "acct"),
    ],
)
def test_sql_that_does_not_fit_is_refused_with_its_tables_name(county, table, query, said):
    roll = ROLLS[table]
    county.county = dataclasses.replace(county.county, rolls=(dataclasses.replace(roll, sql=query),))
    with pytest.raises(CatalogError, match=f"SQL of {roll.table.qualified} for county.*{said}"):
        county.publish_roll("a")


def test_computed_table_waits_for_what_it_reads(county):
    key = county.key("a")
    county.stage(key, OWNER, [OWNERS], origin=Origin("a-owner", "t1", "c1"))
    with pytest.raises(StagingStale, match="feature, codes"):
        county.loads.stage_roll(key, county.county, "roll_property")


def test_computed_row_that_somebody_changes_is_found_by_its_hash_and_by_computing_it_again(county):
    county.publish_roll("a")
    require_recomputed(county)
    with transaction(county.engine) as cursor:
        cursor.execute("update roll.property set name = 'BOB' where acct = '1'")
        cursor.execute("delete from roll.extra where acct = '2'")
    seen = recomputed(county)
    assert seen["roll.property of county 2025"][1] == ("1 rows are not what their hashes state",)
    assert seen["roll.extra of county 2025"][1] == (
        "2 rows, where the ledger states 3", "1 accounts come out otherwise when computed again, such as 2",
    )  # fmt: skip


def test_computed_table_has_the_rows_of_each_source_apart_under_one_name(county):
    county.publish_roll("a")
    kinds = "select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_class c where c.relname like %s and relkind in ('r', 'p') order by 1"
    assert county.rows(kinds, "property%") == [
        ("property", None), ("property_county", "FOR VALUES IN ('county')"), ("property_county_2025", "FOR VALUES IN (2025)"),
    ]  # fmt: skip
    ((key,),) = county.rows("select pg_get_indexdef('roll.property_pkey'::regclass)")
    assert key.endswith("(tax_year, acct, source) INCLUDE (row_hash)")
    assert county.rows("select indexname from pg_indexes where schemaname = 'roll' and indexdef like '%(tax_year, name)%' order by 1") == [
        ("property_county_2025_tax_year_name_idx",), ("property_county_name_idx",),
    ]  # fmt: skip
    assert county.rows("select col_description('roll.property'::regclass, 4)") == [("Owner",)]


def test_sources_share_a_computed_table_and_a_column_that_one_of_them_brings(county):
    county.publish_roll("a")
    longer = dataclasses.replace(PROPERTY, source="other", columns=(*PROPERTY.columns, text("later")))
    ensure_live(county.engine, longer, 2025)
    ensure_live(county.engine, dataclasses.replace(longer, source="county"), 2026)
    assert county.rows("select acct, later from roll.property order by 1") == [("1", None), ("2", None), ("3", None)]
    recorded = "select source from etl.live_column where (table_name, column_name) = ('roll_property', 'later') order by 1"
    assert county.rows(recorded) == [("county",), ("other",)]


def test_changes_of_a_computed_table_are_told_and_read_as_of_an_import(county):
    county.publish_roll("a")
    county.publish_roll("b", owner=[("1", "ANN", 11), ("2", "BOB", 20), ("3", None, None)])
    ids = [number for (number,) in county.rows("select import_id from etl.import order by 1")]
    changed = {table.table: table for table in read_changes(county.engine, ids[1]).tables}
    assert dict(changed["roll_property"].columns) == {"value": 1}
    assert query_as_of(county.engine, ids[0], "select acct, value from roll_property where acct = '1'")[1] == [("1", 10)]


def test_constraint_of_ones_own_on_a_computed_table_is_named_with_the_rows_that_break_it(county):
    county.publish_roll("a")
    with transaction(county.engine) as cursor:
        cursor.execute("alter table roll.property add constraint small check (value < 1000)")
    with pytest.raises(ShapeError, match=r"small, .* on roll.property_county, refuses 1 rows of the release, the first with acct 1"):
        county.publish_roll("b", owner=[("1", "ANN", 1000), *OWNERS[1:]])
    assert properties(county)[0][2] == 10


def test_references_are_judged_without_looking_up_each_row_by_itself(county, monkeypatch):
    """PostgreSQL expects next to no rows that stay: 100,000 lines of 20,000 accounts, each looked up anew, took two minutes and a half."""
    settings = []

    class Watched(gate.TableChecks):
        def run(self):
            self._cursor.execute("show enable_nestloop")
            settings.append(self._cursor.fetchone()[0])
            return super().run()

    monkeypatch.setattr(gate, "TableChecks", Watched)
    county.declare(dataclasses.replace(FEATURE, checks=(Check("owner", "reference", ("acct",), table="owner", to=("acct",)),)))
    county.publish_roll("a", feature=FEATURES[:3])
    assert set(settings) == {"off"}
