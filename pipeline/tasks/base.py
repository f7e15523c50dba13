"""What every task has: the settings, its source, the database, and the paths of its targets.

Settings, catalog and database are read once a process and inherited by the task processes that Luigi forks; nothing is
connected before a task or a target asks.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import luigi
from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.catalog.recipe import scope_of, scoped_recipe
from pipeline.database.ledger import ImportKey
from pipeline.database.server import open_database
from pipeline.download.manager import DownloadManager
from pipeline.download.throttle import SharedBandwidth, SharedSlots
from pipeline.errors import ConfigurationError
from pipeline.extract.manager import ExtractManager
from pipeline.extract.wanted import cuts_of
from pipeline.handoff import OnEvent
from pipeline.load.manager import LoadManager
from pipeline.observe.events import log_event
from pipeline.releases import Release
from pipeline.settings import find_source, process_settings, process_sources

settings = process_settings


sources = process_sources


def engine() -> Engine:
    """The database, with the ledger up to date."""
    return open_database(settings().database_url, settings().state, settings().database_limits)


class PipelineTask(luigi.Task):
    """A task of one source and tax year."""

    source = luigi.Parameter(description="a folder of schemas/ that has a source.toml")
    year = luigi.IntParameter(description="the tax year")

    def of_source(self) -> Source:
        """The source."""
        return find_source(self.source)

    def folder(self, kind: str) -> Path:
        """Where targets of one kind lie: ``var/<kind>/<source>/<year>``."""
        return settings().state / kind / self.source / str(self.year)

    def downloads(self, on_event: OnEvent = log_event) -> DownloadManager:
        """The download stage, within the limits that all processes of this state folder keep together."""
        ours, source = settings(), self.of_source()
        shared = ours.state / "throttle"
        return DownloadManager(
            timeout_s=ours.timeout_s,
            allow_addresses=source.allow_addresses,
            allow_http=source.allow_http,
            bandwidth=SharedBandwidth(shared / "bandwidth", ours.bandwidth) if ours.bandwidth.is_limited else None,
            slots=SharedSlots(shared / "slots", ours.per_host, ours.slot_wait_s, on_event),
            on_event=on_event,
            **asdict(ours.patience),
        )

    def extracts(self) -> ExtractManager:
        """The extract stage."""
        return ExtractManager(part_bytes=settings().part_bytes, limits=self.of_source().limits, on_event=log_event)

    def loads(self) -> LoadManager:
        """The load stage."""
        ours = settings()
        return LoadManager(
            engine(), profile=ours.profile, tokens=ours.tokens, batch_rows=ours.batch_rows, max_memory_mb=ours.max_memory_mb,
            quarantine_rows=ours.quarantine_rows_per_rule, on_event=log_event,
        )  # fmt: skip


class ImportTask(PipelineTask):
    """A task on the way of one import: it carries the release and the recipe."""

    release = luigi.Parameter(description="what the source offers: hash of its archives' fingerprints")
    recipe = luigi.Parameter(description="what our schema and code make of it: hash of all wanted tables' recipes; +tables, if not all")

    @property
    def key(self) -> ImportKey:
        """The import's identity."""
        return ImportKey(self.source, self.year, self.release, self.recipe)

    def offered(self) -> Release:
        """The release."""
        return Release.read(settings().state, self.source, self.year, self.release)

    def tables(self) -> list[Table]:
        """The tables that the import is about; every other one is carried over."""
        scope = scope_of(self.recipe)
        return [table for table in self.of_source().tables_for(self.year) if not scope or table.name in scope]

    def require_recipe(self) -> None:
        """Stop unless the schema files are those that the recipe in the parameters was taken from.

        Raises:
            ConfigurationError: they were edited since, or the recipe was typed by hand.
        """
        ours = scoped_recipe(self.of_source(), self.year, scope_of(self.recipe))
        if ours != self.recipe:
            raise ConfigurationError(
                f"recipe {self.recipe}, and the schema files give {ours}", "the recipe of the schema files", "start the run again"
            )


def cut_of(source: Source, year: int, archive: str) -> str:
    """The hash of what is taken out of an archive and how it is cut."""
    return cuts_of(source, year, settings().part_bytes, (archive,))[archive]


def table_of(source: Source, name: str) -> Table:
    """The table of that name.

    Raises:
        ConfigurationError: the source has none.
    """
    try:
        return source.table(name)
    except KeyError:
        known = ", ".join(table.name for table in source.tables)
        raise ConfigurationError(f"table {name!r} of {source.name}", f"one of {known}", "name one of these") from None
