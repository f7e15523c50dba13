"""Rules: whole columns and Cerberus give one verdict, and Cerberus' is the one that counts."""

import datetime
import doctest
import importlib
from dataclasses import replace
from decimal import Decimal

import cerberus
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import ACCOUNTS, BIGINT, BOOLEAN, DATE, INTEGER, TEXT, acct, numeric, table

from pipeline.catalog.meta_schema import CHECKS_WITH, OF_RULES
from pipeline.catalog.model import Column
from pipeline.errors import AccountingError, CatalogError
from pipeline.transform import DataTransformer, rule_judge, rule_kernels
from pipeline.transform.check_with import RecordValidator
from pipeline.transform.coerce import arrow_type
from pipeline.transform.rules import compile_rules, document_of, judge, record_validator


def column(column_type, *, name="c", **fields):
    own = {key: fields.pop(key) for key in ("required", "nullable", "on_error") if key in fields}
    return Column(name, column_type, name, rules=fields, **own)


def typed(columns, records):
    return pa.table({one.name: pa.array([record[one.name] for record in records], arrow_type(one.type)) for one in columns})


INTEGERS = st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1) | st.sampled_from([1700, 2200, 2201])
DECIMALS = st.decimals(-5, 5, places=2) | st.decimals(-9999999, 9999999, places=2)
DATES = st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 12, 31)) | st.sampled_from([datetime.date(2000, 1, 1)])
TEXTS = st.text(st.sampled_from("ab0\u0661 \nA\u00d1"), max_size=4) | st.sampled_from(
    ["77002", "77002-1234", "0010010000013", "713-555-0100", "1899", "\u0661" * 5, "a b  c", "12345"]
)
PATTERNS = st.sampled_from(
    [r"^\d+$", r"\d", r"[ab]*", r"^a", r"a|b", r"(?i)A+", r"^.{2}$", r"\w+\Z", r"b\$", "$", r"\d{5}", r"^[0-9]{13}$", r"(?:a|b0)?\s*"]
)
LENGTHS = st.integers(0, 4)
CHECKS = st.sampled_from(CHECKS_WITH)


def some(**rules):
    return st.fixed_dictionaries({}, optional=rules)


OWN = {
    "text": dict(
        regex=PATTERNS, minlength=LENGTHS, maxlength=LENGTHS, empty=st.booleans(), check_with=CHECKS, min=TEXTS,
        allowed=st.lists(TEXTS, min_size=1, max_size=3), forbidden=st.lists(TEXTS, min_size=1, max_size=3)),
    "integer": dict(
        min=INTEGERS | st.sampled_from([10**30, -(10**30), 0.5]), max=INTEGERS | st.sampled_from([-(10**30), 10**30, -0.5]),
        regex=PATTERNS, check_with=CHECKS,
        allowed=st.lists(INTEGERS | st.just(10**12), min_size=1, max_size=3), forbidden=st.lists(INTEGERS | st.just(True), min_size=1, max_size=3)),
    "numeric": dict(
        min=DECIMALS | st.floats(-5, 5) | st.integers(-5, 5) | st.sampled_from([Decimal("0.001"), Decimal("-1e20")]),
        max=DECIMALS | st.sampled_from(["10.5", Decimal("0.009"), 10**20, Decimal("1e20")]),
        allowed=st.lists(DECIMALS, min_size=1, max_size=3), forbidden=st.lists(st.sampled_from([0.1, 1, "2.50"]), min_size=1, max_size=3)),
    "date": dict(
        min=DATES | DATES.map(str), max=DATES.map(str), allowed=st.lists(DATES.map(str), min_size=1, max_size=3), maxlength=LENGTHS),
    "boolean": dict(allowed=st.lists(st.booleans(), min_size=1, max_size=2), min=st.just(1)),
}  # fmt: skip
VALUES = {"text": TEXTS, "integer": INTEGERS, "numeric": DECIMALS, "date": DATES, "boolean": st.booleans()}
TYPES = {"text": TEXT, "integer": INTEGER, "numeric": numeric(9, 2), "date": DATE, "boolean": BOOLEAN}


def rule_sets(kind):
    plain = some(**OWN[kind])
    of = st.lists(plain, min_size=1, max_size=3)
    return st.builds(lambda rules, ofs: {**rules, **ofs}, plain, some(**dict.fromkeys(OF_RULES, of)))


