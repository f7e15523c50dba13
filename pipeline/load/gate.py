"""The gate: what must hold between staging and publishing.

It reads staging alone, so nothing is visible yet when it refuses. Checks: a table has at least as many rows as its floor,
no more than a declared share of its rows is quarantined or contradicts an earlier row with the same key, and the key is
unique over what is staged. Every result is kept in the ledger, passed or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql
from psycopg2.extras import execute_values

from pipeline.catalog.model import Gate
from pipeline.load.relations import Relations, names
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class GateResult:
    """One check of one table."""

    check: str
    table: str
    passed: bool
    seen: str
    expected: str

    def __str__(self) -> str:
        return f"{self.table} {self.check}: {self.seen}, expected {self.expected}"


def check_table(cursor: Cursor, gate: Gate, relations: Relations, staged: StagedTable) -> list[GateResult]:
    """Run every check on one table of an import.

    A table that is unchanged is held to its floor alone; one that is carried over to nothing: the release does not speak of it.
    """
    if staged.disposition == "carried_over":
        return []
    floor = gate.floors.get(staged.table, 0)
    results = [_at_least("rows", staged.table, staged.rows_loaded, floor)]
    if staged.disposition == "unchanged":
        return results
    results.append(
        _share("quarantined", staged.table, staged.quarantined - staged.conflicting, staged.rows_read, gate.max_quarantined_share)
    )
    allowed = 0.0 if relations.table.on_conflict == "refuse" else gate.max_conflicting_share
    results.append(_share("conflicting", staged.table, staged.conflicting, staged.rows_read, allowed))
    if relations.table.is_keyed:
        cursor.execute(
            sql.SQL("select count(*), count(distinct ({key})) from {keys}").format(keys=relations.keys, key=names(relations.anchor))
        )
        row = cursor.fetchone()
        rows, keys = row if row else (0, 0)
        results.append(GateResult("unique key", staged.table, rows == keys, f"{keys} keys in {rows} rows", "a key a row"))
    return results


def record_results(cursor: Cursor, import_id: int, results: Sequence[GateResult]) -> None:
    """Keep the results of a gate in the ledger, in place of those of an earlier try."""
    cursor.execute("delete from etl.gate_result where import_id = %s", [import_id])
    rows = [(import_id, result.check, result.table, result.passed, result.seen, result.expected) for result in results]
    execute_values(cursor, "insert into etl.gate_result (import_id, check_name, table_name, passed, seen, expected) values %s", rows)


def mark_checked(cursor: Cursor, import_id: int, outcome: str) -> None:
    """Write the gate's marker: ``passed``, or ``accepted`` by a person."""
    cursor.execute(
        "insert into etl.checked (import_id, outcome) values (%s, %s) on conflict (import_id) do update set outcome = excluded.outcome",
        [import_id, outcome],
    )


def _at_least(check: str, table: str, seen: int, floor: int) -> GateResult:
    return GateResult(check, table, seen >= floor, f"{seen}", f"at least {floor}")


def _share(check: str, table: str, count: int, rows: int, allowed: float) -> GateResult:
    return GateResult(check, table, count <= allowed * rows, f"{count} of {rows} rows", f"at most {allowed:.4%}")
