"""Limits that hold over several processes together: real processes, a real server, real time."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.bandwidth import BandwidthPlan
from pipeline.download import throttle
from pipeline.download.throttle import SharedBandwidth, SharedSlots
from pipeline.errors import DiskError, DownloadError

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[3]
#: Reads a URL whole in chunks, taking every chunk from the shared limit; prints when it began and ended.
READER = textwrap.dedent("""
    import pathlib, sys, time, urllib.request
    from pipeline.bandwidth import BandwidthPlan
    from pipeline.download.throttle import SharedBandwidth
    bandwidth = SharedBandwidth(pathlib.Path(sys.argv[1]), BandwidthPlan.parse(sys.argv[2]))
    print(time.monotonic(), flush=True)
    with urllib.request.urlopen(sys.argv[3]) as body:
        while chunk := body.read(int(sys.argv[4])):
            bandwidth.take(len(chunk))
    print(time.monotonic(), flush=True)
""")
HOLDER = textwrap.dedent("""
    import pathlib, sys, time
    from pipeline.download.throttle import SharedSlots
    with SharedSlots(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 30).slot(sys.argv[3]):
        print(time.monotonic(), flush=True)
        time.sleep(float(sys.argv[4]))
        print(time.monotonic(), flush=True)
""")


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True)


def spans(children: list[subprocess.Popen[str]]) -> list[tuple[float, float]]:
    found = []
    for process in children:
        began, ended = process.communicate(timeout=60)[0].split()
        assert process.returncode == 0
        found.append((float(began), float(ended)))
    return found


@pytest.fixture
def body_url() -> Any:
    """A server on loopback that sends as many bytes as the path says, as fast as it can."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.path.strip("/"))
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for start in range(0, size, 65_536):
                self.wfile.write(bytes(min(65_536, size - start)))

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("processes", "rate", "chunk"), [(1, 2_000_000, 1 << 20), (3, 3_000_000, 65_536)])
def test_processes_together_keep_the_figure_within_ten_percent(
    tmp_path: Path, body_url: str, processes: int, rate: int, chunk: int
) -> None:
    each = 3 * rate // processes
    readers = [child(READER, tmp_path / "line", f"{rate}B", f"{body_url}/{each}", chunk) for _ in range(processes)]
    times = spans(readers)
    seconds = max(end for _, end in times) - min(begin for begin, _ in times)
    assert rate * 0.9 <= each * processes / seconds <= rate * 1.1, seconds
    # None of them was starved by the others.
    assert min(end for _, end in times) > min(begin for begin, _ in times) + seconds / 2


def test_killed_process_takes_nothing_with_it(tmp_path: Path, body_url: str) -> None:
    killed = child(READER, tmp_path / "line", "100kB", f"{body_url}/100000000", 65_536)
    time.sleep(1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ((began, ended),) = spans([child(READER, tmp_path / "line", "1MB", f"{body_url}/1000000", 65_536)])
    # Less than a second: what the line saved while nobody used it is spent first.
    assert 0.5 <= ended - began <= 30


def test_rate_changes_with_the_hour_while_a_chunk_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that would take an hour at the old rate goes on at the new one."""
    started = time.monotonic()

    class Clock:
        @staticmethod
        def now() -> Any:
            return Clock()

        def astimezone(self) -> Any:
            return self

        @property
        def hour(self) -> int:
            return 17 if time.monotonic() < started + 0.6 else 18

    monkeypatch.setattr(throttle, "datetime", Clock)
    SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("08-18:1kB 18-08:0")).take(3_600_000)
    assert 0.5 <= time.monotonic() - started <= 2


def test_no_wait_is_longer_than_what_the_download_has_left(tmp_path: Path) -> None:
    bandwidth, started = SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("1kB")), time.monotonic()
    bandwidth.take(3_600_000, left_s=0.3)
    assert 0.25 <= time.monotonic() - started <= 1
    slots = SharedSlots(tmp_path / "slots", 1, 60)
    with slots.slot("one.example"), pytest.raises(DownloadError, match=r"after 0\.2 s"), slots.slot("one.example", left_s=0.2):
        pass
    assert time.monotonic() - started <= 2


def test_without_a_limit_nothing_waits_and_nothing_is_written(tmp_path: Path) -> None:
    bandwidth, started = SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("0")), time.monotonic()
    for _ in range(1_000):
        bandwidth.take(1 << 30)
    assert time.monotonic() - started < 1 and not (tmp_path / "line").exists()


@pytest.mark.parametrize(
    "content", [b"", b"abc", struct.pack("<d", float("nan")), struct.pack("<d", 1e300), struct.pack("<d", -1e300)], ids=repr
)
def test_damaged_or_outdated_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "line").write_bytes(content)
    bandwidth, started = SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("1MB")), time.monotonic()
    bandwidth.take(200_000)
    bandwidth.take(100_000)
    assert 0.28 <= time.monotonic() - started <= 0.8


def test_time_that_was_not_used_is_not_saved_up(tmp_path: Path) -> None:
    bandwidth = SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("1MB"))
    bandwidth.take(1)
    time.sleep(0.8)
    started = time.monotonic()
    bandwidth.take(500_000)
    assert time.monotonic() - started >= 0.45


def test_shared_file_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    with pytest.raises(DiskError, match="line"):
        SharedBandwidth(tmp_path / "line", BandwidthPlan.parse("1MB")).take(1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        SharedSlots(tmp_path / "file" / "slots", 1, 1)


def test_no_more_downloads_than_allowed_run_at_once_from_one_host(tmp_path: Path) -> None:
    times = spans([child(HOLDER, tmp_path / "slots", 2, "Download.Example", 0.5) for _ in range(4)])
    moments = sorted([(begin, 1) for begin, _ in times] + [(end, -1) for _, end in times])
    at_once, most = 0, 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    assert most == 2


def test_another_host_has_slots_of_its_own_and_case_makes_no_other_host(tmp_path: Path) -> None:
    slots = SharedSlots(tmp_path / "slots", 1, 0.2)
    refused = pytest.raises(DownloadError, match=r"all 1 downloads that ONE\.example")
    with slots.slot("one.example"), slots.slot("two.example"), refused, slots.slot("ONE.example"):
        pass
    with slots.slot("one.example"):
        pass


def test_slot_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    holder = child(HOLDER, tmp_path / "slots", 1, "one.example", 60)
    assert holder.stdout is not None and holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with SharedSlots(tmp_path / "slots", 1, 1).slot("one.example"):
        pass


def test_threads_of_one_process_wait_for_each_other_too(tmp_path: Path) -> None:
    slots = SharedSlots(tmp_path / "slots", 1, 0.2)
    refused: list[BaseException] = []

    def second() -> None:
        try:
            with slots.slot("one.example"):
                return
        except DownloadError as error:
            refused.append(error)

    with slots.slot("one.example"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(5)
    assert len(refused) == 1
