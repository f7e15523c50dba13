"""ProbeRelease and DownloadArchive: what is offered, and getting it."""

from __future__ import annotations

import datetime as dt
import glob
import re
from dataclasses import asdict, replace
from typing import Any

import luigi

from pipeline.catalog.model import Archive
from pipeline.configuration import progress_folder
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.download.mirror import Known, KnownArchive
from pipeline.download.offer import Choice, Places, YearOffer, choose
from pipeline.errors import ArchiveError, ChecksumMismatch, MemberError, NotAnArchive, ReleaseChanged
from pipeline.handoff import Receipt, read_json, receipt_path, write_json
from pipeline.observe.events import log_event
from pipeline.releases import (
    EDITION_DIGITS,
    ArchiveIdentity,
    Release,
    archive_file,
    last_offered,
    note_altered,
    probe_path,
    with_editions,
)
from pipeline.targets import ArchiveTarget, FileTarget, Refusal, read_receipt
from pipeline.tasks.base import PipelineTask, engine, settings
from pipeline.tasks.progress import DownloadTold
from pipeline.tasks.suspicion import read_suspicion, settle, suspect

#: What is wrong with an archive's own bytes, so that asking for the same bytes again is of no use.
BAD_ARCHIVE = (NotAnArchive, ChecksumMismatch, ArchiveError, MemberError)


class ProbeRelease(PipelineTask):
    """Ask the source what it has for a tax year, by its policy; a few small requests, some hundred milliseconds.

    The file says ``found`` with the release and the tax year that was taken, or ``not_published`` with what is missing: an outcome, not a
    failure. With ``force`` the receipts of what it found no longer count, so that every archive is fetched again, and what was written down
    of bad ones is found out anew. An archive that the last extraction found damaged is fetched again once, without force.
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
        if self.force and self.judge_again(release):
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
        """Let the extraction's verdicts on bad archives count no more; returns whether the release has another name for it.

        Where what stands in is published already, a verdict that turned out otherwise must be published, too: the archive gets an edition,
        which makes a release of its own, of the same bytes. One that has an edition for that keeps its verdict.
        """
        with transaction(engine()) as cursor:
            current = ledger.current(cursor, self.source, release.year)
        is_current = current is not None and current.key.release == release.release
        folder, is_renamed = settings().state / "members" / self.source / str(release.year), False
        for download in downloads_of(release):
            whole = release.fingerprints[download.archive]
            notes = sorted(folder.glob(f"{glob.escape(f'{download.archive}-{whole}')}-*bad.json"))
            if download.is_fallback or not notes:
                continue
            if not is_current:
                for note in notes:
                    note.unlink(missing_ok=True)
            elif download.identity.edition is None and (receipt := read_receipt(download.output().receipt)):
                note_altered(settings().state, self.source, release.year, download.file(download.fingerprint), receipt.sha256)
                is_renamed = True
        return is_renamed


def _policy(choice: Choice) -> dict[str, Any]:
    """What the probe's file says of the choice of the tax year."""
    considered = [
        {"tax_year": offer.year, "lacks": offer.lacks, "listed": asdict(offer.listed) if offer.listed else None}
        for offer in choice.considered
    ]
    return {"name": choice.policy, "asked": choice.asked, "considered": considered}


