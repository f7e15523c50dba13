"""Rows on their way into COPY: every text as it is, a batch in quotes only where one of its texts wants them."""

import csv
import io
import threading

import pyarrow as pa
import pytest

from pipeline.load.ahead import one_ahead
from pipeline.load.copy import DELIMITER, CsvStream


def formed(*columns):
    """The CSV of columns of texts."""
    names = [str(number) for number in range(len(columns))]
    batch = pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], names=names)
    with CsvStream([batch], names) as stream:
        return stream.read()


def test_batch_of_plain_texts_is_sent_without_quotes():
    assert formed(["a, b", None, "\\N", "\\."], ["\\", "\t", "'", "é"]) == "a, b\x01\\\n\x01\t\n\\N\x01'\n\\.\x01é\n".encode()


@pytest.mark.parametrize("text", ["", '"', '12" PIPE', "\n", "\r", DELIMITER])
def test_batch_with_a_text_that_wants_quotes_has_all_of_them_in_quotes(text):
    sent = formed([text, "b", None], ["x", "y", "z"]).decode()
    assert sent.endswith("\n".join(["", f'"b"{DELIMITER}"y"', f'{DELIMITER}"z"', ""]))
    assert next(csv.reader(io.StringIO(sent, newline=""), delimiter=DELIMITER)) == [text, "x"]


def test_line_of_one_field_is_never_the_end_of_the_data():
    assert formed(["\\."]) == b'"\\."\n'


def test_next_item_is_made_while_this_one_is_used_and_no_further():
    made, entered = [], threading.Event()

    def make(number):
        made.append(number)
        if number == 2:
            entered.set()
        return number

    items = one_ahead(make, iter([1, 2, 3, 4]))
    assert next(items) == 1 and entered.wait(60)
    assert made == [1, 2]
    assert list(items) == [2, 3, 4]


def test_what_a_maker_raises_is_raised_where_its_item_would_be():
    items = one_ahead(lambda number: 1 // number, [1, 0, 1])
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)
    assert list(items) == []
