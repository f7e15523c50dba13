"""Dates: exactly of a declared format and a day that exists, or refused.

The reference reads one text by the declared ``strptime`` formats in order, held to the digits that each format describes,
because ``strptime`` alone takes one digit for two and digits of any script. Formats of digits and fixed characters alone
(``%m/%d/%Y``, ``%Y%m%d``) are read for a whole column at once by looking days up in a table; what they do not take goes,
distinct text by distinct text, to the reference. Years are 1700 to 2200: beyond them stand slips of the pen and
placeholders, which a schema file declares as nulls where they are known.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.catalog.model import Column
from pipeline.errors import CatalogError
from pipeline.transform.coerced import Coerced, Mask, Refusal, TextReader
from pipeline.transform.distinct import Distinct
from pipeline.transform.octets import Octets, Places, replaced, spread, without

YEARS: Final = (1700, 2200)
_DIRECTIVES: Final[Mapping[str, str]] = {
    "Y": "[0-9]{4}",
    **dict.fromkeys("mdyHMSIj", "[0-9]{2}"),
    "j": "[0-9]{3}",
    "f": "[0-9]{1,6}",
    **dict.fromkeys("bBp", "[A-Za-z]+"),
    "%": "%",
}
_DIGITS: Final[Mapping[str, int]] = {"Y": 4, "m": 2, "d": 2}
_ISO: Final = "%Y-%m-%d"
#: No day, in the table of days.
_NONE: Final = np.int32(-(2**31))
_MONTHS, _DAYS = 16, 32


def date_reader(column: Column) -> TextReader:
    """The reader of one text of a date column.

    Raises:
        CatalogError: a format with a directive that this program does not know, or with one twice.
    """
    shapes = [(re.compile(_shape_of(form)), form) for form in column.formats]
    return lambda text: _read(text, shapes)


def _read(text: str, shapes: list[tuple[re.Pattern[str], str]]) -> datetime.date | Refusal:
    for shape, form in shapes:
        if shape.fullmatch(text) is None:
            continue
        try:
            moment = datetime.datetime.strptime(text, form)
        except ValueError:
            continue  # 02/30/2024: the shape of a date, and none
        if not YEARS[0] <= moment.year <= YEARS[1]:
            return Refusal("out_of_range")
        return Refusal("time_of_day") if moment.time() != datetime.time() else moment.date()
    return Refusal("not_a_date")


def _shape_of(form: str) -> str:
    """The regular expression of exactly the texts that a ``strptime`` format describes."""
    shape, seen = "", set[str]()
    for directive, literal in _pieces(form):
        if directive in seen or (directive is not None and directive not in _DIRECTIVES):
            known = " ".join(f"%{letter}" for letter in _DIRECTIVES)
            raise CatalogError(f"%{directive} in the date format {form!r}", f"each once of {known}", "correct the schema file")
        if directive is not None and directive != "%":
            seen.add(directive)
        shape += re.escape(literal) if directive is None else _DIRECTIVES[directive]
    return shape


def _pieces(form: str) -> list[tuple[str | None, str]]:
    """A format cut into (directive, "") and (None, character)."""
    pieces: list[tuple[str | None, str]] = []
    rest = iter(form)
    for character in rest:
        pieces.append((next(rest, ""), "") if character == "%" else (None, character))
    return pieces


@dataclass(frozen=True)
class _FixedFormat:
    """A format of four digits of year, two of month, two of day and ASCII characters between them."""

    form: str
    width: int
    places: Mapping[str, int]
    literals: Mapping[int, int]

    @classmethod
    def of(cls, form: str) -> _FixedFormat | None:
        """The format; None where it has anything else."""
        width, places, literals = 0, dict[str, int](), dict[int, int]()
        for directive, literal in _pieces(form):
            if directive is None:
                if not literal.isascii() or literal.isspace():
                    return None  # strptime takes any white space for white space
                literals[width] = ord(literal)
                width += 1
            elif directive in _DIGITS and directive not in places:
                places[directive] = width
                width += _DIGITS[directive]
            else:
                return None
        return cls(form, width, places, literals) if len(places) == len(_DIGITS) else None

    def read(self, seen: Octets, rows: Places) -> tuple[npt.NDArray[np.int32], Mask]:
        """Days since 1970 of these texts, all of this width, and which texts are this format with a year out of range."""
        if len(seen.octets) == len(rows) * self.width:  # every text that is there: they lie side by side
            grid = seen.octets.reshape(len(rows), self.width)
            columns = [grid[:, place] for place in range(self.width)]
        else:
            starts = seen.starts[rows]
            columns = [seen.octets[starts + place] for place in range(self.width)]
        fits = np.ones(len(rows), dtype=bool)
        for place, octet in self.literals.items():
            fits &= columns[place] == octet
        numbers = {}
        for directive, first in self.places.items():
            number = np.zeros(len(rows), np.int32)
            for place in range(first, first + _DIGITS[directive]):
                digit = columns[place] - np.uint8(48)
                fits &= digit <= 9
                number = number * np.int32(10) + digit
            numbers[directive] = number
        is_far = fits & ((numbers["Y"] < YEARS[0]) | (numbers["Y"] > YEARS[1]))
        fits &= ~is_far & (numbers["m"] < _MONTHS) & (numbers["d"] < _DAYS)
        index = ((numbers["Y"] - YEARS[0]) * _MONTHS + numbers["m"]) * _DAYS + numbers["d"]
        return np.where(fits, _days()[np.where(fits, index, 0)], _NONE), is_far


@cache
def _days() -> npt.NDArray[np.int32]:
    """Days since 1970 by year, month and day; ``_NONE`` where there is no such day. It has 1 MB."""
    table = np.full((YEARS[1] - YEARS[0] + 1) * _MONTHS * _DAYS, _NONE, np.int32)
    days = np.arange(f"{YEARS[0]}-01-01", f"{YEARS[1] + 1}-01-01", dtype="datetime64[D]")
    months = days.astype("datetime64[M]")
    month = months.astype(np.int64) - 12 * (YEARS[0] - 1970)
    day = (days - months).astype(np.int64) + 1
    table[(month // 12 * _MONTHS + month % 12 + 1) * _DAYS + day] = days.astype(np.int64)
    return table


class DateTyper:
    """Types a date column."""

    def __init__(self, column: Column) -> None:
        """Take apart the formats; those before the first that is not of fixed digits are read column-wise."""
        self._fixed: list[_FixedFormat] = []
        for form in column.formats:
            fixed = _FixedFormat.of(form)
            if fixed is None:
                break
            self._fixed.append(fixed)
        self._distinct = Distinct(date_reader(column), pa.date32())

    def __call__(self, seen: Octets, is_ascii: bool, has_controls: bool) -> Coerced:
        """Type a column whose declared nulls are NULL."""
        days = np.full(len(seen), _NONE, np.int32)
        open_rows = seen.is_there.copy()
        is_iso = True
        for fixed in self._fixed:
            rows = np.flatnonzero(open_rows & (seen.lengths == fixed.width))
            if not len(rows):
                continue
            found, is_far = fixed.read(seen, rows)
            is_found = found != _NONE
            days[rows[is_found]] = found[is_found]
            # A year out of range ends the search in the reference, so no later format may take it here.
            open_rows[rows[is_found | is_far]] = False
            is_iso &= fixed.form == _ISO or not is_found.any()
        others = seen.is_there & (days == _NONE)
        values = pa.array(days, pa.date32(), mask=days == _NONE)
        if not others.any():
            return Coerced(values, canonical=seen.texts if is_iso else None)
        read = self._distinct(seen.texts.filter(pa.array(others)))
        is_iso &= read.values.null_count == len(read.values)
        canonical: Any = without(seen.texts, others) if is_iso else None
        return Coerced(replaced(values, others, read.values), spread(others, read.refusals), canonical=canonical)
