"""A 128-bit hash of a typed row, the same wherever, whenever and in however many pieces it is taken.

In goes an Arrow table of typed rows; out comes one hash a row, as 32 hexadecimal digits. A row is written in a canonical
form: the columns in the order of their names, NULL as ``-``, a value as ``=`` and its text, joined by NUL bytes, which no
text holds. Numbers that are equal have one text (1.0 = 1.00, -0 = 0), dates are ISO, booleans ``t`` and ``f``; NULL is
not the empty text. So neither the order of the columns in the schema file nor the chunks matter, and two rows have the
same hash exactly when they are equal in every column. The form has a version (``ROW_HASH_VERSION`` of the recipe),
which every hash begins with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.catalog.recipe import ROW_HASH_VERSION


def row_hashes(table: pa.Table, columns: Sequence[Column]) -> pa.Array:
    """Hash each row over the given columns.

    Args:
        table: typed rows; further columns are left out of the hash.
        columns: which columns, in any order.

    Returns:
        One string of 32 hexadecimal digits a row.
    """
    names = sorted(column.name for column in columns)
    fields = [_canonical(table.column(name)) for name in names]
    version = pa.scalar(f"row{ROW_HASH_VERSION}".encode(), pa.binary())
    rows = pc.binary_join_element_wise(version, *fields, pa.scalar(b"\0", pa.binary()))
    if isinstance(rows, pa.Scalar):  # no column at all
        rows = pa.array([rows.as_py()] * table.num_rows, pa.binary())
    return pa.array([hashlib.blake2b(row, digest_size=16).hexdigest() for row in rows.to_pylist()], pa.string())


def _canonical(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each value as bytes with its mark."""
    if pa.types.is_boolean(values.type):
        texts = pc.if_else(values, "t", "f")
    elif pa.types.is_decimal(values.type):
        texts = _plain_decimals(values)
    else:
        texts = pc.cast(values, pa.string())
    marked = pc.binary_join_element_wise(pa.scalar(b"=", pa.binary()), pc.cast(texts, pa.binary()), pa.scalar(b"", pa.binary()))
    return pc.fill_null(marked, pa.scalar(b"-", pa.binary()))


def _plain_decimals(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals without an exponent, without zeros at the end of the fraction and without a negative zero.

    Arrow writes small decimals with an exponent (0E-10), so each distinct value is written here.
    """
    encoded = pc.dictionary_encode(values.combine_chunks())
    texts = pa.array([_plain_decimal(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([texts.take(encoded.indices)])


def _plain_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
