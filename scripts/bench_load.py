"""Suite ``load``: releases of a made county on their way into PostgreSQL, against ``psql``'s ``copy`` of the clean rows.

The floor copies a ready CSV of the rows that were published into an empty logged table of the same columns with its primary key, in
the same server, fsync on. Ours begins with Parquet parts (extract and transform are the other suites' matter) and ends when the
release is published, with history and ledger; or, end to end, begins with the zip behind HTTP and is the plain ``luigi`` command. Every
round has databases of its own in one server. ``--peers`` lets other tools do as much of it as they can; ``--sweep``
loads with other sizes of batches and parts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from bench import Option, Target, suite
from bench_load_made import Made, release, shared_folder
from bench_load_server import Database, new_database
from bench_load_work import load as loaded
from bench_load_work import roll_back

ROWS = 300_000
ROWS_E2E = 1_600_000
MEMORY_MB = 350.0

#: What a load tells of itself; the first is all of it.
STEPS = ("published", "stage", "settle", "gate", "publish")

FIRST, UNCHANGED, FEW, ALL = "first load / floor", "unchanged refresh / floor", "1 % changed / floor", "100 % changed / floor"
UNCHANGED_ROWS, UNCHANGED_WAL = "unchanged refresh, rows written", "unchanged refresh, WAL in MB"
ROLLBACK, LOAD_PEAK = "rollback of 1 % changed, seconds", "peak memory of a load, MB"
E2E, E2E_PEAK, E2E_AGAIN = "zip to published / floor", "peak memory of a worker, MB", "run with nothing new / zip to published"


def _notes(options: Mapping[str, int | bool]) -> list[str]:
    from bench_load_peers import notes

    return notes() if options["peers"] else []


@suite(
    "load",
    Target(FIRST, 1.5, doc="from Parquet parts to published, history and ledger included; to psql \\copy of the ready CSV"),
    Target(UNCHANGED, 0.3, doc="the same rows as another member of another release; to the same"),
    Target(UNCHANGED_ROWS, 0.0, doc="rows inserted, updated and deleted in tables that users see, by pg_stat_user_tables"),
    Target(UNCHANGED_WAL, 1.0, doc="after the first load's VACUUM and a checkpoint"),
    Target(FEW, 0.5, doc="a release with 1 % of the rows reviewed; to the same"),
    Target(ROLLBACK, 1.0, doc="seconds until that release is taken back"),
    Target(ALL, 4.0, doc="a release with every good row reviewed; to the same"),
    Target(LOAD_PEAK, MEMORY_MB, doc="the largest of the processes that did these loads"),
    Target(E2E, 2.0, doc="luigi --workers 2 against luigid, from the zip behind HTTP; to psql \\copy of its rows", unless="no_e2e"),
    Target(E2E_PEAK, MEMORY_MB, doc="the largest of its processes", unless="no_e2e"),
    Target(E2E_AGAIN, 0.4, doc="the same command again: one probe, and all is complete", unless="no_e2e"),
    options=(
        Option("rows", ROWS, f"rows of the measured file (default: {ROWS})"),
        Option("rows_e2e", ROWS_E2E, f"rows of the whole run from the zip (default: {ROWS_E2E})"),
        Option("no_e2e", False, "leave the whole run out"),
        Option("indexes", False, "keep the shipped table's secondary indexes: ours maintains them, the floor builds them after the copy"),
        Option("clean", False, "make a county without bad records; otherwise 0.5 % are refused or repeated"),
        Option("peers", False, "let other tools load the same file: dlt, Luigi's CopyToTable, pandas and Cerberus, Django, DuckDB"),
        Option("sweep", False, "load with other sizes of batches and parts, too"),
    ),
    notes=_notes,
)
def load(
    number: int, folder: Path, *, rows: int, rows_e2e: int, no_e2e: bool, indexes: bool, clean: bool, **more: bool
) -> dict[str, float]:
    """First load, refreshes and rollback against psql's copy; zip to published by luigi; memory, WAL and rows written."""
    csv = _ready_csv(rows, indexes, clean)
    with new_database() as database:
        figures, floor_s = _releases(number, database, csv, rows, indexes=indexes, clean=clean)
    if more["sweep"]:
        from bench_load_sweep import curve

        figures |= curve(csv, rows)
    if more["peers"]:
        from bench_load_peers import measured

        figures |= measured(folder, rows, floor_s)
    if not no_e2e:
        figures |= _whole_runs(number, folder, rows_e2e, indexes)
    return figures


@functools.cache
def _ready_csv(rows: int, indexes: bool, clean: bool) -> Path:
    """What the floor copies: the published rows. That it takes a first load to know them warms everything up, too."""
    place, csv = release(rows, indexes=indexes, is_clean=clean), Path(shared_folder().name) / f"floor-{rows}.csv"
    with new_database() as database:
        loaded(database.address, place, "warm-up")
        database.export(Made.read(place).table, csv)
    return csv


