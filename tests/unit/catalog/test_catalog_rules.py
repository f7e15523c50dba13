"""Rules, policies, computed columns, checks and layout keys that a schema file may not state: each is told with its place."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from pipeline.catalog import load_source
from pipeline.catalog.model import Check, Computed, Drift
from pipeline.errors import CatalogError
from pipeline.transform.rules import compile_rules

ENVIRON = {"TINY_URL": "http://127.0.0.1:8000"}
LAYOUT = 'format = "delimited"'


def refusal(folder, profile="production"):
    with pytest.raises(CatalogError) as caught:
        load_source(folder, profile=profile, environ=ENVIRON)
    return str(caught.value)


def more(lines):
    """Columns, or tables, behind the last column of the owners."""
    return ("\n[[index]]", f"{lines}\n[[index]]")


def keys(text, of="personal = true"):
    return (of, f"{of}, {text}")


NUMBERS = 'a = { type = "integer" }\nb = { type = "numeric(5,2)" }\n'

BROKEN = [
    # Rules of a column.
    ("rule that a type has not", more("x = { type = \"date\", formats = ['%Y%m%d'], allowed = [\"2000-01-01\"] }"), ["columns.x.allowed", "a rule that a date has not", "min, max"]),
    ("rule on a boolean", more('x = { type = "boolean", true = ["Y"], false = ["N"], min = 1 }'), ["columns.x.min", "a boolean has not"]),
    ("rule of rules on a boolean", more('x = { type = "boolean", true = ["Y"], false = ["N"], anyof = [{ min = 1 }] }'), ["columns.x.anyof", "a boolean has not"]),
    ("truth as a bound", more('x = { type = "integer", min = true }'), ["columns.x.min", "True stands there"]),
    ("truth among values", more('x = { type = "integer", allowed = [1, true] }'), ["columns.x.allowed", "True stands there"]),
    ("number among texts", keys("forbidden = [1]"), ["columns.name.forbidden", "1 on a text", "a text"]),
    ("fraction for whole numbers", more('x = { type = "bigint", max = 0.5 }'), ["columns.x.max", "0.5", "a whole number"]),
    ("text for a number", more('x = { type = "numeric(5,2)", max = "1" }'), ["columns.x.max", "'1' on a numeric", "a number"]),
    ("lengths crossed", keys("minlength = 3, maxlength = 2"), ["columns.name.minlength", "minlength is above maxlength"]),
    ("no values at all", keys("allowed = []"), ["columns.name.allowed", "length at least 1"]),
    ("negative length", keys("maxlength = -1"), ["columns.name.maxlength", "at least 0"]),
    ("check that is not there", keys('check_with = "zip_cod"'), ["columns.name.check_with", "did you mean 'zip_code'"]),
    ("rule in rules that the type has not", more('x = { type = "integer", anyof = [{ regex = "1" }] }'), ["columns.x.anyof[1].regex", "a rule that a integer has not"]),
    ("rule in rules of another type", keys('noneof = [{ allowed = ["A"] }, { allowed = [1] }]'), ["columns.name.noneof[2].allowed", "1 on a text"]),
    ("regex in rules", keys("oneof = [{ regex = '(' }]"), ["columns.name.oneof[1].regex", "does not compile"]),
    ("long regex in rules", keys(f"allof = [{{ regex = '{'a' * 1001}' }}]"), ["columns.name.allof[1].regex", "length at most 1000"]),
    ("rules in rules in rules", keys('anyof = [{ anyof = [{ regex = "a" }] }]'), ["columns.name.anyof[1].anyof", "unknown key"]),
    ("empty rule set", keys("anyof = [{}]"), ["columns.name.anyof[1]", "length at least 1"]),
    ("unknown rule in rules", keys('anyof = [{ regx = "a" }]'), ["columns.name.anyof[1].regx", "did you mean 'regex'"]),
    ("bounds crossed in rules", more('x = { type = "bigint", anyof = [{ min = 2, max = 1 }] }'), ["columns.x.anyof[1].min", "min is above max"]),
    # Rules between columns.
    ("depends on nothing", keys('dependencies = ["nam"]'), ["columns.name.dependencies", "no column 'nam'"]),
    ("depends on itself", keys('dependencies = ["name"]'), ["columns.name.dependencies", "no column 'name'"]),
    ("depends twice", keys('dependencies = ["share", "share"]'), ["columns.name.dependencies", "'share' twice"]),
    ("excludes a required column", keys('excludes = ["acct"]'), ["columns.name.excludes", "'acct' is required"]),
    ("required column excludes", keys('excludes = ["name"]', "required = true"), ["columns.acct.excludes", "'acct' is required"]),
    ("excludes what may not be NULL", more('x = { type = "text", nullable = false }\ny = { type = "text", excludes = ["x"] }'), ["columns.y.excludes", "'x' may not be NULL"]),
    ("may not be NULL and excludes", keys('nullable = false, excludes = ["share"]'), ["columns.name.excludes", "'name' may not be NULL"]),
    # Policies.
    ("cut without a length", keys('on_error = "truncate"'), ["columns.name.on_error", "a text with maxlength of 1 or more"]),
    ("cut to nothing", keys('on_error = "truncate", maxlength = 0'), ["columns.name.on_error", "a text with maxlength of 1 or more"]),
    ("cut number", keys('on_error = "truncate"', "max = 100.5"), ["columns.share.on_error", "a text with maxlength of 1 or more"]),
    ("controls in a number", keys('controls = "blank"', "max = 100.5"), ["columns.share.controls", "'blank' on a numeric"]),
    ("null that may not be", keys('nullable = false, on_error = "null"'), ["columns.name.on_error", '"null" on a column that may not be NULL']),
    # The rest, and computed columns.
    ("rest with a rule", more('x = { type = "text", source = "*", maxlength = 5 }'), ["columns.x", "it holds JSON"]),
    ("rest that nothing keeps", more('x = { type = "text", source = "*" }'), ["columns.x.source", "no layout keeps unknown columns"]),
    ("rest twice", more('x = { type = "text", source = "*" }\ny = { type = "text", source = "*" }'), ["columns.y.source", "'x' keeps the rest already"]),
    ("kept and nowhere to keep", (LAYOUT, f'{LAYOUT}\nunknown_columns = "keep"'), ["layout[1].unknown_columns", 'source = "*"']),
    ("computed and read", more('x = { type = "text", source = "X", compute = { function = "join", of = ["name", "acct"] } }'), ["columns.x.source", "nothing reads it in a computed column"]),
    ("computed with nulls of its own", more('x = { type = "text", normalize = ["upper"], compute = { function = "join", of = ["name", "acct"] } }'), ["columns.x.normalize", "computed column"]),
    ("function that is not there", more('x = { type = "text", compute = { function = "jion", of = ["name", "acct"] } }'), ["columns.x.compute.function", "did you mean 'join'"]),
    ("computed from nothing", more('x = { type = "text", compute = { function = "join", of = ["nome", "acct"] } }'), ["columns.x.compute", "did you mean 'name'"]),
    ("computed from a computed one", more('x = { type = "text", compute = { function = "join", of = ["name", "acct"] } }\ny = { type = "text", compute = { function = "join", of = ["x", "acct"] } }'), ["columns.y.compute", "no column 'x'"]),
    ("computed from too few", more('x = { type = "text", compute = { function = "join", of = ["name"] } }'), ["columns.x.compute", "1 columns", "2 to 20 for join"]),
    ("computed of another type", more('x = { type = "date", compute = { function = "join", of = ["name", "acct"] } }'), ["columns.x.type", "text for join"]),
    ("computed from another type", more('x = { type = "bigint", compute = { function = "sum", of = ["name", "share"] } }'), ["columns.x.compute", "'name' is a text", "integer or bigint or numeric"]),
    ("first of two types", more('x = { type = "text", compute = { function = "coalesce", of = ["name", "share"] } }'), ["columns.x.compute", "'share' is a numeric", "text"]),
    # Checks over the whole table.
    ("check twice", more('[[check]]\nname = "n"\nkind = "rows"\nmin = 1\n[[check]]\nname = "n"\nkind = "rows"\nmin = 1\n'), ["check[2].name", "'n' twice"]),
    ("check without a figure", more('[[check]]\nname = "n"\nkind = "rows"\n'), ["check[1]", "kind 'rows' with nothing", "max or min"]),
    ("fill without columns", more('[[check]]\nname = "n"\nkind = "fill"\nmin = 0.5\n'), ["check[1]", "for fill: columns"]),
    ("figure that nothing reads", more('[[check]]\nname = "n"\nkind = "unique"\ncolumns = ["name"]\nmin = 1\n'), ["check[1]", "kind 'unique' with columns, min"]),
    ("check of no column", more('[[check]]\nname = "n"\nkind = "unique"\ncolumns = ["nam"]\n'), ["check[1].columns", "did you mean 'name'"]),
    ("share above one", more('[[check]]\nname = "n"\nkind = "fill"\ncolumns = ["name"]\nmax = 2\n'), ["check[1].max", "a share from 0 to 1"]),
    ("figures crossed", more('[[check]]\nname = "n"\nkind = "rows"\nmin = 2\nmax = 1\n'), ["check[1].min", "min is above max"]),
    ("sum of texts", more('[[check]]\nname = "n"\nkind = "sum"\ncolumns = ["name"]\nmin = 2\n'), ["check[1].columns", "one column of numbers"]),
    ("sum of two", more(NUMBERS + '[[check]]\nname = "n"\nkind = "sum"\ncolumns = ["a", "b"]\nmin = 2\n'), ["check[1].columns", "one column of numbers"]),
    ("reference to fewer columns", more('[[check]]\nname = "n"\nkind = "reference"\ncolumns = ["acct", "name"]\ntable = "parcel"\nto = ["acct"]\n'), ["check[1].to", "as many as columns: 2"]),
    ("reference to no table", more('[[check]]\nname = "n"\nkind = "reference"\ncolumns = ["acct"]\ntable = "parcels"\nto = ["acct"]\n'), ["check[1].table", "did you mean 'parcel'"]),
    ("reference to no column", more('[[check]]\nname = "n"\nkind = "reference"\ncolumns = ["acct"]\ntable = "parcel"\nto = ["acc"]\n'), ["check[1].to", "did you mean 'acct'"]),
    ("reference to another type", more('[[check]]\nname = "n"\nkind = "reference"\ncolumns = ["acct"]\ntable = "parcel"\nto = ["area"]\n'), ["check[1].to", "acct is a text, parcel.area a bigint"]),
    ("reference to nothing named", more('[[check]]\nname = "n"\nkind = "reference"\ncolumns = ["acct"]\n'), ["check[1]", "for reference: columns, table, to, min"]),
    # Layouts.
    ("order without all columns", (LAYOUT, f'{LAYOUT}\norder = ["acct", "name", "share", "since"]'), ["layout[1].order", "without alive"]),
    ("order of no column", (LAYOUT, f'{LAYOUT}\norder = ["acct", "nome"]'), ["layout[1].order", "did you mean 'name'"]),
    ("alias of no column", (LAYOUT, f'{LAYOUT}\naliases = {{ nome = ["N"] }}'), ["layout[1].aliases", "did you mean 'name'"]),
    ("alias that is another's name", (LAYOUT, f'{LAYOUT}\naliases = {{ name = ["ACCT "] }}'), ["columns.name", "'ACCT ' is a name of 'acct' too"]),
    ("fingerprint that does not compile", (LAYOUT, f"{LAYOUT}\nfingerprint = {{ acct = '(' }}"), ["layout[1].fingerprint.acct", "does not compile"]),
    ("fingerprint of no column", (LAYOUT, f"{LAYOUT}\nfingerprint = {{ act = 'a' }}"), ["layout[1].fingerprint", "did you mean 'acct'"]),
    ("absent twice", (LAYOUT, f'{LAYOUT}\nabsent = ["name", "name"]'), ["layout[1].absent", "'name' twice"]),
    ("quote that is a letter", (LAYOUT, f'{LAYOUT}\nquote = "a"'), ["layout[1].quote", "'a' stands there"]),
]  # fmt: skip


@pytest.mark.fault(53)
@pytest.mark.parametrize(("edit", "told"), [pytest.param(edit, told, id=name) for name, edit, told in BROKEN])
def test_what_nobody_could_follow_is_refused_with_its_place(write, edit, told):
    message = refusal(write(owner=edit))
    assert "owner.toml" in message
    assert [text for text in told if text not in message] == [], message


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("[gate.floors]", "[gate.quarantined_shares]\nowners = 0.1\n[gate.floors]"), ["gate.quarantined_shares.owners", "did you mean 'owner'"]),
        (("[gate.floors]", "[gate.quarantined_rows]\nowners = 1\n[gate.floors]"), ["gate.quarantined_rows.owners", "did you mean 'owner'"]),
        (("[gate.floors]", "[gate.quarantined_shares]\nowner = 1.1\n[gate.floors]"), ["gate.quarantined_shares.owner", "at most 1"]),
        (("[gate.floors]", "[gate.quarantined_rows]\nowner = -1\n[gate.floors]"), ["gate.quarantined_rows.owner", "at least 0"]),
        (("0.02", "true"), ["gate.max_quarantined_share", "True stands there"]),
        (("[gate.floors]", "max_quarantined_rows = -1\n[gate.floors]"), ["gate.max_quarantined_rows", "at least 0"]),
        (("{year}/roll.zip", "{year"), ["archives.roll.path", "'{year'"]),
        (("[gate.floors]", "[gate.drift]\nmax_keys_lost = 1.5\n[gate.floors]"), ["gate.drift.max_keys_lost", "at most 1"]),
        (("[gate.floors]", "[gate.drift]\nmax_sum_factor = 0.5\n[gate.floors]"), ["gate.drift.max_sum_factor", "at least 1"]),
        (("[gate.floors]", '[gate.drift]\nwarn = ["lost"]\n[gate.floors]'), ["gate.drift.warn", "keys_lost"]),
        (("[gate.floors]", "[gate.table_drift.owners]\nmin_rows = 1\n[gate.floors]"), ["gate.table_drift.owners", "did you mean 'owner'"]),
    ],
)  # fmt: skip
def test_gate_key_that_no_table_could_follow_is_refused_with_its_place(write, edit, told):
    message = refusal(write(source=edit))
    assert [text for text in told if text not in message] == [], message


def test_gate_key_of_a_table_is_looked_for_among_the_profiles_tables(write):
    edit = ("[profile.sample.gate.floors]", "[profile.sample.gate.quarantined_rows]\nparcel = 1\n[profile.sample.gate.floors]")
    assert "quarantined_rows.parcel" in refusal(write(source=edit), profile="sample")


def test_budget_of_a_table_is_its_own_or_that_of_all(write):
    edit = ("[gate.floors]", "max_quarantined_rows = 7\n[gate.quarantined_shares]\nowner = 0.5\n[gate.quarantined_rows]\nparcel = 3\n[gate.floors]")
    gate = load_source(write(source=edit), environ={}).gate
    assert gate.quarantine_budget("owner") == (0.5, 7)
    assert gate.quarantine_budget("parcel") == (0.02, 3)


def test_drift_of_a_table_is_laid_over_that_of_the_source_and_a_profiles_over_production(write):
    gate = "[gate.drift]\nmax_keys_lost = 0.0101\nmin_rows = 7\n[gate.table_drift.owner]\nmax_keys_lost = 1\nwarn = []\n[gate.floors]"
    profile = "[profile.sample.gate.drift]\nmax_null_rise = 0.5\n[profile.sample.gate.floors]"
    folder = write(source=("[gate.floors]", gate))
    file = folder / "source.toml"
    file.write_text(file.read_text().replace("[profile.sample.gate.floors]", profile))
    declared = load_source(folder, environ={}).gate
    assert (declared.drift.max_keys_lost, declared.drift.min_rows, declared.drift.warn) == (Decimal("0.0101"), 7, Drift().warn)
    assert declared.drift_of("owner") == replace(declared.drift, max_keys_lost=Decimal(1), warn=())
    assert declared.drift_of("parcel") == declared.drift
    sample = load_source(folder, profile="sample", environ={"TINY_URL": "http://localhost"}).gate
    assert sample.drift == replace(declared.drift, max_null_rise=Decimal("0.5"))
    assert sample.drift_of("owner") == declared.drift_of("owner")


EVERYTHING = """\
code = { type = "text", regex = '[A-Z]+', minlength = 1, maxlength = 9, empty = false, forbidden = ["X"], check_with = "phone", on_error = "truncate" }
mixed = { type = "text", anyof = [{ allowed = ["A"] }, { regex = '\\d+' }], allof = [{ maxlength = 9 }], noneof = [{ allowed = ["B"] }], oneof = [{ minlength = 1 }] }
year = { type = "integer", allowed = [1, 2], check_with = "year", dependencies = ["code"], nullable = false }
born = { type = "date", formats = ["%Y%m%d"], min = 1900-01-01, anyof = [{ min = 2000-01-01 }, { max = "1950-12-31" }] }
portion = { type = "numeric(5,2)", min = 0.1, allof = [{ max = 0.25 }], on_error = "null" }
flag = { type = "boolean", true = ["Y"], false = ["N"], dependencies = ["year"], excludes = ["mixed"] }
both = { type = "text", compute = { function = "join", of = ["code", "year"] }, maxlength = 20 }
rest = { type = "text", source = "*" }

[[check]]
name = "known"
kind = "reference"
columns = ["acct"]
table = "parcel"
to = ["acct"]
min = 0.98
severity = "warn"
"""


def test_every_rule_of_the_language_is_loaded_and_has_a_kernel(write):
    folder = write(owner=more(EVERYTHING))
    text = (folder / "owner.toml").read_text().replace(LAYOUT, f'{LAYOUT}\nunknown_columns = "keep"')
    (folder / "owner.toml").write_text(text)
    table = load_source(folder, environ={}).table("owner")
    assert table.column("born").rules == {"min": "1900-01-01", "anyof": ({"min": "2000-01-01"}, {"max": "1950-12-31"})}
    assert table.column("portion").rules["allof"] == ({"max": Decimal("0.25")},)
    assert table.column("both").compute == Computed("join", ("code", "year"))
    assert table.column("rest").is_rest and not table.column("rest").is_read
    assert table.checks == (Check("known", "reference", ("acct",), Decimal("0.98"), None, "parcel", ("acct",), "warn"),)
    assert compile_rules(table.columns).slow == ()
