"""Every shipped file of a computed table: it follows the schema language, is documented, and what is declared once is used by a source."""

import pytest

from pipeline.catalog import load_catalog, shipped_schemas
from pipeline.catalog.meta_schema import ROLL_FILE, ROLL_TABLE_FILE
from pipeline.catalog.recipe import roll_recipe
from pipeline.catalog.roll import rolls_for
from pipeline.catalog.toml_file import read_toml

CATALOG = load_catalog(environ={"SAMPLE_SERVER_URL": "http://127.0.0.1:1"})
ROLLS = [roll for source in CATALOG.values() for roll in source.rolls]
SHARED = sorted((shipped_schemas() / "roll").glob("*.toml"))
OWN = sorted(path for path in shipped_schemas().glob("*/roll/*.toml"))


@pytest.mark.parametrize("path", [*SHARED, *OWN], ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_file_follows_its_meta_schema(path):
    read_toml(path, ROLL_TABLE_FILE if path in SHARED else ROLL_FILE)


def test_every_declaration_has_a_source_and_every_query_a_declaration():
    assert {roll.table.name for roll in ROLLS} == {f"roll_{path.stem}" for path in SHARED}
    assert {path.stem for path in SHARED} == {path.stem for path in OWN} == {path.stem for path in shipped_schemas().glob("*/roll/*.sql")}


@pytest.mark.parametrize("roll", ROLLS, ids=lambda roll: roll.table.qualified)
def test_table_and_columns_are_documented(roll):
    assert roll.table.doc
    assert [column.name for column in roll.table.columns if not column.doc] == []


def test_hcad_computes_every_table_of_every_tax_year_and_the_sample_none():
    hcad = CATALOG["hcad"]
    names = [roll.table.name for roll in hcad.rolls]
    assert {"roll_property", "roll_building", "roll_extra_feature", "roll_assessment_history", "roll_tax_unit_value", "roll_coordinate"} == set(names)
    for year in (2021, *hcad.tax_years):
        assert [roll.table.name for roll in rolls_for(hcad, year)] == names
        assert len({roll_recipe(hcad, roll, year) for roll in hcad.rolls}) == len(names)
    sample = load_catalog(profile="sample", environ={"SAMPLE_SERVER_URL": "http://127.0.0.1:1"})["hcad"]
    assert [rolls_for(sample, year) for year in sample.tax_years] == [(), ()]


def test_owner_is_personal_in_computed_tables_too():
    personal = [(roll.table.name, column.name) for roll in ROLLS for column in roll.table.columns if column.personal]
    assert personal == [("roll_property", "owner_name")]
