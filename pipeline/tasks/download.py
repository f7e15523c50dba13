"""DownloadArchive: an archive as it was fingerprinted, with the receipt that speaks for it."""

from __future__ import annotations

import re
from dataclasses import replace

import luigi

from pipeline.catalog.model import Archive
from pipeline.configuration import progress_folder
from pipeline.download.mirror import Known, KnownArchive
from pipeline.download.offer import Places
from pipeline.errors import ArchiveError, ChecksumMismatch, MemberError, NotAnArchive, ReleaseChanged
from pipeline.handoff import Receipt, read_json, receipt_path, write_json
from pipeline.observe.events import log_event
from pipeline.releases import ArchiveIdentity, Release, archive_file, next_edition, note_altered
from pipeline.targets import ArchiveTarget, Refusal, read_receipt
from pipeline.tasks.base import PipelineTask, settings
from pipeline.tasks.progress import DownloadTold
from pipeline.tasks.suspicion import read_suspicion, settle, suspect

#: What is wrong with an archive's own bytes, so that asking for the same bytes again is of no use.
BAD_ARCHIVE = (NotAnArchive, ChecksumMismatch, ArchiveError, MemberError)


class DownloadArchive(PipelineTask):
    """Fetch one archive as it was fingerprinted; bandwidth decides how long it takes.

    An archive for which something can stand in ends here too when it is bad: that is written down instead of a receipt. Where a good one is
    here already, and was only to be fetched again, that one stays, and the error is the run's.
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
            if self.trust_again(target) or not target.may_be_bad:
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
            mirrors=(*places.other_urls(archive, is_fallback=self.is_fallback), *places.mirrors(archive, is_fallback=self.is_fallback)),
            # What is here without a receipt that counts is fetched whole; other bytes than before are this task's own question.
            force=target.distrusted.is_file() or self.identity.edition is not None,
            last_good=self.good_before(target) or self.last_good(),
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
        altered = replace(self.identity, edition=next_edition(receipt.sha256))
        path = target.path.with_name(self.file(str(altered)))
        target.path.replace(path)
        write_json(receipt_path(path), replace(receipt, file=path.name))
        note_altered(settings().state, self.source, self.year, self.file(self.identity.fingerprint), str(altered.edition))
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

    def trust_again(self, target: ArchiveTarget) -> bool:
        """Let the archive that was to be fetched again count, where what came in its place is bad; returns whether there is one."""
        if self.good_before(target) is None:
            return False
        target.distrusted.replace(target.receipt)
        return True

    def good_before(self, target: ArchiveTarget) -> Receipt | None:
        """The receipt of the archive that is to be fetched again; None: there is none, it was found damaged, or it rotted on the disk."""
        before = read_receipt(target.distrusted)
        if before is None or read_suspicion(target.path) is not None or not target.path.is_file():
            return None
        return before if self.downloads().verify_checksum(target.path, before.sha256) else None

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
