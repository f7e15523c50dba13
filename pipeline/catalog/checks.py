"""What must hold between the keys of one table file, beyond each key's own type.

Every check either passes or raises a ``CatalogError`` with the file, the line and the key. They are written so that a
setting that nothing would read is refused as well: a delimiter on a fixed-width layout, positions of a column in a
table that has no fixed-width layout, date formats on a text.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Mapping
from typing import Any

from pipeline.catalog.layers import is_layer
from pipeline.catalog.meta_schema import GEOMETRY
from pipeline.catalog.model import OWN_COLUMNS, ROLL_PREFIX, Column, Layout, Table
from pipeline.catalog.rule_checks import check_checks, check_computed, check_regex, check_row_rules, check_rules, known
from pipeline.catalog.toml_file import KeyPath, TomlFile

#: ``line`` and ``part`` travel beside the columns to and in staging.
RESERVED_COLUMNS = (*OWN_COLUMNS, "line", "part")
#: ``<source>_<table>`` names the history table; what is made from it (partitions, indexes) must fit in 63 bytes.
MAX_QUALIFIED_CHARACTERS = 48
#: What Arrow's decimal128 holds.
MAX_PRECISION = 38

#: Letters of ``strptime`` that a date format may use; the transform stage knows exactly which texts each one matches.
DATE_DIRECTIVES = "YymdjbBHIMSfp%"

_DELIMITED_ONLY = ("delimiter", "quote", "header", "unknown_columns", "order", "aliases", "fingerprint")
#: What the extract stage decides of the lines that it makes of a layer.
_NOT_OF_A_LAYER = ("versions", "encoding", *(key for key in _DELIMITED_ONLY if key != "aliases"))
_FIXED_ONLY = ("record_width", "positions", "includes_line_end")
#: A leap day with a fraction: a format that reads this back is a whole date.
_PROBE = datetime.datetime(2024, 2, 29, 13, 5, 7, 250000)


def check_table_name(file: TomlFile, name: str, source: str) -> None:
    """The file is named after the table, and names made of both fit in PostgreSQL."""
    if file.path.stem != name:
        raise file.error(("table", "name"), f"{name!r} in a file named {file.path.name}", f"{file.path.stem!r}")
    if name.startswith(ROLL_PREFIX):
        raise file.error(("table", "name"), f"{name!r} is the ledger's name of a computed table", f"a name without {ROLL_PREFIX}")
    if len(f"{source}_{name}") > MAX_QUALIFIED_CHARACTERS:
        raise file.error(
            ("table", "name"), f"{source}_{name} is too long", f"at most {MAX_QUALIFIED_CHARACTERS} characters together"
        )


def years(file: TomlFile, where: KeyPath, keys: Mapping[str, Any]) -> tuple[int, int] | None:
    """The ``years`` of a table, layout or archive: first and last, in order."""
    if "years" not in keys:
        return None
    first, last = keys["years"]
    if first > last:
        raise file.error((*where, "years"), f"[{first}, {last}] runs backwards", "the first tax year, then the last")
    return first, last


def check_column(file: TomlFile, column: Column) -> None:
    """One column agrees with itself: name, type, rules, formats, codes."""
    where: KeyPath = ("columns", column.name)
    kind = column.type.kind
    if column.name in RESERVED_COLUMNS:
        raise file.error(where, "the pipeline has a column of that name", f"none of {', '.join(RESERVED_COLUMNS)}")
    precision, scale = column.type.precision or 0, column.type.scale or 0
    if precision > MAX_PRECISION or scale > precision:
        raise file.error((*where, "type"), column.type.sql, f"a precision of at most {MAX_PRECISION}, a scale within it")
    if column.compute is None:
        _only_for(file, where, column.formats, kind == "date", "formats", "date")
        _only_for(file, where, column.true_codes and column.false_codes, kind == "boolean", "true and false", "boolean")
    if kind != "boolean" and (column.true_codes or column.false_codes):
        raise file.error(where, f"codes of a boolean on a {kind}", 'type = "boolean"')
    if both := set(column.true_codes) & set(column.false_codes):
        raise file.error(where, f"{sorted(both)} are true and false", "a code in one of the two lists")
    if column.normalize and kind != "text":
        raise file.error((*where, "normalize"), f"steps for text on a {kind}", 'type = "text"')
    if column.implied_decimals and (kind != "numeric" or column.implied_decimals > scale):
        raise file.error((*where, "implied_decimals"), str(column.implied_decimals), "a numeric with as many decimals or more")
    if column.required and column.on_error == "null":
        raise file.error((*where, "on_error"), '"null" on a required column', '"quarantine": a required value is never NULL')
    for number, text in enumerate(column.formats):
        _check_format(file, (*where, "formats", number), text)
    check_rules(file, where, column)
    _check_policies(file, where, column)


def _check_policies(file: TomlFile, where: KeyPath, column: Column) -> None:
    """What happens to a wrong value can happen to it, and a column that is made from others is not read as well."""
    if column.on_error == "truncate" and (column.type.kind != "text" or not column.rules.get("maxlength")):
        raise file.error((*where, "on_error"), '"truncate"', "a text with maxlength of 1 or more, which it is cut to")
    if column.controls != "refuse" and column.type.kind != "text":
        raise file.error((*where, "controls"), f"{column.controls!r} on a {column.type.kind}", 'type = "text"')
    if not column.nullable and column.on_error == "null":
        raise file.error((*where, "on_error"), '"null" on a column that may not be NULL', '"quarantine"')
    if column.is_rest and (column.type.kind != "text" or column.required or column.rules or column.normalize):
        raise file.error(where, 'source = "*" with a rule, a step or another type', 'type = "text", and no rule: it holds JSON')
    if column.compute is None:
        return
    read = [key for key, given in (("source", column.source != column.name), ("aliases", column.aliases), ("nulls", column.nulls),
            ("start", column.start), ("end", column.end), ("formats", column.formats), ("true", column.true_codes),
            ("normalize", column.normalize), ("implied_decimals", column.implied_decimals)) if given]  # fmt: skip
    if read:
        raise file.error((*where, read[0]), "nothing reads it in a computed column", "this key on the columns that it is made from")


def _only_for(file: TomlFile, where: KeyPath, given: object, wanted: bool, keys: str, kind: str) -> None:
    """A date has formats, a boolean has codes, and nothing else has."""
    if wanted and not given:
        raise file.error(where, f"a {kind} without {keys}", f"{keys}: how the district writes it")
    if given and not wanted:
        raise file.error(where, f"{keys} on another type", f'type = "{kind}"')


def _check_format(file: TomlFile, where: KeyPath, text: str) -> None:
    """A date format reads back the day that it writes, by directives that name digits or months."""
    if foreign := sorted(set(re.findall("%(.?)", text)) - set(DATE_DIRECTIVES)):
        raise file.error(where, f"%{foreign[0]} in {text!r}", f"a letter of {DATE_DIRECTIVES} behind each %")
    try:
        is_whole = datetime.datetime.strptime(_PROBE.strftime(text), text).date() == _PROBE.date()
    except ValueError:
        is_whole = False
    if not is_whole:
        raise file.error(where, repr(text), "a strptime format with year, month and day, such as '%m/%d/%Y'")


def check_layout_keys(file: TomlFile, where: KeyPath, keys: Mapping[str, Any]) -> None:
    """A layout states only what its format reads, and a fixed width states its width."""
    is_fixed, is_layer = keys["format"] == "fixed_width", keys["format"] == "gis"
    unread = _DELIMITED_ONLY if is_fixed else (*_FIXED_ONLY, *_NOT_OF_A_LAYER) if is_layer else _FIXED_ONLY
    for key in (*unread, *(() if is_layer else ("crs",))):
        if key in keys:
            raise file.error((*where, key), f"nothing reads it in a {keys['format']} layout", "this key in the other format only")
    if is_layer and "crs" not in keys:
        raise file.error(where, "a gis layout without crs", 'the coordinate system of the layer, such as "EPSG:2278"')
    if is_fixed and "record_width" not in keys:
        raise file.error(where, "a fixed_width layout without record_width", "bytes of a record without its line end")
    if is_fixed and keys.get("encoding") == "utf-8":
        raise file.error((*where, "encoding"), "utf-8 in a fixed_width layout", "one byte a character: positions are bytes")


def check_table(file: TomlFile, table: Table) -> None:
    """The parts of a table agree with each other."""
    _check_identity(file, table)
    names = {column.name for column in table.columns}
    if table.year_column is not None:
        known(file, ("table", "year_column"), [table.year_column], names)
        if table.column(table.year_column).type.kind not in ("integer", "bigint"):
            raise file.error(("table", "year_column"), f"{table.year_column!r} is no whole number", 'a column of type = "integer"')
    check_row_rules(file, table)
    check_computed(file, table)
    check_checks(file, table)
    for number, index in enumerate(table.indexes):
        known(file, ("index", number, "columns"), index.columns, names)
        for name in index.columns if index.using == "trgm" else ():
            if table.column(name).type.kind != "text":
                raise file.error(("index", number, "columns"), f"{name!r} is no text, and has no trigrams", "columns of text")
    for number, example in enumerate(table.examples):
        known(file, ("example", number), example.gives or (example.refused or "",), names)
        if not any(layout.years is None or layout.years[0] <= example.year <= layout.years[1] for layout in table.layouts):
            raise file.error(("example", number, "year"), str(example.year), "a tax year that a layout covers")
    taken: set[tuple[object, ...]] = set()
    for number, layout in enumerate(table.layouts):
        where: KeyPath = ("layout", number)
        reach = (layout.years, frozenset(layout.versions), layout.record_width, layout.includes_line_end)
        if reach in taken:
            raise file.error(where, "an earlier layout has the same years, versions and width", "a layout that can be taken")
        taken.add(reach)
        _check_layout(file, where, table, layout)
    _check_layer(file, table)
    if any(layout.format != "fixed_width" for layout in table.layouts):
        _check_header_names(file, table)
    if not any(layout.format == "fixed_width" for layout in table.layouts):
        for column in table.columns:
            if column.start is not None or column.end is not None:
                raise file.error(("columns", column.name, "start"), "a position, and no fixed_width layout", "no start and end")


def _check_layer(file: TomlFile, table: Table) -> None:
    """The layouts of a layer's table are all of layers, and what is taken of the geometry is a number."""
    if not is_layer(table):
        return
    for number, layout in enumerate(table.layouts):
        if layout.format != "gis":
            raise file.error(("layout", number, "format"), f"{layout.format!r} beside a layer", '"gis" in every layout')
    read = [column for column in table.columns if column.is_read]
    for column in read:
        where: KeyPath = ("columns", column.name)
        if column.source in GEOMETRY and column.type.kind != "numeric":
            raise file.error((*where, "type"), f"{column.source} as {column.type.sql}", "a numeric")
        if column.source.startswith("geometry.") and column.source not in GEOMETRY:
            raise file.error((*where, "source"), repr(column.source), f"a field of the layer, or one of {', '.join(GEOMETRY)}")
    if all(column.source in GEOMETRY for column in read):
        raise file.error(("columns",), "no field of the layer", "a column that says whose the polygon is: the layer is found by it")


