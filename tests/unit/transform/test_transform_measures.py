"""What a part's report says of its rows, for the gate: exact, the same however the rows come, and nothing of persons."""

from decimal import Decimal

import pyarrow as pa
import pytest
from member_maker import BIGINT, BOOLEAN, TEXT, numeric, table

from pipeline.catalog.model import Column
from pipeline.transform.coerce import arrow_type
from pipeline.transform.measures import LONGEST_VALUE, MOST_VALUES, Measures, figures

OF = table(
    Column("acct", TEXT, "acct", required=True), Column("owner", TEXT, "owner", personal=True), Column("cls", TEXT, "cls"),
    Column("capped", BOOLEAN, "capped"), Column("val", BIGINT, "val"), Column("share", numeric(9, 4), "share"),
    Column("age", BIGINT, "age", personal=True), key=("acct",),
)  # fmt: skip


def measured(rows, at_once=1000):
    of = Measures(OF)
    for start in range(0, len(rows), at_once):
        columns = zip(*rows[start : start + at_once], strict=True)
        of.add(pa.table({c.name: pa.array(values, arrow_type(c.type)) for c, values in zip(OF.columns, columns, strict=True)}))
    return of


def row(number, *, cls="A", capped=True, val=1, share=None):
    return str(number), f"OWNER {number}", cls, capped, val, share, 44


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_figures_are_exact_and_the_same_however_the_rows_come(at_once):
    rows = [row(1, val=0), row(2, cls=None, capped=None, share=Decimal("0.1")), row(3, cls="B", capped=False, val=None, share=Decimal("-0.3"))]
    assert figures(measured(rows, at_once)) == {
        "zeros": {"val": 1},
        "sums": {"share": "-0.2000", "val": 1},
        "values": {"capped": {"false": 1, "true": 1}, "cls": {"A": 1, "B": 1}},
    }


def test_sum_beyond_64_bits_is_exact():
    assert measured([row(n, val=2**63 - 1) for n in range(3)]).sums["val"] == 3 * (2**63 - 1)


@pytest.mark.parametrize("at_once", [7, 1000])
def test_column_of_many_or_long_values_holds_no_codes(at_once):
    most = [row(n, cls=f"C{n}") for n in range(MOST_VALUES)]
    assert len(measured(most, at_once).values["cls"]) == MOST_VALUES
    assert "cls" not in measured([*most, row(99, cls="ONE MORE")], at_once).values
    assert "cls" not in measured([row(1, cls="x" * (LONGEST_VALUE + 1)), row(2)], at_once).values


def test_nothing_of_persons_and_no_key_is_in_the_figures():
    text = str(figures(measured([row(7)])))
    assert not any(word in text for word in ("OWNER", "owner", "age", "44", "acct", "7"))
