"""Constraints of the user's own on live tables: what they refuse is told by constraint and rows, and nothing changes."""

import dataclasses
import random
import string

import psycopg2
import pytest
from county import FEATURE, OWNER

from pipeline.catalog.model import Index
from pipeline.database.engine import transaction
from pipeline.errors import ShapeError
from pipeline.load.preflight import dependents

ROWS = [(f"{number:03}", f"NAME {number}", None) for number in range(1, 21)]
CHANGED = [*ROWS[:10], *((acct, "SHORT", value) for acct, _, value in ROWS[10:15]), *ROWS[15:]]
SHORT = "5 rows of the release, the first with acct 011, 012, 013"


def alter(world, statement):
    with transaction(world.engine) as cursor:
        cursor.execute(statement)


def checked(world, release, owners, table=OWNER):
    key = world.key(release)
    world.stage(key, table, [owners])
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


STRICT = """create function public.strict(name text) returns boolean language plpgsql as
            'begin if name = ''SHORT'' then raise exception ''no % here'', name; end if; return true; end'"""


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["add constraint ratio check (10 / (length(name) - 5) > 0)"], "E_SHAPE: ratio on county.owner, a constraint .*: division by zero .*22012"),
        (["add constraint digits check (name like 'NAME%' or name::integer > 0)"],
         r"E_SHAPE: digits on .*: invalid input syntax for type integer: \(a value\) \(SQLSTATE 22P02\)"),
        ([STRICT, "add constraint strict check (public.strict(name))"],
         r"E_SHAPE: strict on .*: PL/pgSQL function (public\.)?strict\(text\) line 1 at RAISE \(SQLSTATE P0001\)"),
        (["add constraint a check (name <> ''), add mine integer default 0, add constraint b check (10 / (mine + length(name) - 5) > 0)"],
         "E_SHAPE: b on county.owner, a constraint .*: division by zero"),
        (["add constraint shorts check (name <> 'SHORT' and 10 / (length(name) - 6) > 0)"],
         "E_SHAPE: shorts, a constraint .* refuses a row; which ones cannot be told, for on some it cannot be evaluated: division by zero"),
    ],
    ids=["division by zero", "cast", "function that raises", "on a column of one's own", "on other rows than it refuses"],
)  # fmt: skip
def test_constraint_that_cannot_be_evaluated_is_named_with_how_it_fails(world, statements, words):
    rows = [*CHANGED[10:15], *CHANGED[:10], *CHANGED[15:]]
    world.publish("a", ROWS, [("001", "POOL")])
    before = world.hashes()
    for statement in statements:
        alter(world, statement if statement.startswith("create") else f"alter table county.owner {statement} not valid")
    # A longer name than all others, which no row had that is live.
    key = checked(world, "b", [*rows, ("100", "SIXSIX", None)])
    with pytest.raises(ShapeError, match=words) as refused:
        world.loads.publish(key, world.county)
    assert "SHORT" not in str(refused.value) and "SIXSIX" not in str(refused.value)
    assert (world.hashes(), world.rows("select state from etl.import order by 1")) == (before, [("published",), ("staging",)])


@pytest.mark.fault(66)
def test_constraint_that_cannot_be_evaluated_on_rows_that_come_back_is_named(world):
    world.publish("a", ROWS, [("001", "POOL")])
    world.publish("b", CHANGED, [("001", "POOL")])
    after = world.hashes()
    alter(world, "alter table county.owner add constraint ratio check (name = 'SHORT' or 10 / (length(name) - 7) > 0) not valid")
    with pytest.raises(ShapeError, match="E_SHAPE: ratio on county.owner, a constraint .* division by zero"):
        world.loads.rollback_import(2)
    assert world.hashes() == after


@pytest.mark.fault(66)
def test_failure_that_no_constraint_explains_is_not_blamed_on_one(world):
    world.publish("a", ROWS, [("001", "POOL")])
    alter(world, "alter table county.owner add constraint names check (name <> '')")
    alter(world, "create function public.no() returns trigger language plpgsql as 'begin raise exception ''not now''; end'")
    alter(world, "create trigger no before update on county.owner for each row execute function public.no()")
    with pytest.raises(ShapeError, match="not now"):
        world.loads.publish(checked(world, "b", CHANGED), world.county)


@pytest.mark.fault(66)
def test_key_that_names_a_person_is_not_told(world):
    columns = tuple(dataclasses.replace(column, personal=True) for column in OWNER.columns)
    world.declare(dataclasses.replace(OWNER, columns=columns))
    world.publish("a", ROWS, [("001", "POOL")])
    alter(world, "alter table county.owner add constraint long_names check (length(name) > 5)")
    with pytest.raises(ShapeError, match="refuses 5 rows of the release [(]SQLSTATE"):
        world.loads.publish(checked(world, "b", CHANGED), world.county)


@pytest.mark.fault(43)
def test_value_that_no_index_takes_stops_the_publish_and_is_no_weakness_of_the_server(world):
    """A nightly run would have tried it again for ever, as something that may pass."""
    long = "".join(random.Random(1).choices(string.ascii_letters, k=6000))
    key = checked(world, "a", [*ROWS, ("999", long, None)], dataclasses.replace(OWNER, indexes=(Index(("name",)),)))
    with pytest.raises(ShapeError, match=r'exceeds .* for index "owner_2025_.*name_idx".*maxlength') as refused:
        world.loads.publish(key, world.county)
    assert long[:20] not in str(refused.value)
    assert world.rows("select count(*) from county.owner") == [(0,)]


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
