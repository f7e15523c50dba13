"""Inflates: compressed bytes go in as they come, chunks of a bounded size come out, whatever the compression's ratio.

Deflate is inflated by ISA-L, 2.5 times as fast as zlib on rolls (see scripts/bench.py acquire); Deflate64, which zlib does not know,
by inflate64; bzip2 and LZMA by the standard library. An inflater knows whether its stream came to its own end, and gives
back what lies behind it. No stream can make it hold more than some tens of megabytes: what a header asks for is limited.
It knows no archive, so that the download, which reads an archive through to find its end, inflates as the extraction does.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import inflate64
from isal import igzip_lib, isal_zlib

#: Bytes inflated at a time; twice this much fits a core's cache, and larger chunks were measured no faster.
CHUNK_BYTES = 256 << 10
#: Compressed bytes read at a time.
READ_BYTES = 64 << 10
#: Fed to Deflate64 at a time: one code of it stands for up to 64 KiB, and it gives out all that it can at once.
_DEFLATE64_FEED_BYTES = 1 << 10
#: The most memory that a stream's own dictionary may take; ``xz -9`` needs 65 MiB.
DICTIONARY_BYTES = 96 << 20

#: What the libraries raise on damaged bytes; bz2 raises an OSError without a number besides.
INFLATE_ERRORS: tuple[type[Exception], ...] = (
    lzma.LZMAError,
    # Its type file calls the class an instance.
    cast(type[Exception], igzip_lib.error),
    EOFError,
    ValueError,
)

crc32: Callable[[bytes, int], int] = isal_zlib.crc32


class Inflater(Protocol):
    """One compressed stream."""

    @property
    def is_complete(self) -> bool:
        """Whether the stream came to its own end; never, where it has no end mark (LZMA in a ZIP may have none)."""

    @property
    def rest(self) -> bytes:
        """What was fed beyond that end."""

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Inflate these bytes; must be exhausted before the next call."""


class _Decompressor(Protocol):
    """What bz2, lzma and igzip have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Stored:
    """No compression."""

    is_complete = True
    rest = b""

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Give the bytes as they are."""
        yield compressed


class Bounded:
    """A stream of a decompressor that can be asked for so many bytes at a time."""

    def __init__(self, decompressor: _Decompressor) -> None:
        self._decompressor = decompressor
        self.is_complete = False
        self.rest = b""

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Inflate these bytes."""
        while not self.is_complete:
            chunk = self._decompressor.decompress(compressed, CHUNK_BYTES)
            if self._decompressor.eof:
                self.is_complete = True
                self.rest = self._decompressor.unused_data
            if chunk:
                yield chunk
            elif not compressed:
                return
            compressed = b""
            if self._decompressor.needs_input:
                return


class Deflate64:
    """A Deflate64 stream."""

    def __init__(self) -> None:
        self._inflater = inflate64.Inflater()
        self.is_complete = False
        self.rest = b""

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Inflate these bytes."""
        for at in range(0, len(compressed), _DEFLATE64_FEED_BYTES):
            if self.is_complete:
                return
            chunk = self._inflater.inflate(compressed[at : at + _DEFLATE64_FEED_BYTES])
            self.is_complete = self._inflater.eof
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield chunk[start : start + CHUNK_BYTES]


class ZipLzma:
    """LZMA as ZIP wraps it: two bytes of version, the length of the properties, the properties, the bare stream."""

    def __init__(self) -> None:
        self._header = b""
        self._stream: Bounded | None = None
        self.rest = b""

    @property
    def is_complete(self) -> bool:
        """Whether the end mark, which may be missing, was read."""
        return self._stream is not None and self._stream.is_complete

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Inflate these bytes."""
        if self._stream is None:
            self._header += compressed
            if len(self._header) < 9:
                return
            if self._header[2:4] != b"\x05\x00":
                raise ValueError("its LZMA properties are not 5 bytes long")
            self._stream = Bounded(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[self._filter()]))
            compressed = self._header[9:]
        yield from self._stream.feed(compressed)

    def _filter(self) -> dict[str, int]:
        """The properties: one byte of (pb * 5 + lp) * 9 + lc, four of the dictionary's size."""
        rest, lc = divmod(self._header[4], 9)
        pb, lp = divmod(rest, 5)
        dictionary = int.from_bytes(self._header[5:9], "little")
        if dictionary > DICTIONARY_BYTES:
            raise ValueError(f"it asks for a dictionary of {dictionary} bytes, more than {DICTIONARY_BYTES}")
        return {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": lp, "pb": pb}


def deflate() -> Inflater:
    """A bare Deflate stream."""
    return Bounded(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE))


def gzip() -> Inflater:
    """A gzip member, its checksum and length checked."""
    return Bounded(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def bzip2() -> Inflater:
    """A bzip2 stream, its checksums checked."""
    return Bounded(bz2.BZ2Decompressor())


def xz() -> Inflater:
    """An xz stream, its checks checked."""
    return Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY_BYTES))

