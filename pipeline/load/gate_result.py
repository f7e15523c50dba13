"""What one check of the gate saw, and the ledger's rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg2.extras import execute_values

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class GateResult:
    """One check of one table.

    Attributes:
        check: its name.
        table: the table.
        passed: whether it holds.
        seen: the figure, in words.
        expected: the bound, in words.
        kind: ``built_in``, or the kind of a check that the schema file declares.
        severity: whether the release is held when it fails, or the result is only told.
    """

    check: str
    table: str
    passed: bool
    seen: str
    expected: str
    kind: str = "built_in"
    severity: Literal["warn", "error"] = "error"

    def __str__(self) -> str:
        return f"{self.table} {self.check}: {self.seen}, expected {self.expected}"


def record_results(cursor: Cursor, import_id: int, results: Sequence[GateResult]) -> None:
    """Keep the results of a gate in the ledger, in place of those of an earlier try."""
    cursor.execute("delete from etl.gate_result where import_id = %s", [import_id])
    rows = [
        (import_id, result.check, result.table, result.kind, result.severity, result.passed, result.seen, result.expected)
        for result in results
    ]
    execute_values(
        cursor,
        "insert into etl.gate_result (import_id, check_name, table_name, kind, severity, passed, seen, expected) values %s",
        rows,
    )
