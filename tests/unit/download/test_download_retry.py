"""How often a server is asked, after which waits, and when no more."""

from __future__ import annotations

import email.utils
import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tenacity

from pipeline.download import DownloadManager
from pipeline.download.retry import Deadline, RetryPolicy, retry_after_s
from pipeline.errors import ConfigurationError, DownloadError
from pipeline.handoff import Receipt

Make = Callable[..., DownloadManager]


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "a.zip"


def waits_of(make_manager: Make, **settings: Any) -> tuple[DownloadManager, list[float]]:
    waits: list[float] = []
    manager = make_manager(
        on_event=lambda name, figures: waits.append(figures["wait_s"]) if name == "download.retry" else None, **settings
    )
    return manager, waits


@pytest.mark.fault(6)
@pytest.mark.parametrize("status", ["429 Enough", "503 Busy"])
def test_wait_that_the_server_asks_for_is_kept(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path, status: str
) -> None:
    faithful = hostile.Faithful(archive)
    server.routes["/a.zip"] = lambda request: (
        request.answer(status, {"Retry-After": "1"}) if len(server.requests) == 1 else faithful(request)
    )
    manager, waits = waits_of(make_manager)
    began = time.monotonic()
    assert manager.download_file(server.url("/a.zip"), dest).requests_made == 2
    assert waits == [1.0] and 1.0 <= time.monotonic() - began < 20