def _releases(number: int, database: Database, csv: Path, rows: int, *, indexes: bool, clean: bool) -> tuple[dict[str, float], float]:
    """First load, unchanged, 1 % and its rollback, 100 %, each held against the floors around it; and the mean of those."""
    first, few, every = (release(rows, share, indexes=indexes, is_clean=clean) for share in (0.0, 0.01, 1.0))
    table = Made.read(first).table

    def floor() -> float:
        return database.copied_by_psql(table, csv)

    if number % 2 == 0:
        of_first, first_floor_s = _load(database, first, "first"), floor()
    else:
        first_floor_s, of_first = floor(), _load(database, first, "first")
    of_unchanged, unchanged = _unchanged(database, first)
    of_few, of_rollback = _changed_and_back(database, few)
    few_floor_s = floor()
    database.settle()
    disk, wal = database.disk_bytes(), database.wal_bytes()
    of_every = loaded(database.address, every, "every")
    every_wal, every_disk = database.wal_bytes() - wal, database.disk_bytes() - disk
    every_floor_s = floor()
    loads = {"first": of_first, "unchanged": of_unchanged, "few": of_few, "every": of_every}
    between_s = (first_floor_s + few_floor_s) / 2
    floor_s = (first_floor_s + few_floor_s + every_floor_s) / 3
    return {
        FIRST: of_first["published_s"] / first_floor_s,
        UNCHANGED: of_unchanged["published_s"] / between_s, **unchanged,
        FEW: of_few["published_s"] / between_s, ROLLBACK: of_rollback["published_s"],
        ALL: of_every["published_s"] / ((few_floor_s + every_floor_s) / 2),
        LOAD_PEAK: max(found["peak_mb"] for found in [*loads.values(), of_rollback]),
        "floor_s": floor_s,
        **{f"{name}_{step}_s": found[f"{step}_s"] for name, found in loads.items() for step in STEPS},
        **{f"{name}_vacuum_s": found["whole_s"] - found["published_s"] for name, found in loads.items()},
        "rollback_vacuum_s": of_rollback["whole_s"] - of_rollback["published_s"],
        "before_every_disk_mb": disk / 1e6, "every_disk_mb": every_disk / 1e6, "every_wal_mb": every_wal / 1e6,
    }, floor_s  # fmt: skip


def _load(database: Database, place: Path, name: str) -> dict[str, float]:
    """A load that does not pay for what was written before it."""
    database.settle()
    return loaded(database.address, place, name)


def _changed_and_back(database: Database, place: Path) -> tuple[dict[str, float], dict[str, float]]:
    """A release with some rows reviewed, and its rollback."""
    written = database.rows_written()
    changed = _load(database, place, "few")
    counted = database.rows_written() - written
    if not 0 < changed["updated"] <= counted:
        raise ValueError(f"{changed['updated']} rows were updated, and pg_stat_user_tables counts {counted}")
    database.settle()
    back = roll_back(database.address, place, int(changed["import_id"]))
    if back["updated"] != changed["updated"]:
        raise ValueError(f"{changed} was taken back by {back}")
    return changed, back


def _unchanged(database: Database, place: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The first release's rows again, as another one: what it took, and what it wrote."""
    if database.is_owed():
        raise ValueError("the first load's VACUUM is still owed")
    database.settle()
    wal, ledger, written = database.wal_bytes(), database.ledger_bytes(), database.rows_written()
    found = loaded(database.address, place, "unchanged")
    return found, {
        UNCHANGED_WAL: (database.wal_bytes() - wal) / 1e6,
        UNCHANGED_ROWS: float(database.rows_written() - written),
        "unchanged_ledger_mb": (database.ledger_bytes() - ledger) / 1e6,
    }


def _whole_runs(number: int, folder: Path, rows: int, indexes: bool) -> dict[str, float]:
    """From the zip to published by the ``luigi`` command, and again with nothing new; the floor of that size."""
    from bench_load_e2e import LuigiRun

    with LuigiRun(folder / "e2e", rows, indexes=indexes) as run:
        csv = Path(shared_folder().name) / f"floor-{rows}-e2e.csv"
        if number % 2 and csv.exists():
            floor_s, first = run.floor_s(csv), run.once()
        else:
            first = run.once()
            if not csv.exists():
                run.export(csv)
            floor_s = run.floor_s(csv)
        again = run.once()
        if not run.rows_published():
            raise ValueError("luigi published nothing")
    return {
        E2E: first.seconds / floor_s, E2E_PEAK: first.peak_mb, E2E_AGAIN: again.seconds / first.seconds,
        "zip_to_published_s": first.seconds, "nothing_new_s": again.seconds, "floor_e2e_s": floor_s,
    }  # fmt: skip
