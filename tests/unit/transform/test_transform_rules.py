"""Rules: whole columns and Cerberus give one verdict, and Cerberus' is the one that counts."""

import datetime
from dataclasses import replace
from decimal import Decimal

import cerberus
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import ACCOUNTS, BIGINT, BOOLEAN, DATE, INTEGER, TEXT, acct, numeric, table

from pipeline.catalog.model import Column
from pipeline.errors import AccountingError, CatalogError
from pipeline.transform import DataTransformer
from pipeline.transform.coerce import arrow_type
from pipeline.transform.rules import compile_rules, judge, record_validator


def column(column_type, required=False, **rules):
    return Column("c", column_type, "c", required=required, rules=rules)


INTEGERS = st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3)
DECIMALS = st.decimals(-1000, 1000, places=2)
DATES = st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 12, 31))
TEXTS = st.text(st.sampled_from("ab0\u0661 \nA\u00d1"), max_size=4)
PATTERNS = st.sampled_from([r"^\d+$", r"\d", r"[ab]*", r"^a", r"a|b", r"(?i)A+", r"^.{2}$", r"\w+\Z", r"b\$", "", "$"])
LENGTHS = st.integers(0, 4)


def some(**rules):
    return st.fixed_dictionaries({}, optional=rules)


COLUMNS = (
    st.tuples(st.just(TEXT), st.just(TEXTS), some(
        regex=PATTERNS, minlength=LENGTHS, maxlength=LENGTHS, min=TEXTS, max=TEXTS,
        allowed=st.lists(TEXTS, max_size=3), forbidden=st.lists(TEXTS, max_size=3))),
    st.tuples(st.just(INTEGER), st.just(INTEGERS), some(
        min=INTEGERS | st.just(10**30) | st.just(0.5), max=INTEGERS | st.just(-(10**30)), regex=PATTERNS, minlength=LENGTHS,
        allowed=st.lists(INTEGERS, max_size=3), forbidden=st.lists(INTEGERS, max_size=3))),
    st.tuples(st.just(numeric(9, 2)), st.just(DECIMALS), some(
        min=DECIMALS | st.floats(-5, 5) | st.integers(-5, 5) | st.just(Decimal("0.001")), max=DECIMALS | st.just("10.5"),
        allowed=st.lists(DECIMALS, max_size=3), forbidden=st.lists(st.sampled_from([0.1, 1, "2.50"]), max_size=3))),
    st.tuples(st.just(DATE), st.just(DATES), some(
        min=DATES | DATES.map(str), max=DATES.map(str), allowed=st.lists(DATES.map(str), max_size=3), maxlength=LENGTHS)),
    st.tuples(st.just(BOOLEAN), st.just(st.booleans()), some(allowed=st.lists(st.booleans(), max_size=2), min=st.just(1))),
)  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS, ids=["text", "integer", "numeric", "date", "boolean"])
@settings(max_examples=80, deadline=None)
@given(required=st.booleans(), draw=st.data())
def test_compiled_rules_and_cerberus_agree_on_rows_and_errors(kind, required, draw):
    column_type, values, rules = draw.draw(kind)
    of = column(column_type, required, **rules)
    compiled = compile_rules([of])
    assert compiled.slow == ()
    column_values = draw.draw(st.lists(values | st.none(), min_size=1, max_size=8))
    rows = pa.table({"c": pa.array(column_values, arrow_type(column_type))})
    reference = cerberus.Validator(dict(compiled.schema), allow_unknown=True)
    transformer = DataTransformer(table(of))
    for record, suspect in zip(rows.to_pylist(), compiled.suspects(rows).tolist(), strict=True):
        good = reference.validate(record)  # with Cerberus' own normalisation and all
        assert suspect == (not good)
        assert transformer.validate_record(record, compiled.schema) == reference.errors
        assert transformer.validate_record(record, transformer.rules.schema) == reference.errors


@pytest.mark.parametrize(
    ("of", "value", "rule"),
    [
        (column(TEXT, required=True), None, "nullable"),
        (column(TEXT, regex=r"^\d{13}$"), "12", "regex"),
        (column(TEXT, minlength=3), "ab", "minlength"),
        (column(TEXT, maxlength=1), "ab", "maxlength"),
        (column(BIGINT, min=0), -1, "min"),
        (column(BIGINT, max=0), 1, "max"),
        (column(TEXT, allowed=["A"]), "B", "allowed"),
        (column(TEXT, forbidden=["B"]), "B", "forbidden"),
        (column(DATE, min="1990-01-01"), datetime.date(1989, 12, 31), "min"),
    ],
)
def test_broken_rule_is_named(of, value, rule):
    schema = compile_rules([of]).schema
    ((name, message),) = judge(record_validator(schema), {"c": value})["c"]
    assert name == rule
    assert message


