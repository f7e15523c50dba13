"""The targets: a file, a folder, an archive with its receipt, and a marker row in PostgreSQL.

A target exists exactly when its work is committed: it was renamed into place after fsync, or its row was committed in the
transaction of the data that it speaks for. Nothing here writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import luigi
from sqlalchemy import Engine

from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import ImportKey
from pipeline.database.repeat import repeated
from pipeline.handoff import Manifest, OnEvent, Receipt, ignore, json_object, read_if_whole, read_json, receipt_path
from pipeline.handoff import read_receipt as read_receipt
from pipeline.releases import BAD, FIRST_BAD


class FileTarget(luigi.Target):
    """A JSON file that was renamed into place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether the file is there; one that is damaged is not, and is made again."""
        return read_if_whole(self.path, json_object) is not None

    def read(self) -> Any:
        """The document."""
        return read_json(self.path)


class FolderTarget(luigi.Target):
    """A folder that was renamed into place once, with all that belongs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> Path:
        """Make room for the folder: its parent exists, and one in which something is missing is gone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_dir() and not self.exists():
            shutil.rmtree(self.path)
        return self.path


@dataclass(frozen=True)
class Refusal:
    """Why an archive is bad: the error's code, its sentence, and the limits that it is beyond, if that is why."""

    code: str
    message: str
    limits: Mapping[str, float] | None = None

    @classmethod
    def read(cls, path: Path, on_event: OnEvent = ignore) -> Refusal | None:
        """What is written down there; None: nothing, or nothing that can be read, which ``on_event`` is told."""
        return read_if_whole(path, cls._of, on_event)

    @classmethod
    def _of(cls, document: Any) -> Refusal:
        limits = document.get("limits")
        return cls(str(document["code"]), str(document["message"]), None if limits is None else dict(limits))

    def __str__(self) -> str:
        return self.message


class MembersTarget(FolderTarget):
    """The extracted members of an archive and their manifest.

    ``bad`` is where it is written down that the archive is bad and what is live stays; ``first_bad`` that a fallback stands in. A manifest
    or a note that is damaged counts as none, so that it is made again; ``on_event`` is told.
    """

    def __init__(self, path: Path, *, may_be_bad: bool = False, on_event: OnEvent = ignore) -> None:
        super().__init__(path)
        self.bad, self.first_bad = path.with_name(f"{path.name}{BAD}"), path.with_name(f"{path.name}{FIRST_BAD}")
        self.may_be_bad = may_be_bad
        self._on_event = on_event

    def exists(self) -> bool:
        """Whether the members are there, or the archive may be bad and is."""
        return self.is_there() or self.refusal() is not None

    def refusal(self) -> Refusal | None:
        """Why there are no members; None: there are, or there must be."""
        return Refusal.read(self.bad, self._on_event) if self.may_be_bad and not self.is_there() else None

    def first_refusal(self) -> Refusal | None:
        """Why a fallback stands in; None: it does not, or not yet."""
        return Refusal.read(self.first_bad, self._on_event)

    def is_there(self) -> bool:
        """Whether the manifest is there and every member has the size that it states."""
        manifest = read_if_whole(self.path / "manifest.json", Manifest.from_json, self._on_event)
        return manifest is not None and all(_has_size(self.path / member.file, member.bytes) for member in manifest.members)

    def manifest(self) -> Manifest:
        """What was extracted."""
        return Manifest.from_json(read_json(self.path / "manifest.json"))


class PartTarget(FolderTarget):
    """The rows, the quarantine and the report of a transformed part."""

    def exists(self) -> bool:
        """Whether all three files are there."""
        return all((self.path / name).is_file() for name in ("rows.parquet", "quarantine.jsonl", "report.json"))


class ArchiveTarget(luigi.Target):
    """A downloaded archive and its receipt, which is written after the archive has its name.

    ``bad`` is where it is written down that the archive is bad, when something stands in for it: that, too, is an end.
    ``distrusted`` is a receipt that no longer counts, kept to compare the next download with. A receipt or a note that is damaged
    counts as none; ``on_event`` is told.
    """

    def __init__(self, path: Path, *, may_be_bad: bool = False, on_event: OnEvent = ignore) -> None:
        self.path, self.receipt = path, receipt_path(path)
        self.bad, self.distrusted = path.with_name(f"{path.name}.bad.json"), path.with_name(f"{path.name}.distrusted.json")
        self.may_be_bad = may_be_bad
        self._on_event = on_event

    def exists(self) -> bool:
        """Whether the receipt is there and the archive has the size that it states, or it may be bad and is."""
        return self.is_there() or self.refusal() is not None

    def is_there(self) -> bool:
        """Whether the receipt is there and the archive has the size that it states."""
        receipt = read_receipt(self.receipt, self._on_event)
        return receipt is not None and _has_size(self.path, receipt.bytes)

    def refusal(self) -> Refusal | None:
        """Why the archive is bad; None: it is not, or nothing may stand in for it."""
        return Refusal.read(self.bad, self._on_event) if self.may_be_bad and not self.is_there() else None

    def read(self) -> Receipt:
        """The receipt."""
        return Receipt.from_json(read_json(self.receipt))


@dataclass(frozen=True)
class MarkerRow:
    """What a marker speaks for. ``table`` and ``part`` only where the kind has them."""

    kind: Literal["part", "table", "checked", "published"]
    key: ImportKey
    table: str = ""
    part: int = -1


class MarkerTarget(luigi.Target):
    """A row of the ledger.

    An import that is current answers yes to every marker below it: its staging is gone because its work is done. One that was
    superseded answers no: the same release offered again is new work.
    """

    def __init__(self, engine: Engine, row: MarkerRow) -> None:
        self.engine, self.row = engine, row

    @repeated
    def exists(self) -> bool:
        """Whether the row is committed.

        Raises:
            DatabaseUnavailable: nobody can say.
        """
        with transaction(self.engine) as cursor:
            found = ledger.standing(cursor, self.row.key)
            if found is None or self.row.kind == "published" or not found.is_open:
                return found is not None and found.state == "published"
            if ledger.why_stale(found, ledger.current(cursor, self.row.key.source, self.row.key.tax_year)):
                return False
            cursor.execute(*self._query(found.import_id))
            return cursor.fetchone() is not None

    def _query(self, import_id: int) -> tuple[str, list[object]]:
        if self.row.kind == "part":
            return (
                "select 1 from etl.checkpoint where import_id = %s and table_name = %s and part = %s",
                [import_id, self.row.table, self.row.part],
            )
        if self.row.kind == "table":
            return "select 1 from etl.staged_table where import_id = %s and table_name = %s", [import_id, self.row.table]
        return "select 1 from etl.checked where import_id = %s", [import_id]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
