"""A member of another tax year is refused whole; a single row of another year goes into quarantine, told by its year."""

from dataclasses import replace

import pytest
from member_maker import INTEGER, TEXT, acct, measure, table

from pipeline.catalog.model import Column
from pipeline.errors import VintageError
from pipeline.transform import DataTransformer, choose_layout, read_header

DATED = replace(
    table(Column("acct", TEXT, "acct", required=True), Column("yr", INTEGER, "yr", on_error="null"), key=("acct",)), year_column="yr"
)


def roll(*years):
    return b"acct\tyr\r\n" + b"".join(b"%s\t%s\r\n" % (acct(number), str(year).encode()) for number, year in enumerate(years))


@pytest.mark.fault(35)
def test_single_row_of_another_year_is_quarantined_and_its_neighbours_are_not(transformed):
    outcome = transformed(roll(2025, 2025, 2024, 2025), DATED, tax_year=2025)
    assert outcome.column("acct") == [acct(number).decode() for number in (0, 1, 3)]
    (refused,) = outcome.quarantine
    assert refused["line"] == 4 and refused["reasons"] == {"yr": ["is not 2025"]}
    assert outcome.report.refused == {"yr:other_year": 1} and outcome.report.is_balanced


def check(folder, content, of=DATED, rows=1000):
    path = folder / "roll.txt"
    path.write_bytes(content)
    member = measure(path)
    reading = read_header(of, choose_layout(of, member, year=2025, version=None), member)
    DataTransformer(of, chunk_rows=rows, tax_year=2025).check_first_rows(path, member, reading)


@pytest.mark.fault(35)
@pytest.mark.parametrize("years", [(2024, 2024, 2024), (2024, 2024, 2025), (2024, "", ""), (2023, 2024, 2025)])
def test_member_that_begins_with_another_year_is_refused(tmp_path, years):
    with pytest.raises(VintageError, match=r"of roll\.txt that state a tax year state .*2024.*tax year 2025"):
        check(tmp_path, roll(*years))


@pytest.mark.parametrize("years", [(2024, 2025), ("", ""), ("Pending", ""), (2025, 2025)])
def test_half_of_another_year_or_no_year_at_all_is_not_another_years_roll(tmp_path, years):
    check(tmp_path, roll(*years))


def test_table_without_a_year_column_is_asked_nothing(tmp_path):
    check(tmp_path, roll(2024, 2024), replace(DATED, year_column=None))


@pytest.mark.fault(35)
def test_year_that_changes_behind_the_first_rows_is_left_to_the_quarantine_and_the_gate(tmp_path, transformed):
    content = roll(*[2025] * 10, *[2024] * 40)
    check(tmp_path, content, rows=10)
    assert len(transformed(content, DATED, tax_year=2025, chunk_rows=10).quarantine) == 40
