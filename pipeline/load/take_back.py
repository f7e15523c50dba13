"""Taking an import back: the exact reverse of a publish, in one transaction of the caller's.

What the import inserted goes, what it updated gets its former values in place, what it deleted comes back: so that rows which live
before and after keep whatever refers to them, and a user's own columns keep what was written into them since. It needs the
ledger and the database alone: a table that the catalog no longer has is taken back like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.database.ledger import Import
from pipeline.errors import RollbackRefused
from pipeline.load.publish import Changes
from pipeline.load.relations import comma, identifier, names, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

KEY = """
select a.attname from pg_index i, unnest(i.indkey) with ordinality k(attnum, place) join pg_attribute a on a.attnum = k.attnum
 where i.indrelid = to_regclass(%s) and a.attrelid = i.indrelid and i.indisprimary and k.place <= i.indnkeyatts
   and a.attname <> 'tax_year' order by k.place
"""
#: Not those that PostgreSQL computes itself, which a user may have added.
COLUMNS = """
select a.attname, exists (select 1 from etl.live_column c where (c.source, c.table_name, c.column_name) = (%s, %s, a.attname))
  from pg_attribute a where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum
"""
#: Those of the import's rows that were there before are updated rows; a first import has no history at all.
REMOVE_INSERTED = """
delete from {live} l where l.tax_year = %(year)s and l.import_id = %(import_id)s and not exists (
    select 1 from {history} h where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation = 'U' and {same_key})
"""
#: Deleted rows, too: one that somebody has put back by hand is in the way of none.
RESTORE_IN_PLACE = """
update {live} l set {assignments} from {history} h, lateral jsonb_populate_record(null::{live}, h.before_image) b
 where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation <> 'I' and l.tax_year = %(year)s and {same_key}
"""
#: Columns that came later are not in the image: they get their default.
IMAGE_COLUMNS = """
select jsonb_object_keys(before_image) from (
    select before_image from {history} where import_id = %(import_id)s and tax_year = %(year)s and operation <> 'I' limit 1) one
"""
RESTORE_MISSING = """
insert into {live} ({columns}) overriding system value
select {before} from {history} h, lateral jsonb_populate_record(null::{live}, h.before_image) b
 where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation <> 'I'
   and not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_key})
"""
REMEMBERED = "select count(*) from {history} where import_id = %(import_id)s and tax_year = %(year)s and operation <> 'I'"


@dataclass(frozen=True)
class LiveTable:
    """A live table as the database has it: its names, its key without the tax year, its columns and which of them are ours."""

    live: sql.Identifier
    history: sql.Identifier
    key: tuple[str, ...]
    columns: tuple[str, ...]
    ours: tuple[str, ...]

    @classmethod
    def read(cls, cursor: Cursor, source: str, table_name: str) -> LiveTable:
        """Read it from the system catalog and the ledger; without a key when there is no such table."""
        live = identifier(source, table_name)
        cursor.execute(KEY, [live.as_string(cursor)])
        key = tuple(name for (name,) in cursor.fetchall())
        cursor.execute(COLUMNS, [source, table_name, live.as_string(cursor)])
        columns = cursor.fetchall()
        return cls(
            live, identifier("history", f"{source}_{table_name}"), key, tuple(name for name, _ in columns),
            tuple(name for name, is_ours in columns if is_ours),
        )  # fmt: skip


def take_back(cursor: Cursor, source: str, table_name: str, found: Import, images: int) -> Changes:
    """Undo what an import wrote into one live table, in the caller's transaction.

    Args:
        cursor: in that transaction.
        source: the table's source.
        table_name: the table.
        found: the import, which is current.
        images: rows that it updated and deleted, by the ledger.

    Returns:
        What was written now: deleted rows ``inserted`` again, updated rows ``updated`` back, inserted rows ``deleted``.

    Raises:
        RollbackRefused: the history does not have these images.
    """
    table = LiveTable.read(cursor, source, table_name)
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    back = [name for name in table.ours if name not in table.key] + ["row_hash", "import_id"]
    words: dict[str, sql.Composable] = {
        "live": table.live, "history": table.history, "same_key": same(table.key, "h", "l"),
        "assignments": comma(sql.SQL("{0} = b.{0}").format(sql.Identifier(name)) for name in back),
    }  # fmt: skip
    _run(cursor, REMEMBERED, words, values)
    (kept,) = cursor.fetchone() or (0,)
    if kept != images:
        raise RollbackRefused(
            f"the history of {source}.{table_name} has {kept} rows as they were before import {found.import_id}",
            f"the {images} that it updated or deleted",
            "find out who removed rows of the history; publish an older release, or restore a backup",
        )
    removed = _run(cursor, REMOVE_INSERTED, words, values)
    updated = restored = 0
    if images:
        updated = _run(cursor, RESTORE_IN_PLACE, words, values)
        _run(cursor, IMAGE_COLUMNS, words, values)
        remembered = {name for (name,) in cursor.fetchall()}
        columns = [name for name in table.columns if name in remembered]
        restored = _run(cursor, RESTORE_MISSING, words | {"columns": names(columns), "before": names(columns, "b")}, values)
    _run(cursor, "delete from {history} where import_id = %(import_id)s and tax_year = %(year)s", words, values)
    return Changes(restored, updated, removed)


def _run(cursor: Cursor, statement: str, words: dict[str, sql.Composable], values: dict[str, object]) -> int:
    cursor.execute(sql.SQL(statement).format(**words), values)
    return int(cursor.rowcount)