def _check_identity(file: TomlFile, table: Table) -> None:
    """Exactly one of key and parent, of columns that are always there."""
    if bool(table.key) == bool(table.parent):
        raise file.error(("table",), f"key = {list(table.key)}, parent = {list(table.parent)}",
                         "exactly one of the two: key, or parent where equal rows are real")  # fmt: skip
    which = "key" if table.key else "parent"
    where: KeyPath = ("table", which)
    identity = table.key or table.parent
    known(file, where, identity, {column.name for column in table.columns})
    for name in identity:
        if not table.column(name).required:
            raise file.error(where, f"{name!r} is not required", f"required = true on a {which} column")
        for number, layout in enumerate(table.layouts):
            if name in layout.absent:
                raise file.error(("layout", number, "absent"), f"{name!r} is a {which} column", "columns outside the identity")


def _check_layout(file: TomlFile, where: KeyPath, table: Table, layout: Layout) -> None:
    """Absent columns exist and may be NULL; positions are whole, inside the record and apart."""
    names = {column.name for column in table.columns}
    known(file, (*where, "absent"), layout.absent, names)
    _check_delimited(file, where, table, layout)
    for name in layout.absent:
        if table.column(name).required:
            raise file.error((*where, "absent"), f"{name!r} is required", "a column that may be NULL")
    if layout.format != "fixed_width" or layout.record_width is None:
        return
    known(file, (*where, "positions"), layout.positions, names - set(layout.absent))
    taken: list[tuple[int, int, str]] = []
    for column in table.columns:
        if column.name in layout.absent or not column.is_read:
            continue
        start, end = layout.positions.get(column.name, (column.start, column.end))
        here = (*where, "positions", column.name) if column.name in layout.positions else ("columns", column.name)
        if start is None or end is None:
            raise file.error(here, "no start and end", "both, for a fixed_width layout")
        if not start <= end <= layout.record_width:
            raise file.error(here, f"bytes {start} to {end}", f"start <= end <= record_width {layout.record_width}")
        taken.append((start, end, column.name))
    taken.sort()
    for (_, end, one), (start, _, other) in itertools.pairwise(taken):
        if start <= end:
            raise file.error(("columns", other), f"begins at byte {start}, where {one!r} still stands", f"a start after {end}")


