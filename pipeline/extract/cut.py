"""Measures a member while it is inflated, and cuts it into parts after line ends.

Chunks go in as they come; out come the line count, first and last line, kinds of line ends, a histogram of widths and the
parts. Memory does not depend on the length of the member or of a line. How the bytes fall into chunks makes no difference,
and parts of any size describe the same lines. A line ends with LF; one CR before it belongs to the end, any other CR to
the line. Newlines are found by numpy, a chunk at a time: a loop over lines in Python would be slower than the inflating.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.handoff import Part

HEAD_BYTES = 65_536
COMMON_WIDTHS = 32

_CR, _LF = 13, 10


@dataclass(frozen=True)
class Measure:
    """What a member's bytes are; the fields are those of ``handoff.Member``."""

    bytes: int
    lines: int
    first_line: str
    last_line: str
    crlf: int
    lf: int
    unterminated: bool
    widths: Mapping[int, int]
    other_widths: int
    parts: tuple[Part, ...]


class LineCutter:
    """Takes a member's bytes and gives its :class:`Measure`.

    Args:
        part_bytes: a part ends with the first line that makes it this long, in bytes.
    """

    def __init__(self, part_bytes: int) -> None:
        if part_bytes < 1:
            raise ValueError(f"part_bytes is {part_bytes}")
        self._part_bytes = part_bytes
        self._at = 0
        self._lines = 0
        self._crlf = 0
        self._widths: Counter[int] = Counter()
        self._first_line: bytes | None = None
        self._last_line = b""
        # The line that the next chunk goes on with: where it starts, its first bytes, whether its last byte so far is a CR.
        self._line_start = 0
        self._open_head = b""
        self._open_ends_in_cr = False
        self._parts: list[Part] = []
        self._part_start = 0
        self._part_first_line = 1

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if not chunk:
            return
        octets = np.frombuffer(chunk, dtype=np.uint8)
        feeds = np.flatnonzero(octets == _LF)
        if len(feeds):
            self._end_lines(chunk, octets, feeds)
            rest = int(feeds[-1]) + 1
            self._line_start = self._at + rest
            self._open_head = chunk[rest : rest + HEAD_BYTES]
            self._open_ends_in_cr = rest < len(chunk) and chunk[-1] == _CR
        else:
            self._open_head += chunk[: HEAD_BYTES - len(self._open_head)]
            self._open_ends_in_cr = chunk[-1] == _CR
        self._at += len(chunk)

    def finish(self) -> Measure:
        """Close the last line and the last part; call once, after the last chunk."""
        lf = self._lines - self._crlf
        unterminated = self._at > self._line_start
        if unterminated:
            self._lines += 1
            self._widths[self._at - self._line_start] += 1
            self._last_line = self._open_head
            if self._first_line is None:
                self._first_line = self._open_head
        if self._at > self._part_start:
            self._end_part(self._at, self._lines)
        by_count = sorted(self._widths.items(), key=lambda item: (-item[1], item[0]))
        return Measure(
            bytes=self._at,
            lines=self._lines,
            first_line=(self._first_line or b"").decode("latin-1"),
            last_line=self._last_line.decode("latin-1"),
            crlf=self._crlf,
            lf=lf,
            unterminated=unterminated,
            widths=dict(by_count[:COMMON_WIDTHS]),
            other_widths=sum(count for _, count in by_count[COMMON_WIDTHS:]),
            parts=tuple(self._parts),
        )

    def _end_lines(self, chunk: bytes, octets: npt.NDArray[np.uint8], feeds: npt.NDArray[np.int64]) -> None:
        """Account for the lines that end in this chunk; ``feeds`` are the offsets of their LFs in it."""
        ends = feeds + self._at
        starts = np.empty_like(ends)
        starts[0], starts[1:] = self._line_start, ends[:-1] + 1
        # feeds[0] - 1 may be -1: then the byte before is the last of the chunk before, looked at separately.
        has_cr = octets[feeds - 1] == _CR
        if feeds[0] == 0:
            has_cr[0] = self._open_ends_in_cr
        widths = ends - starts - has_cr
        self._crlf += int(np.count_nonzero(has_cr))
        self._count_widths(widths)
        if self._first_line is None:
            self._first_line = self._line(chunk, 0, int(feeds[0]), int(widths[0]))
        after = int(feeds[-2]) + 1 if len(feeds) > 1 else 0
        self._last_line = self._line(chunk, after, int(feeds[-1]), int(widths[-1]))
        self._end_parts(ends + 1)
        self._lines += len(feeds)

    def _line(self, chunk: bytes, start: int, end: int, width: int) -> bytes:
        """The first bytes of the line that ends in this chunk; one that starts at 0 may have begun in an earlier chunk."""
        head = self._open_head if start == 0 else b""
        return (head + chunk[start : min(end, start + HEAD_BYTES)])[: min(width, HEAD_BYTES)]

    def _count_widths(self, widths: npt.NDArray[np.int64]) -> None:
        values, counts = np.unique(widths, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._widths[value] += count

    def _end_parts(self, after: npt.NDArray[np.int64]) -> None:
        """End every part that one of these line ends makes long enough; ``after`` are offsets in the member."""
        while True:
            line = int(np.searchsorted(after, self._part_start + self._part_bytes, side="left"))
            if line == len(after):
                return
            self._end_part(int(after[line]), self._lines + line + 1)

    def _end_part(self, end: int, last_line: int) -> None:
        lines = last_line - self._part_first_line + 1
        self._parts.append(Part(len(self._parts), self._part_start, end, self._part_first_line, lines))
        self._part_start, self._part_first_line = end, last_line + 1
