"""Background processes: start one that outlives us, and know it again later.

A process number alone proves nothing, because the system gives it out again. Here a process is known by its number and
the moment at which it started (``started_at``), or by its command line. A process that is dead but not yet collected by
its parent (a zombie) counts as gone. On Linux all is read from ``/proc``; elsewhere ``ps`` is asked. Nothing here waits
for a child: what is started belongs to the system's first process, as a daemon's should.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_PROC = Path("/proc")
_LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Account:
    """A system user under whom a program is started by root."""

    uid: int
    gid: int

    def popen_arguments(self) -> dict[str, Any]:
        """The arguments of :class:`subprocess.Popen` that make a program run as this user, in no group but its own."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def start_detached(
    command: Sequence[str], *, log: IO[bytes], env: Mapping[str, str], cwd: Path, account: Account | None = None
) -> int:
    """Start a program that stays when we end.

    It has a session of its own (a Ctrl-C at our terminal is not for it), reads nothing, and writes both outputs to
    ``log``. A program that cannot be executed shows as a process that is gone at once, with the reason in the log.

    Args:
        command: the program's path and its arguments.
        log: an open file for its standard output and error.
        env: its whole environment.
        cwd: its working directory.
        account: the user it runs as; only root may give one.

    Returns:
        Its process number.
    """
    # The shell between makes it nobody's child: no zombie stays behind in a process that started it and lives on.
    script = 'exec "$@" </dev/null >&2 & echo $!'
    shell = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
        check=True,
        text=True,
        **(account.popen_arguments() if account else {}),
    )
    return int(shell.stdout)


def started_at(pid: int) -> str | None:
    """When a process started, in the system's own terms: a second process never has the same number and answer.

    Returns:
        An opaque text, or None when there is no such process, or only a zombie.
    """
    if _LINUX:
        try:
            # The program's name stands in brackets and may itself hold spaces and brackets.
            fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in ("Z", "X") else f"{boot}:{fields[19]}"
    state, _, start = _ps(pid, "stat=,lstart=").strip().partition(" ")
    return None if not state or state.startswith("Z") else start.strip()


def command_line(pid: int) -> str:
    """The program and arguments of a process, joined by blanks; empty when there is no such process, or only a zombie."""
    if _LINUX:
        try:
            raw = (_PROC / str(pid) / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))
    return "" if started_at(pid) is None else _ps(pid, "command=").strip()


def listens_on(pid: int, port: int) -> bool:
    """Whether it is this process that listens on a TCP port of 127.0.0.1 (where that cannot be told: True)."""
    if not _LINUX:
        return True
    wanted = f"0100007F:{port:04X}" if sys.byteorder == "little" else f"7F000001:{port:04X}"
    try:
        rows = [line.split() for line in (_PROC / str(pid) / "net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == wanted and row[3] == "0A"}
        return any(str(handle.readlink()) in sockets for handle in (_PROC / str(pid) / "fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        # The process, or one of its files, went away while we looked: the caller asks again.
        return False


def stop(pid: int, mark: str, signals: Sequence[tuple[signal.Signals, float]]) -> bool:
    """End a process, politely first.

    Args:
        pid: its number.
        mark: what :func:`started_at` gave for it; a process with another mark is somebody else's and is left alone.
        signals: what to send, in turn, each with the seconds to wait for the end after it.

    Returns:
        Whether it is gone.
    """
    for number, wait_s in signals:
        deadline = time.monotonic() + wait_s
        if started_at(pid) != mark:
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        while time.monotonic() < deadline:
            if started_at(pid) != mark:
                return True
            time.sleep(0.02)
    return started_at(pid) != mark


def _ps(pid: int, columns: str) -> str:
    done = subprocess.run(
        ["/bin/ps", "-ww", "-p", str(pid), "-o", columns],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
        check=False,
    )
    return done.stdout
