"""Publish: the one transaction that merges staging into the live tables.

Vanished keys are deleted, rows that differ updated, new ones inserted, each with its before-image; unchanged rows are not
touched. All tables of a release become visible in one commit. In how many updated rows each column differs is counted. Live rows carry
the import that last wrote them, which is what ``pipeline.load.take_back`` needs besides the history. A first
import of a tax year keeps no row history: the ledger entry says it all, and its rollback empties the year.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql
from psycopg2.extras import execute_values

from pipeline.database.ledger import Import
from pipeline.errors import AccountingError
from pipeline.load import partition, whole
from pipeline.load.images import LiveTable, pin_forms, remember_columns, texts
from pipeline.load.relations import WIDE_JOINS, Relations, comma, names, run, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class Changes:
    """Rows that a publish wrote into one live table; ``is_first``: into an empty tax year."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    is_first: bool = False


#: Of the rows that are staged whole those whose key is not live are new, and those that are live with another hash differ; on a first
#: import into a tax year that has rows already some may be equal.
COUNTS = """
select (select count(*) from {live} l where l.tax_year = %(year)s), (select count(*) from {keys}),
       count(*), count(*) filter (where l.tax_year is null), count(*) filter (where l.row_hash <> s.row_hash)
  from {rows} s left join {live} l on l.tax_year = %(year)s and {same_key}
"""
#: What goes and its before-image are one statement: the image is of the very row that was deleted.
DELETE_VANISHED = """
with gone as (
    delete from {live} l where l.tax_year = %(year)s and not exists (select 1 from {keys} s where {same_key})
    returning {live_key}, {image} as before_image)
insert into {history} (import_id, operation, tax_year, {key}, before_image)
select %(import_id)s, 'D', %(year)s, {key}, before_image from gone
"""
REMEMBER_DIFFERING = """
insert into {history} (import_id, operation, tax_year, {key}, before_image)
select %(import_id)s, 'U', l.tax_year, {live_key}, {image} from {live} l join {rows} s on {same_key} and l.row_hash <> s.row_hash
 where l.tax_year = %(year)s
"""
COUNT_DIFFERING = """
select {counts} from {live} l join {rows} s on {same_key} and l.row_hash <> s.row_hash where l.tax_year = %(year)s
"""
UPDATE_DIFFERING = """
update {live} l set {assignments}, row_hash = s.row_hash, import_id = %(import_id)s
  from {rows} s where l.tax_year = %(year)s and {same_key} and l.row_hash <> s.row_hash
"""
INSERT_NEW = """
with new as (
    insert into {live} (tax_year, {columns}, row_hash, import_id)
    select %(year)s, {staged_columns}, s.row_hash, %(import_id)s from {rows} s
     where not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_key})
    returning {key})
insert into {history} (import_id, operation, tax_year, {key}) select %(import_id)s, 'I', %(year)s, {key} from new
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
DELETE_GOING = """
with gone as (
    delete from {live} l using going s where l.tax_year = %(year)s and {same_row} returning {live_key}, {image} as before_image)
