"""What the SQL of a computed table reads: its inputs as they will be after the publish, all of them or those of some accounts.

Each stands in the place of its name: of a table that stays as it is the live rows, of a staged one (as in
:mod:`pipeline.load.next_state`) those staged whole and the live rows that stay, of one that the tax year does not have no row, with its
columns. Where accounts are given, rows of others are left out before anything is computed of them, so that the SQL needs no scope of its
own: they are gathered in temporary tables first, small and analyzed, because PostgreSQL takes the rows that stay for far fewer than they
are and would look each of them up by itself, in a time that grows with the square of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import Source
from pipeline.catalog.roll import Roll, RollInput
from pipeline.catalog.roll_files import PLACE, TAX_YEAR
from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, comma, identifier, names, run, same
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

NONE = "select {nulls} where false"
LIVE = "select {live_columns} from {live} l where l.tax_year = {year}"
STAGED = "select {staged_columns} from {rows} s"
KEPT = "select {live_columns} from {keys} s join {live} l on {same_anchor} and l.row_hash = s.row_hash where l.tax_year = {year}"
#: Of equal live rows one is taken, as often as the content is staged.
KEPT_COPIES = """
select {live_columns} from {keys} s join (
    select l.*, row_number() over (partition by {live_anchor}, l.row_hash order by l.seq) as copy from {live} l where l.tax_year = {year}
) l on {same_anchor} and l.row_hash = s.row_hash and l.copy = 1
"""
#: What of a table is of the accounts of the scope.
LIVE_SOME = """
create temporary table {some} on commit drop as
select l.* from {live} l where l.tax_year = %(year)s and exists (select 1 from {scope} a where a.account = l.{account})
"""
STAGED_SOME = """
create temporary table {some} on commit drop as
select s.* from {staged} s where exists (select 1 from {scope} a where a.account = s.{account})
"""
#: Where the narrow rows do not have the account: those of the live rows that were found.
KEYS_SOME = """
create temporary table {some} on commit drop as
select s.* from {staged} s where exists (select 1 from {found} l where {same_anchor} and l.row_hash = s.row_hash)
"""
GATHERED = "create temporary table {some} on commit drop as {select}"
#: Around a join of rows that stay with their keys.
IN_ONE_SCAN, AS_EVER = "set local enable_nestloop to off", "set local enable_nestloop to default"
#: The hash of a computed row, over its values in the order of the schema file: the types are declared, so that equal values are equal
#: texts; a NULL is not an empty text.
ROW_HASH = "md5(row({columns})::text)::uuid"


class RollQuery:
    """The rows of one computed table.

    Args:
        source: its source.
        roll: the table.
        found: the import that is staged; with ``staged`` None: any of the tax year.
        staged: the account of each input; None: what is live is read.
    """

    def __init__(self, source: Source, roll: Roll, found: Import, staged: Mapping[str, StagedTable] | None) -> None:
        self._roll, self._found, self._staged = roll, found, staged
        self._there = {table.name for table in source.tables_for(found.key.tax_year)}
        self._gathered: dict[str, sql.Identifier] = {}

    @property
    def inputs(self) -> list[RollInput]:
        """Those that the tax year has."""
        return [one for one in self._roll.inputs if one.table.name in self._there]

    def gather(self, cursor: Cursor, scope: sql.Identifier) -> None:
        """Put what the inputs will have of some accounts into temporary tables, from which the SQL then reads.

        Args:
            cursor: in the transaction that reads them; they go with it.
            scope: a table of the accounts (``account``).
        """
        for one in self.inputs:
            if one.account is not None:
                self._gathered[one.table.name] = self._gather(cursor, one, one.account, scope)

    def select(self) -> sql.Composed:
        """The SQL, with its places filled."""
        pieces: list[sql.Composable] = []
        text, end = self._roll.sql, 0
        words = {one.table.name: one for one in self._roll.inputs}
        for place in PLACE.finditer(text):
            pieces.append(sql.SQL(text[end : place.start()]))
            if place[1] == TAX_YEAR:
                pieces.append(sql.Literal(self._found.key.tax_year))
            else:
                pieces.append(sql.SQL("({})").format(self._input(words[place[1]])))
            end = place.end()
        # Its last line may be a comment.
        return sql.Composed([*pieces, sql.SQL(text[end:]), sql.SQL("\n")])

    def typed(self) -> sql.Composed:
        """The rows with the declared types and their hash, in the order of the declaration."""
        columns = self._roll.table.columns
        casts = comma(sql.SQL("q.{0}::{1} as {0}").format(sql.Identifier(one.name), sql.SQL(one.type.sql)) for one in columns)
        every = names([one.name for one in columns], "r")
        # Not pulled up: each value would be computed twice, for itself and for the hash.
        return sql.SQL("select {}, {} as row_hash from (select {} from ({}) q offset 0) r").format(
            every, row_hash(one.name for one in columns), casts, self.select()
        )

    def _input(self, one: RollInput) -> sql.Composed:
        if one.table.name in self._gathered:
            return sql.SQL("select * from {}").format(self._gathered[one.table.name])
        if one.table.name not in self._there:
            columns = [("tax_year", "integer"), *((column.name, column.type.sql) for column in one.table.columns)]
            return sql.SQL(NONE).format(
                nulls=comma(sql.SQL("null::{} as {}").format(sql.SQL(kind), sql.Identifier(name)) for name, kind in columns)
            )
        relations = Relations(one.table, self._found.import_id)
        return self._next(one, relations.live, relations.keys, relations.rows)

    def _next(self, one: RollInput, live: sql.Identifier, keys: sql.Identifier, rows: sql.Identifier) -> sql.Composed:
        """The next state of a table, made of its live rows and its staging, or of a part of each."""
        relations, year = Relations(one.table), sql.Literal(self._found.key.tax_year)
        words: dict[str, sql.Composable] = {
            "live": live, "keys": keys, "rows": rows, "year": year, "live_anchor": names(relations.anchor, "l"),
            "live_columns": names(("tax_year", *relations.column_names), "l"), "same_anchor": same(relations.anchor, "l", "s"),
            "staged_columns": sql.SQL("{} as tax_year, {}").format(year, names(relations.column_names, "s")),
        }  # fmt: skip
        if not self._is_staged(one):
            return sql.SQL(LIVE).format(**words)
        if self._found.base_import_id is None:
            return sql.SQL(STAGED).format(**words)
        return sql.SQL(f"{STAGED} union all {KEPT if one.table.is_keyed else KEPT_COPIES}").format(**words)

    def _is_staged(self, one: RollInput) -> bool:
        return self._staged is not None and self._staged[one.table.name].disposition == "staged"

    def _gather(self, cursor: Cursor, one: RollInput, account: str, scope: sql.Identifier) -> sql.Identifier:
        relations = Relations(one.table, self._found.import_id)
        some = {what: identifier(f"some_{what}_{one.table.name}") for what in ("live", "keys", "rows", "next")}
        words: dict[str, sql.Composable] = {"scope": scope, "account": sql.Identifier(account)}
        run(cursor, LIVE_SOME, words | {"live": relations.live, "some": some["live"]}, {"year": self._found.key.tax_year})
        _analyze(cursor, some["live"])
        if not self._is_staged(one):
            return some["live"]
        cursor.execute(IN_ONE_SCAN)
        statement = STAGED_SOME if account in relations.anchor else KEYS_SOME
        words |= {"found": some["live"], "same_anchor": same(relations.anchor, "l", "s")}
        run(cursor, statement, words | {"staged": relations.keys, "some": some["keys"]}, {})
        run(cursor, STAGED_SOME, words | {"staged": relations.rows, "some": some["rows"]}, {})
        for what in ("keys", "rows"):
            _analyze(cursor, some[what])
        run(cursor, GATHERED, {"some": some["next"], "select": self._next(one, some["live"], some["keys"], some["rows"])}, {})
        cursor.execute(AS_EVER)
        _analyze(cursor, some["next"])
        return some["next"]


def _analyze(cursor: Cursor, table: sql.Identifier) -> None:
    cursor.execute(sql.SQL("analyze {}").format(table))


def row_hash(columns: Iterable[str], row: str = "r") -> sql.Composed:
    """The hash of a computed row."""
    return sql.SQL(ROW_HASH).format(columns=names(columns, row))
