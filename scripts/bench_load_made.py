"""Releases of a made county for the suite ``load``: what the publisher has, and what our own transform makes of it.

A :class:`Made` is a folder with the archive, schema files, the extracted member and the folders of its parts with ``rows.parquet``. Making
it is setup and not timed; the measured processes read it back. Releases of one county differ by what is reviewed: nothing, 1 %
or all of the good rows.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from county_member import County, even_rates
from county_shapes import REAL_ACCT
from make_table import write_schemas

from pipeline.catalog import Source, Table, load_catalog, release_recipe
from pipeline.catalog.recipe import layout_recipe
from pipeline.database.ledger import ImportKey
from pipeline.extract import ExtractManager, WantedMember
from pipeline.extract.lookup import raw_lines
from pipeline.handoff import Member, PartReport, RawLine, read_json, write_json
from pipeline.load.checkpoints import Origin
from pipeline.transform import DataTransformer, Reading, choose_layout, read_header

YEAR = 2025
PART_BYTES = 64 << 20
ARCHIVE = f"{REAL_ACCT.archive}.zip"
#: Where the address of the county's server stands in its source.toml; only the whole runs fetch from it.
ADDRESS = {"COUNTY_URL": "http://127.0.0.1"}
#: A declaration of a secondary index in a schema file.
INDEX = re.compile(r"^\[\[index\]\]\n(?:.+\n)*\n?", re.MULTILINE)


@functools.cache
def shared_folder() -> tempfile.TemporaryDirectory[str]:
    """What all rounds read; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="bench-load-")


@functools.cache
def schemas(*, indexes: bool) -> Path:
    """Schema files that read a made county; without the secondary indexes of the shipped table unless they are asked for."""
    place = Path(shared_folder().name) / f"schemas-{indexes}"
    file = write_schemas(REAL_ACCT, place, year=YEAR) / f"{REAL_ACCT.table}.toml"
    if not indexes:
        file.write_text(INDEX.sub("", file.read_text(encoding="utf-8")), encoding="utf-8")
    return place


def archive(rows: int, updates: float = 0.0, form: str = "delimited", *, is_clean: bool = False) -> Path:
    """The county's archive as the publisher has it; made when it is first asked for.

    Args:
        rows: records, 0.5 % of them bad.
        updates: share of the good rows that a second release has reviewed; 0: it is the first release.
        form: ``delimited`` or ``fixed_width``: the same records.
        is_clean: no bad records.
    """
    place = Path(shared_folder().name) / f"{form}-{rows}-{updates}-{is_clean}"
    if place.exists():
        return place / ARCHIVE
    place.mkdir()
    number = 1 if updates else 0
    rates = even_rates(0.0) if is_clean else even_rates()
    county = County(REAL_ACCT, rows, form=form, year=YEAR, release=number, rates=rates, updates=updates, inserts=0.0, deletes=0.0)  # type: ignore[arg-type]
    county.write_with_manifest(place / ARCHIVE, is_zip=True)
    return place / ARCHIVE


def release(rows: int, updates: float = 0.0, part_bytes: int = PART_BYTES, *, indexes: bool = False, is_clean: bool = False) -> Path:
    """A folder with the release extracted and transformed, as a measured process reads it with :class:`Made`; likewise."""
    place = Path(shared_folder().name) / f"made-{rows}-{updates}-{part_bytes}-{indexes}-{is_clean}"
    if place.exists():
        return place
    (place / "parts").mkdir(parents=True)
    (place / "schemas").symlink_to(schemas(indexes=indexes))
    source = load_catalog(place / "schemas", environ=ADDRESS)[REAL_ACCT.source]
    wanted = WantedMember(source.table(REAL_ACCT.table).member)
    extracts = ExtractManager(part_bytes=part_bytes, limits=source.limits)
    (member,) = extracts.extract_archive(archive(rows, updates, is_clean=is_clean), place / "members", members=[wanted]).members
    write_json(place / "member.json", member)
    made = Made.read(place)
    transformer = DataTransformer(made.table, tax_year=YEAR)
    for part in member.parts:
        transformer.transform_part(made.path, member, part, made.reading, made.parts[part.number])
    return place


@dataclass(frozen=True)
class Made:
    """A release that is extracted and transformed.

    Attributes:
        source, table: as the schema files declare them.
        member, path: what was extracted.
        reading: how it is read.
        parts: the folder of each part, by number.
    """

    source: Source
    table: Table
    member: Member
    path: Path
    reading: Reading
    parts: tuple[Path, ...]

    @classmethod
    def read(cls, place: Path) -> Made:
        """Read it back."""
        source = load_catalog(place / "schemas", environ=ADDRESS)[REAL_ACCT.source]
        table = source.table(REAL_ACCT.table)
        member = Member.from_json(read_json(place / "member.json"))
        reading = read_header(table, choose_layout(table, member, year=YEAR, version=None), member)
        parts = tuple(place / "parts" / str(part.number) for part in member.parts)
        return cls(source, table, member, place / "members" / member.file, reading, parts)

    def key(self, name: str) -> ImportKey:
        """The identity of an import of this release under a name."""
        return ImportKey(self.source.name, YEAR, name, release_recipe(self.source, YEAR))

    def origin(self, name: str) -> Origin:
        """What the parts are made of; another name is another member, which is not skipped whole for being the same bytes."""
        sha256 = hashlib.sha256(f"{name} {self.member.sha256}".encode()).hexdigest()
        return Origin.of(replace(self.member, sha256=sha256), layout_recipe(self.table, self.reading.layout))

    @property
    def records(self) -> int:
        """Lines without the header."""
        return self.member.lines - (0 if self.reading.header_line is None else 1)

    @property
    def rows(self) -> int:
        """Rows that the parts hold."""
        return sum(PartReport.from_json(read_json(part / "report.json")).written for part in self.parts)

    def raw_lines(self, numbers: list[int]) -> dict[int, RawLine]:
        """The member's lines by number."""
        return raw_lines(self.path, self.member, numbers, self.reading.layout.encoding)
