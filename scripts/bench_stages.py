"""Suite ``stages``: what each stage costs on the real rows of the sample, as a multiple of what nothing can do without.

One table carries the figures: HCAD's protests of 2019, 424,335 rows in 13 MB. Every round starts with an empty state folder and a
new embedded PostgreSQL with its production settings, and measures the production code: the stages from Python, the two runs by the
command line, memory in a process of its own.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bench
import pandas as pd
from bench import Target, suite
from sqlalchemy import Engine

from pipeline import services
from pipeline.catalog import Source, Table, load_catalog, release_recipe, table_recipe
from pipeline.database.engine import connect, database_url, make_engine, transaction
from pipeline.database.ledger import ImportKey
from pipeline.database.migrate import migrate
from pipeline.database.server import embedded
from pipeline.extract import ExtractManager, WantedMember
from pipeline.extract.lookup import raw_lines
from pipeline.handoff import Member
from pipeline.load.manager import LoadManager
from pipeline.transform import DataTransformer, Reading, choose_layout, read_header

ROOT = bench.SCRIPTS.parent
BUNDLE = ROOT / "tests" / "fixtures" / "sample"
ARCHIVE = BUNDLE / "hcad" / "2019" / "Hearing_files.zip"
YEAR = 2019
PART_BYTES = 64 << 20
#: Parts of the memory figure: small enough that the member has several, large enough to dwarf a chunk.
SMALL_PART_BYTES = 3 << 20


@dataclass(frozen=True)
class Extracted:
    """The protests, extracted and ready to be transformed."""

    source: Source
    table: Table
    member: Member
    path: Path
    reading: Reading


@suite(
    "stages",
    Target("extract / plain unzip", 4.0, doc="extract_archive to zipfile.extractall and fsync of the same archive"),
    Target("transform / read_csv", 6.0, doc="transform_part to pandas.read_csv of the same member, all as text"),
    Target("stage and publish / COPY", 6.0, doc="staging, gate and first publish to one COPY of the same rows into a keyed table"),
    Target("stage and publish again / first", 1.0, doc="the same rows as a new release, nothing changed, to their first import"),
    Target("run again / first run", 0.5, doc="hcad-pipeline run when nothing is new to the run that brought it all"),
    Target("peak memory: whole member / a part of 3 MB", 1.5, doc="transforming 13 MB in one part to transforming a part of 3 MB"),
    Target("peak memory above imports / 13 MB part", 20.0, doc="what transform_part adds at its peak to the size of its part"),
)
def stages(number: int, folder: Path) -> dict[str, float]:
    """Times and memory of extract, transform, load and whole runs on the sample's protests of 2019."""
    figures: dict[str, float] = {}
    with _server(folder / "state") as (server, environment):
        figures |= _whole_runs(environment)
        extracted, of_extract = _extract(number, folder)
        figures |= of_extract
        figures |= _transform(number, folder, extracted)
        figures |= _memory(number, folder)
        figures |= _load(number, folder, extracted, server)
    return figures


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(number: int, ours: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float]:
    """Seconds of both sides; in every second round the floor goes first."""
    if number % 2 == 0:
        return seconds(ours), seconds(floor)
    floor_s = seconds(floor)
    return seconds(ours), floor_s


@contextmanager
def _server(state: Path) -> Iterator[tuple[Engine, dict[str, str]]]:
    """A new PostgreSQL and the sample's HTTP server; an engine on the one, and the environment of a run against both."""
    state.mkdir(parents=True)
    try:
        sample = services.start_sample_server(state, root=BUNDLE, script=bench.SCRIPTS / "sample_server.py")
        url = embedded(state).start()
        engine = make_engine(url)
        connection = connect(engine)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("create database stages")
        connection.close()
        environment = {"SAMPLE_SERVER_URL": sample.url.rstrip("/"), "HCAD_PIPELINE_STATE": str(state), "DATABASE_URL": url}
        yield make_engine(database_url(url).set(database="stages")), environment
    finally:
        services.stop_all(state)
        embedded(state).stop()


def _whole_runs(environment: dict[str, str]) -> dict[str, float]:
    """A first run of the whole sample, and one when nothing is new."""

    def run(as_of: str) -> None:
        command = [sys.executable, "-m", "pipeline", "--profile", "sample", "run", "--local-scheduler", "--as-of", as_of]
        subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)

    first_s = seconds(lambda: run("2026-01-01T00:00:00"))
    again_s = seconds(lambda: run("2026-01-02T00:00:00"))
    return {"run again / first run": again_s / first_s, "first_run_s": first_s, "run_again_s": again_s}


def _extract(number: int, folder: Path) -> tuple[Extracted, dict[str, float]]:
    def plain() -> None:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder / "plain")
        for path in (folder / "plain").iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    extracted: list[Extracted] = []
    ours_s, plain_s = side_by_side(number, lambda: extracted.append(extract(folder / "ours", PART_BYTES)), plain)
    return extracted[0], {"extract / plain unzip": ours_s / plain_s, "extract_s": ours_s, "unzip_s": plain_s}


