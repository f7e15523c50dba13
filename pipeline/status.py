"""What the ledger says to a person: current imports, recent runs, held releases, quarantined rows."""

from __future__ import annotations

import re
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extras import RealDictCursor
from sqlalchemy import Engine

from pipeline.database.engine import connect, translated
from pipeline.errors import ConfigurationError

_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
#: Where Cerberus' messages repeat a value.
_QUOTED = re.compile(r"(?<=unallowed value ).*")

CURRENT = """
select i.source, i.tax_year, i.import_id, i.release, i.recipe, i.profile, i.published_at,
       (select sum(t.rows_loaded) from etl.import_table t where t.import_id = i.import_id)::bigint as rows,
       (select r.last_seen_at from etl.release r
         where (r.source, r.tax_year, r.release) = (i.source, i.tax_year, i.release)) as last_seen_at
  from etl.import i where i.state = 'published' order by 1, 2
"""
HELD = """
select i.source, i.tax_year, i.import_id, i.state, i.release, i.error_code, i.message
  from etl.import i where i.state in ('refused', 'rolled_back') order by i.import_id desc limit 20
"""
RUNS = "select run_id, command, profile, started_at, finished_at, outcome, exit_code, message from etl.run order by run_id desc limit 10"
QUARANTINE = """
select q.import_id, q.table_name, q.line, q.raw, q.reasons from etl.quarantine q join etl.import i using (import_id)
 where i.source = %(source)s and (%(table)s is null or q.table_name = %(table)s)
   and q.import_id = coalesce(%(import_id)s, (
       select max(n.import_id) from etl.quarantine n join etl.import j using (import_id)
        where j.source = %(source)s and (%(table)s is null or n.table_name = %(table)s)))
 order by q.table_name, q.line limit %(limit)s
"""


def read_status(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Current imports, held ones and the last ten runs."""
    return {"current": _query(engine, CURRENT), "held": _query(engine, HELD), "runs": _query(engine, RUNS)}


def status_lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The status as text."""
    lines = ["current"]
    lines += [
        f"  {row['source']} {row['tax_year']}: import {row['import_id']}, {row['rows']:,} rows, release {row['release']}, "
        f"profile {row['profile']}, published {row['published_at']:%Y-%m-%d %H:%M:%S} UTC"
        for row in found["current"]
    ] or ["  nothing is published yet"]
    if found["held"]:
        lines += ["held"]
        lines += [
            f"  {row['source']} {row['tax_year']}: import {row['import_id']} {row['state']} "
            f"{row['error_code'] or ''} {row['message'] or ''}"
            for row in found["held"]
        ]
    lines += ["runs"]
    lines += [
        f"  {row['run_id']}: {row['started_at']:%Y-%m-%d %H:%M:%S} UTC {row['command']}: {row['outcome'] or 'running, or killed'}"
        f"{_ending(row)}"
        for row in found["runs"]
    ] or ["  none"]
    return lines


def read_quarantine(engine: Engine, source: str, import_id: int | None, table: str | None, limit: int) -> list[dict[str, Any]]:
    """Quarantined rows of a source, of one import (None: the newest that has some) and one table (None: all)."""
    return _query(engine, QUARANTINE, {"source": source, "import_id": import_id, "table": table, "limit": limit})


def masked(row: dict[str, Any]) -> dict[str, Any]:
    """A quarantined row with every letter and digit of its text and reasons' values replaced one for one."""
    reasons = {column: [_QUOTED.sub(lambda quoted: _mask(quoted[0]), text) for text in texts] for column, texts in row["reasons"].items()}
    return row | {"raw": _mask(row["raw"]), "reasons": reasons}


def _mask(text: str) -> str:
    return _DIGIT.sub("9", _LETTER.sub("x", text))


def read_rows(engine: Engine, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The column names and rows of one statement, run in a read-only transaction.

    Raises:
        ConfigurationError: PostgreSQL refuses the statement, or it has no rows to give.
        DatabaseUnavailable: the server cannot be reached.
    """
    connection = connect(engine)
    try:
        with translated(), connection.cursor() as cursor:
            connection.set_session(readonly=True)
            try:
                cursor.execute(statement)
            except psycopg2.errors.ReadOnlySqlTransaction as error:
                raise ConfigurationError(
                    "a statement that writes", "a query: this connection only reads", "use psql to change data"
                ) from error
            if cursor.description is None:
                raise ConfigurationError("a statement without rows", "a query", "begin it with select")
            return [column.name for column in cursor.description], cursor.fetchall()
    except (psycopg2.ProgrammingError, psycopg2.InternalError, psycopg2.DataError) as error:
        raise ConfigurationError(f"PostgreSQL says: {' '.join(str(error).split())}", "a query that it takes", "correct it") from error
    finally:
        connection.close()


def _query(engine: Engine, statement: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    connection = connect(engine)
    try:
        with translated(), connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute("set time zone 'UTC'")
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()]
    finally:
        connection.close()


def _ending(row: dict[str, Any]) -> str:
    code = "" if row["exit_code"] is None else f", exit code {row['exit_code']}"
    return f"{code}: {row['message']}" if row["message"] else code
