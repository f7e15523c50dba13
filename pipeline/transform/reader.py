"""Text fields out of a part's lines, as Arrow columns, and every line accounted for.

In goes a member, a reading and a part; out come chunks: a column of text for each declared column, the number and the
bytes of each of its lines, and the lines that were refused, blank or header. What a field's text is, is what pandas reads
(``pipeline.transform.reference``), trimmed; whole blocks of bytes are cut into columns to the same effect by the fast
readers. A line that they do not take (quotes where the layout declares them, characters of several bytes in a fixed-width
record) is read by itself, and its row stands where the line stood. A chunk with another number of rows than it had lines
is a defect and stops the part.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.catalog.model import Layout
from pipeline.errors import AccountingError, CatalogError
from pipeline.handoff import Part
from pipeline.transform.columns import decoded, in_one_piece, null_where_empty
from pipeline.transform.fast_delimited import cut_delimited
from pipeline.transform.fast_fixed import cut_fixed
from pipeline.transform.header import Reading
from pipeline.transform.lines import Lines, Mask, Positions, Refused
from pipeline.transform.quoted import cut_quoted
from pipeline.transform.reference import read_fwf
from pipeline.transform.sorting import Sorted, read_lines

Texts = dict[str, pa.StringArray]
#: The catalog's encodings besides UTF-8, by Python's own names.
_ONE_BYTE: Final = ("ascii", "cp1252", "iso8859-1")


@dataclass(frozen=True)
class Chunk:
    """Some lines of a part, read.

    Attributes:
        texts: one array a declared column, in one piece from offset zero: text without the blanks and tabs around it, NULL
            where nothing is left. Each has a value for each row.
        raw_lines: the same lines as bytes, without their ends: ``raw_lines[row]`` belongs to row ``row`` of the texts.
        is_ascii: no row's line has a byte beyond ASCII.
        has_controls: some row's line has a byte below 0x20 that is no delimiter.
        refused: the lines that are no record, with their bytes and reasons.
        blank_lines: lines without any character but blanks.
        headers: header lines, one or none.
    """

    texts: Mapping[str, pa.StringArray]
    raw_lines: Lines
    is_ascii: bool
    has_controls: bool
    refused: tuple[Refused, ...]
    blank_lines: int
    headers: int

    @property
    def rows(self) -> int:
        """How many lines are records: the length of each of the texts."""
        return len(self.raw_lines)

    @property
    def line_numbers(self) -> Positions:
        """The number in the member, from 1, of each row's line."""
        return self.raw_lines.numbers

    @property
    def lines(self) -> int:
        """All lines of the chunk, the header included."""
        return self.rows + len(self.refused) + self.blank_lines + self.headers

    @property
    def frame(self) -> pd.DataFrame:
        """The texts as pandas has them, made anew each time: for those who work with frames."""
        frame: pd.DataFrame = pa.table(dict(self.texts)).to_pandas()
        return frame


def read_delimited(file_path: Path, reading: Reading, part: Part | None, chunk_rows: int) -> Iterator[Chunk]:
    """Read a delimited part.

    Args:
        file_path: the extracted member.
        reading: its layout, header line and fields.
        part: which bytes of the member; None: all.
        chunk_rows: the most lines in a chunk.

    Raises:
        CatalogError: the delimiter is no ASCII character.
        AccountingError: there were more or fewer rows than lines.
    """
    layout = reading.layout
    if not layout.delimiter.isascii():
        raise CatalogError(f"the delimiter {layout.delimiter!r}", "one ASCII character", "correct the schema file")
    _is_one_byte(layout.encoding)
    count = len(reading.fields)
    wanted = {field: position for position, field in enumerate(reading.fields) if field is not None}

    def read(lines: Sorted) -> Chunk:
        if not lines.has_quote.any():
            texts = cut_delimited(lines.good, lines.marks, count, wanted, layout.delimiter)
            return _chunk(file_path, lines, _finished(texts, lines, layout))
        plain, quoted = lines.take(~lines.has_quote), lines.take(lines.has_quote)
        texts = _finished(cut_delimited(plain.good, plain.marks, count, wanted, layout.delimiter), plain, layout)
        others, refused = cut_quoted(quoted.good, layout, count, wanted)
        return _merged_chunk(file_path, lines, lines.has_quote, texts, others, refused)

    return map(read, read_lines(file_path, part, reading, None, chunk_rows))


