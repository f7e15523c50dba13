"""Readers at work while a release is published, refreshed and taken back: never two releases mixed, never kept waiting."""

import contextlib
import threading
import time

import psycopg2
import pytest
from county import FEATURE, OWNER

from pipeline.database.engine import connect
from pipeline.load.checkpoints import Origin
from pipeline.load.shape import ensure_live

READERS = 20
OWNERS, FEATURES = 8000, 4000
#: Whoever waits longer for a lock fails. What is not a lock is the machine's business: twenty readers share two processors.
LONGEST_WAIT = "100ms"
SUMS = """select (select coalesce(sum(value), 0)::int from county.owner where tax_year = 2025),
                 (select coalesce(sum(code::int), 0)::int from county.feature where tax_year = 2025)"""
EACH = ("select coalesce(sum(value), 0)::int from county.owner", "select coalesce(sum(code::int), 0)::int from county.feature")


class Reader(threading.Thread):
    """Sums over both tables, again and again: in one statement, or in a snapshot of several."""

    def __init__(self, world, is_repeatable):
        super().__init__()
        self.connection, self.is_repeatable = connect(world.engine), is_repeatable
        self.seen, self.error, self.slowest_s = {}, None, 0.0
        self.stopping = threading.Event()

    def run(self):
        try:
            if self.is_repeatable:
                self.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with contextlib.closing(self.connection), self.connection.cursor() as cursor:
                cursor.execute(f"set lock_timeout = '{LONGEST_WAIT}'")
                self.connection.commit()
                while not self.stopping.is_set():
                    started = time.monotonic()
                    sums = self.read(cursor)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                    self.connection.rollback()
                    self.seen[sums] = self.seen.get(sums, 0) + 1
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
    count = sum(sum(reader.seen.values()) for reader in readers)
    print(f"{count} reads by {READERS} readers, the slowest took {max(reader.slowest_s for reader in readers) * 1000:.0f} ms")


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
    # One statement asks for a year; the snapshot sums over all of them.
    assert all(set(reader.seen) <= {(OWNERS, FEATURES), (OWNERS + 5, FEATURES + 5)} for reader in readers)
