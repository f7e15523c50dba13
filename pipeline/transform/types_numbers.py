"""Numbers: exact, never through a float, each taken whole or refused with a reason.

A number is ASCII digits with at most one point and a sign before them, and nothing else: no exponent, currency, thousands or
parentheses. The reference reads one text in Python. A whole column is read as 64-bit integers of its digits with the points taken
out, and scaled by powers of ten to the column's decimals; that covers texts of up to 18 digits, which is to say all but a few.
Every other text (a plus sign, more digits, a value out of range, what is no number) goes, distinct text by distinct text, to the
reference, which alone refuses.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.transform.coerced import Coerced, Mask, Refusal, TextReader, arrow_type, digits_of
from pipeline.transform.distinct import Distinct
from pipeline.transform.octets import Octets, replaced, spread, without
from pipeline.transform.scaled import INTEGER_BITS, from_units

Integers = npt.NDArray[np.int64]

#: Digits that a 64-bit integer holds whatever they are.
SAFE_DIGITS: Final = 18
POWERS: Final[Integers] = 10 ** np.arange(SAFE_DIGITS + 1, dtype=np.int64)
_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))")
_MINUS, _POINT, _ZERO = 45, 46, 48


def number_reader(column: Column) -> TextReader:
    """The reader of one text of a column of numbers: into ``int``, or ``Decimal`` with the column's scale."""
    kind = column.type.kind
    if kind in INTEGER_BITS:
        return lambda text: _read_integer(text, column.implied_decimals, INTEGER_BITS[kind])
    precision, scale = digits_of(column.type)
    return lambda text: _read_numeric(text, column.implied_decimals, precision, scale)


