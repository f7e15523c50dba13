"""The living processes of a group or below a process, how a whole command is killed, and how to wait for what comes about."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

#: Fields of /proc/<pid>/stat after the program's name.
_STATE, _PARENT, _GROUP = range(3)


def group_members(group: int) -> list[int]:
    """The living processes of a process group."""
    return _living(_GROUP, group)


def children(pid: int) -> list[int]:
    """The living child processes of a process."""
    return _living(_PARENT, pid)


def _living(field: int, number: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[field]) == number and fields[_STATE] not in "ZX":
            found.append(int(path.parent.name))
    return found


def gone(group: int) -> None:
    """Nothing of a process group is left; what was killed needs a moment."""
    wait_until(lambda: not group_members(group))


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a command's whole process group, and to the group of the luigi that `hcad-pipeline run` started."""
    inner = children(process.pid)
    for group in (process.pid, *inner):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def wait_until(question: Any, timeout_s: float = 300.0, every_s: float = 0.05) -> Any:
    """Ask until the answer is true; the answer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s: {re.sub(chr(10), ' ', str(question))}")
