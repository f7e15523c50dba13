"""Folders for the embedded PostgreSQL servers and services that a test starts, of which nothing stays behind.

A folder is open for every user to pass through: pytest's own are closed to the user as whom root's PostgreSQL runs, and its data
would then lie elsewhere. It is held by a lock for as long as its test lives. What is in it is stopped and removed with the test,
wherever a server put its data, and also when the test failed; what a killed session left is removed by the next one that asks for
a folder. What cannot be removed is kept, and a warning says where it is.
"""

import fcntl
import json
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from pipeline import services
from pipeline.database.embedded import RECORD, EmbeddedPostgres
from pipeline.errors import PipelineError

#: Whatever TMPDIR says: it may be closed to others, and too long for a socket's path.
ROOT = Path("/tmp")
#: The server that the sessions share. It is kept, so that only the first one pays for initdb.
SHARED_HOME = ROOT / f"hcad-pipeline-tests-{os.geteuid()}"
#: Of the folders that go away.
PREFIX = f"hcad-pipeline-test-{os.geteuid()}-"
#: The advisory lock that every session shares on the server's own database.
_SESSIONS = 742_019


@contextmanager
def open_folder():
    """A folder of one's own that every user can pass through; what runs in it is stopped and all of it removed at the end."""
    with _alone():
        for left in ROOT.glob(f"{PREFIX}*/"):
            _remove_if_left(left)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=ROOT))
        folder.chmod(0o755)
        held = _take(folder)
    try:
        yield folder
    finally:
        _stop(folder)
        with _alone():  # nobody looks for its lock while that is going away
            shutil.rmtree(folder)
        os.close(held)


@contextmanager
def without_leftovers(server):
    """The server, rid of the databases that killed sessions left; a session that is at work keeps its own."""
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        if connection.scalar(sa.text("select pg_try_advisory_lock(:key)"), {"key": _SESSIONS}):  # nobody else is here
            for name in connection.scalars(sa.text(r"select datname from pg_database where datname ~ '^(test|e2e)_[0-9a-f]{12}$'")).all():
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(sa.text("select pg_advisory_unlock(:key)"), {"key": _SESSIONS})
        connection.execute(sa.text("select pg_advisory_lock_shared(:key)"), {"key": _SESSIONS})
        yield server


def _remove_if_left(folder):
    """Remove the folder of a session that was killed. The lock of one that lives is taken."""
    held = _take(folder, fcntl.LOCK_NB)
    if held is None:
        return
    try:
        _stop(folder)
        shutil.rmtree(folder)
    except (PipelineError, OSError, ValueError) as error:
        warnings.warn(f"{folder}, which a killed session of the tests left, is kept: {error}", stacklevel=2)
    finally:
        os.close(held)


def _stop(folder):
    """Stop the services and servers below a folder, and remove what the servers put elsewhere."""
    for note in folder.rglob("service.json"):
        services.stop_all(note.parents[1])
    for record in folder.rglob(RECORD):
        EmbeddedPostgres(record.parent).stop()
        found = json.loads(record.read_text())
        for place in {found["private_base"], found["socket"]} - {None}:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _alone():
    """One session at a time makes folders, looks through them and removes them."""
    SHARED_HOME.mkdir(mode=0o755, exist_ok=True)
    held = _take(SHARED_HOME)
    try:
        yield
    finally:
        os.close(held)


def _take(path, more=0):
    """The descriptor that holds a folder's lock; None when another one holds it and we were not to wait."""
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | more)
    except BlockingIOError:
        os.close(held)
        return None
    return held
