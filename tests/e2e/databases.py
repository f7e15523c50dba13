"""Databases of one's own on the tests' server, empty or copied whole, and plain connections to them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import plain_role
import psycopg2
import sqlalchemy as sa


@contextmanager
def database(server: sa.URL, template: str | None = None) -> Iterator[str]:
    """A database of one's own, empty or a copy, used by a role without privileges of its own; its URL as text."""
    with plain_role.database(server, f"e2e_{uuid.uuid4().hex[:12]}", template) as url:
        yield url


@contextmanager
def admin(server: sa.URL) -> Iterator[Any]:
    """A cursor on the server, outside of any transaction."""
    with closing(connect(server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def connect(url: str | sa.URL) -> Any:
    """A psycopg2 connection."""
    return psycopg2.connect(sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
