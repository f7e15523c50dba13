"""TransformPart: one part of a member, read, checked and written as typed rows."""

from __future__ import annotations

import luigi

from pipeline.catalog.model import Source, Table
from pipeline.errors import MemberError
from pipeline.handoff import Member
from pipeline.observe.events import log_event
from pipeline.targets import PartTarget
from pipeline.tasks.base import PipelineTask, settings, table_of
from pipeline.tasks.extract import ExtractArchive
from pipeline.tasks.unpivot import readable_of
from pipeline.transform.header import Reading
from pipeline.transform.layout import check_expected, choose_layout, read_header, read_version
from pipeline.transform.transformer import DataTransformer


class TransformPart(PipelineTask):
    """Make rows of a part; about a second for 50,000 rows of three columns."""

    archive = luigi.Parameter(description="an archive of source.toml")
    fingerprint = luigi.Parameter(description="what its validators gave at the probe")
    cut = luigi.Parameter(description="hash of the wanted members, the limits and the part size")
    table = luigi.Parameter(description="a table of the source")
    layout_recipe = luigi.Parameter(description="the table's recipe with the layout that was chosen for the member")
    part = luigi.IntParameter(description="the part's number in the member")
    resources = {"cpu": 1}  # noqa: RUF012

    def requires(self) -> ExtractArchive:
        """The member that the part is of."""
        return self.clone(ExtractArchive)

    def output(self) -> PartTarget:
        """``var/parts/<source>/<year>/<table>/<fingerprint>-<cut>-<recipe>/<part>/``."""
        folder = self.folder("parts") / self.table / f"{self.fingerprint}-{self.cut}-{self.layout_recipe}"
        return PartTarget(folder / f"{self.part:05d}")

    def run(self) -> None:
        """Transform the part."""
        extracted = self.requires()
        table = table_of(self.of_source(), self.table)
        found = readable_of(extracted, table)
        if found is None:
            raise MemberError(f"no {table.member} in {self.archive}", "the member that was there when it was cut", "run again")
        reading = reading_of(self.of_source(), table, found.member, extracted)
        folder = self.output().prepare()
        transformer = DataTransformer(table, chunk_rows=settings().chunk_rows, tax_year=self.year, on_event=log_event)
        transformer.transform_part(found.path, found.member, found.member.parts[self.part], reading, folder)


def reading_of(source: Source, table: Table, member: Member, extracted: ExtractArchive) -> Reading:
    """How a member is to be read: decided from what the extract stage measured, the same for every part.

    Raises:
        LayoutError, HeaderError, EmptyMember: the member is not what the schema file declares.
        VintageError: the export is of another tax year or county.
    """
    for expected in source.expects:
        if expected.archive == table.archive and (stating := extracted.member(expected.member)) is not None:
            check_expected(stating, expected, extracted.year)
    version = None
    if source.version and source.version.archive == table.archive:
        header = extracted.member(source.version.member)
        version = read_version(extracted.output().path / header.file, source.version) if header else None
    layout = choose_layout(table, member, year=extracted.year, version=version)
    return read_header(table, layout, member)
