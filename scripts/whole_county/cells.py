"""Columns of a member's texts, made as whole Arrow arrays of bytes in Windows-1252, and the lines that they join to.

A cell is an array, a :class:`~whole_county.draws.Taken` of a pool, or one text for all rows. ``lines`` joins them with tabs;
constants that stand side by side are joined once. Everything is bytes, so that a byte that Windows-1252 does not define, a NUL
and a quote are written like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whole_county.draws import Mask, Numbers, Taken

Cell = pa.Array | Taken | bytes
LINE_END = b"\r\n"
#: The days that dates are taken from: 1 January of the first year up to that of the last.
FIRST_YEAR, LAST_YEAR = 1880, 2041


def digits(numbers: npt.NDArray[np.integer], width: int = 0) -> pa.Array:
    """Whole numbers, with zeros in front up to a width."""
    texts = pc.cast(pa.array(numbers), pa.string())
    return pc.cast(pc.ascii_lpad(texts, width, "0") if width else texts, pa.binary())


def joined(*cells: Cell, by: bytes = b"") -> pa.Array:
    """Cells one after the other; one of them at least is no constant."""
    return pc.binary_join_element_wise(*(_operand(cell) for cell in cells), by)


def decimals(numbers: Numbers, places: int, shown: int | None = None) -> pa.Array:
    """Numbers in units of ``10**-places`` with a point; ``shown`` decimals, zeros behind."""
    whole, part = np.divmod(numbers, 10**places)
    return joined(digits(whole), Taken(_fractions(places, shown or places), part))


def days(ordinals: Numbers) -> Taken:
    """Dates as MM/DD/YYYY, from days since 1970-01-01."""
    return Taken(_day_texts(), ordinals - _ordinal(FIRST_YEAR))


def day(year: int, month: int = 1, day_of_month: int = 1) -> int:
    """Days since 1970-01-01."""
    return int(np.datetime64(f"{year:04}-{month:02}-{day_of_month:02}", "D").astype(np.int64))


def either(is_so: Mask, cell: Cell, other: Cell = b" ") -> pa.Array:
    """The one or the other."""
    return pc.if_else(pa.array(is_so), _operand(cell), _operand(other))


def padded(cell: Cell, width: int) -> Cell:
    """Blanks behind each text up to a width; pools and constants are padded once."""
    if isinstance(cell, bytes):
        return cell.ljust(width)
    if isinstance(cell, Taken):
        return Taken(_padded_texts(_Held(cell.texts), width), cell.places)
    return pc.cast(pc.ascii_rpad(pc.cast(cell, pa.string()), width), pa.binary())


def array(cell: Cell, rows: int) -> pa.Array:
    """The cell as an array."""
    if isinstance(cell, bytes):
        return pa.repeat(pa.scalar(cell, pa.binary()), rows)
    return cell.array() if isinstance(cell, Taken) else cell


def lines(cells: Sequence[Cell]) -> pa.Array:
    """Rows without their line ends: the cells with tabs between."""
    merged: list[Cell] = []
    for cell in cells:
        if isinstance(cell, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] = merged[-1] + b"\t" + cell
        else:
            merged.append(cell)
    return joined(*merged, by=b"\t")


def content(texts: pa.Array) -> bytes:
    """Lines as they stand in the file, each with its line end."""
    if not len(texts):
        return b""
    listed = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    return bytes(pc.binary_join(listed, LINE_END)[0].as_buffer()) + LINE_END


class _Held:
    """An array as a key of a cache: by identity, and kept alive."""

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts

    def __hash__(self) -> int:
        return id(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.texts is self.texts


@lru_cache(maxsize=512)
def _padded_texts(held: _Held, width: int) -> pa.Array:
    return pa.array([text.as_py().ljust(width) for text in held.texts], pa.binary())


@lru_cache(maxsize=16)
def _fractions(places: int, shown: int) -> pa.Array:
    return pa.array([f".{part:0{places}}".ljust(shown + 1, "0").encode() for part in range(10**places)], pa.binary())


def _ordinal(year: int) -> int:
    return day(year)


@lru_cache(maxsize=1)
def _day_texts() -> pa.Array:
    every = np.arange(np.datetime64(f"{FIRST_YEAR}-01-01"), np.datetime64(f"{LAST_YEAR}-01-01"))
    return pc.cast(pc.strftime(pa.array(every.astype("datetime64[D]")), "%m/%d/%Y"), pa.binary())


def _operand(cell: Cell) -> pa.Array | pa.Scalar:
    if isinstance(cell, bytes):
        return pa.scalar(cell, pa.binary())
    return cell.array() if isinstance(cell, Taken) else cell
