"""Connections to PostgreSQL.

One place turns a user's URL into an engine, and psycopg2's errors into ours. An engine has a small pool for one process: a
process that forks leaves its connections to the parent and makes its own, because two processes on one socket read each
other's answers. A transaction is one ``with`` block that hands out a psycopg2 cursor: it commits when the block ends, rolls
back when it raises, and gives its connection back. Each connection carries the limits of :class:`DatabaseLimits`, and
while a transaction runs it is asked, by another way, whether the server still knows of it, so that nothing waits for ever.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import psycopg2
from psycopg2 import errors
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pipeline.database.silence import watched
from pipeline.errors import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseFull,
    DatabaseRefused,
    DatabaseUnavailable,
    PipelineError,
    ReadOnlyDatabase,
    ShapeError,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor
    from sqlalchemy.pool import PoolProxiedConnection

#: A dead link is noticed within about a minute, by us and by the server: 30 s idle, then three probes 10 s apart; and sent
#: bytes that nobody confirms are not waited for longer either. (On a unix socket all of it is left out by the system.)
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
SERVER_KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
#: What the server's own words before a session exists mean: psycopg2 gives no SQLSTATE there.
TOO_MANY = re.compile("too many (clients|connections)|remaining connection slots")
NOT_ALLOWED = re.compile("authentication failed|pg_hba.conf|does not exist|not permitted to log in|permission denied for database")
#: A session that the server ended, or that ended with it: its transaction was rolled back with it.
ENDED = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleSessionTimeout)


@dataclass(frozen=True)
class DatabaseLimits:
    """How long is waited for PostgreSQL. Seconds; 0 switches a limit off.

    Attributes:
        connect_s: for a connection, one attempt.
        reconnect_s: for a server that is starting, recovering or full of connections, over all attempts.
        lock_s: for a lock that another session holds.
        statement_s: for one statement.
        idle_in_transaction_s: for this program's next word inside a transaction: one that hangs does not keep its locks for ever.
        silence_s: until it is asked on a second connection whether the first one is still there, and how long that may take.
        pool: connections that a process keeps open.
    """

    connect_s: float = 15
    reconnect_s: float = 10
    lock_s: float = 600
    statement_s: float = 14_400
    idle_in_transaction_s: float = 600
    silence_s: float = 20
    pool: int = 2

    @property
    def options(self) -> str:
        """The server's side of it, as a connection's ``options``."""
        figures = {
            "lock_timeout": self.lock_s,
            "statement_timeout": self.statement_s,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_s,
        }
        return " ".join([*(f"-c {name}={round(figure * 1000)}" for name, figure in figures.items()), SERVER_KEEPALIVES])


def database_url(text: str) -> URL:
    """Read a database URL; a bare ``postgresql://`` (or ``postgres://``) means the psycopg2 driver.

    Raises:
        ConfigurationError: the text is no PostgreSQL URL. The message never repeats it: it may hold a password.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read", "postgresql://user:password@host:port/database", "correct DATABASE_URL"
        ) from error
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg2"}:
        return url.set(drivername="postgresql+psycopg2")
    raise ConfigurationError(
        f"a database URL for {url.drivername!r}", "one that begins with postgresql://", "point DATABASE_URL at PostgreSQL 15 or newer"
    )


def make_engine(url: str | URL, *, application: str = "hcad-pipeline", limits: DatabaseLimits | None = None) -> Engine:
    """An engine with a pool, for this process and, each with a pool of its own, those that it forks; nothing is connected yet.

    Args:
        url: as :func:`database_url` takes it; ``options`` in it stand over ours.
        application: the name that ``pg_stat_activity`` shows.
        limits: how long is waited for what.
    """
    parsed = database_url(url) if isinstance(url, str) else url
    limits = limits or DatabaseLimits()
    given = parsed.query.get("options", "")
    options = " ".join([limits.options, *([given] if isinstance(given, str) else given)]).strip()
    engine = create_engine(
        parsed.difference_update_query(["options"]),
        pool_size=limits.pool,
        max_overflow=8,
        pool_timeout=max(limits.connect_s, 1),
        connect_args={
            "application_name": application, "connect_timeout": max(round(limits.connect_s), 2), "options": options, **KEEPALIVES,
        },
        execution_options={LIMITS: limits},
    )  # fmt: skip
    _leave_pool_to_the_parent(weakref.ref(engine))
    return engine


