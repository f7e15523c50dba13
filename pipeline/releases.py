"""The probe's files: what a source offered, when, and what identifies each archive of it.

``var/releases/<source>/<year>/<as_of>.json`` is one probe, ``release-<hash>.json`` the release that it saw, in the folder of the
tax year that was taken, and ``confirmed-<hash>.json`` beside it what was fetched of it. All are plain JSON for a person to
read; the ledger has the release, too. ``altered.json`` lists archives whose bytes changed although their validators did not: the
next probe gives them an identity of their own, so that they make a release like any other.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ConfigurationError, DiskError
from pipeline.handoff import UNREADABLE, read_json, write_json

#: ``as_of`` in file names: sorts by time, and stands in no shell's way.
AS_OF_FORMAT = "%Y-%m-%dT%H%M%SZ"


#: In the text of an identity: before the edition, and before the fallback's fingerprint.
EDITION_MARK, FALLBACK_MARK = "~", "+"
#: In place of the fingerprint of an archive that is not offered, where its fallback is.
ABSENT = "absent"


@dataclass(frozen=True)
class ArchiveIdentity:
    """What identifies an archive in a release: ``fingerprint[~edition][+fallback]`` as text.

    Attributes:
        fingerprint: what its validators gave at the probe; :data:`ABSENT`: it is not offered, and the fallback is taken at once.
        edition: the first digits of its sha256, where other bytes came under the same validators before.
        fallback: the identity, as text, of the file that stands in when it is bad; None: there is none.
    """

    fingerprint: str
    edition: str | None = None
    fallback: str | None = None

    @classmethod
    def parse(cls, text: str) -> ArchiveIdentity:
        """Read an identity back."""
        own, _, fallback = text.partition(FALLBACK_MARK)
        fingerprint, _, edition = own.partition(EDITION_MARK)
        return cls(fingerprint, edition or None, fallback or None)

    @property
    def own(self) -> str:
        """That of the archive without its fallback, as text: what is downloaded first."""
        return str(replace(self, fallback=None))

    def __str__(self) -> str:
        edition = f"{EDITION_MARK}{self.edition}" if self.edition else ""
        fallback = f"{FALLBACK_MARK}{self.fallback}" if self.fallback else ""
        return f"{self.fingerprint}{edition}{fallback}"


def archive_file(archive: str, fingerprint: str, *, is_fallback: bool = False) -> str:
    """The file name of a downloaded archive, or of the one that stands in for it."""
    return f"{archive}{'.fallback' if is_fallback else ''}-{fingerprint}"


def archive_files(archive: str, fingerprint: str) -> set[str]:
    """The file names of all that an archive of a release may have been downloaded as."""
    identity = ArchiveIdentity.parse(fingerprint)
    found = {archive_file(archive, identity.own)}
    return found | ({archive_file(archive, identity.fallback, is_fallback=True)} if identity.fallback else set())


def is_file_of(name: str, archive: str) -> bool:
    """Whether a file is a downloaded archive of this name (see :func:`archive_file`), or its receipt, a note of it, its part."""
    return re.fullmatch(rf"{re.escape(archive)}(\.[a-z-]+)*", name) is not None


#: Behind the name of a folder of members: the archive is bad and what is live stays; it is bad and its fallback stands in.
BAD, FIRST_BAD = ".bad.json", ".first-bad.json"


def members_of(names: Iterable[str], archive: str, fingerprint: str, cut: str | None = None) -> set[str]:
    """Those of the names below ``var/members/<source>/<year>`` that speak for an archive of a release: folders of members, and notes.

    Args:
        names: all that are there.
        archive: the archive's name.
        fingerprint: its identity in the release.
        cut: what is asked of it now. What was asked before, without a member's new alias, say, counts only as long as nothing was made of
            this: a release that is current is not extracted anew for another limit or part size. None: whatever was asked.
    """
    found = {}
    for name in names:
        before, _, asked = name.removesuffix(FIRST_BAD).removesuffix(BAD).rpartition("-")
        if before == f"{archive}-{fingerprint}":
            found[name] = asked
    return {name for name, asked in found.items() if asked == cut} or set(found)


def probe_path(state: Path, source: str, year: int, as_of: dt.datetime) -> Path:
    """Where the probe of a run's instant (UTC) is written."""
    return state / "releases" / source / str(year) / f"{as_of.strftime(AS_OF_FORMAT)}.json"


def confirmation_path(state: Path, source: str, year: int, release: str) -> Path:
    """Where it is written down that a release was fetched as it is offered."""
    return state / "releases" / source / str(year) / f"confirmed-{release}.json"


