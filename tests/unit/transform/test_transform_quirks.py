"""The oddities of real HCAD files, all in one member: each comes out as declared, with its neighbours unharmed.

``hcad_quirks.txt`` has them line by line: a column under the name that it had in the 2010s and an account padded with blanks (2);
quotes that do not pair, at the begin and the end of a field (3, 4), `Pending` for a number, a blank and nothing for no text, both
ways to write HCAD's "no date" (3, 4); Windows-1252, the word NA, a rate with six decimals, a date of the files before 2020 (5); a NUL
in a district's name (6); a field too many, a field too few (7, 8); a byte that Windows-1252 does not know (9); two rows that are
equal and both real (10, 11); an account that lost its zeros (12); codes that look like numbers (2 to 5); a blank line; two kinds of
line ends.
"""

import datetime
from dataclasses import replace
from decimal import Decimal

import pytest
from member_maker import DATE, ROWS, TEXT, acct, numeric, table

from pipeline.catalog.model import Column

QUIRKS = table(
    Column("acct", TEXT, "acct", required=True, rules={"regex": r"^\d{13}$"}),
    Column("impr_tp", TEXT, "impr_tp", aliases=("imprv_type",)),
    Column("name", TEXT, "name", personal=True),
    Column("lgl", TEXT, "lgl"),
    Column("exempt_val", numeric(14, 6), "exempt_val", nulls=("Pending",)),
    Column("dt", DATE, "dt", formats=("%m/%d/%Y", "%Y-%m-%d %H:%M:%S.%f"), nulls=("12/30/1899", "12-30-1899")),
    Column("cd", TEXT, "cd"),
)
MEMBER = ROWS / "hcad_quirks.txt"


@pytest.mark.fault(38)
@pytest.mark.fault(39)
@pytest.mark.fault(40)
@pytest.mark.fault(41)
@pytest.mark.fault(42)
@pytest.mark.fault(44)
@pytest.mark.fault(45)
@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_each_quirk_comes_out_as_declared_and_harms_no_neighbour(transformed, chunk_rows):
    outcome = transformed(MEMBER, QUIRKS, chunk_rows=chunk_rows)
    rows = outcome.rows.drop_columns(["row_hash"]).to_pylist()
    assert [row["line"] for row in rows] == [2, 3, 4, 5, 10, 11]
    assert [row["acct"][-2:] for row in rows] == ["13", "14", "15", "16", "21", "21"]
    assert {len(row["acct"]) for row in rows} == {13} and {row["impr_tp"] for row in rows} == {"1001"}
    assert [row["name"] for row in rows[:4]] == ["CURRENT OWNER", '"UNBALANCED', 'ENDS WITH A QUOTE "', "PEÑA & “SONS”"]
    assert [row["lgl"] for row in rows[:4]] == ['TR 12 6" PIPE', None, None, "NA"]
    assert [row["exempt_val"] for row in rows[:4]] == [376607, None, None, Decimal("0.8783")]
    assert [row["dt"] for row in rows[:4]] == [datetime.date(2025, 4, 21), None, None, datetime.date(2012, 9, 11)]
    assert [row["cd"] for row in rows[:4]] == ["8400.50", "5900.05", "0001", "01"]
    assert [(row["line"], row["rules"]) for row in outcome.quarantine] == [
        (6, ["name:control_character"]), (7, ["*:field_count"]), (8, ["*:field_count"]), (9, ["*:encoding"]), (12, ["acct:regex"]),
    ]  # fmt: skip
    assert outcome.report.nulled == {"exempt_val:declared": 1, "dt:declared": 2}
    assert outcome.report.filtered == {"blank_line": 1}
    assert (outcome.report.read, outcome.report.written, outcome.report.duplicate) == (12, 6, 0)


@pytest.mark.fault(42)
def test_nul_in_a_name_is_blanked_and_counted_where_the_column_says_so(transformed):
    columns = tuple(replace(column, controls="blank") if column.name == "name" else column for column in QUIRKS.columns)
    outcome = transformed(MEMBER, replace(QUIRKS, columns=columns))
    assert outcome.column("name")[4] == "DISTRICT   NO 1"
    assert outcome.report.changed == {"name:control_character": 1}
    assert outcome.report.examples["name:control_character"] == [{"line": 6}]


@pytest.mark.fault(40)
def test_field_beyond_128_kilobytes_is_a_field(transformed):
    content = acct(1) + b"\t1\tA\t" + b"x" * 200_000 + b"\t1\t\t\n" + acct(2) + b"\t1\tB\ty\t2\t\t\n"
    outcome = transformed(content, QUIRKS)
    assert [len(text) for text in outcome.column("lgl")] == [200_000, 1]