insert into {history} (import_id, operation, tax_year, {key}, before_image)
select %(import_id)s, 'D', %(year)s, {key}, before_image from gone
"""
#: seq goes on after the highest that the parent has, in the order of the hashes: the file's own order plays no part.
INSERT_COPIES = """
with content as (
    select distinct on ({anchor}, row_hash) * from (
        select {columns}, row_hash from {rows} s
        union all
        select {columns}, row_hash from {live} l where l.tax_year = %(year)s and exists (
            select 1 from surplus s where {same_anchor} and l.row_hash = s.row_hash and s.staged > s.live)
    ) either order by {anchor}, row_hash
), new as (
insert into {live} (tax_year, seq, {columns}, row_hash, import_id)
select %(year)s, coalesce((select max(l.seq) from {live} l where l.tax_year = %(year)s and {same_anchor}), 0)
       + row_number() over (partition by {surplus_anchor} order by s.row_hash), {content_columns}, s.row_hash, %(import_id)s
  from surplus s join content c on {content_anchor} and c.row_hash = s.row_hash, generate_series(1, s.staged - s.live)
returning {key})
insert into {history} (import_id, operation, tax_year, {key}) select %(import_id)s, 'I', %(year)s, {key} from new
"""
#: Into an empty tax year: every row is staged whole, and seq counts from 1 as INSERT_COPIES would have it.
INSERT_FIRST = """
insert into {target} (tax_year, {columns}, row_hash, import_id{seq})
select %(year)s, {columns}, row_hash, %(import_id)s{number} from {rows}
"""
#: A first look at 3,000 rows, before anybody sees them: 30,000, as many as usual, take a third of the whole publish. The owed ANALYZE
#: takes that look right after the commit.
FIRST_STATISTICS = "10"
NUMBER = ", row_number() over (partition by {anchor} order by row_hash, line)"


def merge(cursor: Cursor, relations: Relations, found: Import, rows_loaded: int) -> Changes:
    """Merge one staged table into its live table, in the caller's transaction; by its account so many rows are staged.

    A tax year without rows is filled in one statement (:mod:`pipeline.load.partition`), is analyzed before anybody sees it, and keeps no
    row history: the ledger entry is all there is to tell.

    Raises:
        StagingStale: the staging of a refresh is not what was staged.
        AccountingError: something else than this transaction changed the live rows meanwhile, or keeps them from being changed.
    """
    year = found.key.tax_year
    cursor.execute(sql.SQL("select not exists (select 1 from {} where tax_year = %s)").format(relations.live), [year])
    (is_empty,) = cursor.fetchone() or (False,)
    is_first = is_empty and _is_whole(cursor, relations, found)
    if found.base_import_id is not None and (is_first or not relations.table.is_keyed):
        whole.require(cursor, relations, rows_loaded)
    if is_first:
        return _fill(cursor, relations, found)
    cursor.execute(WIDE_JOINS)
    return _merge_keyed(cursor, relations, found, rows_loaded) if relations.table.is_keyed else _merge_keyless(cursor, relations, found)


def _is_whole(cursor: Cursor, relations: Relations, found: Import) -> bool:
    """Whether every row is staged whole."""
    if found.base_import_id is None:
        return True
    cursor.execute(sql.SQL("select (select count(*) from {}) = (select count(*) from {})").format(relations.keys, relations.rows))
    return bool((cursor.fetchone() or (False,))[0])


def _fill(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    year = found.key.tax_year
    target = partition.way_in(cursor, relations, year)
    words: dict[str, sql.Composable] = {"target": target, "rows": relations.rows, "columns": names(relations.column_names)}
    words |= {"seq": sql.SQL(""), "number": sql.SQL("")}
    if not relations.table.is_keyed:
        words |= {"seq": sql.SQL(", seq"), "number": sql.SQL(NUMBER).format(anchor=names(relations.anchor))}
    inserted = run(cursor, INSERT_FIRST, words, {"import_id": found.import_id, "year": year})
    if inserted:
        cursor.execute("select set_config('default_statistics_target', %s, true)", [FIRST_STATISTICS])
        cursor.execute(sql.SQL("analyze {}").format(relations.partition(year)))
    return Changes(inserted=inserted, is_first=inserted > 0)


def _merge_keyed(cursor: Cursor, relations: Relations, found: Import, rows_loaded: int) -> Changes:
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    rest = [name for name in relations.column_names if name not in relations.anchor]
    words: dict[str, sql.Composable] = {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "history": relations.history,
        "key": names(relations.anchor), "live_key": names(relations.anchor, "l"),
        "same_key": same(relations.anchor, "l", "s"), "columns": names(relations.column_names),
        "staged_columns": names(relations.column_names, "s"),
        "assignments": comma([sql.SQL("{0} = s.{0}").format(sql.Identifier(name)) for name in rest] or [sql.SQL("tax_year = l.tax_year")]),
    }  # fmt: skip
    run(cursor, COUNTS, words, values)
    live, staged, wide, new, differing = cursor.fetchone() or (0, 0, 0, 0, 0)
    if found.base_import_id is not None:
        whole.require(cursor, relations, rows_loaded, (staged, wide))
    # What is staged narrow alone is live as it is, under a key that no other row has: so the counts tell what there is to do.
    vanished = live - (staged - new)
    if vanished or differing:
        words["image"] = _images(cursor, relations, found)
    deleted = run(cursor, DELETE_VANISHED, words, values) if vanished else 0
    remembered = updated = inserted = 0
    if differing:
        remembered = run(cursor, REMEMBER_DIFFERING, words, values)
        _count_columns(cursor, relations, found, rest, words)
        updated = run(cursor, UPDATE_DIFFERING, words, values)
    if new:
        inserted = run(cursor, INSERT_NEW, words, values)
    if (deleted, remembered, updated, inserted) != (vanished, differing, differing, new):
        raise AccountingError(
            f"{relations.table.qualified}: {differing} rows differ and {updated} were updated, {new} are new and {inserted} were "
            f"inserted, {vanished} are gone and {deleted} were deleted",
            "the same rows: nobody else changes them, and no trigger keeps them as they are",
            "see who writes into the table, then run again",
        )
    return Changes(inserted, updated, deleted)


def _count_columns(cursor: Cursor, relations: Relations, found: Import, rest: list[str], words: dict[str, sql.Composable]) -> None:
    """Note in how many of the rows that are about to be updated each column differs; where most do, the gate has counted them."""
    if not rest:
        return
    cursor.execute(
        "select changed_columns from etl.staged_table where import_id = %s and table_name = %s", [found.import_id, relations.table.name]
    )
    (counted,) = cursor.fetchone() or (None,)
    if counted is None:
        counts = comma(sql.SQL("count(*) filter (where l.{0} is distinct from s.{0})").format(sql.Identifier(name)) for name in rest)
        run(cursor, COUNT_DIFFERING, words | {"counts": counts}, {"year": found.key.tax_year})
        counted = dict(zip(rest, cursor.fetchone() or (), strict=True))
    changed = [(found.import_id, relations.table.name, name, count) for name, count in counted.items() if count]
    execute_values(cursor, "insert into etl.column_change (import_id, table_name, column_name, updated) values %s", changed)


def _images(cursor: Cursor, relations: Relations, found: Import) -> sql.Composed:
    """What gives a live row's before-image; the names of its columns are kept."""
    live = LiveTable.read(cursor, relations.table.source, relations.table.name)
    pin_forms(cursor)
    remember_columns(cursor, found.import_id, live)
    return texts(live.columns, "l")


def _merge_keyless(cursor: Cursor, relations: Relations, found: Import) -> Changes:
    values: dict[str, object] = {"import_id": found.import_id, "year": found.key.tax_year}
    key = (*relations.anchor, "seq")
    words: dict[str, sql.Composable] = {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "history": relations.history,
        "key": names(key), "live_key": names(key, "l"), "same_row": same(key, "l", "s"),
        "anchor": names(relations.anchor), "live_anchor": names(relations.anchor, "l"), "surplus_anchor": names(relations.anchor, "s"),
        "same_anchor": same(relations.anchor, "l", "s"), "content_anchor": same(relations.anchor, "c", "s"),
        "columns": names(relations.column_names), "content_columns": names(relations.column_names, "c"),
    }  # fmt: skip
    cursor.execute("drop table if exists pg_temp.surplus, pg_temp.going")
    if not run(cursor, SURPLUS, words, values):
        return Changes()
    cursor.execute("analyze surplus")
    words["image"] = _images(cursor, relations, found)
    run(cursor, GOING, words, values)
    deleted = run(cursor, DELETE_GOING, words, values)
    return Changes(run(cursor, INSERT_COPIES, words, values), 0, deleted)


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
