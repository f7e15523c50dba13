"""The account of a part: what the quarantine says of a line, and the report of values, with nothing lost and no person named."""

import base64
import doctest
import importlib
import json
from collections import Counter
from dataclasses import asdict, replace
from decimal import Decimal

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_maker import ACCOUNTS, BIGINT, BOOLEAN, DATE, TEXT, acct, measure, numeric, table, transform_file

from pipeline.catalog.model import Column, Computed
from pipeline.errors import AccountingError, PartRefused
from pipeline.handoff import PartReport
from pipeline.transform import DataTransformer, judgement
from pipeline.transform.coerce import Coerced, Refusal
from pipeline.transform.output import MemberIdentity, Quarantined, _document

PEOPLE = table(
    Column("acct", TEXT, "acct", required=True, rules={"regex": r"^\d{13}$"}),
    Column("owner", TEXT, "owner", personal=True, rules={"forbidden": ["JANE DOE"], "maxlength": 12}),
    Column("born", DATE, "born", personal=True, formats=("%m/%d/%Y",), on_error="null"),
    Column("val", BIGINT, "val", rules={"min": 0, "max": 1000}, nulls=("Pending",), on_error="null"),
    key=("acct",),
)


def bytes_of(row):
    return base64.b64decode(row["raw_base64"]) if "raw_base64" in row else row["raw"].encode(row["encoding"])


def test_quarantined_line_says_where_it_lies_and_what_it_breaks(tmp_path):
    content = acct(1) + b"\tA\t1\r\n\r\n12\tPE\xd1A\tx\r\nbroken\r\n"
    path = tmp_path / "roll.txt"
    path.write_bytes(content)
    outcome = transform_file(path, tmp_path / "out", ACCOUNTS, lines_a_part=3)
    typed, cut = outcome.quarantine
    assert typed == {
        "source": "test", "table": "roll", "sha256": measure(path).sha256, "encoding": "cp1252",
        "line": 3, "offset": content.index(b"12\t"), "raw": "12\tPEÑA\tx", "rules": ["acct:regex", "val:not_a_number"],
        "reasons": {"acct": [r"value does not match regex '^\d{13}$'"], "val": ["is not a plain decimal number"]},
    }  # fmt: skip
    assert (cut["line"], cut["offset"], cut["rules"], cut["raw"]) == (4, content.index(b"broken"), ["*:field_count"], "broken")


@pytest.mark.fault(42)
@pytest.mark.parametrize("octet", [b"\0", b"\x01", b"\x0b", b"\x1f", b"\x7f"])
def test_line_with_a_control_character_is_kept_to_the_byte_and_shown_without_it(transformed, octet):
    (row,) = transformed(acct(1) + b"\tA" + octet + b"B\tx\n").quarantine
    assert row["raw"] == f"{acct(1).decode()}\tA\\x{octet[0]:02x}B\tx"
    assert bytes_of(row) == acct(1) + b"\tA" + octet + b"B\tx"


@pytest.mark.fault(41)
def test_line_with_bytes_that_the_encoding_does_not_know_is_kept_to_the_byte(transformed):
    (row,) = transformed(acct(1) + b"\tA\x81\x8d\t1\n").quarantine
    assert row["rules"] == ["*:encoding"] and row["raw"].endswith("A\\x81\\x8d\t1")
    assert bytes_of(row) == acct(1) + b"\tA\x81\x8d\t1"


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=20), encoding=st.sampled_from(["ascii", "cp1252", "latin-1", "utf-8"]))
def test_quarantine_gives_any_line_back_to_the_byte(raw, encoding):
    line = Quarantined(1, 0, raw, {"*": {"field_count": "line has another number of fields"}})
    row = json.loads(json.dumps(_document(line, MemberIdentity("s", "t", "0", encoding))))
    assert bytes_of(row) == raw
    assert not any(character < " " and character != "\t" for character in row["raw"])


