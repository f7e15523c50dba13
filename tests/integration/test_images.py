"""Before-images give every value back: in any session's settings, of columns that come and go, and from the form that they once had."""

import random
from collections import Counter
from decimal import Decimal

import pytest
from county import FEATURE, OWNER, World
from test_rollback import Generated

from pipeline.database.engine import make_engine, transaction
from pipeline.database.migrate import migrate
from pipeline.errors import RollbackRefused
from pipeline.load.changes import value_changes
from pipeline.load.checkpoints import Origin
from pipeline.load.history import query_as_of
from pipeline.load.manager import LoadManager

A = [("1", "ANN", Decimal("10.00")), ("2", "BOB", Decimal("20.00")), ("3", None, None)]
B = [("1", "ANN", Decimal("11.00")), ("3", "EVE", Decimal("1.00")), ("4", "DAN", None)]
C = [("1", "ZOE", Decimal("12.00")), ("3", "EVE", Decimal("2.00"))]
POOLS = [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]

#: A history as it was before migration 0006: documents of the live rows, no names of columns beside them.
FORMER = """
alter table history.county_{0} add column former jsonb;
update history.county_{0} set former = to_jsonb(jsonb_populate_record(null::county.{0}, etl.before_image(import_id, '{0}', before_image)))
 where before_image is not null;
alter table history.county_{0} drop column before_image;
alter table history.county_{0} rename column former to before_image;
alter table history.county_{0} add check ((operation = 'I') = (before_image is null));
"""
WITHOUT_0006 = """
drop function etl.before_image;
drop table etl.image_columns;
alter table etl.staged_table drop column changed_columns;
delete from etl.migration where version = 6;
"""


def as_before_0006(world: World, *tables: str) -> None:
    with transaction(world.engine) as cursor:
        for table in tables:
            cursor.execute(FORMER.format(table))
        cursor.execute(WITHOUT_0006)


def told(world, releases):
    """Every value that an import changed and every row of every import, of both generated tables."""
    names = ("keyed", "loose")
    changes = [list(value_changes(world.engine, number, name)) for number in range(2, releases + 1) for name in names]
    return changes, [
        Counter(query_as_of(world.engine, number, f"select t::text from {name} t")[1]) for number in range(1, releases + 1) for name in names
    ]


@pytest.mark.fault(82)
def test_history_of_an_older_program_is_migrated_and_taken_back_exactly(world):
    made = Generated(world, 11)
    made.publish()
    states = [made.state()]
    for _ in range(3):
        made.change()
        made.publish()
        states.append(made.state())
    before = told(world, 4)
    as_before_0006(world, "keyed", "loose")
    assert migrate(world.engine) == ["0006_images.sql"]
    assert told(world, 4) == before
    # Old images and new ones side by side.
    made.change()
    made.publish()
    made.roll_back()
    for state in reversed(states):
        assert made.state() == state
        made.roll_back()
    assert world.rows("select count(*) from etl.image_columns") == [(0,)]


def test_history_of_a_table_that_is_gone_and_of_a_column_that_is_gone_is_migrated(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column remark text default 'mine'")
    world.publish("b", B, [])
    as_before_0006(world, "owner", "feature")
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner drop column remark; drop table county.feature")
    migrate(world.engine)
    images = world.rows("select etl.before_image(import_id, 'owner', before_image) from history.county_owner where acct = '2'")
    assert [(image["name"], image["value"], image["remark"]) for (image,) in images] == [("BOB", "20.00", "mine")]
    codes = "select etl.before_image(import_id, 'feature', before_image) ->> 'code' from history.county_feature order by 1"
    assert world.rows(codes) == [("POOL",), ("POOL",), ("SHED",)]


OWN = """
alter table county.owner add column day date, add column span interval, add column share double precision, add column bytes bytea,
    add column code char(5), add column doc jsonb, add column list integer[], add column at timestamptz, add column flag boolean;
update county.owner set day = '2024-02-03', span = '-1 day +02:03:04.5', share = 0.1::float8 + 0.2::float8, bytes = '\\x00ff5c',
    code = 'ab', doc = '{"a": [1, null, "x"]}', list = '{1,null,3}', at = '2024-02-03 04:05:06.789012+00', flag = true where acct = '2'
"""
STRANGE = "-c datestyle=German -c intervalstyle=sql_standard -c extra_float_digits=-15 -c bytea_output=escape -c timezone=Asia/Kolkata"


def test_users_own_values_come_back_whatever_the_session_writes_values_like(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute(OWN)
    before = world.rows("select t::text from county.owner t order by acct")
    given, world.engine = world.engine, make_engine(world.engine.url.update_query_dict({"options": STRANGE}))
    world.loads = LoadManager(world.engine, profile="test", batch_rows=1000)
    world.publish("b", B, POOLS)
    assert [change.old for change in value_changes(world.engine, 2, "owner", "value")] == ["10.00", "20.00", None]
    as_was = query_as_of(given, 1, "select t::text from owner t order by acct")[1]
    world.engine.dispose()
    world.engine, world.loads = given, LoadManager(given)
    assert as_was == before
    world.loads.rollback_import(2)
    assert world.rows("select t::text from county.owner t order by acct") == before


def test_images_of_columns_that_come_and_go_are_read_by_name(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column gone text default 'g', add column stays text default 's'")
    world.publish("b", B, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner drop column gone")
        cursor.execute("alter table county.owner add column late text default 'l'")
    world.publish("c", C, POOLS)
    query = "select acct, name, value, stays, late from owner order by acct"
    # Row 2 left with the second import, before there was a column late; the others with the third.
    assert query_as_of(world.engine, 1, query)[1] == [(*A[0], "s", None), (*A[1], "s", None), (*A[2], "s", None)]
    assert query_as_of(world.engine, 2, query)[1] == [(*row, "s", "l") for row in B]
    assert [change.new for change in value_changes(world.engine, 2, "owner", "value")] == ["11.00", None, "1.00"]


def test_images_whose_columns_are_not_known_are_not_taken_for_empty_rows(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    before = world.hashes()
    with transaction(world.engine) as cursor:
        cursor.execute("delete from etl.image_columns where table_name = 'owner'")
    with pytest.raises(RollbackRefused, match="what their columns are"):
        world.loads.rollback_import(2)
    assert world.hashes() == before


def test_columns_of_a_mass_update_are_counted_once(world):
    rng = random.Random(5)
    many = [(f"{number:05}", "ANN", Decimal(number)) for number in range(1200)]
    world.publish("a", many, POOLS)
    changed = [(acct, rng.choice(["ANN", "EVE"]), value + 1) for acct, _, value in many]
    key = world.key("b")
    for table, rows in ((OWNER, changed), (FEATURE, POOLS)):
        world.stage(key, table, [rows], origin=Origin(f"b-{table.name}", "t1", "c1"))
    world.loads.check_release(key, world.county)
    renamed = sum(name == "EVE" for _, name, _ in changed)
    (counted,) = world.rows("select changed_columns from etl.staged_table where table_name = 'owner' and import_id = 2")[0]
    assert counted == {"name": renamed, "value": 1200}
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.staged_table set changed_columns = '{\"name\": 0, \"value\": 7}' where table_name = 'owner'")
    world.loads.publish(key, world.county)
    # The publish did not count again.
    assert world.rows("select column_name, updated from etl.column_change where import_id = 2") == [("value", 7)]
