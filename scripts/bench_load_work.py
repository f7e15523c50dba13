"""The measured processes of the suite ``load``: one load of a made release, or one rollback, by the public API alone.

The process is started and has imported everything before the clock starts, as Luigi's task processes have. A load opens the import,
stages the parts in two forked processes, settles the table, asks the gate and publishes, as ``luigi --workers 2`` does. Its seconds
end when the release is published (the commit); what VACUUM and ANALYZE take after that is told beside them. What the gate takes for a
mass change is accepted, as a person would, within the seconds.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bench_load_made import Made
from measuring import Worker, peak_mb, serve

from pipeline.database.engine import make_engine
from pipeline.errors import GateRefused
from pipeline.load.manager import LoadManager

BATCH_ROWS = 20_000
MAX_MEMORY_MB = 350

#: As many as stage parts at once on two cores.
WORKERS = 2


def load(
    url: str, place: Path, name: str, batch_rows: int = BATCH_ROWS, max_memory_mb: int = MAX_MEMORY_MB
) -> dict[str, float]:
    """Load a release under a name in a process of its own; ``published_s``, ``whole_s``, ``peak_mb``, rows written and more."""
    with Worker(__file__, "load", url, str(place), name, str(batch_rows), str(max_memory_mb)) as child:
        return child.run()


def roll_back(url: str, place: Path, import_id: int) -> dict[str, float]:
    """Take an import back in a process of its own; as :func:`load` tells."""
    with Worker(__file__, "rollback", url, str(place), str(import_id)) as child:
        return child.run()


# What follows runs in the measured processes.


class _Clock:
    """Takes the load's events; keeps when each came first."""

    def __init__(self) -> None:
        self._started, self.seconds = time.perf_counter(), dict[str, float]()

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        self.seconds.setdefault(event, self.now())

    def now(self) -> float:
        return time.perf_counter() - self._started


def work_load(
    url: str, place: str | Path, name: str, batch_rows: str | int, max_memory_mb: str | int = MAX_MEMORY_MB
) -> Mapping[str, float]:
    """Load a release by this process and two that it forks."""
    made = Made.read(Path(place))
    key, origin, table = made.key(name), made.origin(name), made.table
    clock = _Clock()
    engine = make_engine(url)
    loads = LoadManager(engine, profile=made.source.profile, on_event=clock)
    opened = loads.open_import(key, table)
    loads.expect_parts(key, table, origin)
    stage = functools.partial(_stage, url, Path(place), name, int(batch_rows), int(max_memory_mb))
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as processes:
        staging_peak_mb = max(processes.map(stage, range(len(made.parts))))
    staged_s = clock.now()
    loads.settle_table(key, table, origin=origin, parts=len(made.parts), records=made.records, raw_lines=made.raw_lines)
    settled_s = clock.now()
    try:
        loads.check_release(key, made.source)
    except GateRefused:
        if opened.base_import_id is None:
            raise
        loads.accept_import(opened.import_id, reason="every row was reviewed", decided_by="bench.py")
        loads.check_release(key, made.source)
    checked_s = clock.now()
    changes = loads.publish(key, made.source)[table.name]
    published_s, whole_s = clock.seconds["load.release"], clock.now()
    engine.dispose()
    return {
        "published_s": published_s, "whole_s": whole_s, "peak_mb": max(peak_mb(), staging_peak_mb), "import_id": opened.import_id,
        "inserted": changes.inserted, "updated": changes.updated, "deleted": changes.deleted,
        "stage_s": staged_s, "settle_s": settled_s - staged_s, "gate_s": checked_s - settled_s, "publish_s": published_s - checked_s,
    }  # fmt: skip


def _stage(url: str, place: Path, name: str, batch_rows: int, max_memory_mb: int, part: int) -> float:
    """Stage one part; the peak of the process so far in MB."""
    made = Made.read(place)
    engine = make_engine(url)
    loads = LoadManager(engine, profile=made.source.profile, batch_rows=batch_rows, max_memory_mb=max_memory_mb)
    loads.stage_part(made.key(name), made.table, made.parts[part], origin=made.origin(name))
    engine.dispose()
    return peak_mb()


def work_rollback(url: str, place: str | Path, import_id: str | int) -> Mapping[str, float]:
    """Take an import back, in this process."""
    table = Made.read(Path(place)).table
    clock = _Clock()
    engine = make_engine(url)
    changes = LoadManager(engine, on_event=clock).rollback_import(int(import_id), reason="measured")[table.name]
    whole_s = clock.now()
    engine.dispose()
    return {
        "published_s": clock.seconds["load.rolled_back"], "whole_s": whole_s, "peak_mb": peak_mb(),
        "inserted": changes.inserted, "updated": changes.updated, "deleted": changes.deleted,
    }  # fmt: skip


if __name__ == "__main__":
    jobs: dict[str, Callable[..., Mapping[str, float]]] = {"load": work_load, "rollback": work_rollback}
    serve(functools.partial(jobs[sys.argv[1]], *sys.argv[2:]))