def test_plain_line_is_not_kept_twice(transformed):
    (row,) = transformed(acct(1) + b"\tPE\xd1A \"6'\t\\x00\n").quarantine
    assert "raw_base64" not in row and bytes_of(row) == acct(1) + b"\tPE\xd1A \"6'\t\\x00"


def test_report_names_no_person_and_messages_hold_no_value_of_one(tmp_path, transformed):
    content = acct(1) + b"\tJANE DOE\t\t1\n" + acct(2) + b"\tJOHN ROE\t31/12/1950\t1\n" + acct(3) + b"\tA NAME THAT IS TOO LONG\t\t\n"
    outcome = transformed(content, PEOPLE)
    assert [row["reasons"] for row in outcome.quarantine] == [
        {"owner": ["breaks the rule forbidden"]}, {"owner": ["max length is 12"]},
    ]  # fmt: skip
    report = outcome.report
    assert report.examples == {"born:not_a_date": [{"line": 2}]}
    assert set(report.ranges) == {"val"}
    text = json.dumps(report.examples | report.ranges | dict(report.refused))
    assert not any(name in text for name in ("JANE", "JOHN", "1950"))


def test_changed_values_are_counted_by_rule_with_their_first_examples(transformed):
    lines = [b"%s\tA\t\t%s\n" % (acct(n), value) for n, value in enumerate([b"Pending", b"x", b"-1", b"-2", b"-3", b"-4", b"7"])]
    outcome = transformed(b"".join(lines), PEOPLE, chunk_rows=2)
    assert outcome.column("val") == [None] * 6 + [7]
    report = outcome.report
    assert report.nulled == {"val:declared": 1, "val:not_a_number": 1, "val:min": 4}
    assert report.examples == {
        "val:declared": [{"line": 1, "text": "Pending"}],
        "val:not_a_number": [{"line": 2, "text": "x"}],
        "val:min": [{"line": 3, "text": "-1"}, {"line": 4, "text": "-2"}, {"line": 5, "text": "-3"}],
    }
    assert (report.refused, report.changed) == ({}, {})


@pytest.mark.fault(43)
@pytest.mark.fault(42)
def test_cut_and_blanked_texts_are_counted_as_changed_not_as_null(transformed):
    of = table(
        Column("acct", TEXT, "acct", required=True),
        Column("code", TEXT, "code", rules={"maxlength": 3}, on_error="truncate", controls="blank"),
        key=("acct",),
    )
    outcome = transformed(b"1\tABCDE\n2\tA\0B\n3\t\x01\n4\tAB\n", of)
    assert outcome.column("code") == ["ABC", "A B", None, "AB"]
    assert outcome.report.changed == {"code:control_character": 2, "code:truncated": 1}
    assert outcome.report.examples["code:truncated"] == [{"line": 1, "text": "ABCDE"}]
    assert (outcome.report.nulled, outcome.report.refused) == ({}, {})


def test_change_in_a_row_that_is_refused_is_not_counted(transformed):
    outcome = transformed(b"12\tA\t\tPending\n" + acct(1) + b"\tA\t\tPending\n", PEOPLE)
    assert outcome.report.nulled == {"val:declared": 1}
    assert outcome.report.examples == {"val:declared": [{"line": 2, "text": "Pending"}]}


def test_report_has_nulls_and_ranges_of_what_was_written(transformed):
    of = table(
        Column("acct", TEXT, "acct", required=True), Column("n", numeric(9, 2), "n"), Column("d", DATE, "d", formats=("%m/%d/%Y",)),
        Column("f", BOOLEAN, "f", true_codes=("Y",), false_codes=("N",)), Column("e", TEXT, "e"), key=("acct",),
    )  # fmt: skip
    content = b"1\t2.50\t01/02/2024\tY\t\n2\t-10\t\tN\t\n2\t-10\t\tN\t\n3\t1\t12/31/1999\t\t\n9\t99\tx\t\t\n" + b"Z" * 70 + b"\t\t\t\t\n"
    outcome = transformed(content, of, chunk_rows=2)
    assert outcome.report.nulls == {"n": 1, "d": 2, "f": 2, "e": 4}
    assert outcome.report.ranges == {"n": ["-10.00", "2.50"], "d": ["1999-12-31", "2024-01-02"]}
    table_rows = outcome.rows
    assert {name: table_rows.column(name).null_count for name in ("n", "d", "f", "e")} == outcome.report.nulls


