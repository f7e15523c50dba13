"""ConfirmRelease: what was fetched is what the source still offers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import luigi

from pipeline.download.offer import survey
from pipeline.errors import ReleaseChanged
from pipeline.handoff import read_if_whole, write_json
from pipeline.observe.events import log_event
from pipeline.releases import ArchiveIdentity, Release, confirmation_path, with_editions
from pipeline.targets import FileTarget
from pipeline.tasks.base import PipelineTask, cut_of, settings
from pipeline.tasks.download import DownloadArchive, downloads_of, known_of
from pipeline.tasks.extract import ExtractArchive


class ConfirmRelease(PipelineTask):
    """Ask the source once more after the last download: a release is never Monday's owners with Tuesday's buildings.

    The file says what was fetched of each archive, and which were bad; it speaks for these very downloads, so that it no longer counts when
    one of them was made anew.
    """

    release = luigi.Parameter(description="what the source offers: hash of its archives' fingerprints")
    resources = {"network": 1}  # noqa: RUF012
    # The requests have attempts of their own; what was replaced is not put back within the run.
    retry_count = 1

    def offered(self) -> Release:
        """The release."""
        return Release.read(settings().state, self.source, self.year, self.release)

    def requires(self) -> list[DownloadArchive | ExtractArchive]:
        """Every archive; where a fallback may have to be fetched, what comes after that."""
        found: list[DownloadArchive | ExtractArchive] = []
        for archive, fingerprint in self.offered().fingerprints.items():
            where = {"source": self.source, "year": self.year, "archive": archive, "fingerprint": fingerprint}
            if ArchiveIdentity.parse(fingerprint).fallback is None:
                found.append(DownloadArchive(**where))
            else:
                found.append(ExtractArchive(**where, cut=cut_of(self.of_source(), self.year, archive)))
        return found

    def output(self) -> FileTarget:
        """``var/releases/<source>/<year>/confirmed-<release>.json``."""
        return FileTarget(confirmation_path(settings().state, self.source, self.year, self.release))

    def complete(self) -> bool:
        """Whether the file speaks for the downloads that are here."""
        noted = read_if_whole(self.output().path, lambda document: document["archives"])
        return noted is not None and noted == self.at_hand()

    def run(self) -> None:
        """Probe again and compare.

        Raises:
            ReleaseChanged: an archive was replaced, came or went since the probe.
        """
        state, before = settings().state, dict(self.offered().fingerprints)
        # While the publisher's server is down, a mirror can confirm this release, and make no other of it.
        offer = survey(self.downloads(), self.of_source(), self.year, known=lambda _: known_of(self.offered()), on_event=log_event)
        now = with_editions(state, self.source, self.year, offer.fingerprints)
        changed = sorted(archive for archive in before.keys() | now.keys() if before.get(archive) != now.get(archive))
        if changed:
            raise ReleaseChanged(
                f"{self.source} {self.year} changed while it was fetched: "
                + ", ".join(f"{archive} is {now.get(archive, 'gone')} and was {before.get(archive, 'not there')}" for archive in changed),
                f"release {self.release}, as it was probed",
                "nothing: the next run takes the new release, and keeps the archives that are the same",
            )
        confirmed_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        write_json(self.output().path, {"release": self.release, "confirmed_at": confirmed_at, "archives": self.at_hand()})
        log_event("release.confirmed", {"source": self.source, "year": self.year, "release": self.release})

    def at_hand(self) -> dict[str, Any]:
        """What is here of each archive, by its file's name: when it was fetched and its sha256, why it is bad, or nothing."""
        return {download.output().path.name: _noted(download) for download in downloads_of(self.offered())}


def _noted(download: DownloadArchive) -> dict[str, str] | None:
    target = download.output()
    if target.is_there():
        receipt = target.read()
        return {"sha256": receipt.sha256, "fetched_at": receipt.fetched_at}
    refusal = target.refusal()
    return {"code": refusal.code, "message": refusal.message} if refusal else None
