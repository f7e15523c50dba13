"""What the first rows of a member say of it, before anything of it is staged: its tax year, and the order of its columns.

In go the member's first part as a reader gives it and the table's declaration; either nothing comes out, or an error that
stops the release. A table with a year column must state the year that it was fetched for; a member without a header,
whose columns are known by their order alone, must match the layout's fingerprint. Nothing is asked of other members.
"""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Layout
from pipeline.errors import LayoutError, VintageError
from pipeline.handoff import Member
from pipeline.transform.judgement import Judge
from pipeline.transform.reader import Chunk

FIRST_ROWS: Final = 1000
#: The share of a column's values that must match its pattern in the layout's fingerprint.
MATCHING_SHARE: Final = 0.9


def check_tax_year(chunk: Chunk, member: Member, judge: Judge) -> None:
    """Compare the tax year that the rows state with the release's.

    Raises:
        VintageError: more than half of those that state a tax year state another one.
    """
    table, tax_year = judge.table, judge.tax_year
    if table.year_column is None or tax_year is None:
        return
    years = judge.type_columns(chunk).rows.column(table.year_column).drop_null()
    others = pc.filter(years, pc.not_equal(years, tax_year))
    if 2 * len(others) > len(years):
        common = ", ".join(f"{found['values']} ({found['counts']} rows)" for found in pc.value_counts(others).to_pylist()[:3])
        raise VintageError(
            f"{len(others)} of the first {len(years)} rows of {member.name} that state a tax year state {common}",
            f"tax year {tax_year}, as {table.qualified} was fetched for",
            "look at what the publisher put under this year's address; the published rows stay as they are",
        )


def check_fingerprint(chunk: Chunk, member: Member, layout: Layout) -> None:
    """Compare the values of a member without a header with what its layout says of them.

    Raises:
        LayoutError: fewer than nine tenths of a column's values match its pattern: the columns stand in another order.
    """
    wrong = []
    for name, pattern in layout.fingerprint.items():
        values = chunk.texts[name].drop_null()
        matching = _matching(values, pattern)
        if matching < MATCHING_SHARE * len(values):
            wrong.append(f"{name} ({matching} of {len(values)} values match {pattern})")
    if wrong:
        raise LayoutError(
            f"the first {chunk.rows} rows of {member.name}, which has no header, do not look like their columns: {', '.join(wrong)}",
            f"at least {MATCHING_SHARE:.0%} of each column's values as the layout's fingerprint says",
            "compare the member with the publisher's layout document: its columns stand in another order, or the fingerprint is wrong",
        )


def _matching(values: pa.Array, pattern: str) -> int:
    """How many values match a pattern as a whole."""
    matches = re.compile(pattern).fullmatch
    return sum(1 for value in values.to_pylist() if matches(value))
