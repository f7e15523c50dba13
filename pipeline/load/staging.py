"""Staging: a part's rows and its checkpoint are one commit.

For every row its key (or parent), hash, part and line are staged, narrow; the whole row only where its hash is not live. So
the refresh of an unchanged table copies no whole row, and repeated keys over all parts, vanished keys and multisets are
plain SQL. A kill leaves either the part with its checkpoint or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extras import Json, execute_values

from pipeline.catalog.model import ROLL_PREFIX
from pipeline.database.ledger import Import
from pipeline.load import quarantine, whole
from pipeline.load.ahead import read_ahead
from pipeline.load.checkpoints import Origin
from pipeline.load.order import Key, KeyOrder, OrderWatch
from pipeline.load.relations import Relations, comma, names, same

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


#: Of a process that stages: Python and its libraries, and a row group of Parquet.
BESIDE_BATCHES_MB = 200
#: A batch is read, formatted and sent, the next ones behind it, and each step has its copy: measured, the peak grows by 8 to 9 batches,
#: and with room for 10 of them a process of 350 MB peaked at 365 to 385.
BATCHES_AT_ONCE = 16
#: Rows by which the width of the others is estimated, and how much of a column is read at a time.
MEASURED_ROWS = 1000
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Most:
    """How much staging reads and formats at a time: so many rows, and as many as a process of ``memory_mb`` has room for."""

    rows: int
    memory_mb: int

    @property
    def batch_bytes(self) -> int:
        """The size of a batch in memory."""
        return max(self.memory_mb - BESIDE_BATCHES_MB, 1) * 2**20 // BATCHES_AT_ONCE


#: Writes batches into a table and returns how many rows it took.
Upsert = Callable[[Iterator[pa.RecordBatch], sql.Identifier], int]

STAGED_COLUMNS = (
    "table_name, disposition, member_sha256, recipe, parts, rows_read, rows_loaded, quarantined, conflicting, duplicate, superseded, "
    "filtered, nulled, changed, refused, seconds"
)
#: A page near the end of a table: what is copied into it goes there and behind it, for a table grows by up to 64 pages before they are
#: filled, in each session that copies. Only pages that a VACUUM emptied may lie in front of it.
NEAR_END = "select format('(%%s,0)', greatest(pg_relation_size(%s) / current_setting('block_size')::integer - 256, 0))"
ANYWHERE = "(0,0)"
#: Lines of this part whose whole row must be staged, unless they give way anyway: nothing live has their key (or parent) and hash. Between
#: the part's first and last key, so that of a file in the order of its keys each part is compared with its own stretch of the live
#: table's index.
NOT_LIVE = """
select s.line from {keys} s where s.part = %(part)s and s.ctid >= %(place)s
   and not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor} and l.row_hash = s.row_hash
                                            and l.{first} between %(least)s and %(most)s)
