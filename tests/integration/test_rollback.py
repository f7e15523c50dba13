"""A rollback is a publish backwards: exact, in one transaction, again and again, and kind to what refers to the rows."""

import dataclasses
import datetime as dt
import json
import random
import select
from collections import Counter
from decimal import Decimal

import pytest
from county import FEATURE, OWNER, text

from pipeline.catalog.model import Column, ColumnType
from pipeline.database.engine import connect, transaction
from pipeline.errors import AccountingError, DatabaseUnavailable, ReleaseHeld, RollbackRefused, ShapeError
from pipeline.load import upkeep
from pipeline.load.checkpoints import Origin
from pipeline.load.release import CHANNEL
from pipeline.load.shape import ensure_live

A = [("1", "ANN", Decimal("10.00")), ("2", "BOB", Decimal("20.00")), ("3", None, None)]
B = [("1", "ANN", Decimal("11.00")), ("3", None, None), ("4", "DAN", Decimal("40.00"))]
POOLS = [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]

#: All types, a key of two columns, columns that are never empty.
ALL = (
    text("acct", required=True), Column("unit", ColumnType("integer"), "unit", required=True), text("note"),
    Column("small", ColumnType("integer"), "small"), Column("large", ColumnType("bigint"), "large"),
    Column("share", ColumnType("numeric", 9, 6), "share"), Column("money", ColumnType("numeric", 14, 2), "money"),
    Column("day", ColumnType("date"), "day"), Column("flag", ColumnType("boolean"), "flag"),
)  # fmt: skip
KEYED = dataclasses.replace(OWNER, name="keyed", key=("acct", "unit"), columns=ALL)
LOOSE = dataclasses.replace(OWNER, name="loose", member="loose.txt", key=(), parent=("acct",), columns=ALL)
EDGES = {
    "note": ["", " ", "\\N", "\\.", '"', "a\tb", "é€", "\U0001f3e0", "{}", "null", "x" * 300],
    "small": [0, -1, 2**31 - 1, -(2**31)],
    "large": [0, 2**63 - 1, -(2**63)],
    "share": [Decimal("0.000001"), Decimal("-999.999999"), Decimal("1.000000")],
    "money": [Decimal("0.00"), Decimal("999999999999.99"), Decimal("-0.01")],
    "day": [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 2, 29)],
    "flag": [True, False],
}


def rest(rng):
    return tuple(rng.choice([None, *values]) for values in EDGES.values())


