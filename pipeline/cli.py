"""hcad-pipeline: run, plan, check, status, report, query, diff, quarantine, rollback, accept, verify, up and down.

Every command ends with the exit code that ``pipeline.errors`` gives to what went wrong, and says it in one sentence on standard
error. ``run`` is what nightly.sh calls.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from pipeline import __version__, configuration
from pipeline.cli_gate import report
from pipeline.cli_history import diff, query
from pipeline.cli_plan import plan
from pipeline.cli_quarantine import quarantine
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.text_table import aligned

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from pipeline.runner import RunOutcome
    from pipeline.settings import Settings

TABLE_COLUMNS = ("source", "year", "table", "rows read", "loaded", "quarantined", "duplicate", "filtered", "written", "seconds")


def main() -> NoReturn:
    """Run the command line; every PipelineError becomes its sentence and its exit code."""
    configuration.use_configuration()
    # What went wrong is shown below; the log's own line would only repeat it.
    logging.getLogger("pipeline").addHandler(logging.NullHandler())
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except PipelineError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except Exception:
        click.echo(f"{PipelineError.code}: a defect of this program; please report it with what follows", err=True)
        traceback.print_exc()
        sys.exit(PipelineError.exit_code)
    sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hcad-pipeline")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="State folder instead of the configured one.")
@click.option("--profile", help="Profile of the source.toml files (production, sample, ...).")
def cli(state: Path | None, profile: str | None) -> None:
    """Appraisal rolls of Texas counties, complete, right and fresh in PostgreSQL."""
    if state:
        os.environ[configuration.STATE] = str(state.resolve())
    if profile:
        os.environ[configuration.PROFILE] = profile


@cli.command("run")
@click.option("--source", help="One source; without it every enabled one.")
@click.option("--year", type=int, help="One tax year; needs --source.")
@click.option("--as-of", help="The run's instant, UTC; the same again goes on where that run stopped. Default: now.")
@click.option("--table", "tables", multiple=True, help="Only this table, or these; the others stay as they are. Needs --source.")
@click.option("--archive", "archives", multiple=True, help="Only the tables that come out of this archive, or these.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Tasks at once.")
@click.option("--scheduler-url", help="luigid; default: the one that `up` started, else [core] scheduler_url.")
@click.option("--local-scheduler", is_flag=True, help="Do without luigid.")
@click.option("--timeout", type=float, help="End the run after so many seconds.")
@click.option("--force", is_flag=True, help="Download again what is there; other bytes under the same validators become a release.")
@click.option("--accept", metavar="REASON", help="Publish what the gate has refused of the source, as `report` shows it. Needs --source.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Luigi's log; default: var/logs/<as_of>.log.")
def run_command(
    source: str | None, year: int | None, as_of: str | None, tables: tuple[str, ...], archives: tuple[str, ...], workers: int,
    scheduler_url: str | None, local_scheduler: bool, timeout: float | None, force: bool, accept: str | None, log: Path | None,
) -> None:  # fmt: skip
    """Bring every source, or one, to what it offers now."""
    from pipeline.orchestrator import ETLOrchestrator, utc

    if year and not source:
        raise ConfigurationError("--year without --source", "a source for the year", "add --source")
    orchestrator = ETLOrchestrator()
    config: dict[str, object] = {
        "source": source, "year": year, "workers": workers, "local_scheduler": local_scheduler, "timeout_s": timeout,
        "log": log, "force": force, "tables": tables, "archives": archives,
        "scheduler_url": scheduler_url, "accept": accept, "accepted_by": _who(),
    }  # fmt: skip
    if as_of:
        config["as_of"] = utc(as_of)
    outcome = orchestrator.execute_pipeline(config)
    _show(outcome)
    sys.exit(outcome.exit_code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def status(as_json: bool) -> None:
    """What is current, how fresh it is, and what the last runs did."""
    from pipeline.status import read_status, status_lines

    with _database() as (_, engine):
        found = read_status(engine)
    click.echo(json.dumps(found, default=str, indent=1) if as_json else "\n".join(status_lines(found)))


@cli.command()
@click.option("--source", help="One source; without it every one.")
def check(source: str | None) -> None:
    """Read every schema file and run its examples; what does not come true is shown. Needs no database and no network."""
    from pipeline.examples import run_examples
    from pipeline.settings import find_source, process_sources

    chosen = {source: find_source(source)} if source else process_sources()
    verdicts = list(run_examples(chosen))
    for verdict in verdicts:
        for difference in verdict.differences:
            click.echo(f"{verdict.table}: {difference}\n    {verdict.example.line!r}")
    failed = sum(bool(verdict.differences) for verdict in verdicts)
    tables = sum(len(found.tables) for found in chosen.values())
    click.echo(f"{len(chosen)} sources, {tables} tables, {len(verdicts)} examples, {failed} of them do not come true")
    sys.exit(31 if failed else 0)


cli.add_command(quarantine)
cli.add_command(report)
cli.add_command(query)
cli.add_command(diff)
cli.add_command(plan)


@cli.command()
@click.argument("import_id", type=int)
@click.option("--reason", required=True, help="For the ledger.")
def rollback(import_id: int, reason: str) -> None:
    """Take back the current import of a source's tax year: its tables are what they were before it."""
    from pipeline.load.manager import LoadManager

    with _writing(import_id, f"rollback {import_id}") as (engine, tokens):
        changes = LoadManager(engine, tokens=tokens).rollback_import(import_id, reason=reason, decided_by=_who())
    for table, written in changes.items():
        click.echo(f"{table}: {written.deleted} rows removed, {written.inserted + written.updated} restored")
    click.echo(f"import {import_id} is rolled back; its release is held" if changes else f"import {import_id} was rolled back already")