@pytest.mark.fault(6)
@pytest.mark.fault(24)
def test_date_to_wait_for_is_reckoned_by_the_servers_own_clock(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    """Three days off, either way: the wait is the second between the two dates of one answer."""
    faithful = hostile.Faithful(archive)
    for days in (-3, 0, 3):
        server.requests.clear()
        now = time.time() + days * 86400
        dates = {"Date": email.utils.formatdate(now, usegmt=True), "Retry-After": email.utils.formatdate(now + 1, usegmt=True)}
        server.routes["/a.zip"] = lambda request, dates=dates: (
            request.answer("503 Busy", dates) if len(server.requests) == 1 else faithful(request)
        )
        manager, waits = waits_of(make_manager)
        manager.download_file(server.url("/a.zip"), dest)
        assert waits == [1.0], days


@pytest.mark.fault(6)
@pytest.mark.parametrize("asked", ["86400", "121", "9" * 400, "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_wait_beyond_the_cap_ends_the_download_at_once_and_says_so(
    server: Any, make_manager: Make, dest: Path, asked: str
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("503 Busy", {"Retry-After": asked})
    manager, waits = waits_of(make_manager)
    with pytest.raises(DownloadError, match=r"asks to wait .* at most 120 s"):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1 and not waits


@pytest.mark.fault(6)
@pytest.mark.parametrize("asked", ["soon", "", "-5", "1.5", "7 seconds", "٣", "Fri, 99 Foo 2026", "0", "Sat, 01 Jan 2000 00:00:00 GMT"])
def test_wait_that_makes_no_sense_or_is_over_leaves_the_ordinary_backoff(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path, asked: str
) -> None:
    faithful = hostile.Faithful(archive)
    header = {"Retry-After": asked.encode("utf-8").decode("latin-1")}
    server.routes["/a.zip"] = lambda request: (
        request.answer("503 Busy", header) if len(server.requests) == 1 else faithful(request)
    )
    manager, waits = waits_of(make_manager, backoff_s=0.05)
    manager.download_file(server.url("/a.zip"), dest)
    assert len(waits) == 1 and waits[0] <= 0.05


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        (" 7 ", None, 7.0),
        ("9" * 400, None, math.inf),
        ("Sat, 26 Sep 2026 10:00:30 GMT", "Sat, 26 Sep 2026 10:00:00 GMT", 30.0),
        ("Sat, 26 Sep 2026 09:00:00 GMT", "Sat, 26 Sep 2026 10:00:00 GMT", 0.0),
        ("Saturday, 26-Sep-26 10:00:30 GMT", "Sat, 26 Sep 2026 10:00:00 GMT", 30.0),
        ("garbage", "Sat, 26 Sep 2026 10:00:00 GMT", None),
        (None, None, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, date) == seconds


@pytest.mark.fault(7)
@pytest.mark.parametrize("max_retries", [0, 1, 5])
def test_requests_made_are_the_attempts_configured(server: Any, manager: DownloadManager, dest: Path, max_retries: int) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("500 Oops", {})
    with pytest.raises(DownloadError, match=f"last of {max_retries + 1} attempts"):
        manager.download_file(server.url("/a.zip"), dest, max_retries=max_retries)
    assert len(server.requests) == max_retries + 1


@pytest.mark.fault(7)
def test_receipt_counts_attempts_apart_from_redirects(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    faithful = hostile.Faithful(archive)
    server.routes["/a.zip"] = lambda request: request.answer("302 Found", {"Location": "/b.zip"})
    server.routes["/b.zip"] = lambda request: request.answer("500 Oops", {}) if len(server.requests) < 5 else faithful(request)
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert (receipt.requests_made, receipt.attempts) == (6, 3)
    old = {name: value for name, value in receipt.__dict__.items() if name not in ("attempts", "resumed_bytes")}
    assert Receipt.from_json(old).attempts == 1, "a receipt of an earlier version is still read"


def test_backoff_grows_to_its_end_and_is_jittered_over_its_whole_width() -> None:
    attempts = RetryPolicy(2.0, 30.0, 120.0).attempts("http://h/", 9, Deadline(1e9), lambda name, figures: None)
    for attempt, end in [(1, 2.0), (2, 4.0), (3, 8.0), (5, 30.0), (9, 30.0)]:
        state = tenacity.RetryCallState(attempts, None, (), {})
        state.attempt_number = attempt
        waits = [attempts.wait(state) for _ in range(400)]  # type: ignore[operator]
        assert min(waits) < end * 0.1 and end * 0.9 < max(waits) <= end
        assert end * 0.4 < sum(waits) / len(waits) < end * 0.6


def test_no_wait_begins_that_would_end_after_the_deadline(server: Any, make_manager: Make, dest: Path) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("503 Busy", {"Retry-After": "60"})
    manager, waits = waits_of(make_manager, deadline_s=30.0)
    began = time.monotonic()
    with pytest.raises(DownloadError, match="the next would begin in 60 s, after the deadline"):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1 and not waits and time.monotonic() - began < 30


def test_deadline_ends_a_body_that_comes_too_slowly_and_keeps_it(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path
) -> None:
    def slowly(request: Any) -> None:
        request.answer("200 OK", hostile.Faithful(archive).validators(), b"", length=len(archive))
        for start in range(0, len(archive), 2000):
            request.send(archive[start : start + 2000])
            time.sleep(0.5)

    server.routes["/a.zip"] = slowly
    began = time.monotonic()
    with pytest.raises(DownloadError, match="not here after 3 s"):
        make_manager(deadline_s=3).download_file(server.url("/a.zip"), dest, max_retries=50)
    # All of the body would take more than a minute.
    assert time.monotonic() - began < 30 and len(server.requests) == 1
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    assert make_manager().download_file(server.url("/a.zip"), dest).resumed_bytes >= 2000
    assert route.statuses == [206] and dest.read_bytes() == archive


@pytest.mark.fault(24)
def test_clock_that_jumps_while_downloading_changes_nothing(
    server: Any, hostile: ModuleType, archive: bytes, dest: Path
) -> None:
    """A process whose wall clock is wrong, and leaps back and forth at every look: only its receipt shows it."""
    faithful = hostile.Faithful(archive, cuts=[50_000, 50_000])
    server.routes["/a.zip"] = faithful
    program = textwrap.dedent("""
        import itertools, pathlib, sys, time
        real = time.time
        leaps = itertools.cycle([-3 * 86400, 3 * 86400, 0])
        time.time = lambda: real() + next(leaps)
        from pipeline.download import DownloadManager
        told = []
        manager = DownloadManager(
            allow_addresses=["127.0.0.0/8"], backoff_s=0.01, on_event=lambda name, figures: told.append((name, dict(figures)))
        )
        receipt = manager.download_file(sys.argv[1], pathlib.Path(sys.argv[2]))
        waits = [figures["wait_s"] for name, figures in told if name == "download.retry"]
        seconds = [figures["seconds"] for name, figures in told if name == "download.done"]
        assert all(0 <= wait < 1 for wait in waits) and len(waits) == 2, waits
        assert 0 <= seconds[0] < 86_400, seconds
        print(receipt.resumed_bytes)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, server.url("/a.zip"), str(dest)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert dest.read_bytes() == archive and done.stdout == "100000\n" and faithful.statuses == [200, 206, 206]


@pytest.mark.parametrize("setting", ["backoff_s", "max_wait_s", "retry_after_cap_s", "deadline_s", "min_bytes_per_s", "max_bytes"])
def test_negative_setting_is_refused(make_manager: Make, setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} = -1"):
        make_manager(**{setting: -1})


@pytest.mark.fault(20)
@pytest.mark.parametrize("sent", [b"", b"HTT", b"HTTP/1.1 200 OK\r\nETag: "])
def test_connection_that_is_reset_in_the_headers_is_asked_again(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path, sent: bytes
) -> None:
    faithful = hostile.Faithful(archive)

    def reset_once(request: Any) -> None:
        if len(server.requests) == 1:
            request.send(sent)
            request.reset()
        else:
            faithful(request)

    server.routes["/a.zip"] = reset_once
    assert manager.download_file(server.url("/a.zip"), dest).attempts == 2
    assert dest.read_bytes() == archive and os.listdir(dest.parent) == ["a.zip"]
