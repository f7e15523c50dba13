"""The examples of a schema file run against what the file declares: whatever its layouts, and its columns that are not read."""

from dataclasses import replace

import pytest

from pipeline.catalog.model import Column, ColumnType, Computed, Example, Layout, Source, Table
from pipeline.examples import run_examples

TEXT, INTEGER = ColumnType("text"), ColumnType("integer")
NUMBER = Column("no", INTEGER, "STR_NUM", start=1, end=4)
STREET = Column("street", TEXT, "STR_NAME", start=5, end=10)
SITUS = Column("situs", TEXT, "situs", compute=Computed("situs_address", ("no", "street")))
REST = Column("rest", TEXT, "*")
ROLL = Table(
    source="test", name="roll", archive="a", member="roll.txt", member_aliases=(), required=True, years=None, key=(), parent=("no",),
    on_conflict="quarantine", layouts=(Layout("delimited"),), columns=(SITUS, NUMBER, STREET),
)  # fmt: skip


def differences(table, *examples):
    source = Source.__new__(Source)
    object.__setattr__(source, "tables", (replace(table, examples=examples),))
    return [verdict.differences for verdict in run_examples({"test": source})]


@pytest.mark.parametrize("header", ["first", "last", "none", "detect"])
def test_columns_that_are_computed_or_keep_the_rest_stand_in_no_header(header):
    layout = Layout("delimited", header=header, unknown_columns="keep" if header != "none" else "refuse")
    of = replace(ROLL, layouts=(layout,), columns=(SITUS, REST, NUMBER, STREET))
    assert differences(of, Example(2025, "12\tELM ST", {"situs": "12 ELM ST", "rest": None}, None)) == [()]


@pytest.mark.parametrize(("includes", "width"), [(False, 10), (True, 12)])
def test_record_of_a_layout_that_counts_the_line_end_finds_its_layout(includes, width):
    old = Layout("fixed_width", record_width=20, versions=("7",), includes_line_end=includes)
    new = Layout("fixed_width", record_width=width, versions=("8",), includes_line_end=includes)
    assert differences(replace(ROLL, layouts=(old, new)), Example(2025, "  12ELM ST", {"situs": "12 ELM ST"}, None)) == [()]


def test_record_of_another_tax_year_is_refused_as_it_is_in_a_run():
    of = replace(ROLL, year_column="no")
    good, bad = Example(2025, "2025\tA", {"street": "A"}, None), Example(2025, "2024\tA", None, "no")
    assert differences(of, good, bad) == [(), ()]


def test_example_that_does_not_come_true_says_what_came():
    said = differences(
        ROLL, Example(2025, "1\tA", {"street": "B"}, None), Example(2025, "x\tA", {"no": "1"}, None), Example(2025, "1\tA", None, "no"),
        Example(2025, "1\tA\tB", {"no": "1"}, None),
    )  # fmt: skip
    assert [text for (text,) in said[:3]] == [
        "street is 'A', and the example says 'B'", 'refused: {"no": ["is not a plain decimal number"]}',
        "refused for nothing, and the example says no",
    ]  # fmt: skip
    assert "2 columns of test.roll" in said[3][0]
