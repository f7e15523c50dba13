"""What the suite ``load`` measures in: one embedded PostgreSQL with its production settings, and a database of its own for each round.

The server lives as long as the process that asks for it, and nothing of it stays behind. A :class:`Database` tells what a
piece of work wrote: rows, by PostgreSQL's own counters; WAL bytes; its size on the disk. The floor is here too: ``psql``'s own
``copy`` of a ready CSV into a logged table with its primary key.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from measuring import seconds
from psycopg2 import sql
from sqlalchemy import URL, Engine

from pipeline.catalog import Table
from pipeline.database.embedded import RECORD, EmbeddedPostgres
from pipeline.database.embedded_places import find_programs
from pipeline.database.engine import connect, database_url, make_engine
from pipeline.database.migrate import migrate

#: Schemas that hold the pipeline's own state; what is written to any other one is seen by users.
OWN_SCHEMAS = ["etl", "etl_staging", "history"]
#: A session whose client has ended is given so long to end, too.
END_TIMEOUT_S = 30
_NUMBERS = itertools.count(1)


@functools.cache
def server() -> URL:
    """The server's URL; it is started when it is first asked for, and removed when this process ends."""
    home = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    # Root's server runs as another user, who must get in: its data would lie elsewhere.
    home.chmod(0o755)
    running = EmbeddedPostgres(home / "postgres")
    atexit.register(_remove, running, home)
    return database_url(running.start())


def _remove(running: EmbeddedPostgres, home: Path) -> None:
    running.stop()
    record = json.loads((running.home / RECORD).read_text())
    for place in {record["private_base"], record["socket"]} - {None}:
        shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(home)


@contextmanager
def new_database(*, with_ledger: bool = True) -> Iterator[Database]:
    """A database that goes with its round."""
    name = f"bench_{next(_NUMBERS)}"
    _administer(f"create database {name}")
    made = Database(server().set(database=name))
    try:
        if with_ledger:
            migrate(made.engine)
        yield made
    finally:
        made.engine.dispose()
        _administer(f"drop database {name} with (force)")


def _administer(statement: str) -> None:
    engine = make_engine(server())
    with closing(connect(engine)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    engine.dispose()


class Database:
    """One database of the server."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine: Engine = make_engine(url)

    @property
    def address(self) -> str:
        """The URL as the pipeline takes it."""
        return self.url.render_as_string(hide_password=False)

    @property
    def libpq_url(self) -> str:
        """The URL as psql, psycopg2 and other tools take it."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def rows(self, statement: str | sql.Composable, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, in no transaction of more than it."""
        with closing(connect(self.engine)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

    def settle(self) -> None:
        """Have everything that was written before on the disk, so that the next measurement does not pay for the last one."""
        self.rows("checkpoint")

    def wal_bytes(self) -> int:
        """Where the server's WAL is inserted: a difference of two is what was written between them, by any database."""
        return int(self.rows("select pg_current_wal_insert_lsn() - '0/0'")[0][0])

    def disk_bytes(self) -> int:
        """What the database takes on the disk."""
        return int(self.rows("select pg_database_size(current_database())")[0][0])

    def ledger_bytes(self) -> int:
        """What the ledger takes on the disk: most of it is the quarantine, which every release brings anew."""
        found = self.rows(
            "select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class where relnamespace = 'etl'::regnamespace and relkind = 'r'"
        )
        return int(found[0][0])

    def rows_written(self) -> int:
        """Rows inserted, updated and deleted so far in tables that users see, once every other session has ended: it tells by then."""
        others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type ~ 'client'"
        self.engine.dispose()
        deadline = time.monotonic() + END_TIMEOUT_S
        while self.rows(others):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another session is still in {self.url.database}: what it wrote may not be counted yet")
            time.sleep(0.05)
        found = self.rows(
            "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_user_tables where schemaname <> all(%s)", OWN_SCHEMAS
        )
        return int(found[0][0])

    def is_owed(self) -> bool:
        """Whether a VACUUM of what was published is still to be done."""
        return bool(self.rows("select 1 from etl.owed"))

    def export(self, table: Table, path: Path) -> None:
        """Write what is published of a table, the publisher's columns in their order, as the CSV of the floor."""
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        statement = sql.SQL("copy (select {} from {}) to stdout (format csv)").format(columns, sql.Identifier(table.source, table.name))
        with closing(connect(self.engine)) as connection, connection.cursor() as cursor, open(path, "wb") as out:
            cursor.copy_expert(statement, out)

    def create_plain(self, table: Table, name: str = "plain") -> None:
        """An empty, logged table of the publisher's columns with their types and the primary key, and nothing else."""
        columns = [sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type.sql)) for column in table.columns]
        key = sql.SQL(", ").join(map(sql.Identifier, table.key))
        statement = "drop table if exists {0}; create table {0} ({1}, primary key ({2}))"
        self.rows(sql.SQL(statement).format(sql.Identifier(name), sql.SQL(", ").join(columns), key))

    def copied_by_psql(self, table: Table, csv: Path) -> float:
        """The floor: seconds that ``psql`` takes to copy the CSV, its start included; the table is empty, and goes afterwards.

        Secondary indexes that the table declares are built after the copy, by the same psql.
        """
        self.create_plain(table, "floor")
        self.settle()
        statements = [f"\\copy floor from '{csv}' (format csv)"]
        statements += [f"create index on floor ({', '.join(index.columns)})" for index in table.indexes if index.using == "btree"]
        command = [str(find_programs().bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.libpq_url]
        took_s = seconds(lambda: subprocess.run([*command, *(word for one in statements for word in ("-c", one))], check=True))
        self.rows("drop table floor")
        return took_s
