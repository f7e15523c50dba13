"""A column's declaration as rules of Cerberus: with limits of its type, told apart by what they look at, and compiled.

A column's own rules look at its value alone; ``required``, ``nullable``, ``dependencies`` and ``excludes`` at which columns have a
value; what looks at the values of other columns is judged row by row. Own rules become kernels (``pipeline.transform.rule_kernels``);
one that no kernel knows is named, and Cerberus judges each distinct value of its column: slower, and never less strict.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from pipeline.catalog.meta_schema import OF_RULES, ROW_RULES
from pipeline.catalog.model import Column
from pipeline.errors import CatalogError
from pipeline.transform.rule_kernels import Kernel, NoKernel, groups, kernel
from pipeline.transform.rule_regex import translated

#: Cerberus' name of each type.
CERBERUS_TYPES: Final = {"text": "string", "integer": "integer", "bigint": "integer", "numeric": "decimal", "date": "date",
                         "boolean": "boolean"}  # fmt: skip
_LIMITS: Final = ("min", "max", "allowed", "forbidden")


def own_rules(column: Column) -> dict[str, Any]:
    """The rules that look at the column's value alone, under Cerberus' names, with limits of the column's type.

    Raises:
        CatalogError: a limit that is none of that type, or a regular expression that does not compile.
    """
    rules = {rule: value for rule, value in column.rules.items() if rule not in ROW_RULES and not _looks_around(value)}
    return _typed(rules, column)


def row_rules(column: Column) -> dict[str, Any]:
    """The rules that look at other columns, and at whether there is a value at all."""
    rules: dict[str, Any] = {"nullable": column.nullable}
    if column.required:
        rules["required"] = True
    for rule in ROW_RULES:
        others = column.rules.get(rule)
        if others is not None and not isinstance(others, Mapping):
            rules[rule] = [others] if isinstance(others, str) else list(others)
    return rules


def rules_by_row(column: Column) -> dict[str, Any]:
    """The rules that look at the values of other columns; none that a schema file can state does."""
    return {
        rule: value
        for rule, value in column.rules.items()
        if (rule in ROW_RULES and isinstance(value, Mapping)) or (rule not in ROW_RULES and _looks_around(value))
    }


def compile_own(rules: Mapping[str, Any], column: Column) -> tuple[list[tuple[Kernel, str]], list[str]]:
    """The kernels of a column's own rules, and the names of the rules that have none.

    With each kernel goes the rule's name where it may have to show every text to Python's ``re``, else an empty text.
    """
    kernels: list[tuple[Kernel, str]] = []
    unknown: list[str] = []
    for group in groups(rules):
        try:
            found = kernel(group, column, has_empty="empty" in rules)
        except NoKernel:
            unknown += group
        else:
            kernels.append((found, next(iter(group)) if _is_slow(group) else ""))
    return kernels, unknown


def _is_slow(rules: Mapping[str, Any]) -> bool:
    """Whether a regular expression is among them, or among those within them, that RE2 cannot answer for."""
    within = [inner for rule in OF_RULES for inner in rules.get(rule, ())]
    return ("regex" in rules and translated(rules["regex"]) is None) or any(map(_is_slow, within))


def _looks_around(value: Any) -> bool:
    """Whether rules within a rule look at other columns."""
    return isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) and set(one) & set(ROW_RULES) for one in value)


def _typed(rules: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """Rules with their limits in the column's own type (a date's ISO text becomes a date), and lists where Cerberus wants them."""
    typed: dict[str, Any] = {}
    for rule, value in rules.items():
        if rule in OF_RULES:
            typed[rule] = [_typed(inner, column) for inner in value]
        elif rule in _LIMITS:
            typed[rule] = _typed_limit(value, column)
        else:
            typed[rule] = list(value) if isinstance(value, tuple) else value
        if rule == "regex":
            _check_regex(value, column)
    return typed


def _typed_limit(limit: Any, column: Column) -> Any:
    if isinstance(limit, (list, tuple)):
        return [_typed_limit(item, column) for item in limit]
    try:
        if column.type.kind == "date" and isinstance(limit, str):
            return datetime.date.fromisoformat(limit)
        if column.type.kind == "numeric" and isinstance(limit, (float, str, Decimal)):
            number = Decimal(str(limit))  # as written in the file: 0.1 is a tenth
            if number.is_finite():
                return number
            raise ValueError("not a finite number")
    except (ValueError, ArithmeticError) as error:
        raise CatalogError(
            f"column {column.name}: a rule's limit that is no {column.type.sql} ({error})",
            f"limits of the type {column.type.sql}",
            "correct the schema file",
        ) from error
    return limit


def _check_regex(pattern: Any, column: Column) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise CatalogError(
            f"column {column.name}: the regex {pattern!r} ({error})", "a regular expression of Python", "correct the schema file"
        ) from error
