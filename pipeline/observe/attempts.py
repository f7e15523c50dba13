"""Luigi's attempts in the ledger: one row each time a task is started, with how it ended.

A failed attempt carries the error's code and exit code, from which the runner makes its own. A task that asks for others in
``run()`` is started anew when they are there: its earlier row then says ``waiting``. A process that was killed says nothing
itself; Luigi's parent process writes its row, and what even that missed is marked at the end of the run or by the next one.
"""

from __future__ import annotations

import os

import luigi
from psycopg2.extras import Json
from sqlalchemy import Engine

from pipeline.database.engine import transaction
from pipeline.database.repeat import repeated
from pipeline.database.server import open_database
from pipeline.errors import PipelineError
from pipeline.settings import process_settings as settings

#: What an exception that is not one of ours is: a bug.
UNKNOWN = PipelineError


def register() -> None:
    """Listen to Luigi's events of every task."""
    luigi.Task.event_handler(luigi.Event.START)(started)
    luigi.Task.event_handler(luigi.Event.SUCCESS)(succeeded)
    luigi.Task.event_handler(luigi.Event.FAILURE)(failed)
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(killed)
    luigi.Task.event_handler(luigi.Event.TIMEOUT)(killed)
    luigi.Task.event_handler(luigi.Event.BROKEN_TASK)(broken)


@repeated
def started(task: luigi.Task) -> None:
    """A task begins; its earlier rows that never ended were waiting for others."""
    with transaction(_ledger()) as cursor:
        cursor.execute(
            """update etl.task_attempt set outcome = 'waiting', finished_at = clock_timestamp()
                where task_id = %s and outcome = 'running' and run_id is not distinct from %s""",
            [task.task_id, settings().run_id],
        )
        cursor.execute(
            "insert into etl.task_attempt (run_id, task_id, family, parameters, pid) values (%s, %s, %s, %s, %s)",
            [
                settings().run_id,
                task.task_id,
                task.get_task_family(),
                _parameters(task),
                os.getpid(),
            ],
        )


def succeeded(task: luigi.Task) -> None:
    """A task is done."""
    _finish(task, "done", None, None, None)


def failed(task: luigi.Task, error: BaseException) -> None:
    """A task raised."""
    kind = type(error) if isinstance(error, PipelineError) else UNKNOWN
    _finish(task, "failed", kind.code, kind.exit_code, _sentence(error))


def killed(task: luigi.Task, message: str) -> None:
    """A task's process was killed, or ran out of its time; told by the parent process."""
    _finish(task, "killed", "E_KILLED", 30, str(message))


@repeated
def broken(task: luigi.Task, error: BaseException) -> None:
    """``complete()`` or ``requires()`` raised while the tasks were being scheduled."""
    kind = type(error) if isinstance(error, PipelineError) else UNKNOWN
    with transaction(_ledger()) as cursor:
        cursor.execute(
            """insert into etl.task_attempt (run_id, task_id, family, parameters, pid, finished_at, outcome, error_code, exit_code, message)
               values (%s, %s, %s, %s, %s, clock_timestamp(), 'broken', %s, %s, %s)""",
            [
                settings().run_id, task.task_id, task.get_task_family(), _parameters(task), os.getpid(),
                kind.code, kind.exit_code if kind is not UNKNOWN else 35, _sentence(error),
            ],
        )  # fmt: skip


def _parameters(task: luigi.Task) -> Json:
    return Json(task.to_str_params(only_significant=True, only_public=True))


def _ledger() -> Engine:
    return open_database(settings().database_url, settings().state, settings().database_limits)


@repeated
def _finish(task: luigi.Task, outcome: str, error_code: str | None, exit_code: int | None, message: str | None) -> None:
    with transaction(_ledger()) as cursor:
        cursor.execute(
            """update etl.task_attempt set outcome = %s, finished_at = clock_timestamp(), error_code = %s, exit_code = %s, message = %s
                where task_id = %s and outcome = 'running' and run_id is not distinct from %s""",
            [outcome, error_code, exit_code, message, task.task_id, settings().run_id],
        )


def _sentence(error: BaseException) -> str:
    text = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
    return text.replace("\0", "\\0")[:10_000]
