"""ExtractArchive: the wanted members of an archive, measured and cut into parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import luigi

from pipeline.errors import ArchiveError, ArchiveTooLarge, ChecksumMismatch, DiskError
from pipeline.extract.wanted import wanted_members
from pipeline.handoff import Manifest, Member, write_json
from pipeline.observe.events import log_event
from pipeline.releases import ArchiveIdentity
from pipeline.targets import MembersTarget, Refusal
from pipeline.tasks.base import PipelineTask
from pipeline.tasks.download import BAD_ARCHIVE, DownloadArchive


class ExtractArchive(PipelineTask):
    """Unpack the wanted members of an archive into a folder that is renamed into place once.

    When the archive is bad its declared fallback is fetched and unpacked in its place. When that is bad too, or there is none, an
    archive that is not required ends here: it is written down, and its tables stay as the last good one made them.
    """

    archive = luigi.Parameter(description="an archive of source.toml")
    fingerprint = luigi.Parameter(description="what its validators gave at the probe")
    cut = luigi.Parameter(description="hash of the wanted members, the limits and the part size")
    # What is wrong with an archive is wrong at every attempt; a kill is forgiven by the next run.
    retry_count = 1
    resources = {"cpu": 1}  # noqa: RUF012

    def requires(self) -> DownloadArchive:
        """The archive."""
        return self.download(ArchiveIdentity.parse(self.fingerprint).own)

    def download(self, fingerprint: str, *, is_fallback: bool = False) -> DownloadArchive:
        """The download of the archive, or of the file that stands in for it."""
        return DownloadArchive(
            source=self.source, year=self.year, archive=self.archive, fingerprint=fingerprint, is_fallback=is_fallback
        )

    def output(self) -> MembersTarget:
        """``var/members/<source>/<year>/<archive>-<fingerprint>-<cut>/``."""
        folder = self.folder("members") / f"{self.archive}-{self.fingerprint}-{self.cut}"
        return MembersTarget(folder, may_be_bad=not self.of_source().archive(self.archive).required, on_event=log_event)

    def run(self) -> Iterator[DownloadArchive]:
        """Extract, measure, cut."""
        target, fallback = self.output(), ArchiveIdentity.parse(self.fingerprint).fallback
        # Luigi starts this anew when the fallback is here: what is known of the first one is not found out twice.
        own = self.requires()
        try:
            first = target.first_refusal() or self.unpack(own)
        except DiskError:
            if own.complete():
                raise
            # It is no longer what was downloaded: fetched once more, and then Luigi starts this anew.
            yield own
            raise
        if first is None:
            return
        if fallback is None:
            self.give_up(first)
            return
        write_json(target.first_bad, first)
        log_event("extract.fallback", {"archive": self.archive, "code": first.code, "error": first.message})
        download = self.download(fallback, is_fallback=True)
        yield download
        second = self.unpack(download)
        if second is not None:
            message = f"{first.message}; and of its fallback: {second.message}"
            self.give_up(Refusal(second.code, message, first.limits or second.limits))

    def unpack(self, download: DownloadArchive) -> Refusal | None:
        """Extract a downloaded archive; returns why it is bad, where something may stand in for it.

        Raises:
            DiskError: its bytes are not those of its receipt: the disk's fault, not the publisher's. The receipt counts no more.
        """
        archive = download.output()
        if refusal := archive.refusal():
            return refusal
        declared = self.of_source().archive(self.archive)
        try:
            self.extracts().extract_archive(
                archive.path,
                self.output().prepare(),
                members=wanted_members(self.of_source(), self.year, self.archive),
                sha256=archive.read().sha256,
                archive_name=self.archive,
                nested=declared.nested,
            )
        except ChecksumMismatch as error:
            download.distrust()
            raise DiskError(error.seen, error.expected, "see to the disk; the archive is downloaded again by itself") from error
        except BAD_ARCHIVE as error:
            told = download.suspect(error) if isinstance(error, ArchiveError) else error
            if declared.has_stand_in:
                limits = asdict(self.of_source().limits) if isinstance(error, ArchiveTooLarge) else None
                return Refusal(error.code, str(error), limits)
            if told is error:
                raise
            raise told from error
        return None

    def give_up(self, refusal: Refusal) -> None:
        """Nothing can be unpacked: what is live stays, if the archive is not required.

        Raises:
            ArchiveError: it is required.
        """
        target = self.output()
        if not target.may_be_bad:
            expected, todo = "an archive that can be unpacked, or a fallback that can", "wait for the publisher's next one, or tell them"
            raise ArchiveError(f"{self.archive} of {self.year} is bad: {refusal.message}", expected, todo)
        target.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(target.bad, refusal)
        log_event("extract.bad", {"archive": self.archive, "code": refusal.code, "error": refusal.message})

    def refusal(self) -> Refusal | None:
        """Why there are no members, so that the archive's tables stay as they are."""
        return self.output().refusal()

    def manifest(self) -> Manifest:
        """What was extracted."""
        return self.output().manifest()

    def member(self, name: str) -> Member | None:
        """The extracted member of that declared name; None when the archive does not carry it."""
        return next((member for member in self.manifest().members if member.name.lower() == name.lower()), None)
