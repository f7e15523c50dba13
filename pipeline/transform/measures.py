"""What a part's rows are like, measured while they are written: NULLs, ranges, sums, and the values of columns that hold codes.

It goes into the part's report, and from there into the ledger, so that the gate compares a release with the one before it without
reading either again. Every figure is exact and adds up over parts, but for ``values``, which is a column's own as long as it has few
different short ones: a code. No value of a personal column is kept, and none of a table's key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, Table

#: A column with more different values, or a longer one, holds no codes.
MOST_VALUES: Final = 64
LONGEST_VALUE: Final = 40
_NUMBERS: Final = ("smallint", "integer", "bigint", "numeric")
_LARGEST_SUM: Final = 2**63 - 1


class Measures:
    """The measures of a part.

    Args:
        table: the table's declaration.

    Attributes:
        nulls: by column, rows without a value; columns that have none are left out.
        zeros: by column, rows whose number is 0; columns that have none are left out.
        sums: by column, the sum of its numbers.
        values: by column of codes, how many rows have each; of booleans, ``true`` and ``false``.
        ranges: by column, its smallest and largest number or day.
    """

    def __init__(self, table: Table) -> None:
        """Begin at zero."""
        self._columns = table.columns
        open_columns = [column for column in table.columns if not column.personal]
        self._coded = [column for column in open_columns if column.type.kind in ("text", "boolean") and column.name not in table.identity]
        self.nulls: Counter[str] = Counter()
        self.zeros: Counter[str] = Counter()
        self.sums: dict[str, int | Decimal] = {column.name: 0 for column in open_columns if column.type.kind in _NUMBERS}
        self.values: dict[str, Counter[str]] = {column.name: Counter() for column in self._coded}
        self.ranges: dict[str, tuple[Any, Any]] = {}

    def add(self, rows: pa.Table) -> None:
        """Add rows that were written, with the table's columns."""
        for column in self._columns:
            values = rows.column(column.name)
            if values.null_count:
                self.nulls[column.name] += values.null_count
            if values.null_count < len(values) and not column.personal and column.type.kind not in ("text", "boolean"):
                self._add_range(column, values)
        for column in self._coded:
            if column.name in self.values:
                self._add_values(column.name, rows.column(column.name))

    def _add_range(self, column: Column, values: pa.ChunkedArray) -> None:
        found = pc.min_max(values).as_py()
        least, most = found["min"], found["max"]
        known = self.ranges.get(column.name, (least, most))
        self.ranges[column.name] = min(known[0], least), max(known[1], most)
        if column.name not in self.sums:
            return
        # pyarrow's sum of whole numbers goes round at 64 bits.
        fits = isinstance(least, Decimal) or max(abs(least), abs(most)) * len(values) <= _LARGEST_SUM
        self.sums[column.name] += pc.sum(values).as_py() if fits else sum(values.drop_null().to_pylist())
        if least <= 0 <= most:
            zeros = pc.sum(pc.equal(values, pa.scalar(0, pa.int8()).cast(values.type))).as_py()
            if zeros:
                self.zeros[column.name] += zeros

    def _add_values(self, name: str, values: pa.ChunkedArray) -> None:
        counts = pc.value_counts(values)
        if len(counts) <= MOST_VALUES + 1:
            found = {value: count for value, count in zip(*map(pa.Array.to_pylist, counts.flatten()), strict=True) if value is not None}
            texts = {str(value).lower() if isinstance(value, bool) else value: count for value, count in found.items()}
            self.values[name].update(texts)
            if len(self.values[name]) <= MOST_VALUES and all(len(text) <= LONGEST_VALUE for text in texts):
                return
        del self.values[name]


def figures(of: Measures) -> Mapping[str, Any]:
    """What of the measures adds up over parts, as JSON holds it: numbers that are no whole ones are text."""
    return {
        "zeros": dict(sorted(of.zeros.items())),
        "sums": {name: total if isinstance(total, int) else f"{total:f}" for name, total in sorted(of.sums.items())},
        "values": {name: dict(sorted(counts.items())) for name, counts in sorted(of.values.items())},
    }
