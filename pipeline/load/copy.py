r"""COPY of Arrow rows into a table: formatted column-wise, streamed batch by batch, memory bounded by one batch.

The form is CSV as pyarrow writes it: every text is quoted, a NULL is an empty unquoted field, so that an empty text, ``\N``
and ``\.`` are texts like any other. NUL is the one character that cannot get here: the transform refuses it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql
from pyarrow import csv

from pipeline.load.relations import names

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


class CsvStream(io.RawIOBase):
    """The batches as one readable CSV stream, formatted when read. ``rows`` counts what was taken so far."""

    def __init__(self, batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._batches, self._columns = iter(batches), list(columns)
        self._buffer = memoryview(b"")
        self.rows = 0

    def readable(self) -> bool:
        """True: this is a stream to read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; b"" at the end. COPY reads 8 KiB at a time."""
        while not self._buffer:
            batch = next(self._batches, None)
            if batch is None:
                return b""
            self.rows += batch.num_rows
            self._buffer = memoryview(self._format(batch))
        size = len(self._buffer) if size is None or size < 0 else size
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(taken)

    def _format(self, batch: pa.RecordBatch) -> bytes:
        columns = [pc.cast(batch.column(name), pa.string()) for name in self._columns]
        out = io.BytesIO()
        csv.write_csv(pa.RecordBatch.from_arrays(columns, names=self._columns), out, csv.WriteOptions(include_header=False))
        return out.getvalue()


def copy_rows(cursor: Cursor, target: sql.Composable, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> int:
    """COPY the named columns of the batches into a table; returns the rows that PostgreSQL took.

    Raises:
        psycopg2.Error: the server refused a value; nothing of this COPY stays.
    """
    stream = CsvStream(batches, columns)
    statement = sql.SQL("copy {} ({}) from stdin with (format csv)").format(target, names(columns))
    cursor.copy_expert(statement, stream, 1 << 18)
    if cursor.rowcount != stream.rows:
        raise AssertionError(f"COPY took {cursor.rowcount} rows of {stream.rows}")
    return stream.rows


def in_batches(rows: pa.Table, batch_size: int) -> Iterator[pa.RecordBatch]:
    """The rows of a table in batches of at most ``batch_size``."""
    yield from rows.to_batches(max_chunksize=batch_size)
