"""The catalog: every folder of schema files with a ``source.toml``, made into a checked :class:`~pipeline.catalog.model.Source`.

A catalog loads whole or not at all: the first file that does not follow the schema language stops it, with the file,
line, key, what stands there and what may. A profile lays its settings over the production ones; a source that does not
declare the chosen profile is there, with its production settings, but is not enabled. Only the chosen profile's
``base_url`` looks at the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.catalog import source_parts as parts
from pipeline.catalog.layers import is_layer
from pipeline.catalog.meta_schema import SOURCE_FILE
from pipeline.catalog.model import ProbeRule, Source, Table
from pipeline.catalog.profiles import PRODUCTION, check_years, overlay, resolved
from pipeline.catalog.roll_files import load_rolls
from pipeline.catalog.rule_checks import known
from pipeline.catalog.tables import load_table
from pipeline.catalog.toml_file import KeyPath, TomlFile, closest, read_toml
from pipeline.errors import CatalogError

SOURCE_FILE_NAME = "source.toml"
#: PostgreSQL schemas that are not a source's.
RESERVED_SOURCES = ("compat", "etl", "history", "information_schema", "public", "roll")


def shipped_schemas() -> Path:
    """The folder of schema files that came with the program: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped" / "schemas"
    return installed if installed.is_dir() else package.parent / "schemas"


def load_catalog(
    path: Path | None = None, *, profile: str = PRODUCTION, environ: Mapping[str, str] = os.environ
) -> dict[str, Source]:
    """Load every source of a folder, by name.

    Args:
        path: a folder of source folders; None: the schema files that are shipped.
        profile: ``production``, or a profile that at least one source declares.
        environ: where ``${NAME}`` in a base URL is looked up.

    Returns:
        ``{name: source}`` in the order of the names, with the sources that are not enabled.

    Raises:
        CatalogError: a file does not follow the schema language, the folder holds no source, no source declares the
            profile, or a variable that the profile's base URL needs is not set.
    """
    root = shipped_schemas() if path is None else path
    folders = sorted(file.parent for file in root.glob(f"*/{SOURCE_FILE_NAME}"))
    if not folders:
        raise CatalogError(f"no */{SOURCE_FILE_NAME} under {root}", "a folder of schema files", "check [catalog] path")
    loaded = [_load(folder, profile, environ) for folder in folders]
    declared = {PRODUCTION}.union(*(profiles for _, profiles in loaded))
    if profile not in declared:
        raise CatalogError(
            f"no source under {root} has a profile {profile!r}{closest(profile, declared)}",
            f"one of {', '.join(sorted(declared))}",
            "choose one of them, or write [profile.<name>] into a source.toml",
        )
    return {source.name: source for source, _ in loaded}


def load_source(folder: Path, *, profile: str = PRODUCTION, environ: Mapping[str, str] = os.environ) -> Source:
    """Load one source from its folder.

    Args:
        folder: holds ``source.toml`` and the table files.
        profile: as for :func:`load_catalog`, but one that the source does not declare is no error: the source is then
            not enabled.
        environ: where ``${NAME}`` in a base URL is looked up.

    Raises:
        CatalogError: as for :func:`load_catalog`.
    """
    return _load(folder, profile, environ)[0]


def _load(folder: Path, profile: str, environ: Mapping[str, str]) -> tuple[Source, frozenset[str]]:
    """A source under a profile, and the profiles that it declares."""
    file = read_toml(folder / SOURCE_FILE_NAME, SOURCE_FILE)
    document = file.document
    head = document["source"]
    _check_name(file, head["name"])
    tables = _tables(file)
    production = Source(
        name=head["name"],
        title=head["title"],
        publisher=head["publisher"],
        homepage=head["homepage"],
        licence=head["licence"],
        enabled=head.get("enabled", True),
        base_url=head["base_url"],
        tax_years=parts.tax_years(file, ("source",), head["tax_years"]),
        archives=parts.archives(file),
        tables=tables,
        allow_addresses=parts.addresses(file, ("source",), head.get("allow_addresses", ())),
        gate=parts.gate(parts.DEFAULT_GATE, document.get("gate", {})),
        limits=parts.limits(document.get("limits", {})),
        version=parts.version(file),
        profile=PRODUCTION,
        doc=head.get("doc", ""),
        probe=parts.probe_rule(file, ("probe",), ProbeRule(), document.get("probe", {})),
        mirrors=tuple(head.get("mirrors", ())),
        allow_http=head.get("allow_http", False),
        expects=parts.expectations(file),
        rolls=load_rolls(folder, head["name"], tables),
    )
    parts.check_floors(file, ("gate",), production)
    profiles = {name: overlay(file, production, name) for name in document.get("profile", {})}
    for source in (production, *profiles.values()):
        check_years(file, source)
    if profile != PRODUCTION and profile not in profiles:
        return replace(production, enabled=False, profile=profile), frozenset(profiles)
    return resolved(file, profiles.get(profile, production), environ), frozenset(profiles)


