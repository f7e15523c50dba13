"""Suite ``transform``: a part of a county, from text to checked rows, against what it takes merely to read it or merely to check it.

The rows are ``real_acct``'s, made by ``make_table.py``: 71 columns, both formats, 0.5 % bad. Every measurement is a process of its own
with Arrow and the numerical libraries at one thread, and counts its processor seconds, user and system, from after the imports. What is
measured is ``transform_part`` as the tasks call it: read, typed, validated, hashed, Parquet, quarantine and report on the disk. For
validation alone the verdicts of all three ways are compared too: a difference ends the suite with an error.
"""

from __future__ import annotations

import csv
import functools
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import Option, Target, suite
from county_member import County
from county_shapes import REAL_ACCT
from make_table import write_schemas
from measuring import ONE_THREAD, Worker, cpu_s, peak_mb, serve

from pipeline.catalog import Table, load_catalog
from pipeline.extract.cut import LineCutter
from pipeline.handoff import Member, Part, read_json, write_json
from pipeline.transform import DataTransformer, Reading, choose_layout, read_header

YEAR = 2025
ROWS = 300_000
CHUNK_ROWS = 20_000
PART_BYTES = 64 << 20
#: Rows of a fixed-width file of 100 MB and of 2 GB, as shares of ROWS: --rows scales them too.
MEMORY_SHARE, BIG_SHARE = 100e6 / 630 / ROWS, 2e9 / 630 / ROWS
MEMORY_MB = 350.0
#: Rows for the ways that take a row at a time, and suspects whose verdicts are compared besides.
SAMPLE_ROWS, SUSPECTS = 1_000, 200

FIXED, DELIMITED = "fixed width / read_fwf", "delimited / read_csv"
COERCING, PREBUILT = "Cerberus with coercion / validation", "prebuilt Cerberus / validation"
PEAK, PEAK_BIG, SAME_PEAK = "peak memory, 100 MB file, MB", "peak memory, 2 GB file, MB", "peak memory, 2 GB / 100 MB"
LINEAR, TWO = "cost of a row, 4 times the rows / once", "one worker / two workers"


@suite(
    "transform",
    Target(FIXED, 0.35, doc="transform_part of a fixed-width file to pandas.read_fwf(dtype=str) in chunks, nothing else done"),
    Target(DELIMITED, 1.15, doc="transform_part of a delimited file to pandas.read_csv(dtype=str, engine='c') in chunks"),
    Target(COERCING, 500.0, "at least", doc="Validator.validate(row) with coercion to the compiled rules with Cerberus on suspects"),
    Target(PREBUILT, 150.0, "at least", doc="a prebuilt validate(row, normalize=False) of typed rows to the same"),
    Target(PEAK, MEMORY_MB, doc="peak resident memory of a process that transforms 100 MB, imports included"),
    Target(PEAK_BIG, MEMORY_MB, doc="the same for 2 GB, part after part", only_with="big"),
    Target(SAME_PEAK, 1.1, doc="memory does not depend on the file's size", only_with="big"),
    Target(LINEAR, 1.1, doc="processor seconds a row of a file four times as long"),
    Target(TWO, 1.7, "at least", doc="wall-clock seconds of one process for four parts to two processes for two each"),
    options=(
        Option("rows", ROWS, f"rows of the measured file (default: {ROWS}); the other files are scaled with it"),
        Option("big", False, "measure the memory of the 2 GB file too"),
    ),
)
def transform(number: int, folder: Path, *, rows: int, big: bool) -> dict[str, float]:
    """A part of 71 columns, read, typed, validated and written, to reading it and to validating it row by row."""
    figures: dict[str, float] = {}
    costs = {}
    for form, name, floor in (("fixed_width", FIXED, "read_fwf"), ("delimited", DELIMITED, "read_csv")):
        made = _file(form, rows)
        jobs = {"transform": functools.partial(_transform, made, folder / form), floor: functools.partial(_alone, floor, made)}
        found = {job: jobs[job]() for job in (jobs if number % 2 == 0 else reversed(jobs))}
        ours, theirs = found["transform"], found[floor]
        figures |= {name: ours["cpu_s"] / theirs["cpu_s"], f"{form}_s": ours["cpu_s"], f"{floor}_s": theirs["cpu_s"]}
        figures |= {f"{form}_with_imports_s": ours["whole_s"], f"{floor}_with_imports_s": theirs["whole_s"]}
        costs[form] = ours["cpu_s"] / rows
    figures |= _alone("validate", _file("delimited", rows))
    longer = _transform(_file("delimited", 4 * rows), folder / "longer")
    figures[LINEAR] = longer["cpu_s"] / (4 * rows) / costs["delimited"]
    figures |= _memory(folder, rows, big) | _workers(number, folder, rows)
    return figures


