"""Settling a table whose parts are all staged: repeated keys, and the account over all parts.

Where lines repeat a key, the first line of the member stands; lines equal to an earlier one are counted as duplicate, lines
that contradict it go to quarantine. The result does not depend on how the member was cut. The account must balance over the
whole member, to the row, or there is no marker. Settling twice, also at once, is settling once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.database.ledger import Import
from pipeline.errors import AccountingError, StagingStale
from pipeline.load.checkpoints import Origin
from pipeline.load.relations import Relations, names
from pipeline.load.staging import StagedTable, insert_quarantine, lock_table, record_staged, staged_tables

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Gives the raw text of lines of the member, by number.
RawLines = Callable[[list[int]], dict[int, str]]

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
SUMS = """
select count(*), count(*) filter (where (member_sha256, recipe, cut) is distinct from (%s, %s, %s)), coalesce(sum(rows_read), 0),
       coalesce(sum(rows_staged), 0), coalesce(sum(quarantined), 0), coalesce(sum(duplicate), 0), coalesce(sum(filtered), 0),
       coalesce(sum(seconds), 0)
  from etl.checkpoint where import_id = %s and table_name = %s
"""


def settle_table(
    cursor: Cursor, found: Import, relations: Relations, *, origin: Origin, parts: int, records: int, raw_lines: RawLines
) -> StagedTable:
    """Settle a table and write its marker; a table that is settled already is left as it is.

    Args:
        cursor: in the transaction that commits the marker.
        found: the open import, locked.
        relations: the table's relations for this import.
        origin: what all of its parts must be made of.
        parts: how many parts the member has.
        records: how many records (lines without a header) the member has.
        raw_lines: for the quarantine.

    Raises:
        StagingStale: a part's checkpoint is not there (a crash of the server empties staging), or is of another origin.
        AccountingError: records and rows do not add up over all parts.
    """
    table = relations.table.name
    lock_table(cursor, relations)
    for settled in staged_tables(cursor, found.import_id):
        if settled.table == table:
            return settled
    cursor.execute(SUMS, [*astuple(origin), found.import_id, table])
    count, others, read, staged, quarantined, duplicate, filtered, seconds = cursor.fetchone() or (0,) * 8
    if count != parts or others:
        raise StagingStale(
            f"{count - others} of {parts} parts of {table} are staged", "all of them", "nothing; the missing ones are staged again"
        )
    for name in (relations.keys, relations.rows):
        cursor.execute(sql.SQL("analyze {}").format(name))
    equal, conflicting = _settle_repeated(cursor, found, relations, raw_lines) if relations.table.is_keyed else (0, 0)
    settled = StagedTable(
        table, "staged", origin.member_sha256, origin.recipe, parts, int(read), int(staged) - equal - conflicting,
        int(quarantined) + conflicting, conflicting, int(duplicate) + equal, int(filtered), _nulled(cursor, found, table), float(seconds),
    )  # fmt: skip
    _check_account(cursor, relations, settled, records)
    record_staged(cursor, found.import_id, settled)
    return settled


def _nulled(cursor: Cursor, found: Import, table: str) -> Counter[str]:
    cursor.execute("select nulled from etl.checkpoint where import_id = %s and table_name = %s", [found.import_id, table])
    counted: Counter[str] = Counter()
    for (nulled,) in cursor.fetchall():
        counted.update(nulled)
    return counted


def _settle_repeated(cursor: Cursor, found: Import, relations: Relations, raw_lines: RawLines) -> tuple[int, int]:
    """Take repeated rows out of staging; returns how many were equal to an earlier line and how many contradicted one."""
    cursor.execute(sql.SQL(REPEATED).format(keys=relations.keys, anchor=names(relations.anchor)))
    cursor.execute("select part, line, first_line from repeated where copy = 1 order by line")
    conflicts = cursor.fetchall()
    raw = raw_lines([line for _, line, _ in conflicts])
    key, table = ", ".join(relations.anchor), relations.table.name
    reasons = {line: Json({key: [f"line {first} has the same key with other values"]}) for _, line, first in conflicts}
    insert_quarantine(cursor, [(found.import_id, table, part, line, raw[line], reasons[line]) for part, line, _ in conflicts])
    removed = 0
    for name in (relations.rows, relations.keys):
        cursor.execute(sql.SQL("delete from {} s using repeated r where s.part = r.part and s.line = r.line").format(name))
        removed = cursor.rowcount
    return removed - len(conflicts), len(conflicts)


def _check_account(cursor: Cursor, relations: Relations, settled: StagedTable, records: int) -> None:
    cursor.execute(sql.SQL("select count(*) from {}").format(relations.keys))
    (staged,) = cursor.fetchone() or (0,)
    accounted = settled.rows_loaded + settled.quarantined + settled.duplicate + settled.filtered
    if not (settled.rows_read == records == accounted and staged == settled.rows_loaded):
        raise AccountingError(
            f"{relations.table.qualified}: {records} records in the member, "
            f"{settled.rows_read} read, {accounted} accounted for, {staged} staged",
            "read = loaded + quarantined + duplicate + filtered, over all parts",
            "nothing was published; report this as a bug, with the member",
        )
