"""Two readers, one meaning: the columns cut out of blocks of bytes are what pandas reads, cell for cell and NA for NA."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from member_maker import TEXT, table, transform_file, write_member

from pipeline.catalog.model import Column, Layout
from pipeline.errors import AccountingError, CatalogError
from pipeline.transform import Reading, columns, fast_delimited, lines, quoted, reader, reference
from pipeline.transform.reader import read_delimited, read_fixed_width

ENCODINGS = ("cp1252", "latin-1", "utf-8", "ascii")
REASONS = {"field_count", "carriage_return", "encoding", "record_width", "quote"}
WORDS = [b"NA", b"None", b"null", b"nan", b"N/A", b"1.50", b"007", b"True", b"-", b'"', b"'", b'a"b', b"\\N", b"\\", b"#"]
ODD = [b" ", b"  ", b"\t", b"\0", b"\x01", b"\x0b", b"\x1c", b"\x1f", b"\x7f", b"\x85", b"\xa0", b"\x80", b"\x81", b"\xd1",
       "Ñ".encode(), "€".encode(), "\u2028".encode(), "\ufeff".encode(), b"\r", b"", b""]  # fmt: skip
PIECE = st.sampled_from([*WORDS, *ODD, b"A", b"ab cd"])
FIELD = st.lists(PIECE, max_size=4).map(b"".join)
END = st.sampled_from([b"\n", b"\r\n"])
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def delimited(draw, fields=3):
    """Lines of mostly the right number of fields; the last one may lack its end."""
    delimiter = draw(st.sampled_from(["\t", "|", ",", '"', "\x1f"]))
    counts = st.sampled_from([fields] * 12 + [1, 2, 4])
    rows = draw(st.lists(counts.flatmap(lambda count: st.tuples(st.lists(FIELD, min_size=count, max_size=count), END)), max_size=12))
    content = b"".join(delimiter.encode().join(row) + end for row, end in rows)
    return delimiter, draw(st.sampled_from([content, content, content.removesuffix(b"\n"), b"\xef\xbb\xbf" + content]))


def fixed(width=9):
    """Lines of mostly the right width."""
    record = FIELD.map(lambda text: (text * 3 + b" " * width)[:width])
    odd = FIELD | record.map(lambda text: text[:-1])
    rows = st.lists(st.tuples(st.one_of(record, record, record, record, odd), END), max_size=12)
    content = rows.map(lambda rows: b"".join(row + end for row, end in rows))
    return st.tuples(content, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.booleans()).map(
        lambda parts: parts[1] + (parts[0].removesuffix(b"\n") if parts[2] else parts[0])
    )


def bare(content):
    """The lines of a member as the rules name them: number -> (place, bytes)."""
    found, place = {}, 0
    for number, line in enumerate(io.BytesIO(content), 1):
        text = line.removesuffix(b"\n")
        text = text.removesuffix(b"\r") if line.endswith(b"\n") else text
        mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
        found[number] = (place + mark, text[mark:])
        place += len(line)
    return found


def decodes(text, encoding):
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def check_chunk(chunk, content, header=None):
    """What holds of every chunk: its form, and that its lines are the member's."""
    there = bare(content)
    for array in chunk.texts.values():
        assert (type(array), array.type, array.offset, len(array)) == (pa.StringArray, pa.string(), 0, chunk.rows)
        array.validate(full=True)
        for text in array.to_pylist():
            assert text is None or (text and text == text.strip(" \t"))
    for row in range(chunk.rows):
        number = int(chunk.line_numbers[row])
        assert (chunk.raw_lines.byte_offset(row), chunk.raw_lines[row]) == there[number]
    for refused in chunk.refused:
        assert (refused.byte_offset, refused.raw) == there[refused.line]
        assert refused.reasons.keys() <= REASONS
        assert refused.reasons
    raws = [chunk.raw_lines[row] for row in range(chunk.rows)]
    assert chunk.is_ascii == all(raw.isascii() for raw in raws)
    assert chunk.lines == chunk.rows + len(chunk.refused) + chunk.blank_lines + chunk.headers
    return raws


def same(chunk, frame):
    """Whether a chunk's texts are a frame's, NA for NA."""
    assert list(chunk.texts) == list(frame.columns)
    for name in frame.columns:
        expected = [None if pd.isna(value) else value for value in frame[name].tolist()]
        assert chunk.texts[name].to_pylist() == expected, name


