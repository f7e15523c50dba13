"""Checkpoints: what of an import is staged, committed with the rows that it speaks for.

A checkpoint has the persistence of the staging table beside it: both are unlogged, so a crash of the server empties both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The table name under which a program of the user's own keeps its running count.
OWN_PROGRESS = "*"


@dataclass(frozen=True)
class Checkpoint:
    """A part that is staged. Counts are rows; ``seconds`` is what its transform took."""

    table: str
    part: int
    member_sha256: str
    recipe: str
    rows_staged: int
    quarantined: int
    duplicate: int
    filtered: int
    seconds: float


@dataclass(frozen=True)
class Resume:
    """Where an import goes on: records behind checkpoints, and the parts of each table that are staged."""

    import_id: int
    records_processed: int
    parts: Mapping[str, tuple[int, ...]]


def write_checkpoint(cursor: Cursor, import_id: int, records: int, checkpoint: Checkpoint | None) -> bool:
    """Write a part's checkpoint, or with None a program's running count (which replaces the one before).

    Returns:
        False when the part was checkpointed already. Of two transactions with the same part, the second waits here for the
        first one's end.
    """
    mark = checkpoint or Checkpoint(OWN_PROGRESS, 0, "", "", records, 0, 0, 0, 0.0)
    replace = "do update set rows_read = excluded.rows_read, rows_staged = excluded.rows_staged, staged_at = excluded.staged_at"
    cursor.execute(
        f"""insert into etl.checkpoint (import_id, rows_read, table_name, part, member_sha256, recipe, rows_staged, quarantined,
                                        duplicate, filtered, seconds)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (import_id, table_name, part) {"do nothing" if checkpoint else replace}""",
        [import_id, records, *astuple(mark)],
    )
    return bool(cursor.rowcount)


def read_checkpoints(cursor: Cursor, import_id: int) -> Resume:
    """What of an import is behind checkpoints."""
    cursor.execute("select table_name, part, rows_read from etl.checkpoint where import_id = %s order by table_name, part", [import_id])
    rows = cursor.fetchall()
    parts: dict[str, tuple[int, ...]] = {}
    for table, part, _ in rows:
        if table != OWN_PROGRESS:
            parts[table] = (*parts.get(table, ()), part)
    return Resume(import_id, sum(row[2] for row in rows), parts)