def _check_name(file: TomlFile, name: str) -> None:
    """The folder is named after the source, whose name becomes a PostgreSQL schema."""
    where: KeyPath = ("source", "name")
    if file.path.resolve().parent.name != name:
        raise file.error(where, f"{name!r} in the folder {file.path.resolve().parent.name!r}", "the folder's name")
    if name in RESERVED_SOURCES or name.startswith("pg_"):
        raise file.error(where, f"{name!r} is a schema that is not a source's", f"none of {', '.join(RESERVED_SOURCES)}, pg_*")


def _tables(file: TomlFile) -> tuple[Table, ...]:
    """The source's own table files and the shared ones, by name, each checked against ``source.toml``."""
    folder = file.path.parent
    source = file.document["source"]
    paths: dict[str, Path] = {}
    if "tables" in source:
        shared = (folder / source["tables"]).resolve()
        if Path(source["tables"]).is_absolute() or shared.parent != folder.resolve().parent or not shared.is_dir():
            raise file.error(("source", "tables"), f"{source['tables']!r}", 'a folder beside this one, such as "../pacs"')
        paths = {path.name: path for path in shared.glob("*.toml") if path.name != SOURCE_FILE_NAME}
    paths |= {path.name: path for path in folder.glob("*.toml") if path.name != SOURCE_FILE_NAME}
    if not paths:
        raise file.error(("source",), "a source without a table file", '<table>.toml beside source.toml, or tables = "../pacs"')
    loaded = [load_table(path, source["name"]) for _, path in sorted(paths.items())]
    for table, table_file in loaded:
        _check_in_source(file, table, table_file)
    _check_members(loaded)
    _check_layers(file, loaded)
    _check_references(loaded)
    return tuple(table for table, _ in loaded)


def _check_in_source(file: TomlFile, table: Table, table_file: TomlFile) -> None:
    """A table's archive is declared, and so is the version field that its layouts ask for."""
    archives = file.document["archives"]
    if table.archive not in archives:
        raise table_file.error(
            ("table", "archive"),
            f"{table.archive!r} is not in {file.path}{closest(table.archive, archives)}",
            f"one of {', '.join(archives)}",
        )
    for number, layout in enumerate(table.layouts):
        if layout.versions and "version" not in file.document:
            raise table_file.error(
                ("layout", number, "versions"), f"{file.path} does not say where the version stands", "[version] in source.toml"
            )


def _check_layers(file: TomlFile, loaded: list[tuple[Table, TomlFile]]) -> None:
    """An archive that layers are read from holds nothing else that is wanted: its files are found by content, not by name."""
    named = [file.document["version"]["archive"]] if "version" in file.document else []
    named += [keys["archive"] for keys in file.document.get("expect", ())]
    others = {table.archive for table, _ in loaded if not is_layer(table)}.union(named)
    for table, table_file in loaded:
        if is_layer(table) and table.archive in others:
            raise table_file.error(("table", "archive"), f"text is read from {table.archive!r}, too", "an archive of layers alone")


def _check_references(loaded: list[tuple[Table, TomlFile]]) -> None:
    """What a check looks up is there: a table of the source, and columns of it of the same types."""
    tables = {table.name: table for table, _ in loaded}
    for table, table_file in loaded:
        for number, check in enumerate(table.checks):
            if check.table is None:
                continue
            where: KeyPath = ("check", number, "table")
            if check.table not in tables:
                may = f"one of {', '.join(sorted(tables))}"
                raise table_file.error(where, f"no table {check.table!r}{closest(check.table, tables)}", may)
            other = tables[check.table]
            known(table_file, ("check", number, "to"), check.to, {column.name for column in other.columns})
            for ours, theirs in zip(check.columns, check.to, strict=True):
                kinds = table.column(ours).type.kind, other.column(theirs).type.kind
                if kinds[0] != kinds[1]:
                    seen = f"{ours} is a {kinds[0]}, {check.table}.{theirs} a {kinds[1]}"
                    raise table_file.error(("check", number, "to"), seen, "columns of the same type")


def _check_members(loaded: list[tuple[Table, TomlFile]]) -> None:
    """No two tables of an archive can claim the same member."""
    owners: dict[tuple[str, str], str] = {}
    for table, table_file in loaded:
        for member in {name.casefold() for name in (table.member, *table.member_aliases)}:
            owner = owners.setdefault((table.archive, member), table.name)
            if owner != table.name:
                raise table_file.error(("table", "member"), f"{member!r} is the member of {owner!r} too", "a member of one table")
