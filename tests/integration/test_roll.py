"""Computed tables: staged from what the others will be, recomputed where something changed, published and taken back with them."""

import dataclasses
import random

import pytest
from county import FEATURE, OWNER, text

from pipeline.catalog.model import Column, ColumnType, Index
from pipeline.catalog.roll import Roll, RollInput
from pipeline.load.checkpoints import Origin
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
ROLLS = (
    Roll(PROPERTY, (RollInput(OWNER, "acct"), RollInput(FEATURE, "acct"), RollInput(CODES, None)), PROPERTY_SQL),
    Roll(EXTRA, (RollInput(FEATURE, "acct"), RollInput(OWNER, "acct")), EXTRA_SQL),
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
    assert {name: table.disposition for name, table in made.items()} == {"roll_property": "unchanged", "roll_extra": "unchanged"}
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
            rolls = (dataclasses.replace(ROLLS[0], sql=edited), ROLLS[1])
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
        return [self.county.loads.content_hash(table, 2025) for table in (OWNER, FEATURE, CODES, PROPERTY, EXTRA)]


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