"""
#: Lines of a part that are not the one of their key that stands in it.
BEATEN = """
select line from (
    select line, row_number() over (partition by {anchor} order by {order}) as turn
      from {keys} s join suspect using ({anchor}) where part = %(part)s and s.ctid >= %(place)s
) ranked where turn > 1
"""
#: One scan of both sides, in memory as far as a worker's may go. The narrow table has no statistics yet, and without them PostgreSQL
#: would rather look every row up by itself, which takes two to four times as long.
IN_ONE_SCAN = "select set_config('enable_nestloop', 'off', true), set_config('work_mem', '32MB', true)"


def stage_rows(
    upsert: Upsert, cursor: Cursor, found: Import, relations: Relations, part: int, parquet: Path, most: Most
) -> tuple[int, KeyOrder | None]:
    """Copy a part's rows into the staging tables: all of them narrow, those that are not live whole.

    Args:
        upsert: takes batches, target and columns, and writes them (``LoadManager.bulk_upsert`` in this transaction).
        cursor: in the transaction that commits the part with its checkpoint.
        found: the open import, locked.
        relations: the table's relations for this import.
        part: the part's number.
        parquet: the part's ``rows.parquet``.
        most: what is read and formatted at a time.

    Returns:
        The rows staged narrow, and the order of their keys; None: they do not rise.
    """
    narrow, wide = [*relations.anchor, "row_hash"], [*relations.column_names, "row_hash"]
    watch = OrderWatch(relations.table)
    if found.base_import_id is None:
        copied = upsert(watch.watched(_batches(parquet, part, wide, most)), relations.rows)
        return copied, watch.order
    cursor.execute(NEAR_END, [relations.keys.as_string(cursor)])
    (near_end,) = cursor.fetchone() or (ANYWHERE,)
    copied = upsert(watch.watched(_batches(parquet, part, narrow, most)), relations.keys)
    of_part = _extent(cursor, relations, part, copied, near_end)
    order, lines = watch.order, _not_live(cursor, found, relations, of_part)
    if order is not None and order.suspects:
        beaten = _beaten(cursor, relations, of_part, order.suspects)
        order = replace(order, beaten=len(beaten))
        lines = lines.filter(pc.invert(pc.is_in(lines, value_set=beaten)))
    whole.note(cursor, relations, part, upsert(_batches(parquet, part, wide, most, lines), relations.rows) if len(lines) else 0)
    return copied, order


@dataclass(frozen=True)
class _Extent:
    """Where the rows of a part lie in narrow staging: none before a place; and the least and greatest of their first key column."""

    part: int
    place: str
    least: object
    most: object


def _extent(cursor: Cursor, relations: Relations, part: int, rows: int, place: str) -> _Extent:
    """Where so many rows lie that were just copied: behind a place near the table's end of then, unless pages in front of it had room."""
    first = sql.Identifier(relations.anchor[0])
    is_boolean = relations.table.column(relations.anchor[0]).type.kind == "boolean"
    bounds = sql.SQL("bool_and({0}), bool_or({0})" if is_boolean else "min({0}), max({0})").format(first)
    statement = sql.SQL("select count(*), {} from {} where part = %s and ctid >= %s").format(bounds, relations.keys)
    cursor.execute(statement, [part, place])
    count, least, most = cursor.fetchone() or (0, None, None)
    if count == rows:
        return _Extent(part, place, least, most)
    cursor.execute(statement, [part, ANYWHERE])
    _, least, most = cursor.fetchone() or (0, None, None)
    return _Extent(part, ANYWHERE, least, most)


def _not_live(cursor: Cursor, found: Import, relations: Relations, of_part: _Extent) -> pa.Int64Array:
    first = sql.Identifier(relations.anchor[0])
    cursor.execute(IN_ONE_SCAN)
    cursor.execute(
        sql.SQL(NOT_LIVE).format(keys=relations.keys, live=relations.live, same_anchor=same(relations.anchor, "l", "s"), first=first),
        vars(of_part) | {"year": found.key.tax_year},
    )
    return pa.array([line for (line,) in cursor.fetchall()], pa.int64())


def _beaten(cursor: Cursor, relations: Relations, of_part: _Extent, suspects: Sequence[Key]) -> pa.Int64Array:
    """The lines of this part that give way to another one of their key in it, whatever other parts hold."""
    list_suspects(cursor, relations.keys, relations.anchor, suspects)
    order = sql.SQL("line desc" if relations.table.on_conflict == "last" else "line")
    cursor.execute(sql.SQL(BEATEN).format(keys=relations.keys, anchor=names(relations.anchor), order=order), vars(of_part))
    return pa.array([line for (line,) in cursor.fetchall()], pa.int64())


def list_suspects(cursor: Cursor, narrow: sql.Identifier, anchor: Sequence[str], suspects: Sequence[Key]) -> None:
    """Put keys into ``pg_temp.suspect``, which is there until the transaction ends."""
    cursor.execute("drop table if exists pg_temp.suspect")
    cursor.execute(
        sql.SQL("create temporary table suspect on commit drop as select {} from {} with no data").format(names(anchor), narrow)
    )
    execute_values(cursor, "insert into suspect values %s", suspects, page_size=1000)
    cursor.execute("analyze suspect")


