r"""COPY of Arrow rows into a table: formatted column-wise, streamed batch by batch, memory bounded by a few of them.

The form is CSV as pyarrow writes it. A NULL is an empty field without quotes, so that ``\N`` and ``\.`` are texts like any other.
Fields are parted by a character that no text of this world has, and most batches then need no quotes, which PostgreSQL reads a sixth
faster. A batch in which a text is empty, or has a quote, a line end or that character, has all of its texts in quotes: to CSV both are
one. The next batch is formatted while PostgreSQL takes this one. NUL is the one character that cannot get here: the transform refuses it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql
from pyarrow import csv

from pipeline.load.ahead import one_ahead
from pipeline.load.relations import names

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

DELIMITER = "\x01"
BARE = csv.WriteOptions(include_header=False, delimiter=DELIMITER, quoting_style="none")
QUOTED = csv.WriteOptions(include_header=False, delimiter=DELIMITER)


class CsvStream(io.RawIOBase):
    """The batches as one readable CSV stream, formatted one ahead. ``rows`` counts what was taken so far."""

    def __init__(self, batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._texts = one_ahead(self._format, self._counted(batches))
        self._buffer = memoryview(b"")
        self.rows = 0
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """True: this is a stream to read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; b"" at the end. What the batches raise is kept: COPY would tell of a cancelled statement instead."""
        while not self._buffer:
            try:
                text = next(self._texts, None)
            except Exception as error:
                self.failure = error
                raise
            if text is None:
                return b""
            self._buffer = memoryview(text)
        size = len(self._buffer) if size is None or size < 0 else size
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(taken)

    def close(self) -> None:
        """Wait for the batch that is being formatted, if any."""
        self._texts.close()
        super().close()

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch

    def _format(self, batch: pa.RecordBatch) -> pa.Buffer:
        columns = [pc.cast(batch.column(name), pa.string()) for name in self._columns]
        texts = pa.RecordBatch.from_arrays(columns, names=self._columns)
        # A line of one field could be "\." , the end of the data to servers before PostgreSQL 17.
        if len(columns) > 1 and not any(_has_empty(column) for column in columns):
            try:
                return _written(texts, BARE)
            except pa.ArrowInvalid:
                pass  # a text has a character that wants quotes
        return _written(texts, QUOTED)


def _has_empty(texts: pa.StringArray) -> bool:
    return bool(pc.min(pc.binary_length(texts)).as_py() == 0)


def _written(texts: pa.RecordBatch, options: csv.WriteOptions) -> pa.Buffer:
    out = pa.BufferOutputStream()
    csv.write_csv(texts, out, options)
    return out.getvalue()


def copy_rows(cursor: Cursor, target: sql.Composable, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> int:
    """COPY the named columns of the batches into a table; returns the rows that PostgreSQL took.

    The batches are taken in the caller's thread.

    Raises:
        psycopg2.Error: the server refused a value; nothing of this COPY stays.
        Exception: what the batches raised, as it was.
    """
    statement = sql.SQL("copy {} ({}) from stdin with (format csv, delimiter {})").format(target, names(columns), sql.Literal(DELIMITER))
    with CsvStream(batches, columns) as stream:
        try:
            cursor.copy_expert(statement, stream, 1 << 18)
        except psycopg2.Error:
            if stream.failure:
                raise stream.failure from None
            raise
        if cursor.rowcount != stream.rows:
            raise AssertionError(f"COPY took {cursor.rowcount} rows of {stream.rows}")
        return stream.rows


def in_batches(rows: pa.Table, batch_size: int) -> Iterator[pa.RecordBatch]:
    """The rows of a table in batches of at most ``batch_size``."""
    yield from rows.to_batches(max_chunksize=batch_size)
