"""bulk_upsert: any records into any table, by COPY, all or none."""

import datetime as dt
from decimal import Decimal

import pandas as pd
import psycopg2
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


def test_frame_sqlalchemy_table_and_model_are_taken(loads):
    frame = pd.DataFrame({"id": [1, 2], "name": ["a", None]})
    loads.bulk_upsert(frame, sa.Table("thing", sa.MetaData(), schema="app"))

    class Model:
        class _meta:
            db_table = 'app"."thing'

    loads.bulk_upsert([{"id": 2, "name": "z"}], Model)
    assert things(loads) == [(1, "a"), (2, "z")]


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
    ],
)
def test_records_that_do_not_fit_are_refused_with_what_was_seen(loads, records, model, words):
    with pytest.raises(ConfigurationError, match=words):
        loads.bulk_upsert(records, model)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), min_size=1, max_size=20))
def test_every_text_survives_copy(loads, texts):
    with transaction(loads.engine) as cursor:
        cursor.execute("truncate app.log")
    loads.bulk_upsert([{"line": text} for text in texts], "app.log", 7)
    with transaction(loads.engine) as cursor:
        cursor.execute("select line from app.log")
        assert sorted(line for (line,) in cursor.fetchall()) == sorted(texts)
