"""The embedded PostgreSQL: it comes up whatever was killed, wherever the state lies, and touches nobody else's things."""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import embedded_home
import psycopg2
import pytest
import sqlalchemy as sa

from pipeline import processes
from pipeline.database import embedded, embedded_places
from pipeline.database.embedded import RECORD, EmbeddedPostgres
from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.processes import Account

REPOSITORY = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder(open_folder):
    return open_folder


@pytest.fixture(scope="session")
def data_folder():
    """A fresh data folder, made once: initdb takes long on a busy disk."""
    with embedded_home.open_folder() as folder:
        with EmbeddedPostgres(folder / "pg"):
            pass
        (data,) = (folder / "pg").glob("data-*")
        yield data


@pytest.fixture
def home(folder, data_folder):
    """A state folder with a copy of it, owner and all."""
    (folder / "pg").mkdir()
    subprocess.run(["cp", "-a", data_folder, folder / "pg"], check=True)
    return folder / "pg"


def query(url, text):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(text))
        return result.scalar() if result.returns_rows else None


def in_another_process(code, home, *, wait=True):
    """Run Python code that has `server`, an EmbeddedPostgres; give what it printed, or the process."""
    head = "import sys; from pathlib import Path; from pipeline.database.embedded import EmbeddedPostgres\n"
    head += "server = EmbeddedPostgres(Path(sys.argv[1]))\n"
    process = subprocess.Popen([sys.executable, "-c", head + code, home], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    if not wait:
        return process
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return printed.strip()


def postmaster(server):
    return server._recorded().postmaster()


def kill(pid):
    mark = processes.started_at(pid)
    os.kill(pid, signal.SIGKILL)
    while processes.started_at(pid) == mark:
        time.sleep(0.005)


def long_path(folder):
    return folder / ("x" * 90) / ("y" * (200 - len(str(folder)) - 92))


def test_server_stays_up_when_the_process_that_started_it_ends(home):
    url = in_another_process("print(server.start())", home)
    server = EmbeddedPostgres(home)
    assert server.is_running
    pid = postmaster(server)
    assert query(url, "select 1") == 1
    assert in_another_process("print(server.start())", home) == url
    assert postmaster(server) == pid
    assert server.stop() is True
    assert processes.started_at(pid) is None
    assert server.is_running is False
    assert server.stop() is False


def test_stop_and_is_running_make_nothing_where_there_was_nothing(folder):
    server = EmbeddedPostgres(folder / "none")
    assert (server.is_running, server.stop(), list(folder.iterdir())) == (False, False, [])


def test_four_first_starts_at_once_make_one_server(folder):
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(lambda _: in_another_process("print(server.start())", folder / "pg"), range(4)))
    assert len(urls) == 1
    assert query(urls.pop(), "select count(*) from pg_database") == 3
    assert not list((folder / "pg").glob("new-*"))


def test_committed_row_survives_kill_of_the_server_and_the_next_start_heals(home):
    server = EmbeddedPostgres(home)
    url = server.start()
    query(url, "create table t as select 7 as n")
    kill(postmaster(server))
    assert server.is_running is False
    assert server.start() == url
    assert query(url, "select n from t") == 7


@pytest.mark.fault(57)
def test_kill_after_an_unlogged_table_was_rolled_back_is_recovered_from_at_the_second_attempt(home):
    """PostgreSQL's recovery stumbles once over the file that is left; a plain start ended with "File exists"."""
    server = EmbeddedPostgres(home)
    with sa.create_engine(server.start()).connect() as one:
        one.execute(sa.text("create unlogged table gone (a integer)"))
        query(server.start(), "create table kept as select 7 as a")  # its commit writes out the WAL so far
        # Who would write out the rest of it, in a moment of his own.
        writer = query(server.start(), "select pid from pg_stat_activity where backend_type = 'walwriter'")
        os.kill(writer, signal.SIGSTOP)
        one.rollback()
        kill(postmaster(server))
        os.kill(writer, signal.SIGKILL)
        assert query(server.start(), "select a from kept") == 7
    # Or it was no such kill.
    assert "File exists" in (home / "server.log").read_text()


def test_settings_are_durable_private_and_made_for_batch_loads(home):
    with EmbeddedPostgres(home, settings={"work_mem": "9MB"}) as url:
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
            "wal_level": "minimal",
            "max_wal_size": "4GB",
            "work_mem": "9MB",
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
        }
        assert {name: query(url, f"show {name}") for name in wanted} == wanted
        assert stat.S_IMODE((home / "data-18").stat().st_mode) == 0o700


def test_last_one_out_stops_the_server_and_a_killed_user_does_not_count(home):
    server, other = EmbeddedPostgres(home), EmbeddedPostgres(home)
    with server:
        killed = in_another_process("server.__enter__(); print('in', flush=True); import time; time.sleep(600)", home, wait=False)
        assert killed.stdout.readline() == "in\n"
        with other:
            pass
        assert server.is_running
        pid = postmaster(server)
        killed.kill()
        killed.wait()
        killed.stdout.close()
    assert processes.started_at(pid) is None


