"""Peers that drip, stall or flood, and the limits that others share with a download."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.bandwidth import BandwidthPlan
from pipeline.download import DownloadManager
from pipeline.download.rate import RateFloor
from pipeline.download.throttle import SharedBandwidth, SharedSlots
from pipeline.errors import DiskError, DownloadError, DownloadRefused

Make = Callable[..., DownloadManager]


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "a.zip"


def drip(request: Any, data: bytes, pause_s: float = 0.05) -> None:
    for byte in data:
        request.send(bytes([byte]))
        time.sleep(pause_s)


@pytest.mark.fault(13)
def test_slow_loris_is_given_up_after_a_window_and_the_rest_comes_from_the_next_attempt(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    faithful = hostile.Faithful(archive)

    def route(request: Any) -> None:
        if len(server.requests) == 1:
            request.answer("200 OK", faithful.validators(), archive[:1000], length=len(archive))
            drip(request, archive[1000:5000])
        else:
            faithful(request)

    server.routes["/a.zip"] = route
    errors: list[str] = []
    manager = make_manager(
        chunk_bytes=1 << 20, min_bytes_per_s=4096, rate_window_s=0.5,
        on_event=lambda name, figures: errors.append(figures["error"]) if name == "download.retry" else None,
    )  # fmt: skip
    began = time.monotonic()
    receipt = manager.download_file(server.url("/a.zip"), dest)
    # The drops alone would take more than three minutes.
    assert time.monotonic() - began < 60
    assert "4096 bytes a second at least" in errors[0]
    assert dest.read_bytes() == archive and receipt.attempts == len(errors) + 1 and receipt.resumed_bytes >= 1000


@pytest.mark.fault(13)
@pytest.mark.parametrize("what", ["headers", "chunk line", "status line"])
def test_peer_that_drips_what_is_no_body_is_cut_off(server: Any, archive: bytes, make_manager: Make, dest: Path, what: str) -> None:
    """No byte of a body arrives, and no socket's time-out is ever met."""

    def route(request: Any) -> None:
        if what == "chunk line":
            request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
        elif what == "headers":
            request.send(b"HTTP/1.1 200 OK\r\n")
        drip(request, b"x" * 4000)

    server.routes["/a.zip"] = route
    errors: list[str] = []
    manager = make_manager(
        timeout_s=(0.3, 0.3), rate_window_s=0.3,
        on_event=lambda name, figures: errors.append(figures["error"]) if name == "download.retry" else None,
    )  # fmt: skip
    began = time.monotonic()
    with pytest.raises(DownloadError) as last:
        manager.download_file(server.url("/a.zip"), dest, max_retries=1)
    # Where the machine stands still for longer than a socket's time-out, that ends the attempt: hardly both of them.
    assert re.search(r"sent no headers in 0\.6 s|brought nothing useful in 1 s", "\n".join([*errors, str(last.value)]))
    assert time.monotonic() - began < 60 and len(server.requests) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "download-watchdog"]


