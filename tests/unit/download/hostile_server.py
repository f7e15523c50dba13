"""A real HTTP server on a free loopback port that answers as each test tells it to, down to the bytes on the socket.

A route is a function that gets the request and a raw writer; nothing is added to what it writes, so that a test can lie
about lengths, break off in the middle or say nothing at all.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    connection: socket.socket

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, status: str, headers: Mapping[str, str], body: bytes = b"", *, length: int | None = -1) -> None:
        """A whole answer. ``length``: -1 the true one, None none at all, else what is claimed."""
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
        if length is not None:
            lines.append(f"Content-Length: {len(body) if length == -1 else length}")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if self.method != "HEAD":
            self.send(body)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Route = Callable[[Request], None]

LAST_MODIFIED = "Sat, 26 Sep 2026 10:00:00 GMT"
LATER = "Sat, 26 Sep 2026 12:00:00 GMT"


@dataclass
class Faithful:
    """A route that serves one body as RFC 9110 wants it: conditions, ranges, 416.

    ``cuts`` says for each answer with a body after how many bytes of it the connection is closed (None, and when there are no
    more: not at all). ``sent`` counts the body bytes of all answers.
    """

    body: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = LAST_MODIFIED
    date: str | None = LATER
    cuts: Iterable[int | None] = ()
    states_length: bool = True
    sent: int = 0
    statuses: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cuts = iter(self.cuts)

    def validators(self) -> dict[str, str]:
        pairs = {"ETag": self.etag, "Last-Modified": self.last_modified, "Date": self.date, "Content-Type": "application/zip"}
        return {name: value for name, value in pairs.items() if value is not None}

    def __call__(self, request: Request) -> None:
        asked = request.headers
        matches = self.etag is not None and asked.get("if-none-match") == self.etag
        if matches or ("if-none-match" not in asked and self.last_modified and asked.get("if-modified-since") == self.last_modified):
            return self._send(request, "304 Not Modified", self.validators(), b"")
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))
        if not wanted or asked.get("if-range", self.etag) not in (self.etag, self.last_modified):
            return self._send(request, "200 OK", self.validators(), self.body)
        start, size = int(wanted[1]), len(self.body)
        if start >= size:
            headers = self.validators() | {"Content-Range": f"bytes */{size}"}
            return self._send(request, "416 Range Not Satisfiable", headers, b"")
        headers = self.validators() | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return self._send(request, "206 Partial Content", headers, self.body[start:])

    def _send(self, request: Request, status: str, headers: Mapping[str, str], body: bytes) -> None:
        self.statuses.append(int(status[:3]))
        cut = next(self._cuts, None) if body and request.method != "HEAD" else None
        kept = body if cut is None else body[:cut]
        request.answer(status, headers, kept, length=len(body) if self.states_length else None)
        self.sent += len(kept)


@dataclass
class HostileServer:
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def wrap(self, connection: socket.socket) -> socket.socket:
        """A subclass may put TLS around the connection."""
        return connection

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            connection = self.wrap(connection)
            received = b""
            while b"\r\n\r\n" not in received:
                more = connection.recv(65536)
                if not more:
                    return
                received += more
            first, *lines = received.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            request = Request(method, path, headers, connection)
            self.requests.append(request)
            self.routes[path.partition("?")[0]](request)
        except OSError:
            return  # The client went away, or refused our certificate: what a server sees every day.
        finally:
            connection.close()