LIMITS = "hcad_pipeline_limits"
#: Whether a connection has not been used yet, so that nobody need ask whether it is still there.
FRESH = "hcad_pipeline_fresh"


def limits_of(engine: Engine) -> DatabaseLimits:
    """The limits that an engine was made with."""
    limits = engine.get_execution_options().get(LIMITS)
    return limits if isinstance(limits, DatabaseLimits) else DatabaseLimits()


def _leave_pool_to_the_parent(engine: weakref.ref[Engine]) -> None:
    def forget() -> None:
        ours = engine()
        if ours is not None:
            ours.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


@contextmanager
def transaction(engine: Engine) -> Iterator[Cursor]:
    """One transaction: commit at the end, roll back on any exception.

    What failed before COMMIT was sent was rolled back, whatever became of the link: such an error ``may_be_repeated``
    (:func:`pipeline.database.repeat.repeated`). When the link breaks off between COMMIT and its answer nobody knows, and the
    one who asks next must look first, as every task's target does.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or broke off; subclasses for locks and room.
        ConfigurationError: of the set-up: a privilege, a read-only server.
    """
    with translated():
        pooled = _checked_out(engine)
        connection = cast("Connection", pooled.driver_connection)
        try:
            with watched(connection, limits_of(engine).silence_s), _rolled_back(connection):
                with _lost_link(connection), connection.cursor() as cursor:
                    yield cursor
                with _lost_link(connection, is_committing=True):
                    connection.commit()
        except BaseException as error:
            if connection.closed or isinstance(error, DatabaseUnavailable):
                pooled.invalidate()
            raise
        finally:
            pooled.close()  # back into the pool


def connect(engine: Engine) -> Connection:
    """A psycopg2 connection of one's own, outside any pool: the caller closes it.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
        ConfigurationError: it does not let us in.
    """
    with translated():
        pooled = _checked_out(engine)
        connection = cast("Connection", pooled.driver_connection)
        pooled.detach()
        return connection


def _checked_out(engine: Engine) -> PoolProxiedConnection:
    """A connection of the pool. Nothing was sent yet, so a server that is starting, recovering or full is asked again for a while."""
    again = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, psycopg2.OperationalError) and not NOT_ALLOWED.search(str(error))),
        stop=stop_after_delay(limits_of(engine).reconnect_s),
        wait=wait_random_exponential(0.1, 2),
        reraise=True,
    )
    try:
        return again(_rested, engine)
    except PoolTimeout as error:
        raise DatabaseBusy(f"no connection of this process's own is free: {error}", "fewer threads at once", "start fewer") from error
    except psycopg2.OperationalError as error:
        words = " ".join(str(error).split())
        if TOO_MANY.search(words):
            raise DatabaseBusy(
                f"PostgreSQL says: {words}",
                "a free connection: one a task, two for the run",
                "end sessions that nobody needs, raise max_connections, or lower [resources] postgres; the next run goes on",
            ) from error
        if NOT_ALLOWED.search(words):
            todo = "correct DATABASE_URL, or make the role or database"
            raise DatabaseRefused(f"PostgreSQL says: {words}", "a server that lets this user into this database", todo) from error
        raise


def _rested(engine: Engine) -> PoolProxiedConnection:
    """A connection of the pool that answers: the server may have ended one that rested, or its link may have gone silent."""
    while True:
        try:
            pooled = engine.raw_connection()
        except DBAPIError as error:
            # An engine's first connection is asked for the server's version, in SQLAlchemy's name.
            raise error.orig or error from error
        if pooled.info.setdefault(FRESH, True):
            pooled.info[FRESH] = False
            return pooled
        connection = cast("Connection", pooled.driver_connection)
        try:
            # Not the pool's own question (pool_pre_ping): nobody would watch over that one.
            with watched(connection, limits_of(engine).silence_s):
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("select 1")
                connection.autocommit = False
            return pooled
        except psycopg2.Error:
            # The others rested as long and went the same way.
            pooled.invalidate()
            engine.dispose()