@st.composite
def tables(draw):
    """Columns with rules and policies as a schema file may state them, and typed rows of theirs."""
    kinds = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4))
    names = [f"c{number}" for number in range(len(kinds))]
    columns, loose = [], set(names)
    for name, kind in zip(names, kinds, strict=True):
        rules = draw(rule_sets(kind))
        fields = {"required": draw(st.booleans()), "nullable": draw(st.booleans())}
        policies = ["quarantine"]
        if fields["nullable"] and not fields["required"]:
            policies.append("null")
        if kind == "text" and rules.get("maxlength"):
            policies.append("truncate")
        if fields["required"]:
            loose.discard(name)
        columns.append(column(TYPES[kind], name=name, on_error=draw(st.sampled_from(policies)), **fields, **rules))
    for number, one in enumerate(columns):
        others = [name for name in names if name != one.name]
        rules = dict(one.rules)
        if others and draw(st.booleans()):
            rules["dependencies"] = tuple(draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True)))
        apart = [name for name in others if name in loose]
        if apart and one.name in loose and draw(st.booleans()):
            rules["excludes"] = tuple(draw(st.lists(st.sampled_from(apart), min_size=1, max_size=2, unique=True)))
        columns[number] = replace(one, rules=rules)
    record = st.fixed_dictionaries({name: VALUES[kind] | st.none() for name, kind in zip(names, kinds, strict=True)})
    records = draw(st.lists(record, min_size=1, max_size=6))
    absent = frozenset(name for name in loose if draw(st.integers(0, 5)) == 0)
    refused = {row: draw(st.frozensets(st.sampled_from(names), min_size=1)) for row in draw(st.sets(st.integers(0, len(records) - 1), max_size=1))}
    for row, values in enumerate(records):
        values.update(dict.fromkeys([*absent, *refused.get(row, ())]))
    return columns, records, absent, {row: found - absent for row, found in refused.items()}


def reference(columns, schema):
    """Cerberus as it comes: a validator for each column's own rules, and one for the whole record."""
    between = ("required", "nullable", "dependencies", "excludes")
    own = {name: {rule: value for rule, value in rules.items() if rule not in between} for name, rules in schema.items()}
    return {name: RecordValidator({name: rules}) for name, rules in own.items()}, RecordValidator(schema)


def row_by_row(columns, schema, validators, record, absent, refused):
    """What becomes of one row when nothing but cerberus.Validator looks at it."""
    record, changed = dict(record), set()
    own, whole = validators
    for one in columns:
        validator = own[one.name]
        if record[one.name] is None or validator.validate({one.name: record[one.name]}):
            continue
        if one.on_error == "null":
            record[one.name] = None
            changed.add((one.name, min(error.rule for error in validator._errors)))
        elif one.on_error == "truncate" and len(record[one.name]) > one.rules["maxlength"]:
            record[one.name] = record[one.name][: one.rules["maxlength"]].rstrip(" \t")
            changed.add((one.name, "truncated"))
    document = {
        name: value
        for name, value in record.items()
        if value is not None or name in refused or (not schema[name]["nullable"] and name not in absent)
    }
    whole.validate(document, normalize=False)
    return record, changed, {name: messages for name, messages in whole.errors.items() if name not in refused}


def leaves(messages):
    for message in messages:
        if isinstance(message, dict):
            for inner in message.values():
                yield from leaves(inner)
        else:
            yield message


@settings(max_examples=300, deadline=None)
@given(tables())
def test_whole_columns_and_row_by_row_give_the_same_rows_and_errors(given_table):
    columns, records, absent, refused = given_table
    compiled = compile_rules(columns)
    rows = typed(columns, records)
    ruled = compiled.apply(rows, absent=absent, refused=refused)
    again = compiled.apply(rows, absent=absent, refused=refused, sampled=np.ones(len(records), dtype=bool))
    assert (again.refused, again.rows) == (ruled.refused, ruled.rows), "verdicts that are remembered are the same"
    found, validators = {}, reference(columns, compiled.schema)
    for row, record in enumerate(records):
        expected, changed, errors = row_by_row(columns, compiled.schema, validators, record, absent, refused.get(row, ()))
        assert ruled.rows.slice(row, 1).to_pylist() == [expected]
        assert {key for key, mask in ruled.changed.items() if mask[row]} == changed
        if errors:
            found[row] = errors
    assert set(ruled.refused) == set(found)
    for row, errors in found.items():
        assert set(ruled.refused[row]) == set(errors)
        for name, messages in errors.items():
            told = list(ruled.refused[row][name].values())
            plain = [message for message in messages if not isinstance(message, dict)]
            assert len([rule for rule in ruled.refused[row][name] if rule != "dependencies"]) == len([m for m in plain if "is required" not in m])
            for message in leaves(messages):
                assert any(message in text for text in told), (message, told)


