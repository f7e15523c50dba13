"""A catalog is what its files say, under the profile that was chosen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from decimal import Decimal

import pytest

from pipeline.catalog import ColumnType, load_catalog, load_source, release_recipe, shipped_schemas, table_recipe
from pipeline.catalog.layers import without_layers
from pipeline.errors import CatalogError

ENVIRON = {"TINY_URL": "http://127.0.0.1:8000"}


def test_file_becomes_the_table_that_it_says(write):
    source = load_source(write(), environ={})
    assert (source.name, source.enabled, source.profile) == ("tiny", True, "production")
    assert [table.name for table in source.tables_for(2025)] == ["owner", "parcel"]
    owner = source.table("owner")
    assert owner.identity == ("tax_year", "acct")
    assert owner.layouts[0].years == (2020, 2099)
    assert owner.column("share").type == ColumnType("numeric", 7, 4)
    assert owner.column("share").rules == {"min": 0, "max": Decimal("100.5")}
    assert owner.column("alive").true_codes == ("Y",)
    assert owner.column("alive").on_error == "null"
    assert owner.column("name").personal
    assert owner.examples[0].gives == {"acct": "000001", "share": "50", "since": None}
    assert source.gate.floors == {"owner": 1000}
    assert source.gate.max_quarantined_share == 0.02
    assert source.gate.max_conflicting_share == 0.001
    parcel = source.table("parcel")
    assert parcel.identity == ("tax_year", "acct", "seq")
    assert parcel.layouts[1].positions == {"area": (7, 12)}


def test_profile_is_laid_over_production(write):
    source = load_source(write(), profile="sample", environ=ENVIRON)
    assert source.base_url == "http://127.0.0.1:8000/tiny"
    assert source.enabled
    assert source.tax_years == (2025,)
    assert [table.name for table in source.tables] == ["owner"]
    assert source.gate.floors == {"owner": 3}, "production floors are replaced whole"
    assert source.gate.max_quarantined_share == 0.02, "other gate keys stay"
    assert source.allow_addresses == ("127.0.0.0/8",)


def test_profile_without_floors_keeps_those_of_its_tables(write):
    floors = ("[profile.sample.gate.floors]\nowner = 3\n", "")
    assert load_source(write(source=floors), profile="sample", environ=ENVIRON).gate.floors == {"owner": 1000}
    other = write(source=('tables = ["owner"]\n[profile.sample.gate.floors]\nowner = 3', 'tables = ["parcel"]'))
    assert load_source(other, profile="sample", environ=ENVIRON).gate.floors == {}


def test_variable_is_wanted_only_by_its_own_profile(write):
    folder = write()
    assert load_source(folder, environ={}).base_url == "https://tiny.example/roll"
    with pytest.raises(CatalogError, match=r"source.toml:19: profile.sample.base_url: \$\{TINY_URL\} is not set"):
        load_source(folder, profile="sample", environ={})


def test_source_without_the_profile_is_not_enabled(write):
    write()
    other = write().parent / "other"
    shutil.copytree(write(), other)
    text = (other / "source.toml").read_text()
    (other / "source.toml").write_text(text[: text.index("[profile.sample]")].replace('name = "tiny"', 'name = "other"'))
    catalog = load_catalog(other.parent, profile="sample", environ=ENVIRON)
    assert {name: source.enabled for name, source in catalog.items()} == {"other": False, "tiny": True}
    assert catalog["other"].profile == "sample"


def test_profile_can_enable_a_source_that_production_does_not(write):
    folder = write(source=("[profile.sample]", "[profile.sample]\nenabled = true"))
    text = (folder / "source.toml").read_text()
    (folder / "source.toml").write_text(text.replace("tax_years = [2024", "enabled = false\ntax_years = [2024"))
    assert not load_source(folder, environ={}).enabled
    assert load_source(folder, profile="sample", environ=ENVIRON).enabled


def test_misspelt_profile_is_refused_not_empty(write):
    with pytest.raises(CatalogError, match="did you mean 'sample'"):
        load_catalog(write().parent, profile="sampel", environ=ENVIRON)


def test_folder_without_a_source_is_refused(tmp_path):
    with pytest.raises(CatalogError, match=r"no \*/source.toml"):
        load_catalog(tmp_path)


def test_folder_without_source_toml_is_no_source(write):
    folder = write()
    (folder.parent / "shared").mkdir()
    shutil.move(folder / "parcel.toml", folder.parent / "shared" / "parcel.toml")
    (folder / "source.toml").write_text(
        (folder / "source.toml").read_text().replace("[archives.roll]", 'tables = "../shared"\n[archives.roll]')
    )
    catalog = load_catalog(folder.parent, environ={})
    assert list(catalog) == ["tiny"]
    assert [table.name for table in catalog["tiny"].tables] == ["owner", "parcel"]


def test_own_table_file_replaces_the_shared_one(write):
    folder = write(source=("tax_years = [2024, 2025]", 'tax_years = [2024, 2025]\ntables = "../shared"'))
    shared = folder.parent / "shared"
    shared.mkdir()
    (shared / "parcel.toml").write_text((folder / "parcel.toml").read_text().replace("parcel.txt", "shared.txt"))
    assert load_source(folder, environ={}).table("parcel").member == "parcel.txt"
    (folder / "parcel.toml").unlink()
    assert load_source(folder, environ={}).table("parcel").member == "shared.txt"


def test_shipped_schemas_are_those_of_this_checkout():
    assert (shipped_schemas() / "hcad" / "source.toml").is_file()


def test_absent_column_needs_no_position(write):
    column = "area = { type"
    folder = write(parcel=(column, f'use = {{ type = "text" }}\n{column}'))
    text = (folder / "parcel.toml").read_text()
    (folder / "parcel.toml").write_text(
        text.replace("record_width = 10", 'record_width = 10\nabsent = ["use"]').replace(
            "record_width = 12", 'record_width = 12\nabsent = ["use"]'
        )
    )
    assert load_source(folder, environ={}).table("parcel").layouts[1].absent == ("use",)


ELSEWHERE = ('path = "{year}/roll.zip"', 'path = "{year}/roll.zip"\nbase_url = "https://maps.example/GIS/"\nfallback = "old_{year}.zip"')


def test_archive_with_a_base_url_of_its_own_is_fetched_from_there_and_in_a_profile_with_one_from_that(write):
    folder = write(source=ELSEWHERE)
    source = load_source(folder, environ={})
    archive = source.archive("roll")
    assert source.url(archive, 2025) == "https://maps.example/GIS/2025/roll.zip"
    assert source.url(archive, 2025, is_fallback=True) == "https://maps.example/GIS/old_2025.zip"
    assert source.url(archive, 2025, mirror="https://mirror.example/m") == "https://mirror.example/m/2025/roll.zip"
    sample = load_source(folder, profile="sample", environ={"TINY_URL": "http://127.0.0.1:1"})
    assert sample.url(sample.archive("roll"), 2025) == "http://127.0.0.1:1/tiny/2025/roll.zip"


def test_where_layers_cannot_be_read_their_archives_are_left_out():
    source = load_catalog(environ={})["hcad"]
    left = without_layers(source, ["pyogrio", "shapely"])
    assert left.left_out == {"Parcels": "parcel_centroid needs pyogrio, shapely, not installed here: pip install 'hcad-pipeline[gis]'"}
    assert release_recipe(left, 2026) == release_recipe(source, 2026)
    assert without_layers(source, []) is source
    sample = load_catalog(profile="sample", environ={"SAMPLE_SERVER_URL": "http://127.0.0.1:1"})["hcad"]
    assert without_layers(sample, ["pyogrio"]).left_out == {}, "no tax year of it wants the map"


def test_coordinate_system_of_a_layer_is_a_part_of_the_recipe():
    source = load_catalog(environ={})["hcad"]
    table = source.table("parcel_centroid")
    moved = replace(table, layouts=(replace(table.layouts[0], crs="EPSG:2277"),))
    assert table_recipe(moved) != table_recipe(table)
