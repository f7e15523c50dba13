"""A ZIP archive, judged whole before a byte of it is inflated.

The directory is sized up before it is read, so that a million entries cost nothing; then every entry's name, mode, size
and place in the file is checked. The standard library reads the directory; members are inflated here, because that is where the
time goes and because an error is to say where in the archive it lies. Stored, Deflate, Deflate64, bzip2 and LZMA are read;
others, and encrypted members, are refused by name when they are wanted. A member's CRC and length are checked with its last byte.
"""

from __future__ import annotations

import functools
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from pipeline import inflate
from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError, UnreadableMember
from pipeline.extract.archive import Entry, Kind, damaged, reading
from pipeline.extract.safety import check_count, check_mode, check_overlap, check_size, check_total, safe_name, too_large, unsafe
from pipeline.inflate import READ_BYTES, Inflater, crc32

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_BYTES = 22
_MAX_COMMENT_BYTES = 65_535
_LOCATOR_BYTES = 20
_END64_BYTES = 56
#: More than a directory entry with the longest safe name needs, with its extra fields and comment.
_MAX_DIRECTORY_ENTRY_BYTES = 4096
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_METHODS: dict[int, Callable[[], Inflater]] = {
    zipfile.ZIP_STORED: inflate.Stored,
    zipfile.ZIP_DEFLATED: inflate.deflate,
    9: inflate.Deflate64,
    zipfile.ZIP_BZIP2: inflate.bzip2,
    zipfile.ZIP_LZMA: inflate.ZipLzma,
}
_FEED_ERRORS: tuple[type[Exception], ...] = (*inflate.INFLATE_ERRORS, OSError)
_UNREAD = {1: "Shrink", 6: "Implode", 10: "DCL Implode", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES"}


class ZipArchive:
    """An open ZIP.

    Args:
        file: the archive, seekable.
        archive: its name, for messages.
        limits: of the source.

    Raises:
        ArchiveError: it is damaged, unsafe or beyond the limits.
    """

    kind: Kind = "zip"
    is_listed = True

    def __init__(self, file: IO[bytes], archive: str, limits: Limits) -> None:
        self._file = file
        self._archive = archive
        with reading(archive):
            stated = self._size_up_directory(limits)
            self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        if stated is not None and len(entries) % 65_536 != stated % 65_536:
            raise damaged(archive, f"{len(entries)} entries where its end record states {stated}")
        check_count(archive, len(entries), limits)
        self._files: list[tuple[str, zipfile.ZipInfo]] = []
        for info in entries:
            self._check(info, limits)
        with reading(archive):
            check_overlap(archive, [self._span(info) for info in entries], self._zip.start_dir)
            #: What the directory states of all members together.
            self.stated_bytes = sum(info.file_size for info in entries)
            check_total(archive, self.stated_bytes, file.seek(0, 2), limits)

    def entries(self) -> Iterator[Entry]:
        """Yield the files, in the directory's order."""
        for name, info in self._files:
            yield Entry(name, functools.partial(self._chunks, name, info))

    def _size_up_directory(self, limits: Limits) -> int | None:
        """Read the end record alone; return the number of entries that it states, None when zipfile must find it."""
        size = self._file.seek(0, 2)
        tail_bytes = min(size, _MAX_COMMENT_BYTES + _END_BYTES + _LOCATOR_BYTES + _END64_BYTES)
        self._file.seek(size - tail_bytes)
        tail = self._file.read(tail_bytes)
        # The same record that zipfile takes: the very end if it is one without a comment, else the last signature.
        at = len(tail) - _END_BYTES
        if at < 0 or not (tail.startswith(b"PK\x05\x06", at) and tail.endswith(b"\0\0")):
            at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + _END_BYTES:
            return None
        count, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
        end64 = at - _LOCATOR_BYTES - _END64_BYTES
        if end64 >= 0 and tail[at - _LOCATOR_BYTES :].startswith(b"PK\x06\x07") and tail[end64:].startswith(b"PK\x06\x06"):
            count, directory_bytes = struct.unpack_from("<QQ", tail, end64 + 32)
        check_count(self._archive, count, limits)
        if directory_bytes > limits.max_members * _MAX_DIRECTORY_ENTRY_BYTES:
            raise too_large(
                self._archive,
                f"a directory of {directory_bytes} bytes",
                f"one for at most {limits.max_members} entries (limits.max_members)",
            )
        return int(count)

    def _check(self, info: zipfile.ZipInfo, limits: Limits) -> None:
        # orig_filename: filename is already cut at a NUL.
        name = safe_name(self._archive, info.orig_filename)
        check_mode(self._archive, name, info.external_attr >> 16)
        check_size(self._archive, name, info.file_size, info.compress_size, limits)
        if not info.orig_filename.endswith(("/", "\\")):
            self._files.append((name, info))
        elif info.file_size:
            raise unsafe(self._archive, f"the folder {name} has {info.file_size} bytes of content", "folders without")

    def _span(self, info: zipfile.ZipInfo) -> tuple[int, int, str]:
        """The bytes of the archive that an entry takes, its own header's name and extra field included."""
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        before_content = _LOCAL_HEADER.size
        if len(header) == _LOCAL_HEADER.size and header.startswith(b"PK\x03\x04"):
            before_content += sum(struct.unpack_from("<HH", header, 26))
        return info.header_offset, info.header_offset + before_content + info.compress_size, info.orig_filename

    def _chunks(self, name: str, info: zipfile.ZipInfo) -> Iterator[bytes]:
        if info.flag_bits & _ENCRYPTED:
            raise self._unreadable(name, "is encrypted")
        make = _METHODS.get(info.compress_type)
        if make is None:
            raise self._unreadable(name, f"is compressed with {_UNREAD.get(info.compress_type, f'method {info.compress_type}')}")
        size = crc = 0
        with reading(self._archive, name):
            at = self._content_offset(name, info)
            chunks = self._inflated(name, info, make(), at)
        while True:
            with reading(self._archive, name):
                chunk = next(chunks, None)
            if chunk is None:
                break
            size += len(chunk)
            if size > info.file_size:
                raise self._damaged(name, at, f"more than the {info.file_size} bytes that the directory states")
            crc = crc32(chunk, crc)
            yield chunk
        if size != info.file_size:
            raise self._damaged(name, at, f"{size} bytes where the directory states {info.file_size}")
        if crc != info.CRC:
            raise self._damaged(name, at, f"CRC-32 is {crc:08x} where the directory states {info.CRC:08x}")

    def _content_offset(self, name: str, info: zipfile.ZipInfo) -> int:
        """Where an entry's content begins; its own header must say the same of it as the directory."""
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise self._damaged(name, info.header_offset, "no header there")
        _, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        own_name = self._file.read(name_bytes).decode("utf-8" if flags & _UTF8_NAME else "cp437")
        if (own_name, method, flags & _ENCRYPTED) != (info.orig_filename, info.compress_type, 0):
            raise self._damaged(name, info.header_offset, "its own header there says otherwise than the directory")
        return int(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)

    def _inflated(self, name: str, info: zipfile.ZipInfo, inflater: Inflater, at: int) -> Iterator[bytes]:
        """The member's bytes; an error says where in the archive the inflating had come to."""
        left = info.compress_size
        self._file.seek(at)
        while left:
            compressed = self._file.read(min(left, READ_BYTES))
            if not compressed:
                raise self._damaged(name, at, f"{left} bytes are missing")
            place = at + info.compress_size - left
            left -= len(compressed)
            try:
                yield from inflater.feed(compressed)
            except _FEED_ERRORS as error:
                raise self._damaged(name, place, f"{type(error).__name__}: {error}") from error
        # An LZMA stream may end without a mark; its length and CRC speak for it.
        if not inflater.is_complete and info.compress_type != zipfile.ZIP_LZMA:
            raise self._damaged(name, at, "its stream does not come to an end")

    def _damaged(self, name: str, at: int, why: str) -> ArchiveError:
        return damaged(f"{self._archive}, member {name}, at or after byte {at} of the archive,", why)

    def _unreadable(self, name: str, why: str) -> UnreadableMember:
        return UnreadableMember(
            f"{self._archive}: the member {name} {why}",
            "a member without a password, stored or in Deflate, Deflate64, bzip2 or LZMA",
            "ask the publisher for such an archive",
        )
