"""Kills: whatever is killed, and when, the same command goes on by itself and comes to what an undisturbed run comes to."""

import datetime as dt
import os
import random
import shutil
import signal
import time
import uuid

import pytest
from databases import database
from harness import World
from process_groups import children, gone, kill_group, wait_until
from sample_site import BUNDLE, HEARINGS, REAL, TRAVIS, members

from pipeline import scheduler

GOES_ON_WITHIN_S = 30.0
#: Members are 0.3 to 3 MB here: several tables have one part, the protests have four.
MANY_PARTS = {"extract.part_bytes": "1000000"}
ONE_PART = {"extract.part_bytes": "1000000000"}
PROTESTS = 110_000
#: Luigi itself ends with 10 when it found a task in another worker's hands, be it a dead one's, and did it afterwards.
WELL = {"luigi": (0, 10), "run": (0,)}
#: The same one every time: what is found by chance is found by the long soak (--run-slow), and not in somebody's unrelated change.
SEED = int(os.environ.get("KILL_SEED", "4"))
SLOW_SEED = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
SYNC = ("--source", "hcad", "--year", "2025")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, sample_server):
    """All three archives, the protests cut to what several parts need."""
    home = tmp_path_factory.mktemp("bundle")
    world = World(home, sample_server, "", "")
    for archive in (REAL, TRAVIS):
        world.offer(archive, members(BUNDLE / archive))
    protests = members(BUNDLE / HEARINGS)["arb_protest_real.txt"].splitlines(keepends=True)
    world.offer(HEARINGS, {"arb_protest_real.txt": b"".join(protests[:PROTESTS])})
    world.edit_schema("hcad/source.toml", "arb_protest_real = 424_335", "arb_protest_real = 1_000")
    return world


@pytest.fixture(scope="module")
def new_world(bundle, tmp_path_factory, server_url, luigid):
    """Makes worlds in which nothing was done yet; all of them use one luigid with the shipped settings."""

    def make(url, settings):
        home = tmp_path_factory.mktemp("killed") / uuid.uuid4().hex[:8]
        home.mkdir()
        shutil.copytree(bundle.schemas, home / "schemas")
        shutil.copytree(bundle.bundle, bundle.server.root / home.name)
        return World(home, bundle.server, url, luigid, settings)

    return make


@pytest.fixture(scope="module")
def undisturbed(new_world, server_url):
    """The content of every table after one run with one part a member, and the seconds it took."""
    with database(server_url) as url:
        world = new_world(url, ONE_PART)
        done = world.publish()
        assert world.one("select max(parts) from etl.import_table") == 1
        return world.hashes(), done.seconds


def command(world, kind, *, after_s=0, only=None):
    """A command line with an instant of its own: the same again goes on where it stopped."""
    as_of = dt.datetime.now(dt.UTC).replace(microsecond=0, tzinfo=None) + dt.timedelta(seconds=after_s)
    if kind == "luigi":
        return world.luigi_command("SyncAll", *(["--only", only] if only else []), "--as-of", as_of.strftime("%Y-%m-%dT%H%M%S"))
    source = ["--source", only] if only else []
    return world.pipeline("run", "--scheduler-url", world.luigid, *source, "--as-of", as_of.isoformat())


def goes_on(world, process, since):
    """Seconds until a task that does work is started, or the command ends."""
    began = time.monotonic()

    def progress():
        if process.poll() is not None:
            return True
        if world.one("select to_regclass('etl.task_attempt')") is None:
            return False
        work = "select count(*) from etl.task_attempt where attempt_id > %s and family not in ('ProbeRelease', 'SyncSource', 'SyncAll')"
        return world.one(work, since)

    wait_until(progress, 120)
    return time.monotonic() - began


def in_time(world, seconds):
    """Whether a command went on as soon as is promised: on a machine on which all takes longer, it may take so many times as long."""
    return seconds < GOES_ON_WITHIN_S or seconds < 10 * world.do(*world.pipeline("status")).seconds


