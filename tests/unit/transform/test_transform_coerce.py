"""Typing: exact, total and named; the column-wise path and the record path are one meaning."""

import dataclasses
import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, acct, numeric, table

from pipeline.catalog.meta_schema import STEPS
from pipeline.catalog.model import Column
from pipeline.errors import CatalogError
from pipeline.transform import DataTransformer
from pipeline.transform.coerce import Refusal, arrow_type, coerce_column, coerce_text, column_typer
from pipeline.transform.distinct import MOST_TEXTS


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
        (column(BIGINT), "-9223372036854775808", -(2**63)),
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
        (column(BOOLEAN, true_codes=("Yes", "Y"), false_codes=("No", "\u00d1")), "\u00d1", False),
        # PACS: zero-padded, blank-padded and literal decimals
        (column(BIGINT), "00000002833677", 2833677),
        (column(BIGINT), "0006193.000000", 6193),
        (column(numeric(14, 2)), "00002986.000000", Decimal("2986.00")),
        (column(numeric(14, 2)), "0084611.250000", Decimal("84611.25")),
        (column(numeric(13, 10), implied_decimals=10), "0000005000000000", Decimal("0.5")),
        (column(numeric(38, 20), implied_decimals=10), "-12345678901", Decimal("-1.2345678901")),
        (column(numeric(60, 30)), "-123456789012345678901234567890.5", Decimal("-123456789012345678901234567890.5")),
        (column(numeric(60, 30)), "-5.25", Decimal("-5.25")),
        (column(numeric(18, 0)), "-999999999999999999", Decimal("-999999999999999999")),
        (column(numeric(5, 2)), "0000000000000000000000000000001.50", Decimal("1.50")),
        (column(DATE, formats=("%Y%m%d", "%m%d%Y")), "12311999", datetime.date(1999, 12, 31)),
        (column(DATE, formats=("%Y-%m-%d",)), "1700-01-01", datetime.date(1700, 1, 1)),
        (column(DATE, formats=("%Y-%m-%d",)), "2200-12-31", datetime.date(2200, 12, 31)),
        (column(DATE, formats=("%d.%m.%Y %H", "%d.%m.%Y")), "29.02.2000", datetime.date(2000, 2, 29)),
        (column(TEXT, controls="blank"), "\x00A\x01B\tC\x1f", "A B C"),
        (column(TEXT, controls="blank"), "\x00", None),
        (column(TEXT, controls="blank", nulls=("NONE",)), "\x00NONE", None),
        (column(TEXT, controls="blank"), "\x7f\x85", "\x7f\x85"),
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
        (column(BIGINT), "-9223372036854775809", "out_of_range"),
        (column(BIGINT), "-" + "9" * 19, "out_of_range"),
        (column(BIGINT), "99999999999999999999.0", "out_of_range"),
        (column(INTEGER), "123.50", "not_an_integer"),
        (ACRES, "10000000000", "out_of_range"),
        (ACRES, "9" * 400, "out_of_range"),
        (ACRES, "0.12345", "too_many_decimals"),
        (column(numeric(4, 4)), "1", "out_of_range"),
        (column(numeric(16, 4), implied_decimals=4), "573.9", "literal_point"),
        (column(BIGINT, implied_decimals=2), "12345", "not_an_integer"),
        (column(numeric(5, 2)), "999.991", "too_many_decimals"),
        (column(numeric(5, 2)), "-1000.00", "out_of_range"),
        (column(numeric(13, 10), implied_decimals=10), "10000000000000", "out_of_range"),
        (column(numeric(18, 9)), "999999999999999999", "out_of_range"),
        (column(numeric(38, 0)), "9" * 39, "out_of_range"),
        (column(numeric(38, 19)), "9" * 20, "out_of_range"),
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
        ("01/00/2020", "not_a_date"),
        ("00/01/2020", "not_a_date"),
        ("13/01/2020", "not_a_date"),
        ("01/32/2020", "not_a_date"),
        ("99/99/2020", "not_a_date"),
        ("01/02/-020", "not_a_date"),
        ("01/02/20:0", "not_a_date"),
    ],
)
def test_date_is_exactly_of_its_format_or_refused(text, reason):
    assert read(text, MDY) == (Refusal(reason) if reason else datetime.date(2020, 1, 2))


