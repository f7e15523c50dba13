r"""The folder of a transformed part: ``rows.parquet``, ``quarantine.jsonl`` and ``report.json``, made by one rename.

Everything is written in a working folder beside the final one, ``.<name>.<pid>.part``, chunk by chunk, so that memory
stays flat. Only when all three files are complete and durable does the folder get its name; a kill before that leaves
nothing under it. An error removes the working folder. A full disk or any other failure to write is a ``DiskError``: a
quarantine that cannot be written is a failed part, never a silent loss. The quarantine holds each refused line whole:
``raw`` is for a person to read, and where its encoding does not give the line's bytes back, or a control character stands
in it, ``raw_base64`` has them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalog.model import Column
from pipeline.errors import DiskError
from pipeline.handoff import PartReport, RawLine, publish_folder, write_json
from pipeline.transform.coerce import arrow_type
from pipeline.transform.lines import Lines, Refused

ROWS: Final = "rows.parquet"
QUARANTINE: Final = "quarantine.jsonl"
REPORT: Final = "report.json"

#: A column is written with a dictionary when at most this share of the values that are looked at are distinct.
_DICTIONARY_SHARE: Final = 0.1
_LOOKED_AT: Final = 2000


@dataclass(frozen=True)
class MemberIdentity:
    """What a quarantined line says of where it comes from: the source, its table, the member's sha256 and encoding."""

    source: str
    table: str
    sha256: str
    encoding: str


@dataclass(frozen=True)
class Quarantined:
    """A refused line.

    Attributes:
        line: its number in the member.
        byte_offset: where it begins in the member.
        raw: its bytes without the line end.
        reasons: column (``*``: the line as a whole) -> rule -> message.
    """

    line: int
    byte_offset: int
    raw: bytes
    reasons: Mapping[str, Mapping[str, str]]

    @property
    def rules(self) -> list[str]:
        """The rules that it breaks, as ``column:rule``."""
        return [f"{column}:{rule}" for column, messages in self.reasons.items() for rule in messages]


def quarantined(
    lines: Sequence[Refused], rows: Mapping[int, Mapping[str, Mapping[str, str]]], records: Lines, order: Sequence[str]
) -> list[Quarantined]:
    """The refused lines of a chunk in the order of the member.

    Args:
        lines: those that are no record.
        rows: row -> column -> rule -> message, of the records that are refused.
        records: the lines of the records, by row.
        order: the columns, as reasons are to name them.
    """
    found = [
        Quarantined(line.line, line.byte_offset, line.raw, {"*": {rule: f"line {said}" for rule, said in line.reasons.items()}})
        for line in lines
    ]
    for row, messages in rows.items():
        reasons = {name: messages[name] for name in order if name in messages}
        found.append(Quarantined(int(records.numbers[row]), records.byte_offset(row), records[row], reasons))
    return sorted(found, key=lambda line: line.line)


def rows_schema(columns: Sequence[Column]) -> pa.Schema:
    """The columns of ``rows.parquet``: the table's in schema order, then ``row_hash`` and ``line``."""
    fields = [pa.field(column.name, arrow_type(column.type)) for column in columns]
    return pa.schema([*fields, pa.field("row_hash", pa.string()), pa.field("line", pa.int64())])


class PartFolder:
    """A part's folder in the making; a context manager.

    Args:
        folder: its final name, which must not exist.
        columns: the table's columns.
        key: those of them by which rows are looked for: they get statistics, as ``line`` does.
        member: where its lines come from.

    Raises:
        DiskError: a write failed.
    """

    def __init__(self, folder: Path, columns: Sequence[Column], key: Sequence[str], member: MemberIdentity) -> None:
        """Choose the names; nothing is written yet."""
        self.folder = folder
        self._member = member
        self._schema = rows_schema(columns)
        self._key = key
        self._rows: pq.ParquetWriter | None = None
        self._working = folder.with_name(f".{folder.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        """Open the working folder, empty."""
        try:
            if self._working.exists():  # of a killed process that had our number
                shutil.rmtree(self._working)
            self._working.mkdir(parents=True)
            self._quarantine = open(self._working / QUARANTINE, "w", encoding="ascii")
        except OSError as error:
            shutil.rmtree(self._working, ignore_errors=True)
            raise self._disk_error(error) from error
        return self

    def write_rows(self, rows: pa.Table) -> None:
        """Append a row group; the columns must be those of :func:`rows_schema`."""
        if not rows.num_rows:
            return
        rows = rows.select(self._schema.names)
        rows = rows if rows.schema.equals(self._schema) else rows.cast(self._schema)
        try:
            if self._rows is None:
                self._rows = self._writer(_repetitive(rows))
            self._rows.write_table(rows, row_group_size=rows.num_rows)
        except OSError as error:
            raise self._disk_error(error) from error

    def write_quarantined(self, refused: Iterable[Quarantined]) -> None:
        """Append refused lines."""
        try:
            for line in refused:
                self._quarantine.write(json.dumps(_document(line, self._member)) + "\n")
        except OSError as error:
            raise self._disk_error(error) from error

    def publish(self, report: PartReport) -> None:
        """Close the files, add the report and give the folder its name."""
        try:
            self._rows = self._rows or self._writer([])  # no row, and yet a file with the table's columns
            self._rows.close()
            self._quarantine.close()
            write_json(self._working / REPORT, report)
            publish_folder(self._working, self.folder)
        except OSError as error:
            raise self._disk_error(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what is open; after an error remove the working folder."""
        if error is not None:
            try:
                if self._rows is not None:
                    self._rows.close()
                self._quarantine.close()
            except OSError as also:
                error.add_note(f"closing the working folder failed too: {also}")
            finally:
                shutil.rmtree(self._working, ignore_errors=True)

    def _writer(self, repetitive: list[str]) -> pq.ParquetWriter:
        """The writer of the rows.

        Measured on real_acct: dictionaries where they help take two thirds of the time, and of the room, of dictionaries
        everywhere; zstd would save a third of the room and take a third more time, and statistics of all columns likewise.
        """
        return pq.ParquetWriter(
            self._working / ROWS,
            self._schema,
            compression="lz4",
            use_dictionary=repetitive,
            write_statistics=[*self._key, "line"],
        )

    def _disk_error(self, error: OSError) -> DiskError:
        return DiskError(
            f"writing {self.folder} failed: {error}",
            "room and permission to write in the state directory",
            "free disk space, then run again: the part is transformed anew",
        )


def _repetitive(rows: pa.Table) -> list[str]:
    """The columns with few distinct values among the first rows."""
    first = rows.slice(0, _LOOKED_AT)
    most = _DICTIONARY_SHARE * first.num_rows
    return [name for name in first.column_names if pc.count_distinct(first.column(name)).as_py() <= most]


def _document(line: Quarantined, member: MemberIdentity) -> dict[str, Any]:
    """A refused line as ``quarantine.jsonl`` holds it."""
    raw = RawLine.of(line.byte_offset, line.raw, member.encoding)
    return {
        "source": member.source,
        "table": member.table,
        "sha256": member.sha256,
        "line": line.line,
        "offset": raw.byte_offset,
        "encoding": member.encoding,
        "raw": raw.text,
        **({"raw_base64": raw.base64} if raw.base64 is not None else {}),
        "rules": line.rules,
        "reasons": {column: list(messages.values()) for column, messages in line.reasons.items()},
    }
