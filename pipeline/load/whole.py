"""Rows that are staged, whole and narrow, held to what the ledger says of them before anything is made of them.

Of a refresh only the rows that differ are staged whole, so that their number follows from nothing else: each checkpoint keeps how
many its part has (``whole`` among its figures). Narrow rows are as many as the table's account loads. A staging table that a disk's
fault or a hand has emptied would else be merged in silence: rows that differ would stay as they were. What was staged by a program that
kept no such number is held to its account alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.errors import StagingStale
from pipeline.load.relations import Relations

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

NOTE = """
update etl.checkpoint set figures = coalesce(figures, '{}') || jsonb_build_object('whole', %s)
 where (import_id, table_name, part) = (%s, %s, %s)
"""
RECOUNT = """
update etl.checkpoint c set figures = c.figures || jsonb_build_object('whole', coalesce(w.rows, 0))
  from etl.checkpoint o left join (select part, count(*) as rows from {rows} group by part) w using (part)
 where (c.import_id, c.table_name) = (%s, %s) and (o.import_id, o.table_name, o.part) = (c.import_id, c.table_name, c.part)
   and c.figures ? 'whole'
"""
SAID = """
select case when bool_and(coalesce(figures ? 'whole', false)) then sum((figures ->> 'whole')::bigint) end
  from etl.checkpoint where import_id = %s and table_name = %s
"""


def note(cursor: Cursor, relations: Relations, part: int, rows: int) -> None:
    """Keep in a part's checkpoint how many of its rows are staged whole; in the transaction that stages them."""
    cursor.execute(NOTE, [rows, relations.import_id, relations.table.name, part])


def recount(cursor: Cursor, relations: Relations) -> None:
    """Keep how many rows are staged whole after some of them gave way to another one of their key."""
    cursor.execute(sql.SQL(RECOUNT).format(rows=relations.rows), [relations.import_id, relations.table.name])


def lost(cursor: Cursor, relations: Relations, rows_loaded: int | None = None, counted: tuple[int, int] | None = None) -> str | None:
    """In what a table's staging is not what the ledger says; None: it is.

    Args:
        cursor: in the transaction that is to read the staging.
        relations: the table's relations for the open import.
        rows_loaded: how many narrow rows there must be; None: they are counted elsewhere.
        counted: how many rows are staged narrow and whole, where they were counted just now.
    """
    if rows_loaded is not None:
        found = counted[0] if counted else _count(cursor, relations.keys)
        if found != rows_loaded:
            return f"{rows_loaded} rows were staged, and {found} are"
    cursor.execute(SAID, [relations.import_id, relations.table.name])
    (said,) = cursor.fetchone() or (None,)
    if said is None:
        return None
    found = counted[1] if counted else _count(cursor, relations.rows)
    return f"{said} rows were staged whole, and {found} are" if found != said else None


def require(cursor: Cursor, relations: Relations, rows_loaded: int | None = None, counted: tuple[int, int] | None = None) -> None:
    """Stop where a table's staging is not what the ledger says; the arguments are those of :func:`lost`.

    Raises:
        StagingStale: rows are gone, or there are more.
    """
    if why := lost(cursor, relations, rows_loaded, counted):
        raise StagingStale(
            f"the staging of {relations.table.qualified} was changed by something else: {why}",
            "what was staged, to the row",
            "see to the server's disk, if nobody touched it; the next run stages the table again",
        )


def _count(cursor: Cursor, name: sql.Identifier) -> int:
    cursor.execute(sql.SQL("select count(*) from {}").format(name))
    return int((cursor.fetchone() or (0,))[0])
