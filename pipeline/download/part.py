"""The file that a download grows in: ``<dest>.part``, with one writer at a time.

The writer holds a lock on the file itself, which ends with the process however it ends. A second writer is told so at
once. A part that may be gone on with has a state file beside it, ``<dest>.part.json``, and both are kept when the download
fails in a way that may pass, or is interrupted; after every other failure they are removed. The part becomes the archive by
one rename; in between the bytes and then the name are made durable, so that a power cut leaves the old archive or the new
one. Whatever the disk refuses becomes a DiskError; the archive that was there before is not touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.download.resume import PartState
from pipeline.errors import DiskError, DownloadError, PipelineError
from pipeline.handoff import fsync_folder, read_json, write_json

if TYPE_CHECKING:
    from hashlib import _Hash

_READ_BYTES = 1 << 20


class PartFile:
    """An open, locked ``.part``; made by :func:`claim_part`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._state_path = path.with_name(f"{path.name}.json")
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        """Bytes in it."""
        with disk_errors(self.path):
            return os.fstat(self._descriptor).st_size

    def state(self) -> PartState | None:
        """What its bytes are the beginning of; None where nobody knows, or there are none."""
        if self.size == 0:
            return None
        try:
            with disk_errors(self._state_path):
                return PartState.from_json(read_json(self._state_path))
        except (ValueError, RecursionError):
            return None  # Not ours, or damaged: then the bytes count for nothing.
        except DiskError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def restart(self, state: PartState | None = None) -> None:
        """Throw away what is in it.

        Args:
            state: what will be in it from now on; None where it cannot be gone on with later.
        """
        with disk_errors(self.path):
            # In this order, and durable, so that no state ever speaks for the bytes of another version.
            self._state_path.unlink(missing_ok=True)
            if self.size:
                os.ftruncate(self._descriptor, 0)
                os.fsync(self._descriptor)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            if state is not None:
                write_json(self._state_path, state)

    def digest(self) -> _Hash:
        """The sha256 over all bytes in it, read from the disk; what is written next goes behind them."""
        digest, at = hashlib.sha256(), 0
        with disk_errors(self.path):
            while chunk := os.pread(self._descriptor, _READ_BYTES, at):
                digest.update(chunk)
                at += len(chunk)
            os.lseek(self._descriptor, at, os.SEEK_SET)
        return digest

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
            self._state_path.unlink(missing_ok=True)
            fsync_folder(dest.parent)

    def free_bytes(self) -> int:
        """What an ordinary user may still write to its disk."""
        with disk_errors(self.path):
            disk = os.fstatvfs(self._descriptor)
        return disk.f_bavail * disk.f_frsize

    def release(self, *, keep: bool) -> None:
        """Unlock it; remove it and its state unless it was published, or is kept and may be gone on with."""
        try:
            with disk_errors(self.path):
                if _is_name_of(self.path, self._descriptor) and not (keep and self.state() is not None):
                    self._state_path.unlink(missing_ok=True)
                    self.path.unlink()
        finally:
            os.close(self._descriptor)


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
    """Open and lock a part; at the end keep it for the next attempt or remove it, unless it was published.

    It is kept after a failure that may pass, and when the program is interrupted; a disk that failed keeps nothing.

    Raises:
        DownloadError: another process is writing it.
        DiskError: it cannot be made.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.json.*.part"):
            leftover.unlink(missing_ok=True)  # Of a state that a killed writer was about to name; we hold its lock now.
    part, keep = PartFile(path, descriptor), False
    try:
        yield part
    except BaseException as error:
        keep = isinstance(error, DownloadError) or not isinstance(error, PipelineError)
        raise
    finally:
        part.release(keep=keep)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DownloadError(
                f"{path} is locked: another process is downloading it", "one writer",
                "nothing: the next run finds its result; should that process stand still, end it (fuser names it)",
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
