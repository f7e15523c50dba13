"""Archives that came whole by every header and are damaged inside: fetched once more, and then believed.

A proxy or a broken line can change a byte without changing a length or a validator; only unpacking shows it. What the extraction finds
damaged is noted beside the archive under its sha256. The next probe has it fetched again, whole. Other bytes end the suspicion; the same
bytes prove that they are the publisher's own, and are not asked for again until the fingerprint changes, or by force.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ArchiveError
from pipeline.handoff import read_json, write_json


@dataclass(frozen=True)
class Suspicion:
    """What is held against an archive: its sha256, why, and whether the same bytes came a second time."""

    sha256: str
    message: str
    came_again: bool = False


def suspicion_path(archive: Path) -> Path:
    """Where a suspicion lies: beside the archive."""
    return archive.with_name(f"{archive.name}.suspect.json")


def read_suspicion(archive: Path) -> Suspicion | None:
    """What is held against an archive; None: nothing, or nothing that can be read, which costs another download at most."""
    try:
        return Suspicion(**read_json(suspicion_path(archive)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def suspect(archive: Path, sha256: str, error: ArchiveError) -> ArchiveError:
    """Note that these bytes are damaged; returns the error with what comes of it."""
    before = read_suspicion(archive)
    if before is not None and before.sha256 == sha256 and before.came_again:
        todo = f"tell the publisher: the same bytes (sha256 {sha256}) came twice; they are fetched again when they change, or by force"
        return type(error)(error.seen, error.expected, todo)
    write_json(suspicion_path(archive), Suspicion(sha256, str(error)))
    todo = "nothing yet: the next run fetches the archive once more, in case it was damaged on the way"
    return type(error)(error.seen, error.expected, todo)


def settle(archive: Path, sha256: str) -> None:
    """Hold what was fetched against the suspicion: the same bytes confirm it, others end it."""
    found = read_suspicion(archive)
    if found is not None and found.sha256 == sha256:
        write_json(suspicion_path(archive), replace(found, came_again=True))
    else:
        suspicion_path(archive).unlink(missing_ok=True)
