"""Opens an archive by what its bytes are, never by its name, and gives its files one after the other.

ZIP (Zip64 and self-extracting ones too), TAR (plain, under gzip, bzip2 or xz) and GZ. Whatever the readers raise on damaged
bytes comes out as an ArchiveError that names the archive and, where it is known, the member.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Literal, Protocol

from pipeline import inflate
from pipeline.errors import ArchiveError, DiskError
from pipeline.inflate import INFLATE_ERRORS

Kind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "gz"]

_READ_ERRORS: tuple[type[Exception], ...] = (
    *INFLATE_ERRORS,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    struct.error,
    OverflowError,
    RuntimeError,
    LookupError,
)

#: Enough for one block of bzip2, which gives nothing out before its end.
_HEAD_BYTES = 1 << 20
_PEEK_BYTES = 64
#: First bytes of a compressed stream, the kind when it holds a TAR, and its inflater.
_STREAMS: tuple[tuple[bytes, Kind, Callable[[], inflate.Inflater]], ...] = (
    (b"\x1f\x8b", "tar.gz", inflate.gzip),
    (b"BZh", "tar.bz2", inflate.bzip2),
    (b"\xfd7zXZ\0", "tar.xz", inflate.xz),
)
#: How each kind of stream is inflated.
INFLATERS: dict[Kind, Callable[[], inflate.Inflater]] = {kind: make for _, kind, make in _STREAMS} | {"gz": inflate.gzip}


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its safe name, and its bytes, which may be asked for once and before the next entry.

    ``hides`` is what keeps an inner archive closed: nobody can say which members lie in it.
    """

    name: str
    chunks: Callable[[], Iterator[bytes]]
    hides: ArchiveError | None = None


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
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    for magic, kind, make in _STREAMS:
        if head.startswith(magic):
            if _is_tar_header(_first_block(make(), head)):
                return kind
            if kind == "tar.gz":
                # One whose beginning is damaged is reported by name when it is read.
                return "gz"
            raise _none(archive, f"a {kind.removeprefix('tar.')} stream that holds no tar")
    if _is_tar_header(head[: tarfile.BLOCKSIZE]):
        return "tar"
    if zipfile.is_zipfile(file):
        file.seek(0)
        return "zip"
    raise _none(archive, f"it begins with {head[:32]!r}")


def _none(archive: str, seen: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} is no archive: {seen}", "a zip, tar, tar.gz, tar.bz2, tar.xz or gz file", "look at what the publisher sent"
    )


def _first_block(inflater: inflate.Inflater, head: bytes) -> bytes:
    """The first bytes of a compressed stream; fewer where it is short or damaged."""
    block = b""
    with contextlib.suppress(*_READ_ERRORS, OSError):
        # Little by little: of a short stream fed whole nothing would come out when only its checksum at the end is wrong.
        for at in range(0, len(head), _PEEK_BYTES):
            for chunk in inflater.feed(head[at : at + _PEEK_BYTES]):
                block += chunk
            if len(block) >= tarfile.BLOCKSIZE:
                break
    return block[: tarfile.BLOCKSIZE]


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