@dataclass(frozen=True)
class Release:
    """What a source offered for a tax year at one moment: the fingerprint of each archive that it has."""

    source: str
    year: int
    release: str
    profile: str
    fingerprints: Mapping[str, str]

    @classmethod
    def of(cls, source: str, year: int, profile: str, fingerprints: Mapping[str, str]) -> Release:
        """The release that these fingerprints make; its name is a hash of them."""
        name = hashlib.sha256(json.dumps(dict(fingerprints), sort_keys=True).encode()).hexdigest()[:12]
        return cls(source, year, name, profile, fingerprints)

    @staticmethod
    def path(state: Path, source: str, year: int, release: str) -> Path:
        """The release's own file."""
        return state / "releases" / source / str(year) / f"release-{release}.json"

    def write(self, state: Path) -> None:
        """Write the release's file."""
        write_json(self.path(state, self.source, self.year, self.release), self)

    @classmethod
    def read(cls, state: Path, source: str, year: int, release: str) -> Release:
        """Read a release back.

        Raises:
            ConfigurationError: no probe has seen such a release.
        DiskError: what it saw cannot be read.
        """
        path = cls.path(state, source, year, release)
        try:
            return cls(**read_json(path))
        except FileNotFoundError as error:
            raise ConfigurationError(f"no file {path}", "a release that a probe has seen", "run SyncSource, which probes first") from error
        except (OSError, *UNREADABLE) as error:
            raise DiskError(f"{path} cannot be read ({error})", "what a probe saw", "run again: the next probe writes it anew") from error


def last_offered(state: Path, source: str, year: int) -> Release | None:
    """The release of a tax year that the newest probe saw which saw one; None: none did.

    Raises:
        DiskError: a probe's file cannot be read: nobody knows then what was offered last.
    """
    # The year asked for names the folder, the file's name the instant; a policy may have taken an earlier year.
    for path in sorted((state / "releases" / source).glob("*/*Z.json"), key=lambda path: path.name, reverse=True):
        try:
            seen = read_json(path)
            if seen["release"] is not None and seen["tax_year"] == year:
                return Release.read(state, source, year, seen["release"])
        except (OSError, *UNREADABLE) as error:
            raise DiskError(f"{path} cannot be read ({error})", "what a probe saw", "remove the file; run again") from error
    return None


def read_stand_ins(state: Path, release: Release, *, cuts: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """What stands in for the archives of a release that are bad: ``{archive: (what stands in, why it is bad)}``.

    The extraction's own notes say it; see ``pipeline.targets.MembersTarget``.

    Args:
        state: the state folder.
        release: the release.
        cuts: what is asked of each archive now, see :func:`members_of`; ``pipeline.extract.wanted.cuts_of`` has it.
    """
    found = {}
    folder = state / "members" / release.source / str(release.year)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for archive, fingerprint in release.fingerprints.items():
        ours = sorted(members_of(names, archive, fingerprint, (cuts or {}).get(archive)))
        if ArchiveIdentity.parse(fingerprint).fingerprint == ABSENT:
            # There is nothing bad about an archive that comes under its other name.
            ours = [name for name in ours if not name.endswith(FIRST_BAD)]
        # That both are bad was found out last.
        for end, stand_in in ((BAD, "the last good one stands in"), (FIRST_BAD, "its fallback stands in")):
            notes = [name for name in ours if name.endswith(end)]
            if notes:
                found[archive] = (stand_in, _message(folder / notes[0]))
                break
    return found


def _message(note: Path) -> str:
    try:
        return str(read_json(note)["message"])
    except UNREADABLE:
        return f"the note {note.name}, which says why, cannot be read"


EDITION_DIGITS = 8


def next_edition(sha256: str, before: str | None = None) -> str:
    """An edition of these bytes: their first digits, and one more of them than an edition of theirs before has."""
    digits = len(before) + 1 if before and sha256.startswith(before) else EDITION_DIGITS
    return sha256[:digits] if digits < len(sha256) else sha256[:EDITION_DIGITS]


def with_editions(state: Path, source: str, year: int, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """The identities that a probe saw, with the edition of each archive that was found altered."""
    altered = _altered(state, source, year)

    def edition(file: str) -> str | None:
        return altered.get(file)

    found = {}
    for archive, text in fingerprints.items():
        seen = ArchiveIdentity.parse(text)
        fallback = seen.fallback
        if fallback is not None:
            fallback = str(ArchiveIdentity(fallback, edition(archive_file(archive, fallback, is_fallback=True))))
        found[archive] = str(ArchiveIdentity(seen.fingerprint, edition(archive_file(archive, seen.fingerprint)), fallback))
    return found


def note_altered(state: Path, source: str, year: int, file: str, edition: str) -> None:
    """Note the edition of a file (see :func:`archive_file`; without an edition) whose validators no longer say all.

    Other bytes came under them, or the same bytes are to be judged again.

    Raises:
        DiskError: what was noted before cannot be read.
    """
    path = _altered_path(state, source, year)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two archives may be found altered by two processes at once: neither's note is to be lost in the other's.
    with _locked(path.parent):
        write_json(path, _altered(state, source, year) | {file: edition})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone; the lock ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _altered(state: Path, source: str, year: int) -> dict[str, str]:
    path = _altered_path(state, source, year)
    try:
        # Versions before this one noted the whole sum.
        return {file: text[:EDITION_DIGITS] if len(text) == 64 else text for file, text in read_json(path).items()}
    except FileNotFoundError:
        return {}
    except (OSError, *UNREADABLE) as error:
        # Without it the bytes from before would be taken for the publisher's again.
        raise DiskError(
            f"{path} cannot be read ({error})", "which archives changed under the same validators", "remove the file; run with --force"
        ) from error


def _altered_path(state: Path, source: str, year: int) -> Path:
    return state / "releases" / source / str(year) / "altered.json"
