"""Where the member of a table is: as it was extracted, or made of the wide members that stand in for it.

A made member is a folder of the table's parts, ``<fingerprint>-<cut>-<recipe>.unpivoted``, there in full or not at all. It is made by
whoever needs it first, in less than a second, and goes with the parts when the release is published.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.catalog.model import Table
from pipeline.catalog.recipe import table_recipe
from pipeline.errors import MemberError
from pipeline.extract.cut import LineCutter
from pipeline.extract.folder import create_file, existing_manifest, working_folder, write_all, writing
from pipeline.extract.wanted import MANIFEST
from pipeline.handoff import Manifest, Member, publish_folder, write_json
from pipeline.observe.events import log_event
from pipeline.tasks.base import settings
from pipeline.tasks.extract import ExtractArchive
from pipeline.transform.unpivot import unpivoted


@dataclass(frozen=True)
class Readable:
    """A table's member, and the file that it is in."""

    member: Member
    path: Path


def readable_of(extracted: ExtractArchive, table: Table) -> Readable | None:
    """The member that a table is read from; None when the release does not carry it.

    Raises:
        MemberError: of the wide members that stand in for it one is there and another is not.
        HeaderError, LayoutError, EmptyMember: they are not what the schema file declares.
        DiskError: the member cannot be written.
    """
    if member := extracted.member(table.member):
        return Readable(member, extracted.output().path / member.file)
    wide = table.unpivot_of(extracted.year)
    if wide is None:
        return None
    found = {column: extracted.member(name) for column, name in wide.members.items()}
    members = {column: (member, extracted.output().path / member.file) for column, member in found.items() if member}
    if not members:
        return None
    if len(members) < len(found):
        missing = ", ".join(name for column, name in wide.members.items() if column not in members)
        raise MemberError(
            f"{extracted.archive} has no {missing}, and others that {table.qualified} is made of",
            f"{table.member}, or {' and '.join(wide.members.values())}",
            "look at the archive; if the publisher renamed one, correct [unpivot]",
        )
    folder = extracted.folder("parts") / table.name / f"{extracted.fingerprint}-{extracted.cut}-{table_recipe(table)}.unpivoted"
    manifest = existing_manifest(folder) or _make(folder, extracted, table, unpivoted(table, members, year=extracted.year))
    return Readable(manifest.members[0], folder / manifest.members[0].file)


def _make(folder: Path, extracted: ExtractArchive, table: Table, content: Iterator[bytes]) -> Manifest:
    """Write the made member, measured and cut as an extracted one is."""
    digest, cutter, wide = hashlib.sha256(), LineCutter(settings().part_bytes), table.unpivot
    assert wide is not None  # noqa: S101  # content was made by it
    with working_folder(folder) as part, writing(folder):
        descriptor = create_file(part, table.member)
        try:
            for chunk in content:
                write_all(descriptor, chunk)
                digest.update(chunk)
                cutter.feed(chunk)
        finally:
            os.close(descriptor)
        measure = cutter.finish()
        fields = asdict(measure) | {"parts": measure.parts, "widths": measure.widths}
        member = Member(name=table.member, file=table.member, sha256=digest.hexdigest(), **fields)
        made = Manifest(extracted.archive, extracted.manifest().sha256, (member,))
        write_json(part / MANIFEST, made)
        publish_folder(part, folder)
    log_event("transform.unpivoted", {"table": table.qualified, "members": ", ".join(wide.members.values()), "lines": measure.lines})
    return made
