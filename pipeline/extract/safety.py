"""What an archive's entries must be before one of their bytes is written.

A name stays inside the folder: no absolute path, parent step, drive, share, device name, control character or over-long
component, whichever slash it is written with. An entry is a plain file or folder: no link, device, pipe or setuid bit.
Entries do not share bytes of the archive, and their number, size and ratio stay within the source's limits. All entries
count, wanted or not: one that is unsafe makes the archive unsafe.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError

#: Up to here any ratio passes: blank-padded fixed-width members of 200:1 are real, and this much harms no disk.
RATIO_FREE_BYTES = 64 << 20
MAX_NAME_BYTES = 1024
MAX_COMPONENT_BYTES = 255

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[a-zA-Z]:")
_LOOK = "do not open it by hand; compare with the publisher"


def unsafe(archive: str, seen: str, expected: str) -> ArchiveError:
    """The error of an archive that holds what a safe one does not."""
    return ArchiveError(f"{archive}: {seen}", expected, _LOOK)


def safe_name(archive: str, name: str) -> str:
    """Return an entry's name with forward slashes and without a leading ``./``; the archive's folders stay in it.

    Args:
        archive: the archive's name, for the message.
        name: as the archive has it, undamaged by any library's cleaning.

    Raises:
        ArchiveError: it leads, or might lead, out of the folder, or to something other than a file in it.
    """
    slashed = name.replace("\\", "/")
    path = PurePosixPath(slashed)
    is_bad = (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or _DRIVE.match(slashed) is not None
        or any(ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) <= 0xDFFF for character in name)
        or any(_DEVICE.fullmatch(part) for part in path.parts)
    )
    if not is_bad:
        sizes = [len(part.encode("utf-8")) for part in path.parts]
        is_bad = max(sizes) > MAX_COMPONENT_BYTES or sum(sizes) + len(sizes) > MAX_NAME_BYTES
    if is_bad:
        shown = ascii(name if len(name) <= 100 else f"{name[:100]}...")
        raise unsafe(archive, f"the entry's name {shown} is unsafe", "names of files inside the archive's own folder")
    return path.as_posix()


def check_mode(archive: str, name: str, mode: int) -> None:
    """Raise ArchiveError when a Unix mode (0: none stated) is that of a link, a device or a pipe, or has setuid bits."""
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (mode & (stat.S_ISUID | stat.S_ISGID) and kind != stat.S_IFDIR):
        raise unsafe(archive, f"the entry {name} has mode {stat.filemode(mode)}", "plain files and folders")


def check_count(archive: str, count: int, limits: Limits) -> None:
    """Raise ArchiveError when there are more entries than the limit."""
    if count > limits.max_members:
        raise unsafe(archive, f"at least {count} entries", f"at most {limits.max_members} (limits.max_members)")


def check_size(archive: str, name: str, bytes_out: int, bytes_in: int, limits: Limits) -> None:
    """Judge a size, declared or counted while inflating.

    Args:
        archive: the archive's name, for the message.
        name: the entry's name, for the message.
        bytes_out: bytes of the member so far, or in all.
        bytes_in: bytes of the archive that they come from.
        limits: of the source.

    Raises:
        ArchiveError: more than ``max_member_bytes``; or more than 64 MiB and more than ``max_ratio`` bytes out for one in.
    """
    if bytes_out > limits.max_member_bytes:
        raise unsafe(
            archive,
            f"{name} has at least {bytes_out} bytes",
            f"at most {limits.max_member_bytes} (limits.max_member_bytes)",
        )
    if bytes_out > RATIO_FREE_BYTES and bytes_out > limits.max_ratio * max(1, bytes_in):
        raise unsafe(
            archive,
            f"{name} inflates {bytes_in} bytes to at least {bytes_out}",
            f"at most {limits.max_ratio:g} bytes for one (limits.max_ratio)",
        )


def check_overlap(archive: str, spans: Iterable[tuple[int, int, str]], end: int) -> None:
    """Raise ArchiveError when two entries use the same bytes of the archive.

    Args:
        archive: the archive's name, for the message.
        spans: first byte, byte after the last, and name of each entry.
        end: where the entries must end: the central directory's first byte.
    """
    before, before_name = 0, "the archive's start"
    for first, after, name in sorted(spans):
        if first < before:
            raise unsafe(archive, f"the entries {before_name} and {name} overlap", "entries that lie one after the other")
        before, before_name = after, name
    if before > end:
        raise unsafe(archive, f"the entry {before_name} runs into the directory", "entries that end before it")
