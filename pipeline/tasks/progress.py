"""What a download tells while it runs: to luigid, to the terminal of the run, else to the log.

luigid gets a sentence and a percentage in turn, at most one call a second, because each is a request of its own. The log gets a line
every ten seconds where no terminal shows the download. Nothing that goes wrong here is the download's business: when luigid does not
take a message it is left alone until the task ends, and what the disk does not take for the terminal is counted in ``download.not_shown``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import luigi
from luigi.rpc import RPCError

from pipeline.download.progress import Progress, ProgressMeter, remove_progress, write_progress
from pipeline.errors import DiskError
from pipeline.observe.events import log_event

LUIGI_EVERY_S = 1.0
LOG_EVERY_S = 10.0


class DownloadTold:
    """Takes the events of one download: a callback for the download stage.

    Args:
        task: gives the sentence and the percentage to luigid.
        file: the archive's name.
        folder: where a run shows progress from; without this folder nobody looks.
        clock: seconds, never going back.
    """

    def __init__(self, task: luigi.Task, file: str, folder: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._task, self._folder, self._key, self._clock = task, folder, file, clock
        self._meter = ProgressMeter(file, clock=clock)
        self._told_luigi_at = self._logged_at = clock()
        self._says_percent = True
        self._is_heard = True
        self._not_shown, self._why = 0, ""

    def __call__(self, event: str, figures: Mapping[str, Any]) -> None:
        """Take an event; all but progress go to the log as they are."""
        if event != "download.progress":
            log_event(event, figures)
            return
        progress, now = self._meter.feed(figures["bytes"], figures["total"]), self._clock()
        is_shown = self._folder is not None and self._folder.is_dir()
        if self._folder is not None and is_shown:
            try:
                write_progress(self._folder, self._key, progress)
            except DiskError as error:
                self._not_shown, self._why = self._not_shown + 1, str(error)
        if not is_shown and now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log_event(event, {**figures, "rate_bytes_s": _rounded(progress.rate_bytes_s), "eta_s": _rounded(progress.eta_s)})
        if now - self._told_luigi_at >= LUIGI_EVERY_S:
            self._told_luigi_at = now
            self._tell_luigi(progress)

    def close(self) -> None:
        """The download is over, well or not."""
        if self._folder is not None:
            try:
                remove_progress(self._folder, self._key)
            except DiskError as error:
                self._not_shown, self._why = self._not_shown + 1, str(error)
        if self._not_shown:
            log_event("download.not_shown", {"file": self._key, "times": self._not_shown, "error": self._why})

    def _tell_luigi(self, progress: Progress) -> None:
        """Send the sentence or, every other time, the percentage where there is one."""
        self._says_percent = not self._says_percent and progress.percent is not None
        tell = self._task.set_progress_percentage if self._says_percent else self._task.set_status_message
        # Luigi gives a task these only while it runs.
        if tell is None or not self._is_heard:
            return
        try:
            tell(progress.percent if self._says_percent else str(progress))
        except RPCError as error:
            self._is_heard = False
            log_event("download.not_told", {"error": str(error)})


def _rounded(figure: float | None) -> int | None:
    return None if figure is None else round(figure)
