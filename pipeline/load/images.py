"""Before-images: what a live row was, as the texts of its columns.

An image is one ``text[]`` with a value a column, by position; ``etl.image_columns`` keeps the columns' names once for each import and
table, so that a column which came or went since is no matter. PostgreSQL's own text of a value, in the forms that :func:`pin_forms`
sets, gives the same value back, of every type and on every server. Of a wide row it is half as large as a JSON document, and written in
a tenth of the time: ``scripts/bench.py load``, 100 % changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import ROLL_PREFIX
from pipeline.database.ledger import ImportKey
from pipeline.load.relations import comma, identifier, live_name

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

KEY = """
select a.attname from pg_index i, unnest(i.indkey) with ordinality k(attnum, place) join pg_attribute a on a.attnum = k.attnum
 where i.indrelid = to_regclass(%s) and a.attrelid = i.indrelid and i.indisprimary and k.place <= i.indnkeyatts
   and a.attname <> all(%s) order by k.place
"""
#: Not those that PostgreSQL computes itself, which a user may have added.
COLUMNS = """
select a.attname, exists (select 1 from etl.live_column c where (c.source, c.table_name, c.column_name) = (%s, %s, a.attname)),
       format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1)
  from pg_attribute a where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum
"""
#: How dates, intervals, floating numbers and bytes are written: any session reads them back as they were.
FORMS = """
select set_config('datestyle', 'ISO, MDY', true), set_config('intervalstyle', 'postgres', true),
       set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)
"""


@dataclass(frozen=True)
class LiveTable:
    """A live table as the database has it.

    Attributes:
        name, live, history: its name, and as SQL has it and its history.
        key: its key without the tax year.
        columns: all of its columns but those that PostgreSQL computes.
        ours: those of them that are the source's.
        types: their types, with lengths and precisions.
        bare_types: their types without these: a cast to one of them cuts nothing off.
    """

    name: str
    live: sql.Identifier
    history: sql.Identifier
    key: tuple[str, ...]
    columns: tuple[str, ...]
    ours: tuple[str, ...]
    types: Mapping[str, str]
    bare_types: Mapping[str, str]

    @classmethod
    def read(cls, cursor: Cursor, source: str, table_name: str) -> LiveTable:
        """Read it from the system catalog and the ledger; without a key when there is no such table."""
        live = identifier(*live_name(source, table_name))
        # The live table of a computed one has the rows of one source.
        constant = ["tax_year", "source"] if table_name.startswith(ROLL_PREFIX) else ["tax_year"]
        cursor.execute(KEY, [live.as_string(cursor), constant])
        key = tuple(name for (name,) in cursor.fetchall())
        cursor.execute(COLUMNS, [source, table_name, live.as_string(cursor)])
        columns = cursor.fetchall()
        return cls(
            table_name, live, identifier("history", f"{source}_{table_name}"), key, tuple(name for name, *_ in columns),
            tuple(name for name, is_ours, *_ in columns if is_ours), {name: exact for name, _, exact, _ in columns},
            {name: bare for name, *_, bare in columns},
        )  # fmt: skip


def pin_forms(cursor: Cursor) -> None:
    """Have values written as images hold them, until the transaction ends."""
    cursor.execute(FORMS)


def texts(columns: Iterable[str], row: str) -> sql.Composed:
    """The image of a row; in the forms that :func:`pin_forms` sets."""
    return sql.SQL("array[{}]").format(comma(sql.SQL("{}::text").format(sql.Identifier(row, column)) for column in columns))


def remember_columns(cursor: Cursor, import_id: int, table: LiveTable) -> None:
    """Keep the names of the columns, in their order, of the images that an import is about to leave of a table."""
    cursor.execute(
        "insert into etl.image_columns (import_id, table_name, columns) values (%s, %s, %s)", [import_id, table.name, list(table.columns)]
    )


def forget_columns(cursor: Cursor, import_ids: list[int], table_name: str) -> None:
    """Forget them, when the images are gone."""
    cursor.execute("delete from etl.image_columns where import_id = any(%s) and table_name = %s", [import_ids, table_name])


@dataclass(frozen=True)
class Images:
    """How the images of a table are read: by import, the place of each column."""

    table: LiveTable
    places: Mapping[int, Mapping[str, int]]

    @classmethod
    def read(cls, cursor: Cursor, table: LiveTable, key: ImportKey, since: int) -> Images:
        """Of the imports of a source and tax year from one on."""
        cursor.execute(
            """select c.import_id, c.columns from etl.image_columns c join etl.import i using (import_id)
                where (i.source, i.tax_year, c.table_name) = (%s, %s, %s) and c.import_id >= %s""",
            [key.source, key.tax_year, table.name, since],
        )
        return cls(table, {number: {name: place for place, name in enumerate(columns, 1)} for number, columns in cursor.fetchall()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The live columns that are in some of the images."""
        return tuple(name for name in self.table.columns if any(name in places for places in self.places.values()))

    def value(self, column: str, row: str, *, exact_type: bool = False) -> sql.Composed:
        """A column's value in the image of a history row, of its type now; NULL where the image does not have the column.

        ``exact_type``: as the live column gives it, with its length and precision.
        """
        kind = sql.SQL((self.table.types if exact_type else self.table.bare_types)[column])
        found = {number: places.get(column) for number, places in self.places.items()}
        image = sql.Identifier(row, "before_image")
        if len(set(found.values())) == 1 and (place := next(iter(found.values()))):
            return sql.SQL("{}[{}]::{}").format(image, sql.Literal(place), kind)
        cases = [sql.SQL("when {} then {}").format(sql.Literal(number), sql.Literal(place)) for number, place in found.items() if place]
        if not cases:
            return sql.SQL("null::{}").format(kind)
        chosen = sql.SQL("case {} {} end").format(sql.Identifier(row, "import_id"), sql.SQL(" ").join(cases))
        return sql.SQL("{}[{}]::{}").format(image, chosen, kind)
