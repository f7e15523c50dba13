"""Cerberus as this project uses it: types of our own, the checks that ``check_with`` may name, schemas checked once.

``RecordValidator`` is ``cerberus.Validator`` with ``Decimal`` as a type, with integers that are no booleans, and with one
method for each name in :data:`pipeline.catalog.meta_schema.CHECKS_WITH`. What each of those accepts is one regular
expression over the value's text, so that a whole column can be held to it. They know ASCII digits only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final

import cerberus
from cerberus.errors import CUSTOM, ErrorDefinition
from cerberus.schema import UnvalidatedSchema

from pipeline.errors import CatalogError

#: What stands between the digits of a telephone number.
_PUNCTUATION = r"[ ().+/-]*"
#: Name -> the values that it accepts, whole; the same for Python's ``re`` and for RE2.
PATTERNS: Final[Mapping[str, str]] = {
    "account_number": "[0-9]{13}",
    "phone": f"{_PUNCTUATION}(?:[0-9]{_PUNCTUATION}){{10}}",
    "year": "1[7-9][0-9]{2}|2[01][0-9]{2}|2200",
    "zip_code": "[0-9]{5}(?:-?[0-9]{4})?",
}
MESSAGES: Final[Mapping[str, str]] = {
    "account_number": "is no account number of 13 digits",
    "phone": "is no telephone number of 10 digits",
    "year": "is no year from 1700 to 2200",
    "zip_code": "is no ZIP code of 5 digits, or 5 and 4",
}
_COMPILED: Final = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
#: As Cerberus' own custom error, but it knows its rule.
_CHECK_WITH: Final = ErrorDefinition(CUSTOM.code, "check_with")


def fits(name: str, value: Any) -> bool:
    """Whether a value is what a check of that name accepts; a number is taken as it is written, and no value is kept.

    >>> fits("zip_code", "77002-1234"), fits("year", 1650), fits("phone", "(713) 555-0100"), fits("year", None)
    (True, False, True, True)
    """
    return value is None or _COMPILED[name].fullmatch(str(value)) is not None


class FrozenSchema(UnvalidatedSchema):  # type: ignore[misc]
    """A schema that Cerberus has checked already and that nobody changes.

    Cerberus copies its schema for each document that it normalises, and checks the copy each time; here the copy is the plain
    dictionary, which costs nothing.
    """

    def copy(self) -> dict[str, Any]:
        """The plain dictionary."""
        plain: dict[str, Any] = self.schema
        return plain


class RecordValidator(cerberus.Validator):  # type: ignore[misc]
    """Cerberus for typed records."""

    types_mapping: ClassVar[dict[str, cerberus.TypeDefinition]] = {
        **cerberus.Validator.types_mapping,
        "decimal": cerberus.TypeDefinition("decimal", (Decimal,), ()),
        "integer": cerberus.TypeDefinition("integer", (int,), (bool,)),
    }

    def _hold_to(self, name: str, field: str, value: Any) -> None:
        if not fits(name, value):
            self._error(field, _CHECK_WITH, MESSAGES[name])

    def _check_with_account_number(self, field: str, value: Any) -> None:
        self._hold_to("account_number", field, value)

    def _check_with_phone(self, field: str, value: Any) -> None:
        self._hold_to("phone", field, value)

    def _check_with_year(self, field: str, value: Any) -> None:
        self._hold_to("year", field, value)

    def _check_with_zip_code(self, field: str, value: Any) -> None:
        self._hold_to("zip_code", field, value)


def record_validator(schema: Mapping[str, Mapping[str, Any]]) -> RecordValidator:
    """A Cerberus validator of typed records; fields that the schema does not name are let through.

    Raises:
        CatalogError: Cerberus refuses the schema.
    """
    try:
        validator = RecordValidator({name: dict(rules) for name, rules in schema.items()}, allow_unknown=True)
    except cerberus.SchemaError as error:
        raise CatalogError(f"rules that Cerberus refuses: {error}", "rules of Cerberus 1.3", "correct the schema file") from error
    # Checked and expanded by now. Setting it does not check it again.
    validator.schema = FrozenSchema(dict(validator.schema))
    return validator
