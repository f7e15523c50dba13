"""Links to PostgreSQL that break, go silent or are full, and what is done again afterwards."""

import datetime as dt
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import plain_role
import psycopg2
import pytest
import sqlalchemy as sa
from county import ORIGIN, OWNER, World

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from database_proxy import DatabaseProxy

from pipeline.database import ledger, runs, silence
from pipeline.database.engine import DatabaseLimits, connect, make_engine, transaction
from pipeline.database.repeat import repeated
from pipeline.errors import DatabaseBusy, DatabaseRefused, DatabaseUnavailable, FencedOut, RunLocked
from pipeline.load import copy

NOW = dt.datetime(2026, 3, 1)
QUICK = DatabaseLimits(connect_s=2, reconnect_s=0, silence_s=0.8)


@pytest.fixture
def proxy(server_url):
    made = DatabaseProxy(server_url)
    yield made
    made.close()


def backend(engine):
    with transaction(engine) as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]


def answering(engine):
    """The backend, as soon as there is one: a busy machine may take longer for a connection than these limits allow."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return backend(engine)
        except DatabaseUnavailable:
            assert time.monotonic() < deadline


def show(engine, name):
    with transaction(engine) as cursor:
        cursor.execute(f"show {name}")
        return cursor.fetchone()[0]


def end(url, pid):
    with psycopg2.connect(sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)) as other:
        other.cursor().execute("select pg_terminate_backend(%s, 120000)", [pid])  # and wait until it is gone


def test_connection_is_used_again_and_a_forked_process_makes_its_own(database_url):
    engine = make_engine(database_url)
    ours = backend(engine)
    assert backend(engine) == ours
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def ask():
        said.put([backend(engine), backend(engine)])

    child = context.Process(target=ask)
    child.start()
    child.join(120)
    theirs = said.get()
    assert child.exitcode == 0
    assert theirs[0] == theirs[1] != ours
    # The child's end did not end ours.
    assert backend(engine) == ours
    engine.dispose()


def test_session_that_was_ended_while_it_rested_is_replaced_unnoticed(database_url):
    engine = make_engine(database_url)
    ours = backend(engine)
    end(database_url, ours)
    assert backend(engine) != ours
    engine.dispose()


@pytest.mark.fault(59)
@pytest.mark.parametrize("reconnect_s", [0, 60])
def test_link_lost_while_an_engine_asks_for_the_servers_version_is_one_that_was_not_made(database_url, proxy, reconnect_s):
    engine = make_engine(proxy.url(database_url), limits=DatabaseLimits(reconnect_s=reconnect_s))
    proxy.cut_at = b"select pg_catalog.version()"
    with nullcontext() if reconnect_s else pytest.raises(DatabaseUnavailable):
        assert backend(engine)
    engine.dispose()
    assert not proxy.cut_at


def test_limits_are_the_servers_and_options_of_the_users_own_stand(database_url):
    engine = make_engine(f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20statement_timeout%3D7s", limits=DatabaseLimits(lock_s=3, idle_in_transaction_s=5))
    assert [show(engine, name) for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")] == ["3s", "7s", "5s"]
    engine.dispose()


@pytest.mark.fault(58)
def test_host_that_takes_the_connection_and_says_nothing_is_given_up_when_it_is_told_to():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = make_engine(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/rolls", limits=DatabaseLimits(connect_s=2, reconnect_s=0))
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            connect(engine)
    assert time.monotonic() - started < 14, "15 s is the default"


@pytest.mark.fault(58)
@pytest.mark.parametrize("statement", ["select pg_sleep(600)", "select 1", "commit"])
def test_silent_link_is_noticed_while_a_transaction_waits(database_url, proxy, statement):
    engine = make_engine(proxy.url(database_url), limits=QUICK)
    answering(engine)
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="broke off") as caught, transaction(engine) as cursor:
        cursor.execute("create table lost (a int)")
        proxy.silent = True
        if statement != "commit":
            cursor.execute(statement)
    assert time.monotonic() - began < 60
    # Only what was not committed for certain may be done again.
    assert caught.value.may_be_repeated == (statement != "commit")
    engine.dispose()


@pytest.mark.fault(58)
def test_link_that_went_silent_while_it_rested_is_noticed_before_it_is_used(database_url, proxy):
    engine = make_engine(proxy.url(database_url), limits=QUICK)
    ours = answering(engine)
    proxy.silent = True
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        backend(engine)
    assert time.monotonic() - began < 60
    proxy.silent = False
    assert answering(engine) != ours
    engine.dispose()


@pytest.mark.fault(58)
def test_link_that_is_slow_and_a_statement_that_takes_long_are_left_alone(database_url, proxy):
    proxy.delay_s = 0.03
    engine = make_engine(proxy.url(database_url), limits=DatabaseLimits(silence_s=0.8))
    with transaction(engine) as cursor:
        cursor.execute("select pg_sleep(2)")
    with transaction(engine) as cursor:
        cursor.execute("select 1")
        time.sleep(1.5)
        cursor.execute("select 1")
    engine.dispose()


@pytest.mark.fault(58)
def test_machine_that_stood_still_takes_no_server_for_silent(database_url, proxy, monkeypatch):
    """While the server is asked, the process is paused for longer than an answer may take: the answer is there when it wakes."""
    engine = make_engine(database_url)
    with transaction(engine) as cursor:
        where = sa.make_url(proxy.url(database_url)).set(drivername="postgresql").render_as_string(hide_password=False)
        plain, naps = silence.select.select, [0.7]

        def select(*arguments):
            if naps:
                time.sleep(naps.pop())
            return plain(*arguments)

        monkeypatch.setattr(silence, "select", SimpleNamespace(select=select))
        ours = cursor.connection.info.backend_pid
        assert silence._is_known(where, ours, 0.6, threading.Event())
        assert not naps and not silence._is_known(where, 1, 60, threading.Event())
        proxy.silent = True
        assert not silence._is_known(where, ours, 0.6, threading.Event())
    engine.dispose()


@pytest.mark.fault(58)
def test_shipped_limits_notice_a_silent_link_within_a_minute():
    limits = DatabaseLimits()
    assert limits.silence_s * 2.5 < 60


@pytest.mark.fault(57)
@pytest.mark.parametrize("how", ["terminate", "cut"])
def test_part_whose_link_breaks_in_mid_copy_is_staged_by_the_next_attempt(database_url, tmp_path, proxy, monkeypatch, how):
    world = World(proxy.url(database_url), tmp_path)
    key = world.key("a")
    world.loads.open_import(key, OWNER)
    rows = [(str(number), "ANN" * 50, None) for number in range(20_000)]
    folder = world.part(OWNER, rows)
    broken, plain = [], copy.CsvStream.read

    def read(self, size=-1):
        if self.rows > 10_000 and not broken:
            broken.append(True)
            if how == "cut":
                proxy.cut()
            else:
                with psycopg2.connect(sa.make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)) as other:
                    other.cursor().execute("select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy %%' and datname = current_database()")
        return plain(self, size)

    monkeypatch.setattr(copy.CsvStream, "read", read)
    report = world.loads.stage_part(key, OWNER, folder, origin=ORIGIN)
    assert broken and report.written == 20_000
    assert world.rows("select count(*) from etl.checkpoint") == [(1,)]
    assert world.rows("select count(*), count(distinct acct) from etl_staging.i1_owner_rows") == [(20_000, 20_000)]
    world.engine.dispose()


@pytest.mark.fault(59)
def test_ended_session_is_done_again_and_one_that_commits_is_not(database_url):
    engine, tries = make_engine(database_url), []

    @repeated
    def work():
        with transaction(engine) as cursor:
            tries.append(True)
            cursor.execute("create table made (a int)")
            if len(tries) == 1:
                cursor.execute("select pg_terminate_backend(pg_backend_pid())")

    work()
    assert len(tries) == 2
    with transaction(engine) as cursor:
        cursor.execute("select count(*) from made")
    engine.dispose()


@pytest.mark.fault(59)
def test_statement_that_takes_too_long_has_a_code_and_is_not_tried_again(database_url):
    engine, tries = make_engine(database_url, limits=DatabaseLimits(statement_s=1)), []

    @repeated
    def work():
        with transaction(engine) as cursor:
            tries.append(True)
            cursor.execute("select pg_sleep(60)")

    with pytest.raises(DatabaseUnavailable, match="statement_timeout_s"):
        work()
    assert len(tries) == 1
    assert backend(engine)
    engine.dispose()


@pytest.mark.fault(59)
def test_program_that_hangs_in_a_transaction_loses_its_locks_and_writes_nothing(database_url):
    engine, other = make_engine(database_url, limits=DatabaseLimits(idle_in_transaction_s=0.3)), make_engine(database_url)
    with transaction(other) as cursor:
        cursor.execute("create table held (a int)")
    with pytest.raises(DatabaseUnavailable), transaction(engine) as cursor:
        cursor.execute("insert into held values (1)")
        with transaction(other) as waiting:
            waiting.execute("lock table held in access exclusive mode")
        cursor.execute("insert into held values (2)")
    with transaction(other) as cursor:
        cursor.execute("select count(*) from held")
        assert cursor.fetchone() == (0,)
    engine.dispose()
    other.dispose()


@pytest.mark.fault(61)
def test_deadlock_ends_with_both_transactions_done(database_url):
    engine, tries = make_engine(database_url), []
    with transaction(engine) as cursor:
        cursor.execute("create table sums (k int primary key, n int default 0); insert into sums values (1), (2); ")
    meet = threading.Barrier(2, timeout=60)

    def work(first, second):
        @repeated
        def once():
            with transaction(engine) as cursor:
                cursor.execute("update sums set n = n + 1 where k = %s", [first])
                tries.append(first)
                if len(tries) <= 2:
                    meet.wait()
                cursor.execute("update sums set n = n + 1 where k = %s", [second])

        once()

    threads = [threading.Thread(target=work, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with transaction(engine) as cursor:
        cursor.execute("select n from sums order by k")
        assert cursor.fetchall() == [(2,), (2,)]
    assert len(tries) == 3
    engine.dispose()


@pytest.mark.fault(62)
def test_serialization_failure_is_done_again_and_an_eternal_one_has_a_code(database_url):
    engine, tries = make_engine(database_url), []
    with transaction(engine) as cursor:
        cursor.execute("create table counter (n int); insert into counter values (0)")

    def add(times):
        @repeated
        def once():
            with transaction(engine) as cursor:
                cursor.execute("set transaction isolation level serializable")
                cursor.execute("select n from counter")
                tries.append(True)
                if len(tries) <= times:
                    with transaction(engine) as other:
                        other.execute("update counter set n = n + 10")
                cursor.execute("update counter set n = n + 1")

        once()

    add(1)
    with transaction(engine) as cursor:
        cursor.execute("select n from counter")
        assert (cursor.fetchone(), len(tries)) == ((11,), 2)
    tries.clear()
    with pytest.raises(DatabaseBusy, match="could not serialize"):
        add(99)
    assert len(tries) == 4
    engine.dispose()


@pytest.mark.fault(62)
def test_race_for_a_key_is_won_by_one_and_seen_by_the_other_and_a_defect_stays_one(database_url):
    engine, tries = make_engine(database_url), []
    with transaction(engine) as cursor:
        cursor.execute("create table once (k int primary key)")

    @repeated
    def take():
        with transaction(engine) as cursor:
            cursor.execute("select 1 from once where k = 1")
            if cursor.fetchone():
                return "seen"
            tries.append(True)
            with transaction(engine) as other:
                other.execute("insert into once values (1)")
            cursor.execute("insert into once values (1)")

    assert (take(), len(tries)) == ("seen", 1)

    @repeated
    def wrong():
        tries.append(True)
        with transaction(engine) as cursor:
            cursor.execute("insert into once values (1)")

    with pytest.raises(psycopg2.errors.UniqueViolation):
        wrong()
    assert len(tries) == 5
    engine.dispose()


@pytest.mark.fault(60)
def test_lock_that_is_not_given_has_a_code_of_its_own(database_url):
    engine = make_engine(database_url, limits=DatabaseLimits(lock_s=0.2))
    with transaction(engine) as holder:
        holder.execute("create table held (a int)")
        holder.connection.commit()
        holder.execute("lock table held in access exclusive mode")
        with pytest.raises(DatabaseBusy, match="lock_timeout_s"), transaction(engine) as cursor:
            cursor.execute("select * from held")
    engine.dispose()


@pytest.mark.fault(68)
def test_full_server_is_asked_again_until_there_is_room_and_then_named(server_url, database_url):
    name = sa.make_url(database_url).database
    with plain_role.admin(server_url) as cursor:
        cursor.execute(f"alter database {name} connection limit 1")
    engine = make_engine(database_url, limits=DatabaseLimits(reconnect_s=0.5))
    only = connect(engine)
    with pytest.raises(DatabaseBusy, match="too many connections"):
        backend(make_engine(database_url, limits=DatabaseLimits(reconnect_s=0.5)))
    patient = make_engine(database_url, limits=DatabaseLimits(reconnect_s=120))
    threading.Timer(1, only.close).start()
    assert backend(patient)
    patient.dispose()


@pytest.mark.fault(65)
def test_user_who_is_not_let_in_is_told_at_once(database_url):
    nobody = sa.make_url(database_url).set(username="nobody_of_that_name").render_as_string(hide_password=False)
    began = time.monotonic()
    with pytest.raises(DatabaseRefused):
        backend(make_engine(nobody, limits=DatabaseLimits(reconnect_s=300)))
    assert time.monotonic() - began < 60


WRITER = """
import sys, datetime as dt
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from county import OWNER, ORIGIN, World
from pipeline.database import runs
from pipeline.load.manager import LoadManager
from pipeline.database import ledger, runs
from pipeline.database.engine import make_engine
world = World(sys.argv[1], Path(sys.argv[2]))
run = runs.start_run(world.engine, "old", "test", dt.datetime(2026, 3, 1))
locks = runs.SourceLocks(world.engine, run, ["county"])
tasks = make_engine(sys.argv[1], application=runs.run_name(run))
loads = LoadManager(tasks, profile="test", tokens=locks.tokens)
key = world.key("old")
loads.open_import(key, OWNER)
for number in range(100_000):
    print("part", number, flush=True)
    loads.stage_part(key, OWNER, world.part(OWNER, [(str(number), "OLD", None)] * 1, part=number), origin=ORIGIN)
