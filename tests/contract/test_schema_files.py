"""Every shipped schema file: it loads, says what the district's own documents say, and its examples come true."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.catalog import ROW_HASH_VERSION, load_catalog, shipped_schemas
from pipeline.catalog.meta_schema import OF_RULES, SOURCE_FILE, TABLE_FILE, all_keys
from pipeline.catalog.toml_file import read_toml
from pipeline.examples import run_examples
from pipeline.transform import row_hash

FIXTURES = Path(__file__).parents[1] / "fixtures"
SCRIPTS = FIXTURES.parents[1] / "scripts"
CODEBOOK = {table["table"]: table for table in json.loads((SCRIPTS / "codebook" / "hcad-2025-02-24.json").read_text())}
PACS = json.loads((FIXTURES / "codebook" / "pacs-8.0.json").read_text())
sys.path.insert(0, str(SCRIPTS))

import make_schemas  # noqa: E402

ENVIRON = {"SAMPLE_SERVER_URL": "http://127.0.0.1:1"}
CATALOG = load_catalog(environ=ENVIRON)
SAMPLE = load_catalog(profile="sample", environ=ENVIRON)
TABLES = [table for source in CATALOG.values() for table in source.tables]
EXAMPLES = [
    pytest.param(table, example, id=f"{table.qualified}-{number}")
    for table in TABLES
    for number, example in enumerate(table.examples, start=1)
]
FILES = sorted(shipped_schemas().rglob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_file_follows_its_meta_schema(path):
    read_toml(path, SOURCE_FILE if path.name == "source.toml" else TABLE_FILE)


def test_every_file_belongs_to_a_source():
    names = {table.name for table in TABLES} | {"source"}
    assert {path.stem for path in FILES} == names


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.qualified)
def test_table_and_columns_are_documented_and_shown_by_an_example(table):
    assert table.doc
    assert not [column.name for column in table.columns if not column.doc]
    assert any(example.gives for example in table.examples)
    assert table.name == "real_mnrl" or any(example.refused for example in table.examples)


#: The pipeline has a column tax_year of its own.
RENAMED = {"tax_year": "stated_tax_year"}
#: HCAD states a key of columns that it does not publish.
NO_KEY = {"ownership_history"}
#: What distinguishes rows besides the key that HCAD states.
KEYED_BESIDES = {"jur_tax_dist_exempt_value_rate": ["rp_type"], "t_jur_tax_dist_exempt_value_rate": ["rp_type"]}


def test_every_table_of_the_codebook_is_there_and_no_other():
    assert {table.name for table in CATALOG["hcad"].tables} == set(CODEBOOK)
    assert len(CODEBOOK) == 67


@pytest.mark.parametrize("name", CODEBOOK)
def test_columns_are_those_of_the_codebook_in_file_order(name):
    table, stated = CATALOG["hcad"].table(name), CODEBOOK[name]
    names = [column["name"] for column in stated["cols"]]
    assert [column.source for column in table.columns] == names
    assert [column.name for column in table.columns] == [RENAMED.get(column.lower(), column.lower()) for column in names]
    assert f"{table.archive}.zip".lower() == stated["archive"].lower()
    assert table.member == f"{name}.txt"


@pytest.mark.parametrize("name", CODEBOOK)
def test_key_is_the_one_that_hcad_states_and_all_of_it_is_required(name):
    table, stated = CATALOG["hcad"].table(name), CODEBOOK[name]
    key = re.sub(r" *\(.*", "", stated["primary_key_stated_by_hcad"] or "")
    expected = [] if name in NO_KEY or not key else [*KEYED_BESIDES.get(name, ()), *(column.lower() for column in key.split(", "))]
    assert list(table.key) == expected
    assert [column.name for column in table.columns if column.required] == sorted(table.key or table.parent, key=list(table.identity).index)


def test_table_files_are_what_the_codebook_and_its_review_give(capsys):
    assert make_schemas.main(["--check"]) == 0, capsys.readouterr().out


def test_what_is_new_gone_or_changed_in_the_next_codebook_is_told(tmp_path, capsys):
    tables = json.loads((SCRIPTS / "codebook" / "hcad-2025-02-24.json").read_text())
    by_name = {table["table"]: table for table in tables}
    by_name["fixtures"]["cols"][4]["name"] = "unit_count"
    by_name["owners"]["cols"][2]["size"] = "200"
    by_name["real_acct"]["cols"].append(dict(by_name["real_acct"]["cols"][0], name="lgl_5"))
    by_name["land"]["table"] = "land_market"
    changed = tmp_path / "next.json"
    changed.write_text(json.dumps(tables))
    assert make_schemas.main(["--codebook", str(changed)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "new table land_market: nobody has reviewed it",
        "table land is gone from the codebook",
        "new column fixtures.unit_count: nobody has reviewed it",
        "column fixtures.units is gone from the codebook",
        "fixtures.units: a text for a column that is not there",
        "real_acct.toml, written by hand, has other columns than the codebook: lgl_5",
        "owners.name: size was '100', is '200'",
    ]


def test_all_71_columns_of_real_acct_are_there():
    assert len(CATALOG["hcad"].table("real_acct").columns) == 71


def test_columns_that_name_or_locate_a_person_are_personal():
    personal = {table.name: [column.name for column in table.columns if column.personal] for table in CATALOG["hcad"].tables}
    assert {name: columns for name, columns in personal.items() if columns} == {
        "arb_hearings_pp": ["owner_name"],
        "arb_hearings_real": ["owner_name"],
        "building_other": ["notes"],
        "building_res": ["notes"],
        "extra_features": ["note"],
        "extra_features_detail1": ["note"],
        "extra_features_detail2": ["note"],
        "owners": ["name", "aka"],
        "ownership_history": ["name"],
        "real_acct": ["mailto", "mail_addr_1", "mail_addr_2", "mail_city", "mail_state", "mail_zip", "mail_country"],
        "t_business_acct": ["name", "bus_name", "mailto", "mail_addr_1", "mail_addr_2", "mail_city", "mail_state", "mail_zip", "phone"],
    }


def test_a_back_year_needs_nothing_that_exists_for_the_current_one_only():
    source = CATALOG["hcad"]
    for name in ("extra_features_detail1", "extra_features_detail2", "ownership_history"):
        assert not source.table(name).required
    required = [archive.name for archive in source.archives_for(2022) if archive.required]
    assert required == ["Real_acct_owner", "Real_building_land", "Real_jur_exempt"]
    named = {year: {table.name for table in source.tables_for(year)} for year in (2023, 2024)}
    assert (named[2023] - named[2024], named[2024] - named[2023]) == ({"t_pp_e"}, {"real_mnrl"})


@pytest.mark.parametrize("version", PACS)
@pytest.mark.parametrize("name", ["abstract_subdv", "country_code", "entity", "state_code"])
def test_positions_are_those_of_the_official_layout(name, version):
    table, fields = CATALOG["travis"].table(name), PACS[version][name]
    layout = next(layout for layout in table.layouts if version in layout.versions)
    assert [[column.name, column.start, column.end] for column in table.columns] == fields
    assert (layout.record_width, layout.positions) == (fields[-1][2], {})
    assert all(set(layout.versions) <= set(PACS) for layout in table.layouts), "only versions of which there is a document"


def test_state_codes_of_travis_2020_are_a_layout_of_their_own():
    official, travis = CATALOG["travis"].table("state_code").layouts
    assert (official.record_width, travis.record_width) == (125, 124)
    assert travis.positions == {"state_cd_year": (121, 124)}


def test_sample_profile_asks_for_the_rows_of_the_bundle():
    assert (CATALOG["hcad"].enabled, CATALOG["travis"].enabled) == (True, False)
    sampled = {name: source for name, source in SAMPLE.items() if source.enabled}
    wanted = {(name, year): [table.name for table in source.tables_for(year)]
              for name, source in sampled.items() for year in source.tax_years}  # fmt: skip
    assert wanted == {
        ("hcad", 2019): ["arb_protest_real"],
        ("hcad", 2025): ["real_acct", "real_mnrl", "real_neighborhood_code"],
        ("travis", 2019): ["abstract_subdv", "country_code", "entity", "state_code"],
    }
    for source in sampled.values():
        assert set(source.gate.floors) == {table.name for table in source.tables}
        for year in source.tax_years:
            for archive in source.archives_for(year):
                assert (FIXTURES / "sample" / source.name / archive.path.format(year=year)).is_file()


def test_every_example_comes_true():
    verdicts = list(run_examples(CATALOG))
    assert len(verdicts) == sum(len(table.examples) for source in CATALOG.values() for table in source.tables)
    assert [verdict for verdict in verdicts if verdict.differences] == []


def test_row_hash_of_the_recipe_is_that_of_the_rows():
    assert row_hash.ROW_HASH_VERSION == ROW_HASH_VERSION


#: They have the keys of [gate.drift].
AS_GATE_DRIFT = ("gate.table_drift.*", "profile.*.gate.drift", "profile.*.gate.table_drift.*")


def test_every_key_of_the_language_is_documented():
    documented: dict[str, Counter[str]] = {}
    heading = ""
    for line in (shipped_schemas() / "README.md").read_text().splitlines():
        if line.startswith(("### ", "`[profile.<name>.")):
            heading = line.split("`")[1]
        elif line.startswith("| `"):
            documented.setdefault(heading, Counter())[line.split("`")[1]] += 1
    headings = {"archives.*": "[archives.<name>]", "profile.*": "[profile.<name>]", "profile.*.gate": "[profile.<name>.gate]",
                "profile.*.probe": "[profile.<name>.probe]", "layout": "[[layout]]", "index": "[[index]]", "example": "[[example]]",
                "expect": "[[expect]]", "columns.*": "[columns]", "columns.*.compute": "compute", "check": "[[check]]"}  # fmt: skip
    expected: dict[str, Counter[str]] = {}
    for inside, key in (*all_keys(SOURCE_FILE), *all_keys(TABLE_FILE)):
        section = ".".join(inside)
        if inside and inside[-1] not in OF_RULES and section not in AS_GATE_DRIFT:  # the rules within anyof are the column's own
            expected.setdefault(headings.get(section, f"[{section}]"), Counter())[key] += 1
    assert documented == expected