@functools.cache
def _shared() -> tempfile.TemporaryDirectory[str]:
    """What all rounds read; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="bench-transform-")


@functools.cache
def _file(form: str, rows: int, part_bytes: int = PART_BYTES) -> Path:
    """A folder with the member, ``member.json`` as the extract stage measures it, and the schema files."""
    place = Path(_shared().name) / f"{form}-{rows}-{part_bytes}"
    place.mkdir()
    write_schemas(REAL_ACCT, place / "schemas", year=YEAR)
    cutter = LineCutter(part_bytes)
    with open(place / "real_acct.txt", "wb") as out:
        for block in County(REAL_ACCT, rows, form=form, year=YEAR).blocks():  # type: ignore[arg-type]
            out.write(block)
            cutter.feed(block)
    measure = cutter.finish()
    # Only the transform's report shows the hash.
    write_json(place / "member.json", Member(name="real_acct.txt", file="real_acct.txt", sha256="0" * 64, **vars(measure)))
    return place


def _worker(job: str, made: Path, *arguments: str) -> Worker:
    return Worker(__file__, job, str(made), *arguments, environment=ONE_THREAD)


def _alone(job: str, made: Path) -> dict[str, float]:
    with _worker(job, made) as child:
        return child.run()


def _transform(made: Path, out: Path) -> dict[str, float]:
    with _worker("transform", made, str(out)) as child:
        return child.run()


def _memory(folder: Path, rows: int, big: bool) -> dict[str, float]:
    """Peaks of a process; the big file is made when it is first asked for."""
    small_mb = _transform(_file("fixed_width", round(rows * MEMORY_SHARE)), folder / "100mb")["peak_mb"]
    if not big:
        return {PEAK: small_mb}
    big_mb = _transform(_file("fixed_width", round(rows * BIG_SHARE)), folder / "2gb")["peak_mb"]
    return {PEAK: small_mb, PEAK_BIG: big_mb, SAME_PEAK: big_mb / small_mb}


def _workers(number: int, folder: Path, rows: int) -> dict[str, float]:
    """Four parts by one process, and by two at once."""
    made = _file("fixed_width", rows, rows * (REAL_ACCT.record_width + 2) // 4 + 1)

    def by(*shares: str) -> float:
        children = [_worker("transform", made, str(folder / f"{len(shares)}-{share}"), share) for share in shares]
        for child in children:
            child.__enter__()
        started = time.perf_counter()
        for child in children:
            child.start()
        for child in children:
            child.result()
        elapsed = time.perf_counter() - started
        for child in children:
            child.__exit__()
        return elapsed

    sides = [("0,1,2,3",), ("0,1", "2,3")]
    elapsed = {len(shares): by(*shares) for shares in (sides if number % 2 == 0 else reversed(sides))}
    return {TWO: elapsed[1] / elapsed[2], "one_worker_s": elapsed[1], "two_workers_s": elapsed[2]}


# What follows runs in the measured processes.


class _Made:
    """A made file as a measured process sees it."""

    def __init__(self, place: Path) -> None:
        self.path = place / "real_acct.txt"
        self.member = Member.from_json(read_json(place / "member.json"))
        self.table: Table = load_catalog(place / "schemas", environ={"COUNTY_URL": "http://127.0.0.1"})["hcad"].table("real_acct")
        self.reading: Reading = read_header(self.table, choose_layout(self.table, self.member, year=YEAR, version=None), self.member)


def _work_transform(place: Path, out: str, parts: str = "") -> Mapping[str, float]:
    made, before_s = _Made(place), cpu_s()
    numbers = [int(number) for number in parts.split(",")] if parts else range(len(made.member.parts))
    read = 0
    for number in numbers:
        part: Part = made.member.parts[number]
        folder = Path(out) / str(number)
        folder.parent.mkdir(parents=True, exist_ok=True)
        read += DataTransformer(made.table, tax_year=YEAR).transform_part(made.path, made.member, part, made.reading, folder).read
    if not parts and read < made.member.lines - 1:
        raise ValueError(f"{read} of {made.member.lines} lines read")
    return {"cpu_s": cpu_s() - before_s, "whole_s": cpu_s(), "peak_mb": peak_mb()}


def _work_read_fwf(place: Path) -> Mapping[str, float]:
    import pandas as pd

    before_s = cpu_s()
    positions = REAL_ACCT.positions()
    for _ in pd.read_fwf(
        place / "real_acct.txt", colspecs=[(start - 1, end) for start, end in positions.values()], names=list(positions), header=None,
        dtype=str, keep_default_na=False, na_values=[""], encoding="cp1252", encoding_errors="replace", chunksize=CHUNK_ROWS,
    ):  # fmt: skip
        pass
    return {"cpu_s": cpu_s() - before_s, "whole_s": cpu_s()}


def _work_read_csv(place: Path) -> Mapping[str, float]:
    import pandas as pd

    before_s = cpu_s()
    for _ in pd.read_csv(
        place / "real_acct.txt", sep="\t", names=[field.name for field in REAL_ACCT.fields], header=0, index_col=False,
        dtype=str, engine="c", quoting=csv.QUOTE_NONE, keep_default_na=False, na_values=[""], on_bad_lines="skip", lineterminator="\n",
        encoding="cp1252", encoding_errors="replace", chunksize=CHUNK_ROWS,
    ):  # fmt: skip
        pass
    return {"cpu_s": cpu_s() - before_s, "whole_s": cpu_s()}


def _work_validate(place: Path) -> Mapping[str, float]:
    """Validation alone, in three ways; their verdicts must be the same."""
    from validation_ways import Sample, compared, validate_chunk

    made = _Made(place)
    # Every broken rule is a verdict here, and no value is made NULL for it.
    judging = [replace(column, on_error="quarantine") for column in made.table.columns]
    transformer = DataTransformer(replace(made.table, columns=tuple(judging)))
    sample = Sample(transformer, every=max(1, made.member.lines // SAMPLE_ROWS), suspects=SUSPECTS)
    rows, ours_s = 0, 0.0
    for chunk in transformer.parse_delimited(made.path, made.reading):
        texts, typed, refused = sample.typed(chunk)
        before_s = cpu_s()
        verdicts = validate_chunk(transformer, typed, refused)
        ours_s += cpu_s() - before_s
        rows += typed.num_rows
        sample.take(texts, typed, refused, verdicts)
    coercing_s, prebuilt_s = compared(sample)
    ours = ours_s / rows
    return {
        COERCING: coercing_s / ours, PREBUILT: prebuilt_s / ours,
        "validate_1e6_rows_s": 1e6 * ours, "coercing_1e6_rows_s": 1e6 * coercing_s, "prebuilt_1e6_rows_s": 1e6 * prebuilt_s,
    }  # fmt: skip


def _serve(job: str, place: str, *arguments: str) -> None:
    import pandas  # noqa: F401  # loaded on both sides before the clock
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    work: dict[str, Any] = {
        "transform": _work_transform, "read_fwf": _work_read_fwf, "read_csv": _work_read_csv, "validate": _work_validate,
    }  # fmt: skip
    serve(functools.partial(work[job], Path(place), *arguments))


if __name__ == "__main__":
    _serve(*sys.argv[1:])
