"""Staging: a part's rows and its checkpoint are one commit.

For every row its key (or parent), hash, part and line are staged, narrow; the whole row only where its hash is not live. So
the refresh of an unchanged table copies no whole row, and repeated keys over all parts, vanished keys and multisets are
plain SQL. A kill leaves either the part with its checkpoint or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.database.ledger import Import
from pipeline.load import quarantine
from pipeline.load.checkpoints import Origin
from pipeline.load.relations import Relations, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class StagedTable:
    """The account of one table of an import over all its parts: ``rows_read = rows_loaded + quarantined + duplicate + filtered``.

    ``conflicting`` are those of the quarantined rows, and ``superseded`` those of the duplicate ones, that have the key of the row
    that stands and other values: the table's ``on_conflict`` says which. ``nulled`` and ``changed`` count by ``column:rule`` the values
    of good lines that declared rules turned into NULL, or altered. ``refused`` counts the quarantined rows by ``column:rule``;
    a row that breaks two rules counts under both. ``disposition`` is ``staged``, ``unchanged`` (member and recipe are those of the
    current import) or ``carried_over`` (no such member now).
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
    superseded: int
    filtered: int
    nulled: Mapping[str, int]
    changed: Mapping[str, int]
    refused: Mapping[str, int]
    seconds: float


#: Writes batches into a table and returns how many rows it took.
Upsert = Callable[[Iterator[pa.RecordBatch], sql.Identifier], int]

STAGED_COLUMNS = (
    "table_name, disposition, member_sha256, recipe, parts, rows_read, rows_loaded, quarantined, conflicting, duplicate, superseded, "
    "filtered, nulled, changed, refused, seconds"
)
#: Lines of this part whose whole row must be staged: nothing live has their key (or parent) and hash.
NOT_LIVE = """
select s.line from {keys} s where s.part = %(part)s
   and not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor} and l.row_hash = s.row_hash)
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


#: Of a table's checkpoints: how many, how many of another origin, the rows that they speak for, and those that are there.
FOREIGN = """
select count(*), count(*) filter (where (member_sha256, recipe, cut) is distinct from (%s, %s, %s)), coalesce(sum(rows_staged), 0),
       (select count(*) from {keys})
  from etl.checkpoint where import_id = %s and table_name = %s
"""


def lock_table(cursor: Cursor, relations: Relations) -> None:
    """Keep others from creating, clearing or settling the same staging tables, until the transaction ends."""
    name = f"hcad-pipeline staging {relations.import_id} {relations.table.name}"
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


def clear_other_origins(cursor: Cursor, relations: Relations, origin: Origin) -> int:
    """Take back the parts of a table that were made of something else: another member, recipe or cut. Returns how many.

    A run with other settings may go on with an import that one with the old settings began; parts of two cuts would overlap.
    So may a checkpoint be damaged or gone: where a table that is not settled has not as many rows as its checkpoints say, all of it is
    staged anew. What had been settled of a table that is taken back is to be settled, and checked, again.
    """
    table = relations.table.name
    cursor.execute(sql.SQL(FOREIGN).format(keys=relations.keys), [*astuple(origin), relations.import_id, table])
    parts, others, stated, staged = cursor.fetchone() or (0,) * 4
    if stated != staged and table not in {settled.table for settled in staged_tables(cursor, relations.import_id)}:
        others = max(parts, 1)
    if others:
        cursor.execute(sql.SQL("truncate {}, {}").format(relations.keys, relations.rows))
        cursor.execute("delete from etl.checkpoint where import_id = %s and table_name = %s", [relations.import_id, table])
        cursor.execute("delete from etl.staged_table where import_id = %s and table_name = %s", [relations.import_id, table])
        cursor.execute("delete from etl.checked where import_id = %s", [relations.import_id])
        quarantine.clear(cursor, relations.import_id, table)
    return int(others)


def record_staged(cursor: Cursor, import_id: int, settled: StagedTable) -> None:
    """Write the marker of a settled table."""
    values = [import_id, *(Json(dict(value)) if isinstance(value, Mapping) else value for value in settled.__dict__.values())]
    marks = ", ".join(["%s"] * len(values))
    cursor.execute(f"insert into etl.staged_table (import_id, {STAGED_COLUMNS}) values ({marks}) on conflict do nothing", values)


def staged_tables(cursor: Cursor, import_id: int) -> list[StagedTable]:
    """The settled tables of an import, by name."""
    cursor.execute(f"select {STAGED_COLUMNS} from etl.staged_table where import_id = %s order by table_name", [import_id])
    return [StagedTable(*row) for row in cursor.fetchall()]
