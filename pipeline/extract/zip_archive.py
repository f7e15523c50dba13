"""A ZIP archive, judged whole before a byte of it is inflated.

The directory is sized up before it is read, so that a million entries cost nothing; then every entry's name, mode, size
and place in the file is checked. Stored and deflated members are read; others, and encrypted ones, are refused by name when
they are wanted. A member's CRC and length are checked with its last byte.
"""

from __future__ import annotations

import functools
import struct
import zipfile
from collections.abc import Iterator
from typing import IO

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError
from pipeline.extract.archive import CHUNK_BYTES, Entry, Kind, damaged, reading
from pipeline.extract.safety import check_count, check_mode, check_overlap, check_size, safe_name, unsafe

_LOCAL_HEADER_BYTES = 30
_END_BYTES = 22
_MAX_COMMENT_BYTES = 65_535
_LOCATOR_BYTES = 20
_END64_BYTES = 56
#: More than a directory entry with the longest safe name needs, with its extra fields and comment.
_MAX_DIRECTORY_ENTRY_BYTES = 4096
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}


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
            raise unsafe(
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
        header = self._file.read(_LOCAL_HEADER_BYTES)
        before_content = _LOCAL_HEADER_BYTES
        if len(header) == _LOCAL_HEADER_BYTES and header.startswith(b"PK\x03\x04"):
            before_content += sum(struct.unpack_from("<HH", header, 26))
        return info.header_offset, info.header_offset + before_content + info.compress_size, info.orig_filename

    def _chunks(self, name: str, info: zipfile.ZipInfo) -> Iterator[bytes]:
        if info.flag_bits & 0x1:
            raise self._unreadable(name, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise self._unreadable(name, f"is compressed with {method}")
        size = 0
        with reading(self._archive, name):
            member = self._zip.open(info)
        with member:
            while True:
                with reading(self._archive, name):
                    chunk = member.read(CHUNK_BYTES)
                if not chunk:
                    break
                size += len(chunk)
                yield chunk
        if size != info.file_size:
            raise damaged(f"{self._archive}, member {name}", f"{size} bytes where the directory states {info.file_size}")

    def _unreadable(self, name: str, why: str) -> ArchiveError:
        return unsafe(self._archive, f"the member {name} {why}", "stored or deflated members without a password")
