"""What the suites measure with: both sides in turns, processes of their own, processor seconds, peak memory.

A :class:`Worker` is a process that imports what it needs, says so, and works when it is asked: neither the start of Python nor the
imports are in a figure, and its peak memory is that of nobody else. What it reports goes over its standard output as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
PATHS = [str(SCRIPTS), str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
#: Numerical libraries read these at their start.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(number: int, ours: Callable[[int], object], floor: Callable[[int], object], times: int = 1) -> tuple[float, float]:
    """Seconds of both sides in all; each is called with 0, 1, ... ``times`` - 1, in turns, and each second turn begins with the floor."""
    ours_s = floor_s = 0.0
    for turn in range(times):
        if (number + turn) % 2 == 0:
            ours_s += seconds(partial(ours, turn))
            floor_s += seconds(partial(floor, turn))
        else:
            floor_s += seconds(partial(floor, turn))
            ours_s += seconds(partial(ours, turn))
    return ours_s, floor_s


class Worker:
    """A process that has imported what it needs and does its work once, when asked.

    Args:
        script: the Python file to run; it must call :func:`serve`.
        arguments: its command line.
        environment: variables besides our own.
    """

    def __init__(self, script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            env={**ENVIRONMENT, **(environment or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Worker:
        """Wait until it is ready."""
        self._expect("ready")
        return self

    def __exit__(self, *ended: object) -> None:
        """See it end; one that was not asked to work ends when its input does."""
        self._process.communicate()

    def start(self) -> None:
        """Let it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, float]:
        """Wait for its end; returns what it measured.

        Raises:
            RuntimeError: it failed; what it said is on standard error.
        """
        return dict(json.loads(self._expect("done")))

    def run(self) -> dict[str, float]:
        """Let it work, and wait."""
        self.start()
        return self.result()

    def _expect(self, word: str) -> str:
        assert self._process.stdout is not None
        said, _, rest = self._process.stdout.readline().partition(" ")
        if said.strip() != word:
            raise RuntimeError(f"the measured process did not say {word!r} but {said!r}, and ended with {self._process.wait()}")
        return rest


def serve(work: Callable[[], Mapping[str, float]]) -> None:
    """The measured process' side of :class:`Worker`: say that all is imported, wait, work, report."""
    print("ready", flush=True)
    if sys.stdin.readline():
        print("done", json.dumps(dict(work())), flush=True)


def cpu_s() -> float:
    """Processor seconds of this process so far, user and system, all of its threads."""
    return time.process_time()


def peak_mb() -> float:
    """Peak resident memory of this process so far, MB: Linux' VmHWM, because ru_maxrss starts at the parent's peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
