"""What must hold of the rules, computed columns and whole-table checks of one table file, beyond each key's own type.

A rule that its column's type has not, a limit of another type, a range with nothing in it, a rule that names a column which
is not there, a check without its figure: each is a ``CatalogError`` with the file, the line and the key. As in ``checks`` a
setting that nothing would read is refused as well.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pipeline.catalog.meta_schema import OF_RULES, ROW_RULES
from pipeline.catalog.model import Check, Column, Table
from pipeline.catalog.toml_file import KeyPath, TomlFile, closest

_EVERY = (*OF_RULES, *ROW_RULES)
_RULES_OF = {
    "text": ("regex", "allowed", "forbidden", "minlength", "maxlength", "empty", "check_with", *_EVERY),
    "integer": ("min", "max", "allowed", "forbidden", "check_with", *_EVERY),
    "bigint": ("min", "max", "allowed", "forbidden", "check_with", *_EVERY),
    "numeric": ("min", "max", *_EVERY),
    "date": ("min", "max", *_EVERY),
    "boolean": ROW_RULES,
}
#: What a function of ``compute`` gives, and from how many columns of which types.
_COMPUTED: Mapping[str, tuple[tuple[str, ...], tuple[int, int], tuple[str, ...]]] = {
    "join": (("text",), (2, 20), ("text", "integer", "bigint")),
    "situs_address": (("text",), (2, 20), ("text", "integer", "bigint")),
    "sum": (("integer", "bigint", "numeric"), (2, 20), ("integer", "bigint", "numeric")),
    "bathrooms": (("numeric",), (2, 2), ("integer", "bigint", "numeric")),
    "coalesce": (("text", "integer", "bigint", "numeric", "date", "boolean"), (2, 20), ()),
}
#: What each kind of check needs, and what it may have besides.
_CHECK_KEYS = {
    "rows": (frozenset(), frozenset({"min", "max"})),
    "fill": (frozenset({"columns"}), frozenset({"min", "max"})),
    "unique": (frozenset({"columns"}), frozenset()),
    "reference": (frozenset({"columns", "table", "to"}), frozenset({"min"})),
    "sum": (frozenset({"columns"}), frozenset({"min", "max"})),
}


def known(file: TomlFile, where: KeyPath, wanted: Iterable[str], names: set[str]) -> None:
    """Every name is a column, and none is there twice."""
    wanted = tuple(wanted)
    for name in wanted:
        if name not in names:
            raise file.error(where, f"no column {name!r}{closest(name, names)}", f"columns of {file.path.name}")
        if wanted.count(name) > 1:
            raise file.error(where, f"{name!r} twice", "each column once")


def check_regex(file: TomlFile, where: KeyPath, pattern: str) -> None:
    """A regular expression that Python's ``re`` compiles."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise file.error(where, f"does not compile: {error}", "a regular expression of Python's re") from error


def check_rules(file: TomlFile, where: KeyPath, column: Column, rules: Mapping[str, Any] | None = None) -> None:
    """Each rule fits the type, and its values are of that type; so do the rules within ``anyof`` and its like."""
    kind = column.type.kind
    rules = column.rules if rules is None else rules
    for rule, value in rules.items():
        here = (*where, rule)
        if rule not in _RULES_OF[kind]:
            raise file.error(here, f"a rule that a {kind} has not", f"one of {', '.join(_RULES_OF[kind]) or 'none'}")
        if rule in ROW_RULES:
            continue
        if rule in OF_RULES:
            for number, inner in enumerate(value):
                check_rules(file, (*here, number), column, inner)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if not _is_of_type(kind, rule, one):
                raise file.error(here, f"{one!r} on a {kind}", _example_of(kind))
    if "regex" in rules:
        check_regex(file, (*where, "regex"), rules["regex"])
    for low, high in (("min", "max"), ("minlength", "maxlength")):
        if low in rules and high in rules and rules[low] > rules[high]:
            raise file.error((*where, low), f"{low} is above {high}", "a range with something in it")


def check_row_rules(file: TomlFile, table: Table) -> None:
    """``dependencies`` and ``excludes`` name other columns; of those that exclude each other each may be without a value."""
    names = {column.name for column in table.columns}
    for column in table.columns:
        for rule in ROW_RULES:
            where: KeyPath = ("columns", column.name, rule)
            others = column.rules.get(rule, ())
            known(file, where, others, names - {column.name})
            for name in (column.name, *others) if rule == "excludes" and others else ():
                if table.column(name).required or not table.column(name).nullable:
                    why = "is required" if table.column(name).required else "may not be NULL"
                    raise file.error(where, f"{name!r} {why}", "columns that may be without a value")


