"""What the ledger says to a person: current imports, failed checks, recent runs, held releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extras import RealDictCursor
from sqlalchemy import Engine

from pipeline.database.engine import connect, translated
from pipeline.errors import ConfigurationError

CURRENT = """
select i.source, i.tax_year, i.import_id, i.release, i.recipe, i.profile, i.published_at, i.only_tables,
       (select sum(t.rows_loaded) from etl.import_table t where t.import_id = i.import_id)::bigint as rows,
       (select r.last_seen_at from etl.release r
         where (r.source, r.tax_year, r.release) = (i.source, i.tax_year, i.release)) as last_seen_at
  from etl.import i where i.state = 'published' order by 1, 2
"""
HELD = """
select i.source, i.tax_year, i.import_id, i.state, i.release, i.error_code, i.message, i.only_tables
  from etl.import i where i.state in ('refused', 'rolled_back') order by i.import_id desc limit 20
"""
RUNS = "select run_id, command, profile, started_at, finished_at, outcome, exit_code, message from etl.run order by run_id desc limit 10"
CHECKS = """
select i.source, i.tax_year, g.table_name, g.check_name, g.severity, g.seen, g.expected
  from etl.gate_result g join etl.import i using (import_id)
 where i.state = 'published' and (not g.passed or g.severity = 'note') order by 1, 2, 3, 4
"""

TOLD = {"note": "a note", "warn": "a warning", "error": "accepted by a person"}


def read_status(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Current imports and the checks that they were published in spite of, held ones, and the last ten runs."""
    asked = {"current": CURRENT, "checks": CHECKS, "held": HELD, "runs": RUNS}
    return {name: query(engine, statement) for name, statement in asked.items()}


def status_lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The status as text."""
    lines = ["current"]
    lines += [
        f"  {row['source']} {row['tax_year']}: import {row['import_id']}, {row['rows']:,} rows, release {row['release']}, "
        f"profile {row['profile']}, published {row['published_at']:%Y-%m-%d %H:%M:%S} UTC{_scope(row)}"
        for row in found["current"]
    ] or ["  nothing is published yet"]
    if found["checks"]:
        lines += ["what the gate told of them"]
        lines += [
            f"  {row['source']} {row['tax_year']}: {row['table_name']} {row['check_name']}: {row['seen']}, expected {row['expected']} "
            f"({TOLD[row['severity']]})"
            for row in found["checks"]
        ]
    if found["held"]:
        lines += ["held"]
        lines += [
            f"  {row['source']} {row['tax_year']}: import {row['import_id']} {row['state']}{_scope(row)} "
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


def query(engine: Engine, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of one of the program's own statements, with their columns' names.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
    """
    connection = connect(engine)
    try:
        with translated(), connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute("set time zone 'UTC'")
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()]
    finally:
        connection.close()


def _scope(row: Mapping[str, Any]) -> str:
    """That an import is of some tables only."""
    return f", only {', '.join(row['only_tables'])}" if row["only_tables"] else ""


def _ending(row: dict[str, Any]) -> str:
    code = "" if row["exit_code"] is None else f", exit code {row['exit_code']}"
    return f"{code}: {row['message']}" if row["message"] else code
