"""Staging: a part's rows and its checkpoint are one commit, and a table is settled when all its parts are there.

For every row its key (or parent), hash, part and line are staged, narrow; the whole row only where its hash is not live. So
the refresh of an unchanged table copies no whole row, and repeated keys over all parts, vanished keys and multisets are
plain SQL. A kill leaves either the part with its checkpoint or neither. Where lines repeat a key, the first line of the
member stands; lines equal to an earlier one are counted as duplicate, lines that contradict it go to quarantine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extras import Json, execute_values

from pipeline.database.ledger import Import
from pipeline.errors import AccountingError, StagingStale
from pipeline.load.relations import Relations, names, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class StagedTable:
    """The account of one table of an import over all its parts: ``rows_read = rows_loaded + quarantined + duplicate + filtered``.

    ``conflicting`` are those of the quarantined rows that contradict an earlier line with the same key. ``disposition`` is
    ``staged``, ``unchanged`` (member and recipe are those of the current import) or ``carried_over`` (no such member now).
    """

    table: str
    disposition: str
    member_sha256: str | None
    recipe: str | None
    parts: int
    rows_read: int
    rows_loaded: int
    quarantined: int
    conflicting: int
    duplicate: int
    filtered: int
    seconds: float


#: Writes batches into a table and returns how many rows it took.
Upsert = Callable[[Iterator[pa.RecordBatch], sql.Identifier], int]

STAGED_COLUMNS = (
    "table_name, disposition, member_sha256, recipe, parts, rows_read, rows_loaded, quarantined, conflicting, duplicate, filtered, seconds"
)
#: Lines of this part whose whole row must be staged: nothing live has their key (or parent) and hash.
NOT_LIVE = """
select s.line from {keys} s where s.part = %(part)s
   and not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor} and l.row_hash = s.row_hash)
"""
#: Over the whole table: rows that are not the first line of their key. ``copy`` > 1: an earlier line is equal.
REPEATED = """
create temporary table repeated on commit drop as
select * from (
    select part, line, row_number() over (partition by {anchor}, row_hash order by line) as copy,
           row_number() over (partition by {anchor} order by line) as turn,
           first_value(line) over (partition by {anchor} order by line) as first_line
      from {keys} where ({anchor}) in (select {anchor} from {keys} group by {anchor} having count(*) > 1)
) ranked where turn > 1
"""


def stage_rows(upsert: Upsert, cursor: Cursor, found: Import, relations: Relations, part: int, parquet: Path, batch_rows: int) -> int:
    """Copy a part's rows into the staging tables: all of them narrow, those that are not live whole.

    Args:
        upsert: takes batches, target and columns, and writes them (``LoadManager.bulk_upsert`` in this transaction).
        cursor: in the transaction that commits the part with its checkpoint.
        found: the open import, locked.
        relations: the table's relations for this import.
        part: the part's number.
        parquet: the part's ``rows.parquet``.
        batch_rows: rows formatted at a time.

    Returns:
        The rows staged narrow.
    """
    file = pq.ParquetFile(parquet)
    narrow = [*relations.anchor, "row_hash"]

    def batches(columns: list[str], keep: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in file.iter_batches(batch_size=batch_rows, columns=[*columns, "line"]):
            yield keep(batch.append_column("part", pa.array([part] * batch.num_rows, pa.int32())))

    copied = upsert(batches(narrow, lambda batch: batch), relations.keys)
    wide = [*relations.column_names, "row_hash"]
    if found.base_import_id is None:
        upsert(batches(wide, lambda batch: batch), relations.rows)
        return copied
    statement = sql.SQL(NOT_LIVE).format(keys=relations.keys, live=relations.live, same_anchor=same(relations.anchor, "l", "s"))
    cursor.execute(statement, {"part": part, "year": found.key.tax_year})
    lines = pa.array([line for (line,) in cursor.fetchall()], pa.int64())
    if len(lines):
        changed = batches(wide, lambda batch: batch.filter(pc.is_in(batch.column("line"), value_set=lines)))
        upsert(changed, relations.rows)
    return copied


def stage_quarantine(cursor: Cursor, import_id: int, table: str, part: int, jsonl: Path) -> int:
    """Copy a part's quarantine into the ledger; returns the rows written."""
    # The ledger's rows outlive a crash that empties the unlogged checkpoints; a part that is staged again replaces them.
    cursor.execute(
        "delete from etl.quarantine where import_id = %s and table_name = %s and part = %s", [import_id, table, part]
    )
    with open(jsonl, encoding="utf-8") as lines:
        refused = (json.loads(line) for line in lines)
        rows = [(import_id, table, part, row["line"], row["raw"], Json(row["reasons"])) for row in refused]
    _insert_quarantine(cursor, rows)
    return len(rows)


