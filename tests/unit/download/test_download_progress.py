"""Rate and time left are what they say, and a download that begins anew begins its rate anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.download.progress import (
    Progress,
    ProgressMeter,
    read_progress,
    remove_progress,
    shown_bytes,
    shown_seconds,
    write_progress,
)
from pipeline.errors import DiskError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    meter = ProgressMeter("a.zip", window_s=10, clock=clock)
    assert meter.feed(1_000_000, 101_000_000) == Progress("a.zip", 1_000_000, 101_000_000, None, None)
    found = None
    for second in range(1, 31):
        clock.now = 100.0 + second
        # 1 MB/s for 20 s, then 4 MB/s.
        found = meter.feed(1_000_000 + 1_000_000 * min(second, 20) + 4_000_000 * max(0, second - 20), 101_000_000)
        if second == 20:
            assert (found.rate_bytes_s, found.eta_s) == (pytest.approx(1e6), pytest.approx(80))
    assert found is not None and found.rate_bytes_s == pytest.approx(4e6) and found.eta_s == pytest.approx(10)
    assert found.percent == 60


def test_stall_shows_as_a_falling_rate_and_no_time_left_at_zero() -> None:
    clock = Clock()
    meter = ProgressMeter("a.zip", window_s=10, clock=clock)
    meter.feed(0, 1_000)
    for second in (1, 2, 12, 22, 32):
        clock.now = 100.0 + second
        found = meter.feed(500, 1_000)
    assert (found.rate_bytes_s, found.eta_s) == (0, None)


def test_restart_begins_the_rate_anew_and_never_gives_a_negative_one() -> None:
    clock = Clock()
    meter = ProgressMeter("a.zip", clock=clock)
    meter.feed(900, 1_000)
    clock.now += 1
    assert meter.feed(0, 1_000).rate_bytes_s is None
    clock.now += 1
    found = meter.feed(100, 1_000)
    assert (found.rate_bytes_s, found.eta_s) == (100, 9)


@pytest.mark.fault(24)
def test_clock_that_stands_still_or_a_body_longer_than_stated_gives_no_negative_time() -> None:
    clock = Clock()
    meter = ProgressMeter("a.zip", clock=clock)
    meter.feed(0, 10)
    assert meter.feed(5, 10).rate_bytes_s is None
    clock.now += 1
    found = meter.feed(20, 10)
    assert (found.eta_s, found.percent) == (0, 100)


def test_without_a_length_there_is_a_rate_and_nothing_else() -> None:
    clock = Clock()
    meter = ProgressMeter("a.zip", clock=clock)
    meter.feed(0, None)
    clock.now += 2
    found = meter.feed(3_000_000, None)
    assert (found.percent, found.eta_s, str(found)) == (None, None, "a.zip: 3.0 MB, 1.5 MB/s")


def test_sentence_has_bytes_rate_and_time_left() -> None:
    assert str(Progress("a.zip", 105_300_000, 211_900_000, 8_400_000, 12.7)) == "a.zip: 105.3 MB of 211.9 MB (49 %), 8.4 MB/s, 13 s left"
    assert [shown_bytes(n) for n in (0, 999, 1_500, 2_500_000_000)] == ["0 B", "999 B", "1.5 kB", "2.5 GB"]
    assert [shown_seconds(n) for n in (0.4, 59.6, 185, 7_800)] == ["0 s", "1:00 min", "3:05 min", "2:10:00 h"]


def test_progress_is_read_back_by_another_and_gone_when_it_is_over(tmp_path: Path) -> None:
    progress = Progress("a.zip", 1, None, None, None)
    write_progress(tmp_path / "nobody", "a.zip-e-1", progress)
    assert not (tmp_path / "nobody").exists()
    write_progress(tmp_path, "a.zip-e-1", progress)
    write_progress(tmp_path, "b.zip-e-2", progress)
    assert read_progress(tmp_path) == {"a.zip-e-1": progress, "b.zip-e-2": progress}
    remove_progress(tmp_path, "a.zip-e-1")
    remove_progress(tmp_path, "a.zip-e-1")
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip-e-2.json"]


def test_progress_that_the_disk_does_not_take_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip.json").mkdir()
    with pytest.raises(DiskError, match=r"a\.zip"):
        write_progress(tmp_path, "a.zip", Progress("a.zip", 1, None, None, None))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.json"]
    with pytest.raises(DiskError, match=r"a\.zip\.json"):
        remove_progress(tmp_path, "a.zip")
