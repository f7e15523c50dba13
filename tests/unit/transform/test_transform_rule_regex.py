"""What RE2 passes of a translated pattern, Python's ``re`` passes; what is not sure to be so is not translated."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.catalog.model import Column, ColumnType
from pipeline.transform.rule_kernels import kernel
from pipeline.transform.rule_regex import anchored, fixed_digits, translated

ATOMS = st.sampled_from(
    ["a", "b", "0", "-", " ", r"\d", r"\w", r"\s", r"\.", r"\$", ".", "[ab]", "[^a]", "[0-9-]", r"[\d.]", r"[a\-z]", r"[^\d]", "[^]a]",
     r"[\\d]", "\u00d1", "[\u00d1x]", r"\D", r"\b", "(?=a)", "^", "$", "|", r"\1", "[]a]", "[a|b]"]
)  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,2}", "{0,1}", "{1,}", "{,2}", "*?", "++", "{0}"])
PIECES = st.builds(str.__add__, ATOMS, REPEATS)
PATTERNS = st.recursive(
    st.lists(PIECES, min_size=1, max_size=4).map("".join),
    lambda inner: st.builds(lambda head, ways, tail: f"{head}({'|'.join(ways)}){tail}", st.sampled_from(["", "a", "^"]),
                            st.lists(inner, min_size=1, max_size=2), REPEATS),
    max_leaves=4,
)  # fmt: skip
TEXTS = st.text(st.sampled_from("ab01- .$\\\n\r\t\u0661\u00d1\u0301xd|]\u2028"), max_size=6)


@settings(max_examples=600, deadline=None)
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=8))
@example(r"\d", ["0\n", "0", "\u0661"])
@example("[^][\\d]", ["\u0661"])
@example("(a?b?)*", ["ab"])
def test_regex_of_a_column_is_that_of_cerberus(pattern, texts):
    try:
        match = re.compile(anchored(pattern)).match
    except re.error:
        return
    expected = [match(text) is None for text in texts]
    values = pa.array([*texts, None])
    if (faster := translated(pattern)) is not None:
        passed = pc.match_substring_regex(values, pattern=faster).to_pylist()
        assert [text for text, surely, broken in zip(texts, passed, expected, strict=False) if surely and broken] == []
    found = kernel({"regex": pattern}, Column("c", ColumnType("text"), "c"), has_empty=False)(values)
    assert (np.zeros(len(values), bool) if found is None else found).tolist() == [*expected, False]


@pytest.mark.parametrize(
    "pattern",
    [r"^\d{13}$", r"\d+", r"^[0-9]{6}$", "[A-Z]{1,2}[0-9]?", r"(?:0[1-9]|1[0-2])/\d{2}", r"[A-Za-z .'-]+", "", r"b\$", r"\w+\s\w+", "(a|bc)+", "[^,]*"],
)  # fmt: skip
def test_usual_pattern_is_translated(pattern):
    assert translated(pattern) is not None


@pytest.mark.parametrize(
    "pattern",
    ["(?i)a", r"\D", r"(a)\1", "(?=a)a", "(?P<x>a)", r"a\b", "(a*)*", "(a|)+", "(?:a?){2}", "a*?", "a++", "a{,2}", "a{2000}", "[^\\d]", "a{1000}{2}",
     "(a{1000}){1000}", "\\Z", "{", "a\nb", "(a", "a)", "*a"],
)  # fmt: skip
def test_pattern_that_engines_may_read_in_two_ways_is_left_to_python(pattern):
    assert translated(pattern) is None


@pytest.mark.parametrize(("pattern", "digits"), [(r"^\d{13}$", 13), ("[0-9]{5}", 5), (r"\d", None), (r"\d{1,2}", None), (r"\d{0}", None)])
def test_fixed_number_of_digits_is_recognised(pattern, digits):
    assert fixed_digits(pattern) == digits


@pytest.mark.parametrize("texts", [["12", "34"], ["12", None], ["12", "3"], ["12", "345"], ["1", "234"], ["12", "3/"], ["12", "3:"], ["1\u0661", "22"], []])
def test_digits_seen_in_bytes_are_those_seen_by_the_pattern(texts):
    check = kernel({"regex": r"\d{2}"}, Column("c", ColumnType("text"), "c"), has_empty=False)
    for values in (pa.array(texts, pa.string()), pa.array(["x", *texts], pa.string())[1:]):
        found = check(values)
        expected = [text is not None and re.match(r"\d{2}$", text) is None for text in texts]
        assert (np.zeros(len(texts), bool) if found is None else found).tolist() == expected
