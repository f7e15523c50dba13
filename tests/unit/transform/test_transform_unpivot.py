"""Wide members of old years become the long member of today, and no line of them is lost."""

from pathlib import Path

import pytest
from member_maker import BIGINT, TEXT, Outcome, measure, numeric, table, transform_file

from pipeline.catalog.model import Column, Layout, Unpivot
from pipeline.errors import HeaderError, MemberError
from pipeline.transform import unpivot
from pipeline.transform.unpivot import unpivoted

RATES = table(
    Column("rp_type", TEXT, "RP_TYPE", required=True),
    Column("dist", TEXT, "tax_dist", required=True, aliases=("district",)),
    Column("name", TEXT, "name", controls="blank"),
    Column("code", TEXT, "exempt_cd", required=True, rules={"regex": "^[A-Z0-9]{3}$"}),
    Column("curr", numeric(9, 6), "curr"),
    Column("val", BIGINT, "exempt_val", nulls=("Pending",), on_error="null"),
    Column("rate", numeric(9, 6), "exempt_rate"),
    key=("rp_type", "dist", "code"),
    layouts=(Layout("delimited", years=(2019, 2099)),),
)
WIDE = Unpivot((2019, 2024), {"val": "values.txt", "rate": "rates.txt"}, "code", ("ABT", "RES", "TOT"))
LONG = Layout("delimited", years=(2019, 2099))
HEADER = "RP_TYPE\ttax_dist\tname\tcurr\tABT\tRES\tTOT"


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\r\n" for text in texts).encode("cp1252")


def made(folder: Path, values: bytes, rates: bytes, of=RATES, wide=WIDE) -> Path:
    members = {}
    for value, content in (("val", values), ("rate", rates)):
        path = folder / wide.members[value]
        path.write_bytes(content)
        members[value] = (measure(path), path)
    long = folder / "roll.txt"
    of = of.__class__(**{**of.__dict__, "unpivot": wide})
    long.write_bytes(b"".join(unpivoted(of, members, year=2024)))
    return long


def read(folder: Path, values: bytes, rates: bytes) -> Outcome:
    return transform_file(made(folder, values, rates), folder / "out", RATES, year=2024)


def rows(outcome: Outcome) -> list[tuple]:
    return [tuple(None if value is None else str(value) for name, value in row.items() if name not in ("row_hash",)) for row in outcome.rows.to_pylist()]


def test_each_cell_with_a_value_is_a_row_and_values_and_rates_of_a_district_meet(tmp_path):
    values = lines(HEADER, "R\t040\tHARRIS\t0.4\t\t100000\t0", "R\t061\tCITY\t0.5\t\t \t")
    rates = lines(HEADER, "R\t061\tCITY\t0.5\t\t\t", "R\t040\tHARRIS\t0.4\t\t0.200000\t")
    outcome = read(tmp_path, values, rates)
    assert rows(outcome) == [
        ("R", "040", "HARRIS", "RES", "0.400000", "100000", "0.200000", "3"),
        ("R", "040", "HARRIS", "TOT", "0.400000", "0", None, "4"),
    ]
    report = outcome.report
    # Two members of two lines with three cells each; ten of them make no row of their own.
    assert (report.read, report.written, report.filtered) == (12, 2, {"blank_line": 10})


def test_a_rows_line_tells_the_line_of_the_wide_members_that_it_is_of(tmp_path):
    values = lines(HEADER, *(f"R\t{district:03}\tX\t1\t\t{district}\t" for district in range(1, 6)))
    outcome = read(tmp_path, values, lines(HEADER, "R\t009\tY\t1\t\t\t7"))
    # The header, five lines of three cells of the first member, and then the second member's.
    where = {dist: (line - 2) // 3 for dist, line in zip(outcome.column("dist"), outcome.column("line"), strict=True)}
    assert where == {"001": 0, "002": 1, "003": 2, "004": 3, "005": 4, "009": 5}


def test_lines_that_contradict_each_other_are_both_there_and_nobody_chooses(tmp_path):
    outcome = read(tmp_path, lines(HEADER, "R\t040\tHARRIS\t0.4\t\t5\t"), lines(HEADER, "R\t040\tHARRIS\t0.5\t\t0.2\t"))
    assert [row[3:7] for row in rows(outcome)] == [("RES", "0.400000", "5", None), ("RES", "0.500000", None, "0.200000")]


def test_the_second_line_of_a_district_goes_with_its_second_line(tmp_path):
    values = lines(HEADER, "R\t040\tH\t1\t\t5\t", "R\t040\tH\t1\t\t6\t")
    outcome = read(tmp_path, values, lines(HEADER, "R\t040\tH\t1\t\t0.5\t", "R\t040\tH\t1\t\t0.6\t"))
    assert [row[5:7] for row in rows(outcome)] == [("5", "0.500000"), ("6", "0.600000")]


@pytest.mark.parametrize("short", ["R\t040\tHARRIS", "R\t040\tHARRIS\t0.4\t\t\t\t", "R\t040\tHARRIS\t0.4\tA\tB\tC\tD\tE"])
def test_a_line_that_is_no_record_is_quarantined(tmp_path, short):
    # The second one has as many fields as a line of the long form.
    outcome = read(tmp_path, lines(HEADER, short, "R\t061\tCITY\t0.5\t1\t2\t3"), lines(HEADER, "R\t061\tCITY\t0.5\t\t\t"))
    assert [line["rules"] for line in outcome.quarantine] == [["*:field_count"]]
    assert outcome.quarantine[0]["raw"].startswith(short)
    assert outcome.report.written == 3


def test_bytes_beyond_ascii_and_a_nul_come_through_as_they_are_read_anywhere(tmp_path):
    outcome = read(tmp_path, lines(HEADER, "R\t040\tCA\xd1ON\0CITY \t0.4\t\tPending\t5"), lines(HEADER, "R\t1\tX\t1\t\t\t"))
    assert rows(outcome)[0][2:6] == ("CA\xd1ON CITY", "RES", "0.400000", None)
    assert outcome.report.nulled == {"val:declared": 1}


def test_without_a_header_the_declared_categories_stand_in_file_order(tmp_path):
    outcome = read(tmp_path, lines("R\t040\tHARRIS\t0.4\t\t5\t6"), lines("R\t040\tHARRIS\t0.4\t0.1\t\t"))
    assert [row[3] for row in rows(outcome)] == ["ABT", "RES", "TOT"]


def test_a_header_in_another_order_with_another_code_is_followed(tmp_path):
    values = lines("new\tcurr\tDISTRICT\tRP_TYPE\tVTX\tname", "1\t0.4\t040\tR\t7\tHARRIS")
    outcome = read(tmp_path, values, lines(HEADER, "R\t040\tHARRIS\t0.4\t\t\t"))
    # What is no code is no exemption: the rules of the column judge the category, as they do in the long form.
    assert [row[3:6] for row in rows(outcome)] == [("VTX", "0.400000", "7")]
    assert [line["rules"] for line in outcome.quarantine] == [["code:regex"]]


def test_a_header_without_a_column_of_the_table_is_refused(tmp_path):
    with pytest.raises(HeaderError, match="missing: curr"):
        made(tmp_path, lines(HEADER.replace("curr", "rate_now"), "R\t1\tX\t1\t\t\t5"), lines(HEADER, "R\t1\tX\t1\t\t\t"))


def test_members_that_are_too_long_to_be_held_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpivot, "MOST_BYTES", 50)
    with pytest.raises(MemberError, match=r"values\.txt and rates\.txt have"):
        made(tmp_path, lines(HEADER, "R\t1\tX\t1\t\t\t5"), lines(HEADER))
