"""A table file made into a :class:`~pipeline.catalog.model.Table`, with its defaults filled in.

What the meta-schema passed is taken apart here, piece by piece, and each piece is handed to ``checks`` before the next
one is made from it. Nothing of a source is known here except its name: the same file can serve many counties.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pipeline.catalog import checks
from pipeline.catalog.meta_schema import RULES, TABLE_FILE
from pipeline.catalog.model import Check, Column, ColumnType, Computed, Example, Index, Kind, Layout, Table
from pipeline.catalog.toml_file import TomlFile, read_toml

#: How the extract stage writes the lines of a layer.
_LAYER_LINES = {"delimiter": "\t", "encoding": "utf-8", "header": "first"}
#: Defaults of a column's keys that are lists; TOML's names on the left.
_LISTS = {"aliases": "aliases", "nulls": "nulls", "formats": "formats", "true": "true_codes", "false": "false_codes",
          "normalize": "normalize"}  # fmt: skip
_PLAIN = ("required", "nullable", "implied_decimals", "on_error", "controls", "start", "end", "personal", "doc")


def load_table(path: Path, source: str) -> tuple[Table, TomlFile]:
    """Read a table file.

    Args:
        path: ``<table>.toml``.
        source: the name of the source that the table belongs to.

    Returns:
        The table, and the file, for errors that only the source can see.

    Raises:
        CatalogError: the file does not follow the schema language.
    """
    file = read_toml(path, TABLE_FILE)
    document = file.document
    head = document["table"]
    checks.check_table_name(file, head["name"], source)
    nulls = tuple(head.get("nulls", ()))
    columns = tuple(_column(file, name, keys, nulls) for name, keys in document["columns"].items())
    table = Table(
        source=source,
        name=head["name"],
        archive=head["archive"],
        member=head["member"],
        member_aliases=tuple(head.get("member_aliases", ())),
        required=head.get("required", True),
        years=checks.years(file, ("table",), head),
        key=tuple(head.get("key", ())),
        parent=tuple(head.get("parent", ())),
        on_conflict=head.get("on_conflict", "quarantine"),
        layouts=tuple(_layout(file, number, keys) for number, keys in enumerate(document["layout"])),
        columns=columns,
        indexes=tuple(Index(tuple(keys["columns"]), keys.get("using", "btree")) for keys in document.get("index", ())),
        examples=tuple(_example(file, number, keys) for number, keys in enumerate(document.get("example", ()))),
        doc=head.get("doc", ""),
        year_column=head.get("year_column"),
        checks=tuple(made_check(keys) for keys in document.get("check", ())),
    )
    checks.check_table(file, table)
    return table, file


def parse_type(text: str) -> ColumnType:
    """``text``, ``bigint``, ``numeric(14,4)`` ... as a column type; the meta-schema has passed the text."""
    if numeric := re.fullmatch(r"numeric\((\d+), ?(\d+)\)", text):
        return ColumnType("numeric", int(numeric[1]), int(numeric[2]))
    return ColumnType(cast(Kind, text))


def _column(file: TomlFile, name: str, keys: Mapping[str, Any], nulls: tuple[str, ...]) -> Column:
    """One line of ``[columns]``, with the table's ``nulls``."""
    rules = {rule: _rule_value(keys[rule]) for rule in RULES if rule in keys}
    fields: dict[str, Any] = {ours: tuple(keys[theirs]) for theirs, ours in _LISTS.items() if theirs in keys}
    fields |= {key: keys[key] for key in _PLAIN if key in keys}
    fields["nulls"] = (*fields.get("nulls", ()), *(null for null in nulls if null not in fields.get("nulls", ())))
    if "compute" in keys:
        fields |= {"compute": Computed(keys["compute"]["function"], tuple(keys["compute"]["of"])), "nulls": ()}
    column = Column(name=name, type=parse_type(keys["type"]), source=keys.get("source", name), rules=rules, **fields)
    checks.check_column(file, column)
    return column


def _rule_value(value: Any) -> Any:
    """A rule's value as Cerberus gets it: a TOML date as the ISO text that a quoted one is."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {rule: _rule_value(inner) for rule, inner in value.items()}
    return tuple(_rule_value(inner) for inner in value) if isinstance(value, list) else value


def _layout(file: TomlFile, number: int, keys: Mapping[str, Any]) -> Layout:
    """One ``[[layout]]``; what is not stated keeps the default of the dataclass."""
    where = ("layout", number)
    checks.check_layout_keys(file, where, keys)
    fields = dict(keys) | (_LAYER_LINES if keys["format"] == "gis" else {})
    fields["years"] = checks.years(file, where, keys)
    fields["positions"] = {name: (start, end) for name, (start, end) in keys.get("positions", {}).items()}
    fields["aliases"] = {name: tuple(names) for name, names in keys.get("aliases", {}).items()}
    for key in ("versions", "absent", "order"):
        fields[key] = tuple(keys.get(key, ()))
    return Layout(**fields)


def made_check(keys: Mapping[str, Any]) -> Check:
    """One ``[[check]]``."""
    return Check(
        name=keys["name"],
        kind=keys["kind"],
        columns=tuple(keys.get("columns", ())),
        minimum=keys.get("min"),
        maximum=keys.get("max"),
        table=keys.get("table"),
        to=tuple(keys.get("to", ())),
        severity=keys.get("severity", "error"),
        doc=keys.get("doc", ""),
    )


def _example(file: TomlFile, number: int, keys: Mapping[str, Any]) -> Example:
    """One ``[[example]]``: ``gives`` and ``gives_null`` together, or ``refused``."""
    gives: dict[str, str | None] = {**keys.get("gives", {}), **dict.fromkeys(keys.get("gives_null", ()))}
    refused = keys.get("refused")
    if bool(gives) == bool(refused):
        raise file.error(("example", number), "an example without one outcome", "either gives (and gives_null) or refused")
    return Example(keys["year"], keys["line"], gives or None, refused)
