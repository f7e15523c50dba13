"""hcad-pipeline quarantine: what was refused, counted by rule, row by row, or as a file for a spreadsheet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN_ROWS = 20


@click.command()
@click.argument("source")
@click.option("--import", "import_id", type=int, help="One import; default: the newest that refused rows.")
@click.option("--table", help="One table.")
@click.option("--rule", help="One rule: regex, or acct:regex.")
@click.option("--column", help="One column; * is the line as a whole.")
@click.option("--line", type=click.IntRange(1), help="One line of the member, in full.")
@click.option("--limit", type=click.IntRange(1), help=f"So many rows; default: {SHOWN_ROWS}, and all into a file.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the rows as CSV, safe to open in a spreadsheet; - is standard output.")
@click.option("--personal", is_flag=True, help="Show rows of tables that name persons as they are, not masked.")
def quarantine(
    source: str, import_id: int | None, table: str | None, rule: str | None, column: str | None, line: int | None, limit: int | None,
    csv_file: str | None, personal: bool,
) -> None:  # fmt: skip
    """Rows that were refused: how many by rule, then table, line, reasons, raw text."""
    from pipeline import quarantine as refused
    from pipeline.database.server import open_database
    from pipeline.settings import find_source, process_settings

    declared = find_source(source)
    settings = process_settings()
    engine = open_database(settings.database_url, settings.state, settings.database_limits)
    shown = limit if limit or csv_file else SHOWN_ROWS
    found = refused.read_quarantine(engine, refused.Wanted(source, import_id, table, rule, column, line, shown))
    rows: Sequence[Mapping[str, Any]] = found.rows if found else []
    rows = rows if personal else refused.without_persons(rows, declared)
    if csv_file:
        _write(csv_file, rows)
        return
    if found is None:
        click.echo("nothing is quarantined")
        return
    lines = [*refused.overview_lines(found)]
    for row in rows:
        lines += refused.detail_lines(row) if line else refused.row_lines(row)
    click.echo("\n".join(lines if rows else [*lines, "  no row that is kept matches"]))


def _write(csv_file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from pipeline.quarantine import write_csv

    if csv_file == "-":
        write_csv(rows, sys.stdout)
        return
    try:
        # With a byte order mark, without which a spreadsheet takes it for another encoding.
        with open(Path(csv_file), "w", encoding="utf-8-sig", newline="") as out:
            write_csv(rows, out)
    except OSError as error:
        raise DiskError(f"{csv_file}: {error}", "a file that can be written", "name another one, or free disk space") from error
    click.echo(f"{len(rows):,} rows are in {csv_file}")
