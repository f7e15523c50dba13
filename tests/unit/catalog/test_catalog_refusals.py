"""A mistake in a schema file stops the catalog with the file, the line, the key and what may stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.catalog import load_source
from pipeline.errors import CatalogError

ENVIRON = {"TINY_URL": "http://127.0.0.1:8000"}


def refusal(folder: Path, profile: str = "production", environ: dict[str, str] | None = None) -> str:
    with pytest.raises(CatalogError) as caught:
        load_source(folder, profile=profile, environ=ENVIRON if environ is None else environ)
    return str(caught.value)


#: file, what is replaced, by what, and what the error must tell.
BROKEN = [
    pytest.param("source", 'path = "{year}/roll.zip"', 'path = "{year}/roll.zip"\naliases = ["../roll.zip"]', ["archives.roll.aliases[1]", "below base_url"], id="alias elsewhere"),
    pytest.param("source", 'path = "{year}/roll.zip"', 'path = "{year}/roll.zip"\naliases = ["{year}/roll.zip"]', ["archives.roll.aliases[1]", "twice"], id="alias that is the path"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { share = "wide.txt" }\ncategory = "nam"\ncategories = ["A", "B"]\n[columns]', ["unpivot.category", "did you mean"], id="category that is no column"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { share = "wide.txt" }\ncategory = "alive"\ncategories = ["A", "B"]\n[columns]', ["unpivot.category", "no text"], id="category that is no text"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { name = "wide.txt" }\ncategory = "name"\ncategories = ["A", "B"]\n[columns]', ["unpivot.members"], id="category among the values"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { acct = "wide.txt" }\ncategory = "name"\ncategories = ["A", "B"]\n[columns]', ["unpivot.members.acct", "is required"], id="required value"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { share = "wide.txt", since = "WIDE.TXT" }\ncategory = "name"\ncategories = ["A", "B"]\n[columns]', ["unpivot.members", "each one once"], id="member twice"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { share = "wide.txt" }\ncategory = "name"\ncategories = ["A", "a"]\n[columns]', ["unpivot.categories", "each one once"], id="category twice"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2000, 2004]\nmembers = { share = "wide.txt" }\ncategory = "name"\ncategories = ["A", "B"]\n[columns]', ["unpivot.years"], id="years without a layout"),
    pytest.param("owner", "[columns]", '[unpivot]\nyears = [2020, 2024]\nmembers = { share = "Owner.txt" }\ncategory = "name"\ncategories = ["A", "B"]\n[columns]', ["unpivot.members.share", "own member"], id="own member among the wide ones"),
    pytest.param(
        "owner",
        'doc = "Owners"',
        'docs = "Owners"',
        ["owner.toml:7: table.docs", "did you mean 'doc'", "on_conflict"],
        id="unknown key",
    ),
    pytest.param(
        "owner",
        "personal = true",
        "personnel = true",
        ["owner.toml:15: columns.name.personnel", "did you mean 'personal'"],
        id="unknown column key",
    ),
    pytest.param("owner", "[[index]]", '[[index]]\nusing = "gin"', ["index[1].using", "'gin'", "btree, trgm"], id="index of another kind"),
    pytest.param("owner", "[[index]]", '[[index]]\nusing = "trgm"\ncolumns = ["share"]\n[[index]]', ["index[1].columns", "no text"], id="trigrams of a number"),
    pytest.param("owner", "[[index]]", "[[indices]]", ["indices", "did you mean 'index'"], id="unknown table"),
    pytest.param(
        "owner",
        'format = "delimited"',
        'format = "delimted"',
        ["owner.toml:11: layout[1].format", "'delimted'", "delimited, fixed_width", "did you mean 'delimited'"],
        id="value not allowed",
    ),
    pytest.param(
        "owner", "required = true", "required = 1", ["columns.acct.required", "1 stands there", "true or false"], id="wrong type"
    ),
    pytest.param("owner", '"numeric(7,4)"', '"decimal"', ["columns.share.type", "'decimal' stands there"], id="unknown type"),
    pytest.param("owner", '"numeric(7,4)"', '"numeric(40,4)"', ["columns.share", "at most 38"], id="precision"),
    pytest.param("owner", '"numeric(7,4)"', '"numeric(7,8)"', ["columns.share", "a scale within it"], id="scale"),
    pytest.param("owner", "name  =", "Name  =", ["the name 'Name' may not stand here"], id="column name in capitals"),
    pytest.param(
        "owner", "name  =", "part =", ["columns.part", "the pipeline has a column of that name"], id="column of staging"
    ),
    pytest.param(
        "owner", "name  =", "row_hash =", ["columns.row_hash", "the pipeline has a column of that name"], id="own column"
    ),
    pytest.param("owner", "name  =", '"x; drop table t" =', ["may not stand here"], id="SQL in a column name"),
    pytest.param(
        "owner", 'name = "owner"', 'name = "owners"', ["owner.toml:3: table.name", "'owner'"], id="file is named otherwise"
    ),
    pytest.param("owner", 'key = ["acct"]', 'key = ["acc"]', ["table.key", "did you mean 'acct'"], id="key column is missing"),
    pytest.param("owner", 'key = ["acct"]', 'key = ["acct", "acct"]', ["'acct' twice"], id="key column twice"),
    pytest.param("owner", 'key = ["acct"]', 'key = ["name"]', ["'name' is not required"], id="key may be null"),
    pytest.param("owner", 'key = ["acct"]', "", ["exactly one of the two"], id="neither key nor parent"),
    pytest.param("owner", 'key = ["acct"]', 'key = ["acct"]\nparent = ["acct"]', ["exactly one of the two"], id="key and parent"),
    pytest.param(
        "owner", 'archive = "roll"', 'archive = "rol"', ["table.archive", "did you mean 'roll'"], id="archive is missing"
    ),
    pytest.param("owner", "'^[0-9]{6}$'", "'^[0-9{6}$('", ["columns.acct.regex", "does not compile"], id="regex"),
    pytest.param("owner", "'^[0-9]{6}$'", f"'{'a' * 1001}'", ["columns.acct.regex", "length at most 1000"], id="long regex"),
    pytest.param("owner", 'formats = ["%m/%d/%Y"], ', "", ["columns.since", "a date without formats"], id="date without formats"),
    pytest.param("owner", '"%m/%d/%Y"', '"%m/%Y"', ["columns.since.formats", "'%m/%Y'"], id="format without a day"),
    pytest.param(
        "owner", '"%m/%d/%Y"', '"%A %m/%d/%Y"', ["columns.since.formats", "%A in"], id="directive that transform has not"
    ),
    pytest.param("owner", 'min = "1800-01-01"', 'min = "1800-02-30"', ["columns.since.min"], id="bound that is no day"),
    pytest.param(
        "owner", 'min = "1800-01-01"', "min = 1800", ["columns.since.min", "1800 on a date"], id="bound of another type"
    ),
    pytest.param("owner", "min = 0, max = 100.5", "min = 101, max = 100.5", ["min is above max"], id="empty range"),
    pytest.param("owner", "max = 100.5", "max = inf", ["not TOML", "inf"], id="infinite bound"),
    pytest.param("owner", 'false = ["N"], ', "", ["a boolean without true and false"], id="boolean without codes"),
    pytest.param("owner", 'false = ["N"]', 'false = ["Y"]', ["['Y'] are true and false"], id="code of both"),
    pytest.param(
        "owner",
        'numeric(7,4)", min',
        'text", min',
        ["columns.share.min", "a rule that a text has not"],
        id="rule of another type",
    ),
    pytest.param(
        "owner", "required = true", 'required = true, on_error = "null"', ["columns.acct.on_error"], id="required made null"
    ),
    pytest.param("owner", "personal = true", 'source = "ACCT"', ["'ACCT' is a name of 'acct' too"], id="header name twice"),
    pytest.param(
        "owner",
        "personal = true",
        "start = 4, end = 5",
        ["columns.name", "no fixed_width layout"],
        id="position that nobody reads",
    ),
    pytest.param(
        "owner",
        'format = "delimited"',
        'format = "delimited"\nrecord_width = 5',
        ["layout[1].record_width", "nothing reads it"],
        id="width of a delimited layout",
    ),
    pytest.param(
        "owner", "years = [2020, 2099]", "years = [2099, 2020]", ["owner.toml:10: layout[1].years", "runs backwards"], id="years"
    ),
    pytest.param("owner", "year = 2025", "year = 2019", ["example[1].year", "a layout covers"], id="example of no layout"),
    pytest.param(
        "owner", "gives_null", 'refused = "acct"\ngives_null', ["example without one outcome"], id="example with two outcomes"
    ),
    pytest.param("owner", 'columns = ["name"]', 'columns = ["nam"]', ["index[1].columns", "did you mean 'name'"], id="index"),
    pytest.param("owner", "[table]", "[table", ["not TOML", "line 2"], id="syntax"),
    pytest.param(
        "parcel", "start = 7, end = 10", "start = 6, end = 10", ["columns.area", "begins at byte 6, where 'acct'"], id="overlap"
    ),
    pytest.param(
        "parcel", "start = 7, end = 10", "start = 7, end = 11", ["bytes 7 to 11", "record_width 10"], id="beyond the record"
    ),
    pytest.param("parcel", "start = 7, end = 10", "start = 7", ["columns.area", "no start and end"], id="no end"),
    pytest.param(
        "parcel", "area = [7, 12]", "area = [12, 7]", ["parcel.toml:15: layout[2].positions.area"], id="positions run backwards"
    ),
    pytest.param("parcel", "area = [7, 12]", "aera = [7, 12]", ["did you mean 'area'"], id="positions of no column"),
    pytest.param(
        "parcel", "record_width = 10", 'record_width = 10\nabsent = ["acct"]', ["'acct' is a parent column"], id="identity absent"
    ),
    pytest.param("parcel", "record_width = 12", "record_width = 10", ["layout[2]", "an earlier layout"], id="layout never taken"),
    pytest.param(
        "parcel", "record_width = 10", 'record_width = 10\nversions = ["8"]', ["[version] in source.toml"], id="no version field"
    ),
    pytest.param("parcel", "record_width = 10\n", "\n", ["without record_width"], id="no record width"),
    pytest.param(
        "parcel",
        "record_width = 10",
        'record_width = 10\ndelimiter = ","',
        ["layout[1].delimiter"],
        id="delimiter of fixed width",
    ),
    pytest.param(
        "parcel", "record_width = 10", 'record_width = 10\nencoding = "utf-8"', ["positions are bytes"], id="utf-8 of fixed width"
    ),
    pytest.param("parcel", '"parcel.txt"', '"OWNER.TXT"', ["'owner.txt' is the member of 'owner' too"], id="member twice"),
    pytest.param("parcel", '"parcel.txt"', '"../parcel.txt"', ["table.member"], id="member leaves its folder"),
    pytest.param("source", 'name = "tiny"', 'name = "Tiny"', ["source.toml:2: source.name"], id="source in capitals"),
    pytest.param("source", 'name = "tiny"', 'name = "huge"', ["in the folder 'tiny'"], id="source is not its folder"),
    pytest.param("source", 'licence = "public record"\n', "", ["source.licence", "this key is missing"], id="missing key"),
    pytest.param("source", "tax_years = [2024, 2025]", "tax_years = [2025, 2025]", ["each tax year once"], id="tax year twice"),
    pytest.param("source", "{year}/roll.zip", "../{year}/roll.zip", ["archives.roll.path"], id="path leaves the base"),
    pytest.param("source", "{year}/roll.zip", "{month}/roll.zip", ["archives.roll.path", "{year}"], id="unknown placeholder"),
    pytest.param(
        "source", "{year}/roll.zip", "{year.__class__}", ["archives.roll.path"], id="placeholder that reaches into objects"
    ),
    pytest.param(
        "source", "owner = 1_000", "owners = 1_000", ["gate.floors.owners", "did you mean 'owner'"], id="floor of no table"
    ),
    pytest.param("source", "0.02", "1.5", ["gate.max_quarantined_share", "at most 1"], id="share above one"),
    pytest.param("source", "127.0.0.0/8", "127.0.0.1/8", ["allow_addresses"], id="CIDR with host bits"),
    pytest.param("source", '2025 = ["roll"]', '2025 = ["rol"]', ["no archive 'rol'"], id="profile archive"),
    pytest.param("source", '2025 = ["roll"]', '2024 = ["roll"]', ["no table is wanted of 2025"], id="tax year without archives"),
    pytest.param(
        "source", '2025 = ["roll"]', '2025 = ["roll"], 2024 = ["roll"]', ["archives of [2024]"], id="archives of no tax year"
    ),
    pytest.param(
        "source",
        'tables = ["owner"]',
        'tables = ["owners"]',
        ["profile.sample.tables", "did you mean 'owner'"],
        id="profile table",
    ),
    pytest.param(
        "source",
        "[profile.sample]",
        "[profile.production]\nenabled = true\n[profile.sample]",
        ["'production' may not stand here"],
        id="profile named production",
    ),
    pytest.param(
        "source", "https://tiny.example/roll", "ftp://tiny.example/roll", ["source.base_url", "no URL to fetch from"], id="scheme"
    ),
    pytest.param("owner", "personal = true", 'true = ["Y"]', ["codes of a boolean on a text"], id="codes of a text"),
    pytest.param("owner", "personal = true", 'formats = ["%Y-%m-%d"]', ["formats on another type"], id="formats of a text"),
    pytest.param(
        "owner", "min = 0, max", 'normalize = ["upper"], max', ["columns.share.normalize"], id="steps for text on a number"
    ),
    pytest.param(
        "owner", "min = 0, max", "implied_decimals = 5, max", ["columns.share.implied_decimals"], id="more decimals than the type"
    ),
    pytest.param(
        "source",
        "[gate]",
        '[version]\narchive = "rol"\nmember = "H"\nstart = 1\nend = 2\n[gate]',
        ["version.archive", "'rol'"],
        id="version of no archive",
    ),
    pytest.param(
        "source",
        "[gate]",
        '[version]\narchive = "roll"\nmember = "H"\nstart = 3\nend = 2\n[gate]',
        ["bytes 3 to 2"],
        id="version runs backwards",
    ),
    pytest.param(
        "source",
        "[gate]",
        '[[expect]]\narchive = "rol"\nmember = "H"\nstart = 1\nend = 2\nvalue = "x"\n[gate]',
        ["expect[1].archive", "'rol'"],
        id="expectation of no archive",
    ),
    pytest.param(
        "source",
        "[gate]",
        '[[expect]]\narchive = "roll"\nmember = "H"\nstart = 3\nend = 2\nvalue = "x"\n[gate]',
        ["bytes 3 to 2"],
        id="expectation runs backwards",
    ),
    pytest.param(
        "source",
        "[gate]",
        '[[expect]]\narchive = "roll"\nmember = "H"\nstart = 1\nend = 2\nvalue = "{county}"\n[gate]',
        ["expect[1].value", "{year}"],
        id="expectation with another placeholder",
    ),
    pytest.param(
        "owner", 'key = ["acct"]', 'key = ["acct"]\nyear_column = "yr"', ["table.year_column", "'yr'"], id="year column is missing"
    ),
    pytest.param(
        "owner",
        'key = ["acct"]',
        'key = ["acct"]\nyear_column = "name"',
        ["table.year_column", "no whole number"],
        id="year column is a text",
    ),
    pytest.param(
        "source", "tax_years = [2024", 'tables = "/etc"\ntax_years = [2024', ["source.tables", "'/etc'"], id="tables elsewhere"
    ),
]


@pytest.mark.fault(53)
@pytest.mark.parametrize(("file", "old", "new", "told"), BROKEN)
def test_mistake_is_refused_with_place_and_remedy(write, file, old, new, told):
    message = refusal(write(**{file: (old, new)}))
    for part in told:
        assert part in message
    assert f"{file}.toml" in message


@pytest.mark.fault(53)
def test_file_over_one_mebibyte_is_not_parsed(write):
    folder = write()
    with open(folder / "owner.toml", "a") as file:
        file.write("#" * (1 << 20))
    assert "larger than 1,048,576 bytes" in refusal(folder)


@pytest.mark.fault(53)
def test_deep_nesting_is_refused(write):
    folder = write()
    (folder / "owner.toml").write_text("a = " + "[" * 100_000)
    assert "not TOML" in refusal(folder)


def test_file_that_is_not_utf8_is_refused(write):
    folder = write()
    (folder / "owner.toml").write_bytes(b"# caf\xe9\n")
    assert "not UTF-8 at byte 5" in refusal(folder)


def test_many_mistakes_are_told_together_and_counted(write):
    unknown = "".join(f"x{number} = 1\n" for number in range(8))
    told = refusal(write(owner=("[[layout]]", f"{unknown}[[layout]]")))
    assert told.count("unknown key") == 5
    assert "and 3 more" in told


def test_secret_in_a_base_url_is_not_in_the_error(write):
    told = refusal(write(), "sample", {"TINY_URL": "gopher://user:canary-secret@host"})
    assert "canary-secret" not in told
    assert "${TINY_URL}/tiny" in told


def test_required_column_may_not_be_absent(write):
    column = 'area = { type = "bigint", start = 7, end = 10 }'
    folder = write(parcel=(column, f'{column}\nuse = {{ type = "text", required = true, start = 11, end = 11 }}'))
    text = (folder / "parcel.toml").read_text()
    (folder / "parcel.toml").write_text(text.replace("record_width = 10", 'record_width = 10\nabsent = ["use"]'))
    assert "layout[1].absent: 'use' is required" in refusal(folder)


def test_long_name_that_would_not_fit_in_postgresql_is_refused(write):
    folder = write()
    name = "p" * 44
    text = (folder / "parcel.toml").read_text().replace('name = "parcel"', f'name = "{name}"')
    (folder / "parcel.toml").rename(folder / f"{name}.toml").write_text(text)
    assert "is too long" in refusal(folder)


@pytest.mark.parametrize("name", ["etl", "history", "roll", "pg_catalog"])
def test_source_named_as_a_schema_of_the_database_is_refused(write, name):
    folder = write(source=('name = "tiny"', f'name = "{name}"'))
    assert "is a schema that is not a source's" in refusal(folder.rename(folder.with_name(name)))


def test_source_without_a_table_is_refused(write):
    folder = write()
    (folder / "owner.toml").unlink()
    (folder / "parcel.toml").unlink()
    assert "a source without a table file" in refusal(folder)
