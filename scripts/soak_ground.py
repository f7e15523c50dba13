"""What the soak stands on: a PostgreSQL server that may be killed, an HTTP server with the releases, and copies of both states.

A :class:`Ground` makes each :class:`County` in a fraction of a second, as a copy of one that was brought to a release undisturbed. All
lies in one folder, which goes away with the ground. The pipeline works as a role that owns nothing but what it makes; its password is
the canary that must not show up anywhere.
"""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy as sa

from pipeline import processes
from pipeline.database.embedded import EmbeddedPostgres
from pipeline.handoff import read_json

SCRIPTS = Path(__file__).resolve().parent
REPOSITORY = SCRIPTS.parent
sys.path[:0] = [entry for entry in (str(SCRIPTS), str(REPOSITORY / "tests" / "fixtures")) if entry not in sys.path]

import soak_county  # noqa: E402
from database_proxy import DatabaseProxy  # noqa: E402
from sample_server import make_server  # noqa: E402

ROLE, CANARY = "soak", "canary-7d1f0c"
#: What is killed here is processes, never the machine: what was written stays written.
SERVER = {"fsync": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1", "shared_buffers": "32MB", "max_connections": "60",
          "restart_after_crash": "on", "log_min_messages": "fatal", "autovacuum": "off"}  # fmt: skip
#: Luigi's and the database's pace: what is waited for for minutes in earnest is waited for for a second here.
BRISK = {
    "extract.part_bytes": str(soak_county.PART_BYTES), "worker.wait_interval": "0.02", "worker.wait_jitter": "0",
    "worker.max_keep_alive_idle_duration": "5", "scheduler.retry_delay": "0.1", "scheduler.retry_count": "2", "database.reconnect_s": "1",
    "database.connect_timeout_s": "5", "database.lock_timeout_s": "1.4", "database.silence_s": "1.5", "database.min_free_mb": "0",
    "download.max_retries": "1",
    # A frozen run on the same machine may hold all places at the host, for which an hour is waited in earnest.
    "download.slot_wait_s": "3",
}  # fmt: skip


@dataclass
class County:
    """A database and a state folder of one's own, and which release is offered."""

    ground: Ground
    name: str
    state: Path
    logs: Path
    started: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The database, for the pipeline."""
        return self.ground.url(self.name)

    def environment(self, release: str, url: str | None = None) -> dict[str, str]:
        """What a process of the pipeline needs to know."""
        return {
            "DATABASE_URL": url or self.url,
            "HCAD_PIPELINE_STATE": str(self.state),
            "SOAK_URL": f"{self.ground.site}/{release}",
            "LUIGI_CONFIG_PATH": str(self.ground.config),
            "PYTHONPATH": str(REPOSITORY),
        }

    def sql(self, statement: str, *values: object) -> list[Any]:
        """The rows of a statement, as the server's administrator."""
        with self.ground.admin(self.name) as cursor:
            return _rows(cursor, statement, values)

    @contextmanager
    def snapshot(self) -> Iterator[Callable[..., list[Any]]]:
        """The same, for several statements about one moment."""
        with self.ground.admin(self.name) as cursor:
            cursor.execute("begin isolation level repeatable read, read only")
            yield lambda statement, *values: _rows(cursor, statement, values)