def kill_at_random(new_world, server_url, seconds, seed, number):
    """A world, a command, and the moment at which it was killed; the moment is taken earlier where the command was done by then."""
    kind = "luigi" if number % 2 == 0 else "run"
    moment = random.Random(f"{seed}/{number}").uniform(0.8, 0.8 * seconds)
    while True:
        with database(server_url) as url:
            world = new_world(url, MANY_PARTS)
            line = command(world, kind, after_s=number)
            process = world.start(*line)
            time.sleep(moment)
            killed = process.poll() is None
            kill_group(process)
            if killed:
                yield world, line, kind, moment
                return
        moment *= 0.7


def converge_after_a_kill(new_world, server_url, undisturbed, seed, number):
    expected, seconds = undisturbed
    for world, line, kind, moment in kill_at_random(new_world, server_url, seconds, seed, number):
        begun = world.one("select to_regclass('etl.task_attempt')") is not None
        since = world.last_attempt() if begun else 0
        was = world.families() if begun else set()
        started = time.monotonic()
        process = world.start(*line)
        waited = goes_on(world, process, since)
        done = world.finish(process, started)
        case = f"KILL_SEED={seed}, kill {number} of {kind} after {moment:.2f} s: "
        case += f"it went on after {waited:.1f} s and was done after {done.seconds:.1f} s"
        print(case, "it had begun", sorted(was))
        assert done.code in WELL[kind], f"{case}\n{done.text[-6000:]}{world.logs()}"
        assert in_time(world, waited), case
        assert world.hashes() == expected, case
        assert world.leftovers() == {}, case
        assert world.sql("select state, count(*) from etl.import group by 1") == [("published", 3)], case
        assert world.one("select max(parts) from etl.import_table") == 4, case


@pytest.mark.fault(54)
@pytest.mark.parametrize("number", range(2))
def test_killed_run_goes_on_within_30_s_and_converges(new_world, server_url, undisturbed, number):
    converge_after_a_kill(new_world, server_url, undisturbed, SEED, number)


@pytest.mark.slow
@pytest.mark.fault(54)
@pytest.mark.parametrize("number", range(2, 24))
def test_twenty_two_killed_runs_go_on_within_30_s_and_converge(new_world, server_url, undisturbed, number):
    converge_after_a_kill(new_world, server_url, undisturbed, SLOW_SEED, number)


@pytest.fixture
def changed(published, tmp_path_factory, server_url, luigid):
    """The published world, two tables changed on the server, with the shipped settings."""
    with published.copy(tmp_path_factory.mktemp("worlds") / uuid.uuid4().hex[:8], server_url, {}) as world:
        world.luigid = luigid
        offered = world.offered(REAL)
        *rows, header = offered["real_mnrl.txt"].splitlines(keepends=True)
        accounts = offered["real_acct.txt"].replace(b"\tCITY OF HOUSTON\t", b"\tCITY OF H\t", 1)
        assert accounts != offered["real_acct.txt"]
        world.offer(REAL, offered | {"real_acct.txt": accounts, "real_mnrl.txt": b"".join([*rows[3:], header])})
        yield world


@pytest.mark.fault(55)
@pytest.mark.parametrize("kind", ["luigi", "run"])
def test_kill_during_publish_is_published_by_the_same_command(changed, kind):
    world, before, published = changed, changed.hashes(), changed.currents()
    line = command(world, kind, only="hcad")
    # Publish has merged the first table when it waits for this lock.
    with world.locked("etl.import_table", "share"):
        process = world.start(*line)
        world.until_waiting(process, "etl.import_table")
        kill_group(process)
        assert (world.hashes(), world.currents()) == (before, published)
    assert (world.hashes(), world.currents()) == (before, published)
    attempt = world.last_attempt()
    started = time.monotonic()
    process = world.start(*line)
    waited = goes_on(world, process, attempt)
    done = world.finish(process, started)
    assert done.code in WELL[kind], done.text + world.logs()
    assert in_time(world, waited)
    # Nothing but the publish was left to do.
    assert world.families(attempt) - {"SyncAll", "SyncSource"} == {"PublishRelease"}
    after = world.hashes()
    assert after["hcad.real_mnrl.2025"][0] == 7_259
    assert {name for name in after if after[name] != before[name]} == {"hcad.real_mnrl.2025", "hcad.real_acct.2025"}
    assert (world.written("real_mnrl"), world.written("real_acct")) == ((0, 0, 3), (0, 1, 0))
    assert world.leftovers() == {}


