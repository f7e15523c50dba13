"""The order of a part's keys, seen while its rows are staged: which keys may stand in another row, of this part or of any other.

Districts sort most of their files by the key. Equal keys are neighbours then, and what has no equal neighbour stands alone, but for the
few rows that lie out of their place (below one that came before them), whose keys may stand anywhere. So where the parts follow each
other too, the keys that can stand in more than one row are known, without asking the database for them. A part with more than a few such
keys, or where a key lacks a value, says nothing, and its table is settled by a look at all of its keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Table

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Kinds of key columns whose values JSON holds as they are, and orders as Arrow does.
KINDS: Final = ("text", "smallint", "integer", "bigint", "date")
#: A part with more of such keys is none whose file is in order.
MOST_SUSPECT: Final = 10_000
#: How many times rows that lie below the one before them are set aside before those that are left rise.
MOST_LOOKS: Final = 10

#: A key: text, whole numbers, and days as ``2025-12-31``.
Key = tuple[Any, ...]


@dataclass(frozen=True)
class KeyOrder:
    """A part whose keys rise, but for few.

    Attributes:
        first: its first key; None: it has no rows.
        last: its last key.
        suspects: the keys that may stand in more than one row; every other one that does is the last of one part and the first of the next.
        beaten: rows of the part that give way to another one of their key in it, and were not staged whole.
    """

    first: Key | None
    last: Key | None
    suspects: tuple[Key, ...]
    beaten: int = 0


class OrderWatch:
    """Watches the rows of one part go by.

    Args:
        table: the table; of one without a key, or whose key has other kinds of values, nothing is known.
    """

    def __init__(self, table: Table) -> None:
        self._names = table.key
        self._is_known = bool(table.key) and all(table.column(name).type.kind in KINDS for name in table.key)
        self._first: Key | None = None
        self._last: list[pa.Array] = []
        self._suspects: dict[Key, None] = {}

    def watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, which have the key's columns, each looked at as it goes by."""
        for batch in batches:
            if self._is_known and batch.num_rows:
                self._is_known = self._add([batch.column(name) for name in self._names])
            yield batch

    @property
    def order(self) -> KeyOrder | None:
        """What is known of the part, when all of it went by."""
        if not self._is_known:
            return None
        return KeyOrder(self._first, _key(self._last) if self._last else None, tuple(self._suspects))

    def _add(self, keys: list[pa.Array]) -> bool:
        """Look at a batch's keys; False: they are in no order."""
        if any(column.null_count for column in keys):
            return False
        if self._first is None:
            self._first = _key(keys)
        if self._last:
            keys = [pa.concat_arrays([last, column]) for last, column in zip(self._last, keys, strict=True)]
        for _ in range(MOST_LOOKS):
            falls, equal = _neighbours(keys)
            displaced = pc.indices_nonzero(falls)
            if len(self._suspects) + len(displaced) > MOST_SUSPECT:
                return False
            if not len(displaced):
                break
            self._suspects.update(dict.fromkeys(_keys([column.slice(1).take(displaced) for column in keys])))
            stays = pa.concat_arrays([pa.array([True]), pc.invert(falls)])
            keys = [column.filter(stays) for column in keys]
        else:
            return False
        self._last = [column.slice(len(column) - 1) for column in keys]
        self._suspects.update(dict.fromkeys(_keys([column.slice(1).filter(equal) for column in keys])))
        return len(self._suspects) <= MOST_SUSPECT


def _neighbours(keys: Sequence[pa.Array]) -> tuple[pa.BooleanArray, pa.BooleanArray]:
    """Of each key but the first, whether it is below the one before it, and whether it equals it."""
    count = len(keys[0]) - 1
    falls, equal = pa.repeat(pa.scalar(False), count), pa.repeat(pa.scalar(True), count)
    for column in keys:
        before, after = column.slice(0, count), column.slice(1)
        falls = pc.or_(falls, pc.and_(equal, pc.greater(before, after)))
        equal = pc.and_(equal, pc.equal(before, after))
    return falls, equal


def _keys(columns: Sequence[pa.Array]) -> Iterator[Key]:
    texts = [column.cast(pa.string()) if pa.types.is_date(column.type) else column for column in columns]
    return zip(*(column.to_pylist() for column in texts), strict=True)


def _key(columns: Sequence[pa.Array]) -> Key:
    return next(_keys([column.slice(0, 1) for column in columns]))


def write_order(cursor: Cursor, import_id: int, table: str, part: int, order: KeyOrder | None) -> None:
    """Keep what is known of a part beside its checkpoint, in the transaction that wrote it."""
    if order is not None:
        cursor.execute(
            "update etl.checkpoint set key_order = %s where (import_id, table_name, part) = (%s, %s, %s)",
            [json.dumps(asdict(order)), import_id, table, part],
        )


def read_orders(cursor: Cursor, import_id: int, table: str) -> list[KeyOrder | None]:
    """What is known of each part of a table, in their order."""
    cursor.execute("select key_order from etl.checkpoint where import_id = %s and table_name = %s order by part", [import_id, table])
    return [_read(found) for (found,) in cursor.fetchall()]


def _read(found: dict[str, Any] | None) -> KeyOrder | None:
    if found is None:
        return None
    first, last = (None if found[end] is None else tuple(found[end]) for end in ("first", "last"))
    return KeyOrder(first, last, tuple(map(tuple, found["suspects"])), found["beaten"])


def suspect_keys(orders: Sequence[KeyOrder | None]) -> list[Key] | None:
    """The keys that may stand in more than one row of a table, by the order of its parts; None: they do not tell."""
    parts = [order for order in orders if order is not None]
    filled = [(order.first, order.last) for order in parts if order.first is not None and order.last is not None]
    if len(parts) < len(orders) or any(before[1] > after[0] for before, after in pairwise(filled)):
        return None
    keys = {key for order in parts for key in order.suspects}
    return sorted(keys | {before[1] for before, after in pairwise(filled) if before[1] == after[0]})