def _check_delimited(file: TomlFile, where: KeyPath, table: Table, layout: Layout) -> None:
    """Order, aliases, fingerprint and the place of unknown columns name columns that a member of the layout has."""
    there = {column.name for column in table.columns if column.is_read} - set(layout.absent)
    if layout.order:
        known(file, (*where, "order"), layout.order, there)
        if missing := there - set(layout.order):
            raise file.error((*where, "order"), f"without {', '.join(sorted(missing))}", "every column that the layout has, once")
    known(file, (*where, "aliases"), layout.aliases, there)
    known(file, (*where, "fingerprint"), layout.fingerprint, there)
    for name, pattern in layout.fingerprint.items():
        check_regex(file, (*where, "fingerprint", name), pattern)
    if layout.unknown_columns == "keep" and not any(column.is_rest for column in table.columns):
        raise file.error((*where, "unknown_columns"), '"keep", and no column to keep them in', 'a text column with source = "*"')


def _check_header_names(file: TomlFile, table: Table) -> None:
    """No two columns can claim the same name of a header."""
    owners: dict[str, str] = {}
    for column in table.columns:
        if not column.is_read:
            continue
        for name in (column.source, *column.aliases, *(alias for layout in table.layouts for alias in layout.aliases.get(column.name, ()))):
            folded = name.strip().casefold()
            if owners.get(folded, column.name) != column.name:
                raise file.error(
                    ("columns", column.name), f"{name!r} is a name of {owners[folded]!r} too", "a name of one column"
                )
            owners[folded] = column.name
