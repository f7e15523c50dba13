"""Members that lie in a zip inside the archive, for the sources that say so.

Some districts pack a zip a table and all of them into one. Where ``source.toml`` says ``nested``, an entry whose content begins
as a zip does is opened in its place, and its files are judged and counted as if they lay in a folder of its name. That goes one
level deep: a zip in it is a file like any other, so an archive that contains itself ends there. The inner zip lies in a
temporary file without a name while it is read, which no kill leaves behind.

Damage is told where it is met, as a file under the entry's own name whose bytes cannot be had: the one who reads knows whether it is
wanted. An inner zip that is damaged on the way is opened all the same, because its members have checksums of their own.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError, ArchiveTooLarge, UnsafeArchive
from pipeline.extract.archive import Entry, OpenArchive
from pipeline.extract.folder import writing
from pipeline.extract.safety import check_count, check_total
from pipeline.extract.zip_archive import ZipArchive

_ZIP = b"PK\x03\x04"


def entries_within(opened: OpenArchive, archive: str, archive_bytes: int, limits: Limits, scratch: Path | None) -> Iterator[Entry]:
    """Yield the files of an archive, those of inner zips in their place.

    Args:
        opened: the outer archive.
        archive: its name, for messages.
        archive_bytes: its length.
        limits: hold over the outer and the inner entries together.
        scratch: the folder whose disk holds an inner zip while it is read; None: the system's for temporary files.

    Yields:
        The files. One that is damaged at its beginning, encrypted, or an inner zip that is damaged, raises when its bytes are asked for.

    Raises:
        UnsafeArchive: an inner zip holds an unsafe entry.
        ArchiveTooLarge: a limit is exceeded.
        DiskError: an inner zip cannot be held.
    """
    count = size = 0
    for entry in opened.entries():
        count += 1
        check_count(archive, count, limits)
        chunks = entry.chunks()
        try:
            begin = _beginning(chunks)
        except ArchiveError as error:
            # No byte of it shows what it is: its name must do.
            yield _unreadable(entry, error, is_zip=entry.name.casefold().endswith(".zip"))
            continue
        whole = itertools.chain([begin] if begin else [], chunks)
        if not begin.startswith(_ZIP):
            yield Entry(entry.name, functools.partial(iter, whole))
            continue
        with _spooled(whole, scratch or Path(tempfile.gettempdir())) as (file, damage):
            try:
                inner = ZipArchive(file, f"{archive}/{entry.name}", replace(limits, max_members=limits.max_members - count))
            except (UnsafeArchive, ArchiveTooLarge):
                raise
            except ArchiveError as error:
                yield _unreadable(entry, damage or error, is_zip=True)
                continue
            if damage is not None:
                yield _unreadable(entry, damage, is_zip=False)
            size += inner.stated_bytes
            check_total(archive, size, archive_bytes, limits)
            for within in inner.entries():
                count += 1
                yield Entry(f"{entry.name}/{within.name}", within.chunks)


def _beginning(chunks: Iterator[bytes]) -> bytes:
    """The first chunks, until they show whether it is a zip."""
    begin = b""
    while len(begin) < len(_ZIP) and (chunk := next(chunks, b"")):
        begin += chunk
    return begin


def _unreadable(entry: Entry, error: ArchiveError, *, is_zip: bool) -> Entry:
    """An entry whose bytes raise what was found; a zip hides what lies in it."""

    def chunks() -> Iterator[bytes]:
        yield from ()
        raise error

    return Entry(entry.name, chunks, hides=error if is_zip else None)


@contextlib.contextmanager
def _spooled(chunks: Iterator[bytes], folder: Path) -> Iterator[tuple[IO[bytes], ArchiveError | None]]:
    """The chunks as a file without a name, at its start; and what broke them off, or was found wrong behind the last."""
    damage: ArchiveError | None = None
    with writing(folder):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    with file:
        try:
            for chunk in chunks:
                with writing(folder):
                    file.write(chunk)
        except (UnsafeArchive, ArchiveTooLarge):
            raise
        except ArchiveError as error:
            damage = error
        with writing(folder):
            file.flush()
            file.seek(0)
        yield file, damage
