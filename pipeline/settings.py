"""The one place where ``config/luigi.cfg`` becomes typed values.

The classes below are the project's own sections of that file; :func:`read_settings` puts them together with the
environment into one frozen object. A value of the wrong kind stops here and names its section and key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import luigi
from luigi.parameter import ParameterException

from pipeline import configuration
from pipeline.bandwidth import BandwidthPlan
from pipeline.catalog.layers import without_layers
from pipeline.catalog.load import load_catalog
from pipeline.catalog.model import Source
from pipeline.catalog.profiles import elsewhere
from pipeline.database.engine import DatabaseLimits
from pipeline.errors import ConfigurationError
from pipeline.extras import GIS, missing
from pipeline.services import running

#: Stands in the sample profile of the source.toml files.
SAMPLE_SERVER_URL = "SAMPLE_SERVER_URL"


class paths(luigi.Config):  # noqa: N801  # the section's name
    """Where the state lies."""

    state = luigi.Parameter(default="var")


class catalog(luigi.Config):  # noqa: N801
    """Which schema files, under which profile."""

    path = luigi.Parameter(default="")
    profile = luigi.Parameter(default="production")


class database(luigi.Config):  # noqa: N801
    """The PostgreSQL server."""

    url = luigi.Parameter(default="", visibility=luigi.parameter.ParameterVisibility.PRIVATE)
    connect_timeout_s = luigi.FloatParameter(default=15.0)
    reconnect_s = luigi.FloatParameter(default=10.0)
    lock_timeout_s = luigi.FloatParameter(default=600.0)
    statement_timeout_s = luigi.FloatParameter(default=14_400.0)
    idle_in_transaction_s = luigi.FloatParameter(default=600.0)
    silence_s = luigi.FloatParameter(default=20.0)
    pool_size = luigi.IntParameter(default=2)
    min_free_mb = luigi.IntParameter(default=1024)


class download(luigi.Config):  # noqa: N801
    """Where archives come from, and how patiently."""

    mirror = luigi.Parameter(default="")
    mirror_addresses = luigi.Parameter(default="")
    connect_timeout_s = luigi.FloatParameter(default=10.0)
    read_timeout_s = luigi.FloatParameter(default=60.0)
    max_retries = luigi.IntParameter(default=3)
    backoff_s = luigi.FloatParameter(default=0.5)
    max_wait_s = luigi.FloatParameter(default=30.0)
    retry_after_cap_s = luigi.FloatParameter(default=120.0)
    deadline_s = luigi.FloatParameter(default=14_400.0)
    min_bytes_per_s = luigi.FloatParameter(default=4_096.0)
    rate_window_s = luigi.FloatParameter(default=60.0)
    max_bytes = luigi.IntParameter(default=16 << 30)
    unpack_factor = luigi.FloatParameter(default=5.0)
    bandwidth = luigi.Parameter(default="")
    per_host = luigi.IntParameter(default=2)
    slot_wait_s = luigi.FloatParameter(default=3_600.0)


class extract(luigi.Config):  # noqa: N801
    """How members are cut."""

    part_bytes = luigi.IntParameter(default=64 << 20)


class transform(luigi.Config):  # noqa: N801
    """How much is read at a time."""

    chunk_rows = luigi.IntParameter(default=20_000)


class load(luigi.Config):  # noqa: N801
    """How much is sent at a time, and kept of what is refused."""

    batch_rows = luigi.IntParameter(default=20_000)
    max_memory_mb = luigi.IntParameter(default=350)
    quarantine_rows_per_rule = luigi.IntParameter(default=1000)


class retention(luigi.Config):  # noqa: N801
    """Of how many published releases of a tax year something is kept, and for how many days."""

    archives = luigi.IntParameter(default=2)
    members = luigi.IntParameter(default=1)
    history = luigi.IntParameter(default=10)
    history_days = luigi.IntParameter(default=90)
    staging_days = luigi.IntParameter(default=30)


@dataclass(frozen=True)
class Patience:
    """How patient a download is: the arguments of :class:`pipeline.download.manager.DownloadManager` under the same names."""

    backoff_s: float
    max_wait_s: float
    retry_after_cap_s: float
    deadline_s: float
    min_bytes_per_s: float
    rate_window_s: float
    max_bytes: int
    unpack_factor: float


@dataclass(frozen=True)
class Settings:
    """The configuration and the environment, typed. ``database_url`` is empty when the embedded server is to be used."""

    state: Path
    catalog_path: Path | None
    profile: str
    database_url: str
    database_limits: DatabaseLimits
    min_free_bytes: int
    mirror: str
    mirror_addresses: tuple[str, ...]
    timeout_s: tuple[float, float]
    max_retries: int
    patience: Patience
    bandwidth: BandwidthPlan
    per_host: int
    slot_wait_s: float
    part_bytes: int
    chunk_rows: int
    batch_rows: int
    max_memory_mb: int
    quarantine_rows_per_rule: int
    scheduler_url: str
    run_id: int | None
    tokens: Mapping[str, int] | None
    kept_archives: int
    kept_members: int
    kept_history: int
    kept_history_days: int
    kept_staging_days: int


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration that LUIGI_CONFIG_PATH names, and the environment over it.

    Raises:
        ConfigurationError: a value is of the wrong kind or out of range.
    """
    try:
        path = str(catalog().path)
        positive: dict[str, Any] = {
            "[extract] part_bytes": int(extract().part_bytes),
            "[transform] chunk_rows": int(transform().chunk_rows),
            "[load] batch_rows": int(load().batch_rows),
            "[load] max_memory_mb": int(load().max_memory_mb),
            "[load] quarantine_rows_per_rule": int(load().quarantine_rows_per_rule),
            "[download] per_host": int(download().per_host),
            "[database] pool_size": int(database().pool_size),
            "[database] connect_timeout_s": float(database().connect_timeout_s),
            "[retention] archives": int(retention().archives),
        }
        settings = Settings(
            state=_absolute(environ.get(configuration.STATE) or str(paths().state)),
            catalog_path=_absolute(path) if path else None,
            profile=environ.get(configuration.PROFILE) or str(catalog().profile),
            database_url=environ.get("DATABASE_URL") or str(database().url),
            database_limits=_database_limits(),
            min_free_bytes=int(_not_negative("min_free_mb", database)) << 20,
            mirror=environ.get(configuration.MIRROR) or str(download().mirror),
            mirror_addresses=tuple(str(download().mirror_addresses).split()),
            timeout_s=(float(download().connect_timeout_s), float(download().read_timeout_s)),
            max_retries=int(download().max_retries),
            patience=_patience(),
            bandwidth=BandwidthPlan.parse(str(download().bandwidth)),
            per_host=positive["[download] per_host"],
            slot_wait_s=_not_negative("slot_wait_s"),
            part_bytes=positive["[extract] part_bytes"],
            chunk_rows=positive["[transform] chunk_rows"],
            batch_rows=positive["[load] batch_rows"],
            max_memory_mb=positive["[load] max_memory_mb"],
            quarantine_rows_per_rule=positive["[load] quarantine_rows_per_rule"],
            scheduler_url=luigi.configuration.get_config().get("core", "scheduler_url", "http://127.0.0.1:8082/"),
            run_id=int(environ[configuration.RUN_ID]) if environ.get(configuration.RUN_ID) else None,
            tokens=json.loads(environ[configuration.TOKENS]) if environ.get(configuration.TOKENS) else None,
            kept_archives=positive["[retention] archives"],
            kept_members=int(retention().members),
            kept_history=int(retention().history),
            kept_history_days=int(retention().history_days),
            kept_staging_days=int(retention().staging_days),
        )
    except (ValueError, ParameterException) as error:
        raise ConfigurationError(f"a setting that cannot be read: {error}", "see the comments in config/luigi.cfg", "correct it") from error
    for name, value in positive.items():
        if value < 1:
            raise ConfigurationError(f"{name} = {value}", "1 or more", "correct config/luigi.cfg")
    for name in ("members", "history", "history_days", "staging_days"):
        if (value := int(getattr(retention(), name))) < 0:
            raise ConfigurationError(f"[retention] {name} = {value}", "0 or more", "correct config/luigi.cfg")
    return settings


