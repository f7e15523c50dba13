"""The recipe: a short hash of all that decides what a member's bytes become.

Layouts, columns with their rules, the key and the revisions of the code go in; docs, examples, indexes, the gate,
``personal`` marks, comments and formatting do not. So a changed recipe means that rows may come out differently and
must be made again, and a mended typo in a ``doc`` means nothing. The hash is over the parsed content in a canonical
form: it is the same on every machine and Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pipeline.catalog.meta_schema import OF_RULES
from pipeline.catalog.model import Check, Column, Layout, Source, Table
from pipeline.catalog.roll import Roll, rolls_for
from pipeline.errors import ConfigurationError

#: Between a release's recipe and the tables that an import is about, where these are not all.
SCOPE_MARK = "+"
#: Raised when the transform code gives other rows for the same member; the golden-output test of the transform insists.
TRANSFORM_REVISION: int = 3
#: Raised when a row hash is computed in another way.
ROW_HASH_VERSION: int = 2
#: Raised when the same SQL over the same rows gives other rows of a computed table, or another hash of them.
ROLL_REVISION: int = 1


def table_recipe(table: Table) -> str:
    """The recipe of a table: 12 hexadecimal digits."""
    # Only where there is one: a table without it keeps its recipe.
    year = {"year_column": table.year_column} if table.year_column else {}
    return digest(
        {
            **year,
            "transform": TRANSFORM_REVISION,
            "row_hash": ROW_HASH_VERSION,
            "key": table.key,
            "parent": table.parent,
            "on_conflict": table.on_conflict,
            "layouts": [_layout(layout) for layout in table.layouts],
            # In order: a delimited member without a header is read by it.
            "columns": [_column(column) for column in table.columns],
        }
    )


def roll_recipe(source: Source, roll: Roll, year: int) -> str:
    """What decides which rows come of the same source rows: the SQL, the columns, the key, and the recipes of what is read.

    An input that is not wanted of the tax year is part of it by its absence.
    """
    there = {table.name for table in source.tables_for(year)}
    table = roll.table
    return digest(
        {
            "revision": ROLL_REVISION,
            "sql": roll.sql.strip(),
            "key": table.key,
            "parent": table.parent,
            "columns": [(column.name, column.type.sql, column.required) for column in table.columns],
            "inputs": [
                (one.table.name, one.account, table_recipe(one.table) if one.table.name in there else None) for one in roll.inputs
            ],
        }
    )


def column_recipe(column: Column) -> str:
    """The recipe of one column: whether its values may come out differently because of its own declaration."""
    return digest(_column(column))


def check_recipe(table: Table, check: Check) -> str:
    """The recipe of a table's check: whether another result may come of the same rows. Its name, severity and doc play no part.

    Which columns are personal does: a result names none of their values.
    """
    personal = sorted(column.name for column in table.columns if column.personal)
    bounds = [None if bound is None else str(bound) for bound in (check.minimum, check.maximum)]
    asked = {"kind": check.kind, "columns": check.columns, "bounds": bounds, "table": check.table, "to": check.to}
    return digest(asked | {"personal": personal})


def layout_recipe(table: Table, layout: Layout) -> str:
    """The recipe of a table's rows as one of its layouts gives them.

    Which layout is chosen may depend on another member (the one that states the export's version), so that equal bytes of a
    table's own member do not yet mean equal rows.
    """
    return digest({"table": table_recipe(table), "layout": _layout(layout)})


def release_recipe(source: Source, year: int) -> str:
    """The recipe of a release of a tax year.

    Of all its tables and of what is computed from them, of where each is found (archive, whether zips inside it are looked into, member
    and its other names, whether it may be missing), and of the field that states the export's version.
    """
    version = source.version
    nested = sorted(archive.name for archive in source.archives if archive.nested)
    expects = sorted([one.archive, one.member.casefold(), one.start, one.end, one.value] for one in source.expects)
    rolls = sorted((roll.table.name, roll_recipe(source, roll, year)) for roll in rolls_for(source, year))
    return digest(
        {
            **({"expects": expects} if expects else {}),
            **({"nested": nested} if nested else {}),
            **({"rolls": rolls} if rolls else {}),
            "tables": sorted(
                (
                    table.name,
                    table_recipe(table),
                    table.archive,
                    [name.casefold() for name in (table.member, *table.member_aliases)],
                    table.required,
                )
                for table in source.tables_for(year)
            ),
            "version": version and [version.archive, version.member.casefold(), version.start, version.end],
        }
    )


def scoped_recipe(source: Source, year: int, tables: Iterable[str] = ()) -> str:
    """The recipe of an import of some tables of a release: ``<recipe>+table,table``; of all of them (or with none named) ``<recipe>``.

    So the import of some tables is not the import of all, and whoever has the recipe knows which.

    Raises:
        ConfigurationError: the source has no such table in this tax year.
    """
    whole, wanted = release_recipe(source, year), sorted(set(tables))
    known = sorted(table.name for table in source.tables_for(year))
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigurationError(f"table {', '.join(unknown)} of {source.name} {year}", f"some of {', '.join(known)}", "name some of these")
    return whole if wanted in ([], known) else f"{whole}{SCOPE_MARK}{','.join(wanted)}"


def scope_of(recipe: str) -> frozenset[str]:
    """The tables that an import with this recipe is about; empty: all."""
    scope = recipe.partition(SCOPE_MARK)[2]
    return frozenset(scope.split(",")) if scope else frozenset()


def _layout(layout: Layout) -> dict[str, Any]:
    """A layout's content; names without order are sorted."""
    return {
        "format": layout.format,
        "years": layout.years,
        "versions": sorted(layout.versions),
        "record_width": layout.record_width,
        "delimiter": layout.delimiter,
        "encoding": layout.encoding,
        "header": layout.header,
        "positions": dict(layout.positions),
        "absent": sorted(layout.absent),
        "unknown_columns": layout.unknown_columns,
        **_stated(
            quote=layout.quote,
            includes_line_end=layout.includes_line_end,
            order=layout.order,
            aliases={name: sorted(alias.strip().casefold() for alias in names) for name, names in layout.aliases.items()},
            fingerprint=dict(layout.fingerprint),
            crs=layout.crs,
        ),
    }


def _stated(**keys: Any) -> dict[str, Any]:
    """The keys that say something: one that came later, and is not used, leaves the recipe as it was."""
    return {key: value for key, value in keys.items() if value}


def _column(column: Column) -> dict[str, Any]:
    """A column's content, without its doc and its ``personal`` mark."""
    rules = {
        rule: sorted(value) if isinstance(value, tuple) and rule not in OF_RULES else value for rule, value in column.rules.items()
    }
    return {
        "name": column.name,
        "type": column.type.sql,
        # Headers are matched without regard to case.
        "source": column.source.strip().casefold(),
        "aliases": sorted(alias.strip().casefold() for alias in column.aliases),
        "required": column.required,
        "rules": rules,
        "nulls": sorted(column.nulls),
        "formats": column.formats,
        "true": sorted(column.true_codes),
        "false": sorted(column.false_codes),
        "implied_decimals": column.implied_decimals,
        "on_error": column.on_error,
        "normalize": column.normalize,
        "start": column.start,
        "end": column.end,
        **_stated(
            not_nullable=not column.nullable,
            controls=column.controls != "refuse" and column.controls,
            compute=column.compute and [column.compute.function, *column.compute.of],
        ),
    }


def digest(content: Any) -> str:
    """12 hexadecimal digits over the content's canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_exact)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


def _exact(value: Any) -> str:
    """A ``Decimal`` of a rule, alike however many zeros it is written with; nothing else is left to this point."""
    if isinstance(value, Decimal):
        return f"decimal:{value.normalize()}"
    raise TypeError(f"{type(value).__name__} in a recipe")
