"""What a run would do for a source's tax year, said before it does it: ``hcad-pipeline plan``.

In go the catalog, what the source offers at this moment (or, offline, what it offered last) and the ledger; out come a line an archive and
a line a table, and what it comes to. Nothing is fetched, written or locked: the source is asked as the probe asks it. What only the
bytes can tell (whether a member has changed inside an archive that has) is not foreseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine

from pipeline.catalog.model import Archive, Source, Table
from pipeline.catalog.recipe import layout_recipe, release_recipe
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import Import, ImportKey
from pipeline.download.manager import DownloadManager
from pipeline.download.offer import YearOffer, choose
from pipeline.download.probe import Probe
from pipeline.handoff import read_receipt, receipt_path
from pipeline.releases import Release, archive_files, last_offered, with_editions
from pipeline.settings import Settings
from pipeline.text_table import aligned

ARCHIVE_COLUMNS = ("archive", "bytes", "a run would", "from")
TABLE_COLUMNS = ("table", "archive", "live rows", "a run would")
Does = Literal["load", "compare", "read again", "keep", "leave"]
#: What a word of :class:`PlannedTable` means, to a person.
MEANING: Mapping[Does, str] = {
    "load": "load it for the first time",
    "compare": "compare it with what is live",
    "read again": "read it again, without a download: its schema file has changed",
    "keep": "keep it: nothing has changed",
    "leave": "leave it as it is",
}
LIVE = """
select t.table_name, t.member_sha256, t.recipe, t.rows_loaded from etl.import_table t where t.import_id = %s
"""


@dataclass(frozen=True)
class PlannedArchive:
    """An archive of the tax year: how long it is, as far as that is known, and what would be done with it."""

    name: str
    url: str
    bytes: int | None
    does: str
    is_fetched: bool = False


@dataclass(frozen=True)
class PlannedTable:
    """A table of the tax year: its live rows, and what would be done with it and why."""

    name: str
    archive: str
    rows: int
    does: Does
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        source, year, profile: what was asked for.
        tax_year: the tax year that the source's policy takes; None: none is complete.
        said: sentences about the offer.
        archives, tables: in the order of the source's file, and by name.
        conclusion: what it comes to, and the exit code that a run would have where that is known.
    """

    source: str
    year: int
    profile: str
    tax_year: int | None
    said: tuple[str, ...]
    archives: tuple[PlannedArchive, ...]
    tables: tuple[PlannedTable, ...]
    conclusion: str

    def lines(self) -> list[str]:
        """For a person."""
        head = f"{self.source} {self.year}, profile {self.profile}"
        rows = [(one.name, one.bytes if one.bytes is not None else "", one.does, one.url) for one in self.archives]
        tables = [(one.name, one.archive, one.rows, f"{MEANING[one.does]}{f': {one.why}' if one.why else ''}") for one in self.tables]
        return [head, *self.said, "", *aligned(ARCHIVE_COLUMNS, rows), "", *aligned(TABLE_COLUMNS, tables), "", self.conclusion]

    def document(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def make_plan(engine: Engine, settings: Settings, source: Source, year: int, *, ask: bool = True) -> Plan:
    """Plan a run of one source and tax year.

    Args:
        engine: of the ledger.
        settings: how long a server is waited for, and the state folder.
        source: the source.
        year: the tax year.
        ask: whether to ask the source; else what it offered last counts.

    Raises:
        DownloadError, DownloadRefused, AddressRefused, ListingError: what there is could not be found out.
    """
    said: list[str] = []
    offer, probes, release = YearOffer(year), dict[str, Probe](), None
    if ask:
        choice = choose(_downloads(settings, source), source, year)
        offer = choice.taken or choice.considered[0]
        probes = dict(offer.archives)
        said += [f"{one.year} is not complete: {one.lacks}" for one in choice.considered if one.lacks]
        if offer.listed and offer.listed.is_listed:
            certified = "certified" if offer.listed.is_certified else "not certified"
            said.append(f"the listing says: {certified}, last updated {offer.listed.updated or 'on no day that it tells'}")
        if choice.taken:
            fingerprints = with_editions(settings.state, source.name, offer.year, offer.fingerprints)
            release = Release.of(source.name, offer.year, source.profile, fingerprints)
    else:
        release = last_offered(settings.state, source.name, year)
        said.append("not asked: what the source offered last" if release else "not asked, and no run has asked it before")
    offered = release.fingerprints if release else {}
    here = {name: _is_here(settings.state, source, offer.year, name, fingerprint) for name, fingerprint in offered.items()}
    with transaction(engine) as cursor:
        current = ledger.current(cursor, source.name, offer.year)
        key = ImportKey(source.name, offer.year, release.release if release else "", release_recipe(source, offer.year))
        standing = ledger.standing(cursor, key) if release else None
        cursor.execute(LIVE, [current.import_id if current else None])
        live = {name: (sha256, recipe, rows) for name, sha256, recipe, rows in cursor.fetchall()}
        cursor.execute("select archives from etl.release where (source, tax_year, release) = (%s, %s, %s)",
                       [source.name, offer.year, current.key.release if current else None])  # fmt: skip
        (before,) = cursor.fetchone() or ({},)
    archives = tuple(_archive(source, one, offer.year, probes.get(one.name), offered, here) for one in source.archives_for(offer.year))
    unchanged = {name for name, fingerprint in offered.items() if before.get(name) == fingerprint}
    stated = offered if release or ask else None
    tables = tuple(_table(table, stated, unchanged, live.get(table.name)) for table in source.tables_for(offer.year))
    tax_year = offer.year if release else None
    conclusion = _conclusion(source, year, offer, standing, archives, tables, is_known=release is not None, asked=ask)
    return Plan(source.name, year, source.profile, tax_year, tuple(said), _idle(archives, standing), tables, conclusion)


def _downloads(settings: Settings, source: Source) -> DownloadManager:
    return DownloadManager(
        timeout_s=settings.timeout_s, allow_addresses=source.allow_addresses, allow_http=source.allow_http, **asdict(settings.patience)
    )


def _is_here(state: Path, source: Source, year: int, archive: str, fingerprint: str) -> bool:
    """Whether the archive, or what stands in for it, was downloaded and is kept."""
    folder = state / "archives" / source.name / str(year)
    return any(read_receipt(receipt_path(folder / file)) is not None for file in archive_files(archive, fingerprint))


def _archive(
    source: Source, archive: Archive, year: int, probe: Probe | None, offered: Mapping[str, str], here: Mapping[str, bool]
) -> PlannedArchive:
    url = probe.url if probe else source.url(archive, year)
    size = probe.bytes if probe else None
    if archive.name in offered:
        does = "use it: it is here" if here[archive.name] else "fetch it"
        return PlannedArchive(archive.name, url, size, does, is_fetched=not here[archive.name])
    if probe is None:
        return PlannedArchive(archive.name, url, size, "ask for it")
    if probe.status == "found":
        return PlannedArchive(archive.name, url, size, "not fetch it yet")
    missing = "refused" if probe.status == "refused" else "not there"
    return PlannedArchive(archive.name, url, size, f"{'wait for' if archive.required else 'do without'} it: {missing}")


def _table(
    table: Table, offered: Mapping[str, str] | None, unchanged: Collection[str], live: tuple[str | None, str | None, int] | None
) -> PlannedTable:
    sha256, recipe, rows = live or (None, None, 0)
    if offered is not None and table.archive not in offered:
        return PlannedTable(table.name, table.archive, rows, "leave", f"{table.archive} is not offered")
    if sha256 is None:
        return PlannedTable(table.name, table.archive, rows, "load", "" if table.required else "if the archive has it")
    is_as_before = recipe in {layout_recipe(table, layout) for layout in table.layouts}
    if table.archive in unchanged:
        return PlannedTable(table.name, table.archive, rows, "keep" if is_as_before else "read again")
    return PlannedTable(table.name, table.archive, rows, "compare", "" if is_as_before else "its schema file has changed, too")


def _idle(archives: tuple[PlannedArchive, ...], standing: Import | None) -> tuple[PlannedArchive, ...]:
    """Nothing is fetched of a release that is current or held."""
    if standing is None or not (standing.is_held or standing.state == "published"):
        return archives
    return tuple(replace(one, does="not fetch it", is_fetched=False) if one.is_fetched else one for one in archives)


def _conclusion(
    source: Source, year: int, offer: YearOffer, standing: Import | None, archives: tuple[PlannedArchive, ...],
    tables: tuple[PlannedTable, ...], *, is_known: bool, asked: bool,
) -> str:  # fmt: skip
    if not is_known and asked:
        return f"{source.name} has not published {year} yet: a run would do nothing (exit code 20)"
    if not is_known:
        return "a run would ask the source first"
    if standing and standing.is_held:
        return f"the release is held ({standing.state}, import {standing.import_id}): a run would do nothing (exit code 31)"
    if standing and standing.state == "published":
        return f"the release is current (import {standing.import_id}): a run would do nothing (exit code 0)"
    fetched = [one for one in archives if one.is_fetched]
    known = [one.bytes for one in fetched if one.bytes is not None]
    size = f" of {sum(known):,} bytes{'' if len(known) == len(fetched) else ' or more'}" if known else ""
    counts = Counter(one.does for one in tables)
    steps = ", ".join(f"{does} {counts[does]}" for does in MEANING if counts[does])
    plural = "" if len(fetched) == 1 else "s"
    fetch = f"fetch {len(fetched)} archive{plural}{size}" if fetched else "fetch nothing"
    return f"a run would {fetch}; tables: {steps}; then the gate, and one publish of tax year {offer.year}"
