"""What the gate saw of an import, for a person and for a program: checks, decisions, and each column beside what it was before.

It is read from the ledger alone, for a refused import as for a published one, now or years later. What holds the import comes first.
No value of a personal column is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine

from pipeline.errors import ConfigurationError, GateRefused
from pipeline.status import query
from pipeline.text_table import aligned

IMPORT = """
select import_id, source, tax_year, release, recipe, profile, state, base_import_id, only_tables, opened_at, published_at, closed_at,
       error_code, message
  from etl.import where import_id = %(import_id)s
"""
CHECKS = """
select table_name as "table", check_name as "check", kind, severity, passed, seen, expected, figure, bound, checked_at
  from etl.gate_result where import_id = %(import_id)s and (%(table)s::text is null or table_name = %(table)s)
 order by passed, array_position(array['error', 'warn', 'note'], severity), 1, kind, 2
"""
#: Of this release under this recipe, as the gate takes them.
DECISIONS = """
select d.import_id, d.action, d.reason, d.decided_by, d.decided_at, d.checks
  from etl.decision d join etl.import i using (import_id) join etl.import o using (source, tax_year, release, recipe)
 where o.import_id = %(import_id)s order by d.decision_id
"""
COLUMNS = """
select n.table_name as "table", n.column_name as "column", n.rows, n.nulls, n.zeros, n.total as sum, n.codes,
       b.rows as rows_before, b.nulls as nulls_before, b.zeros as zeros_before, b.total as sum_before, b.codes as codes_before
  from etl.table_figure n join etl.import i using (import_id)
  left join etl.table_figure b on (b.import_id, b.table_name, b.column_name) = (i.base_import_id, n.table_name, n.column_name)
 where n.import_id = %(import_id)s and (%(table)s::text is null or n.table_name = %(table)s) order by 1, 2
"""
SHOWN_COLUMNS = ("table", "column", "no value", "before", "sum", "before")


@dataclass(frozen=True)
class GateReport:
    """What the gate saw of one import; rows as the ledger has them."""

    of: Mapping[str, Any]
    checks: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    columns: list[dict[str, Any]]

    def document(self) -> dict[str, Any]:
        """The report for a program, as JSON takes it: figures are numbers, instants text."""
        whole = {"import": dict(self.of), "checks": self.checks, "decisions": self.decisions, "columns": self.columns}
        document: dict[str, Any] = json.loads(json.dumps(whole, default=_plain))
        return document

    def lines(self) -> Iterator[str]:
        """The report as text: of the columns those that are not what they were."""
        of = self.of
        base = f", compared with import {of['base_import_id']}" if of["base_import_id"] else ", the first of its tax year"
        made_of = f"{of['source']} {of['tax_year']} release {of['release']} recipe {of['recipe']}"
        yield f"import {of['import_id']}: {made_of} is {of['state']}{base}"
        if of["only_tables"]:
            yield f"  it is about {', '.join(of['only_tables'])}; every other table stays as it was"
        # What the gate refused for is what its checks say.
        if of["message"] and of["error_code"] != GateRefused.code:
            yield f"  {' '.join(filter(None, (of['error_code'], of['message'])))}"
        yield "checks"
        for check in self.checks:
            bound = "" if check["severity"] == "note" else f", expected {check['expected']}"
            yield f"  {verdict(check):8} {check['table']} {check['check']}: {check['seen']}{bound}"
        if not self.checks:
            yield "  none: the gate has not looked at it"
        if self.decisions:
            yield "decided"
        for decided in self.decisions:
            yield (f"  {decided['action']} of import {decided['import_id']} by {decided['decided_by']}, "
                   f"{decided['decided_at']:%Y-%m-%d %H:%M:%S} UTC: {decided['reason']}{_about(decided)}")  # fmt: skip
        if moved := [_shown(row) for row in self.columns if _is_other(row)]:
            yield "columns that are not what they were"
            yield from (f"  {line}" for line in aligned(SHOWN_COLUMNS, moved))


def read_report(engine: Engine, import_id: int, table: str | None = None) -> GateReport:
    """What the gate saw of an import, or of one of its tables.

    Raises:
        ConfigurationError: there is no such import.
        DatabaseUnavailable: the server cannot be reached.
    """
    values = {"import_id": import_id, "table": table}
    found = query(engine, IMPORT, values)
    if not found:
        raise ConfigurationError(f"no import {import_id}", "one that hcad-pipeline status lists", "name one of these")
    checks, decisions, columns = (query(engine, statement, values) for statement in (CHECKS, DECISIONS, COLUMNS))
    return GateReport(found[0], checks, decisions, columns)


def verdict(check: Mapping[str, Any]) -> str:
    """One word for what a check came to."""
    if check["severity"] == "note":
        return "note"
    if check["passed"]:
        return "passed"
    return "FAILED" if check["severity"] == "error" else "warning"


def _plain(value: object) -> int | float | str:
    """A whole number exactly, also beyond what a float holds; another one to a float's 15 digits."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _about(decided: Mapping[str, Any]) -> str:
    checks = decided["checks"]
    return f" (about {', '.join(f'{table} {check}' for table, _, check in checks)})" if checks else ""


def _is_other(row: Mapping[str, Any]) -> bool:
    if row["rows_before"] is None:
        return False
    share, before = _share(row["nulls"], row["rows"]), _share(row["nulls_before"], row["rows_before"])
    return (share, row["sum"]) != (before, row["sum_before"])


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = [_share(row[f"nulls{when}"], row[f"rows{when}"]) for when in ("", "_before")]
    sums = ["" if row[f"sum{when}"] is None else f"{row[f'sum{when}']:,f}" for when in ("", "_before")]
    return row["table"], row["column"], f"{shares[0]:.2%}", f"{shares[1]:.2%}", *sums


def _share(count: int, rows: int) -> Decimal:
    return Decimal(count) / rows if rows else Decimal(0)
