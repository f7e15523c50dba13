"""Row hashes: equal exactly when the rows are, whatever the order, the chunks and the way of writing."""

from decimal import Decimal

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import BOOLEAN, DATE, INTEGER, TEXT, numeric

from pipeline.catalog.model import Column
from pipeline.transform import row_hashes
from pipeline.transform.coerce import arrow_type
from pipeline.transform.row_hash import canonical_texts

COLUMNS = (
    Column("b", TEXT, "b"),
    Column("a", TEXT, "a"),
    Column("n", numeric(20, 10), "n"),
    Column("i", INTEGER, "i"),
    Column("d", DATE, "d"),
    Column("t", BOOLEAN, "t"),
)
TEXTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": TEXTS | st.sampled_from(["", "-", "="]),
            "b": TEXTS,
            "n": st.none() | st.decimals(-999, 999, places=10),
            "i": st.none() | st.integers(-3, 3),
            "d": st.none() | st.dates(),
            "t": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)


def hashes(rows, columns=COLUMNS):
    arrays = {column.name: pa.array([row[column.name] for row in rows], arrow_type(column.type)) for column in columns}
    return row_hashes(pa.table(arrays), columns).to_pylist()


@settings(max_examples=200, deadline=None)
@given(rows=ROWS)
def test_rows_have_one_hash_exactly_when_they_are_equal(rows):
    values = hashes(rows)
    assert all(len(value) == 32 for value in values)
    for one, its in zip(rows, values, strict=True):
        for other, others in zip(rows, values, strict=True):
            assert (its == others) == (one == other)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_order_of_columns_and_chunks_do_not_matter(rows):
    assert hashes(rows) == hashes(rows, COLUMNS[::-1]) == [value for row in rows for value in hashes([row])]


def test_scale_of_a_number_does_not_matter():
    def of(text, precision, scale):
        column = (Column("n", numeric(precision, scale), "n"),)
        return hashes([{"n": Decimal(text)}], column)

    assert of("1.0", 9, 1) == of("1.00", 9, 2) == of("1", 9, 0) == of("1.0000000000", 20, 10)
    assert of("-0.00", 9, 2) == of("0", 9, 0) == of("0.0000000000", 20, 10)
    assert of("100", 9, 0) != of("1", 9, 0)


@settings(max_examples=200, deadline=None)
@given(digits=st.integers(-(10**18) + 1, 10**18 - 1), scale=st.integers(0, 18), more=st.integers(0, 10))
def test_number_has_one_text_without_exponent_whatever_its_type(digits, scale, more):
    value = Decimal(digits).scaleb(-scale)
    shortest = f"{value:f}"
    shortest = shortest.rstrip("0").rstrip(".") if scale else shortest
    texts = {
        canonical_texts(pa.array([value, None], pa.decimal128(38, wider))).to_pylist()[0] for wider in (scale, scale + more)
    }
    assert texts == {"0" if not digits else shortest}


def test_whole_number_and_decimal_of_the_same_value_hash_alike():
    number, wide = (Column("n", INTEGER, "n"),), (Column("n", numeric(9, 2), "n"),)
    rows = [{"n": value} for value in (-1, 0, 7, 100, None)]
    assert hashes(rows, number) == hashes([{"n": None if row["n"] is None else Decimal(row["n"])} for row in rows], wide)


def test_texts_at_hand_give_the_hash_that_the_values_give():
    rows = pa.table({"n": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)), "a": ["x", "y"]})
    columns = (Column("n", numeric(9, 2), "n"), Column("a", TEXT, "a"))
    assert row_hashes(rows, columns, {"n": pa.array(["1.5", None])}).equals(row_hashes(rows, columns))


def test_table_without_rows_or_columns_has_a_hash_a_row():
    assert len(row_hashes(pa.table({"a": pa.array([], pa.string())}), (Column("a", TEXT, "a"),))) == 0
    assert len(set(row_hashes(pa.table({"a": ["x", "y"]}), ()).to_pylist())) == 1


def test_null_is_not_the_empty_text_nor_its_own_mark():
    column = (Column("a", TEXT, "a"),)
    assert len(set(hashes([{"a": None}, {"a": ""}, {"a": "-"}, {"a": "="}], column))) == 4


def test_canonical_form_is_the_documented_one():
    import datetime
    import hashlib

    row = {"a": "x", "b": None, "n": Decimal("0.0000001000"), "i": -7, "d": datetime.date(1899, 12, 30), "t": True}
    written = b"row2\0x\0\xff\x001899-12-30\0-7\x000.0000001\0t"
    assert hashes([row]) == [hashlib.blake2b(written, digest_size=16).hexdigest()]
