"""The counts of a part while it is transformed, and the report that they make, checked.

``Tally`` collects what became of each line and of each value, chunk by chunk. Its report says how many records were read
and what became of them; if a record is in no place, or in two, or the lines are not as many as the part holds, there is
no report but an error. There is none either where more than half of the records are refused: then it is not the records
that are wrong. No value of a personal column is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.catalog.model import Table
from pipeline.errors import AccountingError, PartRefused
from pipeline.handoff import Member, Part, PartReport
from pipeline.transform.judgement import Judged
from pipeline.transform.lines import Mask
from pipeline.transform.measures import Measures, figures
from pipeline.transform.output import Quarantined
from pipeline.transform.reader import Chunk
from pipeline.transform.rules import Cost

EXAMPLES: Final = 3
#: A part of fewer records is too small to say that it is no part of this table.
FEWEST_RECORDS: Final = 100
_MOST_COMBINATIONS: Final = 100


class Tally:
    """What became of the lines and values of a part.

    Args:
        table: the table's declaration.
    """

    def __init__(self, table: Table) -> None:
        """Begin at zero."""
        self._table = table
        self._personal = frozenset(column.name for column in table.columns if column.personal)
        self.lines = self.headers = self.blank_lines = 0
        self.written = self.quarantined = self.duplicate = 0
        self.refused: Counter[str] = Counter()
        self._together: Counter[str] = Counter()
        self._changes: dict[str, Counter[str]] = {"nulled": Counter(), "changed": Counter()}
        self._examples: dict[str, list[dict[str, Any]]] = {}
        self._measures = Measures(table)

    def count(self, chunk: Chunk, judged: Judged, rows: pa.Table, refused: Sequence[Quarantined], duplicate: int) -> None:
        """Add a chunk that has been written.

        Args:
            chunk: as it was read.
            judged: what became of its rows.
            rows: those that were written.
            refused: the lines that were quarantined.
            duplicate: rows equal to an earlier one.
        """
        self.lines += chunk.lines
        self.headers += chunk.headers
        self.blank_lines += chunk.blank_lines
        self.written += rows.num_rows
        self.quarantined += len(refused)
        self.duplicate += duplicate
        for line in refused:
            self.refused.update(line.rules)
            self._together[", ".join(sorted(line.rules))] += 1
        self._count_changes("nulled", judged.nulled, chunk, judged)
        self._count_changes("changed", judged.changed, chunk, judged)
        self._measures.add(rows)

    def report(self, member: Member, part: Part, seconds: float, slow_rules: Mapping[str, Cost]) -> PartReport:
        """The account of the part.

        Raises:
            AccountingError: the account does not balance.
            PartRefused: more than half of the records are refused.
        """
        common = self._together.most_common(_MOST_COMBINATIONS)
        others = self.quarantined - sum(count for _, count in common)
        report = PartReport(
            table=self._table.qualified,
            part=part.number,
            read=part.lines - self.headers,
            written=self.written,
            quarantined=self.quarantined,
            duplicate=self.duplicate,
            filtered={"blank_line": self.blank_lines} if self.blank_lines else {},
            nulled=dict(sorted(self._changes["nulled"].items())),
            changed=dict(sorted(self._changes["changed"].items())),
            examples=dict(sorted(self._examples.items())),
            refused=dict(sorted(self.refused.items())),
            refused_together={**dict(sorted(common)), **({"others": others} if others else {})},
            nulls=dict(sorted(self._measures.nulls.items())),
            ranges={name: [_shown(least), _shown(most)] for name, (least, most) in sorted(self._measures.ranges.items())},
            figures=figures(self._measures),
            slow_rules={rule: {"seconds": round(cost.seconds, 6), "judged": cost.judged} for rule, cost in sorted(slow_rules.items())},
            seconds=round(seconds, 3),
        )
        self._check(report, member, part)
        return report

    def _count_changes(self, kind: str, changes: Mapping[tuple[str, str], Mask], chunk: Chunk, judged: Judged) -> None:
        """Count the values of good rows that a rule nulled or changed, and keep the first few."""
        for (name, rule), mask in changes.items():
            rows = np.flatnonzero(mask & judged.is_good)
            if not len(rows):
                continue
            key = f"{name}:{rule}"
            self._changes[kind][key] += len(rows)
            examples = self._examples.setdefault(key, [])
            for row in rows[: EXAMPLES - len(examples)].tolist():
                text = judged.texts.get(name)
                shown = {} if name in self._personal or text is None else {"text": text[row].as_py()}
                examples.append({"line": int(chunk.line_numbers[row]), **shown})

    def _check(self, report: PartReport, member: Member, part: Part) -> None:
        where = f"{report.table}, part {part.number} of {member.name}"
        if not report.is_balanced or self.lines != part.lines or sum(report.refused_together.values()) != report.quarantined:
            raise AccountingError(
                f"{where}: {self.lines} lines read, of which {self.headers} header, "
                f"{self.written} written, {self.quarantined} quarantined, {self.duplicate} duplicate, {self.blank_lines} blank",
                f"the part's {part.lines} lines, each in one place",
                "this is a defect, or the member changed since it was extracted: delete its extracted folder and run again",
            )
        if report.read >= FEWEST_RECORDS and 2 * report.quarantined > report.read:
            top = ", ".join(f"{rule} ({count})" for rule, count in self.refused.most_common(5))
            raise PartRefused(
                f"{where}: {report.quarantined} of {report.read} records are refused, most for {top}",
                "records of which at most half are refused",
                f"look at line {part.first_line} and the following ones of the member: compare them with the schema file, and correct it",
            )


def _shown(value: Any) -> int | str:
    """A number or day as JSON holds it, exactly."""
    if isinstance(value, int):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value)
