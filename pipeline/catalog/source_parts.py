"""The tables of ``source.toml`` besides ``[source]``: archives, limits, gate and version field, made and checked.

Each function takes the file, so that its errors name the line, and gives the dataclass of ``model``. Profiles use the
same functions for what they override.
"""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from pipeline.catalog import checks
from pipeline.catalog.model import Archive, Drift, Expectation, Gate, Limits, ProbeRule, Source, VersionField
from pipeline.catalog.toml_file import KeyPath, TomlFile, closest

#: A PACS export holds some 20 members, the largest of 10 GB; blank-padded ones shrink 200 to 1.
DEFAULT_LIMITS = Limits(max_members=1_000, max_member_bytes=64 << 30, max_ratio=250.0)
#: The gate's keys that are given by table.
BY_TABLE = ("floors", "quarantined_shares", "quarantined_rows", "table_drift")
DEFAULT_GATE = Gate(floors={}, max_quarantined_share=0.01, max_conflicting_share=0.001)


def archives(file: TomlFile) -> tuple[Archive, ...]:
    """``[archives.*]`` in the order of the file."""
    archives = []
    for name, keys in file.document["archives"].items():
        where: KeyPath = ("archives", name)
        for key in ("path", "fallback"):
            if key in keys:
                _check_path(file, (*where, key), keys[key])
        aliases = tuple(keys.get("aliases", ()))
        for number, alias in enumerate(aliases):
            _check_path(file, (*where, "aliases", number), alias)
            if alias in (keys["path"], keys.get("fallback"), *aliases[:number]):
                raise file.error((*where, "aliases", number), f"{alias!r} twice", "other paths than path and fallback, each once")
        if keys.get("fallback") == keys["path"]:
            raise file.error((*where, "fallback"), "the same path", "the path of another file")
        pins = {int(year): sha256 for year, sha256 in keys.get("sha256", {}).items()}
        years = checks.years(file, where, keys)
        is_required, is_nested = keys.get("required", True), keys.get("nested", False)
        archives.append(Archive(name, keys["path"], is_required, years, is_nested, keys.get("fallback"), pins, aliases))
    return tuple(archives)


def probe_rule(file: TomlFile, where: KeyPath, under: ProbeRule, keys: Mapping[str, Any]) -> ProbeRule:
    """``[probe]`` settings over others, key by key."""
    fields = dict(keys)
    if "listing_sections" in keys:
        fields["listing_sections"] = tuple(tuple(section.split("/")) for section in keys["listing_sections"])
    if "fingerprint" in keys:
        fields["fingerprint"] = tuple(keys["fingerprint"])
    rule = replace(under, **fields)
    if rule.listing and not rule.listing_sections:
        raise file.error((*where, "listing"), "a listing without listing_sections", 'listing_sections = ["CAMA/Real Property"]')
    if not rule.listing and (needs := [key for key in ("listing_sections", "listing_complete") if key in keys]):
        raise file.error((*where, needs[0]), f"{needs[0]} without a listing", "listing = the listing's address")
    if not rule.listing and "listing" in rule.fingerprint:
        raise file.error((*where, "fingerprint"), "the date of a listing that is not declared", "listing = the listing's address")
    return rule


def _check_path(file: TomlFile, where: KeyPath, path: str) -> None:
    """An archive's path stays below the base URL and has no placeholder but the tax year."""
    try:
        pieces = {(field, spec, conversion) for _, field, spec, conversion in string.Formatter().parse(path)}
        is_plain = pieces <= {(None, None, None), ("year", "", None)}
    except ValueError:
        is_plain = False
    is_relative = path[:1] != "/" and "\\" not in path and "//" not in path and ".." not in path.split("/")
    if not (is_plain and is_relative):
        raise file.error(where, repr(path), "a path below base_url, with {year} for the tax year and no other placeholder")


