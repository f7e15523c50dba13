"""Where the pieces of the transform meet: keys of the schema language that act on one value, or on one line, together."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from member_maker import ACCOUNTS, BIGINT, INTEGER, TEXT, acct, measure, numeric, table

from pipeline.catalog.model import Column, Computed, Layout
from pipeline.errors import HeaderError
from pipeline.transform import DataTransformer, choose_layout, read_header

ALL_OF_IT = table(
    Column("acct", TEXT, "acct", required=True),
    Column(
        "s", TEXT, "s", controls="blank", nulls=("Pending", "A B"), normalize=("collapse_blanks", "upper"), on_error="truncate",
        rules={"maxlength": 3, "forbidden": ["XYZ"]},
    ),
    key=("acct",),
)  # fmt: skip


@pytest.mark.fault(42)
@pytest.mark.fault(43)
@pytest.mark.parametrize("lines_a_part", [1, 3, None])
def test_controls_nulls_normalize_rules_and_policy_act_in_this_order(transformed, lines_a_part):
    values = [b"\0Pending", b"A\0B", b"\0", b"a\0\0b", b"pending", b"\x01 \x02abcd", b"xy\x03", b"xyz", b"wxyz", b"xyzzy", b"Pending"]
    content = b"".join(b"%d\t%s\n" % (number, value) for number, value in enumerate(values))
    outcome = transformed(content, ALL_OF_IT, lines_a_part=lines_a_part, sample_every=1)
    by_line = dict(zip(outcome.column("line"), outcome.column("s"), strict=True))
    assert by_line == {1: None, 2: None, 3: None, 4: "A B", 5: "PEN", 6: "ABC", 7: "XY", 9: "WXY", 11: None}
    assert [(row["line"], row["rules"]) for row in outcome.quarantine] == [(8, ["s:forbidden"]), (10, ["s:forbidden"])]
    sums = {kind: {} for kind in ("nulled", "changed", "refused")}
    for report in outcome.reports:
        for kind, found in sums.items():
            for rule, count in getattr(report, kind).items():
                found[rule] = found.get(rule, 0) + count
    assert sums == {
        "nulled": {"s:declared": 3}, "changed": {"s:control_character": 6, "s:truncated": 3}, "refused": {"s:forbidden": 2},
    }  # fmt: skip


FULL, HALF = Column("full", INTEGER, "full", rules={"max": 20}, on_error="null"), Column("half", INTEGER, "half", on_error="null")


@pytest.mark.parametrize(
    ("on_error", "rows", "refused"),
    [
        ("null", [Decimal("2.5"), Decimal("1.5"), None, None, None, None], {}),
        ("quarantine", [Decimal("2.5"), Decimal("1.5"), None], {"baths:out_of_range": 1, "baths:max": 2}),
    ],
)
def test_computed_column_has_policies_and_rules_like_any_other(transformed, on_error, rows, refused):
    baths = Column(
        "baths", numeric(3, 1), "baths", compute=Computed("bathrooms", ("full", "half")), rules={"max": Decimal("9.5")}, on_error=on_error
    )
    content = b"2\t1\nx\t3\n\t\n99\t1\n9\t2\n500\t0\n"
    outcome = transformed(content, table(baths, FULL, HALF), sample_every=1)
    assert outcome.column("baths") == rows
    assert outcome.report.refused == refused
    assert outcome.report.nulled["full:not_a_number"] == 1
    if on_error == "null":  # made of what was read: the rules of the columns that it is made from come later
        assert outcome.column("full") == [2, None, None, None, 9, None]
        assert outcome.report.nulled == {"full:not_a_number": 1, "full:max": 2, "baths:out_of_range": 1, "baths:max": 2}


def test_computed_text_is_cut_where_its_policy_says_so(transformed):
    made = Column("id", TEXT, "id", compute=Computed("join", ("a", "b")), rules={"maxlength": 4}, on_error="truncate")
    outcome = transformed(b"abc\tdef\nab\tc\n\t\n", table(made, Column("a", TEXT, "a"), Column("b", TEXT, "b")), sample_every=1)
    assert outcome.column("id") == ["abc", "ab c", None]
    assert (outcome.report.changed, outcome.report.nulls) == ({"id:truncated": 1}, {"id": 1, "a": 1, "b": 1})


@pytest.mark.fault(38)
@pytest.mark.fault(39)
def test_unknown_columns_are_kept_where_quotes_protect_delimiters(transformed):
    of = table(
        Column("acct", TEXT, "acct", required=True), Column("rest", TEXT, "*"), key=("acct",),
        layouts=(Layout("delimited", delimiter=",", quote='"', unknown_columns="keep"),),
    )  # fmt: skip
    content = b'acct,"City, ""old""",x\n1,"HOUSTON, TX",\n2,plain,"6"" PIPE"\n3,"open,x\n4,,\n'
    outcome = transformed(content, of, sample_every=1)
    assert [text and json.loads(text) for text in outcome.column("rest")] == [
        {'City, "old"': "HOUSTON, TX"}, {'City, "old"': "plain", "x": '6" PIPE'}, None,
    ]  # fmt: skip
    assert [(row["line"], row["rules"], row["raw"]) for row in outcome.quarantine] == [(4, ["*:quote"], '3,"open,x')]


