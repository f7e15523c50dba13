"""What an import changed, as a person reads it: counts by table and column, values old and new, or a file for a spreadsheet.

Values of columns that name or locate a person are masked, letter for letter, unless they are asked for, and so are those of columns
that the catalog does not know. A text that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO

from pipeline.catalog.model import Source
from pipeline.disclosure import masked, spreadsheet_cell
from pipeline.load.changes import ImportChanges, ValueChange
from pipeline.text_table import aligned

CSV_COLUMNS = ("source", "tax_year", "import_id", "table", "operation", "key", "column", "old", "new")


def overview_lines(changes: ImportChanges) -> list[str]:
    """The import, the rows written by table, and the columns that updated rows differ in."""
    of = changes.of
    base = f"compared with import {of.base_import_id}" if of.base_import_id else "the first of its tax year"
    key = f"{of.key.source} {of.key.tax_year}, release {of.key.release}, recipe {of.key.recipe}"
    lines = [f"import {of.import_id}: {key}, {of.state}, {base}"]
    rows = [(one.table, one.inserted, one.updated, one.deleted, _remark(one.disposition, one.is_first)) for one in changes.tables]
    lines += aligned(("table", "inserted", "updated", "deleted", ""), rows)
    columns = [(table.table, column, count) for table in changes.tables for column, count in table.columns.items()]
    return [*lines, "", *aligned(("table", "column", "updated rows"), columns)] if columns else lines


def _remark(disposition: str, is_first: bool) -> str:
    if disposition != "staged":
        return disposition.replace("_", " ")
    return "all rows are new: no row history" if is_first else ""


def value_lines(values: Iterable[ValueChange]) -> Iterator[str]:
    """A line a value: ``table acct=1 updated: value '10.00' -> '11.00'``."""
    for value in values:
        yield f"{value.table} {_key(value)} {value.operation}: {value.column} {_shown(value.old)} -> {_shown(value.new)}"


def write_csv(values: Iterable[ValueChange], changes: ImportChanges, out: IO[str]) -> int:
    """Write the values as CSV, a line each; returns how many. An empty cell is no value, or a text without characters."""
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(CSV_COLUMNS)
    key, count = changes.of.key, 0
    for count, value in enumerate(values, 1):  # noqa: B007  # it is returned
        cells = (value.table, value.operation, _key(value), value.column, value.old, value.new)
        writer.writerow([key.source, key.tax_year, changes.of.import_id, *map(spreadsheet_cell, cells)])
    return count


def without_persons(values: Iterable[ValueChange], source: Source | None) -> Iterator[ValueChange]:
    """The values, masked where their column is ``personal``, or unknown to the catalog."""
    is_open = {
        (table.name, column.name) for table in (source.tables if source else ()) for column in table.columns if not column.personal
    }

    def open_or_masked(table: str, column: str, text: str | None) -> str | None:
        return text if text is None or (table, column) in is_open else masked(text)

    for value in values:
        key = {name: part if name == "seq" else open_or_masked(value.table, name, str(part)) for name, part in value.key.items()}
        old, new = (open_or_masked(value.table, value.column, text) for text in (value.old, value.new))
        yield replace(value, key=key, old=old, new=new)


def _key(value: ValueChange) -> str:
    return ", ".join(f"{name}={part}" for name, part in value.key.items())


def _shown(text: str | None) -> str:
    return "nothing" if text is None else repr(text)