@cli.command()
@click.argument("import_id", type=int)
@click.option("--reason", required=True, help="For the ledger.")
def accept(import_id: int, reason: str) -> None:
    """Let a refused or rolled back import through; the next run goes on with it."""
    from pipeline.load.manager import LoadManager

    with _writing(import_id, f"accept {import_id}") as (engine, tokens):
        LoadManager(engine, tokens=tokens).accept_import(import_id, reason=reason, decided_by=_who())
    profile = os.environ.get(configuration.PROFILE)
    click.echo(f"import {import_id} is accepted; run: hcad-pipeline {f'--profile {profile} ' if profile else ''}run")


@cli.command("verify")
@click.option("--source", help="One source; without it every enabled one.")
@click.option("--year", type=int, help="One tax year; needs --source.")
def verify_command(source: str | None, year: int | None) -> None:
    """Read archives, extracted members and live tables again and compare them with what was recorded."""
    from pipeline.settings import chosen_syncs, find_source
    from pipeline.verify import require_same, verify

    if year and not source:
        raise ConfigurationError("--year without --source", "a source for the year", "add --source")
    with _database() as (settings, engine):
        checked = []
        for one in verify(engine, settings.state, [(find_source(name), tax_year) for name, tax_year in chosen_syncs(source, year)]):
            click.echo(one.line())
            checked.append(one)
    require_same(checked)
    click.echo(f"{len(checked)} checked, all as recorded")


@cli.command()
@click.option("--sample", is_flag=True, help="Serve the sample bundle of this checkout too, for --profile sample.")
def up(sample: bool) -> None:
    """Start luigid, and the embedded PostgreSQL where no database is configured; print their URLs."""
    from pipeline import services

    with _database() as (settings, engine):
        luigid = services.start_luigid(settings.state, config=configuration.use_configuration())
        click.echo(f"database   {shown_url(engine.url)}")
        click.echo(f"scheduler  {luigid.url}")
        if sample:
            root = configuration.checkout()
            if root is None:
                raise ConfigurationError("--sample in an installed package", "a checkout, which has the sample bundle", "clone the project")
            bundle = root / "tests" / "fixtures" / "sample"
            server = services.start_sample_server(settings.state, root=bundle, script=root / "scripts" / "sample_server.py")
            click.echo(f"sample     {server.url}")


@cli.command()
def down() -> None:
    """Stop luigid, the sample server and the embedded PostgreSQL of this state folder."""
    from pipeline import services
    from pipeline.database.server import embedded
    from pipeline.settings import process_settings

    settings = process_settings()
    stopped = [service.name for service in services.stop_all(settings.state)]
    if not settings.database_url and (settings.state / "postgres").is_dir() and embedded(settings.state).stop():
        stopped.append("postgres")
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@contextmanager
def _database() -> Iterator[tuple[Settings, Engine]]:
    from pipeline.database.server import open_database
    from pipeline.settings import process_settings

    settings = process_settings()
    yield settings, open_database(settings.database_url, settings.state, settings.database_limits)


@contextmanager
def _writing(import_id: int, command: str) -> Iterator[tuple[Engine, dict[str, int]]]:
    """Hold the source of an import while a person's decision is carried out; a run that is at work keeps it from us."""
    from pipeline.database import ledger, runs
    from pipeline.database.engine import transaction
    from pipeline.errors import RollbackRefused
    from pipeline.runner import RunRequest

    with _database() as (settings, engine):
        with transaction(engine) as cursor:
            found = ledger.by_id(cursor, import_id)
        if found is None:
            raise RollbackRefused(f"no import {import_id}", "one that hcad-pipeline status lists", "name one of these")
        run_id = runs.start_run(engine, command, settings.profile, RunRequest().as_of)
        try:
            with runs.SourceLocks(engine, run_id, [found.key.source]) as locks:
                yield engine, locks.tokens
            runs.finish_run(engine, run_id, "done", 0, command)
        except PipelineError as error:
            runs.finish_run(engine, run_id, "failed", error.exit_code, str(error))
            raise


def _who() -> str:
    """Who decides, for the ledger; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def shown_url(url: URL) -> str:
    """A database's URL as psql and every other client take it, without the password."""
    # SQLAlchemy writes a blank in a socket's folder as +, which libpq takes for a plus sign.
    base, mark, query = url.set(drivername="postgresql").render_as_string(hide_password=True).partition("?")
    return base + mark + query.replace("+", "%20")


def _show(outcome: RunOutcome) -> None:
    rows = [
        (sync.source, sync.year, table.table, table.read, table.loaded, table.quarantined, table.duplicate, table.filtered,
         *((table.written, f"{table.seconds:.1f}") if sync.state == "published" else (0, "0.0")))
        for sync in outcome.syncs if sync.exit_code == 0 for table in sync.tables
    ]  # fmt: skip
    for line in aligned(TABLE_COLUMNS, rows):
        click.echo(line)
    for sync in outcome.syncs:
        click.echo(f"{sync.source} {sync.year}: {sync.state}{f': {sync.message}' if sync.message else ''}")
    for note in outcome.notes:
        click.echo(f"note: {note}")
    click.echo(f"run {outcome.run_id}: {outcome.message} (exit code {outcome.exit_code}, log {outcome.log})")
