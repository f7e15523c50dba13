"""A small catalog of two tables, and parts of them as the transform stage leaves them."""

import dataclasses
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.model import Archive, Column, ColumnType, Gate, Layout, Limits, Source, Table
from pipeline.database.engine import make_engine
from pipeline.database.ledger import ImportKey
from pipeline.database.migrate import migrate
from pipeline.handoff import PartReport, RawLine, write_json
from pipeline.load.checkpoints import Origin
from pipeline.load.manager import LoadManager
from pipeline.transform.coerce import arrow_type
from pipeline.transform.measures import Measures, figures
from pipeline.transform.row_hash import row_hashes

ORIGIN = Origin("m1", "t1", "c1")


def text(name, **more):
    return Column(name, ColumnType("text"), name, **more)


OWNER = Table(
    source="county", name="owner", archive="a", member="owner.txt", member_aliases=(), required=True, years=None, key=("acct",),
    parent=(), on_conflict="quarantine", layouts=(Layout("delimited"),),
    columns=(text("acct", required=True), text("name"), Column("value", ColumnType("numeric", 14, 2), "value")),
)  # fmt: skip
FEATURE = dataclasses.replace(
    OWNER, name="feature", member="feature.txt", key=(), parent=("acct",), columns=(text("acct", required=True), text("code"))
)
SOURCE = Source(
    name="county", title="", publisher="", homepage="", licence="", enabled=True, base_url="http://localhost", tax_years=(2025,),
    archives=(Archive("a", "a.zip"),), tables=(OWNER, FEATURE), allow_addresses=(), gate=Gate({}, 1.0, 1.0), limits=Limits(1, 1, 1.0), version=None,
    profile="test",
)  # fmt: skip


class World:
    """A county's two tables and the ways to bring a release of them into a database."""

    def __init__(self, url, folder: Path):
        self.engine, self.folder = make_engine(url), folder
        migrate(self.engine)
        self.loads = LoadManager(self.engine, profile="test", batch_rows=1000)
        self.county = SOURCE
        self.numbers = itertools.count(1)

    def key(self, release, recipe="r1"):
        return ImportKey("county", 2025, release, recipe)

    def part(self, table, rows, *, part=0, first_line=1, quarantined=()):
        """A part's folder: ``rows`` are tuples in the order of the columns."""
        folder = self.folder / f"{table.name}-{next(self.numbers)}"
        folder.mkdir(parents=True)
        columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
        arrays = {c.name: pa.array(values, arrow_type(c.type)) for c, values in zip(table.columns, columns, strict=True)}
        made = pa.table(arrays)
        hashes = row_hashes(made, table.columns)
        made = made.append_column("row_hash", hashes).append_column("line", pa.array(range(first_line, first_line + len(rows)), pa.int64()))
        pq.write_table(made, folder / "rows.parquet")
        (folder / "quarantine.jsonl").write_text("".join(f"{line}\n" for line in quarantined))
        count = len(rows) + len(quarantined)
        measures = Measures(table)
        measures.add(made)
        taken = {"nulls": dict(measures.nulls), "figures": figures(measures)}
        write_json(folder / "report.json", PartReport(table.qualified, part, count, len(rows), len(quarantined), 0, {}, **taken))
        return folder

    def stage(self, key, table, parts, *, origin=ORIGIN):
        """Open the import, stage the parts (lists of rows) in order and settle the table."""
        self.loads.open_import(key, table)
        self.loads.expect_parts(key, table, origin)
        line = 1
        for number, rows in enumerate(parts):
            self.loads.stage_part(key, table, self.part(table, rows, part=number, first_line=line), origin=origin)
            line += len(rows)
        return self.settle(key, table, parts=len(parts), records=line - 1, origin=origin)

    def settle(self, key, table, *, parts, records, origin=ORIGIN):
        def raw_lines(numbers):
            return {number: RawLine(100 * number, f"raw line {number}") for number in numbers}

        return self.loads.settle_table(key, table, origin=origin, parts=parts, records=records, raw_lines=raw_lines)

    def publish(self, release, owners, features, *, recipe="r1"):
        """Bring a release all the way: one part a table, unless lists of parts are given."""
        key = self.key(release, recipe)
        for table, rows in ((OWNER, owners), (FEATURE, features)):
            self.stage(
                key, table, rows if rows and isinstance(rows[0], list) else [rows], origin=Origin(f"{release}-{table.name}", "t1", "c1")
            )
        self.loads.check_release(key, self.county)
        return self.loads.publish(key, self.county)

    def declare(self, *tables, **gate):
        """Have these tables in place of the county's own ones of their names, and these figures in its gate."""
        named = {table.name: table for table in (*self.county.tables, *tables)}
        self.county = dataclasses.replace(
            self.county, tables=tuple(named.values()), gate=dataclasses.replace(self.county.gate, **gate)
        )

    def rows(self, statement, *values):
        """The rows of a query."""
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(statement, values or None)
            return cursor.fetchall()
        finally:
            connection.close()

    def hashes(self):
        return {table.name: self.loads.content_hash(table, 2025) for table in (OWNER, FEATURE)}

    def leftovers(self):
        """Staging tables and markers that are left."""
        tables = self.rows("select tablename from pg_tables where schemaname = 'etl_staging'")
        marks = [self.rows(f"select count(*) from etl.{name}")[0][0] for name in ("checkpoint", "staged_table", "checked")]
        return tables, marks
