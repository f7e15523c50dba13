"""Which column stands where in a member, decided once a member from its first and last line.

In goes a table, the layout chosen for the member and the member as measured; out comes a ``Reading``: the line that is
the header, if any, and our column's name for each field. A header is known by its content, not by its place: districts
have sent it as the first line, as the last line of a sorted file, and not at all. Columns are matched by name or alias,
whatever their case, the blanks around them and their order. A wanted column that is missing, or there twice, stops the
member with a message that lists what is there, what is missing, what is new and the closest names. Without a header the
fields are taken in the layout's order, or else in that of the schema file, and only when their number is the same. Columns
that are computed, or that keep what the others do not claim, have no name in a header and no place in that order.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from pipeline.catalog.model import Column, Layout, Table
from pipeline.errors import CatalogError, EmptyMember, HeaderError
from pipeline.handoff import Member
from pipeline.transform.quoted import split_fields

#: A line with this share of the wanted names is a header. Values can equal a name by chance (real_acct's value status
#: ``Noticed`` is also the name of a column), half of them cannot.
_HEADER_SHARE = 0.5
#: Between this share and the one above, a line is neither surely a header nor surely data: the member is refused.
_DOUBTFUL_SHARE = 0.25

#: Before the name, as the header has it, of a field that no column claims and that is kept; no column's name begins so.
UNCLAIMED: Final = "*"

_TREATED: Final = {"refuse": "refused", "ignore": "ignored", "keep": "kept"}

_UTF8_MARK = "\xef\xbb\xbf"  # as latin-1 shows it


@dataclass(frozen=True)
class Reading:
    """How to read one member.

    Attributes:
        layout: the layout that was chosen for it.
        header_line: the number of the header line, from 1 over the member; None: it has none.
        fields: delimited: our column's name for each field of a line, in file order, None for a field that is ignored; a field
            that is kept though no column claims it has its name in the header, after :data:`UNCLAIMED`.
            Fixed width: the names of the columns that have a position, in schema order.
        notes: what an operator should know (fields that are ignored or kept, columns in another order), without any value.
        line_end_bytes: fixed width: how many bytes of the layout's record width are the line end.
    """

    layout: Layout
    header_line: int | None
    fields: tuple[str | None, ...]
    notes: tuple[str, ...] = ()
    line_end_bytes: int = 0

    @property
    def record_width(self) -> int | None:
        """Fixed width: bytes of a record without its line end."""
        return None if self.layout.record_width is None else self.layout.record_width - self.line_end_bytes


def read_header(table: Table, layout: Layout, member: Member) -> Reading:
    """Decide which line of a member is its header and which column each field is.

    Raises:
        EmptyMember: there is no line besides the header and blank lines.
        HeaderError: a wanted column is missing, renamed or there twice; a column is unknown and the layout refuses
            unknown columns; or there is no header and the number of fields is not the schema's.
    """
    wanted = [column for column in table.columns if column.is_read and column.name not in layout.absent]
    if layout.format == "fixed_width":
        _refuse_empty(table, member, header_lines=0)
        return Reading(layout, None, tuple(column.name for column in wanted), line_end_bytes=line_end_bytes(layout, member))
    place = _header_place(table, layout, member, wanted)
    _refuse_empty(table, member, header_lines=0 if place == "none" else 1)
    if place == "none":
        return _read_without_header(table, layout, member, wanted)
    cells = _cells(member.first_line if place == "first" else member.last_line, layout)
    fields, notes = _match(table, layout, member, wanted, cells)
    return Reading(layout, 1 if place == "first" else member.lines, fields, notes)


def has_header(table: Table, layout: Layout, member: Member) -> bool:
    """Whether a line of a member is the header, by its content.

    Raises:
        HeaderError: the first and the last line are both, or one is by half.
    """
    wanted = [column for column in table.columns if column.is_read and column.name not in layout.absent]
    return _header_place(table, layout, member, wanted) != "none"


def field_positions(table: Table, reading: Reading) -> dict[str, tuple[int, int]]:
    """Fixed width: first and last byte of each field, from 1, inclusive.

    Raises:
        CatalogError: a field has no position.
    """
    positions = {}
    for name in filter(None, reading.fields):
        column = table.column(name)
        start, end = reading.layout.positions.get(name, (column.start, column.end))
        if start is None or end is None:
            raise CatalogError(f"{table.qualified}.{name} has no position", "start and end", "correct the schema file")
        positions[name] = (start, end)
    return positions


def line_end_bytes(layout: Layout, member: Member) -> int:
    """How many bytes of the layout's record width are the line end: none, or as many as the member's line ends have."""
    if not layout.includes_line_end:
        return 0
    return 2 if member.crlf > member.lf else 1


def _header_place(
    table: Table, layout: Layout, member: Member, wanted: Sequence[Column]
) -> Literal["first", "last", "none"]:
    """Where the header is: as declared, or found by content."""
    if layout.header != "detect":
        return layout.header
    names = [_names(column, layout) for column in wanted]
    shares: dict[Literal["first", "last"], float] = {}
    lines: tuple[tuple[Literal["first", "last"], str], ...] = (("first", member.first_line), ("last", member.last_line))
    for place, line in lines:
        cells = {_fold(cell) for cell in _cells(line, layout)}
        found = sum(1 for name in names if not name.isdisjoint(cells))
        shares[place] = found / len(names)
        if found >= 2 and _DOUBTFUL_SHARE <= shares[place] < _HEADER_SHARE:
            _refuse(table, layout, member, wanted, _cells(line, layout), f"the {place} line is a header for a part only")
    headers = [place for place, share in shares.items() if share >= _HEADER_SHARE]
    if len(headers) == 2 and member.lines > 1:
        _refuse(table, layout, member, wanted, _cells(member.last_line, layout), "the first and the last line are headers")
    return headers[0] if headers else "none"


def _read_without_header(table: Table, layout: Layout, member: Member, wanted: Sequence[Column]) -> Reading:
    """Take the fields in the layout's order, or that of the schema file, if their number fits.

    The first or the last line may be a broken one; one of them with the right number is enough, for every line is
    checked by itself later on.
    """
    counts = [len(_cells(line, layout)) for line in (member.first_line, member.last_line)]
    if len(wanted) not in counts:
        raise HeaderError(
            f"{member.name} has no header, and {counts[0]} fields in its first line, {counts[1]} in its last",
            f"the {len(wanted)} columns of {table.qualified} in the order of its schema file or layout, or a header that names them",
            "compare the member with the publisher's layout and correct the schema file",
        )
    if layout.order:
        return Reading(layout, None, layout.order, ("no header: columns in the layout's order",))
    return Reading(layout, None, tuple(column.name for column in wanted), ("no header: columns in the schema's order",))


def _match(
    table: Table, layout: Layout, member: Member, wanted: Sequence[Column], cells: Sequence[str]
) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """Our name for each cell of the header, and notes."""
    by_name = {name: column.name for column in wanted for name in _names(column, layout)}
    fields: tuple[str | None, ...] = tuple(by_name.get(_fold(cell)) for cell in cells)
    known = [field for field in fields if field is not None]
    repeated = sorted({field for field in known if known.count(field) > 1})
    if repeated:
        _refuse(table, layout, member, wanted, cells, f"columns that stand there more than once: {', '.join(repeated)}")
    if len(known) < len(wanted):
        _refuse(table, layout, member, wanted, cells, "the header lacks wanted columns")
    unknown = [cell.strip() or "(blank)" for cell, field in zip(cells, fields, strict=True) if field is None]
    if unknown and layout.unknown_columns == "refuse":
        _refuse(table, layout, member, wanted, cells, "the header has columns that the schema does not name")
    notes = []
    if unknown and layout.unknown_columns == "keep":
        twice = sorted({name for name in unknown if unknown.count(name) > 1})
        if twice:
            _refuse(table, layout, member, wanted, cells, f"columns to keep that stand there more than once: {', '.join(twice)}")
        fields = tuple(field or f"{UNCLAIMED}{cell.strip()}" for cell, field in zip(cells, fields, strict=True))
        notes.append(f"columns kept, which the schema does not name: {', '.join(unknown)}")
    elif unknown:
        notes.append(f"columns ignored, which the schema does not name: {', '.join(unknown)}")
    if known != [column.name for column in wanted]:
        notes.append("columns in another order than the schema's")
    return fields, tuple(notes)


def _refuse(
    table: Table, layout: Layout, member: Member, wanted: Sequence[Column], cells: Sequence[str], why: str
) -> NoReturn:
    """Raise HeaderError with all that a person needs to mend the schema file."""
    there = [cell.strip() for cell in cells]
    folded = [_fold(cell) for cell in cells]
    missing = [column for column in wanted if _names(column, layout).isdisjoint(folded)]
    known = {name for column in wanted for name in _names(column, layout)}
    new = [cell for cell, fold in zip(there, folded, strict=True) if fold not in known]
    lines = [why, f"there: {', '.join(there)}"]
    if missing:
        lines.append(f"missing: {', '.join(column.source for column in missing)}")
    if new:
        lines.append(f"new: {', '.join(cell or '(blank)' for cell in new)}")
    for column in missing:
        closest = difflib.get_close_matches(_fold(column.source), [_fold(cell) for cell in new], n=2)
        if closest:
            lines.append(f"closest to {column.source}: {', '.join(closest)}")
    raise HeaderError(
        f"{member.name}: {'; '.join(lines)}",
        f"each of the {len(wanted)} columns of {table.qualified} once, unknown columns {_TREATED[layout.unknown_columns]}",
        "if the publisher renamed or added a column, add an alias or the column to the schema file",
    )


def _refuse_empty(table: Table, member: Member, header_lines: int) -> None:
    """Raise EmptyMember when nothing but the header and blank lines is there."""
    blank = member.widths.get(0, 0)
    if member.lines - blank - header_lines <= 0:
        raise EmptyMember(
            f"{member.name} has {member.lines} lines, of which {header_lines} header and {blank} blank, and no data record",
            f"records of {table.qualified}",
            "look at the archive on the publisher's site; the published rows stay as they are",
        )


def _cells(line: str, layout: Layout) -> list[str]:
    """The cells of a line that came decoded as latin-1; a byte order mark in front is dropped."""
    text = line.removeprefix(_UTF8_MARK).encode("latin-1").decode(layout.encoding, errors="replace").rstrip("\r")
    try:
        return split_fields(text, layout)
    except csv.Error:  # a broken record, which is refused by itself later on
        return text.split(layout.delimiter)


def _names(column: Column, layout: Layout) -> set[str]:
    """All names, folded, under which a header may show a column."""
    return {_fold(name) for name in (column.source, *column.aliases, *layout.aliases.get(column.name, ()))}


def _fold(name: str) -> str:
    """A name without regard to case and blanks around it."""
    return name.strip().lower()
