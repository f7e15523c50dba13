"""Which declared layout a member is written in, decided once a member and never guessed.

In goes a table of the catalog and a member as the extract stage measured it; out comes the first of the table's layouts
whose tax years, export versions and record width all fit, or an error that says what was seen and what is declared.
The record width is the commonest width of the member's lines, so that a few short lines do not hide the layout, and
each of them is refused by itself later on. A member in UTF-16, or compressed once more inside its archive, is recognised
and refused here, before anything reads it as text. ``read_header`` (see ``pipeline.transform.header``) then says which column stands where.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.catalog.model import Expectation, Layout, Table, VersionField
from pipeline.errors import EmptyMember, LayoutError, VintageError
from pipeline.handoff import Member
from pipeline.transform.header import Reading, line_end_bytes, read_header

__all__ = ["Reading", "check_expected", "choose_layout", "read_header", "read_version"]

_UTF16_MARKS = ("\xff\xfe", "\xfe\xff")
#: How compressed files begin, as latin-1 shows it.
_COMPRESSED = {
    "\x1f\x8b": "gzip", "PK\x03\x04": "zip", "\xfd7zXZ\0": "xz", "\x28\xb5\x2f\xfd": "Zstandard", "7z\xbc\xaf\x27\x1c": "7z",
    **{f"BZh{level}1AY&SY": "bzip2" for level in range(1, 10)},
}  # fmt: skip


def choose_layout(table: Table, member: Member, *, year: int, version: str | None) -> Layout:
    """Choose the layout that a member is written in.

    Args:
        table: the table that the member feeds.
        member: the member as measured; its widths decide where a layout declares a record width.
        year: the tax year of the release.
        version: the export version that the release states (see :func:`read_version`), or None.

    Returns:
        The first layout of the table, in the order of its file, that fits.

    Raises:
        EmptyMember: the member has no line, or blank ones only.
        LayoutError: no layout fits, or the member is UTF-16, or compressed inside its archive.
    """
    _refuse_utf16(table, member)
    _refuse_compressed(table, member)
    widths = {width: count for width, count in member.widths.items() if width > 0}
    if not widths and not member.other_widths:
        raise EmptyMember(
            f"{member.name} ({member.bytes} bytes, {member.lines} lines) has no data record",
            f"records of {table.qualified}",
            "look at the archive on the publisher's site; the published rows stay as they are",
        )
    commonest = max(widths, key=lambda width: (widths[width], width), default=None)
    for layout in table.layouts:
        if _fits(layout, member, year, version, commonest):
            return layout
    seen_widths = ", ".join(f"{width} ({count} lines)" for width, count in sorted(widths.items(), key=lambda item: -item[1])[:5])
    raise LayoutError(
        f"{member.name} of tax year {year}, export version {version or 'not stated'}, has record widths {seen_widths}",
        f"one of the layouts of {table.qualified}: " + "; ".join(_describe(layout) for layout in table.layouts),
        "compare the member with the publisher's layout document and add a [[layout]] to the schema file",
    )


def read_version(member_path: Path, field: VersionField) -> str:
    """Read the export version out of the first line of a member.

    Args:
        member_path: the extracted file.
        field: which bytes of the first line state the version (1-based, inclusive).

    Returns:
        The version without the blanks around it, for example ``8.0.0.22``.

    Raises:
        LayoutError: the line is too short, or these bytes are blank or no ASCII text.
    """
    with open(member_path, "rb") as member:
        line = member.readline(field.end + 2).rstrip(b"\r\n")
    version = line[field.start - 1 : field.end].strip(b" \t")
    if len(line) < field.start or not version or not version.isascii() or not version.decode("ascii").isprintable():
        raise LayoutError(
            f"the first line of {field.member} has {len(line)} bytes up to byte {field.end} and states no export version",
            f"an export version at bytes {field.start} to {field.end}",
            "look at the header member of the export and correct the source's version field",
        )
    return version.decode("ascii")


def check_expected(member: Member, expected: Expectation, year: int) -> None:
    """Compare what an export says of itself with what it was fetched for.

    Args:
        member: the header member as measured.
        expected: which bytes of its first line, and what they must say.
        year: the tax year of the release.

    Raises:
        VintageError: they say something else: the archive is of another tax year or county.
    """
    seen = member.first_line[expected.start - 1 : expected.end].strip(" \t")
    value = expected.value.format(year=year)
    if seen != value:
        raise VintageError(
            f"{member.name} says {seen!r} at bytes {expected.start} to {expected.end}",
            f"{value!r}, as for tax year {year}",
            "look at what the publisher put under this year's address; if the district writes it otherwise now, correct [[expect]]",
        )


def _fits(layout: Layout, member: Member, year: int, version: str | None, width: int | None) -> bool:
    """Whether a layout is declared for this year, version and record width."""
    if layout.years is not None and not layout.years[0] <= year <= layout.years[1]:
        return False
    if layout.versions and version not in layout.versions:
        return False
    return layout.record_width is None or (width is not None and layout.record_width == width + line_end_bytes(layout, member))


def _describe(layout: Layout) -> str:
    """A layout in a few words, for a message."""
    words = [layout.format.replace("_", " ")]
    if layout.years is not None:
        words.append(f"years {layout.years[0]} to {layout.years[1]}")
    if layout.versions:
        words.append(f"versions {', '.join(layout.versions)}")
    if layout.record_width is not None:
        words.append(f"record width {layout.record_width}{', line end included' if layout.includes_line_end else ''}")
    return " ".join(words)


def _refuse_utf16(table: Table, member: Member) -> None:
    """Raise LayoutError when a member begins like UTF-16: with its byte order mark, or with every other byte NUL."""
    start = member.first_line[:4096]
    marked = start.startswith(_UTF16_MARKS)
    halves = (start[0::2], start[1::2])
    alternating = len(start) >= 4 and any(
        half.count("\0") >= 0.9 * len(half) and other.count("\0") <= 0.1 * len(other)
        for half, other in (halves, halves[::-1])
    )
    if marked or alternating:
        encodings = sorted({layout.encoding for layout in table.layouts})
        raise LayoutError(
            f"{member.name} is written in UTF-16",
            f"{' or '.join(encodings)} for {table.qualified}",
            "check whether the publisher changed the encoding; a UTF-16 member is not read",
        )


def _refuse_compressed(table: Table, member: Member) -> None:
    """Raise LayoutError when a member begins like a compressed file: the extract stage unpacks archives, not what lies in them."""
    kind = next((kind for mark, kind in _COMPRESSED.items() if member.first_line.startswith(mark)), None)
    if kind is not None:
        raise LayoutError(
            f"{member.name} is compressed ({kind}) inside its archive",
            f"records of {table.qualified} as text",
            "name the text inside it as member: zips inside an archive are opened where source.toml says nested = true, others are not",
        )
