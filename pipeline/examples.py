"""The ``[[example]]`` records of the schema files, run: the acceptance tests of a county, without Python.

Each record is written as a member of one line (with the header line that its layout asks for), measured, read and checked by the
stages themselves, and what comes out is compared with what the file says must come out. ``hcad-pipeline check`` and the contract
tests call this.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from pipeline.catalog.model import Example, Layout, Source, Table
from pipeline.errors import PipelineError
from pipeline.extract.cut import LineCutter
from pipeline.handoff import Member
from pipeline.transform.layout import choose_layout, read_header
from pipeline.transform.transformer import DataTransformer

LINE_END: Final = b"\r\n"


@dataclass(frozen=True)
class Verdict:
    """What became of one example: ``differences`` is empty when it came true."""

    table: str
    example: Example
    differences: tuple[str, ...]


def run_examples(sources: Mapping[str, Source]) -> Iterator[Verdict]:
    """Run every example of these sources, one after the other; nothing of the world outside a temporary folder is touched."""
    for source in sources.values():
        for table in source.tables:
            for example in table.examples:
                with tempfile.TemporaryDirectory() as folder:
                    yield Verdict(table.qualified, example, tuple(_differences(table, example, Path(folder))))


def _differences(table: Table, example: Example, folder: Path) -> Iterator[str]:
    try:
        rows, refused = _transform(table, example, folder)
    except PipelineError as error:
        yield str(error)
        return
    if example.refused:
        seen = [sorted(row["reasons"]) for row in refused]
        if seen != [[example.refused]]:
            yield f"refused for {seen or 'nothing'}, and the example says {example.refused}"
        return
    if refused:
        yield f"refused: {json.dumps(refused[0]['reasons'])}"
        return
    for name, text in (example.gives or {}).items():
        if not _is_same(rows[0][name], text):
            yield f"{name} is {_shown(rows[0][name])!r}, and the example says {text!r}"


def _transform(table: Table, example: Example, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows and the quarantined lines that the example's record becomes."""
    layout = _layout_for(table, example)
    path = folder / "member"
    member = _member(path, _content(table, layout, example), table.member)
    version = layout.versions[0] if layout.versions else None
    reading = read_header(table, choose_layout(table, member, year=example.year, version=version), member)
    transformer = DataTransformer(table, sample_every=1, tax_year=example.year)
    transformer.transform_part(path, member, member.parts[0], reading, folder / "part")
    quarantined = (folder / "part" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return pq.read_table(folder / "part" / "rows.parquet").to_pylist(), [json.loads(line) for line in quarantined]


def _layout_for(table: Table, example: Example) -> Layout:
    """The first layout that the record's year and width fit; the first of all when none does, so that its error is shown."""
    fits = [
        layout
        for layout in table.layouts
        if (layout.years is None or layout.years[0] <= example.year <= layout.years[1])
        and layout.record_width in (None, len(_record(layout, example)) - (0 if layout.includes_line_end else len(LINE_END)))
    ]
    return (fits or list(table.layouts))[0]


def _record(layout: Layout, example: Example) -> bytes:
    return example.line.encode(layout.encoding) + LINE_END


def _content(table: Table, layout: Layout, example: Example) -> bytes:
    """The record with the header line that its layout asks for: the columns that are read, in the order of the schema file."""
    record = _record(layout, example)
    if layout.format == "fixed_width" or layout.header in {"detect", "none"}:
        return record
    present = [column.source for column in table.columns if column.is_read and column.name not in layout.absent]
    header = layout.delimiter.join(present).encode(layout.encoding) + LINE_END
    return header + record if layout.header == "first" else record + header


def _member(path: Path, content: bytes, name: str) -> Member:
    path.write_bytes(content)
    cutter = LineCutter(1 << 30)
    cutter.feed(content)
    measure = cutter.finish()
    fields = asdict(measure) | {"parts": measure.parts, "widths": measure.widths}
    return Member(name=name, file=path.name, sha256=hashlib.sha256(content).hexdigest(), **fields)


def _is_same(value: Any, text: str | None) -> bool:
    if isinstance(value, Decimal) and text is not None:
        return value == Decimal(text)
    return _shown(value) == text


def _shown(value: Any) -> str | None:
    """A typed value as an example writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else None if value is None else str(value)
