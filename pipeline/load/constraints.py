"""Constraints of the user's own on live tables: what they refuse stops the publish, and is told by constraint and rows.

The transaction was rolled back whole, and what is published stays. The rows are not quarantined: what a release becomes follows
from the release and its recipe, and a constraint that somebody put on a table is in neither. The rule belongs into the schema
file. Of a CHECK the rows of the release that break it are counted, and the first of them named by their key, unless that names a
person. A CHECK may also fail instead of refusing (a division by zero, a cast, a function that raises): PostgreSQL does not say of which
constraint that is, so each is evaluated by itself on the rows of the release, and the one that fails is named, with how.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import errors, sql
from sqlalchemy import Engine

from pipeline.catalog.model import ROLL_PREFIX, Source
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import ImportKey
from pipeline.errors import PipelineError, ShapeError
from pipeline.load.bisect import words_of
from pipeline.load.next_state import next_views
from pipeline.load.relations import ROLL_SCHEMA, Relations, comma, identifier, live_name
from pipeline.load.staging import staged_tables

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

NAMED_ROWS = 3
#: Beside these two kinds, foreign keys: the engine tells of those, wherever they are.
REFUSALS = (errors.CheckViolation, errors.NotNullViolation, errors.UniqueViolation, errors.ExclusionViolation)
#: The live table that a relation is, or is a partition of; and the expression of a CHECK of that name on it.
REFUSING = """
select parent.relname, pg_get_expr(k.conbin, k.conrelid), coalesce(k.contype = 'p', false)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join pg_inherits i on i.inhrelid = c.oid join pg_class parent on parent.oid = coalesce(i.inhparent, c.oid)
  left join pg_constraint k on k.conrelid = c.oid and k.conname = %s
 where n.nspname = %s and c.relname = %s
"""
BREAKING = "select {key}, count(*) over () from {view} where not ({expression}) order by 1 limit {most}"
#: The CHECKs on live tables and their partitions of a tax year; none of them is ours.
CHECKS = """
select w.table_name, k.conname, pg_get_expr(k.conbin, k.conrelid) from unnest(%s::text[], %s::text[]) w(table_name, relation)
  join pg_constraint k on k.conrelid = to_regclass(w.relation) and k.contype = 'c' and k.conislocal order by 1, 2
"""
EVALUATED = "select count(*) filter (where not ({expression})) from {view}"
#: SQLSTATE classes of the link, the moment and the server, and of constraints that tell their name: no failure of an expression.
NO_EXPRESSION = ("08", "23", "25", "40", "53", "55", "57", "58", "F0", "XX")
#: Of a name that the rows of the release do not have: a CHECK of a column of a user's own cannot be judged on them.
NO_SUCH_NAME = "42"


@contextmanager
def told(engine: Engine, key: ImportKey, source: Source | None = None) -> Iterator[None]:
    """Around a transaction that changes live tables: make of such a refusal an error that says what to do.

    Args:
        engine: for a look at the staged rows, in a transaction of its own.
        key: the import's identity.
        source: its source; None: no rows are named.

    Raises:
        ShapeError: a constraint that is not ours refused a row, or failed on one.
    """
    try:
        yield
    except (psycopg2.Error, PipelineError) as error:
        # A trigger that raises, say, was sorted out before.
        cause = error if isinstance(error, psycopg2.Error) else error.__cause__
        named = _told(engine, cause, key, source) if isinstance(cause, psycopg2.Error) else None
        if named is None:
            raise
        raise named from cause


def _told(engine: Engine, error: psycopg2.Error, key: ImportKey, source: Source | None) -> ShapeError | None:
    if isinstance(error, REFUSALS):
        return _refusal(engine, error, key, source) if error.diag.schema_name in (key.source, ROLL_SCHEMA) else None
    if error.pgcode is None or error.pgcode.startswith(NO_EXPRESSION):
        return None
    try:
        with transaction(engine) as cursor:
            suspects = _failing(cursor, error, key, source)
    except (psycopg2.Error, PipelineError):
        return None  # what led here says more
    if not suspects:
        return None
    one = "" if len(suspects) == 1 else "one of "
    return ShapeError(
        f"{one}{', '.join(f'{name} on {key.source}.{table}' for table, name in suspects)}, "
        f"{'a constraint' if len(suspects) == 1 else 'constraints'} of your own, cannot be evaluated on a row: {_how(error)}",
        "constraints of your own on live tables that can be evaluated on every row",
        "mend the constraint, so that it is true or false of any value, or drop it; then run again",
    )


def _failing(cursor: Cursor, error: psycopg2.Error, key: ImportKey, source: Source | None) -> list[tuple[str, str]]:
    """The CHECKs, by table and name, that fail on the rows of the release as the publish did.

    Where that cannot be seen, because the rows are not there (they are before-images) or lack a column that the CHECK reads, those that it
    may have been, of a failure that only an expression has.
    """
    may_be_unknown = isinstance(error, errors.DataError)
    cursor.execute("select distinct table_name from etl.live_column where source = %s", [key.source])
    names = [name for (name,) in cursor.fetchall()]
    places = [
        (name, identifier(schema, full))
        for name in names
        for schema, live in [live_name(key.source, name)]
        for full in (live, f"{live}_{key.tax_year}")
    ]
    cursor.execute(CHECKS, [[name for name, _ in places], [place.as_string(cursor) for _, place in places]])
    checks = cursor.fetchall()
    found = ledger.standing(cursor, key)
    staged = staged_tables(cursor, found.import_id) if checks and found and source else []
    if not checks or found is None or source is None or not staged:
        return [(table, name) for table, name, _ in checks if may_be_unknown]
    failing, unknown = [], []
    with next_views(cursor, found, source, staged) as views:
        for table, name, expression in checks:
            if table not in views:
                continue
            _, failure = _looked(cursor, sql.SQL(EVALUATED).format(expression=sql.SQL(expression), view=views[table]))
            code = (failure.pgcode or "") if failure else ""
            if code == error.pgcode:
                failing.append((table, name))
            elif code.startswith(NO_SUCH_NAME) and may_be_unknown:
                unknown.append((table, name))
    return failing or unknown


def _looked(cursor: Cursor, statement: sql.Composed) -> tuple[list[tuple[Any, ...]], psycopg2.Error | None]:
    """The rows of a query on expressions that are not ours, or how it failed; whatever it did is undone."""
    cursor.execute("savepoint look")
    rows: list[tuple[Any, ...]] = []
    failure: psycopg2.Error | None = None
    try:
        # Without arguments: a "%" in it is LIKE's, and no place of psycopg2's.
        cursor.execute(statement)
        rows = cursor.fetchall()
    except psycopg2.Error as error:
        if error.pgcode is None:
            raise
        failure = error
    cursor.execute("rollback to savepoint look")
    return rows, failure


def _how(error: psycopg2.Error) -> str:
    """How an expression failed, without values: what a function of a user's own raises may have them in its words."""
    where = (error.diag.context or "").partition("\n")[0]
    if not isinstance(error, errors.DataError):
        told = where if where.startswith("PL/pgSQL function") else type(error).__name__
        return f"{told} (SQLSTATE {error.pgcode})"
    return words_of(error, with_values=False)


