"""Worlds for the end-to-end tests: one luigid a module, never restarted; one published release that tests copy."""

import dataclasses
import uuid

import pytest
from databases import database
from harness import BRISK, World, configuration
from sample_site import BUNDLE, HEARINGS, REAL, SampleServer, members

from pipeline import services

#: Rows of the protests that the small bundle keeps.
PROTESTS = 20_000


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
