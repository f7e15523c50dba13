"""Connections, migrations and the locks of runs."""

import datetime as dt
import threading

import psycopg2
import pytest

from pipeline.database import ledger, runs
from pipeline.database.engine import DatabaseLimits, connect, database_url, make_engine, transaction
from pipeline.database.migrate import Migration, migrate, shipped_migrations
from pipeline.errors import ConfigurationError, DatabaseUnavailable, RunLocked

NOW = dt.datetime(2026, 3, 1, 4, 0, 0)


@pytest.fixture
def ready(database_url):
    engine = make_engine(database_url)
    migrate(engine)
    return engine


def test_migrations_started_by_eight_at_once_are_applied_once(database_url):
    engine, applied = make_engine(database_url), []
    threads = [threading.Thread(target=lambda: applied.extend(migrate(engine))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert applied == [migration.name for migration in shipped_migrations()]
    assert migrate(engine) == []


@pytest.mark.fault(82)
def test_newer_database_and_edited_migration_are_refused(ready):
    with pytest.raises(ConfigurationError, match="upgrade the program"):
        migrate(ready, ())
    edited = tuple(Migration(m.version, m.name, m.sql + "-- edited") for m in shipped_migrations())
    with pytest.raises(ConfigurationError, match="another text"):
        migrate(ready, edited)


def test_failed_migration_leaves_nothing(ready):
    broken = (*shipped_migrations(), Migration(9999, "9999_broken.sql", "create table etl.half (a int); select 1/0"))
    with pytest.raises(psycopg2.errors.DivisionByZero):
        migrate(ready, broken)
    with transaction(ready) as cursor:
        cursor.execute("select to_regclass('etl.half'), (select max(version) from etl.migration)")
        assert cursor.fetchone() == (None, shipped_migrations()[-1].version)


@pytest.mark.parametrize("text", ["postgresql://u:p@h:5432/d", "postgres://u:p@h:5432/d", "postgresql+psycopg2://u:p@h:5432/d"])
def test_bare_url_means_psycopg2(text):
    assert database_url(text).render_as_string(hide_password=False) == "postgresql+psycopg2://u:p@h:5432/d"


@pytest.mark.fault(25)
@pytest.mark.parametrize("text", ["mysql://u:canary@h/d", "canary", "postgresql+psycopg://u:canary@h/d"])
def test_other_url_is_refused_without_repeating_it(text):
    with pytest.raises(ConfigurationError) as caught:
        database_url(text)
    assert "canary" not in str(caught.value)


@pytest.mark.fault(59)
def test_broken_connection_and_dead_server_are_told_apart_from_bugs(ready):
    with pytest.raises(DatabaseUnavailable), transaction(ready) as cursor:
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseUnavailable):
        connect(make_engine("postgresql://u@127.0.0.1:1/d", limits=DatabaseLimits(reconnect_s=0)))
    with pytest.raises(psycopg2.errors.UndefinedTable), transaction(ready) as cursor:
        cursor.execute("select * from nowhere")


@pytest.mark.fault(63)
def test_second_run_is_told_who_holds_the_source_and_a_dead_owner_is_marked(ready):
    first = runs.start_run(ready, "first", "test", NOW)
    locks = runs.SourceLocks(ready, first, ["hcad", "travis"])
    second = runs.start_run(ready, "second", "test", NOW)
    with pytest.raises(RunLocked, match=f"run {first} \\(pid"):
        runs.SourceLocks(ready, second, ["travis"])
    with transaction(ready) as cursor:
        cursor.execute("insert into etl.task_attempt (run_id, task_id, family, parameters, pid) values (%s, 't', 'T', '{}', 1)", [first])
    # The owner dies: its connection is gone, and with it its locks.
    locks._connection.close()
    with runs.SourceLocks(ready, second, ["travis"]) as taken:
        assert taken.tokens == {"travis": 2}
        with transaction(ready) as cursor:
            ledger.check_fence(cursor, "travis", 2)
    with transaction(ready) as cursor:
        cursor.execute("select outcome, exit_code from etl.run where run_id = %s", [first])
        assert cursor.fetchone() == ("killed", 30)
        cursor.execute("select outcome from etl.task_attempt")
        assert cursor.fetchone() == ("killed",)


def test_attempt_that_succeeded_on_a_retry_is_no_failure(ready):
    run = runs.start_run(ready, "run", "test", NOW)
    with transaction(ready) as cursor:
        for outcome, task in (("failed", "a"), ("done", "a"), ("done", "b"), ("failed", "b"), ("waiting", "c")):
            cursor.execute(
                """insert into etl.task_attempt (run_id, task_id, family, parameters, pid, outcome, exit_code)
                   values (%s, %s, %s, '{}', 1, %s, 31)""",
                [run, task, task, outcome],
            )
    assert [(failure.family, failure.exit_code) for failure in runs.failed_attempts(ready, run)] == [("b", 31)]


@pytest.mark.fault(65)
def test_role_without_privileges_and_read_only_server_are_told_apart_from_bugs(ready):
    with pytest.raises(ConfigurationError, match="permission denied"), transaction(ready) as cursor:
        cursor.execute("create table pg_catalog.mine (a int)")
    with pytest.raises(ConfigurationError, match="read-only"), transaction(ready) as cursor:
        cursor.execute("set transaction read only; create schema mine")