def test_last_one_out_leaves_a_server_that_was_started_to_stay(home):
    server = EmbeddedPostgres(home)
    server.start()
    with EmbeddedPostgres(home):
        pass
    assert server.is_running


@pytest.mark.fault(72)
def test_number_of_a_dead_server_that_another_program_has_got_is_no_server_and_is_not_ended(home):
    server = EmbeddedPostgres(home)
    url = server.start()
    query(url, "create table t as select 7 as n")
    account = server._recorded().account
    kill(postmaster(server))
    as_server = account.popen_arguments() if account else {}
    foreign = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **as_server)
    try:
        for note in (home / "data-18" / "postmaster.pid", *(home / "data-18").glob(".s.PGSQL.*.lock")):
            note.write_text(note.read_text().replace(note.read_text().split()[0], str(foreign.pid), 1))
        assert server.stop() is False
        assert server.start() == url
        assert query(url, "select n from t") == 7
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_kill_during_initdb_leaves_nothing_that_the_next_start_trips_over(folder):
    home = folder / "pg"
    killed = 0
    for _ in range(20):
        starting = in_another_process("server.start()", home, wait=False)
        while not list(home.glob("new-*/PG_VERSION")) and starting.poll() is None:
            time.sleep(0.002)
        starting.kill()
        starting.wait()
        starting.stdout.close()
        if (home / "data-18").exists():  # initdb was faster than we looked
            EmbeddedPostgres(home).stop()
            shutil.rmtree(home)
        elif (killed := killed + 1) == 3:
            break
    assert killed == 3
    assert query(EmbeddedPostgres(home).start(), "select 1") == 1


def test_kill_of_the_starter_at_any_moment_leaves_one_server_for_the_next(home):
    for delay_s in (0.1, 0.2, 0.25, 0.3, 0.35, 0.4):
        EmbeddedPostgres(home).stop()
        starting = in_another_process("server.start()", home, wait=False)
        time.sleep(delay_s)
        starting.kill()
        starting.wait()
        starting.stdout.close()
        assert query(EmbeddedPostgres(home).start(), "select 1") == 1


def test_socket_that_was_removed_comes_back(home, monkeypatch):
    monkeypatch.setattr(embedded, "_NO_SOCKET_S", 0.3)
    server = EmbeddedPostgres(home)
    url = server.start()
    server._recorded().socket_file.unlink()
    assert server.is_running is False
    assert server.start() == url
    assert query(url, "select 1") == 1


def test_server_whose_folder_was_removed_does_not_harm_the_next_one(home):
    server = EmbeddedPostgres(home)
    server.start()
    old = postmaster(server)
    shutil.rmtree(home)
    url = server.start()
    mark = processes.started_at(old)
    assert processes.stop(old, mark, ((signal.SIGQUIT, 20),))  # what it does by itself within a minute
    assert query(url, "select 1") == 1
    assert server.is_running


def test_path_of_200_characters_gets_a_short_private_socket_folder(folder):
    home = long_path(folder)
    assert len(str(home)) >= 199
    server = EmbeddedPostgres(home)
    url = server.start()
    query(url, "create table t as select 7 as n")
    record = json.loads((home / RECORD).read_text())
    place = Path(record["socket"])
    assert record["data"] == str(home / "data-18")
    assert place.parent in (Path("/run"), Path("/tmp"))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.stat().st_uid == (home / "data-18").stat().st_uid
    assert in_another_process("print(server.start())", home) == url
    server.stop()
    shutil.rmtree(place)  # as a reboot does
    assert server.start() == url
    assert query(url, "select n from t") == 7


@pytest.mark.parametrize("characters", [",'\"", " %é="])
def test_path_may_hold_any_character(folder, characters):
    assert query(EmbeddedPostgres(folder / f"p{characters}g").start(), "select 1") == 1


@pytest.mark.parametrize("planted", ["open", "link", "file", "foreign"])
def test_socket_folder_that_somebody_else_planted_is_refused(folder, planted):
    if planted == "foreign" and not IS_ROOT:
        pytest.skip("only root can make a folder for somebody else")
    home = long_path(folder)
    server, data = EmbeddedPostgres(home), home / "data-18"
    place = embedded_places.socket_folder(data, embedded_places.server_account(data))
    shutil.rmtree(place)
    if planted == "open":
        place.mkdir()
        place.chmod(0o777)
    elif planted == "link":
        place.symlink_to(folder)
    elif planted == "file":
        place.touch(mode=0o600)
    else:
        place.mkdir(mode=0o700)
        os.chown(place, 12345, 12345)
    try:
        with pytest.raises(ConfigurationError, match="is not a private folder"):
            server.start()
    finally:
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def test_data_of_another_major_version_are_not_passed_over_for_an_empty_database(folder):
    (folder / "pg" / "data-15").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"data-15.*PostgreSQL 18"):
        EmbeddedPostgres(folder / "pg").start()