def extract(folder: Path, part_bytes: int) -> Extracted:
    """Extract the protests and decide how they are read."""
    source = load_catalog(profile="sample", environ={"SAMPLE_SERVER_URL": "http://127.0.0.1"})["hcad"]
    (table,) = source.tables_for(YEAR)
    extracts = ExtractManager(part_bytes=part_bytes, limits=source.limits)
    (member,) = extracts.extract_archive(ARCHIVE, folder, members=[WantedMember(table.member)]).members
    reading = read_header(table, choose_layout(table, member, year=YEAR, version=None), member)
    return Extracted(source, table, member, folder / member.file, reading)


def transform(extracted: Extracted, part: int, folder: Path) -> None:
    """Transform one part of the protests."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    transformer = DataTransformer(extracted.table)
    report = transformer.transform_part(extracted.path, extracted.member, extracted.member.parts[part], extracted.reading, folder)
    if report.written != extracted.member.parts[part].lines:
        raise ValueError(f"{report}: the sample's protests are all good")


def _transform(number: int, folder: Path, extracted: Extracted) -> dict[str, float]:
    def floor() -> None:
        pd.read_csv(
            extracted.path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE, encoding="cp1252"
        )

    ours_s, floor_s = side_by_side(number, lambda: transform(extracted, 0, folder / "part"), floor)
    return {"transform / read_csv": ours_s / floor_s, "transform_s": ours_s, "read_csv_s": floor_s}


def _memory(number: int, folder: Path) -> dict[str, float]:
    """Peaks of a process that transforms the whole member in one part, and of one that transforms the first of several."""

    def peak(part_bytes: int) -> tuple[float, float]:
        program = [sys.executable, __file__, str(folder / f"memory-{part_bytes}"), str(part_bytes)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(bench.SCRIPTS), str(ROOT)])}
        done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
        before_mb, peak_mb = map(float, done.stdout.split())
        return before_mb, peak_mb

    sizes = (PART_BYTES, SMALL_PART_BYTES) if number % 2 == 0 else (SMALL_PART_BYTES, PART_BYTES)
    peaks = {size: peak(size) for size in sizes}
    before_mb, whole_mb = peaks[PART_BYTES]
    part_mb = peaks[SMALL_PART_BYTES][1]
    with zipfile.ZipFile(ARCHIVE) as archive:
        member_mb = archive.infolist()[0].file_size / 2**20
    return {
        "peak memory: whole member / a part of 3 MB": whole_mb / part_mb,
        "peak memory above imports / 13 MB part": (whole_mb - before_mb) / member_mb,
        "imports_mb": before_mb, "transform_peak_mb": whole_mb, "transform_small_part_peak_mb": part_mb,
    }  # fmt: skip


def _load(number: int, folder: Path, extracted: Extracted, engine: Engine) -> dict[str, float]:
    """The first import, the same rows as another release, and the floor: the very rows that came of it by one COPY."""
    migrate(engine)
    first_s = seconds(lambda: load(engine, extracted, folder / "part", "first"))
    dump = folder / "rows.copy"
    with transaction(engine) as cursor, open(dump, "wb") as out:
        cursor.copy_expert("copy hcad.arb_protest_real to stdout", out)
        cursor.execute("create table plain (like hcad.arb_protest_real, primary key (tax_year, acct, seq))")
        cursor.execute("create index on plain (protested_by)")

    def copy() -> None:
        with transaction(engine) as cursor, open(dump, "rb") as rows:
            cursor.copy_expert("copy plain from stdin", rows)

    again_s, copy_s = side_by_side(number, lambda: load(engine, extracted, folder / "part", "again"), copy)
    return {
        "stage and publish / COPY": first_s / copy_s,
        "stage and publish again / first": again_s / first_s,
        "stage_and_publish_s": first_s, "stage_and_publish_again_s": again_s, "copy_s": copy_s,
    }  # fmt: skip


def load(engine: Engine, extracted: Extracted, folder: Path, release: str) -> None:
    """Stage, check and publish the transformed protests as a release of that name."""
    source, table, member = extracted.source, extracted.table, extracted.member
    key = ImportKey(source.name, YEAR, release, release_recipe(source, YEAR))
    loads = LoadManager(engine, profile=source.profile)
    loads.open_import(key, table)
    loads.stage_part(key, table, folder, member_sha256=member.sha256, recipe=table_recipe(table))
    loads.settle_table(
        key, table, parts=len(member.parts), records=member.lines,
        raw_lines=lambda numbers: raw_lines(extracted.path, member, numbers, extracted.reading.layout.encoding),
    )  # fmt: skip
    loads.check_release(key, source)
    loads.publish(key, source)


def _peak_mb() -> float:
    """Peak resident memory of this process so far, MB (ru_maxrss is in KB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    ready = extract(Path(sys.argv[1]) / "members", int(sys.argv[2]))
    peak_before_mb = _peak_mb()
    transform(ready, 0, Path(sys.argv[1]) / "part")
    print(peak_before_mb, _peak_mb())
