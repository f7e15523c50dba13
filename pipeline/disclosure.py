"""How values are shown to those who may not see all of them, and to spreadsheets, which run what looks like a formula."""

from __future__ import annotations

import re

#: What a spreadsheet takes for a formula when a cell begins with it and is no number.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
#: Where PostgreSQL's messages repeat a value: after a colon, or after the word.
VALUE_IN_MESSAGE = re.compile(r'(?:(?<=: )|(?<=value ))".*"', re.DOTALL)
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")


def masked(text: str) -> str:
    """A text with ``x`` for each letter and ``9`` for each digit: its form, and nothing that it says.

    >>> masked("SMITH, JOHN 2nd")
    'xxxxx, xxxx 9xx'
    """
    return _DIGIT.sub("9", _LETTER.sub("x", text))


def spreadsheet_cell(cell: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula: a text that looks like one gets an apostrophe before it.

    >>> [spreadsheet_cell(cell) for cell in ("=1+1", "-5.00", "-5 AC", "ACRES", 7, None)]
    ["'=1+1", '-5.00', "'-5 AC", 'ACRES', 7, None]
    """
    is_formula = isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell
