"""Delimited fields cut out of a block of bytes, as Arrow columns.

In go lines that are one record each, with the places where their fields end; out comes a column of text for each wanted
field: the very bytes between two delimiters, without the blanks and tabs around them. The lines are taken by groups that
fit the processor's cache. In a group, fields and what lies between them are the values of one Arrow array over the
block itself; one gather takes the fields out of it, column by column, so that bytes are moved once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.transform.columns import in_one_piece, no_strings, strings
from pipeline.transform.lines import Lines, Mask, Octets, Positions
from pipeline.transform.sorting import Marks

#: Of lines and the places of their fields, a group is to stay in a cache of 1 MB; measured, see scripts/bench.py transform.
GROUP_BYTES: Final = 256 * 1024
#: A field with more blanks at an end is rare, and is trimmed by itself.
_STEPS: Final = 64
#: Lines that lie further from each other than this are taken one by one.
HUGE_BYTES: Final = 2**30
_BLANK, _TAB = 32, 9


def cut_delimited(lines: Lines, marks: Marks, count: int, wanted: Mapping[str, int], delimiter: str) -> dict[str, pa.StringArray]:
    """Cut columns out of lines.

    Args:
        lines: lines that have the same number of fields each.
        marks: where their fields end.
        count: how many fields a line has.
        wanted: column -> the number of its field, from 0, in ascending order.
        delimiter: one ASCII character.

    Returns:
        Column -> its bytes, trimmed, as an array without NULL that begins at offset zero.
    """
    if not len(lines):
        return {name: no_strings(0) for name in wanted}
    fields = np.fromiter(wanted.values(), np.int64)
    span = int(lines.ends[-1] - lines.starts[0])
    # Alone, a line has no refused one of gigabytes between it and the next: places in a group are 32 bits wide.
    rows = 1 if span > HUGE_BYTES else max(1, len(lines) * GROUP_BYTES // max(1, span))
    pieces: list[list[pa.StringArray]] = [[] for _ in wanted]
    order = np.empty(0, np.int32)
    for first in range(0, len(lines), rows):
        group = slice(first, first + rows)
        cells = _cells(lines.take(group), marks.firsts[group], marks.places, count, fields, delimiter)
        if len(order) != len(cells):
            # Every other value of ``cells`` is a field: by rows there, by columns here.
            order = np.arange(0, len(cells), 2, dtype=np.int32).reshape(-1, len(fields)).T.ravel()
        cut = pc.take(cells, pa.array(order), boundscheck=False)
        height = len(order) // len(fields)
        for column, piece in enumerate(pieces):
            piece.append(cut.slice(column * height, height))
    return {name: in_one_piece(piece) for name, piece in zip(wanted, pieces, strict=True)}


def _cells(
    lines: Lines, firsts: Positions, marks: Positions, count: int, fields: Positions, delimiter: str
) -> pa.StringArray:
    """The wanted fields of some lines and, after each, what lies between it and the next."""
    base = int(lines.starts[0])
    length = int(lines.ends[-1]) - base
    begins, ends = _places(firsts, marks, count, fields)
    begins -= base
    ends -= base
    if fields[0] == 0:
        begins[:, 0] = lines.starts - base
    if fields[-1] == count - 1:
        ends[:, -1] = lines.ends - base
    _trim(_blanks(lines.octets[base : base + length], delimiter), begins.ravel(), ends.ravel())
    places = np.empty((*begins.shape, 2), np.int32)
    places[:, :, 0] = begins
    places[:, :, 1] = ends
    # The last place would end one more value, of what follows the last field: there is none.
    return strings(places.ravel(), pa.py_buffer(lines.block).slice(base, length))


def _places(firsts: Positions, marks: Positions, count: int, fields: Positions) -> tuple[Positions, Positions]:
    """Where each wanted field begins and ends in the block, but for line ends: a row a line and a column a field."""
    first, last = int(firsts[0]), int(firsts[-1]) + count
    if len(fields) == count and last - first == len(firsts) * count:  # all fields of lines that follow each other
        ends = marks[first:last].reshape(-1, count).copy()
        begins = np.empty_like(ends)
        begins[:, 1:] = ends[:, :-1]
        begins[:, 1:] += 1
        return begins, ends
    at = firsts[:, np.newaxis] + fields
    return marks[at - 1] + 1, marks[at]


def _blanks(octets: Octets, delimiter: str) -> Mask:
    """Which bytes are blanks or tabs that do not delimit; one more at the end, the place behind them, is none."""
    is_blank = np.zeros(len(octets) + 1, dtype=np.bool_)
    np.equal(octets, _BLANK, out=is_blank[:-1])
    if ord(delimiter) != _TAB:
        is_blank[:-1] |= octets == _TAB
    return is_blank


def _trim(is_blank: Mask, begins: Positions, ends: Positions) -> None:
    """Move the places past the blanks, in place; a blank field ends where it begins.

    What stands at a field's end (a delimiter, a line end) is no blank, so that no field is left.
    """
    todo = np.flatnonzero(is_blank[begins])
    for _ in range(_STEPS):
        if not len(todo):
            break
        begins[todo] += 1
        todo = todo[is_blank[begins[todo]]]
    for field in todo.tolist():
        begins[field] += np.argmin(is_blank[begins[field] : ends[field] + 1])
    todo = np.flatnonzero(is_blank[ends - 1])
    todo = todo[ends[todo] > begins[todo]]
    for _ in range(_STEPS):
        if not len(todo):
            break
        ends[todo] -= 1
        todo = todo[is_blank[ends[todo] - 1]]
    for field in todo.tolist():
        ends[field] -= np.argmin(is_blank[begins[field] : ends[field]][::-1])