@pytest.mark.fault(13)
def test_pause_that_the_peer_makes_up_for_is_forgiven(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    def route(request: Any) -> None:
        request.answer("200 OK", hostile.Faithful(archive).validators(), archive[:100_000], length=len(archive))
        time.sleep(0.4)
        request.send(archive[100_000:])

    server.routes["/a.zip"] = route
    manager = make_manager(min_bytes_per_s=10_000, rate_window_s=0.5)
    assert manager.download_file(server.url("/a.zip"), dest).attempts == 1


@pytest.mark.fault(13)
def test_rate_is_judged_over_whole_windows_and_each_begins_anew() -> None:
    floor = RateFloor(100_000, 0.5)
    floor.count(100_000, 0.01, "http://h/a.zip")
    floor.count(1, 0.4, "http://h/a.zip")
    floor.count(1, 0.2, "http://h/a.zip")  # 100,002 bytes in 0.61 s
    floor.count(50_000, 0.4, "http://h/a.zip")
    with pytest.raises(DownloadError, match="brought 50001 bytes in 1 s"):
        floor.count(1, 0.2, "http://h/a.zip")


class Throttle:
    """Takes its time, and notes what it was told."""

    def __init__(self, pause_s: float) -> None:
        self.bytes, self.pause_s = 0, pause_s

    def take(self, bytes_count: int, *, left_s: float) -> None:
        self.bytes += bytes_count
        time.sleep(min(self.pause_s, left_s))


@pytest.mark.fault(13)
def test_bandwidth_limit_of_our_own_is_not_taken_for_a_slow_peer_and_counts_every_byte(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[100_000])
    throttle = Throttle(0.03)
    manager = make_manager(bandwidth=throttle, min_bytes_per_s=1 << 20, rate_window_s=0.2, chunk_bytes=4096)
    began = time.monotonic()
    receipt = manager.download_file(server.url("/a.zip"), dest, max_retries=4)
    assert time.monotonic() - began > 1
    # If our own pauses counted, an attempt would bring seven chunks, and five of them half of it. A busy machine may cost one or two.
    assert receipt.attempts >= 2 and throttle.bytes == len(archive) <= route.sent


def test_place_at_the_host_is_held_for_every_attempt_and_not_between_them(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    log: list[str] = []

    class Slots:
        @contextlib.contextmanager
        def slot(self, host: str, *, left_s: float) -> Iterator[None]:
            log.append(f"+{host}")
            try:
                yield
            finally:
                log.append("-")

    server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[1000])
    manager = make_manager(slots=Slots(), on_event=lambda name, figures: log.append(name))
    manager.download_file(server.url("/a.zip"), dest)
    assert log == ["+127.0.0.1", "-", "download.retry", "+127.0.0.1", "download.resume", "-", "download.done"]
    # A probe and a listing are requests to the host like any other.
    log.clear()
    manager.probe(server.url("/a.zip"))
    manager.read_document(server.url("/a.zip"))
    assert log == ["+127.0.0.1", "-"] * 2


@pytest.mark.parametrize("kind", ["slot", "bandwidth"])
def test_wait_for_a_place_or_for_bandwidth_ends_with_the_deadline(
    server: Any, archive: bytes, hostile: ModuleType, make_manager: Make, dest: Path, kind: str
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    slots = SharedSlots(dest.parent / "slots", 1, 30)
    bandwidth = SharedBandwidth(dest.parent / "line", BandwidthPlan.parse("10kB"))
    manager = make_manager(slots=slots, deadline_s=0.5) if kind == "slot" else make_manager(bandwidth=bandwidth, deadline_s=0.5)
    began = time.monotonic()
    with slots.slot("127.0.0.1"), pytest.raises(DownloadError, match=r"still at work after 0(\.\d)? s|not here after 0\.5 s"):
        manager.download_file(server.url("/a.zip"), dest)
    if kind == "slot":
        with slots.slot("127.0.0.1"), pytest.raises(DownloadError, match=r"still at work|not here after 0\.5 s"):
            manager.probe(server.url("/a.zip"))
    # A place is waited for for half a minute, and the body would take as long.
    assert 0.4 <= time.monotonic() - began <= 20 and not dest.exists()


@pytest.mark.parametrize("states_length", [True, False])
def test_archive_beyond_the_cap_is_refused(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path, states_length: bool
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive, states_length=states_length)
    manager = make_manager(max_bytes=100_000)
    with pytest.raises(DownloadRefused, match="at most 100000 bytes"):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1 and os.listdir(dest.parent) == []
    assert make_manager(max_bytes=len(archive)).download_file(server.url("/a.zip"), dest).bytes == len(archive)
    assert route.statuses[-1] == 200


@pytest.mark.fault(21)
def test_too_little_room_is_noticed_before_the_first_byte(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    free = os.statvfs(dest.parent)
    factor = 2 * free.f_bavail * free.f_frsize / len(archive)
    server.routes["/a.zip"] = hostile.Faithful(archive)
    with pytest.raises(DiskError, match=r"bytes free.*to unpack it"):
        make_manager(unpack_factor=factor).download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1 and os.listdir(dest.parent) == []
    assert make_manager(unpack_factor=factor / 4).download_file(server.url("/a.zip"), dest).bytes == len(archive)
