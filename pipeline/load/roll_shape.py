"""The live table of a computed table: a part of one table of the schema ``roll`` that sources share, partitioned by source, then tax year.

The part of a source carries its name as a column with a default, so that rows are written into it as into any live table. The
key of the whole is source, tax year and the table's own columns; in its index the source stands last, because within a part it is constant.
Indexes are the part's own: a source that comes later builds none over the rows of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.load.relations import Relations, comma

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The column by which a shared table is partitioned.
SOURCE = "source"


def lock(cursor: Cursor) -> None:
    """One source at a time, until the transaction ends: all of them are parts of the same tables."""
    cursor.execute("select pg_advisory_xact_lock(hashtextextended('hcad-pipeline ddl roll', 0))")


def create(cursor: Cursor, relations: Relations, definitions: Sequence[sql.Composable]) -> None:
    """Make a source's part of a shared table, empty, and the shared table where this is the first of its parts.

    Args:
        cursor: in a transaction that holds :func:`lock`.
        relations: of the computed table.
        definitions: the live table's columns and its primary key.
    """
    source = relations.table.source
    cursor.execute("select to_regclass(%s) is null", [relations.root.as_string(cursor)])
    if (cursor.fetchone() or (False,))[0]:
        cursor.execute(
            sql.SQL("create table {} ({} text not null, {}) partition by list ({})").format(
                relations.root, sql.Identifier(SOURCE), comma(definitions), sql.Identifier(SOURCE)
            )
        )
    # Made apart and attached, so that readers of other sources do not notice.
    cursor.execute(
        sql.SQL("create table {} (like {} including all) partition by list (tax_year)").format(relations.live, relations.root)
    )
    cursor.execute(
        sql.SQL("alter table {} alter column {} set default {}").format(relations.live, sql.Identifier(SOURCE), sql.Literal(source))
    )
    cursor.execute(
        sql.SQL("alter table {} attach partition {} for values in ({})").format(relations.root, relations.live, sql.Literal(source))
    )
