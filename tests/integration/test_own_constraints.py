"""Constraints of the user's own on live tables: what they refuse is told by constraint and rows, and nothing changes."""

import dataclasses

import psycopg2
import pytest
from county import FEATURE, OWNER

from pipeline.database.engine import transaction
from pipeline.errors import ShapeError
from pipeline.load.preflight import dependents

ROWS = [(f"{number:03}", f"NAME {number}", None) for number in range(1, 21)]
CHANGED = [*ROWS[:10], *((acct, "SHORT", value) for acct, _, value in ROWS[10:15]), *ROWS[15:]]
SHORT = "5 rows of the release, the first with acct 011, 012, 013"


def alter(world, statement):
    with transaction(world.engine) as cursor:
        cursor.execute(statement)


def checked(world, release, owners):
    key = world.key(release)
    world.stage(key, OWNER, [owners])
    world.stage(key, FEATURE, [[("001", "POOL")]])
    world.loads.check_release(key, world.county)
    return key


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("alter table county.owner add constraint long_names check (length(name) > 5)", f"long_names, .* county.owner, refuses {SHORT} "),
        ("alter table county.owner add constraint long_names check (name like 'NAME%')", f"long_names, .* county.owner, refuses {SHORT} "),
        ("create unique index one_name on county.owner (tax_year, name)", "2025_tax_year_name_idx, .* refuses a row "),
        ("alter table county.owner add mine text, add check (mine is not null or name <> 'SHORT')", "owner_check, .* refuses a row "),
        ("alter table county.owner_2025 add constraint of_the_year check (name <> 'SHORT')", f"of_the_year, .* refuses {SHORT} "),
    ],
    ids=["check", "check with a per cent sign", "unique index", "check of a column of one's own", "check on a partition"],
)  # fmt: skip
def test_constraint_of_the_users_own_stops_the_publish_and_is_named_with_its_rows(world, statement, words):
    world.publish("a", ROWS, [("001", "POOL")])
    before = world.hashes()
    alter(world, statement)
    key = checked(world, "b", CHANGED)
    with pytest.raises(ShapeError, match=words) as refused:
        world.loads.publish(key, world.county)
    assert "SHORT" not in refused.value.seen and "NAME" not in refused.value.seen
    assert (world.hashes(), world.rows("select state from etl.import order by 1")) == (before, [("published",), ("staging",)])
    alter(world, "drop index if exists county.one_name")
    for name in ("long_names", "owner_check", "of_the_year"):
        alter(world, f"alter table county.owner{'_2025' if name == 'of_the_year' else ''} drop constraint if exists {name}")
    assert world.loads.publish(key, world.county)["owner"].updated == 5
    after = world.hashes()
    alter(world, "alter table county.owner add constraint short_names check (name = 'SHORT' or acct not between '011' and '015')")
    with pytest.raises(ShapeError, match="short_names, .* refuses a row"):
        world.loads.rollback_import(2)
    assert world.hashes() == after


@pytest.mark.fault(66)
def test_key_that_names_a_person_is_not_told(world):
    columns = tuple(dataclasses.replace(column, personal=True) for column in OWNER.columns)
    world.declare(dataclasses.replace(OWNER, columns=columns))
    world.publish("a", ROWS, [("001", "POOL")])
    alter(world, "alter table county.owner add constraint long_names check (length(name) > 5)")
    with pytest.raises(ShapeError, match="refuses 5 rows of the release [(]SQLSTATE"):
        world.loads.publish(checked(world, "b", CHANGED), world.county)


def test_constraint_of_our_own_that_is_broken_stays_a_defect(world):
    key = checked(world, "a", ROWS)
    alter(world, "alter table etl.import_table add check (table_name <> 'owner')")
    with pytest.raises(psycopg2.errors.CheckViolation):
        world.loads.publish(key, world.county)


def test_constraints_of_the_users_own_are_noted_before_a_run(world):
    world.publish("a", ROWS, [("001", "POOL")])
    assert dependents(world.engine, [world.county]) == []
    alter(world, "alter table county.owner add constraint long_names check (length(name) > 5)")
    alter(world, "create unique index one_name on county.owner (tax_year, name)")
    assert dependents(world.engine, [world.county]) == [
        "county.owner has a check constraint of your own, long_names: it is kept",
        "county.owner has a unique index of your own, one_name: it is kept",
    ]