@pytest.mark.fault(39)
def test_quote_character_is_the_one_that_the_layout_declares(transformed):
    of = table(
        Column("a", TEXT, "a"), Column("b", TEXT, "b"), layouts=(Layout("delimited", delimiter=";", quote="'", header="none"),)
    )  # fmt: skip
    outcome = transformed(b"'x;y';'it''s'\n\"x;y\"\n'a;b\n", of)
    assert list(zip(outcome.column("a"), outcome.column("b"), strict=True)) == [("x;y", "it's"), ('"x', 'y"')]
    assert [row["rules"] for row in outcome.quarantine] == [["*:quote"]]


def test_member_without_header_in_an_order_of_its_own_matches_its_fingerprint(tmp_path, transformed):
    layout = Layout("delimited", order=("val", "acct", "owner"), fingerprint={"acct": r"\d{13}", "val": r"\d{1,9}"})
    of = replace(ACCOUNTS, layouts=(layout,))
    content = b"".join(b"%d\t%s\tA%d\n" % (number, acct(number), number) for number in range(20))
    path = tmp_path / "roll.txt"
    path.write_bytes(content)
    member = measure(path)
    DataTransformer(of).check_first_rows(path, member, read_header(of, choose_layout(of, member, year=2025, version=None), member))
    outcome = transformed(content, of, lines_a_part=7)
    assert outcome.column("val") == list(range(20)) and outcome.column("owner")[3] == "A3"


@pytest.mark.fault(40)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_layout_that_counts_the_line_end_is_chosen_by_version_and_width(tmp_path, end):
    columns = (Column("cd", TEXT, "cd", start=1, end=4), Column("n", BIGINT, "n", start=5, end=10))
    layouts = tuple(
        Layout("fixed_width", record_width=width + len(end), versions=(version,), includes_line_end=True)
        for version, width in (("8.1", 10), ("8.2", 12))
    )
    of = table(*columns, layouts=layouts)
    path = tmp_path / "roll.txt"
    path.write_bytes(b"AAAA000012" + end + b"BBBB    13")  # the last line has no end
    member = measure(path)
    layout = choose_layout(of, member, year=2025, version="8.1")
    report = DataTransformer(of, sample_every=1).transform_part(path, member, member.parts[0], read_header(of, layout, member), tmp_path / "o")
    assert (layout, report.written) == (layouts[0], 2)


@pytest.mark.fault(40)
@pytest.mark.parametrize("at", range(1, 40))
def test_line_of_blanks_with_one_tab_is_a_record_and_no_blank_line(transformed, at):
    of = table(Column("a", TEXT, "a"), Column("b", TEXT, "b"), layouts=(Layout("delimited", header="none"),))
    line = b" " * at + b"\t" + b" " * (40 - at)
    outcome = transformed(b"x\ty\n" + line + b"\n" + b" " * 41 + b"\n", of)
    assert (outcome.column("line"), outcome.report.filtered) == ([1, 2], {"blank_line": 1})


NAMED = table(
    Column("acct", TEXT, "Acct ", required=True), Column("owner", TEXT, "owner", aliases=("OWNER NAME",)), Column("val", TEXT, "val"),
    key=("acct",),
)  # fmt: skip


@pytest.mark.fault(37)
@pytest.mark.fault(38)
@pytest.mark.parametrize("lines_a_part", [1, 2, None])
def test_header_that_stands_among_the_rows_is_no_row(transformed, lines_a_part):
    content = b"acct\towner\tval\n1\tA\t7\n" + b"ACCT\tOwner Name \t\n" + b"acct\tB\tC\n2\tval\tval\n"
    outcome = transformed(content, NAMED, lines_a_part=lines_a_part, sample_every=1)
    assert outcome.column("acct") == ["1", "acct", "2"]  # an account of that name is one
    assert [(row["line"], row["reasons"]) for row in outcome.quarantine] == [(3, {"acct": ["is the name of the column, as in a header"]})]


def test_value_that_is_its_column_s_name_by_chance_stays(transformed):
    two = table(Column("acct", TEXT, "acct", required=True), Column("owner", TEXT, "owner"), key=("acct",))
    outcome = transformed(b"acct\towner\nacct\tB\n1\tOwner\n2\tC\n", two)
    assert (outcome.column("acct"), outcome.report.refused) == (["acct", "1", "2"], {})


@pytest.mark.fault(37)
@pytest.mark.parametrize("content", [b"\nacct\towner\tval\n1\tA\t7\n", b"1\tA\t7\nacct\towner\tval\n\n"])
def test_header_behind_a_blank_line_does_not_become_a_row(transformed, content):
    outcome = transformed(content, NAMED)
    assert (outcome.column("acct"), outcome.report.refused) == (["1"], {"acct:header": 1})
    with pytest.raises(HeaderError, match="has no header, and 1 fields in its first line, 1 in its last"):
        transformed(b"\n" + content.strip(b"\n") + b"\n\n", NAMED)
