"""What must hold of the server before anything is downloaded, asked in one go and told all at once.

The server is PostgreSQL 15 or newer in UTF-8, takes writes, lets our role make what it needs, and has room where that can be
known. A missing privilege is named with the statement that gives it. Nothing is changed and nothing is waited for; what is
worth knowing and stops nothing comes back as a note.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.database.engine import transaction
from pipeline.database.repeat import repeated
from pipeline.errors import ConfigurationError, DatabaseFull, DatabaseRefused, ReadOnlyDatabase

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

MINIMUM_SERVER = 150000
#: The schemas of the ledger, of staging and of before-images; each source has one more, under its name.
OUR_SCHEMAS = ("etl", "etl_staging", "history")

SERVER = """
select current_setting('server_version_num')::integer, current_setting('server_version'), current_setting('server_encoding'),
       pg_is_in_recovery(), current_setting('transaction_read_only')::boolean, current_database(), current_user,
       has_database_privilege(current_database(), 'create'), has_database_privilege(current_database(), 'temporary')
"""
SCHEMAS = """
select w.name, n.oid is not null, coalesce(has_schema_privilege(n.oid, 'usage') and has_schema_privilege(n.oid, 'create'), true)
  from unnest(%s) with ordinality w(name, place) left join pg_namespace n on n.nspname = w.name order by w.place
"""
#: Only its owner may add a column or a partition, truncate or analyse.
OTHERS_TABLES = """
select n.nspname, c.relname, pg_get_userbyid(c.relowner) from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where (n.nspname = any(%(ours)s) or (n.nspname, c.relname) in (select * from unnest(%(schemas)s::text[], %(tables)s::text[])))
   and c.relkind in ('r', 'p') and not pg_has_role(c.relowner, 'usage') order by 1, 2
"""
EXTENSIONS = """
select w.name, e.oid is not null, a.name is not null from unnest(%s) w(name)
  left join pg_extension e on e.extname = w.name left join pg_available_extensions a on a.name = w.name
"""
#: Not "show data_directory": a role that may not see it gets an error there, and no row here.
DATA_FOLDER = "select setting from pg_settings where name = 'data_directory'"


@repeated
def require_server(engine: Engine, tables: Iterable[tuple[str, str]] = ()) -> None:
    """Stop unless the server can take what a run writes.

    Args:
        engine: of the database.
        tables: schema and name of the live tables that the run is about; without them only the ledger is asked for.

    Raises:
        ConfigurationError: it is older than PostgreSQL 15, or not in UTF-8.
        ReadOnlyDatabase: it is a standby, or read only.
        DatabaseRefused: privileges are missing; the statements that give them are named.
        DatabaseUnavailable: it cannot be reached.
    """
    wanted = list(tables)
    with transaction(engine) as cursor:
        number, version, encoding, is_standby, is_read_only, database, role, may_create, may_temporary = _row(cursor, SERVER)
        if number < MINIMUM_SERVER:
            raise ConfigurationError(f"PostgreSQL {version}", "PostgreSQL 15 or newer", "upgrade the server")
        if encoding != "UTF8":
            raise ConfigurationError(f"a database in {encoding}", "one in UTF8", "create the database with encoding 'UTF8'")
        if is_standby or is_read_only:
            what = "a standby" if is_standby else "set to be read only (default_transaction_read_only)"
            todo = "point DATABASE_URL at the primary, or make it writable"
            raise ReadOnlyDatabase(f"database {database} is {what}", "a server that takes writes", todo)
        grants = [] if may_temporary else [_grant("temporary", "database", database, role)]
        ours = [*OUR_SCHEMAS, *sorted({schema for schema, _ in wanted})]
        cursor.execute(SCHEMAS, [ours])
        found = cursor.fetchall()
        if not may_create and not all(exists for _, exists, _ in found):
            grants.append(_grant("create", "database", database, role))
        grants += [_grant("usage, create", "schema", name, role) for name, exists, is_allowed in found if exists and not is_allowed]
        schemas, names = [schema for schema, _ in wanted], [name for _, name in wanted]
        cursor.execute(OTHERS_TABLES, {"ours": list(OUR_SCHEMAS), "schemas": schemas, "tables": names})
        owner = sql.SQL("alter table {} owner to {}")
        statements = [owner.format(sql.Identifier(schema, name), sql.Identifier(role)) for schema, name, _ in cursor.fetchall()]
        missing = [statement.as_string(cursor) for statement in [*grants, *statements]]
    if missing:
        raise DatabaseRefused(
            f"role {role} lacks privileges in database {database}",
            "a role that may make, and owns, the tables of the pipeline's schemas",
            "run as the database's owner: " + "; ".join(missing),
        )


@repeated
def extension_notes(engine: Engine, wanted: Sequence[str]) -> list[str]:
    """A sentence for each extension that schema files make use of and that the database does not have."""
    with transaction(engine) as cursor:
        cursor.execute(EXTENSIONS, [list(wanted)])
        return [
            f"extension {name} is not installed: indexes that need it are left out. "
            + (f"CREATE EXTENSION {name}, and the next run builds them" if is_available else "The server does not offer it")
            for name, is_installed, is_available in cursor.fetchall()
            if not is_installed
        ]


@repeated
def require_room(engine: Engine, min_free_bytes: int) -> str | None:
    """Stop when the server's disk has less room than that, where it can be known: a server on this machine that shows its folder.

    Returns:
        A note where it cannot be known; None otherwise.

    Raises:
        DatabaseFull: it has less.
    """
    if not min_free_bytes:
        return None
    host = engine.url.query.get("host") or engine.url.host or "/"
    with transaction(engine) as cursor:
        cursor.execute(DATA_FOLDER)
        row = cursor.fetchone()
    # A folder of that name on another machine is another folder.
    if row is None or not str(host).startswith("/"):
        return "how much room the server's disk has cannot be known from here"
    try:
        free = shutil.disk_usage(Path(row[0])).free
    except OSError as error:
        return f"how much room the server's disk has cannot be known: {error}"
    if free < min_free_bytes:
        raise DatabaseFull(
            f"{free / 2**20:,.0f} MB are free where PostgreSQL keeps its data ({row[0]})",
            f"{min_free_bytes / 2**20:,.0f} MB ([database] min_free_mb)",
            "make room, or lower the figure; nothing was downloaded",
        )
    return None


def without_known_schemas(cursor: Cursor, script: str) -> str:
    """A migration's text less its ``create schema if not exists`` of those that exist.

    PostgreSQL asks for the privilege to create schemas before it looks: a role that was given its schemas has it not.
    """
    cursor.execute("select nspname from pg_namespace")
    known = {name for (name,) in cursor.fetchall()}
    return re.sub(r"create schema if not exists (\w+);", lambda found: "" if found[1] in known else found[0], script)


def _grant(privileges: str, kind: str, name: str, role: str) -> sql.Composed:
    return sql.SQL("grant {} on {} {} to {}").format(sql.SQL(privileges), sql.SQL(kind), sql.Identifier(name), sql.Identifier(role))


def _row(cursor: Cursor, statement: str) -> tuple[Any, ...]:
    cursor.execute(statement)
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None  # noqa: S101  # one row of functions
    return row
