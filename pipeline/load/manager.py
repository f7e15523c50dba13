"""LoadManager: parts into staging, staging through the gate, one publish, and the way back.

Each method is one or two short transactions. What a marker says is committed with the rows that it speaks for; a fencing
token, when the run holds one, is checked in the same transaction, so that a run that lost its source cannot write. Without
a token (a plain Luigi run) the unique checkpoints and the publish transaction's own lock keep two writers apart.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.catalog.roll import roll_of
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import Import, ImportKey
from pipeline.database.repeat import repeated
from pipeline.errors import AccountingError, GateRefused, PipelineError, StagingStale
from pipeline.handoff import OnEvent, PartReport, ignore, read_json
from pipeline.load import bisect, constraints, damage, publish, quarantine, release, roll, settle, shape, staging, upkeep
from pipeline.load.checkpoints import Checkpoint, Origin, Resume, move_to_quarantine, other_origins, read_checkpoints, write_checkpoint
from pipeline.load.order import KeyOrder, write_order
from pipeline.load.publish import Changes
from pipeline.load.quarantine import Place
from pipeline.load.relations import Relations
from pipeline.load.settle import RawLines
from pipeline.load.staging import StagedTable
from pipeline.load.upsert import Upserted, target_of, upsert

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

    from pipeline.load.gate import Verdict


class LoadManager:
    """Loads parts, publishes imports and takes them back.

    Args:
        engine: of ``pipeline.database.engine``.
        profile: the profile that imports are opened under, for the ledger.
        tokens: the fencing token of each source that this run holds; None: a plain Luigi run.
        batch_rows: rows formatted and sent at a time, at most.
        max_memory_mb: memory that the process is to peak at while it stages: fewer rows are formatted at a time where they are wide.
        quarantine_rows: refused rows of each rule and table that the ledger keeps; all are counted.
        on_event: takes ``load.*`` events with their figures.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        profile: str = "production",
        tokens: Mapping[str, int] | None = None,
        batch_rows: int = 20_000,
        max_memory_mb: int = 350,
        quarantine_rows: int = 1000,
        on_event: OnEvent = ignore,
    ) -> None:
        self.engine, self.profile, self.tokens = engine, profile, tokens
        self.batch_rows, self.quarantine_rows, self.on_event = batch_rows, quarantine_rows, on_event
        self.most = staging.Most(batch_rows, max_memory_mb)

    def bulk_upsert(self, records: object, model_class: object, batch_size: int = 5000, *, cursor: Cursor | None = None) -> Upserted:
        """Write records into a table by COPY: rows that differ are updated, new ones inserted, equal ones left alone.

        Args:
            records: mappings, tuples (named, or with a value for each of the table's columns), a DataFrame, an Arrow table or record
                batches; all with the same columns.
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
        with self._joined(cursor) as joined:
            return write_checkpoint(joined, import_id, records_processed, checkpoint)

    @repeated
    def resume_from_checkpoint(self, import_id: int) -> Resume:
        """What of an import is behind checkpoints; an empty answer after a crash of the server emptied staging."""
        with transaction(self.engine) as cursor:
            return read_checkpoints(cursor, import_id)

    @repeated
    def open_import(self, key: ImportKey, table: Table) -> Import:
        """Open the import, or find it open, with live and staging tables for one of its tables ready to take rows.

        Returns:
            The import; when it is current already (``state`` is ``published``) there is nothing to stage.

        Raises:
            ShapeError: the live table is not what the schema file says.
            ReleaseHeld: the release was refused or rolled back under this recipe.
        """
        shape.ensure_live(self.engine, table, key.tax_year)
        with self._fenced(key) as cursor:
            found, given_up = ledger.open_import(cursor, key, self.profile)
            if found.is_open:
                relations = Relations(table, found.import_id)
                staging.lock_table(cursor, relations)
                shape.create_staging(cursor, relations, is_first=found.base_import_id is None)
        if given_up:
            figures = {"import_id": found.import_id, "instead_of": given_up.import_id, "why": given_up.message}
            self.on_event("load.staged_anew", figures)
        return found

    @repeated
    def expect_parts(self, key: ImportKey, table: Table, origin: Origin) -> int:
        """Take back parts that an earlier run staged from something else (other settings, another member), and damaged ones; how many."""
        damaged: dict[int, str] = {}
        with self._fenced(key) as cursor:
            relations = Relations(table, ledger.require_open(cursor, key).import_id)
            staging.lock_table(cursor, relations)
            why = other_origins(cursor, relations.import_id, table.name, origin)
            cleared = staging.clear_other_origins(cursor, relations, origin)
            if table.name not in {settled.table for settled in staging.staged_tables(cursor, relations.import_id)}:
                damaged = damage.take_back(cursor, relations)
        if cleared:
            why = why or "its rows are not those of its checkpoints"
            self.on_event("load.parts_taken_back", {"table": table.qualified, "parts": cleared, "why": why})
        self._tell_damaged(table, damaged)
        return cleared + len(damaged)

    @repeated
    def stage_part(
        self, key: ImportKey, table: Table, folder: Path, *, origin: Origin, raw_lines: RawLines | None = None
    ) -> PartReport | None:
        """Copy a transformed part into staging and commit it with its checkpoint.

        Args:
            key: the import's identity; it must be open.
            table: the table.
            folder: the part's folder: ``rows.parquet``, ``quarantine.jsonl`` and ``report.json``.
            origin: the member, recipe and cut that the part is made of.
            raw_lines: gives lines of the member by number, so that rows which PostgreSQL itself refuses can be quarantined; None: such
                a row stops the part.

        Returns:
            The part's account, with such rows counted as quarantined; None when it was staged before.

        Raises:
            StagingStale: the import is gone or its base is no longer current.
            PartRefused: PostgreSQL refuses rows, and more of them than can be quarantined.
            AccountingError: the folder's account does not balance, or is not what was copied.
        """
        report = PartReport.from_json(read_json(folder / "report.json"))
        if not report.is_balanced:
            raise AccountingError(f"{folder} says {report}", "read = written + quarantined + duplicate + filtered", "report this as a bug")
        started = time.monotonic()
        filtered = sum(report.filtered.values())
        mark = Checkpoint(
            table.name, report.part, origin, report.written, report.quarantined, report.duplicate, filtered, report.nulled,
            report.changed, report.seconds, report.measured,
        )
        with self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            # The checkpoint goes first: of two processes with the same part, the second waits here and then finds it taken.
            if not self.checkpoint_progress(found.import_id, report.read, checkpoint=mark, cursor=cursor):
                return None
            place = Place(found.import_id, table.name, report.part, origin.member_sha256)
            quarantined = quarantine.stage_part(cursor, place, folder / "quarantine.jsonl", self.quarantine_rows)

            def write(batches: Iterator[pa.RecordBatch], target: sql.Identifier) -> int:
                return self.bulk_upsert(batches, target, self.batch_rows, cursor=cursor).read

            relations = Relations(table, found.import_id)

            orders: list[KeyOrder | None] = []

            def stage(rows: Path) -> int:
                copied, order = staging.stage_rows(write, cursor, found, relations, report.part, rows, self.most)
                orders.append(order)
                return copied

            copied, refused = bisect.stage_accepted(cursor, folder / "rows.parquet", stage, may_refuse=raw_lines is not None)
            if (copied + len(refused), quarantined) != (report.written, report.quarantined):
                raise AccountingError(
                    f"part {report.part} of {table.qualified} gave {copied} rows and {quarantined} quarantined",
                    f"{report.written} and {report.quarantined}, as its report says",
                    f"remove {folder} and run again; if it happens twice, report a bug",
                )
            if refused and raw_lines:
                messages = {row.line: row.message for row in refused}
                quarantine.add_refused(cursor, place, bisect.RULE, messages, raw_lines(list(messages)))
                move_to_quarantine(cursor, found.import_id, table.name, report.part, len(refused))
            # The last attempt is the one that stays.
            write_order(cursor, found.import_id, table.name, report.part, orders[-1])
        if refused:
            self.on_event("load.refused_by_database", {"table": table.qualified, "part": report.part, "rows": len(refused)})
            by_rule = Counter(report.refused) + Counter({bisect.RULE: len(refused)})
            report = replace(report, written=copied, quarantined=quarantined + len(refused), refused=by_rule)
        self.on_event("load.part", {"table": table.qualified, "part": report.part, "rows": copied, "seconds": time.monotonic() - started})
        return report

    @repeated
    def settle_table(
        self, key: ImportKey, table: Table, *, origin: Origin, parts: int, records: int, raw_lines: RawLines
    ) -> StagedTable:
        """Settle repeated keys over all parts and write the marker of the staged table.

        Args:
            key: the import's identity.
            table: the table.
            origin: what all of its parts must be made of.
            parts: how many parts its member has.
            records: how many records its member has (lines without a header).
            raw_lines: gives the member's lines by number, for the quarantine.

        Raises:
            StagingStale: a part is not staged, or its checkpoint was damaged and is taken back: it is staged again.
            AccountingError: records and rows do not add up over all parts; all of them are staged again.
        """
        try:
            with self._fenced(key) as cursor:
                found = ledger.require_open(cursor, key)
                relations = Relations(table, found.import_id)
                settled = settle.settle_table(
                    cursor, found, relations, origin=origin, parts=parts, records=records, raw_lines=raw_lines,
                    rows_per_rule=self.quarantine_rows,
                )  # fmt: skip
        except (AccountingError, StagingStale) as error:
            self._take_back_damaged(key, table, parts, error)
            raise
        self.on_event("load.table", {"table": table.qualified, "rows": settled.rows_loaded, "quarantined": settled.quarantined})
        return settled

    def _take_back_damaged(self, key: ImportKey, table: Table, parts: int, error: PipelineError) -> None:
        with self._fenced(key) as cursor:
            found = ledger.standing(cursor, key)
            if found is None or not found.is_open:
                return
            relations = Relations(table, found.import_id)
            staging.lock_table(cursor, relations)
            damaged = damage.take_back(cursor, relations, parts, all_of_them=isinstance(error, AccountingError))
        self._tell_damaged(table, damaged)
        if damaged and damage.UNCERTAIN not in damaged.values():
            numbers = ", ".join(map(str, damaged))
            raise StagingStale(
                f"what is staged of {table.qualified} is damaged in part {numbers}: {next(iter(damaged.values()))}",
                "checkpoints that fit the rows that they speak for",
                "nothing; these parts are staged again",
            ) from error

    def _tell_damaged(self, table: Table, damaged: Mapping[int, str]) -> None:
        for part, why in damaged.items():
            self.on_event("load.damaged_checkpoint", {"table": table.qualified, "part": part, "why": why})

    @repeated
    def keep_table(self, key: ImportKey, table: Table, *, member_sha256: str | None, recipe: str) -> StagedTable | None:
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
            return release.keep_table(cursor, ledger.require_open(cursor, key), table, member_sha256, recipe)

    @repeated
    def stage_roll(self, key: ImportKey, source: Source, name: str) -> StagedTable:
        """Compute a table of the schema ``roll`` from what is staged and live; see :mod:`pipeline.load.roll`.

        Args:
            key: the import's identity; it must be open, and the tables that are read settled.
            source: the source.
            name: the ledger's name of the computed table.
        """
        found = roll_of(source, name)
        shape.ensure_live(self.engine, found.table, key.tax_year)
        with self._fenced(key) as cursor:
            staged = roll.stage_roll(cursor, ledger.require_open(cursor, key), source, found)
        figures = {"disposition": staged.disposition, "rows": staged.rows_loaded, "seconds": staged.seconds}
        self.on_event("load.roll", {"table": found.table.qualified, **figures})
        return staged

    def check_release(self, key: ImportKey, source: Source) -> None:
        """Run the gate over the staged tables and write its marker, unless a check failed that no person has accepted.

        What failed is an event ``load.check``; of severity ``warn`` or ``note`` it is no more than that, and a row of the ledger.

        Raises:
            GateRefused: a check failed; the import is refused and held, its staging stays for a person to look at.
            StagingStale: not every table is staged, or rows of one are gone and it is taken back: it is staged again.
        """
        found, verdict = self._judge(key, source)
        for result in (*verdict.refused, *verdict.warned):
            self.on_event("load.check", {"table": f"{key.source}.{result.table}", "check": result.check, "severity": result.severity,
                                         "seen": result.seen, "expected": result.expected})  # fmt: skip
        if verdict.refused:
            error = GateRefused(
                f"{key.source} {key.tax_year}: {'; '.join(map(str, verdict.refused))}",
                "a release that keeps what its source.toml promises",
                f"look at: hcad-pipeline report {found.import_id}; mend the schema file, wait for the next release, or publish it all the "
                f"same: hcad-pipeline run --source {key.source} --accept '<why>'",
            )
            self.refuse(key, error)
            raise error

    @repeated
    def _judge(self, key: ImportKey, source: Source) -> tuple[Import, Verdict]:
        with self._clearing_lost(key, source), self._fenced(key) as cursor:
            found = ledger.require_open(cursor, key)
            return found, release.check(cursor, found, source)

    @repeated
    def refuse(self, key: ImportKey, error: PipelineError) -> None:
        """Hold the open import of this identity (one is opened when there is none): later runs do no work on it."""
        with self._fenced(key) as cursor:
            found, _ = ledger.open_import(cursor, key, self.profile)
            if found.is_open:
                ledger.refuse(cursor, found.import_id, error.code, error.seen)

    @repeated
    def publish(self, key: ImportKey, source: Source) -> dict[str, Changes]:
        """Merge every staged table into its live table and make the import current, in one transaction.

        Returns:
            The rows written, by table; empty when it was current already.

        Raises:
            StagingStale: the base is no longer current, or staging is not what was staged (a crash of the server empties it): nothing was
                changed, and it is staged again.
            ShapeError: a constraint, trigger or foreign key of the user's own refuses a row; nothing was changed.
        """
        started = time.monotonic()
        with constraints.told(self.engine, key, source), self._clearing_lost(key, source), self._fenced(key) as cursor:
            ledger.lock_source_year(cursor, key.source, key.tax_year)
            found = ledger.standing(cursor, key)
            if found and found.state == "published":
                return {}
            found = ledger.require_open(cursor, key, lock="for update")
            changes = release.make_current(cursor, found, source)
        for name, written in changes.items():
            self.on_event("load.published", {"table": f"{key.source}.{name}", "import_id": found.import_id, **written.__dict__})
        self.on_event("load.release", {"import_id": found.import_id, "seconds": time.monotonic() - started})
        upkeep.pay_if_possible(self.engine, [key.source], self.on_event)
        return changes

    @repeated
    def rollback_import(self, import_id: int, *, reason: str = "asked for", decided_by: str = "python") -> dict[str, Changes]:
        """Take back the current import: its tables are what they were before it, and its release is held.

        Args:
            import_id: the current import of its source and tax year; one that was rolled back already is left alone.
            reason: for the ledger.
            decided_by: for the ledger.

        Returns:
            Rows that came back (``inserted``), have their former values again (``updated``) and are gone (``deleted``) by table; empty
            when there was nothing left to do.

        Raises:
            RollbackRefused: no such import, it is not the current one, or its row history is no longer kept.
            ShapeError: a constraint, trigger or foreign key of the user's own refuses a row as it was; nothing was changed.
        """
        expected = "the current import of its source and tax year: one at a time, the newest first"
        with transaction(self.engine) as cursor:
            found = release.in_state(cursor, import_id, {"published", "rolled_back"}, expected)
            if found.state == "rolled_back":
                return {}
            ledger.check_fence(cursor, found.key.source, self._token(found.key.source))
            with constraints.told(self.engine, found.key):
                changes = release.take_back(cursor, found, reason, decided_by)
        self.on_event("load.rolled_back", {"import_id": import_id, "restores": found.base_import_id})
        upkeep.pay_if_possible(self.engine, [found.key.source], self.on_event)
        return changes

    @repeated
    def accept_import(self, import_id: int, *, reason: str, decided_by: str = "python") -> None:
        """Let a held import through: a refused one is opened again with its gate passed, a rolled back one may come anew.

        A refused import whose staging is gone, or was compared with another import, is staged and checked again.

        Raises:
            RollbackRefused: the import is neither refused nor rolled back.
        """
        with transaction(self.engine) as cursor:
            found = release.in_state(cursor, import_id, {"refused", "rolled_back"}, "one that is refused or rolled back")
            ledger.check_fence(cursor, found.key.source, self._token(found.key.source))
            release.let_through(cursor, found, reason, decided_by)

    @repeated
    def content_hash(self, table: Table, tax_year: int) -> tuple[int, str]:
        """Rows and content hash of a live table's tax year; see :func:`pipeline.load.publish.content_hash`."""
        with transaction(self.engine) as cursor:
            return publish.content_hash(cursor, Relations(table), tax_year)

    def _token(self, source: str) -> int | None:
        return None if self.tokens is None else self.tokens.get(source, -1)

    @contextmanager
    def _fenced(self, key: ImportKey) -> Iterator[Cursor]:
        with transaction(self.engine) as cursor:
            ledger.check_fence(cursor, key.source, self._token(key.source))
            yield cursor

    @contextmanager
    def _clearing_lost(self, key: ImportKey, source: Source) -> Iterator[None]:
        """Around what reads staging: where it is not what was staged, the table's marks are taken back, so that it is staged again."""
        try:
            yield
        except StagingStale:
            with self._fenced(key) as cursor:
                cleared = release.clear_lost(cursor, key, source)
            for table, (parts, why) in cleared.items():
                self.on_event("load.parts_taken_back", {"table": table, "parts": parts, "why": why})
            raise

    @contextmanager
    def _joined(self, cursor: Cursor | None) -> Iterator[Cursor]:
        with nullcontext(cursor) if cursor is not None else transaction(self.engine) as joined:
            yield joined
