"""Constraints of the user's own on live tables: what they refuse stops the publish, and is told by constraint and rows.

The transaction was rolled back whole, and what is published stays. The rows are not quarantined: what a release becomes follows
from the release and its recipe, and a constraint that somebody put on a table is in neither. The rule belongs into the schema
file. Of a CHECK the rows of the release that break it are counted, and the first of them named by their key, unless that names a
person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors, sql
from sqlalchemy import Engine

from pipeline.catalog.model import ROLL_PREFIX, Source
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import ImportKey
from pipeline.errors import ShapeError
from pipeline.load.next_state import next_views
from pipeline.load.relations import ROLL_SCHEMA, Relations, comma
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
BREAKING = "select {key}, count(*) over () from {view} where not ({expression}) order by 1 limit %s"


@contextmanager
def told(engine: Engine, key: ImportKey, source: Source | None = None) -> Iterator[None]:
    """Around a transaction that changes live tables: make of such a refusal an error that says what to do.

    Args:
        engine: for a look at the staged rows, in a transaction of its own.
        key: the import's identity.
        source: its source; None: no rows are named.

    Raises:
        ShapeError: a constraint that is not ours refused a row.
    """
    try:
        yield
    except REFUSALS as error:
        if error.diag.schema_name not in (key.source, ROLL_SCHEMA):
            raise
        named = _named(engine, error, key, source)
        if named is None:
            raise
        raise named from error


def _named(engine: Engine, error: psycopg2.Error, key: ImportKey, source: Source | None) -> ShapeError | None:
    """The error for a person; None when it is about a primary key, which is ours."""
    name = error.diag.constraint_name or f"NOT NULL of {error.diag.column_name}"
    with transaction(engine) as cursor:
        cursor.execute(REFUSING, [name, error.diag.schema_name, error.diag.table_name])
        table, expression, is_primary = cursor.fetchone() or (error.diag.table_name, None, False)
        if is_primary:
            return None
        live = table
        if error.diag.schema_name == ROLL_SCHEMA:  # a source's part of a computed table
            table = f"{ROLL_PREFIX}{table.removesuffix(f'_{key.source}')}"
        rows = _breaking(cursor, key, source, table, expression) if source and expression else ""
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
        # A "%" in it is LIKE's, and no place of psycopg2's.
        literal = sql.SQL(expression.replace("%", "%%"))
        statement = sql.SQL(BREAKING).format(key=key_text, view=views[table], expression=literal)
        cursor.execute("savepoint look")
        try:
            cursor.execute(statement, [NAMED_ROWS])
        except errors.UndefinedColumn:  # it is about a column of the user's own
            cursor.execute("rollback to savepoint look")
            return ""
        rows = cursor.fetchall()
    if not rows:
        return ""
    is_personal = any(declared.column(name).personal for name in relations.anchor)
    first = "" if is_personal else f", the first with {' '.join(relations.anchor)} {', '.join(text for text, _ in rows)}"
    return f"{rows[0][1]} rows of the release{first}"
