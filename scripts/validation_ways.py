"""Three ways to validate the same rows, for the suite ``transform``: column-wise, Cerberus with coercion, Cerberus on typed rows.

``validate_chunk`` is what the transform does: the compiled checks find suspects, Cerberus judges those. The other two take one row after
another, as a program without compiled rules would. ``compared`` times them on a sample and holds all three to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import cerberus
import pyarrow as pa
from measuring import cpu_s

from pipeline.catalog.model import Column
from pipeline.transform import DataTransformer
from pipeline.transform.check_with import RecordValidator
from pipeline.transform.coerce import BLANKS, Refusal, reader_of
from pipeline.transform.reader import Chunk
from pipeline.transform.rules import document_of, record_validator

#: Column -> messages of Cerberus.
Messages = dict[str, list[str]]


def validate_chunk(transformer: DataTransformer, typed: pa.Table, untyped: Mapping[int, Collection[str]]) -> dict[int, Messages]:
    """Cerberus' messages by row, for the rows that break a rule: what the transform does with a typed chunk.

    Args:
        transformer: of the table.
        typed: the chunk.
        untyped: by row, the columns whose text the type refuses: NULL in ``typed``, and not judged again.
    """
    ruled = transformer.rules.apply(typed, refused=untyped)
    return {row: {name: list(said.values()) for name, said in verdict.items()} for row, verdict in ruled.refused.items()}


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

    def typed(self, chunk: Chunk) -> tuple[pa.Table, pa.Table, Mapping[int, Collection[str]]]:
        """The chunk's texts, its typed columns, and by row the columns that its types refuse."""
        judged = self.transformer.type_columns(chunk)
        texts = pa.table({column.name: chunk.texts[column.name] for column in self.transformer.table.columns})
        return texts, judged.rows, {row: frozenset(columns) for row, columns in judged.refused.items()}

    def take(self, texts: pa.Table, typed: pa.Table, refused: Mapping[int, Collection[str]], verdicts: Mapping[int, Messages]) -> None:
        """Keep every nth row, and some of the refused ones."""
        extra = list(verdicts)[: self._left]
        self._left -= len(extra)
        for rows, kept in ((range(0, typed.num_rows, self._every), self.timed), (extra, self.others)):
            for row in rows:
                untyped = frozenset(refused.get(row, ()))
                text, value = texts.slice(row, 1).to_pylist()[0], typed.slice(row, 1).to_pylist()[0]
                kept.append((text, value, untyped, verdicts.get(row, {})))


def compared(sample: Sample) -> tuple[float, float]:
    """Processor seconds a row of Cerberus with coercion, and of a prebuilt Cerberus on typed rows.

    Raises:
        ValueError: a verdict differs from the column-wise one.
    """
    transformer = sample.transformer
    coercing, prebuilt = coercing_validator(transformer), record_validator(transformer.rules.schema)
    seconds = []
    for name, validate in (("coercing", _with_coercion(coercing)), ("prebuilt", _without(prebuilt, transformer))):
        before_s = cpu_s()
        found = [validate(text, value) for text, value, _, _ in sample.timed]
        seconds.append((cpu_s() - before_s) / len(found))
        found += [validate(text, value) for text, value, _, _ in sample.others]
        for messages, (text, _, untyped, ours) in zip(found, [*sample.timed, *sample.others], strict=True):
            # A text that the type refuses is no rule's matter: coercion says so, the typed row has NULL there.
            same = messages.keys() - untyped == ours.keys() if name == "coercing" else without(messages, untyped) == ours
            if not same:
                key = text[transformer.table.columns[0].name]
                raise ValueError(f"{name} Cerberus says {messages} of {key}, the compiled rules {ours} and the types {sorted(untyped)}")
    return seconds[0], seconds[1]


def coercing_validator(transformer: DataTransformer) -> cerberus.Validator:
    """A validator built once, whose schema coerces each text of a row and judges the value."""
    schema = {}
    for column in transformer.table.columns:
        rules = {rule: value for rule, value in transformer.rules.schema[column.name].items() if rule != "required"}
        # A blank text stands in the record, and is NULL once it has been coerced.
        schema[column.name] = {**rules, "nullable": column.nullable and not column.required, "coerce": _coerce(column)}
    return RecordValidator(schema, allow_unknown=True)


def _coerce(column: Column) -> Callable[[str | None], Any]:
    read = reader_of(column)

    def coerce(text: str | None) -> Any:
        trimmed = (text or "").strip(BLANKS)
        value = None if not trimmed or trimmed in column.nulls else read(trimmed)
        if isinstance(value, Refusal):
            raise ValueError(value.message)
        return value

    return coerce


def _with_coercion(validator: cerberus.Validator) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(text) else dict(validator.errors)

    return validate


def _without(validator: cerberus.Validator, transformer: DataTransformer) -> Callable[[dict[str, Any], dict[str, Any]], Messages]:
    schema = transformer.rules.schema

    def validate(text: dict[str, Any], value: dict[str, Any]) -> Messages:
        return {} if validator.validate(document_of(value, schema), normalize=False) else dict(validator.errors)

    return validate


def without(messages: Messages, columns: Collection[str]) -> Messages:
    """The messages but those of some columns."""
    return {name: said for name, said in messages.items() if name not in columns}
