"""Fixtures of the integration tests."""

import pytest
from county import World


@pytest.fixture
def world(database_url, tmp_path):
    made = World(database_url, tmp_path)
    yield made
    made.engine.dispose()
