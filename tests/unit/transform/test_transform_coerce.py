"""Typing: exact, total and named; the column-wise path and the record path are one meaning."""

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, acct, numeric, table

from pipeline.catalog.model import Column
from pipeline.errors import CatalogError
from pipeline.transform import DataTransformer
from pipeline.transform.coerce import Refusal, arrow_type, coerce_column, coerce_text


def column(column_type, **options):
    return Column("c", column_type, "c", **options)


MDY = column(DATE, formats=("%m/%d/%Y",), nulls=("12/30/1899", "00/00/0000"))
ACRES = column(numeric(14, 4))


def read(text, of):
    """The value by both paths, which must agree."""
    by_text = coerce_text(text, of)
    coerced = coerce_column(pa.array([text], pa.string()), of)
    by_column = next((Refusal(reason) for reason, mask in coerced.refusals.items() if mask[0]), coerced.values[0].as_py())
    assert (by_column, str(by_column)) == (by_text, str(by_text))
    assert coerced.values.type == arrow_type(of.type)
    return by_text


@pytest.mark.parametrize(
    ("of", "text", "value"),
    [
        (column(TEXT), "  A  B\t", "A  B"),
        (column(TEXT, normalize=("collapse_blanks",)), " A \t B ", "A B"),
        (column(TEXT, normalize=("upper",)), "stra\u00dfe \u00f1", "STRASSE \u00d1"),
        (column(TEXT), "a\tb", "a\tb"),
        (column(TEXT), "0010020000001            ", "0010020000001"),
        (column(TEXT), "8400.10", "8400.10"),
        (column(INTEGER), "000123", 123),
        (column(INTEGER), "+5", 5),
        (column(INTEGER), "-0", 0),
        (column(INTEGER), "123.00", 123),
        (column(INTEGER), "12.", 12),
        (column(INTEGER), "2147483647", 2**31 - 1),
        (column(INTEGER), "-2147483648", -(2**31)),
        (column(INTEGER), "0" * 5000 + "7", 7),
        (column(BIGINT), "        105024", 105024),
        (column(BIGINT), "9223372036854775807", 2**63 - 1),
        (ACRES, "0.1148", Decimal("0.1148")),
        (ACRES, ".5", Decimal("0.5000")),
        (ACRES, "-0.00000", Decimal("0")),
        (ACRES, "1.500000000", Decimal("1.5")),
        (ACRES, "9999999999.9999", Decimal("9999999999.9999")),
        (column(numeric(38, 10)), "1234567890123456789012345678.1234567891", Decimal("1234567890123456789012345678.1234567891")),
        (column(numeric(4, 4)), "0.1234", Decimal("0.1234")),
        (column(numeric(16, 4), implied_decimals=4), "00000005739000", Decimal("573.9000")),
        (column(numeric(16, 4), implied_decimals=4), "5", Decimal("0.0005")),
        (column(BIGINT, implied_decimals=2), "-12300", -123),
        (MDY, "04/21/2025", datetime.date(2025, 4, 21)),
        (MDY, "02/29/2024", datetime.date(2024, 2, 29)),
        (MDY, "12/31/1899", datetime.date(1899, 12, 31)),
        (column(DATE, formats=("%m%d%Y", "%m-%d-%Y")), "03-31-2026", datetime.date(2026, 3, 31)),
        (column(DATE, formats=("%Y-%m-%d %H:%M:%S.%f",)), "2012-09-11 00:00:00.000", datetime.date(2012, 9, 11)),
        (column(DATE, formats=("%d %b %y",)), "04 Jul 26", datetime.date(2026, 7, 4)),
        (column(BOOLEAN, true_codes=("T", "Y"), false_codes=("F", "N")), " Y", True),
        (column(BOOLEAN, true_codes=("T", "Y"), false_codes=("F", "N")), "F", False),
    ],
)  # fmt: skip
def test_text_becomes_exactly_its_value(of, text, value):
    assert read(text, of) == value
    assert type(read(text, of)) is type(value)


@pytest.mark.parametrize("of", [column(TEXT), column(INTEGER), ACRES, MDY, column(BOOLEAN)])
@pytest.mark.parametrize("text", [None, "", " ", " \t "])
def test_blank_is_null_whatever_the_type(of, text):
    assert read(text, of) is None


@pytest.mark.parametrize(
    ("of", "text"), [(MDY, "12/30/1899 "), (MDY, "00/00/0000"), (column(BIGINT, nulls=("Pending",)), "Pending")]
)
def test_declared_null_is_null(of, text):
    assert read(text, of) is None


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("of", "text", "reason"),
    [
        *((of, text, "not_a_number") for of in (column(INTEGER), column(BIGINT), ACRES) for text in (
            "NaN", "nan", "inf", "-Infinity", "1e999", "1e5", "1E3", "Pending", "$1,234.00", "1,234", "(500)", "--5", "5-",
            "0x10", "1_000", "\u0661\u0662", "\uff11", "1 2", "+", ".", "-.", "\u22125", "12\n", "1.2.3")),
        (column(INTEGER), "2147483648", "out_of_range"),
        (column(INTEGER), "-2147483649", "out_of_range"),
        (column(BIGINT), "9223372036854775808", "out_of_range"),
        (column(BIGINT), "9" * 5000, "out_of_range"),
        (column(INTEGER), "123.50", "not_an_integer"),
        (ACRES, "10000000000", "out_of_range"),
        (ACRES, "9" * 400, "out_of_range"),
        (ACRES, "0.12345", "too_many_decimals"),
        (column(numeric(4, 4)), "1", "out_of_range"),
        (column(numeric(16, 4), implied_decimals=4), "573.9", "literal_point"),
        (column(BIGINT, implied_decimals=2), "12345", "not_an_integer"),
    ],
)  # fmt: skip
def test_number_that_the_type_cannot_hold_is_refused_never_bent(of, text, reason):
    assert read(text, of) == Refusal(reason)


