"""The exit codes of `hcad-pipeline run` and of plain `luigi`, each brought about for real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from harness import BRISK
from process_groups import children, gone, group_members
from sample_site import REAL

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from database_proxy import DatabaseProxy

SYNC = ("--source", "hcad", "--year", "2025")
NOWHERE = "http://127.0.0.1:9/"


def change(world):
    """Offer something new, so that a run has work to do."""
    *rows, header = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    world.offer(REAL, world.offered(REAL) | {"real_mnrl.txt": b"".join([*rows[1:], header])})


@pytest.fixture
def blocked(world):
    """A run that waits in its first task for as long as the test holds a lock; ended with the test."""
    change(world)
    with world.locked("etl.release", "exclusive"):
        started = time.monotonic()
        process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC))
        world.until_waiting(process, "etl.release")
        yield process, started



def test_done_is_0_for_both(world):
    change(world)
    assert world.luigi("SyncSource", *SYNC).code == 0
    assert world.run(*SYNC).code == 0
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_261


@pytest.mark.fault(7)
def test_failing_download_is_30_for_both_and_the_next_run_goes_on(world):
    world.configure(BRISK | {"download.max_retries": "0"})
    change(world)
    before = world.hashes()
    path = f"/{world.home.name}/{REAL}"
    world.server.failing.add(path)
    try:
        assert world.luigi("SyncSource", *SYNC).code == 30
        # luigid has shut the task out by now; a run has it forgiven, and tries.
        done = world.run(*SYNC)
        assert (done.code, "E_DOWNLOAD" in done.text) == (30, True), done.text
        assert world.hashes() == before
    finally:
        world.server.failing.discard(path)
    assert world.run(*SYNC).code == 0
    assert world.hashes() != before


def test_refused_data_is_31_for_run_and_30_for_plain_luigi(world):
    world.offer(REAL, b"<html>not a zip</html>" * 100)
    assert world.luigi("SyncSource", *SYNC).code == 30
    assert world.run(*SYNC).code == 31


def test_year_that_is_not_published_is_20_and_no_failure_of_luigi(world):
    (world.bundle / REAL).unlink()
    before = world.currents()
    done = world.run(*SYNC)
    assert (done.code, "has not published 2025 yet" in done.text) == (20, True), done.text
    assert world.luigi("SyncSource", *SYNC).code == 0
    assert world.currents() == before


@pytest.mark.fault(63)
def test_second_run_at_once_is_10_names_the_first_and_does_not_disturb_it(world):
    change(world)
    with world.locked("etl.release", "exclusive"):
        started = time.monotonic()
        first = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC))
        world.until_waiting(first, "etl.release")
        number = world.one("select max(run_id) from etl.run")
        command = world.pipeline("run", "--scheduler-url", world.luigid, *SYNC)
        second = subprocess.run(command, env=world.environment(), capture_output=True, text=True, timeout=300, check=False)
        said = second.stdout + second.stderr
        assert (second.returncode, "E_LOCKED" in said, f"pid {first.pid} " in said) == (10, True, True), said
        assert world.sql("select outcome, exit_code from etl.run order by run_id desc limit 1") == [("failed", 10)]
        assert first.poll() is None
    assert world.finish(first, started).code == 0
    assert world.sql("select outcome, exit_code from etl.run where run_id = %s", number) == [("done", 0)]
    assert world.leftovers() == {}


@pytest.mark.fault(63)
def test_same_plain_luigi_command_twice_at_once_is_10(world):
    change(world)
    command = world.luigi_command("SyncSource", *SYNC)
    with world.locked("etl.release", "exclusive"):
        started = time.monotonic()
        first = world.start(*command)
        world.until_waiting(first, "etl.release")
        second = subprocess.run(command, env=world.environment(), cwd=world.home, capture_output=True, timeout=300, check=False)
        assert second.returncode == 10, second.stderr
    assert world.finish(first, started).code == 0


@pytest.mark.fault(72)
def test_unreachable_scheduler_is_30_at_once_for_run(world):
    done = world.do(*world.pipeline("run", "--scheduler-url", NOWHERE, *SYNC))
    assert (done.code, "E_SCHEDULER" in done.text) == (30, True), done.text
    assert done.seconds < 60  # Luigi itself would ask three times, 30 s apart
    assert world.leftovers() == {}


@pytest.mark.fault(72)
def test_unreachable_scheduler_is_40_for_plain_luigi(world):
    # Luigi asks three times, 30 s apart, where nobody says otherwise.
    world.configure(BRISK | {"core.rpc-retry-attempts": "1", "core.rpc-retry-wait": "1"})
    world.luigid = NOWHERE
    assert world.luigi("SyncSource", *SYNC).code == 40


@pytest.mark.fault(58)
def test_unreachable_database_is_30_for_run_and_no_success_of_plain_luigi(world):
    world.configure(BRISK | {"database.reconnect_s": "1"})
    url = sa.make_url("postgresql://nobody:canary@127.0.0.1:9/none").render_as_string(hide_password=False)
    done = world.run(*SYNC, DATABASE_URL=url)
    assert (done.code, "E_DATABASE" in done.text) == (30, True), done.text
    # The probe's file tells plain luigi what was offered; whether that is published, only the database knows.
    as_of = world.one("select to_char(max(as_of) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24MISS') from etl.run")
    plain = world.luigi("SyncSource", *SYNC, "--as-of", as_of, DATABASE_URL=url)
    assert plain.code == 35, plain.text
    for name in ("out", "err"):
        assert "canary" not in (world.home / name).read_text()


@pytest.mark.fault(72)
def test_tasks_refuse_to_start_without_our_configuration_and_say_how(world):
    empty = world.home / "empty.cfg"
    empty.write_text("[core]\nautoload_range = false\n")
    done = world.do(*world.luigi_command("SyncSource", *SYNC), LUIGI_CONFIG_PATH=str(empty))
    assert done.code != 0
    assert "LUIGI_CONFIG_PATH=config/luigi.cfg" in done.text


@pytest.mark.fault(56)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_whole_group_within_seconds_with_30(world, blocked, number):
    process, started = blocked
    (luigi,) = children(process.pid)
    assert group_members(luigi)
    told = time.monotonic()
    os.kill(process.pid, number)
    done = world.finish(process, started)
    assert time.monotonic() - told < 60
    assert (done.code, "E_INTERRUPTED" in done.text, signal.Signals(number).name in done.text) == (30, True, True), done.text
    gone(luigi)
    assert world.sql("select outcome, exit_code from etl.run order by run_id desc limit 1") == [("failed", 30)]
    assert world.one("select count(*) from etl.task_attempt where outcome = 'running'") == 0


@pytest.mark.fault(56)
def test_run_after_an_interrupted_one_goes_on(world):
    change(world)
    with world.locked("etl.release", "exclusive"):
        started = time.monotonic()
        process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, "--timeout", "4", *SYNC))
        done = world.finish(process, started)
        assert (done.code, "E_INTERRUPTED" in done.text) == (30, True), done.text
    assert world.run(*SYNC).code == 0
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_261
    assert world.leftovers() == {}


@pytest.mark.fault(65)
def test_read_only_database_is_40_before_anything_is_asked_of_the_district(world):
    change(world)
    mark = world.mark()
    url = sa.make_url(world.database_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    done = world.run(*SYNC, DATABASE_URL=url.render_as_string(hide_password=False))
    assert (done.code, "E_DATABASE_READ_ONLY" in done.text) == (40, True), done.text
    assert world.asked(mark) == []


@pytest.mark.fault(66)
def test_table_changed_by_hand_is_31_before_anything_is_asked_and_a_view_is_noted(world):
    change(world)
    world.sql("create view public.owners as select acct from hcad.real_acct")
    world.sql("alter table hcad.real_mnrl rename column acct to account")
    mark = world.mark()
    done = world.run(*SYNC)
    assert (done.code, "E_SHAPE" in done.text, "acct was dropped or renamed" in done.text) == (31, True, True), done.text
    assert world.asked(mark) == []
    assert world.sql("select outcome, exit_code from etl.run order by run_id desc limit 1") == [("failed", 31)]
    world.sql("alter table hcad.real_mnrl rename column account to acct")
    done = world.run(*SYNC)
    assert (done.code, "note: hcad.real_acct has a view of your own, public.owners: it is kept" in done.out) == (0, True), done.text
    assert "public.owners" in world.one("select notes::text from etl.run order by run_id desc limit 1")


@pytest.mark.fault(58)
def test_database_that_goes_silent_in_mid_run_ends_it_with_30_and_no_process_is_left(world, server_url):
    limits = {"silence_s": "2", "connect_timeout_s": "4", "reconnect_s": "0"}
    world.configure(BRISK | {f"database.{name}": value for name, value in limits.items()})
    change(world)
    proxy = DatabaseProxy(server_url)
    try:
        with world.locked("etl.release", "exclusive"):
            started = time.monotonic()
            process = world.start(*world.pipeline("run", "--scheduler-url", world.luigid, *SYNC), DATABASE_URL=proxy.url(world.database_url))
            world.until_waiting(process, "etl.release")
            (luigi,) = children(process.pid)
            proxy.silent, told = True, time.monotonic()
            done = world.finish(process, started)
        assert time.monotonic() - told < 150
        assert (done.code, "E_DATABASE" in done.text) == (30, True), done.text
        gone(luigi)
    finally:
        proxy.close()
    assert world.run(*SYNC).code == 0
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_261
    assert world.leftovers() == {}
