"""StagePart, StageTable, CheckRelease and PublishRelease: from parts to one commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import luigi

from pipeline.catalog.model import Table
from pipeline.catalog.recipe import layout_recipe, scope_of
from pipeline.catalog.roll import roll_of, rolls_for
from pipeline.errors import RefusedError
from pipeline.extract.lookup import raw_lines
from pipeline.handoff import RawLine
from pipeline.load.checkpoints import Origin
from pipeline.observe.events import log_event
from pipeline.targets import MarkerRow, MarkerTarget
from pipeline.tasks.base import ImportTask, cut_of, engine, table_of
from pipeline.tasks.confirm import ConfirmRelease
from pipeline.tasks.extract import ExtractArchive
from pipeline.tasks.transform import TransformPart, reading_of
from pipeline.tasks.unpivot import Readable, readable_of
from pipeline.transform.first_rows import FIRST_ROWS
from pipeline.transform.header import Reading
from pipeline.transform.transformer import DataTransformer


class TableTask(ImportTask):
    """A task of one table of an import."""

    table = luigi.Parameter(description="a table of the source")

    def of_table(self) -> Table:
        """The table."""
        return table_of(self.of_source(), self.table)

    def is_wanted(self) -> bool:
        """Whether the import is about this table."""
        return self.table in {table.name for table in self.tables()}

    def extracted(self) -> ExtractArchive | None:
        """The extraction of the table's archive; None when the release does not carry that archive, or the table is not wanted."""
        archive = self.of_table().archive
        fingerprint = self.offered().fingerprints.get(archive)
        if fingerprint is None or not self.is_wanted():
            return None
        cut = cut_of(self.of_source(), self.year, archive)
        return ExtractArchive(source=self.source, year=self.year, archive=archive, fingerprint=fingerprint, cut=cut)


class StagePart(TableTask):
    """Copy one part into staging and commit it with its checkpoint; about a second for 50,000 rows."""

    layout_recipe = luigi.Parameter(description="the table's recipe with the layout that was chosen for the member")
    part = luigi.IntParameter(description="the part's number in the member")
    resources = {"postgres": 1}  # noqa: RUF012

    def requires(self) -> TransformPart:
        """The part's rows."""
        extracted = self.extracted()
        assert extracted is not None  # noqa: S101  # parts are asked for only of what was extracted
        return extracted.clone(TransformPart, table=self.table, layout_recipe=self.layout_recipe, part=self.part)

    def output(self) -> MarkerTarget:
        """The checkpoint."""
        return MarkerTarget(engine(), MarkerRow("part", self.key, self.table, self.part))

    def run(self) -> None:
        """Stage the part."""
        extracted, table = self.extracted(), self.of_table()
        assert extracted is not None  # noqa: S101
        found = readable_of(extracted, table)
        assert found is not None  # noqa: S101

        def lines(numbers: list[int]) -> dict[int, RawLine]:
            encoding = reading_of(self.of_source(), table, found.member, extracted).layout.encoding
            return raw_lines(found.path, found.member, numbers, encoding)

        origin = Origin.of(found.member, self.layout_recipe)
        self.loads().stage_part(self.key, table, self.input().path, origin=origin, raw_lines=lines)


