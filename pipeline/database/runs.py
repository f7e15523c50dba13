"""The ledger of runs: one writer a source, who it is, and what became of each run.

A run holds a session-level advisory lock a source on a connection of its own, so that its death, however it comes, frees the
source at once. Taking a source raises its fencing token: whatever an earlier run left behind can no longer write. Runs that
died without a word are marked by the next one that takes their source.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from pipeline.database import ledger
from pipeline.database.engine import connect, transaction, translated
from pipeline.errors import ConfigurationError, RunLocked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from psycopg2.extensions import cursor as Cursor

MARK_KILLED = """
update etl.run set finished_at = clock_timestamp(), outcome = 'killed', exit_code = 30, message = 'killed; marked by run ' || %(by)s
 where run_id = %(run)s and finished_at is null
"""
MARK_ATTEMPTS = """
update etl.task_attempt set finished_at = clock_timestamp(), outcome = 'killed', error_code = 'E_KILLED', exit_code = 30
 where run_id = %s and outcome = 'running'
"""


@dataclass(frozen=True)
class FailedAttempt:
    """A task that failed, was killed or could not be scheduled, the last time that it was tried."""

    family: str
    parameters: Mapping[str, str]
    error_code: str | None
    exit_code: int | None
    message: str | None


class SourceLocks:
    """The sources that a run may write, held until :meth:`release` or the process's death.

    Args:
        engine: of the database.
        run_id: the run that takes them.
        sources: their names.

    Raises:
        RunLocked: another run holds one of them; it is named.
        DatabaseUnavailable: the server cannot be reached.
    """

    def __init__(self, engine: Engine, run_id: int, sources: Sequence[str]) -> None:
        self.tokens: dict[str, int] = {}
        self._connection = connect(engine)
        try:
            with translated():
                self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    for source in sorted(sources):
                        self.tokens[source] = _take(cursor, source, run_id)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> SourceLocks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Let the sources go."""
        self._connection.close()


def _take(cursor: Cursor, source: str, run_id: int) -> int:
    cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [f"hcad-pipeline writer {source}"])
    row = cursor.fetchone()
    cursor.execute(
        "select r.run_id, r.host, r.pid, r.started_at from etl.writer w join etl.run r using (run_id) where w.source = %s", [source]
    )
    owner = cursor.fetchone()
    if not (row and row[0]):
        who = f"run {owner[0]} (pid {owner[2]} on {owner[1]}, since {owner[3]:%Y-%m-%d %H:%M:%S %Z})" if owner else "another run"
        raise RunLocked(f"{who} is writing {source}", "one writer a source", "wait for it, or stop it; nothing was done")
    if owner and owner[0] != run_id:
        # We hold the lock, so whoever held it is gone.
        cursor.execute(MARK_KILLED, {"run": owner[0], "by": run_id})
        cursor.execute(MARK_ATTEMPTS, [owner[0]])
    return ledger.take_source(cursor, source, run_id)


def require_profile(engine: Engine, profile: str, sources: Sequence[str]) -> None:
    """Keep two profiles out of one database: fifty sample accounts must not take the place of a county's, nor the other way.

    Raises:
        ConfigurationError: one of these sources has a current import of another profile.
    """
    with transaction(engine) as cursor:
        cursor.execute(
            "select source, tax_year, profile from etl.import where state = 'published' and profile <> %s and source = any(%s) limit 1",
            [profile, list(sources)],
        )
        row = cursor.fetchone()
    if row:
        raise ConfigurationError(
            f"the database has {row[0]} {row[1]} of profile {row[2]}, and this run is of profile {profile}",
            "one profile a database",
            f"pass --profile {row[2]}, or use another database (DATABASE_URL) or state folder (--state)",
        )


def start_run(engine: Engine, command: str, profile: str, as_of: dt.datetime) -> int:
    """Open a run in the ledger; returns its number."""
    with transaction(engine) as cursor:
        cursor.execute(
            "insert into etl.run (command, profile, as_of, host, pid) values (%s, %s, %s, %s, %s) returning run_id",
            [command, profile, as_of.replace(tzinfo=dt.UTC), socket.gethostname(), os.getpid()],
        )
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def finish_run(engine: Engine, run_id: int, outcome: str, exit_code: int, message: str) -> None:
    """Close a run; tasks that never said how they ended were killed."""
    with transaction(engine) as cursor:
        cursor.execute(MARK_ATTEMPTS, [run_id])
        cursor.execute(
            "update etl.run set finished_at = clock_timestamp(), outcome = %s, exit_code = %s, message = %s where run_id = %s",
            [outcome, exit_code, message, run_id],
        )


def failed_attempts(engine: Engine, run_id: int) -> list[FailedAttempt]:
    """The tasks of a run whose last attempt failed, oldest first; one that succeeded on a retry is not among them.

    Those that only say that the release is held come last: they follow from what was refused.
    """
    with transaction(engine) as cursor:
        cursor.execute(
            """select family, parameters, error_code, exit_code, message from (
                   select distinct on (task_id) *, outcome in ('failed', 'killed', 'broken') as is_failure from etl.task_attempt
                    where run_id = %s order by task_id, attempt_id desc
               ) last where is_failure order by error_code is not distinct from 'E_HELD', attempt_id""",
            [run_id],
        )
        return [FailedAttempt(*row) for row in cursor.fetchall()]
