"""One run: the lock, the luigi process, the outcome from the ledger, the exit code.

``hcad-pipeline run`` and ETLOrchestrator come here. The run takes the lock of every source that it is about, starts the same
``luigi`` command that a person would type as a process group of its own, waits, and then asks the ledger, not Luigi, what
became of each source and tax year. SIGTERM, SIGINT and SIGHUP end the whole group; a run that is killed outright leaves
nothing to clean up by hand: its lock dies with it, and its token no longer lets its leftovers write.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from sqlalchemy import Engine

from pipeline import configuration, scheduler, services
from pipeline.database import ledger, runs
from pipeline.database.engine import transaction
from pipeline.database.server import open_database, server_url
from pipeline.errors import ConfigurationError, DatabaseUnavailable, FencedOut, Interrupted, PipelineError, TransientError
from pipeline.extract.wanted import cuts_of
from pipeline.housekeeping import Retention, sweep
from pipeline.load import comments, upkeep
from pipeline.load.manager import LoadManager
from pipeline.load.preflight import preflight
from pipeline.observe.events import log_event, logger
from pipeline.outcome import SyncOutcome, outcome_of, run_outcome
from pipeline.releases import AS_OF_FORMAT
from pipeline.settings import Settings, chosen_syncs, chosen_tables, find_source
from pipeline.terminal import progress_bars

STOP_TIMEOUT_S = 10.0
#: Seconds between two questions whether the run still holds its sources.
LOCK_ASKED_S = 5.0


@dataclass(frozen=True)
class RunRequest:
    """What a run is about.

    Attributes:
        source: one source; None: every enabled one.
        year: one tax year of ``source``; None: all that its file names.
        as_of: the run's instant, UTC without a zone; the same again goes on where that run stopped.
        workers: tasks at once.
        scheduler_url: luigid; None: the one that ``hcad-pipeline up`` started, else as configured.
        local_scheduler: do without luigid.
        timeout_s: end the run after so long; None: never.
        log: where Luigi's log goes; None: ``var/logs/<as_of>.log``.
        force: download again what is there, and compare.
        tables: only these tables of ``source``; every other one is carried over as it is.
        archives: only the tables that come out of these archives of ``source``.
        accept: why what the gate has refused of ``source`` is to be published all the same; None: it stays held.
        accepted_by: who says so.
    """

    source: str | None = None
    year: int | None = None
    as_of: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC).replace(microsecond=0, tzinfo=None))
    workers: int = 2
    scheduler_url: str | None = None
    local_scheduler: bool = False
    timeout_s: float | None = None
    log: Path | None = None
    force: bool = False
    tables: Sequence[str] = ()
    archives: Sequence[str] = ()
    accept: str | None = None
    accepted_by: str = "python"


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended. ``exit_code`` is the process's; ``syncs`` has one entry a source and tax year; ``notes`` are of the preflight."""

    run_id: int
    exit_code: int
    outcome: str
    message: str
    syncs: tuple[SyncOutcome, ...]
    log: Path
    notes: tuple[str, ...] = ()


