"""What other tools do for the suite ``load``: from a county's zip to rows in PostgreSQL, as a person would write it with each of them.

Each function imports its packages, and returns the work: a call that loads the first so many records and returns how many rows are in
the table then. None uses the pipeline but for the columns of the schema file, and Cerberus' rules, which are made from it.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import itertools
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any

import psycopg2
from bench_load_made import ADDRESS, YEAR
from county_shapes import REAL_ACCT
from measuring import peak_mb, seconds, serve
from psycopg2 import extensions

from pipeline.catalog import Column, Table, load_catalog

FIELDS = [field.name for field in REAL_ACCT.fields]
ENCODING = "cp1252"
CHUNK_ROWS = 20_000
DJANGO_BATCH = 5_000
BLOCK_BYTES = 8 << 20
DATE = "%m/%d/%Y"
INTEGERS = ("integer", "bigint", "smallint")

#: Loads, and returns the rows that are in the table.
Work = Callable[[], int]


class Job:
    """What a peer is given: the archive, an empty database, the table's columns, a folder, and how many records to take."""

    def __init__(self, archive: str, url: str, schemas: str, folder: str, records: str) -> None:
        self.archive, self.url, self.folder, self.records = Path(archive), url, Path(folder), int(records)
        self.table: Table = load_catalog(Path(schemas), environ=ADDRESS)[REAL_ACCT.source].table(REAL_ACCT.table)
        self.columns: dict[str, Column] = {name: self.table.column(name) for name in FIELDS}
        self.key = self.table.key[0]

    @contextmanager
    def member(self) -> Iterator[IO[bytes]]:
        """The member's bytes, straight from the zip."""
        with zipfile.ZipFile(self.archive) as opened, opened.open(opened.namelist()[0]) as content:
            yield content

    def records_by_line(self) -> Iterator[list[str]]:
        """The fields of each record of a delimited member, without a header; lines with another number of fields are skipped."""
        with self.member() as content:
            lines = io.TextIOWrapper(content, ENCODING, errors="replace", newline="\r\n")
            for line in itertools.islice(lines, 1, self.records + 1):
                fields = line.rstrip("\r\n").replace("\0", "").split("\t")
                if len(fields) == len(FIELDS):
                    yield [field.strip() for field in fields]

    def definition(self) -> str:
        """The table's columns as DDL, with the primary key."""
        return ", ".join([*(f"{name} {column.type.sql}" for name, column in self.columns.items()), f"primary key ({self.key})"])

    def connect(self) -> extensions.connection:
        """A connection of psycopg2's."""
        return psycopg2.connect(self.url)

    def count(self, table: str) -> int:
        """Rows of a table."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"select count(*) from {table}")
            return int(cursor.fetchall()[0][0])


def dlt(job: Job) -> Work:
    """Arrow tables through dlt's merge."""
    import dlt
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    def typed(texts: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
        trimmed = pc.replace_substring(pc.utf8_trim_whitespace(texts), "\0", "")
        if column.type.kind in INTEGERS:
            fits = pc.match_substring_regex(trimmed, r"^-?\d{1,9}$" if column.type.kind == "integer" else r"^-?\d{1,18}$")
            return pc.cast(pc.if_else(fits, trimmed, None), pa.int32() if column.type.kind == "integer" else pa.int64())
        if column.type.kind == "numeric":
            fits = pc.match_substring_regex(trimmed, r"^-?\d{1,9}(\.\d{1,4})?$")
            return pc.cast(pc.if_else(fits, trimmed, None), pa.decimal128(column.type.precision, column.type.scale))
        if column.type.kind == "boolean":
            is_true, is_false = (pc.is_in(trimmed, pa.array(codes)) for codes, _ in _codes(column))
            return pc.if_else(pc.or_(is_true, is_false), is_true, None)
        if column.type.kind == "date":
            return pc.cast(pc.strptime(trimmed, DATE, "s", error_is_null=True), pa.date32())
        return pc.if_else(pc.equal(trimmed, ""), None, trimmed)

    @dlt.resource(name="real_acct", write_disposition="merge", primary_key=job.key)
    def rows() -> Iterator[pa.Table]:
        parsing = csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=lambda row: "skip")
        reading = csv.ReadOptions(column_names=FIELDS, skip_rows=1, encoding="latin-1", block_size=16 << 20)
        converting = csv.ConvertOptions(column_types=dict.fromkeys(FIELDS, pa.string()), strings_can_be_null=False)
        with job.member() as content:
            for batch in csv.open_csv(content, reading, parsing, converting):
                texts = pa.table(batch)
                made = pa.table({name: typed(texts[name], column) for name, column in job.columns.items()})
                yield made.filter(pc.is_valid(made[job.key]))

    given = extensions.parse_dsn(job.url)
    # dlt insists on a host and a password, and leaves the query to libpq, which takes the socket's folder from it.
    named = f"postgresql://{given['user']}:{given.get('password', 'none')}@localhost:{given['port']}/{given['dbname']}?host={given['host']}"

    def work() -> int:
        pipeline = dlt.pipeline("bench", pipelines_dir=str(job.folder), destination=dlt.destinations.postgres(named), dataset_name="peer")
        pipeline.run(rows(), loader_file_format="csv").raise_on_failed_jobs()
        return job.count("peer.real_acct")

    return work


