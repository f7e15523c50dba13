"""Processes of the pipeline, forked from a parent that has imported everything, with places at which they stop and say so.

:class:`Process` runs ``hcad-pipeline ...`` or ``luigi ...`` in a fork; the luigi that a run starts is a fork of the run, in a session
of its own as always. Nothing of what is done there is other than in a fresh process, but that Python and the imports are paid once.
In each of them psycopg2's connections and the renames of files are counted, and where a :class:`Place` is reached that somebody waits
for, the process writes a line into a pipe and goes on when it is given a byte, or never. So a fault hits a statement, a COPY under
way or the moment between a commit and what follows it, and not a moment on the clock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psycopg2
from psycopg2 import extensions

#: What a place can be before or after of; ``copy`` is a COPY that has sent something.
KINDS = ("start", "end", "statement", "copy", "commit", "committed", "rename", "renamed")

#: Has a process write where each of its threads is.
TELL = signal.SIGUSR2


@dataclass(frozen=True)
class Place:
    """The ``number``-th event of a kind in a process: of the run (``run``), of Luigi itself (``luigi``) or of a task."""

    process: str
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of {self.process}"


@dataclass(frozen=True)
class Stopped:
    """A process that stands at its place. ``backend`` is its session's, 0 where it has none; ``group`` is Luigi's own number."""

    place: Place
    pid: int
    group: int
    backend: int
    _go: int = field(repr=False, default=-1)

    def let_go(self) -> None:
        """Have it go on, if it is still there."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"!")


class Tracer:
    """Counts the events of this process and its forks, and stops at one of them, or writes each into a file."""

    def __init__(self, wanted: Place | None, pipe: int, go: int, record: Path | None) -> None:
        self.process, self.wanted, self._pipe, self._go, self._record = "run", wanted, pipe, go, record
        self._counts: Counter[str] = Counter()

    def enter(self, process: str) -> None:
        """This process is another one from here on."""
        self.process = process
        self._counts.clear()

    def reach(self, kind: str, backend: int = 0) -> None:
        """An event."""
        self._counts[kind] += 1
        place = Place(self.process, kind, self._counts[kind])
        if self._record is not None:
            with open(self._record, "a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(place)) + "\n")
        if place == self.wanted:
            said = asdict(place) | {"pid": os.getpid(), "group": os.getpgrp(), "backend": backend}
            with contextlib.suppress(BrokenPipeError):  # an orphan, of whom nobody waits for anything any more
                os.write(self._pipe, json.dumps(said).encode() + b"\n")
                os.read(self._go, 1)


class _Copied:
    """A COPY's file, of which each piece after the first is an event."""

    def __init__(self, file: Any, tell: Callable[[], None]) -> None:
        self._file, self._tell, self._sent = file, tell, False

    def read(self, size: int = -1) -> Any:
        if self._sent:
            self._tell()
        self._sent = True
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def traced_connect(reach: Callable[[str, int], None]) -> Callable[..., Any]:
    """``psycopg2.connect`` whose connections tell of their statements, COPYs and commits, each with the session's number."""

    class Cursor(extensions.cursor):
        def execute(self, *arguments: Any, **named: Any) -> Any:
            reach("statement", self.connection.info.backend_pid)
            return super().execute(*arguments, **named)

        def copy_expert(self, statement: Any, file: Any, *rest: Any, **named: Any) -> Any:
            backend = self.connection.info.backend_pid
            if hasattr(file, "read"):
                file = _Copied(file, lambda: reach("copy", backend))
            return super().copy_expert(statement, file, *rest, **named)

    class Connection(extensions.connection):
        def cursor(self, *arguments: Any, **named: Any) -> Any:
            return super().cursor(*arguments, **({"cursor_factory": Cursor} | named))

        def commit(self) -> None:
            reach("commit", self.info.backend_pid)
            super().commit()
            reach("committed", self.info.backend_pid)

    plain = psycopg2.connect

    def connect(*arguments: Any, **named: Any) -> Any:
        return plain(*arguments, **(named if named.get("async_") else {"connection_factory": Connection} | named))

    return connect


def _trace_files(tracer: Tracer) -> None:
    def traced(plain: Callable[..., None]) -> Callable[..., None]:
        def rename(*arguments: Any, **named: Any) -> None:
            tracer.reach("rename")
            plain(*arguments, **named)
            tracer.reach("renamed")

        return rename

    os.replace, os.rename = traced(os.replace), traced(os.rename)


def _trace_tasks(tracer: Tracer) -> None:
    import luigi

    def begins(task: Any) -> None:
        named = [str(getattr(task, name)) for name in ("table", "archive", "part") if hasattr(task, name)]
        tracer.enter(" ".join([task.get_task_family(), *named]))
        tracer.reach("start")

    luigi.Task.event_handler(luigi.Event.START)(begins)
    luigi.Task.event_handler(luigi.Event.SUCCESS)(lambda _: tracer.reach("end"))


class _Forked:
    """What the runner needs of ``subprocess.Popen``: Luigi as a fork of this process, in a session of its own, without our descriptors."""

    def __init__(self, tracer: Tracer, keep: Sequence[int], arguments: Sequence[str], *, env: Mapping[str, str], stdout: Any, **_: Any):
        self.returncode: int | None = None
        log = stdout.fileno()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number in (1, 2):
                os.dup2(log, number)
            _close_all_but(keep)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env)
            _work(tracer, ["luigi", *arguments[3:]])

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("luigi", timeout or 0)
            time.sleep(0.005)
        return code


