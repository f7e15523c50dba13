"""Lines and readers: every line is in one place, and a bad one harms no neighbour."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from member_maker import ACCOUNTS, BIGINT, ROWS, TEXT, acct, measure, table

from pipeline.catalog.model import Column, Layout
from pipeline.errors import CatalogError
from pipeline.transform import DataTransformer, Reading, lines

GOOD = [acct(number) + b"\tOWNER %d\t%d" % (number, number) for number in range(1, 6)]
FIXED = table(
    Column("id", BIGINT, "id", start=1, end=5, required=True),
    Column("name", TEXT, "name", start=6, end=15),
    Column("note", TEXT, "note", start=18, end=20),
    key=("id",),
    layouts=(Layout("fixed_width", record_width=20),),
)


def between(bad: bytes, end: bytes = b"\r\n") -> bytes:
    """Two good lines, a bad one, three good ones."""
    return end.join([*GOOD[:2], bad, *GOOD[2:], b""])


@pytest.mark.fault(39)
@pytest.mark.parametrize("owner", [b'"', b'6" PIPE', b'"A', b'A"', b'"A""', b"'", b'"\'"'])
def test_unbalanced_quote_loses_no_row(transformed, owner):
    outcome = transformed(between(acct(9) + b"\t" + owner + b"\t9"))
    assert outcome.report.written == 6
    assert outcome.column("owner")[2] == owner.decode()


@pytest.mark.fault(39)
def test_quote_at_the_line_end_loses_no_row(transformed):
    of = table(Column("acct", TEXT, "acct"), Column("note", TEXT, "note"), key=("acct",))
    outcome = transformed(b'1\t4"\r\n2\t"\r\n3\tx\r\n', of)
    assert outcome.column("note") == ['4"', '"', "x"]


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (acct(9) + b"\tshort", "field_count"),
        (acct(9) + b"\ta\tb\t1", "field_count"),
        (acct(9) + b"\tca\rr\t1", "carriage_return"),
        (acct(9) + b"\tcarr\t1\r", "carriage_return"),
        (acct(9) + b"\t" + b"x" * 10_000_000, "field_count"),
        (acct(9) + b"\t\x81\t1", "encoding"),
    ],
)
def test_line_that_is_no_record_is_quarantined_with_its_number_and_no_other(transformed, bad, reason):
    outcome = transformed(between(bad))
    assert outcome.column("line") == [1, 2, 4, 5, 6]
    assert outcome.column("val") == [1, 2, 3, 4, 5]
    assert outcome.report.refused == {f"*:{reason}": 1}
    (row,) = outcome.quarantine
    assert row["line"] == 3
    assert row["raw"] == bad.decode("cp1252", errors="backslashreplace").replace("\0", "\\x00").replace("\r", "\\x0d")
    assert list(row["reasons"]) == ["*"]


def test_several_reasons_of_a_line_are_all_told(transformed):
    outcome = transformed(between(b"\r\x81"))
    assert outcome.report.refused == {"*:carriage_return": 1, "*:encoding": 1, "*:field_count": 1}
    assert outcome.report.quarantined == 1


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("bad", "column", "reason"),
    [
        (acct(9) + b"\tnu\0l\t1", "owner", "control_character"),
        (acct(9) + b"\tA\t1\0", "val", "not_a_number"),
        (acct(9) + b"\0\tA\t1", "acct", "control_character"),
    ],
)
def test_nul_is_refused_with_the_column_it_stands_in(transformed, bad, column, reason):
    outcome = transformed(between(bad))
    assert outcome.column("line") == [1, 2, 4, 5, 6]
    assert outcome.report.refused == {f"{column}:{reason}": 1}
    (row,) = outcome.quarantine
    assert (row["line"], row["raw"]) == (3, bad.decode().replace("\0", "\\x00"))


@pytest.mark.fault(40)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_last_line_without_end_is_a_row(transformed, end):
    outcome = transformed(end.join(GOOD))
    assert outcome.column("val") == [1, 2, 3, 4, 5]


@pytest.mark.fault(37)
def test_blank_lines_are_counted_not_lost(transformed):
    outcome = transformed(b"\r\n".join([GOOD[0], b"", b"   ", GOOD[1], b"", b""]))
    assert outcome.report.filtered == {"blank_line": 3}
    assert (outcome.report.read, outcome.report.written) == (5, 2)


@pytest.mark.parametrize("text", ["NA", "None", "null", "nan", "N/A", "-", "#N/A", "NULL", "<NA>", "True"])
def test_words_for_missing_are_text(transformed, text):
    assert transformed(acct(1) + b"\t" + text.encode() + b"\t1\n").column("owner") == [text]


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1252", "PE\u00d1A \u20ac\u2019"), ("utf-8", "PE\u00d1A \u4e2d"), ("latin-1", "PE\u00d1A")]
)
def test_declared_encoding_is_read_right(transformed, encoding, text):
    of = table(*ACCOUNTS.columns, key=("acct",), layouts=(Layout("delimited", encoding=encoding),))
    outcome = transformed(acct(1) + b"\t" + text.encode(encoding) + b"\t1\n", of)
    assert outcome.column("owner") == [text]


@pytest.mark.fault(41)
def test_random_bytes_are_counted_not_dropped(transformed):
    of = table(*ACCOUNTS.columns, key=("acct",), layouts=(Layout("delimited", encoding="utf-8"),))
    content = b"".join(acct(octet) + b"\t" + bytes([octet]) + b"\t1\n" for octet in range(128, 256))
    good = b"".join(acct(number) + b"\tA\t1\n" for number in range(1000, 1128))
    outcome = transformed(content + good, of)
    assert (outcome.report.written, outcome.report.quarantined) == (128, 128)
    assert outcome.quarantine[0]["raw"] == f"{128:013}\t\\x80\t1"


def test_mark_at_the_start_of_a_chunk_is_text_and_at_the_start_of_the_member_is_not(transformed):
    of = table(Column("a", TEXT, "a"), Column("b", TEXT, "b"), layouts=(Layout("delimited", encoding="utf-8"),))
    for options in ({"chunk_rows": 1}, {"lines_a_part": 1}):
        outcome = transformed("\ufeffx\t1\n\ufeffx\t2\n\ufeffx\t3\n".encode(), of, **options)
        assert outcome.column("a") == ["x", "\ufeffx", "\ufeffx"]


@pytest.mark.parametrize("delimiter", ["|", ",", "_", "#", '"', "\\", "^", ";"])
def test_any_ascii_delimiter_divides_fields(transformed, delimiter):
    columns = (Column("first_name", TEXT, "first_name"), Column("b", TEXT, "b"), Column("c", TEXT, "c"))
    of = table(*columns, layouts=(Layout("delimited", delimiter=delimiter, header="none"),))
    outcome = transformed(delimiter.join(["x", "", "z"]).encode() + b"\n", of)
    assert [outcome.column(name) for name in ("first_name", "b", "c")] == [["x"], [None], ["z"]]


def test_delimiter_of_several_bytes_is_refused(transformed):
    with pytest.raises(CatalogError, match="delimiter"):
        transformed(b"x\n", table(Column("a", TEXT, "a"), layouts=(Layout("delimited", delimiter="\u00a7"),)))


def test_lines_longer_than_a_block_are_whole(transformed, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 7)
    outcome = transformed(b"\r\n".join(GOOD) + b"\r\n")
    assert outcome.column("val") == [1, 2, 3, 4, 5]
    assert outcome.column("line") == [1, 2, 3, 4, 5]


# Fixed width


def fixed(number: int, name: bytes = b"NAME") -> bytes:
    return b"%05d" % number + name.ljust(10) + b"##" + b"abc"


@pytest.mark.fault(40)
@pytest.mark.parametrize("bad", [fixed(9)[:-1], fixed(9) + b" ", fixed(9)[:10]])
def test_record_of_another_width_is_quarantined_and_no_other(transformed, bad):
    outcome = transformed(b"\r\n".join([fixed(1), bad, fixed(3), fixed(4), b""]), FIXED)
    assert outcome.column("id") == [1, 3, 4]
    assert outcome.report.refused == {"*:record_width": 1}
    assert outcome.quarantine[0]["line"] == 2


def test_real_records_of_fixed_width_are_read_whole(transformed):
    columns = (
        Column("state_cd", TEXT, "state_cd", required=True, start=1, end=10),
        Column("state_cd_desc", TEXT, "state_cd_desc", start=11, end=60),
        Column("yr", BIGINT, "yr", start=121, end=125),
    )
    layout = Layout("fixed_width", record_width=124, positions={"yr": (121, 124)})
    outcome = transformed(ROWS / "STATE_CD.TXT", table(*columns, key=("state_cd",), layouts=(layout,)))
    assert outcome.report.written == 45
    assert outcome.rows.slice(1, 1).drop_columns(["row_hash", "line"]).to_pylist() == [
        {"state_cd": "A2", "state_cd_desc": "SINGLE FAMILY RESIDENCE MH", "yr": 2019}
    ]


def test_blank_fields_of_a_fixed_width_record_are_null_and_the_row_stays(transformed):
    of = table(
        Column("a", TEXT, "a", start=1, end=3), Column("b", TEXT, "b", start=4, end=6),
        layouts=(Layout("fixed_width", record_width=8),),
    )  # fmt: skip
    outcome = transformed(b"      zz\nabc   zz\n        \n", of)
    assert outcome.column("a") == [None, "abc"]
    assert outcome.column("b") == [None, None]
    assert outcome.report.filtered == {"blank_line": 1}


def test_bytes_not_characters_are_the_positions_of_fixed_width(transformed):
    of = table(*FIXED.columns, key=("id",), layouts=(Layout("fixed_width", record_width=20, encoding="utf-8"),))
    split = b"00003" + "\u00d1".encode() * 4 + b"x" + "\u00d1".encode() + b"#" + b"abc"  # ends in the middle of a letter
    outcome = transformed(b"\n".join([fixed(1, "\u00d1ANDU".encode()), split, fixed(2)]), of)
    assert outcome.column("name") == ["\u00d1ANDU", "NAME"]
    assert outcome.column("note") == ["abc", "abc"]
    assert outcome.report.refused == {"*:encoding": 1}
    assert outcome.quarantine[0]["line"] == 2


def test_field_without_a_position_is_refused(tmp_path):
    of = table(Column("a", TEXT, "a"), layouts=(Layout("fixed_width", record_width=3),))
    with pytest.raises(CatalogError, match=r"roll\.a has no position"):
        list(DataTransformer(of).parse_fixed_width(tmp_path / "x", Reading(of.layouts[0], None, ("a",))))


FIELD = st.text(st.sampled_from("ab \"'0\t#\x0b\x1c\x85\u00d1\u20ac"), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(records=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8), chunk_rows=st.integers(1, 4))
def test_fixed_width_fields_are_the_bytes_at_their_positions(tmp_path, records, chunk_rows):
    of = table(
        Column("a", TEXT, "a", start=1, end=4), Column("b", TEXT, "b", start=5, end=8),
        layouts=(Layout("fixed_width", record_width=8),),
    )  # fmt: skip
    rows = [b"".join(field.encode("cp1252", errors="replace").ljust(4) for field in record) for record in records]
    rows = [row.replace(b"\x81", b"?") for row in rows]
    path = tmp_path / "m"
    path.write_bytes(b"\n".join(rows) + b"\n")
    chunks = list(DataTransformer(of, chunk_rows=chunk_rows).parse_fixed_width(path, Reading(of.layouts[0], None, ("a", "b"))))
    read = [tuple(row) for chunk in chunks for row in chunk.frame.astype(object).itertuples(index=False)]
    read = [tuple("" if pd.isna(value) else value for value in row) for row in read]
    cut = [(row[:4].decode("cp1252").strip(" \t"), row[4:].decode("cp1252").strip(" \t")) for row in rows if row.strip(b" ")]
    assert read == cut


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=60) | st.text("ab\t\r\n\" ").map(str.encode), chunk_rows=st.integers(1, 4))
def test_any_bytes_are_accounted_for_line_by_line(tmp_path, content, chunk_rows):
    of = table(Column("a", TEXT, "a"), Column("b", TEXT, "b"))
    path = tmp_path / "m"
    path.write_bytes(content)
    chunks = list(DataTransformer(of, chunk_rows=chunk_rows).parse_delimited(path, Reading(of.layouts[0], None, ("a", "b"))))
    assert sum(chunk.lines for chunk in chunks) == measure(path).lines
    for chunk in chunks:
        for row, (a, b) in enumerate(chunk.frame.astype(object).itertuples(index=False)):
            texts = ["" if pd.isna(value) else value for value in (a, b)]
            assert texts == [field.strip(" \t") for field in chunk.raw_lines[row].decode("cp1252").split("\t")]
