"""The one server process of an embedded PostgreSQL: make its data folder, launch it, know it, end it.

Nothing here takes a lock or decides where things lie; ``EmbeddedPostgres`` does both. A data folder is renamed into
place when initdb is done, so that half of one is never opened. The server is known by its command line, which names its
data folder: the number in ``postmaster.pid`` alone can belong to another program after a crash.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from sqlalchemy import URL

from pipeline import processes
from pipeline.database.embedded_places import Programs
from pipeline.errors import DatabaseUnavailable
from pipeline.handoff import fsync_folder
from pipeline.processes import Account

LOG_TAIL = 2000


@dataclass(frozen=True)
class Server:
    """Where a server is. ``base`` is the folder of ``data``: the home, or a private folder when the home is closed."""

    base: Path
    data: Path
    socket: Path
    port: int
    account: Account | None

    @property
    def url(self) -> str:
        """Its SQLAlchemy URL, driver named."""
        query = {"host": str(self.socket), "port": str(self.port)}
        url = URL.create("postgresql+psycopg2", "postgres", database="postgres", query=query)
        return url.render_as_string(hide_password=False)

    @property
    def socket_file(self) -> Path:
        """The socket itself."""
        return self.socket / f".s.PGSQL.{self.port}"

    def answers(self) -> bool:
        """Whether it takes connections (or refuses one for a reason of its own, such as too many)."""
        try:
            psycopg2.connect(host=str(self.socket), port=self.port, user="postgres", dbname="postgres", connect_timeout=5).close()
        except psycopg2.OperationalError as error:
            return "FATAL:" in str(error) and "the database system is" not in str(error)
        return True

    def postmaster(self) -> int | None:
        """The number of the process that serves these data, if there is one."""
        pid = self.noted_pid()
        return pid if pid and f"-D {self.data} --" in processes.command_line(pid) + " " else None

    def noted_pid(self) -> int | None:
        """The number in postmaster.pid, which after a crash can be another program's."""
        try:
            return int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None

    def end(self, timeout_s: float) -> bool:
        """Stop it: sessions are ended and everything is written; if need be at once, and the next start recovers.

        Returns:
            Whether one ran.

        Raises:
            DatabaseUnavailable: it did not end.
        """
        pid = self.postmaster()
        mark = processes.started_at(pid) if pid else None
        if pid is None or mark is None:
            return False
        if not processes.stop(pid, mark, ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 10.0))):
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL (process {pid}, data {self.data}) does not end",
                f"an end within {timeout_s:.0f} s",
                "look at server.log in the state folder, and at what keeps the disk busy",
            )
        return True


def initialise(server: Server, programs: Programs) -> None:
    """Make the data folder: whole or not at all.

    Raises:
        DatabaseUnavailable: initdb failed; the message ends with what it printed.
    """
    for unfinished in server.base.glob("new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)  # an orphaned initdb may still write there: next time, then
    new = Path(tempfile.mkdtemp(prefix="new-", dir=server.base))
    if server.account:
        os.chown(new, server.account.uid, server.account.gid)
    command = [str(programs.bin / "initdb"), "-D", str(new), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    if programs.major > 16:
        # Knows all of Unicode and needs no locale of the system, which may have none.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        cwd="/",
        check=False,
        **(server.account.popen_arguments() if server.account else {}),
    )
    if done.returncode:
        raise DatabaseUnavailable(
            f"initdb ended with {done.returncode}: {done.stdout[-LOG_TAIL:].strip()}",
            "a new database",
            "mend what it names, or set DATABASE_URL to use a server of your own",
        )
    new.rename(server.data)
    fsync_folder(server.base)


def launch(server: Server, programs: Programs, settings: Mapping[str, str], log: Path) -> tuple[int, str | None]:
    """Start the server's process, which outlives ours.

    Args:
        server: what to start.
        programs: ones that the server's user can run.
        settings: server settings, in PostgreSQL's own terms.
        log: the file to which its output is added.

    Returns:
        Its number, and :func:`pipeline.processes.started_at` of it (None: it is gone already).
    """
    environment = _environment()
    if stale := server.noted_pid():
        # Not our server, so another program with its old number. PostgreSQL skips the number it is told here and
        # relies on its other checks; removing the file would switch those off.
        environment["PG_GRANDPARENT_PID"] = str(stale)
    places = {"unix_socket_directories": str(server.socket), "port": str(server.port)}
    options = [f"--{key}={value}" for key, value in {**settings, **places}.items()]
    command = [str(programs.bin / "postgres"), "-D", str(server.data), *options]
    with open(log, "ab") as out:
        pid = processes.start_detached(command, log=out, env=environment, cwd=Path("/"), account=server.account)
    return pid, processes.started_at(pid)


def _environment() -> dict[str, str]:
    """Ours, without what changes PostgreSQL's programs: a user's PGDATA or PGOPTIONS, a locale that is not installed."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))} | {"LC_ALL": "C"}