@settings(max_examples=50, deadline=None)
@given(tables())
def test_schema_that_is_not_checked_again_gives_the_verdicts_of_one_that_is(given_table):
    columns, records, *_ = given_table
    schema = compile_rules(columns).schema
    ours, theirs = record_validator(schema), RecordValidator(schema, allow_unknown=True)
    for record in records:
        document = document_of(record, schema)
        for normalize in (True, False):
            assert ours.validate(document, normalize=normalize) == theirs.validate(document, normalize=normalize)
            assert ours.errors == theirs.errors


ONE_BROKEN = [
    (column(TEXT, required=True), None, "required", "required field"),
    (column(TEXT, nullable=False), None, "nullable", "null value not allowed"),
    (column(TEXT, regex=r"^\d{13}$"), "12", "regex", "value does not match regex '^\\d{13}$'"),
    (column(TEXT, minlength=3), "ab", "minlength", "min length is 3"),
    (column(TEXT, maxlength=1), "ab", "maxlength", "max length is 1"),
    (column(TEXT, empty=False), "", "empty", "empty values not allowed"),
    (column(TEXT, allowed=["A"]), "B", "allowed", "unallowed value B"),
    (column(TEXT, forbidden=["B"]), "B", "forbidden", "unallowed value B"),
    (column(TEXT, check_with="account_number"), "12", "check_with", "is no account number of 13 digits"),
    (column(TEXT, check_with="phone"), "12", "check_with", "is no telephone number of 10 digits"),
    (column(TEXT, check_with="zip_code"), "12", "check_with", "is no ZIP code of 5 digits, or 5 and 4"),
    (column(INTEGER, check_with="year"), 1699, "check_with", "is no year from 1700 to 2200"),
    (column(BIGINT, check_with="zip_code"), 12, "check_with", "is no ZIP code of 5 digits, or 5 and 4"),
    (column(BIGINT, min=0), -1, "min", "min value is 0"),
    (column(BIGINT, max=0), 1, "max", "max value is 0"),
    (column(numeric(38, 2), max=Decimal("9" * 35 + ".98")), Decimal("9" * 35 + ".99"), "max", "max value is " + "9" * 35 + ".98"),
    (column(DATE, min="1990-01-01"), datetime.date(1989, 12, 31), "min", "min value is 1990-01-01"),
    (column(TEXT, anyof=[{"allowed": ["A"]}, {"minlength": 3}]), "B", "anyof",
     "no definitions validate (anyof definition 0: unallowed value B; anyof definition 1: min length is 3)"),
    (column(TEXT, allof=[{"allowed": ["A"]}, {"minlength": 1}]), "B", "allof",
     "one or more definitions don't validate (allof definition 0: unallowed value B)"),
    (column(TEXT, noneof=[{"minlength": 1}]), "B", "noneof", "one or more definitions validate"),
    (column(TEXT, oneof=[{"minlength": 1}, {"maxlength": 1}]), "B", "oneof", "none or more than one rule validate"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "value", "rule", "message"), ONE_BROKEN, ids=[f"{of.type.kind}-{rule}" for of, _, rule, _ in ONE_BROKEN])
def test_broken_rule_is_named_in_the_words_of_cerberus(of, value, rule, message):
    compiled = compile_rules([of])
    assert compiled.apply(typed([of], [{"c": value}])).refused == {0: {"c": {rule: message}}}


