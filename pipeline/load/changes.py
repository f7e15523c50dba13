"""What an import changed: by table, by column, and row by row with the old and the new value.

Counts are in the ledger and stay there; values come from the row history, as far as it is kept: the old one from the before-image
that the import left, the new one from the next image of the same row, or from the live row where nothing has changed it since. A
first import of a tax year is one entry: it has no row history, for every row of it is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.database import ledger
from pipeline.database.engine import connect, transaction, translated
from pipeline.database.ledger import Import
from pipeline.errors import HistoryGone
from pipeline.load.history import require_history
from pipeline.load.images import LiveTable, pin_forms, texts
from pipeline.load.relations import comma, names, same

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

FETCHED_ROWS = 2000
OPERATIONS = {"I": "inserted", "U": "updated", "D": "deleted"}

#: A value a line: those of a new or a gone row that it has, and of an updated one those that differ.
ROWS = """
select h.operation, to_jsonb(h) - 'before_image', c.name, c.old, c.new
  from {history} h
  left join etl.image_columns before on (before.import_id, before.table_name) = (h.import_id, %(table)s)
  left join lateral (
       select n.before_image, i.columns
         from {history} n left join etl.image_columns i on (i.import_id, i.table_name) = (n.import_id, %(table)s)
        where n.tax_year = h.tax_year and {same_next} and n.import_id > h.import_id order by n.import_id, n.operation limit 1) later on true
  left join {live} l on l.tax_year = h.tax_year and {same_live} and later.before_image is null
  cross join lateral (
       select name, o.value as old, n.value as new
         from (select * from unnest(before.columns, h.before_image) o(name, value) where h.operation <> 'I') o
         full join (select * from unnest(case when later.before_image is null then %(live_columns)s else later.columns end,
                                         coalesce(later.before_image, {live_image})) n(name, value) where h.operation <> 'D') n using (name)
        where o.value is distinct from n.value and name = any(%(columns)s)) c
 where h.import_id = %(import_id)s and h.tax_year = %(year)s
 order by {key}, h.operation, array_position(%(columns)s, c.name)
"""


@dataclass(frozen=True)
class TableChanges:
    """What an import changed in one table; ``columns`` says in how many of the updated rows each column differs.

    ``is_first``: the table had no rows of this tax year before, so that all are new and none is in the row history.
    """

    table: str
    disposition: str
    inserted: int
    updated: int
    deleted: int
    columns: Mapping[str, int]
    is_first: bool


@dataclass(frozen=True)
class ImportChanges:
    """What an import changed, table by table."""

    of: Import
    tables: tuple[TableChanges, ...]


@dataclass(frozen=True)
class ValueChange:
    """One value that an import changed, as text. ``operation`` is ``inserted``, ``updated`` or ``deleted``, of the row."""

    table: str
    operation: str
    key: Mapping[str, Any]
    column: str
    old: str | None
    new: str | None


def read_changes(engine: Engine, import_id: int, table: str | None = None) -> ImportChanges:
    """What an import changed, by table and column, also when it was taken back since.

    Args:
        engine: of the database.
        import_id: an import that was published at some time.
        table: one table; None: all.

    Raises:
        HistoryGone: there is no such import or table, or it was never published.
    """
    with transaction(engine) as cursor:
        found = ledger.by_id(cursor, import_id)
        cursor.execute(
            """select table_name, disposition, inserted, updated, deleted from etl.import_table
                where import_id = %(import_id)s and (%(table)s is null or table_name = %(table)s) order by 1""",
            {"import_id": import_id, "table": table},
        )
        rows = cursor.fetchall()
        if found is None or not rows:
            raise HistoryGone(
                f"import {import_id} has published nothing{f' of a table {table}' if table and found else ''}",
                "an import that was published, and a table of it", "see hcad-pipeline status",
            )  # fmt: skip
        cursor.execute(
            "select table_name, column_name, updated from etl.column_change where import_id = %s order by 1, 3 desc, 2", [import_id]
        )
        columns: dict[str, dict[str, int]] = {}
        for name, column, count in cursor.fetchall():
            columns.setdefault(name, {})[column] = count
        tables = [
            TableChanges(name, disposition, inserted, updated, deleted, columns.get(name, {}),
                         inserted > 0 and _is_first(cursor, found, name))
            for name, disposition, inserted, updated, deleted in rows
        ]  # fmt: skip
    return ImportChanges(found, tuple(tables))


def _is_first(cursor: Cursor, found: Import, table: str) -> bool:
    """Whether the table was empty: it was in no import that this one stands on, or that one left it with no rows."""
    if found.base_import_id is None:
        return True
    cursor.execute(
        "select coalesce(sum(rows_loaded), 0) = 0 from etl.import_table where import_id = %s and table_name = %s",
        [found.base_import_id, table],
    )
    return bool((cursor.fetchone() or (True,))[0])


def value_changes(engine: Engine, import_id: int, table: str, column: str | None = None) -> Iterator[ValueChange]:
    """Every value of a table that an import changed, by key; read as it is asked for, in one snapshot.

    Args:
        engine: of the database.
        import_id: the current import of its source and tax year, or one that it stands on.
        table: the table.
        column: one column; None: all of the source's columns.

    Raises:
        HistoryGone: the import's row history is not kept, or it was taken back.
    """
    with translated(), closing(connect(engine)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            found = require_history(cursor, import_id)
            live = LiveTable.read(cursor, found.key.source, table)
        if not live.key or (column is not None and column not in live.ours):
            raise HistoryGone(f"no {table}{f'.{column}' if column else ''} in the database", "a table and column of the source", "name one")
        yield from _values(connection, found, live, table, [column] if column else list(live.ours))


def _values(connection: Connection, found: Import, live: LiveTable, table: str, columns: list[str]) -> Iterator[ValueChange]:
    statement = sql.SQL(ROWS).format(
        history=live.history, live=live.live, same_next=same(live.key, "n", "h"), same_live=same(live.key, "l", "h"),
        key=comma([names(live.key, "h")]), live_image=texts(live.ours, "l"),
    )  # fmt: skip
    values = {
        "columns": columns, "live_columns": list(live.ours), "table": table, "import_id": found.import_id, "year": found.key.tax_year,
    }  # fmt: skip
    with connection.cursor() as cursor:
        pin_forms(cursor)
    with connection.cursor("changes") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(statement, values)
        for operation, row, column, old, new in cursor:
            yield ValueChange(table, OPERATIONS[operation], {name: row[name] for name in live.key}, column, old, new)
