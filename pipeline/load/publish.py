"""Publish: the one transaction that merges staging into the live tables, and its exact reverse.

Vanished keys are deleted, rows that differ updated, new ones inserted, each with its before-image; unchanged rows are not
touched. All tables of a release become visible in one commit. Live rows carry the import that last wrote them, so that a
rollback is two statements a table: what this import wrote goes, what its history holds comes back, byte for byte. A first
import of a tax year keeps no row history: the ledger entry says it all, and its rollback empties the year.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, comma, identifier, names, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class Changes:
    """Rows that a publish wrote into one live table."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


REMEMBER = """
insert into {history} (import_id, operation, tax_year, {key}, before_image)
select %(import_id)s, {operation}, l.tax_year, {live_key}, to_jsonb(l) from {live} l {join} where l.tax_year = %(year)s and {where}
"""
DELETE_VANISHED = "delete from {live} l where l.tax_year = %(year)s and not exists (select 1 from {keys} s where {same_key})"
UPDATE_DIFFERING = """
update {live} l set {assignments}, row_hash = s.row_hash, import_id = %(import_id)s
  from {rows} s where l.tax_year = %(year)s and {same_key} and l.row_hash <> s.row_hash
"""
INSERT_NEW = """
insert into {live} (tax_year, {columns}, row_hash, import_id)
select %(year)s, {staged_columns}, s.row_hash, %(import_id)s from {rows} s
 where not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_key})
"""
REMEMBER_NEW = """
insert into {history} (import_id, operation, tax_year, {key}, before_image)
select %(import_id)s, 'I', s.tax_year, {staged_key}, null from {live} s where s.tax_year = %(year)s and s.import_id = %(import_id)s
   and not exists (select 1 from {history} h where h.import_id = %(import_id)s and h.operation = 'U' and {same_key})
"""
#: A table without a key: how many of each content there are and were. Rows are equal or not at all, so the difference of
#: the two counts is all there is to do; which of several equal rows goes is settled by seq, the highest first.
SURPLUS = """
create temporary table surplus on commit drop as
select {anchor}, row_hash, coalesce(o.live, 0) as live, coalesce(n.staged, 0) as staged
  from (select {anchor}, row_hash, count(*) as live from {live} where tax_year = %(year)s group by {anchor}, row_hash) o
  full join (select {anchor}, row_hash, count(*) as staged from {keys} group by {anchor}, row_hash) n using ({anchor}, row_hash)
 where coalesce(o.live, 0) <> coalesce(n.staged, 0)
"""
GOING = """
create temporary table going on commit drop as
select {live_anchor}, seq from (
    select {live_anchor}, l.seq, s.live - s.staged as spare,
           row_number() over (partition by {live_anchor}, l.row_hash order by l.seq desc) as turn
      from {live} l join surplus s on {same_anchor} and l.row_hash = s.row_hash where l.tax_year = %(year)s and s.live > s.staged
) l where turn <= spare
"""
DELETE_GOING = "delete from {live} l using going s where l.tax_year = %(year)s and {same_row}"
#: seq goes on after the highest that the parent has, in the order of the hashes: the file's own order plays no part.
INSERT_COPIES = """
with content as (
    select distinct on ({anchor}, row_hash) * from (
        select {columns}, row_hash from {rows} s
        union all
        select {columns}, row_hash from {live} l where l.tax_year = %(year)s and exists (
            select 1 from surplus s where {same_anchor} and l.row_hash = s.row_hash and s.staged > s.live)
    ) either order by {anchor}, row_hash
)
insert into {live} (tax_year, seq, {columns}, row_hash, import_id)
select %(year)s, coalesce((select max(l.seq) from {live} l where l.tax_year = %(year)s and {same_anchor}), 0)
       + row_number() over (partition by {surplus_anchor} order by s.row_hash), {content_columns}, s.row_hash, %(import_id)s
  from surplus s join content c on {content_anchor} and c.row_hash = s.row_hash, generate_series(1, s.staged - s.live)
"""


#: Into an empty tax year: every row is staged whole, and seq counts from 1 as INSERT_COPIES would have it.
INSERT_FIRST = """
insert into {live} (tax_year, {columns}, row_hash, import_id{seq})
select %(year)s, {columns}, row_hash, %(import_id)s{number} from {rows}
"""
NUMBER = ", row_number() over (partition by {anchor} order by row_hash, line)"