def test_missing_wheel_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(embedded_places, "_WHEELS", {})
    monkeypatch.delenv(embedded_places.BINDIR_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'hcad-pipeline\[embedded\]'.*DATABASE_URL"):
        EmbeddedPostgres(folder / "pg").start()


def test_programs_are_taken_from_the_folder_that_the_environment_names(folder, monkeypatch):
    monkeypatch.setenv(embedded_places.BINDIR_VARIABLE, str(folder))
    with pytest.raises(ConfigurationError, match=embedded_places.BINDIR_VARIABLE):
        EmbeddedPostgres(folder / "pg").start()


def test_server_that_cannot_start_says_why_with_its_log(folder):
    with pytest.raises(DatabaseUnavailable, match="shared_buffers"):
        EmbeddedPostgres(folder / "pg", settings={"shared_buffers": "nonsense"}).start()


def test_users_own_postgres_variables_and_locale_do_not_matter(folder, monkeypatch):
    variables = {"PGDATA": "/nowhere", "PGPORT": "1", "PGHOST": "nowhere", "PGCLIENTENCODING": "LATIN1", "LC_ALL": "xx_YY.UTF-8"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(folder / "pg")
    url = server.start()
    assert server.is_running
    for name in variables:
        monkeypatch.delenv(name)
    assert query(url, "show client_encoding") == "UTF8"


def as_nobody(action, environment):
    """Run a function in a child process that has become `nobody`; fail with its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            user = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.environ.update(environment)
            action()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, said


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user; as a user, all other tests here are this one")
def test_normal_user_has_a_server_of_its_own_in_a_path_of_200_characters(folder):
    user = pwd.getpwnam("nobody")
    programs = embedded_places.programs_for(Account(user.pw_uid, user.pw_gid), embedded_places.find_programs(), folder)
    home = long_path(folder)
    home.mkdir(parents=True)
    for path in (home, home.parent):
        os.chown(path, user.pw_uid, user.pw_gid)

    def start_twice_and_stop():
        server = EmbeddedPostgres(home)
        url = sa.make_url(server.start())
        assert server.start() == url.render_as_string()
        with psycopg2.connect(host=url.query["host"], port=url.query["port"], user="postgres", dbname="postgres") as connection:
            connection.cursor().execute("create table t as select 7 as n")
        connection.close()
        assert Path(url.query["host"]).stat().st_uid == (home / "data-18").stat().st_uid == os.getuid() == user.pw_uid

    as_nobody(start_twice_and_stop, {"HOME": str(home), embedded_places.BINDIR_VARIABLE: str(programs.bin)})
    # And root finds the user's server, and starts it again as that user.
    server = EmbeddedPostgres(home)
    pid = postmaster(server)
    assert query(server.start(), "select n from t") == 7
    assert postmaster(server) == pid
    assert server.stop()
    assert query(server.start(), "select n from t") == 7


@pytest.mark.skipif(not IS_ROOT, reason="a user's own folder is never closed to its server")
def test_state_closed_to_the_servers_user_keeps_its_permissions_and_the_data_lie_elsewhere(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    home = long_path(closed)
    server = EmbeddedPostgres(home)
    url = server.start()
    query(url, "create table t as select 7 as n")
    record = json.loads((home / RECORD).read_text())
    base = Path(record["private_base"])
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert (stat.S_IMODE(base.stat().st_mode), base.stat().st_uid) == (0o711, 0)
    assert Path(record["data"]).parent == base
    assert record["why_private"]
    server.stop()
    assert in_another_process("print(server.start())", home) == url
    assert query(url, "select n from t") == 7
    server.stop()
    base.chmod(0o777)
    with pytest.raises(ConfigurationError, match="not only ours"):
        server.start()
    base.chmod(0o711)


@pytest.mark.skipif(not IS_ROOT, reason="only root's server runs as another user")
def test_programs_closed_to_the_servers_user_are_copied_and_nothing_is_opened(folder, monkeypatch):
    real = embedded_places.find_programs().bin
    package = folder / "closed" / "site-packages" / real.parents[1].name
    shutil.copytree(real.parents[1], package, symlinks=True)
    for libraries in real.parents[2].glob(f"{package.name}.libs"):
        shutil.copytree(libraries, package.parent / libraries.name, symlinks=True)
    (folder / "closed").chmod(0o700)
    monkeypatch.setenv(embedded_places.BINDIR_VARIABLE, str(package / real.relative_to(real.parents[1])))
    server = EmbeddedPostgres(folder / "pg")
    assert query(server.start(), "select 1") == 1
    assert json.loads((folder / "pg" / RECORD).read_text())["programs"].startswith(str(folder / "pg" / "programs-"))
    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o700
