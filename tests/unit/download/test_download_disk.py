"""Disks that are full, read-only or broken: an error that names the disk, the old archive, and no loop of retries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fixtures.small_disk import mounted

from pipeline.download import DownloadManager
from pipeline.download.progress import Progress, write_progress
from pipeline.errors import DiskError

Make = Callable[..., DownloadManager]


@pytest.mark.fault(21)
@pytest.mark.parametrize("states_length", [True, False])
def test_full_disk_ends_the_download_and_gets_its_bytes_back(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, tmp_path: Path, states_length: bool
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=128k", "none"):
        dest = folder / "a.zip"
        dest.write_bytes(b"the last good archive")
        server.routes["/a.zip"] = hostile.Faithful(archive, states_length=states_length)
        # With a length the room is looked at first, without one the disk says it.
        with pytest.raises(DiskError, match="bytes free" if states_length else "No space left on device"):
            make_manager(unpack_factor=0).download_file(server.url("/a.zip"), dest)
        assert len(server.requests) == 1
        assert dest.read_bytes() == b"the last good archive" and os.listdir(folder) == ["a.zip"]


@pytest.mark.fault(21)
def test_disk_that_became_read_only_ends_the_download(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, tmp_path: Path
) -> None:
    folder = tmp_path / "frozen"
    folder.mkdir()
    dest = folder / "a.zip"
    dest.write_bytes(b"the last good archive")
    server.routes["/a.zip"] = hostile.Faithful(archive)
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(DiskError, match="Read-only file system"):
            manager.download_file(server.url("/a.zip"), dest)
    assert not server.requests
    assert dest.read_bytes() == b"the last good archive" and os.listdir(folder) == ["a.zip"]
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive


@pytest.mark.fault(21)
def test_full_disk_under_the_progress_is_an_error_of_ours_and_takes_no_room(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=4k", "none"):
        (folder / "ballast").write_bytes(bytes(4096))
        with pytest.raises(DiskError, match="No space left on device"):
            write_progress(folder, "a.zip", Progress("a.zip", 1, None, None, None))
        assert os.listdir(folder) == ["ballast"]
