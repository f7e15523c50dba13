"""bulk_upsert: any records into any table, by COPY, all or none."""

import collections
import datetime as dt
import threading
import time
from decimal import Decimal

import pandas as pd
import psycopg2
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.database.engine import make_engine, transaction
from pipeline.errors import ConfigurationError
from pipeline.load.manager import LoadManager
from pipeline.load.upsert import Upserted

DDL = """create schema app; create table app.thing (id integer primary key, name text, price numeric(8,2), day date, ok boolean, extra jsonb);
         create table app.log (line text)"""


@pytest.fixture
def loads(database_url):
    manager = LoadManager(make_engine(database_url))
    with transaction(manager.engine) as cursor:
        cursor.execute(DDL)
    return manager


def things(loads, columns="id, name"):
    with transaction(loads.engine) as cursor:
        cursor.execute(f"select {columns} from app.thing order by id")
        return cursor.fetchall()


def test_new_differing_and_equal_records_are_told_apart(loads):
    assert loads.bulk_upsert([{"id": 1, "name": "a"}, {"id": 2, "name": None}], "app.thing") == Upserted(2, 2, 0, 0, 0)
    second = [{"id": 1, "name": "b"}, {"id": 2, "name": None}, {"id": 3, "name": "c"}]
    assert loads.bulk_upsert(second, "app.thing") == Upserted(3, 1, 1, 1, 0)
    assert things(loads) == [(1, "b"), (2, None), (3, "c")]


@pytest.mark.parametrize("batch_size", [1, 2, 5000])
def test_last_record_of_a_key_stands_whatever_the_batches(loads, batch_size):
    records = [{"id": n % 3, "name": str(n)} for n in range(9)]
    assert loads.bulk_upsert(iter(records), "app.thing", batch_size) == Upserted(9, 3, 0, 0, 6)
    assert things(loads) == [(0, "6"), (1, "7"), (2, "8")]


def test_types_arrive_as_they_are(loads):
    record = {"id": 1, "name": "", "price": Decimal("1.10"), "day": dt.date(2025, 2, 28), "ok": False, "extra": {"a": [1]}}
    loads.bulk_upsert([record], "app.thing")
    assert things(loads, "name, price, day, ok, extra") == [("", Decimal("1.10"), dt.date(2025, 2, 28), False, {"a": [1]})]


def test_bytes_arrive_as_bytes(loads):
    with transaction(loads.engine) as cursor:
        cursor.execute("create table app.blob (id integer primary key, body bytea)")
    loads.bulk_upsert([{"id": 1, "body": b"\x00\\x'"}], "app.blob")
    with transaction(loads.engine) as cursor:
        cursor.execute("select body from app.blob")
        assert bytes(cursor.fetchone()[0]) == b"\x00\\x'"


def test_frame_sqlalchemy_table_and_model_are_taken(loads):
    frame = pd.DataFrame({"id": [1, 2], "name": ["a", None]})
    loads.bulk_upsert(frame, sa.Table("thing", sa.MetaData(), schema="app"))

    class Model:
        class _meta:
            db_table = 'app"."thing'

    loads.bulk_upsert([{"id": 2, "name": "z"}], Model)
    assert things(loads) == [(1, "a"), (2, "z")]


Named = collections.namedtuple("Named", "name id")


def test_tuples_are_taken_by_their_names_or_by_the_tables_own_order(loads):
    everything = (1, "a", Decimal("1.10"), dt.date(2025, 2, 28), True, {"a": 1})
    assert loads.bulk_upsert([everything], "app.thing").inserted == 1
    assert loads.bulk_upsert(iter([Named("b", 1), Named("c", 2)]), "app.thing") == Upserted(2, 1, 1, 0, 0)
    assert things(loads, "id, name, price") == [(1, "b", Decimal("1.10")), (2, "c", None)]


def test_arrow_is_taken_whole_and_in_batches(loads):
    table = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"]})
    assert loads.bulk_upsert(table, "app.thing", 2).inserted == 3
    assert loads.bulk_upsert(iter(table.to_batches(max_chunksize=1)), "app.thing") == Upserted(3, 0, 0, 3, 0)


def test_same_records_again_write_nothing(loads):
    records = [{"id": number, "name": str(number), "extra": {"a": number}} for number in range(20)]
    loads.bulk_upsert(records, "app.thing")
    before = things(loads, "ctid, xmin::text")
    assert loads.bulk_upsert(records, "app.thing") == Upserted(20, 0, 0, 20, 0)
    assert things(loads, "ctid, xmin::text") == before


@pytest.mark.fault(62)
def test_key_that_another_transaction_inserts_meanwhile_is_updated(loads):
    with transaction(loads.engine) as other:
        other.execute("insert into app.thing (id, name) values (1, 'theirs')")
        late = threading.Thread(target=loads.bulk_upsert, args=([{"id": 1, "name": "ours"}, {"id": 2, "name": "b"}], "app.thing"))
        late.start()
        while not waiting(loads):
            time.sleep(0.02)
    late.join()
    assert things(loads) == [(1, "ours"), (2, "b")]


def waiting(loads):
    with transaction(loads.engine) as cursor:
        cursor.execute("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
        return cursor.fetchone()[0]


def test_records_join_the_callers_transaction(loads):
    with pytest.raises(RuntimeError, match="changed my mind"), transaction(loads.engine) as cursor:
        loads.bulk_upsert([{"id": 1, "name": "a"}], "app.thing", cursor=cursor)
        raise RuntimeError("changed my mind")
    assert things(loads) == []


def test_table_without_a_key_takes_records_as_they_are(loads):
    assert loads.bulk_upsert([{"line": "x"}, {"line": "x"}], "app.log").inserted == 2


def test_one_bad_record_leaves_the_table_as_it_was(loads):
    loads.bulk_upsert([{"id": 1, "name": "a"}], "app.thing")
    with pytest.raises(psycopg2.DataError):
        loads.bulk_upsert([{"id": 2, "name": "b"}, {"id": "no number", "name": "c"}], "app.thing", 1)
    assert things(loads) == [(1, "a")]


@pytest.mark.parametrize(
    ("records", "model", "words"),
    [
        ([{"name": "a"}], "app.thing", "records without id"),
        ([{"id": 1, "name": "a"}, {"id": 2}], "app.thing", "record 1"),
        ([{"id": 1}], object(), "object as the table"),
        (7, "app.thing", "int as records"),
        ([7], "app.thing", "int as a record"),
        ([(1, "a")], "app.thing", "a record of 2 values"),
        ([{"id": 1}], "app.nothing", "no table"),
    ],
)
def test_records_that_do_not_fit_are_refused_with_what_was_seen(loads, records, model, words):
    with pytest.raises(ConfigurationError, match=words):
        loads.bulk_upsert(records, model)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), min_size=1, max_size=20))
def test_every_text_survives_copy(loads, texts):
    with transaction(loads.engine) as cursor:
        cursor.execute("truncate app.log")
    loads.bulk_upsert([{"line": text} for text in texts], "app.log", 7)
    with transaction(loads.engine) as cursor:
        cursor.execute("select line from app.log")
        assert sorted(line for (line,) in cursor.fetchall()) == sorted(texts)
