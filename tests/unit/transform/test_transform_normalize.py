"""Normalisation: each step does what its examples say, column-wise as one by one, and refuses what it cannot take."""

import doctest

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import TEXT, acct, table

from pipeline.catalog.meta_schema import STEPS
from pipeline.catalog.model import Column
from pipeline.errors import CatalogError
from pipeline.transform import normalize
from pipeline.transform.coerce import MESSAGES, Refusal, column_typer
from pipeline.transform.normalize import Step, normalized_text, one_text


def test_examples_of_every_step_are_true():
    outcome = doctest.testmod(normalize)
    assert outcome.failed == 0
    assert outcome.attempted >= len(STEPS) + 1  # zero_pad too


@pytest.mark.parametrize("step", [*STEPS, "zero_pad:13"])
def test_every_step_of_the_schema_language_exists(step):
    assert one_text(step)("77002") == {"zero_pad:13": "0000000077002"}.get(step, "77002" if step != "phone" else Refusal("not_a_phone"))


@pytest.mark.parametrize("step", ["shout", "zero_pad", "zero_pad:", "zero_pad:0", "zero_pad:100", "UPPER", ""])
def test_unknown_step_is_refused(step):
    with pytest.raises(CatalogError):
        Step.of(step)


@pytest.mark.parametrize(
    ("step", "text", "value"),
    [
        ("title", "MCDONALD O'NEIL", "Mcdonald O'Neil"),
        ("title", "PEOPLE\u2019S D\u2019ANGELO", "People\u2019s D\u2019Angelo"),
        ("title", "\u00f1U\u00d1EZ", "\u00d1u\u00f1ez"),
        ("title", "5TH & 6TH", "5th & 6th"),
        ("lower", "\u0130", "i\u0307"),
        ("upper", "\ufb01", "FI"),
        ("strip_zeros", "0", "0"),
        ("strip_zeros", "0.5", ".5"),
        ("zero_pad:5", "-5", "000-5"),
        ("zero_pad:5", "\u00d1", "0000\u00d1"),
        ("collapse_blanks", "\u00d1 \t A", "\u00d1 A"),
        ("account_number", "0010020000013", "0010020000013"),
        ("account_number", "\u0661\u0662", Refusal("not_an_account_number")),
        ("account_number", "001 002.3", Refusal("not_an_account_number")),
        ("account_number", "-12", Refusal("not_an_account_number")),
        ("phone", "1-713-555-0100", "713-555-0100"),
        ("phone", "17135550100", "713-555-0100"),
        ("phone", "27135550100", Refusal("not_a_phone")),
        ("phone", "\uff11\uff12\uff135550100", Refusal("not_a_phone")),
        ("zip_code", "77002-1234", "77002-1234"),
        ("zip_code", "7700a", Refusal("not_a_zip_code")),
        ("zip_code", "77002+1234", Refusal("not_a_zip_code")),
        ("zip_code", "7-7002-123", Refusal("not_a_zip_code")),
        ("zip_code", "1234-56789", Refusal("not_a_zip_code")),
        ("zip_code", "770021", Refusal("not_a_zip_code")),
        ("zip_code", "7x002-1234", Refusal("not_a_zip_code")),
    ],
)  # fmt: skip
def test_step_gives_its_value_or_its_own_reason(step, text, value):
    assert one_text(step)(text) == value
    texts, refusals = Step.of(step).apply(pa.array([None, text, None]), is_ascii=text.isascii())
    assert texts.to_pylist() == [None, None if isinstance(value, Refusal) else value, None]
    assert {name: mask.tolist() for name, mask in refusals.items()} == (
        {value.reason: [False, True, False]} if isinstance(value, Refusal) else {}
    )
    assert not isinstance(value, Refusal) or MESSAGES[value.reason]


def test_steps_follow_each_other_and_a_refusal_ends_them():
    of = Column("c", TEXT, "c", normalize=("account_number", "zero_pad:13", "phone"))
    coerced = column_typer(of)(pa.array(["21-000", "x", None]), is_ascii=True, has_controls=False)
    assert coerced.values.to_pylist() == [None, None, None]
    assert {name: mask.tolist() for name, mask in coerced.refusals.items()} == {
        "not_an_account_number": [False, True, False],
        "not_a_phone": [True, False, False],
    }


def test_normalised_key_meets_its_rule_and_the_refused_row_is_quarantined_alone(transformed):
    of = table(
        Column("acct", TEXT, "acct", required=True, normalize=("account_number", "zero_pad:13"), rules={"regex": r"^\d{13}$"}),
        Column("zip", TEXT, "zip", normalize=("zip_code",)),
        key=("acct",),
    )
    outcome = transformed(b"10-020\t770021234\n" + acct(2) + b"\t77\n" + acct(3) + b"\t\n", of)
    assert outcome.column("acct") == ["0000000010020", acct(3).decode().strip()]
    assert outcome.column("zip") == ["77002-1234", None]
    assert outcome.report.refused == {"zip:not_a_zip_code": 1}


TEXTS = st.lists(
    st.one_of(
        st.none(),
        st.text("aB'-. \t019\u00df\u0130\u00d1", min_size=1, max_size=10),
        st.text("0123456789", min_size=1, max_size=12),
        st.text("01- ().+", min_size=1, max_size=12),
        st.from_regex(r"[0-9]{5}([ -]?[0-9]{4}|-)?", fullmatch=True),
        st.from_regex(r"\+?1?[0-9]{3}[.-][0-9]{3}[.-][0-9]{4}", fullmatch=True),
    ).map(lambda text: (text or "").strip(" \t") or None),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(step=st.sampled_from([*STEPS, "zero_pad:1", "zero_pad:7"]), texts=TEXTS, is_known=st.booleans())
def test_step_over_a_column_equals_the_step_over_each_text(step, texts, is_known):
    is_ascii = is_known and all(text is None or text.isascii() for text in texts)
    values, refusals = Step.of(step).apply(pa.array(texts, pa.string()), is_ascii=is_ascii)
    for row, text in enumerate(texts):
        expected = None if text is None else normalized_text(text, [one_text(step)])
        reasons = [reason for reason, mask in refusals.items() if mask[row]]
        assert reasons == ([expected.reason] if isinstance(expected, Refusal) else [])
        assert values[row].as_py() == (None if isinstance(expected, Refusal) else expected)
        assert expected != ""  # no step leaves a text empty: a NULL that nothing counts would follow
