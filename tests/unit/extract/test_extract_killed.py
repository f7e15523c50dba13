"""Disks that fill up, fail and go read-only, and processes killed at any system call, leave a whole folder or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_maker import zip_of

from pipeline.errors import DiskError
from pipeline.extract import ExtractManager, WantedMember

FILES = {"a.txt": b"0001\tMAIN\r\n" * 300, "b.txt": b"0002\tOAK\r\n" * 300, "other.txt": b"x\n"}
WANTED = [WantedMember("a.txt"), WantedMember("b.txt")]
EXTRACT = textwrap.dedent("""
    import sys
    from pathlib import Path
    from pipeline.catalog.model import Limits
    from pipeline.errors import PipelineError
    from pipeline.extract import ExtractManager, WantedMember
    try:
        ExtractManager(part_bytes=1000, limits=Limits(9, 1 << 40, 1e9)).extract_archive(
            Path(sys.argv[1]), Path(sys.argv[2]), members=[WantedMember("a.txt"), WantedMember("b.txt")])
    except PipelineError as error:
        sys.exit(str(error))
""")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_mount = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")


def traced(injection: str, archive: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Extract in a process of its own, into whose system calls strace injects."""
    program = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"inject={injection}"]
    program += [sys.executable, "-c", EXTRACT, str(archive), str(out)]
    return subprocess.run(program, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=60)


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
    while (done := traced(f"{call}:signal=SIGKILL:when={killed + 1}", archive, out)).returncode:
        assert done.returncode in (-9, 137), done.stderr
        killed += 1
        assert not out.exists() or is_whole(out), f"{call} {killed}"
        manager.extract_archive(archive, out, members=WANTED)
        assert sorted(path.name for path in root.iterdir()) == ["last-good", "out"], f"{call} {killed}"
        assert is_whole(out) and is_whole(good)
        shutil.rmtree(out)
    assert killed >= calls and is_whole(out)


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
        done = traced(f"fsync:error=EIO:when={number}", archive, root / "out")
        assert done.returncode == 1 and "E_DISK" in done.stderr and "Input/output error" in done.stderr
        assert list(root.iterdir()) == []