def test_lines_that_break_several_rules_are_told_apart_and_add_up(transformed):
    content = b"12\tA\tx\n" * 3 + b"12\tA\t1\n" + b"broken\n" * 2 + acct(1) + b"\tA\t1\n"
    report = transformed(content).report
    assert report.refused == {"acct:regex": 4, "val:not_a_number": 3, "*:field_count": 2}
    assert report.refused_together == {"acct:regex, val:not_a_number": 3, "acct:regex": 1, "*:field_count": 2}
    assert sum(report.refused_together.values()) == report.quarantined


@pytest.mark.fault(50)
@pytest.mark.parametrize(("good", "bad", "stops"), [(49, 51, True), (50, 50, False), (0, 99, False), (0, 100, True)])
def test_part_stops_when_more_than_half_of_a_hundred_records_or_more_is_refused(tmp_path, good, bad, stops):
    path = tmp_path / "roll.txt"
    path.write_bytes(b"".join(acct(n) + b"\tA\t1\n" for n in range(good)) + b"12\tA\tx\n" * bad)
    if not stops:
        assert transform_file(path, tmp_path / "out", ACCOUNTS, chunk_rows=30).report.quarantined == bad
        return
    expected = rf"part 0 of roll\.txt: {bad} of 100 records are refused, most for acct:regex \({bad}\), val:not_a_number \({bad}\)"
    with pytest.raises(PartRefused, match=expected):
        transform_file(path, tmp_path / "out", ACCOUNTS, chunk_rows=30)
    assert not (tmp_path / "out" / "part-0").exists()


def test_rule_that_is_not_compiled_has_its_cost_in_the_report_of_each_part(transformed):
    either = [{"dependencies": ["owner"]}, {"allowed": ["1"]}]  # looks at another column: every row goes through Cerberus
    of = table(Column("acct", TEXT, "acct", rules={"anyof": either}), Column("owner", TEXT, "owner"))
    outcome = transformed(b"1\t\n2\tA\n3\t\n4\tA\n5\tA\n", of, lines_a_part=3)
    assert [report.slow_rules["acct.anyof"]["judged"] for report in outcome.reports] == [3, 2]
    assert all(report.slow_rules["acct.anyof"]["seconds"] > 0 for report in outcome.reports)
    assert outcome.column("line") == [1, 2, 4, 5]


def test_report_reads_back_equal(transformed):
    outcome = transformed(b"12\tA\t1\n" + acct(1) + b"\tA\t\t\n" + acct(2) + b"\tA\tPending\n")
    assert PartReport.from_json(json.loads(json.dumps(asdict(outcome.report)))) == outcome.report


@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
def test_rows_in_every_place_add_up_by_line(transformed, chunk_rows):
    kinds = [b"%s\tA\t1\n", b"%s\tA\tx\n", b"", b"broken %s\n"]
    lines = [kinds[n % 4] % acct(n) if n % 4 != 2 else b"  \n" for n in range(40)]
    outcome = transformed(b"".join(lines), chunk_rows=chunk_rows)
    assert outcome.column("line") == [n + 1 for n in range(0, 40, 4)]
    assert Counter(row["rules"][0] for row in outcome.quarantine) == {"val:not_a_number": 10, "*:field_count": 10}
    assert outcome.report.filtered == {"blank_line": 10}


