"""Opens an archive by what its bytes are, never by its name, and gives its files one after the other.

ZIP (Zip64 and self-extracting ones too), TAR, TAR.GZ and GZ. Whatever the readers of the standard library raise on damaged
bytes comes out as an ArchiveError that names the archive and, where it is known, the member.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Literal, Protocol

from pipeline.errors import ArchiveError, DiskError

Kind = Literal["zip", "tar", "tar.gz", "gz"]

#: Bytes inflated at a time; twice this much fits a core's cache, and larger chunks were measured no faster.
CHUNK_BYTES = 256 << 10

_READ_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
    LookupError,
)


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its safe name, and its bytes, which may be asked for once and before the next entry."""

    name: str
    chunks: Callable[[], Iterator[bytes]]


class OpenArchive(Protocol):
    """An archive open for reading."""

    kind: Kind
    #: All entries are known, and were found safe, before the first byte is inflated.
    is_listed: bool

    def entries(self) -> Iterator[Entry]:
        """Yield the files, in the archive's order; folders are left out."""


@contextlib.contextmanager
def reading(archive: str, name: str = "") -> Iterator[None]:
    """Turn what damaged bytes raise into an ArchiveError, and a disk that does not read into a DiskError."""
    where = f"{archive}, member {name}" if name else archive
    try:
        yield
    except _READ_ERRORS as error:
        raise damaged(where, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):
            raise damaged(where, str(error)) from error
        raise DiskError(f"reading {where} failed: {error.strerror}", "a readable archive", "mend the disk") from error


def damaged(where: str, why: str) -> ArchiveError:
    """The error of an archive whose bytes do not hold together."""
    return ArchiveError(f"{where} is damaged ({why})", "a whole archive", "download it again; tell the publisher if it stays so")


def kind_of(file: IO[bytes], archive: str) -> Kind:
    """Tell the kind by magic bytes; the file is left at its start.

    Raises:
        ArchiveError: it is none that is read here.
    """
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        with contextlib.suppress(*_READ_ERRORS):
            # A gzip whose beginning is damaged is reported by name when it is read.
            head = gzip.GzipFile(fileobj=file).read(tarfile.BLOCKSIZE)
        file.seek(0)
        return "tar.gz" if _is_tar_header(head) else "gz"
    if _is_tar_header(head):
        return "tar"
    if zipfile.is_zipfile(file):
        file.seek(0)
        return "zip"
    raise ArchiveError(
        f"{archive} is no archive: it begins with {head[:32]!r}",
        "a zip, tar, tar.gz or gz file",
        "look at what the publisher sent",
    )


def readable(path: Path, archive: str) -> BufferedReader:
    """Open an archive's file.

    Raises:
        DiskError: it is not there, or cannot be read.
    """
    with reading(archive):
        return open(path, "rb")


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True
