"""The counts of a part while it is transformed, and the report that they make, checked.

``Tally`` collects what became of each line, chunk by chunk. Its report says how many records were read and what became of
them; if a record is in no place, or in two, or the lines are not as many as the part holds, there is no report but an
error. ``Typed`` is a chunk after typing, with the rows that a type refused and the values that became NULL by a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import AccountingError
from pipeline.handoff import Member, Part, PartReport
from pipeline.transform.coerce import MESSAGES, Mask
from pipeline.transform.reader import Chunk


@dataclass(frozen=True)
class Typed:
    """A typed chunk.

    Attributes:
        rows: the table's columns, typed; a refused value is NULL.
        refused: (column, reason) -> which rows are refused for it.
        nulled: ``column:reason`` -> which rows have NULL there by the column's ``on_error``, or by its ``nulls`` (``declared``).
    """

    rows: pa.Table
    refused: Mapping[tuple[str, str], Mask]
    nulled: Mapping[str, Mask]

    def messages(self) -> dict[int, dict[str, dict[str, str]]]:
        """Row -> column -> reason -> message, for the rows that a type refused."""
        found: dict[int, dict[str, dict[str, str]]] = {}
        for (name, reason), mask in self.refused.items():
            for row in np.flatnonzero(mask).tolist():
                found.setdefault(row, {}).setdefault(name, {})[reason] = MESSAGES[reason]
        return found


class Tally:
    """What became of the lines of a part."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.lines = self.headers = self.blank_lines = 0
        self.written = self.quarantined = self.duplicate = 0
        self.refused: Counter[str] = Counter()
        self.nulled: Counter[str] = Counter()

    def count(self, chunk: Chunk, *, written: int, quarantined: int, duplicate: int) -> None:
        """Add a chunk that has been written."""
        self.lines += chunk.lines
        self.headers += chunk.headers
        self.blank_lines += chunk.blank_lines
        self.written += written
        self.quarantined += quarantined
        self.duplicate += duplicate

    def report(self, table: str, member: Member, part: Part, seconds: float) -> PartReport:
        """The account of the part.

        Raises:
            AccountingError: the account does not balance.
        """
        report = PartReport(
            table=table,
            part=part.number,
            read=part.lines - self.headers,
            written=self.written,
            quarantined=self.quarantined,
            duplicate=self.duplicate,
            filtered={"blank_line": self.blank_lines} if self.blank_lines else {},
            nulled={key: count for key, count in sorted(self.nulled.items()) if count},
            refused=dict(sorted(self.refused.items())),
            seconds=round(seconds, 3),
        )
        if not report.is_balanced or self.lines != part.lines:
            raise AccountingError(
                f"{table}, part {part.number} of {member.name}: {self.lines} lines read, of which {self.headers} header, "
                f"{self.written} written, {self.quarantined} quarantined, {self.duplicate} duplicate, {self.blank_lines} blank",
                f"the part's {part.lines} lines, each in one place",
                "this is a defect, or the member changed since it was extracted: delete its extracted folder and run again",
            )
        return report
