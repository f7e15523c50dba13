"""A wall clock that is days off and leaps while a download runs: neither waits nor figures follow it."""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
#: What the C library says of the wall clock, for every program that asks it: three days ahead and three days back by turns of 0.1 s.
LEAPING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static int ask(clockid_t id, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, at);
}
int clock_gettime(clockid_t id, struct timespec *at) {
    struct timespec now;
    int result = ask(id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        ask(CLOCK_MONOTONIC, &now);
        at->tv_sec += (now.tv_sec * 10 + now.tv_nsec / 100000000) % 2 ? 259200 : -259200;
    }
    return result;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
PROGRAM = textwrap.dedent("""
    import json, pathlib, sys, threading, time
    from pipeline.bandwidth import BandwidthPlan
    from pipeline.download import DownloadManager
    from pipeline.download.progress import ProgressMeter
    from pipeline.download.throttle import SharedBandwidth, SharedSlots
    url, dest = sys.argv[1], pathlib.Path(sys.argv[2])
    seen, meter, clocks = [], ProgressMeter("a.zip"), set()

    def look():
        while True:
            clocks.add(round(time.time() / 86400))
            time.sleep(0.01)

    def has_leapt():
        return bool(clocks) and max(clocks) - min(clocks) >= 5

    def told(name, figures):
        seen.append((name, dict(figures)))
        # The download is not over before both sides of the clock were seen in it, however seldom this process gets to look.
        while name == "download.retry" and not has_leapt():
            time.sleep(0.01)
        if name == "download.progress":
            progress = meter.feed(figures["bytes"], figures["total"])
            assert progress.eta_s is None or 0 <= progress.eta_s < 86_400, progress
            assert progress.rate_bytes_s is None or progress.rate_bytes_s > 0, progress

    # Every limit is far shorter than a leap, and far longer than a busy machine takes.
    manager = DownloadManager(
        allow_addresses=["127.0.0.0/8"], backoff_s=0.3, on_event=told, deadline_s=300, min_bytes_per_s=100, rate_window_s=0.5, chunk_bytes=16_384,
        bandwidth=SharedBandwidth(dest.parent / "line", BandwidthPlan.parse("150kB")), slots=SharedSlots(dest.parent / "slots", 1, 60),
    )
    probe = manager.probe(url)
    threading.Thread(target=look, daemon=True).start()
    receipt = manager.download_file(url, dest, fingerprint=probe.fingerprint)
    print(json.dumps({"seen": seen, "leapt": has_leapt(), "resumed": receipt.resumed_bytes}))
""")


@pytest.fixture
def leaping(tmp_path: Path) -> Path:
    """A library that, loaded first, gives a process the leaping clock."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    source, library = tmp_path / "leaping.c", tmp_path / "leaping.so"
    source.write_text(LEAPING)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, capture_output=True)
    return library


@pytest.mark.fault(24)
def test_clock_that_leaps_three_days_back_and_forth_changes_no_wait_and_no_figure(
    server: Any, hostile: ModuleType, archive: bytes, tmp_path: Path, leaping: Path
) -> None:
    faithful = hostile.Faithful(archive, cuts=[100_000])
    gets: list[str] = []

    def route(request: Any) -> None:
        gets.append(request.method)
        if gets.count("GET") == 1 and request.method == "GET":
            now = time.time()
            dates = {"Date": email.utils.formatdate(now, usegmt=True), "Retry-After": email.utils.formatdate(now + 1, usegmt=True)}
            return request.answer("503 Busy", dates)
        return faithful(request)

    server.routes["/a.zip"] = route
    dest, began = tmp_path / "a.zip", time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.url("/a.zip"), str(dest)], capture_output=True, text=True, timeout=400, check=False,
        env=os.environ | {"LD_PRELOAD": str(leaping), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["leapt"], "the clock leapt indeed"
    waits = [figures["wait_s"] for name, figures in found["seen"] if name == "download.retry"]
    (finished,) = [figures for name, figures in found["seen"] if name == "download.done"]
    assert len(waits) == 2 and 0.99 <= waits[0] <= 1.01 and 0 <= waits[1] <= 0.6
    assert 0 < finished["seconds"] < time.monotonic() - began
    assert found["resumed"] > 0 and dest.read_bytes() == archive
