"""What a mirror's answer to a probe is worth while the publisher's own server gives none.

A mirror may lag behind the publisher, or run ahead of what it will stand by; neither its validators nor its dates say which. So it
speaks only for what is known already. An archive with a pinned sha256 is the one that has it, whatever the mirror states of it.
Without a pin the mirror must state the validators of the release that was offered last: then it is that release, and any other
answer, or none of these validators, is no substitute. Only where no release of the tax year is known yet is its word taken, since there is
nothing that it could set back. A 404 of a mirror says nothing of the publisher, unless the archive was missing there before, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.download.probe import Probe
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class KnownArchive:
    """An archive of the release that was offered last.

    ``fingerprint`` is what its validators gave; ``sha256`` that of its bytes, where they were fetched. ``good_since`` says when the archive
    that is in use was fetched (it may be that of an earlier release), and ``good_sha256`` which it is.
    """

    fingerprint: str
    sha256: str | None = None
    good_since: str | None = None
    good_sha256: str | None = None


#: The archives of the release that was offered last, by name and whether it is the fallback; None: there is no such release.
Known = Mapping[tuple[str, bool], KnownArchive]
#: Tells, when it is asked for, what is known of a tax year.
KnownOf = Callable[[int], Known | None]


def nothing_known(year: int) -> None:
    """No release of the tax year was seen before."""


def why_not(seen: Probe, known: Known | None, archive: tuple[str, bool]) -> str | None:
    """Why a mirror's answer cannot stand for the publisher's; None: it can."""
    before = known.get(archive) if known is not None else None
    if seen.status == "missing":
        return None if known is not None and before is None else f"{seen.url} answered 404, which says nothing of the publisher"
    if known is None:
        return None
    if before is None:
        return f"{seen.url} has it, and the release offered last does not"
    if seen.fingerprint != before.fingerprint:
        return f"{seen.url} has fingerprint {seen.fingerprint}, and that of the release offered last is {before.fingerprint}"
    return None


def by_pin(seen: Probe, known: Known | None, archive: tuple[str, bool], pin: str) -> Probe:
    """A mirror's answer for a pinned archive: it is the one that is known, where that has these very bytes."""
    before = known.get(archive) if known is not None else None
    if seen.status == "found" and before is not None and before.sha256 == pin.lower():
        return replace(seen, fingerprint=before.fingerprint)
    return seen


def unanswered(failures: Sequence[str], first: PipelineError, known: KnownArchive | None) -> tuple[str, str, str]:
    """The words of the error when nobody gave an answer that counts: who said what, and for how old the archive in use is."""
    seen = "; then ".join(failures)
    if known is not None and known.good_since is not None:
        seen += f"; the last good archive stays, of {known.good_since} (sha256 {known.good_sha256})"
    return seen, first.expected, first.todo
