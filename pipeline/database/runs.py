"""The ledger of runs: one writer a source, who it is, and what became of each run.

A run holds a session-level advisory lock a source on a connection of its own, so that its death, however it comes, frees the
source at once. Taking a source raises its fencing token: whatever an earlier run left behind can no longer write. Runs that
died without a word are marked by the next one that takes their source.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy import Engine

from pipeline import processes
from pipeline.database import ledger
from pipeline.database.engine import connect, limits_of, transaction, translated
from pipeline.database.repeat import repeated
from pipeline.database.silence import watched
from pipeline.errors import ConfigurationError, FencedOut, RunLocked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

MARK_KILLED = """
update etl.run set finished_at = clock_timestamp(), outcome = 'killed', exit_code = 30, message = 'killed; marked by run ' || %(by)s
 where run_id = %(run)s and finished_at is null
"""
MARK_ATTEMPTS = """
update etl.task_attempt set finished_at = clock_timestamp(), outcome = 'killed', error_code = 'E_KILLED', exit_code = 30
 where run_id = %s and outcome = 'running'
"""
#: Runs that hold no source and have not ended: begun just now, or dead before they took one.
WITHOUT_SOURCE = """
select run_id, pid from etl.run r
 where finished_at is null and host = %s and run_id <> %s and not exists (select 1 from etl.writer w where w.run_id = r.run_id)
"""
LOCK = "hcad-pipeline writer {}"
END_OF_SESSION_S = 0.5
#: The session that holds an advisory lock, and the run that it is of: by the name that it gave itself or, where another role's
#: sessions do not show theirs, by what the ledger noted of it.
HOLDER = """
select l.pid, r.run_id, r.host, r.pid, r.started_at
  from pg_locks l
  join pg_database d on d.oid = l.database and d.datname = current_database()
  left join pg_stat_activity a on a.pid = l.pid
  left join etl.writer w on w.source = %(source)s and w.backend_pid = l.pid and w.backend_start = coalesce(a.backend_start, w.backend_start)
  left join etl.run r on r.run_id = coalesce(substring(a.application_name from '^hcad-pipeline run ([0-9]+)$')::bigint, w.run_id)
 where l.locktype = 'advisory' and l.granted and l.objsubid = 1
   and (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%(lock)s, 0)
"""
END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and usename = current_user and application_name = %s and pid <> pg_backend_pid()
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

    A session of its own holds them, under the run's name. Should its link be lost, :meth:`still_held` takes them again,
    as long as no other run has done so.

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
        self._engine, self._run_id, self._sources = engine, run_id, sorted(sources)
        self._connection = self._session()
        try:
            with translated(), self._connection.cursor() as cursor:
                for source in self._sources:
                    self.tokens[source] = _take(cursor, source, run_id)
                _mark_those_without_a_source(cursor, run_id)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> SourceLocks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def still_held(self) -> None:
        """Ask whether the session is there, and take the locks again when it is not; to be called from time to time.

        Raises:
            FencedOut: another run has taken a source meanwhile; this one may not write any more.
            DatabaseUnavailable: the server cannot be reached.
        """
        try:
            with watched(self._connection, limits_of(self._engine).silence_s), self._connection.cursor() as cursor:
                cursor.execute("select 1")
            return
        except psycopg2.Error:
            self._connection.close()
        self._connection = self._session()
        with translated(), self._connection.cursor() as cursor:
            for source, token in self.tokens.items():
                is_ours = _lock(cursor, source)
                ledger.check_fence(cursor, source, token)
                if not is_ours:
                    who = _holder(cursor, source)
                    raise FencedOut(f"{who} holds {source}", "the lock that this run had", "nothing; the other one does the work")
                _note_session(cursor, source)

    def release(self) -> None:
        """Let the sources go."""
        self._connection.close()

    def _session(self) -> Connection:
        connection = connect(self._engine)
        with translated():
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select set_config('application_name', %s, false)", [run_name(self._run_id)])
        return connection


def run_name(run_id: int) -> str:
    """The name under which the sessions of a run, and of its tasks, show in ``pg_stat_activity``."""
    return f"hcad-pipeline run {run_id}"


def _lock(cursor: Cursor, source: str) -> bool:
    cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [LOCK.format(source)])
    return bool((cursor.fetchone() or (False,))[0])


def _take(cursor: Cursor, source: str, run_id: int) -> int:
    # A killed run's session needs a moment to notice that its link is gone.
    deadline = time.monotonic() + END_OF_SESSION_S
    while not (is_ours := _lock(cursor, source)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not is_ours:
        who = _holder(cursor, source)
        raise RunLocked(f"{who} is writing {source}", "one writer a source", "wait for it, or stop it; nothing was done")
    cursor.execute("select run_id from etl.writer where source = %s", [source])
    owner = cursor.fetchone()
    if owner and owner[0] != run_id:
        # We hold the lock, so the session of whoever held it is gone. Tasks that it left hold rows, and are ended.
        cursor.execute(MARK_KILLED, {"run": owner[0], "by": run_id})
        cursor.execute(MARK_ATTEMPTS, [owner[0]])
        cursor.execute(END_SESSIONS, [run_name(owner[0])])
    token = ledger.take_source(cursor, source, run_id)
    _note_session(cursor, source)
    return token


def _mark_those_without_a_source(cursor: Cursor, run_id: int) -> None:
    """Mark the runs of this machine that died before they had a source: nobody will ever take one from them."""
    cursor.execute(WITHOUT_SOURCE, [socket.gethostname(), run_id])
    for other, pid in cursor.fetchall():
        if processes.started_at(pid) is None:
            cursor.execute(MARK_KILLED, {"run": other, "by": run_id})


def _note_session(cursor: Cursor, source: str) -> None:
    cursor.execute(
        """update etl.writer w set backend_pid = a.pid, backend_start = a.backend_start from pg_stat_activity a
            where a.pid = pg_backend_pid() and w.source = %s""",
        [source],
    )


def _holder(cursor: Cursor, source: str) -> str:
    """Who holds a source's lock, by the session that does: the ledger alone may still name the run before."""
    cursor.execute(HOLDER, {"lock": LOCK.format(source), "source": source})
    row = cursor.fetchone()
    if row is None:
        return "a run that has just ended"
    backend, run_id, host, pid, started_at = row
    if run_id is None:
        return f"another run (PostgreSQL's session {backend})"
    return f"run {run_id} (pid {pid} on {host}, since {started_at:%Y-%m-%d %H:%M:%S %Z}, session {backend})"


@repeated
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


@repeated
def note(engine: Engine, run_id: int, notes: Sequence[str]) -> None:
    """Keep what the checks before a run found worth telling."""
    with transaction(engine) as cursor:
        cursor.execute("update etl.run set notes = %s where run_id = %s", [list(notes), run_id])


@repeated
def finish_run(engine: Engine, run_id: int, outcome: str, exit_code: int, message: str) -> None:
    """Close a run; tasks that never said how they ended were killed.

    A run that another one has marked as killed stays so: it was taken over.
    """
    with transaction(engine) as cursor:
        cursor.execute(MARK_ATTEMPTS, [run_id])
        cursor.execute(
            """update etl.run set finished_at = clock_timestamp(), outcome = %s, exit_code = %s, message = %s
                where run_id = %s and finished_at is null""",
            [outcome, exit_code, message, run_id],
        )


@repeated
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
