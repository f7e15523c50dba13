"""DDL: a live table comes into being, gets a new partition or a new column, and is never reshaped silently.

Each change is a short transaction of its own with a lock time-out, before staging, tried again for a while, so that a reader who
holds the table open delays us and not the readers behind us. A column that has another type, a missing or extra NOT NULL column, or
another primary key is refused with the statements that a person would have to weigh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql
from sqlalchemy import Engine
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.catalog.model import Column, Source, Table
from pipeline.database.engine import transaction
from pipeline.errors import DatabaseBusy, ShapeError
from pipeline.load import comments, partition, roll_shape
from pipeline.load.relations import Relations, comma, identifier, names

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Readers who come while we wait for a lock wait behind us: so a try is short, and there are several.
LOCK_TIMEOUT = "80ms"
TRIES = 40
LONGEST_PAUSE_S = 3.0
#: Bytes of text in a key: an index of PostgreSQL takes 2,704 in all, and a row that it refuses would keep its release from being published.
LONGEST_KEY = 2500

#: What the pipeline adds to every live row, with types.
OWN_TYPES = {"import_id": "bigint", "row_hash": "uuid"}

LIVE_COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef or a.attidentity <> ''
  from pg_attribute a where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
PRIMARY_KEY = """
select array_agg(a.attname order by k.place) from pg_index i, unnest(i.indkey) with ordinality k(attnum, place)
  join pg_attribute a on a.attnum = k.attnum where i.indrelid = to_regclass(%s) and a.attrelid = i.indrelid and i.indisprimary
   and k.place <= i.indnkeyatts
"""


@dataclass(frozen=True)
class LiveColumn:
    """A column as PostgreSQL has it."""

    name: str
    type: str
    is_not_null: bool
    has_default: bool


def ensure_live(engine: Engine, table: Table, tax_year: int) -> None:
    """Create or extend the live table, its partition of the tax year, its indexes and its history table.

    Raises:
        ShapeError: the live table differs in a way that is not changed silently; nothing was changed.
        DatabaseBusy: a lock was not to be had in about a minute, in short tries.
        DatabaseUnavailable: the server broke off.
    """
    tries = retry_if_exception(lambda error: isinstance(error, DatabaseBusy))
    pauses = wait_random_exponential(0.1, LONGEST_PAUSE_S)
    for attempt in Retrying(retry=tries, wait=pauses, stop=stop_after_attempt(TRIES), reraise=True):
        with attempt:
            _ensure_live(engine, Relations(table), tax_year)


def _ensure_live(engine: Engine, relations: Relations, tax_year: int) -> None:
    table = relations.table
    with transaction(engine) as cursor:
        # One at a time for a source, whoever else runs: create-if-not-exists races otherwise, for the schema too.
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"hcad-pipeline ddl {table.source}"])
        cursor.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        if table.is_roll:
            roll_shape.lock(cursor)
        live = _live_columns(cursor, relations)
        if not live:
            _create(cursor, relations)
            live = _live_columns(cursor, relations) if table.is_roll else live
        if live:
            _check_shape(cursor, relations, live)
            _add_columns(cursor, relations, live)
        partition.create(cursor, relations, tax_year)
        _create_indexes(cursor, relations)
        comments.describe(cursor, relations)


def create_staging(cursor: Cursor, relations: Relations, *, is_first: bool) -> None:
    """Create the two unlogged staging tables of an import, if they are not there.

    Of a first import of a tax year every row is staged whole, and the narrow table is a view of the other. A key that no index takes is
    refused here, where its row can still be quarantined.
    """
    columns = [_definition(column) for column in relations.table.columns]
    fits = _key_fits(relations)
    own = sql.SQL("part integer not null, line bigint not null, {}, row_hash uuid not null{}")
    unlogged = sql.SQL("create unlogged table if not exists {} ({})")
    cursor.execute(unlogged.format(relations.rows, own.format(comma(columns), fits)))
    if not is_first:
        anchor = [_definition(relations.table.column(name)) for name in relations.anchor]
        cursor.execute(unlogged.format(relations.keys, own.format(comma(anchor), fits)))
        return
    cursor.execute("select to_regclass(%s) is null", [relations.keys.as_string(cursor)])
    if (cursor.fetchone() or (False,))[0]:
        narrow = names(("part", "line", *relations.anchor, "row_hash"))
        cursor.execute(sql.SQL("create view {} as select {} from {}").format(relations.keys, narrow, relations.rows))


def _key_fits(relations: Relations) -> sql.Composed:
    texts = [name for name in relations.anchor if relations.table.column(name).type.kind == "text"]
    if not texts:
        return sql.Composed([])
    lengths = sql.SQL(" + ").join(sql.SQL("octet_length({})").format(sql.Identifier(name)) for name in texts)
    return sql.SQL(", constraint key_fits_its_index check ({} <= {})").format(lengths, sql.Literal(LONGEST_KEY))


def primary_key(table: Table) -> tuple[str, ...]:
    """The columns of the live table's primary key, in order."""
    return (*table.identity, roll_shape.SOURCE) if table.is_roll else table.identity