def test_earlier_format_is_asked_first_whatever_its_shape():
    assert read("01022012", column(DATE, formats=("%y%m%d%H", "%m%d%Y"))) == Refusal("time_of_day")


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
    "of",
    [
        column(DATE, formats=("%Q",)),
        column(DATE, formats=("%m/%d/%m",)),
        column(TEXT, normalize=("shout",)),
        column(TEXT, normalize=("zero_pad:0",)),
        column(numeric(99, 2)),
    ],
)
def test_declaration_that_cannot_be_read_is_refused_before_any_value(of):
    with pytest.raises(CatalogError):
        DataTransformer(table(of))


@pytest.mark.fault(42)
def test_control_character_in_a_key_quarantines_its_row_alone(transformed):
    outcome = transformed(acct(1) + b"\tA\t1\n" + b"00100200000\x0113\tB\t2\n" + acct(3) + b"\tC\x02\t3\n")
    assert outcome.column("line") == [1]
    assert outcome.report.refused == {"acct:control_character": 1, "owner:control_character": 1}


def typed(texts, of, **what_is_known):
    """A chunk of trimmed texts, typed; what the reader knows of it is found out unless it is stated."""
    whole = "".join(text or "" for text in texts)
    known = {"is_ascii": whole.isascii(), "has_controls": any(character < " " for character in whole), **what_is_known}
    return column_typer(of)(pa.array(texts, pa.string()), **known)


def rows_of(masks):
    return {reason: mask.nonzero()[0].tolist() for reason, mask in masks.items()}


@pytest.mark.fault(42)
@pytest.mark.parametrize("rule", [{}, {"required": True}])
def test_blanked_control_characters_are_counted_and_the_neighbours_stay(rule):
    texts = ["A  B", "\x00", None, "B\x00C", "\x02PENDING\x02", "a\tb", "\u00b5\x1f"]
    blanked = typed(texts, column(TEXT, controls="blank", nulls=("PENDING",), **rule))
    assert blanked.values.to_pylist() == ["A  B", None, None, "B C", None, "a b", "\u00b5"]
    assert rows_of(blanked.changed) == {"control_character": [1, 3, 4, 5, 6], "declared": [4]}
    assert blanked.refusals == {}


@pytest.mark.fault(42)
def test_refused_control_characters_leave_the_neighbours_and_the_tab():
    refused = typed(["A", "B\x00C", None, "a\tb", "\x1f\u00b5"], column(TEXT, normalize=("upper",)))
    assert refused.values.to_pylist() == ["A", None, None, "A\tB", None]
    assert rows_of(refused.refusals) == {"control_character": [1, 4]}


@pytest.mark.fault(44)
def test_refused_values_are_named_row_by_row_and_the_neighbours_stay():
    texts = ["1", "$1,234.00", None, "-0", "(500)", "Pending", "99999999999", "0012", "1.5", "NaN", "+7"]
    coerced = typed(texts, column(INTEGER, nulls=("Pending",)))
    assert coerced.values.to_pylist() == [1, None, None, 0, None, None, None, 12, None, None, 7]
    assert rows_of(coerced.refusals) == {"not_a_number": [1, 4, 9], "not_an_integer": [8], "out_of_range": [6]}
    assert rows_of(coerced.changed) == {"declared": [5]}


@pytest.mark.fault(45)
def test_dates_of_any_kind_stand_side_by_side():
    texts = ["12/30/1899", "04/21/2025", None, "02/30/2024", "12-30-1899", "1/1/2020", "01/01/1600", "12/31/1999"]
    coerced = typed(texts, column(DATE, formats=("%m/%d/%Y", "%m-%d-%Y"), nulls=("12/30/1899", "00000000")))
    days = [None, datetime.date(2025, 4, 21), None, None, datetime.date(1899, 12, 30), None, None, datetime.date(1999, 12, 31)]
    assert coerced.values.to_pylist() == days
    assert rows_of(coerced.refusals) == {"not_a_date": [3, 5], "out_of_range": [6]}
    assert rows_of(coerced.changed) == {"declared": [0]}


def test_year_out_of_range_is_not_taken_by_a_later_format():
    of = column(DATE, formats=("%Y%m%d", "%m%Y%d"))  # 10 October 1017, or 10 October 1710
    assert read("10171010", of) == Refusal("out_of_range")


