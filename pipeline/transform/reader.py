"""Text fields out of a part's lines: pandas reads, and every line is accounted for.

In goes a member, a reading and a part; out come chunks: a frame of text with one column a declared column, the number
and the bytes of each of its lines, and the lines that were refused, blank or header. pandas sees only lines that are one
record each, with no quote character and no word that stands for "missing", so that real text such as ``NA`` or a lone
quote stays what it is. A frame with another number of rows than lines were given is a defect and stops the part.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import AccountingError, CatalogError
from pipeline.handoff import Part
from pipeline.transform.header import Reading
from pipeline.transform.lines import Lines, Mask, Positions, Refused, read_lines


@dataclass(frozen=True)
class Chunk:
    """Some lines of a part, read.

    Attributes:
        frame: one row a good line and one column a declared column, text or missing (a field of no characters, or for
            fixed width of blanks alone).
        raw_lines: the same lines as bytes, without their ends: ``raw_lines[row]`` belongs to row ``row`` of the frame.
        refused: the lines that are no record, with their bytes and reasons.
        blank_lines: lines without any character but blanks.
        headers: header lines, one or none.
    """

    frame: pd.DataFrame
    raw_lines: Lines
    refused: tuple[Refused, ...]
    blank_lines: int
    headers: int

    @property
    def line_numbers(self) -> Positions:
        """The number in the member, from 1, of each row's line."""
        return self.raw_lines.numbers

    @property
    def lines(self) -> int:
        """All lines of the chunk, the header included."""
        return len(self.frame) + len(self.refused) + self.blank_lines + self.headers


def read_delimited(file_path: Path, reading: Reading, part: Part | None, chunk_rows: int) -> Iterator[Chunk]:
    """Read a delimited part with ``pandas.read_csv``.

    Raises:
        CatalogError: the delimiter is no ASCII character.
        AccountingError: pandas gave another number of rows than it was given lines.
    """
    kept = {position: field for position, field in enumerate(reading.fields) if field is not None}
    layout = reading.layout
    if not layout.delimiter.isascii():
        raise CatalogError(f"the delimiter {layout.delimiter!r}", "one ASCII character", "correct the schema file")
    # A line of numbers in front: pandas would take a byte order mark at the start of its input for no text.
    header = layout.delimiter.join(map(str, range(len(reading.fields)))).encode("ascii") + b"\n"
    for lines in read_lines(file_path, part, reading, None, chunk_rows):
        frame = pd.read_csv(
            io.BytesIO(header + lines.good.joined()),
            sep=layout.delimiter,
            header=0,
            usecols=list(kept),
            index_col=False,
            dtype=str,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
            lineterminator="\n",
            encoding=layout.encoding,
            engine="c",
            low_memory=False,
        ).set_axis(list(kept.values()), axis="columns")
        _check_rows(file_path, frame, lines.good)
        yield Chunk(frame, lines.good, lines.refused, lines.blank_lines, lines.headers)


def read_fixed_width(
    file_path: Path, reading: Reading, positions: Mapping[str, tuple[int, int]], part: Part | None, chunk_rows: int
) -> Iterator[Chunk]:
    """Read a fixed-width part with ``pandas.read_fwf``.

    Args:
        file_path: the extracted member.
        reading: its fields and its layout, which must state a record width.
        positions: first and last byte of each field, from 1, inclusive.
        part: which bytes of the member; None: all.
        chunk_rows: the most lines in a chunk.

    Raises:
        AccountingError: pandas gave another number of rows than it was given lines.
    """
    names = [field for field in reading.fields if field is not None]
    colspecs = [(positions[name][0] - 1, positions[name][1]) for name in names]
    encoding = reading.layout.encoding
    for lines in read_lines(file_path, part, reading, reading.layout.record_width, chunk_rows):
        # As latin-1 a character is a byte, as positions count them; a field is decoded after it has been cut out.
        text = lines.good.joined().decode("latin-1")
        frame = pd.DataFrame({name: pd.Series(dtype=str) for name in names})
        if len(lines.good):
            frame = pd.read_fwf(
                io.StringIO(text),
                colspecs=colspecs,
                names=names,
                header=None,
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
            )
        _check_rows(file_path, frame, lines.good)
        chunk = Chunk(frame, lines.good, lines.refused, lines.blank_lines, lines.headers)
        yield chunk if text.isascii() else _decoded(chunk, encoding)


def _decoded(chunk: Chunk, encoding: str) -> Chunk:
    """Give the fields of a fixed-width chunk, read as latin-1, in their own encoding.

    A line with a field that begins or ends within a character of several bytes is refused.
    """
    fields: dict[str, list[str | None]] = {}
    broken: Mask = np.zeros(len(chunk.frame), dtype=bool)
    for name in chunk.frame.columns:
        fields[name] = values = []
        for row, value in enumerate(chunk.frame[name].array):
            try:
                values.append(value.encode("latin-1").decode(encoding) if isinstance(value, str) else None)
            except UnicodeDecodeError:
                broken[row] = True
                values.append(None)
    frame = pd.DataFrame(fields, dtype=str)[~broken].reset_index(drop=True)
    refused = tuple(
        Refused(
            int(chunk.raw_lines.numbers[row]),
            chunk.raw_lines[row],
            {"encoding": f"has a field that begins or ends within a character of {encoding}"},
        )
        for row in np.flatnonzero(broken).tolist()
    )
    return Chunk(frame, chunk.raw_lines.take(~broken), chunk.refused + refused, chunk.blank_lines, chunk.headers)


def _check_rows(file_path: Path, frame: pd.DataFrame, good: Lines) -> None:
    if len(frame) != len(good):
        begin = f" that begin at line {good.numbers[0]}" if len(good) else ""
        raise AccountingError(
            f"{file_path.name}: {len(frame)} rows were read from the {len(good)} lines{begin}",
            "one row a line",
            "this is a defect of the reader: keep the member and report it",
        )
