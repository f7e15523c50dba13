"""ProbeRelease and DownloadArchive: what is offered, and getting it."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict

import luigi

from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.handoff import write_json
from pipeline.releases import Release, probe_path
from pipeline.targets import ArchiveTarget, FileTarget
from pipeline.tasks.base import PipelineTask, engine, settings


class ProbeRelease(PipelineTask):
    """Ask the source what it has for a tax year; a few HEAD requests, some hundred milliseconds.

    The file says ``found`` with the release, or ``not_published`` with the required archives that are missing: an outcome, not
    a failure.
    """

    as_of = luigi.DateSecondParameter(description="the run's instant, UTC")
    resources = {"network": 1}  # noqa: RUF012  # Luigi reads it from the class

    def output(self) -> FileTarget:
        """``var/releases/<source>/<year>/<as_of>.json``."""
        return FileTarget(probe_path(settings().state, self.source, self.year, self.as_of))

    def run(self) -> None:
        """Probe every archive and write what was seen."""
        source, downloads = self.of_source(), self.downloads()
        probes = {archive.name: downloads.probe(source.url(archive, self.year)) for archive in source.archives_for(self.year)}
        found = {name: probe for name, probe in probes.items() if probe.status == "found"}
        missing = [archive.name for archive in source.archives_for(self.year) if archive.required and archive.name not in found]
        document = {
            "source": self.source, "year": self.year, "profile": source.profile, "as_of": self.as_of.replace(tzinfo=dt.UTC).isoformat(),
            "archives": {name: asdict(probe) for name, probe in probes.items()},
        }  # fmt: skip
        if missing or not found:
            write_json(self.output().path, document | {"status": "not_published", "missing": missing, "release": None})
            return
        fingerprints = {name: str(probe.fingerprint) for name, probe in found.items()}
        release = Release.of(self.source, self.year, source.profile, fingerprints)
        # The release's own file first: a probe's file never names a release that cannot be read.
        release.write(settings().state)
        with transaction(engine()) as cursor:
            ledger.record_release(cursor, self.source, self.year, release.release, source.profile, fingerprints)
        write_json(self.output().path, document | {"status": "found", "missing": [], "release": release.release})


class DownloadArchive(PipelineTask):
    """Fetch one archive as it was fingerprinted; bandwidth decides how long it takes."""

    archive = luigi.Parameter(description="an archive of source.toml")
    fingerprint = luigi.Parameter(description="what its validators gave at the probe")
    resources = {"network": 1}  # noqa: RUF012

    def output(self) -> ArchiveTarget:
        """``var/archives/<source>/<year>/<archive>-<fingerprint>`` with its receipt beside it."""
        return ArchiveTarget(self.folder("archives") / f"{self.archive}-{self.fingerprint}")

    def run(self) -> None:
        """Download, verify, rename; then the receipt."""
        source, target = self.of_source(), self.output()
        target.path.parent.mkdir(parents=True, exist_ok=True)
        url = source.url(source.archive(self.archive), self.year)
        receipt = self.downloads().download_file(url, target.path, max_retries=settings().max_retries, fingerprint=self.fingerprint)
        write_json(target.receipt, receipt)
