"""Tests run against a real PostgreSQL: $TEST_DATABASE_URL where it is set, else the embedded one."""

import os
import uuid
from pathlib import Path

# Luigi reads its configuration once, when it is first imported, and some of our tests import it.
os.environ["LUIGI_CONFIG_PATH"] = str(Path(__file__).parents[1] / "config" / "luigi.cfg")

import embedded_home
import hypothesis
import plain_role
import pytest
import sqlalchemy as sa

from pipeline.database.embedded import EmbeddedPostgres

#: Nothing of a test outlives it, and several processes of tests share it.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the long soaks, too, and properties on other examples each time")


def pytest_configure(config):
    # No example is too slow on a busy machine. The same ones every time: what is found by chance is found by the long soaks, and not in
    # somebody's unrelated change.
    hypothesis.settings.register_profile(
        "steady", deadline=None, derandomize=not config.getoption("--run-slow"), suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )  # fmt: skip
    hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--run-slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="a long soak: --run-slow"))


def pytest_report_header():
    where = "the one of TEST_DATABASE_URL" if os.environ.get("TEST_DATABASE_URL") else f"{embedded_home.SHARED_HOME}, kept for the next run"
    return f"PostgreSQL: {where}"


@pytest.fixture(scope="session")
def server_url():
    """The URL (a SQLAlchemy URL object) of a server on which a test may make databases."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield sa.make_url(given).set(drivername="postgresql+psycopg2")
        return
    # Test processes that run at once share it.
    with EmbeddedPostgres(embedded_home.SHARED_HOME, settings=FAST) as url, embedded_home.without_leftovers(sa.make_url(url)) as server:
        yield server


@pytest.fixture
def open_folder():
    """A folder that every user can pass through; the servers and services below it end with the test."""
    with embedded_home.open_folder() as folder:
        yield folder


@pytest.fixture
def database_url(server_url):
    """The URL, as text, of an empty database of the test's own, for a role that may make schemas in it and nothing else."""
    with plain_role.database(server_url, f"test_{uuid.uuid4().hex[:12]}") as url:
        yield url


@pytest.fixture
def engine(database_url):
    """An engine on that database."""
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()
