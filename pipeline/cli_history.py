"""hcad-pipeline diff and query: what an import changed, and what tables are, or were after an import."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import ConfigurationError, DiskError
from pipeline.text_table import aligned

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pipeline.load.changes import ImportChanges, ValueChange

SHOWN_VALUES = 50


@click.command()
@click.argument("import_id", metavar="IMPORT", type=int)
@click.option("--table", help="One table.")
@click.option("--rows", is_flag=True, help="Value by value: key, column, old, new.")
@click.option("--column", help="The values of one column; needs --table.")
@click.option("--limit", type=click.IntRange(1), help=f"So many values; default: {SHOWN_VALUES}, and all into a file.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the values as CSV, safe to open in a spreadsheet; - is standard output.")
@click.option("--personal", is_flag=True, help="Show values of columns that name persons as they are, not masked.")
def diff(
    import_id: int, table: str | None, rows: bool, column: str | None, limit: int | None, csv_file: str | None, personal: bool
) -> None:
    """What an import changed: rows by table, updated rows by column, and value by value."""
    from pipeline.diff import overview_lines, value_lines, without_persons
    from pipeline.load.changes import read_changes
    from pipeline.settings import process_sources

    if column and not table:
        raise ConfigurationError("--column without --table", "a table for the column", "add --table")
    engine = _engine()
    changes = read_changes(engine, import_id, table)
    if not (rows or column or csv_file):
        click.echo("\n".join(overview_lines(changes)))
        return
    values = _values(engine, changes, column)
    if not personal:
        values = without_persons(values, process_sources().get(changes.of.key.source))
    if csv_file:
        _write(csv_file, itertools.islice(values, limit), changes)
        return
    limit = limit or SHOWN_VALUES
    lines = list(value_lines(itertools.islice(values, limit)))
    click.echo("\n".join(lines) if lines else "no row history: nothing was changed, or all rows are new")
    if next(values, None) is not None:
        click.echo(f"... and more: --limit shows more than {limit}, --csv writes all")


@click.command()
@click.argument("statement")
@click.option("--as-of", "import_id", metavar="IMPORT", type=int, help="Tables, named without a schema, as they were after this import.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated, for a spreadsheet or a program.")
def query(statement: str, import_id: int | None, as_csv: bool) -> None:
    """Run one SQL statement in a read-only transaction and show its rows."""
    from pipeline.load.history import query_as_of
    from pipeline.status import read_rows

    header, rows = read_rows(_engine(), statement) if import_id is None else query_as_of(_engine(), import_id, statement)
    if as_csv:
        csv.writer(sys.stdout).writerows([header, *rows])
        return
    for line in aligned(header, [["" if cell is None else str(cell) for cell in row] for row in rows]):
        click.echo(line)
    click.echo(f"({len(rows)} rows)")


def _engine() -> Engine:
    from pipeline.database.server import open_database
    from pipeline.settings import process_settings

    settings = process_settings()
    return open_database(settings.database_url, settings.state, settings.database_limits)


def _values(engine: Engine, changes: ImportChanges, column: str | None) -> Iterator[ValueChange]:
    from pipeline.load.changes import value_changes

    for table in changes.tables:
        if table.disposition == "staged":
            yield from value_changes(engine, changes.of.import_id, table.table, column)


def _write(csv_file: str, values: Iterator[ValueChange], changes: ImportChanges) -> None:
    from pipeline.diff import write_csv

    if csv_file == "-":
        write_csv(values, changes, sys.stdout)
        return
    try:
        # With a byte order mark, without which a spreadsheet takes it for another encoding.
        with open(Path(csv_file), "w", encoding="utf-8-sig", newline="") as out:
            count = write_csv(values, changes, out)
    except OSError as error:
        raise DiskError(f"{csv_file}: {error}", "a file that can be written", "name another one, or free disk space") from error
    click.echo(f"{count:,} values are in {csv_file}")
