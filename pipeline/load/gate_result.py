"""What one check of the gate saw, and the ledger's rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
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
        kind: ``built_in``, ``drift``, or the kind of a check that the schema file declares.
        severity: whether the release is held when it fails, or the result is only told; of a ``note`` there is nothing to fail.
        figure: the figure as one number, where it is one.
        bound: what it was held to.
        declared: the recipe of the schema file's check that asked for it; None: none did.
        counted: the whole number of rows, or the sum, that a declared check took from the table.
    """

    check: str
    table: str
    passed: bool
    seen: str
    expected: str
    kind: str = "built_in"
    severity: Literal["note", "warn", "error"] = "error"
    figure: Decimal | None = None
    bound: Decimal | None = None
    declared: str | None = None
    counted: Decimal | None = None

    @property
    def holds(self) -> bool:
        """Whether it holds the release."""
        return not self.passed and self.severity == "error"

    @property
    def is_told(self) -> bool:
        """Whether it is told although the release may be published."""
        return self.severity == "note" or (self.severity == "warn" and not self.passed)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What an acceptance names it by."""
        return self.table, self.kind, self.check

    def __str__(self) -> str:
        return f"{self.table} {self.check}: {self.seen}, expected {self.expected}"


def record_results(cursor: Cursor, import_id: int, results: Sequence[GateResult]) -> None:
    """Keep the results of a gate in the ledger, in place of those of an earlier try."""
    cursor.execute("delete from etl.gate_result where import_id = %s", [import_id])
    rows = [
        (import_id, result.check, result.table, result.kind, result.severity, result.passed, result.seen, result.expected, result.figure,
         result.bound, result.declared, result.counted)
        for result in results
    ]  # fmt: skip
    execute_values(
        cursor,
        """insert into etl.gate_result (import_id, check_name, table_name, kind, severity, passed, seen, expected, figure, bound, declared,
                                        counted)
           values %s""",
        rows,
    )


def declared_results(cursor: Cursor, import_id: int | None) -> dict[tuple[str, str], GateResult]:
    """The results of an import's declared checks, by table and recipe of the check."""
    cursor.execute(
        """select check_name, table_name, passed, seen, expected, kind, severity, figure, bound, declared, counted
             from etl.gate_result where import_id = %s and declared is not null""",
        [import_id],
    )
    results = [GateResult(*row) for row in cursor.fetchall()]
    return {(result.table, result.declared or ""): result for result in results}
