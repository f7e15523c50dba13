"""A long table's member, made of wide ones: a line with a cell for each category becomes a line for each cell that has a value.

In go members as the extract stage measured them, one for each column of values (HCAD published the exempt values and the rates of its
taxing districts so, in two files of a column for each exemption, up to tax year 2024); out come the bytes of a member in the form of
today, with a header, that is read, checked and counted like any other. A row has what the lines of the members say that agree in all
other columns; the second line of a member that says the same goes with the second ones of the others. Lines that agree with none, and
lines that are no record, are there, too. No line is lost and no number of one: behind the header each line of each member, in order, has
as many lines as there are categories, the ones without a row blank. Cells and headers are read as those of every member are.

The long member is made before it is read, and not rows out of wide ones while they are read: so a line is one record from here to the
ledger, as everywhere, and parts, quarantine, accounts and settling know nothing of it. Two tables of wide rows would have left the
join to every reader.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pipeline.catalog.model import Column, ColumnType, Layout, Table, Unpivot
from pipeline.errors import CatalogError, MemberError
from pipeline.handoff import Member
from pipeline.transform.header import UNCLAIMED, Reading, has_header, read_header
from pipeline.transform.layout import choose_layout
from pipeline.transform.reader import read_delimited

LINE_END: Final = b"\r\n"
CHUNK_ROWS: Final = 5_000
#: All members are held at once: they have a line a taxing district, and are a few hundred kilobytes long.
MOST_BYTES: Final = 32 << 20

Ids = tuple[str | None, ...]


@dataclass
class _Line:
    """A line of a wide member: what it is about and its cells by category; or, of one that is no record, its bytes; else blank."""

    ids: Ids = ()
    cells: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""
    is_taken: bool = False


def unpivoted(table: Table, members: Mapping[str, tuple[Member, Path]], *, year: int) -> Iterator[bytes]:
    """The bytes of the table's member, line by line with their ends.

    Args:
        table: its ``unpivot`` says what the members are.
        members: by column of values, the member and the extracted file.
        year: the tax year of the release.

    Raises:
        HeaderError, LayoutError, EmptyMember: a member is not written as the table's layout and ``[unpivot]`` say.
        MemberError: the members are longer than what is held at once.
    """
    wide = table.unpivot_of(year)
    if wide is None:
        raise CatalogError(f"{table.qualified} has no [unpivot] of {year}", "one", "read its own member")
    if (size := sum(member.bytes for member, _ in members.values())) > MOST_BYTES:
        raise MemberError(
            f"{' and '.join(wide.members.values())} have {size:,} bytes",
            f"at most {MOST_BYTES:,}: they are held at once",
            "look at the archive: they have a line a taxing district",
        )
    ids = [column for column in table.columns if column.is_read and column.name not in (wide.category, *wide.members)]
    layout = choose_layout(table, next(iter(members.values()))[0], year=year, version=None)
    lines, categories = {}, dict[str, None]()
    for value in wide.members:
        reading = _reading(table, wide, ids, layout, members[value][0])
        categories |= dict.fromkeys(_category(name) for name in reading.fields if name is not None and _category(name))
        lines[value] = _lines(*members[value], reading, [column.name for column in ids])
    yield from _written(table, wide, ids, layout, list(categories), lines)


def _reading(table: Table, wide: Unpivot, ids: Sequence[Column], layout: Layout, member: Member) -> Reading:
    """How a wide member is read: every column of its header that is none of the others is a category; without one the declared ones are."""
    plain = [replace(column, type=ColumnType("text"), rules={}, required=False) for column in ids]
    aliases = {name: names for name, names in layout.aliases.items() if name in {column.name for column in ids}}
    kept = replace(layout, unknown_columns="keep", absent=(), order=(), fingerprint={}, aliases=aliases)
    wanted = replace(table, columns=tuple(plain), key=(), parent=(), unpivot=None)
    if has_header(wanted, kept, member):
        return read_header(wanted, kept, member)
    cells = tuple(Column(f"{UNCLAIMED}{name}", ColumnType("text"), name) for name in wide.categories)
    return read_header(replace(wanted, columns=(*plain, *cells)), replace(kept, header="none"), member)


def _category(name: str) -> str:
    """The category that a field is of; empty: of none."""
    return name.removeprefix(UNCLAIMED) if name.startswith(UNCLAIMED) else ""


def _lines(member: Member, path: Path, reading: Reading, ids: Sequence[str]) -> list[_Line]:
    """All lines of a member but its header, in order."""
    found = [_Line() for _ in range(member.lines)]
    for chunk in read_delimited(path, reading, None, CHUNK_ROWS):
        texts = {name: array.to_pylist() for name, array in chunk.texts.items()}
        for row, number in enumerate(chunk.line_numbers.tolist()):
            cells = {_category(name): column[row] for name, column in texts.items() if _category(name) and column[row] is not None}
            found[number - 1] = _Line(tuple(texts[name][row] for name in ids), cells)
        for refused in chunk.refused:
            found[refused.line - 1] = _Line(raw=refused.raw)
    return [line for number, line in enumerate(found, start=1) if number != reading.header_line]


def _written(
    table: Table, wide: Unpivot, ids: Sequence[Column], layout: Layout, categories: Sequence[str], lines: Mapping[str, Sequence[_Line]]
) -> Iterator[bytes]:
    """The header, and behind it as many lines for each line of each member as there are categories."""
    columns = [column for column in table.columns if column.is_read]
    delimiter = layout.delimiter
    yield delimiter.join(column.source for column in columns).encode(layout.encoding) + LINE_END
    waiting: dict[str, defaultdict[Ids, deque[_Line]]] = {}
    for value, of_member in lines.items():
        waiting[value] = defaultdict(deque)
        for line in of_member:
            if line.ids:
                waiting[value][line.ids].append(line)
    for of_member in lines.values():
        for line in of_member:
            if line.raw:
                # With as many fields as the long form it would pass for a line of it.
                is_like_one = line.raw.count(delimiter.encode()) + 1 == len(columns)
                yield line.raw + (delimiter.encode() if is_like_one else b"") + LINE_END
                yield LINE_END * (len(categories) - 1)
                continue
            together = {}
            if line.ids and not line.is_taken:
                together = {other: queue[line.ids].popleft() for other, queue in waiting.items() if queue[line.ids]}
            for one in together.values():
                one.is_taken = True
            stated = dict(zip([column.name for column in ids], line.ids, strict=True)) if line.ids else {}
            for category in categories:
                row = {other: one.cells[category] for other, one in together.items() if category in one.cells}
                cells: dict[str, str | None] = {**stated, wide.category: category, **row}
                text = delimiter.join(cells.get(column.name) or "" for column in columns) if row else ""
                yield text.encode(layout.encoding) + LINE_END
