"""Bars are drawn on a terminal, a real one, and nowhere else."""

import os
import pty
import termios
import threading
import time

import pytest

from pipeline.download.progress import Progress, write_progress
from pipeline.terminal import progress_bars

pytest.importorskip("tqdm")
SHOWN = ("one.zip", "50%", "50.0M/100M", "5.0 MB/s, 10 s left", "two.zip: 3.00M, 1.0 MB/s")


def test_terminal_shows_every_download_with_bytes_rate_and_time_left(tmp_path):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 120))
    seen = []

    def read():
        while True:
            try:
                chunk = os.read(leader, 65_536)
            except OSError:
                return
            if not chunk:
                return
            seen.append(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    folder = tmp_path / "progress"
    with os.fdopen(follower, "w") as out:
        with progress_bars(folder, out):
            write_progress(folder, "one", Progress("one.zip", 50_000_000, 100_000_000, 5_000_000, 10))
            write_progress(folder, "two", Progress("two.zip", 3_000_000, None, 1_000_000, None))
            until = time.monotonic() + 60
            while (missing := [text for text in SHOWN if text not in b"".join(seen).decode(errors="replace")]) and time.monotonic() < until:
                time.sleep(0.05)
        out.flush()
    reader.join(60)
    assert missing == [], b"".join(seen).decode()
    assert not folder.exists()
    os.close(leader)


def test_without_a_terminal_nothing_is_made_and_nothing_is_drawn(tmp_path):
    with open(tmp_path / "out", "w") as out, progress_bars(tmp_path / "progress", out):
        assert not (tmp_path / "progress").exists()
    assert (tmp_path / "out").read_text() == ""


def test_end_by_an_error_leaves_no_files(tmp_path):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as out, pytest.raises(KeyError), progress_bars(tmp_path / "progress", out):
        assert (tmp_path / "progress").is_dir()
        raise KeyError
    assert not (tmp_path / "progress").exists()
    os.close(leader)
