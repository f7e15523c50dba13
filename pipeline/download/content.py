"""What a body is by its own bytes: an archive of a known kind or something else, whole, cut off or damaged.

The name and the content type prove nothing (an error page arrives as ``200 OK`` under the archive's name). The kind is
told by magic bytes. A zip and a tar say themselves where they end; reading an archive through finds the end of the others,
and any byte that is not what its checksum says. Nothing here unpacks to disk or judges members: that is the extract
stage's work.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

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
_DAMAGE = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, ValueError, struct.error, NotImplementedError, IndexError)


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
        method that the standard library does not know, is taken as it is; a tar has no checksums of its contents.

    Raises:
        ArchiveError: reading through would unpack more than 64 GiB.
    """
    if kind == "zip":
        if not zipfile.is_zipfile(path):
            return "cut"
        return _zip_condition(path) if read_through else "whole"
    if kind == "tar":
        with open(path, "rb") as file:
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
                if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _READABLE_METHODS:
                    continue
                with zipped.open(entry) as member:
                    read += _read_through(path, member, READ_THROUGH_BYTES - read)
    except (EOFError, *_DAMAGE):
        return "damaged"
    except OSError as error:
        return _unless_the_disk_failed(error)
    return "whole"


def _stream_condition(path: Path, kind: ArchiveKind) -> Condition:
    openers: dict[ArchiveKind, Callable[[Path], IO[bytes]]] = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}  # type: ignore[dict-item]
    try:
        with openers[kind](path) as stream:
            _read_through(path, stream, READ_THROUGH_BYTES)
    except EOFError:
        return "cut"
    except _DAMAGE:
        return "damaged"
    except OSError as error:
        return _unless_the_disk_failed(error)
    return "whole"


def _read_through(path: Path, stream: IO[bytes], limit_bytes: int) -> int:
    read = 0
    while chunk := stream.read(_READ_BYTES):
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
