"""Which layout and which column is where: decided once a member, refused when in doubt."""

import bz2
import gzip
import json
import lzma
from dataclasses import replace

import pytest
from member_maker import ACCOUNTS, ARB, BIGINT, ROWS, TEXT, acct, measure, table

from pipeline.catalog.model import Column, Computed, Expectation, Layout, VersionField
from pipeline.errors import EmptyMember, HeaderError, LayoutError, VintageError
from pipeline.transform import DataTransformer, choose_layout, read_header, read_version
from pipeline.transform.first_rows import FIRST_ROWS
from pipeline.transform.layout import check_expected

HEADER = b"acct\towner\ttot_mkt_val\r\n"


def reading_of(tmp_path, content, of=ACCOUNTS, year=2025, version=None):
    path = tmp_path / "roll.txt"
    path.write_bytes(content)
    member = measure(path)
    return read_header(of, choose_layout(of, member, year=year, version=version), member)


def with_layout(**options):
    return table(*ACCOUNTS.columns, key=("acct",), layouts=(Layout("delimited", **options),))


def test_first_layout_that_fits_year_version_and_width_is_taken(tmp_path):
    layouts = (
        Layout("fixed_width", years=(2000, 2010), record_width=124),
        Layout("fixed_width", versions=("8.0.0.30",), record_width=124),
        Layout("fixed_width", versions=("8.0.0.22",), record_width=125),
        Layout("fixed_width", versions=("8.0.0.22",), record_width=124),
    )
    of = table(Column("cd", TEXT, "cd", start=1, end=10), layouts=layouts)
    member = measure(ROWS / "STATE_CD.TXT")
    assert choose_layout(of, member, year=2019, version="8.0.0.22") is layouts[3]
    assert choose_layout(of, member, year=2019, version="8.0.0.30") is layouts[1]
    assert choose_layout(of, member, year=2005, version=None) is layouts[0]


@pytest.mark.parametrize(("year", "version"), [(2019, "8.0.0.99"), (2019, None), (1990, "8.0.0.22")])
def test_unknown_year_version_or_width_stops_and_says_what_it_saw(year, version):
    layout = Layout("fixed_width", versions=("8.0.0.22",), years=(2015, 2020), record_width=124)
    of = table(Column("cd", TEXT, "cd", start=1, end=10), layouts=(layout,))
    with pytest.raises(LayoutError, match=rf"{year}, export version .*124 \(45 lines\).*versions 8.0.0.22.*width 124"):
        choose_layout(of, measure(ROWS / "STATE_CD.TXT"), year=year, version=version)


def test_a_few_short_records_do_not_hide_the_layout(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"A" * 10 + b"\r\n" + b"B" * 10 + b"\r\n" + b"C" * 9 + b"\r\n")
    of = table(Column("cd", TEXT, "cd", start=1, end=10), layouts=(Layout("fixed_width", record_width=10),))
    assert choose_layout(of, measure(path), year=2025, version=None).record_width == 10


def test_version_is_read_out_of_the_header_member():
    assert read_version(ROWS / "APPR_HDR.TXT", VersionField("a", "APPR_HDR.TXT", 175, 184)) == "8.0.0.22"


@pytest.mark.parametrize("line", [b"", b"short\r\n", b" " * 184, b"x" * 174 + b"\xff\xff8.0"])
def test_header_member_without_a_version_stops(tmp_path, line):
    path = tmp_path / "hdr"
    path.write_bytes(line)
    with pytest.raises(LayoutError, match="bytes 175 to 184"):
        read_version(path, VersionField("a", "APPR_HDR.TXT", 175, 184))


@pytest.mark.fault(37)
@pytest.mark.parametrize("content", [b"", HEADER, b"\r\n\r\n", b"\n" + HEADER, HEADER[:-2], HEADER + b"\r\n"])
def test_member_without_a_record_is_empty(tmp_path, content):
    with pytest.raises(EmptyMember):
        reading_of(tmp_path, content)


@pytest.mark.fault(37)
@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_fixed_width_member_without_a_record_is_empty(tmp_path, content):
    of = table(Column("cd", TEXT, "cd", start=1, end=10), layouts=(Layout("fixed_width", record_width=10),))
    with pytest.raises(EmptyMember):
        reading_of(tmp_path, content, of)


def test_header_is_found_on_the_first_line():
    member = measure(ROWS / "real_neighborhood_code_2025_head.txt")
    of = table(*(Column(name, TEXT, name) for name in ("cd", "grp_cd", "dscr")), key=("cd",))
    assert read_header(of, of.layouts[0], member).header_line == 1


def test_header_is_found_on_the_last_line():
    member = measure(ROWS / "real_mnrl_2025_tail_header.txt")
    names = ("acct", "dor_cd", "Rail_leasenum", "Type_Interest", "Interest_Percent")
    of = table(*(Column(name.lower(), TEXT, name) for name in names))
    reading = read_header(of, of.layouts[0], member)
    assert reading.header_line == 21
    assert reading.fields == tuple(name.lower() for name in names)


