"""The lines of a part, cut out of the member's bytes by the block.

In goes a byte range of a member; out come runs of at most so many lines, all within one block of about so many bytes, each
line numbered over the member. A line ends with LF, and one CR before it belongs to the end. A line is its place in the
block: nothing is copied until somebody asks for its bytes. What a line is (record, blank, header, refused) is decided
in ``pipeline.transform.sorting``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.handoff import Part

Octets = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Read at once: bounds the memory of a chunk of wide records (9,922 bytes in PACS), whatever its rows.
BLOCK_BYTES: Final = 8 * 1024 * 1024
LF: Final = 10
CR: Final = 13
_UTF8_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Refused:
    """A line that is no record: its number in the member, its place there, its bytes without the line end, reason -> message."""

    line: int
    byte_offset: int
    raw: bytes
    reasons: dict[str, str]


@dataclass(frozen=True)
class Lines:
    """Lines as places in one block of bytes; a line is copied out only when asked for.

    Attributes:
        block: the bytes.
        block_offset: where the block begins in the member.
        starts: of each line, its first byte in the block; in ascending order.
        ends: of each line, the byte after its last one, without the line end.
        numbers: of each line, its number in the member, from 1.
    """

    block: bytes
    block_offset: int
    starts: Positions
    ends: Positions
    numbers: Positions

    def __len__(self) -> int:
        """How many lines."""
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        """A line's bytes, without its end."""
        return self.block[self.starts[index] : self.ends[index]]

    @property
    def octets(self) -> Octets:
        """The whole block as numbers, not copied."""
        return np.frombuffer(self.block, np.uint8)

    def byte_offset(self, row: int) -> int:
        """Where a line begins in the member, in bytes from 0; a byte order mark is no part of the first line."""
        return self.block_offset + int(self.starts[row])

    def take(self, wanted: Mask | slice) -> Lines:
        """The lines where a mask is true, or of a slice."""
        return Lines(self.block, self.block_offset, self.starts[wanted], self.ends[wanted], self.numbers[wanted])

    def refused(self, row: int, reasons: dict[str, str]) -> Refused:
        """A line as one that is refused for these reasons."""
        return Refused(int(self.numbers[row]), self.byte_offset(row), self[row], reasons)

    def joined(self) -> bytes:
        """The lines, each ended by LF."""
        places = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return b"".join(self.block[start:end] + b"\n" for start, end in places)


def cut_lines(file_path: Path, part: Part | None, chunk_rows: int) -> Iterator[Lines]:
    """The lines of a byte range in runs of at most ``chunk_rows``, none of which is empty.

    Args:
        file_path: the extracted member.
        part: which bytes of it; None: all.
        chunk_rows: the most lines in a run.
    """
    offset, number = (0, 1) if part is None else (part.start, part.first_line)
    for block, end in _blocks(file_path, offset, None if part is None else part.end):
        lines = _cut(block, end, offset, number)
        for first in range(0, len(lines), chunk_rows):
            yield lines.take(slice(first, first + chunk_rows))
        number += len(lines)
        offset += end
        del block, lines  # before the next block is read


def _blocks(file_path: Path, start: int, stop: int | None) -> Iterator[tuple[bytes, int]]:
    """The range in blocks, and for each where its last whole line ends; a longer line makes a longer block.

    The rest of a block is read again with the next one: to copy a block costs more than to read a line twice.
    """
    with open(file_path, "rb", buffering=0) as member:
        member.seek(start)
        while True:
            pieces: list[bytes] = []
            end = 0
            while not end:
                left = BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - member.tell())
                pieces.append(member.read(left) if left > 0 else b"")
                if not pieces[-1]:  # what is left is a line without an end
                    break
                end = pieces[-1].rfind(b"\n") + 1
            rest = len(pieces[-1]) - end
            block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            del pieces
            if not block:
                return
            member.seek(-rest, os.SEEK_CUR)
            yield block, len(block) - rest
            del block


def _cut(block: bytes, stop: int, offset: int, number: int) -> Lines:
    """All lines of a block up to ``stop``, which is behind a line feed or behind the last line of the part."""
    octets = np.frombuffer(block, np.uint8, stop)
    ends = np.flatnonzero(octets == LF).astype(np.int64, copy=False)
    starts = np.concatenate((np.zeros(1, np.int64), ends + 1))
    if len(ends) and ends[-1] == stop - 1:
        starts = starts[:-1]
    else:
        ends = np.append(ends, stop)
    is_crlf = (ends > starts) & (ends < stop)
    is_crlf &= octets[np.maximum(ends - 1, 0)] == CR
    ends = ends - is_crlf
    if number == 1 and block.startswith(_UTF8_MARK):  # a byte order mark is no text of the first field
        starts[0] = min(len(_UTF8_MARK), ends[0])
    return Lines(block, offset, starts, ends, np.arange(number, number + len(starts), dtype=np.int64))
