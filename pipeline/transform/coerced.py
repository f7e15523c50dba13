"""What typing gives back: a typed column, and by name each row whose value was refused or changed.

``Coerced`` is a column after typing; ``Refusal`` is one text that is no value of its column. The reasons of all types stand
in :data:`MESSAGES`, each with the sentence that the quarantine shows; none of them holds the value. ``arrow_type`` says
what a column's type is in Arrow, which is what ``rows.parquet`` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.catalog.model import ColumnType
from pipeline.errors import CatalogError

Mask = npt.NDArray[np.bool_]

#: What is trimmed off a text.
BLANKS: Final = " \t"

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
    "not_an_account_number": "is not digits with blanks or hyphens between",
    "not_a_phone": "is not a phone number of 10 digits",
    "not_a_zip_code": "is not a ZIP code of 5 digits, or of 5 and 4",
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
    """A typed column.

    Attributes:
        values: of ``arrow_type(column.type)``; NULL where refused.
        refusals: reason -> the rows whose value is NULL only because it was refused.
        changed: reason -> the rows whose value a declared rule changed or made NULL: ``declared`` (a declared null),
            ``control_character`` (blanked). A row may be in both.
        canonical: the text that a row hash writes for each value, NULL where the value is; None where it would have to be made.
    """

    values: pa.Array
    refusals: Mapping[str, Mask] = field(default_factory=dict)
    changed: Mapping[str, Mask] = field(default_factory=dict)
    canonical: pa.StringArray | None = None


#: Reads one text, trimmed and not blank, into its value, None or a :class:`Refusal`.
TextReader = Callable[[str], Any]


def arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type of a column.

    Raises:
        CatalogError: a numeric without its digits, or with too many.
    """
    if column_type.kind == "numeric":
        precision, scale = digits_of(column_type)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    return {
        "text": pa.string(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "date": pa.date32(),
        "boolean": pa.bool_(),
    }[column_type.kind]


def digits_of(column_type: ColumnType) -> tuple[int, int]:
    """Precision and scale of a numeric type, which must state both."""
    if column_type.precision is None or column_type.scale is None or column_type.precision > 76:
        raise CatalogError(f"the type {column_type.sql}", "numeric(p,s) with p up to 76", "correct the schema file")
    return column_type.precision, column_type.scale