def run(settings: Settings, request: RunRequest) -> RunOutcome:
    """Run the pipeline once.

    Raises:
        PipelineError: the run could not begin (locked, no database, no scheduler, wrong configuration); its ``exit_code`` is
            the process's.
    """
    if request.accept is not None and not (request.source and request.accept.strip()):
        raise ConfigurationError("accept without a source, or without a reason", "whose release is accepted, and why", "add them")
    syncs = chosen_syncs(request.source, request.year)
    request = replace(request, tables=chosen_tables(request.source, syncs, request.tables, request.archives))
    url = server_url(settings.database_url, settings.state)
    engine = open_database(settings.database_url, settings.state, settings.database_limits)
    log = request.log or settings.state / "logs" / f"{request.as_of.strftime(AS_OF_FORMAT)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    run_id = runs.start_run(engine, _command_line(request), settings.profile, request.as_of)
    try:
        sources = sorted({source for source, _ in syncs})
        with runs.SourceLocks(engine, run_id, sources) as locks:
            runs.require_profile(engine, settings.profile, sources)
            notes = preflight(engine, map(find_source, sources), min_free_bytes=settings.min_free_bytes)
            notes = [*notes, *_accept(engine, settings, request, locks.tokens)]
            runs.note(engine, run_id, notes)
            for source in sources:
                comments.describe_source(engine, find_source(source), log_event)
            # What a run that died after its publish has left.
            upkeep.pay_if_possible(engine, sources, log_event)
            scheduler_url = request.scheduler_url or _started_luigid(settings) or settings.scheduler_url
            if not request.local_scheduler:
                scheduler.require_scheduler(scheduler_url)
                scheduler.forgive(scheduler_url, sources)
            environment = _environment(settings, url.render_as_string(hide_password=False), run_id, locks.tokens)
            with progress_bars(configuration.progress_folder(settings.state, run_id)):
                code = _run_luigi(_arguments(request, scheduler_url), environment, log, request.timeout_s, locks.still_held)
            return replace(_conclude(engine, settings, request, run_id, syncs, code, log, locks.tokens), notes=tuple(notes))
    except PipelineError as error:
        runs.finish_run(engine, run_id, "failed", error.exit_code, str(error))
        raise
    except Exception as error:
        runs.finish_run(engine, run_id, "failed", PipelineError.exit_code, f"{type(error).__name__}: {error}")
        raise


def _accept(engine: Engine, settings: Settings, request: RunRequest, tokens: Mapping[str, int]) -> list[str]:
    """Let through what the gate refused of a source before this run, the newest of each tax year; what it refuses in this run is held."""
    if request.accept is None or request.source is None:  # run() has seen that they come together
        return []
    with transaction(engine) as cursor:
        refused = ledger.refused_by_gate(cursor, request.source, request.year)
    loads = LoadManager(engine, profile=settings.profile, tokens=tokens)
    for found in refused:
        loads.accept_import(found.import_id, reason=request.accept, decided_by=request.accepted_by)
    told = [f"import {found.import_id} of {found.key.tax_year} is accepted by {request.accepted_by}: {request.accept}" for found in refused]
    return told or [f"the gate has refused nothing of {request.source} that waits: there was nothing to accept"]


def _conclude(
    engine: Engine, settings: Settings, request: RunRequest, run_id: int, syncs: list[tuple[str, int]], luigi_code: int, log: Path,
    tokens: Mapping[str, int],
) -> RunOutcome:  # fmt: skip
    failures = runs.failed_attempts(engine, run_id)
    outcomes = tuple(outcome_of(engine, settings, source, year, request.as_of, run_id, failures, request.tables) for source, year in syncs)
    exit_code, outcome, message = run_outcome(outcomes, failures, luigi_code)
    for sync in outcomes:
        # Of a release that was imported in part, what the other tables were made of is still what is live.
        if sync.exit_code == 0 and not request.tables:
            _tidy(engine, settings, sync, tokens[sync.source])
    _prune(engine, settings, sorted({source for source, _ in syncs}))
    runs.finish_run(engine, run_id, outcome, exit_code, message)
    return RunOutcome(run_id, exit_code, outcome, message, outcomes, log)


def _started_luigid(settings: Settings) -> str | None:
    """The luigid that ``hcad-pipeline up`` started in this state folder, while it runs."""
    return next((service.url for service in services.running(settings.state) if service.name == "luigid"), None)


def _tidy(engine: Engine, settings: Settings, sync: SyncOutcome, token: int) -> None:
    """What the offered release has made obsolete goes; that it cannot go is no reason for a run to have failed."""
    try:
        with transaction(engine) as cursor:
            # What a run that has taken over is staging is not obsolete.
            ledger.check_fence(cursor, sync.source, token)
            ledger.lock_source_year(cursor, sync.source, sync.year)
            ledger.abandon_staging(cursor, sync.source, sync.year, "what is offered is current without it")
        keep = Retention(settings.kept_archives, settings.kept_members)
        cuts = cuts_of(find_source(sync.source), sync.year, settings.part_bytes)
        if freed := sweep(engine, settings.state, sync.source, sync.year, keep=keep, cuts=cuts):
            log_event("run.swept", {"source": sync.source, "year": sync.year, "bytes": freed})
    except (OSError, DatabaseUnavailable, FencedOut) as error:
        logger.warning("run.not_swept source=%s year=%s error=%s", sync.source, sync.year, ascii(str(error)))


