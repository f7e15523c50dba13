"""A source under a profile: the production settings with those of ``[profile.<name>]`` laid over them.

What a profile does not name stays as it is in production. ``gate`` is laid over key by key, its ``floors`` are
replaced whole, because those of production count a whole county. With a base URL of its own a profile has no mirrors, no
pinned bytes and no listing but one that it names: those of production speak of the publisher's files. Only the profile that
a run chose looks at the environment, so that nobody needs a variable of a profile that they do not use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pipeline.catalog import source_parts as parts
from pipeline.catalog.model import Source
from pipeline.catalog.toml_file import KeyPath, TomlFile, closest

PRODUCTION = "production"


def overlay(file: TomlFile, production: Source, profile: str) -> Source:
    """The source under a profile, its base URL not yet looked up."""
    keys = file.document["profile"][profile]
    where: KeyPath = ("profile", profile)
    names = {table.name for table in production.tables}
    wanted = keys.get("tables", names)
    for number, name in enumerate(wanted if "tables" in keys else ()):
        if name not in names:
            raise file.error((*where, "tables", number), f"no table {name!r}{closest(name, names)}", ", ".join(sorted(names)))
    gate_keys = keys.get("gate", {})
    gate = parts.gate(production.gate, gate_keys)
    rolls = tuple(roll for roll in production.rolls if all(one.table.name in wanted for one in roll.inputs if one.required))
    kept = {*wanted, *(roll.table.name for roll in rolls)}
    inherited: dict[str, Any] = {}
    for key in parts.BY_TABLE:
        if key not in gate_keys:
            inherited[key] = {name: given for name, given in getattr(gate, key).items() if name in kept}
    gate = replace(gate, **inherited)
    base = production
    if "base_url" in keys:
        base = elsewhere(production)
        base = replace(base, archives=tuple(replace(archive, sha256={}) for archive in base.archives))
    source = replace(
        base,
        profile=profile,
        enabled=keys.get("enabled", production.enabled),
        base_url=keys.get("base_url", production.base_url),
        tax_years=parts.tax_years(file, where, keys["tax_years"]) if "tax_years" in keys else production.tax_years,
        allow_addresses=parts.addresses(file, where, keys.get("allow_addresses", production.allow_addresses)),
        tables=tuple(table for table in production.tables if table.name in wanted),
        rolls=rolls,
        gate=gate,
        archives_by_year=_archives_by_year(file, where, keys),
        probe=parts.probe_rule(file, (*where, "probe"), base.probe, keys.get("probe", {})),
    )
    parts.check_floors(file, (*where, "gate"), source)
    return source


def elsewhere(source: Source) -> Source:
    """The source for a server that is not the publisher's: the publisher's listing, mirrors and other base URLs say nothing of it."""
    rule = source.probe
    kept = tuple(name for name in rule.fingerprint if name != "listing")
    probe = replace(rule, listing=None, listing_sections=(), listing_complete="listed", fingerprint=kept)
    archives = tuple(replace(archive, base_url=None) for archive in source.archives)
    return replace(source, probe=probe, mirrors=(), archives=archives)


def _archives_by_year(file: TomlFile, where: KeyPath, keys: Mapping[str, Any]) -> dict[int, tuple[str, ...]] | None:
    """The archives that a profile wants of each tax year."""
    if "archives" not in keys:
        return None
    for year, archives in keys["archives"].items():
        for name in archives:
            if name not in file.document["archives"]:
                raise file.error((*where, "archives", year), f"no archive {name!r}", ", ".join(file.document["archives"]))
    return {int(year): tuple(archives) for year, archives in keys["archives"].items()}


def check_years(file: TomlFile, source: Source) -> None:
    """Every tax year brings a table; a year that an archive list leaves out would silently do nothing."""
    where: KeyPath = ("source",) if source.profile == PRODUCTION else ("profile", source.profile)
    for year in source.tax_years:
        if not source.tables_for(year):
            raise file.error((*where, "tax_years"), f"no table is wanted of {year}", "archives and tables for every tax year")
    if unused := sorted(set(source.archives_by_year or ()) - set(source.tax_years)):
        raise file.error((*where, "archives"), f"archives of {unused}", "tax years that tax_years names")


def resolved(file: TomlFile, source: Source, environ: Mapping[str, str]) -> Source:
    """The source with ``${NAME}`` in its base URL filled in, and the URL one that can be fetched."""
    is_profile = source.profile != PRODUCTION and "base_url" in file.document["profile"][source.profile]
    where: KeyPath = ("profile", source.profile, "base_url") if is_profile else ("source", "base_url")

    def value(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise file.error(
                where, f"${{{match[1]}}} is not set", f"the environment variable {match[1]}", "set it, or choose another profile"
            )
        return environ[match[1]]

    url = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, source.base_url)
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname or split.query or split.fragment:
        # The URL itself may hold a password from the environment, so the message shows what the file says.
        raise file.error(where, f"{source.base_url!r} gives no URL to fetch from", "http(s)://host/path, without query")
    return replace(source, base_url=url)
