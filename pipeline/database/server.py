"""Which PostgreSQL: the one that DATABASE_URL or the configuration names, else the embedded one in the state folder."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from sqlalchemy import URL, Engine

from pipeline import configuration
from pipeline.database.embedded import EmbeddedPostgres
from pipeline.database.engine import DatabaseLimits, database_url, make_engine
from pipeline.database.migrate import migrate
from pipeline.database.runs import run_name


def embedded(state: Path) -> EmbeddedPostgres:
    """The embedded server of a state folder, running or not."""
    return EmbeddedPostgres(state / "postgres")


def server_url(configured: str, state: Path) -> URL:
    """The URL to connect to; the embedded server is started when none is configured.

    Args:
        configured: the user's URL, or "".
        state: the state folder.

    Raises:
        ConfigurationError: the URL is none, or the embedded server's programs are not installed.
    """
    return database_url(configured or embedded(state).start())


@lru_cache(maxsize=4)
def open_database(configured: str, state: Path, limits: DatabaseLimits | None = None) -> Engine:
    """An engine on the database, started where it is ours to start, with the ledger up to date; made once a process.

    The processes that Luigi forks use it too, each with connections of its own. The sessions of a run's tasks bear its name.

    Args:
        configured: the user's URL, or "".
        state: the state folder.
        limits: how long is waited for what; None: the defaults.
    """
    run_id = os.environ.get(configuration.RUN_ID)
    engine = make_engine(server_url(configured, state), application=run_name(int(run_id)) if run_id else "hcad-pipeline", limits=limits)
    migrate(engine)
    return engine