def _prune(engine: Engine, settings: Settings, sources: list[str]) -> None:
    """What the database need not keep goes; that it cannot go now is no reason for a run to have failed."""
    keep = upkeep.Kept(settings.kept_history, settings.kept_history_days, settings.kept_staging_days)
    for source in sources:
        try:
            upkeep.prune(engine, source, keep, log_event)
        except TransientError as error:
            logger.warning("run.not_pruned source=%s error=%s", source, ascii(str(error)))


def _arguments(request: RunRequest, scheduler_url: str) -> list[str]:
    task = ["SyncSource", "--source", request.source, "--year", str(request.year)] if request.source and request.year else ["SyncAll"]
    if request.source and not request.year:
        task += ["--only", request.source]
    if request.force:
        task += ["--force"]
    if request.tables:
        task += ["--tables", ",".join(request.tables)]
    where = ["--local-scheduler"] if request.local_scheduler else ["--scheduler-url", scheduler_url]
    return [
        sys.executable, "-m", "luigi", "--module", "pipeline.tasks", *map(str, task),
        "--as-of", request.as_of.strftime("%Y-%m-%dT%H%M%S"), "--workers", str(request.workers), "--no-lock",
        "--logging-conf-file", str(configuration.config_folder() / "logging.conf"), *where,
    ]  # fmt: skip


def _command_line(request: RunRequest) -> str:
    words = f"run --source {request.source or 'all'} --year {request.year or 'all'} --workers {request.workers}"
    words += "".join(f" --table {table}" for table in request.tables)
    words += " --accept" if request.accept is not None else ""
    return f"{words} --force" if request.force else words


def _environment(settings: Settings, database_url: str, run_id: int, tokens: Mapping[str, int]) -> dict[str, str]:
    package = str(configuration.PACKAGE.parent)
    path = os.environ.get("PYTHONPATH")
    return os.environ | {
        "DATABASE_URL": database_url,
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
        configuration.STATE: str(settings.state),
        configuration.PROFILE: settings.profile,
        configuration.RUN_ID: str(run_id),
        configuration.TOKENS: json.dumps(dict(tokens)),
    }


def _run_luigi(
    arguments: list[str], environment: Mapping[str, str], log: Path, timeout_s: float | None, still_held: Callable[[], None]
) -> int:
    """Start luigi as a process group, wait, and see that nothing of the group is left; returns its exit code.

    Args:
        arguments: the command line.
        environment: all of it.
        log: takes its output.
        timeout_s: seconds until it is ended; None: never.
        still_held: called now and then; raises when the sources are no longer ours, and ends the group.

    Raises:
        Interrupted: a signal, or the time-out, ended it.
        FencedOut: another run has taken over a source.
        DatabaseUnavailable: the server cannot be reached any more.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with open(log, "ab") as out, _interruptible():
        child = subprocess.Popen(
            arguments, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            cwd=configuration.home(), start_new_session=True,
        )  # fmt: skip
        try:
            while (left_s := math.inf if deadline is None else deadline - time.monotonic()) > 0:
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(min(left_s, LOCK_ASKED_S))
                still_held()
            raise Interrupted(f"the run took more than {timeout_s:g} s", "an end within --timeout", "run again: it goes on")
        finally:
            _end_group(child)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _signal_group(child.pid, signal.SIGKILL)
            child.wait()
    # Luigi's own task processes outlive their parent when that is killed.
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the signals that ask a process to end into Interrupted, where signals can be received at all."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(f"{signal.Signals(number).name} received", "to be left to finish", "run again: it goes on where it stopped")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
