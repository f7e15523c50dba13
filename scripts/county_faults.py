"""What can be wrong with a record, or only looks so, and what must become of it.

A kind takes one good record and spoils it in one way; it says which lines come of it and the outcome that the schema file
demands: the line is refused by a named rule, one value becomes NULL by a named rule, the record is kept with the text that it
has, or the line is no record at all. Columns are chosen by what the schema file declares of them, so that a kind fits any table that has
such a column, and outcomes follow the column's own policy. The outcomes are written down here and not asked of the
pipeline: a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from county_shapes import Field, Shape

from pipeline.catalog.model import Column, Table

Form = Literal["delimited", "fixed_width"]
ENCODING = "cp1252"
#: 0x81 means nothing in Windows-1252; U+DC81 is how Python writes that byte in text (surrogateescape).
UNDEFINED = "\udc81"


@dataclass(frozen=True)
class Outcome:
    """The lines that a spoilt record is written as, and what must become of it.

    Attributes:
        lines: without line ends.
        refused: the rule that refuses each of the lines (``acct:regex``, ``*:field_count``); None: it is a row, or blank.
        nulled: the rule by which one value becomes NULL.
        changed: the column whose value is another one than the good record's; with it the new text, nothing for NULL.
        is_blank: the line is no record.
    """

    lines: tuple[bytes, ...]
    refused: str | None = None
    nulled: str | None = None
    changed: tuple[str, str] | None = None
    is_blank: bool = False


class Record:
    """A good record, and the ways to write it.

    Args:
        shape, table: how it is published, and what the schema file says.
        form: how it is written.
        texts: column -> trimmed text.
        draw: for choices.
    """

    def __init__(self, shape: Shape, table: Table, form: Form, texts: Mapping[str, str], draw: np.random.Generator) -> None:
        self.shape, self.table, self.form, self.texts, self.draw = shape, table, form, texts, draw

    def cells(self, **changed: str) -> list[str]:
        """Every cell as it stands in the file."""
        texts = {**self.texts, **changed}
        return [cell(field, texts[field.name], self.form) for field in self.shape.fields]

    def line(self, **changed: str) -> bytes:
        """The record's line, with other texts in some columns."""
        return ("\t" if self.form == "delimited" else "").join(self.cells(**changed)).encode(ENCODING, "surrogateescape")

    def one_of(self, choices: Sequence[str]) -> str:
        """One of them by chance."""
        return choices[int(self.draw.integers(len(choices)))]

    @property
    def width_rule(self) -> str:
        """The rule that refuses a line of a wrong number of fields, or of a wrong width."""
        return "*:field_count" if self.form == "delimited" else "*:record_width"


def cell(field: Field, text: str, form: Form) -> str:
    """A text as it stands in the file; one that is too long stays so."""
    if form == "delimited":
        return (text or field.empty).ljust(field.pad)
    return text.rjust(field.width) if field.align == "right" else text.ljust(field.width)


Spoil = Callable[[Record], Outcome]


@dataclass(frozen=True)
class Kind:
    """One way of being wrong: ``is_harmless`` kinds only look so, and their records are kept."""

    name: str
    doc: str
    spoil: Spoil | None
    is_harmless: bool = False


KINDS: dict[str, Kind] = {}

#: Kinds that repeat another record instead of spoiling their own; they have no ``spoil``.
DUPLICATE, CONFLICT = "duplicate", "conflict"
KINDS[DUPLICATE] = Kind(DUPLICATE, "An earlier record once more.", None)
KINDS[CONFLICT] = Kind(CONFLICT, "The key of an earlier record with another text.", None)


def _register(spoil: Spoil, *, is_harmless: bool) -> Spoil:
    name = spoil.__name__.strip("_")
    KINDS[name] = Kind(name, spoil.__doc__ or "", spoil, is_harmless)
    return spoil


def _kind(spoil: Spoil) -> Spoil:
    return _register(spoil, is_harmless=False)


def _harmless(spoil: Spoil) -> Spoil:
    return _register(spoil, is_harmless=True)


def plain_text_columns(shape: Shape, table: Table, width: int) -> list[str]:
    """Text columns without rules or steps, not of the key, that take a text of this width."""
    return [
        field.name
        for field in shape.fields
        for column in (table.column(field.name),)
        if column.type.kind == "text" and not (column.rules or column.normalize or column.required or column.nulls) and field.width >= width
    ]


