"""A person's decision while a run is at work: one of the two, and a clear word for the other."""

import contextlib
import datetime as dt
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline import cli, runner
from pipeline.database import runs
from pipeline.errors import ConfigurationError, FencedOut, RunLocked

A = [("1", "ANN", None), ("2", "BOB", None)]
B = [("1", "EVE", None), ("3", "NEW", None)]


@pytest.fixture
def command(world, monkeypatch):
    """Runs ``hcad-pipeline`` on the world's database."""

    @contextlib.contextmanager
    def database():
        yield SimpleNamespace(profile="test"), world.engine

    monkeypatch.setattr(cli, "_database", database)
    return lambda *arguments: CliRunner().invoke(cli.cli, arguments)


@pytest.mark.fault(70)
def test_rollback_while_a_run_is_at_work_names_it_and_changes_nothing_and_afterwards_works_once(world, command):
    world.publish("a", A, [])
    before = world.hashes()
    world.publish("b", B, [])
    live, ours = world.hashes(), runs.start_run(world.engine, "run", "test", dt.datetime(2026, 3, 1))
    with runs.SourceLocks(world.engine, ours, ["county"]):
        done = command("rollback", "2", "--reason", "a test")
        assert isinstance(done.exception, RunLocked) and done.exception.exit_code == 10 and f"run {ours} " in str(done.exception)
        assert world.hashes() == live
    assert world.rows("select outcome, exit_code from etl.run where command = 'rollback 2'") == [("failed", 10)]
    assert command("rollback", "2", "--reason", "a test").exit_code == 0
    assert world.hashes() == before
    again = command("rollback", "2", "--reason", "a test")
    assert (again.exit_code, "rolled back already" in again.output) == (0, True)
    assert world.hashes() == before


@pytest.mark.fault(70)
def test_run_that_was_taken_over_by_a_rollback_cannot_publish_any_more(world, command):
    world.publish("a", A, [])
    before = world.hashes()
    world.publish("b", B, [])
    ours = runs.start_run(world.engine, "run", "test", dt.datetime(2026, 3, 1))
    with runs.SourceLocks(world.engine, ours, ["county"]) as locks:
        world.loads.tokens = locks.tokens
    # Its session is gone, and it does not know yet.
    assert command("rollback", "2", "--reason", "a test").exit_code == 0
    with pytest.raises(FencedOut):
        world.publish("c", B, [])
    assert world.hashes() == before


@pytest.mark.parametrize("request_of", [{"accept": "looked at"}, {"accept": " ", "source": "county"}, {"accept": "", "source": "county"}])
def test_acceptance_without_a_source_or_a_reason_is_refused_before_anything_is_done(request_of):
    """From Python as from the command line: it would have been dropped without a word."""
    with pytest.raises(ConfigurationError, match="whose release is accepted, and why"):
        runner.run(SimpleNamespace(), runner.RunRequest(**request_of))


def test_decision_without_a_reason_is_none(world):
    world.publish("a", A, [])
    with pytest.raises(ConfigurationError, match="no reason to rollback import 1"):
        world.loads.rollback_import(1, reason=" ")
    world.loads.rollback_import(1)
    with pytest.raises(ConfigurationError, match="no reason to accept import 1"):
        world.loads.accept_import(1, reason="")
    assert world.rows("select state from etl.import") == [("rolled_back",)]
