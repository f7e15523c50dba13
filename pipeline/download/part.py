"""The file that a download grows in: ``<dest>.part``, with one writer at a time.

The writer holds a lock on the file itself, which ends with the process however it ends. A second writer is told so at
once. The part is removed when the download fails, and becomes the archive by one rename when it succeeds; in between the
bytes and then the name are made durable, so that a power cut leaves the old archive or the new one. Whatever the disk
refuses becomes a DiskError; the archive that was there before is not touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DiskError, DownloadError
from pipeline.handoff import fsync_folder


class PartFile:
    """An open, locked ``.part``; made by :func:`claim_part`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def restart(self) -> None:
        """Throw away what is in it."""
        with disk_errors(self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)

    def write(self, chunk: bytes) -> None:
        """Append all of the chunk.

        Raises:
            DiskError: the disk is full, or failed.
        """
        rest = memoryview(chunk)
        with disk_errors(self.path):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def publish(self, dest: Path) -> None:
        """Make it durable under its final name, in place of what was there.

        Raises:
            DiskError: fsync or rename failed.
        """
        with disk_errors(dest):
            os.fsync(self._descriptor)
            self.path.replace(dest)
            fsync_folder(dest.parent)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DiskError that names the file."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"writing {path} failed: {error.strerror or error}",
            "a writable disk with room for the archive",
            "free space or mend the disk; the next run downloads again",
        ) from error


@contextlib.contextmanager
def claim_part(path: Path) -> Iterator[PartFile]:
    """Open and lock a part; remove it at the end unless it was published.

    Raises:
        DownloadError: another process is writing it.
        DiskError: it cannot be made.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    try:
        yield PartFile(path, descriptor)
    finally:
        if _is_name_of(path, descriptor):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DownloadError(
                f"{path} is locked: another process is downloading it", "one writer", "nothing: the next run finds its result"
            ) from None
        # Between open and lock the other writer may have published the file that we hold: then it is not ours to write.
        if _is_name_of(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_name_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