def _columns(record: Record, kinds: Sequence[str], width: int, rule: str = "") -> list[str]:
    """Columns of these types that take a text of this width, and have this rule if one is asked for."""
    wide = {field.name for field in record.shape.fields if field.width >= width}
    found = [
        column.name
        for column in record.table.columns
        if column.type.kind in kinds and column.name in wide and column.name not in record.table.key and (not rule or rule in column.rules)
    ]
    if not found:
        raise ValueError(f"{record.table.qualified} has no column of {', '.join(kinds)} with {width} bytes and {rule or 'any'} rule")
    return found


def _untyped(record: Record, name: str, text: str, reason: str) -> Outcome:
    """A text that the column's type cannot take: by the column's policy."""
    rule, line = f"{name}:{reason}", record.line(**{name: text})
    column: Column = record.table.column(name)
    if column.on_error == "null" and not column.required:
        return Outcome((line,), nulled=rule, changed=(name, ""))
    return Outcome((line,), refused=rule)


def _broken(record: Record, name: str, text: str, rule: str) -> Outcome:
    """A text that its type takes and that breaks a rule of its column: by the same policy."""
    return _untyped(record, name, text, rule)


def _in_text(record: Record, text: str) -> tuple[str, bytes]:
    """A plain text column that holds this text, and the line."""
    name = record.one_of(plain_text_columns(record.shape, record.table, len(text)))
    return name, record.line(**{name: text})


@_kind
def _wrong_width(record: Record) -> Outcome:
    """A field too many or too few; fixed width: bytes too many or too few."""
    if record.form == "delimited":
        cells = record.cells()
        cells = cells[:-1] if record.draw.random() < 0.5 else [*cells, "MORE"]
        return Outcome(("\t".join(cells).encode("ascii"),), refused=record.width_rule)
    line, count = record.line(), int(record.draw.integers(1, 30))
    return Outcome((line[:-count] if record.draw.random() < 0.5 else line + b"x" * count,), refused=record.width_rule)


@_kind
def _not_a_number(record: Record) -> Outcome:
    """words, currency, NaN and powers where a number belongs."""
    text = record.one_of(["$1,234", "(500)", "NaN", "inf", "1e999", "12,5", "--5", "ABC", "0x1F"])
    return _untyped(record, record.one_of(_columns(record, ("bigint", "integer", "numeric"), len(text))), text, "not_a_number")


@_kind
def _not_an_integer(record: Record) -> Outcome:
    """A fraction where a whole number belongs."""
    return _untyped(record, record.one_of(_columns(record, ("bigint", "integer"), 4)), "12.5", "not_an_integer")


@_kind
def _out_of_range(record: Record) -> Outcome:
    """A number beyond the column's type."""
    return _untyped(record, record.one_of(_columns(record, ("integer",), 10)), "9999999999", "out_of_range")


@_kind
def _too_many_decimals(record: Record) -> Outcome:
    """More digits after the point than the column holds."""
    name = record.one_of(_columns(record, ("numeric",), 7))
    return _untyped(record, name, "0." + "1" * ((record.table.column(name).type.scale or 0) + 1), "too_many_decimals")


@_kind
def _below_minimum(record: Record) -> Outcome:
    """A number below the column's min."""
    name = record.one_of(_columns(record, ("bigint", "integer"), 7, rule="min"))
    return _broken(record, name, str(record.table.column(name).rules["min"] - 5), "min")


@_kind
def _bad_date(record: Record) -> Outcome:
    """Days that no calendar has, and dates in other forms."""
    text = record.one_of(["02/30/2024", "99/99/9999", "00/00/0000", "13/01/2024", "1/2/2024", "TOMORROW", "2024-01-02"])
    return _untyped(record, record.one_of(_columns(record, ("date",), len(text))), text, "not_a_date")


@_kind
def _date_out_of_range(record: Record) -> Outcome:
    """A date of the year 3000."""
    return _untyped(record, record.one_of(_columns(record, ("date",), 10)), "01/01/3000", "out_of_range")


@_kind
def _bad_code(record: Record) -> Outcome:
    """A code that means neither true nor false."""
    return _untyped(record, record.one_of(_columns(record, ("boolean",), 1)), "?", "not_a_code")


