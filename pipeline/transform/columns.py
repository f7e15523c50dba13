"""Columns of text as Arrow arrays, in the one form that a chunk holds.

Each is a plain array of strings in one piece that begins at offset zero; text is UTF-8, trimmed, and NULL where nothing is
left. These functions bring arrays of bytes, as the readers cut them, into that form by looking at their buffers; no
value passes through Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Offsets = npt.NDArray[np.int32]


def strings(offsets: Offsets, text: pa.Buffer) -> pa.StringArray:
    """An array over text that is there already: ``offsets`` has one place more than the array has values."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), text)


def no_strings(rows: int) -> pa.StringArray:
    """Empty texts alone."""
    return strings(np.zeros(rows + 1, np.int32), pa.py_buffer(b""))


def offsets_of(array: pa.StringArray) -> Offsets:
    """The places at which the values of an array begin in its text, and where the last one ends."""
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[array.offset : array.offset + len(array) + 1]


def null_where_empty(array: pa.StringArray) -> pa.StringArray:
    """The same texts, with NULL for the empty ones; the array must have no NULL and begin at offset zero."""
    offsets = offsets_of(array)
    is_empty = offsets[1:] == offsets[:-1]
    empty = np.count_nonzero(is_empty)
    if not empty:
        return array
    valid = np.packbits(~is_empty, bitorder="little")
    _, places, text = array.buffers()
    return pa.StringArray.from_buffers(len(array), places, text, pa.py_buffer(valid), empty)


def decoded(array: pa.StringArray, encoding: str) -> pa.StringArray:
    """Bytes of an encoding of one byte a character as UTF-8; the array must have no NULL and begin at offset zero."""
    text = array.buffers()[2]
    octets = np.frombuffer(text, np.uint8) if text is not None else np.zeros(0, np.uint8)
    high = np.flatnonzero(octets >= 128)
    if not len(high):
        return array
    utf8 = octets.tobytes().decode(encoding)
    more = np.array([len(character.encode()) - 1 for character in octets[high].tobytes().decode(encoding)])
    grown = np.concatenate((np.zeros(1, np.int64), np.cumsum(more)))
    offsets = offsets_of(array)
    return strings((offsets + grown[np.searchsorted(high, offsets)]).astype(np.int32), pa.py_buffer(utf8.encode()))


def in_one_piece(pieces: Sequence[pa.StringArray]) -> pa.StringArray:
    """Arrays one after the other, begun at offset zero."""
    return pa.concat_arrays(pieces) if pieces else no_strings(0)


def trimmed(array: pa.StringArray, blanks: str) -> pa.StringArray:
    """The same texts without these characters at both ends."""
    return pc.ascii_trim(array, characters=blanks)