def _is_gone(connection: Connection, error: psycopg2.Error | SystemError) -> bool:
    """Whether the link is gone. A COMMIT that could not even be sent leaves a connection open, and an error without kind or SQLSTATE."""
    return bool(connection.closed) or isinstance(error, ENDED) or type(error) is psycopg2.DatabaseError


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # A link that is gone has rolled back by itself; the error that led here says more than this one would.
        with suppress(psycopg2.Error):
            connection.rollback()
        raise


@contextmanager
def _lost_link(connection: Connection, *, is_committing: bool = False) -> Iterator[None]:
    """A link that is gone shows in many kinds of errors, some of which are not even psycopg2's: it is known by its connection."""
    try:
        yield
    except (psycopg2.Error, SystemError) as error:
        # A session that was idle for too long was idle because of us: to do the same again would take as long.
        if isinstance(error, errors.IdleInTransactionSessionTimeout) or not _is_gone(connection, error):
            raise
        lost = DatabaseUnavailable(
            f"the link to PostgreSQL broke off: {' '.join(str(error).split()) or type(error).__name__}",
            "a server that answers until the work is committed",
            "see that it runs; the next run looks what was committed" if is_committing else "see that it runs; it was rolled back",
        )
        lost.may_be_repeated = not is_committing
        raise lost from error


@contextmanager
def translated() -> Iterator[None]:
    """Sort psycopg2's errors that are not this program's fault.

    Raises:
        DatabaseUnavailable: of the moment: link, disk, lock, deadlock, time-out.
        ConfigurationError: of the set-up: no privilege, a read-only server, a schema that may not be made.
        ShapeError: of a trigger or foreign key that is not ours, or a value that no index takes.
    """
    try:
        yield
    except psycopg2.Error as error:
        if (sorted_out := _sorted_out(error)) is None:
            raise
        raise sorted_out from error


def _sorted_out(error: psycopg2.Error) -> PipelineError | None:
    seen = f"PostgreSQL says: {' '.join(str(error).split())}"
    if isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure)):
        busy = DatabaseBusy(seen, "no other session that changes the same rows the other way round", "nothing; the next run goes on")
        busy.may_be_repeated = True
        return busy
    if isinstance(error, errors.LockNotAvailable):
        todo = "see who holds it (docs/operations.md, Locks); the next run goes on from what is staged"
        return DatabaseBusy(seen, "the lock within [database] lock_timeout_s", todo)
    if isinstance(error, (errors.DiskFull, errors.ConfigurationLimitExceeded)):
        todo = "make room; the next run goes on from the last committed part"
        return DatabaseFull(seen, "room for the rows, the WAL and temporary files", todo)
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return ReadOnlyDatabase(seen, "a server that takes writes", "point DATABASE_URL at the primary, or make it writable")
    if isinstance(error, (errors.InsufficientPrivilege, errors.InvalidSchemaName)):
        todo = "grant it (GRANT CREATE ON DATABASE ...), or point DATABASE_URL at another server or role"
        return DatabaseRefused(seen, "a role that may create schemas and tables in its database", todo)
    if isinstance(error, (errors.IdleInTransactionSessionTimeout, errors.IdleSessionTimeout)):
        return DatabaseUnavailable(seen, "a session that may rest while it works", "nothing; the next run goes on")
    if isinstance(error, errors.QueryCanceled):
        todo = "raise it if the data have grown; the next run goes on"
        return DatabaseUnavailable(seen, "a statement within [database] statement_timeout_s", todo)
    if isinstance(error, errors.SequenceGeneratorLimitExceeded):
        return ConfigurationError(seen, "numbers left to give out", "widen the column or sequence that is named")
    if isinstance(error, (errors.ForeignKeyViolation, errors.RaiseException)) and error.diag.schema_name != "etl":
        todo = "mend or drop it (ON DELETE CASCADE, SET NULL, or DEFERRABLE where that fits), and run again"
        return ShapeError(seen, "triggers and foreign keys on live tables that let a release through", todo)
    if isinstance(error, errors.ProgramLimitExceeded):
        todo = "say maxlength of the columns of that index in the schema file, so that such rows are quarantined, or drop the index"
        return ShapeError(seen, "values that an index or a row of PostgreSQL takes", todo)
    if isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
        todo = "see that it runs and has disk and connections left; the next run goes on from the last committed part"
        return DatabaseUnavailable(seen, "a server that answers and accepts the work", todo)
    return None