@pytest.mark.parametrize(
    ("accepted", "value", "name"),
    [
        (True, "0010010000013", "account_number"), (False, "001001000001", "account_number"), (False, "\u0661" * 13, "account_number"),
        (True, "713-555-0100", "phone"), (True, "(713) 555.0100", "phone"), (False, "713-555-010", "phone"), (False, "713x5550100", "phone"),
        (True, "1700", "year"), (True, "2200", "year"), (False, "2201", "year"), (False, "1699", "year"), (False, "20255", "year"),
        (True, "77002", "zip_code"), (True, "77002-1234", "zip_code"), (True, "770021234", "zip_code"), (False, "77002-", "zip_code"),
        (False, "77002\n", "zip_code"),
    ],
)  # fmt: skip
def test_check_with_accepts_what_its_name_says(accepted, value, name):
    of = column(TEXT, check_with=name)
    assert (compile_rules([of]).apply(typed([of], [{"c": value}])).refused == {}) == accepted
    if value.isdigit() and value.isascii() and value[0] != "0":
        as_number = column(BIGINT, check_with=name)
        assert (compile_rules([as_number]).apply(typed([as_number], [{"c": int(value)}])).refused == {}) == accepted


def test_tenth_in_a_rule_is_a_tenth():
    of = column(numeric(5, 1), min=0.1)
    assert set(compile_rules([of]).apply(typed([of], [{"c": Decimal(value)} for value in ("0.0", "0.1", "0.2")])).refused) == {0}
    of = column(numeric(5, 1), allowed=[0.1])
    assert set(compile_rules([of]).apply(typed([of], [{"c": Decimal(value)} for value in ("0.0", "0.1", "0.2")])).refused) == {0, 2}


@pytest.mark.parametrize(
    ("of", "values", "broken"),
    [
        (column(INTEGER, min=0.5), [-1, 0, 1], [0, 1]), (column(INTEGER, max=-0.5), [-1, 0, 1], [1, 2]),
        (column(BIGINT, min=Decimal("-0.5")), [-1, 0, 1], [0]), (column(BIGINT, max=10**30), [2**63 - 1], []),
        (column(BIGINT, min=10**30), [2**63 - 1, None], [0]), (column(INTEGER, max=-(10**30)), [-(2**31), None], [0]),
        (column(numeric(5, 1), min=Decimal("0.05")), [Decimal("0.0"), Decimal("0.1")], [0]),
        (column(numeric(5, 1), max=Decimal("0.05")), [Decimal("0.0"), Decimal("0.1")], [1]),
        (column(numeric(5, 1), min=10**9), [Decimal("9999.9"), None], [0]), (column(numeric(5, 1), max=-1), [Decimal("-1.0"), Decimal("-0.9")], [1]),
        (column(numeric(7, 3), min=Decimal("0.5")), [Decimal("0.499"), Decimal("0.5"), Decimal("-0.5")], [0, 2]),
        (column(numeric(7, 3), max=0.5), [Decimal("0.501"), Decimal("0.5"), Decimal("0.031")], [0]),
        (column(numeric(7, 3), max=Decimal("-0.5")), [Decimal("-0.499"), Decimal("-0.5"), Decimal("-9.000")], [0]),
        (column(numeric(3, 2), min=Decimal("9.99")), [Decimal("9.98"), Decimal("9.99")], [0]),
        (column(DATE, min=5, max=5), [datetime.date(2000, 1, 1), None], []),  # to Cerberus too, what cannot be compared is within
        (column(TEXT, anyof=[{"minlength": 2}, {"allowed": ["x", "y"]}]), ["x", "z", "zz", None], [1]),
        (column(BIGINT, allowed=[1, 2**40]), [1, 2, 2**40, None], [1]), (column(BIGINT, forbidden=[2**40]), [1, 2**40], [1]),
        (column(INTEGER, allowed=[2**31, -(2**31) - 1]), [1, None], [0]), (column(INTEGER, allowed=[2**31 - 1, -(2**31)]), [2**31 - 1, -(2**31)], []),
        (column(INTEGER, max=-(2**31)), [-(2**31), 1 - 2**31], [1]), (column(BIGINT, min=2**63 - 1), [2**63 - 2, 2**63 - 1], [0]),
        (column(DATE, min="2000-01-01", max="2000-12-31"), [datetime.date(1999, 12, 31), datetime.date(2000, 1, 1), datetime.date(2001, 1, 1)], [0, 2]),
        (column(TEXT, maxlength=2), ["ab", "abc", "\u00d1\u00d1", "\u00d1\u00d1\u00d1"], [1, 3]), (column(TEXT, minlength=2), ["a", "ab", "\u00d1"], [0, 2]),
        (column(TEXT, empty=True, minlength=2), ["", "a"], [1]), (column(TEXT, empty=False, minlength=2), ["", "ab"], [0]),
        (column(TEXT, noneof=[{"empty": True, "minlength": 2}]), ["", "a", "ab"], [0, 2]),
    ],
)  # fmt: skip
def test_values_at_a_limit_are_told_from_those_beyond_it(of, values, broken):
    rows = typed([of], [{"c": value} for value in values])
    assert list(compile_rules([of]).apply(rows, sampled=np.ones(len(values), dtype=bool)).refused) == broken


