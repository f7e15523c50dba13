"""Ends a connection that takes too long, whatever it is doing meanwhile.

A socket's own time-out counts from byte to byte: a peer that drips its headers, or the line before a chunk, one byte at a
time never meets it. The watchdog shuts the connection from outside when the time allowed is over; whoever reads it then
meets its end at once, and ``has_cut`` says why.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_LOOK_EVERY_S = 0.2


class Watchdog:
    """Watches the newest connection of one download, from a thread that ends with :meth:`close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._cut_at: float | None = None
        self._is_over = False
        self._thread: threading.Thread | None = None
        self.has_cut = False

    def close(self) -> None:
        """Let go, and end the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self.release()

    def watch(self, connection: socket.socket) -> None:
        """Take this connection from now on, in place of the one before."""
        self.release()
        with self._changed:
            # A descriptor of our own: wrapping a socket in TLS takes the first one away from its object.
            self._connection = connection.dup()
            if self.has_cut:
                _shut(self._connection)

    def release(self) -> None:
        """Let go of the connection; the peer sees its end once the other holder closes it, too."""
        with self._changed:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Cut the connection if the block takes longer than this."""
        with self._changed:
            self.has_cut = False
            self._cut_at = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._stand_guard, name="download-watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._cut_at = None

    def _stand_guard(self) -> None:
        with self._changed:
            while not self._is_over:
                left_s = _LOOK_EVERY_S if self._cut_at is None else self._cut_at - time.monotonic()
                if left_s <= 0:
                    self.has_cut, self._cut_at = True, None
                    if self._connection is not None:
                        _shut(self._connection)
                else:
                    # Not woken by every chunk that is read: that would cost more than looking now and then.
                    self._changed.wait(min(left_s, _LOOK_EVERY_S))


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # It ended by itself in the meantime.
        connection.shutdown(socket.SHUT_RDWR)