def _read_number(text: str, implied: int) -> tuple[str, str, str] | Refusal:
    """Sign, digits before the decimal point without leading zeros, digits after it without trailing zeros."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return Refusal("not_a_number")
    sign, whole, fraction = match[1], match[2] or "", match[3] or match[4] or ""
    if implied:
        if "." in text:
            return Refusal("literal_point")
        digits = whole.zfill(implied)
        whole, fraction = digits[: len(digits) - implied], digits[len(digits) - implied :]
    return "-" if sign == "-" else "", whole.lstrip("0"), fraction.rstrip("0")


def _read_integer(text: str, implied: int, bits: int) -> int | Refusal:
    number = _read_number(text, implied)
    if isinstance(number, Refusal):
        return number
    sign, whole, fraction = number
    if fraction:
        return Refusal("not_an_integer")
    if len(whole) > 19:  # beyond any bigint; int() would also refuse a text of thousands of digits
        return Refusal("out_of_range")
    value = int(f"{sign}{whole or 0}")
    return value if -(2**bits) <= value < 2**bits else Refusal("out_of_range")


def _read_numeric(text: str, implied: int, precision: int, scale: int) -> Decimal | Refusal:
    number = _read_number(text, implied)
    if isinstance(number, Refusal):
        return number
    sign, whole, fraction = number
    if len(fraction) > scale:
        return Refusal("too_many_decimals")
    if len(whole) > precision - scale:
        return Refusal("out_of_range")
    if not whole and not fraction:
        sign = ""  # no negative zero
    return Decimal(f"{sign}{whole or 0}.{fraction.ljust(scale, '0')}")


class NumberTyper:
    """Types a column of whole or decimal numbers."""

    def __init__(self, column: Column) -> None:
        """Work out the scale and the range."""
        self._target = arrow_type(column.type)
        self._distinct = Distinct(number_reader(column), self._target)
        self._implied = column.implied_decimals
        if column.type.kind in INTEGER_BITS:
            bits = INTEGER_BITS[column.type.kind]
            self._scale, self._limit = 0, min(2**bits, 10**SAFE_DIGITS)
        else:
            precision, self._scale = digits_of(column.type)
            self._limit = 10 ** min(precision, SAFE_DIGITS)

    def __call__(self, seen: Octets, is_ascii: bool, has_controls: bool) -> Coerced:
        """Type a column whose declared nulls are NULL."""
        digits = _Digits(seen, self._implied)
        values, is_other = self._scaled(digits)
        fast = from_units(values, self._target, seen.is_there & ~is_other)
        if not is_other.any():
            return Coerced(fast, canonical=digits.canonical())
        read = self._distinct(seen.texts.filter(pa.array(is_other)))
        canonical = None
        if read.values.null_count == len(read.values):  # what is left after the refusals may still be canonical as it is
            canonical = digits.canonical(is_other)
        return Coerced(replaced(fast, is_other, read.values), spread(is_other, read.refusals), canonical=canonical)

    def _scaled(self, digits: _Digits) -> tuple[Integers, Mask]:
        """The values in units of the column's last decimal, and which texts have none: not plain, inexact, or beyond the range."""
        values, fraction = digits.values(), digits.fraction
        if fraction is None:
            shift = self._scale - self._implied
            if not shift:
                return values, digits.is_other | (values >= self._limit) | (values <= -self._limit)
            up: Any = max(shift, 0)
            down: Any = max(-shift, 0)
        else:
            up, down = np.maximum(self._scale - fraction, 0), np.maximum(fraction - self._scale, 0)
        is_other = digits.is_other | (values != 0) & (up > SAFE_DIGITS)  # beyond 64 bits whatever they are
        up = np.minimum(up, SAFE_DIGITS)
        if np.any(down):
            is_other |= values % POWERS[down] != 0
            values = values // POWERS[down]
        # The limit is compared before the multiplication, which could leave 64 bits.
        most = -(-self._limit // POWERS[up])
        is_other |= (values >= most) | (values <= -most)
        return values * POWERS[up], is_other


class _Digits:
    """A column of texts as digits: where the points are, and which texts are not plain.

    Attributes:
        is_other: texts that are not ASCII digits with at most one point between or around them and a minus before them, or that
            have more than 18 digits.
        fraction: digits behind the point of each text; None: no text has a point.
    """

    def __init__(self, seen: Octets, implied: int) -> None:
        self._seen = seen
        self._implied = implied
        self.is_other: Mask = np.zeros(len(seen), dtype=bool)
        self.fraction: npt.NDArray[np.int32] | None = None
        self._has_minus = False
        if seen.is_all_digits:
            self.is_other = seen.lengths > SAFE_DIGITS
        else:
            self._look_at_marks(seen, implied)

    def _look_at_marks(self, seen: Octets, implied: int) -> None:
        places = seen.not_digits
        rows, marks = seen.rows_at(places), seen.octets[places]
        is_minus = (marks == _MINUS) & (places == seen.starts[rows])
        is_point = marks == _POINT if not implied else np.zeros(len(marks), dtype=bool)
        self.is_other[rows[~(is_minus | is_point)]] = True
        pointed = rows[is_point]
        self.is_other[pointed[1:][pointed[1:] == pointed[:-1]]] = True  # a second point
        counts = np.bincount(rows, minlength=len(seen)).astype(np.int32)
        digits = seen.lengths - counts
        self.is_other |= seen.is_there & ((digits < 1) | (digits > SAFE_DIGITS))
        self._has_minus = bool((is_minus & ~self.is_other[rows]).any())
        if len(pointed):
            self.fraction = np.zeros(len(seen), np.int32)
            self.fraction[pointed] = seen.starts[pointed + 1] - places[is_point] - 1
            self.fraction[self.is_other] = 0

    @cached_property
    def _plain(self) -> Octets:
        """The column without the texts that are not plain."""
        return Octets.of(without(self._seen.texts, self.is_other)) if self.is_other.any() else self._seen

    def values(self) -> Integers:
        """The digits of each text as one integer; 0 where it is NULL or not plain."""
        plain = self._plain
        texts = plain.texts
        if self.fraction is not None:
            is_point = plain.octets == _POINT
            counts = np.zeros(len(plain) + 1, np.int32)
            counts[1:][plain.rows_at(np.flatnonzero(is_point))] = 1
            starts = plain.starts - np.cumsum(counts, dtype=np.int32)
            octets = plain.octets[~is_point]
            texts = pa.StringArray.from_buffers(len(plain), pa.py_buffer(starts), pa.py_buffer(octets), texts.buffers()[0])
        values: Integers = pc.fill_null(pc.cast(texts, pa.int64()), 0).to_numpy()
        return values

    def canonical(self, is_other: Mask | None = None) -> pa.StringArray | None:
        """The texts as a row hash writes their values, where that costs next to nothing; NULL in the other rows."""
        plain = self._plain
        if self._has_minus or self._implied:
            return None
        if is_other is not None and (is_other & ~self.is_other).any():
            plain = Octets.of(without(plain.texts, is_other))
        lengths = plain.lengths
        if self.fraction is None:
            is_canonical = not (plain.first_bytes(lengths > 1) == _ZERO).any()
            return plain.texts if is_canonical and plain.is_all_digits else None
        # Every text has a point, digits before it, and no more zeros at its beginning than one before the point.
        whole = (lengths - self.fraction - 1)[plain.is_there]
        if int((plain.octets == _POINT).sum()) != len(whole) or (whole < 1).any():
            return None
        starts = plain.starts[:-1][plain.is_there]
        if (plain.octets[starts[whole > 1]] == _ZERO).any():
            return None
        return pc.ascii_rtrim(pc.ascii_rtrim(plain.texts, "0"), ".")