@pytest.mark.fault(45)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("02/30/2024", "not_a_date"),
        ("99/99/9999", "not_a_date"),
        ("02/29/2023", "not_a_date"),
        ("1/2/2020", "not_a_date"),
        ("01/02/20", "not_a_date"),
        ("01/02/0000", "not_a_date"),
        ("2020-01-02", "not_a_date"),
        ("12-30-1899", "not_a_date"),
        ("\u0660\u0661/02/2020", "not_a_date"),
        ("01/02/2020 ", None),
        ("01/02/2020x", "not_a_date"),
        ("01/02/1699", "out_of_range"),
        ("01/02/3000", "out_of_range"),
    ],
)
def test_date_is_exactly_of_its_format_or_refused(text, reason):
    assert read(text, MDY) == (Refusal(reason) if reason else datetime.date(2020, 1, 2))


def test_time_of_day_is_not_cut_off():
    assert read("2012-09-11 13:45", column(DATE, formats=("%Y-%m-%d %H:%M",))) == Refusal("time_of_day")


@pytest.mark.fault(42)
@pytest.mark.parametrize("text", ["a\x00b", "a\x01", "\x1fa", "a\nb", "a\x0bb", "a\rb"])
def test_control_character_in_text_is_refused(text):
    assert read(text, column(TEXT)) == Refusal("control_character")


@pytest.mark.parametrize("text", ["t", "X", "1"])
def test_unknown_code_of_a_boolean_is_refused(text):
    assert read(text, column(BOOLEAN, true_codes=("T",), false_codes=("F",))) == Refusal("not_a_code")


@pytest.mark.parametrize(
    "of", [column(DATE, formats=("%Q",)), column(TEXT, normalize=("shout",)), column(numeric(99, 2))]
)
def test_declaration_that_cannot_be_read_is_refused_before_any_value(of):
    with pytest.raises(CatalogError):
        DataTransformer(table(of))


@pytest.mark.fault(42)
def test_control_character_in_a_key_quarantines_its_row_alone(transformed):
    outcome = transformed(acct(1) + b"\tA\t1\n" + b"00100200000\x0113\tB\t2\n" + acct(3) + b"\tC\x02\t3\n")
    assert outcome.column("line") == [1]
    assert outcome.report.refused == {"acct:control_character": 1, "owner:control_character": 1}


KINDS = st.one_of(
    st.builds(column, st.just(TEXT), normalize=st.sampled_from([(), ("upper",), ("collapse_blanks", "upper")])),
    st.builds(column, st.sampled_from([INTEGER, BIGINT]), implied_decimals=st.sampled_from([0, 0, 2])),
    st.builds(
        lambda scale, whole, implied: column(numeric(scale + whole, scale), implied_decimals=implied),
        st.integers(0, 6), st.integers(1, 8), st.sampled_from([0, 0, 3]),
    ),
    st.just(MDY),
    st.just(column(BOOLEAN, true_codes=("T",), false_codes=("F",))),
)  # fmt: skip
POLICIES = st.sampled_from(["quarantine", "null"])
TEXTS = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.text(" \t+-.0123456789eE", max_size=12),
    st.integers().map(str),
    st.decimals(allow_nan=True, allow_infinity=True, places=3).map(str),
    st.dates().map(lambda day: day.strftime("%m/%d/%Y")),
    st.sampled_from(["T", "F", " T ", "12/30/1899", "\u00b5\u00ff", "\ufb01", "a  b\tc"]),
)


@settings(max_examples=200, deadline=None)
@given(of=KINDS, policy=POLICIES, texts=st.lists(TEXTS, min_size=1, max_size=12))
def test_column_path_and_record_path_give_the_same_values_and_refusals(of, policy, texts):
    of = Column(**{**{name: getattr(of, name) for name in of.__dataclass_fields__}, "on_error": policy})
    coerced = coerce_column(pa.array(texts, pa.string()), of)
    transformer = DataTransformer(table(of))
    for row, text in enumerate(texts):
        reasons = [reason for reason, mask in coerced.refusals.items() if mask[row]]
        expected = transformer.normalize_data({"c": text}, {"c": of})["c"]
        assert reasons == ([coerce_text(text, of).reason] if isinstance(coerce_text(text, of), Refusal) else [])
        if reasons:
            assert coerced.values[row].as_py() is None
            assert expected == (None if policy == "null" else Refusal(reasons[0]))
        else:
            assert coerced.values[row].as_py() == expected
