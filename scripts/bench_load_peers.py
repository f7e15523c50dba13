"""Other tools at the work of the suite ``load``: the same records from the zip into an empty database of the same server.

Each peer runs in a process of its own that has imported its packages before the clock starts, reads the format that suits it, and does
as much of the work as it can; what it leaves out is said beside its figure. A row-by-row peer takes a sample of the file, and
its seconds are multiplied to the whole: that is said, too. The packages are the extra ``bench``; one that is not installed is reported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench_load_made import archive, schemas
from bench_load_server import new_database
from measuring import Worker

#: A peer that brings fewer of the sampled records than this has not done the work.
LEAST_SHARE = 0.97
#: dlt reports to nobody, and says only what went wrong.
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Peer:
    """A tool, and how it is used.

    Attributes:
        name: of its function in ``load_peers.py``.
        package, distribution: what must be installed, by the names of import and of pip.
        does: what it does of the work.
        leaves_out: what it does not.
        form: of the file that it reads.
        sample: records that it takes; None: all of them.
    """

    name: str
    package: str
    distribution: str
    does: str
    leaves_out: str
    form: str = "delimited"
    sample: int | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported."""
        return importlib.util.find_spec(self.package) is not None


NO_REASONS = "a reason for each bad row (values that do not fit become NULL, broken lines are skipped)"
PEERS = (
    Peer(
        "dlt", "dlt", "dlt", "Arrow's CSV reader, columns typed by Arrow, dlt's CSV files, staging and merge by key",
        f"rules, {NO_REASONS}, one commit with history, rollback, skipping what is unchanged",
    ),
    Peer(
        "copy_to_table", "luigi", "luigi", "Luigi's CopyToTable: every column text, one COPY, a marker row",
        "types, rules, the key, duplicates, bad rows (lines with another number of fields are skipped), history, rollback, any refresh",
    ),
    Peer(
        "pandas_cerberus_to_sql", "pandas", "pandas",
        "read_fwf, each row coerced and validated by one Cerberus validator, to_sql into a table with its key",
        "duplicates beyond a chunk, history, rollback, resuming, any refresh at all", "fixed_width", 2_000,
    ),
    Peer(
        "django", "django", "Django", "a model of typed fields, clean_fields a row, bulk_create(update_conflicts) by 5,000",
        "rules beyond the fields' types, a reason for each bad row, history, rollback, skipping what is unchanged, vanished keys",
        sample=10_000,
    ),
    Peer(
        "duckdb", "duckdb", "duckdb", "a DuckDB script: read_csv, try_cast, one row a key, CSV; COPY into the table with its key",
        f"rules, {NO_REASONS}, history, rollback, resuming, any refresh at all",
    ),
)  # fmt: skip


def measured(folder: Path, rows: int, floor_s: float) -> Mapping[str, float]:
    """Let every peer that is installed load a made county of so many records: seconds, multiples of the floor, peak memory."""
    found: dict[str, float] = {}
    for peer in PEERS:
        if peer.is_installed:
            took_s, peak_mb = _run(peer, folder / peer.name, rows)
            found |= {f"{peer.name}_x": took_s / floor_s, f"{peer.name}_s": took_s, f"{peer.name}_peak_mb": peak_mb}
    return found


def notes() -> list[str]:
    """A line for each peer: its version and what it leaves out, or that it is not installed."""
    return [_note(peer) for peer in PEERS]


def _note(peer: Peer) -> str:
    if not peer.is_installed:
        return f"{peer.name}: not installed (pip install -e '.[bench]')"
    sampled = f" Measured on {peer.sample} records and multiplied to all." if peer.sample else ""
    version = importlib.metadata.version(peer.distribution)
    return f"{peer.name} ({peer.distribution} {version}): {peer.does}. Leaves out: {peer.leaves_out}.{sampled}"


def _run(peer: Peer, folder: Path, rows: int) -> tuple[float, float]:
    """Seconds for all the rows, and the peak memory of the process."""
    folder.mkdir()
    taken = min(rows, peer.sample or rows)
    program = str(Path(__file__).with_name("load_peers.py"))
    with new_database(with_ledger=False) as database:
        database.settle()
        arguments = [str(archive(rows, form=peer.form)), database.libpq_url, str(schemas(indexes=False)), str(folder), str(taken)]
        with Worker(program, peer.name, *arguments, environment=QUIET) as child:
            found = child.run()
    if found["rows"] < LEAST_SHARE * taken:
        raise ValueError(f"{peer.name} brought {found['rows']:.0f} of {taken} records")
    print(f"# {peer.name}: {found['rows']:.0f} of {taken} records in {found['seconds']:.1f} s", file=sys.stderr)
    return found["seconds"] * rows / taken, found["peak_mb"]