@pytest.mark.fault(37)
def test_member_without_header_takes_the_order_of_the_schema_and_says_so():
    reading = read_header(ARB, ARB.layouts[0], measure(ROWS / "arb_protest_real_2019_slice.txt"))
    assert reading.header_line is None
    assert reading.fields == ("acct", "protested_by", "protested_dt")
    assert "no header" in reading.notes[0]


@pytest.mark.fault(37)
def test_member_without_header_and_with_another_number_of_fields_stops(tmp_path):
    with pytest.raises(HeaderError, match="4 fields in its first line"):
        reading_of(tmp_path, acct(1) + b"\tA\t1\t2\r\n" + acct(2) + b"\tA\t1\t2\r\n")


def test_broken_first_line_does_not_stop_a_member_without_header(tmp_path):
    assert reading_of(tmp_path, acct(1) + b"\tA\r\n" + acct(2) + b"\tA\t1\r\n").header_line is None


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    "header",
    [
        b"\xef\xbb\xbfacct\towner\ttot_mkt_val\n",
        b" ACCT \tOwner\tTOT_MKT_VAL  \r\n",
        b"acct\towner\tMarket\n",
    ],
)
def test_bom_blanks_case_and_alias_of_a_header_do_not_matter(tmp_path, header):
    reading = reading_of(tmp_path, header + acct(1) + b"\tA\t1\n")
    assert (reading.header_line, reading.fields) == (1, ("acct", "owner", "val"))


@pytest.mark.fault(38)
def test_reordered_columns_are_followed_and_noted(tmp_path):
    reading = reading_of(tmp_path, b"tot_mkt_val\tacct\towner\n1\t" + acct(1) + b"\tA\n")
    assert reading.fields == ("val", "acct", "owner")
    assert "another order" in reading.notes[0]


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"acct\towner", "missing: tot_mkt_val"),
        (b"acct\towner\ttot_market_val", "missing: tot_mkt_val; new: tot_market_val; closest to tot_mkt_val: tot_market_val"),
        (b"acct\towner\ttot_mkt_val\tmarket", "stand there more than once: val"),
        (b"acct\towner\ttot_mkt_val\textra", "new: extra"),
        (b"acct\towner\ttot_mkt_val\t", r"new: \(blank\)"),
    ],
)
def test_removed_renamed_doubled_or_unknown_column_stops_and_is_named(tmp_path, header, expected):
    with pytest.raises(HeaderError, match=expected):
        reading_of(tmp_path, header + b"\n" + acct(1) + b"\tA\t1\n")


@pytest.mark.fault(38)
def test_added_column_is_ignored_where_the_layout_says_so_and_noted(tmp_path, transformed):
    of = with_layout(unknown_columns="ignore")
    content = b"acct\tnew\towner\ttot_mkt_val\n" + acct(1) + b"\tx\tA\t1\n"
    reading = reading_of(tmp_path, content, of)
    assert reading.fields == ("acct", None, "owner", "val")
    assert reading.notes == ("columns ignored, which the schema does not name: new",)
    outcome = transformed(content, of)
    assert outcome.column("owner") == ["A"]
    assert outcome.rows.column_names == ["acct", "owner", "val", "row_hash", "line"]


def test_header_with_a_part_of_the_names_is_not_taken_for_data(tmp_path):
    of = table(*(Column(name, TEXT, name) for name in ("acct", "yr", "owner", "str", "zip", "val")))
    with pytest.raises(HeaderError, match="a header for a part only"):
        reading_of(tmp_path, b"acct\tyr\tname\tstreet\tpostal\tvalue\n1\t2\t3\t4\t5\t6\n", of)


def test_value_that_equals_a_column_name_is_data(tmp_path):
    assert reading_of(tmp_path, acct(1) + b"\tOwner\t1\n" + acct(2) + b"\tA\t1\n").header_line is None


def test_header_on_both_ends_stops(tmp_path):
    with pytest.raises(HeaderError, match="the first and the last line are headers"):
        reading_of(tmp_path, HEADER + acct(1) + b"\tA\t1\n" + HEADER)


@pytest.mark.parametrize(("header", "place"), [("first", 1), ("last", 2), ("none", None)])
def test_declared_header_is_looked_for_where_it_is_declared(tmp_path, header, place):
    line = acct(1) + b"\tA\t1\n"
    content = {"first": HEADER + line, "last": line + HEADER, "none": line + line}[header]
    assert reading_of(tmp_path, content, with_layout(header=header)).header_line == place


