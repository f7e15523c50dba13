"""What stops a run before anything is downloaded, and what is noted and kept."""

import dataclasses
import os
from pathlib import Path

import plain_role
import pytest
import sqlalchemy as sa
from county import FEATURE, OWNER, SOURCE, World

from pipeline.catalog.model import Index
from pipeline.database.embedded import EmbeddedPostgres
from pipeline.database.embedded_places import BINDIR_VARIABLE
from pipeline.database.engine import make_engine, transaction
from pipeline.database.migrate import migrate
from pipeline.database.preflight import require_room
from pipeline.errors import ConfigurationError, DatabaseFull, DatabaseRefused, ReadOnlyDatabase, ShapeError
from pipeline.load.preflight import preflight
from pipeline.load.shape import ensure_live

#: A server of the system's, with contrib; the embedded one has none.
SYSTEM_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
ROLE = plain_role.NAME


@pytest.fixture
def admin(server_url, database_url):
    """A cursor of the administrator in the test's database."""
    with plain_role.admin(server_url.set(database=sa.make_url(database_url).database)) as cursor:
        yield cursor


@pytest.fixture
def name(database_url):
    return sa.make_url(database_url).database


@pytest.mark.fault(65)
def test_role_that_may_make_no_schema_is_told_which_grant_it_lacks(database_url, admin, name):
    admin.execute(f"revoke create on database {name} from {ROLE}")
    engine = make_engine(database_url)
    with pytest.raises(DatabaseRefused) as caught:
        migrate(engine)
    statement = f'grant create on database "{name}" to "{ROLE}"'
    assert statement in str(caught.value)
    admin.execute(statement)
    assert migrate(engine)
    engine.dispose()


@pytest.mark.fault(65)
def test_role_that_was_given_its_schemas_needs_nothing_else(database_url, admin, name, tmp_path):
    admin.execute(f"revoke create on database {name} from {ROLE}; revoke create on schema public from {ROLE}")
    for schema in ("etl", "etl_staging", "history", "county"):
        admin.execute(f"create schema {schema} authorization {ROLE}")
    world = World(database_url, tmp_path)
    assert preflight(world.engine, [SOURCE]) == []
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    world.publish("b", [("2", "EVE", None)], [("1", "POOL")])
    world.loads.rollback_import(2)
    assert world.rows("select acct from county.owner") == [("1",)]
    world.engine.dispose()


@pytest.mark.fault(65)
def test_every_missing_privilege_is_named_at_once(database_url, admin, name, tmp_path):
    world = World(database_url, tmp_path)
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    admin.execute(
        f"""revoke temporary on database {name} from public; alter schema history owner to current_user;
            alter table county.owner owner to current_user; alter table etl.writer owner to current_user"""
    )
    with pytest.raises(DatabaseRefused) as caught:
        preflight(world.engine, [SOURCE])
    for statement in (
        f'grant temporary on database "{name}" to "{ROLE}"',
        f'grant usage, create on schema "history" to "{ROLE}"',
        f'alter table "county"."owner" owner to "{ROLE}"',
        f'alter table "etl"."writer" owner to "{ROLE}"',
    ):
        assert statement in str(caught.value)
        admin.execute(statement)
    assert preflight(world.engine, [SOURCE]) == []
    world.engine.dispose()


@pytest.mark.fault(65)
def test_database_that_is_read_only_is_named_before_anything_is_written(database_url, admin, name):
    admin.execute(f"alter database {name} set default_transaction_read_only = on")
    with pytest.raises(ReadOnlyDatabase, match="default_transaction_read_only"):
        migrate(make_engine(database_url))


@pytest.mark.fault(65)
def test_other_encoding_is_refused(server_url, database_url):
    name = f"{sa.make_url(database_url).database}"[:-1] + "l"
    with plain_role.admin(server_url) as cursor:
        cursor.execute(f"create database {name} encoding 'LATIN1' locale_provider libc locale 'C' template template0")
        try:
            with pytest.raises(ConfigurationError, match="LATIN1"):
                migrate(make_engine(server_url.set(database=name)))
        finally:
            cursor.execute(f"drop database {name} with (force)")


@pytest.mark.fault(64)
def test_server_without_room_is_refused_where_that_can_be_known(server_url, database_url):
    ours = make_engine(server_url)
    if not str(server_url.query.get("host", "")).startswith("/"):
        pytest.skip("the tests' server is on another machine")
    assert require_room(ours, 1) is None
    with pytest.raises(DatabaseFull, match="min_free_mb"):
        require_room(ours, 1 << 60)
    # A role that may not see where the data lie says that it does not know, and goes on.
    assert "cannot be known" in (require_room(make_engine(database_url), 1 << 60) or "")
    assert require_room(make_engine(database_url), 0) is None


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("alter table county.owner drop column name", "column name was dropped or renamed by hand"),
        ("alter table county.owner rename column name to owner_name", "column name was dropped or renamed by hand"),
        ("alter table county.owner drop column row_hash", "row_hash, which the pipeline keeps"),
        ("alter table county.owner alter column value type text", "alter column value type numeric"),
        ("alter table county.owner alter column acct drop not null", "primary key"),
        ("alter table county.feature add column wanted text not null default 'x'; alter table county.feature alter wanted drop default", "wanted"),
    ],
)
def test_table_that_was_changed_by_hand_stops_the_run_with_the_statements(database_url, tmp_path, change, words):
    world = World(database_url, tmp_path)
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    assert preflight(world.engine, [SOURCE]) == []
    with transaction(world.engine) as cursor:
        if "drop not null" in change:
            cursor.execute("alter table county.owner drop constraint owner_pkey")
        cursor.execute(change)
    with pytest.raises(ShapeError, match=words):
        preflight(world.engine, [SOURCE])
    world.engine.dispose()


