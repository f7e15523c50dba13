"""Staging of a computed table: its rows out of what the other tables will be, ready for the gate and the publish like any other.

On a first import, or where the SQL, the declaration or a table of codes has changed, every row is computed; else those of the accounts of
which something changed, and every other row stays as it is live: narrow staging is then a view of the live keys of the other accounts and
of what was computed. All of it, with the marker, is one transaction; what an earlier try left is made anew. So a computed table
is a function of the tables that are published with it, and ``hcad-pipeline verify --roll`` computes it again to see that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from pipeline.catalog.model import Source
from pipeline.catalog.recipe import roll_recipe
from pipeline.catalog.roll import Roll
from pipeline.database.ledger import STAGING_SCHEMA, Import
from pipeline.errors import CatalogError, StagingStale
from pipeline.load import shape
from pipeline.load.images import pin_forms
from pipeline.load.relations import WIDE_JOINS, Relations, identifier, names, run, same
from pipeline.load.roll_inputs import IN_ONE_SCAN, RollQuery
from pipeline.load.roll_scope import fill_scope, is_all
from pipeline.load.staging import StagedTable, lock_table, record_staged, staged_tables

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: What the server says of SQL that does not fit: of a statement, of a value, of a column that must have one.
REFUSALS = (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.IntegrityError)
LEFT = """
select c.relname, c.relkind = 'v' from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = %s and c.relname = any(%s) order by c.relkind = 'v' desc
"""
WHOLE = "insert into {rows} (part, line, {columns}, row_hash) select 0, 0, {columns}, row_hash from ({typed}) r"
COMPUTED = "create temporary table computed on commit drop as {typed}"
NARROW = "insert into {made} (part, line, {anchor}, row_hash) select 0, 0, {anchor}, row_hash from computed"
NOT_LIVE = """
insert into {rows} (part, line, {columns}, row_hash) select 0, 0, {columns}, row_hash from computed s
 where not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor} and l.row_hash = s.row_hash)
"""
#: The keys of every row as it will be: of the accounts outside of the scope those that are live.
KEYS = """
create view {keys} as select 0 as part, 0::bigint as line, {live_anchor}, l.row_hash from {live} l
 where l.tax_year = %(year)s and not exists (select 1 from {scope} a where a.account = l.{account})
 union all select part, line, {anchor}, row_hash from {made}
