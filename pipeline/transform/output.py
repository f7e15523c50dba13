"""The folder of a transformed part: ``rows.parquet``, ``quarantine.jsonl`` and ``report.json``, made by one rename.

Everything is written in a working folder beside the final one, ``.<name>.<pid>.part``, chunk by chunk, so that memory
stays flat. Only when all three files are complete and durable does the folder get its name; a kill before that leaves
nothing under it. An error removes the working folder. A full disk or any other failure to write is a ``DiskError``: a
quarantine that cannot be written is a failed part, never a silent loss.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.model import Column
from pipeline.errors import DiskError
from pipeline.handoff import PartReport, publish_folder, write_json
from pipeline.transform.coerce import arrow_type

ROWS: Final = "rows.parquet"
QUARANTINE: Final = "quarantine.jsonl"
REPORT: Final = "report.json"


@dataclass(frozen=True)
class Quarantined:
    """A refused line: its number, its bytes without the line end, and messages by column (``*``: the line as a whole)."""

    line: int
    raw: bytes
    reasons: Mapping[str, Sequence[str]]


def rows_schema(columns: Sequence[Column]) -> pa.Schema:
    """The columns of ``rows.parquet``: the table's in schema order, then ``row_hash`` and ``line``."""
    fields = [pa.field(column.name, arrow_type(column.type)) for column in columns]
    return pa.schema([*fields, pa.field("row_hash", pa.string()), pa.field("line", pa.int64())])


class PartFolder:
    """A part's folder in the making; a context manager.

    Args:
        folder: its final name, which must not exist.
        columns: the table's columns.
        encoding: of the member, to show raw lines.

    Raises:
        DiskError: a write failed.
    """

    def __init__(self, folder: Path, columns: Sequence[Column], encoding: str) -> None:
        """Choose the names; nothing is written yet."""
        self.folder = folder
        self._encoding = encoding
        self._schema = rows_schema(columns)
        self._working = folder.with_name(f".{folder.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        """Open the working folder, empty."""
        try:
            if self._working.exists():  # of a killed process that had our number
                shutil.rmtree(self._working)
            self._working.mkdir(parents=True)
            self._quarantine = open(self._working / QUARANTINE, "w", encoding="ascii")
            self._rows = pq.ParquetWriter(self._working / ROWS, self._schema, compression="zstd")
        except OSError as error:
            shutil.rmtree(self._working, ignore_errors=True)
            raise self._disk_error(error) from error
        return self

    def write_rows(self, rows: pa.Table) -> None:
        """Append a row group; the columns must be those of :func:`rows_schema`."""
        if rows.num_rows:
            try:
                self._rows.write_table(rows.select(self._schema.names).cast(self._schema), row_group_size=rows.num_rows)
            except OSError as error:
                raise self._disk_error(error) from error

    def write_quarantined(self, refused: Iterable[Quarantined]) -> None:
        r"""Append refused lines.

        Bytes that the encoding does not know stand as ``\x81``, and so does NUL, which PostgreSQL cannot store.
        """
        try:
            for row in refused:
                raw = row.raw.decode(self._encoding, errors="backslashreplace").replace("\0", "\\x00")
                self._quarantine.write(json.dumps({"line": row.line, "raw": raw, "reasons": dict(row.reasons)}) + "\n")
        except OSError as error:
            raise self._disk_error(error) from error

    def publish(self, report: PartReport) -> None:
        """Close the files, add the report and give the folder its name."""
        try:
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
                self._rows.close()
                self._quarantine.close()
            except OSError as also:
                error.add_note(f"closing the working folder failed too: {also}")
            finally:
                shutil.rmtree(self._working, ignore_errors=True)

    def _disk_error(self, error: OSError) -> DiskError:
        return DiskError(
            f"writing {self.folder} failed: {error}",
            "room and permission to write in the state directory",
            "free disk space, then run again: the part is transformed anew",
        )
