"""Archives that are read from front to back: TAR, plain or under gzip, bzip2 or xz, and a single file under gzip.

Sizes are counted while inflating, so that what a header claims does not matter. A TAR has no directory: an unsafe entry is
found when the reading comes to it, and one behind the last wanted member is found too, because the reading goes on to the
end. A TAR that stops without its end mark, two blocks of zeros, is damaged; tarfile alone would take it for complete. The zeros
that may pad it behind them say nothing. A plain TAR has no checksum of its content: there, only the archive's own sha256 tells damage.
"""

from __future__ import annotations

import functools
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, cast

from pipeline.catalog.model import Limits
from pipeline.extract.archive import INFLATERS, Entry, Kind, damaged, reading
from pipeline.extract.safety import check_count, check_mode, check_size, check_total, not_a_file, safe_name, unsafe
from pipeline.inflate import CHUNK_BYTES, READ_BYTES

_END_BLOCK = bytes(tarfile.BLOCKSIZE)
_TYPES = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
}


def inflated(file: IO[bytes], kind: Kind) -> Iterator[bytes]:
    """The content of a compressed file, one stream of it after the other; zeros between and behind them are padding.

    Raises:
        EOFError: it breaks off. Other damage: as the inflater says, one of ``INFLATE_ERRORS``.
        OSError: it cannot be read.
    """
    make = INFLATERS[kind]
    stream = make()
    while compressed := file.read(READ_BYTES):
        while compressed:
            if stream.is_complete:
                compressed = compressed.lstrip(b"\0")
                if not compressed:
                    break
                stream = make()
            yield from stream.feed(compressed)
            compressed = stream.rest if stream.is_complete else b""
    if not stream.is_complete:
        raise EOFError("it breaks off")


class GzArchive:
    """One file under gzip, named as the archive without ``.gz``.

    Args:
        file: the archive.
        archive: its name.
        limits: of the source.

    Raises:
        UnsafeArchive: the name is unsafe.
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
        chunks = inflated(self._file, self.kind)
        while True:
            with reading(self._archive, self._name):
                chunk = next(chunks, None)
                at = self._file.tell()
            if chunk is None:
                return
            size += len(chunk)
            check_size(self._archive, self._name, size, at, self._limits)
            yield chunk


class TarArchive:
    """A TAR, plain or compressed as a whole.

    Args:
        file: the archive.
        archive: its name, for messages.
        limits: of the source.
        kind: one of the ``tar`` kinds.
    """

    is_listed = False

    def __init__(self, file: IO[bytes], archive: str, limits: Limits, kind: Kind) -> None:
        self.kind: Kind = kind
        self._archive = archive
        self._limits = limits
        self._reader = _ForwardReader(file, archive, limits, kind)

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
            if self._reader.last_read != _END_BLOCK or self._reader.read(len(_END_BLOCK)) != _END_BLOCK:
                raise damaged(self._archive, f"it breaks off, or a header is damaged, after {count} entries")
            self._reader.read_to_end()

    def _checked_name(self, header: tarfile.TarInfo) -> str | None:
        """The safe name of a file; None for a folder."""
        if header.isdir() and header.name == ".":
            return None
        name = safe_name(self._archive, header.name)
        if header.issparse():
            raise not_a_file(self._archive, name, "a sparse file", repr(header.type))
        if not (header.isreg() or header.isdir()):
            raise not_a_file(self._archive, name, _TYPES.get(header.type, "of an unknown kind"), repr(header.type))
        check_mode(self._archive, name, (stat.S_IFREG if header.isreg() else stat.S_IFDIR) | (header.mode & 0o7777))
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

    def __init__(self, file: IO[bytes], archive: str, limits: Limits, kind: Kind) -> None:
        self._raw = file
        self._is_plain = kind == "tar"
        self._chunks = iter(functools.partial(file.read, CHUNK_BYTES), b"") if self._is_plain else inflated(file, kind)
        self._open = b""
        self._archive = archive
        self._limits = limits
        self._at = 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK_BYTES:
            raise unsafe(self._archive, f"a header of {size} bytes", f"at most {CHUNK_BYTES}")
        pieces = []
        missing = size
        while missing:
            if not self._open:
                self._open = next(self._chunks, b"")
                if not self._open:
                    break
            piece, self._open = self._open[:missing], self._open[missing:]
            pieces.append(piece)
            missing -= len(piece)
        self.last_read = b"".join(pieces)
        self._at += len(self.last_read)
        # What is padding or skipped counts as well.
        if not self._is_plain:
            check_total(self._archive, self._at, self._raw.tell(), self._limits)
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
        """Read the padding, and with it the last checksum."""
        while self.read(CHUNK_BYTES):
            pass
