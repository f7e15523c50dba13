"""What each column of a table is like as an import has it: rows without a value, zeros, sum, and how many rows have which code.

Every part brings the figures of its rows, taken while they were written; those of a table are their sums, so that no row is read
again, neither of the import nor of the one before it, whose figures are in the ledger. Where parts have none, or more than one row in
a thousand of those that they measured does not stand (it gave way to another of its key, or PostgreSQL refused it), they are counted in
the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from psycopg2 import sql
from psycopg2.extras import Json, execute_values

from pipeline.catalog.model import Column, Table
from pipeline.catalog.recipe import column_recipe
from pipeline.database.ledger import Import
from pipeline.load import bisect
from pipeline.load.next_state import next_rows
from pipeline.load.relations import Relations, comma
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: A column of more different values holds no codes.
MOST_VALUES = 64
#: The share of rows, 1 in so many, that may have given way since the parts were measured.
TOLERATED = 1000
COLUMNS = "column_name, rows, nulls, zeros, total, codes, declared"
NUMBERS = ("smallint", "integer", "bigint", "numeric")
VALUES = """
select v.name, v.value, count(*) from ({rows}) r cross join lateral (values {pairs}) v(name, value) where v.value is not null group by 1, 2
"""
#: Rows of imports that were never published and never will be say nothing any more.
FORGET = """
delete from etl.table_figure f using etl.import i
 where f.import_id = i.import_id and i.state = 'superseded' and i.published_at is null and i.source = %s and i.tax_year = %s
"""


@dataclass(frozen=True)
class Figure:
    """A column of a table as an import has it.

    Attributes:
        column: its name.
        rows: of the table.
        nulls: of these without a value.
        zeros: of these with the number 0; None: no numbers are known of it.
        total: the sum of its numbers.
        values: how many rows have which; None: it holds no codes, or none are known.
        declared: the recipe of its declaration.
    """

    column: str
    rows: int
    nulls: int
    zeros: int | None
    total: Decimal | None
    values: Mapping[str, int] | None
    declared: str

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls

    @property
    def counted(self) -> int:
        """Rows with a number that is not 0."""
        return self.filled - (self.zeros or 0)


def read_figures(cursor: Cursor, import_id: int | None, table: str) -> dict[str, Figure]:
    """A table's figures as an import had it, by column; empty: none were taken."""
    cursor.execute(f"select {COLUMNS} from etl.table_figure where import_id = %s and table_name = %s", [import_id, table])
    return {row[0]: Figure(*row) for row in cursor.fetchall()}


def take_figures(cursor: Cursor, found: Import, table: Table, staged: StagedTable) -> dict[str, Figure]:
    """Take the figures of one table of an import and keep them, in place of those of an earlier try.

    Of a table that stays as it is they are those of the import before; empty, where there are none.
    """
    cursor.execute("delete from etl.table_figure where import_id = %s and table_name = %s", [found.import_id, table.name])
    if staged.disposition == "staged":
        # A computed table has no parts; its codes are judged in the tables that they come from.
        figures = _counted(cursor, found, table, []) if table.is_roll else _of_parts(cursor, found, table, staged)
    else:
        figures = read_figures(cursor, found.base_import_id, table.name)
    rows = [
        (found.import_id, table.name, one.column, one.rows, one.nulls, one.zeros, one.total,
         None if one.values is None else Json(dict(one.values)), one.declared)
        for one in figures.values()
    ]  # fmt: skip
    execute_values(cursor, f"insert into etl.table_figure (import_id, table_name, {COLUMNS}) values %s", rows, page_size=500)
    return figures


def forget_figures(cursor: Cursor, found: Import) -> None:
    """Remove the figures of this tax year's imports that gave way without being published."""
    cursor.execute(FORGET, [found.key.source, found.key.tax_year])


def _of_parts(cursor: Cursor, found: Import, table: Table, staged: StagedTable) -> dict[str, Figure]:
    """The sums of the parts' figures, where they are those of the rows that stand."""
    cursor.execute(
        "select rows_staged, case when figures ? 'nulls' then figures end from etl.checkpoint where import_id = %s and table_name = %s",
        [found.import_id, table.name],
    )
    parts = cursor.fetchall()
    of_parts = [figures for rows, figures in parts if rows]
    coded = _codes([figures for figures in of_parts if figures])
    # What PostgreSQL refused was measured by its part, too.
    gave_way = sum(rows for rows, _ in parts) + staged.refused.get(bisect.RULE, 0) - staged.rows_loaded
    if None in of_parts or gave_way * TOLERATED > staged.rows_loaded:
        return _counted(cursor, found, table, list(coded) if None not in of_parts else [])
    nulls = _added(of_parts, "nulls")
    zeros, totals = _added(of_parts, "zeros"), _added(of_parts, "sums")
    return {
        column.name: Figure(
            column.name, staged.rows_loaded, min(int(nulls.get(column.name, 0)), staged.rows_loaded),
            int(zeros.get(column.name, 0)) if _has_numbers(column) else None,
            totals.get(column.name, Decimal(0)) if _has_numbers(column) else None,
            coded.get(column.name), column_recipe(column),
        )
        for column in table.columns
    }  # fmt: skip


def _added(parts: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Decimal]:
    """The figures of one kind by column, added up over parts."""
    totals: dict[str, Decimal] = {}
    for part in parts:
        for name, value in part[kind].items():
            totals[name] = totals.get(name, Decimal(0)) + Decimal(value)
    return totals


def _codes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """The values of the columns that hold codes in every part, and not too many over all of them."""
    names = set.intersection(*(set(part["values"]) for part in parts)) if parts else set()
    added = {name: sum((Counter(part["values"][name]) for part in parts), Counter[str]()) for name in names}
    return {name: counts for name, counts in added.items() if len(counts) <= MOST_VALUES}


def _counted(cursor: Cursor, found: Import, table: Table, coded: Sequence[str]) -> dict[str, Figure]:
    """The figures counted in the rows as they would be published, with the values of these columns."""
    rows = next_rows(Relations(table, found.import_id), found, "staged")
    wanted: list[sql.Composable] = []
    for column in table.columns:
        name = sql.Identifier(column.name)
        wanted.append(sql.SQL("count(*) - count({})").format(name))
        if _has_numbers(column):
            wanted.append(sql.SQL("count(*) filter (where {0} = 0), coalesce(sum({0}), 0)::numeric").format(name))
    cursor.execute(sql.SQL("select count(*), {} from ({}) r").format(comma(wanted), rows))
    count, *seen = cursor.fetchone() or (0,)
    values = _values(cursor, rows, coded)
    figures = {}
    for column in table.columns:
        nulls = seen.pop(0)
        zeros, total = (seen.pop(0), seen.pop(0)) if _has_numbers(column) else (None, None)
        figures[column.name] = Figure(column.name, count, nulls, zeros, total, values.get(column.name), column_recipe(column))
    return figures


def _values(cursor: Cursor, rows: sql.Composed, coded: Sequence[str]) -> dict[str, dict[str, int]]:
    if not coded:
        return {}
    pairs = comma(sql.SQL("({}, {}::text)").format(sql.Literal(name), sql.Identifier("r", name)) for name in coded)
    cursor.execute(sql.SQL(VALUES).format(rows=rows, pairs=pairs))
    values: dict[str, dict[str, int]] = {name: {} for name in coded}
    for name, value, count in cursor.fetchall():
        values[name][value] = count
    return values


def _has_numbers(column: Column) -> bool:
    return column.type.kind in NUMBERS and not column.personal