def test_declared_header_that_is_not_there_stops(tmp_path):
    with pytest.raises(HeaderError, match="lacks wanted columns"):
        reading_of(tmp_path, acct(1) + b"\tA\t1\n" + acct(2) + b"\tA\t1\n", with_layout(header="first"))


def test_absent_columns_are_not_looked_for_and_become_null(tmp_path, transformed):
    content = b"acct\ttot_mkt_val\n" + acct(1) + b"\t7\n"
    of = with_layout(absent=("owner",))
    assert reading_of(tmp_path, content, of).fields == ("acct", "val")
    assert transformed(content, of).column("owner") == [None]


@pytest.mark.fault(41)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_recognised_and_refused(tmp_path, encoding):
    with pytest.raises(LayoutError, match="UTF-16"):
        reading_of(tmp_path, (HEADER + acct(1) + b"\tA\t1\n").decode().encode(encoding))


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress), ("zip", lambda text: b"PK\3\4" + text),
        ("Zstandard", lambda text: b"\x28\xb5\x2f\xfd" + text), ("7z", lambda text: b"7z\xbc\xaf\x27\x1c" + text),
    ],
)  # fmt: skip
def test_member_that_is_compressed_inside_its_archive_is_recognised_and_refused(tmp_path, kind, pack):
    with pytest.raises(LayoutError, match=rf"roll\.txt is compressed \({kind}\) inside its archive"):
        reading_of(tmp_path, pack(HEADER + acct(1) + b"\tA\t1\n"))


def test_utf16_is_recognised_where_a_record_width_is_wanted(tmp_path):
    of = table(Column("n", BIGINT, "n", start=1, end=4), layouts=(Layout("fixed_width", record_width=4),))
    with pytest.raises(LayoutError, match="UTF-16"):
        reading_of(tmp_path, "0001\r\n0002\r\n".encode("utf-16-le"), of)


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    ("line", "year", "value", "is_right"),
    [
        (b"RUN 2025  TRAVIS      x", 2025, "{year}", True),
        (b"RUN 2024  TRAVIS      x", 2025, "{year}", False),
        (b"RUN  2025 TRAVIS      x", 2025, "{year}", True),
        (b"RUN 202", 2025, "{year}", False),
        (b"", 2025, "{year}", False),
    ],
)
def test_header_that_names_another_year_is_refused(tmp_path, line, year, value, is_right):
    path = tmp_path / "HEAD.TXT"
    path.write_bytes(line + b"\r\n")
    expected = Expectation("a", "HEAD.TXT", 5, 9, value)
    if is_right:
        check_expected(measure(path), expected, year)
    else:
        with pytest.raises(VintageError, match=r"HEAD\.TXT says .* at bytes 5 to 9.*'2025', as for tax year 2025"):
            check_expected(measure(path), expected, year)


@pytest.mark.fault(38)
def test_alias_of_a_layout_counts_in_members_of_that_layout_alone(tmp_path):
    content = b"konto\towner\ttot_mkt_val\n" + acct(1) + b"\tA\t1\n"
    assert reading_of(tmp_path, content, with_layout(aliases={"acct": (" Konto",)})).fields == ("acct", "owner", "val")
    with pytest.raises(HeaderError, match="missing: acct; new: konto"):
        reading_of(tmp_path, content, with_layout(aliases={"owner": ("name",)}))


def test_member_without_header_takes_the_order_of_its_layout(tmp_path, transformed):
    of = with_layout(order=("val", "acct", "owner"))
    content = b"1\t" + acct(1) + b"\tA\n" + b"2\t" + acct(2) + b"\tB\n"
    reading = reading_of(tmp_path, content, of)
    assert (reading.fields, reading.notes) == (("val", "acct", "owner"), ("no header: columns in the layout's order",))
    assert transformed(content, of).column("val") == [1, 2]
    assert reading_of(tmp_path, HEADER + acct(1) + b"\tA\t1\n", of).fields == ("acct", "owner", "val")


@pytest.mark.fault(38)
def test_header_with_quotes_is_read_where_the_layout_declares_them(tmp_path):
    of = with_layout(delimiter=",", quote='"')
    content = b'"acct","Owner",tot_mkt_val\n"' + acct(1) + b'","A, B",1\n'
    assert reading_of(tmp_path, content, of).fields == ("acct", "owner", "val")
    assert reading_of(tmp_path, content.replace(b"A, B", b'A "B'), of).header_line == 1


def test_quotes_are_text_of_a_header_where_the_layout_declares_none(tmp_path):
    with pytest.raises(HeaderError, match='missing: acct'):
        reading_of(tmp_path, b'"acct"\towner\ttot_mkt_val\n' + acct(1) + b"\tA\t1\n")


MADE = table(
    Column("id", TEXT, "id", compute=Computed("join", ("acct", "owner"))),
    *ACCOUNTS.columns,
    Column("rest", TEXT, "*"),
    key=("acct",),
    layouts=(Layout("delimited", unknown_columns="keep"),),
)  # fmt: skip


