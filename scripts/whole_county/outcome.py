"""What a right import makes of a table, counted while its lines are made: rows, refusals, sums, keys, and what a release changes.

Nothing here asks the pipeline: lines, keys and amounts are those that the generator made. What a release changes is counted on
the accounts in which it differs from the one before, made in both states: rows of a key are inserted, updated or deleted; in a
table without a key rows are compared as they are, as often as they are there, so that a changed one is one deleted and one
inserted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whole_county.cells import array, joined
from whole_county.codebook import Member
from whole_county.lines import Lines, is_published, published_places
from whole_county.rows import Rows


class Outcome:
    """The account of one table."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.rows: Counter[str] = Counter(read=0, written=0, duplicate=0, conflicting=0)
        self.refused: Counter[str] = Counter()
        self.quirks: Counter[str] = Counter()
        self.sums: dict[str, tuple[int, int]] = {}
        self.values: Counter[str] = Counter()
        self.distinct = 0
        self.changes: Counter[str] = Counter(inserted=0, updated=0, deleted=0)

    def add(self, rows: Rows, made: Lines) -> None:
        """Count a block's lines."""
        written = int(made.times.sum())
        self.rows.update(read=len(made.written), written=written, duplicate=made.duplicate, conflicting=made.conflicting)
        self.refused.update(made.refused)
        self.quirks.update(made.quirks)
        self.distinct += written if self.member.key else len(np.unique(rows.owner[is_published(made)]))
        for name, (numbers, is_there, scale) in rows.amounts.items():
            counted = made.times * is_there
            self.sums[name] = (self.sums.get(name, (0, 0))[0] + int((numbers * counted).sum()), scale)
            self.values[name] += int(counted.sum())

    def add_changes(self, now: tuple[Rows, Lines], before: tuple[Rows, Lines]) -> None:
        """Count what became of the rows of the accounts that changed."""
        self.changes.update(_keyed(now, before) if self.member.key else _keyless(now, before))

    def manifest(self) -> dict[str, Any]:
        """The account as JSON holds it."""
        refused = sum(self.refused.values())
        return {
            **self.rows,
            "quarantined": refused + self.rows["conflicting"],
            "refused": dict(sorted(self.refused.items())),
            "distinct": {"of": list(self.member.key) or [self.member.columns[0]], "count": self.distinct},
            "sums": {name: _decimal(*amount) for name, amount in sorted(self.sums.items())},
            "values": dict(sorted(self.values.items())),
            "changes": dict(self.changes),
            "quirks": dict(sorted(self.quirks.items())),
        }


def _decimal(amount: int, scale: int) -> str:
    if not scale:
        return str(amount)
    whole, part = divmod(amount, 10**scale)
    return f"{whole}.{part:0{scale}}"


def _keys(rows: Rows, member: Member) -> pa.Array:
    columns = [array(rows.cells[name], len(rows)) for name in member.key]
    return joined(*columns, by=b"\t") if len(columns) > 1 else columns[0]


def _keyed(now: tuple[Rows, Lines], before: tuple[Rows, Lines]) -> dict[str, int]:
    keys, texts = [], []
    for rows, made in (now, before):
        there = pa.array(is_published(made))
        keys.append(_keys(rows, rows.member).filter(there) if len(rows) else pa.array([], pa.binary()))
        texts.append(made.good.filter(there))
    place = pc.index_in(keys[0], value_set=keys[1])
    stays = pc.is_valid(place)
    kept = int(pc.sum(stays).as_py() or 0)
    differs = pc.not_equal(texts[0].filter(stays), texts[1].take(place.filter(stays)))
    return {"inserted": len(keys[0]) - kept, "updated": int(pc.sum(differs).as_py() or 0), "deleted": len(keys[1]) - kept}


def _keyless(now: tuple[Rows, Lines], before: tuple[Rows, Lines]) -> dict[str, int]:
    counts = [Counter(made.good.take(pa.array(published_places(made))).to_pylist()) for _, made in (now, before)]
    return {"inserted": (counts[0] - counts[1]).total(), "deleted": (counts[1] - counts[0]).total()}
