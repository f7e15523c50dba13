"""Everything that is kept is read again and compared with what was recorded of it: ``hcad-pipeline verify``.

Archives are compared with their receipts (length, sha256) and read to their ends, extracted members with their manifests (sha256, lines,
widths, parts) and with the archive that they came from, live rows with their own hashes, which are computed anew from the values, and
with the number of rows that the ledger states. Nothing is written, nothing is mended, no lock is taken: a run may be at work, and what
it removes meanwhile is no difference. The rows of a table are read in one snapshot, 20,000 at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.catalog.recipe import layout_recipe
from pipeline.catalog.roll import rolls_for
from pipeline.database import ledger
from pipeline.database.engine import connect, translated
from pipeline.errors import ArchiveError, ChecksumMismatch, DiskError, VerifyFailed
from pipeline.extract import ExtractManager
from pipeline.extract.archive import reading
from pipeline.extract.manager import archive_sha256
from pipeline.handoff import read_json, read_receipt
from pipeline.load.relations import Relations, names
from pipeline.load.roll_verify import check_roll
from pipeline.releases import archive_files
from pipeline.transform.coerce import arrow_type
from pipeline.transform.row_hash import row_hashes

RECEIPT = ".receipt.json"
BATCH_ROWS = 20_000
PUBLISHED = """
select t.table_name, t.disposition, t.recipe, t.rows_loaded from etl.import i join etl.import_table t using (import_id)
 where i.source = %s and i.tax_year = %s and i.state = 'published' order by 1
