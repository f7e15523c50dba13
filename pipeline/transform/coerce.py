"""Text to typed values, a column at a time, exactly and with every refusal named.

In goes a column of text as the reader gives it; out comes an Arrow array of the column's type and, for each reason, the
rows whose value the type cannot take. ``reader_of`` makes the meaning: a function that reads one text. The column-wise
path gives the same, because it hands to Arrow's own casts only texts of a plain shape that Arrow reads the same way,
and every other distinct text to that function. Nothing passes through a float, nothing is rounded, cut or replaced:
a value is taken whole, is NULL because it is blank or a declared null, or is refused with a reason. Whether a NULL may
stand there is not decided here but by the rules (``pipeline.transform.rules``).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, ColumnType
from pipeline.errors import CatalogError

Mask = npt.NDArray[np.bool_]

BLANKS: Final = " \t"
YEARS: Final = (1700, 2200)
_INTEGER_BITS: Final[Mapping[str, int]] = {"integer": 31, "bigint": 63}
_CONTROL = r"[\x00-\x08\x0a-\x1f]"
_CONTROL_CHARACTER = re.compile(_CONTROL)
_BLANK_RUN = re.compile("[ \t]+")
_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))")
_DATE_DIRECTIVES: Final[Mapping[str, str]] = {
    "Y": "[0-9]{4}",
    **dict.fromkeys("mdyHMSIj", "[0-9]{2}"),
    "j": "[0-9]{3}",
    "f": "[0-9]{1,6}",
    **dict.fromkeys("bBp", "[A-Za-z]+"),
    "%": "%",
}

#: Reason -> what it says in the quarantine.
MESSAGES: Final[Mapping[str, str]] = {
    "control_character": "has a control character",
    "not_a_number": "is not a plain decimal number",
    "not_an_integer": "has a fraction, and the column holds whole numbers",
    "too_many_decimals": "has more digits after the decimal point than the column holds",
    "literal_point": "has a decimal point, and the column's decimals are implied",
    "out_of_range": "is beyond the range of the column's type",
    "not_a_date": "is not a date of the declared formats",
    "time_of_day": "has a time of day, and the column holds dates",
    "not_a_code": "is not a declared code of true or false",
}


@dataclass(frozen=True)
class Refusal:
    """Why a text is no value of its column: a reason (a key of :data:`MESSAGES`)."""

    reason: str

    @property
    def message(self) -> str:
        """The reason as a sentence without a subject, never with the value."""
        return MESSAGES[self.reason]


@dataclass(frozen=True)
class Coerced:
    """A typed column; ``refusals`` has, by reason, a mask of the rows whose value is NULL only because it was refused."""

    values: pa.Array
    refusals: Mapping[str, Mask] = field(default_factory=dict)


#: Reads one text, trimmed, not blank and not a declared null.
TextReader = Callable[[str], Any]


def arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type of a column: what ``rows.parquet`` holds."""
    if column_type.kind == "numeric":
        precision, scale = _digits(column_type)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    return {
        "text": pa.string(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "date": pa.date32(),
        "boolean": pa.bool_(),
    }[column_type.kind]


def coerce_text(text: str | None, column: Column) -> Any:
    """Read one text: the reference for :func:`coerce_column`.

    Returns:
        None, ``str``, ``int``, ``Decimal`` (with the column's scale), ``datetime.date`` or ``bool``; or a
        :class:`Refusal`.
    """
    if text is None:
        return None
    trimmed = text.strip(BLANKS)
    return None if not trimmed or trimmed in column.nulls else reader_of(column)(trimmed)


def coerce_column(texts: pa.Array, column: Column) -> Coerced:
    """Read a whole column.

    Args:
        texts: an Arrow array of strings; null means blank.
        column: its declaration.

    Returns:
        Values of ``arrow_type(column.type)``, as many as texts, and the refusals.
    """
    trimmed = pc.utf8_trim(texts, characters=BLANKS)
    is_null = pc.is_in(trimmed, value_set=pa.array(["", *column.nulls], pa.string()))
    trimmed = pc.if_else(is_null, pa.scalar(None, pa.string()), trimmed)
    if column.type.kind == "text":
        return _coerce_plain_text(trimmed, column)
    target = arrow_type(column.type)
    plain = _plain_shape(column)
    if plain is None:
        return _coerce_distinct(trimmed, column, target)
    is_plain = pc.fill_null(pc.match_substring_regex(trimmed, plain), False)
    nothing = pa.scalar(None, pa.string())
    fast = pc.cast(pc.if_else(is_plain, trimmed, nothing), target)
    others = pc.if_else(is_plain, nothing, trimmed)
    if others.null_count == len(others):
        return Coerced(fast)
    slow = _coerce_distinct(others, column, target)
    return Coerced(pc.coalesce(fast, slow.values), slow.refusals)


def declared_nulls(texts: pa.Array, column: Column) -> Mask:
    """Which rows hold a text that the column declares to mean "no value" (``Pending``, ``12/30/1899``): NULL by that rule."""
    trimmed = pc.utf8_trim(texts, characters=BLANKS)
    found: Mask = pc.is_in(trimmed, value_set=pa.array([null for null in column.nulls if null], pa.string())).to_numpy(zero_copy_only=False)
    return found


def reader_of(column: Column) -> TextReader:
    """The function that reads one trimmed text of a column into its value or a :class:`Refusal`.

    Raises:
        CatalogError: the column declares a date format, a step or a precision that this program does not know.
    """
    kind = column.type.kind
    if kind == "text":
        normalized_text("", column.normalize)  # an unknown step is refused now, not at the first value
        return lambda text: _read_text(text, column.normalize)
    if kind in _INTEGER_BITS:
        return lambda text: _read_integer(text, column.implied_decimals, _INTEGER_BITS[kind])
    if kind == "numeric":
        precision, scale = _digits(column.type)
        return lambda text: _read_numeric(text, column.implied_decimals, precision, scale)
    if kind == "date":
        shapes = [(re.compile(_date_shape(form)), form) for form in column.formats]
        return lambda text: _read_date(text, shapes)
    codes = {code: False for code in column.false_codes} | {code: True for code in column.true_codes}
    return lambda text: codes.get(text, Refusal("not_a_code"))


def normalized_text(text: str, steps: tuple[str, ...]) -> str:
    """A trimmed text after the declared steps, in order.

    Raises:
        CatalogError: a step that does not exist.
    """
    for step in steps:
        if step == "collapse_blanks":
            text = _BLANK_RUN.sub(" ", text)
        elif step == "upper":
            text = text.upper()
        else:
            raise CatalogError(f"normalize step {step!r}", "collapse_blanks or upper", "correct the schema file")
    return text


def _coerce_plain_text(trimmed: pa.Array, column: Column) -> Coerced:
    """Text: normalised, and refused where it holds a control character."""
    values = trimmed
    if column.normalize:
        values = _map_distinct(values, lambda text: normalized_text(text, column.normalize), pa.string())
    bad = pc.fill_null(pc.match_substring_regex(values, _CONTROL), False)
    if not pc.any(bad).as_py():
        return Coerced(values)
    return Coerced(
        pc.if_else(bad, pa.scalar(None, pa.string()), values), {"control_character": bad.to_numpy(zero_copy_only=False)}
    )


def _coerce_distinct(trimmed: pa.Array, column: Column, target: pa.DataType) -> Coerced:
    """Read each distinct text once by the column's reader."""
    read = reader_of(column)
    encoded = pc.dictionary_encode(trimmed)
    results = [read(text) for text in encoded.dictionary.to_pylist()]
    values = pa.array([None if isinstance(result, Refusal) else result for result in results], target)
    refusals: dict[str, Mask] = {}
    for reason in sorted({result.reason for result in results if isinstance(result, Refusal)}):
        refused = pa.array([isinstance(result, Refusal) and result.reason == reason for result in results])
        mask = pc.fill_null(refused.take(encoded.indices), False)
        refusals[reason] = mask.to_numpy(zero_copy_only=False)
    return Coerced(values.take(encoded.indices), refusals)


def _map_distinct(values: pa.Array, change: Callable[[str], str], target: pa.DataType) -> pa.Array:
    """Apply a function to each distinct value."""
    encoded = pc.dictionary_encode(values)
    return pa.array([change(text) for text in encoded.dictionary.to_pylist()], target).take(encoded.indices)


def _plain_shape(column: Column) -> str | None:
    """A pattern of the texts that Arrow's cast reads exactly as the column's reader does, and never refuses."""
    if column.implied_decimals:
        return None
    if column.type.kind in _INTEGER_BITS:
        return f"^-?[0-9]{{1,{9 if column.type.kind == 'integer' else 18}}}$"
    if column.type.kind == "numeric":
        precision, scale = _digits(column.type)
        if precision > scale:
            return f"^-?[0-9]{{1,{precision - scale}}}" + (rf"(\.[0-9]{{1,{scale}}})?$" if scale else "$")
    return None


def _read_text(text: str, steps: tuple[str, ...]) -> str | Refusal:
    value = normalized_text(text, steps)
    return Refusal("control_character") if _CONTROL_CHARACTER.search(value) else value


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


def _read_date(text: str, shapes: list[tuple[re.Pattern[str], str]]) -> datetime.date | Refusal:
    """``strptime`` alone takes one digit for two and digits of any script; the shapes hold it to what is declared."""
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


def _date_shape(form: str) -> str:
    """The regular expression of exactly the texts that a ``strptime`` format describes."""
    shape, rest = "", iter(form)
    for character in rest:
        if character != "%":
            shape += re.escape(character)
            continue
        directive = next(rest, "")
        if directive not in _DATE_DIRECTIVES:
            known = " ".join(f"%{letter}" for letter in _DATE_DIRECTIVES)
            raise CatalogError(f"%{directive} in the date format {form!r}", f"one of {known}", "correct the schema file")
        shape += _DATE_DIRECTIVES[directive]
    return shape


def _digits(column_type: ColumnType) -> tuple[int, int]:
    """Precision and scale of a numeric type, which must state both."""
    if column_type.precision is None or column_type.scale is None or column_type.precision > 76:
        raise CatalogError(f"the type {column_type.sql}", "numeric(p,s) with p up to 76", "correct the schema file")
    return column_type.precision, column_type.scale