@pytest.mark.parametrize(
    ("of", "texts", "is_made"),
    [
        (column(BIGINT), ["0", "12", None, "x"], True),
        (column(BIGINT), ["0", "012"], False),
        (column(BIGINT), ["-5"], False),
        (column(BIGINT), ["12", "+7"], False),
        (ACRES, ["0.1796", "1.0200", "12.0000", None, "0.0000", "x.1"], True),
        (ACRES, ["00.5"], False),
        (ACRES, [".5"], False),
        (ACRES, ["-0.0"], False),
        (ACRES, ["1.5", "10"], False),
        (ACRES, ["10", "7"], True),
        (column(numeric(16, 4), implied_decimals=4), ["15000"], False),
        (column(DATE, formats=("%Y-%m-%d",)), ["2025-01-02", None, "2025-02-30"], True),
        (MDY, ["01/02/2025"], False),
        (column(DATE, formats=("%Y-%m-%d", "%d %b %Y")), ["2025-01-02", "02 Jan 2025"], False),
        (column(TEXT), ["A", None, "\x00"], True),
    ],
)  # fmt: skip
def test_canonical_text_is_given_where_the_text_is_nearly_it(of, texts, is_made):
    coerced = typed(texts, of)
    assert (coerced.canonical is not None) == is_made
    if is_made:
        assert coerced.canonical.to_pylist() == [canonical(value) for value in coerced.values.to_pylist()]


@pytest.mark.parametrize(
    ("of", "texts", "values"),
    [
        (column(INTEGER), ["x", "12", "y", "7"], [None, 12, None, 7]),
        (ACRES, ["..", "1.5", "9.9.9", "0.25"], [None, Decimal("1.5"), None, Decimal("0.25")]),
        (MDY, ["12/30/1899", "01/02/2025", "x", "01/03/2025"], [None, datetime.date(2025, 1, 2), None, datetime.date(2025, 1, 3)]),
        (column(BOOLEAN, true_codes=("T",), false_codes=("F",)), ["F", "T", "?", "F"], [None, True, None, False]),
        (column(TEXT, controls="blank", nulls=("X",)), ["X", "a\x00b", "\x01", "c"], [None, "a b", None, "c"]),
        (column(TEXT, normalize=("zip_code",)), ["?", "77002", "?", "770021234"], [None, "77002", None, "77002-1234"]),
    ],
)
def test_bytes_left_behind_a_null_are_not_read(of, texts, values):
    hidden = pc.if_else(pa.array([True, False, True, False]), pa.scalar(None, pa.string()), pa.array(texts))
    assert "".join(texts).encode() == hidden.buffers()[2].to_pybytes()  # Arrow leaves them there
    coerced = column_typer(of)(hidden, is_ascii=True, has_controls=True)
    assert coerced.values.to_pylist() == values
    assert coerced.refusals == {}
    assert rows_of(coerced.changed) == ({"control_character": [1]} if of.controls == "blank" else {})


def test_codes_are_compared_whole():
    texts = ["TF", "", "T", "F", None]
    coerced = typed(texts, column(BOOLEAN, true_codes=("T",), false_codes=("F",)))
    assert coerced.values.to_pylist() == [None, None, True, False, None]
    assert rows_of(coerced.refusals) == {"not_a_code": [0, 1]}


def test_memory_of_distinct_texts_is_bounded():
    typer = column_typer(column(INTEGER))
    texts = [f"+{number}" for number in range(3 * MOST_TEXTS)]
    for first in range(0, len(texts), 5_000):
        chunk = texts[first : first + 5_000]
        values = typer(pa.array(chunk), is_ascii=True, has_controls=False).values
        assert values.to_pylist() == [int(text) for text in chunk]
        assert len(typer._values._distinct._known) <= MOST_TEXTS


