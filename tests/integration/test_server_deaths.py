"""A PostgreSQL that dies, or has no room, under the load: what was published is live after its recovery, and the next attempt comes to the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import embedded_home
import plain_role
import psycopg2
import pytest
import sqlalchemy as sa
from county import FEATURE, OWNER, World

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from small_disk import mounted
from soak_process import traced_connect

from pipeline.database.embedded import RECORD, EmbeddedPostgres
from pipeline.database.engine import DatabaseLimits, make_engine, transaction
from pipeline.errors import DatabaseFull, DatabaseUnavailable, StagingStale
from pipeline.load.checkpoints import Origin
from pipeline.load.manager import LoadManager

A = [(f"{number:05}", "ANN", None) for number in range(1500)]
B = [*[(acct, "EVE", None) for acct, _, _ in A[:200]], *A[210:], ("99999", "NEW", None)]
POOLS = [(f"{number:05}", "POOL") for number in range(300)]
SPAS = [*POOLS[3:], ("00001", "SPA"), ("00001", "SPA")]


class Server:
    """A server of one's own, and its deaths."""

    def __init__(self, home):
        # A process dies here, not the machine.
        self.home, self.postgres = home, EmbeddedPostgres(home, settings={"fsync": "off", "full_page_writes": "off"})
        self.url = self.postgres.start()

    @property
    def record(self):
        return json.loads((self.home / RECORD).read_text())

    def die(self, number):
        """End as by ``pg_ctl stop -m immediate`` (SIGQUIT) or ``kill -9``, and start again."""
        pid = int((Path(self.record["data"]) / "postmaster.pid").read_text().split()[0])
        os.kill(pid, number)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)
        self.postgres.start()


@pytest.fixture(scope="module")
def server():
    with embedded_home.open_folder() as folder:
        yield Server(folder / "postgres")


@pytest.fixture
def world(server, tmp_path, request):
    name = f"deaths_{abs(hash(request.node.name))}"
    with plain_role.admin(sa.make_url(server.url)) as cursor:
        # Under wal_level = minimal the other strategy writes no WAL of what it copies.
        cursor.execute(f"create database {name} strategy file_copy")
    made = World(sa.make_url(server.url).set(database=name).render_as_string(), tmp_path)
    made.loads = LoadManager(made.engine, profile="test", batch_rows=100)
    yield made
    made.engine.dispose()
    with plain_role.admin(sa.make_url(server.url)) as cursor:
        cursor.execute(f"drop database if exists {name} with (force)")


def hit(monkeypatch, world, moment, fault):
    """Have the fault happen once, at the given event of the connections that are made from now on: kind, turn of that kind."""
    kind, turn = moment
    seen = []

    def reach(what, backend):
        if what == kind:
            seen.append(what)
            if len(seen) == turn:
                fault(backend)

    monkeypatch.setattr(psycopg2, "connect", traced_connect(reach))
    limits = DatabaseLimits(connect_s=10, reconnect_s=120, silence_s=0)
    world.engine.dispose()
    world.engine = make_engine(world.engine.url, limits=limits)
    world.loads = LoadManager(world.engine, profile="test", batch_rows=100)
    return seen


def is_current(world, release):
    return world.rows("select release from etl.import where state = 'published'") == [(release,)]


def bring(world, release, owners, features):
    """What a nightly does: look what is current, and once more when it could not be done."""
    for _ in range(3):
        try:
            if not is_current(world, release):
                world.publish(release, owners, features)
            return
        except (DatabaseUnavailable, StagingStale):
            assert world.hashes() == (world.after if is_current(world, release) else world.before)
    raise AssertionError("it does not converge")


