"""What became of each source and tax year of a run, by the ledger; and the exit code that says so.

Luigi's own code counts only where the ledger is silent: Luigi that could not start, or a task that broke before it began.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from pipeline.catalog.recipe import scope_of, scoped_recipe
from pipeline.database import ledger
from pipeline.database.engine import transaction
from pipeline.database.ledger import ImportKey
from pipeline.database.runs import FailedAttempt
from pipeline.extract.wanted import cuts_of
from pipeline.handoff import json_object, read_if_whole
from pipeline.releases import Release, probe_path, read_stand_ins
from pipeline.settings import Settings, find_source

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The worst of several codes is the run's: a bug before refused data, before what passes, before "not there yet".
SEVERITY = (40, 35, 31, 30, 20, 0)
#: Luigi's codes (config/luigi.cfg) in ours, for a run whose ledger has no word. Its 10 says that another worker held one of our
#: tasks at some moment; since a run holds its sources, that was a killed one, and whether the task was then done the ledger knows.
LUIGI_CODES = {0: 0, 10: 0, 20: 30, 25: 30, 30: 30, 35: 35, 40: 40}

#: The tasks of a source in a run that finds its release current already.
LOOKING = frozenset(("SyncSource", "ProbeRelease", "DownloadArchive"))


@dataclass(frozen=True)
class TableOutcome:
    """The account of one table: ``read = loaded + quarantined + duplicate + filtered``; ``written`` is what the publish wrote."""

    table: str
    disposition: str
    read: int
    loaded: int
    quarantined: int
    duplicate: int
    filtered: int
    written: int
    seconds: float


@dataclass(frozen=True)
class SyncOutcome:
    """What became of one source and tax year.

    ``state``: ``published`` (by this run), ``unchanged`` (it was current before), ``not_published`` (the district has none yet),
    ``refused``, ``failed`` (also where the offered release is current, and an archive that was to be fetched again could not be, or came
    with other bytes). ``year`` is the tax year that was taken where the source's policy may take another than the one asked
    for. ``message`` says why it is not well, and, of a release that is current, what stands in for archives that are bad
    and which checks it failed that did not hold it.
    ``tables`` is the account of the current import.
    """

    source: str
    year: int
    state: str
    exit_code: int
    message: str
    import_id: int | None
    tables: tuple[TableOutcome, ...]


def outcome_of(
    engine: Engine, settings: Settings, source: str, year: int, as_of: dt.datetime, run_id: int, failures: Sequence[FailedAttempt],
    only: Sequence[str] = (),
) -> SyncOutcome:  # fmt: skip
    """Ask the probe's file and the ledger what became of a source's tax year, or of ``only`` some of its tables."""
    tables: tuple[TableOutcome, ...] = ()
    found, is_new, warnings = None, False, list[str]()
    probe = read_if_whole(probe_path(settings.state, source, year, as_of), json_object)
    asked, year = year, (probe or {}).get("tax_year") or year
    with transaction(engine) as cursor:
        if probe and probe["status"] == "found":
            key = ImportKey(source, year, probe["release"], scoped_recipe(find_source(source), year))
            found = ledger.standing(cursor, key)
            if only and not (found and found.state in {"published", "rolled_back"}):
                found = ledger.standing(cursor, replace(key, recipe=scoped_recipe(find_source(source), year, only)))
        current = ledger.current(cursor, source, year)
        if current:
            tables = _tables(cursor, current.import_id)
            cursor.execute(
                "select published_at >= (select started_at from etl.run where run_id = %s) from etl.import where import_id = %s",
                [run_id, current.import_id],
            )
            is_new = bool((cursor.fetchone() or (False,))[0])
            warnings = _told_checks(cursor, current.import_id, with_notes=is_new)
    import_id = current.import_id if current else None
    ours = [failure for failure in failures if _is_of(failure, source, year) or _is_of(failure, source, asked)]
    is_published = found is not None and found.state == "published"
    if is_published:
        # What this run published is a success, whatever was said on the way. A run that found it current is one if it could look, and
        # could fetch again what was to be.
        ours = [failure for failure in ours if failure.family in LOOKING and not is_new]
    if is_published and not ours:
        stand_ins = _stand_ins(settings, source, year, probe)
        notes = [_taken(source, asked, year, probe), _scope(found), *_left_out(source), *stand_ins, *warnings]
        message = "; ".join(filter(None, notes))
        return SyncOutcome(source, year, "published" if is_new else "unchanged", 0, message, import_id, tables)
    if found and found.is_held:
        refusals = [failure.message for failure in ours if failure.exit_code == 31 and failure.message]
        return SyncOutcome(source, year, "refused", 31, refusals[0] if refusals else str(ledger.held(found)), import_id, tables)
    if ours:
        worst = min(ours, key=lambda failure: _severity(failure.exit_code))
        code = worst.exit_code or 40
        return SyncOutcome(source, year, "refused" if code == 31 else "failed", code, worst.message or "", import_id, tables)
    if probe and probe["status"] == "not_published":
        message = f"{source} has not published {asked} yet: {probe['lacks']}"
        return SyncOutcome(source, year, "not_published", 20, message, import_id, tables)
    return SyncOutcome(source, year, "failed", 30, "it did not come to an end; see the log", import_id, tables)


def _taken(source: str, asked: int, taken: int, probe: Mapping[str, Any] | None) -> str:
    """Why another tax year was taken than the one asked for."""
    if taken == asked or probe is None:
        return ""
    lacks = "; ".join(str(offer["lacks"]) for offer in probe["policy"]["considered"] if offer["lacks"])
    return f"{taken} is the newest complete year of {source} up to {asked}: {lacks}"


def _scope(found: ledger.Import | None) -> str:
    """That only some tables are of the release."""
    scope = scope_of(found.key.recipe) if found else None
    return f"only {', '.join(sorted(scope))} of the release; every other table is as it was" if scope else ""


def _left_out(source: str) -> list[str]:
    """The archives of a source that cannot be read here."""
    return [f"{archive} is left out: {why}" for archive, why in find_source(source).left_out.items()]


def _stand_ins(settings: Settings, source: str, year: int, probe: Mapping[str, Any] | None) -> list[str]:
    """What a release's own files say of archives that are bad."""
    if probe is None:
        return []
    release = Release.read(settings.state, source, year, probe["release"])
    cuts = cuts_of(find_source(source), year, settings.part_bytes)
    return [
        f"{archive} is bad, and {stand_in}: {message}"
        for archive, (stand_in, message) in sorted(read_stand_ins(settings.state, release, cuts=cuts).items())
    ]


