"""scripts/bench.py load: what it calls a first load, a refresh and a rollback are those of the pipeline."""

import importlib
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.database.migrate import migrate

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
ROWS = 2_000


@pytest.fixture
def bench(monkeypatch):
    """The modules of the suite, from their folder."""
    monkeypatch.syspath_prepend(SCRIPTS)
    before = set(sys.modules)
    made, work, server = (importlib.import_module(f"bench_load_{name}") for name in ("made", "work", "server"))
    yield made, work, server
    made.shared_folder().cleanup()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and SCRIPTS in sys.modules[name].__file__:
            del sys.modules[name]


def test_the_suite_loads_what_it_says_and_sees_what_that_wrote(bench, engine, database_url):
    made, work, server = bench
    migrate(engine)
    engine.dispose()  # what is written is counted when no other session is left
    database = server.Database(sa.make_url(database_url))
    first, few = made.release(ROWS), made.release(ROWS, 0.1)
    of_first = work.work_load(database_url, first, "first", 1000)
    assert 0.9 * ROWS < of_first["inserted"] <= made.Made.read(first).rows
    before = database.rows_written()
    of_unchanged = work.work_load(database_url, first, "unchanged", 1000)
    assert (of_unchanged["inserted"], of_unchanged["updated"], database.rows_written()) == (0, 0, before)
    of_few = work.work_load(database_url, few, "few", 1000)
    assert 0 < of_few["updated"] < 0.2 * ROWS
    assert database.rows_written() >= before + of_few["updated"]
    of_rollback = work.work_rollback(database_url, first, of_few["import_id"])
    assert of_rollback["updated"] == of_few["updated"]
    table = made.Made.read(first).table
    assert len(database.rows("select 1 from hcad.real_acct")) == of_first["inserted"]
    database.export(table, first / "floor.csv")
    assert len((first / "floor.csv").read_bytes().splitlines()) >= of_first["inserted"]
    database.engine.dispose()
