"""What becomes of each row of a chunk: typed, completed, judged, and good or refused.

In goes a chunk of texts as a reader gives it; out come its rows with the types of the table, which of them are good, and
for each of the others which columns break which rules. Values that a declared rule turned into NULL or altered are named
with that rule, so that they can be counted. The order is always the same: each column is typed, the computed columns are
made, the rules are applied, the tax year is compared. A row that is the header once more is no row. Messages about a
personal column never hold its value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, Table
from pipeline.transform.coerce import MESSAGES, Coerced, arrow_type, column_typer
from pipeline.transform.compute import compute_column
from pipeline.transform.header import UNCLAIMED
from pipeline.transform.lines import Mask
from pipeline.transform.reader import Chunk
from pipeline.transform.rules import compile_rules

#: Row -> column -> rule -> message.
Messages = dict[int, dict[str, dict[str, str]]]
#: (column, rule) -> which rows.
Changes = dict[tuple[str, str], Mask]

#: Reasons of typing, and rules, that alter a text; by all others a changed value has become NULL.
_ALTERING: Final = frozenset({"control_character", "truncated"})
#: The rules whose messages in Cerberus hold their limit, and never the value.
_SILENT: Final = frozenset(
    {"required", "nullable", "empty", "type", "min", "max", "minlength", "maxlength", "regex", "dependencies", "excludes"}
)
#: One value may be its column's name by chance.
_FEWEST_NAMES: Final = 2


@dataclass
class Judged:
    """A chunk of typed rows, and what became of each.

    Attributes:
        rows: the table's columns, typed, all rows of the chunk; a refused value is NULL.
        typed: the same before rules were applied.
        is_good: which rows are refused for nothing.
        refused: the messages of the others, by row.
        nulled: (column, rule) -> which rows have NULL there by that rule.
        changed: (column, rule) -> which rows have another text there by that rule.
        texts: column -> the texts that it was read from.
        canonical: column -> its values as the row hash writes them, where that is at hand.
    """

    rows: pa.Table
    typed: pa.Table
    is_good: Mask
    refused: Messages = field(default_factory=dict)
    nulled: Changes = field(default_factory=dict)
    changed: Changes = field(default_factory=dict)
    texts: Mapping[str, pa.StringArray] = field(default_factory=dict)
    canonical: dict[str, pa.StringArray] = field(default_factory=dict)


class Judge:
    """Judges the rows of a table, chunk by chunk.

    Args:
        table: the table's declaration.
        sample_every: every line whose number is a multiple of it goes through Cerberus though nothing is suspect.
        tax_year: what the table's year column must state; None: it is not compared.

    Raises:
        CatalogError: a rule, format or step that cannot be used.
    """

    def __init__(self, table: Table, *, sample_every: int, tax_year: int | None) -> None:
        """Compile the rules and check that every column can be read."""
        self.table = table
        self.sample_every = sample_every
        self.tax_year = tax_year
        self.rules = compile_rules(table.columns)
        self._columns = {column.name: column for column in table.columns}
        self._names = {column.name: _names(column, table) for column in table.columns if column.is_read}
        self._typers = {column.name: column_typer(column) for column in table.columns if column.compute is None}

    def type_columns(self, chunk: Chunk) -> Judged:
        """The chunk's rows, typed, with what typing refuses; no rule is applied."""
        judged = Judged(pa.table({}), pa.table({}), np.ones(chunk.rows, dtype=np.bool_), texts=self._texts(chunk))
        arrays: dict[str, pa.Array] = {}
        for column in self.table.columns:
            if column.compute is None:
                arrays[column.name] = self._take(judged, column, self._typed(judged, column, chunk))
        for column in self.table.columns:
            if column.compute is not None:
                arrays[column.name] = self._take(judged, column, compute_column(column, arrays))
        judged.rows = judged.typed = pa.table({column.name: arrays[column.name] for column in self.table.columns})
        return judged

    def judge(self, chunk: Chunk) -> Judged:
        """What becomes of each row.

        Raises:
            AccountingError: Cerberus refuses a row that the compiled rules passed.
        """
        judged = self.type_columns(chunk)
        absent = frozenset(name for name in self._typers if name not in judged.texts)
        sampled = chunk.line_numbers % self.sample_every == 0
        ruled = self.rules.apply(
            judged.rows,
            absent=absent,
            refused=judged.refused,
            sampled=sampled,
            where=lambda row: f"line {int(chunk.line_numbers[row])} of {self.table.qualified}",
        )
        judged.rows = ruled.rows
        for row, columns in ruled.refused.items():
            for name, messages in columns.items():
                said = {rule: self._message(name, rule, message) for rule, message in messages.items()}
                judged.refused.setdefault(row, {}).setdefault(name, {}).update(said)
        for change, mask in ruled.changed.items():
            _note(judged, change, mask)
            judged.canonical.pop(change[0], None)  # it was of the values before
        self._mark_other_years(judged)
        self._mark_headers(judged)
        judged.is_good[list(judged.refused)] = False
        return judged

    def _texts(self, chunk: Chunk) -> dict[str, pa.StringArray]:
        """The texts by column: a column that keeps what the others do not claim has them as JSON."""
        texts = {name: array for name, array in chunk.texts.items() if not name.startswith(UNCLAIMED)}
        unclaimed = {name.removeprefix(UNCLAIMED): array for name, array in chunk.texts.items() if name.startswith(UNCLAIMED)}
        for column in self.table.columns:
            if column.is_rest and unclaimed:
                texts[column.name] = _json_objects(unclaimed)
        return texts

    def _typed(self, judged: Judged, column: Column, chunk: Chunk) -> Coerced:
        texts = judged.texts.get(column.name)
        if texts is None:
            return Coerced(pa.nulls(chunk.rows, arrow_type(column.type)))
        # The texts of a rest column are JSON, which escapes control characters.
        return self._typers[column.name](texts, is_ascii=chunk.is_ascii, has_controls=chunk.has_controls)

    def _take(self, judged: Judged, column: Column, coerced: Coerced) -> pa.Array:
        """Note what typing says of a column, by the column's policy; returns its values."""
        if coerced.canonical is not None:
            judged.canonical[column.name] = coerced.canonical
        for reason, mask in coerced.changed.items():
            _note(judged, (column.name, reason), mask)
        for reason, mask in coerced.refusals.items():
            if column.on_error == "null":
                judged.nulled[column.name, reason] = mask
                continue
            for row in np.flatnonzero(mask).tolist():
                judged.refused.setdefault(row, {}).setdefault(column.name, {})[reason] = MESSAGES[reason]
        return coerced.values

    def _message(self, name: str, rule: str, message: str) -> str:
        """What the quarantine says: Cerberus' message, unless it may hold a value that names a person."""
        return f"breaks the rule {rule}" if self._columns[name].personal and rule not in _SILENT else message

    def _mark_other_years(self, judged: Judged) -> None:
        """Refuse the rows that state another tax year than the release's; a row that states none is of this one."""
        name = self.table.year_column
        if name is None or self.tax_year is None:
            return
        years = judged.rows.column(name)
        if pc.min_max(years).as_py() in ({"min": self.tax_year, "max": self.tax_year}, {"min": None, "max": None}):
            return
        others = pc.fill_null(pc.not_equal(years, self.tax_year), False)
        for row in np.flatnonzero(others.to_numpy()).tolist():
            judged.refused.setdefault(row, {}).setdefault(name, {})["other_year"] = f"is not {self.tax_year}"

    def _mark_headers(self, judged: Judged) -> None:
        """Refuse rows that hold the names of at least half of the columns: a header between files put together, or behind a blank line."""
        names = {name: self._names[name] for name in judged.texts if name in self._names}
        first = next((name for name in (*self.table.key, *self.table.parent) if name in names), None)
        if first is None or len(names) < _FEWEST_NAMES:
            return
        # By their lengths first, at a tenth of the cost.
        lengths = pa.array(sorted({len(name.encode()) for name in names[first]}), pa.int32())
        maybe = pc.is_in(pc.binary_length(judged.texts[first]), value_set=lengths)
        for row in np.flatnonzero(maybe.to_numpy(zero_copy_only=False)).tolist() if maybe.true_count else ():
            if judged.texts[first][row].as_py().lower() not in names[first]:
                continue
            found = sum((judged.texts[name][row].as_py() or "").strip().lower() in known for name, known in names.items())
            if found >= max(_FEWEST_NAMES, len(names) / 2):
                judged.refused.setdefault(row, {}).setdefault(first, {})["header"] = "is the name of the column, as in a header"


def _names(column: Column, table: Table) -> frozenset[str]:
    """All names, in small letters, under which a header may show a column."""
    aliases = (alias for layout in table.layouts for alias in layout.aliases.get(column.name, ()))
    return frozenset(name.strip().lower() for name in (column.source, *column.aliases, *aliases))


def _note(judged: Judged, change: tuple[str, str], mask: Mask) -> None:
    """File what a rule did to values: it altered them, or made them NULL."""
    kind = judged.changed if change[1] in _ALTERING else judged.nulled
    kind[change] = kind[change] | mask if change in kind else mask


def _json_objects(columns: Mapping[str, pa.StringArray]) -> pa.StringArray:
    """Row by row, the values that are there as a JSON object in the order of their names; NULL where there is none."""
    encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False).encode
    names = sorted(columns)
    rows = zip(*(columns[name].to_pylist() for name in names), strict=True)
    objects = ({name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows)
    return pa.array([encode(found) if found else None for found in objects], pa.string())