def test_computed_and_keeping_columns_have_no_place_in_header_order_or_number_of_fields(tmp_path, transformed):
    for content in (HEADER + acct(1) + b"\tA\t1\r\n", acct(1) + b"\tA\t1\r\n"):
        assert reading_of(tmp_path, content, MADE).fields == ("acct", "owner", "val")
        outcome = transformed(content, MADE)
        assert (outcome.column("id"), outcome.column("rest")) == (["0000000000001 A"], [None])


@pytest.mark.fault(38)
def test_unknown_columns_are_kept_as_json_under_their_names_whatever_their_order(tmp_path, transformed):
    lines = [b'Zip 4\t%s\tA\t1\t\xe9"\\\n' % acct(1), b" \t%s\tA\t1\t \n" % acct(2), b"12\t%s\tA\t1\t\n" % acct(3)]
    content = b"Zip 4 \tacct\towner\ttot_mkt_val\tna\xefve\n" + b"".join(lines)
    reading = reading_of(tmp_path, content, MADE)
    assert reading.fields == ("*Zip 4", "acct", "owner", "val", "*na\xefve")
    assert reading.notes == ("columns kept, which the schema does not name: Zip 4, na\xefve",)
    kept = transformed(content, MADE).column("rest")
    assert [text and json.loads(text) for text in kept] == [{"Zip 4": "Zip 4", "na\xefve": '\xe9"\\'}, None, {"Zip 4": "12"}]
    swapped = b"acct\towner\ttot_mkt_val\tna\xefve\tZip 4\n" + acct(1) + b'\tA\t1\t\xe9"\\\tZip 4\n'
    assert transformed(swapped, MADE).column("rest") == kept[:1]


def test_control_character_in_a_kept_column_is_escaped_and_stays(transformed):
    content = b"acct\towner\ttot_mkt_val\tx\n" + acct(1) + b"\tA\t1\ta\0b\n"
    assert transformed(content, MADE).column("rest") == ['{"x": "a\\u0000b"}']


def test_two_unknown_columns_of_one_name_cannot_be_kept(tmp_path):
    with pytest.raises(HeaderError, match="columns to keep that stand there more than once: x.*unknown columns kept"):
        reading_of(tmp_path, b"acct\towner\ttot_mkt_val\tx\tx\n" + acct(1) + b"\tA\t1\t2\t3\n", MADE)


@pytest.mark.parametrize(("end", "stated"), [(b"\r\n", 12), (b"\n", 11)])
def test_record_width_may_count_the_line_end(tmp_path, transformed, end, stated):
    of = table(
        Column("cd", TEXT, "cd", start=1, end=4), Column("n", BIGINT, "n", start=5, end=10),
        layouts=(Layout("fixed_width", record_width=stated, includes_line_end=True),),
    )  # fmt: skip
    content = b"AAAA000012" + end + b"BBBB    13" + end + b"CCCC1" + end
    assert reading_of(tmp_path, content, of).record_width == 10
    outcome = transformed(content, of)
    assert (outcome.column("n"), outcome.report.refused) == ([12, 13], {"*:record_width": 1})
    with pytest.raises(LayoutError, match=r"record widths 10 .*record width 9, line end included"):
        reading_of(tmp_path, content, replace(of, layouts=(replace(of.layouts[0], record_width=9),)))


def looked_at(tmp_path, content, of):
    path = tmp_path / "roll.txt"
    path.write_bytes(content)
    member = measure(path)
    reading = read_header(of, choose_layout(of, member, year=2025, version=None), member)
    DataTransformer(of, chunk_rows=FIRST_ROWS).check_first_rows(path, member, reading)


MARKED = with_layout(fingerprint={"acct": r"\d{13}", "val": r"\d+"})


@pytest.mark.fault(38)
@pytest.mark.parametrize(("strange", "is_refused"), [(0, False), (1, False), (2, True)])
def test_member_without_header_must_look_like_its_columns_in_nine_rows_of_ten(tmp_path, strange, is_refused):
    rows = [acct(number) + b"\tA\t1\n" for number in range(10 - strange)] + [b"A\t" + acct(1) + b"\t1\n"] * strange
    if not is_refused:
        return looked_at(tmp_path, b"".join(rows), MARKED)
    with pytest.raises(LayoutError, match=r"first 10 rows of roll\.txt, which has no header, .*: acct \(8 of 10 values match"):
        looked_at(tmp_path, b"".join(rows), MARKED)


def test_fingerprint_judges_values_that_are_there_and_only_without_a_header(tmp_path):
    looked_at(tmp_path, b"".join(acct(number) + b"\tA\t\n" for number in range(10)), MARKED)
    looked_at(tmp_path, HEADER + b"A\tA\tA\n" * 10, MARKED)
