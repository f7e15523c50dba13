"""What an import changed is shown without naming persons, and as a file that a spreadsheet may open."""

import csv
import dataclasses
import io
from types import SimpleNamespace

from pipeline.database.ledger import STAGING_REVISION, Import, ImportKey
from pipeline.diff import overview_lines, value_lines, without_persons, write_csv
from pipeline.load.changes import ImportChanges, TableChanges, ValueChange

NAME = ValueChange("owner", "updated", {"acct": "12A"}, "name", "Ann \u00c9 1", None)
VALUE = ValueChange("owner", "updated", {"acct": "12A"}, "value", "-10.00", "+SUM(A1)")
KEY = ImportKey("county", 2025, "r", "p")


def declared(*personal):
    columns = [SimpleNamespace(name=name, personal=name in personal) for name in ("acct", "name", "value")]
    return SimpleNamespace(tables=[SimpleNamespace(name="owner", columns=columns)])


def changes(*tables):
    return ImportChanges(Import(2, KEY, "published", 1, None, None, STAGING_REVISION), tables)


def test_columns_that_name_persons_are_masked_letter_for_letter():
    name, value = without_persons([NAME, VALUE], declared("name"))
    assert (name.key, name.old, name.new) == ({"acct": "12A"}, "xxx x 9", None)
    assert (value.old, value.new) == ("-10.00", "+SUM(A1)")
    assert next(without_persons([VALUE], declared("acct"))).key == {"acct": "99x"}


def test_what_the_catalog_does_not_know_is_masked():
    assert next(without_persons([VALUE], None)).old == "-99.99"
    other = dataclasses.replace(VALUE, table="another", key={"acct": "1", "seq": 2})
    shown = next(without_persons([other], declared()))
    assert (shown.old, shown.key) == ("-99.99", {"acct": "9", "seq": 2})


def test_file_states_no_formula_and_leaves_numbers_as_they_are():
    out = io.StringIO()
    assert write_csv([NAME, VALUE], changes(), out) == 2
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["new"] for row in rows] == ["", "'+SUM(A1)"]
    assert (rows[1]["old"], rows[1]["key"], rows[1]["import_id"]) == ("-10.00", "acct=12A", "2")


def test_nothing_is_told_from_an_empty_text():
    line = next(value_lines([ValueChange("owner", "updated", {"acct": "1"}, "name", None, "")]))
    assert line == "owner acct=1 updated: name nothing -> ''"


def test_overview_says_why_a_table_has_no_row_history():
    lines = overview_lines(
        changes(TableChanges("owner", "staged", 5, 0, 0, {}, True), TableChanges("feature", "carried_over", 0, 0, 0, {}, False))
    )
    assert lines[0] == "import 2: county 2025, release r, recipe p, published, compared with import 1"
    assert lines[2].endswith("all rows are new: no row history") and lines[3].endswith("carried over")