"""
REPEATED = "select {anchor} from {keys} group by {anchor} having count(*) > 1 order by {anchor} limit 3"


def stage_roll(cursor: Cursor, found: Import, source: Source, roll: Roll) -> StagedTable:
    """Stage a computed table and write its marker; one that is staged already is left as it is.

    Args:
        cursor: in the transaction that commits the marker.
        found: the open import, locked; all inputs that the tax year has are settled.
        source: the source.
        roll: the table, whose live table is there.

    Raises:
        StagingStale: an input is not settled.
        CatalogError: the SQL does not give what the table declares.
    """
    started = time.monotonic()
    relations = Relations(roll.table, found.import_id)
    lock_table(cursor, relations)
    staged = {table.table: table for table in staged_tables(cursor, found.import_id)}
    if roll.table.name in staged:
        return staged[roll.table.name]
    query = RollQuery(source, roll, found, staged)
    if missing := [one.table.name for one in query.inputs if one.table.name not in staged]:
        raise StagingStale(f"{', '.join(missing)} of import {found.import_id} not staged", "every input", "nothing; it is staged again")
    _clear(cursor, relations)
    pin_forms(cursor)
    cursor.execute(WIDE_JOINS)
    recipe = roll_recipe(source, roll, found.key.tax_year)
    with _told(roll):
        _check_columns(cursor, roll, query)
        if not _has_base(cursor, found, roll, recipe) or is_all(cursor, found, query.inputs, staged):
            _stage_all(cursor, found, relations, query)
        else:
            kept = _stage_some(cursor, found, relations, roll, query, staged)
            if kept is not None:
                record_staged(cursor, found.import_id, kept)
                return kept
        _check_key(cursor, roll, relations)
    rows = _count(cursor, relations)
    made = StagedTable(
        roll.table.name, "staged", None, recipe, 0, rows, rows, 0, 0, 0, 0, 0, {}, {}, {}, time.monotonic() - started
    )  # fmt: skip
    record_staged(cursor, found.import_id, made)
    return made


def _has_base(cursor: Cursor, found: Import, roll: Roll, recipe: str) -> bool:
    """Whether what is live was made with this recipe, from what the import is compared with."""
    cursor.execute(
        "select recipe from etl.import_table where import_id = %s and table_name = %s", [found.base_import_id, roll.table.name]
    )
    return cursor.fetchone() == (recipe,)


def _stage_all(cursor: Cursor, found: Import, relations: Relations, query: RollQuery) -> None:
    is_first = found.base_import_id is None
    shape.create_staging(cursor, relations, is_first=is_first)
    words: dict[str, sql.Composable] = _words(relations) | {"typed": query.typed()}
    # Nothing is looked up by itself where every row is read.
    cursor.execute(IN_ONE_SCAN)
    if is_first:
        run(cursor, WHOLE, words, {})
    else:
        _stage_computed(cursor, found, words | {"made": relations.keys})
    shape_of = (relations.rows,) if is_first else (relations.keys, relations.rows)
    for name in shape_of:
        cursor.execute(sql.SQL("analyze {} ({})").format(name, names((*relations.anchor, "row_hash"))))


def _stage_some(
    cursor: Cursor, found: Import, relations: Relations, roll: Roll, query: RollQuery, staged: Mapping[str, StagedTable]
) -> StagedTable | None:
    """Stage the accounts of which something changed; where there are none, the table as it stands."""
    scope, made = _beside(relations, "scope"), _beside(relations, "made")
    account = roll.table.column(roll.account)
    cursor.execute(sql.SQL("create unlogged table {} (account {} primary key)").format(scope, sql.SQL(account.type.sql)))
    if not fill_scope(cursor, found, query.inputs, staged, scope):
        _clear(cursor, relations)
        return _kept(cursor, found, roll)
    shape.create_staging(cursor, relations, is_first=False)
    # The narrow table is that of the computed rows; the view of all keys takes its name.
    cursor.execute(sql.SQL("alter table {} rename to {}").format(relations.keys, sql.Identifier(made.strings[-1])))
    query.gather(cursor, scope)
    words = _words(relations) | {"typed": query.typed(), "made": made, "scope": scope, "account": sql.Identifier(roll.account)}
    _stage_computed(cursor, found, words)
    run(cursor, KEYS, words, {"year": found.key.tax_year})
    for name in (made, relations.rows):
        cursor.execute(sql.SQL("analyze {} ({})").format(name, names((*relations.anchor, "row_hash"))))
    return None


def _stage_computed(cursor: Cursor, found: Import, words: Mapping[str, sql.Composable]) -> None:
    cursor.execute("drop table if exists pg_temp.computed")
    run(cursor, COMPUTED, words, {})
    cursor.execute("analyze computed")
    run(cursor, NARROW, words, {})
    run(cursor, NOT_LIVE, words, {"year": found.key.tax_year})


def _kept(cursor: Cursor, found: Import, roll: Roll) -> StagedTable:
    cursor.execute(
        "select recipe, rows_loaded from etl.import_table where import_id = %s and table_name = %s", [found.base_import_id, roll.table.name]
    )
    recipe, rows = cursor.fetchone() or (None, 0)
    return StagedTable(roll.table.name, "unchanged", None, recipe, 0, rows, rows, 0, 0, 0, 0, 0, {}, {}, {}, 0.0)


def _check_columns(cursor: Cursor, roll: Roll, query: RollQuery) -> None:
    """The SQL gives the declared columns and no others."""
    cursor.execute(sql.SQL("select * from ({}) q limit 0").format(query.select()))
    given = [column.name for column in cursor.description or ()]
    declared = [column.name for column in roll.table.columns]
    if sorted(given) != sorted(declared):
        missing, more = sorted(set(declared) - set(given)), sorted(set(given) - set(declared))
        said = f"no {', '.join(missing)}" if missing else ", ".join(more) or "a column twice"
        raise CatalogError(
            f"the SQL of {roll.table.qualified} for {roll.table.source} gives {said}",
            f"the columns of schemas/roll: {', '.join(declared)}",
            "mend the SQL, or declare the column",
        )


def _check_key(cursor: Cursor, roll: Roll, relations: Relations) -> None:
    """No key comes twice."""
    if not roll.table.is_keyed:
        return
    keys = identifier(STAGING_SCHEMA, _beside(relations, "made").strings[-1])
    cursor.execute("select to_regclass(%s) is not null", [keys.as_string(cursor)])
    made = keys if (cursor.fetchone() or (False,))[0] else relations.keys
    run(cursor, REPEATED, {"anchor": names(relations.anchor), "keys": made}, {})
    if repeated := cursor.fetchall():
        is_personal = any(roll.table.column(name).personal for name in relations.anchor)
        shown = "a personal one" if is_personal else "; ".join(" ".join(map(str, row)) for row in repeated)
        raise CatalogError(
            f"the SQL of {roll.table.qualified} for {roll.table.source} gives a key twice: {shown}",
            f"one row for each {', '.join(relations.anchor)}", "mend the SQL",
        )  # fmt: skip


def _count(cursor: Cursor, relations: Relations) -> int:
    cursor.execute(sql.SQL("select count(*) from {}").format(relations.keys))
    return int((cursor.fetchone() or (0,))[0])


def _words(relations: Relations) -> dict[str, sql.Composable]:
    return {
        "rows": relations.rows, "keys": relations.keys, "live": relations.live, "columns": names(relations.column_names),
        "anchor": names(relations.anchor), "live_anchor": names(relations.anchor, "l"), "same_anchor": same(relations.anchor, "l", "s"),
    }  # fmt: skip


def _beside(relations: Relations, what: str) -> sql.Identifier:
    return identifier(STAGING_SCHEMA, f"i{relations.import_id}_{relations.table.name}_{what}")


def _clear(cursor: Cursor, relations: Relations) -> None:
    """Drop what an earlier try has left of this import's staging of the table."""
    every = [name.strings[-1] for name in (relations.keys, relations.rows, _beside(relations, "scope"), _beside(relations, "made"))]
    cursor.execute(LEFT, [STAGING_SCHEMA, every])
    for name, is_view in cursor.fetchall():
        kind = sql.SQL("view" if is_view else "table")
        cursor.execute(sql.SQL("drop {} {}").format(kind, sql.Identifier(STAGING_SCHEMA, name)))


@contextmanager
def _told(roll: Roll) -> Iterator[None]:
    """Make of what the server refuses in the SQL an error that names the table.

    Raises:
        CatalogError: it is the SQL's fault.
    """
    try:
        yield
    except REFUSALS as error:
        raise CatalogError(
            f"the SQL of {roll.table.qualified} for {roll.table.source} fails: {' '.join(str(error).split())} (SQLSTATE {error.pgcode})",
            "SQL that gives the columns of schemas/roll, of their types",
            "mend the SQL",
        ) from error