def _live_columns(cursor: Cursor, relations: Relations) -> dict[str, LiveColumn]:
    cursor.execute(LIVE_COLUMNS, [relations.live.as_string(cursor)])
    return {row[0]: LiveColumn(*row) for row in cursor.fetchall()}


def _create(cursor: Cursor, relations: Relations) -> None:
    table = relations.table
    seq = [] if table.is_keyed else [sql.SQL("seq integer not null")]
    columns = [sql.SQL("tax_year integer not null"), *(_definition(column) for column in table.columns), *seq]
    columns += [sql.SQL("{} {} not null").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in OWN_TYPES.items()]
    # With the hash in it the index alone tells a refresh which rows are live as they are.
    columns.append(sql.SQL("primary key ({}) include (row_hash)").format(names(primary_key(table))))
    # Not "if not exists": that asks for the privilege to create schemas even where the schema is there.
    schema = sql.Identifier(relations.live.strings[0])
    cursor.execute("select to_regnamespace(%s) is null", [schema.as_string(cursor)])
    if (cursor.fetchone() or (False,))[0]:
        cursor.execute(sql.SQL("create schema {}").format(schema))
    if table.is_roll:
        roll_shape.create(cursor, relations, columns)
    else:
        cursor.execute(sql.SQL("create table {} ({}) partition by list (tax_year)").format(relations.live, comma(columns)))
    if not table.is_roll:  # those of a part are noted when it is sure to have them
        _record_columns(cursor, table, table.columns)
    _create_history(cursor, relations)


def _create_history(cursor: Cursor, relations: Relations) -> None:
    table = relations.table
    cursor.execute("select to_regclass(%s) is not null", [relations.history.as_string(cursor)])
    (exists,) = cursor.fetchone() or (False,)
    if exists:
        raise ShapeError(
            f"there is no table {table.qualified}, but a history of it: history.{table.source}_{table.name}",
            "both or neither",
            "weigh whether the history is still wanted, then run and start again: "
            f"alter table history.{table.source}_{table.name} rename to {table.source}_{table.name}_before -- or drop it",
        )
    seq = [] if table.is_keyed else [sql.SQL("seq integer not null")]
    key = [_definition(table.column(name)) for name in relations.anchor] + seq
    cursor.execute(
        sql.SQL(
            """create table {} (import_id bigint not null, operation "char" not null check (operation in ('I', 'U', 'D')),
               tax_year integer not null, {}, before_image text[], check ((operation = 'I') = (before_image is null)))"""
        ).format(relations.history, comma(key))
    )
    cursor.execute(sql.SQL("create index on {} (import_id)").format(relations.history))
    cursor.execute(sql.SQL("create index on {} ({})").format(relations.history, names(table.identity)))


def _record_columns(cursor: Cursor, table: Table, columns: tuple[Column, ...]) -> None:
    """Remember which columns are ours: one that leaves the schema file is a drop, a user's own is not our business."""
    for column in columns:
        cursor.execute(
            "insert into etl.live_column (source, table_name, column_name) values (%s, %s, %s) on conflict do nothing",
            [table.source, table.name, column.name],
        )


def _recorded_columns(cursor: Cursor, table: Table) -> set[str]:
    cursor.execute("select column_name from etl.live_column where source = %s and table_name = %s", [table.source, table.name])
    return {name for (name,) in cursor.fetchall()}


def require_shapes(engine: Engine, source: Source) -> None:
    """Stop where a live table of a source is not what its schema file says; tables that do not exist yet are none of it.

    Raises:
        ShapeError: some differ in a way that is not changed silently.
    """
    plans = []
    with transaction(engine) as cursor:
        for relations in map(Relations, (*source.tables, *(roll.table for roll in source.rolls))):
            if live := _live_columns(cursor, relations):
                plans += _plan(cursor, relations, live)
    _refuse(source.name, plans)


def _check_shape(cursor: Cursor, relations: Relations, live: dict[str, LiveColumn]) -> None:
    _refuse(relations.table.qualified, _plan(cursor, relations, live))


