"""Delimited lines with quoted fields, for layouts that declare a quote character.

In go the few lines in which the quote character stands; out come their fields, with the delimiters that quotes protect and
one quote for two (RFC 4180), or the reason why a line is none. Each line is read by itself, by Python's ``csv`` in its
strict form: a quote that is not closed refuses its own line and takes no other with it. A quoted field never goes beyond
its line. A quote inside a field that does not begin with one is text, as it is to ``pandas.read_csv``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping

import pyarrow as pa

from pipeline.catalog.model import Layout
from pipeline.transform.lines import Lines

_BLANKS = " \t"


def split_fields(text: str, layout: Layout) -> list[str]:
    """The fields of one line.

    Raises:
        csv.Error: its quotes do not pair, or text follows a closing quote; the message holds no value.
    """
    quote = layout.quote
    if quote is None or quote not in text:
        return text.split(layout.delimiter)
    if text.count(quote) % 2:
        raise csv.Error("a quote is not closed")
    return next(csv.reader([text], delimiter=layout.delimiter, quotechar=quote, doublequote=True, strict=True))


def cut_quoted(
    lines: Lines, layout: Layout, count: int, wanted: Mapping[str, int]
) -> tuple[dict[str, pa.StringArray], dict[int, dict[str, str]]]:
    """Cut columns out of lines with quotes.

    Args:
        lines: lines that the layout's encoding can decode, without a CR inside.
        layout: which declares a quote character.
        count: how many fields a line must have.
        wanted: column -> the number of its field, from 0.

    Returns:
        Column -> text, trimmed, NULL where nothing is left, of the lines that are records; and, for each other line, its
        row and why it is refused (reason -> message).
    """
    texts: dict[str, list[str | None]] = {name: [] for name in wanted}
    refused: dict[int, dict[str, str]] = {}
    for row in range(len(lines)):
        try:
            fields = split_fields(lines[row].decode(layout.encoding), layout)
        except csv.Error as error:
            refused[row] = {"quote": f"has quotes that do not divide it into fields: {error}"}
            continue
        if len(fields) != count:
            refused[row] = {"field_count": f"has another number of fields than {count}"}
            continue
        for name, field in wanted.items():
            texts[name].append(fields[field].strip(_BLANKS) or None)
    return {name: pa.array(values, pa.string()) for name, values in texts.items()}, refused
