"""LoadManager: parts into staging, staging through the gate, one publish, and the way back.

Each method is one or two short transactions. What a marker says is committed with the rows that it speaks for; a fencing
token, when the run holds one, is checked in the same transaction, so that a run that lost its source cannot write. Without
a token (a plain Luigi run) the unique checkpoints and the publish transaction's own lock keep two writers apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import Import, ImportKey
from pipeline.errors import AccountingError, GateRefused, PipelineError, RollbackRefused, StagingStale
from pipeline.handoff import OnEvent, PartReport, ignore, read_json
from pipeline.load import gate, publish, shape, staging
from pipeline.load.publish import Changes
from pipeline.load.relations import Relations
from pipeline.load.staging import StagedTable
from pipeline.load.upsert import Upserted, target_of, upsert

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class Checkpoint:
    """A part that is staged. Counts are rows; ``seconds`` is what its transform took."""

    table: str
    part: int
    member_sha256: str
    recipe: str
    rows_staged: int
    quarantined: int
    duplicate: int
    filtered: int
    seconds: float


@dataclass(frozen=True)
class Resume:
    """Where an import goes on: records behind checkpoints, and the parts of each table that are staged."""

    import_id: int
    records_processed: int
    parts: Mapping[str, tuple[int, ...]]


#: The table name under which a program of the user's own keeps its progress.
OWN_PROGRESS = "*"


class LoadManager:
    """Loads parts, publishes imports and takes them back.

    Args:
        engine: of ``pipeline.database.engine``.
        profile: the profile that imports are opened under, for the ledger.
        tokens: the fencing token of each source that this run holds; None: a plain Luigi run.
        batch_rows: rows formatted and sent at a time.
        on_event: takes ``load.*`` events with their figures.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        profile: str = "production",
        tokens: Mapping[str, int] | None = None,
        batch_rows: int = 20_000,
        on_event: OnEvent = ignore,
    ) -> None:
        self.engine, self.profile, self.tokens = engine, profile, tokens
        self.batch_rows, self.on_event = batch_rows, on_event

    def bulk_upsert(self, records: object, model_class: object, batch_size: int = 5000, *, cursor: Cursor | None = None) -> Upserted:
        """Write records into a table by COPY: rows that differ are updated, new ones inserted, equal ones left alone.

        Args:
            records: mappings, a DataFrame, an Arrow table or record batches; all with the same columns.
            model_class: a table's name (``schema.table``), a SQLAlchemy table or a Django model.
            batch_size: records formatted and sent at a time.
            cursor: join this transaction; None: one of its own, so that all of the records are written or none.

        Raises:
            ConfigurationError: the records do not fit the table.
            DatabaseUnavailable: the server cannot be reached, or broke off.
        """
        with self._joined(cursor) as joined:
            return upsert(joined, records, target_of(model_class), batch_size)

    def checkpoint_progress(
        self, import_id: int, records_processed: int, *, checkpoint: Checkpoint | None = None, cursor: Cursor | None = None
    ) -> bool:
        """Write a checkpoint: with ``cursor``, in the transaction of the rows that it speaks for.

        Args:
            import_id: the import.
            records_processed: records read so far: of the part with ``checkpoint``, of the whole import without.
            checkpoint: the part that is staged; None: a program of the user's own keeps one running count.
            cursor: join this transaction.

        Returns:
            False when the part was checkpointed already, and nothing was written.
        """
        own = checkpoint is None
        mark = checkpoint or Checkpoint(OWN_PROGRESS, 0, "", "", records_processed, 0, 0, 0, 0.0)
        conflict = "do update set rows_read = excluded.rows_read, rows_staged = excluded.rows_staged" if own else "do nothing"
        with self._joined(cursor) as joined:
            joined.execute(
                f"""insert into etl.checkpoint (import_id, rows_read, table_name, part, member_sha256, recipe, rows_staged, quarantined,
                                                duplicate, filtered, seconds)
                    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (import_id, table_name, part) {conflict}""",  # noqa: S608
                [import_id, records_processed, *mark.__dict__.values()],
            )
            return bool(joined.rowcount)

    def resume_from_checkpoint(self, import_id: int) -> Resume:
        """What of an import is behind checkpoints; an empty answer after a crash of the server emptied staging."""
        with transaction(self.engine) as cursor:
            cursor.execute(
                "select table_name, part, rows_read from etl.checkpoint where import_id = %s order by table_name, part", [import_id]
            )
            rows = cursor.fetchall()
        parts: dict[str, tuple[int, ...]] = {}
        for table, part, _ in rows:
            if table != OWN_PROGRESS:
                parts[table] = (*parts.get(table, ()), part)
        return Resume(import_id, sum(row[2] for row in rows), parts)

    def open_import(self, key: ImportKey, table: Table) -> Import:
        """Open the import, or find it open, with live and staging tables for one of its tables ready to take rows.

        Raises:
            ShapeError: the live table is not what the schema file says.
            ReleaseHeld: the release was refused or rolled back under this recipe.
        """
        shape.ensure_live(self.engine, table, key.tax_year)
        with self._fenced(key) as cursor:
            found = ledger.open_import(cursor, key, self.profile)
            cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"hcad-pipeline staging {found.import_id} {table.name}"])
            shape.create_staging(cursor, Relations(table, found.import_id))
            return found

    def stage_part(self, key: ImportKey, table: Table, folder: Path, *, member_sha256: str, recipe: str) -> PartReport | None:
        """Copy a transformed part into staging and commit it with its checkpoint.

        Args:
            key: the import's identity; it must be open.
            table: the table.
            folder: the part's folder: ``rows.parquet``, ``quarantine.jsonl`` and ``report.json``.
            member_sha256: the member that the part is of.
            recipe: the table's recipe.

        Returns:
            The part's account; None when it was staged before.

        Raises:
            StagingStale: the import is gone or its base is no longer current.
            AccountingError: the folder's account does not balance, or is not what was copied.
        """
        report = PartReport.from_json(read_json(folder / "report.json"))
        if not report.is_balanced:
            raise AccountingError(f"{folder} says {report}", "read = written + quarantined + duplicate + filtered", "report this as a bug")
        started = time.monotonic()
        filtered = sum(report.filtered.values())
        mark = Checkpoint(
            table.name, report.part, member_sha256, recipe, report.written, report.quarantined, report.duplicate, filtered, report.seconds
        )
        with self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            # The checkpoint goes first: of two processes with the same part, the second waits here and then finds it taken.
            if not self.checkpoint_progress(found.import_id, report.read, checkpoint=mark, cursor=cursor):
                return None
            quarantined = staging.stage_quarantine(cursor, found.import_id, report, folder / "quarantine.jsonl")

            def write(batches: Iterator[pa.RecordBatch], target: sql.Identifier) -> int:
                return self.bulk_upsert(batches, target, self.batch_rows, cursor=cursor).read

            relations = Relations(table, found.import_id)
            copied = staging.stage_rows(write, cursor, found, relations, report.part, folder / "rows.parquet", self.batch_rows)
            if (copied, quarantined) != (report.written, report.quarantined):
                raise AccountingError(
                    f"part {report.part} of {table.qualified} gave {copied} rows and {quarantined} quarantined",
                    f"{report.written} and {report.quarantined}, as its report says",
                    f"remove {folder} and run again; if it happens twice, report a bug",
                )
        self.on_event("load.part", {"table": table.qualified, "part": report.part, "rows": copied, "seconds": time.monotonic() - started})
        return report

    def settle_table(
        self, key: ImportKey, table: Table, *, parts: int, records: int, raw_lines: Callable[[list[int]], dict[int, str]]
    ) -> StagedTable:
        """Settle repeated keys over all parts and write the marker of the staged table.

        Args:
            key: the import's identity.
            table: the table.
            parts: how many parts its member has.
            records: how many records its member has (lines without a header).
            raw_lines: gives the raw text of the member's lines by number, for the quarantine.
        """
        with self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            relations = Relations(table, found.import_id)
            settled = staging.settle_table(cursor, found, relations, parts=parts, lines=records, raw_line=raw_lines)
        self.on_event("load.table", {"table": table.qualified, "rows": settled.rows_loaded, "quarantined": settled.quarantined})
        return settled

    def keep_table(self, key: ImportKey, table: Table, *, member_sha256: str | None, recipe: str | None) -> StagedTable | None:
        """Leave a table as it is, when the current import made it from the same member with the same recipe.

        Args:
            key: the import's identity; it must be open.
            table: the table.
            member_sha256: what the release carries; None: it carries no such member, and the table is carried over.
            recipe: the table's recipe.

        Returns:
            The account of the table as it stands, or None when it must be staged.
        """
        with self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            cursor.execute(
                """select member_sha256, recipe, parts, rows_read, rows_loaded, quarantined, duplicate, filtered
                     from etl.import_table where import_id = %s and table_name = %s""",
                [found.base_import_id, table.name],
            )
            row = cursor.fetchone()
            if member_sha256 is not None and (row is None or row[:2] != (member_sha256, recipe)):
                return None
            sha256, made_by, parts, read, loaded, quarantined, duplicate, filtered = row or (None, None, 0, 0, 0, 0, 0, 0)
            disposition = "carried_over" if member_sha256 is None else "unchanged"
            staged = StagedTable(
                table.name, disposition, sha256, made_by, parts, read, loaded, quarantined, 0, duplicate, filtered, seconds=0.0
            )
            staging.record_staged(cursor, found.import_id, staged)
            return staged

    def check_release(self, key: ImportKey, source: Source) -> list[gate.GateResult]:
        """Run the gate over the staged tables and write its marker.

        Raises:
            GateRefused: a check failed; the import is refused and held, its staging stays for a person to look at.
            StagingStale: not every table is staged.
        """
        with self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            staged = self._all_staged(cursor, found, source)
            results = [
                result
                for table in staged
                for result in gate.check_table(cursor, source.gate, Relations(source.table(table.table), found.import_id), table)
            ]
            gate.record_results(cursor, found.import_id, results)
            failed = [str(result) for result in results if not result.passed]
            if not failed:
                gate.mark_checked(cursor, found.import_id, "passed")
        if failed:
            error = GateRefused(
                f"{key}: {'; '.join(failed)}",
                "a release that keeps what its source.toml promises",
                f"look at the quarantine and the release, then mend the schema file or: hcad-pipeline accept {found.import_id} --reason '...'",
            )
            self.refuse(key, error)
            raise error
        return results

    def refuse(self, key: ImportKey, error: PipelineError) -> None:
        """Hold the open import of this identity (one is opened when there is none): later runs do no work on it."""
        with self._fenced(key) as cursor:
            found = ledger.open_import(cursor, key, self.profile)
            ledger.refuse(cursor, found.import_id, error.code, str(error))

    def publish(self, key: ImportKey, source: Source) -> dict[str, Changes]:
        """Merge every staged table into its live table and make the import current, in one transaction.

        Returns:
            The rows written, by table; empty when it was current already.

        Raises:
            StagingStale: the base is no longer current, or the server crashed and emptied staging.
        """
        started = time.monotonic()
        with self._fenced(key) as cursor:
            found = ledger.standing(cursor, key)
            if found and found.state == "published":
                return {}
            found = ledger.require_open(cursor, key)
            ledger.by_id(cursor, found.import_id, lock="for update")
            cursor.execute("select 1 from etl.checked where import_id = %s", [found.import_id])
            if not cursor.fetchone():
                raise StagingStale(f"import {found.import_id} has not passed the gate", "a checked staging", "nothing; it is checked again")
            tables = self._all_staged(cursor, found, source)
            changes = {table.table: self._publish_table(cursor, found, source, table) for table in tables}
            cursor.execute(
                "update etl.import set state = 'superseded', closed_at = clock_timestamp() where import_id = %s", [found.base_import_id]
            )
            cursor.execute(
                "update etl.import set state = 'published', published_at = clock_timestamp() where import_id = %s", [found.import_id]
            )
            ledger.drop_staging(cursor, [found.import_id])
        for name, written in changes.items():
            self.on_event("load.published", {"table": f"{key.source}.{name}", "import_id": found.import_id, **written.__dict__})
        self.on_event("load.release", {"import_id": found.import_id, "seconds": time.monotonic() - started})
        self._analyze(key, source, changes)
        return changes

    def rollback_import(self, import_id: int, *, reason: str = "asked for", decided_by: str = "python") -> dict[str, Changes]:
        """Take back the current import: its tables are what they were before it, and its release is held.

        Args:
            import_id: the current import of its source and tax year; one that was rolled back already is left alone.
            reason: for the ledger.
            decided_by: for the ledger.

        Returns:
            Rows restored (``inserted``) and removed (``deleted``) by table; empty when there was nothing left to do.

        Raises:
            RollbackRefused: no such import, or it is not the current one.
        """
        with transaction(self.engine) as cursor:
            found = ledger.by_id(cursor, import_id, lock="for update")
            if found and found.state == "rolled_back":
                return {}
            if found is None or found.state != "published":
                raise RollbackRefused(
                    f"import {import_id} is {found.state if found else 'unknown'}",
                    "the current import of its source and tax year: one at a time, the newest first",
                    "hcad-pipeline status shows which import is current",
                )
            ledger.check_fence(cursor, found.key.source, self._token(found.key.source))
            ledger.abandon_staging(cursor, found.key.source, found.key.tax_year)
            cursor.execute("select table_name from etl.import_table where import_id = %s and disposition = 'staged'", [import_id])
            changes = {name: publish.take_back(cursor, found.key.source, name, found) for (name,) in cursor.fetchall()}
            cursor.execute(
                "update etl.import set state = 'rolled_back', closed_at = clock_timestamp(), message = %s where import_id = %s",
                [reason, import_id],
            )
            cursor.execute("update etl.import set state = 'published', closed_at = null where import_id = %s", [found.base_import_id])
            ledger.decide(cursor, import_id, "rollback", reason, decided_by)
        self.on_event("load.rolled_back", {"import_id": import_id, "restores": found.base_import_id})
        return changes

    def accept_import(self, import_id: int, *, reason: str, decided_by: str = "python") -> None:
        """Let a held import through: a refused one is opened again with its gate passed, a rolled back one may come anew.

        A refused import whose staging is gone, or was compared with another import, is staged and checked again.

        Raises:
            RollbackRefused: the import is neither refused nor rolled back.
        """
        with transaction(self.engine) as cursor:
            found = ledger.by_id(cursor, import_id, lock="for update")
            if found is None or not found.is_held:
                raise RollbackRefused(
                    f"import {import_id} is {found.state if found else 'unknown'}", "one that is refused or rolled back", "see hcad-pipeline status"
                )
            ledger.check_fence(cursor, found.key.source, self._token(found.key.source))
            if found.state == "refused":
                ledger.reopen(cursor, found)
                if found.error_code == GateRefused.code:
                    gate.mark_checked(cursor, import_id, "accepted")
            else:
                cursor.execute("update etl.import set state = 'superseded' where import_id = %s", [import_id])
            ledger.decide(cursor, import_id, "accept", reason, decided_by)

    def content_hash(self, table: Table, tax_year: int) -> tuple[int, str]:
        """Rows and content hash of a live table's tax year; see :func:`pipeline.load.publish.content_hash`."""
        with transaction(self.engine) as cursor:
            return publish.content_hash(cursor, Relations(table), tax_year)

    def _publish_table(self, cursor: Cursor, found: Import, source: Source, staged: StagedTable) -> Changes:
        changes = Changes()
        if staged.disposition == "staged":
            cursor.execute(
                "select 1 from etl.import_table where import_id = %s and table_name = %s and member_sha256 is not null",
                [found.base_import_id, staged.table],
            )
            relations = Relations(source.table(staged.table), found.import_id)
            changes = publish.merge(cursor, relations, found, is_first=cursor.fetchone() is None)
        cursor.execute(
            """insert into etl.import_table (import_id, table_name, disposition, member_sha256, recipe, parts, rows_read, rows_loaded,
                                             quarantined, duplicate, filtered, inserted, updated, deleted, seconds)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                found.import_id, staged.table, staged.disposition, staged.member_sha256, staged.recipe, staged.parts,
                staged.rows_read, staged.rows_loaded, staged.quarantined, staged.duplicate, staged.filtered,
                changes.inserted, changes.updated, changes.deleted, staged.seconds,
            ],
        )  # fmt: skip
        return changes

    def _all_staged(self, cursor: Cursor, found: Import, source: Source) -> list[StagedTable]:
        staged = staging.staged_tables(cursor, found.import_id)
        wanted = {table.name for table in source.tables_for(found.key.tax_year)}
        if missing := sorted(wanted - {table.table for table in staged}):
            raise StagingStale(f"{', '.join(missing)} of import {found.import_id} not staged", "every table", "nothing; staged again")
        return staged

    def _analyze(self, key: ImportKey, source: Source, changes: Mapping[str, Changes]) -> None:
        for name, written in changes.items():
            if written != Changes():
                with transaction(self.engine) as cursor:
                    cursor.execute(sql.SQL("analyze {}").format(Relations(source.table(name)).partition(key.tax_year)))

    def _token(self, source: str) -> int | None:
        return None if self.tokens is None else self.tokens.get(source, -1)

    @contextmanager
    def _fenced(self, key: ImportKey) -> Iterator[Cursor]:
        with transaction(self.engine) as cursor:
            ledger.check_fence(cursor, key.source, self._token(key.source))
            yield cursor

    @contextmanager
    def _joined(self, cursor: Cursor | None) -> Iterator[Cursor]:
        with nullcontext(cursor) if cursor is not None else transaction(self.engine) as joined:
            yield joined
