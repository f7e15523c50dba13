"""Worlds for the end-to-end tests: one luigid a module, never restarted; one published release that tests copy.

The processes that these tests start do not count towards the coverage, but for the tests that are marked ``traced``: tracing makes
each of them, and each task that Luigi forks, start and end slower, and took as much time as the tests themselves.
"""

import dataclasses
import os
import uuid

import pytest
from databases import database
from harness import BRISK, World, configuration
from sample_site import BUNDLE, HEARINGS, REAL, SampleServer, members

from pipeline import services

#: Rows of the protests that the small bundle keeps.
PROTESTS = 20_000
#: How coverage tells the processes that tests start to trace themselves.
TRACING = "COVERAGE_PROCESS_"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Keep it from them for the time of a test, its fixtures' setup and teardown included."""
    names = [] if item.get_closest_marker("traced") else [name for name in os.environ if name.startswith(TRACING)]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        return (yield)
    finally:
        os.environ.update(kept)


@pytest.fixture(scope="session")
def sample_server(tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    server = SampleServer(home / "root", home / "log")
    yield server
    server.stop()


def _luigid(home, settings):
    config = home / "config" / "luigi.cfg"
    config.parent.mkdir()
    config.write_text(configuration(home / "var", settings))
    return services.start_luigid(home / "var", config=config).url


@pytest.fixture(scope="module")
def luigid(tmp_path_factory):
    """A luigid with the shipped settings."""
    home = tmp_path_factory.mktemp("luigid")
    yield _luigid(home, {})
    services.stop_all(home / "var")


@pytest.fixture(scope="module")
def brisk_luigid(tmp_path_factory):
    """A luigid that gives a failing task up after two attempts."""
    home = tmp_path_factory.mktemp("luigid")
    yield _luigid(home, BRISK)
    services.stop_all(home / "var")


@pytest.fixture(scope="session")
def first_release(tmp_path_factory, sample_server, server_url):
    """A world with HCAD 2025 published, by a luigid that is gone since."""
    home = tmp_path_factory.mktemp("luigid")
    with database(server_url) as url:
        world = World(tmp_path_factory.mktemp("published"), sample_server, url, _luigid(home, BRISK), BRISK)
        world.edit_schema("hcad/source.toml", "arb_protest_real = 424_335", "arb_protest_real = 1_000")
        world.offer(REAL, members(BUNDLE / REAL))
        protests = members(BUNDLE / HEARINGS)["arb_protest_real.txt"].splitlines(keepends=True)
        world.offer(HEARINGS, {"arb_protest_real.txt": b"".join(protests[:PROTESTS])})
        try:
            world.publish("--source", "hcad")
        finally:
            services.stop_all(home / "var")
        yield world


@pytest.fixture(scope="module")
def published(first_release, brisk_luigid):
    """A world with HCAD 2025 published. Not to be changed: copy it."""
    return dataclasses.replace(first_release, luigid=brisk_luigid)


@pytest.fixture
def world(tmp_path_factory, published, server_url):
    """A copy of the published world."""
    # The folder's name is the world's place on the server, too.
    with published.copy(tmp_path_factory.mktemp("worlds") / uuid.uuid4().hex[:8], server_url) as copied:
        yield copied
