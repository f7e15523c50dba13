"""The quarantine as a person reads it: counts by rule, rows that match, one row in full, and a file for a spreadsheet.

All refused rows are counted; of each rule and table the ledger keeps the first ones, and what is shown says how many that are. Rows
of tables that name persons are masked, letter for letter, and so are rows of tables that the catalog does not know.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Engine

from pipeline.catalog.model import Source
from pipeline.disclosure import VALUE_IN_MESSAGE, masked, spreadsheet_cell
from pipeline.status import query

#: Where messages repeat a value: those of Cerberus, and those of PostgreSQL.
_QUOTED = re.compile(rf"(?<=unallowed value ).*|{VALUE_IN_MESSAGE.pattern}")
CSV_COLUMNS = (
    "source", "tax_year", "import_id", "table_name", "part", "line", "byte_offset", "member_sha256", "rules", "reasons", "raw",
    "raw_base64",
)  # fmt: skip

IMPORT = """
select i.import_id, i.source, i.tax_year, i.release, i.state from etl.import i
 where i.source = %(source)s and i.import_id = coalesce(%(import_id)s, (
       select max(p.import_id) from etl.quarantine_part p join etl.import j using (import_id)
        where j.source = %(source)s and p.quarantined > 0 and (%(table)s is null or p.table_name = %(table)s)))
"""
#: Whether a rule, written ``column:rule``, is one that was asked for. A key of two columns is written ``a, b``.
MATCHES = """
    (%(rule)s is null or %(rule)s in (rule, substr(rule, strpos(rule, ':') + 1)))
and (%(column)s is null or %(column)s = any(string_to_array(split_part(rule, ':', 1), ', ')))
"""
COUNTS = f"""
select p.table_name, rule, sum(rows::bigint)::bigint as rows from etl.quarantine_part p, jsonb_each_text(p.refused) as refused(rule, rows)
 where p.import_id = %(import_id)s and (%(table)s is null or p.table_name = %(table)s) and {MATCHES}
 group by 1, 2 order by 1, 3 desc, 2
"""
TOTALS = """
select sum(p.quarantined)::bigint as quarantined,
       (select count(*) from etl.quarantine q where q.import_id = %(import_id)s and (%(table)s is null or q.table_name = %(table)s)) as kept
  from etl.quarantine_part p where p.import_id = %(import_id)s and (%(table)s is null or p.table_name = %(table)s)
"""
ROWS = f"""
select i.source, i.tax_year, q.import_id, q.table_name, q.part, q.line, q.byte_offset, q.member_sha256, q.rules, q.reasons, q.raw,
       q.raw_base64
  from etl.quarantine q join etl.import i using (import_id)
 where q.import_id = %(import_id)s and (%(table)s is null or q.table_name = %(table)s) and (%(line)s is null or q.line = %(line)s)
   and exists (select 1 from unnest(q.rules) rule where {MATCHES})
 order by q.table_name, q.line limit %(limit)s
"""


@dataclass(frozen=True)
class Wanted:
    """Which refused rows of a source.

    Attributes:
        source: the source.
        import_id: one import; None: the newest that refused rows.
        table: one table; None: all.
        rule: one rule, as ``regex`` or ``acct:regex``; None: all.
        column: one column (``*``: the line as a whole); None: all.
        line: one line of the member; None: all.
        limit: so many rows; None: all that are kept.
    """

    source: str
    import_id: int | None = None
    table: str | None = None
    rule: str | None = None
    column: str | None = None
    line: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Quarantine:
    """What an import refused.

    Attributes:
        of_import: its number, source, tax year, release and state.
        counts: table, rule and how many rows it refused, for the rules wanted.
        quarantined: all rows of the tables wanted, whatever their rules.
        kept: how many of them the ledger has whole.
        rows: those that are wanted.
    """

    of_import: Mapping[str, Any]
    counts: Sequence[Mapping[str, Any]]
    quarantined: int
    kept: int
    rows: Sequence[Mapping[str, Any]]


def read_quarantine(engine: Engine, wanted: Wanted) -> Quarantine | None:
    """What is refused of a source; None when nothing is.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
    """
    values = dict(wanted.__dict__)
    found = query(engine, IMPORT, values)
    if not found:
        return None
    values["import_id"] = found[0]["import_id"]
    (totals,) = query(engine, TOTALS, values)
    if not totals["quarantined"]:
        return None
    return Quarantine(found[0], query(engine, COUNTS, values), totals["quarantined"], totals["kept"], query(engine, ROWS, values))


def masked_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A quarantined row with every letter and digit of its text and reasons' values replaced one for one, and without its bytes."""
    reasons = {column: [_QUOTED.sub(lambda quoted: masked(quoted[0]), text) for text in texts] for column, texts in row["reasons"].items()}
    return {**row, "raw": masked(row["raw"]), "raw_base64": None, "reasons": reasons}


def without_persons(rows: Sequence[Mapping[str, Any]], source: Source) -> list[Mapping[str, Any]]:
    """The rows, masked but for those of tables that are known to name nobody."""
    open_tables = {table.name for table in source.tables if not any(column.personal for column in table.columns)}
    return [row if row["table_name"] in open_tables else masked_row(row) for row in rows]


def overview_lines(found: Quarantine) -> Iterator[str]:
    """The import, how many rows each rule refused, and how many of them are kept."""
    where = found.of_import
    yield f"import {where['import_id']}: {where['source']} {where['tax_year']}, release {where['release']}, {where['state']}"
    cells = [(row["table_name"], row["rule"], f"{row['rows']:,}") for row in found.counts]
    widths = [max((len(cell[place]) for cell in cells), default=0) for place in range(3)]
    for table, rule, rows in cells:
        yield f"  {table.ljust(widths[0])}  {rule.ljust(widths[1])}  {rows.rjust(widths[2])}"
    left_out = found.quarantined - found.kept
    kept = f"{found.kept:,} are kept here, the first of each rule" if left_out else "all of them are kept here"
    yield f"  {found.quarantined:,} rows are quarantined, {kept}"


def row_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """A row in two lines: where and why, and its text."""
    reasons = "; ".join(f"{column}: {', '.join(messages)}" for column, messages in row["reasons"].items())
    yield f"import {row['import_id']}  {row['table_name']}  line {row['line']}  {reasons}"
    yield f"    {row['raw']!r}"


def detail_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """All that is known of a row."""
    yield f"import {row['import_id']}  {row['table_name']}  line {row['line']}"
    yield f"    part         {row['part']}"
    yield f"    byte offset  {'not known' if row['byte_offset'] is None else row['byte_offset']}"
    yield f"    member       sha256 {row['member_sha256'] or 'not known'}"
    yield f"    rules        {', '.join(row['rules'])}"
    yield f"    reasons      {json.dumps(row['reasons'])}"
    yield f"    raw          {row['raw']!r}"
    if row["raw_base64"]:
        yield f"    raw_base64   {row['raw_base64']}"


def write_csv(rows: Sequence[Mapping[str, Any]], out: IO[str]) -> None:
    """Write rows as CSV that a spreadsheet takes for text.

    A cell that begins with ``=``, ``+``, ``-``, ``@``, TAB or CR, and is no number, gets an apostrophe in front, so that it is no formula.
    """
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        cells = {**row, "rules": ", ".join(row["rules"]), "reasons": json.dumps(row["reasons"])}
        writer.writerow([spreadsheet_cell(cells[name]) for name in CSV_COLUMNS])
