"""Limits that all downloading processes of this machine keep together: bytes a second, and downloads at once from one host.

Both live in small locked files in a folder that the processes share, so that they hold over Luigi's workers, their forks and a
program of the user's own alike, and end with a process however it ends. The bandwidth is a line on which every piece of a body is
given its time, one behind the other: the sum of all downloads is the figure, not each of them. A damaged or outdated file is
begun anew; it never stops a download.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pipeline.bandwidth import BandwidthPlan
from pipeline.errors import DiskError, DownloadError
from pipeline.handoff import OnEvent, ignore

#: A wait is cut into pieces of this length, after each of which the hour's rate is looked up again.
_PIECE_S = 0.25
#: Who comes up to so much too late catches up; a longer pause is idleness, and what was not used in it is gone.
_CATCH_UP_S = 0.5
#: A line that is booked further ahead than this was written by a clock that is no longer ours (the machine was started anew).
_MAX_AHEAD_S = 120.0
_POLL_S = (0.05, 0.25)
#: Who has waited for a place for so long says so: the others may be hung, or frozen on this machine.
_WAITS_LONG_S = 15.0
_FREE_FROM = struct.Struct("<d")


class SharedBandwidth:
    """A limit in bytes a second over everything that takes from the same file.

    Args:
        file: the shared file; its folder is made.
        plan: the rate by hour of the day, local time.
    """

    def __init__(self, file: Path, plan: BandwidthPlan) -> None:
        self._file, self._plan = file, plan
        with _disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)

    def take(self, bytes_count: int, *, left_s: float = math.inf) -> None:
        """Sleep until so many bytes are within the limit; call it for each chunk, after it was received.

        Args:
            bytes_count: received.
            left_s: the longest that may be slept; what is left of the bytes then stays unbooked, because their download is over.

        Raises:
            DiskError: the shared file cannot be written.
        """
        left, until = bytes_count, time.monotonic() + left_s
        while left > 0 and time.monotonic() < until:
            rate = self._plan.rate_at(datetime.now().astimezone().hour)
            if rate == 0:
                return
            piece = min(left, max(1, int(rate * _PIECE_S)))
            pause = self._book(piece / rate)
            if pause > 0:
                time.sleep(max(0.0, min(pause, until - time.monotonic())))
            left -= piece

    def _book(self, length_s: float) -> float:
        """Book the next ``length_s`` seconds of the line; returns how long to sleep until they are over."""
        with _disk_errors(self._file):
            # Opened each time: a descriptor that was inherited over a fork, or shared by threads, would not lock them from one another.
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                stored = os.pread(descriptor, _FREE_FROM.size, 0)
                now = time.monotonic()
                free_from = _FREE_FROM.unpack(stored)[0] if len(stored) == _FREE_FROM.size else now
                # Also refuses what is no number.
                if not now - _CATCH_UP_S <= free_from <= now + _MAX_AHEAD_S:
                    free_from = now
                until = free_from + length_s
                os.pwrite(descriptor, _FREE_FROM.pack(until), 0)
            finally:
                os.close(descriptor)
        return float(until - now)


class SharedSlots:
    """At most so many downloads at once from each host.

    Args:
        folder: where the lock files lie; it is made.
        per_host: downloads at once from one host, at least 1.
        wait_s: how long to wait for a slot.
        on_event: is told ``download.waiting`` (host, places, at_most_s), once, by whoever has waited for a quarter of a minute.
    """

    def __init__(self, folder: Path, per_host: int, wait_s: float, on_event: OnEvent = ignore) -> None:
        self._folder, self._per_host, self._wait_s, self._on_event = folder, per_host, wait_s, on_event
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def slot(self, host: str, *, left_s: float = math.inf) -> Iterator[None]:
        """Hold one of the host's slots; waits until one is free.

        Args:
            host: a name or an address, without a port: all ports of a host are one machine. Case does not matter.
            left_s: what the download has left; no wait is longer.

        Raises:
            DownloadError: none became free within ``wait_s`` and ``left_s``.
            DiskError: the lock files cannot be made.
        """
        descriptor = self._acquire(host, max(0.0, min(self._wait_s, left_s)))
        try:
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, host: str, wait_s: float) -> int:
        name = hashlib.sha256(host.lower().encode("utf-8")).hexdigest()[:16]
        began, is_told = time.monotonic(), False
        deadline = began + wait_s
        while True:
            for number in range(self._per_host):
                descriptor = self._try(self._folder / f"{name}-{number}.lock")
                if descriptor is not None:
                    return descriptor
            left_s = deadline - time.monotonic()
            if not is_told and time.monotonic() - began >= _WAITS_LONG_S:
                is_told = True
                self._on_event("download.waiting", {"host": host, "places": self._per_host, "at_most_s": round(wait_s)})
            if left_s <= 0:
                raise DownloadError(
                    f"all {self._per_host} downloads that {host} is asked for at once are still at work after {round(wait_s, 1):g} s",
                    "one of them to end",
                    "nothing: the next run tries again; [download] per_host allows more of them",
                )
            time.sleep(min(left_s, random.uniform(*_POLL_S)))  # noqa: S311  # no secret: keeps waiting processes out of step

    def _try(self, path: Path) -> int | None:
        with _disk_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}", "a state folder that can be written", "mend the disk; run again"
        ) from error