def _batches(
    parquet: Path, part: int, columns: Sequence[str], most: Most, lines: pa.Int64Array | None = None
) -> Iterator[pa.RecordBatch]:
    """Columns of a part's rows with their lines and the part's number: of all lines, or of these. The next batch is read ahead."""

    def with_part(batch: pa.RecordBatch) -> pa.RecordBatch:
        if lines is not None:
            batch = batch.filter(pc.is_in(batch.column("line"), value_set=lines))
        return batch.append_column("part", pa.array([part] * batch.num_rows, pa.int32()))

    wanted = [*columns, "line"]
    with pq.ParquetFile(parquet, buffer_size=READ_BYTES) as file:
        yield from map(with_part, read_ahead(_pieces(file, wanted, min(most.rows, _rows_within(most.batch_bytes, file, wanted)))))


def _pieces(file: pq.ParquetFile, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most so many rows, none of two row groups: both would be held for it."""
    for group in range(file.num_row_groups):
        of_group = file.metadata.row_group(group).num_rows
        size = -(-of_group // -(-of_group // rows)) if of_group else 1
        yield from file.iter_batches(batch_size=size, row_groups=[group], columns=columns, use_threads=False)


def _rows_within(batch_bytes: int, file: pq.ParquetFile, columns: Sequence[str]) -> int:
    """How many rows fill a batch, as wide as the first ones are."""
    first = next(file.iter_batches(batch_size=MEASURED_ROWS, columns=columns, use_threads=False), None)
    return max(batch_bytes * first.num_rows // max(first.nbytes, 1), 1) if first and first.num_rows else 1


def lock_table(cursor: Cursor, relations: Relations) -> None:
    """Keep others from creating, clearing or settling the same staging tables, until the transaction ends."""
    name = f"hcad-pipeline staging {relations.import_id} {relations.table.name}"
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


def clear_other_origins(cursor: Cursor, relations: Relations, origin: Origin) -> int:
    """Take back the parts of a table that were made of something else: another member, recipe or cut. Returns how many.

    A run with other settings may go on with an import that one with the old settings began; parts of two cuts would overlap. What had
    been settled of such a table is to be settled, and checked, again.
    """
    table = relations.table.name
    cursor.execute(
        """select count(*) from etl.checkpoint
            where import_id = %s and table_name = %s and (member_sha256, recipe, cut) is distinct from (%s, %s, %s)""",
        [relations.import_id, table, *astuple(origin)],
    )
    (others,) = cursor.fetchone() or (0,)
    if others:
        clear(cursor, relations)
    return int(others)


def clear(cursor: Cursor, relations: Relations) -> int:
    """Take back all that is staged of a table, with every mark that speaks for it; returns how many parts there were."""
    table = relations.table.name
    cursor.execute("select relkind = 'v' from pg_class where oid = to_regclass(%s)", [relations.keys.as_string(cursor)])
    (is_view,) = cursor.fetchone() or (False,)
    cursor.execute(sql.SQL("truncate {}").format(comma([relations.rows] if is_view else [relations.keys, relations.rows])))
    cursor.execute("delete from etl.staged_table where import_id = %s and table_name = %s", [relations.import_id, table])
    # What was computed from these rows, among others, is computed again.
    cursor.execute(
        "delete from etl.staged_table where import_id = %s and starts_with(table_name, %s)", [relations.import_id, ROLL_PREFIX]
    )
    cursor.execute("delete from etl.checked where import_id = %s", [relations.import_id])
    quarantine.clear(cursor, relations.import_id, table)
    cursor.execute("delete from etl.checkpoint where import_id = %s and table_name = %s", [relations.import_id, table])
    return int(cursor.rowcount)


def record_staged(cursor: Cursor, import_id: int, settled: StagedTable) -> None:
    """Write the marker of a settled table."""
    values = [import_id, *(Json(dict(value)) if isinstance(value, Mapping) else value for value in settled.__dict__.values())]
    execute_values(cursor, f"insert into etl.staged_table (import_id, {STAGED_COLUMNS}) values %s on conflict do nothing", [values])


def staged_tables(cursor: Cursor, import_id: int) -> list[StagedTable]:
    """The settled tables of an import, by name."""
    cursor.execute(f"select {STAGED_COLUMNS} from etl.staged_table where import_id = %s order by table_name", [import_id])
    return [StagedTable(*row) for row in cursor.fetchall()]
