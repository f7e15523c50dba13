"""A part of a member becomes typed, checked, hashed rows and a quarantine, with every line accounted for.

In goes a part of an extracted member and the reading that was decided for it; out comes a folder with ``rows.parquet``,
``quarantine.jsonl`` and ``report.json``, renamed into place once, and the report. Each line of the part is the header or
exactly one of written, quarantined, duplicate or filtered, or the part fails. No value becomes NULL but by a declared
rule, counted. Cerberus gives the verdict on every row that the compiled rules suspect, and on a sample of the others. The
rows, their hashes and all counts but ``duplicate`` are the same in whatever parts and chunks a member is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, Table
from pipeline.errors import AccountingError, CatalogError
from pipeline.handoff import Member, OnEvent, Part, PartReport, ignore, read_json
from pipeline.transform.coerce import Refusal
from pipeline.transform.first_rows import check_fingerprint, check_tax_year
from pipeline.transform.header import Reading, field_positions
from pipeline.transform.judgement import Judge, Judged
from pipeline.transform.output import REPORT, MemberIdentity, PartFolder, quarantined
from pipeline.transform.reader import Chunk, read_delimited, read_fixed_width
from pipeline.transform.record import typed_record
from pipeline.transform.row_hash import first_of_equal, row_hashes
from pipeline.transform.rules import document_of, record_validator
from pipeline.transform.tally import Tally


class DataTransformer:
    """Transforms the parts of one table's members.

    Args:
        table: the table's declaration.
        chunk_rows: the most rows held at once; a block of 8 MB ends a chunk too. 20,000 rows of 71 columns take about 140 MB.
        tax_year: the release's, which the table's year column must state; None: it is not compared.
        sample_every: every line whose number is a multiple of it goes through Cerberus though nothing is suspect.
        on_event: takes ``transform.slow_rule`` (once a rule that is not compiled) and ``transform.part``.

    Raises:
        CatalogError: a rule, format or step that cannot be used.
    """

    def __init__(
        self,
        table: Table,
        *,
        chunk_rows: int = 20_000,
        sample_every: int = 2000,
        on_event: OnEvent = ignore,
        tax_year: int | None = None,
    ) -> None:
        """Compile the rules and check that every column can be read."""
        self.table = table
        self.chunk_rows = chunk_rows
        self.sample_every = sample_every
        self.tax_year = tax_year
        self.on_event = on_event
        self._judge = Judge(table, sample_every=sample_every, tax_year=tax_year)
        self.rules = self._judge.rules
        self._validator = record_validator(self.rules.schema)
        for rule in self.rules.slow:
            on_event("transform.slow_rule", {"table": table.qualified, "rule": rule})

    def parse_fixed_width(self, file_path: Path, schema: Reading, *, part: Part | None = None) -> Iterator[Chunk]:
        """Read a fixed-width member, or a part of it, in chunks.

        Args:
            file_path: the extracted member.
            schema: its reading: layout and fields.
            part: which bytes; None: all.

        Raises:
            CatalogError: the layout has no record width, or a field no position.
            AccountingError: rows were lost or made while reading.
        """
        if schema.record_width is None:
            raise CatalogError(f"{self.table.qualified}: a layout without record_width", "its bytes", "correct the schema file")
        return read_fixed_width(file_path, schema, field_positions(self.table, schema), part, self.chunk_rows)

    def parse_delimited(self, file_path: Path, schema: Reading, *, part: Part | None = None) -> Iterator[Chunk]:
        """Read a delimited member, or a part of it, in chunks; no character is a quote.

        Args:
            file_path: the extracted member.
            schema: its reading: layout, header line and fields.
            part: which bytes; None: all.

        Raises:
            AccountingError: rows were lost or made while reading.
        """
        return read_delimited(file_path, schema, part, self.chunk_rows)

    def validate_record(
        self, record: Mapping[str, Any], validation_rules: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, list[str]]:
        """Cerberus' verdict on one typed record.

        >>> from pipeline.catalog import load_catalog
        >>> table = load_catalog()["hcad"].table("arb_protest_real")
        >>> transformer = DataTransformer(table)
        >>> transformer.validate_record({"acct": "0010010000013"}, transformer.rules.schema)
        {}
        >>> transformer.validate_record({"acct": None}, transformer.rules.schema)
        {'acct': ['required field']}

        Args:
            record: column -> typed value, or None: no value.
            validation_rules: a Cerberus schema, for example ``self.rules.schema``.

        Returns:
            Column -> messages; empty when the record is good.
        """
        validator = self._validator if validation_rules is self.rules.schema else record_validator(validation_rules)
        validator.validate(document_of(record, validation_rules), normalize=False)
        return dict(validator.errors)

    def normalize_data(
        self, record: Mapping[str, str | None], normalization_rules: Mapping[str, Column]
    ) -> dict[str, Any]:
        """Type one text record: the meaning that the column-wise path follows, and is held to by a sample.

        >>> from pipeline.catalog import load_catalog
        >>> table = load_catalog()["hcad"].table("arb_protest_real")
        >>> columns = {column.name: column for column in table.columns}
        >>> record = {"acct": "0010010000013  ", "protested_by": " ", "protested_dt": "05/14/2019"}
        >>> DataTransformer(table).normalize_data(record, columns)
        {'acct': '0010010000013', 'protested_by': None, 'protested_dt': datetime.date(2019, 5, 14)}

        Args:
            record: column -> text as the reader gives it, or None.
            normalization_rules: column -> its declaration, for the columns wanted and those that they are computed of.

        Returns:
            Column -> typed value, or None, or a :class:`~pipeline.transform.coerce.Refusal` where the type cannot take
            the text and the column's policy is to quarantine the row.
        """
        return typed_record(record, normalization_rules)

    def deduplicate(
        self, records: pa.Table, key_fields: Sequence[str], *, seen: set[str] | None = None
    ) -> tuple[pa.Table, int]:
        """Drop rows that are equal in every column to an earlier row with the same key.

        Rows with an equal key and other values all stay: which of them is right is settled over all parts, in the
        database. Without a key equal rows are real, and all stay.

        >>> from pipeline.catalog import load_catalog
        >>> table = load_catalog()["hcad"].table("real_neighborhood_code")
        >>> rows = pa.table({"cd": ["1", "2", "1", "1"], "grp_cd": ["5", "5", "5", "6"], "dscr": [None] * 4, "line": [1, 2, 3, 4]})
        >>> kept, dropped = DataTransformer(table).deduplicate(rows, table.key)
        >>> kept.column("line").to_pylist(), dropped
        ([1, 2, 4], 1)

        Args:
            records: typed rows in file order, with the table's columns; ``row_hash`` is used if it is there.
            key_fields: the key's columns.
            seen: hashes of the rows before these, to which theirs are added.

        Returns:
            The rows kept, the first of each, and how many were dropped.
        """
        if not key_fields:
            return records, 0
        has_hashes = "row_hash" in records.column_names
        hashes = records.column("row_hash") if has_hashes else row_hashes(records, self.table.columns)
        # The key is a part of the row: equal rows have equal keys.
        is_first = first_of_equal(hashes.to_pylist(), set() if seen is None else seen)
        dropped = int(len(is_first) - is_first.sum())
        return (records.filter(pa.array(is_first)) if dropped else records), dropped

    def transform_part(
        self, member_path: Path, member: Member, part: Part, reading: Reading, dest_dir: Path
    ) -> PartReport:
        """Transform one part into a folder; a folder that is there already is the result.

        Args:
            member_path: the extracted member.
            member: the member as measured.
            part: which lines of it.
            reading: as decided for the member by ``read_header``.
            dest_dir: the folder to make.

        Returns:
            The account of the part, as ``report.json`` holds it.

        Raises:
            AccountingError: a line is in no place or in two, or Cerberus refuses a row that the compiled rules passed.
            PartRefused: more than half of the part's records are refused.
            DiskError: writing failed.
        """
        if dest_dir.is_dir():
            return PartReport.from_json(read_json(dest_dir / REPORT))
        started = time.perf_counter()
        tally = Tally(self.table)
        seen: set[str] = set()
        identity = MemberIdentity(self.table.source, self.table.name, member.sha256, reading.layout.encoding)
        with PartFolder(dest_dir, self.table.columns, self.table.key, identity) as folder:
            for chunk in self._parse(reading)(member_path, reading, part=part):
                self._transform_chunk(chunk, folder, tally, seen)
                del chunk  # one at a time: the next one is read in its room
            folder.publish(tally.report(member, part, time.perf_counter() - started, self.rules.take_costs()))
        report = PartReport.from_json(read_json(dest_dir / REPORT))
        self.on_event(
            "transform.part",
            {"table": self.table.qualified, "part": part.number, "rows": report.written, "quarantined": report.quarantined},
        )
        return report

    def type_columns(self, chunk: Chunk) -> Judged:
        """A chunk typed and completed, with what its types refuse; no rule is applied."""
        return self._judge.type_columns(chunk)

    def check_first_rows(self, member_path: Path, member: Member, reading: Reading) -> None:
        """Look at a member's first rows: do they state the release's tax year, and stand in the columns that they should?

        Args:
            member_path: the extracted member.
            member: the member as measured.
            reading: as decided for the member by ``read_header``.

        Raises:
            VintageError: most state another tax year.
            LayoutError: there is no header, and values do not match the layout's fingerprint.
        """
        first = next(self._parse(reading)(member_path, reading, part=member.parts[0]), None) if member.parts else None
        if first is None:
            return
        if reading.header_line is None:
            check_fingerprint(first, member, reading.layout)
        check_tax_year(first, member, self._judge)

    def _transform_chunk(self, chunk: Chunk, folder: PartFolder, tally: Tally, seen: set[str]) -> None:
        """Judge a chunk, write what becomes of it, and count it."""
        judged = self._judge.judge(chunk)
        self._hold_to_sample(chunk, judged)
        rows, dropped = self._good_rows(chunk, judged, seen)
        refused = quarantined(chunk.refused, judged.refused, chunk.raw_lines, judged.rows.column_names)
        folder.write_rows(rows)
        folder.write_quarantined(refused)
        tally.count(chunk, judged, rows, refused, dropped)

    def _hold_to_sample(self, chunk: Chunk, judged: Judged) -> None:
        """Take a row by itself the plain way, the first of the sample in a chunk, and stop where that says other than its columns do.

        Raises:
            AccountingError: a value is another one, or Cerberus refuses a row that is good.
        """
        columns = {column.name: column for column in self.table.columns}
        for row in np.flatnonzero(chunk.line_numbers % self.sample_every == 0)[:1].tolist():
            record = {name: texts[row].as_py() for name, texts in judged.texts.items()}
            plain = self.normalize_data(record, columns)
            typed, final = (rows.slice(row, 1).to_pylist()[0] for rows in (judged.typed, judged.rows))
            wrong = [name for name, value in plain.items() if typed[name] != (None if isinstance(value, Refusal) else value)]
            if judged.is_good[row]:
                there = {name: value for name, value in final.items() if name in record or columns[name].compute is not None}
                wrong += [*self.validate_record(there, self.rules.schema)]
            if wrong:
                raise AccountingError(
                    f"line {int(chunk.line_numbers[row])} of {self.table.qualified}: {', '.join(wrong)} read by itself is another value",
                    "the same from a row and from its columns",
                    "this is a defect of the transform: report it with the schema file and the line",
                )

    @property
    def _merged_by(self) -> Sequence[str]:
        """The key by which equal rows of a part are merged.

        None where the last of several rows stands: in A, B, A that is the second A, which only the whole table can tell.
        """
        return () if self.table.on_conflict == "last" else self.table.key

    def _parse(self, reading: Reading) -> Callable[..., Iterator[Chunk]]:
        return self.parse_fixed_width if reading.layout.format == "fixed_width" else self.parse_delimited

    def _good_rows(self, chunk: Chunk, judged: Judged, seen: set[str]) -> tuple[pa.Table, int]:
        """The good rows of a chunk, hashed and numbered, the first of equal ones; and how many were dropped for that."""
        # Hashed before the others are taken out, and told apart by hash alone: so each column is filtered once at most.
        hashes, lines = row_hashes(judged.rows, self.table.columns, judged.canonical), pa.array(chunk.line_numbers)
        rows = judged.rows.append_column("row_hash", hashes).append_column("line", lines)
        is_good = pa.array(judged.is_good)
        narrow = pa.table({"row_hash": hashes, "line": lines}).filter(is_good)
        kept, dropped = self.deduplicate(narrow, self._merged_by, seen=seen)
        if dropped:
            is_good = pc.is_in(lines, value_set=kept.column("line").combine_chunks())
        return (rows if kept.num_rows == rows.num_rows else rows.filter(is_good)), dropped