def stage_only(world, release, owners, features):
    key = world.key(release)
    for table, rows in ((OWNER, owners), (FEATURE, features)):
        world.stage(key, table, [rows], origin=Origin(f"{release}-{table.name}", "t1", "c1"))
    world.loads.check_release(key, world.county)


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("how", "moment"),
    [
        ("immediate stop", ("copy", 3)), ("postmaster killed", ("copy", 3)), ("immediate stop", ("statement", 14)),
        ("postmaster killed", ("statement", 14)), ("backend killed", ("statement", 14)), ("postmaster killed", ("commit", 1)),
        ("immediate stop", ("committed", 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else {"statement": "mid-publish", "copy": "mid-COPY"}.get(value[0], value[0]),
)  # fmt: skip
def test_server_that_dies_in_mid_copy_or_mid_publish_has_the_old_version_and_then_the_new(world, server, monkeypatch, how, moment):
    world.publish("b", B, SPAS)
    world.after = world.hashes()
    world.publish("a", A, POOLS)
    world.before = world.hashes()

    def dies(backend):
        if how == "backend killed":
            os.kill(backend, signal.SIGKILL)
            time.sleep(0.1)
        else:
            server.die(signal.SIGQUIT if how == "immediate stop" else signal.SIGKILL)

    if moment[0] != "copy":
        # The publish is hit, and nothing before it; by its 14th statement it has changed rows of a table.
        stage_only(world, "c", B, SPAS)
    seen = hit(monkeypatch, world, moment, dies)
    bring(world, "c", B, SPAS)
    assert len(seen) >= moment[1]
    assert is_current(world, "c") and world.hashes() == world.after
    assert world.loads.publish(world.key("c"), world.county) == {}
    assert world.leftovers() == ([], [0, 0, 0])


@pytest.mark.fault(57)
def test_server_that_dies_while_it_commits_is_a_lost_link_and_no_defect(world, server, monkeypatch):
    hit(monkeypatch, world, ("commit", 1), lambda _: server.die(signal.SIGQUIT))
    with pytest.raises(DatabaseUnavailable, match="broke off") as caught, transaction(world.engine) as cursor:
        cursor.execute("create table lost (a int)")
    assert not caught.value.may_be_repeated
    assert world.rows("select to_regclass('lost')") == [(None,)]


@pytest.mark.fault(64)
def test_full_disk_of_the_database_has_a_code_and_leaves_what_is_published_and_the_next_run_goes_on(world, server, tmp_path):
    world.publish("a", A, POOLS)
    before = world.hashes()
    disk = server.home / "disk"
    disk.mkdir()
    data = Path(server.record["data"])
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        os.chown(disk, data.stat().st_uid, data.stat().st_gid)
        place = disk / "space"
        place.mkdir(mode=0o700)
        os.chown(place, data.stat().st_uid, data.stat().st_gid)
        with plain_role.admin(sa.make_url(server.url)) as cursor:
            cursor.execute(f"create tablespace small location '{place}'")
            cursor.execute(f"alter database {sa.make_url(world.engine.url).database} set default_tablespace = small")
        world.engine.dispose()
        with pytest.raises(DatabaseFull, match="No space left"):
            world.publish("b", [(acct, "EVE" * 200, None) for acct, _, _ in A], SPAS)
        assert world.hashes() == before and is_current(world, "a")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        world.publish("b", [(acct, "EVE" * 200, None) for acct, _, _ in A], SPAS)
        assert is_current(world, "b") and world.hashes() != before
        assert world.leftovers() == ([], [0, 0, 0])
        with plain_role.admin(sa.make_url(server.url)) as cursor:
            cursor.execute(f"drop database {sa.make_url(world.engine.url).database} with (force)")
            cursor.execute("drop tablespace small")


#: A trigger of a user's that sorts more than the memory that anybody allows it.
SORTS = """
create function county.sorts() returns trigger language plpgsql as $$
begin perform count(*) from (select g from generate_series(1, 2000000) g order by g desc) s; return null; end $$;
create trigger sorts after update on county.owner for each statement execute function county.sorts()
"""


@pytest.mark.fault(64)
def test_limit_on_temporary_files_has_a_code_and_the_next_run_goes_on(world, server):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute(SORTS)
    before, name = world.hashes(), sa.make_url(world.engine.url).database
    with plain_role.admin(sa.make_url(server.url)) as cursor:
        cursor.execute(f"alter database {name} set temp_file_limit = 0")
        world.engine.dispose()
        with pytest.raises(DatabaseFull, match="temp_file_limit"):
            world.publish("b", B, SPAS)
        assert world.hashes() == before and is_current(world, "a")
        cursor.execute(f"alter database {name} reset all")
    world.engine.dispose()
    world.publish("b", B, SPAS)
    assert is_current(world, "b") and world.leftovers() == ([], [0, 0, 0])
