"""ETLOrchestrator: the runner from Python, for a program that has its own scheduler (Celery, Airflow, a notebook).

``hcad-pipeline run`` is this class with a command line: what it does here is what it does at night. The configuration must be
known before luigi is imported, so import this module before anything that imports luigi.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline import configuration

configuration.use_configuration()

from pipeline.database.engine import transaction  # noqa: E402  # the configuration comes before luigi
from pipeline.database.server import open_database  # noqa: E402
from pipeline.errors import ConfigurationError, PipelineError  # noqa: E402
from pipeline.runner import RunOutcome, RunRequest, run  # noqa: E402
from pipeline.settings import Settings, process_settings  # noqa: E402

logger = logging.getLogger("pipeline")

#: The log level of a run's one message, by exit code; every other code is an error.
LEVELS = {0: logging.INFO, 10: logging.WARNING, 20: logging.INFO, 30: logging.WARNING}


@dataclass(frozen=True)
class StageFailure:
    """How a failure is taken: its code, the exit code it leads to, and whether the next run goes on by itself."""

    stage: str
    code: str
    exit_code: int
    is_transient: bool
    message: str


class ETLOrchestrator:
    """Runs the whole chain and says what became of it.

    Args:
        settings: as read from the configuration; None: read now.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or process_settings()
        self.last: RunOutcome | None = None
        self.failure: StageFailure | None = None

    def execute_pipeline(self, pipeline_config: Mapping[str, Any] | None = None) -> RunOutcome:
        """Run every enabled source, or what the configuration names.

        Args:
            pipeline_config: the fields of :class:`pipeline.runner.RunRequest`: ``source``, ``year``, ``as_of``, ``workers``,
                ``scheduler_url``, ``local_scheduler``, ``timeout_s``, ``log``, ``force``, ``tables``, ``archives``,
                ``accept``, ``accepted_by``.

        Returns:
            The outcome; ``exit_code`` is 0 when all is done or nothing was new.

        Raises:
            ConfigurationError: an unknown key.
            PipelineError: the run could not begin, after its message was sent.
        """
        config = dict(pipeline_config or {})
        known = {field.name for field in fields(RunRequest)}
        if unknown := sorted(set(config) - known):
            raise ConfigurationError(f"pipeline_config has {', '.join(unknown)}", f"some of {', '.join(sorted(known))}", "correct it")
        if config.get("log"):
            config["log"] = Path(config["log"]).resolve()
        request = replace(RunRequest(), **config)
        try:
            self.last = run(self.settings, request)
        except PipelineError as error:
            self.failure = self.handle_stage_error("run", error)
            self.send_notifications(self.failure)
            raise
        self.send_notifications(self.last)
        return self.last

    def handle_stage_error(self, stage: str, error: BaseException) -> StageFailure:
        """Classify a failure: transient (the next run goes on) or not (a person must look); anything unknown is a bug."""
        if isinstance(error, PipelineError):
            return StageFailure(stage, error.code, error.exit_code, error.exit_code in {10, 20, 30}, str(error))
        return StageFailure(stage, PipelineError.code, PipelineError.exit_code, False, f"{type(error).__name__}: {error}")

    def collect_metrics(self) -> dict[str, Any]:
        """The figures of the last run from the ledger: rows by table, seconds, tasks by outcome; empty before a run."""
        if self.last is None:
            return {}
        engine = open_database(self.settings.database_url, self.settings.state, self.settings.database_limits)
        with transaction(engine) as cursor:
            cursor.execute(
                "select extract(epoch from finished_at - started_at)::float, exit_code from etl.run where run_id = %s", [self.last.run_id]
            )
            seconds, exit_code = cursor.fetchone() or (None, None)
            cursor.execute("select outcome, count(*) from etl.task_attempt where run_id = %s group by 1 order by 1", [self.last.run_id])
            attempts = dict(cursor.fetchall())
        tables = {f"{sync.source}.{table.table}.{sync.year}": asdict(table) for sync in self.last.syncs for table in sync.tables}
        return {"run_id": self.last.run_id, "exit_code": exit_code, "seconds": seconds, "attempts": attempts, "tables": tables}

    def send_notifications(self, status: RunOutcome | StageFailure) -> str:
        """Say how a run ended, once: a line in the log, at a level that fits; returns the message."""
        if isinstance(status, StageFailure):
            message = f"run failed with exit code {status.exit_code}: {status.message}"
        else:
            message = f"run {status.run_id} {status.outcome} with exit code {status.exit_code}: {status.message}"
        logger.log(LEVELS.get(status.exit_code, logging.ERROR), "%s", message)
        return message


def utc(text: str) -> dt.datetime:
    """Read ``as_of``: ``2026-03-01T04:00:00``, UTC, with or without a zone.

    Raises:
        ConfigurationError: it is no instant.
    """
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"as_of {text!r}", "an instant such as 2026-03-01T04:00:00 (UTC)", "correct it") from error
    if instant.tzinfo:
        instant = instant.astimezone(dt.UTC).replace(tzinfo=None)
    return instant.replace(microsecond=0)
