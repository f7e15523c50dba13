"""The files of computed tables: what all sources share, and what one source computes it from.

``schemas/roll/<table>.toml`` declares a table once for every source: columns, key, indexes, checks. ``<table>.sql`` in
``schemas/<source>/roll`` is one SELECT that gives its rows, and ``<table>.toml`` beside it says which tables it reads. The SQL names a
table as ``{real_acct}`` and the tax year as ``{tax_year}``; the tables that it reads are those that are declared, each of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.catalog import checks
from pipeline.catalog.meta_schema import ROLL_FILE, ROLL_TABLE_FILE
from pipeline.catalog.model import ROLL_PREFIX, Column, Index, Table
from pipeline.catalog.roll import Roll, RollInput
from pipeline.catalog.rule_checks import known
from pipeline.catalog.tables import made_check, parse_type
from pipeline.catalog.toml_file import TomlFile, closest, read_toml
from pipeline.errors import CatalogError

#: A table that the SQL reads, or the tax year.
PLACE = re.compile(r"\{(\w+)\}")
TAX_YEAR = "tax_year"


def load_rolls(folder: Path, source: str, tables: Sequence[Table]) -> tuple[Roll, ...]:
    """The computed tables of a source, by name.

    Args:
        folder: the source's; the shared declarations are in ``roll`` beside it.
        source: its name.
        tables: its tables.

    Raises:
        CatalogError: a file does not follow the schema language, or two of them do not fit each other.
    """
    return tuple(_roll(path, folder.parent / "roll", source, tables) for path in sorted((folder / "roll").glob("*.toml")))


def _roll(path: Path, shared: Path, source: str, tables: Sequence[Table]) -> Roll:
    file = read_toml(path, ROLL_FILE)
    table = load_roll_table(shared / path.name, source)
    query = path.with_suffix(".sql")
    try:
        text = query.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{query} cannot be read: {error}", f"the SQL of {path}", "write it") from error
    by_name = {one.name: one for one in tables}
    inputs = tuple(_input(file, name, keys, by_name, table) for name, keys in file.document["inputs"].items())
    roll = Roll(table, inputs, text)
    _check_places(file, query, roll)
    return roll


def load_roll_table(path: Path, source: str) -> Table:
    """A shared declaration as a table of one source.

    Raises:
        CatalogError: the file does not follow the schema language.
    """
    file = read_toml(path, ROLL_TABLE_FILE)
    document = file.document
    head = document["table"]
    if path.stem != head["name"]:
        raise file.error(("table", "name"), f"{head['name']!r} in a file named {path.name}", f"{path.stem!r}")
    name = f"{ROLL_PREFIX}{head['name']}"
    if len(f"{source}_{name}") > checks.MAX_QUALIFIED_CHARACTERS:
        raise file.error(("table", "name"), f"{source}_{name} is too long", f"at most {checks.MAX_QUALIFIED_CHARACTERS} characters")
    columns = tuple(_column(file, name, keys) for name, keys in document["columns"].items())
    table = Table(
        source=source, name=name, archive="", member="", member_aliases=(), required=True, years=None,
        key=tuple(head.get("key", ())), parent=tuple(head.get("parent", ())), on_conflict="refuse", layouts=(), columns=columns,
        indexes=tuple(Index(tuple(keys["columns"]), keys.get("using", "btree")) for keys in document.get("index", ())),
        doc=head.get("doc", ""), checks=tuple(made_check(keys) for keys in document.get("check", ())),
    )  # fmt: skip
    checks.check_table(file, table)
    return table


def _column(file: TomlFile, name: str, keys: Mapping[str, Any]) -> Column:
    if name in (*checks.RESERVED_COLUMNS, "source"):
        raise file.error(("columns", name), "a column of the pipeline's own", "another name")
    plain = {key: keys[key] for key in ("required", "personal", "doc") if key in keys}
    return Column(name=name, type=parse_type(keys["type"]), source=name, **plain)


def _input(file: TomlFile, name: str, keys: Mapping[str, Any], tables: Mapping[str, Table], rolled: Table) -> RollInput:
    where = ("inputs", name)
    if name not in tables:
        raise file.error(where, f"no table {name!r}{closest(name, tables)}", f"one of {', '.join(sorted(tables))}")
    table, account = tables[name], keys.get("account")
    if (account is None) == (keys.get("all") is None):
        raise file.error(where, "both account and all, or none of them", "account = the column that says so, or all = true")
    if account is not None:
        known(file, (*where, "account"), [account], {column.name for column in table.columns})
        kinds = table.column(account).type.kind, rolled.column((rolled.key or rolled.parent)[0]).type.kind
        if kinds[0] != kinds[1]:
            raise file.error((*where, "account"), f"{account} is a {kinds[0]}, the account a {kinds[1]}", "columns of the same type")
        if not table.is_keyed and account not in table.parent:
            raise file.error((*where, "account"), f"{account!r} is not of the parent of {name}", f"one of {', '.join(table.parent)}")
    return RollInput(table, account, keys.get("required", True))


def _check_places(file: TomlFile, query: Path, roll: Roll) -> None:
    """The SQL reads the declared tables, each of them and no other."""
    read, declared = set(PLACE.findall(roll.sql)) - {TAX_YEAR}, {one.table.name for one in roll.inputs}
    if unknown := sorted(read - declared):
        raise CatalogError(
            f"{query}: {{{unknown[0]}}}{closest(unknown[0], declared)}", f"one of {', '.join(sorted(declared))}",
            f"correct it, or declare it in {file.path}",
        )  # fmt: skip
    if unread := sorted(declared - read):
        raise file.error(("inputs", unread[0]), f"nothing in {query.name} reads it", "an input that is read")