def account(chunks, content, is_good):
    """Every line is where a rule of one line puts it."""
    there = bare(content)
    assert sum(chunk.lines for chunk in chunks) == len(there)
    blank = {number for number, (_, text) in there.items() if not text.strip(b" ")}
    good = {number for number, (_, text) in there.items() if number not in blank and is_good(text)}
    assert sum(chunk.blank_lines for chunk in chunks) == len(blank)
    assert [number for chunk in chunks for number in chunk.line_numbers.tolist()] == sorted(good)
    assert {line.line for chunk in chunks for line in chunk.refused} == there.keys() - blank - good


@SETTINGS
@given(
    made=delimited(),
    encoding=st.sampled_from(ENCODINGS),
    names=st.sampled_from([("a", "b", "c"), (None, "b", "c"), ("a", None, "c"), ("c", "a", None), (None, "x", None)]),
    chunk_rows=st.sampled_from([1, 2, 3, 100]),
    block_bytes=st.sampled_from([1, 5, 17, 2**20]),
    group_bytes=st.sampled_from([1, 20, 2**20]),
)
@example(("\t", b"a\tb\tc"), "cp1252", ("a", "b", "c"), 100, 5, 1)
def test_delimited_columns_are_what_pandas_reads(tmp_path, made, encoding, names, chunk_rows, block_bytes, group_bytes):
    delimiter, content = made
    layout = Layout("delimited", delimiter=delimiter, encoding=encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        patch.setattr(fast_delimited, "GROUP_BYTES", group_bytes)
        chunks = list(read_delimited(write_member(tmp_path, content), Reading(layout, None, names), None, chunk_rows))
    for chunk in chunks:
        raws = check_chunk(chunk, content)
        low = [raw.replace(delimiter.encode(), b"") for raw in raws]
        assert chunk.has_controls == any(octet < 32 for raw in low for octet in raw)
        if chunk.rows:
            same(chunk, reference.read_csv(chunk.raw_lines, layout, names))
    account(
        chunks, content,
        lambda text: text.count(delimiter.encode()) == 2 and b"\r" not in text and decodes(text, encoding),
    )  # fmt: skip


@SETTINGS
@given(
    content=fixed(),
    encoding=st.sampled_from(ENCODINGS),
    chunk_rows=st.sampled_from([1, 2, 3, 100]),
    block_bytes=st.sampled_from([1, 5, 25, 2**20]),
)
@example(b"ABCDEFGHI", "cp1252", 100, 5)
@example("ABÑEFGHI\nABCÑFGHI\n".encode(), "utf-8", 100, 2**20)
def test_fixed_width_columns_are_what_pandas_reads(tmp_path, content, encoding, chunk_rows, block_bytes):
    positions = {"b": (4, 6), "a": (1, 3), "whole": (1, 9), "over": (8, 20), "beyond": (10, 12), "one": (9, 9)}
    layout = Layout("fixed_width", record_width=9, encoding=encoding)
    reading = Reading(layout, None, tuple(positions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        chunks = list(read_fixed_width(write_member(tmp_path, content), reading, positions, None, chunk_rows))
    for chunk in chunks:
        raws = check_chunk(chunk, content)
        assert chunk.has_controls == any(octet < 32 for raw in raws for octet in raw)
        frame, broken = reference.read_fwf(chunk.raw_lines, positions, encoding)
        assert not broken.any()
        same(chunk, frame)
        for name, (start, end) in positions.items():  # and what both must be: the bytes at the positions
            cut = [raw[start - 1 : end].decode(encoding).strip(" \t") or None for raw in raws]
            assert chunk.texts[name].to_pylist() == cut
    account(
        chunks, content,
        lambda text: len(text) == 9 and b"\r" not in text and decodes(text, encoding)
        and all(decodes(text[start - 1 : end], encoding) for start, end in positions.values()),
    )  # fmt: skip


@SETTINGS
@given(
    rows=st.lists(st.lists(st.sampled_from(["a", '""', "x,y", " ", "", "Ñ", "\t", "NA", '"']).flatmap(
        lambda text: st.sampled_from([text, f'"{text}"', f'"{text.replace(chr(34), chr(34) * 2)}"'])), min_size=1, max_size=4), max_size=8),
    chunk_rows=st.sampled_from([1, 2, 100]),
)  # fmt: skip
def test_quoted_columns_are_what_csv_reads_of_each_line(tmp_path, rows, chunk_rows):
    content = "".join(",".join(row) + "\n" for row in rows).encode("cp1252")
    layout = Layout("delimited", delimiter=",", quote='"')
    path = write_member(tmp_path, content)
    chunks = list(read_delimited(path, Reading(layout, None, ("a", None, "c")), None, chunk_rows))
    expected = {}
    for number, (_, raw) in bare(content).items():
        try:
            fields = next(csv.reader([raw.decode("cp1252")], strict=True), [])
        except csv.Error:
            continue
        if raw.count(b'"') % 2 == 0 and len(fields) == 3:
            expected[number] = tuple(field.strip(" \t") or None for field in (fields[0], fields[2]))
    read = {}
    for chunk in chunks:
        check_chunk(chunk, content)
        read |= dict(zip(chunk.line_numbers.tolist(), zip(*(array.to_pylist() for array in chunk.texts.values()), strict=True), strict=True))
    assert read == expected
    assert list(read) == sorted(read)
    assert sum(chunk.lines for chunk in chunks) == len(rows)


@pytest.mark.fault(39)
def test_unbalanced_quote_refuses_its_own_line_and_keeps_the_order(tmp_path):
    content = b'1,a,x\n2,"b,b",y\n3,"c,z\n4,"d""d",\n5,e,w\n6,"f"f,v\n7,"g,g",h,i\n8,6" x 4",u\n'
    layout = Layout("delimited", delimiter=",", quote='"')
    (chunk,) = read_delimited(write_member(tmp_path, content), Reading(layout, None, ("n", "text", "z")), None, 100)
    assert chunk.texts["n"].to_pylist() == ["1", "2", "4", "5", "8"]
    assert chunk.texts["text"].to_pylist() == ["a", "b,b", 'd"d', "e", '6" x 4"']
    assert chunk.texts["z"].to_pylist() == ["x", "y", None, "w", "u"]
    assert [(line.line, list(line.reasons)) for line in chunk.refused] == [(3, ["quote"]), (6, ["quote"]), (7, ["field_count"])]
    assert chunk.refused[0].reasons["quote"].endswith("a quote is not closed")
    assert chunk.raw_lines[2] == b'4,"d""d",'


def test_quoted_header_names_its_columns(tmp_path):
    of = table(Column("owner", TEXT, "owner, name"), Column("val", TEXT, "val"), layouts=(Layout("delimited", delimiter=",", quote='"'),))
    path = write_member(tmp_path, b'"val","owner, name"\n1,"A ""B"" C, D"\n"2",E\n3,"F\n')
    outcome = transform_file(path, tmp_path / "out", of)
    assert outcome.column("owner") == ['A "B" C, D', "E"]
    assert outcome.column("val") == ["1", "2"]
    assert outcome.report.refused == {"*:quote": 1}


def test_without_a_declared_quote_quotes_are_text(tmp_path):
    layout = Layout("delimited", delimiter=",")
    (chunk,) = read_delimited(write_member(tmp_path, b'"a,b"\n"",x\n'), Reading(layout, None, ("a", "b")), None, 100)
    assert chunk.texts["a"].to_pylist() == ['"a', '""']
    assert quoted.split_fields('"a,b"', layout) == ['"a', 'b"']


@pytest.mark.fault(42)
@pytest.mark.parametrize("control", [b"\0", b"\x01", b"\x0b", b"\x1f"])
def test_control_character_is_a_matter_of_its_field(tmp_path, control):
    content = b"1\ta\n2\tb" + control + b"c\n3\td\n"
    (chunk,) = read_delimited(write_member(tmp_path, content), Reading(Layout("delimited"), None, ("n", "t")), None, 100)
    assert chunk.texts["t"].to_pylist() == ["a", f"b{control.decode()}c", "d"]
    assert chunk.has_controls
    path = write_member(tmp_path, content.replace(b"\t", b" ").replace(b"a", b"a  ").replace(b"d", b"d  "))
    layout = Layout("fixed_width", record_width=5)
    (chunk,) = read_fixed_width(path, Reading(layout, None, ("t",)), {"t": (3, 5)}, None, 100)
    assert chunk.texts["t"].to_pylist() == ["a", f"b{control.decode()}c", "d"]
    assert chunk.has_controls


@pytest.mark.fault(41)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_every_byte_of_an_encoding_is_its_character_or_refuses_its_line(tmp_path, encoding):
    octets = [octet for octet in range(256) if octet not in b"\n\r\t "]
    content = b"".join(b"%03d\t" % octet + bytes([octet]) * 2 + b"\r\n" for octet in octets)
    expected = {octet: (bytes([octet]) * 2).decode(encoding) for octet in octets if decodes(bytes([octet]), encoding)}
    (chunk,) = read_delimited(write_member(tmp_path, content), Reading(Layout("delimited", encoding=encoding), None, ("n", "t")), None, 999)
    assert dict(zip(map(int, chunk.texts["n"].to_pylist()), chunk.texts["t"].to_pylist(), strict=True)) == expected
    assert len(chunk.refused) == len(octets) - len(expected) == (5 if encoding == "cp1252" else 0)
    layout = Layout("fixed_width", record_width=6, encoding=encoding)
    (chunk,) = read_fixed_width(write_member(tmp_path, content), Reading(layout, None, ("n", "t")), {"n": (1, 3), "t": (5, 6)}, None, 999)
    assert dict(zip(map(int, chunk.texts["n"].to_pylist()), chunk.texts["t"].to_pylist(), strict=True)) == expected


@pytest.mark.parametrize("blanks", [1, 63, 64, 65, 200])
def test_any_number_of_blanks_around_a_field_is_trimmed(tmp_path, blanks):
    content = b"|".join([b" " * blanks + b"a b" + b"\t" * blanks, b" \t" * blanks, b"x" + b" " * blanks]) + b"\r\n"
    layout = Layout("delimited", delimiter="|")
    chunk = next(read_delimited(write_member(tmp_path, content * 3), Reading(layout, None, ("a", "b", "c")), None, 2))
    assert [array.to_pylist() for array in chunk.texts.values()] == [["a b"] * 2, [None] * 2, ["x"] * 2]


@pytest.mark.parametrize("block_bytes", range(1, 30))
def test_a_record_that_lies_across_blocks_is_whole(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block_bytes)
    content = b"\xef\xbb\xbf1\taa\r\n22\t\r\n\r\nbad\r\n3\tc\xd1\n44444444\td\r\n5\te"
    chunks = list(read_delimited(write_member(tmp_path, content), Reading(Layout("delimited"), None, ("n", "t")), None, 2))
    for chunk in chunks:
        check_chunk(chunk, content)
    read = {name: [text for chunk in chunks for text in chunk.texts[name].to_pylist()] for name in ("n", "t")}
    assert read == {"n": ["1", "22", "3", "44444444", "5"], "t": ["aa", None, "c\xd1", "d", "e"]}
    assert [number for chunk in chunks for number in chunk.line_numbers.tolist()] == [1, 2, 5, 6, 7]
    assert sum(chunk.blank_lines for chunk in chunks) == 1


def test_record_beside_a_line_of_ten_megabytes_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_delimited, "HUGE_BYTES", 2**20)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 2**25)
    content = b"1\ta\n" + b"x" * 10_000_000 + b"\n2\tb\n" + b"y" * 10_000_000 + b"\t\n3\tc\n"
    (chunk,) = read_delimited(write_member(tmp_path, content), Reading(Layout("delimited"), None, ("n", "t")), None, 100)
    assert chunk.texts["t"].to_pylist() == ["a", "b", None, "c"]
    assert chunk.texts["n"].to_pylist()[2] == "y" * 10_000_000
    assert [line.line for line in chunk.refused] == [2]


PEAK = """
import contextlib, sys
from pathlib import Path
from pipeline.catalog.model import Layout
from pipeline.transform import Reading
from pipeline.transform.reader import read_delimited, read_fixed_width
names = tuple(f"c{number}" for number in range(71))
def read(chunk_rows):
    if sys.argv[1] == "fixed":
        positions = {name: (number * 8 + 1, number * 8 + 8) for number, name in enumerate(names)}
        reading = Reading(Layout("fixed_width", record_width=628), None, names)
        return sum(chunk.rows for chunk in read_fixed_width(Path(sys.argv[2]), reading, positions, None, chunk_rows))
    reading = Reading(Layout("delimited"), None, names)
    return sum(chunk.rows for chunk in read_delimited(Path(sys.argv[2]), reading, None, chunk_rows))
def peak():  # not ru_maxrss, which begins with what the parent had when it forked
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
with contextlib.suppress(OSError):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, with what there is now
before = peak()
rows = read(20_000)
print(rows, (peak() - before) // 1024)
"""


@pytest.mark.parametrize("kind", ["fixed", "delimited"])
def test_chunks_of_20000_rows_and_71_columns_stay_within_120_megabytes(tmp_path, kind):
    record = b"12345   " * 71 + b" " * 60 if kind == "fixed" else b"\t".join([b"12345678"] * 70 + [b"x"])
    path = write_member(tmp_path, (record + b"\r\n") * 60_000)
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", PEAK, kind, path], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 60_000
    assert megabytes <= 120


@pytest.mark.parametrize("place", range(40))
def test_line_of_blanks_but_for_one_byte_is_no_blank_line(tmp_path, place):
    record = bytearray(b" " * 40)
    record[place] = ord("x")
    layout = Layout("fixed_width", record_width=40)
    path = write_member(tmp_path, bytes(record) + b"\n" + b" " * 40 + b"\n")
    (chunk,) = read_fixed_width(path, Reading(layout, None, ("a",)), {"a": (1, 40)}, None, 100)
    assert (chunk.texts["a"].to_pylist(), chunk.blank_lines) == (["x"], 1)


def test_empty_member_has_no_chunk_and_a_chunk_without_a_record_has_no_row(tmp_path):
    reading = Reading(Layout("delimited"), None, ("a", "b"))
    assert list(read_delimited(write_member(tmp_path, b""), reading, None, 100)) == []
    (chunk,) = read_delimited(write_member(tmp_path, b"bad\n\n"), reading, None, 100)
    assert (chunk.rows, chunk.lines, chunk.is_ascii, chunk.has_controls) == (0, 2, True, False)
    assert chunk.texts["a"].to_pylist() == []
    (chunk,) = read_fixed_width(
        write_member(tmp_path, b"bad\n\n"), Reading(Layout("fixed_width", record_width=9), None, ("a",)), {"a": (1, 9)}, None, 100
    )
    assert (chunk.rows, chunk.lines, len(chunk.frame)) == (0, 2, 0)


def test_frame_of_a_chunk_is_the_frame_of_pandas(tmp_path):
    content = b"1\tNA\n2\t \n3\t\n4\tx \n"
    layout = Layout("delimited")
    (chunk,) = read_delimited(write_member(tmp_path, content), Reading(layout, None, ("n", "t")), None, 100)
    pd.testing.assert_frame_equal(chunk.frame, reference.read_csv(chunk.raw_lines, layout, ("n", "t")))


def test_fixed_width_records_with_two_kinds_of_line_ends_are_gathered(tmp_path):
    content = b"".join(b"%03dab" % row + (b"\r\n", b"\n")[row % 3 == 0] for row in range(100))
    layout = Layout("fixed_width", record_width=5)
    chunks = list(read_fixed_width(write_member(tmp_path, content), Reading(layout, None, ("n",)), {"n": (1, 3)}, None, 30))
    assert [int(text) for chunk in chunks for text in chunk.texts["n"].to_pylist()] == list(range(100))


def test_reader_that_gives_fewer_rows_stops_the_part(tmp_path, monkeypatch):
    real = reader.cut_delimited
    monkeypatch.setattr(reader, "cut_delimited", lambda *given: {name: array[1:] for name, array in real(*given).items()})
    path = write_member(tmp_path, b"1\ta\n2\tb\n")
    with pytest.raises(AccountingError, match="1 rows of n were read from the 2 lines that begin at line 1"):
        list(read_delimited(path, Reading(Layout("delimited"), None, ("n", "t")), None, 100))


def test_encoding_that_is_neither_utf8_nor_of_one_byte_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="shift_jis"):
        list(read_delimited(write_member(tmp_path, b"a\n"), Reading(Layout("delimited", encoding="shift_jis"), None, ("a",)), None, 9))


@given(texts=st.lists(st.text(st.sampled_from("ab \tÑ€"), max_size=5), max_size=20))
def test_null_stands_where_a_text_is_empty_and_nowhere_else(texts):
    array = columns.null_where_empty(columns.in_one_piece([pa.array(texts[:7], pa.string()), pa.array(texts[7:], pa.string())]))
    array.validate(full=True)
    assert array.to_pylist() == [text or None for text in texts]
    assert array.null_count == texts.count("")


@given(texts=st.lists(st.text(st.sampled_from("ab Ñ€\u2019"), max_size=5), max_size=20))
def test_bytes_become_text_at_their_places(texts):
    raw = [text.encode("cp1252") for text in texts]
    places = np.concatenate((np.zeros(1), np.cumsum([len(text) for text in raw]))).astype(np.int32)
    array = columns.decoded(columns.strings(places, pa.py_buffer(b"".join(raw))), "cp1252")
    array.validate(full=True)
    assert array.to_pylist() == texts
