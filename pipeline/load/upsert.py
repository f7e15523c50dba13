"""Bulk upsert: any number of records into one table, by COPY.

A table without a primary key takes the records by COPY as they are (staging tables). A table with one takes them by way of
a temporary table: rows that differ are updated, new ones inserted, equal ones left alone; of records with the same key the
last one stands; the same records again write nothing. All of it joins the caller's transaction. The target may be a name, a SQLAlchemy
table, or a Django model; records may be mappings, tuples, a DataFrame or Arrow.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from psycopg2 import sql

from pipeline.errors import ConfigurationError
from pipeline.load.copy import copy_rows, in_batches
from pipeline.load.relations import comma, names, same

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

PRIMARY_KEY = """
select a.attname from pg_index i, unnest(i.indkey) with ordinality k(attnum, place) join pg_attribute a on a.attnum = k.attnum
 where i.indrelid = to_regclass(%s) and a.attrelid = i.indrelid and i.indisprimary and k.place <= i.indnkeyatts order by k.place
"""
UPDATE = """
update {target} t set {assignments} from incoming i
 where {same_key} and ({target_rest}) is distinct from ({incoming_rest})
"""
#: Only a key that another transaction has inserted meanwhile is in conflict: then, too, our record is the last one.
INSERT = """
insert into {target} as t ({columns}) select {incoming} from incoming i where not exists (select 1 from {target} t where {same_key})
 order by {incoming_key} on conflict ({key}) do {otherwise}
"""
#: Those that a COPY fills: not what PostgreSQL computes itself.
COLUMNS = """
select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
"""


@dataclass(frozen=True)
class Upserted:
    """What became of the records: ``read = inserted + updated + unchanged + repeated`` (an earlier record with the same key)."""

    read: int
    inserted: int
    updated: int
    unchanged: int
    repeated: int


def target_of(model_class: object) -> sql.Identifier:
    """The table that ``model_class`` means.

    Args:
        model_class: ``"schema.table"``, a SQLAlchemy table or mapped class, a Django model, or an identifier.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(model_class, sql.Identifier):
        return model_class
    if isinstance(model_class, str):
        return sql.Identifier(*model_class.split(".", 1))
    table = getattr(model_class, "__table__", model_class)
    if isinstance(table, sa.Table):
        return sql.Identifier(*filter(None, (table.schema, table.name)))
    name = getattr(getattr(model_class, "_meta", None), "db_table", None)
    if isinstance(name, str):
        # Django writes a schema into db_table as  schema"."table .
        return sql.Identifier(*name.replace('"', "").split(".", 1))
    raise ConfigurationError(
        f"{type(model_class).__name__} as the table to load", "a table's name, a SQLAlchemy table or a Django model", "pass one of these"
    )


def upsert(cursor: Cursor, records: object, target: sql.Identifier, batch_size: int) -> Upserted:
    """Write the records into a table in the caller's transaction.

    Args:
        cursor: in the caller's transaction.
        records: an Arrow table, an iterable of record batches, a DataFrame, or an iterable of mappings that all have the
            same columns, or of tuples: named ones, or plain ones with a value for each of the table's columns in their order.
        target: the table.
        batch_size: records formatted and sent at a time.

    Raises:
        ConfigurationError: there is no such table, or the records lack a column of the primary key, do not agree on their columns, or are
            tuples of another length than the table has columns.
        psycopg2.Error: the server refused a value; the transaction must be rolled back.
    """
    cursor.execute(COLUMNS, [target.as_string(cursor)])
    declared = [name for (name,) in cursor.fetchall()]
    if not declared:
        raise ConfigurationError(f"no table {target.as_string(cursor)}", "a table that is there", "create it, or name another")
    batches = record_batches(records, batch_size, declared)
    first = next(batches, None)
    if first is None:
        return Upserted(0, 0, 0, 0, 0)
    columns, batches = first.schema.names, itertools.chain([first], batches)
    cursor.execute(PRIMARY_KEY, [target.as_string(cursor)])
    key = [row[0] for row in cursor.fetchall()]
    if not key:
        count = copy_rows(cursor, target, columns, batches)
        return Upserted(count, count, 0, 0, 0)
    if missing := sorted(set(key) - set(columns)):
        raise ConfigurationError(f"records without {', '.join(missing)}", "every column of the primary key", "add them to the records")
    return _by_way_of_incoming(cursor, target, columns, key, batches)


