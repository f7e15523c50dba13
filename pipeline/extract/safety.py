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
from pipeline.errors import ArchiveTooLarge, UnsafeArchive

#: Up to here any ratio passes: blank-padded fixed-width members of 200:1 are real, and this much harms no disk.
RATIO_FREE_BYTES = 64 << 20
MAX_NAME_BYTES = 1024
MAX_COMPONENT_BYTES = 255

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[a-zA-Z]:")
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_LOOK = "do not open it by hand; compare with the publisher"


def unsafe(archive: str, seen: str, expected: str) -> UnsafeArchive:
    """The error of an archive that holds what a safe one does not."""
    return UnsafeArchive(f"{archive}: {seen}", expected, _LOOK)


def too_large(archive: str, seen: str, expected: str) -> ArchiveTooLarge:
    """The error of an archive beyond the source's limits."""
    return ArchiveTooLarge(f"{archive}: {seen}", expected, "compare with the publisher; if it is right, raise the limit in source.toml")


def safe_name(archive: str, name: str) -> str:
    """Return an entry's name with forward slashes and without a leading ``./``; the archive's folders stay in it.

    Args:
        archive: the archive's name, for the message.
        name: as the archive has it, undamaged by any library's cleaning.

    Raises:
        UnsafeArchive: it leads, or might lead, out of the folder, or to something other than a file in it; the message says how.
    """
    why = _danger(name)
    if why:
        shown = ascii(name if len(name) <= 100 else f"{name[:100]}...")
        raise unsafe(archive, f"the entry's name {shown} is unsafe: {why}", "names of files inside the archive's own folder")
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _danger(name: str) -> str | None:
    """What is dangerous about a name; None: nothing."""
    if "\0" in name:
        return "a NUL in it"
    if any(ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) <= 0xDFFF for character in name):
        return "a control character, or no character at all, in it"
    slashed = name.replace("\\", "/")
    path = PurePosixPath(slashed)
    if not path.parts:
        return "it is empty"
    if slashed.startswith("//"):
        return "a share of another machine (UNC)"
    if path.is_absolute():
        return "an absolute path"
    if ".." in path.parts:
        return "a step to the parent folder"
    if _DRIVE.match(slashed):
        return "a drive letter"
    for part in path.parts:
        if _DEVICE.fullmatch(part):
            return f"{part} is a device"
    sizes = [len(part.encode("utf-8")) for part in path.parts]
    if max(sizes) > MAX_COMPONENT_BYTES or sum(sizes) + len(sizes) > MAX_NAME_BYTES:
        return f"longer than {MAX_COMPONENT_BYTES} bytes a component, or {MAX_NAME_BYTES} in all"
    return None


def check_mode(archive: str, name: str, mode: int) -> None:
    """Judge a Unix mode; 0: none is stated.

    Raises:
        UnsafeArchive: it is that of a link, a device or a pipe, or has setuid or setgid bits.
    """
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise not_a_file(archive, name, _KINDS.get(kind, "of an unknown kind"), stat.filemode(mode))
    if mode & (stat.S_ISUID | stat.S_ISGID) and kind != stat.S_IFDIR:
        raise unsafe(archive, f"the entry {name} has mode {stat.filemode(mode)}: setuid or setgid", "files without")


def not_a_file(archive: str, name: str, what: str, shown: str) -> UnsafeArchive:
    """The error of an entry that is neither a file nor a folder."""
    return unsafe(archive, f"the entry {name} is {what}, mode or type {shown}", "plain files and folders")


def check_count(archive: str, count: int, limits: Limits) -> None:
    """Raise ArchiveTooLarge when there are more entries than the limit."""
    if count > limits.max_members:
        raise too_large(archive, f"at least {count} entries", f"at most {limits.max_members} (limits.max_members)")


def check_size(archive: str, name: str, bytes_out: int, bytes_in: int, limits: Limits) -> None:
    """Judge a member's size, declared or counted while inflating.

    Args:
        archive: the archive's name, for the message.
        name: the entry's name, for the message.
        bytes_out: bytes of the member so far, or in all.
        bytes_in: bytes of the archive that they come from.
        limits: of the source.

    Raises:
        ArchiveTooLarge: more than ``max_member_bytes``; or more than 64 MiB and more than ``max_ratio`` bytes out for one in.
    """
    if bytes_out > limits.max_member_bytes:
        raise too_large(
            archive,
            f"{name} has at least {bytes_out} bytes",
            f"at most {limits.max_member_bytes} (limits.max_member_bytes)",
        )
    _check_ratio(archive, name, bytes_out, bytes_in, limits)


def check_total(archive: str, bytes_out: int, bytes_in: int, limits: Limits) -> None:
    """Judge the bytes of all entries together, declared or counted while inflating; small bombs add up to a large one.

    Raises:
        ArchiveTooLarge: more than ``max_bytes``; or more than 64 MiB and more than ``max_ratio`` bytes out for one in.
    """
    if bytes_out > limits.max_bytes:
        raise too_large(archive, f"its members have at least {bytes_out} bytes", f"at most {limits.max_bytes} (limits.max_bytes)")
    _check_ratio(archive, "the whole", bytes_out, bytes_in, limits)


def _check_ratio(archive: str, name: str, bytes_out: int, bytes_in: int, limits: Limits) -> None:
    if bytes_out > RATIO_FREE_BYTES and bytes_out > limits.max_ratio * max(1, bytes_in):
        raise too_large(
            archive,
            f"{name} inflates {bytes_in} bytes to at least {bytes_out}",
            f"at most {limits.max_ratio:g} bytes for one (limits.max_ratio)",
        )


def check_overlap(archive: str, spans: Iterable[tuple[int, int, str]], end: int) -> None:
    """Raise UnsafeArchive when two entries use the same bytes of the archive.

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
