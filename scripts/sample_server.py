#!/usr/bin/env python3
"""Serve a folder over HTTP/1.1, read-only, the way a district's download host does: ranges and validators included.

HEAD and GET of regular files below the root, and nothing else: no listing, no way out by `..`, by encoding or by a symbolic link.
A body is always of one version of the file: size, dates, SHA-256 and bytes come from one open descriptor, so a file replaced by
rename while it is being sent changes only the next answer. The ETag is strong, made from the SHA-256 of the content; `Range` with
one range, `If-Range`, `If-Match`, `If-None-Match` and the two date conditions follow RFC 9110. `GET /-/health` answers 200. Each
request gives one line, `METHOD path status bytes`, which stands in the log before the client can have read the whole answer.
SIGTERM ends the program at once with exit code 0. Needs nothing but Python's standard library; a test may call `make_server` and
run it in a thread.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import socket
import socketserver
import stat
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

CHUNK_BYTES = 256 * 1024
IDLE_TIMEOUT_S = 60.0
HEALTH = "/-/health"
CONTENT_TYPES = {".zip": "application/zip", ".txt": "text/plain", ".csv": "text/csv", ".json": "application/json"}
ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True)
class Version:
    """One version of a file, as its open descriptor shows it.

    Attributes:
        size: bytes.
        modified_s: whole seconds since 1970, UTC.
        etag: strong entity tag, with its quotes.
    """

    size: int
    modified_s: int
    etag: str

    @property
    def last_modified(self) -> str:
        """The date in HTTP's form."""
        return formatdate(self.modified_s, usegmt=True)