def run_outcome(syncs: Sequence[SyncOutcome], failures: Sequence[FailedAttempt], luigi_code: int) -> tuple[int, str, str]:
    """The run's exit code, a word for it, and a sentence."""
    codes = [sync.exit_code for sync in syncs]
    if not failures and not any(code not in (0, 20) for code in codes) and luigi_code != 0:
        codes.append(LUIGI_CODES.get(luigi_code, 40 if luigi_code > 0 else 30))
    code = min(codes, key=_severity)
    if code == 0:
        changed = [f"{sync.source} {sync.year}" for sync in syncs if sync.state == "published"]
        notes = [f"{sync.source} {sync.year}: {sync.message}" for sync in syncs if sync.message and sync.exit_code == 0]
        return 0, "done", "; ".join([f"published {', '.join(changed)}" if changed else "nothing new", *notes])
    word = {20: "not_published", 31: "refused"}.get(code, "failed")
    messages = [sync.message for sync in syncs if sync.exit_code == code] or [f"luigi ended with {luigi_code}; see the log"]
    return code, word, messages[0]


def _severity(code: int | None) -> int:
    return SEVERITY.index(code) if code in SEVERITY else 0


def _is_of(failure: FailedAttempt, source: str, year: int) -> bool:
    parameters = failure.parameters
    return parameters.get("source", source) == source and parameters.get("year", str(year)) == str(year)


def _told_checks(cursor: Cursor, import_id: int, *, with_notes: bool) -> list[str]:
    """The checks that failed and did not hold the import; its notes are told by the run that published it."""
    cursor.execute(
        """select table_name || ' ' || check_name || ': ' || seen || case severity when 'note' then '' else ', expected ' || expected end
             from etl.gate_result where import_id = %s and (not passed or (severity = 'note' and %s)) order by 1""",
        [import_id, with_notes],
    )
    return [text for (text,) in cursor.fetchall()]


def _tables(cursor: Cursor, import_id: int) -> tuple[TableOutcome, ...]:
    cursor.execute(
        """select table_name, disposition, rows_read, rows_loaded, quarantined, duplicate, filtered, inserted + updated + deleted, seconds
             from etl.import_table where import_id = %s order by table_name""",
        [import_id],
    )
    return tuple(TableOutcome(*row) for row in cursor.fetchall())