@_kind
def _missing_key(record: Record) -> Outcome:
    """Nothing but blanks in the key."""
    name = record.table.key[0]
    return Outcome((record.line(**{name: ""}),), refused=f"{name}:required")


@_kind
def _broken_key(record: Record) -> Outcome:
    """A key that its regex does not match."""
    name, text = record.table.key[0], "X" + record.texts[record.table.key[0]][1:]
    if re.fullmatch(record.table.column(name).rules["regex"], text):
        raise ValueError(f"{record.table.qualified}.{name}: {text} is a good key")
    return _broken(record, name, text, "regex")


@_kind
def _other_year(record: Record) -> Outcome:
    """Another tax year than the release's: refused by a transform that is told the tax year."""
    name = record.table.year_column
    if name is None:
        raise ValueError(f"{record.table.qualified} has no year column")
    return Outcome((record.line(**{name: str(int(record.texts[name]) - 1)}),), refused=f"{name}:other_year")


@_kind
def _control_character(record: Record) -> Outcome:
    """A control character in a text."""
    name, line = _in_text(record, f"BE{record.one_of([chr(7), chr(27), chr(1)])}LL")
    return Outcome((line,), refused=f"{name}:control_character")


@_kind
def _nul(record: Record) -> Outcome:
    """A NUL byte in a text: a control character like any other."""
    name, line = _in_text(record, "NU\0L")
    return Outcome((line,), refused=f"{name}:control_character")


@_kind
def _undefined_byte(record: Record) -> Outcome:
    """A byte that Windows-1252 does not define."""
    return Outcome((_in_text(record, f"CAF{UNDEFINED}")[1],), refused="*:encoding")


@_kind
def _carriage_return(record: Record) -> Outcome:
    """A carriage return in a text."""
    return Outcome((_in_text(record, "TWO\rLINES")[1],), refused="*:carriage_return")


@_kind
def _line_feed(record: Record) -> Outcome:
    """A line feed in a text: two lines, neither of them a record."""
    # Not in the last column: all before it would be a record, whose last text is short, which nobody can see.
    names = plain_text_columns(record.shape, record.table, len("TWO\nLINES"))
    name = record.one_of([name for name in names if name != record.shape.fields[-1].name])
    return Outcome(tuple(record.line(**{name: "TWO\nLINES"}).split(b"\n")), refused=record.width_rule)


@_kind
def _overlong_text(record: Record) -> Outcome:
    """A text of 300 characters: too long only for a column with maxlength, and for any fixed-width record."""
    texts = [column for column in map(record.table.column, record.texts) if column.type.kind == "text"]
    limited = [column.name for column in texts if column.rules.get("maxlength", 999) < 300]
    name, text = record.one_of(limited or plain_text_columns(record.shape, record.table, 20)), "OVERLONG " * 33 + "END"
    line = record.line(**{name: text})
    if record.form == "fixed_width":
        return Outcome((line,), refused=record.width_rule)
    return _broken(record, name, text, "maxlength") if limited else Outcome((line,), changed=(name, text))


@_kind
def _blank_line(record: Record) -> Outcome:
    """A line of nothing, or of blanks."""
    return Outcome((b" " * int(record.draw.integers(0, 3)),), is_blank=True)


@_harmless
def _quote(record: Record) -> Outcome:
    """Quotes without a partner, which are text."""
    text = record.one_of(['12" PIPE', '"LOT 5', 'A "B', '"', '""C'])
    name, line = _in_text(record, text)
    return Outcome((line,), changed=(name, text))


@_harmless
def _high_byte(record: Record) -> Outcome:
    """Letters of Windows-1252 beyond ASCII."""
    text = record.one_of(["MUÑOZ PEÑA", "CAFÉ", "½ ACRE", "JOE\u2019S", "€ 5"])
    name, line = _in_text(record, text)
    return Outcome((line,), changed=(name, text))


@_harmless
def _missing_word(record: Record) -> Outcome:
    """Words that some programs take for a missing value."""
    text = record.one_of(["NA", "N/A", "NULL", "null", "None", "nan", "#N/A", "-", "1e5"])
    name, line = _in_text(record, text)
    return Outcome((line,), changed=(name, text))


@_harmless
def _padded_number(record: Record) -> Outcome:
    """A number with zeros in front."""
    name = record.one_of(_columns(record, ("bigint",), 7))
    return Outcome((record.line(**{name: "0001234"}),), changed=(name, "1234"))
