"""The tables of the database that belong to one table of the catalog, and their names.

For ``hcad.real_acct``: the live table ``hcad.real_acct`` with one partition a tax year, the history ``history.hcad_real_acct``,
and for import 12 the staging tables ``etl_staging.i12_real_acct_keys`` (key, hash, part and line of every row) and
``etl_staging.i12_real_acct_rows`` (whole rows, only those whose hash is not live). On a first import of a tax
year, where that is all of them, the former is a view of the latter. A computed table has its rows of a source in a partition of its own:
the live table of ``roll_property`` of hcad is ``roll.property_hcad``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import ROLL_PREFIX, Table
from pipeline.database.ledger import STAGING_SCHEMA

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: A value in a statement for :func:`run`.
VALUE = re.compile(r"%\((\w+)\)s")
#: PostgreSQL cuts identifiers after 63 bytes; a longer name of ours ends in a hash instead.
LONGEST_NAME = 63

#: Where computed tables are.
ROLL_SCHEMA = "roll"

#: For joins of whole rows, until the transaction ends. One that finds no room is written out and read again (an update of 300,000 rows
#: takes a third longer), and code compiled for 71 columns is not run often enough to pay for it. A hash table takes twice this memory.
WIDE_JOINS = "select set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"


def identifier(*names: str) -> sql.Identifier:
    """A quoted identifier, schema first; a last name that is too long keeps its beginning and gets a hash."""
    *schema, name = names
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return sql.Identifier(*schema, name)


def comma(items: Iterable[sql.Composable]) -> sql.Composed:
    """``a, b, c``."""
    return sql.SQL(", ").join(items)


def names(columns: Iterable[str], prefix: str = "") -> sql.Composed:
    """``"a", "b"``, each behind ``prefix.`` when one is given."""
    return comma(sql.Identifier(prefix, column) if prefix else sql.Identifier(column) for column in columns)


def same(columns: Iterable[str], left: str, right: str) -> sql.Composed:
    """``left.a = right.a and left.b = right.b``: for columns that are never NULL."""
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column)) for column in columns]
    return sql.SQL(" and ").join(pairs)


def run(cursor: Cursor, statement: str, words: Mapping[str, sql.Composable], values: Mapping[str, object]) -> int:
    """Execute a statement with identifiers as ``{word}`` and values as ``%(value)s``; returns its row count.

    The values are written into it as literals: beside arguments psycopg2 takes a ``%`` in the name of a user's column for one of them.
    """
    literals = {f"value_of_{name}": sql.Literal(value) for name, value in values.items()}
    cursor.execute(sql.SQL(VALUE.sub(r"{value_of_\1}", statement)).format(**words, **literals))
    return int(cursor.rowcount)


def live_name(source: str, table_name: str) -> tuple[str, str]:
    """Schema and name of the live table that the ledger calls ``table_name``."""
    if table_name.startswith(ROLL_PREFIX):
        return ROLL_SCHEMA, f"{table_name.removeprefix(ROLL_PREFIX)}_{source}"
    return source, table_name


def partition_of(source: str, table_name: str, tax_year: int) -> sql.Identifier:
    """The live table's partition of a tax year."""
    schema, name = live_name(source, table_name)
    return identifier(schema, f"{name}_{tax_year}")


@dataclass(frozen=True)
class Relations:
    """The relations of one table, and for one import its staging tables."""

    table: Table
    import_id: int = 0

    @property
    def live(self) -> sql.Identifier:
        """The partitioned live table."""
        return identifier(*live_name(self.table.source, self.table.name))

    @property
    def root(self) -> sql.Identifier:
        """What users read: the live table, or the table of all sources that it is a part of."""
        return identifier(ROLL_SCHEMA, self.table.name.removeprefix(ROLL_PREFIX)) if self.table.is_roll else self.live

    def partition(self, tax_year: int) -> sql.Identifier:
        """The live table's partition of a tax year."""
        return partition_of(self.table.source, self.table.name, tax_year)

    @property
    def history(self) -> sql.Identifier:
        """The before-images."""
        return identifier("history", f"{self.table.source}_{self.table.name}")

    @property
    def keys(self) -> sql.Identifier:
        """Narrow staging: part, line, key (or parent) and hash of every row; a view of the whole ones on a first import."""
        return identifier(STAGING_SCHEMA, f"i{self.import_id}_{self.table.name}_keys")

    @property
    def rows(self) -> sql.Identifier:
        """Wide staging: the rows whose hash is not live."""
        return identifier(STAGING_SCHEMA, f"i{self.import_id}_{self.table.name}_rows")

    @property
    def anchor(self) -> tuple[str, ...]:
        """The columns that narrow staging carries: the key, or the parent of a table without one."""
        return self.table.key or self.table.parent

    @property
    def column_names(self) -> tuple[str, ...]:
        """The source's columns, in the order of the schema file."""
        return tuple(column.name for column in self.table.columns)