def test_tenth_in_a_rule_is_a_tenth():
    values = pa.table({"c": pa.array([Decimal("0.0"), Decimal("0.1"), Decimal("0.2")], pa.decimal128(5, 1))})
    assert compile_rules([column(numeric(5, 1), min=0.1)]).suspects(values).tolist() == [True, False, False]
    assert compile_rules([column(numeric(5, 1), allowed=[0.1])]).suspects(values).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("pattern", "text", "is_broken"),
    [
        (r"\d", "0a", True),
        (r"a|b", "ab", False),
        (r"^\d{2}$", "12\n", False),
        (r"\d+", "\u0661", False),
        (r"b\$", "b$x", False),
        (r"x*", "ax", True),
        (r"", "a", True),
    ],
)
def test_regex_matches_as_cerberus_does(pattern, text, is_broken):
    of = column(TEXT, regex=pattern)
    compiled = compile_rules([of])
    assert compiled.suspects(pa.table({"c": [text]})).tolist() == [is_broken]
    assert bool(DataTransformer(table(of)).validate_record({"c": text}, compiled.schema)) == is_broken


@pytest.mark.parametrize(
    "of", [column(TEXT, regex="("), column(TEXT, colour="red"), column(DATE, min="soon"), column(numeric(5, 1), min="x")]
)
def test_rule_that_cannot_be_used_is_refused_at_once(of):
    with pytest.raises(CatalogError):
        DataTransformer(table(of))


def test_verdict_and_message_of_the_quarantine_are_those_of_cerberus(transformed):
    outcome = transformed(acct(1) + b"\tA\t-1\n" + b"12\tB\t-2\n" + acct(3) + b"\tC\t3\n" + b"\tD\t4\n")
    assert outcome.column("line") == [3]
    assert [row["reasons"] for row in outcome.quarantine] == [
        {"val": ["min value is 0"]},
        {"acct": ["value does not match regex '^\\d{13}$'"], "val": ["min value is 0"]},
        {"acct": ["null value not allowed"]},
    ]
    assert outcome.report.refused == {"val:min": 2, "acct:regex": 1, "acct:required": 1}


def test_type_and_rule_errors_of_a_row_are_told_together(transformed):
    outcome = transformed(b"12\tA\tPending\n")
    assert set(outcome.quarantine[0]["reasons"]) == {"acct", "val"}
    assert outcome.report.refused == {"acct:regex": 1, "val:not_a_number": 1}


def test_rule_that_is_not_compiled_is_judged_row_by_row_and_announced(transformed):
    rules = {"anyof": [{"allowed": ["A"]}, {"minlength": 3}]}
    of = table(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[1], rules=rules), ACCOUNTS.columns[2], key=("acct",))
    events = []
    content = acct(1) + b"\tA\t1\n" + acct(2) + b"\tB\t1\n" + acct(3) + b"\tCCC\t1\n" + acct(4) + b"\t\t1\n"
    outcome = transformed(content, of, on_event=lambda event, figures: events.append((event, dict(figures))))
    assert outcome.column("line") == [1, 3, 4]
    assert outcome.quarantine[0]["line"] == 2
    assert outcome.report.refused == {"owner:anyof": 1}
    assert ("transform.slow_rule", {"table": "test.roll", "rule": "owner.anyof"}) in events


def test_disagreement_found_by_the_sample_stops_the_part(transformed, monkeypatch):
    import pipeline.transform.rules as rules

    monkeypatch.setattr(rules, "_ordered_check", lambda rule, limit: rules._never_broken)
    bad = acct(4) + b"\tSECRET\t-1\n"
    content = b"".join(acct(number) + b"\tA\t1\n" for number in range(1, 4)) + bad
    with pytest.raises(AccountingError, match=r"line 4 of test\.roll: Cerberus refuses val \(min\)") as caught:
        transformed(content, sample_every=2)
    assert "SECRET" not in str(caught.value)
    assert transformed(content, sample_every=1000).report.written == 4  # no row of the sample is the bad one