def addresses(file: TomlFile, where: KeyPath, given: list[str] | tuple[()]) -> tuple[str, ...]:
    """CIDR ranges, each one readable."""
    for number, text in enumerate(given):
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise file.error((*where, "allow_addresses", number), str(error), 'a range such as "127.0.0.0/8"') from error
    return tuple(given)


def tax_years(file: TomlFile, where: KeyPath, given: list[int]) -> tuple[int, ...]:
    """Tax years, each once."""
    if len(set(given)) != len(given):
        raise file.error((*where, "tax_years"), str(given), "each tax year once")
    return tuple(given)


def gate(under: Gate, keys: Mapping[str, Any]) -> Gate:
    """Gate settings over others, key by key; what is given by table is one key and is replaced whole."""
    of_source = _drift(under.drift, keys.get("drift", {}))
    return Gate(
        floors=keys.get("floors", under.floors),
        max_quarantined_share=float(keys.get("max_quarantined_share", under.max_quarantined_share)),
        max_conflicting_share=float(keys.get("max_conflicting_share", under.max_conflicting_share)),
        max_quarantined_rows=keys.get("max_quarantined_rows", under.max_quarantined_rows),
        quarantined_shares={name: float(share) for name, share in keys["quarantined_shares"].items()}
        if "quarantined_shares" in keys
        else under.quarantined_shares,
        quarantined_rows=keys.get("quarantined_rows", under.quarantined_rows),
        drift=of_source,
        table_drift={name: _drift(of_source, given) for name, given in keys["table_drift"].items()}
        if "table_drift" in keys
        else under.table_drift,
    )


def _drift(under: Drift, keys: Mapping[str, Any]) -> Drift:
    """``[gate.drift]`` settings over others, key by key; bounds as the decimals that the file states."""
    given: dict[str, Any] = {key: Decimal(value) for key, value in keys.items() if key.startswith("max_")}
    if "min_rows" in keys:
        given["min_rows"] = keys["min_rows"]
    if "warn" in keys:
        given["warn"] = tuple(keys["warn"])
    return replace(under, **given)


def limits(keys: Mapping[str, Any]) -> Limits:
    """``[limits]`` over the defaults."""
    limits = replace(DEFAULT_LIMITS, **keys)
    return replace(limits, max_ratio=float(limits.max_ratio))


def version(file: TomlFile) -> VersionField | None:
    """``[version]``: where the export states its version."""
    keys = file.document.get("version")
    if keys is None:
        return None
    if keys["archive"] not in file.document["archives"]:
        raise file.error(("version", "archive"), repr(keys["archive"]), f"one of {', '.join(file.document['archives'])}")
    if keys["start"] > keys["end"]:
        raise file.error(("version",), f"bytes {keys['start']} to {keys['end']}", "start <= end")
    return VersionField(**keys)


def expectations(file: TomlFile) -> tuple[Expectation, ...]:
    """``[[expect]]``: what an export must say of itself."""
    found = []
    for number, keys in enumerate(file.document.get("expect", ())):
        where: KeyPath = ("expect", number)
        if keys["archive"] not in file.document["archives"]:
            raise file.error((*where, "archive"), repr(keys["archive"]), f"one of {', '.join(file.document['archives'])}")
        if keys["start"] > keys["end"]:
            raise file.error(where, f"bytes {keys['start']} to {keys['end']}", "start <= end")
        if "{" in (rest := keys["value"].replace("{year}", "")) or "}" in rest:
            raise file.error((*where, "value"), repr(keys["value"]), "a text, with {year} for the tax year and no other placeholder")
        found.append(Expectation(**keys))
    return tuple(found)


def check_floors(file: TomlFile, where: KeyPath, source: Source) -> None:
    """What is given by table is given of tables that are wanted."""
    names = {table.name for table in source.tables}
    for key in BY_TABLE:
        for name in getattr(source.gate, key):
            if name not in names:
                may = f"one of {', '.join(sorted(names))}"
                raise file.error((*where, key, name), f"no such table{closest(name, names)}", may)