def _insert_quarantine(cursor: Cursor, rows: Sequence[tuple[object, ...]]) -> None:
    execute_values(cursor, "insert into etl.quarantine (import_id, table_name, part, line, raw, reasons) values %s", rows, page_size=1000)


def settle_table(
    cursor: Cursor, found: Import, relations: Relations, *, parts: int, lines: int, raw_line: Callable[[list[int]], dict[int, str]]
) -> StagedTable:
    """Settle a table whose parts are all staged: repeated keys, and the account over all parts.

    Args:
        cursor: in the transaction that commits the marker.
        found: the open import, locked.
        relations: the table's relations for this import.
        parts: how many parts the member has.
        lines: how many records (lines without a header) the member has.
        raw_line: gives the raw text of lines of the member, by number, for the quarantine.

    Raises:
        StagingStale: a part's checkpoint is not there (a crash of the server empties staging).
        AccountingError: records and rows do not add up over all parts.
    """
    table = relations.table.name
    cursor.execute(
        """select count(*), coalesce(sum(rows_read), 0), coalesce(sum(rows_staged), 0), coalesce(sum(quarantined), 0),
                  coalesce(sum(duplicate), 0), coalesce(sum(filtered), 0), coalesce(sum(seconds), 0), min(member_sha256), min(recipe)
             from etl.checkpoint where import_id = %s and table_name = %s""",
        [found.import_id, table],
    )
    row = cursor.fetchone()
    assert row is not None  # noqa: S101  # an aggregate always gives a row
    count, read, staged, quarantined, duplicate, filtered, seconds, member_sha256, recipe = row
    if count != parts:
        raise StagingStale(f"{count} of {parts} parts of {table} are staged", "all of them", "nothing; the missing ones are staged again")
    cursor.execute(sql.SQL("analyze {}").format(relations.keys))
    cursor.execute(sql.SQL("analyze {}").format(relations.rows))
    equal, conflicting = _settle_repeated(cursor, found, relations, raw_line) if relations.table.is_keyed else (0, 0)
    settled = StagedTable(
        table, "staged", member_sha256, recipe, parts, int(read), int(staged) - equal - conflicting, int(quarantined) + conflicting,
        conflicting, int(duplicate) + equal, int(filtered), float(seconds),
    )  # fmt: skip
    _check_account(cursor, relations, settled, lines)
    record_staged(cursor, found.import_id, settled)
    return settled


def _settle_repeated(
    cursor: Cursor, found: Import, relations: Relations, raw_line: Callable[[list[int]], dict[int, str]]
) -> tuple[int, int]:
    cursor.execute(sql.SQL(REPEATED).format(keys=relations.keys, anchor=names(relations.anchor)))
    cursor.execute("select part, line, first_line from repeated where copy = 1 order by line")
    conflicts = cursor.fetchall()
    raw = raw_line([line for _, line, _ in conflicts])
    key = ", ".join(relations.anchor)
    _insert_quarantine(
        cursor,
        [
            (
                found.import_id,
                relations.table.name,
                part,
                line,
                raw[line],
                Json({key: [f"line {first} has the same key with other values"]}),
            )
            for part, line, first in conflicts
        ],
    )
    cursor.execute(sql.SQL("delete from {} s using repeated r where s.part = r.part and s.line = r.line").format(relations.keys))
    repeated = cursor.rowcount
    cursor.execute(sql.SQL("delete from {} s using repeated r where s.part = r.part and s.line = r.line").format(relations.rows))
    return repeated - len(conflicts), len(conflicts)


def _check_account(cursor: Cursor, relations: Relations, settled: StagedTable, lines: int) -> None:
    cursor.execute(sql.SQL("select count(*) from {}").format(relations.keys))
    row = cursor.fetchone()
    staged = row[0] if row else 0
    accounted = settled.rows_loaded + settled.quarantined + settled.duplicate + settled.filtered
    if not (settled.rows_read == lines == accounted and staged == settled.rows_loaded):
        raise AccountingError(
            f"{relations.table.qualified}: {lines} records in the member, "
            f"{settled.rows_read} read, {accounted} accounted for, {staged} staged",
            "read = loaded + quarantined + duplicate + filtered, over all parts",
            "nothing was published; report this as a bug, with the member",
        )


def record_staged(cursor: Cursor, import_id: int, settled: StagedTable) -> None:
    """Write the marker of a settled table."""
    values = [import_id, *settled.__dict__.values()]
    marks = ", ".join(["%s"] * len(values))
    cursor.execute(f"insert into etl.staged_table (import_id, {STAGED_COLUMNS}) values ({marks}) on conflict do nothing", values)


def staged_tables(cursor: Cursor, import_id: int) -> list[StagedTable]:
    """The settled tables of an import, by name."""
    cursor.execute(f"select {STAGED_COLUMNS} from etl.staged_table where import_id = %s order by table_name", [import_id])
    return [StagedTable(*row) for row in cursor.fetchall()]
