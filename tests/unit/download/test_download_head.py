"""The probe where a server does not answer HEAD, and small documents."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.download import DownloadManager, fingerprint
from pipeline.errors import DownloadError, DownloadRefused, ListingError

VALIDATORS = {"ETag": '"v1"', "Last-Modified": "Sat, 26 Sep 2026 10:00:00 GMT"}


def first_byte_only(status: str, body: bytes, *, honours_range: bool = True) -> Any:
    def route(request: Any) -> None:
        if request.method == "HEAD":
            request.answer(status, {})
        elif honours_range:
            assert request.headers["range"] == "bytes=0-0"
            request.answer("206 Partial Content", VALIDATORS | {"Content-Range": f"bytes 0-0/{len(body)}"}, body[:1])
        else:
            request.answer("200 OK", VALIDATORS, body)

    return route


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "501 Not Implemented", "403 Forbidden"])
@pytest.mark.parametrize("honours_range", [True, False])
def test_first_byte_is_asked_for_where_head_is_not_allowed(
    server: Any, archive: bytes, manager: DownloadManager, status: str, honours_range: bool
) -> None:
    server.routes["/a.zip"] = first_byte_only(status, archive, honours_range=honours_range)
    probe = manager.probe(server.url("/a.zip"))
    assert (probe.status, probe.etag, probe.bytes) == ("found", '"v1"', len(archive))
    assert probe.fingerprint == fingerprint('"v1"', None, None)
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


@pytest.mark.fault(8)
def test_what_get_does_not_find_either_is_missing(server: Any, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("405 No" if request.method == "HEAD" else "404 Not Found", {})
    assert manager.probe(server.url("/a.zip")).status == "missing"


@pytest.mark.fault(8)
def test_what_get_is_not_allowed_either_is_refused_without_a_retry(server: Any, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("403 Forbidden", {})
    with pytest.raises(DownloadRefused, match="403"):
        manager.probe(server.url("/a.zip"))
    assert len(server.requests) == 2


def test_range_without_a_total_gives_no_length(server: Any, archive: bytes, manager: DownloadManager) -> None:
    def route(request: Any) -> None:
        if request.method == "HEAD":
            request.answer("405 No", {})
        else:
            request.answer("206 Partial Content", VALIDATORS | {"Content-Range": "bytes 0-0/*"}, archive[:1])

    server.routes["/a.zip"] = route
    assert manager.probe(server.url("/a.zip")).bytes is None


@pytest.mark.fault(7)
def test_server_error_of_the_ranged_get_is_tried_again(server: Any, archive: bytes, manager: DownloadManager) -> None:
    gets = []

    def route(request: Any) -> None:
        if request.method == "GET":
            gets.append(request)
        if request.method == "GET" and len(gets) == 1:
            request.answer("503 Busy", {})
        else:
            first_byte_only("405 No", archive)(request)

    server.routes["/a.zip"] = route
    assert manager.probe(server.url("/a.zip")).bytes == len(archive)
    assert [request.method for request in server.requests] == ["HEAD", "GET", "HEAD", "GET"]


def test_document_is_read_whole_and_tried_again(server: Any, manager: DownloadManager) -> None:
    server.routes["/d"] = lambda request: request.answer("503 Busy" if len(server.requests) < 2 else "200 OK", {}, b"[1, 2]")
    assert manager.read_document(server.url("/d")) == b"[1, 2]"
    assert len(server.requests) == 2


def test_document_without_an_end_is_cut_off_at_the_cap(server: Any, manager: DownloadManager) -> None:
    sent = []

    def endless(request: Any) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            request.send(bytes(1 << 20))
            sent.append(1 << 20)

    server.routes["/d"] = endless
    with pytest.raises(ListingError, match="longer than 4194304 bytes"):
        manager.read_document(server.url("/d"))
    assert len(server.requests) == 1 and sum(sent) < 64 << 20


def test_document_that_is_not_there_or_breaks_off_is_an_error(server: Any, manager: DownloadManager) -> None:
    server.routes["/d"] = lambda request: request.answer("404 Not Found", {})
    with pytest.raises(ListingError, match="404"):
        manager.read_document(server.url("/d"))
    server.routes["/d"] = lambda request: request.answer("200 OK", {}, b"[1", length=100)
    with pytest.raises(DownloadError, match="4 attempts"):
        manager.read_document(server.url("/d"))