def _refusal(engine: Engine, error: psycopg2.Error, key: ImportKey, source: Source | None) -> ShapeError | None:
    """The error for a person; None when it is about a primary key, which is ours."""
    name = error.diag.constraint_name or f"NOT NULL of {error.diag.column_name}"
    live = table = error.diag.table_name
    is_primary, rows = isinstance(error, errors.UniqueViolation), ""
    try:
        with transaction(engine) as cursor:
            cursor.execute(REFUSING, [name, error.diag.schema_name, error.diag.table_name])
            table, expression, is_primary = cursor.fetchone() or (table, None, False)
            live = table
            if error.diag.schema_name == ROLL_SCHEMA:  # a source's part of a computed table
                table = f"{ROLL_PREFIX}{table.removesuffix(f'_{key.source}')}"
            rows = _breaking(cursor, key, source, table, expression) if source and expression else ""
    except (psycopg2.Error, PipelineError) as failure:
        code = failure.code if isinstance(failure, PipelineError) else failure.pgcode
        rows = f"a row, and which ones could not be asked ({code})"
    if is_primary:
        return None
    return ShapeError(
        f"{name}, a constraint of your own on {error.diag.schema_name}.{live}, refuses {rows or 'a row'} (SQLSTATE {error.pgcode})",
        "constraints of your own on live tables that let a release through",
        "say it in the schema file, so that such rows are quarantined, or change or drop the constraint; then run again",
    )


def _breaking(cursor: Cursor, key: ImportKey, source: Source, table: str, expression: str) -> str:
    """How many rows of the staged release break a CHECK, and the first of them; "" when that cannot be told from them."""
    found = ledger.standing(cursor, key)
    staged = [one for one in staged_tables(cursor, found.import_id) if one.table == table] if found else []
    if found is None or not staged:
        return ""
    declared = source.table(table)
    relations = Relations(declared, found.import_id)
    key_text = sql.SQL("concat_ws(' ', {})").format(comma(map(sql.Identifier, relations.anchor)))
    with next_views(cursor, found, source, staged) as views:
        words = {"key": key_text, "view": views[table], "expression": sql.SQL(expression), "most": sql.Literal(NAMED_ROWS)}
        rows, failure = _looked(cursor, sql.SQL(BREAKING).format(**words))
    if failure is not None:
        # It may be about a column of the user's own.
        is_unknown = (failure.pgcode or "").startswith(NO_SUCH_NAME)
        return "" if is_unknown else f"a row; which ones cannot be told, for on some it cannot be evaluated: {_how(failure)}"
    if not rows:
        return ""
    is_personal = any(declared.column(name).personal for name in relations.anchor)
    first = "" if is_personal else f", the first with {' '.join(relations.anchor)} {', '.join(text for text, _ in rows)}"
    return f"{rows[0][1]} rows of the release{first}"
