"""Databases for tests, used by a role as a careful administrator would give it: no superuser, no owner of the database, and
owner of what it makes alone."""

import hashlib
from contextlib import contextmanager

import sqlalchemy as sa
from psycopg2 import sql

NAME = "hcad_pipeline_test"


@contextmanager
def database(server, name, template=None):
    """Make a database, empty or a copy; its URL, as text, for the plain role."""
    with admin(server) as cursor:
        password = _role(cursor, server)
        copied = sql.SQL(" template {}").format(sql.Identifier(template)) if template else sql.SQL("")
        cursor.execute(sql.SQL("create database {}{}").format(sql.Identifier(name), copied))
        cursor.execute(sql.SQL("grant create on database {} to {}").format(sql.Identifier(name), sql.Identifier(NAME)))
    with admin(server.set(database=name)) as cursor:
        # For what tests make as a user of the database would, beside the pipeline's schemas.
        cursor.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(NAME)))
    try:
        yield server.set(database=name, username=NAME, password=password).render_as_string(hide_password=False)
    finally:
        with admin(server) as cursor:
            cursor.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def admin(server):
    """A cursor of the server's administrator, outside of any transaction."""
    engine = sa.create_engine(server, poolclass=sa.NullPool)
    connection = engine.raw_connection()
    try:
        connection.driver_connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _role(cursor, server):
    """The role, made when it is not there; its password, which only those know who know the server's."""
    password = hashlib.sha256(f"{NAME} {server.render_as_string(hide_password=False)}".encode()).hexdigest()[:24]
    cursor.execute("select pg_advisory_lock(742020)")
    cursor.execute("select rolsuper from pg_roles where rolname = %s", [NAME])
    row = cursor.fetchone()
    if row is None:
        cursor.execute(sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole").format(sql.Identifier(NAME)))
    assert row in (None, (False,)), f"{NAME} is a superuser"
    # Set each time: another embedded server's, or another password's, tests may have made it.
    cursor.execute(sql.SQL("alter role {} password %s").format(sql.Identifier(NAME)), [password])
    cursor.execute("select pg_advisory_unlock(742020)")
    return password
