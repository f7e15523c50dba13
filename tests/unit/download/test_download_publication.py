"""The instants around the rename: what is durable, and in which order, seen from outside the process."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager

CHILD = textwrap.dedent("""
    import pathlib, sys
    from pipeline.download import DownloadManager
    from pipeline.errors import DiskError
    try:
        DownloadManager(allow_addresses=["127.0.0.0/8"]).download_file(sys.argv[1], pathlib.Path(sys.argv[2]))
    except DiskError as error:
        sys.exit(f"DISK {error}")
""")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace watches and injects")


def under_strace(
    server: Any, archive: bytes, dest: Path, *options: str, route: Any = None
) -> subprocess.CompletedProcess[str]:
    """Download in a traced process, over an archive that is there; ``route``: instead of one without any validator."""
    server.routes["/a.zip"] = route or (lambda request: request.answer("200 OK", {}, archive))
    dest.write_bytes(b"the last good archive")
    command = ["strace", "-f", "-qq", *options, sys.executable, "-c", CHILD, server.url("/a.zip"), str(dest)]
    # A child that measures its coverage writes a file of its own, among the system calls that are counted here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "ptrace" in result.stderr.lower() and "not permitted" in result.stderr.lower():
        pytest.skip("this machine does not let strace trace")
    return result


@needs_strace
@pytest.mark.fault(22)
def test_bytes_are_durable_before_the_name_and_the_name_before_success(server: Any, archive: bytes, tmp_path: Path) -> None:
    dest, trace = tmp_path / "a.zip", tmp_path / "trace"
    result = under_strace(server, archive, dest, "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(trace))
    assert result.returncode == 0, result.stderr
    calls = re.findall(r"(fsync|rename)\w*\((.*)\)", trace.read_text())
    assert [name for name, _ in calls] == ["fsync", "rename", "fsync"]
    assert calls[0][1].endswith("a.zip.part>") and calls[2][1].endswith(f"{tmp_path}>")
    assert dest.read_bytes() == archive


@needs_strace
@pytest.mark.fault(21)
@pytest.mark.parametrize("call", ["fsync:error=EIO:when=1", "rename:error=EROFS", "ftruncate:error=EIO"])
def test_disk_that_fails_at_publication_leaves_the_old_archive(server: Any, archive: bytes, tmp_path: Path, call: str) -> None:
    dest = tmp_path / "a.zip"
    tmp_path.joinpath("a.zip.part").write_bytes(b"left by a killed attempt")
    result = under_strace(server, archive, dest, "-e", f"inject={call}", "-o", "/dev/null")
    assert "DISK E_DISK" in result.stderr
    assert dest.read_bytes() == b"the last good archive" and [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert len(server.requests) <= 1


@needs_strace
@pytest.mark.fault(21)
@pytest.mark.parametrize("call", ["write:error=ENOSPC:when=1+", "write:error=EIO:when=1"])
def test_disk_that_fails_under_the_body_ends_the_download_without_a_retry(
    server: Any, hostile: ModuleType, archive: bytes, tmp_path: Path, call: str
) -> None:
    dest = tmp_path / "a.zip"
    options = ["-P", f"{dest}.part", "-e", "trace=write", "-e", f"inject={call}", "-o", "/dev/null"]
    result = under_strace(server, archive, dest, *options, route=hostile.Faithful(archive))
    assert "DISK E_DISK" in result.stderr and len(server.requests) == 1
    assert dest.read_bytes() == b"the last good archive" and [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@needs_strace
@pytest.mark.fault(22)
@pytest.mark.parametrize(("call", "at_least"), [("fsync", 4), ("rename", 2), ("unlink", 1), ("write", 3), ("ftruncate", 1)])
def test_kill_at_every_call_that_changes_the_disk_leaves_the_old_archive_or_the_new(
    server: Any, hostile: ModuleType, archive: bytes, tmp_path: Path, manager: DownloadManager, call: str, at_least: int
) -> None:
    """The first call of the kind, the second, and so on, until the download has fewer; then the next process goes on."""
    route = hostile.Faithful(archive)
    for number in range(1, 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        dest = folder / "a.zip"
        if call == "ftruncate":  # only what is there can be thrown away
            dest.with_name("a.zip.part").write_bytes(b"of nobody")
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}", "-o", "/dev/null"]
        result = under_strace(server, archive, dest, *inject, route=route)
        assert dest.read_bytes() in (b"the last good archive", archive), number
        if result.returncode == 0:
            break
        manager.download_file(server.url("/a.zip"), dest)
        assert dest.read_bytes() == archive and [path.name for path in folder.iterdir()] == ["a.zip"], number
    assert number > at_least, "the loop saw the state, the body and the publication"


@needs_strace
@pytest.mark.fault(22)
@pytest.mark.parametrize("call", ["fsync:signal=SIGKILL:when=1", "rename:signal=SIGKILL", "fsync:signal=SIGKILL:when=2"])
def test_kill_at_publication_leaves_the_old_archive_or_the_new(
    server: Any, archive: bytes, tmp_path: Path, call: str, manager: DownloadManager
) -> None:
    dest = tmp_path / "a.zip"
    under_strace(server, archive, dest, "-e", f"inject={call}", "-o", "/dev/null")
    assert dest.read_bytes() in (b"the last good archive", archive)
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.fault(23)
def test_of_two_processes_one_downloads_and_the_other_says_that_it_is_locked(
    server: Any, hostile: ModuleType, archive: bytes, tmp_path: Path
) -> None:
    dest, may_end = tmp_path / "a.zip", threading.Event()

    def slowly(request: Any) -> None:
        request.answer("200 OK", hostile.Faithful(archive).validators(), archive[:1000], length=len(archive))
        may_end.wait(120)
        request.send(archive[1000:])

    server.routes["/a.zip"] = slowly
    program = [sys.executable, "-c", CHILD, server.url("/a.zip"), str(dest)]
    both = [subprocess.Popen(program, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    end = time.monotonic() + 120
    while all(process.poll() is None for process in both):
        assert time.monotonic() < end
        time.sleep(0.01)
    loser = next(process for process in both if process.poll() is not None)
    winner = next(process for process in both if process is not loser)
    assert "locked: another process is downloading it" in loser.communicate()[1] and loser.returncode != 0
    may_end.set()
    assert winner.communicate(timeout=120)[1] == "" and winner.returncode == 0
    assert len(server.requests) == 1 and dest.read_bytes() == archive
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.fault(23)
def test_writer_that_opened_the_part_just_before_it_was_published_spares_the_archive(
    server: Any, archive: bytes, manager: DownloadManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process renames its part between our open and our lock; what we then hold is the published archive."""
    server.routes["/a.zip"] = lambda request: request.answer("404 Not Found", {})
    dest, part, real = tmp_path / "a.zip", tmp_path / "a.zip.part", fcntl.flock
    part.write_bytes(b"published by the other")

    def lock_late(descriptor: int, operation: int) -> None:
        if not dest.exists():
            part.rename(dest)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(Exception, match="404"):
        manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == b"published by the other" and not part.exists()
