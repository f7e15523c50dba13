"""The background services of a state folder: luigid and the sample server.

They outlive the command that started them, listen on 127.0.0.1 only, and are the same for every command that names the
same state folder: a second start finds the first one's service, also when both start at once. A service is noted in
``<state>/<name>/service.json`` with its number and the moment its process began, so that another program which has got
the same number is never taken for it, and never stopped. One that was killed, or answers no more, is started afresh, on
its old port where that is free, so that a URL printed once stays good. What it prints is in ``<state>/<name>/<name>.log``.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline import processes
from pipeline.errors import DiskError, SchedulerUnavailable, TransientError
from pipeline.handoff import read_json, write_json

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
#: A scheduler that is found but busy gets this long to answer before it is replaced.
_RECOVERY_S = 15.0
_HEALTH_TIMEOUT_S = 5.0
_HOST = "127.0.0.1"
_ATTEMPTS = 5
_LOG_TAIL = 2000


@dataclass(frozen=True)
class Service:
    """A running service: its name, process number, TCP port and URL (``http://127.0.0.1:<port>/``)."""

    name: str
    pid: int
    port: int
    url: str


@dataclass(frozen=True)
class _Kind:
    """How a service is started and asked whether it is well.

    ``command`` makes the command line for a port (0: the service chooses one and writes it to its port file).
    ``serves`` says what it serves: a running one that serves something else is replaced; None: never replaced for that.
    """

    name: str
    command: Callable[[int], list[str]]
    cwd: Path
    environment: Mapping[str, str]
    health: tuple[str, str, int]
    error: type[TransientError]
    port_file: Path | None = None
    serves: str | None = None


@dataclass(frozen=True)
class _Note:
    """What ``service.json`` holds. ``port`` is 0 while the service has not chosen one."""

    name: str
    pid: int
    started: str | None
    port: int
    serves: str | None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        try:
            return cls(**read_json(folder / "service.json"))
        except FileNotFoundError:
            return None

    @property
    def is_alive(self) -> bool:
        return self.started is not None and processes.started_at(self.pid) == self.started

    @property
    def service(self) -> Service:
        return Service(self.name, self.pid, self.port, f"http://{_HOST}:{self.port}/")


def start_luigid(state: Path, *, config: Path, python: str = sys.executable) -> Service:
    """Find the scheduler of a state folder, or start it; it needs no ``luigid`` on PATH.

    Args:
        state: the state folder; the scheduler's own state is kept in ``luigid/state.pickle`` below it.
        config: the ``luigi.cfg`` that it reads. Relative paths in it are relative to the folder above the file's own.
        python: the interpreter that has luigi.

    Raises:
        SchedulerUnavailable: it did not start; the message ends with its log.
        DiskError: the state folder cannot be written.
    """
    state, config = state.absolute(), config.absolute()
    pickle = state / "luigid" / "state.pickle"
    program = [python, "-c", "from luigi.cmdline import luigid; luigid()"]
    kind = _Kind(
        name="luigid",
        command=lambda port: [*program, "--address", _HOST, "--port", str(port), "--state-path", str(pickle)],
        cwd=config.parent.parent,
        environment={"LUIGI_CONFIG_PATH": str(config)},
        health=("HEAD", "/", 204),
        error=SchedulerUnavailable,
    )
    return _start(state, kind)


def start_sample_server(state: Path, *, root: Path, script: Path) -> Service:
    """Find the server of the sample bundle, or start it.

    Args:
        state: the state folder.
        root: the folder it serves. A running one that serves another folder is stopped and started afresh.
        script: ``scripts/sample_server.py``.

    Raises:
        TransientError: it did not start; the message ends with its log.
        DiskError: the state folder cannot be written.
    """
    state, root, script = state.absolute(), root.absolute(), script.absolute()
    port_file = state / "sample-server" / "port"
    program = [sys.executable, str(script), "--root", str(root), "--port-file", str(port_file), "--port"]
    kind = _Kind(
        name="sample-server",
        command=lambda port: [*program, str(port)],
        cwd=script.parent,
        environment={},
        health=("GET", "/-/health", 200),
        error=TransientError,
        port_file=port_file,
        serves=str(root),
    )
    return _start(state, kind)


def running(state: Path) -> list[Service]:
    """The services of a state folder that run, by name."""
    notes = (_Note.read(note.parent) for note in sorted(state.absolute().glob("*/service.json")))
    return [note.service for note in notes if note and note.is_alive]


def stop_all(state: Path) -> list[Service]:
    """Stop the services of a state folder: ask, wait 10 s, then kill. Only a process that is really ours is touched.

    Returns:
        Those that ran.

    Raises:
        TransientError: one is still there after being killed.
    """
    stopped = []
    for folder in sorted(note.parent for note in state.absolute().glob("*/service.json")):
        with _alone(folder):
            note = _Note.read(folder)
            if note and note.is_alive:
                _stop(note)
                stopped.append(note.service)
    return stopped


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time starts or stops a service. The lock dies with its owner."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "start-stop.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise DiskError(f"{folder}: {error}", "a state folder that can be written", "set its permissions right") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _start(state: Path, kind: _Kind) -> Service:
    folder = state / kind.name
    with _alone(folder):
        note = _Note.read(folder)
        if note and note.is_alive:
            if kind.serves == note.serves and (found := _wait(note, kind, folder, _RECOVERY_S)):
                return found.service
            _stop(note)
        log = folder / f"{kind.name}.log"
        for attempt in range(_ATTEMPTS):
            # The port that was used before first; another program may have it by now, or take it before we do.
            old = note.port if note and attempt == 0 else 0
            begun = _launch(kind, folder, log, old)
            if found := _wait(begun, kind, folder, START_TIMEOUT_S):
                return found.service
            if begun.is_alive:
                _stop(begun)
            if "address already in use" not in _tail(log).lower():
                break
        raise kind.error(
            f"{kind.name} did not start. The end of {log}: {_tail(log)}",
            f"an answer on {_HOST} within {START_TIMEOUT_S:.0f} s",
            "mend what the log names, then run again",
        )


def _launch(kind: _Kind, folder: Path, log: Path, port: int) -> _Note:
    if kind.port_file:
        kind.port_file.unlink(missing_ok=True)
    else:
        port = port or _free_port()
    environment = {**os.environ, **kind.environment, "PYTHONUNBUFFERED": "1"}
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with open(log, "wb") as out:
        pid = processes.start_detached(kind.command(port), log=out, env=environment, cwd=kind.cwd)
    note = _Note(kind.name, pid, processes.started_at(pid), port, kind.serves)
    # Noted before it answers: if we are killed now, the next start finds this one instead of adding a second.
    write_json(folder / "service.json", note)
    return note


def _wait(note: _Note, kind: _Kind, folder: Path, timeout_s: float) -> _Note | None:
    """Wait until a service that was launched answers; None when it ended, or time did."""
    deadline = time.monotonic() + timeout_s
    while note.is_alive and time.monotonic() < deadline:
        if kind.port_file and kind.port_file.exists() and (chosen := kind.port_file.read_text().strip()):
            note = _Note(note.name, note.pid, note.started, int(chosen), note.serves)
        if note.port and _answers(note, kind):
            write_json(folder / "service.json", note)
            return note
        time.sleep(0.05)
    return None


def _answers(note: _Note, kind: _Kind) -> bool:
    """Whether this very process answers as it should, not another that took the port before it."""
    method, path, expected = kind.health
    with closing(http.client.HTTPConnection(_HOST, note.port, timeout=_HEALTH_TIMEOUT_S)) as connection:
        try:
            connection.request(method, path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
    return status == expected and processes.listens_on(note.pid, note.port)


def _stop(note: _Note) -> None:
    signals = ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S))
    if not processes.stop(note.pid, note.started or "", signals):
        raise TransientError(
            f"{note.name} (process {note.pid}) is still there {STOP_TIMEOUT_S:.0f} s after it was killed",
            "its end",
            "look at what it waits for: a disk or network mount that does not answer",
        )


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_TAIL:].strip() if log.exists() else ""
