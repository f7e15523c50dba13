"""Disks that fill up, fail and go read-only, and processes killed at any system call, leave a whole folder or none."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_maker import zip_of

from pipeline.catalog.model import Limits
from pipeline.errors import DiskError, PipelineError
from pipeline.extract import ExtractManager, WantedMember

FILES = {"a.txt": b"0001\tMAIN\r\n" * 300, "b.txt": b"0002\tOAK\r\n" * 300, "other.txt": b"x\n"}
WANTED = [WantedMember("a.txt"), WantedMember("b.txt")]
DEADLINE_S = 180.0
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_mount = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")


def extracting(archive: Path, out: Path, go: int, told: int) -> None:
    """What the child does: wait for the word, extract, and end with 0, or tell the error and end with 1. It never returns."""
    try:
        os.read(go, 1)
        ExtractManager(part_bytes=1000, limits=Limits(9, 1 << 40, 1e9)).extract_archive(archive, out, members=WANTED)
        os._exit(0)
    except PipelineError as error:
        os.write(told, str(error).encode())
        os._exit(1)
    finally:
        os._exit(2)


def traced(
    injection: str,
    archive: Path,
    out: Path,
    *,
    deadline_s: float = DEADLINE_S,
    meanwhile: Callable[[int, int], None] | None = None,
    trace: Path = Path(os.devnull),
) -> tuple[int, str]:
    """Extract in a forked child, into whose system calls strace injects; gives its exit code (negative: a signal) and its error.

    A child has everything imported already: to start a Python for each call would take most of a test's time. A child that is left
    standing, by a strace that died, say, is killed after ``DEADLINE_S``, and no result is made of it.
    """
    go_read, go = os.pipe()
    told_read, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told_read)
        extracting(archive, out, go_read, told)
    os.close(go_read)
    os.close(told)
    command = ["strace", "-p", str(child), "-y", "-o", str(trace), "-e", f"inject={injection}"]
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        os.kill(child, signal.SIGKILL)
        strace.kill()

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace, os.fdopen(told_read) as answer:
        assert strace.stderr is not None
        deadline = threading.Timer(deadline_s, give_up)
        deadline.start()
        said = strace.stderr.readline()
        if meanwhile is not None:
            meanwhile(child, strace.pid)
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
        os.write(go, b"!")
        os.close(go)
        told_text = answer.read()
        # Not reaped yet: until then its number is nobody else's, whenever the deadline comes.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        deadline.cancel()
        deadline.join()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not is_late.is_set(), f"the child stood still for {deadline_s} s"
    if "attached" not in said:
        pytest.skip(f"strace cannot look at a process here: {said.strip()}")
    return code, told_text


def is_whole(folder: Path) -> bool:
    return ExtractManager(limits=None).verify_members(folder) == ()  # type: ignore[arg-type]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(FILES))
    return path


@needs_strace
@pytest.mark.fault(36)
@pytest.mark.parametrize(("call", "calls"), [("mkdir", 2), ("write", 3), ("fsync", 6), ("rename", 2)])
def test_killed_at_any_system_call_leaves_a_whole_folder_or_none_and_the_next_run_cleans_up(
    manager: ExtractManager, archive: Path, tmp_path: Path, call: str, calls: int
) -> None:
    root = tmp_path / "members"
    good, out = root / "last-good", root / "out"
    manager.extract_archive(archive, good, members=WANTED)
    killed = 0
    while (done := traced(f"{call}:signal=SIGKILL:when={killed + 1}", archive, out))[0]:
        assert done[0] == -signal.SIGKILL, done
        killed += 1
        assert not out.exists() or is_whole(out), f"{call} {killed}"
        manager.extract_archive(archive, out, members=WANTED)
        assert sorted(path.name for path in root.iterdir()) == ["last-good", "out"], f"{call} {killed}"
        assert is_whole(out) and is_whole(good)
        shutil.rmtree(out)
    assert killed >= calls and is_whole(out)


@needs_strace
@pytest.mark.fault(36)
def test_files_and_folder_are_durable_before_the_folders_name_and_the_name_before_success(archive: Path, tmp_path: Path) -> None:
    root, trace = tmp_path / "members", tmp_path / "trace"
    assert traced("fsync,rename:delay_exit=1", archive, root / "out", trace=trace) == (0, "")
    calls = re.findall(r"^(fsync|rename)\w*\((.*)\) += 0", trace.read_text(), re.MULTILINE)
    at = next(number for number, (name, what) in enumerate(calls) if name == "rename" and what.endswith('/out"'))
    before = {what.rpartition("<")[2].rstrip(">").rpartition(".part")[2] for name, what in calls[:at] if name == "fsync"}
    assert before >= {"/a.txt", "/b.txt", "/manifest.json", ""}
    assert any(name == "fsync" and what.endswith(f"<{root}>") for name, what in calls[at:])


@needs_strace
def test_child_that_stands_still_ends_the_test_and_not_the_suite(archive: Path, tmp_path: Path) -> None:
    def stop(child: int, strace: int) -> None:
        os.kill(child, signal.SIGSTOP)
        os.kill(strace, signal.SIGKILL)

    with pytest.raises(AssertionError, match="stood still for 1 s"):
        traced("fsync:delay_enter=2000000:when=1", archive, tmp_path / "members" / "out", deadline_s=1, meanwhile=stop)


@needs_mount
@pytest.mark.fault(36)
@pytest.mark.parametrize("room_kb", [4, 12, 200])
def test_disk_that_is_full_while_unpacking_leaves_nothing_and_the_last_good_folder(
    manager: ExtractManager, small_disk: Path, tmp_path: Path, room_kb: int
) -> None:
    archive = tmp_path / "big.zip"
    archive.write_bytes(zip_of({"a.txt": b"0001\tMAIN\r\n" * 100_000, "b.txt": b"1\n"}))
    little = tmp_path / "little.zip"
    little.write_bytes(zip_of({"a.txt": b"1\n", "b.txt": b"2\n"}))
    good = manager.extract_archive(little, small_disk / "last-good", members=WANTED)
    free = os.statvfs(small_disk)
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(max(0, free.f_bavail * free.f_frsize - room_kb * 1024)))
    with pytest.raises(DiskError, match="No space left"):
        manager.extract_archive(archive, small_disk / "out", members=WANTED)
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "last-good"]
    assert manager.extract_archive(archive, small_disk / "last-good", members=WANTED) == good


@needs_mount
@pytest.mark.fault(36)
def test_disk_that_is_read_only_is_a_disk_error(manager: ExtractManager, archive: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DiskError, match="Read-only"):
        manager.extract_archive(archive, small_disk / "out", members=WANTED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@needs_strace
@pytest.mark.fault(36)
def test_fsync_that_fails_publishes_nothing(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "members"
    root.mkdir()
    for number in range(1, 5):
        code, error = traced(f"fsync:error=EIO:when={number}", archive, root / "out")
        assert code == 1 and "E_DISK" in error and "Input/output error" in error
        assert list(root.iterdir()) == []
