"""Suite ``stages``: what each stage costs on the real rows of the sample, as a multiple of what nothing can do without.

One table carries the figures: HCAD's protests of 2019, 424,335 rows in 13 MB. Every round starts with an empty state folder and a
new embedded PostgreSQL with its production settings, and measures the production code: the stages from Python, the two runs by the
command line, memory in a process of its own.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bench
import pandas as pd
from bench import Target, suite
from measuring import peak_mb, seconds, side_by_side
from sqlalchemy import Engine

from pipeline import services
from pipeline.catalog import Source, Table, load_catalog, release_recipe
from pipeline.catalog.recipe import layout_recipe
from pipeline.database.engine import connect, database_url, make_engine, transaction
from pipeline.database.ledger import ImportKey
from pipeline.database.migrate import migrate
from pipeline.database.server import embedded
from pipeline.extract import ExtractManager, WantedMember
from pipeline.extract.lookup import raw_lines
from pipeline.handoff import Member
from pipeline.load.checkpoints import Origin
from pipeline.load.manager import LoadManager
from pipeline.transform import DataTransformer, Reading, choose_layout, read_header

ROOT = bench.SCRIPTS.parent
BUNDLE = ROOT / "tests" / "fixtures" / "sample"
ARCHIVE = BUNDLE / "hcad" / "2019" / "Hearing_files.zip"
YEAR = 2019
PART_BYTES = 64 << 20
#: Parts of the memory figure: small enough that the member has several, large enough to dwarf a chunk.
SMALL_PART_BYTES = 3 << 20
#: How often a round repeats what takes less than a second or two.
TURNS = 3


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
    Target("extract / plain unzip", 3.0, doc="extract_archive to zipfile.extractall and fsync of the same archive"),
    Target("transform / read_csv", 6.0, doc="transform_part to pandas.read_csv of the same member, all as text"),
    Target("stage and publish / COPY", 5.0, doc="staging, gate and first publish to one COPY of the same rows into a table with its key"),
    Target("stage and publish again / first", 0.9, doc="the same rows as a new release, nothing changed, to their first import"),
    Target("run again / first run", 0.4, doc="hcad-pipeline run when nothing is new to the run that brought it all"),
    Target("peak memory: whole member / a part of 3 MB", 1.3, doc="transforming 13 MB in one part to transforming a part of 3 MB"),
    Target("peak memory above imports / 13 MB part", 10.0, doc="what transform_part adds at its peak to the size of its part"),
)
def stages(number: int, folder: Path) -> dict[str, float]:
    """Times and memory of extract, transform, load and whole runs on the sample's protests of 2019."""
    figures: dict[str, float] = {}
    with _servers(folder / "state") as (published, empty, environment):
        figures |= _whole_runs(environment)
        extracted, of_extract = _extract(number, folder)
        figures |= of_extract
        figures |= _transform(number, folder, extracted)
        figures |= _memory(number, folder)
        figures |= _load(number, folder, extracted, published, empty)
    return figures


def _output(program: list[str], environment: Mapping[str, str]) -> str:
    """Run a program from the checkout and return what it printed; a failure shows what it said."""
    done = subprocess.run(program, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def _servers(state: Path) -> Iterator[tuple[Engine, Engine, dict[str, str]]]:
    """A new PostgreSQL and the sample's HTTP server: the database of the whole runs, an empty one, and the runs' environment."""
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
        yield engine, make_engine(database_url(url).set(database="stages")), environment
    finally:
        services.stop_all(state)
        embedded(state).stop()


def _whole_runs(environment: dict[str, str]) -> dict[str, float]:
    """A first run of the whole sample, and one when nothing is new."""

    def run(as_of: str) -> None:
        command = [sys.executable, "-m", "pipeline", "--profile", "sample", "run", "--local-scheduler", "--as-of", as_of]
        _output(command, environment)

    first_s = seconds(lambda: run("2026-01-01T00:00:00"))
    again_s = seconds(lambda: run("2026-01-02T00:00:00"))
    return {"run again / first run": again_s / first_s, "first_run_s": first_s, "run_again_s": again_s}


def _extract(number: int, folder: Path) -> tuple[Extracted, dict[str, float]]:
    def plain(turn: int) -> None:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder / f"plain-{turn}")
        for path in (folder / f"plain-{turn}").iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    extracted: list[Extracted] = []
    ours_s, plain_s = side_by_side(number, lambda turn: extracted.append(extract(folder / f"members-{turn}", PART_BYTES)), plain, TURNS)
    return extracted[0], {"extract / plain unzip": ours_s / plain_s, "extract_s": ours_s / TURNS, "unzip_s": plain_s / TURNS}


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
    def floor(turn: int) -> None:
        pd.read_csv(extracted.path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE, encoding="cp1252")

    ours_s, floor_s = side_by_side(number, lambda turn: transform(extracted, 0, folder / "parts" / str(turn)), floor, TURNS)
    return {"transform / read_csv": ours_s / floor_s, "transform_s": ours_s / TURNS, "read_csv_s": floor_s / TURNS}


def _memory(number: int, folder: Path) -> dict[str, float]:
    """Peaks of a process that transforms the whole member in one part, and of one that transforms the first of several."""

    def peak(part_bytes: int) -> tuple[float, float]:
        program = [sys.executable, __file__, str(folder / f"memory-{part_bytes}"), str(part_bytes)]
        printed = _output(program, {"PYTHONPATH": os.pathsep.join([str(bench.SCRIPTS), str(ROOT)])})
        before_mb, peak_mb = map(float, printed.split())
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


def _load(number: int, folder: Path, extracted: Extracted, published: Engine, empty: Engine) -> dict[str, float]:
    """The first import into an empty database, the same rows as another release, and the floor: what the run published, by one COPY."""
    dump = folder / "rows.copy"
    with transaction(published) as cursor, open(dump, "wb") as out:
        cursor.copy_expert("copy (select * from hcad.arb_protest_real) to stdout", out)
        cursor.execute("create table plain (like hcad.arb_protest_real, primary key (tax_year, acct, seq))")

    def copy(turn: int) -> None:
        with transaction(published) as cursor, open(dump, "rb") as rows:
            cursor.copy_expert("copy plain from stdin", rows)

    part = folder / "parts" / "0"
    migrate(empty)
    first_s, copy_s = side_by_side(number, lambda turn: load(empty, extracted, part, "first"), copy)
    again_s = seconds(lambda: load(empty, extracted, part, "again"))
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
    origin = Origin.of(member, layout_recipe(table, extracted.reading.layout))
    loads.stage_part(key, table, folder, origin=origin)
    loads.settle_table(
        key, table, origin=origin, parts=len(member.parts), records=member.lines,
        raw_lines=lambda numbers: raw_lines(extracted.path, member, numbers, extracted.reading.layout.encoding),
    )  # fmt: skip
    loads.check_release(key, source)
    loads.publish(key, source)


if __name__ == "__main__":
    ready = extract(Path(sys.argv[1]) / "members", int(sys.argv[2]))
    peak_before_mb = peak_mb()
    transform(ready, 0, Path(sys.argv[1]) / "part")
    print(peak_before_mb, peak_mb())
