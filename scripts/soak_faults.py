"""The faults of the soak, each injected for real into a command at work: at a place where it stands still, or as a condition of the server.

A fault is a context around one attempt: ``before`` it starts, ``at`` its place, ``after`` it has ended or been killed. What a fault cannot
do at that place (a lock that the command itself holds, a session that is gone) it leaves, and says so by returning False. The
numbers beside the names are rows of docs/faults.md.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errors, sql
from soak_county import SOURCE, TABLES
from soak_ground import County, living_children
from soak_process import Process, Stopped

#: Exit codes of a disturbed attempt that are right: done in spite of it, or to be done by the next run. Negative: the signal.
TRANSIENT = frozenset((0, 30))
#: Luigi's own words for "not all of it": plain luigi has no others.
LUIGI = frozenset((0, 10, 20, 25, 30, 35))
LOCKED_FOR_S = 2.0
SILENT_FOR_S = 6.0


@dataclass
class Attempt:
    """A command at work in a county, of which a process may stand still."""

    county: County
    process: Process
    stopped: Stopped
    dice: random.Random
    start_another: Callable[[], int | None]

    @property
    def group(self) -> list[int]:
        """All of its living processes, the command itself first."""
        return [self.process.pid, *living_children(self.process.pid)]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: its name in the report.
        row: of docs/faults.md.
        at: does it; False: not possible here.
        codes: exit codes of ``hcad-pipeline`` that are right afterwards.
        around: a condition that holds for the attempt.
        is_proxied: whether the command is to speak with the server through the proxy.
        share: how often it is chosen, beside the others.
    """

    name: str
    row: int
    at: Callable[[Attempt], bool] = lambda _: True
    codes: frozenset[int] = TRANSIENT
    around: Callable[[County], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext()
    is_proxied: bool = False
    share: int = 1


def _kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(attempt: Attempt) -> bool:
    """SIGKILL to the run, its Luigi and every task process."""
    _kill(attempt.group)
    return True


def kill_process(attempt: Attempt) -> bool:
    """SIGKILL to the process that stands there: a task, Luigi or the run."""
    _kill([attempt.stopped.pid])
    return True


def kill_luigi(attempt: Attempt) -> bool:
    """SIGKILL to Luigi; its tasks go on until the run ends them."""
    _kill([attempt.stopped.group])
    attempt.stopped.let_go()
    return True


def kill_run(attempt: Attempt) -> bool:
    """SIGKILL to the run alone: its Luigi is orphaned and goes on while the next run begins."""
    _kill([attempt.process.pid])
    attempt.stopped.let_go()
    return True


def end_session(attempt: Attempt) -> bool:
    """pg_terminate_backend of the session that stands there, or of any of the run's."""
    found = attempt.stopped.backend or _any_session(attempt)
    done = bool(found) and attempt.county.sql("select pg_terminate_backend(%s)", found) == [(True,)]
    attempt.stopped.let_go()
    return done


def kill_session(attempt: Attempt) -> bool:
    """SIGKILL to the server's process of that session: the server restarts all sessions and recovers."""
    found = attempt.stopped.backend or _any_session(attempt)
    with contextlib.suppress(ProcessLookupError):
        if found:
            os.kill(found, signal.SIGKILL)
    attempt.stopped.let_go()
    time.sleep(0.02)
    attempt.county.ground.until_up()
    return bool(found)


def stop_server(attempt: Attempt) -> bool:
    """``pg_ctl stop -m immediate``, and a start a while later."""
    attempt.stopped.let_go() if attempt.dice.random() < 0.3 else None
    attempt.county.ground.end_server(signal.SIGQUIT, attempt.dice.choice((0.0, 0.3, 3.0)))
    attempt.stopped.let_go()
    return True


def kill_server(attempt: Attempt) -> bool:
    """SIGKILL to the postmaster; its sessions notice, and it is started again."""
    attempt.county.ground.end_server(signal.SIGKILL, attempt.dice.choice((0.0, 0.3)))
    attempt.stopped.let_go()
    return True


def silence(attempt: Attempt) -> bool:
    """The link takes bytes and passes nothing on, both ends left open."""
    attempt.county.ground.silence()
    attempt.stopped.let_go()
    attempt.process.wait(SILENT_FOR_S)
    attempt.county.ground.hear()
    return True


def hold_lock(attempt: Attempt) -> bool:
    """Another session holds a lock for longer than the pipeline waits for one."""
    name = attempt.dice.choice(["etl.import", "etl.checkpoint", "etl.import_table", *(f"{SOURCE}.{table}" for table in TABLES)])
    mode = attempt.dice.choice(["access exclusive", "exclusive", "share"])
    with contextlib.closing(psycopg2.connect(attempt.county.url.replace("+psycopg2", ""))) as holder, holder.cursor() as cursor:
        try:
            cursor.execute(sql.SQL(f"set lock_timeout = '200ms'; lock table {name} in {mode} mode"))
            is_held = True
        except (errors.LockNotAvailable, errors.UndefinedTable, errors.InvalidSchemaName):
            is_held = False
        attempt.stopped.let_go()
        if is_held:
            attempt.process.wait(LOCKED_FOR_S)
    return is_held


def start_second(attempt: Attempt) -> bool:
    """The same command once more, while the first one stands still."""
    code = attempt.start_another()
    attempt.stopped.let_go()
    return code in (10, 30)


def freeze(attempt: Attempt) -> bool:
    """SIGSTOP to all of it, and its lock's session ends, as if its host were gone; it wakes up when the next attempt is over."""
    _kill(attempt.group, signal.SIGSTOP)
    attempt.county.sql(
        """select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
            where l.locktype = 'advisory' and d.datname = current_database()"""
    )
    attempt.stopped.let_go()
    return True


#: What is done to a checkpoint: another member, recipe or code revision, another cut, a wrong figure, or it is gone.
DAMAGE = (
    "update etl.checkpoint set member_sha256 = 'another'", "update etl.checkpoint set recipe = 'another'",
    "update etl.checkpoint set cut = 'another'",
    "update etl.checkpoint set rows_staged = rows_staged + 1", "delete from etl.checkpoint", "delete from etl.staged_table",
    "delete from etl.checked",
)  # fmt: skip


def damage_checkpoints(attempt: Attempt) -> bool:
    """What says that something is staged is damaged; the command that had staged it is killed."""
    _kill(attempt.group)
    damage = attempt.dice.choice(DAMAGE)
    where = f" where ctid = any(array(select ctid from {damage.split()[2 if damage.startswith('delete') else 1]} limit 1))"
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with contextlib.suppress(errors.LockNotAvailable), attempt.county.ground.admin(attempt.county.name) as cursor:
            cursor.execute(damage + attempt.dice.choice(["", where]))
            return bool(cursor.rowcount)
        time.sleep(0.05)
    return False


def go_on(attempt: Attempt) -> bool:
    """Nothing: the condition around it is the fault."""
    attempt.stopped.let_go()
    return True


@contextlib.contextmanager
def _database(county: County, set_it: str, undo: str) -> Iterator[None]:
    county.sql(f"alter database {county.name} {set_it}")
    try:
        yield
    finally:
        county.sql(f"alter database {county.name} {undo}")


def _any_session(attempt: Attempt) -> int:
    rows: list[Any] = attempt.county.sql(
        "select pid from pg_stat_activity where datname = current_database() and application_name like 'hcad-pipeline%%' order by pid"
    )
    return int(attempt.dice.choice(rows)[0]) if rows else 0


def _read_only(county: County) -> contextlib.AbstractContextManager[None]:
    return _database(county, "set default_transaction_read_only = on", "reset default_transaction_read_only")


def _few_connections(county: County) -> contextlib.AbstractContextManager[None]:
    return _database(county, "connection limit 2", "connection limit -1")


@contextlib.contextmanager
def _no_temporary_files(county: County) -> Iterator[None]:
    with (
        _database(county, "set temp_file_limit = 0", "reset temp_file_limit"),
        _database(county, "set work_mem = '64kB'", "reset work_mem"),
    ):
        yield


FAULTS = (
    Fault("SIGKILL of everything", 54, kill_all, share=8),
    Fault("SIGKILL of one process", 51, kill_process, share=4),
    Fault("SIGKILL of Luigi", 51, kill_luigi, share=2),
    Fault("SIGKILL of the run alone", 63, kill_run, share=3),
    Fault("session terminated", 59, end_session, share=3),
    Fault("backend killed", 57, kill_session, share=2),
    Fault("immediate stop", 57, stop_server, share=2),
    Fault("postmaster killed", 57, kill_server, share=2),
    Fault("silent link", 58, silence, is_proxied=True),
    Fault("lock held", 60, hold_lock, share=2),
    Fault("two runs at once", 63, start_second, share=2),
    Fault("frozen and taken over", 63, freeze),
    Fault("checkpoint damaged", 71, damage_checkpoints, share=2),
    Fault("no temporary files", 64, go_on, around=_no_temporary_files),
    Fault("read-only database", 65, go_on, TRANSIENT | {40}, around=_read_only),
    Fault("connection limit", 68, go_on, around=_few_connections),
)
