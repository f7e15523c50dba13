"""The outcome that a right import of a made county has, counted while its records are made.

In goes, block by block, what each record must be read as; out comes a manifest: lines by what becomes of them, the rules that
refuse records and turn values into NULL, sums of the amounts, and a digest of every column over the rows that are published, in the
order of the file. It is computed from the texts that the generator wrote and from what the schema file declares, never by the
pipeline's own code, so that the two can be compared. ``typed_texts`` and ``digested`` bring the pipeline's rows into the same form.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from county_faults import Outcome
from county_shapes import Shape

from pipeline.catalog.model import Column, Table

Mask = npt.NDArray[np.bool_]
#: What a digest holds for NULL; no text of a shape has it.
NULL_TEXT = "\\N"


class Account:
    """What a right import makes of a member: counted while it is written."""

    def __init__(self, shape: Shape, table: Table) -> None:
        self.shape, self.table = shape, table
        self.lines: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.nulled: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.sums = {where: dict.fromkeys(shape.amounts, Decimal(0)) for where in ("written", "published")}
        # The columns that are in the member: a table may have computed ones too.
        self._columns = [table.column(field.name) for field in shape.fields]
        self._digests = {column.name: hashlib.sha256() for column in self._columns}

    def refuse(self, outcome: Outcome) -> None:
        """Count the lines of a record that does not become a row."""
        if outcome.is_blank:
            self.lines["blank"] += len(outcome.lines)
        elif outcome.refused:
            self.lines["quarantined"] += len(outcome.lines)
            self.refused[outcome.refused] += len(outcome.lines)

    def add(self, texts: Mapping[str, pa.Array], written: Mask, duplicate: Mask, conflict: Mask) -> None:
        """Count the records that are rows, by their texts as they must be read; ``conflict`` are among the written."""
        self.lines.update(written=int(written.sum()), duplicate=int(duplicate.sum()), conflicting=int(conflict.sum()))
        read, published = written | duplicate, written & ~conflict
        for column in self._columns:
            values, is_declared = read_texts(texts[column.name], column)
            if count := int((is_declared & read).sum()):
                self.nulled[f"{column.name}:declared"] += count
            if column.name in self.shape.amounts:
                for where, mask in (("written", written), ("published", published)):
                    self.sums[where][column.name] += _sum(values.filter(pa.array(mask)), column)
            self._digests[column.name].update(digested(values.filter(pa.array(published))))

    def manifest(self) -> dict[str, Any]:
        """The account as JSON holds it."""
        lines = self.lines
        bare = ("written", "quarantined", "duplicate", "blank")
        return {
            "table": self.table.qualified,
            # As one part, with the release's tax year: repeats that the cuts between parts divide meet later.
            "part": {
                "read": sum(lines[name] for name in bare), "written": lines["written"], "quarantined": lines["quarantined"],
                "duplicate": lines["duplicate"], "filtered": {"blank_line": lines["blank"]} if lines["blank"] else {},
                "refused": dict(sorted(self.refused.items())), "nulled": dict(sorted(self.nulled.items())),
                "sums": _plain(self.sums["written"]),
            },
            "conflicting": lines["conflicting"],
            # After the parts met: of a key's conflicting rows the first in the file.
            "published": {
                "rows": lines["written"] - lines["conflicting"],
                "sums": _plain(self.sums["published"]),
                "sha256": {name: digest.hexdigest() for name, digest in self._digests.items()},
            },
            "changes": {name: self.changes[name] for name in ("inserted", "updated", "deleted")},
            "kinds": dict(sorted(self.kinds.items())),
        }  # fmt: skip


def read_texts(texts: pa.Array, column: Column) -> tuple[pa.Array, Mask]:
    """What well-formed texts of a column mean, as a digest holds it (ISO dates, true and false, NULL), and which are declared nulls."""
    declared = pc.is_in(texts, value_set=pa.array([null for null in column.nulls if null], pa.string()))
    values = pc.if_else(pc.or_(declared, pc.equal(texts, "")), pa.scalar(None, pa.string()), texts)
    if column.type.kind == "date":
        year, month, day = (pc.utf8_slice_codeunits(values, *place) for place in ((6, 10), (0, 2), (3, 5)))
        values = pc.binary_join_element_wise(year, month, day, "-")
    elif column.type.kind == "boolean":
        is_true = pc.is_in(values, value_set=pa.array(column.true_codes))
        values = pc.if_else(pc.is_null(values), values, pc.if_else(is_true, "true", "false"))
    return values, declared.to_numpy(zero_copy_only=False)


def typed_texts(values: pa.Array) -> pa.Array:
    """A typed column of ``rows.parquet`` in the same form, so that a test can compare digests."""
    if pa.types.is_decimal(values.type):
        return pa.array([None if value is None else f"{value:f}" for value in values.to_pylist()], pa.string())
    return pc.cast(values, pa.string())


def digested(values: pa.Array) -> bytes:
    """The bytes that a digest takes of a column: each value and a line feed."""
    lines = pc.binary_join_element_wise(pc.fill_null(values, NULL_TEXT), "", "\n")
    return _bytes(lines)


def _bytes(texts: pa.Array) -> bytes:
    """The texts one after the other."""
    if not len(texts):
        return b""
    _, offsets, content = texts.buffers()
    places = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4)
    return bytes(memoryview(content)[int(places[0]) : int(places[-1])])


def _sum(values: pa.Array, column: Column) -> Decimal:
    scale = column.type.scale or 0
    return Decimal(pc.sum(pc.cast(values, pa.decimal128(38, scale))).as_py() or 0)


def _plain(sums: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: f"{value:f}" for name, value in sums.items()}
