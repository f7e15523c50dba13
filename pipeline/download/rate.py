"""How slow a peer may be.

A floor in bytes a second, judged over windows of time spent waiting for the peer: a server that sends a byte now and then
to keep the connection open is given up, one that pauses and catches up is not.
"""

from __future__ import annotations

from pipeline.download.redact import redact
from pipeline.errors import DownloadError


class RateFloor:
    """Counts what came in the current window.

    Args:
        bytes_per_s: what must come on the average of every window; 0: anything goes.
        window_s: its length in seconds.
    """

    def __init__(self, bytes_per_s: float, window_s: float) -> None:
        self.window_s = window_s
        self._bytes_per_s = bytes_per_s
        self._bytes, self._waited_s = 0, 0.0

    def count(self, bytes_count: int, waited_s: float, url: str) -> None:
        """Take note of bytes that came after so many seconds of waiting.

        Raises:
            DownloadError: a window is over, and too little came in it.
        """
        self._bytes += bytes_count
        self._waited_s += waited_s
        if self._waited_s < self.window_s:
            return
        if self._bytes < self._bytes_per_s * self._waited_s:
            raise DownloadError(
                f"{redact(url)} brought {self._bytes} bytes in {self._waited_s:.0f} s",
                f"{self._bytes_per_s:g} bytes a second at least",
                "nothing if it passes; else lower the minimum rate, or tell the publisher",
            )
        self._bytes, self._waited_s = 0, 0.0