class Ground:
    """The servers. Nothing of it is used by two processes at once but what is meant to be."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)  # the server's user passes through
        self.folder, self.config = folder, folder / "luigi.cfg"
        soak_county.write_releases(folder / "site")
        soak_county.write_schemas(folder / "schemas")
        self.config.write_text(_configuration(folder))
        self.postgres = EmbeddedPostgres(folder / "postgres", settings=SERVER)
        self._forks: list[int] = []
        self._server = sa.make_url(self.postgres.start())
        with self.admin("postgres") as cursor:
            cursor.execute(f"create role {ROLE} login nosuperuser nocreatedb nocreaterole password '{CANARY}'")
        self.site = self._fork_site()
        self._proxy: tuple[int, int] | None = None

    def close(self) -> None:
        """End all of it."""
        for pid in self._forks:
            os.kill(pid, signal.SIGKILL)
        self.postgres.stop()
        record = read_json(self.folder / "postgres" / "embedded-postgres.json")
        for place in {record["private_base"], record["socket"]} - {None}:
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def admin(self, database: str) -> Iterator[Any]:
        """A cursor of the administrator's, outside of any transaction."""
        with closing(psycopg2.connect(self._server.set(database=database, drivername="postgresql").render_as_string())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("set lock_timeout = '2s'; set default_transaction_read_only = off")
                yield cursor

    def url(self, database: str) -> str:
        """The URL of a database for the pipeline's role."""
        return self._server.set(database=database, username=ROLE, password=CANARY).render_as_string(hide_password=False)

    def make(self, name: str, template: County | None = None) -> County:
        """A county in which nothing was done yet, or a copy of one."""
        with self.admin("postgres") as cursor:
            # Under wal_level = minimal the other strategy writes no WAL of what it copies: a crash would lose pages of the copy.
            cursor.execute(f"create database {name} template {template.name if template else 'template1'} strategy file_copy")
            cursor.execute(f"grant create on database {name} to {ROLE}")
        county = County(self, name, self.folder / name / "state", self.folder / name)
        county.logs.mkdir()
        if template:
            shutil.copytree(template.state, county.state)
        return county

    def drop(self, county: County) -> None:
        """Remove a county."""
        with self.admin("postgres") as cursor:
            cursor.execute(f"drop database {county.name} with (force)")
        shutil.rmtree(county.logs)

    def strays(self) -> list[int]:
        """Living forks of this process that are none of the servers."""
        ours = Path("/proc/self/cmdline").read_bytes()
        return [pid for pid in living_children(os.getpid()) if pid not in self._forks and _command(pid) == ours]

    # ------------------------------------------------------------------------------------------ the server's own deaths

    def postmaster(self) -> int:
        """The server's process."""
        record = read_json(self.folder / "postgres" / "embedded-postgres.json")
        return int((Path(record["data"]) / "postmaster.pid").read_text().split()[0])

    def end_server(self, number: signal.Signals, down_s: float) -> None:
        """Signal the server's process, wait for its end, leave it down for a while, and start it again."""
        pid = self.postmaster()
        os.kill(pid, number)
        deadline = time.monotonic() + 120
        while _is_alive(pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server {pid} does not end")
            time.sleep(0.01)
        time.sleep(down_s)
        self.postgres.start()

    def until_up(self) -> None:
        """Wait until the server takes connections again."""
        deadline = time.monotonic() + 120
        while True:
            try:
                with self.admin("postgres") as cursor:
                    cursor.execute("select 1")
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    # ------------------------------------------------------------------------------------------- the servers beside it

    def proxied(self, url: str) -> str:
        """The same URL by way of the proxy, which passes everything on until :meth:`silence`."""
        if self._proxy is None:
            self._proxy = self._fork_proxy()
        changed = sa.make_url(url).difference_update_query(["host", "port"]).set(host="127.0.0.1", port=self._proxy[1])
        return changed.render_as_string(hide_password=False)

    def silence(self) -> None:
        """From now on the proxy takes what comes, passes nothing on, and tells nobody."""
        assert self._proxy
        os.kill(self._proxy[0], signal.SIGUSR1)

    def hear(self) -> None:
        """The proxy works again; the links that it had are cut."""
        assert self._proxy
        os.kill(self._proxy[0], signal.SIGUSR2)

    def _fork_site(self) -> str:
        log = os.open(self.folder / "site.log", os.O_WRONLY | os.O_CREAT)
        server = make_server(self.folder / "site", log_fd=log)
        self._fork(server.serve_forever)
        return f"http://127.0.0.1:{server.server_port}"

    def _fork_proxy(self) -> tuple[int, int]:
        proxy_in, proxy_out = os.pipe()

        def serve() -> None:
            proxy = DatabaseProxy(self._server)

            def silent(*_: object) -> None:
                proxy.silent = True

            def heard(*_: object) -> None:
                proxy.cut()
                proxy.silent = False

            signal.signal(signal.SIGUSR1, silent)
            signal.signal(signal.SIGUSR2, heard)
            port = sa.make_url(proxy.url("postgresql://x@/x")).port
            os.write(proxy_out, f"{port}\n".encode())
            while True:
                signal.pause()

        pid = self._fork(serve)
        port = int(os.read(proxy_in, 20))
        os.close(proxy_in)
        os.close(proxy_out)
        return pid, port

    def _fork(self, serve: Any) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it dies with us
                serve()
            finally:
                os._exit(1)
        self._forks.append(pid)
        return pid


@contextmanager
def ground() -> Iterator[Ground]:
    """A ground in a folder of its own, and no trace of it afterwards."""
    for left in Path("/tmp").glob("soak-[0-9]*-*"):
        # Of a soak that was killed: its server is still there.
        if processes.started_at(int(left.name.split("-")[1])) is None:
            EmbeddedPostgres(left / "postgres").stop()
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{os.getpid()}-", dir="/tmp"))
    try:
        made = Ground(folder)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rows(cursor: Any, statement: str, values: tuple[object, ...]) -> list[Any]:
    cursor.execute(statement, values or None)
    return cursor.fetchall() if cursor.description else []


def living_children(pid: int) -> list[int]:
    """The processes below one that live, the nearest first."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, due = [], [pid]
    while due:
        below = parents.get(due.pop(0), [])
        found += below
        due += below
    return found


def state_of(pid: int) -> str:
    """One line on a process: its state and what it waits for in the kernel."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        waits = Path(f"/proc/{pid}/wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} is gone"
    return f"{pid} below {state[1]}: state {state[0]}, in {waits or '?'}"


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _configuration(folder: Path) -> str:
    parser = configparser.RawConfigParser()
    parser.read(REPOSITORY / "config" / "luigi.cfg")
    paths: Mapping[str, str] = {
        "paths.state": str(folder / "no-state"), "catalog.path": str(folder / "schemas"), "core.lock_pid_dir": str(folder),
        "core.logging_conf_file": str(REPOSITORY / "config" / "logging.conf"), "scheduler.state_path": str(folder / "luigid.pickle"),
    }  # fmt: skip
    for name, value in {**paths, **BRISK}.items():
        section, key = name.split(".")
        parser.set(section, key, value)
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in parser.items(section)) for section in parser.sections()
    )
