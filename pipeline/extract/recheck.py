"""Reads an extracted folder again and says in what it is no longer what its manifest states.

Every byte of every member is hashed and measured anew; the parts must lie one after the other over the whole member, and hold as
many lines as they state. Nothing is mended here: whoever finds a difference removes the folder, and the next run extracts again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ArchiveError
from pipeline.extract.archive import readable, reading
from pipeline.extract.cut import LineCutter
from pipeline.extract.wanted import MANIFEST
from pipeline.handoff import UNREADABLE, Manifest, Member, read_json
from pipeline.inflate import CHUNK_BYTES

_MEASURED = ("bytes", "lines", "first_line", "last_line", "crlf", "lf", "unterminated", "widths", "other_widths")


def differences(folder: Path) -> tuple[str, ...]:
    """Compare a folder with its manifest.

    Returns:
        A sentence for each difference; empty: none.

    Raises:
        ArchiveError: there is no manifest, or none that can be read.
        DiskError: reading failed.
    """
    try:
        manifest = Manifest.from_json(read_json(folder / MANIFEST))
    except (OSError, *UNREADABLE) as error:
        raise ArchiveError(
            f"{folder} has no readable {MANIFEST} ({error})", "the manifest", "remove the folder; the next run extracts again"
        ) from error
    found = [difference for member in manifest.members for difference in _of_member(folder, member)]
    known = {MANIFEST, *(member.file for member in manifest.members)}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return (*found, *(f"{name} is not in the manifest" for name in sorted(there - known)))


def _of_member(folder: Path, member: Member) -> list[str]:
    path = folder / member.file
    if path.is_symlink() or not path.is_file():
        return [f"{member.file} is missing"]
    cutter, digest = LineCutter(max(1, member.bytes)), hashlib.sha256()
    feeds = []
    with readable(path, str(folder)) as file, reading(str(folder), member.file):
        # Part by part, then whatever lies behind the last one.
        for size in [*(part.end - part.start for part in member.parts), sys.maxsize]:
            feeds.append(0)
            while size and (chunk := file.read(min(size, CHUNK_BYTES))):
                digest.update(chunk)
                cutter.feed(chunk)
                feeds[-1] += chunk.count(b"\n")
                size -= len(chunk)
    measure = cutter.finish()
    if digest.hexdigest() != member.sha256:
        return [f"{member.file} has {measure.bytes} bytes with sha256 {digest.hexdigest()}, not {member.bytes} with {member.sha256}"]
    # Lines name persons: what differs is said, not how.
    found = [f"the {name} of {member.file} in the manifest" for name in _MEASURED if getattr(measure, name) != getattr(member, name)]
    if not _fit(member, feeds):
        found.append(f"the parts of {member.file} in the manifest")
    return [f"{what} are not those of the file" for what in found]


def _fit(member: Member, feeds: Sequence[int]) -> bool:
    """Whether the parts lie one after the other over the whole member, each with as many lines as it states."""
    at, line = 0, 1
    for part, found in zip(member.parts, feeds, strict=False):
        unterminated = member.unterminated and part.end == member.bytes
        if (part.start, part.first_line, part.lines) != (at, line, found + unterminated):
            return False
        at, line = part.end, line + part.lines
    return (at, line) == (member.bytes, member.lines + 1)
