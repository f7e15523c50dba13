"""The folder that an extraction makes: there in full or not at all.

Files are written into ``.<name>.<pid>.part`` beside it, which one rename turns into the folder. The working folder is locked
while its process lives, however it ends; the next extraction of the same folder removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ArchiveError, DiskError, TransientError
from pipeline.extract.wanted import MANIFEST
from pipeline.handoff import UNREADABLE, Manifest, read_json

_FOLDER_MODE = 0o750
_FILE_MODE = 0o640


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DiskError that names the path."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"writing {path} failed: {error.strerror or error}",
            "a writable disk with room for the members",
            "free space or mend the disk; the next run extracts again",
        ) from error


def existing_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a finished folder; None when there is no folder.

    Raises:
        ArchiveError: something stands under the name that no extraction made, or files are gone from it.
    """
    if not os.path.lexists(folder):
        return None
    todo = "remove it; the next run extracts again"
    if folder.is_symlink() or not folder.is_dir():
        raise ArchiveError(f"{folder} is a link or a file", "a folder that an extraction made, or nothing", todo)
    try:
        manifest = Manifest.from_json(read_json(folder / MANIFEST))
        sizes = {member.file: (folder / member.file).stat().st_size for member in manifest.members}
    except (OSError, *UNREADABLE) as error:
        raise ArchiveError(f"{folder} has no readable {MANIFEST} or lacks a member ({error})", "both", todo) from error
    for member in manifest.members:
        if sizes[member.file] != member.bytes:
            raise ArchiveError(f"{folder / member.file} has {sizes[member.file]} bytes", f"{member.bytes} bytes", todo)
    return manifest


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """Make and lock a working folder beside ``folder``; remove it at the end unless it was renamed.

    Raises:
        TransientError: another thread of this process is extracting the same folder.
        DiskError: it cannot be made.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    with writing(part):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        descriptor = _make_locked(part)
    try:
        yield part
    finally:
        try:
            if _is_name_of(part, descriptor):
                with writing(part):
                    shutil.rmtree(part)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove working folders of ``folder`` whose processes are gone."""
    before, after = f".{folder.name}.", ".part"
    for path in folder.parent.iterdir():
        if not (path.name.startswith(before) and path.name.endswith(after) and path.name[len(before) : -len(after)].isdecimal()):
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        descriptor = _lock(path)
        if descriptor is not None:
            try:
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


def create_file(folder: Path, file: str) -> int:
    """Create a member's file in a working folder and return its descriptor; never through a link, never over another."""
    path = folder / file
    if path.parent != folder:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)


def write_all(descriptor: int, chunk: bytes) -> None:
    """Write every byte of the chunk."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _make_locked(part: Path) -> int:
    while True:
        try:
            part.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            raise TransientError(
                f"{part} is being written by this process", "one extraction of a folder at a time", "nothing"
            ) from None
        descriptor = _lock(part)
        # Before the lock was ours, another process may have taken the new folder for a leftover.
        if descriptor is not None:
            if _is_name_of(part, descriptor):
                return descriptor
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a folder; None: somebody holds it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_name_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
