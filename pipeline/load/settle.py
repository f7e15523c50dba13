"""Settling a table whose parts are all staged: repeated keys, and the account over all parts.

Where lines repeat a key, one of them stands: the first of the member, or the last where ``on_conflict`` is ``last``. Of lines that are
equal to each other one counts and the others are duplicate; one that differs from the line that stands goes to quarantine, or
is counted as superseded where ``on_conflict`` is ``first`` or ``last``. In A, B, A the first A stands, or the second, and in both cases one
line is duplicate and B gives way. The result does not depend on how the member was cut. The account must balance over the whole
member, to the row, or there is no marker. Settling twice, also at once, is settling once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.database.ledger import Import
from pipeline.errors import AccountingError, StagingStale
from pipeline.handoff import RawLine
from pipeline.load import quarantine, whole
from pipeline.load.checkpoints import Origin
from pipeline.load.order import read_orders, suspect_keys
from pipeline.load.quarantine import WHOLE_TABLE, Conflict, Place
from pipeline.load.relations import Relations, names
from pipeline.load.staging import StagedTable, list_suspects, lock_table, record_staged, staged_tables

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Gives lines of the member, by number.
RawLines = Callable[[list[int]], Mapping[int, RawLine]]

#: The keys that more than one row has, where the order of the parts does not tell: in most tables there are none, and nothing is read
#: further.
FIND_SUSPECTS = """
create temporary table suspect on commit drop as select {anchor} from {narrow} group by {anchor} having count(*) > 1
"""
#: Over the whole table: rows that are not the line of their key that stands. ``copy`` > 1: a line nearer to that one is equal.
REPEATED = """
create temporary table repeated on commit drop as
select * from (
    select s.ctid as place, part, line, row_number() over (partition by {anchor}, row_hash order by {order}) as copy,
           row_number() over (partition by {anchor} order by {order}) as turn,
           first_value(line) over (partition by {anchor} order by {order}) as standing_line
      from {narrow} s join suspect using ({anchor})
) ranked where turn > 1
"""
SUMS = """
select count(*), count(*) filter (where (member_sha256, recipe, cut) is distinct from (%s, %s, %s)), coalesce(sum(rows_read), 0),
       coalesce(sum(rows_staged), 0), coalesce(sum(quarantined), 0), coalesce(sum(duplicate), 0), coalesce(sum(filtered), 0),
       coalesce(sum(seconds), 0)
  from etl.checkpoint where import_id = %s and table_name = %s
"""


@dataclass(frozen=True)
class Repeated:
    """Rows that gave way to another one of their key: ``equal`` to one that counts, ``conflicting`` (quarantined) or ``superseded``."""

    equal: int = 0
    conflicting: int = 0
    superseded: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.equal + self.conflicting + self.superseded


def settle_table(
    cursor: Cursor,
    found: Import,
    relations: Relations,
    *,
    origin: Origin,
    parts: int,
    records: int,
    raw_lines: RawLines,
    rows_per_rule: int,
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
        rows_per_rule: how many rows of each rule the ledger's quarantine keeps.

    Raises:
        StagingStale: a part's checkpoint is not there (a crash of the server empties staging), or is of another origin; or rows that it
            speaks for are gone.
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
    whole.require(cursor, relations)
    _analyze(cursor, found, relations)
    repeated = Repeated()
    if relations.table.is_keyed:
        place = Place(found.import_id, table, WHOLE_TABLE, origin.member_sha256)
        narrow = relations.rows if found.base_import_id is None else relations.keys
        repeated = _settle_repeated(cursor, place, relations, narrow, raw_lines, rows_per_rule)
    quarantine.trim(cursor, found.import_id, table, rows_per_rule)
    settled = StagedTable(
        table, "staged", origin.member_sha256, origin.recipe, parts, int(read), int(staged) - repeated.rows,
        int(quarantined) + repeated.conflicting, repeated.conflicting, int(duplicate) + repeated.equal + repeated.superseded,
        repeated.superseded, int(filtered), *_ruled_values(cursor, found, table), quarantine.refused(cursor, found.import_id, table),
        float(seconds),
    )  # fmt: skip
    _check_account(cursor, relations, settled, records)
    record_staged(cursor, found.import_id, settled)
    return settled


def _analyze(cursor: Cursor, found: Import, relations: Relations) -> None:
    """Of the columns that gate and publish look rows up by, a sample: all 71 of a wide table take longer than what is done with them."""
    cursor.execute("select set_config('default_statistics_target', '10', true), set_config('work_mem', '32MB', true)")
    for name in (relations.rows,) if found.base_import_id is None else (relations.keys, relations.rows):
        cursor.execute(sql.SQL("analyze {} ({})").format(name, names((*relations.anchor, "row_hash"))))


def _ruled_values(cursor: Cursor, found: Import, table: str) -> tuple[Counter[str], Counter[str]]:
    """By ``column:rule``, the values that declared rules turned into NULL, and those that they altered."""
    cursor.execute("select nulled, changed from etl.checkpoint where import_id = %s and table_name = %s", [found.import_id, table])
    nulled: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for of_part in cursor.fetchall():
        nulled.update(of_part[0])
        changed.update(of_part[1])
    return nulled, changed


def _settle_repeated(
    cursor: Cursor, place: Place, relations: Relations, narrow: sql.Identifier, raw_lines: RawLines, rows_per_rule: int
) -> Repeated:
    """Take rows out of staging that are not the one of their key that stands.

    ``narrow`` is the table that has every row: on a first import the one with the whole rows, of which the other one is a view.
    """
    orders = read_orders(cursor, place.import_id, place.table)
    words: dict[str, sql.Composable] = {"narrow": narrow, "anchor": names(relations.anchor)}
    suspects = suspect_keys(orders)
    cursor.execute("drop table if exists pg_temp.suspect, pg_temp.repeated")
    if suspects:
        list_suspects(cursor, narrow, relations.anchor, suspects)
    elif suspects is None:
        cursor.execute(sql.SQL(FIND_SUSPECTS).format(**words))
    if suspects == [] or (suspects is None and cursor.rowcount == 0):
        return Repeated()
    policy = relations.table.on_conflict
    words["order"] = sql.SQL("line desc" if policy == "last" else "line")
    cursor.execute(sql.SQL(REPEATED).format(**words))
    cursor.execute("select count(*) filter (where copy > 1), count(*) filter (where copy = 1) from repeated")
    equal, differing = cursor.fetchone() or (0, 0)
    cursor.execute(sql.SQL("delete from {} where ctid = any(array(select place from repeated))").format(narrow))
    # What gave way within its part was not staged whole.
    if narrow != relations.rows and equal + differing > sum(order.beaten for order in orders if order):
        cursor.execute(sql.SQL("delete from {} s using repeated r where s.part = r.part and s.line = r.line").format(relations.rows))
        whole.recount(cursor, relations)
    if policy in ("first", "last"):
        return Repeated(equal, 0, differing)
    cursor.execute("select part, line, standing_line from repeated where copy = 1 order by line limit %s", [rows_per_rule])
    kept = [Conflict(*row) for row in cursor.fetchall()]
    raw = raw_lines([row.line for row in kept])
    quarantine.add_conflicts(cursor, place, ", ".join(relations.anchor), differing, kept, raw)
    return Repeated(equal, differing, 0)


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
