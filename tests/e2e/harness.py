"""A world of one's own for an end-to-end test: state folder, database, bundle, configuration, schema files.

What runs in it is the real thing: `hcad-pipeline` and `luigi` as processes, against a real luigid, a real PostgreSQL and a real
HTTP server whose request log can be read. A world can be copied whole (state folder and database), so that a test may begin with a
release that is already published and break what it likes.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from databases import connect, database
from process_groups import kill_group, wait_until
from sample_site import REPOSITORY, SampleServer, members, script

from pipeline.catalog.load import load_catalog
from pipeline.database.engine import make_engine
from pipeline.load.manager import LoadManager

#: Archives get this modification time: the same content offered again is the same release again.
PUBLISHED_AT = 1_700_000_000
COMMAND_TIMEOUT_S = 600
#: Luigi's pace in tests: the shipped figures but for the pause before a retry.
BRISK = {"worker.wait_interval": "0.2", "worker.wait_jitter": "0", "scheduler.retry_delay": "1", "scheduler.retry_count": "2"}
#: Set by whoever starts the tests, and not for the processes of a world.
FOREIGN = ("LUIGI_CONFIG_PATH", "DATABASE_URL", "HCAD_PIPELINE_RUN_ID", "HCAD_PIPELINE_TOKENS", "HCAD_PIPELINE_MIRROR", "PYTHONPATH")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass
class World:
    """A state folder, a database, a bundle, a configuration and schema files of one's own."""

    home: Path
    server: SampleServer
    database_url: str
    luigid: str
    settings: Mapping[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.bundle.mkdir(parents=True, exist_ok=True)
        if not self.schemas.exists():
            shutil.copytree(REPOSITORY / "schemas", self.schemas)
        self.configure(self.settings)

    @property
    def state(self) -> Path:
        return self.home / "var"

    @property
    def schemas(self) -> Path:
        return self.home / "schemas"

    @property
    def config(self) -> Path:
        return self.home / "config" / "luigi.cfg"

    @property
    def bundle(self) -> Path:
        return self.server.root / self.home.name

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write our configuration with some values changed: `{"extract.part_bytes": "1000000"}`."""
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(configuration(self.state, {"catalog.path": str(self.schemas)} | dict(settings)))

    def environment(self, **more: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return own | {
            "PYTHONPATH": str(REPOSITORY),
            "LUIGI_CONFIG_PATH": str(self.config),
            "DATABASE_URL": self.database_url,
            "HCAD_PIPELINE_STATE": str(self.state),
            "HCAD_PIPELINE_PROFILE": "sample",
            "SAMPLE_SERVER_URL": f"{self.server.url}/{self.home.name}",
        } | more  # fmt: skip

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own; its output goes to files."""
        with open(self.home / "out", "w") as out, open(self.home / "err", "w") as err:
            process = subprocess.Popen(
                command, env=self.environment(**more), cwd=self.home, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], started: float, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Wait for a command, and end its group if it does not end."""
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            kill_group(process)
            raise AssertionError(f"{process.args} did not end within {timeout_s} s; {(self.home / 'err').read_text()[-4000:]}") from None
        return Done(code, (self.home / "out").read_text(), (self.home / "err").read_text(), time.monotonic() - started)

    def do(self, *command: str, **more: str) -> Done:
        started = time.monotonic()
        return self.finish(self.start(*command, **more), started)

    def pipeline(self, *arguments: str) -> list[str]:
        """The command line of `hcad-pipeline`."""
        return [sys.executable, "-m", "pipeline", *arguments]

    def luigi_command(self, *arguments: str) -> list[str]:
        """The command line of plain `luigi`, as the README gives it."""
        luigi = str(Path(sys.executable).with_name("luigi"))
        return [luigi, "--module", "pipeline.tasks", *arguments, "--workers", "2", "--scheduler-url", self.luigid]

    def run(self, *arguments: str, **more: str) -> Done:
        """`hcad-pipeline run`."""
        return self.do(*self.pipeline("run", "--scheduler-url", self.luigid, *arguments), **more)

    def publish(self, *arguments: str) -> Done:
        """A run that must end well."""
        done = self.run(*arguments)
        assert done.code == 0, done.text + self.logs()
        return done

    def luigi(self, *arguments: str, **more: str) -> Done:
        """Plain `luigi`."""
        return self.do(*self.luigi_command(*arguments), **more)

    def logs(self) -> str:
        """The end of the newest log, for a failing test's message."""
        found = sorted((self.state / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return f"\n{found[-1]}:\n{found[-1].read_text()[-6000:]}" if found else ""

    def sql(self, statement: str, *values: object) -> list[Any]:
        """The rows of one statement."""
        with closing(connect(self.database_url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: object) -> Any:
        """The single value of one statement."""
        return self.sql(statement, *values)[0][0]

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content hash of every table and tax year of the sample that exists."""
        os.environ.setdefault("SAMPLE_SERVER_URL", self.server.url)
        engine = make_engine(self.database_url)
        loads = LoadManager(engine)
        found = {}
        for name, source in load_catalog(self.schemas, profile="sample").items():
            for year in source.tax_years:
                for table in source.tables_for(year):
                    if self.one("select to_regclass(%s)", f"{name}.{table.name}"):
                        found[f"{name}.{table.name}.{year}"] = loads.content_hash(table, year)
        engine.dispose()  # a database that somebody is connected to is not copied
        return found

    def currents(self) -> list[Any]:
        """What is published: number, source, tax year, release, recipe."""
        return self.sql("select import_id, source, tax_year, release, recipe from etl.import where state = 'published' order by 2, 3")

    def last_attempt(self) -> int:
        """The newest attempt's number: what comes later is of the next run."""
        return int(self.one("select coalesce(max(attempt_id), 0) from etl.task_attempt"))

    def families(self, after: int = 0) -> set[str]:
        """The tasks that were started since."""
        return {family for (family,) in self.sql("select distinct family from etl.task_attempt where attempt_id > %s", after)}

    def tables_of(self, family: str, after: int) -> set[str]:
        """The tables for which tasks of a family were started since."""
        rows = self.sql("select distinct parameters->>'table' from etl.task_attempt where attempt_id > %s and family = %s", after, family)
        return {table for (table,) in rows}

    def written(self, table: str) -> tuple[int, int, int]:
        """Rows that the current import inserted, updated and deleted."""
        rows = self.sql(
            """select t.inserted, t.updated, t.deleted from etl.import_table t join etl.import i using (import_id)
                where i.state = 'published' and t.table_name = %s""",
            table,
        )
        return tuple(rows[0])

    def leftovers(self) -> dict[str, object]:
        """What must be gone when nothing is at work: staging tables, markers, open rows, locks, sessions. A session's end takes a moment."""
        deadline = time.monotonic() + 60
        while (found := self._left()).keys() & {"advisory locks", "sessions"} and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _left(self) -> dict[str, object]:
        return {
            name: found
            for name, found in {
                "staging tables": [row[0] for row in self.sql("select tablename from pg_tables where schemaname = 'etl_staging'")],
                "checkpoints": self.one("select count(*) from etl.checkpoint"),
                "staged tables": self.one("select count(*) from etl.staged_table"),
                "gate markers": self.one("select count(*) from etl.checked"),
                "open imports": self.one("select count(*) from etl.import where state = 'staging'"),
                "advisory locks": self.one(
                    """select count(*) from pg_locks l join pg_database d on d.oid = l.database
                        where l.locktype = 'advisory' and d.datname = current_database()"""
                ),
                "sessions": self.sql(
                    """select pid, query from pg_stat_activity
                        where datname = current_database() and application_name like 'hcad-pipeline%%' and pid <> pg_backend_pid()"""
                ),
            }.items()
            if found
        }  # fmt: skip

    def mark(self) -> int:
        """A place in the request log."""
        return len(self.server.requests())

    def asked(self, mark: int) -> list[str]:
        """The requests to this world's bundle since a mark: `METHOD path`."""
        prefix = f"/{self.home.name}/"
        split = [line.split(" ") for line in self.server.requests()[mark:]]
        return [f"{method} {path.removeprefix(prefix)}" for method, path, *_ in split if path.startswith(prefix)]

    def offer(self, archive: str, content: bytes | Mapping[str, bytes]) -> None:
        """Put an archive on the server: its members, or any bytes at all."""
        body = content if isinstance(content, bytes) else script("make_sample").pack(dict(content))
        path = self.bundle / archive
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(".unfinished")
        unfinished.write_bytes(body)
        os.utime(unfinished, (PUBLISHED_AT, PUBLISHED_AT))
        unfinished.replace(path)

    def offered(self, archive: str) -> dict[str, bytes]:
        """The members of an archive on the server."""
        return members(self.bundle / archive)

    def edit_schema(self, file: str, old: str, new: str) -> None:
        """Replace text in a schema file; it must be there once."""
        path = self.schemas / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    @contextmanager
    def locked(self, table: str, mode: str) -> Iterator[None]:
        """Hold a table lock, as another session would."""
        with closing(connect(self.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute(f"lock table {table} in {mode} mode")
            yield

    def until_waiting(self, process: subprocess.Popen[str], table: str, sessions: int = 1) -> None:
        """Wait until so many sessions of a command wait for a lock of this table."""

        def waiting() -> bool:
            assert process.poll() is None, (self.home / "out").read_text() + (self.home / "err").read_text() + self.logs()
            return bool(self.one("select count(*) from pg_locks where not granted and relation = %s::regclass", table) == sessions)

        wait_until(waiting)

    @contextmanager
    def copy(self, home: Path, server: sa.URL, settings: Mapping[str, str] | None = None) -> Iterator[World]:
        """The same world again, its database and state folder included."""
        name = sa.make_url(self.database_url).database
        with database(server, name) as url:
            shutil.copytree(self.home, home)
            shutil.copytree(self.bundle, self.server.root / home.name)
            world = World(home, self.server, url, self.luigid, self.settings if settings is None else settings)
            try:
                yield world
            finally:
                for process in world.started:
                    if process.poll() is None:
                        kill_group(process)


def configuration(state: Path, settings: Mapping[str, str]) -> str:
    """Our configuration with some values changed, every path absolute."""
    parser = configparser.RawConfigParser()
    parser.read(REPOSITORY / "config" / "luigi.cfg")
    paths = {
        "paths.state": str(state),
        "core.logging_conf_file": str(REPOSITORY / "config" / "logging.conf"),
        "core.lock_pid_dir": str(state),
        "scheduler.state_path": str(state / "luigid" / "state.pickle"),
    }
    for name, value in (paths | dict(settings)).items():
        section, key = name.split(".")
        assert section == "core" or parser.has_option(section, key), f"config/luigi.cfg has no [{section}] {key}"
        parser.set(section, key, value)
    lines = [f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in parser.items(section)) for section in parser.sections()]
    return "\n".join(lines)