def merge(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    """Merge one staged table into its live table, in the caller's transaction.

    A tax year without rows is filled in one statement and keeps no row history: the ledger entry is all there is to tell.
    """
    year = found.key.tax_year
    cursor.execute(sql.SQL("select not exists (select 1 from {} where tax_year = %s)").format(relations.live), [year])
    (is_empty,) = cursor.fetchone() or (False,)
    cursor.execute(sql.SQL("select (select count(*) from {}) = (select count(*) from {})").format(relations.keys, relations.rows))
    (is_whole,) = cursor.fetchone() or (False,)
    if is_empty and is_whole:
        return _fill(cursor, relations, found)
    one_way = _merge_keyed if relations.table.is_keyed else _merge_keyless
    return one_way(cursor, relations, found)


def _fill(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    words: dict[str, sql.Composable] = {"live": relations.live, "rows": relations.rows, "columns": names(relations.column_names)}
    words |= {"seq": sql.SQL(""), "number": sql.SQL("")}
    if not relations.table.is_keyed:
        words |= {"seq": sql.SQL(", seq"), "number": sql.SQL(NUMBER).format(anchor=names(relations.anchor))}
    return Changes(inserted=_run(cursor, INSERT_FIRST, words, {"import_id": found.import_id, "year": found.key.tax_year}))


def _merge_keyed(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    rest = [name for name in relations.column_names if name not in relations.anchor]
    words: dict[str, sql.Composable] = {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "history": relations.history,
        "key": names(relations.anchor), "live_key": names(relations.anchor, "l"), "staged_key": names(relations.anchor, "s"),
        "same_key": same(relations.anchor, "l", "s"), "columns": names(relations.column_names),
        "staged_columns": names(relations.column_names, "s"),
        "assignments": comma([sql.SQL("{0} = s.{0}").format(sql.Identifier(name)) for name in rest] or [sql.SQL("tax_year = l.tax_year")]),
    }  # fmt: skip
    vanished = sql.SQL("not exists (select 1 from {keys} s where {same_key})").format(**words)
    _run(cursor, REMEMBER, words | {"operation": sql.Literal("D"), "join": sql.SQL(""), "where": vanished}, values)
    deleted = _run(cursor, DELETE_VANISHED, words, values)
    differing = sql.SQL("join {rows} s on {same_key} and l.row_hash <> s.row_hash").format(**words)
    _run(cursor, REMEMBER, words | {"operation": sql.Literal("U"), "join": differing, "where": sql.SQL("true")}, values)
    updated = _run(cursor, UPDATE_DIFFERING, words, values)
    inserted = _run(cursor, INSERT_NEW, words, values)
    if inserted:
        _run(cursor, REMEMBER_NEW, words | {"same_key": same(relations.anchor, "h", "s")}, values)
    return Changes(inserted, updated, deleted)


def _merge_keyless(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    words: dict[str, sql.Composable] = {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "history": relations.history,
        "anchor": names(relations.anchor), "live_anchor": names(relations.anchor, "l"), "surplus_anchor": names(relations.anchor, "s"),
        "same_anchor": same(relations.anchor, "l", "s"), "content_anchor": same(relations.anchor, "c", "s"),
        "columns": names(relations.column_names), "content_columns": names(relations.column_names, "c"),
    }  # fmt: skip
    cursor.execute("drop table if exists pg_temp.surplus, pg_temp.going")
    _run(cursor, SURPLUS, words, values)
    cursor.execute("analyze surplus")
    _run(cursor, GOING, words, values)
    key = (*relations.anchor, "seq")
    gone = {"key": names(key), "live_key": names(key, "l"), "operation": sql.Literal("D"), "where": sql.SQL("true")}
    join = sql.SQL("join going s on {}").format(same(key, "l", "s"))
    _run(cursor, REMEMBER, words | gone | {"join": join}, values)
    deleted = _run(cursor, DELETE_GOING, words | {"same_row": same(key, "l", "s")}, values)
    inserted = _run(cursor, INSERT_COPIES, words, values)
    if inserted:
        added = {"key": names(key), "staged_key": names(key, "s"), "same_key": same(key, "h", "s")}
        _run(cursor, REMEMBER_NEW, words | added, values)
    return Changes(inserted, 0, deleted)


RESTORE = """
insert into {live} ({columns}) select {before} from {history} h, lateral jsonb_populate_record(null::{live}, h.before_image) b
 where h.import_id = %(import_id)s and h.tax_year = %(year)s and h.operation <> 'I'
"""


def take_back(cursor: Cursor, source: str, table_name: str, found: Import) -> Changes:
    """Undo what an import wrote into one live table, in the caller's transaction; the reverse of :func:`merge`.

    It needs the ledger and the database alone: a table that the catalog no longer has is taken back like any other.
    """
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    words: dict[str, sql.Composable] = {
        "live": identifier(source, table_name),
        "history": identifier("history", f"{source}_{table_name}"),
    }
    removed = _run(cursor, "delete from {live} where tax_year = %(year)s and import_id = %(import_id)s", words, values)
    # Not those that PostgreSQL computes itself, which a user may have added.
    cursor.execute(
        """select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attgenerated = ''
            order by attnum""",
        [words["live"].as_string(cursor)],
    )
    columns = [name for (name,) in cursor.fetchall()]
    restored = _run(cursor, RESTORE, words | {"columns": names(columns), "before": names(columns, "b")}, values)
    _run(cursor, "delete from {history} where import_id = %(import_id)s and tax_year = %(year)s", words, values)
    return Changes(restored, 0, removed)


def content_hash(cursor: Cursor, relations: Relations, tax_year: int) -> tuple[int, str]:
    """The number of rows of a tax year and a hash of their content, whatever their order, seq or import.

    It is taken from the values themselves, not from ``row_hash``: two tables are equal when these two are.
    """
    cursor.execute(
        sql.SQL(
            """select count(*), coalesce(sum(('x' || left(h, 16))::bit(64)::bigint::numeric), 0)::text || '/' ||
                      coalesce(sum(('x' || right(h, 16))::bit(64)::bigint::numeric), 0)::text
                 from (select md5(row({})::text) as h from {} where tax_year = %s) rows"""
        ).format(names(sorted(relations.column_names)), relations.live),
        [tax_year],
    )
    row = cursor.fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")


def _run(cursor: Cursor, statement: str, words: dict[str, sql.Composable], values: dict[str, object]) -> int:
    cursor.execute(sql.SQL(statement).format(**words), values)
    return int(cursor.rowcount)
