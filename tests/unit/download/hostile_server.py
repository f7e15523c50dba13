"""A real HTTP server on a free loopback port that answers as each test tells it to, down to the bytes on the socket.

A route is a function that gets the request and a raw writer; nothing is added to what it writes, so that a test can lie
about lengths, break off in the middle or say nothing at all.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
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
