r"""What goes into a table by COPY comes out the same: every text, NULL and '' apart, and every other type up to its bounds."""

import datetime as dt
import string
import uuid
from decimal import Decimal

import plain_role
import psycopg2
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from pipeline.catalog.model import ColumnType
from pipeline.database.engine import make_engine, transaction
from pipeline.load.copy import copy_rows
from pipeline.transform.coerce import arrow_type

TEXT = ColumnType("text")
#: What a form of COPY, a reader of CSV or a shell takes for something else than itself.
NASTY = [
    "", " ", "\\", "\\\\", "\\N", "\\.", "\\n", "\\t", "\\x41", "\\101", "\t", "\r", "\n", "\r\n", '"', '""', "'", ",", ";", "|", "NULL",
    "null", "{}", "$1", "%s", "--", "\x01", "\x08", "\x0b", "\x0c", "\x1a", "\x1b", "\x7f", "\x80", "\x85", "\xa0", "\u2028", "\ufeff",
    "\ufffd", "\ufffe", "\uffff", "\U0001f600", "\U0010ffff", "e\u0301", "a" * 70_000, '"\n' * 5000,
]  # fmt: skip
TEXTS = (
    st.none()
    | st.sampled_from(NASTY)
    | st.lists(st.sampled_from([*NASTY[:30], *string.ascii_letters[:4]]), max_size=6).map("".join)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
)


def whole(bits):
    """Whole numbers of a type, its bounds among them."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.none() | st.sampled_from([low, high, 0, -1]) | st.integers(low, high)


def exact(precision, scale):
    """Numbers of ``numeric(precision, scale)``, its bounds among them; equal in value and in digits."""
    bound = 10**precision - 1
    digits = st.sampled_from([bound, -bound, 0, 1, 100]) | st.integers(-bound, bound)
    return st.none() | digits.map(lambda number: Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale)))


DATES = [dt.date.min, dt.date(1, 12, 31), dt.date(1582, 10, 10), dt.date(1899, 12, 30), dt.date(1970, 1, 1), dt.date(2024, 2, 29), dt.date.max]
TYPES = {
    TEXT: TEXTS,
    ColumnType("integer"): whole(32),
    ColumnType("bigint"): whole(64),
    ColumnType("numeric", 14, 2): exact(14, 2),
    ColumnType("numeric", 38, 10): exact(38, 10),
    ColumnType("numeric", 60, 0): exact(60, 0),
    ColumnType("date"): st.none() | st.sampled_from(DATES) | st.dates(),
    ColumnType("boolean"): st.none() | st.booleans(),
}
STEADY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(scope="module")
def engine(server_url):
    """One database for all of them: each example has a table of its own, which ends with its transaction."""
    with plain_role.database(server_url, f"test_{uuid.uuid4().hex[:12]}") as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


def through(engine, kinds, rows, batch_rows):
    """Write rows (tuples) into a new table by COPY, in batches, and read them back in their order."""
    names = [f"c{number}" for number in range(len(kinds))]
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    table = pa.table({name: pa.array(values, arrow_type(kind)) for name, kind, values in zip(names, kinds, columns, strict=True)})
    declared = ", ".join(f"{name} {kind.sql}" for name, kind in zip(names, kinds, strict=True))
    with transaction(engine) as cursor:
        cursor.execute("set local datestyle = 'SQL, DMY'")  # as a server of somebody's may have it
        cursor.execute(f"create temporary table target ({declared}, place bigint generated always as identity) on commit drop")
        copied = copy_rows(cursor, sql.Identifier("target"), names, iter(table.to_batches(max_chunksize=batch_rows)))
        cursor.execute("set local datestyle = 'ISO'")
        cursor.execute(f"select {', '.join(names)} from target order by place")
        found = cursor.fetchall()
    assert copied == len(rows)
    return found


@STEADY
@given(width=st.integers(1, 3), batch_rows=st.integers(1, 7), data=st.data())
def test_every_text_comes_out_as_it_went_in(engine, width, batch_rows, data):
    rows = data.draw(st.lists(st.tuples(*[TEXTS] * width), max_size=12))
    assert through(engine, [TEXT] * width, rows, batch_rows) == rows


@pytest.mark.parametrize("width", [1, 3])
def test_what_copy_takes_for_something_else_comes_out_as_it_went_in_in_every_column(engine, width):
    rows = [tuple(row) for place in range(width) for text in [*NASTY, None] for row in [["x"] * width] for row[place] in [text]]
    assert len(rows) == width * (len(NASTY) + 1)
    assert through(engine, [TEXT] * width, rows, 10) == rows
    # A line of nothing, and the end of the data of older servers, as the whole of a row.
    for text in (None, "", "\\.", "\\N"):
        assert through(engine, [TEXT] * width, [(text,) * width] * 3, 2) == [(text,) * width] * 3


@STEADY
@given(rows=st.lists(st.tuples(*TYPES.values()), max_size=8), batch_rows=st.integers(1, 5))
@example(rows=[(None,) * len(TYPES)] * 2, batch_rows=1)
@example(rows=[("", *row) for row in zip([-(2**31)] * 7, [2**63 - 1] * 7, *[[None] * 7] * 3, DATES, [True, False] * 3 + [None], strict=True)],
         batch_rows=3)  # fmt: skip
def test_every_type_comes_out_as_it_went_in_up_to_its_bounds(engine, rows, batch_rows):
    found = through(engine, list(TYPES), rows, batch_rows)
    assert found == rows
    # Equal numbers may differ in their digits: 1.00 is stored as it was written.
    assert [str(value) for row in found for value in row] == [str(value) for row in rows for value in row]


#: A key, or a parent, is not NULL, and no longer than an index takes.
KEYS = st.sampled_from([text for text in NASTY if len(text) < 10]) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@settings(STEADY, max_examples=2, suppress_health_check=list(HealthCheck))
@given(keys=st.lists(KEYS, unique=True, min_size=2, max_size=20), data=st.data())
@example(keys=[text for text in NASTY if len(text) < 10], data=None)
def test_every_text_survives_staging_publish_refresh_and_rollback_in_every_text_column(world, keys, data):
    names = data.draw(st.lists(TEXTS, min_size=len(keys), max_size=len(keys))) if data else NASTY[-len(keys) :]

    def live():
        owners = dict(world.rows("select acct, name from county.owner where tax_year = 2025"))
        features = dict(world.rows("select acct, code from county.feature where tax_year = 2025"))
        assert owners == features and len(owners) == len(keys)
        return [owners[key] for key in keys]

    for turn in (0, 1):
        rows = list(zip(keys, names[turn:] + names[:turn], strict=True))
        world.publish(f"{next(world.numbers)}", [(key, name, None) for key, name in rows], rows)
        assert live() == [name for _, name in rows]
    if names[1:] + names[:1] != names:
        ((newest,),) = world.rows("select import_id from etl.import where state = 'published'")
        world.loads.rollback_import(newest)
    assert live() == names


def test_nul_is_refused_by_the_server_and_nothing_of_its_copy_stays(engine):
    with pytest.raises(psycopg2.DataError):
        through(engine, [TEXT], [("good",), ("a\0b",)], 10)


def test_rows_that_cannot_be_read_end_copy_with_their_own_error(engine):
    def batches():
        yield pa.record_batch({"a": ["good"]})
        raise OSError("the disk gave up")

    with pytest.raises(OSError, match="the disk gave up"), transaction(engine) as cursor:
        cursor.execute("create temporary table target (a text) on commit drop")
        copy_rows(cursor, sql.Identifier("target"), ["a"], batches())