@pytest.mark.fault(54)
def test_task_done_just_before_the_kill_counts_as_done(changed):
    # The target is there and luigid has not heard of it: it would wait for the dead worker's word, and the run for luigid's.
    world, line = changed, command(changed, "luigi", only="hcad")
    with world.locked("etl.release", "exclusive"):
        process = world.start(*line)
        world.until_waiting(process, "etl.release", sessions=2)
        os.kill(process.pid, signal.SIGSTOP)
    probes = [world.state / "releases" / "hcad" / year for year in ("2019", "2025")]
    wait_until(lambda: all(len(list(probe.glob("[0-9]*Z.json"))) == 2 for probe in probes))
    kill_group(process)
    done = world.do(*line)
    assert done.code in WELL["luigi"], done.text[-4000:]
    assert in_time(world, done.seconds)
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_259


@pytest.mark.fault(54)
def test_only_tasks_of_dead_processes_are_taken_from_them(changed):
    world = changed
    with world.locked("etl.import_table", "share"):
        process = world.start(*command(world, "luigi", only="hcad"))
        world.until_waiting(process, "etl.import_table")
        assert scheduler.free_tasks_of_the_dead(world.luigid) == 0
        kill_group(process)
        assert scheduler.free_tasks_of_the_dead(world.luigid) == 1
        assert scheduler.free_tasks_of_the_dead(world.luigid) == 0


@pytest.mark.fault(51)
def test_killed_luigi_parent_ends_the_run_with_30_and_leaves_no_process(changed):
    world = changed
    with world.locked("etl.import_table", "share"):
        started = time.monotonic()
        process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC))
        world.until_waiting(process, "etl.import_table")
        (luigi,) = children(process.pid)
        os.kill(luigi, signal.SIGKILL)
        done = world.finish(process, started)
        assert done.code == 30, done.text
        gone(luigi)
    assert world.sql("select outcome, exit_code from etl.run order by run_id desc limit 1") == [("failed", 30)]
    assert world.one("select count(*) from etl.task_attempt where outcome = 'running'") == 0
    assert world.run(*SYNC).code == 0
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_259
    assert world.leftovers() == {}


@pytest.mark.fault(51)
def test_killed_task_process_is_noted_and_tried_again_by_the_same_run(changed, brisk_luigid):
    # A luigid of its own: the other one remembers the kills of the tests before, and shuts a task out after five.
    world = changed
    world.luigid = brisk_luigid
    with world.locked("etl.import_table", "share"):
        started = time.monotonic()
        process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC))
        world.until_waiting(process, "etl.import_table")
        task = world.one("select pid from etl.task_attempt where family = 'PublishRelease' and outcome = 'running'")
        os.kill(task, signal.SIGKILL)
    done = world.finish(process, started)
    assert done.code == 0, done.text + world.logs()
    attempts = """select outcome, error_code from etl.task_attempt
                   where family = 'PublishRelease' and run_id = (select max(run_id) from etl.run) order by 1, 2"""
    assert world.sql(attempts) == [("done", None), ("killed", "E_KILLED")]
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_259
    assert world.leftovers() == {}


@pytest.mark.fault(55)
def test_killed_run_is_marked_by_the_next_and_its_lock_is_free(changed):
    world = changed
    with world.locked("etl.release", "exclusive"):
        process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC))
        world.until_waiting(process, "etl.release")
        killed = world.one("select max(run_id) from etl.run")
        kill_group(process)
    assert world.sql("select outcome from etl.run where run_id = %s", killed) == [(None,)]
    assert world.run(*SYNC).code == 0
    assert world.sql("select outcome, exit_code from etl.run where run_id = %s", killed) == [("killed", 30)]
    assert world.one("select count(*) from etl.task_attempt where outcome = 'running'") == 0
    assert world.leftovers() == {}
