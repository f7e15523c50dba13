"""Which members of an archive are wanted, and under which of their names they are found.

Districts change the case of a file name, put members into a folder, rename them from year to year: a member matches by
the last component of its path, without regard to case, under its declared name or an alias. A required member that is not
there, and any member that is there twice, stops the extraction with a list of what the archive holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.catalog.model import Limits, Source, Table
from pipeline.errors import ArchiveError, ConfigurationError, MemberError
from pipeline.extract.safety import safe_name

MANIFEST = "manifest.json"
#: Goes up when the same archive would be cut or measured in another way.
_CUT_REVISION = 1
#: Goes up when other lines would be made of the same layer.
_LAYER_REVISION = 1


@dataclass(frozen=True)
class WantedLayer:
    """What lines are made of in a map layer.

    Attributes:
        fields: of a line, in order, each with its names: the first heads the lines, and any of them is the layer's, whatever its
            case; those of :data:`pipeline.catalog.meta_schema.GEOMETRY` are taken of the polygon.
        crs: the coordinate system that the layer must be in, such as ``EPSG:2278``.
    """

    fields: tuple[tuple[str, ...], ...]
    crs: str


@dataclass(frozen=True)
class WantedMember:
    """A member that a table is read from: its name, other names it has had, and whether the archive must hold it.

    With a ``layer`` it is made of that; the names then decide only between several layers that have the fields.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True
    layer: WantedLayer | None = None


def cut_id(members: Sequence[WantedMember] | None, limits: Limits, part_bytes: int, *, nested: bool = False) -> str:
    """Return 12 hexadecimal digits that identify what an extraction is asked for: members (in any order), limits, part size, nesting."""
    document: dict[str, object] = {
        "revision": _CUT_REVISION,
        "members": None if members is None else sorted([m.name, sorted(m.aliases), m.required] for m in members),
        "limits": dataclasses.asdict(limits),
        "part_bytes": part_bytes,
        "nested": nested,
    }
    layers = sorted([m.name, [list(names) for names in m.layer.fields], m.layer.crs] for m in members or () if m.layer)
    # Only where there are any: other cuts stay what they were.
    document |= {"layers": layers, "layer_revision": _LAYER_REVISION} if layers else {}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def wanted_members(source: Source, year: int, archive: str) -> tuple[WantedMember, ...]:
    """The members that the tables of a tax year, the version field and the expectations want from an archive; by name."""
    tables = [table for table in source.tables_for(year) if table.archive == archive]
    members = {
        table.member.lower(): WantedMember(table.member, table.member_aliases, table.required, _layer(table, year)) for table in tables
    }
    for field in (source.version, *source.expects):
        if field and field.archive == archive:
            members.setdefault(field.member.lower(), WantedMember(field.member, (), True))
    return tuple(members[name] for name in sorted(members))


def _layer(table: Table, year: int) -> WantedLayer | None:
    """What a table wants of a layer; None: its member is a file."""
    layouts = [layout for layout in table.layouts if layout.format == "gis"]
    if not layouts:
        return None
    fits = [layout for layout in layouts if layout.years is None or layout.years[0] <= year <= layout.years[1]]
    # Where none fits the tax year the lines are made all the same, and refused as a member of no declared layout.
    layout = [*fits, *layouts][0]
    wanted = [column for column in table.columns if column.is_read and column.name not in layout.absent]
    fields = tuple((column.source, *column.aliases, *layout.aliases.get(column.name, ())) for column in wanted)
    return WantedLayer(fields, layout.crs or "")


def cuts_of(source: Source, year: int, part_bytes: int, archives: Collection[str] | None = None) -> dict[str, str]:
    """The cut (see :func:`cut_id`) of each of these archives of a source, by name; of all that it declares unless told."""
    return {
        archive.name: cut_id(wanted_members(source, year, archive.name), source.limits, part_bytes, nested=archive.nested)
        for archive in source.archives
        if archives is None or archive.name in archives
    }


def _is_file_name(name: str) -> bool:
    try:
        return "/" not in name and safe_name("", name) == name and name.casefold() != MANIFEST
    except ArchiveError:
        return False


class Selection:
    """Sorts an archive's files, as they come, into wanted and unneeded.

    Args:
        archive: the archive's name, for messages.
        members: what is wanted; None: every file, under its own path.

    Raises:
        ConfigurationError: a wanted name is no file name, or two wanted members claim the same name.
    """

    def __init__(self, archive: str, members: Sequence[WantedMember] | None) -> None:
        self._archive = archive
        self._members = members
        self._claims: dict[str, WantedMember] = {}
        self._found: dict[str, list[str]] = {}
        self._names: list[str] = []
        self._folders: set[str] = set()
        for member in members or ():
            if not _is_file_name(member.name):
                raise ConfigurationError(f"the wanted member {member.name!r}", "a plain file name", "correct the schema file")
            for name in {member.name.casefold(), *(alias.casefold() for alias in member.aliases)}:
                if self._claims.setdefault(name, member) is not member:
                    raise ConfigurationError(
                        f"two wanted members are called {name}", "names of their own", "correct the schema file"
                    )

    def file_for(self, name: str) -> str | None:
        """Note an entry and return the file to write it to; None: it is not wanted, or is a second one of its kind.

        Raises:
            MemberError: it is a file where another entry needs a folder, or the other way.
        """
        self._names.append(name)
        if self._members is None:
            file = name
        else:
            member = self._claims.get(PurePosixPath(name).name.casefold())
            if member is None:
                return None
            file = member.name
        # At once, and not when all are known: an archive without a directory is written as it is read.
        parents = {folder.as_posix() for folder in PurePosixPath(file).parents}
        if file in self._folders or parents & self._found.keys():
            self._refuse(f"the file {name} cannot stand beside the other files: it is a folder, too", "one or the other")
        self._folders |= parents
        found = self._found.setdefault(file, [])
        found.append(name)
        return file if len(found) == 1 else None

    def check(self, hidden: ArchiveError | None = None) -> None:
        """Judge the selection when all entries are known.

        Args:
            hidden: what keeps an inner archive closed, in which anything may lie.

        Raises:
            ArchiveError: that, when a wanted member, required or not, was not found elsewhere.
            MemberError: a required member is missing, one is there twice, or takes the manifest's name.
        """
        for file, names in self._found.items():
            if len(names) > 1:
                self._refuse(f"{len(names)} entries stand for {file}: {', '.join(names)}", "one")
        if hidden is not None and any(member.name not in self._found for member in self._members or ()):
            raise hidden
        for member in self._members or ():
            if member.required and member.name not in self._found:
                self._refuse(f"no member {' or '.join((member.name, *member.aliases))}", "it, in whichever case and folder")
        for file in self._found:
            if file.casefold() == MANIFEST:
                self._refuse(f"the file {file} cannot stand beside the other files", "another name")

    def _refuse(self, seen: str, expected: str) -> None:
        shown = ", ".join(self._names[:50]) or "nothing"
        more = f" and {len(self._names) - 50} more" if len(self._names) > 50 else ""
        raise MemberError(
            f"{self._archive}: {seen}; it holds {shown}{more}",
            expected,
            "add the new name to the member's aliases, or ask the publisher",
        )
