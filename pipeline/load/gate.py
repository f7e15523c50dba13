"""The gate: what must hold between staging and publishing.

It reads staging and, for what staging leaves out, the live rows that stay; nothing is visible yet when it refuses. Of every table: at
least as many rows as its floor, no more quarantined rows than its budget, no more rows that contradict another one of their key than
declared, no further from what is live than ``[gate.drift]`` allows, and the checks that its schema file declares: of a table whose rows
stay as they are what they saw when these were published. Every result is kept in the ledger, passed or not; one of severity ``warn``
or ``note`` is told and holds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.gate_model import Gate
from pipeline.catalog.model import Source, Table
from pipeline.catalog.recipe import check_recipe
from pipeline.database.ledger import Import
from pipeline.load.drift import TableDrift
from pipeline.load.figures import forget_figures, read_figures, take_figures
from pipeline.load.gate_result import GateResult, declared_results
from pipeline.load.next_state import next_views
from pipeline.load.relations import Relations
from pipeline.load.staging import IN_ONE_SCAN, StagedTable
from pipeline.load.table_checks import TableChecks

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: How many rules a message names.
TOP_RULES = 5


@dataclass(frozen=True)
class Verdict:
    """What the gate found: ``refused`` holds the release, ``warned`` is told."""

    refused: tuple[GateResult, ...]
    warned: tuple[GateResult, ...]


def check_release(cursor: Cursor, found: Import, source: Source, staged: Sequence[StagedTable]) -> list[GateResult]:
    """Run every check on every table of an import.

    A table that the release does not speak of (carried over) and that has no rows is held to nothing.
    """
    empty = frozenset(table.table for table in staged if table.disposition == "carried_over" and not table.rows_loaded)
    results = []
    for table in staged:
        results += check_table(source.gate, source.table(table.table), table)
        results += check_drift(cursor, found, source, table)
    forget_figures(cursor, found)
    if not any(source.table(table.table).checks for table in staged):
        return results
    before = declared_results(cursor, found.base_import_id)
    known = _known_results(cursor, found, source, staged, before)
    # Of the rows that stay PostgreSQL expects next to none, and would look each of them up anew for each of the others.
    cursor.execute(IN_ONE_SCAN)
    with next_views(cursor, found, source, staged) as views:
        for table in staged:
            if table.table not in empty:
                of_table = {recipe: result for (name, recipe), result in before.items() if name == table.table}
                declared = source.table(table.table)
                results += TableChecks(cursor, found, declared, table, views, empty, known.get(table.table, {}), of_table).run()
    return results


def _known_results(
    cursor: Cursor, found: Import, source: Source, staged: Sequence[StagedTable], results: Mapping[tuple[str, str], GateResult]
) -> Mapping[str, Mapping[str, GateResult]]:
    """By table and recipe, what the current import's checks saw of rows that stay as they are, in the other table of a reference too."""
    standing = {table.table for table in staged if _stands(cursor, found, source.table(table.table), table)}
    known: dict[str, dict[str, GateResult]] = {}
    for name in standing:
        table = source.table(name)
        recipes = {check_recipe(table, check) for check in table.checks if check.table is None or check.table in standing}
        known[name] = {recipe: results[name, recipe] for recipe in recipes if (name, recipe) in results}
    return known


def _stands(cursor: Cursor, found: Import, table: Table, staged: StagedTable) -> bool:
    """Whether a table's rows will be what is live: every staged key and hash is, and there are as many rows."""
    if staged.disposition != "staged":
        return True
    if found.base_import_id is None or not table.is_keyed:
        return False
    relations = Relations(table, found.import_id)
    cursor.execute(
        sql.SQL(
            "select not exists (select 1 from {rows}) and (select count(*) from {keys}) = (select count(*) from {live} where tax_year = %s)"
        ).format(rows=relations.rows, keys=relations.keys, live=relations.live),
        [found.key.tax_year],
    )
    (stands,) = cursor.fetchone() or (False,)
    return bool(stands)


def check_table(gate: Gate, table: Table, staged: StagedTable) -> list[GateResult]:
    """Hold one table of an import to its floor and its budgets.

    A table that is unchanged is held to its floor alone; one that is carried over to nothing: the release does not speak of it.
    """
    if staged.disposition == "carried_over":
        return []
    results = [_at_least("rows", staged.table, staged.rows_loaded, gate.floors.get(staged.table, 0))]
    if staged.disposition == "unchanged":
        return results
    results += _quarantined(gate, staged)
    allowed = 0.0 if table.on_conflict == "refuse" else gate.max_conflicting_share
    contradicting = staged.conflicting + staged.superseded
    results.append(_share("conflicting", staged.table, contradicting, staged.rows_read, allowed))
    return results


def check_drift(cursor: Cursor, found: Import, source: Source, staged: StagedTable) -> list[GateResult]:
    """Keep what a table is like, and hold it to what is live; a first import, or a table that stays as it is, is held to nothing."""
    table = source.table(staged.table)
    now = take_figures(cursor, found, table, staged)
    if found.base_import_id is None or staged.disposition != "staged":
        return []
    before = read_figures(cursor, found.base_import_id, table.name)
    return TableDrift(cursor, found, staged, table, source.gate.drift_of(table.name), now, before).run()


def mark_checked(cursor: Cursor, import_id: int, outcome: str) -> None:
    """Write the gate's marker: ``passed``, or ``accepted`` by a person."""
    cursor.execute(
        "insert into etl.checked (import_id, outcome) values (%s, %s) on conflict (import_id) do update set outcome = excluded.outcome",
        [import_id, outcome],
    )


def _quarantined(gate: Gate, staged: StagedTable) -> list[GateResult]:
    """The budgets of rows that rules refused; those that contradict another one have a budget of their own."""
    share, most = gate.quarantine_budget(staged.table)
    refused = staged.quarantined - staged.conflicting
    by_rule = sorted(staged.refused.items(), key=lambda item: (-item[1], item[0]))
    top = [f"{rule} ({count})" for rule, count in by_rule if not rule.endswith(":conflicting")][:TOP_RULES]
    named = f", most for {', '.join(top)}" if top else ""
    results = [_share("quarantined", staged.table, refused, staged.rows_read, share, named)]
    if most is not None:
        results.append(GateResult("quarantined rows", staged.table, refused <= most, f"{refused} rows{named}", f"at most {most}"))
    return results


def _at_least(check: str, table: str, seen: int, floor: int) -> GateResult:
    return GateResult(check, table, seen >= floor, f"{seen}", f"at least {floor}", figure=Decimal(seen), bound=Decimal(floor))


def _share(check: str, table: str, count: int, rows: int, allowed: float, named: str = "") -> GateResult:
    # As the decimal that the file states: 0.29 of 100 rows are 29, and a little less in binary.
    bound = Decimal(str(allowed))
    figure = Decimal(count) / rows if rows else Decimal(0)
    seen = f"{count} of {rows} rows{named}"
    return GateResult(check, table, count <= bound * rows, seen, f"at most {allowed:.4%}", figure=figure, bound=bound)
