"""Files of computed tables: what they may say, and what of it is in a recipe."""

import pytest

from pipeline.catalog import load_source, release_recipe
from pipeline.catalog.roll import roll_of, rolls_for
from pipeline.errors import CatalogError

SHARED = """\
[table]
name = "property"
key = ["acct"]
doc = "Accounts"

[columns]
acct = { type = "text", required = true, doc = "Account" }
area = { type = "bigint", doc = "Square feet" }

[[index]]
columns = ["area"]

[[check]]
name = "filled"
kind = "fill"
columns = ["area"]
min = 0.5
"""
OWN = """\
[inputs]
owner = { account = "acct" }
parcel = { account = "acct", required = false }
"""
QUERY = "select o.acct, (select sum(p.area) from {parcel} p where p.acct = o.acct) as area from {owner} o where {tax_year} > 0\n"


@pytest.fixture
def load(write):
    """Loads the source with a computed table, each file with its replacement ``(old, new)`` applied."""

    def load_edited(**edits):
        folder = write()
        for name, place, text in (("shared", folder.parent / "roll" / "property.toml", SHARED), ("own", folder / "roll" / "property.toml", OWN),
                                  ("query", folder / "roll" / "property.sql", QUERY)):  # fmt: skip
            if name in edits:
                old, new = edits[name]
                assert old in text
                text = text.replace(old, new)
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
        return load_source(folder, environ={})

    return load_edited


def test_computed_table_is_a_table_of_the_source_under_the_ledgers_name(load):
    source = load()
    (roll,) = rolls_for(source, 2025)
    assert roll_of(source, "roll_property") is roll and source.table("roll_property") is roll.table
    assert (roll.table.qualified, roll.account, roll.sql) == ("roll.property", "acct", QUERY)
    assert [(one.table.name, one.account, one.required) for one in roll.inputs] == [("owner", "acct", True), ("parcel", "acct", False)]
    assert [check.name for check in roll.table.checks] == ["filled"]
    assert "roll_property" not in {table.name for table in source.tables_for(2025)}
    with pytest.raises(KeyError):
        roll_of(source, "roll_building")


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        ("query", ("{parcel}", "{parcels}"), r"property.sql: \{parcels\} \(did you mean 'parcel'\?\)"),
        ("query", ("{parcel}", "{owner}"), "nothing in property.sql reads it"),
        ("own", ("parcel =", "parcels ="), r"no table 'parcels' \(did you mean 'parcel'\?\)"),
        ("own", ('parcel = { account = "acct"', 'parcel = { account = "area"'), "area is a bigint, the account a text"),
        ("own", ('parcel = { account = "acct"', 'parcel = { account = "acct", all = true'), "both account and all"),
        ("own", ('account = "acct", required', "required"), "both account and all"),
        ("own", ('owner = { account = "acct" }', 'owner = { account = "nr" }'), "'nr'"),
        ("own", ('owner = { account = "acct" }', 'owner = { account = "acct", maybe = true }'), "unknown key"),
        ("shared", ('name = "property"', 'name = "properties"'), "in a file named property.toml"),
        ("shared", ("area = {", "source = {"), "a column of the pipeline's own"),
        ("shared", ("area = {", "row_hash = {"), "a column of the pipeline's own"),
        ("shared", ('key = ["acct"]', 'key = ["area"]'), "is not required"),
        ("shared", ('columns = ["area"]\n\n', 'columns = ["ares"]\n\n'), "'ares'"),
        ("shared", ('kind = "fill"', 'kind = "reference"'), "reference"),
    ],
)
def test_file_that_does_not_fit_is_refused_with_its_place(load, file, edit, said):
    with pytest.raises(CatalogError, match=said):
        load(**{file: edit})


def test_query_that_is_not_there_is_refused(load, tmp_path):
    load()
    (tmp_path / "schemas" / "tiny" / "roll" / "property.sql").unlink()
    with pytest.raises(CatalogError, match="property.sql cannot be read"):
        load_source(tmp_path / "schemas" / "tiny", environ={})


def test_no_table_of_a_source_has_the_ledgers_name_of_a_computed_one(write):
    folder = write(owner=('name = "owner"', 'name = "roll_owner"'))
    (folder / "owner.toml").rename(folder / "roll_owner.toml")
    with pytest.raises(CatalogError, match="ledger's name of a computed table"):
        load_source(folder, environ={})


@pytest.mark.parametrize(
    ("file", "edit", "is_other"),
    [
        ("query", ("> 0", "> 1"), True),
        ("own", (", required = false", ""), False),
        ("shared", ('type = "bigint"', 'type = "integer"'), True),
        ("shared", ("Square feet", "Area"), False),
        ("shared", ("min = 0.5", "min = 0.6"), False),
        ("shared", ('[[index]]\ncolumns = ["area"]\n', ""), False),
    ],
)
def test_what_decides_over_computed_rows_is_in_the_release_recipe(load, file, edit, is_other):
    assert (release_recipe(load(**{file: edit}), 2025) != release_recipe(load(), 2025)) is is_other


def test_source_without_computed_tables_keeps_its_recipe_and_with_them_has_another(load, write):
    computed = release_recipe(load(), 2025)
    folder = write()
    (folder / "roll" / "property.toml").unlink()
    assert release_recipe(load_source(folder, environ={}), 2025) != computed


def test_profile_without_a_required_input_leaves_the_table_out_and_one_that_has_them_keeps_it(load, tmp_path):
    load(own=(", required = false", ""))
    sample = load_source(tmp_path / "schemas" / "tiny", profile="sample", environ={"TINY_URL": "http://127.0.0.1:1"})
    assert sample.rolls == ()
    load()
    sample = load_source(tmp_path / "schemas" / "tiny", profile="sample", environ={"TINY_URL": "http://127.0.0.1:1"})
    assert [roll.table.name for roll in rolls_for(sample, 2025)] == ["roll_property"]
