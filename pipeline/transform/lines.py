"""The lines of a part, cut out of the member's bytes and looked at before any parser sees them.

In goes a byte range of a member; out come chunks of at most so many lines and about so many bytes, each line numbered
over the member. A line ends with LF, and one CR before it belongs to the end. Blank lines are counted; a line that no
parser could read as one record (a wrong number of fields, a wrong width, a NUL byte, a CR inside, bytes that the encoding does
not know) is refused by itself, with the bytes it had, and its neighbours are not touched. Every line is in exactly one
of these places: good, refused, blank, or the header. Quotes are ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.handoff import Part
from pipeline.transform.header import Reading

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Read at once: bounds the memory of a chunk of wide records (9,922 bytes in PACS), whatever its rows.
BLOCK_BYTES: Final = 16 * 1024 * 1024
_LF, _CR, _NUL, _BLANK = 10, 13, 0, 32
_UTF8_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Refused:
    """A line that is no record: its number in the member, its bytes without the line end, and reason -> message."""

    line: int
    raw: bytes
    reasons: dict[str, str]


@dataclass(frozen=True)
class Lines:
    """Lines as places in one block of bytes; a line is copied out only when asked for."""

    block: bytes
    starts: Positions
    ends: Positions
    numbers: Positions

    def __len__(self) -> int:
        """How many lines."""
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        """A line's bytes, without its end."""
        return self.block[self.starts[index] : self.ends[index]]

    def take(self, mask: Mask) -> Lines:
        """The lines where the mask is true."""
        return Lines(self.block, self.starts[mask], self.ends[mask], self.numbers[mask])

    def joined(self) -> bytes:
        """The lines, each ended by LF."""
        places = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return b"".join(self.block[start:end] + b"\n" for start, end in places)


@dataclass(frozen=True)
class Sorted:
    """A chunk of lines, each in its place; ``headers`` and ``blank_lines`` are counts."""

    good: Lines
    refused: tuple[Refused, ...]
    blank_lines: int
    headers: int


def read_lines(
    file_path: Path, part: Part | None, reading: Reading, record_width: int | None, chunk_rows: int
) -> Iterator[Sorted]:
    """Read a part's lines in chunks, sorted into good, refused, blank and header.

    Args:
        file_path: the extracted member.
        part: which bytes of it; None: all.
        reading: its layout, its header line and its fields.
        record_width: fixed width: bytes of a record; None: delimited, the fields of ``reading`` count.
        chunk_rows: the most lines in a chunk.
    """
    for lines in _chunks(file_path, part, chunk_rows):
        yield _sort(lines, reading, record_width)


def _chunks(file_path: Path, part: Part | None, chunk_rows: int) -> Iterator[Lines]:
    """The lines of the byte range."""
    start, number = (0, 1) if part is None else (part.start, part.first_line)
    for block in _blocks(file_path, start, None if part is None else part.end):
        lines = _cut(block, number)
        if number == 1 and block.startswith(_UTF8_MARK):  # a byte order mark is no text of the first field
            lines.starts[0] = min(len(_UTF8_MARK), lines.ends[0])
        for first in range(0, len(lines), chunk_rows):
            piece = slice(first, first + chunk_rows)
            yield Lines(block, lines.starts[piece], lines.ends[piece], lines.numbers[piece])
        number += len(lines)


def _blocks(file_path: Path, start: int, end: int | None) -> Iterator[bytes]:
    """The range in blocks that end after a line feed, but for the last; a longer line makes a longer block."""
    with open(file_path, "rb") as member:
        member.seek(start)
        pieces: list[bytes] = []
        while True:
            left = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - member.tell())
            piece = member.read(left) if left > 0 else b""
            if not piece:
                break
            cut = piece.rfind(b"\n") + 1
            if not cut:
                pieces.append(piece)
                continue
            yield b"".join((*pieces, piece[:cut]))
            pieces = [piece[cut:]]
        rest = b"".join(pieces)
        if rest:
            yield rest


def _cut(block: bytes, number: int) -> Lines:
    """All lines of a block."""
    octets = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(octets == _LF).astype(np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), ends + 1))
    if len(ends) and ends[-1] == len(block) - 1:
        starts = starts[:-1]
    else:
        ends = np.append(ends, len(block))
    is_crlf = (ends > starts) & (ends < len(block))
    is_crlf &= octets[np.maximum(ends - 1, 0)] == _CR
    return Lines(block, starts, ends - is_crlf, np.arange(number, number + len(starts), dtype=np.int64))


def _sort(lines: Lines, reading: Reading, record_width: int | None) -> Sorted:
    """Put each line of a chunk in its place."""
    is_header = lines.numbers == (reading.header_line or 0)
    is_blank = _count(lines, _BLANK) == lines.ends - lines.starts
    found: list[tuple[str, str, Mask]] = []
    lengths = lines.ends - lines.starts
    if record_width is not None:
        found.append(("record_width", f"has another length than {record_width} bytes", lengths != record_width))
    else:
        fields = len(reading.fields)
        delimiters = _count(lines, ord(reading.layout.delimiter))
        found.append(("field_count", f"has another number of fields than {fields}", delimiters != fields - 1))
    found.append(("nul_byte", "has a NUL byte", _count(lines, _NUL) > 0))
    found.append(("carriage_return", "has a carriage return inside", _count(lines, _CR) > 0))
    encoding = reading.layout.encoding
    found.append(("encoding", f"has bytes that are no {encoding}", _undecodable(lines, encoding)))
    is_bad = np.logical_or.reduce([mask for _, _, mask in found]) & ~is_header & ~is_blank
    refused = tuple(
        Refused(int(lines.numbers[row]), lines[row], {reason: message for reason, message, mask in found if mask[row]})
        for row in np.flatnonzero(is_bad).tolist()
    )
    is_good = ~(is_bad | is_header | is_blank)
    return Sorted(
        lines if is_good.all() else lines.take(is_good),
        refused,
        int((is_blank & ~is_header).sum()),
        int(is_header.sum()),
    )


def _count(lines: Lines, octet: int) -> Positions:
    """How often a byte stands in each line."""
    first, last = int(lines.starts[0]), int(lines.ends[-1])
    places = np.flatnonzero(np.frombuffer(lines.block, np.uint8, last - first, first) == octet) + first
    counts: Positions = np.searchsorted(places, lines.ends) - np.searchsorted(places, lines.starts)
    return counts


def _undecodable(lines: Lines, encoding: str) -> Mask:
    """Which lines have bytes that the encoding does not define."""
    mask = np.zeros(len(lines), dtype=bool)
    try:
        lines.block[lines.starts[0] : lines.ends[-1]].decode(encoding)
    except UnicodeDecodeError:
        for row in range(len(lines)):
            try:
                lines[row].decode(encoding)
            except UnicodeDecodeError:
                mask[row] = True
    return mask
