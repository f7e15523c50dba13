"""The curve behind two settings: first loads of the same rows with other sizes of batches and of parts.

``[load] batch_rows`` is how many rows are formatted and sent at a time, ``[extract] part_bytes`` how much of a member is staged in one
transaction. Every point is a first load into a database of its own, as a multiple of the floor that is taken right
after it, and the peak memory of the process. ``[load] max_memory_mb`` is out of the way, or it would make all large batches one size.
"""

from __future__ import annotations

from pathlib import Path

from bench_load_made import PART_BYTES, Made, release
from bench_load_server import new_database
from bench_load_work import BATCH_ROWS, load

BATCHES = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
PARTS_MB = (4, 16, 64, 128)
NO_LIMIT_MB = 100_000


def curve(csv: Path, rows: int) -> dict[str, float]:
    """Multiples of the floor and peaks: ``batch_5000_x``, ``batch_5000_peak_mb``, ``part_16mb_x``, ``part_16mb_peak_mb`` and so on."""
    points = {f"batch_{batch_rows}": (batch_rows, PART_BYTES) for batch_rows in BATCHES}
    points |= {f"part_{size_mb}mb": (BATCH_ROWS, size_mb << 20) for size_mb in PARTS_MB}
    figures = {}
    for name, sizes in points.items():
        figures[f"{name}_x"], figures[f"{name}_peak_mb"] = _point(csv, rows, *sizes)
    return figures


def _point(csv: Path, rows: int, batch_rows: int, part_bytes: int) -> tuple[float, float]:
    """A first load as a multiple of the floor, and its peak memory."""
    place = release(rows, part_bytes=part_bytes)
    with new_database() as database:
        database.settle()
        found = load(database.address, place, "sweep", batch_rows, NO_LIMIT_MB)
        floor_s = database.copied_by_psql(Made.read(place).table, csv)
    return found["published_s"] / floor_s, found["peak_mb"]