@pytest.mark.parametrize(
    "of",
    [
        column(TEXT, regex="("), column(TEXT, colour="red"), column(DATE, min="soon"), column(numeric(5, 1), min="x"),
        column(numeric(5, 1), max="nan"), column(TEXT, on_error="truncate"), column(TEXT, on_error="truncate", maxlength=0),
        column(TEXT, dependencies=["nowhere"]), column(TEXT, check_with="colour"),
    ],
)  # fmt: skip
def test_rule_that_cannot_be_used_is_refused_at_once(of):
    with pytest.raises(CatalogError):
        DataTransformer(table(of))


def test_rules_within_a_rule_are_told_with_all_that_they_say():
    of = column(TEXT, anyof=[{"minlength": 2, "allowed": ["ab"]}, {"regex": "[0-9]"}])
    said = compile_rules([of]).apply(typed([of], [{"c": "x"}])).refused[0]["c"]["anyof"]
    assert said == (
        "no definitions validate (anyof definition 0: unallowed value x, min length is 2; "
        "anyof definition 1: value does not match regex '[0-9]')"
    )


def test_nulled_value_is_no_value_to_the_rules_between_columns():
    columns = (column(INTEGER, name="a", min=0, on_error="null"), column(TEXT, name="b", dependencies=("a",)), column(TEXT, name="d", excludes=("a",)))
    records = [
        {"a": -1, "b": "x", "d": None},
        {"a": -1, "b": None, "d": "x"},
        {"a": 1, "b": "x", "d": None},
        {"a": 1, "b": None, "d": "x"},
    ]
    ruled = compile_rules(columns).apply(typed(columns, records), sampled=np.ones(4, dtype=bool))
    assert ruled.refused == {
        0: {"b": {"dependencies": "field 'a' is required"}},
        3: {"d": {"excludes": "'a' must not be present with 'd'"}},
    }
    assert ruled.rows.column("a").to_pylist() == [None, None, 1, 1]
    assert {key: mask.tolist() for key, mask in ruled.changed.items()} == {("a", "min"): [True, True, False, False]}


def test_value_that_typing_refused_is_there_for_other_columns_and_is_not_judged_again():
    columns = (
        column(INTEGER, name="a", required=True, dependencies=("z",)),
        column(TEXT, name="b", dependencies=("n",)),
        column(TEXT, name="d", excludes=("n",)),
        column(INTEGER, name="n", nullable=False),
        column(TEXT, name="z"),
    )
    nothing = dict.fromkeys("abdnz")
    records = [{**nothing, "b": "x"}, {**nothing, "d": "x"}, {**nothing, "n": 1}]
    refused = {0: {"a", "n"}, 1: {"a", "n"}, 2: {"a"}}
    sampled = np.ones(3, dtype=bool)
    excluded = {1: {"d": {"excludes": "'n' must not be present with 'd'"}}}
    assert compile_rules(columns).apply(typed(columns, records), refused=refused, sampled=sampled).refused == excluded
    columns = (columns[2], column(INTEGER, name="n"))
    rows = typed(columns, [{"d": None, "n": 1}, {"d": "x", "n": None}])
    assert compile_rules(columns).apply(rows, refused={1: {"n"}}).refused == excluded


def test_null_breaks_not_nullable_only_where_the_layout_has_the_column():
    columns = (column(TEXT, name="a"), column(TEXT, name="n", nullable=False))
    rows = typed(columns, [{"a": "x", "n": None}])
    compiled = compile_rules(columns)
    assert compiled.apply(rows, sampled=np.array([True])).refused == {0: {"n": {"nullable": "null value not allowed"}}}
    assert compiled.apply(rows, absent=frozenset({"n"}), sampled=np.array([True])).refused == {}


