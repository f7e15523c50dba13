"""A link that has gone silent: the transaction that waits on it is ended, instead of waiting for ever.

Keepalives find a dead host, and not a proxy, a tunnel or a pooler that holds both ends open and passes nothing on: then even the
server's own time-outs do not reach us. So while a transaction runs, a thread of its own asks from time to time on a second
connection whether the server answers and still knows of the first. A server that answers "too many connections" is there. Where
nobody answers in time, or the session is gone, the first connection's socket is shut, and whoever waits on it is told.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import make_dsn

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

#: How much longer than the interval an answer may take: a busy server is slow to make a session.
PATIENCE = 1.5
_STEP_S = 0.1


@contextmanager
def watched(connection: Connection, every_s: float) -> Iterator[None]:
    """Shut a connection's socket when the server does not know of it any more, or is silent.

    Args:
        connection: one that is used in the block.
        every_s: seconds between two questions; an answer may take 1.5 times as long. 0: nobody asks.
    """
    if not every_s:
        yield
        return
    is_done = threading.Event()
    # The socket's other handle: it stays ours when the connection is closed and its number is given out again.
    with closing(socket.socket(fileno=os.dup(connection.fileno()))) as link:
        watch = threading.Thread(target=_watch, args=(connection, link, every_s, is_done), daemon=True, name="database-link")
        watch.start()
        try:
            yield
        finally:
            is_done.set()
            watch.join()


def _watch(connection: Connection, link: socket.socket, every_s: float, is_done: threading.Event) -> None:
    # Most transactions are over by then, and pay for nothing more than a thread that sleeps.
    if is_done.wait(every_s):
        return
    try:
        info = connection.info
        where, pid = make_dsn(**{**info.dsn_parameters, "password": info.password, "options": ""}), info.backend_pid
    except psycopg2.Error:
        return  # it is closed, and whoever waited has been told
    while True:
        if not _is_known(where, pid, PATIENCE * every_s, is_done) and not is_done.is_set():
            with suppress(OSError):  # it may be gone by now
                link.shutdown(socket.SHUT_RDWR)
            return
        if is_done.wait(every_s):
            return


def _is_known(where: str, pid: int, timeout_s: float, is_done: threading.Event) -> bool:
    patience = _Patience(timeout_s, is_done)
    try:
        with closing(psycopg2.connect(where, async_=1)) as other:
            patience.until_ready(other)
            with other.cursor() as cursor:
                cursor.execute("select exists (select 1 from pg_stat_activity where pid = %s)", [pid])
                patience.until_ready(other)
                return bool((cursor.fetchone() or (False,))[0])
    except TimeoutError:
        return False
    except psycopg2.Error as error:
        # It answered, be it with a refusal; of one that refuses the link itself, the first connection hears by itself.
        return "timeout expired" not in str(error)


class _Patience:
    """How long the server is still waited for: only the time that we were there to hear it.

    A machine that is paused or asleep, or too busy to run us, comes back to a clock that is far ahead and to a server that has answered
    long ago: such a gap counts as one step.
    """

    def __init__(self, seconds: float, is_done: threading.Event) -> None:
        self._left_s, self._is_done = seconds, is_done

    def until_ready(self, connection: Connection) -> None:
        """Wait for an asynchronous connection, in short steps so that the block's end does not wait for us.

        Raises:
            TimeoutError: the patience is at its end, or the block is.
        """
        while (state := connection.poll()) != extensions.POLL_OK:
            if self._is_done.is_set() or self._left_s <= 0:
                raise TimeoutError
            reads, writes = ([connection], []) if state == extensions.POLL_READ else ([], [connection])
            began = time.monotonic()
            select.select(reads, writes, [], _STEP_S)
            self._left_s -= min(time.monotonic() - began, _STEP_S)