def check_computed(file: TomlFile, table: Table) -> None:
    """A computed column is made from columns that are read, of types that its function takes; one column keeps the rest."""
    rest = [column.name for column in table.columns if column.is_rest]
    if len(rest) > 1:
        raise file.error(("columns", rest[1], "source"), f"{rest[0]!r} keeps the rest already", 'one column with source = "*"')
    if rest and not any(layout.unknown_columns == "keep" for layout in table.layouts):
        raise file.error(("columns", rest[0], "source"), "no layout keeps unknown columns", 'unknown_columns = "keep" in a layout')
    read = {column.name for column in table.columns if column.is_read}
    for column in table.columns:
        if column.compute is None:
            continue
        where: KeyPath = ("columns", column.name, "compute")
        gives, (fewest, most), takes = _COMPUTED[column.compute.function]
        known(file, where, column.compute.of, read)
        if not fewest <= len(column.compute.of) <= most:
            raise file.error(where, f"{len(column.compute.of)} columns", f"{fewest} to {most} for {column.compute.function}")
        if column.type.kind not in gives:
            raise file.error(("columns", column.name, "type"), column.type.sql, f"{' or '.join(gives)} for {column.compute.function}")
        for name in column.compute.of:
            kind = table.column(name).type.kind
            if kind not in (takes or (column.type.kind,)):
                raise file.error(where, f"{name!r} is a {kind}", " or ".join(takes or (column.type.kind,)))


def check_checks(file: TomlFile, table: Table) -> None:
    """Each ``[[check]]`` has what its kind needs and nothing that it does not read, and a name of its own."""
    names = {column.name for column in table.columns}
    seen: set[str] = set()
    for number, check in enumerate(table.checks):
        where: KeyPath = ("check", number)
        if check.name in seen:
            raise file.error((*where, "name"), f"{check.name!r} twice", "a name of its own")
        seen.add(check.name)
        given = set(file.document["check"][number]) - {"name", "kind", "severity", "doc"}
        needs, may = _CHECK_KEYS[check.kind]
        has_figure = check.minimum is not None or check.maximum is not None
        if needs - given or given - needs - may or (may and check.kind != "reference" and not has_figure):
            raise file.error(where, f"kind {check.kind!r} with {', '.join(sorted(given)) or 'nothing'}", _expected_keys(check))
        known(file, (*where, "columns"), check.columns, names)
        if check.kind == "reference" and len(check.columns) != len(check.to):
            raise file.error((*where, "to"), f"{len(check.to)} columns", f"as many as columns: {len(check.columns)}")
        kinds = [table.column(name).type.kind for name in check.columns]
        if check.kind == "sum" and (len(kinds) != 1 or kinds[0] not in ("integer", "bigint", "numeric")):
            raise file.error((*where, "columns"), ", ".join(check.columns), "one column of numbers")
        if check.minimum is not None and check.maximum is not None and check.minimum > check.maximum:
            raise file.error((*where, "min"), "min is above max", "a range with something in it")
        is_share = check.kind in ("fill", "reference")
        for key, figure in (("min", check.minimum), ("max", check.maximum)):
            if is_share and figure is not None and not 0 <= figure <= 1:
                raise file.error((*where, key), str(figure), "a share from 0 to 1")


def _expected_keys(check: Check) -> str:
    needs, may = _CHECK_KEYS[check.kind]
    words = [*sorted(needs), *([f"{' or '.join(sorted(may))}"] if may else [])]
    return f"for {check.kind}: {', '.join(words)}"


def _is_of_type(kind: str, rule: str, value: Any) -> bool:
    """Whether a rule's value can be compared with the column's values."""
    if rule in ("minlength", "maxlength", "empty", "check_with"):
        return True
    if kind == "text":
        return isinstance(value, str)
    if kind == "date":
        return isinstance(value, str) and _is_iso_date(value)
    return isinstance(value, int | Decimal if kind == "numeric" else int)


def _is_iso_date(text: str) -> bool:
    """``YYYY-MM-DD`` and a day that exists."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _example_of(kind: str) -> str:
    """How a value of that type is written in TOML."""
    return {"text": "a text", "date": 'a date such as "1990-01-01"', "numeric": "a number"}.get(kind, "a whole number")