def copy_to_table(job: Job) -> Work:
    """Luigi's own task."""
    import luigi
    from luigi.contrib.postgres import CopyToTable

    given = extensions.parse_dsn(job.url)

    class Load(CopyToTable):
        host, database, user, password, port = (given.get(part) for part in ("host", "dbname", "user", "password", "port"))
        table = "real_acct"
        columns = [(name, "TEXT") for name in FIELDS]  # noqa: RUF012
        null_values = ("",)

        def rows(self) -> Iterator[list[str]]:
            yield from job.records_by_line()

    def work() -> int:
        if not luigi.build([Load()], local_scheduler=True, no_lock=True, log_level="ERROR"):
            raise RuntimeError("Luigi's CopyToTable failed")
        return job.count("real_acct")

    return work


def pandas_cerberus_to_sql(job: Job) -> Work:
    """A frame a chunk, a Cerberus document a row."""
    import pandas as pd
    import sqlalchemy as sa
    from validation_ways import coercing_validator

    from pipeline.transform import DataTransformer

    validator = coercing_validator(DataTransformer(job.table, tax_year=YEAR))
    engine = sa.create_engine(job.url.replace("postgresql://", "postgresql+psycopg2://", 1))
    places = [(start - 1, end) for start, end in REAL_ACCT.positions().values()]

    def work() -> int:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"create table real_acct ({job.definition()})")
        with job.member() as content:
            chunks = pd.read_fwf(
                content, colspecs=places, names=FIELDS, header=None, dtype=str, keep_default_na=False, na_values=[""],
                encoding=ENCODING, encoding_errors="replace", chunksize=CHUNK_ROWS, nrows=job.records,
            )  # fmt: skip
            for chunk in chunks:
                texts = chunk.astype(object).where(chunk.notna(), None).to_dict("records")
                good = [validator.document for text in texts if validator.validate(text)]
                frame = pd.DataFrame.from_records(good, columns=FIELDS).drop_duplicates(job.key)
                frame.to_sql("real_acct", engine, if_exists="append", index=False)
        return job.count("real_acct")

    return work


