"""A part: its folder, its account, and the same outcome however the member is cut."""

import datetime
import errno
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from member_maker import (
    ACCOUNTS,
    ARB,
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    ROWS,
    TEXT,
    acct,
    measure,
    numeric,
    table,
    transform_file,
)

from pipeline.catalog.model import Column
from pipeline.errors import AccountingError, DiskError
from pipeline.handoff import PartReport, read_json
from pipeline.transform import DataTransformer, Reading, row_hashes, transformer

GOOD = b"".join(acct(number) + b"\tOWNER %d\t%d\r\n" % (number, number) for number in range(1, 8))


def reading(of=ACCOUNTS, header_line=None):
    return Reading(of.layouts[0], header_line, tuple(column.name for column in of.columns))


def run(tmp_path, content=GOOD, of=ACCOUNTS, name="out", **options):
    path = tmp_path / "roll.txt"
    path.write_bytes(content)
    member = measure(path)
    folder = tmp_path / name
    return DataTransformer(of, **options).transform_part(path, member, member.parts[0], reading(of), folder), folder


def test_folder_holds_rows_quarantine_and_report_and_nothing_is_left_beside_it(tmp_path):
    report, folder = run(tmp_path)
    assert sorted(os.listdir(folder)) == ["quarantine.jsonl", "report.json", "rows.parquet"]
    assert sorted(os.listdir(tmp_path)) == ["out", "roll.txt"]
    assert PartReport.from_json(read_json(folder / "report.json")) == report
    assert (report.table, report.part, report.read, report.written) == ("test.roll", 0, 7, 7)
    assert report.is_balanced


def test_parquet_has_the_declared_types_then_hash_and_line(transformed):
    of = table(
        Column("t", TEXT, "t"), Column("i", INTEGER, "i"), Column("b", BIGINT, "b"), Column("n", numeric(14, 4), "n"),
        Column("d", DATE, "d", formats=("%m/%d/%Y",)), Column("f", BOOLEAN, "f", true_codes=("Y",), false_codes=("N",)),
    )  # fmt: skip
    outcome = transformed(b"x\t1\t2\t3.5\t01/02/2024\tY\n\t\t\t\t\t\n", of)
    types = dict(zip(outcome.rows.schema.names, outcome.rows.schema.types, strict=True))
    assert types == {
        "t": pa.string(), "i": pa.int32(), "b": pa.int64(), "n": pa.decimal128(14, 4), "d": pa.date32(), "f": pa.bool_(),
        "row_hash": pa.string(), "line": pa.int64(),
    }  # fmt: skip
    first, second = outcome.rows.drop_columns(["row_hash"]).to_pylist()
    day = datetime.date(2024, 1, 2)
    assert first == {"t": "x", "i": 1, "b": 2, "n": Decimal("3.5"), "d": day, "f": True, "line": 1}
    assert second == {**dict.fromkeys("tibndf"), "line": 2}


def test_folder_that_is_there_is_the_result_and_is_not_made_again(tmp_path):
    report, folder = run(tmp_path)
    path = tmp_path / "roll.txt"
    member = measure(path)
    path.unlink()
    assert DataTransformer(ACCOUNTS).transform_part(path, member, member.parts[0], reading(), folder) == report