"""


@pytest.mark.fault(63)
@pytest.mark.parametrize("inside", [True, False], ids=["in a transaction", "between two"])
def test_paused_writer_that_was_taken_over_cannot_commit_when_it_wakes(database_url, tmp_path, inside):
    world = World(database_url, tmp_path / "new")
    program = [sys.executable, "-c", WRITER, database_url, str(tmp_path / "old"), str(Path(__file__).parent)]
    root = Path(__file__).parents[2]
    old = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    try:
        while old.stdout.readline().strip() != "part 5":
            assert old.poll() is None, old.stderr.read()
        state = "select count(*) from pg_stat_activity where application_name = 'hcad-pipeline run 1' and state like %s"
        held = connect(world.engine)
        if inside:  # it waits for this, its own rows locked, and is stopped there
            held.cursor().execute("lock table etl.checkpoint in exclusive mode")
            waits = "select count(*) from pg_locks where not granted and relation = 'etl.checkpoint'::regclass"
            while world.rows(waits) == [(0,)]:
                time.sleep(0.02)
        os.kill(old.pid, signal.SIGSTOP)
        held.close()
        # Its host is gone, as far as PostgreSQL can tell: the lock's session ends.
        owner = world.rows("select backend_pid from etl.writer where source = 'county'")[0][0]
        with pytest.raises(RunLocked, match="run 1 \\(pid"):
            runs.SourceLocks(world.engine, runs.start_run(world.engine, "too early", "test", NOW), ["county"])
        end(database_url, owner)
        new = runs.start_run(world.engine, "new", "test", NOW)
        with runs.SourceLocks(world.engine, new, ["county"]) as locks:
            assert locks.tokens == {"county": 2}
            deadline = time.monotonic() + 120
            while world.rows(state, "%") != [(0,)]:  # they are told at once, and need a moment
                assert time.monotonic() < deadline
                time.sleep(0.05)
            before = world.rows("select count(*) from etl.checkpoint")
            os.kill(old.pid, signal.SIGCONT)
            _, said = old.communicate(timeout=120)
            assert (old.returncode, FencedOut.code in said) == (1, True), said
            assert world.rows("select count(*) from etl.checkpoint") == before
            with transaction(world.engine) as cursor:
                ledger.check_fence(cursor, "county", 2)
        assert world.rows("select outcome from etl.run where run_id = 1") == [("killed",)]
    finally:
        if old.poll() is None:
            old.kill()
            old.wait()
        world.engine.dispose()


@pytest.mark.fault(63)
def test_run_whose_lock_was_lost_takes_it_again_unless_another_has_it(database_url, tmp_path):
    world = World(database_url, tmp_path)
    locks = runs.SourceLocks(world.engine, runs.start_run(world.engine, "a", "test", NOW), ["county"])
    locks.still_held()
    end(database_url, locks._connection.info.backend_pid)
    locks.still_held()
    assert world.rows("select backend_pid from etl.writer") == [(locks._connection.info.backend_pid,)]
    end(database_url, locks._connection.info.backend_pid)
    with runs.SourceLocks(world.engine, runs.start_run(world.engine, "b", "test", NOW), ["county"]), pytest.raises(FencedOut):
        locks.still_held()
    locks.release()


@pytest.mark.fault(63)
def test_owner_is_named_by_its_session_before_the_ledger_knows_it(database_url, tmp_path):
    world = World(database_url, tmp_path)
    early = runs.start_run(world.engine, "before", "test", NOW)
    runs.SourceLocks(world.engine, early, ["county"]).release()
    first = runs.start_run(world.engine, "first", "test", NOW)
    # It has the lock, and has not written its name yet.
    session = connect(world.engine)
    session.autocommit = True
    session.cursor().execute("select set_config('application_name', %s, false)", [runs.run_name(first)])
    time.sleep(0.1)
    session.cursor().execute("select pg_advisory_lock(hashtextextended(%s, 0))", [runs.LOCK.format("county")])
    second = runs.start_run(world.engine, "second", "test", NOW)
    with pytest.raises(RunLocked, match=f"run {first} "):
        runs.SourceLocks(world.engine, second, ["county"])
    session.close()
