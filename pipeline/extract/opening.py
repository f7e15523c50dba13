"""The one place that knows which class reads which kind of archive."""

from __future__ import annotations

from typing import IO

from pipeline.catalog.model import Limits
from pipeline.extract.archive import OpenArchive, kind_of, reading
from pipeline.extract.stream_archive import GzArchive, TarArchive
from pipeline.extract.zip_archive import ZipArchive


def open_archive(file: IO[bytes], archive: str, limits: Limits) -> OpenArchive:
    """Open an archive by its magic bytes.

    Args:
        file: at its start, seekable.
        archive: its name, for messages.
        limits: of the source.

    Raises:
        ArchiveError: it is none, is damaged, unsafe or beyond the limits.
    """
    with reading(archive):
        kind = kind_of(file, archive)
    if kind == "zip":
        return ZipArchive(file, archive, limits)
    if kind == "gz":
        return GzArchive(file, archive, limits)
    return TarArchive(file, archive, limits, kind)
