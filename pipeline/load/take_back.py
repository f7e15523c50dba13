"""Taking an import back: the exact reverse of a publish, in one transaction of the caller's.

What the import inserted goes, what it updated gets its former values in place, what it deleted comes back: so that rows which live
before and after keep whatever refers to them, and a user's own columns keep what was written into them since. It needs the
ledger and the database alone: a table that the catalog no longer has is taken back like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.database.ledger import Import
from pipeline.errors import RollbackRefused
from pipeline.load.images import Images, LiveTable, forget_columns
from pipeline.load.publish import Changes
from pipeline.load.relations import WIDE_JOINS, comma, names, run, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Those of the import's rows that were there before are updated rows; a first import has no history at all.
REMOVE_INSERTED = """
delete from {live} l where l.tax_year = %(year)s and l.import_id = %(import_id)s and not exists (
    select 1 from {history} h where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation = 'U' and {same_key})
"""
#: Deleted rows, too: one that somebody has put back by hand is in the way of none.
RESTORE_IN_PLACE = """
update {live} l set {assignments} from {history} h
 where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation <> 'I' and l.tax_year = %(year)s and {same_key}
"""
#: Columns that came later are not in the image: they get their default.
RESTORE_MISSING = """
insert into {live} ({columns}) overriding system value
select {before} from {history} h
 where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation <> 'I'
   and not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_key})
"""
REMEMBERED = "select count(*) from {history} where import_id = %(import_id)s and tax_year = %(year)s and operation <> 'I'"


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
    words: dict[str, sql.Composable] = {"live": table.live, "history": table.history, "same_key": same(table.key, "h", "l")}
    cursor.execute(WIDE_JOINS)
    run(cursor, REMEMBERED, words, values)
    (kept,) = cursor.fetchone() or (0,)
    before = Images.read(cursor, table, found.key, found.import_id)
    if kept != images or (images and found.import_id not in before.places):
        raise RollbackRefused(
            f"the history of {source}.{table_name} has {kept} rows as they were before import {found.import_id}",
            f"the {images} that it updated or deleted, and what their columns are",
            "find out who removed rows of the history; publish an older release, or restore a backup",
        )
    removed = run(cursor, REMOVE_INSERTED, words, values)
    updated = restored = 0
    if images:
        assignments = comma(sql.SQL("{} = {}").format(sql.Identifier(name), before.value(name, "h")) for name in back)
        updated = run(cursor, RESTORE_IN_PLACE, words | {"assignments": assignments}, values)
        columns = before.columns
        values_before = comma(before.value(name, "h") for name in columns)
        restored = run(cursor, RESTORE_MISSING, words | {"columns": names(columns), "before": values_before}, values)
    run(cursor, "delete from {history} where import_id = %(import_id)s and tax_year = %(year)s", words, values)
    forget_columns(cursor, [found.import_id], table_name)
    return Changes(restored, updated, removed)
