"""SyncSource and SyncAll: the tasks that a person, a timer or the runner asks for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import luigi

from pipeline.catalog.recipe import release_recipe
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.settings import chosen_syncs
from pipeline.tasks.base import PipelineTask, engine
from pipeline.tasks.download import DownloadArchive, downloads_of
from pipeline.tasks.load import PublishRelease
from pipeline.tasks.probe import ProbeRelease


def now() -> dt.datetime:
    """This instant, UTC, to the second: the default of ``as_of``."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0, tzinfo=None)


class SyncSource(PipelineTask):
    """Bring one source's tax year to what it offers now.

    Complete when the probe's file exists and the release in it is published: "this release is current", not "it ran". A plain
    task: a WrapperTask would call itself complete while its publish had been killed.
    """

    as_of = luigi.DateSecondParameter(default=now(), description="the run's instant, UTC; the same again goes on where it stopped")
    force = luigi.BoolParameter(default=False, description="download again what is there, and compare")
    # What it raises of its own is that the release is held: no later attempt changes that.
    retry_count = 1

    def requires(self) -> ProbeRelease:
        """What is offered."""
        return self.clone(ProbeRelease)

    def publish(self) -> PublishRelease | None:
        """The publish of the release that the probe saw, under the tax year that it took; None when there is none yet."""
        probe = self.requires().output().read()
        if probe["release"] is None:
            return None
        recipe = release_recipe(self.of_source(), probe["tax_year"])
        return PublishRelease(source=self.source, year=probe["tax_year"], release=probe["release"], recipe=recipe)

    def complete(self) -> bool:
        """Whether the probe was taken and what it saw is current."""
        if not self.requires().complete():
            return False
        publish = self.publish()
        return publish is None or (publish.complete() and all(download.complete() for download in self.forced(publish)))

    def forced(self, publish: PublishRelease) -> list[DownloadArchive]:
        """What must be here again although the release may be current.

        With ``force`` every archive of it that was ever here; without, those that were found damaged and are fetched once more.
        """
        downloads = [download for download in downloads_of(publish.offered()) if self.force or download.is_judged_again()]
        return [download for download in downloads if not download.is_fallback or download.output().path.exists()]

    def run(self) -> Iterator[list[DownloadArchive] | PublishRelease]:
        """Ask for the publish, unless the release is held.

        Raises:
            ReleaseHeld: it was refused or rolled back before; no work is done on it.
        """
        publish = self.publish()
        if publish is None:
            return
        if forced := self.forced(publish):
            yield forced
        with transaction(engine()) as cursor:
            found = ledger.standing(cursor, publish.key)
        if found and found.is_held:
            raise ledger.held(found)
        yield publish


class SyncAll(luigi.Task):
    """Every enabled source and each of its tax years; one that fails stops no other."""

    as_of = luigi.DateSecondParameter(default=now(), description="the run's instant, UTC; the same again goes on where it stopped")
    only = luigi.Parameter(default="", description="one source instead of all")
    force = luigi.BoolParameter(default=False, description="download again what is there, and compare")

    def requires(self) -> list[SyncSource]:
        """The syncs."""
        chosen = chosen_syncs(self.only or None, None)
        return [SyncSource(source=source, year=year, as_of=self.as_of, force=self.force) for source, year in chosen]

    def complete(self) -> bool:
        """Whether every sync is complete."""
        return all(sync.complete() for sync in self.requires())

    def run(self) -> None:
        """Nothing of its own to do."""