def read_fixed_width(
    file_path: Path, reading: Reading, positions: Mapping[str, tuple[int, int]], part: Part | None, chunk_rows: int
) -> Iterator[Chunk]:
    """Read a fixed-width part.

    Args:
        file_path: the extracted member.
        reading: its fields and its layout, which must state a record width.
        positions: first and last byte of each field, from 1, inclusive.
        part: which bytes of the member; None: all.
        chunk_rows: the most lines in a chunk.

    Raises:
        AccountingError: there were more or fewer rows than lines.
    """
    wanted = {name: positions[name] for name in reading.fields if name is not None}
    layout, width = reading.layout, reading.record_width
    if width is None:
        raise CatalogError("a fixed-width layout without record_width", "its bytes", "correct the schema file")
    is_one_byte = _is_one_byte(layout.encoding)

    def read(lines: Sorted) -> Chunk:
        if is_one_byte or not lines.has_high.any():
            return _chunk(file_path, lines, _finished(cut_fixed(lines.good, width, wanted), lines, layout))
        plain, others = lines.take(~lines.has_high), lines.take(lines.has_high)
        texts = _finished(cut_fixed(plain.good, width, wanted), plain, layout)
        frame, broken = read_fwf(others.good, wanted, layout.encoding)
        reasons = {"encoding": f"has a field that begins or ends within a character of {layout.encoding}"}
        refused = {row: reasons for row in np.flatnonzero(broken).tolist()}
        return _merged_chunk(file_path, lines, lines.has_high, texts, _arrays(frame[~broken]), refused)

    return map(read, read_lines(file_path, part, reading, width, chunk_rows))


def _is_one_byte(encoding: str) -> bool:
    """Whether a character of the encoding is one byte, and not UTF-8's one to four.

    Raises:
        CatalogError: it is another encoding, whose line ends and delimiters need not be ASCII bytes.
    """
    name = codecs.lookup(encoding).name
    if name not in ("utf-8", *_ONE_BYTE):
        raise CatalogError(f"the encoding {encoding}", f"utf-8 or one of {', '.join(_ONE_BYTE)}", "correct the schema file")
    return name != "utf-8"


def _finished(texts: Texts, lines: Sorted, layout: Layout) -> Texts:
    """Columns of bytes as columns of text, with their NULLs."""
    if lines.has_high.any() and _is_one_byte(layout.encoding):
        texts = {name: decoded(array, layout.encoding) for name, array in texts.items()}
    return {name: null_where_empty(array) for name, array in texts.items()}


def _chunk(file_path: Path, lines: Sorted, texts: Texts) -> Chunk:
    """A chunk of lines that were all read the same way."""
    chunk = Chunk(
        texts,
        lines.good,
        not lines.has_high.any(),
        bool(lines.has_controls.any()),
        lines.refused,
        lines.blank_lines,
        lines.headers,
    )
    _check_rows(file_path, chunk)
    return chunk


def _merged_chunk(
    file_path: Path, lines: Sorted, is_other: Mask, texts: Texts, others: Texts, refused: Mapping[int, dict[str, str]]
) -> Chunk:
    """A chunk of lines that were read in two ways, in the order of the member.

    Args:
        file_path: the member.
        lines: all lines of the chunk.
        is_other: which of the good ones were read the other way.
        texts: the columns of those that were not.
        others: the columns of those that were, and that turned out to be records.
        refused: which of those that were read the other way are no records, and why.
    """
    rows = np.flatnonzero(is_other)
    broken = rows[list(refused)]
    is_record = np.ones(len(lines.good), dtype=np.bool_)
    is_record[broken] = False
    order = pa.array(np.argsort(np.concatenate((np.flatnonzero(~is_other), np.flatnonzero(is_other & is_record)))))
    merged = {name: in_one_piece([array, others[name]]).take(order) for name, array in texts.items()}
    more = tuple(lines.good.refused(row, reasons) for row, reasons in zip(broken.tolist(), refused.values(), strict=True))
    kept = lines.take(is_record)
    return _chunk(file_path, replace(kept, refused=lines.refused + more), merged)


def _arrays(frame: pd.DataFrame) -> Texts:
    """The columns of a frame."""
    return {name: pa.array(frame[name].tolist(), pa.string(), from_pandas=True) for name in frame.columns}


def _check_rows(file_path: Path, chunk: Chunk) -> None:
    for name, array in chunk.texts.items():
        if len(array) != chunk.rows:
            begin = f" that begin at line {chunk.line_numbers[0]}" if chunk.rows else ""
            raise AccountingError(
                f"{file_path.name}: {len(array)} rows of {name} were read from the {chunk.rows} lines{begin}",
                "one row a line",
                "this is a defect of the reader: keep the member and report it",
            )
