"""What an import changed, what a table was, and how long that is known."""

import random
from collections import Counter
from decimal import Decimal

import pytest
from county import FEATURE, OWNER

from pipeline.database.engine import transaction
from pipeline.errors import ConfigurationError, HistoryGone, RollbackRefused
from pipeline.load.changes import TableChanges, ValueChange, read_changes, value_changes
from pipeline.load.history import query_as_of
from pipeline.load.upkeep import Kept, prune

A = [("1", "ANN", Decimal("10.00")), ("2", "BOB", Decimal("20.00")), ("3", None, None)]
B = [("1", "ANN", Decimal("11.00")), ("3", "EVE", Decimal("1.00")), ("4", "DAN", None)]
POOLS = [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]
OWNERS = "select acct, name, value, import_id from owner order by acct"


def test_what_an_import_changed_is_told_by_table_and_by_column(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    assert read_changes(world.engine, 1).tables == (
        TableChanges("feature", "staged", 3, 0, 0, {}, True),
        TableChanges("owner", "staged", 3, 0, 0, {}, True),
    )
    assert read_changes(world.engine, 2, "owner").tables == (TableChanges("owner", "staged", 1, 2, 1, {"value": 2, "name": 1}, False),)
    view = world.rows(
        "select column_name, inserted, updated, deleted from etl.change where import_id = 2 and table_name = 'owner' order by 1 nulls first"
    )
    assert view == [(None, 1, 2, 1), ("name", None, 1, None), ("value", None, 2, None)]


def test_first_import_is_one_entry_and_no_row_of_history(world):
    world.publish("a", A, POOLS)
    assert world.rows("select count(*) from etl.change where import_id = 1") == [(2,)]
    assert list(value_changes(world.engine, 1, "owner")) == []


def test_values_are_told_old_and_new_also_when_a_later_import_has_changed_them_again(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    expected = [
        ValueChange("owner", "updated", {"acct": "1"}, "value", "10.00", "11.00"),
        ValueChange("owner", "deleted", {"acct": "2"}, "acct", "2", None),
        ValueChange("owner", "deleted", {"acct": "2"}, "name", "BOB", None),
        ValueChange("owner", "deleted", {"acct": "2"}, "value", "20.00", None),
        ValueChange("owner", "updated", {"acct": "3"}, "name", None, "EVE"),
        ValueChange("owner", "updated", {"acct": "3"}, "value", None, "1.00"),
        ValueChange("owner", "inserted", {"acct": "4"}, "acct", None, "4"),
        ValueChange("owner", "inserted", {"acct": "4"}, "name", None, "DAN"),
    ]
    assert list(value_changes(world.engine, 2, "owner")) == expected
    world.publish("c", [("1", "ZOE", Decimal("99.00")), ("2", "BACK", None)], POOLS)
    world.publish("d", [("4", "OTHER", None)], POOLS)
    assert list(value_changes(world.engine, 2, "owner")) == expected
    assert list(value_changes(world.engine, 2, "owner", "name")) == [change for change in expected if change.column == "name"]


def test_rows_without_a_key_are_told_by_parent_and_seq(world):
    world.publish("a", A, POOLS)
    world.publish("b", A, [("1", "POOL"), ("1", "SPA"), ("2", "SHED")])
    changes = [(change.operation, change.key, change.old, change.new) for change in value_changes(world.engine, 2, "feature", "code")]
    # The number that the second pool leaves is given to the spa.
    assert changes == [("deleted", {"acct": "1", "seq": 2}, "POOL", None), ("inserted", {"acct": "1", "seq": 2}, None, "SPA")]


def states_of(world, rng, releases):
    """Publish releases made at random; what both tables were after each, whole rows with seq and import."""
    owners, states = {}, []
    for number in range(releases):
        for _ in range(12):
            owners[str(rng.randrange(12))] = (rng.choice([None, "", "ANN", "\\N", 'a"b', "  é"]), rng.choice([None, Decimal("1.10"), Decimal("-3.00")]))
        for acct in rng.sample(sorted(owners), len(owners) // 3):
            del owners[acct]
        features = [(str(rng.randrange(4)), rng.choice("PQR")) for _ in range(rng.randrange(1, 12))]
        world.publish(f"r{number}", [(acct, *rest) for acct, rest in owners.items()], features)
        states.append({name: Counter(world.rows(f"select * from county.{name}")) for name in ("owner", "feature")})
    return states


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tables_are_read_as_they_were_after_every_import(world, seed):
    states = states_of(world, random.Random(seed), 5)
    for import_id, state in enumerate(states, 1):
        for name, rows in state.items():
            _, then = query_as_of(world.engine, import_id, f"select * from {name}")
            assert Counter(then) == rows
    world.loads.rollback_import(5)
    assert Counter(query_as_of(world.engine, 2, "select * from feature")[1]) == states[1]["feature"]
    with pytest.raises(HistoryGone, match="import 5 is rolled_back"):
        query_as_of(world.engine, 5, OWNERS)


def test_table_that_was_filled_later_had_no_rows(world):
    world.publish("a", [], POOLS)
    world.publish("b", A, POOLS)
    world.publish("c", B, POOLS)
    assert query_as_of(world.engine, 1, OWNERS)[1] == []
    assert [row[:3] for row in query_as_of(world.engine, 2, OWNERS)[1]] == A
    assert read_changes(world.engine, 2, "owner").tables[0].is_first


@pytest.mark.parametrize("statement", ["delete from owner", "delete from county.owner", "commit; delete from county.owner", "nonsense"])
def test_reading_as_of_an_import_writes_nothing(world, statement):
    world.publish("a", A, POOLS)
    before = world.hashes()
    with pytest.raises(ConfigurationError):
        query_as_of(world.engine, 1, statement)
    assert world.hashes() == before
    assert world.rows("select count(*) from pg_views where viewname = 'owner'") == [(0,)]


@pytest.mark.fault(70)
def test_history_beyond_the_policy_goes_and_what_needs_it_is_refused_by_name(world):
    for name, owners in (("a", A), ("b", B), ("c", A), ("d", B)):
        world.publish(name, owners, POOLS)
    live = world.hashes()
    # Published today: the days keep what the count would not.
    assert prune(world.engine, "county", Kept(history_imports=1, history_days=1)) == 0
    removed = prune(world.engine, "county", Kept(history_imports=1, history_days=0))
    assert removed == world.rows("select sum(inserted + updated + deleted)::int from etl.import_table where import_id in (2, 3)")[0][0]
    assert world.rows("select import_id from etl.import where history_dropped_at is not null order by 1") == [(2,), (3,)]
    assert world.hashes() == live
    assert prune(world.engine, "county", Kept(history_imports=1, history_days=0)) == 0

    assert [row[:3] for row in query_as_of(world.engine, 3, OWNERS)[1]] == A
    with pytest.raises(HistoryGone, match="row history of import 3 was removed"):
        query_as_of(world.engine, 2, OWNERS)
    with pytest.raises(HistoryGone):
        list(value_changes(world.engine, 3, "owner"))
    assert read_changes(world.engine, 3, "owner").tables[0].columns == {"value": 2, "name": 1}

    world.loads.rollback_import(4)
    before = world.hashes()
    with pytest.raises(RollbackRefused, match="row history of import 3 was removed on"):
        world.loads.rollback_import(3)
    assert world.hashes() == before
    assert world.rows("select import_id from etl.import where state = 'published'") == [(3,)]


def test_policy_of_no_history_keeps_what_is_published_and_the_way_on(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    prune(world.engine, "county", Kept(history_imports=0, history_days=0))
    assert world.rows("select count(*) from history.county_owner") == [(0,)]
    world.publish("c", A, POOLS)
    world.loads.rollback_import(3)
    assert [row[:3] for row in query_as_of(world.engine, 2, OWNERS)[1]] == B


def test_staging_that_nobody_took_up_goes_after_its_days_and_the_held_release_stays_held(world):
    world.publish("a", A, POOLS)
    world.stage(world.key("b"), OWNER, [B])
    world.stage(world.key("b"), FEATURE, [POOLS])
    prune(world.engine, "county", Kept())
    assert len(world.leftovers()[0]) == 4
    with transaction(world.engine) as cursor:
        cursor.execute("update etl.import set state = 'refused', closed_at = now() - interval '40 days', error_code = 'E_GATE' where import_id = 2")
    prune(world.engine, "county", Kept())
    assert world.leftovers() == ([], [0, 0, 0])
    assert world.rows("select state from etl.import order by import_id") == [("published",), ("refused",)]
    # It may still be accepted; then it is staged again.
    world.loads.accept_import(2, reason="looked at")
    world.publish("b", B, POOLS)
    assert world.rows("select acct from county.owner order by 1") == [("1",), ("3",), ("4",)]


def test_imports_that_are_no_part_of_what_is_current_are_refused(world):
    world.publish("a", A, POOLS)
    with pytest.raises(HistoryGone, match="import 9 is unknown"):
        query_as_of(world.engine, 9, OWNERS)
    with pytest.raises(HistoryGone, match="import 9 has published nothing"):
        read_changes(world.engine, 9)
    with pytest.raises(HistoryGone, match="of a table nothing"):
        read_changes(world.engine, 1, "nothing")
    with pytest.raises(HistoryGone, match="owner.nothing"):
        list(value_changes(world.engine, 1, "owner", "nothing"))