"""


@dataclass(frozen=True)
class Checked:
    """One thing that was read again.

    Attributes:
        kind: what it is.
        name: which: a path below the state folder, or ``source.table year``.
        count: bytes of an archive, members of a folder, rows of a table.
        differences: a sentence for each thing that is not as recorded; empty: none.
        note: what a person may want to know besides, which is no difference.
    """

    kind: Literal["archive", "members", "table"]
    name: str
    count: int
    differences: tuple[str, ...] = ()
    note: str = ""

    def line(self) -> str:
        """One line, and one for each difference."""
        unit = {"archive": "bytes", "members": "members", "table": "rows"}[self.kind]
        head = f"{'DIFFERS' if self.differences else 'as recorded'}  {self.kind} {self.name}, {self.count:,} {unit}"
        return "\n".join([f"{head} ({self.note})" if self.note else head, *(f"    {difference}" for difference in self.differences)])


def verify(engine: Engine, state: Path, sources: Iterable[tuple[Source, int]]) -> Iterator[Checked]:
    """Check the archives, members and live tables of sources' tax years, one after the other.

    Raises:
        DiskError: something cannot be read.
        DatabaseUnavailable: the server cannot be reached.
    """
    for source, year in sources:
        extracts = ExtractManager(limits=source.limits)
        yield from _archives(extracts, state, source, year)
        yield from _members(extracts, state, source, year)
        yield from _tables(engine, source, year)
        yield from _rolls(engine, source, year, compute=False)


def verify_rolls(engine: Engine, sources: Iterable[tuple[Source, int]]) -> Iterator[Checked]:
    """Compute the tables of the schema ``roll`` again from the live tables of sources' tax years, every row, and compare.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
    """
    for source, year in sources:
        yield from _rolls(engine, source, year, compute=True)


def require_same(checked: Iterable[Checked]) -> None:
    """Say whether all is as recorded.

    Raises:
        VerifyFailed: something differs.
    """
    wrong = [one for one in checked if one.differences]
    if wrong:
        raise VerifyFailed(
            f"{len(wrong)} differ: {', '.join(f'{one.kind} {one.name}' for one in wrong)}",
            "what receipts, manifests and row hashes state",
            "look at the disk; remove what differs in the state folder, which the next run makes again; roll back or correct a table",
        )


def _archives(extracts: ExtractManager, state: Path, source: Source, year: int) -> Iterator[Checked]:
    folder = state / "archives" / source.name / str(year)
    for document in sorted(folder.glob(f"*{RECEIPT}")):
        checked = _archive(extracts, document, str(document.relative_to(state)).removesuffix(RECEIPT))
        # The sweep of a run removes archive and receipt.
        if document.exists():
            yield checked


def _archive(extracts: ExtractManager, document: Path, name: str) -> Checked:
    path = document.with_name(document.name.removesuffix(RECEIPT))
    with reading(document.name):
        receipt = read_receipt(document)
    if receipt is None:
        return Checked("archive", name, 0, ("its receipt cannot be read",))
    try:
        size = path.stat().st_size
        archive_sha256(path, name, receipt.sha256)
    except FileNotFoundError:
        return Checked("archive", name, 0, ("its receipt is there, the archive is not",))
    except ChecksumMismatch as error:
        return Checked("archive", name, size, (f"{error.seen}; its receipt states {receipt.bytes} bytes with {receipt.sha256}",))
    try:
        report = extracts.verify_archive(path)
    except ArchiveError as error:
        # It is what was downloaded: the damage is the publisher's, and the extraction has judged it.
        return Checked("archive", name, size, note=f"as it was downloaded, but {error.seen}")
    return Checked("archive", name, size, note=f"{report.kind}, {report.members} members with {report.bytes:,} bytes")


def _members(extracts: ExtractManager, state: Path, source: Source, year: int) -> Iterator[Checked]:
    archives = state / "archives" / source.name / str(year)
    parent = state / "members" / source.name / str(year)
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        # Beside the folders lie notes of archives that are bad.
        if folder.name.startswith(".") or folder.is_file():
            continue
        try:
            differences = list(extracts.verify_members(folder))
            manifest = read_json(folder / "manifest.json")
            count, sha256 = len(manifest["members"]), manifest["sha256"]
        except (ArchiveError, DiskError, OSError) as error:
            if not folder.exists():
                continue
            differences, count, sha256 = [str(error)], 0, ""
        stated = _stated_sha256(archives, source, folder.name)
        if sha256 and stated and sha256 not in stated:
            shown = " or ".join(stated)
            differences.append(f"its manifest is of an archive with sha256 {sha256}, the archive's receipt states {shown}")
        yield Checked("members", str(folder.relative_to(state)), count, tuple(differences))


def _stated_sha256(archives: Path, source: Source, folder: str) -> list[str]:
    """What the receipts state of the archive, and of its fallback, that the members in ``<archive>-<fingerprint>-<cut>`` may be of."""
    identity = folder.rpartition("-")[0]
    files = {
        file
        for archive in source.archives
        if identity.startswith(f"{archive.name}-")
        for file in archive_files(archive.name, identity.removeprefix(f"{archive.name}-"))
    }
    with reading(folder):
        receipts = [read_receipt(archives / f"{file}{RECEIPT}") for file in sorted(files)]
    return [receipt.sha256 for receipt in receipts if receipt]


def _tables(engine: Engine, source: Source, year: int) -> Iterator[Checked]:
    with translated(), closing(connect(engine)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute(PUBLISHED, [source.name, year])
            published = cursor.fetchall()
        tables, rolls = {table.name: table for table in source.tables}, {roll.table.name for roll in source.rolls}
        for name, disposition, recipe, rows_loaded in published:
            where = f"{source.name}.{name} {year}"
            if name in rolls:
                continue
            table = tables.get(name)
            if table is None or recipe not in {layout_recipe(table, layout) for layout in table.layouts}:
                yield Checked("table", where, 0, note="not read: it was published with another schema file, or carried over")
                continue
            rows, changed = _wrong_rows(connection, table, year)
            differences = [f"{changed} rows are not what their hashes state"] if changed else []
            if disposition != "carried_over" and rows != rows_loaded:
                differences.append(f"{rows} rows, where the ledger states {rows_loaded}")
            yield Checked("table", where, rows, tuple(differences))


def _rolls(engine: Engine, source: Source, year: int, *, compute: bool) -> Iterator[Checked]:
    with translated(), closing(connect(engine)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            found = ledger.current(cursor, source.name, year)
            for roll in rolls_for(source, year) if found else ():
                assert found is not None  # noqa: S101
                seen = check_roll(cursor, found, source, roll, compute=compute)
                where = f"{roll.table.qualified} of {source.name} {year}"
                if seen is None:
                    yield Checked("table", where, 0, note="not published yet")
                    continue
                differences = [f"{seen.changed} rows are not what their hashes state"] if seen.changed else []
                if seen.rows != seen.rows_stated:
                    differences.append(f"{seen.rows} rows, where the ledger states {seen.rows_stated}")
                if seen.differing:
                    such = ", ".join(seen.examples)
                    differences.append(f"{seen.differing} accounts come out otherwise when computed again, such as {such}")
                note = "" if seen.is_current else "not computed: it was published with other schema files; the next import does"
                yield Checked("table", where, seen.rows, tuple(differences), note if compute else "")


def _wrong_rows(connection: object, table: Table, year: int) -> tuple[int, int]:
    """How many rows of a tax year there are, and how many whose hash is not that of their values."""
    rows = changed = 0
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in table.columns])
    statement = sql.SQL("select row_hash::text, {} from {} where tax_year = %s").format(
        names(column.name for column in table.columns), Relations(table).live
    )
    with connection.cursor("verify") as cursor:  # type: ignore[attr-defined]
        cursor.execute(statement, [year])
        while batch := cursor.fetchmany(BATCH_ROWS):
            stated, *columns = zip(*batch, strict=True)
            typed = pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema)
            found = row_hashes(typed, table.columns).to_pylist()
            rows += len(batch)
            changed += sum(one.replace("-", "") != other for one, other in zip(stated, found, strict=True))
    return rows, changed