class DownloadArchive(PipelineTask):
    """Fetch one archive as it was fingerprinted; bandwidth decides how long it takes.

    An archive for which something can stand in ends here too when it is bad: that is written down instead of a receipt.
    """

    archive = luigi.Parameter(description="an archive of source.toml")
    fingerprint = luigi.Parameter(description="what its validators gave at the probe")
    is_fallback = luigi.BoolParameter(default=False, description="the file that stands in for the archive")
    # The transfer has attempts, waits and a deadline of its own; Luigi's would multiply them.
    retry_count = 1
    resources = {"network": 1}  # noqa: RUF012

    def output(self) -> ArchiveTarget:
        """``var/archives/<source>/<year>/<archive>-<fingerprint>`` with its receipt beside it."""
        return ArchiveTarget(self.folder("archives") / self.file(self.fingerprint), may_be_bad=self.of_archive().has_stand_in)

    @property
    def identity(self) -> ArchiveIdentity:
        """What is to be fetched."""
        return ArchiveIdentity.parse(self.fingerprint)

    def file(self, fingerprint: str) -> str:
        """The archive's file name under a fingerprint."""
        return archive_file(self.archive, fingerprint, is_fallback=self.is_fallback)

    def of_archive(self) -> Archive:
        """The archive as the source declares it."""
        return self.of_source().archive(self.archive)

    def run(self) -> None:
        """Download, verify, rename; then the receipt."""
        target = self.output()
        target.path.parent.mkdir(parents=True, exist_ok=True)
        run_id = settings().run_id
        told = DownloadTold(self, target.path.name, progress_folder(settings().state, run_id) if run_id else None)
        try:
            receipt = self.fetch(target, told)
        except BAD_ARCHIVE as error:
            if not target.may_be_bad:
                raise
            write_json(target.bad, Refusal(error.code, str(error)))
            target.distrusted.unlink(missing_ok=True)
            log_event("download.bad", {"archive": self.archive, "code": error.code, "error": str(error)})
            return
        finally:
            told.close()
        self.compare(receipt, target)
        settle(target.path, receipt.sha256)
        write_json(target.receipt, receipt)
        target.distrusted.unlink(missing_ok=True)
        target.bad.unlink(missing_ok=True)

    def fetch(self, target: ArchiveTarget, told: DownloadTold) -> Receipt:
        """Download the archive, or the file that stands in for it."""
        archive, downloads = self.of_archive(), self.downloads(told)
        places = Places(downloads, self.of_source(), self.year)
        return downloads.download_file(
            places.require_url(archive, is_fallback=self.is_fallback),
            target.path,
            None if self.is_fallback else archive.sha256.get(self.year),
            settings().max_retries,
            fingerprint=self.identity.fingerprint,
            mirrors=places.mirrors(archive, is_fallback=self.is_fallback),
            # What is here without a receipt that counts is fetched whole; other bytes than before are this task's own question.
            force=target.distrusted.is_file() or self.identity.edition is not None,
            last_good=self.last_good(),
        )

    def compare(self, receipt: Receipt, target: ArchiveTarget) -> None:
        """Hold the bytes against what came under the same validators before.

        Raises:
            ReleaseChanged: they are others; the next probe takes them as a release of their own.
        """
        edition = self.identity.edition
        before: str | None = None
        if edition is not None and not receipt.sha256.startswith(edition):
            before = f"sha256 {edition}..."
        elif target.distrusted.is_file():
            sha256 = _distrusted_sha256(target)
            before = None if sha256 == receipt.sha256 else f"sha256 {sha256}" if sha256 else "a bad archive"
        if before is None:
            return
        suspicion = read_suspicion(target.path)
        if suspicion and edition is None and not self.of_archive().has_stand_in and suspicion.sha256 == _distrusted_sha256(target):
            # The bytes before could not be unpacked, and nothing stood in for them: no release was ever made of them.
            log_event("download.mended", {"archive": self.archive, "sha256": receipt.sha256, "damaged_sha256": suspicion.sha256})
            return
        altered = replace(self.identity, edition=receipt.sha256[:EDITION_DIGITS])
        path = target.path.with_name(self.file(str(altered)))
        target.path.replace(path)
        write_json(receipt_path(path), replace(receipt, file=path.name))
        note_altered(settings().state, self.source, self.year, self.file(self.identity.fingerprint), receipt.sha256)
        target.distrusted.unlink(missing_ok=True)
        raise ReleaseChanged(
            f"{receipt.url} has sha256 {receipt.sha256} under the validators of {before}",
            "the same bytes under the same validators",
            "nothing: the next run takes these bytes as a release of their own",
        )

    def distrust(self) -> None:
        """Let what is here count no more: it is fetched again, and then compared with what is noted of it."""
        target = self.output()
        for noted in (target.receipt, target.bad):
            if noted.is_file():
                noted.replace(target.distrusted)

    def suspect(self, error: ArchiveError) -> ArchiveError:
        """Note that the archive is damaged although it came as it was announced; returns the error with what comes of it."""
        sha256 = self.output().read().sha256
        pin = None if self.is_fallback else self.of_archive().sha256.get(self.year)
        # Other kinds of fault lie in how the archive was made, and a pin says that these are the bytes that were meant.
        if type(error) is not ArchiveError or (pin is not None and pin.lower() == sha256):
            return error
        log_event("download.suspect", {"archive": self.archive, "sha256": sha256, "error": str(error)})
        return suspect(self.output().path, sha256, error)

    def is_suspected(self) -> bool:
        """Whether what is here was found damaged, and has been fetched only once."""
        found, receipt = read_suspicion(self.output().path), read_receipt(self.output().receipt)
        return found is not None and receipt is not None and found.sha256 == receipt.sha256 and not found.came_again

    def is_judged_again(self) -> bool:
        """Whether what is here was found damaged, and is to be fetched once more."""
        return self.output().distrusted.is_file() and read_suspicion(self.output().path) is not None

    def last_good(self) -> Receipt | None:
        """The receipt of the archive's release that was fetched last before this one; None: there is none."""
        target = self.output()
        of_archive = re.compile(rf"{re.escape(self.archive)}(\.fallback)?-[embls]+-[0-9a-f-]+(~[0-9a-f]+)?\.receipt\.json")
        folder = target.path.parent
        files = folder.iterdir() if folder.is_dir() else ()
        paths = (path for path in files if of_archive.fullmatch(path.name) and path != target.receipt)
        receipts = [receipt for path in paths if (receipt := read_receipt(path))]
        return max(receipts, key=lambda receipt: receipt.fetched_at, default=None)


def downloads_of(release: Release) -> list[DownloadArchive]:
    """The downloads of a release's archives and of what may stand in for them."""
    found = []
    for archive, fingerprint in release.fingerprints.items():
        identity = ArchiveIdentity.parse(fingerprint)
        where = {"source": release.source, "year": release.year, "archive": archive}
        found.append(DownloadArchive(**where, fingerprint=identity.own))
        if identity.fallback is not None:
            found.append(DownloadArchive(**where, fingerprint=identity.fallback, is_fallback=True))
    return found


def _distrusted_sha256(target: ArchiveTarget) -> str | None:
    """Of the bytes that were here before; None: they were a bad archive, of which only that is noted."""
    sha256 = read_json(target.distrusted).get("sha256") if target.distrusted.is_file() else None
    return str(sha256) if sha256 else None


def known_of(release: Release) -> Known:
    """What is known of a release's archives and fallbacks, for holding a mirror's answer against it."""
    found = {}
    for download in downloads_of(release):
        own = read_receipt(download.output().receipt)
        good = own or download.last_good()
        found[download.archive, download.is_fallback] = KnownArchive(
            download.identity.fingerprint,
            own.sha256 if own else None,
            good.fetched_at if good else None,
            good.sha256 if good else None,
        )
    return found
