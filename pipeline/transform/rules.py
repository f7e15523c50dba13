"""Cerberus rules over whole columns: the same verdicts as a record at a time, at the speed of a column.

In goes a table's declaration; out come the Cerberus schema of a typed record and, compiled from the same rules, checks
that name the suspects of a whole chunk. Cerberus has the last word: suspects, and some other rows as a sample, go
through ``cerberus.Validator``, and its errors are what the quarantine shows. A rule that is not compiled makes every row
a suspect: slower, and never less strict. Each compiled check does what the rule of Cerberus 1.3 does, on values of the
column's type; a property test holds the two together.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import cerberus
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.errors import CatalogError

Mask = npt.NDArray[np.bool_]
#: Column -> its errors: (Cerberus' rule, Cerberus' message).
Verdict = Mapping[str, tuple[tuple[str, str], ...]]
#: Takes a typed column, gives an Arrow boolean array: true where the rule is broken; null values count as kept.
Check = Callable[[pa.Array], pa.Array]

_ORDERED: Final[Mapping[str, Callable[[Any, Any], pa.Array]]] = {"min": pc.less, "max": pc.greater}


@dataclass(frozen=True)
class CompiledRules:
    """The rules of a table, ready for use.

    Attributes:
        schema: the Cerberus schema of a typed record.
        checks: the compiled checks by column.
        slow: ``column.rule`` for each rule that is not compiled; if there is one, every row is a suspect.
    """

    schema: Mapping[str, Mapping[str, Any]]
    checks: Mapping[str, tuple[Check, ...]]
    slow: tuple[str, ...]

    def suspects(self, table: pa.Table) -> Mask:
        """Which rows of a typed chunk break a rule, as the compiled checks see it."""
        mask = np.full(table.num_rows, bool(self.slow))
        if self.slow:
            return mask
        for name, checks in self.checks.items():
            values = table.column(name).combine_chunks()
            for check in checks:
                mask |= pc.fill_null(check(values), False).to_numpy(zero_copy_only=False)
        return mask


def compile_rules(columns: Sequence[Column]) -> CompiledRules:
    """Compile the rules of a table's columns.

    Raises:
        CatalogError: a rule that Cerberus does not know, or whose value it, or the column's type, cannot take.
    """
    schema = {column.name: {"nullable": not column.required, **_typed(column)} for column in columns}
    checks: dict[str, tuple[Check, ...]] = {}
    slow: list[str] = []
    for column in columns:
        compiled: list[Check] = [pc.is_null] if column.required else []
        for rule, limit in schema[column.name].items():
            if rule == "nullable":
                continue
            check = _compile(rule, limit, column)
            if check is None:
                slow.append(f"{column.name}.{rule}")
            else:
                compiled.append(check)
        if compiled:
            checks[column.name] = tuple(compiled)
    record_validator(schema)
    return CompiledRules(schema, checks, tuple(slow))


def record_validator(schema: Mapping[str, Mapping[str, Any]]) -> cerberus.Validator:
    """A Cerberus validator of typed records; columns without rules are let through.

    Raises:
        CatalogError: Cerberus refuses the schema.
    """
    try:
        return cerberus.Validator({name: dict(rules) for name, rules in schema.items()}, allow_unknown=True)
    except cerberus.SchemaError as error:
        raise CatalogError(f"rules that Cerberus refuses: {error}", "rules of Cerberus 1.3", "correct the schema file") from error


def judge(validator: cerberus.Validator, record: Mapping[str, Any]) -> Verdict:
    """Cerberus' errors on one typed record, by column; empty when the record is good."""
    # Nothing is normalised: the record is typed already, and Cerberus would copy its whole schema for each record.
    if validator.validate(record, normalize=False):
        return {}
    verdict: dict[str, tuple[tuple[str, str], ...]] = {}
    for name, messages in validator.errors.items():
        rules = [error.rule for error in validator.document_error_tree[name].errors]
        texts = [str(message) for message in messages]
        if len(rules) != len(texts):  # a rule of rules (anyof): its message, and a list of those within it
            rules, texts = rules[:1], ["; ".join(texts)]
        verdict[name] = tuple(zip(rules, texts, strict=True))
    return verdict


