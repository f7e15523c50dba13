"""A tax year's partition of a live table: made empty, and filled beside readers who must not notice.

It is attached, empty, long before its first rows are published. To attach it full, in the publishing transaction, would be faster, and
would not be exact: a commit makes rows visible a moment before other sessions hear of a new partition, so that a reader in between would
see some tables with their new rows and others without (docs/decisions/0012-first-publish.md). A first publish writes straight into the
partition, which spares each row the way through the live table; where that has triggers, foreign keys, rules or an identity column of a
user's, rows go that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.load.relations import Relations

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: A foreign key is triggers, in either direction.
IS_PLAIN = """
select not (c.relhastriggers or c.relhasrules)
       and not exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attidentity <> '')
  from pg_class c where c.oid = to_regclass(%s)
"""


def create(cursor: Cursor, relations: Relations, tax_year: int) -> None:
    """Make the partition of a tax year, empty, if it is not there."""
    partition = relations.partition(tax_year)
    cursor.execute("select to_regclass(%s) is null", [partition.as_string(cursor)])
    (is_missing,) = cursor.fetchone() or (False,)
    if not is_missing:
        return
    # Made apart and attached: ATTACH takes a lock that readers do not notice, PARTITION OF would stop them.
    cursor.execute(sql.SQL("create table {} (like {} including all excluding identity)").format(partition, relations.live))
    year = sql.Literal(tax_year)
    cursor.execute(sql.SQL("alter table {} attach partition {} for values in ({})").format(relations.live, partition, year))


def way_in(cursor: Cursor, relations: Relations, tax_year: int) -> sql.Identifier:
    """Where the rows of a tax year are inserted: its partition, or the live table, when something of a user's would miss them there."""
    cursor.execute(IS_PLAIN, [relations.live.as_string(cursor)])
    (is_plain,) = cursor.fetchone() or (False,)
    return relations.partition(tax_year) if is_plain else relations.live
