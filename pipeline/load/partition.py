"""A tax year's partition of a live table: how it comes into being, beside readers who must not notice.

The shorter way of a first publish: a table of the partition's shape is made in the publishing transaction, filled while it has no
index and nobody knows of it, and attached when it is full; PostgreSQL builds its primary key and indexes there and then. Its rows
carry that transaction's number, so that a reader with an older snapshot, of either isolation level, sees none of them: rows that
an earlier transaction had committed would appear in the middle of such a snapshot. ATTACH takes no lock that readers or writers wait for.
Where a live table has triggers, foreign keys, rules or an identity column of a user's, or a default partition, rows must come in by the
front door: then the partition is attached empty, and filled through the live table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.load.relations import Relations

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: To attach a partition beside a default one locks and reads the latter. A foreign key is triggers, in either direction.
IS_PLAIN = """
select not (c.relhastriggers or c.relhasrules or p.partdefid <> 0)
       and not exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attidentity <> '')
  from pg_class c join pg_partitioned_table p on p.partrelid = c.oid where c.oid = to_regclass(%s)
"""
#: Spares ATTACH the reading of every row.
ONE_YEAR = "hcad_pipeline_one_tax_year"


def is_missing(cursor: Cursor, relations: Relations, tax_year: int) -> bool:
    """Whether the live table has no partition of this tax year."""
    cursor.execute("select to_regclass(%s) is null", [relations.partition(tax_year).as_string(cursor)])
    return bool((cursor.fetchone() or (True,))[0])


def is_plain(cursor: Cursor, relations: Relations) -> bool:
    """Whether rows may come into being outside the live table, because nothing of a user's would notice."""
    cursor.execute(IS_PLAIN, [relations.live.as_string(cursor)])
    return bool((cursor.fetchone() or (False,))[0])


def create(cursor: Cursor, relations: Relations, tax_year: int) -> None:
    """Make an empty partition and attach it: PARTITION OF would lock readers out."""
    partition = relations.partition(tax_year)
    cursor.execute(sql.SQL("create table {} (like {} including all excluding identity)").format(partition, relations.live))
    _attach(cursor, relations, tax_year)


def begin(cursor: Cursor, relations: Relations, tax_year: int) -> sql.Identifier:
    """Make the table that is to become the partition, without an index; returns its name."""
    partition, check = relations.partition(tax_year), sql.Identifier(ONE_YEAR)
    cursor.execute(sql.SQL("create table {} (like {} including all excluding indexes)").format(partition, relations.live))
    year = sql.Literal(tax_year)
    cursor.execute(sql.SQL("alter table {} add constraint {} check (tax_year = {})").format(partition, check, year))
    return partition


def finish(cursor: Cursor, relations: Relations, tax_year: int) -> None:
    """Attach what :func:`begin` made, with the primary key and the indexes of the live table."""
    _attach(cursor, relations, tax_year)
    partition, check = relations.partition(tax_year), sql.Identifier(ONE_YEAR)
    cursor.execute(sql.SQL("alter table {} drop constraint {}").format(partition, check))


def _attach(cursor: Cursor, relations: Relations, tax_year: int) -> None:
    partition, year = relations.partition(tax_year), sql.Literal(tax_year)
    cursor.execute(sql.SQL("alter table {} attach partition {} for values in ({})").format(relations.live, partition, year))
