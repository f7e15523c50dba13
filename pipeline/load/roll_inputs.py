"""What the SQL of a computed table reads: its inputs as they will be after the publish, all of them or those of some accounts.

Each is a subquery in the place of its name: of a table that stays as it is the live rows, of a staged one (as in
:mod:`pipeline.load.next_state`) those staged whole and the live rows that stay, of one that the tax year does not have no row, with its
columns. Where accounts are given, rows of others are left out before anything is computed of them: so the SQL needs no scope of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg2 import sql

from pipeline.catalog.model import Source
from pipeline.catalog.roll import Roll, RollInput
from pipeline.catalog.roll_files import PLACE, TAX_YEAR
from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, comma, names, same
from pipeline.load.staging import StagedTable

NONE = "select {nulls} where false"
LIVE = "select {live_columns} from {live} l where l.tax_year = {year}{of_live}"
STAGED = "select {staged_columns} from {rows} s where true{of_staged}"
KEPT = (
    "select {live_columns} from {keys} s join {live} l on {same_anchor} and l.row_hash = s.row_hash where l.tax_year = {year}{of_live}"
)
#: Of equal live rows one is taken, as often as the content is staged.
KEPT_COPIES = """
select {live_columns} from {keys} s join (
    select l.*, row_number() over (partition by {live_anchor}, l.row_hash order by l.seq) as copy
      from {live} l where l.tax_year = {year}{of_live}
) l on {same_anchor} and l.row_hash = s.row_hash and l.copy = 1
"""
#: An account of the scope.
IN_SCOPE = " and exists (select 1 from {scope} a where a.account = {row}.{account})"
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

    @property
    def inputs(self) -> list[RollInput]:
        """Those that the tax year has."""
        return [one for one in self._roll.inputs if one.table.name in self._there]

    def select(self, scope: sql.Identifier | None = None) -> sql.Composed:
        """The SQL, with its places filled.

        Args:
            scope: a table of the accounts (``account``) that are computed; None: all.
        """
        words = {one.table.name: self._input(one, scope) for one in self._roll.inputs}
        pieces: list[sql.Composable] = []
        text, places = self._roll.sql, list(PLACE.finditer(self._roll.sql))
        for place, start in zip(places, [0, *(place.end() for place in places)], strict=False):
            pieces += [sql.SQL(text[start : place.start()])]
            pieces += [sql.Literal(self._found.key.tax_year)] if place[1] == TAX_YEAR else [sql.SQL("("), words[place[1]], sql.SQL(")")]
        # Its last line may be a comment.
        return sql.Composed([*pieces, sql.SQL(text[places[-1].end() if places else 0 :]), sql.SQL("\n")])

    def typed(self, scope: sql.Identifier | None = None) -> sql.Composed:
        """The rows with the declared types and their hash, in the order of the declaration."""
        columns = self._roll.table.columns
        casts = comma(sql.SQL("q.{0}::{1} as {0}").format(sql.Identifier(one.name), sql.SQL(one.type.sql)) for one in columns)
        every = names([one.name for one in columns], "r")
        # Not pulled up: each value would be computed twice, for itself and for the hash.
        return sql.SQL("select {}, {} as row_hash from (select {} from ({}) q offset 0) r").format(
            every, row_hash(one.name for one in columns), casts, self.select(scope)
        )

    def _input(self, one: RollInput, scope: sql.Identifier | None) -> sql.Composed:
        table = one.table
        if table.name not in self._there:
            columns = [("tax_year", "integer"), *((column.name, column.type.sql) for column in table.columns)]
            nulls = [sql.SQL("null::{} as {}").format(sql.SQL(kind), sql.Identifier(name)) for name, kind in columns]
            return sql.SQL(NONE).format(nulls=comma(nulls))
        relations, year = Relations(table, self._found.import_id), sql.Literal(self._found.key.tax_year)
        staged = self._staged[table.name] if self._staged is not None else None
        words: dict[str, sql.Composable] = {
            "live": relations.live, "keys": relations.keys, "rows": relations.rows, "year": year,
            "live_columns": names(("tax_year", *relations.column_names), "l"), "same_anchor": same(relations.anchor, "l", "s"),
            "staged_columns": sql.SQL("{} as tax_year, {}").format(year, names(relations.column_names, "s")),
            "live_anchor": names(relations.anchor, "l"), "of_live": _within(one, scope, "l"), "of_staged": _within(one, scope, "s"),
        }  # fmt: skip
        if staged is None or staged.disposition != "staged":
            return sql.SQL(LIVE).format(**words)
        if self._found.base_import_id is None:
            return sql.SQL(STAGED).format(**words)
        return sql.SQL(f"{STAGED} union all {KEPT if table.is_keyed else KEPT_COPIES}").format(**words)


def row_hash(columns: Iterable[str], row: str = "r") -> sql.Composed:
    """The hash of a computed row."""
    return sql.SQL(ROW_HASH).format(columns=names(columns, row))


def _within(one: RollInput, scope: sql.Identifier | None, row: str) -> sql.Composed:
    if scope is None or one.account is None:
        return sql.Composed([])
    return sql.SQL(IN_SCOPE).format(scope=scope, row=sql.Identifier(row), account=sql.Identifier(one.account))
