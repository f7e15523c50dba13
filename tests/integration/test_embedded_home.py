"""What tests start in a folder of their own goes away with them, also when they fail or are killed."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import embedded_home
import pytest
import sqlalchemy as sa
from embedded_home import open_folder, without_leftovers

from pipeline.database.embedded import EmbeddedPostgres

TESTS = Path(__file__).parents[1]
KILLED = """
import signal, sys, time
from embedded_home import open_folder
from pipeline.database.embedded import EmbeddedPostgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
with open_folder() as folder:
    EmbeddedPostgres(folder / "pg").start()
    print(folder, flush=True)
    time.sleep(600)
"""


def another_session():
    """A process that has a folder with a running server, and the folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    process = subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().rstrip("\n"))


def test_failing_test_leaves_neither_folder_nor_server_nor_data_elsewhere():
    with pytest.raises(ZeroDivisionError), open_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        EmbeddedPostgres(closed / "pg").start()
        recorded = EmbeddedPostgres(closed / "pg")._recorded()
        assert recorded.data.exists()
        raise ZeroDivisionError
    assert not folder.exists()
    assert not recorded.data.exists()
    assert not recorded.answers()


def test_folder_of_a_killed_session_is_removed_by_the_next_and_that_of_a_living_one_is_not():
    (killed, left), (alive, kept) = another_session(), another_session()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        server = EmbeddedPostgres(left / "pg")._recorded()
        with open_folder():
            assert not left.exists()
            assert not server.answers()
            assert EmbeddedPostgres(kept / "pg").is_running
    finally:
        alive.send_signal(signal.SIGINT)  # it ends as a test does that was interrupted
        alive.communicate()
    assert not kept.exists()


def test_folder_that_cannot_be_removed_is_kept_and_named():
    with open_folder() as unrelated:
        left = embedded_home.ROOT / f"{embedded_home.PREFIX}{uuid.uuid4().hex[:8]}"
        left.mkdir()
        (left / "embedded-postgres.json").write_text("no json")
        try:
            with pytest.warns(UserWarning, match=f"{left}.*is kept"), open_folder():
                assert left.exists()
        finally:
            shutil.rmtree(left)
        assert unrelated.exists()


def test_databases_of_killed_sessions_are_dropped_when_no_session_is_at_work(open_folder):
    name = f"test_{uuid.uuid4().hex[:12]}"

    def names(url):
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            return set(connection.scalars(sa.text("select datname from pg_database")))

    with EmbeddedPostgres(open_folder / "pg") as text:
        url = sa.make_url(text)
        with without_leftovers(url), sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
            with without_leftovers(url):
                assert name in names(url)
        with without_leftovers(url):
            assert name not in names(url)
            assert "postgres" in names(url)
