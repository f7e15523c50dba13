"""Which PostgreSQL: the one that DATABASE_URL or the configuration names, else the embedded one in the state folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sqlalchemy import URL, Engine

from pipeline.database.embedded import EmbeddedPostgres
from pipeline.database.engine import database_url, make_engine
from pipeline.database.migrate import migrate


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
def open_database(configured: str, state: Path) -> Engine:
    """An engine on the database, started where it is ours to start, with the ledger up to date; made once a process.

    The engine has no pool, so the processes that Luigi forks may use it too.
    """
    engine = make_engine(server_url(configured, state))
    migrate(engine)
    return engine
