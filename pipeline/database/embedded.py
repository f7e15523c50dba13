"""A private, real PostgreSQL server in a folder, for those who have no database of their own.

``EmbeddedPostgres(home).start()`` gives a URL; the server stays up when the caller ends, and ``stop()`` stops it. As a
context manager the last one out stops it. Any number of processes may do this at once. Whatever is killed at whatever
moment (the owner, the server, initdb half-way), the next ``start()`` goes on from what lies on the disk: a lock belongs
to a process and dies with it, a data folder is renamed into place when it is whole, and the server is known by its
command line, never by a number in a file alone. Nothing listens on the network; the socket is in a folder that only the
server's user can enter. fsync stays on. ``embedded-postgres.json`` in the folder says where everything is.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pipeline import processes
from pipeline.database import embedded_places as places
from pipeline.database.embedded_places import Programs
from pipeline.database.embedded_server import LOG_TAIL, Server, initialise, launch
from pipeline.errors import ConfigurationError, DatabaseUnavailable, DiskError
from pipeline.handoff import read_json, write_json

#: The rest is PostgreSQL's own default.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # nothing on the network, no port to collide
    "max_wal_size": "4GB",  # batch loads: fewer checkpoints
    # Nothing replicates from here, and a COPY into a table made in the same transaction is a fifth faster.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
}
RECORD = "embedded-postgres.json"
_NO_SOCKET_S = 10.0
#: A transaction that made an unlogged table was rolled back, and the server killed before the WAL said so: recovery makes the table again
#: beside the emptied file that stays of it until the next checkpoint, and ends because that is in the way. A second recovery removes it.
_HALF_REMOVED = re.compile(r'FATAL:  could not create file "(base|pg_tblspc)/[^"]+": File exists')


class EmbeddedPostgres:
    """The server of a folder.

    Args:
        home: the folder; it is made when it is not there.
        settings: server settings beside and before :data:`SETTINGS`; they hold for a server that this object starts.
        timeout_s: seconds that a start or stop may take; recovery after a crash takes its time.
    """

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None, timeout_s: float = 300) -> None:
        """Name the server; nothing is started or written yet."""
        self.home = home.expanduser().resolve()
        self.settings = {**SETTINGS, **(settings or {})}
        self.timeout_s = timeout_s
        self._in_use: int | None = None

    def start(self) -> str:
        """Start the server, if it does not run; it stays up until :meth:`stop`.

        Returns:
            Its URL, ``postgresql+psycopg2://...``.

        Raises:
            ConfigurationError: no programs, data of another major version, or a place that is not safe to use.
            DatabaseUnavailable: it did not come up; the message ends with its log.
            DiskError: the folder cannot be written.
        """
        with self._alone():
            self._stays_up.touch()
            return self._start()

    def stop(self) -> bool:
        """Stop the server, whoever uses it.

        Returns:
            Whether one ran.

        Raises:
            DatabaseUnavailable: it did not end in time.
        """
        if not self.home.is_dir():
            return False
        with self._alone():
            self._stays_up.unlink(missing_ok=True)
            return self._stop()

    @property
    def is_running(self) -> bool:
        """Whether the server takes connections. Nothing is started."""
        server = self._recorded()
        return server is not None and server.data.exists() and server.answers()

    def __enter__(self) -> str:
        """Start the server, if it does not run, and hold it up until we leave. Raises as :meth:`start` does."""
        with self._alone():
            self._in_use = os.open(self.home / "in-use.lock", os.O_RDONLY | os.O_CREAT, 0o644)
            fcntl.flock(self._in_use, fcntl.LOCK_SH)  # ours until we leave, or die
            try:
                return self._start()
            except BaseException:
                os.close(self._in_use)
                raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the server, unless another process is at work with it or it was started to stay up."""
        if self._in_use is None:
            return
        in_use, self._in_use = self._in_use, None
        with self._alone():
            try:
                fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not self._stays_up.exists():
                    self._stop()
            except BlockingIOError:
                return  # another process holds it up
            finally:
                os.close(in_use)

    @property
    def _stays_up(self) -> Path:
        return self.home / "stays-up"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time starts and stops. The lock is for reading only, so that root's file shuts nobody out."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.home / "start-stop.lock", os.O_RDONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._disk_error(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except (OSError, shutil.Error) as error:
            raise self._disk_error(error) from error
        finally:
            os.close(lock)

    def _disk_error(self, error: Exception) -> DiskError:
        return DiskError(
            f"the embedded PostgreSQL's folder {self.home}: {error}",
            "a folder that can be written, with room for the database",
            "make room or set the permissions right, then run again",
        )

    def _recorded(self) -> Server | None:
        """The server as the last start left it."""
        try:
            record = read_json(self.home / RECORD)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._disk_error(error) from error
        base = self.home
        if record["private_base"]:
            base = Path(record["private_base"])
            places.check_base(base)
        data = base / f"data-{record['version'].split('.')[0]}"
        account = places.server_account(data)
        return Server(base, data, places.socket_folder(data, account), record["port"], account)

    def _start(self) -> str:
        server = self._recorded()
        if server is None or not server.data.exists() or not server.answers():
            programs = places.find_programs()
            server = self._place(programs, server)
            programs = places.programs_for(server.account, programs, server.base)
            self._write_record(server, programs)
            if not server.data.exists():
                initialise(server, programs)
            self._bring_up(server, programs)
        return server.url

    def _place(self, programs: Programs, recorded: Server | None) -> Server:
        base = recorded.base if recorded else self.home
        name = f"data-{programs.major}"
        account = places.server_account(base / name)
        if not places.is_open_to(account, base):
            if account is None or recorded is not None or (base / name).exists():
                raise ConfigurationError(
                    f"the data of the embedded PostgreSQL lie in {base}, which is closed to its user",
                    "the folder as open as it was when the data were made",
                    "set the permissions of the folder and those above it right",
                )
            base = places.private_base(account)
        data = base / name
        others = sorted(path.name for path in base.glob("data-*") if path != data)
        if others and not data.exists():
            raise ConfigurationError(
                f"the data in {base} are {', '.join(others)}, and the programs are PostgreSQL {programs.version}",
                "programs of the same major version: another one cannot open them",
                f"install the older programs ({places.BINDIR_VARIABLE}), dump the database, move the data away and restore it",
            )
        # A number of its own: a server whose folder was removed under it takes its socket's file away when it ends.
        port = recorded.port if recorded else 10_000 + secrets.randbelow(50_000)
        return Server(base, data, places.socket_folder(data, account), port, account)

    def _write_record(self, server: Server, programs: Programs) -> None:
        private = server.base != self.home
        write_json(
            self.home / RECORD,
            {
                "about": "Where the embedded PostgreSQL is. To begin with an empty database: stop it, remove data and this file.",
                "data": str(server.data),
                "socket": str(server.socket),
                "port": server.port,
                "url": server.url,
                "programs": str(programs.bin),
                "version": programs.version,
                "log": str(self._log),
                "private_base": str(server.base) if private else None,
                "why_private": "this folder is closed to the user as whom the server runs" if private else None,
                "why_socket_elsewhere": None if server.socket == server.data else "the path of data is no path for a unix socket",
            },
        )

    @property
    def _log(self) -> Path:
        return self.home / "server.log"

    def _bring_up(self, server: Server, programs: Programs) -> None:
        """Start the server, or wait for the one that is on its way, until it takes connections."""
        begin = time.monotonic()
        launched: tuple[int, str | None] | None = None
        has_repeated = False
        while not server.answers():
            waited_s = time.monotonic() - begin
            if waited_s > self.timeout_s:
                raise self._not_up(f"it does not answer after {waited_s:.0f} s")
            is_coming = launched is not None and launched[1] is not None and processes.started_at(launched[0]) == launched[1]
            if not is_coming and server.postmaster() is None:
                tail = self._log_tail() if launched is not None else ""
                # The processes of a killed server hold its memory until they notice: try again until they have.
                if launched is not None and "shared memory block" not in tail:
                    if has_repeated or not _HALF_REMOVED.search(tail):
                        raise self._not_up("it ended at once")
                    has_repeated = True
                if launched is None and self._log.exists():
                    self._log.replace(self._log.with_suffix(".log.1"))
                launched = launch(server, programs, self.settings, self._log)
            elif launched is None and waited_s > _NO_SOCKET_S and not server.socket_file.exists():
                server.end(self.timeout_s)  # its socket was removed under it: nobody can reach it any more
            time.sleep(0.02)

    def _stop(self) -> bool:
        server = self._recorded()
        return server is not None and server.end(self.timeout_s)

    def _not_up(self, what: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"the embedded PostgreSQL did not start: {what}. The end of {self._log}: {self._log_tail()}",
            "a server that takes connections",
            "mend what the log names, or set DATABASE_URL to use a server of your own",
        )

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL:].strip() if self._log.exists() else ""
