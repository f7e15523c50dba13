"""Text to typed values, a column at a time, exactly and with every refusal named.

In goes a column of text as the reader gives it; out comes an Arrow array of the column's type and, for each reason, the
rows whose value the type cannot take. ``reader_of`` makes the meaning: a function that reads one text. ``column_typer`` gives
the same for whole columns, at a few nanoseconds a cell for what is plain, and every other distinct text to that function.
Nothing passes through a float, nothing is rounded, cut or replaced: a value is taken whole, is NULL because it is blank or a
declared null, or is refused with a reason. Whether a NULL may stand there is not decided here but by the rules
(``pipeline.transform.rules``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, Kind
from pipeline.transform.coerced import BLANKS, MESSAGES, Coerced, Mask, Refusal, TextReader, arrow_type
from pipeline.transform.octets import Octets, without
from pipeline.transform.types_dates import DateTyper, date_reader
from pipeline.transform.types_numbers import NumberTyper, number_reader
from pipeline.transform.types_text import CodeTyper, TextTyper, blank_controls, code_reader, text_reader

__all__ = [
    "BLANKS",
    "MESSAGES",
    "Coerced",
    "ColumnTyper",
    "Mask",
    "Refusal",
    "arrow_type",
    "coerce_column",
    "coerce_text",
    "column_typer",
    "reader_of",
]

#: Types texts whose declared nulls are NULL: (texts, is_ascii, has_controls).
_ValueTyper = Callable[[Octets, bool, bool], Coerced]
_READERS: Final[dict[Kind, Callable[[Column], TextReader]]] = {
    "text": text_reader,
    "integer": number_reader,
    "bigint": number_reader,
    "numeric": number_reader,
    "date": date_reader,
    "boolean": code_reader,
}
_TYPERS: Final[dict[Kind, Callable[[Column], _ValueTyper]]] = {
    "text": TextTyper,
    "integer": NumberTyper,
    "bigint": NumberTyper,
    "numeric": NumberTyper,
    "date": DateTyper,
    "boolean": CodeTyper,
}


class ColumnTyper:
    """Types the chunks of one column; what it remembers of them is bounded."""

    def __init__(self, column: Column) -> None:
        """Make what the column's type needs.

        Raises:
            CatalogError: the column declares a date format, a step or a precision that this program does not know.
        """
        self._blanks_controls = column.controls == "blank" and column.type.kind == "text"
        self._nulls = [null.encode() for null in column.nulls if null]
        self._values = _TYPERS[column.type.kind](column)

    def __call__(self, texts: pa.StringArray, *, is_ascii: bool, has_controls: bool) -> Coerced:
        """Type a chunk: control characters are blanked where declared, then nulls found, then the values read.

        Args:
            texts: trimmed of blanks and tabs, none empty; NULL means blank.
            is_ascii: that no text has another character; False where it is not known.
            has_controls: whether a text may have a byte below 0x20; True where it is not known.

        Returns:
            As many values as texts.
        """
        seen = Octets.of(texts)
        changed = {}
        if has_controls and self._blanks_controls:
            seen, is_blanked = blank_controls(seen)
            has_controls = False
            if is_blanked.any():
                changed["control_character"] = is_blanked
        if self._nulls:
            is_null = seen.equal_to(self._nulls)
            if is_null.any():
                changed["declared"] = is_null
                seen = Octets.of(without(seen.texts, is_null))
        coerced = self._values(seen, is_ascii, has_controls)
        return replace(coerced, changed=changed) if changed else coerced


def column_typer(column: Column) -> ColumnTyper:
    """What types the chunks of a column; made once a table.

    Raises:
        CatalogError: the column declares a date format, a step or a precision that this program does not know.
    """
    return ColumnTyper(column)


def reader_of(column: Column) -> TextReader:
    """The function that reads one trimmed text, which is no declared null, into its value, None or a :class:`Refusal`.

    Raises:
        CatalogError: the column declares a date format, a step or a precision that this program does not know.
    """
    return _READERS[column.type.kind](column)


def coerce_text(text: str | None, column: Column) -> Any:
    """Read one text as it stands in the member: the reference for whole columns.

    Returns:
        None, ``str``, ``int``, ``Decimal`` (with the column's scale), ``datetime.date`` or ``bool``; or a
        :class:`Refusal`.
    """
    if text is None:
        return None
    trimmed = text.strip(BLANKS)
    return None if not trimmed or trimmed in column.nulls else reader_of(column)(trimmed)


def coerce_column(texts: pa.Array, column: Column) -> Coerced:
    """Read a whole column of texts as they stand in the member; null means blank."""
    return column_typer(column)(_trimmed(texts), is_ascii=False, has_controls=True)


def _trimmed(texts: pa.Array) -> pa.StringArray:
    """Texts without blanks around them, NULL where nothing is left."""
    trimmed = pc.utf8_trim(texts, characters=BLANKS)
    return without(trimmed, pc.fill_null(pc.equal(trimmed, ""), False).to_numpy(zero_copy_only=False))