def test_row_read_by_itself_that_differs_from_its_columns_stops_the_part(transformed, monkeypatch):
    def wrong(column):
        typer = real(column)
        return typer if column.name != "val" else lambda texts, **known: Coerced(typer(texts, **known).values.take([1, 0]))

    real = judgement.column_typer
    monkeypatch.setattr(judgement, "column_typer", wrong)
    content = acct(1) + b"\tA\t1\n" + acct(2) + b"\tA\t2\n"
    assert transformed(content).column("val") == [2, 1]
    with pytest.raises(AccountingError, match=r"line 2 of test\.roll: val read by itself is another value"):
        transformed(content, sample_every=2)


def test_record_is_judged_by_all_rules_of_the_table():
    transformer = DataTransformer(ACCOUNTS, sample_every=1)
    assert transformer.validate_record({"acct": "12", "owner": None, "val": -1}, transformer.rules.schema) == {
        "acct": [r"value does not match regex '^\d{13}$'"], "val": ["min value is 0"],
    }  # fmt: skip


@pytest.mark.fault(46)
def test_where_the_last_of_several_rows_stands_none_is_merged_within_a_part(transformed):
    content = acct(1) + b"\tA\t1\n" + acct(1) + b"\tB\t1\n" + acct(1) + b"\tA\t1\n"
    first = transformed(content, replace(ACCOUNTS, on_conflict="first"))
    last = transformed(content, replace(ACCOUNTS, on_conflict="last"))
    assert (first.column("line"), first.report.duplicate) == ([1, 2], 1)
    assert (last.column("line"), last.report.duplicate) == ([1, 2, 3], 0)


def test_parquet_has_dictionaries_where_values_repeat_and_statistics_of_the_key(tmp_path):
    path = tmp_path / "roll.txt"
    path.write_bytes(b"".join(acct(n) + b"\tSAME\t%d\n" % n for n in range(1000)))
    transform_file(path, tmp_path / "out", ACCOUNTS)
    group = pq.ParquetFile(tmp_path / "out" / "part-0" / "rows.parquet").metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert {name for name, column in columns.items() if column.has_dictionary_page} == {"owner"}
    assert {name for name, column in columns.items() if column.is_stats_set} == {"acct", "line"}
    assert columns["acct"].statistics.min == acct(0).decode()


def test_rows_are_usable_by_pandas_as_they_are(tmp_path):
    path = tmp_path / "roll.txt"
    path.write_bytes(acct(1) + b"\tPE\xd1A\t7\n")
    transform_file(path, tmp_path / "out", ACCOUNTS)
    frame = pd.read_parquet(tmp_path / "out" / "part-0" / "rows.parquet")
    assert frame[["acct", "owner", "val"]].to_numpy().tolist() == [["0000000000001", "PEÑA", 7]]
    assert frame["val"].dtype == "int64" and frame["line"].tolist() == [1]


def test_whole_numbers_are_numbers_in_ranges_and_exact_ones_text(transformed):
    of = table(Column("acct", TEXT, "acct"), Column("n", numeric(4, 0), "n"), Column("i", BIGINT, "i"))
    report = transformed(b"x\t5\t5\n", of).report
    assert report.ranges == {"n": ["5", "5"], "i": [5, 5]}


@pytest.mark.parametrize("name", ["transformer"])
def test_examples_of_the_documentation_come_true(name):
    failed, tried = doctest.testmod(importlib.import_module(f"pipeline.transform.{name}"))
    assert (failed, tried >= 10) == (0, True)


def test_computed_column_of_one_record_is_that_of_the_columns():
    parts = (Column("full", BIGINT, "full"), Column("half", BIGINT, "half"))
    made = Column("baths", numeric(3, 1), "baths", compute=Computed("bathrooms", ("full", "half")))
    transformer = DataTransformer(table(made, *parts))
    columns = {column.name: column for column in transformer.table.columns}
    assert transformer.normalize_data({"full": "2", "half": "1"}, columns) == {"baths": Decimal("2.5"), "full": 2, "half": 1}
    refused = transformer.normalize_data({"full": "1000", "half": "x"}, columns)
    assert (refused["baths"], refused["half"]) == (Refusal("out_of_range"), Refusal("not_a_number"))
