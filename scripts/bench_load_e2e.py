"""The whole run of the suite ``load``: the plain ``luigi`` command against ``luigid``, from a zip behind HTTP to published rows.

A :class:`LuigiRun` has an empty state folder, a database of its own, a ``luigid`` and a server that offers the made county's archive;
starting these is not timed, the command is, from its start to its end. Configuration is the shipped one (parts of 64 MB) but for paths.
Memory is the high-water mark that Linux keeps of each process of the command's tree, looked at twenty times a second.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench_load_made import ADDRESS, ARCHIVE, YEAR, archive, schemas
from bench_load_server import new_database
from county_shapes import REAL_ACCT
from measuring import ENVIRONMENT, SCRIPTS

from pipeline import services
from pipeline.catalog import Table, load_catalog

WORKERS = 2
LOOK_S = 0.05
#: Of the pipeline and of Luigi; what the caller has set is not for the measured run.
FOREIGN = ("LUIGI_CONFIG_PATH", "DATABASE_URL", "HCAD_PIPELINE_RUN_ID", "HCAD_PIPELINE_TOKENS", "HCAD_PIPELINE_MIRROR")


@dataclass(frozen=True)
class Ran:
    """How long a command took, and the peak of the largest of its processes."""

    seconds: float
    peak_mb: float


class LuigiRun:
    """A county of so many rows to be published into an empty database."""

    def __init__(self, folder: Path, rows: int, *, indexes: bool) -> None:
        self.state, self._rows, self._schemas = folder / "var", rows, schemas(indexes=indexes)
        self.config, self._root = folder / "config" / "luigi.cfg", folder / "publisher"
        self._open = ExitStack()

    @property
    def table(self) -> Table:
        """The table that is loaded."""
        return load_catalog(self._schemas, environ=ADDRESS)[REAL_ACCT.source].table(REAL_ACCT.table)

    def __enter__(self) -> LuigiRun:
        """Start what the command needs."""
        self.database = self._open.enter_context(new_database(with_ledger=False))
        (self._root / str(YEAR)).mkdir(parents=True)
        os.link(archive(self._rows), self._root / str(YEAR) / ARCHIVE)
        self._configure()
        self._open.callback(services.stop_all, self.state)
        self._luigid = services.start_luigid(self.state, config=self.config)
        self._publisher = services.start_sample_server(self.state, root=self._root, script=SCRIPTS / "sample_server.py")
        return self

    def __exit__(self, *ended: object) -> None:
        """Stop it."""
        self._open.close()

    def once(self) -> Ran:
        """The command.

        Raises:
            RuntimeError: it failed; the message ends with what it said.
        """
        self.database.settle()
        luigi = str(Path(sys.executable).with_name("luigi"))
        sync = ["SyncSource", "--source", REAL_ACCT.source, "--year", str(YEAR)]
        command = [luigi, "--module", "pipeline.tasks", *sync, "--workers", str(WORKERS), "--scheduler-url", self._luigid.url]
        with open(self.state / "luigi.log", "w+") as log:
            started = time.perf_counter()
            process = subprocess.Popen(command, env=self._environment(), cwd=self.state, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            peak_mb = _watched(process)
            took_s = time.perf_counter() - started
            if process.returncode:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read()[-4000:]}")
        return Ran(took_s, peak_mb)

    def floor_s(self, csv: Path) -> float:
        """Seconds of the floor."""
        return self.database.copied_by_psql(self.table, csv)

    def export(self, csv: Path) -> None:
        """Write what was published as the floor's CSV."""
        self.database.export(self.table, csv)

    def rows_published(self) -> int:
        """Rows of the current import of the table."""
        found = self.database.rows(
            """select t.inserted from etl.import_table t join etl.import i using (import_id)
                where i.state = 'published' and t.table_name = %s""",
            REAL_ACCT.table,
        )
        return int(found[0][0]) if found else 0

    def _configure(self) -> None:
        shipped = configparser.RawConfigParser()
        shipped.read(SCRIPTS.parent / "config" / "luigi.cfg")
        shipped.set("paths", "state", str(self.state))
        shipped.set("catalog", "path", str(self._schemas))
        shipped.set("core", "logging_conf_file", str(SCRIPTS.parent / "config" / "logging.conf"))
        shipped.set("core", "lock_pid_dir", str(self.state))
        shipped.set("scheduler", "state_path", str(self.state / "luigid" / "state.pickle"))
        self.config.parent.mkdir(parents=True)
        self.state.mkdir()
        with open(self.config, "w") as out:
            shipped.write(out)

    def _environment(self) -> Mapping[str, str]:
        own = {name: value for name, value in ENVIRONMENT.items() if name not in FOREIGN}
        return own | {
            "LUIGI_CONFIG_PATH": str(self.config), "DATABASE_URL": self.database.libpq_url, "HCAD_PIPELINE_STATE": str(self.state),
            "COUNTY_URL": self._publisher.url.rstrip("/"),
        }  # fmt: skip


def _watched(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; returns the peak resident memory, MB, of the largest of it and its descendants."""
    peak_kb = 0
    while process.poll() is None:
        peak_kb = max([peak_kb, *map(_peak_kb, _tree(process.pid))])
        time.sleep(LOOK_S)
    return peak_kb / 1024


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it, as they are at this moment."""
    found = [pid]
    for parent in found:
        try:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def _peak_kb(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # One that has ended and was not waited for has no memory any more.
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
