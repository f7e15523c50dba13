"""The live table comes into being, grows, and is never reshaped silently."""

import dataclasses

import pytest
from county import OWNER, text

from pipeline.catalog.model import ColumnType, Index
from pipeline.database.engine import transaction
from pipeline.errors import DatabaseBusy, ShapeError
from pipeline.load.comments import describe_source
from pipeline.load.shape import ensure_live


def columns(world):
    return world.rows(
        "select column_name, data_type from information_schema.columns where table_schema = 'county' and table_name = 'owner' order by ordinal_position"
    )


def test_table_is_partitioned_keyed_and_commented(world):
    documented = dataclasses.replace(OWNER, doc="Who owns what", columns=(*OWNER.columns, text("note", doc="A note")))
    ensure_live(world.engine, documented, 2025)
    ensure_live(world.engine, documented, 2026)
    assert columns(world)[0] == ("tax_year", "integer") and columns(world)[-1] == ("row_hash", "uuid")
    partitions = world.rows("select inhrelid::regclass::text from pg_inherits where inhparent = 'county.owner'::regclass order by 1")
    assert partitions == [("county.owner_2025",), ("county.owner_2026",)]
    assert world.rows("select obj_description('county.owner'::regclass)") == [("Who owns what",)]
    nothing_said = [("county.owner", "acct"), ("county.owner", "name"), ("county.owner", "value"), ("history.county_owner", "acct")]
    assert uncommented(world) == nothing_said


def uncommented(world):
    return world.rows(
        """select attrelid::regclass::text, attname from pg_attribute where attrelid in ('county.owner'::regclass, 'history.county_owner'::regclass)
              and attnum > 0 and col_description(attrelid, attnum) is null order by attrelid, attnum"""
    )


def test_a_changed_doc_reaches_the_database_though_nothing_is_published(world):
    before = dataclasses.replace(OWNER, doc="Who owns what", columns=(*OWNER.columns, text("note", doc="A note")))
    ensure_live(world.engine, before, 2025)
    after = dataclasses.replace(before, doc="Owners", columns=(*OWNER.columns, text("note", doc="A note, 100% true; 'free'")))
    never_loaded = dataclasses.replace(OWNER, name="heir", doc="Heirs")
    source = dataclasses.replace(world.county, tables=(after, never_loaded))
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column mine text")
        cursor.execute("comment on column county.owner.mine is 'of my own'")
    assert describe_source(world.engine, source) == 2
    said = "select obj_description('county.owner'::regclass), col_description('county.owner'::regclass, attnum) from pg_attribute"
    where = "where attrelid = 'county.owner'::regclass and attname in ('note', 'mine') order by attname"
    assert world.rows(f"{said} {where}") == [("Owners", "of my own"), ("Owners", "A note, 100% true; 'free'")]
    assert describe_source(world.engine, source) == 0


def test_a_table_that_somebody_holds_gets_its_comments_later(world):
    ensure_live(world.engine, OWNER, 2025)
    source = dataclasses.replace(world.county, tables=(dataclasses.replace(OWNER, doc="Owners"),))
    events = []
    with transaction(world.engine) as cursor:
        cursor.execute("lock table county.owner in share mode")
        assert describe_source(world.engine, source, lambda name, figures: events.append(name)) == 0
    assert events == ["load.comments_later"]
    assert describe_source(world.engine, source) == 1


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("of_the_users_own", "seen"),
    [
        ("create trigger t after insert on county.owner for each row execute function public.note()", "1 2"),
        ("create trigger t after insert on county.owner execute function public.note()", ""),
        ("alter table county.owner add foreign key (name) references public.people (name)", None),
        ("create table county.others partition of county.owner default", None),
        ("alter table county.owner add column id integer generated always as identity", None),
    ],
    ids=["row trigger", "statement trigger", "foreign key", "default partition", "identity"],
)
def test_first_publish_comes_in_by_the_front_door_where_a_user_would_notice(world, of_the_users_own, seen):
    ensure_live(world.engine, OWNER, 2025)
    with transaction(world.engine) as cursor:
        cursor.execute("show server_version_num")
        if "identity" in of_the_users_own and int(cursor.fetchone()[0]) < 170000:
            pytest.skip("partitioned tables have identity columns from PostgreSQL 17 on")
        cursor.execute("create schema if not exists public")
        cursor.execute("create table public.people (name text primary key)")
        cursor.execute("insert into public.people values ('ANN'), ('BOB')")
        cursor.execute("create table public.noted (acct text)")
        cursor.execute(
            """create function public.note() returns trigger language plpgsql as $$ begin
                 insert into public.noted select case tg_level when 'ROW' then new.acct else '' end; return null; end $$"""
        )
        cursor.execute(of_the_users_own)
    world.publish("a", [("1", "ANN", None), ("2", "BOB", None)], [("1", "POOL")])
    assert world.rows("select acct from county.owner_2025 order by 1") == [("1",), ("2",)]
    assert world.rows("select string_agg(acct, ' ' order by acct) from public.noted") == [(seen,)]
    world.publish("b", [("2", "BOB", None)], [("1", "POOL")])
    world.loads.rollback_import(2)
    assert world.rows("select acct from county.owner_2025 order by 1") == [("1",), ("2",)]