def _close_all_but(keep: Sequence[int]) -> None:
    for low, high in zip([2, *sorted(keep)], [*sorted(keep), 65_536], strict=True):
        os.closerange(low + 1, high)


def _work(tracer: Tracer, command: Sequence[str]) -> NoReturn:
    """Be that command, and end as it does; nothing of what the parent would do at its end is done here."""
    code: Any = 70
    # Into the command's output, when it hangs: where each of its threads is. The forks of this process inherit it.
    faulthandler.register(TELL, all_threads=True, chain=False)
    try:
        from pipeline import cli, settings
        from pipeline.database.server import open_database

        for cached in (settings.process_settings, settings.process_sources, open_database):
            cached.cache_clear()
        sys.argv = list(command)
        if command[0] == "luigi":
            import luigi.retcodes

            tracer.enter("luigi")
            luigi.retcodes.run_with_retcodes(sys.argv[1:])
        else:
            cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class Process:
    """A command at work, and the pipe by which it says that it has reached its place."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, stop_at: Place | None = None, record: Path | None = None
    ):
        pipe_in, pipe_out = os.pipe()
        go_in, go_out = os.pipe()
        self._said, self._go, self._rest = pipe_in, go_out, b""
        self.command, self.log, self.code = list(command), log, None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            for number in (1, 2):
                os.dup2(out, number)
            keep = (pipe_out, go_in)
            _close_all_but(keep)
            os.environ.update(environment)
            tracer = Tracer(stop_at, pipe_out, go_in, record)
            psycopg2.connect = traced_connect(tracer.reach)
            _trace_files(tracer)
            _trace_tasks(tracer)
            from pipeline import runner

            def popen(arguments: Sequence[str], **named: Any) -> _Forked:
                return _Forked(tracer, keep, arguments, **named)

            runner.subprocess = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
            _work(tracer, command)
        os.close(pipe_out)
        os.close(go_in)

    code: int | None

    def stopped(self, timeout_s: float) -> Stopped | None:
        """The next process that stands at its place; None: the command ended, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._said], [], [], 0.01)
            if ready:
                taken = os.read(self._said, 65_536)
                if not taken:  # the last process of the command is gone
                    return None
                self._rest += taken
            elif self.poll() is not None or time.monotonic() > deadline:
                return None
        line, _, self._rest = self._rest.partition(b"\n")
        said = json.loads(line)
        place = Place(said["process"], said["kind"], said["number"])
        return Stopped(place, said["pid"], said["group"], said["backend"], self._go)

    def poll(self) -> int | None:
        """The exit code, when it has ended; negative: the signal."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None: it has not ended in time."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            # Whoever else reaches the same place, in another attempt at the task, goes on.
            again = self.stopped(0.02)
            if again is not None:
                again.let_go()
        return self.code

    def close(self) -> None:
        """Let go of the pipes."""
        os.close(self._said)
        os.close(self._go)