def canonical(value):
    """What a row hash writes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)


KINDS = st.one_of(
    st.builds(
        column,
        st.just(TEXT),
        normalize=st.lists(
            st.sampled_from([*STEPS, "zero_pad:5"]), max_size=2, unique=True
        ).map(tuple),
        controls=st.sampled_from(["refuse", "blank"]),
        nulls=st.sampled_from([(), ("\u00b5\u00ff", "T")]),
    ),
    st.builds(column, st.sampled_from([INTEGER, BIGINT]), implied_decimals=st.sampled_from([0, 0, 2]), nulls=st.sampled_from([(), ("0",)])),
    st.builds(
        lambda scale, whole, implied: column(numeric(scale + whole, scale), implied_decimals=implied),
        st.integers(0, 25), st.integers(0, 13), st.sampled_from([0, 0, 3, 18]),
    ).filter(lambda of: of.type.precision),
    st.just(MDY),
    st.builds(
        column,
        st.just(DATE),
        formats=st.lists(
            st.sampled_from(["%m/%d/%Y", "%Y-%m-%d", "%m%d%Y", "%Y%m%d", "%d%m%Y", "%m/%d/%Y %H:%M", "%m/%d/%y", "%Y %m%d"]),
            min_size=1, max_size=3, unique=True,
        ).map(tuple),
    ),
    st.just(column(BOOLEAN, true_codes=("T",), false_codes=("F",))),
    st.just(column(BOOLEAN, true_codes=("T", "true", "\u00b5\u00ff"), false_codes=("F", "0"))),
)  # fmt: skip
POLICIES = st.sampled_from(["quarantine", "null"])
DAYS = st.builds(
    lambda day, form: day.strftime(form),
    st.dates(datetime.date(1000, 1, 1)),
    st.sampled_from(["%m/%d/%Y", "%Y-%m-%d", "%m%d%Y", "%Y%m%d", "%Y-%m-%d 00:00"]),
)
TEXTS = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.text(" \t+-.0123456789eEx", max_size=12),
    st.text("0123456789", min_size=1, max_size=40),
    st.text("0123456789.", min_size=1, max_size=24),
    st.text("AbC'- \t\x00\u00df\u0130", max_size=8),
    st.integers().map(str),
    st.integers(0, 99999).map(str),
    st.decimals(allow_nan=True, allow_infinity=True, places=3).map(str),
    st.decimals(-10000, 10000, places=4).map(str),
    DAYS,
    DAYS.flatmap(lambda day: st.integers(0, len(day) - 1).map(lambda place: day[:place] + "9" + day[place + 1 :])),
    st.from_regex(r"[0-9]{5}([ -]?[0-9]{4}|-)?", fullmatch=True),
    st.from_regex(r"\(?[0-9]{3}[).-]? ?[0-9]{3}[.-]?[0-9]{4}", fullmatch=True),
    st.sampled_from(["T", "F", " T ", "12/30/1899", "\u00b5\u00ff", "\ufb01", "a  b\tc", "0", "00", "true"]),
)


@settings(max_examples=300, deadline=None)
@given(of=KINDS, policy=POLICIES, texts=st.lists(TEXTS, min_size=1, max_size=12))
def test_column_path_and_record_path_give_the_same_values_and_refusals(of, policy, texts):
    of = dataclasses.replace(of, on_error=policy)
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


@settings(max_examples=300, deadline=None)
@given(of=KINDS, texts=st.lists(TEXTS, min_size=1, max_size=40), chunk_rows=st.integers(1, 40), is_sliced=st.booleans())
def test_chunks_do_not_matter_and_every_change_is_named(of, texts, chunk_rows, is_sliced):
    texts = [(text or "").strip(" \t") or None for text in texts]
    typer = column_typer(of)
    for first in range(0, len(texts), chunk_rows):
        chunk = texts[first : first + chunk_rows]
        whole = "".join(text or "" for text in chunk)
        array = pa.array(texts, pa.string())[first : first + chunk_rows] if is_sliced else pa.array(chunk, pa.string())
        has_controls = any(character < " " for character in whole)
        coerced = typer(array, is_ascii=whole.isascii(), has_controls=has_controls)
        expected = [coerce_text(text, of) for text in chunk]
        values = [None if isinstance(value, Refusal) else value for value in expected]
        assert coerced.values.to_pylist() == values
        assert coerced.values.type == arrow_type(of.type)
        coerced.values.validate(full=True)
        assert {reason: mask.tolist() for reason, mask in coerced.refusals.items()} == {
            reason: [value == Refusal(reason) for value in expected]
            for reason in {value.reason for value in expected if isinstance(value, Refusal)}
        }
        is_blanked = [of.controls == "blank" and any(character < " " for character in text or "") for text in chunk]
        assert coerced.changed.get("control_character", np.zeros(len(chunk), bool)).tolist() == is_blanked
        is_declared = [
            ("".join(" " if character < " " else character for character in text or "").strip() if blanked else text) in of.nulls
            for text, blanked in zip(chunk, is_blanked, strict=True)
        ]
        assert coerced.changed.get("declared", np.zeros(len(chunk), bool)).tolist() == is_declared
        if coerced.canonical is not None:
            assert coerced.canonical.to_pylist() == [canonical(value) for value in values]
