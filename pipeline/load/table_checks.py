"""The checks that a schema file declares over whole tables, judged on the tables as they would be published.

A table's figures for ``fill`` and ``sum`` come from one scan, or where few rows change from what comes and goes; ``unique`` and
``reference`` take a query each. Bounds are exact: a share is compared as the fraction that it is. Where there is nothing to take a share
of (no row, or no row with a value), and where a reference's other table is not in the release and has no rows, the check passes and says
so. What was seen of the same rows before is not looked for again. A result names figure and bound, and some of the rows or values that
break it: never those of personal columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import Check, Table
from pipeline.catalog.recipe import check_recipe
from pipeline.database.ledger import Import
from pipeline.load.gate_result import GateResult
from pipeline.load.moves import moved
from pipeline.load.relations import Relations, comma, names
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: How many rows or values a result names.
EXAMPLES = 5

REPEATED = """
with repeated as materialized (
    select {shown} from {view} r where {has_values} group by {columns} having count(*) > 1
)
select (select count(*) from repeated), array(select {example} from repeated r order by 1 limit %(examples)s)
"""
ORPHANS = """
with orphans as materialized (
    select {shown} from {view} r where {has_values} and not exists (select 1 from {other} o where {found})
)
select (select count(*) from orphans), array(select {example} from (select distinct * from orphans) r order by 1 limit %(examples)s)
"""


class TableChecks:
    """Judges one table's checks.

    Args:
        cursor: in a transaction that has the views.
        table: the table.
        staged: its account.
        views: the next state of the release's tables.
        empty: those of them that the release does not carry and that have no rows.
        known: what checks saw of the very rows that are to be published, by the check's recipe.
        before: what checks saw of the live rows, likewise.
    """

    def __init__(
        self,
        cursor: Cursor,
        found: Import,
        table: Table,
        staged: StagedTable,
        views: Mapping[str, sql.Identifier],
        empty: frozenset[str],
        known: Mapping[str, GateResult],
        before: Mapping[str, GateResult],
    ) -> None:
        self._cursor, self._table, self._views, self._empty, self._known = cursor, table, views, empty, known
        self._found, self._staged, self._before = found, staged, before
        self._rows, self._view = staged.rows_loaded, views[table.name]

    def run(self) -> list[GateResult]:
        """The result of every check, in the order of the schema file."""
        figures = self._figures()
        results = []
        for check in self._table.checks:
            recipe = check_recipe(self._table, check)
            # What is known of these rows has the check's name and severity of then.
            result = self._known.get(recipe) or self._judge(check, figures)
            counted = figures.get(check.name, result.counted)
            counted = None if counted is None else Decimal(counted)
            results.append(replace(result, check=check.name, severity=check.severity, declared=recipe, counted=counted))
        return results

    def _figures(self) -> dict[str, int | Decimal]:
        """By check: the sum, or how many rows have a value in all of its columns."""
        wanted = {
            check.name: sql.SQL("coalesce(sum({}), 0)" if check.kind == "sum" else "count(*) filter (where {})").format(
                names(check.columns) if check.kind == "sum" else _has_values(check.columns)
            )
            for check in self._table.checks
            if check.kind in ("fill", "sum", "reference") and check_recipe(self._table, check) not in self._known
        }
        if not wanted:
            return {}
        return dict(zip(wanted, self._moved(wanted) or self._read(wanted), strict=True))

    def _moved(self, wanted: Mapping[str, sql.Composable]) -> list[Decimal] | None:
        """The figures of the live rows, and by how much they move; None: they are not known, or too much moves."""
        recipes = {check.name: check_recipe(self._table, check) for check in self._table.checks}
        before = [self._before[recipes[name]].counted for name in wanted if recipes[name] in self._before]
        if len(before) < len(wanted):
            return None
        relations = Relations(self._table, self._found.import_id)
        moves = moved(self._cursor, self._found, relations, self._staged, list(wanted.values()))
        if moves is None or None in before:
            return None
        return [figure + move for figure, move in zip(before, moves, strict=True) if figure is not None]

    def _read(self, wanted: Mapping[str, sql.Composable]) -> tuple[int | Decimal, ...]:
        self._cursor.execute(sql.SQL("select {} from {} r").format(comma(wanted.values()), self._view))
        return self._cursor.fetchone() or ()

    def _judge(self, check: Check, figures: Mapping[str, int | Decimal]) -> GateResult:
        if check.kind == "unique":
            return self._unique(check)
        if check.kind == "reference":
            return self._reference(check, int(figures[check.name]))
        columns = ", ".join(check.columns)
        if check.kind == "fill":
            filled = int(figures[check.name])
            return _share(check, self._table.name, filled, self._rows, f"{filled} of {self._rows} rows have {columns}")
        if check.kind == "sum":
            total = figures[check.name]
            seen = f"the sum of {columns} is {total}"
        else:
            total, seen = self._rows, f"{self._rows} rows"
        return _result(check, self._table.name, _is_within(check, Fraction(total)), seen, _bounds(check), Decimal(total))

    def _unique(self, check: Check) -> GateResult:
        count, examples = self._broken(REPEATED, check, check.columns)
        columns = ", ".join(check.columns)
        seen = f"{count} values of {columns} stand in more than one row{_among(examples)}" if count else f"each {columns} once"
        return _result(check, self._table.name, count == 0, seen, "no two rows alike", Decimal(count))

    def _reference(self, check: Check, rows: int) -> GateResult:
        where = f"{check.table}.{', '.join(check.to)}"
        other = self._views.get(check.table or "")
        if other is None or check.table in self._empty:
            return _result(check, self._table.name, True, f"not judged: this release has no {check.table}", _bounds(check, least=1))
        found = sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("o", theirs), sql.Identifier("r", ours))
            for ours, theirs in zip(check.columns, check.to, strict=True)
        )
        shown = tuple(dict.fromkeys((*self._table.identity[1:], *check.columns)))
        orphans, examples = self._broken(ORPHANS, check, tuple(name for name in shown if name != "seq"), other=other, found=found)
        seen = f"{orphans} of {rows} rows have {', '.join(check.columns)} that is not in {where}{_among(examples)}"
        return _share(check, self._table.name, rows - orphans, rows, seen, least=1)

    def _broken(
        self, statement: str, check: Check, columns: Sequence[str], **words: sql.Composable
    ) -> tuple[int, list[str]]:
        """How many rows or values break a check, and some of them as text."""
        shown = [name for name in columns if not self._table.column(name).personal]
        example = sql.SQL(" || ' ' || ").join(
            sql.SQL("{} || ' ' || coalesce({}::text, 'NULL')").format(sql.Literal(name), sql.Identifier("r", name)) for name in shown
        )
        self._cursor.execute(
            sql.SQL(statement).format(
                view=self._view, shown=names(columns, "r"), columns=names(check.columns, "r"),
                has_values=_has_values(check.columns), example=example if shown else sql.SQL("null::text"), **words,
            ),
            {"examples": EXAMPLES},
        )  # fmt: skip
        count, examples = self._cursor.fetchone() or (0, [])
        return int(count), [text for text in examples if text]


def _has_values(columns: Sequence[str]) -> sql.Composed:
    """Whether all of these have a value."""
    return sql.SQL(" and ").join(sql.SQL("{} is not null").format(sql.Identifier("r", name)) for name in columns)


def _share(check: Check, table: str, count: int, rows: int, seen: str, least: int | None = None) -> GateResult:
    """A check of ``count`` out of ``rows``."""
    passed = rows == 0 or _is_within(check, Fraction(count, rows), least)
    return _result(check, table, passed, seen, f"a share of {_bounds(check, least)}", Decimal(count) / rows if rows else None)


def _is_within(check: Check, figure: Fraction, least: int | None = None) -> bool:
    minimum = least if check.minimum is None and check.maximum is None else check.minimum
    return (minimum is None or figure >= Fraction(minimum)) and (check.maximum is None or figure <= Fraction(check.maximum))


def _bounds(check: Check, least: int | None = None) -> str:
    minimum = least if check.minimum is None and check.maximum is None else check.minimum
    return " and ".join(
        f"{words} {bound}" for words, bound in (("at least", minimum), ("at most", check.maximum)) if bound is not None
    )


def _among(examples: Sequence[str]) -> str:
    return f", among them {'; '.join(examples)}" if examples else ""


def _result(check: Check, table: str, passed: bool, seen: str, expected: str, figure: Decimal | None = None) -> GateResult:
    return GateResult(check.name, table, passed, seen, expected, check.kind, check.severity, figure)
