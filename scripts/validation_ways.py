"""Three ways to validate the same rows, for the suite ``transform``: column-wise, Cerberus with coercion, Cerberus on typed rows.

``validate_chunk`` is what the transform does: the compiled checks find suspects, Cerberus judges those. Every broken rule is told, also
where the table would make the value NULL. The other two take one row after another, as a program without compiled rules would.
``compared`` times them on a sample and holds all three to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import cpu_s

from pipeline.catalog.model import Column
from pipeline.transform import DataTransformer
from pipeline.transform.check_with import RecordValidator
from pipeline.transform.coerce import BLANKS, Refusal, coerce_column, reader_of
from pipeline.transform.reader import Chunk
from pipeline.transform.rules import CompiledRules, compile_rules, document_of, record_validator

#: Column -> messages of Cerberus.
Messages = dict[str, list[str]]


def telling_rules(columns: tuple[Column, ...]) -> CompiledRules:
    """The rules of a table, with no value made NULL or cut for breaking one: so that verdicts can be compared."""
    return compile_rules([replace(column, on_error="quarantine") for column in columns])


def validate_chunk(
    rules: CompiledRules, typed: pa.Table, refused: Mapping[int, frozenset[str]], sampled: np.ndarray
) -> dict[int, Messages]:
    """Cerberus' messages by row, for the rows that break a rule: what the transform does with a typed chunk, its sample included."""
    verdicts = rules.apply(typed, refused=refused, sampled=sampled).refused
    return {row: {name: list(errors.values()) for name, errors in verdict.items()} for row, verdict in verdicts.items()}


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

    def typed(self, chunk: Chunk) -> tuple[pa.Table, pa.Table, Mapping[int, frozenset[str]]]:
        """The chunk's texts, its typed columns, and by row the columns whose type refuses the value."""
        texts, typed, refused = {}, {}, {}
        for column in self.transformer.table.columns:
            given = pa.array(chunk.frame[column.name], type=pa.string(), from_pandas=True)
            texts[column.name] = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
            coerced = coerce_column(texts[column.name], column)
            typed[column.name] = coerced.values
            if column.on_error == "quarantine" and coerced.refusals:
                for row in np.flatnonzero(np.logical_or.reduce(list(coerced.refusals.values()))).tolist():
                    refused[row] = refused.get(row, frozenset()) | {column.name}
        return pa.table(texts), pa.table(typed), refused

    def take(self, texts: pa.Table, typed: pa.Table, refused: Mapping[int, frozenset[str]], verdicts: Mapping[int, Messages]) -> None:
        """Keep every nth row, and some of the refused ones."""
        extra = list(verdicts)[: self._left]
        self._left -= len(extra)
        for rows, kept in ((range(0, typed.num_rows, self._every), self.timed), (extra, self.others)):
            for row in rows:
                untyped = refused.get(row, frozenset())
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
    for name, validate in (("coercing", _with_coercion(coercing)), ("prebuilt", _without(prebuilt, transformer))):
        before_s = cpu_s()
        found = [validate(text, value) for text, value, _, _ in sample.timed]
        seconds.append((cpu_s() - before_s) / len(found))
        found += [validate(text, value) for text, value, _, _ in sample.others]
        for messages, (text, _, untyped, ours) in zip(found, [*sample.timed, *sample.others], strict=True):
            # A text that the type refuses is no rule's matter: coercion says so, the typed row has nothing there.
            judged = {column: told for column, told in messages.items() if column not in untyped}
            same = judged == ours if name == "prebuilt" else messages.keys() == ours.keys() | untyped
            if not same:
                key = text[transformer.table.columns[0].name]
                raise ValueError(f"{name} Cerberus says {messages} of {key}, the compiled rules {ours} and the types {sorted(untyped)}")
    return seconds[0], seconds[1]


def _coercing(transformer: DataTransformer) -> RecordValidator:
    schema = {}
    for column in transformer.table.columns:
        # Cerberus leaves a blank in the record as None, which is there: so a required one may not be None.
        schema[column.name] = {
            **transformer.rules.schema[column.name], "coerce": _coerce(column), "nullable": column.nullable and not column.required,
        }  # fmt: skip
    return RecordValidator(schema, allow_unknown=True)


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


def _with_coercion(validator: RecordValidator) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(text) else dict(validator.errors)

    return validate


def _without(validator: RecordValidator, transformer: DataTransformer) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    schema = transformer.rules.schema

    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(document_of(value, schema), normalize=False) else dict(validator.errors)

    return validate
