"""ProbeRelease: what a source offers for a tax year, and which verdicts on its archives no longer count."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import luigi

from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.download.mirror import Known
from pipeline.download.offer import Choice, YearOffer, choose
from pipeline.handoff import Receipt, read_receipt, receipt_path, write_json
from pipeline.observe.events import log_event
from pipeline.releases import (
    BAD,
    FIRST_BAD,
    Release,
    last_offered,
    members_of,
    next_edition,
    note_altered,
    probe_path,
    with_editions,
)
from pipeline.targets import FileTarget, Refusal
from pipeline.tasks.base import PipelineTask, engine, settings
from pipeline.tasks.download import DownloadArchive, downloads_of, known_of


class ProbeRelease(PipelineTask):
    """Ask the source what it has for a tax year, by its policy; a few small requests, some hundred milliseconds.

    The file says ``found`` with the release and the tax year that was taken, or ``not_published`` with what is missing: an outcome, not a
    failure. With ``force`` the receipts of what it found no longer count, so that every archive is fetched again, and what was written down
    of bad ones is found out anew. An archive that the last extraction found damaged is fetched again once, without force; one that was
    beyond a limit is looked at again when the limit is another.
    """

    as_of = luigi.DateSecondParameter(description="the run's instant, UTC")
    force = luigi.BoolParameter(default=False, description="download again what is there")
    # Its requests have attempts, waits and a deadline of their own; Luigi's would multiply them.
    retry_count = 1
    resources = {"network": 1}  # noqa: RUF012  # Luigi reads it from the class

    def output(self) -> FileTarget:
        """``var/releases/<source>/<year asked for>/<as_of>.json``."""
        return FileTarget(probe_path(settings().state, self.source, self.year, self.as_of))

    def run(self) -> None:
        """Probe every archive and write what was seen."""
        source = self.of_source()
        for archive, why in source.left_out.items():
            log_event("probe.left_out", {"source": source.name, "archive": archive, "why": why})
        choice = choose(self.downloads(), source, self.year, known=self.known, on_event=log_event)
        shown = choice.taken or choice.considered[0]
        log_event(
            "probe.chosen",
            {"source": self.source, "policy": choice.policy, "asked": self.year, "taken": choice.taken.year if choice.taken else None,
             "lacks": "; ".join(offer.lacks for offer in choice.considered if offer.lacks)},
        )  # fmt: skip
        document = {
            "source": self.source, "year": self.year, "profile": source.profile, "as_of": self.as_of.replace(tzinfo=dt.UTC).isoformat(),
            "policy": _policy(choice),
            "archives": {name: asdict(probe) for name, probe in shown.archives.items()},
            "fallbacks": {name: asdict(probe) for name, probe in shown.fallbacks.items()},
        }  # fmt: skip
        if choice.taken is None:
            nothing = {"status": "not_published", "missing": list(shown.missing), "lacks": shown.lacks, "tax_year": None, "release": None}
            write_json(self.output().path, document | nothing)
            return
        release = self.record(choice.taken)
        found = {"status": "found", "missing": [], "lacks": "", "tax_year": release.year, "release": release.release}
        write_json(self.output().path, document | found)

    def known(self, year: int) -> Known | None:
        """What the source offered last of a tax year."""
        release = last_offered(settings().state, self.source, year)
        return known_of(release) if release else None

    def record(self, taken: YearOffer) -> Release:
        """Write down the release that the offer of a tax year is."""
        state = settings().state
        release = self.release_of(taken)
        if self.judge_again(release):
            release = self.release_of(taken)
        # The release's own file first: a probe's file never names a release that cannot be read.
        release.write(state)
        with transaction(engine()) as cursor:
            ledger.record_release(cursor, self.source, taken.year, release.release, release.profile, release.fingerprints)
        for download in downloads_of(release):
            if self.force or download.is_suspected():
                download.distrust()
        return release

    def release_of(self, taken: YearOffer) -> Release:
        """The release that the offer of a tax year is."""
        fingerprints = with_editions(settings().state, self.source, taken.year, taken.fingerprints)
        return Release.of(self.source, taken.year, self.of_source().profile, fingerprints)

    def judge_again(self, release: Release) -> bool:
        """Let verdicts on bad archives that no longer count be found out anew; returns whether the release has another name for it.

        With ``force`` that is every one of the extraction, without it those that a limit gave which is another now. Where what stands in is
        published already, a verdict that turned out otherwise must be published, too: the archive gets an edition, or a longer one, which
        makes a release of its own, of the same bytes.
        """
        with transaction(engine()) as cursor:
            current = ledger.current(cursor, self.source, release.year)
        is_current = current is not None and current.key.release == release.release
        is_renamed = False
        for download in downloads_of(release):
            notes = [] if download.is_fallback else self.outdated_notes(release, download.archive)
            if not is_current:
                # Another limit is another cut, which has no note yet.
                for note in notes if self.force else ():
                    note.unlink(missing_ok=True)
            elif notes and (receipt := read_receipt(download.output().receipt)):
                self.rename(download, receipt)
                is_renamed = True
        return is_renamed

    def outdated_notes(self, release: Release, archive: str) -> list[Path]:
        """Where it is written down of an archive of the release that it is bad, as far as that no longer counts."""
        folder = settings().state / "members" / self.source / str(release.year)
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        ours = sorted(members_of(names, archive, release.fingerprints[archive]))
        notes = [folder / name for name in ours if name.endswith((BAD, FIRST_BAD))]
        limits = asdict(self.of_source().limits)
        return notes if self.force else [note for note in notes if (seen := Refusal.read(note)) and seen.limits not in (None, limits)]

    def rename(self, download: DownloadArchive, receipt: Receipt) -> None:
        """Give an archive's bytes an identity that no release has yet; they are fetched again by force only."""
        identity = download.identity
        edition = next_edition(receipt.sha256, identity.edition)
        if not self.force:
            path = download.output().path
            adopt(path, path.with_name(download.file(str(replace(identity, edition=edition)))), receipt)
        note_altered(settings().state, self.source, download.year, download.file(identity.fingerprint), edition)
        log_event("probe.judged_again", {"archive": download.archive, "edition": edition})


def adopt(path: Path, other: Path, receipt: Receipt) -> None:
    """Let a downloaded archive be there under another name, too; where the disk knows no links it is downloaded under it."""
    if other.exists():
        return
    try:
        os.link(path, other)
    except OSError as error:
        log_event("probe.not_linked", {"archive": other.name, "error": str(error)})
        return
    write_json(receipt_path(other), replace(receipt, file=other.name))


def _policy(choice: Choice) -> dict[str, Any]:
    """What the probe's file says of the choice of the tax year."""
    considered = [
        {"tax_year": offer.year, "lacks": offer.lacks, "listed": asdict(offer.listed) if offer.listed else None}
        for offer in choice.considered
    ]
    return {"name": choice.policy, "asked": choice.asked, "considered": considered}
