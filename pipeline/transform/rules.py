"""Cerberus rules over whole columns: the same verdicts as a record at a time, at the speed of a column.

In goes a table's declaration; out come the Cerberus schema of a typed record and ``apply``, which holds a chunk to it. Compiled
checks name the suspects, and Cerberus has the last word: each distinct suspect value, each distinct pattern of missing
values, and a sample of whole rows go through ``cerberus.Validator``, and its messages are what the quarantine shows. A value that
breaks a rule of its own column is refused, made NULL or cut, as the column's ``on_error`` says; then the rules between columns
look at what is left, where a nulled value is no value. A sampled row on which Cerberus and ``apply`` differ stops the run.
A column without rules costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.errors import AccountingError, CatalogError
from pipeline.transform.check_with import RecordValidator, record_validator
from pipeline.transform.rule_compile import CERBERUS_TYPES, compile_own, own_rules, row_rules, rules_by_row
from pipeline.transform.rule_judge import Errors, ValueJudge, Verdict, document_of, judge, without
from pipeline.transform.rule_kernels import Kernel, Mask, either
from pipeline.transform.rule_presence import PresenceJudge, States, presence_schema

__all__ = ["CompiledRules", "Cost", "Ruled", "compile_rules", "document_of", "judge", "record_validator"]

BLANKS: Final = " \t"


@dataclass(frozen=True)
class Ruled:
    """A chunk after its rules.

    Attributes:
        rows: the chunk, with the values that a column's ``on_error`` made NULL or cut.
        refused: row -> column -> rule -> Cerberus' message, for the rows that are to be quarantined.
        changed: (column, rule) -> the rows whose value was made NULL, under the alphabetically first rule that it broke, so that the
            counts add up; or (column, ``truncated``) -> those whose value was cut. Refused rows are among them.
    """

    rows: pa.Table
    refused: dict[int, Verdict]
    changed: dict[tuple[str, str], Mask]


@dataclass(frozen=True)
class Cost:
    """What rules without a kernel have cost: ``judged`` values or rows, in ``seconds``."""

    seconds: float
    judged: int


@dataclass(frozen=True)
class _Own:
    """A column's own rules, compiled."""

    column: Column
    #: With the rule's name where it is slow.
    kernels: tuple[tuple[Kernel, str], ...]
    judge: ValueJudge
    #: The rules that have no kernel.
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class CompiledRules:
    """The rules of a table, ready for use. It remembers verdicts: one object for one process.

    Attributes:
        schema: the Cerberus schema of a typed record (see :func:`document_of`).
        slow: ``column.rule`` for each rule that is asked of each distinct value, or of each row; see ``take_costs``.
    """

    schema: Mapping[str, Mapping[str, Any]]
    slow: tuple[str, ...]
    _own: tuple[_Own, ...]
    _presence: PresenceJudge
    _by_row: RecordValidator | None
    _by_row_rules: tuple[str, ...]
    #: The columns that a sampled row shows to Cerberus: those with a rule, and those that rules look at.
    _judged: tuple[str, ...]
    _sampler: RecordValidator
    _costs: dict[str, Cost] = field(default_factory=dict)

    def take_costs(self) -> dict[str, Cost]:
        """What the slow rules have cost since this was asked last, by ``column.rule``."""
        costs = dict(self._costs)
        self._costs.clear()
        return costs

    def apply(
        self,
        rows: pa.Table,
        *,
        absent: Collection[str] = frozenset(),
        refused: Mapping[int, Collection[str]] | None = None,
        sampled: Mask | None = None,
        where: Callable[[int], str] = "row {} of a chunk".format,
    ) -> Ruled:
        """Hold a typed chunk to the rules.

        Args:
            rows: a column for each of the table's, typed.
            absent: the columns that the layout does not have; a NULL there breaks no ``nullable = false``.
            refused: row -> the columns whose value typing has refused. They are NULL in ``rows``, are not judged again, and are there
                for the rules of other columns.
            sampled: the rows that go through Cerberus though nothing is suspect; None: none.
            where: names a row in the message of an error.

        Raises:
            AccountingError: Cerberus and the compiled rules differ on a sampled row.
        """
        refused = {} if refused is None else refused
        found: dict[int, Verdict] = {}
        changed: dict[tuple[str, str], Mask] = {}
        for own in self._own:
            if own.column.name not in absent:
                rows = self._apply_own(own, rows, found, changed)
        self._apply_presence(rows, absent, refused, found)
        self._apply_by_row(rows, absent, refused, found)
        if sampled is not None:
            self._compare(rows, absent, refused, found, np.flatnonzero(sampled).tolist(), where)
        return Ruled(rows, found, changed)

    def _apply_own(self, own: _Own, rows: pa.Table, found: dict[int, Verdict], changed: dict[tuple[str, str], Mask]) -> pa.Table:
        """One column's own rules, and what its policy makes of the values that break them."""
        name = own.column.name
        values = _one_piece(rows.column(name))
        if values.null_count == len(values):
            return rows
        broken = self._judge_values(own, values) if own.unknown else either(self._broken(own, values))
        if broken is None:
            return rows
        at = np.flatnonzero(broken)
        suspects = zip(at.tolist(), values.take(pa.array(at)).to_pylist(), strict=True)
        bad = [(row, value, errors) for row, value in suspects if (errors := own.judge.errors(value))]
        if own.column.on_error == "null":
            by_rule: dict[str, list[int]] = {}
            for row, _, errors in bad:
                by_rule.setdefault(next(iter(errors)), []).append(row)
            if not bad:
                return rows
            changed.update({(name, rule): _rows_mask(len(values), at_rule) for rule, at_rule in by_rule.items()})
            nulled = pa.array(_rows_mask(len(values), [row for row, _, _ in bad]))
            return _replaced(rows, name, pc.if_else(nulled, pa.scalar(None, values.type), values))
        cuts: dict[int, str] = {}
        for row, value, errors in bad:
            if own.column.on_error == "truncate" and "maxlength" in errors:
                cuts[row] = value[: own.column.rules["maxlength"]].rstrip(BLANKS)
                errors = own.judge.errors(cuts[row])
            if errors:
                found.setdefault(row, {})[name] = dict(errors)
        if not cuts:
            return rows
        mask = changed[name, "truncated"] = _rows_mask(len(values), list(cuts))
        return _replaced(rows, name, pc.replace_with_mask(values, pa.array(mask), pa.array(list(cuts.values()), values.type)))

    def _broken(self, own: _Own, values: pa.Array) -> Iterator[Mask | None]:
        """Which values break each of the compiled rules."""
        for kernel, slow in own.kernels:
            started = time.perf_counter()
            yield kernel(values)
            if slow:
                self._spend([f"{own.column.name}.{slow}"], time.perf_counter() - started, len(values) - values.null_count)

    def _judge_values(self, own: _Own, values: pa.Array) -> Mask | None:
        """Which values Cerberus refuses, each distinct one asked for once."""
        started = time.perf_counter()
        encoded = pc.dictionary_encode(values)
        verdicts = pa.array([bool(own.judge.errors(value)) for value in encoded.dictionary.to_pylist()], pa.bool_())
        broken: Mask = pc.fill_null(verdicts.take(encoded.indices), False).to_numpy(zero_copy_only=False)
        self._spend([f"{own.column.name}.{rule}" for rule in own.unknown], time.perf_counter() - started, len(verdicts))
        return broken if broken.any() else None

    def _spend(self, rules: Sequence[str], seconds: float, judged: int) -> None:
        """Add to what slow rules have cost; those of one column are judged together, so that each gets its share of the time."""
        for rule in rules:
            before = self._costs.get(rule, Cost(0.0, 0))
            self._costs[rule] = Cost(before.seconds + seconds / len(rules), before.judged + judged)

    def _apply_presence(
        self, rows: pa.Table, absent: Collection[str], refused: Mapping[int, Collection[str]], found: dict[int, Verdict]
    ) -> None:
        """``required``, ``nullable``, ``dependencies`` and ``excludes``, by which columns have a value."""
        names = self._presence.names
        if not names:
            return
        states = States(rows, names, self.schema, absent, refused)
        suspects = np.flatnonzero(states.suspects())
        if not len(suspects):
            return
        for row, pattern in zip(suspects.tolist(), states.patterns(suspects), strict=True):
            for name, errors in self._presence.verdict(pattern).items():
                found.setdefault(row, {}).setdefault(name, {}).update(errors)

    def _apply_by_row(
        self, rows: pa.Table, absent: Collection[str], refused: Mapping[int, Collection[str]], found: dict[int, Verdict]
    ) -> None:
        """The rules that look at other columns' values: every row through Cerberus."""
        if self._by_row is None:
            return
        started = time.perf_counter()
        for row, record in enumerate(rows.to_pylist()):
            document = self._document(record, absent, refused.get(row, ()))
            for name, errors in without(judge(self._by_row, document), refused.get(row, ())).items():
                found.setdefault(row, {}).setdefault(name, {}).update(errors)
        self._spend(self._by_row_rules, time.perf_counter() - started, rows.num_rows)

    def _document(self, record: Mapping[str, Any], absent: Collection[str], refused: Collection[str]) -> dict[str, Any]:
        """A row as Cerberus sees it."""
        document = document_of({name: value for name, value in record.items() if name not in absent}, self.schema)
        return {**document, **dict.fromkeys(refused)}

    def _compare(
        self,
        rows: pa.Table,
        absent: Collection[str],
        refused: Mapping[int, Collection[str]],
        found: Mapping[int, Verdict],
        sampled: list[int],
        where: Callable[[int], str],
    ) -> None:
        """Show whole rows to Cerberus, as they are after the policies, and stop where its verdict is another one."""
        if not self._judged or not sampled:
            return
        for row, record in zip(sampled, rows.select(self._judged).take(pa.array(sampled)).to_pylist(), strict=True):
            not_again = [name for name in refused.get(row, ()) if name in self._judged]
            verdict = without(judge(self._sampler, self._document(record, absent, not_again)), not_again)
            ours = found.get(row, {})
            if verdict != ours:
                raise AccountingError(
                    f"{where(row)}: Cerberus refuses {_told(verdict)}, the compiled rules {_told(ours)}",
                    "the same verdict from both",
                    "this is a defect of the compiled rules: report it with the schema file",
                )


