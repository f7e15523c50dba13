"""What is no longer needed in the state folder goes, after a run, while the run still holds its sources.

Of a source's tax year that is current: transformed parts go whole (they are in the database); extracted members and archives stay for
as many of the newest published releases as the policy says. Nothing is removed before its successor is published, so the last good
archive is always there; whatever is removed can be made again from the archive, or by the next download, and is made only when
something above it in the chain is incomplete.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from pipeline import processes
from pipeline.database.engine import transaction
from pipeline.releases import BAD, FIRST_BAD, archive_files, is_file_of, members_of

#: How :func:`pipeline.handoff.write_json` names a document until it is whole.
UNFINISHED = re.compile(r"\..+\.(\d+)\.part")


@dataclass(frozen=True)
class Retention:
    """Of how many published releases of a tax year, the current one first, something is kept.

    Attributes:
        archives: 1 or more; the current release's stay whatever happens.
        members: 0: they go as soon as their release is published; a changed schema file then extracts them again.
    """

    archives: int = 2
    members: int = 1


NEWEST = """
select r.archives from etl.release r join (
    select release, max(import_id) as newest, bool_or(state = 'published') as is_current from etl.import
     where source = %(source)s and tax_year = %(year)s and published_at is not null group by release) i using (release)
 where r.source = %(source)s and r.tax_year = %(year)s order by i.is_current desc, i.newest desc limit %(limit)s
"""


def sweep(
    engine: Engine, state: Path, source: str, year: int, *, keep: Retention = Retention(), cuts: Mapping[str, str] | None = None
) -> int:
    """Remove what a current tax year no longer needs; returns the bytes freed.

    Args:
        engine: of the ledger.
        state: the state folder.
        source: the source; the caller holds it.
        year: the tax year; nothing is removed unless it has a current import and nothing of it is being staged.
        keep: the policy.
        cuts: what is asked of each archive now (``pipeline.extract.wanted.cuts_of``): members and notes of what was asked before go, too,
            as soon as something was made of this.
    """
    with transaction(engine) as cursor:
        cursor.execute("select state from etl.import where source = %s and tax_year = %s", [source, year])
        states = {row[0] for row in cursor.fetchall()}
        cursor.execute(NEWEST, {"source": source, "year": year, "limit": max(keep.archives, keep.members, 1)})
        releases: list[dict[str, str]] = [row[0] for row in cursor.fetchall()]
    if "published" not in states or "staging" in states or not releases:
        return 0
    archives = {
        name
        for release in releases[: max(keep.archives, 1)]
        for archive, fingerprint in release.items()
        for name in archive_files(archive, fingerprint)
    }

    folder = state / "members" / source / str(year)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    speaking = [
        {name for archive, identity in release.items() for name in members_of(there, archive, identity, (cuts or {}).get(archive))}
        for release in releases
    ]
    # What is written down of bad archives is what later runs say of the current release, of that one only.
    members = {name for name in speaking[0] if name.endswith((BAD, FIRST_BAD))}
    members |= {name for names in speaking[: keep.members] for name in names if not name.endswith((BAD, FIRST_BAD))}
    freed = _remove(state / "parts" / source / str(year), lambda name: False)
    freed += _remove(folder, members.__contains__)
    # Documents stay, but not what a process that is no more was writing of one.
    freed += _remove(state / "releases" / source / str(year), lambda name: not _is_abandoned(name))
    return freed + _remove(state / "archives" / source / str(year), lambda name: any(is_file_of(name, archive) for archive in archives))


def _is_abandoned(name: str) -> bool:
    found = UNFINISHED.fullmatch(name)
    return found is not None and processes.started_at(int(found[1])) is None


def _remove(folder: Path, is_kept: Callable[[str], bool]) -> int:
    """Remove everything in a folder whose name is not kept; returns the bytes freed."""
    freed = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if is_kept(path.name):
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        freed += sum(file.stat().st_size for file in files)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed
