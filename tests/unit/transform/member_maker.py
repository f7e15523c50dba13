"""Members and tables for the tests of the transform: real files, measured and cut as the extract stage does it."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.model import Column, ColumnType, Layout, Table
from pipeline.handoff import Member, Part, PartReport
from pipeline.transform import DataTransformer, choose_layout, read_header

ROWS = Path(__file__).parents[2] / "fixtures" / "rows"

TEXT = ColumnType("text")
INTEGER = ColumnType("integer")
BIGINT = ColumnType("bigint")
DATE = ColumnType("date")
BOOLEAN = ColumnType("boolean")


def numeric(precision: int, scale: int) -> ColumnType:
    return ColumnType("numeric", precision, scale)


def table(*columns: Column, key: tuple[str, ...] = (), layouts: tuple[Layout, ...] = (Layout("delimited"),)) -> Table:
    parent = () if key else (columns[0].name,)
    return Table(
        source="test", name="roll", archive="a", member="roll.txt", member_aliases=(), required=True, years=None,
        key=key, parent=parent, on_conflict="quarantine", layouts=layouts, columns=columns,
    )  # fmt: skip


ACCOUNTS = table(
    Column("acct", TEXT, "acct", required=True, rules={"regex": r"^\d{13}$"}),
    Column("owner", TEXT, "owner"),
    Column("val", BIGINT, "tot_mkt_val", aliases=("market",), rules={"min": 0}),
    key=("acct",),
)

ARB = table(
    Column("acct", TEXT, "acct", required=True, rules={"regex": r"^\d{13}$"}),
    Column("protested_by", TEXT, "protested_by", rules={"maxlength": 6}),
    Column("protested_dt", DATE, "protested_dt", formats=("%m/%d/%Y",), rules={"min": "1990-01-01"}),
)


def write_member(folder: Path, content: bytes) -> Path:
    """A member as the extract stage leaves it."""
    path = folder / "roll.txt"
    path.write_bytes(content)
    return path


def acct(number: int) -> bytes:
    return b"%013d" % number


def measure(path: Path, lines_a_part: int | None = None) -> Member:
    content = path.read_bytes()
    lines = content.splitlines(keepends=True) if b"\r" not in content else _lines(content)
    bare = [line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line for line in lines]
    crlf = sum(line.endswith(b"\r\n") for line in lines)
    step = lines_a_part or max(1, len(lines))
    parts, start = [], 0
    for number, first in enumerate(range(0, len(lines), step)):
        piece = lines[first : first + step]
        end = start + sum(map(len, piece))
        parts.append(Part(number, start, end, first + 1, len(piece)))
        start = end
    ends = [bare[0], bare[-1]] if bare else [b"", b""]
    return Member(
        name=path.name, file=path.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), lines=len(lines),
        first_line=ends[0][:65536].decode("latin-1"), last_line=ends[1][:65536].decode("latin-1"),
        crlf=crlf, lf=sum(line.endswith(b"\n") for line in lines) - crlf, unterminated=bool(lines) and lines[-1][-1:] != b"\n",
        widths=dict(Counter(map(len, bare)).most_common(32)), other_widths=0, parts=tuple(parts),
    )  # fmt: skip


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.replace(b"\n", b"\n\0\1\2").split(b"\0\1\2") if line]


@dataclass
class Outcome:
    rows: pa.Table
    quarantine: list[dict[str, Any]]
    reports: list[PartReport]

    def column(self, name: str) -> list[Any]:
        return self.rows.column(name).to_pylist()

    @property
    def report(self) -> PartReport:
        (report,) = self.reports
        return report


def transform_file(
    path: Path, folder: Path, of: Table, *, lines_a_part: int | None = None, year: int = 2025, **options: Any
) -> Outcome:
    member = measure(path, lines_a_part)
    reading = read_header(of, choose_layout(of, member, year=year, version=None), member)
    transformer = DataTransformer(of, **options)
    reports, tables, quarantine = [], [], []
    for part in member.parts:
        place = folder / f"part-{part.number}"
        reports.append(transformer.transform_part(path, member, part, reading, place))
        tables.append(pq.read_table(place / "rows.parquet"))
        quarantine += [json.loads(line) for line in (place / "quarantine.jsonl").read_text().splitlines()]
    return Outcome(pa.concat_tables(tables), quarantine, reports)