@pytest.mark.fault(43)
def test_overlong_text_is_cut_and_counted_or_quarantined_and_its_neighbours_stay():
    columns = (
        column(TEXT, name="cut", on_error="truncate", maxlength=4, regex="[A-Z ]*"),
        column(TEXT, name="kept", maxlength=4),
        column(TEXT, name="nulled", maxlength=4, on_error="null"),
    )
    records = [dict.fromkeys(("cut", "kept", "nulled"), "FOUR") for _ in range(5)]
    records[1] |= {"cut": "ABC DEF", "nulled": "\u00d1\u00d1\u00d1\u00d1\u00d1"}
    records[2] |= {"cut": "lower case"}
    records[3] |= {"kept": "\u00d1\u00d1\u00d1\u00d1\u00d1"}
    records[4] |= {"cut": "GOOD lower", "kept": "\u00d1\u00d1\u00d1\u00d1"}
    ruled = compile_rules(columns).apply(typed(columns, records), sampled=np.ones(5, dtype=bool))
    assert ruled.refused == {
        2: {"cut": {"regex": "value does not match regex '[A-Z ]*'"}},
        3: {"kept": {"maxlength": "max length is 4"}},
    }
    assert ruled.rows.column("cut").to_pylist() == ["FOUR", "ABC", "lowe", "FOUR", "GOOD"]
    assert ruled.rows.column("nulled").to_pylist() == ["FOUR", None, "FOUR", "FOUR", "FOUR"]
    assert {key: np.flatnonzero(mask).tolist() for key, mask in ruled.changed.items()} == {
        ("cut", "truncated"): [1, 2, 4],
        ("nulled", "maxlength"): [1],
    }


def test_verdict_and_message_of_the_quarantine_are_those_of_cerberus(transformed):
    outcome = transformed(acct(1) + b"\tA\t-1\n" + b"12\tB\t-2\n" + acct(3) + b"\tC\t3\n" + b"\tD\t4\n")
    assert outcome.column("line") == [3]
    assert [row["reasons"] for row in outcome.quarantine] == [
        {"val": ["min value is 0"]},
        {"acct": ["value does not match regex '^\\d{13}$'"], "val": ["min value is 0"]},
        {"acct": ["required field"]},
    ]
    assert outcome.report.refused == {"val:min": 2, "acct:regex": 1, "acct:required": 1}


def test_type_and_rule_errors_of_a_row_are_told_together(transformed):
    outcome = transformed(b"12\tA\tPending\n")
    assert set(outcome.quarantine[0]["reasons"]) == {"acct", "val"}
    assert outcome.report.refused == {"acct:regex": 1, "val:not_a_number": 1}


def test_rule_without_a_kernel_is_judged_once_a_value_and_named_with_its_cost():
    of = column(TEXT, name="owner", anyof=[{"min": "M"}, {"regex": "(?i)a+"}])
    compiled = compile_rules([of])
    assert compiled.slow == ("owner.anyof",)
    rows = typed([of], [{"owner": text} for text in ["AA", "B", None, "Z", "B"] * 100])
    assert set(compiled.apply(rows).refused) == {row for row in range(500) if row % 5 in (1, 4)}
    costs = compiled.take_costs()
    assert list(costs) == ["owner.anyof"]
    assert costs["owner.anyof"].judged in (3, 4)  # distinct values, not rows
    assert costs["owner.anyof"].seconds > 0
    assert compiled.take_costs() == {}


def test_pattern_that_is_not_translated_is_named_with_its_cost():
    of = column(TEXT, regex="(?i)a+")
    compiled = compile_rules([of])
    assert compiled.slow == ("c.regex",)
    assert set(compiled.apply(typed([of], [{"c": text} for text in ("Aa", "b", None)])).refused) == {1}
    assert compiled.take_costs()["c.regex"].judged == 2


def test_rule_that_looks_at_another_columns_value_is_judged_row_by_row():
    columns = (column(TEXT, name="a", dependencies={"b": ["x"]}), column(TEXT, name="b"))
    compiled = compile_rules(columns)
    assert compiled.slow == ("a.dependencies",)
    records = [{"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": None, "b": "y"}, {"a": "1", "b": None}]
    ruled = compiled.apply(typed(columns, records), sampled=np.ones(4, dtype=bool))
    assert ruled.refused == {row: {"a": {"dependencies": "depends on these values: {'b': ['x']}"}} for row in (1, 3)}
    assert compiled.take_costs()["a.dependencies"].judged == 4


