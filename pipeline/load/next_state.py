"""A release's tables as they would be after its publish, to be read before it: ``pg_temp.next_<table>``.

Nothing is copied: each is a view of staging and of the live rows that staying unchanged keeps. Whole rows are staged only where
their hash is not live, so the next state of a refreshed table is those and, for every other narrow row, the live row of the same
key (or parent) and hash. A first import is what is staged; a table that is unchanged or carried over is what is live. The views
have ``tax_year``, the table's columns and ``row_hash``; equal rows of a table without a key come as often as they are in the release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import Source
from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, comma, identifier, names, same
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

LIVE = "select {columns} from {live} l where l.tax_year = {year}"
STAGED = "select {year} as tax_year, {staged_columns} from {rows} s"
KEPT = "select {columns} from {keys} s join {live} l on {same_anchor} and l.row_hash = s.row_hash where l.tax_year = {year}"
#: Of equal live rows one is taken, as often as the content is staged.
KEPT_COPIES = """
select {columns} from {keys} s join (
    select l.*, row_number() over (partition by {live_anchor}, l.row_hash order by l.seq) as copy from {live} l where l.tax_year = {year}
) l on {same_anchor} and l.row_hash = s.row_hash and l.copy = 1
"""


@contextmanager
def next_views(cursor: Cursor, found: Import, source: Source, staged: Sequence[StagedTable]) -> Iterator[Mapping[str, sql.Identifier]]:
    """The next state of an import's tables, while the block runs, in the caller's transaction.

    Args:
        cursor: in the transaction that reads them; they are seen by no other session.
        found: the open import.
        source: its source.
        staged: its tables, all settled.

    Yields:
        The view of each table, by the table's name.
    """
    views = {table.table: sql.Identifier("pg_temp", identifier(f"next_{table.table}").strings[-1]) for table in staged}
    for table in staged:
        relations = Relations(source.table(table.table), found.import_id)
        select = next_rows(relations, found, table.disposition)
        cursor.execute(sql.SQL("create temporary view {} as {}").format(sql.Identifier(views[table.table].strings[-1]), select))
    yield views
    # They stand on staging tables, which the publish drops; after an error they go with the transaction.
    if views:
        cursor.execute(sql.SQL("drop view {}").format(comma(views.values())))


def next_rows(relations: Relations, found: Import, disposition: str) -> sql.Composed:
    """The select that gives one table's next state."""
    columns = (*relations.column_names, "row_hash")
    words: dict[str, sql.Composable] = {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "year": sql.Literal(found.key.tax_year),
        "columns": names(("tax_year", *columns), "l"), "staged_columns": names(columns, "s"),
        "live_anchor": names(relations.anchor, "l"), "same_anchor": same(relations.anchor, "l", "s"),
    }  # fmt: skip
    if disposition != "staged":
        return sql.SQL(LIVE).format(**words)
    if found.base_import_id is None:
        return sql.SQL(STAGED).format(**words)
    return sql.SQL(f"{STAGED} union all {KEPT if relations.table.is_keyed else KEPT_COPIES}").format(**words)
