"""A table as it was: the live rows, with what later imports changed undone in the reading.

A live row that no later import has written is as it was then; of every other one the oldest before-image since then says what it
was. So nothing is copied, nothing is written, and reading one import back costs what that import changed. It is known as far back as
the row history reaches: an import that was taken back, or whose successors' history is gone, is refused with that word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import errors, sql
from sqlalchemy import Engine

from pipeline.database import ledger
from pipeline.database.engine import connect, translated
from pipeline.database.ledger import Import
from pipeline.errors import ConfigurationError, HistoryGone
from pipeline.load.images import Images, LiveTable
from pipeline.load.relations import comma, names
from pipeline.load.upkeep import CHAIN

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: What a statement can be told by the server that is its own fault; a view that cannot be written to is among the "operational" ones.
REFUSED = (
    psycopg2.ProgrammingError, psycopg2.InternalError, psycopg2.DataError, psycopg2.NotSupportedError, errors.ObjectNotInPrerequisiteState,
)  # fmt: skip
#: Within one import what it deleted comes before what it inserted under the same key (rows without a key of their own).
AS_OF = """
select {live_columns} from {live} l where l.tax_year = {year} and l.import_id <= {import_id}
union all
select {before} from (
    select distinct on ({key}) h.import_id, h.operation, h.before_image from {history} h
     where h.tax_year = {year} and h.import_id > {import_id} order by {key}, h.import_id, h.operation
) h where h.operation <> 'I' and {written_by} <= {import_id}
"""


def as_of(cursor: Cursor, import_id: int) -> dict[str, sql.Composed]:
    """Queries that give each table of an import's source as it was right after that import, of the import's tax year.

    Args:
        cursor: in a transaction of isolation level REPEATABLE READ, if more than one of them is to be read.
        import_id: the current import of its source and tax year, or one that it stands on.

    Returns:
        A select by table name, with the columns of the live table. A table that came later has no rows.

    Raises:
        HistoryGone: the import is not one of those, or the row history does not reach back to it.
    """
    found = require_history(cursor, import_id, after=True)
    cursor.execute("select distinct table_name from etl.live_column where source = %s order by 1", [found.key.source])
    tables = [(name, LiveTable.read(cursor, found.key.source, name)) for (name,) in cursor.fetchall()]
    return {name: _select(cursor, table, found) for name, table in tables if table.key}


def _select(cursor: Cursor, table: LiveTable, found: Import) -> sql.Composed:
    images = Images.read(cursor, table, found.key, found.import_id + 1)
    before = comma(images.value(name, "h", exact_type=True) for name in table.columns)
    return sql.SQL(AS_OF).format(
        live=table.live, history=table.history, key=names(table.key, "h"), year=sql.Literal(found.key.tax_year),
        import_id=sql.Literal(found.import_id), live_columns=names(table.columns, "l"), before=before,
        written_by=images.value("import_id", "h"),
    )  # fmt: skip


def require_history(cursor: Cursor, import_id: int, *, after: bool = False) -> Import:
    """The import, when its row history is kept; with ``after``: when that of all later ones is.

    Raises:
        HistoryGone: there is no such import, it is not part of what is current, or the history is gone.
    """
    found = ledger.by_id(cursor, import_id)
    if found is None or found.state not in {"published", "superseded"}:
        state = found.state if found else "unknown"
        raise HistoryGone(f"import {import_id} is {state}", "the current import of a tax year or one before it", "see hcad-pipeline status")
    cursor.execute(CHAIN, {"source": found.key.source, "year": found.key.tax_year, "days": 0})
    chain = {row[0]: row[2] for row in cursor.fetchall()}
    if import_id not in chain:
        raise HistoryGone(
            f"import {import_id} is not among those that the current import of {found.key.source} {found.key.tax_year} stands on",
            f"one of {', '.join(map(str, chain)) or 'none'}",
            "name one of these",
        )
    if gone := [number for number, dropped_at in chain.items() if dropped_at and (number > import_id if after else number == import_id)]:
        raise HistoryGone(
            f"the row history of import {', '.join(map(str, gone))} was removed by [retention]",
            "row history that reaches back far enough",
            "name a later import; a longer [retention] keeps later ones",
        )
    return found


@contextmanager
def views_as_of(engine: Engine, import_id: int) -> Iterator[Cursor]:
    """A cursor that reads only, and for which each table of the import's source is, under its bare name, as it was after the import.

    Raises:
        HistoryGone: see :func:`as_of`.
        DatabaseUnavailable: the server cannot be reached.
    """
    with translated(), closing(connect(engine)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            for name, select in as_of(cursor, import_id).items():
                cursor.execute(sql.SQL("create temporary view {} as {}").format(sql.Identifier(name), select))
            cursor.execute("set transaction read only; set default_transaction_read_only = on")
            yield cursor


def query_as_of(engine: Engine, import_id: int, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The column names and rows of one statement over tables as they were right after an import, named without a schema.

    Raises:
        ConfigurationError: PostgreSQL refuses the statement, or it has no rows to give.
        HistoryGone: see :func:`as_of`.
    """
    with views_as_of(engine, import_id) as cursor:
        try:
            cursor.execute(statement)
        except REFUSED as error:
            said = f"PostgreSQL says: {' '.join(str(error).split())}"
            raise ConfigurationError(said, "a query that it takes", "correct it; tables stand without a schema") from error
        if cursor.description is None:
            raise ConfigurationError("a statement without rows", "a query", "begin it with select")
        return [column.name for column in cursor.description], cursor.fetchall()
