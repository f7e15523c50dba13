"""Schema ``etl`` by numbered SQL files, applied automatically and once.

Any number of processes may call :func:`migrate` at the same moment: an advisory lock lets one work and the others find
the work done. All that is pending is one transaction, each file recorded with the hash of its text. A database that is newer than this
program, or a recorded file whose text has changed, stops before anything is touched.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from pipeline.database.engine import transaction
from pipeline.database.preflight import require_server, without_known_schemas
from pipeline.database.repeat import repeated
from pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Any constant will do, as long as nothing else in the database takes it.
LOCK = 0x4843_4144

BOOTSTRAP = """
create schema if not exists etl;
create table if not exists etl.migration (
    version     integer primary key,
    name        text not null,
    sha256      text not null,
    applied_at  timestamptz not null default clock_timestamp()
);
"""


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash of the text as shipped."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped_migrations() -> tuple[Migration, ...]:
    """The files ``NNNN_name.sql`` of ``pipeline/database/migrations``, in order."""
    folder = resources.files("pipeline.database.migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(Migration(int(file.name[:4]), file.name, file.read_text(encoding="utf-8")) for file in files)


@repeated
def migrate(engine: Engine, migrations: tuple[Migration, ...] | None = None) -> list[str]:
    """Bring the ledger's schema up to date; returns the names of the files applied by this call.

    Raises:
        ConfigurationError: the server cannot take what we write (:func:`pipeline.database.preflight.require_server`), or the recorded
            migrations are not a prefix of ours.
        DatabaseUnavailable: the server cannot be reached.
    """
    require_server(engine)
    migrations = shipped_migrations() if migrations is None else migrations
    applied: list[str] = []
    with transaction(engine) as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute("select to_regclass('etl.migration') is not null")
        if not _one(cursor):
            cursor.execute(without_known_schemas(cursor, BOOTSTRAP))
        cursor.execute("select version, name, sha256 from etl.migration order by version")
        recorded = {version: (name, sha256) for version, name, sha256 in cursor.fetchall()}
        _compare(recorded, migrations)
        for migration in migrations:
            if migration.version not in recorded:
                cursor.execute(without_known_schemas(cursor, migration.sql))
                cursor.execute(
                    "insert into etl.migration (version, name, sha256) values (%s, %s, %s)",
                    [migration.version, migration.name, migration.sha256],
                )
                applied.append(migration.name)
    return applied


def _compare(recorded: dict[int, tuple[str, str]], migrations: tuple[Migration, ...]) -> None:
    ours = {migration.version: migration for migration in migrations}
    for version, (name, sha256) in recorded.items():
        if version not in ours:
            raise ConfigurationError(
                f"the database has migration {name}, this program ends at {max(ours, default=0):04d}",
                "a program at least as new as its database",
                "upgrade the program; nothing was changed",
            )
        if ours[version].sha256 != sha256:
            raise ConfigurationError(
                f"migration {name} was applied with another text (sha256 {sha256[:12]})",
                f"sha256 {ours[version].sha256[:12]}",
                "restore the shipped file; a migration is never edited once it was released",
            )


def _one(cursor: Cursor) -> object:
    row = cursor.fetchone()
    return row[0] if row else None
