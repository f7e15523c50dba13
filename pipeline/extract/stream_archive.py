"""Archives that are read from front to back: TAR, TAR.GZ and a single file under GZ.

Sizes are counted while inflating, so that what a header claims does not matter. A TAR has no directory: an unsafe entry is
found when the reading comes to it, and one behind the last wanted member is found too, because the reading goes on to the
end. A TAR that stops without its end mark is damaged; tarfile alone would take it for complete.
"""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
from collections.abc import Iterator
from typing import IO, cast

from pipeline.catalog.model import Limits
from pipeline.extract.archive import CHUNK_BYTES, Entry, Kind, damaged, reading
from pipeline.extract.safety import check_count, check_mode, check_size, safe_name, unsafe

_END_MARK = bytes(tarfile.BLOCKSIZE)


class GzArchive:
    """One file under GZ, named as the archive without ``.gz``.

    Args:
        file: the archive.
        archive: its name.
        limits: of the source.

    Raises:
        ArchiveError: the name is unsafe.
    """

    kind: Kind = "gz"
    is_listed = True

    def __init__(self, file: IO[bytes], archive: str, limits: Limits) -> None:
        self._file = file
        self._archive = archive
        self._limits = limits
        self._name = safe_name(archive, archive[:-3] if archive.lower().endswith(".gz") else archive)

    def entries(self) -> Iterator[Entry]:
        """Yield the one file."""
        yield Entry(self._name, self._chunks)

    def _chunks(self) -> Iterator[bytes]:
        size = 0
        with gzip.GzipFile(fileobj=self._file) as inflated:
            while True:
                with reading(self._archive, self._name):
                    chunk = inflated.read(CHUNK_BYTES)
                if not chunk:
                    return
                size += len(chunk)
                check_size(self._archive, self._name, size, self._file.tell(), self._limits)
                yield chunk


class TarArchive:
    """A TAR, plain or under GZ.

    Args:
        file: the archive.
        archive: its name, for messages.
        limits: of the source.
        kind: ``tar`` or ``tar.gz``.
    """

    is_listed = False

    def __init__(self, file: IO[bytes], archive: str, limits: Limits, kind: Kind) -> None:
        self.kind: Kind = kind
        self._archive = archive
        self._limits = limits
        self._reader = _ForwardReader(file, archive, limits, is_gzip=kind == "tar.gz")

    def entries(self) -> Iterator[Entry]:
        """Yield the files, in order; one that is passed over is not checked beyond its header."""
        with reading(self._archive):
            tar = tarfile.TarFile(fileobj=cast(IO[bytes], self._reader), mode="r", encoding="utf-8")
        count = 0
        while True:
            with reading(self._archive):
                header = tar.next()
            if header is None:
                break
            count += 1
            check_count(self._archive, count, self._limits)
            name = self._checked_name(header)
            if name is not None:
                yield Entry(name, functools.partial(self._chunks, name, header))
        with reading(self._archive):
            if self._reader.last_read != _END_MARK:
                raise damaged(self._archive, f"it breaks off, or a header is damaged, after {count} entries")
            self._reader.read_to_end()

    def _checked_name(self, header: tarfile.TarInfo) -> str | None:
        """The safe name of a file; None for a folder."""
        if header.isdir() and header.name == ".":
            return None
        name = safe_name(self._archive, header.name)
        if not (header.isreg() or header.isdir()) or header.issparse():
            raise unsafe(self._archive, f"the entry {name} is of type {header.type!r}", "plain files and folders")
        check_mode(self._archive, name, header.mode & 0o6000 if header.isreg() else 0)
        check_size(self._archive, name, header.size, header.size, self._limits)
        return name if header.isreg() else None

    def _chunks(self, name: str, header: tarfile.TarInfo) -> Iterator[bytes]:
        left = header.size
        while left:
            with reading(self._archive, name):
                chunk = self._reader.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise damaged(f"{self._archive}, member {name}", f"{left} bytes are missing")
            left -= len(chunk)
            yield chunk


class _ForwardReader:
    """What tarfile needs of a file, over a stream that cannot go back.

    A single read is refused beyond what a header may need, so that a header cannot ask for memory.
    """

    def __init__(self, file: IO[bytes], archive: str, limits: Limits, *, is_gzip: bool) -> None:
        self._raw = file
        self._source: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_gzip else file
        self._archive = archive
        self._limits = limits
        self._is_gzip = is_gzip
        self._at = 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK_BYTES:
            raise unsafe(self._archive, f"a header of {size} bytes", f"at most {CHUNK_BYTES}")
        pieces = io.BytesIO()
        while pieces.tell() < size:
            piece = self._source.read(size - pieces.tell())
            if not piece:
                break
            pieces.write(piece)
        self.last_read = pieces.getvalue()
        self._at += len(self.last_read)
        if self._is_gzip:
            whole = Limits(
                self._limits.max_members, self._limits.max_member_bytes * self._limits.max_members, self._limits.max_ratio
            )
            check_size(self._archive, "the whole", self._at, self._raw.tell(), whole)
        return self.last_read

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        if position < self._at:
            raise ValueError(f"an entry begins at {position}, before the byte {self._at} that was read already")
        while self._at < position and self.read(min(position - self._at, CHUNK_BYTES)):
            pass
        return self._at

    def read_to_end(self) -> None:
        """Read the padding, and with it a gzip's checksum."""
        while self.read(CHUNK_BYTES):
            pass
