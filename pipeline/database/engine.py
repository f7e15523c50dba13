"""Connections to PostgreSQL.

One place turns a user's URL into an engine, and psycopg2's errors into ours. Engines have no pool: Luigi forks a process
a task, and a pooled connection that crosses a fork is two processes on one socket. A transaction is one ``with`` block
that hands out a psycopg2 cursor: it commits when the block ends, rolls back when it raises, and always closes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, cast

import psycopg2
from psycopg2 import errors
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

#: A dead link is noticed within about a minute: 30 s idle, then three probes 10 s apart.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CONNECT_TIMEOUT_S = 15


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


def make_engine(url: str | URL, *, application: str = "hcad-pipeline") -> Engine:
    """An engine without a pool, for one process at a time; nothing is connected yet.

    Args:
        url: as :func:`database_url` takes it.
        application: the name that ``pg_stat_activity`` shows.
    """
    parsed = database_url(url) if isinstance(url, str) else url
    arguments = {"application_name": application, "connect_timeout": CONNECT_TIMEOUT_S, **KEEPALIVES}
    return create_engine(parsed, poolclass=NullPool, connect_args=arguments)


@contextmanager
def transaction(engine: Engine) -> Iterator[Cursor]:
    """One transaction on a connection of its own: commit at the end, roll back on any exception.

    Raises:
        DatabaseUnavailable: the server cannot be reached, broke off, is out of disk, or gave up on a lock or deadlock.
    """
    with translated(), closing(connect(engine)) as connection, connection, connection.cursor() as cursor:
        yield cursor


def connect(engine: Engine) -> Connection:
    """A psycopg2 connection of one's own, outside any pool: the caller closes it.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
    """
    with translated():
        pooled = engine.raw_connection()
        connection = cast("Connection", pooled.driver_connection)
        pooled.detach()
        return connection


@contextmanager
def translated() -> Iterator[None]:
    """Sort psycopg2's errors that are not this program's fault.

    Raises:
        DatabaseUnavailable: of the moment: link, disk, lock, deadlock, time-out.
        ConfigurationError: of the set-up: no privilege, a read-only server, a schema that may not be made.
    """
    try:
        yield
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.InvalidSchemaName) as error:
        raise ConfigurationError(
            f"PostgreSQL says: {' '.join(str(error).split())}",
            "a writable server and a role that may create schemas and tables in its database",
            "grant it (GRANT CREATE ON DATABASE ...), or point DATABASE_URL at another server or role",
        ) from error
    except (errors.IdleInTransactionSessionTimeout, errors.IdleSessionTimeout) as error:
        raise DatabaseUnavailable(
            f"PostgreSQL says: {' '.join(str(error).split())}", "a session that may rest while it works", "nothing; the next run goes on"
        ) from error
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise DatabaseUnavailable(
            f"PostgreSQL says: {' '.join(str(error).split())}",
            "a server that answers and accepts the work",
            "see that it runs and has disk and connections left; the next run goes on from the last committed part",
        ) from error