def test_slow_rule_is_announced(transformed):
    of = table(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[1], rules={"regex": "(?i)a"}), ACCOUNTS.columns[2], key=("acct",))
    events = []
    outcome = transformed(acct(1) + b"\tA\t1\n" + acct(2) + b"\tB\t1\n", of, on_event=lambda *event: events.append(event))
    assert (outcome.column("line"), outcome.report.refused) == ([1], {"owner:regex": 1})
    assert ("transform.slow_rule", {"table": "test.roll", "rule": "owner.regex"}) in events


def test_what_is_remembered_of_values_stays_small(monkeypatch):
    monkeypatch.setattr(rule_judge, "MOST_REMEMBERED", 10)
    of = column(TEXT, maxlength=1)
    compiled = compile_rules([of])
    rows = typed([of], [{"c": f"{number:04}"} for number in range(100)])
    assert len(compiled.apply(rows).refused) == 100
    assert len(compiled._own[0].judge._known) <= 10


@pytest.mark.parametrize(
    ("rules", "column_type", "bad", "kernel"),
    [
        ({"min": 0}, BIGINT, -1, "_beyond"),
        ({"maxlength": 2}, TEXT, "SECRET", "_length"),
        ({"regex": "[a-z]+"}, TEXT, "SECRET", "_mask"),
        ({"allowed": ["A"]}, TEXT, "SECRET", "_mask"),
    ],
)
def test_disagreement_found_by_the_sample_stops_the_part(rules, column_type, bad, kernel, monkeypatch):
    of = column(column_type, **rules)
    rows = typed([of], [{"c": None}, {"c": bad}])
    monkeypatch.setattr(rule_kernels, kernel, lambda *_: None)
    compiled = compile_rules([of])
    with pytest.raises(AccountingError, match=rf"row 1 of a chunk: Cerberus refuses c \({next(iter(rules))}\), the compiled rules nothing") as caught:
        compiled.apply(rows, sampled=np.array([False, True]))
    assert "SECRET" not in str(caught.value)
    assert compiled.apply(rows, sampled=np.array([True, False])).refused == {}, "the bad row is not of the sample"


def test_disagreement_in_a_part_names_the_line(transformed, monkeypatch):
    monkeypatch.setattr(rule_kernels, "_beyond", lambda *_: None)
    content = b"".join(acct(number) + b"\tA\t1\n" for number in range(1, 4)) + acct(4) + b"\tSECRET\t-1\n"
    with pytest.raises(AccountingError, match=r"line 4 of test\.roll: Cerberus refuses val \(min\)") as caught:
        transformed(content, sample_every=2)
    assert "SECRET" not in str(caught.value)
    assert transformed(content, sample_every=1000).report.written == 4  # no row of the sample is the bad one


def test_column_without_rules_and_required_column_without_nulls_are_not_looked_at(monkeypatch):
    columns = (column(TEXT, name="plain"), column(TEXT, name="key", required=True))
    compiled = compile_rules(columns)
    asked = []
    monkeypatch.setattr(cerberus.Validator, "validate", lambda *_, **__: asked.append(1))
    rows = typed(columns, [{"plain": None, "key": "1"}] * 10)
    ruled = compiled.apply(rows)
    assert (ruled.refused, ruled.changed, asked) == ({}, {}, [])
    assert ruled.rows is rows


def test_chunk_in_pieces_and_in_a_slice_is_judged_as_a_whole_one():
    of = column(TEXT, regex=r"\d{2}", maxlength=3)
    whole = typed([of], [{"c": text} for text in ("xxxx", "12", "34", "5", None, "67")])
    compiled = compile_rules([of])
    assert set(compiled.apply(whole).refused) == {0, 3}
    assert set(compiled.apply(whole.slice(1)).refused) == {2}
    assert set(compiled.apply(whole.slice(1, 2)).refused) == set()
    assert set(compiled.apply(pa.concat_tables([whole, whole.slice(3)])).refused) == {0, 3, 6}
    assert compiled.apply(whole.slice(0, 0)).refused == {}


def test_judge_tells_every_missing_column():
    rules = {"a": {"dependencies": ["c", "b"]}}
    assert judge(record_validator(rules), {"a": 1}) == {"a": {"dependencies": "field 'b' is required; field 'c' is required"}}


@pytest.mark.parametrize("module", ["check_with", "rule_judge", "rule_regex", "transformer"])
def test_examples_of_the_docs_are_true(module):
    failed, tried = doctest.testmod(importlib.import_module(f"pipeline.transform.{module}"))
    assert tried
    assert not failed
