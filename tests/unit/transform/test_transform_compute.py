"""Computed columns: exact, NULL only where nothing is there, and refused where the column cannot hold them."""

import datetime
import doctest
from decimal import Context, Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, numeric

from pipeline.catalog.meta_schema import FUNCTIONS
from pipeline.catalog.model import Column, Computed
from pipeline.errors import CatalogError
from pipeline.transform import compute
from pipeline.transform.coerce import arrow_type
from pipeline.transform.compute import compute_column


def computed(function, column_type, *columns):
    """A column computed from (type, values) pairs: its values, and reason -> rows refused."""
    names = tuple(f"c{number}" for number in range(len(columns)))
    of = Column("made", column_type, "made", compute=Computed(function, names))
    rows = {name: pa.array(values, arrow_type(kind)) for name, (kind, values) in zip(names, columns, strict=True)}
    coerced = compute_column(of, rows)
    coerced.values.validate(full=True)
    assert coerced.values.type == arrow_type(column_type)
    refused = {reason: mask.nonzero()[0].tolist() for reason, mask in coerced.refusals.items()}
    assert all(coerced.values[row].as_py() is None for rows in refused.values() for row in rows)
    return coerced.values.to_pylist(), refused


def test_examples_of_every_function_are_true():
    outcome = doctest.testmod(compute, extraglobs={"Decimal": Decimal, "Computed": Computed})
    assert outcome.failed == 0
    assert outcome.attempted > len(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_of_the_schema_language_exists_and_gives_null_for_nothing(function):
    made, sources = (TEXT, TEXT) if function in ("join", "situs_address") else (numeric(9, 2), numeric(4, 1))
    assert computed(function, made, (sources, [None]), (sources, [None])) == ([None], {})
    assert computed(function, made, (sources, []), (sources, [])) == ([], {})


def test_function_that_does_not_exist_is_refused():
    for column in (Column("x", TEXT, "x", compute=Computed("eval", ("a",))), Column("x", TEXT, "x")):
        with pytest.raises(CatalogError):
            compute_column(column, {"a": pa.array(["1"])})


@pytest.mark.parametrize(
    ("number", "street", "suffix", "address"),
    [
        ("901", "COMMERCE", "ST", "901 COMMERCE ST"),
        ("0", "COMMERCE", "ST", "COMMERCE ST"),
        ("00000", "COMMERCE", "ST", "COMMERCE ST"),
        (None, "COMMERCE", None, "COMMERCE"),
        ("10", None, None, "10"),
        ("0", None, None, None),
        ("0A", "MAIN", "ST", "0A MAIN ST"),
        ("12", "0", None, "12 0"),
        (None, None, None, None),
    ],
)
def test_situs_address_leaves_out_a_street_number_of_zero_alone(number, street, suffix, address):
    assert computed("situs_address", TEXT, (TEXT, [number]), (TEXT, [street]), (TEXT, [suffix])) == ([address], {})


def test_situs_address_takes_a_number_typed_as_one():
    assert computed("situs_address", TEXT, (INTEGER, [901, 0, None]), (TEXT, ["MAIN", "MAIN", "MAIN"])) == (
        ["901 MAIN", "MAIN", "MAIN"], {},
    )  # fmt: skip


def test_join_keeps_a_zero_and_takes_whole_numbers():
    assert computed("join", TEXT, (TEXT, ["LOT", None]), (BIGINT, [0, -5])) == (["LOT 0", "-5"], {})


@pytest.mark.fault(48)
def test_bathrooms_of_zero_stay_zero_and_none_stay_none():
    full, half = (INTEGER, [2, 0, None, None, 1]), (INTEGER, [1, 0, 3, None, None])
    assert computed("bathrooms", numeric(4, 2), full, half) == (
        [Decimal("2.50"), Decimal("0.00"), Decimal("1.50"), None, Decimal("1.00")], {},
    )  # fmt: skip


def test_bathrooms_that_the_column_cannot_hold_are_refused():
    assert computed("bathrooms", numeric(3, 0), (INTEGER, [2, 2, 1000]), (INTEGER, [1, 2, 0])) == (
        [None, Decimal(3), None], {"too_many_decimals": [0], "out_of_range": [2]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("of", "columns", "value", "reason"),
    [
        (BIGINT, [(BIGINT, 2**63 - 1), (BIGINT, 1)], None, "out_of_range"),
        (BIGINT, [(BIGINT, 2**63 - 1), (BIGINT, 1), (INTEGER, -1)], 2**63 - 1, None),
        (BIGINT, [(BIGINT, -(2**63)), (INTEGER, -1)], None, "out_of_range"),
        (BIGINT, [(BIGINT, -(2**63)), (INTEGER, 0)], -(2**63), None),
        (INTEGER, [(INTEGER, 2**31 - 1), (INTEGER, 1)], None, "out_of_range"),
        (INTEGER, [(numeric(9, 2), Decimal("0.50")), (numeric(9, 2), Decimal("0.50"))], 1, None),
        (INTEGER, [(numeric(9, 2), Decimal("0.50")), (INTEGER, 1)], None, "not_an_integer"),
        (numeric(5, 2), [(INTEGER, 999), (numeric(4, 2), Decimal("0.99"))], Decimal("999.99"), None),
        (numeric(5, 2), [(INTEGER, 999), (numeric(4, 2), Decimal("1.00"))], None, "out_of_range"),
        (numeric(9, 2), [(numeric(9, 4), Decimal("0.0001")), (INTEGER, 1)], None, "too_many_decimals"),
        (numeric(9, 1), [(numeric(38, 38), Decimal("0.2")), (numeric(38, 38), Decimal("0.3"))], Decimal("0.5"), None),
        (numeric(38, 0), [(numeric(38, 0), 10**38 - 1), (INTEGER, 1)], None, "out_of_range"),
        (numeric(38, 0), [(numeric(38, 0), 10**38 - 2), (INTEGER, 1)], Decimal(10**38 - 1), None),
        (numeric(38, 30), [(INTEGER, 1), (INTEGER, -3)], Decimal(-2), None),
    ],
)
def test_sum_is_exact_or_refused(of, columns, value, reason):
    assert computed("sum", of, *((kind, [number]) for kind, number in columns)) == ([value], {reason: [0]} if reason else {})


@pytest.mark.parametrize(
    ("of", "columns", "value"),
    [
        (DATE, [(DATE, None), (DATE, datetime.date(2025, 1, 2))], datetime.date(2025, 1, 2)),
        (BOOLEAN, [(BOOLEAN, False), (BOOLEAN, True)], False),
        (BIGINT, [(BIGINT, None), (BIGINT, 0)], 0),
        (numeric(9, 4), [(numeric(5, 2), None), (numeric(9, 4), Decimal("0.0001"))], Decimal("0.0001")),
        (numeric(9, 4), [(numeric(5, 2), Decimal("1.5")), (numeric(9, 4), Decimal("0.0001"))], Decimal("1.5")),
    ],
)
def test_coalesce_takes_the_first_value_and_zero_is_one(of, columns, value):
    assert computed("coalesce", of, *((kind, [given]) for kind, given in columns)) == ([value], {})


def test_coalesced_number_that_does_not_fit_is_refused():
    assert computed("coalesce", numeric(4, 2), (numeric(9, 4), [Decimal("1.2345")]), (numeric(9, 4), [None])) == (
        [None], {"too_many_decimals": [0]},
    )  # fmt: skip


NUMBERS = st.sampled_from([INTEGER, BIGINT, numeric(5, 2), numeric(18, 6), numeric(38, 10), numeric(20, 20)])


def values_of(kind):
    if kind.kind == "numeric":
        limit = 10**kind.precision - 1
        return st.none() | st.integers(-limit, limit).map(lambda units: Decimal(units).scaleb(-kind.scale, Context(prec=99)))
    bits = 31 if kind.kind == "integer" else 63
    return st.none() | st.integers(-(2**bits), 2**bits - 1) | st.integers(-3, 3)


@settings(max_examples=200, deadline=None)
@given(function=st.sampled_from(["sum", "bathrooms"]), of=NUMBERS, kinds=st.tuples(NUMBERS, NUMBERS), data=st.data())
def test_sums_are_those_of_exact_arithmetic(function, of, kinds, data):
    rows = data.draw(st.lists(st.tuples(*(values_of(kind) for kind in kinds)), min_size=1, max_size=5))
    made, refused = computed(function, of, *((kind, [row[place] for row in rows]) for place, kind in enumerate(kinds)))
    weight = Fraction(1) if function == "sum" else Fraction(1, 2)
    for place, (one, other) in enumerate(rows):
        exact = Fraction(one or 0) + weight * Fraction(other or 0)
        reasons = [reason for reason, places in refused.items() if place in places]
        if one is None and other is None:
            assert made[place] is None
            assert reasons == []
        elif reasons:
            scale = of.scale or 0
            limit = Fraction(10**of.precision, 10**scale) if of.kind == "numeric" else Fraction(2 ** (31 if of.kind == "integer" else 63))
            is_whole = (exact * 10**scale).denominator == 1
            assert reasons == (["out_of_range"] if is_whole else ["not_an_integer" if of.kind != "numeric" else "too_many_decimals"])
            assert not is_whole or not -limit < exact < limit
        else:
            assert Fraction(made[place]) == exact