DEPENDENTS = """
create view public.names as select name from county.owner;
create materialized view public.counted as select count(*) from county.owner;
create table public.visit (tax_year int, acct text, foreign key (tax_year, acct) references county.owner on delete cascade);
create table public.said (acct text);
create function public.say() returns trigger language plpgsql as $$ begin insert into public.said values (new.acct); return null; end $$;
create trigger tell after insert or update on county.owner for each row execute function public.say();
"""


@pytest.mark.fault(66)
def test_view_trigger_and_foreign_key_of_the_users_are_noted_and_live_through_every_import(database_url, tmp_path):
    world = World(database_url, tmp_path)
    world.publish("a", [("1", "ANN", None), ("2", "BOB", None)], [("1", "POOL")])
    with transaction(world.engine) as cursor:
        cursor.execute(DEPENDENTS)
        cursor.execute("insert into public.visit values (2025, '1'), (2025, '2')")
    notes = preflight(world.engine, [SOURCE])
    for words in ("a view of your own, public.names", "materialized view of your own, public.counted", "trigger of your own, tell", "visit"):
        assert sum(words in note for note in notes) == 1, notes
    world.publish("b", [("1", "EVE", None), ("3", "NEW", None)], [("1", "POOL")])
    world.loads.rollback_import(2)
    world.publish("c", [("1", "EVE", None)], [("1", "POOL")])
    ensure_live(world.engine, OWNER, 2026)
    assert preflight(world.engine, [SOURCE]) == notes
    assert world.rows("select * from public.names") == [("EVE",)]
    assert {row[0] for row in world.rows("select acct from public.said")} == {"1", "2", "3"}
    assert world.rows("select acct from public.visit") == [("1",)]  # 2 went with its account in b; a rollback changes 1 in place
    world.engine.dispose()


@pytest.mark.fault(66)
def test_foreign_key_that_refuses_a_publish_is_named_and_nothing_is_published(database_url, tmp_path):
    world = World(database_url, tmp_path)
    world.publish("a", [("1", "ANN", None), ("2", "BOB", None)], [])
    with transaction(world.engine) as cursor:
        cursor.execute("create table public.visit (tax_year int, acct text, foreign key (tax_year, acct) references county.owner)")
        cursor.execute("insert into public.visit values (2025, '2')")
    with pytest.raises(ShapeError, match="visit"):
        world.publish("b", [("1", "ANN", None)], [])
    assert world.rows("select count(*) from county.owner") == [(2,)]
    world.engine.dispose()


SEARCHED = dataclasses.replace(OWNER, indexes=(Index(("name",), "trgm"), Index(("name",))))
SEARCHED_SOURCE = dataclasses.replace(SOURCE, tables=(SEARCHED, FEATURE))


def test_trigram_index_is_left_out_and_noted_where_the_database_has_no_extension(database_url, tmp_path):
    world = World(database_url, tmp_path)
    ensure_live(world.engine, SEARCHED, 2025)
    assert world.rows("select indexname from pg_indexes where tablename = 'owner' and indexname like '%%idx'") == [("owner_name_idx",)]
    (note,) = preflight(world.engine, [SEARCHED_SOURCE])
    assert "pg_trgm is not installed" in note
    world.engine.dispose()


@pytest.mark.skipif(not SYSTEM_PROGRAMS, reason="no PostgreSQL of the system's with contrib")
def test_trigram_index_is_built_where_the_extension_is_and_serves_a_search(open_folder, tmp_path, monkeypatch):
    monkeypatch.setenv(BINDIR_VARIABLE, os.environ.get(BINDIR_VARIABLE, str(SYSTEM_PROGRAMS[-1])))
    with EmbeddedPostgres(open_folder / "postgres", settings={"fsync": "off"}) as url, plain_role.database(sa.make_url(url), "searched") as ours:
        world = World(ours, tmp_path)
        with plain_role.admin(sa.make_url(url).set(database="searched")) as cursor:
            cursor.execute("create schema extensions; create extension pg_trgm schema extensions")
            cursor.execute(f"grant usage on schema extensions to {ROLE}")
        ensure_live(world.engine, SEARCHED, 2025)
        ensure_live(world.engine, SEARCHED, 2025)
        assert preflight(world.engine, [SEARCHED_SOURCE]) == []
        with transaction(world.engine) as cursor:
            cursor.execute("set local enable_seqscan = off")
            cursor.execute("explain select * from county.owner where name like '%MAIN ST%'")
            assert "Bitmap Index Scan on owner_2025_name_idx" in "\n".join(line for (line,) in cursor.fetchall())
        world.engine.dispose()