class SampleServer(ThreadingHTTPServer):
    """The server: one thread a connection, the root, the log and the hashes already taken."""

    daemon_threads = True
    # Some Python releases turn this on for HTTP servers: two of them would then share a port without a word.
    allow_reuse_port = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[SampleHandler], root: Path, log_fd: int) -> None:
        """Bind and listen.

        Args:
            address: host and port; port 0 takes a free one.
            handler: the request handler.
            root: an existing folder.
            log_fd: descriptor to which request lines are written; the caller's to close.

        Raises:
            NotADirectoryError: root is no folder.
            OSError: the address cannot be bound.
        """
        self.root = root.resolve()
        if not self.root.is_dir():
            raise NotADirectoryError(f"the root {self.root} is not a folder")
        self._log_fd = log_fd
        self._digests: dict[tuple[str, int, int, int, int, int], str] = {}
        self._digests_lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, as the parent class does: that can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Report what went wrong in a connection, unless the client merely hung up."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def write_log(self, line: str) -> None:
        """Append one line by one write, so that lines of several threads never mix and none waits in a buffer.

        Control characters are escaped: a request cannot forge a second line.
        """
        os.write(self._log_fd, line.encode("unicode_escape") + b"\n")

    def version(self, path: Path, descriptor: int) -> Version:
        """Describe the open file, hashing it unless this very version was hashed before.

        Args:
            path: below the root, for the cache's key.
            descriptor: the open file; its position is not used.

        Raises:
            OSError: reading failed.
        """
        while True:
            before = os.fstat(descriptor)
            key = (str(path), before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
            with self._digests_lock:
                if key not in self._digests:
                    digest, after = sha256_of(descriptor), os.fstat(descriptor)
                    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                        continue  # written to in place while being read: the hash belongs to no version
                    self._digests[key] = digest
                return Version(before.st_size, int(before.st_mtime), f'"{self._digests[key]}"')


class SampleHandler(BaseHTTPRequestHandler):
    """Answers one connection. A test injects faults by overriding `answer`, `validators` or `write_body`."""

    server: SampleServer
    protocol_version = "HTTP/1.1"
    server_version = "sample-server"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S
    # Headers and body are two writes: with Nagle's algorithm the second waits for the client's delayed ACK, 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer GET."""
        self.answer()

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        self.answer()

    def answer(self) -> None:
        """Answer the request at hand."""
        if "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # its body is not read, and must not be taken for the next request
        if self.path == HEALTH:
            self.respond_text(HTTPStatus.OK)
            return
        path = locate(self.server.root, self.path)
        descriptor = None if path is None else open_regular(path)
        if path is None or descriptor is None:
            self.respond_text(HTTPStatus.NOT_FOUND)
            return
        try:
            self.answer_file(path, descriptor, self.server.version(path, descriptor))
        finally:
            os.close(descriptor)

    def answer_file(self, path: Path, descriptor: int, version: Version) -> None:
        """Answer with the file: whole, a range of it, or what the request's conditions ask for."""
        headers = {**self.validators(version), "Accept-Ranges": "bytes"}
        status = condition(self.headers, version)
        if status is not None:
            if status is HTTPStatus.PRECONDITION_FAILED:
                headers["Content-Length"] = "0"
            self.respond(status, headers)
            return
        headers["Content-Type"] = CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        wanted = range(version.size)
        # RFC 9110, 14.2: Range means something for GET only.
        if self.command == "GET" and range_applies(self.headers.get("If-Range"), version, time.time()):
            chosen = byte_range(self.headers.get("Range"), version.size)
            if chosen is not None and not chosen:
                self.respond(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    {**self.validators(version), "Content-Range": f"bytes */{version.size}", "Content-Length": "0"},
                )
                return
            if chosen is not None:
                status, wanted = HTTPStatus.PARTIAL_CONTENT, chosen
                headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{version.size}"
        headers["Content-Length"] = str(len(wanted))
        self.respond(status or HTTPStatus.OK, headers, descriptor, wanted)

    def validators(self, version: Version) -> dict[str, str]:
        """The headers by which a client knows this version again."""
        return {"ETag": version.etag, "Last-Modified": version.last_modified}

    def respond_text(self, status: HTTPStatus) -> None:
        """Answer with the status' own words as a short text."""
        body = f"{status.value} {status.phrase}\n".encode("ascii")
        sent = len(body) if self.command != "HEAD" else 0
        self.begin(status, {"Content-Type": "text/plain", "Content-Length": str(len(body))})
        self.log_answer(status, sent)
        self.end_headers()
        self.wfile.write(body[:sent])

    def respond(
        self, status: HTTPStatus, headers: Mapping[str, str], descriptor: int | None = None, wanted: range = range(0)
    ) -> None:
        """Send headers and, except to HEAD, the wanted bytes of the open file."""
        self.begin(status, headers)
        if descriptor is None or self.command == "HEAD" or not wanted:
            self.log_answer(status, 0)
            self.end_headers()
            return
        self.end_headers()
        self.write_body(status, descriptor, wanted)

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Put the status line and the headers into the buffer that `end_headers` sends."""
        self.send_response_only(status)
        self.send_header("Server", self.server_version)
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")

    def write_body(self, status: HTTPStatus, descriptor: int, wanted: range) -> None:
        """Send the wanted bytes.

        The log line is written before the last chunk goes out, so whoever has read the whole body finds it there. When the
        client hangs up, or somebody cuts the file short in place, the line has what was sent until then and the connection ends:
        the missing bytes are then visible to the client as a body shorter than its Content-Length.
        """
        position = wanted.start
        while position < wanted.stop:
            chunk = os.pread(descriptor, min(CHUNK_BYTES, wanted.stop - position), position)
            is_last = position + len(chunk) == wanted.stop
            if is_last:
                self.log_answer(status, len(wanted))
            try:
                if not chunk:
                    raise ConnectionAbortedError("the file was cut short while being sent")
                self.wfile.write(chunk)
            except OSError:
                self.close_connection = True
                if not is_last:
                    self.log_answer(status, position - wanted.start)
                return
            position += len(chunk)

    def log_answer(self, status: int, body_bytes: int) -> None:
        """Write the request's line."""
        self.server.write_log(f"{self.command or '-'} {getattr(self, 'path', '-')} {int(status)} {body_bytes}")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Called by the parent class for a request that it refuses itself (400, 414, 501)."""
        self.log_answer(int(code), 0)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing more: the parent's words on a refused request repeat its line, and an idle connection's end is no request."""


def make_server(
    root: Path, address: str = "127.0.0.1", port: int = 0, *, log_fd: int = 2, handler: type[SampleHandler] = SampleHandler
) -> SampleServer:
    """Make a server that listens, but does not answer until `serve_forever` is called.

    Args:
        root: the folder to serve.
        address: IPv4 address to listen at.
        port: 0 takes a free one; `server_port` of the result has it.
        log_fd: descriptor for the request lines, standard error unless told.
        handler: a subclass that injects faults, in tests.

    Raises:
        NotADirectoryError: root is no folder.
        OSError: the address cannot be bound.
    """
    return SampleServer((address, port), handler, root, log_fd)


def locate(root: Path, target: str) -> Path | None:
    """Find the file that a request target names.

    Args:
        root: resolved folder.
        target: as it stands in the request line, percent-encoded, with or without scheme and host.

    Returns:
        The resolved path below the root, or None when there is none that may be served.
    """
    try:
        path = target if target.startswith("/") else urlsplit(target).path
        names = unquote_to_bytes(path.partition("?")[0]).decode("utf-8").split("/")[1:]
    except ValueError:
        return None
    if not names or any(name in ("", ".", "..") or "\0" in name for name in names):
        return None
    try:
        found = root.joinpath(*names).resolve(strict=True)
    except (OSError, RuntimeError):  # missing, too long, not to be entered; RuntimeError: links in a circle, before Python 3.13
        return None
    return found if found.is_relative_to(root) else None


def open_regular(path: Path) -> int | None:
    """Open a regular file for reading.

    Args:
        path: resolved, so a link in its last place was planted since and is not followed.

    Returns:
        The descriptor, the caller's to close; None for a folder, a pipe, or what cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def sha256_of(descriptor: int) -> str:
    """Hash an open file from its first byte on, whatever its position. Returns 64 hex digits."""
    digest, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, CHUNK_BYTES, position):
        digest.update(chunk)
        position += len(chunk)
    return digest.hexdigest()


def condition(headers: Message, version: Version) -> HTTPStatus | None:
    """Evaluate the preconditions in the order of RFC 9110, 13.2.2. Returns 412, 304 or None for "go on"."""
    if (tags := headers.get("If-Match")) is not None:
        if tags.strip() != "*" and version.etag not in ENTITY_TAG.findall(tags):
            return HTTPStatus.PRECONDITION_FAILED
    elif (unmodified := http_date(headers.get("If-Unmodified-Since"))) is not None and version.modified_s > unmodified:
        return HTTPStatus.PRECONDITION_FAILED
    if (tags := headers.get("If-None-Match")) is not None:
        known = {tag.removeprefix("W/") for tag in ENTITY_TAG.findall(tags)}
        return HTTPStatus.NOT_MODIFIED if tags.strip() == "*" or version.etag in known else None
    since = http_date(headers.get("If-Modified-Since"))
    return HTTPStatus.NOT_MODIFIED if since is not None and version.modified_s <= since else None


def range_applies(if_range: str | None, version: Version, now_s: float) -> bool:
    """Whether the client's part is of this version (RFC 9110, 13.1.5): same strong tag, or same date and that date strong."""
    if if_range is None:
        return True
    if if_range.strip().startswith(('"', "W/")):
        return if_range.strip() == version.etag
    # Two versions of one second share their date: only after that second is over does it say which one.
    return http_date(if_range) == version.modified_s and now_s >= version.modified_s + 1


def byte_range(header: str | None, size: int) -> range | None:
    """Read a Range header.

    Args:
        header: `bytes=first-last`, `bytes=first-` or `bytes=-length`; anything else, several ranges included, is ignored.
        size: of the file, bytes.

    Returns:
        The bytes asked for; an empty range when none of them exists; None when the header is to be ignored.
    """
    match = ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    stop = min(size, int(last) + 1) if last else size
    return range(int(first), stop) if int(first) < stop else range(0)


def http_date(text: str | None) -> int | None:
    """Seconds since 1970 of an HTTP date, or None when there is none or it cannot be read (it is then to be ignored)."""
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        return None


def write_port(path: Path, port: int) -> None:
    """Write the port as text by one rename: whoever sees the file can read the whole number."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_text(f"{port}\n", encoding="ascii")
    unfinished.replace(path)


def end_at_once(signum: int, frame: FrameType | None) -> None:
    """Signal handler: leave the serving loop and the program; open connections end with it."""
    raise SystemExit(0)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve a folder over HTTP, read-only, with ranges and validators.")
    parser.add_argument("--root", type=Path, required=True, help="folder to serve")
    parser.add_argument("--port", type=int, default=0, help="port to listen at (0, the default: a free one)")
    parser.add_argument("--address", default="127.0.0.1", help="IPv4 address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port-file", type=Path, help="file that gets the port once the server listens")
    parser.add_argument("--log", type=Path, help="file to which a line a request is added (default: standard error)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, end_at_once)
    signal.signal(signal.SIGINT, end_at_once)
    log_fd = 2 if options.log is None else os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    with make_server(options.root, options.address, options.port, log_fd=log_fd) as server:
        if options.port_file is not None:
            write_port(options.port_file, server.server_port)
        server.serve_forever()


if __name__ == "__main__":
    main()
