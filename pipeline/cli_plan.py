"""hcad-pipeline plan: what a run would fetch and do."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--source", help="One source; without it every enabled one.")
@click.option("--year", type=int, help="One tax year; needs --source.")
@click.option("--offline", is_flag=True, help="Do not ask the source: what it offered last counts.")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def plan(source: str | None, year: int | None, offline: bool, as_json: bool) -> None:
    """What a run would fetch, and what it would do with each table; nothing is fetched, written or locked."""
    from pipeline.database.server import open_database
    from pipeline.plan import make_plan
    from pipeline.settings import chosen_syncs, find_source, process_settings

    settings = process_settings()
    engine = open_database(settings.database_url, settings.state, settings.database_limits)
    plans = [make_plan(engine, settings, find_source(name), tax_year, ask=not offline) for name, tax_year in chosen_syncs(source, year)]
    if as_json:
        click.echo(json.dumps([one.document() for one in plans], indent=1))
    else:
        click.echo("\n\n".join("\n".join(one.lines()) for one in plans))
