"""Three ways to validate the same rows, for the suite ``transform``: column-wise, Cerberus with coercion, Cerberus on typed rows.

``validate_chunk`` is what the transform does: the compiled checks find suspects, Cerberus judges those. The other two take one row after
another, as a program without compiled rules would. ``compared`` times them on a sample and holds all three to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cerberus
import numpy as np
import pyarrow as pa
from measuring import cpu_s

from pipeline.catalog.model import Column
from pipeline.transform import DataTransformer
from pipeline.transform.coerce import BLANKS, Refusal, coerce_column, reader_of
from pipeline.transform.reader import Chunk
from pipeline.transform.rules import judge, record_validator

#: Column -> messages of Cerberus.
Messages = dict[str, list[str]]


def validate_chunk(transformer: DataTransformer, typed: pa.Table) -> dict[int, Messages]:
    """Cerberus' messages by row, for the rows that break a rule: what the transform does with a typed chunk."""
    verdicts = {}
    validator = transformer._validator
    for row in np.flatnonzero(transformer.rules.suspects(typed)).tolist():
        if verdict := judge(validator, typed.slice(row, 1).to_pylist()[0]):
            verdicts[row] = {name: [message for _, message in errors] for name, errors in verdict.items()}
    return verdicts


class Sample:
    """Some rows of a file, with the verdict of the column-wise way on each.

    Args:
        transformer: of the table.
        every: each so manieth row is taken.
        suspects: so many of the refused rows are compared besides, and not timed.
    """

    def __init__(self, transformer: DataTransformer, *, every: int, suspects: int) -> None:
        self.transformer, self._every, self._left = transformer, every, suspects
        self.timed: list[tuple[dict[str, Any], dict[str, Any], frozenset[str], Messages]] = []
        self.others: list[tuple[dict[str, Any], dict[str, Any], frozenset[str], Messages]] = []

    def typed(self, chunk: Chunk) -> tuple[pa.Table, pa.Table, Mapping[str, np.ndarray]]:
        """The chunk's texts, its typed columns, and by column the rows that its type refuses."""
        texts, typed, refused = {}, {}, {}
        for column in self.transformer.table.columns:
            given = pa.array(chunk.frame[column.name], type=pa.string(), from_pandas=True)
            texts[column.name] = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
            coerced = coerce_column(texts[column.name], column)
            typed[column.name] = coerced.values
            if column.on_error == "quarantine" and coerced.refusals:
                refused[column.name] = np.logical_or.reduce(list(coerced.refusals.values()))
        return pa.table(texts), pa.table(typed), refused

    def take(self, texts: pa.Table, typed: pa.Table, refused: Mapping[str, np.ndarray], verdicts: Mapping[int, Messages]) -> None:
        """Keep every nth row, and some of the refused ones."""
        extra = list(verdicts)[: self._left]
        self._left -= len(extra)
        for rows, kept in ((range(0, typed.num_rows, self._every), self.timed), (extra, self.others)):
            for row in rows:
                untyped = frozenset(name for name, mask in refused.items() if mask[row])
                text, value = texts.slice(row, 1).to_pylist()[0], typed.slice(row, 1).to_pylist()[0]
                kept.append((text, value, untyped, verdicts.get(row, {})))


def compared(sample: Sample) -> tuple[float, float]:
    """Processor seconds a row of Cerberus with coercion, and of a prebuilt Cerberus on typed rows.

    Raises:
        ValueError: a verdict differs from the column-wise one.
    """
    transformer = sample.transformer
    coercing, prebuilt = _coercing(transformer), record_validator(transformer.rules.schema)
    seconds = []
    for name, validate in (("coercing", _with_coercion(coercing)), ("prebuilt", _without(prebuilt))):
        before_s = cpu_s()
        found = [validate(text, value) for text, value, _, _ in sample.timed]
        seconds.append((cpu_s() - before_s) / len(found))
        found += [validate(text, value) for text, value, _, _ in sample.others]
        for messages, (text, _, untyped, ours) in zip(found, [*sample.timed, *sample.others], strict=True):
            # A text that the type refuses is no rule's matter: coercion says so, the typed row has NULL there.
            same = messages == ours if name == "prebuilt" else messages.keys() == ours.keys() | untyped
            if not same:
                key = text[transformer.table.columns[0].name]
                raise ValueError(f"{name} Cerberus says {messages} of {key}, the compiled rules {ours} and the types {sorted(untyped)}")
    return seconds[0], seconds[1]


def _coercing(transformer: DataTransformer) -> cerberus.Validator:
    schema = {
        column.name: {**transformer.rules.schema.get(column.name, {}), "coerce": _coerce(column)} for column in transformer.table.columns
    }
    return cerberus.Validator(schema, allow_unknown=True)


def _coerce(column: Column) -> Callable[[str | None], Any]:
    read = reader_of(column)

    def coerce(text: str | None) -> Any:
        trimmed = (text or "").strip(BLANKS)
        value = None if not trimmed or trimmed in column.nulls else read(trimmed)
        if isinstance(value, Refusal):
            if column.on_error == "null":
                return None
            raise ValueError(value.message)
        return value

    return coerce


def _with_coercion(validator: cerberus.Validator) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(text) else dict(validator.errors)

    return validate


def _without(validator: cerberus.Validator) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(value, normalize=False) else dict(validator.errors)

    return validate
