"""The order of keys: every key that stands twice is a suspect, however a member is cut into parts and batches."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog.model import Column, ColumnType
from pipeline.load import order
from pipeline.load.order import KeyOrder, OrderWatch, suspect_keys


class Keyed:
    """What a watch reads of a table."""

    def __init__(self, *kinds):
        self.key = tuple(f"k{number}" for number in range(len(kinds)))
        self._kinds = kinds

    def column(self, name):
        return Column(name=name, source=name, type=ColumnType(self._kinds[self.key.index(name)]))


def watched(table, keys, batch=3):
    watch = OrderWatch(table)
    columns = [pa.array(values) for values in zip(*keys, strict=True)] if keys else [pa.array([], pa.string()) for _ in table.key]
    rows = pa.table(dict(zip(table.key, columns, strict=True)))
    assert sum(piece.num_rows for piece in watch.watched(rows.to_batches(max_chunksize=batch))) == len(keys)
    return watch.order


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=60), st.integers(0, 60), st.integers(1, 7), st.data())
def test_every_key_that_stands_twice_is_suspect_wherever_the_cuts_are(keys, cut, batch, data):
    nearly = sorted(keys)
    for _ in range(data.draw(st.integers(0, 3))):
        if nearly:
            key = nearly.pop(data.draw(st.integers(0, len(nearly) - 1)))
            nearly.insert(data.draw(st.integers(0, len(nearly))), key)
    table = Keyed("integer", "smallint")
    suspects = suspect_keys([watched(table, nearly[:cut], batch), watched(table, nearly[cut:], batch)])
    if suspects is not None:
        assert {key for key, count in Counter(nearly).items() if count > 1} <= set(suspects)


def test_file_in_order_has_only_its_repeated_keys_as_suspects():
    table = Keyed("text")
    parts = [watched(table, [("a",), ("b",), ("b",), ("d",)]), watched(table, []), watched(table, [("d",), ("e",)], 1)]
    assert suspect_keys(parts) == [("b",), ("d",)]


def test_row_out_of_its_place_is_a_suspect_and_disturbs_no_other():
    assert watched(Keyed("text"), [("a",), ("c",), ("b",), ("d",), ("e",)]) == KeyOrder(("a",), ("e",), (("b",),))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([(str(100 - number),) for number in range(50)], id="that fall"),
        pytest.param([("a",), (None,), ("b",)], id="of which one has no value"),
    ],
)
def test_keys_in_no_order_tell_nothing(keys, monkeypatch):
    monkeypatch.setattr(order, "MOST_SUSPECT", 40)
    assert watched(Keyed("text"), keys, 50) is None


def test_parts_that_do_not_follow_each_other_tell_nothing():
    assert suspect_keys([watched(Keyed("text"), [("b",), ("c",)]), watched(Keyed("text"), [("a",)])]) is None
    assert suspect_keys([watched(Keyed("text"), [("b",)]), None]) is None


def test_too_many_suspects_tell_nothing(monkeypatch):
    monkeypatch.setattr(order, "MOST_SUSPECT", 3)
    assert watched(Keyed("text"), [(key,) for key in "aabbccdd"]) is None


def test_kind_of_key_that_json_does_not_hold_tells_nothing():
    assert watched(Keyed("numeric"), [(1,), (2,)]) is None
