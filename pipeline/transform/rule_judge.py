"""Cerberus' verdicts, each asked for once: on a value, on which columns of a row have one, on a whole record.

A verdict is ``{column: {rule: message}}`` in Cerberus' own words; of a rule made of rules (``anyof`` and its like) the message
holds what each of the rules within it says. A column's own rules look at its value alone, and the rules between columns
at which of them are there alone: so each distinct value, and each pattern of what is there, goes through
``cerberus.Validator`` once and is remembered over chunks, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

from cerberus.errors import BasicErrorHandler, ValidationError

from pipeline.transform.check_with import RecordValidator, record_validator

#: Rule -> Cerberus' message.
Errors = Mapping[str, str]
#: Column -> its errors.
Verdict = dict[str, dict[str, str]]

#: The verdicts that are remembered of a column; then they are forgotten and asked for anew.
MOST_REMEMBERED: Final = 50_000
_MESSAGES: Final[Mapping[int, str]] = BasicErrorHandler.messages


def document_of(record: Mapping[str, Any], schema: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A typed record as Cerberus is to see it: a NULL is no value, but where it may not stand it stands there to be refused.

    >>> document_of({"acct": "1", "owner": None, "val": None}, {"val": {"nullable": False}})
    {'acct': '1', 'val': None}
    """
    return {name: value for name, value in record.items() if value is not None or not schema.get(name, {}).get("nullable", True)}


def judge(validator: RecordValidator, document: Mapping[str, Any]) -> Verdict:
    """Cerberus' errors on one document, by column and rule (in alphabetical order); empty when it is good.

    >>> rules = {"acct": {"required": True, "regex": "[0-9]+"}, "val": {"type": "integer", "min": 0, "max": 9}}
    >>> judge(record_validator(rules), {"acct": "12", "val": 3})
    {}
    >>> judge(record_validator(rules), {"val": -1})
    {'acct': {'required': 'required field'}, 'val': {'min': 'min value is 0'}}
    """
    # Nothing is normalised: the record is typed already.
    if validator.validate(document, normalize=False):
        return {}
    messages: dict[str, dict[str, list[str]]] = {}
    for error in validator._errors:
        messages.setdefault(error.document_path[0], {}).setdefault(error.rule, []).append(_message(error))
    # In an order of its own: that of Cerberus depends on what else is wrong.
    return {name: {rule: "; ".join(sorted(texts)) for rule, texts in sorted(rules.items())} for name, rules in messages.items()}


def _message(error: ValidationError) -> str:
    """An error in the words of Cerberus' own handler, which takes many times as long because it copies the error's every part."""
    field = error.document_path[-1]
    text = _MESSAGES[error.code].format(*error.info, constraint=error.constraint, field=field, value=error.value)
    if not error.is_logic_error:
        return text
    within = [
        f"{error.rule} definition {number}: {', '.join(_message(inner) for inner in inners)}"
        for number, inners in sorted(error.definitions_errors.items())
        if inners
    ]
    return f"{text} ({'; '.join(within)})" if within else text


class ValueJudge:
    """Cerberus' verdict on the values of one column by the column's own rules.

    Args:
        name: the column's.
        rules: its own rules, with its type.
    """

    def __init__(self, name: str, rules: Mapping[str, Any]) -> None:
        self.name = name
        self._validator = record_validator({name: rules})
        self._known: dict[Hashable, Errors] = {}

    def errors(self, value: Any) -> Errors:
        """What Cerberus says of a value that is not NULL; empty when it is good."""
        known = self._known.get(value)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[value] = judge(self._validator, {self.name: value}).get(self.name, {})
        return known


def without(verdict: Verdict, columns: Iterable[str]) -> Verdict:
    """A verdict without what it says of some columns."""
    dropped = frozenset(columns)
    return {name: errors for name, errors in verdict.items() if name not in dropped} if dropped else verdict