def _by_way_of_incoming(
    cursor: Cursor, target: sql.Identifier, columns: Sequence[str], key: Sequence[str], batches: Iterator[pa.RecordBatch]
) -> Upserted:
    cursor.execute("drop table if exists pg_temp.incoming")
    cursor.execute(
        sql.SQL("create temporary table incoming on commit drop as select {} from {} with no data").format(names(columns), target)
    )
    cursor.execute("alter table incoming add column incoming_order bigint generated always as identity")
    read = copy_rows(cursor, sql.Identifier("incoming"), columns, batches)
    cursor.execute(
        sql.SQL("delete from incoming a using incoming b where {} and a.incoming_order < b.incoming_order").format(same(key, "a", "b"))
    )
    repeated = cursor.rowcount
    rest = [name for name in columns if name not in key]
    words = {
        "target": target, "same_key": same(key, "t", "i"), "columns": names(columns), "incoming": names(columns, "i"),
        "assignments": comma(sql.SQL("{0} = i.{0}").format(sql.Identifier(name)) for name in rest),
        "target_rest": names(rest, "t"), "incoming_rest": names(rest, "i"), "key": names(key), "incoming_key": names(key, "i"),
        "otherwise": sql.SQL("nothing"),
    }  # fmt: skip
    if rest:
        excluded = comma(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in rest)
        words["otherwise"] = sql.SQL("update set {}").format(excluded)
    updated = 0
    if rest:
        cursor.execute(sql.SQL(UPDATE).format(**words))
        updated = cursor.rowcount
    cursor.execute(sql.SQL(INSERT).format(**words))
    inserted = cursor.rowcount
    cursor.execute("drop table incoming")
    return Upserted(read, inserted, updated, read - repeated - inserted - updated, repeated)


def record_batches(records: object, batch_size: int, declared: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """The records as Arrow batches of at most ``batch_size`` (those that are batches already stay as they are).

    ``declared`` are the table's columns, for tuples that do not name theirs.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size {batch_size}", "1 or more", "correct it")
    if isinstance(records, pd.DataFrame):
        records = pa.Table.from_pandas(records, preserve_index=False)
    if isinstance(records, pa.Table):
        yield from in_batches(records, batch_size)
        return
    if not isinstance(records, Iterable):
        raise ConfigurationError(
            f"{type(records).__name__} as records", "an iterable of mappings or tuples, a DataFrame or Arrow", "pass one of these"
        )
    pending: list[Mapping[str, Any]] = []
    for record in records:
        if isinstance(record, pa.RecordBatch):
            yield record
            continue
        pending.append(_mapping(record, declared))
        if len(pending) == batch_size:
            yield _batch(pending)
            pending = []
    if pending:
        yield _batch(pending)


def _mapping(record: object, declared: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(record, Mapping):
        return record
    if not isinstance(record, tuple | list):
        raise ConfigurationError(f"{type(record).__name__} as a record", "a mapping or a tuple", "pass one of these")
    columns: Sequence[str] = getattr(record, "_fields", declared)
    if len(columns) != len(record):
        raise ConfigurationError(
            f"a record of {len(record)} values", f"one for each column: {', '.join(columns)}", "pass mappings to leave some out"
        )
    return dict(zip(columns, record, strict=True))


def _batch(records: list[Mapping[str, Any]]) -> pa.RecordBatch:
    columns = list(records[0])
    for number, record in enumerate(records):
        if list(record) != columns and set(record) != set(columns):
            raise ConfigurationError(
                f"record {number} of a batch has the columns {sorted(record)}", f"those of the first: {sorted(columns)}", "make them agree"
            )
    arrays = [pa.array([_text(record[name]) for record in records], pa.string()) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, names=columns)


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