class Generated:
    """Releases of two tables of all types, each made from the one before by inserts, updates, deletes and changes of keys."""

    def __init__(self, world, seed):
        self.world, self.rng = world, random.Random(seed)
        self.source = dataclasses.replace(world.county, tables=(KEYED, LOOSE))
        self.keyed = {(str(n), n % 3): rest(self.rng) for n in range(20)}
        self.loose = [(str(n % 5), 1, *rest(self.rng)) for n in range(20)]
        self.number = 0

    def change(self):
        rng = self.rng
        for key in rng.sample(sorted(self.keyed), len(self.keyed) // 4):
            values = self.keyed.pop(key)
            # Gone, of another key, or of other values.
            match rng.randrange(3):
                case 1:
                    self.keyed[(f"{key[0]}x", key[1])] = values
                case 2:
                    self.keyed[key] = rest(rng)
        for _ in range(rng.randrange(8)):
            self.keyed[(str(rng.randrange(100, 200)), rng.randrange(3))] = rest(rng)
        self.loose = [row for row in self.loose if rng.random() > 0.2]
        self.loose += rng.choices(self.loose, k=3) if self.loose else []
        self.loose += [(str(rng.randrange(5)), 1, *rest(rng)) for _ in range(rng.randrange(6))]

    def publish(self):
        self.number += 1
        key = self.world.key(f"r{self.number}")
        for table, rows in ((KEYED, [(*acct, *values) for acct, values in self.keyed.items()]), (LOOSE, list(self.loose))):
            self.rng.shuffle(rows)
            place = self.rng.randrange(len(rows) + 1)
            self.world.stage(key, table, [rows[:place], rows[place:]], origin=Origin(f"{key.release}-{table.name}", "t1", "c1"))
        self.world.loads.check_release(key, self.source)
        self.world.loads.publish(key, self.source)
        columns = ", ".join(column.name for column in ALL)
        assert Counter(self.world.rows(f"select {columns} from county.keyed")) == Counter((*acct, *rest) for acct, rest in self.keyed.items())
        assert Counter(self.world.rows(f"select {columns} from county.loose")) == Counter(self.loose)

    def state(self):
        """Content hashes, and every row with all that it carries."""
        hashes = [self.world.loads.content_hash(table, 2025) for table in (KEYED, LOOSE)]
        return hashes, [sorted(self.world.rows(f"select t::text from county.{name} t")) for name in ("keyed", "loose")]

    def roll_back(self):
        (newest,) = self.world.rows("select import_id from etl.import where state = 'published'")[0]
        self.world.loads.rollback_import(newest)


def soak(world, seed, releases):
    made = Generated(world, seed)
    made.publish()
    states = [made.state()]
    for _ in range(releases):
        made.change()
        made.publish()
        states.append(made.state())
    for state in reversed(states):
        assert made.state() == state
        made.roll_back()
    assert made.state() == ([(0, "0/0"), (0, "0/0")], [[], []])
    assert world.rows("select (select count(*) from history.county_keyed) + (select count(*) from history.county_loose)") == [(0,)]
    # And on from nothing.
    made.publish()
    assert [count for count, _ in made.state()[0]] == [len(made.keyed), len(made.loose)]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_release_is_restored_row_by_row_down_to_the_empty_year(world, seed):
    soak(world, seed, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
def test_every_release_of_a_long_row_is_restored(world, seed):
    soak(world, seed, 10)


def test_publish_change_publish_and_rollback_twice_give_the_same_content_each_time(world):
    made = Generated(world, 7)
    made.publish()
    first = made.state()
    made.change()
    for _ in range(2):
        made.publish()
        second = made.state()[0]
        assert second != first[0]
        made.roll_back()
        assert made.state() == first
    made.publish()
    assert made.state()[0] == second


def test_rows_that_live_on_keep_what_refers_to_them(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("create table public.watched (tax_year integer, acct text, foreign key (tax_year, acct) references county.owner on delete cascade)")
        cursor.execute("insert into public.watched values (2025, '1'), (2025, '3')")
        cursor.execute("alter table county.owner add column remark text")
    world.publish("b", B, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("update county.owner set remark = 'seen' where acct = '1'")
        cursor.execute("alter table county.owner add column mark text default 'new' not null")
    world.loads.rollback_import(2)
    assert world.rows("select acct from public.watched order by 1") == [("1",), ("3",)]
    assert world.rows("select acct, value, remark, mark from county.owner order by 1") == [
        ("1", Decimal("10.00"), "seen", "new"), ("2", Decimal("20.00"), None, "new"), ("3", None, None, "new"),
    ]  # fmt: skip


def test_rows_changed_by_hand_do_not_keep_a_rollback_from_restoring(world):
    world.publish("a", A, POOLS)
    before = world.hashes()
    world.publish("b", B, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("delete from county.owner where acct = '1'")
        cursor.execute("insert into county.owner (tax_year, acct, name, import_id, row_hash) values (2025, '2', 'HAND', 1, gen_random_uuid())")
    world.loads.rollback_import(2)
    assert world.hashes() == before


def test_history_that_somebody_has_thinned_out_is_not_taken_for_whole(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    before = world.hashes()
    with transaction(world.engine) as cursor:
        cursor.execute("delete from history.county_owner where operation = 'U'")
    with pytest.raises(RollbackRefused, match=r"county\.owner has 1 rows"):
        world.loads.rollback_import(2)
    assert world.hashes() == before


def test_rolled_back_release_is_held_and_another_one_is_not(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    world.loads.rollback_import(2)
    with pytest.raises(ReleaseHeld):
        world.loads.open_import(world.key("b"), OWNER)
    world.publish("c", B, POOLS)
    assert world.rows("select release, base_import_id from etl.import where state = 'published'") == [("c", 1)]
    # The first one, too, once it is the newest.
    for import_id in (3, 1):
        world.loads.rollback_import(import_id)
    for release in "abc":
        with pytest.raises(ReleaseHeld):
            world.loads.open_import(world.key(release), OWNER)
    world.publish("d", A, POOLS)
    assert world.rows("select release, base_import_id from etl.import where state = 'published'") == [("d", None)]


def heard(connection):
    select.select([connection], [], [], 120)
    connection.poll()
    told = [json.loads(notify.payload) for notify in connection.notifies]
    connection.notifies.clear()
    return told


def test_listeners_hear_of_every_commit_that_makes_another_import_current(world):
    listener = connect(world.engine)
    listener.autocommit = True
    listener.cursor().execute(f"listen {CHANNEL}")
    about = {"source": "county", "tax_year": 2025}
    world.publish("a", A, POOLS)
    assert heard(listener) == [{"event": "published", **about, "import_id": 1, "current_import_id": 1}]
    world.publish("b", B, POOLS)
    assert heard(listener) == [{"event": "published", **about, "import_id": 2, "current_import_id": 2}]
    with pytest.raises(RollbackRefused):
        world.loads.rollback_import(1)
    world.loads.rollback_import(2)
    assert heard(listener) == [{"event": "rolled_back", **about, "import_id": 2, "current_import_id": 1}]
    world.loads.rollback_import(1)
    assert heard(listener) == [{"event": "rolled_back", **about, "import_id": 1, "current_import_id": None}]
    listener.close()


def vacuums(world):
    return world.rows("select relname, vacuum_count, analyze_count from pg_stat_user_tables where relname like '%%_2025' order by 1")


def test_what_a_dead_publisher_owes_is_paid_by_whoever_comes_next(world, monkeypatch):
    def die(*_):
        raise DatabaseUnavailable("the connection is gone", "a server", "nothing")

    with monkeypatch.context() as patched:
        patched.setattr(upkeep, "pay", die)
        world.publish("a", A, POOLS)
    assert world.rows("select count(*) from county.owner") == [(3,)]
    assert world.rows("select table_name, tax_year, import_id from etl.owed order by 1") == [("feature", 2025, 1), ("owner", 2025, 1)]
    # A first import is analyzed before anybody sees it.
    assert world.rows("select count(*) > 0 from pg_stats where schemaname = 'county' and tablename = 'owner_2025'") == [(True,)]
    assert upkeep.pay(world.engine, ["another"]) == 0
    assert upkeep.pay(world.engine, ["county"]) == 2
    assert world.rows("select count(*) from etl.owed") == [(0,)]
    assert [row[:2] for row in vacuums(world)] == [("feature_2025", 1), ("owner_2025", 1)]


def test_refresh_leaves_only_the_tables_that_it_wrote_to_be_vacuumed(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    assert vacuums(world) == [("feature_2025", 1, 2), ("owner_2025", 2, 3)]
    world.publish("c", B, POOLS)
    assert [row[:2] for row in vacuums(world)] == [("feature_2025", 1), ("owner_2025", 2)]
    assert world.rows("select count(*) from etl.owed") == [(0,)]


def test_small_refresh_of_a_large_table_is_vacuumed_and_not_analyzed(world):
    many = [(f"{number:04}", "ANN", Decimal("1.00")) for number in range(200)]
    world.publish("a", many, POOLS)
    world.publish("b", [*many[:-1], (many[-1][0], "EVE", None)], POOLS)
    assert vacuums(world)[1] == ("owner_2025", 2, 2)
    world.publish("c", [(acct, "ZOE", value) for acct, _, value in many], POOLS)
    assert vacuums(world)[1] == ("owner_2025", 3, 3)


def test_table_that_somebody_holds_stays_owed_and_the_publish_stands(world, monkeypatch):
    world.publish("a", A, POOLS)
    monkeypatch.setattr(upkeep, "LOCK_TIMEOUT", "100ms")
    events = []
    world.loads.on_event = lambda name, fields: events.append(name)
    holder = connect(world.engine)
    holder.cursor().execute("lock table county.owner_2025 in share update exclusive mode")
    world.publish("b", B, POOLS)
    assert "load.owed" in events
    assert world.rows("select table_name from etl.owed") == [("owner",)]
    holder.close()
    assert upkeep.pay(world.engine, ["county"]) == 1


def test_users_trigger_that_keeps_rows_as_they_are_stops_the_publish(world):
    world.publish("a", A, POOLS)
    before = world.hashes()
    with transaction(world.engine) as cursor:
        cursor.execute("create function public.keep() returns trigger language plpgsql as 'begin return null; end'")
        cursor.execute("create trigger keep before update on county.owner for each row execute function public.keep()")
    with pytest.raises(Exception, match="1 rows differ and 0 were updated"):
        world.publish("b", B, POOLS)
    assert world.hashes() == before
    assert world.rows("select count(*) from history.county_owner") == [(0,)]


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("table", "event", "published", "words"),
    [
        (OWNER, "insert", 0, "county.owner: 2 rows are staged, and 1 would be live"),
        (OWNER, "insert ... all", 0, "county.owner: 2 rows are staged, and 0 would be live"),
        (FEATURE, "insert", 0, "county.feature: 2 rows are staged, and 1 would be live"),
        (FEATURE, "insert", 1, "county.feature: 3 rows are staged, and 2 would be live"),
        (FEATURE, "delete", 1, "county.feature: 1 rows are staged, and 2 would be live"),
    ],
)  # fmt: skip
def test_users_trigger_that_swallows_rows_stops_the_publish_of_any_table(world, table, event, published, words):
    """Also a first publish, and a table without a key, in which nobody would miss them."""
    owners, pools = [("1", "ANN", None), ("2", "BOB", None)], [("1", "POOL"), ("2", "POOL")]
    if published:
        world.publish("a", owners, pools)
    ensure_live(world.engine, OWNER, 2025)
    ensure_live(world.engine, FEATURE, 2025)
    before = world.hashes()
    row = "old" if event == "delete" else "new"
    with transaction(world.engine) as cursor:
        cursor.execute("create function public.swallow() returns trigger language plpgsql as 'begin return null; end'")
        cursor.execute(
            f"create trigger swallow before {event.split()[0]} on county.{table.name} for each row "
            f"when ({row}.acct > '{'0' if event.endswith('all') else '1'}') execute function public.swallow()"
        )
    features = pools[:1] if event == "delete" else [*pools, *[("2", "SPA")] * published]
    with pytest.raises(AccountingError, match=words):
        world.publish("b", owners, features)
    assert world.hashes() == before


def test_publish_that_breaks_off_is_not_heard_of_and_owes_nothing(world):
    world.publish("a", A, POOLS)
    key = world.key("b")
    for table, rows in ((OWNER, B), (FEATURE, POOLS)):
        world.stage(key, table, [rows])
    world.loads.check_release(key, world.county)
    with transaction(world.engine) as cursor:
        cursor.execute("create function public.no() returns trigger language plpgsql as 'begin raise exception ''no''; end'")
        cursor.execute("create trigger no before insert on county.owner for each row execute function public.no()")
    listener = connect(world.engine)
    listener.autocommit = True
    listener.cursor().execute(f"listen {CHANNEL}")
    with pytest.raises(ShapeError, match="no"):
        world.loads.publish(key, world.county)
    listener.poll()
    assert listener.notifies == []
    listener.close()
    assert world.rows("select count(*) from etl.owed") == [(0,)]
    assert world.rows("select state from etl.import order by import_id") == [("published",), ("staging",)]