def _refuse(name: str, plan: list[str]) -> None:
    if plan:
        raise ShapeError(
            f"what is live of {name} is not what its schema file says",
            "the same types and the same key; new columns are added without asking",
            "weigh and run, then start again: " + "; ".join(plan),
        )


def _plan(cursor: Cursor, relations: Relations, live: dict[str, LiveColumn]) -> list[str]:
    """The statements that would make the live table what its schema file says."""
    table = relations.table
    declared = {column.name: column for column in table.columns}
    plan = [
        f"alter table {table.qualified} alter column {name} type {column.type.sql} -- is {live[name].type}"
        for name, column in declared.items()
        if name in live and live[name].type != column.type.sql
    ]
    plan += [
        f"alter table {table.qualified} alter column {name} {'set' if column.required else 'drop'} not null"
        for name, column in declared.items()
        if name in live and live[name].is_not_null != column.required
    ]
    recorded = _recorded_columns(cursor, table)
    # To add it again would leave it empty in every row that the next release does not change.
    plan += [
        f"-- column {name} was dropped or renamed by hand: rename it back, or drop table {table.qualified} cascade and "
        f"history.{table.source}_{table.name}, and load again"
        for name in sorted(recorded & set(declared) - set(live))
    ]
    own = {"tax_year", "import_id", "row_hash"} | ({"seq"} if not table.is_keyed else set())
    own |= {roll_shape.SOURCE} if table.is_roll else set()
    plan += [
        f"-- column {name}, which the pipeline keeps, was dropped or renamed by hand: rename it back" for name in sorted(own - set(live))
    ]
    plan += [
        f"alter table {table.qualified} drop column {name} -- it is in the schema file no more"
        for name in sorted(recorded & set(live) - set(declared))
    ]
    plan += [
        f"alter table {table.qualified} drop column {column.name} -- or give it a default: it is NOT NULL and not in the schema file"
        for column in live.values()
        if column.name not in declared and column.name not in own and column.is_not_null and not column.has_default
    ]
    cursor.execute(PRIMARY_KEY, [relations.live.as_string(cursor)])
    row = cursor.fetchone()
    if tuple((row[0] if row else None) or ()) != primary_key(table):
        plan.append(f"-- the primary key is {row[0] if row else None}, the schema file says {list(primary_key(table))}: "
                    f"drop table {table.qualified} and history.{table.source}_{table.name}, and load again")
    return plan


def _add_columns(cursor: Cursor, relations: Relations, live: dict[str, LiveColumn]) -> None:
    new = tuple(column for column in relations.table.columns if column.name not in live)
    for column in new:
        if column.required:
            raise ShapeError(
                f"{relations.table.qualified} has rows, and column {column.name} is new and required",
                "a new column that may be NULL until every row has been read again",
                f"declare {column.name} without required = true, import once, then set it",
            )
        cursor.execute(sql.SQL("alter table {} add column {}").format(relations.root, _definition(column)))
    # A column of a computed table may have come with another source.
    _record_columns(cursor, relations.table, relations.table.columns if relations.table.is_roll else new)


def _create_indexes(cursor: Cursor, relations: Relations) -> None:
    cursor.execute("select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm'")
    (trigrams,) = cursor.fetchone() or (None,)
    for index in relations.table.indexes:
        kind = "idx" if index.using == "btree" else f"{index.using}_idx"
        schema, table = relations.live.strings
        name = identifier(f"{table}_{'_'.join(index.columns)}_{kind}")
        # Not "if not exists": that takes a lock on the whole table, and waits for every writer of another tax year.
        cursor.execute("select to_regclass(%s) is null", [identifier(schema, name.strings[-1]).as_string(cursor)])
        (is_missing,) = cursor.fetchone() or (False,)
        if not is_missing:
            continue
        if index.using == "btree":
            cursor.execute(sql.SQL("create index {} on {} ({})").format(name, relations.live, names(("tax_year", *index.columns))))
        elif trigrams:  # the run has noted where they are missing
            operators = sql.Identifier(trigrams, "gin_trgm_ops")
            columns = comma(sql.SQL("{} {}").format(sql.Identifier(column), operators) for column in index.columns)
            cursor.execute(sql.SQL("create index {} on {} using gin ({})").format(name, relations.live, columns))


def _definition(column: Column) -> sql.Composed:
    null = sql.SQL(" not null") if column.required else sql.SQL("")
    return sql.SQL("{} {}{}").format(sql.Identifier(column.name), sql.SQL(column.type.sql), null)