class StageTable(TableTask):
    """Stage all parts of a table and settle repeated keys; nothing but the decision when the table has not changed."""

    # Once more after a kill or a lost connection; a member that cannot be read is refused at the first attempt.
    retry_count = 2
    resources = {"postgres": 1}  # noqa: RUF012

    def requires(self) -> list[ExtractArchive]:
        """The table's archive, where the release has it."""
        extracted = self.extracted()
        return [extracted] if extracted else []

    def output(self) -> MarkerTarget:
        """All parts are staged, and the table is settled."""
        return MarkerTarget(engine(), MarkerRow("table", self.key, self.table))

    def run(self) -> Iterator[list[StagePart]]:
        """Decide how the member is read, ask for the parts, settle.

        The cheap decision comes first: Luigi starts this anew when the parts are there.
        """
        self.require_recipe()
        loads, table, extracted = self.loads(), self.of_table(), self.extracted()
        refusal = extracted.refusal() if extracted else None
        found = self.readable(extracted) if extracted and not refusal else None
        if not loads.open_import(self.key, table).is_open:
            return  # another run has published it meanwhile
        if extracted is None or found is None:
            missing = "the release does not carry it" if self.is_wanted() else "the import is of other tables"
            why = refusal.message if refusal else missing
            log_event("load.carried_over", {"table": table.qualified, "why": why})
            loads.keep_table(self.key, table, member_sha256=None, recipe="")
            return
        member, path = found.member, found.path
        reading = self.reading(extracted, found)
        recipe = layout_recipe(table, reading.layout)
        if loads.keep_table(self.key, table, member_sha256=member.sha256, recipe=recipe):
            return
        origin = Origin.of(member, recipe)
        loads.expect_parts(self.key, table, origin)
        yield [self.clone(StagePart, layout_recipe=recipe, part=part.number) for part in member.parts]
        loads.settle_table(
            self.key,
            table,
            origin=origin,
            parts=len(member.parts),
            records=member.lines - (0 if reading.header_line is None else 1),
            raw_lines=lambda numbers: raw_lines(path, member, numbers, reading.layout.encoding),
        )

    def readable(self, extracted: ExtractArchive) -> Readable | None:
        """The table's member; what cannot be made of others is refused, and its release held."""
        with self.refusing():
            return readable_of(extracted, self.of_table())

    def reading(self, extracted: ExtractArchive, found: Readable) -> Reading:
        """How the member is read; what cannot be read is refused, and its release held."""
        with self.refusing():
            reading = reading_of(self.of_source(), self.of_table(), found.member, extracted)
            first_rows = DataTransformer(self.of_table(), chunk_rows=FIRST_ROWS, tax_year=self.year)
            first_rows.check_first_rows(found.path, found.member, reading)
        for note in reading.notes:
            log_event("transform.note", {"table": self.of_table().qualified, "note": note})
        return reading

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Hold the release when its member is refused."""
        try:
            yield
        except RefusedError as error:
            if error.holds_release:
                self.loads().refuse(self.key, error)
            raise


class StageRoll(ImportTask):
    """Compute a table of the schema ``roll`` out of what is staged and live."""

    roll = luigi.Parameter(description="the ledger's name of a computed table, such as roll_property")
    # Once more after a lost connection; SQL that does not fit stays so.
    retry_count = 2
    resources = {"postgres": 1}  # noqa: RUF012

    def requires(self) -> list[StageTable]:
        """The tables that it reads, where the tax year has them."""
        there = {table.name for table in self.of_source().tables_for(self.year)}
        inputs = roll_of(self.of_source(), self.roll).inputs
        return [self.clone(StageTable, table=one.table.name) for one in inputs if one.table.name in there]

    def output(self) -> MarkerTarget:
        """The table is staged."""
        return MarkerTarget(engine(), MarkerRow("table", self.key, self.roll))

    def run(self) -> None:
        """Compute it."""
        self.require_recipe()
        self.loads().stage_roll(self.key, self.of_source(), self.roll)


class CheckRelease(ImportTask):
    """The gate: what must hold before anything is visible."""

    # What it refuses stays refused; what breaks it off is a matter of milliseconds, and of the next run.
    retry_count = 1
    resources = {"postgres": 1}  # noqa: RUF012

    def requires(self) -> list[StageTable | StageRoll | ConfirmRelease]:
        """Every table that is wanted of the tax year or computed, and that the release is still the one that is offered."""
        tables = [self.clone(StageTable, table=table.name) for table in self.of_source().tables_for(self.year)]
        scope = scope_of(self.recipe)
        archives = ",".join(sorted({table.archive for table in self.tables()})) if scope else ""
        rolls = [self.clone(StageRoll, roll=roll.table.name) for roll in rolls_for(self.of_source(), self.year)]
        return [*tables, *rolls, self.clone(ConfirmRelease, archives=archives)]

    def output(self) -> MarkerTarget:
        """The gate passed, or a person accepted what it refused."""
        return MarkerTarget(engine(), MarkerRow("checked", self.key))

    def run(self) -> None:
        """Run the gate."""
        self.loads().check_release(self.key, self.of_source())


class PublishRelease(ImportTask):
    """The one commit that makes a release current."""

    resources = {"postgres": 1}  # noqa: RUF012

    def requires(self) -> CheckRelease:
        """The gate."""
        return self.clone(CheckRelease)

    def output(self) -> MarkerTarget:
        """This release and recipe is the current import: now, not ever."""
        return MarkerTarget(engine(), MarkerRow("published", self.key))

    def run(self) -> None:
        """Publish."""
        self.require_recipe()
        self.loads().publish(self.key, self.of_source())