def _typed(column: Column) -> dict[str, Any]:
    """A column's rules with their limits in the column's own type (a date's ISO text becomes a date)."""
    try:
        return {
            rule: _typed_limit(limit, column) if rule in ("min", "max", "allowed", "forbidden") else limit
            for rule, limit in column.rules.items()
        }
    except (ValueError, ArithmeticError) as error:
        raise CatalogError(
            f"column {column.name}: a rule's limit that is no {column.type.sql} ({error})",
            f"limits of the type {column.type.sql}",
            "correct the schema file",
        ) from error


def _typed_limit(limit: Any, column: Column) -> Any:
    if isinstance(limit, (list, tuple)):
        return [_typed_limit(item, column) for item in limit]
    if column.type.kind == "date" and isinstance(limit, str):
        return datetime.date.fromisoformat(limit)
    if column.type.kind == "numeric" and isinstance(limit, (float, str)):
        return Decimal(str(limit))  # as written in the file: 0.1 is a tenth
    return limit


def _compile(rule: str, limit: Any, column: Column) -> Check | None:
    """The check of a rule, or None if the rule is not compiled."""
    kind = column.type.kind
    if rule in _ORDERED:
        return _ordered_check(rule, limit)
    if rule == "allowed":
        return lambda values: _broken_by_distinct(values, lambda value: value not in limit)
    if rule == "forbidden":
        return lambda values: _broken_by_distinct(values, lambda value: value in limit)
    if rule in ("minlength", "maxlength") and isinstance(limit, int):
        if kind != "text":  # Cerberus measures what can be iterated over, of our types text alone
            return _never_broken
        compare = pc.less if rule == "minlength" else pc.greater
        return lambda values: compare(pc.utf8_length(values), limit)
    if rule == "regex" and isinstance(limit, str):
        return _regex_check(limit, column) if kind == "text" else _never_broken
    return None


def _ordered_check(rule: str, limit: Any) -> Check:
    """``min`` or ``max``: by Arrow where it can hold the limit in the column's type, else a distinct value at a time."""
    compare = _ORDERED[rule]

    def is_broken(value: Any) -> bool:
        try:
            return bool(value < limit if rule == "min" else value > limit)
        except TypeError:  # as Cerberus does: what cannot be compared is not judged
            return False

    def check(values: pa.Array) -> pa.Array:
        if not pa.types.is_string(values.type):
            try:
                bound = pa.scalar(limit, values.type)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                bound = None  # 10 ** 20 as a bigint: Python compares it exactly
            if bound is not None and bound.as_py() == limit:  # Arrow makes 0 of 0.5
                return compare(values, bound)
        return _broken_by_distinct(values, is_broken)

    return check


def _regex_check(pattern: str, column: Column) -> Check:
    r"""As Cerberus matches: from the start, with ``$`` added at the end if it is not there.

    Python's own ``re`` runs on each distinct text. Arrow's engine is another one: its ``\d`` knows ASCII digits only, and
    its ``$`` does not match before a line feed at the end.
    """
    try:
        match = re.compile(pattern if pattern.endswith("$") else pattern + "$").match
    except re.error as error:
        raise CatalogError(
            f"column {column.name}: the regex {pattern!r} ({error})", "a regular expression of Python", "correct the schema file"
        ) from error
    return lambda values: _broken_by_distinct(values, lambda text: match(text) is None)


def _broken_by_distinct(values: pa.Array, is_broken: Callable[[Any], bool]) -> pa.Array:
    """Judge each distinct value once; NULL is kept by every rule."""
    encoded = pc.dictionary_encode(values)
    broken = pa.array([is_broken(value) for value in encoded.dictionary.to_pylist()], pa.bool_())
    return broken.take(encoded.indices)


def _never_broken(values: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(values), dtype=bool))
