"""Members that lie in a zip inside the archive, for the sources that say so.

Some districts pack a zip a table and all of them into one. Where ``source.toml`` says ``nested``, an entry whose content begins
as a zip does is opened in its place, and its files are judged and counted as if they lay in a folder of its name. That goes one
level deep: a zip in it is a file like any other, so an archive that contains itself ends there. The inner zip lies in a
temporary file without a name while it is read, which no kill leaves behind.
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

    Raises:
        ArchiveError: an inner zip is damaged, or one of its kinds: it is unsafe or beyond the limits.
        DiskError: an inner zip cannot be held.
    """
    count = size = 0
    for entry in opened.entries():
        count += 1
        check_count(archive, count, limits)
        chunks = entry.chunks()
        begin = b""
        while len(begin) < len(_ZIP) and (chunk := next(chunks, b"")):
            begin += chunk
        whole = itertools.chain([begin] if begin else [], chunks)
        if not begin.startswith(_ZIP):
            yield Entry(entry.name, functools.partial(iter, whole))
            continue
        with _spooled(whole, scratch or Path(tempfile.gettempdir())) as file:
            inner = ZipArchive(file, f"{archive}/{entry.name}", replace(limits, max_members=limits.max_members - count))
            size += inner.stated_bytes
            check_total(archive, size, archive_bytes, limits)
            for within in inner.entries():
                count += 1
                yield Entry(f"{entry.name}/{within.name}", within.chunks)


@contextlib.contextmanager
def _spooled(chunks: Iterator[bytes], folder: Path) -> Iterator[IO[bytes]]:
    """The chunks as a file without a name, at its start."""
    with writing(folder):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    with file:
        for chunk in chunks:
            with writing(folder):
                file.write(chunk)
        with writing(folder):
            file.flush()
            file.seek(0)
        yield file