def _patience() -> Patience:
    figures = {name: _not_negative(name) for name in Patience.__dataclass_fields__}
    return Patience(**{**figures, "max_bytes": int(download().max_bytes)})  # type: ignore[arg-type]  # the one whole number among them


def _database_limits() -> DatabaseLimits:
    return DatabaseLimits(
        connect_s=float(database().connect_timeout_s),
        reconnect_s=_not_negative("reconnect_s", database),
        lock_s=_not_negative("lock_timeout_s", database),
        statement_s=_not_negative("statement_timeout_s", database),
        idle_in_transaction_s=_not_negative("idle_in_transaction_s", database),
        silence_s=_not_negative("silence_s", database),
        pool=int(database().pool_size),
    )


def _not_negative(name: str, section: type[luigi.Config] = download) -> float:
    """A figure that is 0 or more.

    Raises:
        ConfigurationError: it is not.
    """
    value = getattr(section(), name)
    # Also refuses what is no number.
    if not value >= 0:
        raise ConfigurationError(f"[{section.__name__}] {name} = {value}", "0 or more", "correct config/luigi.cfg")
    return float(value)


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    """The settings of this process, read once; the processes that Luigi forks inherit them."""
    return read_settings()


@lru_cache(maxsize=1)
def process_sources() -> Mapping[str, Source]:
    """The catalog of this process under the chosen profile, with the mirror's address where one is set.

    Where the extra ``gis`` is not installed the archives of map layers are left out.
    """
    ours = process_settings()
    loaded = load_catalog(ours.catalog_path, profile=ours.profile, environ=_with_sample_server(ours, os.environ))
    lacking = missing(GIS)
    catalog = {name: without_layers(source, lacking) for name, source in loaded.items()}
    if not ours.mirror:
        return catalog
    return {
        name: replace(
            elsewhere(source),
            base_url=ours.mirror.replace("{source}", name),
            allow_addresses=(*source.allow_addresses, *ours.mirror_addresses),
        )
        for name, source in catalog.items()
    }


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        ConfigurationError: the catalog has none.
    """
    try:
        return process_sources()[name]
    except KeyError:
        known = ", ".join(sorted(process_sources()))
        raise ConfigurationError(f"source {name!r}", f"one of {known}", "name one of these") from None


def chosen_syncs(source: str | None, year: int | None) -> list[tuple[str, int]]:
    """Which source and tax years a run is about: one of each, all years of one source, or every enabled source.

    Raises:
        ConfigurationError: there is no such source, or none is enabled.
    """
    if year and not source:
        raise ConfigurationError(f"tax year {year} without a source", "a source for the year", "name the source")
    if source:
        return [(source, tax_year) for tax_year in ((year,) if year else find_source(source).tax_years)]
    chosen = [found for found in process_sources().values() if found.enabled]
    if not chosen:
        raise ConfigurationError("no source is enabled", "enabled = true in a source.toml", "enable one, or name one")
    return [(found.name, tax_year) for found in chosen for tax_year in found.tax_years]


def chosen_tables(source: str | None, syncs: Sequence[tuple[str, int]], tables: Sequence[str], archives: Sequence[str]) -> tuple[str, ...]:
    """The tables that an import is about, where these are not all: those named, and those out of the archives that are named.

    Raises:
        ConfigurationError: no source is named, or one of its tax years has no such table or archive.
    """
    if not tables and not archives:
        return ()
    if not source:
        raise ConfigurationError("a table or archive without a source", "a source for it", "add --source")
    found = find_source(source)
    chosen = {*tables, *(table.name for table in found.tables if table.archive in archives)}
    for _, year in syncs:
        there = found.tables_for(year)
        unknown = sorted((chosen - {table.name for table in there}) | (set(archives) - {table.archive for table in there}))
        if unknown:
            known = ", ".join(f"{table.name} (of {table.archive})" for table in there)
            named = f"{', '.join(unknown)} of {source} {year}"
            raise ConfigurationError(named, f"some of {known}", "name some of these, or another --year")
    return tuple(sorted(chosen))


def is_configured() -> bool:
    """Whether Luigi has read a configuration with exit codes of its own, ours or one made from it."""
    return bool(luigi.configuration.get_config().getint("retcode", "task_failed", 0))


def _with_sample_server(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the address of the sample server that ``hcad-pipeline up --sample`` started in this state folder."""
    if SAMPLE_SERVER_URL in environ:
        return environ
    url = next((service.url for service in running(settings.state) if service.name == "sample-server"), None)
    return {**environ, SAMPLE_SERVER_URL: url.rstrip("/")} if url else environ


def _absolute(path: str) -> Path:
    return (configuration.home() / Path(path).expanduser()).resolve()
