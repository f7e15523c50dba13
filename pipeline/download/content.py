"""What a body is by its own bytes: an archive of a known kind or something else, whole, cut off or damaged.

The name and the content type prove nothing (an error page arrives as ``200 OK`` under the archive's name). The kind is
told by magic bytes. A zip and a tar say themselves where they end; reading an archive through finds the end of the others,
and any byte that is not what its checksum says. Nothing here unpacks to disk or judges members: that is the extract
stage's work.

A tar ends with two blocks of zeros. Most programs pad it with more of them to a multiple of 10,240 bytes, some do not: how many
there are says nothing, and no content lies behind the second, so that from there on a tar is whole.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from pipeline import inflate
from pipeline.errors import ArchiveError

ArchiveKind = Literal["zip", "gzip", "tar", "bzip2", "xz"]
Condition = Literal["whole", "cut", "damaged"]

#: What is unpacked at most in order to read an archive through: the largest roll has a tenth of this.
READ_THROUGH_BYTES = 64 << 30
_MAGIC: dict[bytes, ArchiveKind] = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_TAR_MAGIC_AT = 257
_TAR_END = bytes(1024)
_HEAD_BYTES = 512
_READ_BYTES = 1 << 20
_ENCRYPTED = 0x1
_READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DEFLATE64 = 9
_LOCAL_HEADER_BYTES = 30
#: Entries of a tar that have no content, whatever size they state.
_WITHOUT_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
#: In the header before a member whose size its own header has no room for.
_PAX_SIZE, _PAX_BYTES = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]{1,18})\n"), 64 << 10
_DAMAGE = (
    zipfile.BadZipFile, gzip.BadGzipFile, tarfile.HeaderError, zlib.error, lzma.LZMAError, ValueError, struct.error,
    NotImplementedError, IndexError,
)  # fmt: skip


def archive_kind(path: Path) -> ArchiveKind | None:
    """Return the kind that the first bytes (or, behind a self-extractor, the end record) show; None: no archive."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    if head.startswith(b"MZ") and zipfile.is_zipfile(path):
        return "zip"
    return None


def condition(path: Path, kind: ArchiveKind, *, read_through: bool) -> Condition:
    """Whether the archive has its end and, if asked, holds what its checksums say.

    Args:
        path: the body on disk.
        kind: what it is.
        read_through: unpack it, to nowhere. Without this the end of a zip or a tar is looked for, and nothing else.

    Returns:
        ``cut`` when more bytes could make it whole, ``damaged`` when none can. A member that is encrypted, or packed by a
        method that is not read here, is taken as it is; a tar has checksums of its headers and none of its contents.

    Raises:
        ArchiveError: reading through would unpack more than 64 GiB.
    """
    if kind == "zip":
        if not zipfile.is_zipfile(path):
            return "cut"
        return _zip_condition(path) if read_through else "whole"
    if kind == "tar":
        with open(path, "rb") as file:
            if read_through:
                return _tar_condition(file)
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_TAR_END)))
            return "whole" if file.read() == _TAR_END else "cut"
    return _stream_condition(path, kind) if read_through else "whole"


def first_bytes(path: Path, count: int = 48) -> str:
    """The first bytes as a Python literal, for an error's text."""
    with open(path, "rb") as file:
        return repr(file.read(count))


def _zip_condition(path: Path) -> Condition:
    try:
        with zipfile.ZipFile(path) as zipped, open(path, "rb") as raw:
            entries = zipped.infolist()
            # An end record that does not lead to the member at the first byte is damaged, or that of a zip stored inside,
            # whose surroundings are still missing.
            if raw.read(4) == b"PK\x03\x04" and min((entry.header_offset for entry in entries), default=-1) != 0:
                return "cut"
            read = 0
            for entry in entries:
                if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (*_READABLE_METHODS, _DEFLATE64):
                    continue
                if entry.compress_type == _DEFLATE64:
                    read += _read_through(path, _deflate64(raw, entry), READ_THROUGH_BYTES - read)
                    continue
                with zipped.open(entry) as member:
                    read += _read_through(path, _chunks(member), READ_THROUGH_BYTES - read)
    except (EOFError, *_DAMAGE):
        return "damaged"
    except OSError as error:
        return _unless_the_disk_failed(error)
    return "whole"


def _deflate64(raw: IO[bytes], entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member that zipfile does not read; ValueError when it is not what the directory says."""
    raw.seek(entry.header_offset)
    header = raw.read(_LOCAL_HEADER_BYTES)
    raw.seek(sum(struct.unpack_from("<HH", header, 26)), 1)
    inflater, left, crc, size = inflate.Deflate64(), entry.compress_size, 0, 0
    while left and (compressed := raw.read(min(left, inflate.READ_BYTES))):
        left -= len(compressed)
        for chunk in inflater.feed(compressed):
            crc, size = inflate.crc32(chunk, crc), size + len(chunk)
            yield chunk
    if not inflater.is_complete or (crc, size) != (entry.CRC, entry.file_size):
        raise ValueError(f"{entry.filename} is not what the directory says")


def _tar_condition(file: IO[bytes]) -> Condition:
    """Go from header to header, passing over the contents, to the two blocks of zeros."""
    size, at = file.seek(0, 2), 0
    stated: int | None = None
    while True:
        file.seek(at)
        blocks = file.read(len(_TAR_END))
        header = blocks[: tarfile.BLOCKSIZE]
        if len(header) < tarfile.BLOCKSIZE or (not any(header) and len(blocks) < len(_TAR_END)):
            return "cut"
        if not any(header):
            return "damaged" if any(blocks) else "whole"
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except _DAMAGE:
            return "damaged"
        content_bytes = 0 if member.type in _WITHOUT_CONTENT else member.size if stated is None else stated
        if content_bytes < 0:
            return "damaged"
        stated = None
        if member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            file.seek(at + tarfile.BLOCKSIZE)
            pax = _PAX_SIZE.search(file.read(min(content_bytes, _PAX_BYTES)))
            stated = int(pax[1]) if pax else None
        at += tarfile.BLOCKSIZE * (1 - (-content_bytes // tarfile.BLOCKSIZE))
        if at > size:
            return "cut"


def _stream_condition(path: Path, kind: ArchiveKind) -> Condition:
    openers: dict[ArchiveKind, Callable[[Path], IO[bytes]]] = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}  # type: ignore[dict-item]
    try:
        with openers[kind](path) as stream:
            _read_through(path, _chunks(stream), READ_THROUGH_BYTES)
    except EOFError:
        return "cut"
    except _DAMAGE:
        return "damaged"
    except OSError as error:
        return _unless_the_disk_failed(error)
    return "whole"


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_READ_BYTES):
        yield chunk


def _read_through(path: Path, chunks: Iterable[bytes], limit_bytes: int) -> int:
    read = 0
    for chunk in chunks:
        read += len(chunk)
        if read > limit_bytes:
            raise ArchiveError(
                f"{path.name} of {path.stat().st_size} bytes unpacks to more than {READ_THROUGH_BYTES} bytes",
                "an archive of a size that a roll can have",
                "look at the publisher's page for what the archive is",
            )
    return read


def _unless_the_disk_failed(error: OSError) -> Condition:
    """A decompressor's complaint is an OSError without a number; the disk's has one."""
    if error.errno is not None:
        raise error
    return "damaged"
