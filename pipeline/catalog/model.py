"""The catalog as frozen dataclasses: what a schema file says, checked, with every default filled in.

Nothing here reads a file or knows a column by name. ``schemas/README.md`` documents each key of the files;
``pipeline.catalog.load`` makes these objects from them and refuses what does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from pipeline.catalog.gate_model import Drift as Drift
from pipeline.catalog.gate_model import Gate as Gate

Kind = Literal["text", "integer", "bigint", "numeric", "date", "boolean"]

#: Columns that the pipeline itself adds to every live table; no source column may have one of these names.
OWN_COLUMNS = ("tax_year", "seq", "import_id", "row_hash")


@dataclass(frozen=True)
class ColumnType:
    """A PostgreSQL type: ``precision`` and ``scale`` belong to ``numeric`` alone."""

    kind: Kind
    precision: int | None = None
    scale: int | None = None

    @property
    def sql(self) -> str:
        """The type's name in DDL."""
        return f"numeric({self.precision},{self.scale})" if self.kind == "numeric" else self.kind


@dataclass(frozen=True)
class Computed:
    """How a column is made from others of its row: one of :data:`pipeline.catalog.meta_schema.FUNCTIONS` and its arguments."""

    function: str
    of: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: ours, lower case.
        type: the PostgreSQL type.
        source: the header's name for it; matched without regard to case and to blanks around it. ``*``: the column keeps, as a
            JSON object, what stands in columns that no other one claims.
        aliases: other names that districts have used for it.
        required: a row without a value is quarantined, and the live column is NOT NULL.
        nullable: false: a row without a value is quarantined where the layout has the column; the live column may be NULL.
        rules: Cerberus rules under Cerberus' own names (``regex``, ``min``, ``max``, ``allowed``, ``minlength``, ...).
        nulls: texts that mean "no value", besides blank: the column's own and the table's; compared after trimming.
        formats: ``strptime`` formats of a date, tried in order.
        true_codes, false_codes: the texts of a boolean.
        implied_decimals: how many of a number's last digits stand behind an unwritten decimal point.
        on_error: what happens to a value that the type cannot take or that breaks a rule of its own: ``quarantine`` the row, make
            it ``null`` and count, or ``truncate`` an overlong text to ``maxlength`` and count (what else is wrong quarantines).
        controls: what happens to a control character in a text: the value is an error (``refuse``), or each such character
            becomes a ``blank``, counted.
        normalize: steps for text after trimming, in order; see :data:`pipeline.catalog.meta_schema.STEPS`.
        compute: the column is in no member, but made from others; None: it is read.
        start, end: fixed width only, 1-based and inclusive, in bytes; a layout may give others.
        personal: names or locates a person: never in logs, metrics, alerts or reports.
        doc: what it means and its unit.
    """

    name: str
    type: ColumnType
    source: str
    aliases: tuple[str, ...] = ()
    required: bool = False
    rules: Mapping[str, Any] = field(default_factory=dict)
    nulls: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    true_codes: tuple[str, ...] = ()
    false_codes: tuple[str, ...] = ()
    implied_decimals: int = 0
    on_error: Literal["quarantine", "null", "truncate"] = "quarantine"
    normalize: tuple[str, ...] = ()
    nullable: bool = True
    controls: Literal["refuse", "blank"] = "refuse"
    compute: Computed | None = None
    start: int | None = None
    end: int | None = None
    personal: bool = False
    doc: str = ""

    @property
    def is_rest(self) -> bool:
        """Whether it keeps what the other columns do not claim."""
        return self.source == "*"

    @property
    def is_read(self) -> bool:
        """Whether a member may have it under a name or a position of its own."""
        return self.compute is None and not self.is_rest


@dataclass(frozen=True)
class Layout:
    """How a member is written, in some range of tax years, export versions or record widths.

    Attributes:
        format: ``delimited`` or ``fixed_width``.
        years: first and last tax year, inclusive; None: any.
        versions: export versions that the source's version field may state; empty: any.
        record_width: bytes of a record, fixed width only: without its line end, or with it where ``includes_line_end``.
        delimiter: one character.
        quote: the character that quotes a field (doubled inside of it), never over a line end; None: every character is text.
        encoding: Python's name for it.
        header: ``detect`` by content (first line, last line, none), or what is known: ``first``, ``last``, ``none``.
        positions: fixed width: ``{column: (start, end)}`` where they differ from the column's own.
        absent: columns that members of this layout do not have; they become NULL.
        unknown_columns: what a header's column that the table does not name does: ``refuse``, ``ignore`` (and say so) or ``keep`` (in
            the column whose source is ``*``).
        order: delimited without a header: our columns in the file's order; empty: the schema's.
        aliases: further names of columns in members of this layout.
        fingerprint: delimited without a header: regular expressions that nearly every value of some columns matches, so that
            another order of the columns is noticed.
    """

    format: Literal["delimited", "fixed_width"]
    years: tuple[int, int] | None = None
    versions: tuple[str, ...] = ()
    record_width: int | None = None
    delimiter: str = "\t"
    encoding: str = "cp1252"
    header: Literal["detect", "first", "last", "none"] = "detect"
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    unknown_columns: Literal["refuse", "ignore", "keep"] = "refuse"
    quote: str | None = None
    includes_line_end: bool = False
    order: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """A secondary index of the live table.

    Attributes:
        columns: in this order.
        using: ``btree``, with ``tax_year`` put in front; or ``trgm``, trigrams of text for searches within it
            (``like '%MAIN%'``), where the database has the extension pg_trgm.
    """

    columns: tuple[str, ...]
    using: Literal["btree", "trgm"] = "btree"


@dataclass(frozen=True)
class Example:
    """A record of the member and what must become of it; run by the contract tests.

    Exactly one of ``gives`` (column: text of its typed value, or None) and ``refused`` (the column that refuses it) is set.
    """

    year: int
    line: str
    gives: Mapping[str, str | None] | None
    refused: str | None


@dataclass(frozen=True)
class Check:
    """What must hold over a whole table as it would be published.

    Attributes:
        name: of the check, for reports.
        kind: ``rows`` (how many), ``fill`` (share of rows that have a value), ``unique`` (no two rows alike in these columns),
            ``reference`` (share of rows whose values are found in another table's columns), ``sum`` (of a column).
        columns: of this table; none for ``rows``.
        minimum, maximum: of the figure: rows, a share from 0 to 1, or a sum; ``unique`` has none.
        table, to: the other table and its columns, for ``reference``.
        severity: ``error`` holds the release, ``warn`` is told.
        doc: why it should hold.
    """

    name: str
    kind: Literal["rows", "fill", "unique", "reference", "sum"]
    columns: tuple[str, ...] = ()
    minimum: Decimal | int | None = None
    maximum: Decimal | int | None = None
    table: str | None = None
    to: tuple[str, ...] = ()
    severity: Literal["warn", "error"] = "error"
    doc: str = ""


@dataclass(frozen=True)
class Unpivot:
    """How a table is made of wide members in the tax years in which its own member was not published yet.

    Attributes:
        years: first and last tax year, inclusive.
        members: by our column, the member that has its values: a line has a cell for each category.
        category: our column that gets the category: the name of the cell's column in the header.
        categories: the names of these columns in file order, for members without a header.
    """

    years: tuple[int, int]
    members: Mapping[str, str]
    category: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table: where its rows come from and what they must be.

    ``key`` is the stated key; a table without one has ``parent``, the columns under which equal rows are real, and its
    rows are told apart by ``seq``. ``on_conflict`` is what happens to lines that have one key and other values: the first stands
    and the others are quarantined (``quarantine``), the ``first`` or the ``last`` in file order stands and the others are counted
    as superseded, or the release is refused (``refuse``).
    """

    source: str
    name: str
    archive: str
    member: str
    member_aliases: tuple[str, ...]
    required: bool
    years: tuple[int, int] | None
    key: tuple[str, ...]
    parent: tuple[str, ...]
    on_conflict: Literal["quarantine", "first", "last", "refuse"]
    layouts: tuple[Layout, ...]
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    examples: tuple[Example, ...] = ()
    doc: str = ""
    #: The column that states a row's tax year; a row of another year is quarantined, a member that begins with them refused.
    year_column: str | None = None
    checks: tuple[Check, ...] = ()
    #: Of which members it is made where its own is not there; None: of none.
    unpivot: Unpivot | None = None

    def unpivot_of(self, year: int) -> Unpivot | None:
        """Of which members it may be made in a tax year."""
        found = self.unpivot
        return found if found and found.years[0] <= year <= found.years[1] else None

    @property
    def is_keyed(self) -> bool:
        """Whether the rows have a key of their own."""
        return bool(self.key)

    @property
    def identity(self) -> tuple[str, ...]:
        """The live table's primary key, in order."""
        return ("tax_year", *self.key) if self.key else ("tax_year", *self.parent, "seq")

    @property
    def qualified(self) -> str:
        """``source.table``, for messages."""
        return f"{self.source}.{self.name}"

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True)
class Archive:
    """A file that the source publishes once a tax year; ``path`` follows the base URL, ``{year}`` stands for the tax year.

    ``nested`` says that members may lie in zip archives inside the archive, one level deep.
    ``fallback`` is the path of another file that stands in when the first one is bad. ``sha256`` pins the bytes of a tax year.
    ``aliases`` are other paths under which the same file may lie.
    """

    name: str
    path: str
    required: bool = True
    years: tuple[int, int] | None = None
    nested: bool = False
    fallback: str | None = None
    sha256: Mapping[int, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def has_stand_in(self) -> bool:
        """Whether a release can do without it when it is bad: a fallback stands in, or what is live stays."""
        return not self.required or self.fallback is not None


@dataclass(frozen=True)
class ProbeRule:
    """How a source is asked what it has, and what is made of the answer.

    Attributes:
        listing: base URL of the publisher's listing (the API behind hcad.org/pdata); None: the archives' own addresses are asked.
        listing_sections: what is asked of the listing, each ``category/subcategory``.
        listing_complete: what the listing must say of a tax year for it to be complete: that it is there, that it has a date,
            or that it is certified.
        fingerprint: the validators that count; empty: a strong entity tag alone, else modification time and length.
        year_policy: ``strict``: the tax year that was asked for or none; ``newest``: the newest complete one up to it.
        lookback_years: how many years before the one asked for ``newest`` may fall back to.
    """

    listing: str | None = None
    listing_sections: tuple[tuple[str, str], ...] = ()
    listing_complete: Literal["listed", "dated", "certified"] = "listed"
    fingerprint: tuple[str, ...] = ()
    year_policy: Literal["strict", "newest"] = "strict"
    lookback_years: int = 1


@dataclass(frozen=True)
class VersionField:
    """Where a fixed-width export states its version: bytes ``start`` to ``end`` (1-based, inclusive) of a member's first line."""

    archive: str
    member: str
    start: int
    end: int


@dataclass(frozen=True)
class Expectation:
    """What bytes ``start`` to ``end`` (1-based, inclusive) of a member's first line must say, blanks around it aside.

    In ``value`` ``{year}`` stands for the tax year. So an export of another year or county is told before a row of it is read.
    """

    archive: str
    member: str
    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Limits:
    """What an archive may hold before it is taken for an attack: members, bytes a member, bytes out for bytes in, bytes in all."""

    max_members: int
    max_member_bytes: int
    max_ratio: float
    max_bytes: int = 256 << 30


@dataclass(frozen=True)
class Source:
    """A publisher of a roll, under one profile (``production`` or another that its file declares)."""

    name: str
    title: str
    publisher: str
    homepage: str
    licence: str
    enabled: bool
    base_url: str
    tax_years: tuple[int, ...]
    archives: tuple[Archive, ...]
    tables: tuple[Table, ...]
    allow_addresses: tuple[str, ...]
    gate: Gate
    limits: Limits
    version: VersionField | None
    profile: str
    #: Under a profile: the archives wanted of each tax year; None: all whose years fit.
    archives_by_year: Mapping[int, tuple[str, ...]] | None = None
    doc: str = ""
    probe: ProbeRule = field(default_factory=ProbeRule)
    #: Base URLs of servers that hold the same files under the same paths, asked in turn when the first one fails.
    mirrors: tuple[str, ...] = ()
    #: Public addresses may be asked over plain http, too.
    allow_http: bool = False
    expects: tuple[Expectation, ...] = ()

    def archives_for(self, year: int) -> tuple[Archive, ...]:
        """The archives wanted of a tax year, in the order of the file."""
        wanted = None if self.archives_by_year is None else self.archives_by_year.get(year, ())
        return tuple(
            archive
            for archive in self.archives
            if (archive.years is None or archive.years[0] <= year <= archive.years[1])
            and (wanted is None or archive.name in wanted)
        )

    def tables_for(self, year: int) -> tuple[Table, ...]:
        """The tables wanted of a tax year, by name."""
        archives = {archive.name for archive in self.archives_for(year)}
        return tuple(
            table
            for table in self.tables
            if table.archive in archives and (table.years is None or table.years[0] <= year <= table.years[1])
        )

    def table(self, name: str) -> Table:
        """The table of that name; KeyError if there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)

    def archive(self, name: str) -> Archive:
        """The archive of that name; KeyError if there is none."""
        for archive in self.archives:
            if archive.name == name:
                return archive
        raise KeyError(name)

    def url(self, archive: Archive, year: int, *, is_fallback: bool = False, mirror: str | None = None) -> str:
        """Where an archive of a tax year, or the file that stands in for it, lies; below ``mirror`` instead of the base URL."""
        path = archive.fallback if is_fallback and archive.fallback is not None else archive.path
        return f"{(mirror or self.base_url).rstrip('/')}/{path.format(year=year)}"

    def other_urls(self, archive: Archive, year: int) -> tuple[str, ...]:
        """Where else an archive of a tax year may lie: under its other names."""
        return tuple(f"{self.base_url.rstrip('/')}/{path.format(year=year)}" for path in archive.aliases)