def test_working_folder_of_a_killed_process_is_no_result(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import pipeline.transform.output as output
from test_transform_part import run
output.publish_folder = lambda part, folder: os.kill(os.getpid(), signal.SIGKILL)
run(Path(sys.argv[1]))
"""
    paths = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path), *paths])
    assert killed.returncode == -9
    (left,) = set(os.listdir(tmp_path)) - {"roll.txt"}
    assert left.startswith(".out.") and left.endswith(".part")
    report, _ = run(tmp_path)
    assert report.written == 7


def test_working_folder_with_our_own_number_is_written_anew(tmp_path):
    stale = tmp_path / f".out.{os.getpid()}.part"
    stale.mkdir()
    (stale / "quarantine.jsonl").write_text("stale\n")
    _, folder = run(tmp_path)
    assert (folder / "quarantine.jsonl").read_text() == ""


def test_error_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(transformer, "row_hashes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    assert os.listdir(tmp_path) == ["roll.txt"]


@pytest.mark.fault(50)
def test_write_that_fails_is_a_disk_error_and_leaves_no_folder(tmp_path):
    path = tmp_path / "roll.txt"
    path.write_bytes(b"bad line " * 10 + b"\n" + (b"x" * 99 + b"\n") * 2000)
    member = measure(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DiskError, match=os.strerror(errno.EFBIG)):
            DataTransformer(ACCOUNTS).transform_part(path, member, member.parts[0], reading(), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == ["roll.txt"]


@pytest.mark.parametrize("lines", [6, 8])
def test_part_that_is_not_what_was_measured_is_an_accounting_error(tmp_path, lines):
    path = tmp_path / "roll.txt"
    path.write_bytes(GOOD)
    member = measure(path)
    part = replace(member.parts[0], lines=lines)
    with pytest.raises(AccountingError, match=f"7 lines read.*part's {lines} lines"):
        DataTransformer(ACCOUNTS).transform_part(path, member, part, reading(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_header_is_no_record_of_the_part_it_lies_in(transformed):
    outcome = transformed(ROWS / "real_mnrl_2025_tail_header.txt", table(
        *(Column(name.lower(), TEXT, name) for name in ("acct", "dor_cd", "Rail_leasenum", "Type_Interest", "Interest_Percent")),
    ), lines_a_part=10)  # fmt: skip
    assert [report.read for report in outcome.reports] == [10, 10, 0]
    assert outcome.rows.num_rows == 20


def test_every_outcome_is_counted_once(transformed):
    content = GOOD + acct(1) + b"\tOWNER 1\t1\r\n" + b"\r\n" + b"broken\r\n" + acct(9) + b"\tX\tPending\r\n"
    report = transformed(content).report
    assert (report.read, report.written, report.quarantined, report.duplicate) == (11, 7, 2, 1)
    assert report.filtered == {"blank_line": 1}
    assert report.refused == {"*:field_count": 1, "val:not_a_number": 1}


@pytest.mark.fault(43)
def test_overlong_text_is_quarantined_never_cut(transformed):
    outcome = transformed(acct(1) + b"\t1234567\t01/02/2024\n" + acct(2) + b"\t123456\t01/02/2024\n", ARB)
    assert outcome.column("protested_by") == ["123456"]
    assert outcome.report.refused == {"protested_by:maxlength": 1}


@pytest.mark.fault(45)
def test_value_nulled_by_the_column_s_policy_is_counted_and_its_row_stays(transformed):
    dates = replace(ARB.columns[2], on_error="null")
    of = table(*ARB.columns[:2], dates)
    content = acct(1) + b"\tA\t02/30/2024\n" + acct(2) + b"\tA\t01/01/3000\n" + b"12\tA\t99/99/9999\n" + acct(4) + b"\tA\t\n"
    outcome = transformed(content, of)
    assert outcome.column("protested_dt") == [None, None, None]
    # The third row is quarantined for its account, so nothing of it became NULL.
    assert outcome.report.nulled == {"protested_dt:not_a_date": 1, "protested_dt:out_of_range": 1}
    assert outcome.report.refused == {"acct:regex": 1}


def test_required_column_is_never_nulled_into_a_row(transformed):
    of = table(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[2], source="val", required=True, on_error="null"), key=("acct",))
    outcome = transformed(acct(1) + b"\tPending\n" + acct(2) + b"\t1\n", of)
    assert outcome.column("line") == [2]
    assert (outcome.report.refused, outcome.report.nulled) == ({"val:required": 1}, {})


@pytest.mark.fault(46)
def test_identical_rows_merge_and_conflicting_ones_stay(transformed):
    content = b"".join([
        acct(1) + b"\tA\t1\n", acct(1) + b"\tA  \t001\n", acct(1) + b"\tB\t1\n", acct(1) + b"\tA\t1\n", acct(2) + b"\tA\t1\n",
    ])  # fmt: skip
    outcome = transformed(content, chunk_rows=2)
    assert outcome.column("line") == [1, 3, 5]
    assert outcome.report.duplicate == 2


@pytest.mark.fault(46)
def test_half_a_member_of_duplicates_is_counted(transformed):
    outcome = transformed(GOOD * 2)
    assert (outcome.report.written, outcome.report.duplicate) == (7, 7)


def test_equal_rows_of_a_table_without_key_all_stay(transformed):
    outcome = transformed((acct(1) + b"\tA\t01/02/2024\n") * 3, ARB)
    assert (outcome.report.written, outcome.report.duplicate) == (3, 0)


def test_deduplicate_takes_any_typed_table_in_file_order():
    rows = pa.table({"acct": ["1"] * 3, "owner": ["A", "A", None], "val": pa.array([1] * 3, pa.int64()), "line": [1, 2, 3]})
    kept, dropped = DataTransformer(ACCOUNTS).deduplicate(rows, ["acct"])
    assert (kept.column("line").to_pylist(), dropped) == ([1, 3], 1)
    assert DataTransformer(ACCOUNTS).deduplicate(rows, []) == (rows, 0)


@pytest.mark.parametrize(("lines_a_part", "chunk_rows"), [(1000, 1), (9, 4), (1, 20_000), (7, 3)])
def test_rows_hashes_and_quarantine_are_the_same_in_any_parts_and_chunks(transformed, lines_a_part, chunk_rows):
    of = replace(ARB, columns=(*ARB.columns[:2], replace(ARB.columns[2], on_error="null")))
    path = ROWS / "arb_protest_real_2019_slice.txt"
    whole = transformed(path, of)
    cut = transformed(path, of, lines_a_part=lines_a_part, chunk_rows=chunk_rows)
    assert cut.rows.equals(whole.rows)
    assert cut.quarantine == whole.quarantine
    assert sum(report.read for report in cut.reports) == whole.report.read == 63
    assert sum(sum(report.nulled.values()) for report in cut.reports) == sum(whole.report.nulled.values()) == 1
    assert all(report.is_balanced for report in cut.reports)


def test_hashes_in_the_folder_are_those_of_the_typed_rows(transformed):
    outcome = transformed(GOOD)
    assert outcome.column("row_hash") == row_hashes(outcome.rows, ACCOUNTS.columns).to_pylist()


def test_whole_chunk_without_a_good_row_is_a_part_like_any(transformed):
    outcome = transformed(b"x\ny\n" + GOOD, chunk_rows=2)
    assert outcome.report.written == 7
    everything_bad = transformed(b"x\t\t\ny\n")
    assert (everything_bad.report.written, everything_bad.report.quarantined) == (0, 2)
    assert everything_bad.rows.column_names == ["acct", "owner", "val", "row_hash", "line"]


def test_rows_are_written_by_chunk_so_that_memory_stays_flat(tmp_path):
    _, folder = run(tmp_path, chunk_rows=3)
    assert pq.ParquetFile(folder / "rows.parquet").metadata.num_row_groups == 3


def test_quarantine_lines_stand_in_the_order_of_the_member(transformed):
    content = b"12\tA\t1\nbroken\n" + acct(1) + b"\tA\tx\nbroken again\n"
    assert [row["line"] for row in transformed(content).quarantine] == [1, 2, 3, 4]


def test_events_and_report_hold_no_value_of_a_row(tmp_path):
    events = []
    content = acct(1) + b"\tJANE DOE\tPending\n" + b"12\tJANE DOE\t1\n"
    report, folder = run(tmp_path, content, on_event=lambda event, figures: events.append((event, dict(figures))))
    assert events == [("transform.part", {"table": "test.roll", "part": 0, "rows": 0, "quarantined": 2})]
    assert "JANE" not in (folder / "report.json").read_text()
    assert report.quarantined == 2


@pytest.mark.fault(48)
def test_zero_stays_zero_and_blank_stays_null(transformed):
    of = table(Column("acct", TEXT, "acct", required=True), Column("units", numeric(9, 2), "units"))
    assert transformed(b"1\t0\n2\t\n3\t2.50\n4\t0.00\n", of).column("units") == [
        Decimal("0.00"), None, Decimal("2.50"), Decimal("0.00"),
    ]  # fmt: skip


def test_stage_imports_neither_luigi_nor_another_stage():
    code = (
        "import sys, pipeline.transform; "
        "bad = [m for m in sys.modules if m.split('.')[0] == 'luigi' or m.startswith(('pipeline.load', 'pipeline.extract',"
        " 'pipeline.download', 'pipeline.database', 'pipeline.tasks', 'pipeline.observe'))]; sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.fault(47)
def test_rows_without_a_parent_pass_for_their_parent_may_come_later(transformed):
    assert transformed(acct(999) + b"\tA\t01/02/2024\n", ARB).report.written == 1


def test_real_slice_of_the_arb_member_is_whole_but_for_its_iso_date(tmp_path):
    outcome = transform_file(ROWS / "arb_protest_real_2019_slice.txt", tmp_path / "out", ARB, year=2019)
    assert (outcome.report.read, outcome.report.written, outcome.report.refused) == (63, 62, {"protested_dt:not_a_date": 1})
    assert json.loads((tmp_path / "out" / "part-0" / "quarantine.jsonl").read_text())["line"] == 61
