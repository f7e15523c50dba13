"""Readers at work while a release is published, refreshed and taken back: never two releases mixed, never kept waiting."""

import contextlib
import re
import threading
import time

import plain_role
import psycopg2
import pytest
import sqlalchemy as sa
from county import FEATURE, OWNER

from pipeline.database.engine import connect, transaction
from pipeline.load.checkpoints import Origin
from pipeline.load.shape import ensure_live

READERS = 20
OWNERS, FEATURES = 8000, 4000
#: Whoever waits longer for a lock fails. What is not a lock is the machine's business: twenty readers share two processors.
LONGEST_WAIT = "100ms"
SUMS = """select (select coalesce(sum(value), 0)::int from county.owner where tax_year = 2025),
                 (select coalesce(sum(code::int), 0)::int from county.feature where tax_year = 2025)"""
#: PostgreSQL's own word on a lock that was waited for, and on what: numbers below are of its catalogs.
WAITED = re.compile(r"process \d+ (?:still waiting for|acquired) (\w+) on (.+) after ([0-9.]+) ms")
OURS = re.compile(r"(?:relation|tuple .* of relation|extension of relation) (\d+) ")
FIRST_OF_USERS = 16_384
EACH = ("select coalesce(sum(value), 0)::int from county.owner", "select coalesce(sum(code::int), 0)::int from county.feature")


class Reader(threading.Thread):
    """Sums over both tables, again and again: in one statement, or in a snapshot of several."""

    def __init__(self, world, is_repeatable):
        super().__init__()
        self.connection, self.is_repeatable = connect(world.engine), is_repeatable
        self.seen, self.error, self.slowest_s, self.waits = {}, None, 0.0, []
        self.stopping = threading.Event()

    def run(self):
        try:
            if self.is_repeatable:
                self.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with contextlib.closing(self.connection), self.connection.cursor() as cursor:
                cursor.execute(f"set lock_timeout = '{LONGEST_WAIT}'; set client_min_messages = log")
                self.connection.commit()
                while not self.stopping.is_set():
                    started = time.monotonic()
                    sums = self.read(cursor)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                    self.connection.rollback()
                    self.seen[sums] = self.seen.get(sums, 0) + 1
                    self.waits += filter(None, map(WAITED.search, self.connection.notices))
                    self.connection.notices.clear()
        except psycopg2.Error as error:
            self.error = error

    def read(self, cursor):
        if not self.is_repeatable:
            cursor.execute(SUMS)
            return cursor.fetchone()
        found = []
        for statement in (*EACH, *EACH):
            cursor.execute(statement)
            found.append(cursor.fetchone()[0])
            time.sleep(0.01)
        # The same twice, or the snapshot was none.
        return tuple(found[:2]) if found[:2] == found[2:] else tuple(found)


@pytest.fixture
def world(world, server_url, database_url):
    """Sessions are told of every lock that they waited for longer than a millisecond: how long the processors made them wait is not in it."""
    name = sa.make_url(database_url).database
    with plain_role.admin(server_url) as cursor:
        cursor.execute(f"alter database {name} set log_lock_waits = on; alter database {name} set deadlock_timeout = '1ms'")
    world.engine.dispose()
    return world


def waits_for(readers):
    """The waits for locks on what is not PostgreSQL's own, in its words; and the longest one of all, in milliseconds."""
    found = [wait for reader in readers for wait in reader.waits]
    ours = [wait[0] for wait in found if (of := OURS.match(wait[2])) is None or int(of[1]) >= FIRST_OF_USERS]
    return ours, max((float(wait[3]) for wait in found), default=0.0)


@contextlib.contextmanager
def reading(world):
    readers = [Reader(world, number % 2 == 1) for number in range(READERS)]
    for reader in readers:
        reader.start()
    try:
        yield readers
    finally:
        for reader in readers:
            reader.stopping.set()
        for reader in readers:
            reader.join(180)


def publish(world, release, value):
    """A release in which every owner is worth ``value`` and every feature has it as its code; every row of the one before differs."""
    owners = [(f"{number:06}", f"NAME {number}", value) for number in range(OWNERS)]
    features = [(f"{number:06}", str(value)) for number in range(FEATURES)]
    world.publish(release, owners, features)


def settled(readers):
    """Let every reader read what is current now."""
    before = [sum(reader.seen.values()) for reader in readers]
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not all(
        reader.error or sum(reader.seen.values()) > count + 1 for reader, count in zip(readers, before, strict=True)
    ):
        time.sleep(0.02)


@pytest.mark.fault(67)
def test_readers_see_one_release_at_a_time_and_wait_for_none(world):
    # The tables are there, without a partition for the year.
    for table in (OWNER, FEATURE):
        ensure_live(world.engine, table, 2024)
    with reading(world) as readers:
        settled(readers)
        publish(world, "a", 1)
        settled(readers)
        publish(world, "b", 2)
        settled(readers)
        world.loads.rollback_import(2)
        settled(readers)
        world.loads.rollback_import(1)
        settled(readers)
    assert [str(reader.error) for reader in readers if reader.error] == []
    whole = {(value * OWNERS, value * FEATURES) for value in (0, 1, 2)}
    assert {sums for reader in readers for sums in reader.seen} == whole
    assert all(set(reader.seen) == whole for reader in readers)
    ours, longest_ms = waits_for(readers)
    assert ours == []
    count, slowest_s = sum(sum(reader.seen.values()) for reader in readers), max(reader.slowest_s for reader in readers)
    print(f"{count} reads by {READERS} readers, the slowest took {slowest_s * 1000:.0f} ms, {longest_ms:.0f} of them for a lock")


def test_reader_that_is_kept_waiting_by_a_lock_is_seen(world):
    ensure_live(world.engine, OWNER, 2024)
    ensure_live(world.engine, FEATURE, 2024)
    reader = Reader(world, False)
    with transaction(world.engine) as cursor:
        cursor.execute("lock table county.owner in access exclusive mode")
        reader.start()
        waiting = "select 1 from pg_locks where not granted and relation = 'county.owner'::regclass"
        while reader.is_alive() and not world.rows(waiting):
            pass
        time.sleep(0.01)
    settled([reader])
    reader.stopping.set()
    reader.join(30)
    ours, longest_ms = waits_for([reader])
    # Or, on a machine that took its time, it gave up.
    assert reader.error or (ours and longest_ms >= 1)


def test_first_publish_of_another_year_holds_no_reader_of_this_one(world):
    publish(world, "a", 1)
    with reading(world) as readers:
        settled(readers)
        key = world.key("n")
        key = type(key)(key.source, 2026, key.release, key.recipe)
        for table, rows in ((OWNER, [("1", "ANN", 5)]), (FEATURE, [("1", "5")])):
            world.stage(key, table, [rows], origin=Origin(f"n-{table.name}", "t1", "c1"))
        world.loads.check_release(key, world.county)
        world.loads.publish(key, world.county)
        settled(readers)
    assert [str(reader.error) for reader in readers if reader.error] == []
    assert waits_for(readers)[0] == []
    # One statement asks for a year; the snapshot sums over all of them.
    assert all(set(reader.seen) <= {(OWNERS, FEATURES), (OWNERS + 5, FEATURES + 5)} for reader in readers)