def django(job: Job) -> Work:
    """A model instance a row."""
    import django
    from django.conf import settings

    given = extensions.parse_dsn(job.url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    default = {"ENGINE": "django.db.backends.postgresql", **{name: given.get(part, "") for name, part in names.items()}}
    settings.configure(DATABASES={"default": default}, USE_TZ=False)
    django.setup()
    from django.core.exceptions import ValidationError
    from django.db import connection, models

    def field(column: Column) -> models.Field[Any, Any]:
        if column.name == job.key:
            return models.CharField(max_length=20, primary_key=True)
        blank = {"null": True, "blank": True}
        if column.type.kind == "numeric":
            return models.DecimalField(max_digits=column.type.precision, decimal_places=column.type.scale, **blank)
        kinds = {
            "integer": models.IntegerField, "bigint": models.BigIntegerField, "date": models.DateField, "boolean": models.BooleanField,
        }  # fmt: skip
        return kinds.get(column.type.kind, models.TextField)(**blank)

    members: dict[str, Any] = {name: field(column) for name, column in job.columns.items()}
    meta = type("Meta", (), {"app_label": "bench", "db_table": "real_acct"})
    model: Any = type("RealAcct", (models.Model,), {**members, "Meta": meta, "__module__": __name__})
    readers = [_reader(column) for column in job.columns.values()]

    def work() -> int:
        with connection.schema_editor() as editor:
            editor.create_model(model)
        records = job.records_by_line()
        while batch := list(itertools.islice(records, DJANGO_BATCH)):
            made = {}
            for texts in batch:
                row = model(**{name: read(text) for name, read, text in zip(FIELDS, readers, texts, strict=True)})
                try:
                    row.clean_fields()
                except ValidationError:
                    continue
                made[row.pk] = row  # one statement cannot update a row twice
            model.objects.bulk_create(
                made.values(), batch_size=DJANGO_BATCH, update_conflicts=True, unique_fields=[job.key],
                update_fields=[name for name in FIELDS if name != job.key],
            )  # fmt: skip
        return job.count("real_acct")

    return work


def duckdb(job: Job) -> Work:
    """A script of three statements and a COPY."""
    import duckdb

    def cast(name: str, column: Column) -> str:
        trimmed = f"nullif(trim({name}), '')"
        if column.type.kind == "date":
            return f"cast(try_strptime({trimmed}, '{DATE}') as date) as {name}"
        if column.type.kind in (*INTEGERS, "numeric"):
            return f"try_cast({trimmed} as {column.type.sql}) as {name}"
        if column.type.kind == "boolean":
            either = [f"when {trimmed} in ({', '.join(map(repr, codes))}) then {value}" for codes, value in _codes(column)]
            return f"case {' '.join(either)} end as {name}"
        return f"{trimmed} as {name}"

    def work() -> int:
        member = job.folder / "member.txt"
        with job.member() as content, open(member, "wb") as file:
            # Its own reader takes UTF-8 and Latin-1 alone, and the county's file is neither.
            while block := content.read(BLOCK_BYTES):
                file.write(block.replace(b"\0", b"").decode(ENCODING, "replace").encode())
        texts = "{" + ", ".join(f"'{name}': 'varchar'" for name in FIELDS) + "}"
        casts = ", ".join(cast(name, column) for name, column in job.columns.items())
        out = job.folder / "clean.csv"
        with duckdb.connect() as database:
            database.execute("set temp_directory = ?", [str(job.folder / "spill")])
            database.execute(
                f"""copy (select {casts} from read_csv('{member}', delim = '\t', header = true, columns = {texts}, quote = '', escape = '',
                        ignore_errors = true, strict_mode = false, auto_detect = false)
                      where nullif(trim({job.key}), '') is not null qualify row_number() over (partition by trim({job.key})) = 1)
                    to '{out}' (format csv, header false)"""
            )
        with closing(job.connect()) as connection, connection, connection.cursor() as cursor, open(out, "rb") as rows:
            cursor.execute(f"create table real_acct ({job.definition()})")
            cursor.copy_expert("copy real_acct from stdin (format csv)", rows)
        return job.count("real_acct")

    return work


def _codes(column: Column) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """The texts of a boolean, by value."""
    return (column.true_codes, True), (column.false_codes, False)


def _reader(column: Column) -> Callable[[str], Any]:
    """A function from a text to a Python value; what does not fit is no value."""
    kind = column.type.kind
    read: Callable[[str], Any] = str
    if kind in INTEGERS:
        read = int
    elif kind == "numeric":
        read = Decimal
    elif kind == "boolean":
        read = {code: value for codes, value in _codes(column) for code in codes}.get
    elif kind == "date":
        read = lambda text: dt.datetime.strptime(text, DATE).date()  # noqa: E731

    def reader(text: str) -> Any:
        try:
            return read(text) if text else None
        except (ValueError, InvalidOperation):
            return None

    return reader


PEERS: dict[str, Callable[[Job], Work]] = {
    "dlt": dlt, "copy_to_table": copy_to_table, "pandas_cerberus_to_sql": pandas_cerberus_to_sql, "django": django, "duckdb": duckdb,
}  # fmt: skip


def _measured(work: Work) -> dict[str, float]:
    rows: list[int] = []
    took_s = seconds(lambda: rows.append(work()))
    return {"seconds": took_s, "rows": rows[0], "peak_mb": peak_mb()}


if __name__ == "__main__":
    serve(functools.partial(_measured, PEERS[sys.argv[1]](Job(*sys.argv[2:]))))
