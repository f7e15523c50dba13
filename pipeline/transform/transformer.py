"""A part of a member becomes typed, checked, hashed rows and a quarantine, with every line accounted for.

In goes a part of an extracted member and the reading that was decided for it; out comes a folder with ``rows.parquet``,
``quarantine.jsonl`` and ``report.json``, renamed into place once, and the report. Each line of the part is the header or
exactly one of written, quarantined, duplicate or filtered, or the part fails. No value becomes NULL but by a declared
rule, counted. Cerberus gives the verdict on every row that the compiled rules suspect, and on a sample of the others. The
rows, their hashes and all counts but ``duplicate`` are the same in whatever parts and chunks a member is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, Table
from pipeline.errors import CatalogError, VintageError
from pipeline.handoff import Member, OnEvent, Part, PartReport, ignore, read_json
from pipeline.transform.coerce import Mask, Refusal, coerce_column, coerce_text, declared_nulls, reader_of
from pipeline.transform.header import Reading
from pipeline.transform.output import REPORT, PartFolder, Quarantined
from pipeline.transform.reader import Chunk, read_delimited, read_fixed_width
from pipeline.transform.row_hash import row_hashes
from pipeline.transform.rules import compile_rules, document_of, record_validator
from pipeline.transform.tally import Tally, Typed


class DataTransformer:
    """Transforms the parts of one table's members.

    Args:
        table: the table's declaration.
        chunk_rows: the most rows held at once; 20,000 rows of 71 columns take about 200 MB.
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
        sample_every: int = 1000,
        on_event: OnEvent = ignore,
        tax_year: int | None = None,
    ) -> None:
        """Compile the rules and check that every column can be read."""
        self.table = table
        self.chunk_rows = chunk_rows
        self.sample_every = sample_every
        self.tax_year = tax_year
        self.on_event = on_event
        for column in table.columns:
            reader_of(column)
        self.rules = compile_rules(table.columns)
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
        if schema.layout.record_width is None:
            raise CatalogError(f"{self.table.qualified}: a layout without record_width", "its bytes", "correct the schema file")
        positions = {}
        for name in filter(None, schema.fields):
            column = self.table.column(name)
            start, end = schema.layout.positions.get(name, (column.start, column.end))
            if start is None or end is None:
                raise CatalogError(f"{self.table.qualified}.{name} has no position", "start and end", "correct the schema file")
            positions[name] = (start, end)
        return read_fixed_width(file_path, schema, positions, part, self.chunk_rows)

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

        >>> from pipeline.catalog.model import ColumnType
        >>> acct = Column("acct", ColumnType("text"), "acct", required=True, rules={"regex": "[0-9]{13}"})
        >>> table = Table("hcad", "roll", "a", "roll.txt", (), True, None, ("acct",), (), "quarantine", (), (acct,))
        >>> transformer = DataTransformer(table)
        >>> transformer.validate_record({"acct": "0010010000013"}, transformer.rules.schema)
        {}
        >>> transformer.validate_record({"acct": None}, transformer.rules.schema)
        {'acct': ['required field']}
        >>> transformer.validate_record({"acct": "13"}, transformer.rules.schema)
        {'acct': ["value does not match regex '[0-9]{13}'"]}

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
        """Type one text record: the meaning that the column-wise path follows.

        Args:
            record: column -> text as the reader gives it, or None.
            normalization_rules: column -> its declaration, for the columns wanted.

        Returns:
            Column -> typed value, or None, or a :class:`~pipeline.transform.coerce.Refusal` where the type cannot take
            the text and the column's policy is to quarantine the row.
        """
        typed = {}
        for name, column in normalization_rules.items():
            value = coerce_text(record.get(name), column)
            typed[name] = None if isinstance(value, Refusal) and column.on_error == "null" else value
        return typed

    def deduplicate(
        self, records: pa.Table, key_fields: Sequence[str], *, seen: set[bytes] | None = None
    ) -> tuple[pa.Table, int]:
        """Drop rows that are equal in every column to an earlier row with the same key.

        Rows with an equal key and other values all stay: which of them is right is settled over all parts, in the
        database. Without a key equal rows are real, and all stay.

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
        seen = set() if seen is None else seen
        keep = np.ones(records.num_rows, dtype=bool)
        for row, row_hash in enumerate(hashes.to_pylist()):
            digest = bytes.fromhex(row_hash)  # the key is a part of the row: equal rows have equal keys
            keep[row] = digest not in seen
            seen.add(digest)
        dropped = int(len(keep) - keep.sum())
        return (records.filter(pa.array(keep)) if dropped else records), dropped

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
            DiskError: writing failed.
        """
        if dest_dir.is_dir():
            return PartReport.from_json(read_json(dest_dir / REPORT))
        started = time.perf_counter()
        parse = self.parse_fixed_width if reading.layout.format == "fixed_width" else self.parse_delimited
        tally = Tally()
        seen: set[bytes] = set()
        with PartFolder(dest_dir, self.table.columns, reading.layout.encoding) as folder:
            for chunk in parse(member_path, reading, part=part):
                rows, refused = self._transform_chunk(chunk, tally)
                rows, dropped = self.deduplicate(rows, self.table.key, seen=seen)
                folder.write_rows(rows)
                folder.write_quarantined(refused)
                tally.count(chunk, written=rows.num_rows, quarantined=len(refused), duplicate=dropped)
            report = tally.report(self.table.qualified, member, part, time.perf_counter() - started)
            folder.publish(report)
        self.on_event(
            "transform.part",
            {"table": self.table.qualified, "part": part.number, "rows": report.written, "quarantined": report.quarantined},
        )
        return PartReport.from_json(read_json(dest_dir / REPORT))

    def _transform_chunk(self, chunk: Chunk, tally: Tally) -> tuple[pa.Table, list[Quarantined]]:
        """The good rows of a chunk, hashed and numbered, and the refused ones in the order of their lines."""
        typed = self._type_chunk(chunk)
        messages = typed.messages()
        self._mark_other_years(typed.rows, messages)
        ruled = self.rules.apply(
            typed.rows,
            absent=frozenset(column.name for column in self.table.columns if column.name not in chunk.frame.columns),
            refused={row: tuple(columns) for row, columns in messages.items()},
            sampled=chunk.line_numbers % self.sample_every == 0,
            where=lambda row: f"line {int(chunk.line_numbers[row])} of {self.table.qualified}",
        )
        for row, verdict in ruled.refused.items():
            for name, errors in verdict.items():
                messages.setdefault(row, {}).setdefault(name, {}).update(errors)
        refused = [
            Quarantined(line.line, line.raw, {"*": [f"line {message}" for message in line.reasons.values()]})
            for line in chunk.refused
        ]
        tally.refused.update(f"*:{reason}" for line in chunk.refused for reason in line.reasons)
        for row, columns in messages.items():
            by_column = {name: list(errors.values()) for name, errors in columns.items()}
            refused.append(Quarantined(int(chunk.line_numbers[row]), chunk.raw_lines[row], by_column))
            tally.refused.update(f"{name}:{reason}" for name, errors in columns.items() for reason in errors)
        is_good = np.ones(typed.rows.num_rows, dtype=bool)
        is_good[list(messages)] = False
        tally.nulled.update({key: int((mask & is_good).sum()) for key, mask in typed.nulled.items()})
        tally.nulled.update({f"{name}:{rule}": int((mask & is_good).sum()) for (name, rule), mask in ruled.changed.items()})
        rows = ruled.rows.append_column("line", pa.array(chunk.line_numbers))
        rows = rows if is_good.all() else rows.filter(pa.array(is_good))
        rows = rows.append_column("row_hash", row_hashes(rows, self.table.columns))
        return rows, sorted(refused, key=lambda line: line.line)

    def check_tax_year(self, member_path: Path, member: Member, reading: Reading) -> None:
        """Look at a member's first rows: do they state the release's tax year? Nothing is asked of a table without a year column.

        Args:
            member_path: the extracted member.
            member: the member as measured.
            reading: as decided for the member by ``read_header``.

        Raises:
            VintageError: more than half of those that state a tax year state another one.
        """
        if self.table.year_column is None or self.tax_year is None or not member.parts:
            return
        parse = self.parse_fixed_width if reading.layout.format == "fixed_width" else self.parse_delimited
        first = next(parse(member_path, reading, part=member.parts[0]), None)
        if first is None:
            return
        years = self._type_chunk(first).rows.column(self.table.year_column).drop_null()
        others = pc.filter(years, pc.not_equal(years, self.tax_year))
        if 2 * len(others) > len(years):
            common = ", ".join(f"{found['values']} ({found['counts']} rows)" for found in pc.value_counts(others).to_pylist()[:3])
            raise VintageError(
                f"{len(others)} of the first {len(years)} rows of {member.name} that state a tax year state {common}",
                f"tax year {self.tax_year}, as {self.table.qualified} was fetched for",
                "look at what the publisher put under this year's address; the published rows stay as they are",
            )

    def _mark_other_years(self, rows: pa.Table, messages: dict[int, dict[str, dict[str, str]]]) -> None:
        """Refuse the rows that state another tax year than the release's; a row that states none is of this one."""
        name = self.table.year_column
        if name is None or self.tax_year is None:
            return
        others = pc.fill_null(pc.not_equal(rows.column(name), self.tax_year), False)
        for row in np.flatnonzero(others.to_numpy(zero_copy_only=False)).tolist():
            messages.setdefault(row, {}).setdefault(name, {})["other_year"] = f"is not {self.tax_year}"

    def _type_chunk(self, chunk: Chunk) -> Typed:
        """Every column of the table, typed; a column that the layout does not have is NULL."""
        arrays: dict[str, pa.Array] = {}
        refused: dict[tuple[str, str], Mask] = {}
        nulled: dict[tuple[str, str], Mask] = {}
        for column in self.table.columns:
            texts = chunk.texts.get(column.name)
            if texts is None:
                texts = pa.nulls(chunk.rows, pa.string())
            coerced = coerce_column(texts, column)
            arrays[column.name] = coerced.values
            if column.nulls:
                nulled[column.name, "declared"] = declared_nulls(texts, column)
            target = nulled if column.on_error == "null" else refused
            for reason, mask in coerced.refusals.items():
                target[column.name, reason] = mask
        return Typed(pa.table(arrays), refused, {f"{name}:{reason}": mask for (name, reason), mask in nulled.items()})
