"""ExtractArchive: the wanted members of an archive, measured and cut into parts."""

from __future__ import annotations

import luigi

from pipeline.handoff import Manifest, Member
from pipeline.targets import MembersTarget
from pipeline.tasks.base import PipelineTask, wanted_members
from pipeline.tasks.download import DownloadArchive


class ExtractArchive(PipelineTask):
    """Unpack the wanted members of an archive into a folder that is renamed into place once."""

    archive = luigi.Parameter(description="an archive of source.toml")
    fingerprint = luigi.Parameter(description="what its validators gave at the probe")
    cut = luigi.Parameter(description="hash of the wanted members, the limits and the part size")
    resources = {"cpu": 1}  # noqa: RUF012

    def requires(self) -> DownloadArchive:
        """The archive."""
        return self.clone(DownloadArchive)

    def output(self) -> MembersTarget:
        """``var/members/<source>/<year>/<archive>-<fingerprint>-<cut>/``."""
        return MembersTarget(self.folder("members") / f"{self.archive}-{self.fingerprint}-{self.cut}")

    def run(self) -> None:
        """Extract, measure, cut."""
        archive = self.input()
        folder = self.output().prepare()
        self.extracts().extract_archive(
            archive.path,
            folder,
            members=wanted_members(self.of_source(), self.year, self.archive),
            sha256=archive.read().sha256,
            archive_name=self.archive,
        )

    def manifest(self) -> Manifest:
        """What was extracted."""
        return self.output().manifest()

    def member(self, name: str) -> Member | None:
        """The extracted member of that declared name; None when the archive does not carry it."""
        return next((member for member in self.manifest().members if member.name.lower() == name.lower()), None)
