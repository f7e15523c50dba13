"""The recipe changes with what decides the rows, and with nothing else."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pipeline.catalog import Column, ColumnType, Layout, Table, load_source, recipe, release_recipe, table_recipe
from pipeline.catalog.model import Check, Computed


def owner_recipe(folder: Path) -> str:
    return table_recipe(load_source(folder, environ={}).table("owner"))


#: Edits of owner.toml after which every row comes out as before.
SAME = {
    "doc mended": ('doc = "Owners"', 'doc = "The owners"'),
    "column doc mended": ('doc = "Percent"', 'doc = "Percent of the whole"'),
    "comment": ("# A comment.", "# Another one."),
    "whitespace": ("share = { type", "share   =   {  type"),
    "key order": ("required = true, regex = '^[0-9]{6}$'", "regex = '^[0-9]{6}$', required = true"),
    "number written longer": ("max = 100.5", "max = 100.500"),
    "default written out": ('format = "delimited"', 'format = "delimited"\nencoding = "cp1252"\nheader = "detect"'),
    "header name in capitals": ("personal = true", 'personal = true, source = "NAME"'),
    "personal mark": ("personal = true, ", ""),
    "index dropped": ('[[index]]\ncolumns = ["name"]', ""),
    "example changed": ("year = 2025", "year = 2024"),
    "member alias": ('member = "owner.txt"', 'member = "owner.txt"\nmember_aliases = ["owners.txt"]'),
    "date written bare": ('min = "1800-01-01"', "min = 1800-01-01"),
}

#: Edits after which a row may come out otherwise.
OTHER = {
    "rule added": ("personal = true", "personal = true, maxlength = 30"),
    "rule changed": ("max = 100.5", "max = 100.6"),
    "regex changed": ("{6}", "{7}"),
    "type": ("numeric(7,4)", "numeric(8,4)"),
    "null text": ('"12/30/1899"', '"12-30-1899"'),
    "date format": ('"%m/%d/%Y"', '"%m/%d/%Y", "%Y-%m-%d"'),
    "boolean code": ('true = ["Y"]', 'true = ["Y", "T"]'),
    "on_error": (', on_error = "null"', ""),
    "normalize": ('"collapse_blanks"', '"upper"'),
    "required": ("personal = true", "required = true"),
    "alias": ("personal = true", 'aliases = ["owner_name"]'),
    "source name": ("personal = true", 'source = "owner_name"'),
    "encoding": ('format = "delimited"', 'format = "delimited"\nencoding = "latin-1"'),
    "delimiter": ('format = "delimited"', 'format = "delimited"\ndelimiter = "|"'),
    "unknown columns": ('format = "delimited"', 'format = "delimited"\nunknown_columns = "ignore"'),
    "layout years": ("[2020, 2099]", "[2021, 2099]"),
    "conflicts": ('key = ["acct"]', 'key = ["acct"]\non_conflict = "refuse"'),
    "key made parent": ("key =", "parent ="),
    "column renamed": ("alive =", "living ="),
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_edit_that_changes_no_row_keeps_the_recipe(write, edit):
    before = owner_recipe(write())
    assert owner_recipe(write(owner=edit)) == before


@pytest.mark.parametrize("edit", OTHER.values(), ids=OTHER)
def test_edit_that_can_change_a_row_changes_the_recipe(write, edit):
    before = owner_recipe(write())
    assert owner_recipe(write(owner=edit)) != before


def test_order_of_columns_is_in_the_recipe(write):
    folder = write()
    before = owner_recipe(folder)
    text = (folder / "owner.toml").read_text()
    name = re.search(r"^name  = .*\n", text, re.M)[0]
    share = re.search(r"^share = .*\n", text, re.M)[0]
    (folder / "owner.toml").write_text(text.replace(name + share, share + name))
    assert owner_recipe(folder) != before


@pytest.mark.parametrize("edit", [("start = 7, end = 10", "start = 8, end = 10"), ("[7, 12]", "[7, 11]"),
                                  ("record_width = 12", "record_width = 13")])  # fmt: skip
def test_position_is_in_the_recipe(write, edit):
    before = table_recipe(load_source(write(), environ={}).table("parcel"))
    assert table_recipe(load_source(write(parcel=edit), environ={}).table("parcel")) != before


@pytest.mark.parametrize("revision", ["TRANSFORM_REVISION", "ROW_HASH_VERSION"])
def test_revision_of_the_code_is_in_the_recipe(write, monkeypatch, revision):
    before = owner_recipe(write())
    monkeypatch.setattr(recipe, revision, 999)
    assert owner_recipe(write()) != before


def test_recipe_is_the_same_on_every_machine(write):
    # A recipe is stored in the ledger: another value here means that every table is transformed again, so it must come
    # from a raised revision or a changed form, never from a Python version.
    source = load_source(write(), environ={})
    assert re.fullmatch("[0-9a-f]{12}", table_recipe(source.table("owner")))
    assert table_recipe(source.table("owner")) == "da3a62ed543e"


def test_release_recipe_covers_the_tables_of_its_year(write):
    before = {year: release_recipe(load_source(write(), environ={}), year) for year in (2024, 2025)}
    rule = release_recipe(load_source(write(owner=("max = 100.5", "max = 99")), environ={}), 2025)
    assert rule != before[2025]
    later = load_source(write(parcel=("parent =", "years = [2025, 2099]\nparent =")), environ={})
    assert release_recipe(later, 2025) == before[2025]
    assert release_recipe(later, 2024) != before[2024]


@pytest.mark.parametrize(
    "change", [{"member_aliases": ("owners.txt",)}, {"member": "owner2.txt"}, {"required": False}], ids=lambda change: next(iter(change))
)
def test_where_a_table_is_found_is_in_the_release_recipe_alone(write, change):
    source = load_source(write(), environ={})
    year = source.tax_years[0]
    changed = replace(source, tables=tuple(replace(table, **change) for table in source.tables))
    assert release_recipe(source, year) != release_recipe(changed, year)
    assert [table_recipe(table) for table in source.tables] == [table_recipe(table) for table in changed.tables]


def test_archive_whose_inner_zips_are_looked_into_makes_another_release_recipe(write):
    """Something stood in for an optional archive in which no member was found: it is looked at again, though its release is current."""
    source = load_source(write(), environ={})
    opened = replace(source, archives=tuple(replace(archive, nested=True) for archive in source.archives))
    assert release_recipe(source, source.tax_years[0]) != release_recipe(opened, source.tax_years[0])


def test_chosen_layout_is_in_the_recipe_of_the_rows(write):
    table = load_source(write(), environ={}).table("owner")
    (layout,) = table.layouts
    other = replace(layout, delimiter="|")
    assert len({recipe.layout_recipe(table, chosen) for chosen in (layout, other)} | {table_recipe(table)}) == 3


def test_version_field_is_in_the_release_recipe(write):
    before = release_recipe(load_source(write(), environ={}), 2025)
    version = '[version]\narchive = "roll"\nmember = "HEAD.TXT"\nstart = 1\nend = 4\n[archives.roll]'
    assert release_recipe(load_source(write(source=("[archives.roll]", version)), environ={}), 2025) != before


def test_expectations_are_in_the_release_recipe_so_that_a_corrected_one_lets_a_held_release_go(write):
    expect = '[[expect]]\narchive = "roll"\nmember = "HEAD.TXT"\nstart = 1\nend = 4\nvalue = "{year}"\n[archives.roll]'
    recipes = {
        release_recipe(load_source(write(source=("[archives.roll]", text)), environ={}), 2025)
        for text in ("[archives.roll]", expect, expect.replace("end = 4", "end = 5"), expect.replace("{year}", "TINY"))
    }
    assert len(recipes) == 4


def test_gate_and_limits_are_not_in_the_release_recipe(write):
    before = release_recipe(load_source(write(), environ={}), 2025)
    edit = ("owner = 1_000", "owner = 900\n[limits]\nmax_members = 5")
    assert release_recipe(load_source(write(source=edit), environ={}), 2025) == before


#: Fields that do not decide what a row becomes. Every other field of the model, also one added later, must be in the recipe.
NOT_IN_THE_RECIPE = {
    Column: {"doc", "personal"},
    Layout: set(),
    Table: {"source", "name", "archive", "member", "member_aliases", "required", "years", "indexes", "examples", "doc", "checks"},
}
ANOTHER = {
    "name": "other", "type": ColumnType("bigint"), "source": "other", "aliases": ("x",), "required": True,
    "rules": {"minlength": 1}, "nulls": ("x",), "formats": ("%Y",), "true_codes": ("x",), "false_codes": ("x",),
    "implied_decimals": 2, "on_error": "null", "normalize": ("upper",), "start": 1, "end": 2, "personal": True, "doc": "x",
    "format": "fixed_width", "years": (2001, 2002), "versions": ("1",), "record_width": 5, "delimiter": "|",
    "encoding": "ascii", "header": "none", "positions": {"name": (1, 2)}, "absent": ("name",), "unknown_columns": "ignore",
    "key": ("acct", "name"), "parent": ("acct",), "on_conflict": "refuse", "layouts": (), "columns": (),
    "archive": "x", "member": "x", "member_aliases": ("x",), "indexes": (), "examples": (),
    "year_column": "acct", "checks": (Check("rows", "rows", minimum=1),), "nullable": False, "controls": "blank",
    "compute": Computed("join", ("acct", "name")), "quote": '"', "includes_line_end": True, "order": ("acct",),
    "fingerprint": {"acct": "x"}, "crs": "EPSG:2278",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(kind, field.name, id=f"{kind.__name__}.{field.name}") for kind in NOT_IN_THE_RECIPE for field in fields(kind)],
)
def test_each_field_of_the_model_is_in_the_recipe_or_known_not_to_be(write, kind, field):
    table = load_source(write(), environ={}).table("owner")
    value = False if (kind, field) == (Table, "required") else ANOTHER[field]
    if (kind, field) == (Layout, "aliases"):
        value = {"name": ("x",)}
    if kind is Table:
        changed = replace(table, **{field: value})
    elif kind is Layout:
        changed = replace(table, layouts=(replace(table.layouts[0], **{field: value}),))
    else:
        first, second, *others = table.columns
        value = not second.personal if field == "personal" else value
        changed = replace(table, columns=(first, replace(second, **{field: value}), *others))
    assert changed != table
    assert (table_recipe(changed) == table_recipe(table)) == (field in NOT_IN_THE_RECIPE[kind])
