"""Each line of a chunk in its place: good, refused, blank or the header.

In go the lines of a part; out come chunks of lines, looked at before any reader sees them, by a few passes over the
block's bytes and nothing else. A line that no reader could take as one record (a wrong number of fields, a wrong width,
a CR inside, bytes that the encoding does not know) is refused by itself, with the bytes it had, and its neighbours are not
touched. A NUL or another control character is a matter of its field: the line stays. A line with a quote character
passes uncounted where the layout declares one: ``pipeline.transform.quoted`` judges it. Blank lines are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.catalog.model import Layout
from pipeline.handoff import Part
from pipeline.transform.header import Reading
from pipeline.transform.lines import CR, LF, Lines, Mask, Octets, Positions, Refused, cut_lines

_BLANK: Final = 32
#: A line whose bytes at these eighths of its length are blanks may be a blank line.
_PROBES: Final = range(9)


@dataclass(frozen=True)
class Marks:
    """Where the fields of delimited lines end.

    Attributes:
        places: in the block, of each delimiter and line feed of the chunk, and of the end of a last line without one.
        firsts: of each line, the index in ``places`` of the end of its first field.
    """

    places: Positions
    firsts: Positions

    def take(self, wanted: Mask) -> Marks:
        """Those of the lines where the mask is true."""
        return Marks(self.places, self.firsts[wanted])


@dataclass(frozen=True)
class Sorted:
    """A chunk of lines, each in its place.

    Attributes:
        good: the lines that are one record each.
        marks: delimited: where the fields of the good lines end; fixed width: nowhere.
        has_high: which good lines have a byte beyond ASCII.
        has_quote: which good lines have the layout's quote character.
        has_controls: which good lines have a byte below 0x20 that is no delimiter.
        refused: the lines that are no record.
        blank_lines: how many lines have no byte but blanks.
        headers: how many lines are the header: one or none.
    """

    good: Lines
    marks: Marks
    has_high: Mask
    has_quote: Mask
    has_controls: Mask
    refused: tuple[Refused, ...]
    blank_lines: int
    headers: int

    def take(self, wanted: Mask) -> Sorted:
        """Some of the good lines, and all that is said of the others."""
        return replace(
            self,
            good=self.good.take(wanted),
            marks=self.marks.take(wanted),
            has_high=self.has_high[wanted],
            has_quote=self.has_quote[wanted],
            has_controls=self.has_controls[wanted],
        )


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
    # Unlike a loop, map keeps no chunk while the next one is read.
    return map(lambda lines: _sort(lines, reading, record_width), cut_lines(file_path, part, chunk_rows))


def _sort(lines: Lines, reading: Reading, record_width: int | None) -> Sorted:
    """Put each line of a chunk in its place."""
    layout = reading.layout
    is_header = lines.numbers == (reading.header_line or 0)
    is_blank = _blank(lines)
    has_quote = _none(lines)
    octets = _bytes(lines)
    is_ascii = octets.max(initial=0) < 128
    has_high = _none(lines) if is_ascii else _lines_at(lines, np.flatnonzero(octets >= 128))
    reasons: dict[str, tuple[str, Mask]] = {}
    if record_width is not None:
        marks = Marks(np.empty(0, np.int64), np.zeros(len(lines), np.int64))
        is_other = lines.ends - lines.starts != record_width
        reasons["record_width"] = (f"has another length than {record_width} bytes", is_other)
        has_controls, has_cr = _controls(lines, None, 0)
    else:
        fields = len(reading.fields)
        if quote := layout.quote:
            has_quote = _lines_at(lines, np.flatnonzero(octets == ord(quote)))
        marks, seen = _mark(lines, layout, fields)
        is_other = (seen != fields) & ~has_quote
        reasons["field_count"] = (f"has another number of fields than {fields}", is_other)
        has_controls, has_cr = _controls(lines, ord(layout.delimiter), len(marks.places) - len(lines))
    reasons["carriage_return"] = ("has a carriage return inside", has_cr)
    undecodable = _undecodable(lines, has_high, layout.encoding)
    reasons["encoding"] = (f"has bytes that are no {layout.encoding}", undecodable)
    is_bad = np.logical_or.reduce([mask for _, mask in reasons.values()]) & ~is_header & ~is_blank
    refused = tuple(
        lines.refused(row, {reason: message for reason, (message, mask) in reasons.items() if mask[row]})
        for row in np.flatnonzero(is_bad).tolist()
    )
    whole = Sorted(
        lines, marks, has_high, has_quote, has_controls, refused, int((is_blank & ~is_header).sum()), int(is_header.sum())
    )
    is_good = ~(is_bad | is_header | is_blank)
    return whole if is_good.all() else whole.take(is_good)


def _none(lines: Lines) -> Mask:
    """No line."""
    return np.zeros(len(lines), dtype=np.bool_)


def _bytes(lines: Lines) -> Octets:
    """The bytes from the first line to the last, without its end."""
    return lines.octets[lines.starts[0] : lines.ends[-1]]


def _lines_at(lines: Lines, places: Positions) -> Mask:
    """The lines in which the places lie, given from the start of the first line."""
    mask = np.zeros(len(lines), dtype=np.bool_)
    mask[np.searchsorted(lines.starts, places + lines.starts[0], side="right") - 1] = True
    return mask


def _blank(lines: Lines) -> Mask:
    """Which lines have no byte but blanks."""
    mask = np.zeros(len(lines), dtype=np.bool_)
    lengths = lines.ends - lines.starts
    mask[lengths == 0] = True
    maybe = np.flatnonzero(lengths)
    for eighth in _PROBES:
        places = lines.starts[maybe] + (lengths[maybe] - 1) * eighth // (len(_PROBES) - 1)
        maybe = maybe[lines.octets[places] == _BLANK]
    for row in maybe.tolist():
        mask[row] = not lines[row].strip(b" ")
    return mask


def _mark(lines: Lines, layout: Layout, fields: int) -> tuple[Marks, Positions]:
    """Where the fields of each line end, and how many it has."""
    octets, first, last = lines.octets, int(lines.starts[0]), int(lines.ends[-1])
    end = last + 1 + lines.block[last : last + 2].find(b"\n")  # behind its line feed; ``last`` where it has none
    view = octets[first:end]
    places = np.flatnonzero((view == ord(layout.delimiter)) | (view == LF)).astype(np.int64, copy=False)
    places += first
    if end == last:
        places = np.append(places, last)
    if len(places) == len(lines) * fields and (octets[places[fields - 1 : -1 : fields]] == LF).all():
        return Marks(places, np.arange(0, len(places), fields)), np.full(len(lines), fields)
    line_ends = np.append(np.flatnonzero(octets[places[:-1]] == LF), len(places) - 1)
    firsts = np.concatenate((np.zeros(1, np.int64), line_ends[:-1] + 1))
    return Marks(places, firsts), line_ends + 1 - firsts


def _controls(lines: Lines, delimiter: int | None, delimiters: int) -> tuple[Mask, Mask]:
    """Which lines have a byte below 0x20 besides the delimiter, and which a CR; line ends do not count.

    To count these bytes is many times as fast as to find them, and there are nearly always as many as are known already.
    """
    view = _bytes(lines)
    is_low = view < _BLANK
    known = int((lines.starts[1:] - lines.ends[:-1]).sum())  # the bytes of the line ends
    if delimiter is not None and delimiter < _BLANK:
        known += delimiters
    if np.count_nonzero(is_low) == known:
        return _none(lines), _none(lines)
    is_low &= view != LF
    if delimiter is not None:
        is_low &= view != delimiter
    places = np.flatnonzero(is_low) + lines.starts[0]
    rows = np.searchsorted(lines.starts, places, side="right") - 1
    is_inside = places < lines.ends[rows]
    places, rows = places[is_inside], rows[is_inside]
    has_controls, has_cr = _none(lines), _none(lines)
    has_controls[rows] = True
    has_cr[rows[lines.octets[places] == CR]] = True
    return has_controls, has_cr


def _undecodable(lines: Lines, has_high: Mask, encoding: str) -> Mask:
    """Which lines have bytes that the encoding does not define; it must know ASCII as ASCII."""
    mask = _none(lines)
    if not has_high.any():
        return mask
    try:
        lines.take(has_high).joined().decode(encoding)
    except UnicodeDecodeError:
        for row in np.flatnonzero(has_high).tolist():
            try:
                lines[row].decode(encoding)
            except UnicodeDecodeError:
                mask[row] = True
    return mask