def test_new_column_is_added_and_old_rows_stay(world):
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    wider = dataclasses.replace(OWNER, columns=(*OWNER.columns, text("note")))
    ensure_live(world.engine, wider, 2025)
    assert world.rows("select acct, note from county.owner") == [("1", None)]


def test_new_index_is_built(world):
    ensure_live(world.engine, dataclasses.replace(OWNER, indexes=(Index(("name",)),)), 2025)
    assert world.rows("select indexdef like '%%(tax_year, name)' from pg_indexes where indexname = 'owner_name_idx'") == [(True,)]


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    "changed",
    [
        {"columns": (OWNER.columns[0], OWNER.columns[1], dataclasses.replace(OWNER.columns[2], type=ColumnType("bigint")))},
        {"columns": (OWNER.columns[0], dataclasses.replace(OWNER.columns[1], required=True), OWNER.columns[2])},
        {"columns": (*OWNER.columns, text("note", required=True))},
        {"key": ("acct", "name"), "columns": (OWNER.columns[0], dataclasses.replace(OWNER.columns[1], required=True), OWNER.columns[2])},
    ],
)
def test_retype_key_change_and_new_required_column_are_refused_with_a_plan(world, changed):
    ensure_live(world.engine, OWNER, 2025)
    before = columns(world)
    with pytest.raises(ShapeError):
        ensure_live(world.engine, dataclasses.replace(OWNER, **changed), 2025)
    assert columns(world) == before


@pytest.mark.fault(66)
def test_extra_columns_of_the_users_own_survive_unless_they_must_be_filled(world):
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column remark text default 'none' not null")
        cursor.execute("create view public.names as select name from county.owner")
    world.publish("b", [("1", "EVE", None), ("2", "NEW", None)], [("1", "POOL")])
    assert world.rows("select acct, remark from county.owner order by 1") == [("1", "none"), ("2", "none")]
    assert world.rows("select count(*) from public.names") == [(2,)]
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner alter column remark drop default")
    with pytest.raises(ShapeError, match="remark"):
        ensure_live(world.engine, OWNER, 2025)


@pytest.mark.fault(60)
def test_reader_that_holds_the_table_open_delays_a_new_column_and_then_stops_it(world, monkeypatch):
    ensure_live(world.engine, OWNER, 2025)
    monkeypatch.setattr("pipeline.load.shape.TRIES", 3)
    with transaction(world.engine) as reader:
        reader.execute("select count(*) from county.owner")
        with pytest.raises(DatabaseBusy, match="lock timeout"):
            ensure_live(world.engine, dataclasses.replace(OWNER, columns=(*OWNER.columns, text("note"))), 2025)
    assert "note" not in dict(columns(world))


@pytest.mark.fault(66)
def test_column_that_left_the_schema_file_is_refused_with_a_plan_and_a_users_own_is_not(world):
    world.publish("a", [("1", "ANN", None)], [("1", "POOL")])
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column remark text")
    narrower = dataclasses.replace(OWNER, columns=(OWNER.columns[0], OWNER.columns[2]))
    with pytest.raises(ShapeError, match="drop column name") as caught:
        ensure_live(world.engine, narrower, 2025)
    assert "remark" not in str(caught.value)
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner drop column name")
    ensure_live(world.engine, narrower, 2025)


def test_history_without_its_table_is_named_and_nothing_is_made(world):
    ensure_live(world.engine, OWNER, 2025)
    with transaction(world.engine) as cursor:
        cursor.execute("drop table county.owner")
    with pytest.raises(ShapeError, match="history.county_owner"):
        ensure_live(world.engine, OWNER, 2025)
    assert columns(world) == []


def test_tax_years_of_a_source_do_not_wait_for_each_other(world, monkeypatch):
    indexed = dataclasses.replace(OWNER, indexes=(Index(("name",)),))
    for year in (2024, 2025):
        ensure_live(world.engine, indexed, year)
    monkeypatch.setattr("pipeline.load.shape.LOCK_TIMEOUT", "200ms")
    with transaction(world.engine) as publisher:
        publisher.execute(
            "insert into county.owner (tax_year, acct, import_id, row_hash) values (2024, '1', 1, '00000000000000000000000000000000')"
        )
        ensure_live(world.engine, indexed, 2025)
