"""How far a download is, how fast it goes and how long it will take.

A meter makes these out of the byte counts of the ``download.progress`` events: the rate is that of the last seconds, by a clock that nobody
can set, and a download that began anew begins its rate anew. Figures that are not known (no length stated, nothing received yet) are
None, never a guess. A small file a download lets another process show them; it is replaced whole, and nothing depends on it: whoever
writes it may go on when the disk does not take it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import DiskError

_UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


@dataclass(frozen=True)
class Progress:
    """One download at one moment: bytes here, bytes in all, bytes a second, seconds to go."""

    file: str
    bytes: int
    total: int | None
    rate_bytes_s: float | None
    eta_s: float | None

    @property
    def percent(self) -> int | None:
        """Whole percents, 0 to 100; None: the length is not known."""
        return None if not self.total else max(0, min(100, self.bytes * 100 // self.total))

    def __str__(self) -> str:
        text = f"{self.file}: {shown_bytes(self.bytes)}"
        if self.total:
            text += f" of {shown_bytes(self.total)} ({self.percent} %)"
        if self.rate_bytes_s is not None:
            text += f", {shown_bytes(self.rate_bytes_s)}/s"
        return text if self.eta_s is None else f"{text}, {shown_seconds(self.eta_s)} left"


class ProgressMeter:
    """Turns byte counts into progress.

    Args:
        file: the name to show.
        window_s: the seconds over which the rate is taken.
        clock: seconds, never going back.
    """

    def __init__(self, file: str, *, window_s: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._window_s, self._clock = file, window_s, clock
        self._seen: deque[tuple[float, int]] = deque()

    def feed(self, bytes_count: int, total: int | None) -> Progress:
        """Take a count of all bytes that are here, and the length where it is known."""
        now = self._clock()
        if self._seen and bytes_count < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, bytes_count))
        # The oldest kept is the last one outside of the window, so that the rate spans all of it.
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window_s:
            self._seen.popleft()
        (began, before), elapsed = self._seen[0], now - self._seen[0][0]
        rate = (bytes_count - before) / elapsed if elapsed > 0 and began < now else None
        left = None if total is None else max(0, total - bytes_count)
        return Progress(self._file, bytes_count, total, rate, left / rate if left is not None and rate else None)


def write_progress(folder: Path, key: str, progress: Progress) -> None:
    """Write a download's progress for another process; without the folder nobody wants it.

    Args:
        folder: see :func:`read_progress`.
        key: names the download in this folder; a plain file name.
        progress: what to show.

    Raises:
        DiskError: the disk is full, or the folder may not be written to.
    """
    part = folder / f".{key}.{os.getpid()}"
    try:
        part.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        part.replace(folder / f"{key}.json")
    except FileNotFoundError:
        return
    except OSError as error:
        with contextlib.suppress(OSError):  # What refused the write is told already.
            part.unlink(missing_ok=True)
        raise _disk_error(part, error) from error


def remove_progress(folder: Path, key: str) -> None:
    """The download is over.

    Raises:
        DiskError: the file cannot be removed.
    """
    try:
        (folder / f"{key}.json").unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(folder / f"{key}.json", error) from error


def _disk_error(path: Path, error: OSError) -> DiskError:
    return DiskError(f"{path} cannot be written: {error.strerror or error}", "a state folder that can be written", "mend the disk")


def read_progress(folder: Path) -> dict[str, Progress]:
    """The downloads that are going on, by key; one that ends meanwhile is left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Progress(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
    return found


def shown_bytes(count: float) -> str:
    """``211.9 MB``."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def shown_seconds(seconds: float) -> str:
    """``42 s``, ``3:05 min``, ``2:10:00 h``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"
