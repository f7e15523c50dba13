"""hcad-pipeline report: what the gate saw of an import."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("import_id", metavar="IMPORT", type=int)
@click.option("--table", help="One table.")
@click.option("--json", "as_json", is_flag=True, help="For a program to read: all columns, and figures as numbers.")
def report(import_id: int, table: str | None, as_json: bool) -> None:
    """What the gate saw of an import: what holds it, what a person decided, and columns that are not what they were."""
    from pipeline.database.server import open_database
    from pipeline.gate_report import read_report
    from pipeline.settings import process_settings

    settings = process_settings()
    found = read_report(open_database(settings.database_url, settings.state, settings.database_limits), import_id, table)
    click.echo(json.dumps(found.document(), indent=1) if as_json else "\n".join(found.lines()))
