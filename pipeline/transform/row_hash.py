"""A 128-bit hash of a typed row, the same wherever, whenever and in however many pieces it is taken.

In goes an Arrow table of typed rows; out comes one hash a row, as 32 hexadecimal digits. A row is written in a canonical
form: the version, then the columns in the order of their names, separated by NUL bytes, which no text holds. A value is
its text; NULL is the byte FF, which is in no UTF-8 text. Numbers that are equal have one text (1.0 = 1.00 = 1, -0 = 0),
dates are ISO, booleans ``t`` and ``f``; NULL is not the empty text. So neither the order of the columns in the schema
file nor the chunks matter, and two rows have the same hash exactly when they are equal in every column. The version
(``ROW_HASH_VERSION`` of the recipe) is raised when the form changes.
"""

from __future__ import annotations

import binascii
import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.catalog.recipe import ROW_HASH_VERSION

_DIGEST_BYTES: Final = 16
_SEPARATOR: Final = "\0"
_NULL: Final = b"\xff"
#: Up to this scale Arrow writes a decimal without an exponent (0E-7 is the first with one).
_PLAIN_SCALE: Final = 6


def row_hashes(table: pa.Table, columns: Sequence[Column], canonical: Mapping[str, pa.StringArray] | None = None) -> pa.Array:
    """Hash each row over the given columns.

    Args:
        table: typed rows; further columns are left out of the hash.
        columns: which columns, in any order.
        canonical: column -> its values as the form writes them, NULL where the value is NULL, for those where that is at hand.

    Returns:
        One string of 32 hexadecimal digits a row.
    """
    at_hand = canonical or {}
    names = sorted(column.name for column in columns)
    fields = [at_hand[name] if name in at_hand else canonical_texts(_in_one_piece(table.column(name))) for name in names]
    version = pa.array([f"row{ROW_HASH_VERSION}"]).take(pa.array(np.zeros(table.num_rows, np.int8)))
    rows = pc.binary_join_element_wise(version, *fields, _SEPARATOR, null_handling="replace", null_replacement=_NULL)
    return _hex(_digests(rows))


def first_of_equal(digests: Sequence[str], seen: set[str]) -> npt.NDArray[np.bool_]:
    """Which hashes come for the first time; ``seen`` has those that came before, and takes these."""
    distinct = set(digests)
    again = distinct & seen
    if len(distinct) < len(digests):
        again.update(digest for digest, count in Counter(digests).items() if count > 1)
    is_first = np.ones(len(digests), dtype=np.bool_)
    for row in [row for row, digest in enumerate(digests) if digest in again] if again else ():
        is_first[row] = digests[row] not in seen
        seen.add(digests[row])
    seen |= distinct
    return is_first


def canonical_texts(values: pa.Array) -> pa.Array:
    """A column as the canonical form writes it; NULL where the value is NULL."""
    if pa.types.is_string(values.type):
        return values
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "t", "f")
    if pa.types.is_decimal(values.type):
        return _plain_decimals(values)
    if pa.types.is_date(values.type):  # few days, many rows
        encoded = pc.dictionary_encode(values)
        return pc.cast(encoded.dictionary, pa.string()).take(encoded.indices)
    return pc.cast(values, pa.string())


def _plain_decimals(values: pa.Array) -> pa.Array:
    """Decimals without an exponent and without zeros, or a point, at the end of the fraction."""
    if 0 < values.type.scale <= _PLAIN_SCALE:
        return pc.ascii_rtrim(pc.ascii_rtrim(pc.cast(values, pa.string()), characters="0"), characters=".")
    encoded = pc.dictionary_encode(values)
    return pa.array([_plain_decimal(value) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _plain_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _digests(rows: pa.Array) -> list[bytes]:
    """A digest of each value of a string array in one piece."""
    _, offsets, octets = rows.buffers()
    places = np.frombuffer(offsets, np.int32, len(rows) + 1, rows.offset * 4).tolist()
    written, blake2b = memoryview(octets) if octets else b"", hashlib.blake2b
    return [blake2b(written[start:end], digest_size=_DIGEST_BYTES).digest() for start, end in itertools.pairwise(places)]


def _hex(digests: Sequence[bytes]) -> pa.Array:
    """Digests as an array of hexadecimal texts, made in one piece."""
    width = 2 * _DIGEST_BYTES
    offsets = np.arange(0, width * len(digests) + 1, width, dtype=np.int32)
    octets = pa.py_buffer(binascii.hexlify(b"".join(digests)))
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), octets)


def _in_one_piece(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
