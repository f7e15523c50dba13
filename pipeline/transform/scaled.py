"""Typed numbers as exact integers in units of a decimal place, to calculate with whole columns without rounding.

A column of whole or decimal numbers becomes integers of its last decimal's units: 64-bit ones where their sums surely fit, else
Python's own, which have no end. Going back into a column's type a value that has more decimals than the type, or is
beyond its range, is refused with the reason that a text with that value would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import ColumnType
from pipeline.transform.coerced import Coerced, Mask, arrow_type, digits_of

#: Far enough below 64 bits for a sum of 20 columns and a further digit.
_SAFE: Final = 2**63 // 1000
#: Enough digits for every decimal that Arrow has.
_CONTEXT: Final = Context(prec=100)
#: Bits of a whole number without its sign.
INTEGER_BITS: Final = {"integer": 31, "bigint": 63}


@dataclass(frozen=True)
class Scaled:
    """A column of numbers: ``units`` are 64-bit integers or Python's (dtype object), 0 where there is no value."""

    units: npt.NDArray[Any]
    is_there: Mask
    scale: int

    @classmethod
    def of(cls, values: pa.Array) -> Scaled:
        """Take a column of integers or decimals apart."""
        is_there: Mask = values.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_integer(values.type):
            units = pc.fill_null(pc.cast(values, pa.int64()), 0).to_numpy()
            return cls(_roomy(units), is_there, 0)
        scale = values.type.scale
        if values.type.bit_width == 128:
            _, data = values.buffers()
            words = np.frombuffer(data, np.int64, 2 * len(values), 16 * values.offset).reshape(len(values), 2)
            low = np.where(is_there, words[:, 0], 0)
            if (np.where(is_there, words[:, 1], 0) == low >> 63).all():
                return cls(_roomy(low), is_there, scale)
        exact = [0 if value is None else int(value.scaleb(scale, _CONTEXT)) for value in values.to_pylist()]
        return cls(np.array(exact, object), is_there, scale)

    def at(self, scale: int) -> Scaled:
        """The same numbers with more decimals, or as many."""
        if scale == self.scale:
            return self
        factor = 10 ** (scale - self.scale)
        fits = self.units.dtype != object and factor * max(_largest(self.units), 1) < _SAFE
        return Scaled((self.units if fits else self.units.astype(object)) * factor, self.is_there, scale)

    def into(self, column_type: ColumnType) -> Coerced:
        """The numbers as a column of a type, and those that it cannot hold."""
        is_whole = column_type.kind in INTEGER_BITS
        scale = 0 if is_whole else digits_of(column_type)[1]
        divisor = 10 ** max(self.scale - scale, 0)
        units = self.at(max(self.scale, scale)).units
        is_inexact = np.zeros(len(units), dtype=bool)
        if divisor > 1:
            units = units if divisor < _SAFE else units.astype(object)
            is_inexact = (units % divisor != 0).astype(bool)
            units = units // divisor
        if is_whole:
            bits = INTEGER_BITS[column_type.kind]
            is_far = (units >= 2**bits) | (units < -(2**bits))
        else:
            limit = 10 ** digits_of(column_type)[0]
            is_far = (units >= limit) | (units <= -limit)
        is_far = is_far.astype(bool) & ~is_inexact
        is_good = self.is_there & ~is_inexact & ~is_far
        found = {"not_an_integer" if is_whole else "too_many_decimals": is_inexact, "out_of_range": is_far}
        return Coerced(_array(units, arrow_type(column_type), is_good), {name: mask for name, mask in found.items() if mask.any()})


def from_units(units: npt.NDArray[np.int64], target: pa.DataType, is_there: Mask) -> pa.Array:
    """64-bit integers as an Arrow column: whole numbers, or decimals in units of their last digit."""
    if pa.types.is_integer(target):
        return pc.cast(pa.array(units, mask=~is_there), target, safe=False)
    words = np.empty((len(units), target.bit_width // 64), np.int64)
    words[:, 0] = units
    words[:, 1:] = (units >> 63)[:, None]
    validity = pa.array(is_there).buffers()[1]
    return pa.Array.from_buffers(target, len(units), [validity, pa.py_buffer(words)])


def _array(units: npt.NDArray[Any], target: pa.DataType, is_there: Mask) -> pa.Array:
    if units.dtype != object:
        return from_units(units, target, is_there)
    exact: list[int | Decimal | None] = [int(value) if there else None for value, there in zip(units, is_there, strict=True)]
    if not pa.types.is_integer(target):
        exact = [None if value is None else Decimal(value).scaleb(-target.scale, _CONTEXT) for value in exact]
    return pa.array(exact, target)


def _roomy(units: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The integers, as Python's where a sum of them might leave 64 bits."""
    return units if _largest(units) < _SAFE else units.astype(object)


def _largest(units: npt.NDArray[np.int64]) -> int:
    """The largest without its sign, as an integer without end."""
    return max(int(units.max()), -int(units.min())) if len(units) else 0
