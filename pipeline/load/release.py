"""A release's way from staging to current and back, each a function inside one transaction of the caller's.

The import's row in the ledger changes its state in the same transaction as the live rows, so "current" and what readers see
are never two things.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.catalog.model import Source, Table
from pipeline.catalog.roll import rolls_for
from pipeline.database import ledger
from pipeline.database.ledger import Import, ImportKey
from pipeline.errors import AccountingError, RollbackRefused, StagingStale
from pipeline.load import gate, publish, staging, upkeep, whole
from pipeline.load.gate_result import record_results
from pipeline.load.publish import Changes
from pipeline.load.relations import Relations
from pipeline.load.staging import StagedTable
from pipeline.load.take_back import take_back as _take_back

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The channel on which a listener hears that another import is current.
CHANNEL = "hcad_pipeline"
LIVE_ROWS = "select count(*) from (select 1 from {} where tax_year = %s limit %s) r"


def keep_table(cursor: Cursor, found: Import, table: Table, member_sha256: str | None, recipe: str) -> StagedTable | None:
    """Mark a table as staged without staging it, when there is nothing to compare.

    ``unchanged``: the current import made it from the same member with the same recipe. ``carried_over``: the release has no such
    member (``member_sha256`` None), and what is live stays. Else None: it must be staged.
    """
    cursor.execute(
        """select member_sha256, recipe, parts, rows_read, rows_loaded, quarantined, duplicate, superseded, filtered, nulled, changed,
                  refused
             from etl.import_table where import_id = %s and table_name = %s""",
        [found.base_import_id, table.name],
    )
    row = cursor.fetchone()
    if member_sha256 is not None and (row is None or row[:2] != (member_sha256, recipe)):
        return None
    sha256, made_by, parts, read, loaded, quarantined, duplicate, superseded, filtered, nulled, changed, refused = row or (
        None, None, 0, 0, 0, 0, 0, 0, 0, {}, {}, {},
    )  # fmt: skip
    kept = StagedTable(
        table.name, "carried_over" if member_sha256 is None else "unchanged", sha256, made_by, parts, read, loaded, quarantined, 0,
        duplicate, superseded, filtered, nulled, changed, refused, 0.0,
    )  # fmt: skip
    staging.record_staged(cursor, found.import_id, kept)
    return kept


def check(cursor: Cursor, found: Import, source: Source) -> gate.Verdict:
    """Run the gate over the staged tables, keep its results, and say which failed.

    The marker is written when none that holds the release failed, or only such as a person has accepted of this release under this
    recipe; then ``refused`` is empty.

    Raises:
        StagingStale: not every table is staged, or what is staged is not whole and does not pass.
    """
    results = gate.check_release(cursor, found, source, all_staged(cursor, found, source))
    record_results(cursor, found.import_id, results)
    told = tuple(result for result in results if result.is_told)
    holding = tuple(result for result in results if result.holds)
    accepted = ledger.accepted_checks(cursor, found.key)
    if any(accepted is not None and result.identity not in accepted for result in holding):
        # What staging has lost is no fault of the release, and would hold it.
        _require_staged(cursor, found, source)
        return gate.Verdict(holding, told)
    gate.mark_checked(cursor, found.import_id, "accepted" if holding else "passed")
    return gate.Verdict((), (*holding, *told))


def make_current(cursor: Cursor, found: Import, source: Source) -> dict[str, Changes]:
    """Merge every staged table into its live table and make the import the current one.

    Raises:
        StagingStale: it has not passed the gate, or staging is not what was staged: a crash of the server emptied it, or something else.
    """
    cursor.execute("select 1 from etl.checked where import_id = %s", [found.import_id])
    if not cursor.fetchone():
        raise StagingStale(f"import {found.import_id} has not passed the gate", "a checked staging", "nothing; it is checked again")
    changes = {table.table: _merge_table(cursor, found, source, table) for table in all_staged(cursor, found, source)}
    cursor.execute("update etl.import set state = 'superseded', closed_at = clock_timestamp() where import_id = %s", [found.base_import_id])
    cursor.execute("update etl.import set state = 'published', published_at = clock_timestamp() where import_id = %s", [found.import_id])
    ledger.drop_staging(cursor, [found.import_id])
    upkeep.owe(cursor, found, changes)
    notify(cursor, "published", found, found.import_id)
    return changes


def take_back(cursor: Cursor, found: Import, reason: str, decided_by: str) -> dict[str, Changes]:
    """Undo the current import: the tables are what they were, the import before it is current, its release is held.

    Raises:
        RollbackRefused: its row history is gone.
    """
    cursor.execute("select history_dropped_at from etl.import where import_id = %s", [found.import_id])
    (dropped_at,) = cursor.fetchone() or (None,)
    if dropped_at is not None:
        raise RollbackRefused(
            f"the row history of import {found.import_id} was removed on {dropped_at:%Y-%m-%d} by [retention]",
            "an import whose history is kept",
            "publish the older release again, or restore a backup; a longer [retention] keeps later ones",
        )
    why = f"import {found.import_id}, which it was compared with, was rolled back"
    ledger.abandon_staging(cursor, found.key.source, found.key.tax_year, why)
    cursor.execute(
        "select table_name, updated + deleted from etl.import_table where import_id = %s and disposition = 'staged' order by 1",
        [found.import_id],
    )
    changes = {name: _take_back(cursor, found.key.source, name, found, images) for name, images in cursor.fetchall()}
    cursor.execute(
        "update etl.import set state = 'rolled_back', closed_at = clock_timestamp(), message = %s where import_id = %s",
        [reason, found.import_id],
    )
    cursor.execute("update etl.import set state = 'published', closed_at = null where import_id = %s", [found.base_import_id])
    ledger.decide(cursor, found.import_id, "rollback", reason, decided_by)
    upkeep.owe(cursor, found, changes)
    notify(cursor, "rolled_back", found, found.base_import_id)
    return changes


def notify(cursor: Cursor, event: str, found: Import, current: int | None) -> None:
    """Tell listeners of the channel that another import is current; PostgreSQL sends it with the commit, or not at all."""
    payload = {
        "event": event, "source": found.key.source, "tax_year": found.key.tax_year, "import_id": found.import_id,
        "current_import_id": current,
    }  # fmt: skip
    cursor.execute("select pg_notify(%s, %s)", [CHANNEL, json.dumps(payload)])


def let_through(cursor: Cursor, found: Import, reason: str, decided_by: str) -> None:
    """Let a held import through: a refused one is opened again, a rolled back one may come anew.

    The decision is kept with the checks that held the import, and the gate asks for it: whatever is gone of the staging meanwhile is
    staged and checked again, and a check that fails then and did not before holds it again.
    """
    if found.state == "refused":
        ledger.reopen(cursor, found)
    else:
        cursor.execute("update etl.import set state = 'superseded' where import_id = %s", [found.import_id])
    ledger.decide(cursor, found.import_id, "accept", reason, decided_by, ledger.holding_checks(cursor, found.import_id))


def in_state(cursor: Cursor, import_id: int, states: set[str], expected: str) -> Import:
    """The import, locked together with its source's tax year, when it is in one of these states.

    Raises:
        RollbackRefused: it is in another, or there is none.
    """
    if seen := ledger.by_id(cursor, import_id):
        ledger.lock_source_year(cursor, seen.key.source, seen.key.tax_year)
    found = ledger.by_id(cursor, import_id, lock="for update")
    if found is None or found.state not in states:
        raise RollbackRefused(f"import {import_id} is {found.state if found else 'unknown'}", expected, "see hcad-pipeline status")
    return found


def all_staged(cursor: Cursor, found: Import, source: Source) -> list[StagedTable]:
    """The staged tables of an import, when every wanted one is.

    Raises:
        StagingStale: some are not.
    """
    staged = staging.staged_tables(cursor, found.import_id)
    year = found.key.tax_year
    wanted = {table.name for table in (*source.tables_for(year), *(roll.table for roll in rolls_for(source, year)))}
    if missing := sorted(wanted - {table.table for table in staged}):
        raise StagingStale(f"{', '.join(missing)} of import {found.import_id} not staged", "every table", "nothing; it is staged again")
    return staged


def clear_lost(cursor: Cursor, key: ImportKey, source: Source) -> dict[str, tuple[int, str]]:
    """Take back the tables of an open import whose staging is not what was staged: how many parts, and why, by table."""
    ledger.lock_source_year(cursor, key.source, key.tax_year)
    found = ledger.standing(cursor, key)
    cleared = {}
    for relations, staged in _staged(cursor, found, source) if found and found.is_open else ():
        staging.lock_table(cursor, relations)
        if why := whole.lost(cursor, relations, staged.rows_loaded):
            cleared[relations.table.qualified] = (staging.clear(cursor, relations), why)
    return cleared


def _require_staged(cursor: Cursor, found: Import, source: Source) -> None:
    for relations, staged in _staged(cursor, found, source):
        whole.require(cursor, relations, staged.rows_loaded)


def _staged(cursor: Cursor, found: Import, source: Source) -> list[tuple[Relations, StagedTable]]:
    """The settled tables of an import that have rows of their own."""
    tables = [staged for staged in staging.staged_tables(cursor, found.import_id) if staged.disposition == "staged"]
    return [(Relations(source.table(staged.table), found.import_id), staged) for staged in tables]


def _merge_table(cursor: Cursor, found: Import, source: Source, staged: StagedTable) -> Changes:
    changes = Changes()
    if staged.disposition == "staged":
        relations = Relations(source.table(staged.table), found.import_id)
        changes = publish.merge(cursor, relations, found, staged.rows_loaded)
        _require_whole(cursor, relations, found, staged, changes)
    cursor.execute(
        """insert into etl.import_table (import_id, table_name, disposition, member_sha256, recipe, parts, rows_read, rows_loaded,
                                         quarantined, duplicate, superseded, filtered, inserted, updated, deleted, nulled, changed, refused,
                                         seconds)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        [
            found.import_id, staged.table, staged.disposition, staged.member_sha256, staged.recipe, staged.parts,
            staged.rows_read, staged.rows_loaded, staged.quarantined, staged.duplicate, staged.superseded, staged.filtered,
            changes.inserted, changes.updated, changes.deleted, Json(dict(staged.nulled)), Json(dict(staged.changed)),
            Json(dict(staged.refused)), staged.seconds,
        ],
    )  # fmt: skip
    return changes


def _require_whole(cursor: Cursor, relations: Relations, found: Import, staged: StagedTable, changes: Changes) -> None:
    """Stop unless as many rows are live as the account says: a trigger, rule or policy of the user's may keep some out in silence.

    What the merge has counted is not counted again: a first publish, and rows with a key. Of the latter, where nothing was written, it is
    asked only whether there are any.
    """
    expected, is_keyed = staged.rows_loaded, relations.table.is_keyed
    if found.base_import_id is None and changes.inserted != expected:
        whole.require(cursor, relations, expected)
    if changes.is_first:
        live = changes.inserted
    elif is_keyed and changes != Changes():
        return
    else:
        cursor.execute(sql.SQL(LIVE_ROWS).format(relations.live), [found.key.tax_year, 1 if is_keyed else None])
        (live,) = cursor.fetchone() or (0,)
        expected = min(expected, 1) if is_keyed else expected
    if live != expected:
        raise AccountingError(
            f"{relations.table.qualified}: {staged.rows_loaded} rows are staged, and {live} would be live",
            "the same number: nothing of your own on the table keeps rows out",
            "see which trigger, rule or policy does, then run again",
        )