def compile_rules(columns: Sequence[Column]) -> CompiledRules:
    """Compile the rules of a table's columns.

    Raises:
        CatalogError: a rule that Cerberus does not know, or whose value it, or the column's type, cannot take.
    """
    schema: dict[str, dict[str, Any]] = {}
    by_row: dict[str, dict[str, Any]] = {}
    own: list[_Own] = []
    slow: list[str] = []
    for column in columns:
        rules, around = own_rules(column), rules_by_row(column)
        type_rule = {"type": CERBERUS_TYPES[column.type.kind]}
        schema[column.name] = {**type_rule, **row_rules(column), **rules, **around}
        if around:
            by_row[column.name] = {"nullable": True, **type_rule, **around}
        if rules:
            record_validator({column.name: rules})  # Cerberus knows them, or says so, before they are compiled
            kernels, unknown = compile_own(rules, column)
            own.append(_Own(column, tuple(kernels), ValueJudge(column.name, {**type_rule, **rules}), tuple(unknown)))
            slow += [f"{column.name}.{rule}" for rule in (*unknown, *filter(None, (name for _, name in kernels)))]
        if column.on_error == "truncate" and not column.rules.get("maxlength"):
            raise CatalogError(f"column {column.name}: truncate to nothing", "a maxlength of at least 1", "correct the schema file")
    by_row_rules = tuple(f"{name}.{rule}" for name, rules in by_row.items() for rule in rules if rule not in ("nullable", "type"))
    presence = presence_schema(schema)
    judged = tuple(name for name in schema if name in presence or name in by_row or any(one.column.name == name for one in own))
    if by_row:
        judged = tuple(schema)  # such a rule may look at any column
    return CompiledRules(
        schema=schema,
        slow=(*slow, *by_row_rules),
        _own=tuple(own),
        _presence=PresenceJudge(presence),
        _by_row=record_validator({name: by_row.get(name, {"nullable": True}) for name in schema}) if by_row else None,
        _by_row_rules=by_row_rules,
        _judged=judged,
        _sampler=record_validator({name: schema[name] for name in judged}),
    )


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as one array, without a copy where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([*column.chunks, pa.array([], column.type)])


def _replaced(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def _rows_mask(count: int, rows: list[int]) -> Mask:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return mask


def _told(verdict: Mapping[str, Errors]) -> str:
    """Columns and rules of a verdict, without what it says of the values."""
    return ", ".join(f"{name} ({', '.join(errors)})" for name, errors in sorted(verdict.items())) or "nothing"
