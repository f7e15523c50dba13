"""Checkpoints: what of an import is staged, committed with the rows that it speaks for.

A checkpoint has the persistence of the staging table beside it: both are unlogged, so a crash of the server empties both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from psycopg2.extras import Json

from pipeline.handoff import Member

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The table name under which a program of the user's own keeps its running count.
OWN_PROGRESS = "*"
REPLACE = "do update set rows_read = excluded.rows_read, rows_staged = excluded.rows_staged, staged_at = excluded.staged_at"


@dataclass(frozen=True)
class Origin:
    """What the parts of a table are made of: parts of another origin are not mixed with them.

    ``member_sha256`` is the member, ``recipe`` what is made of it, ``cut`` a hash of how it is cut into parts.
    """

    member_sha256: str
    recipe: str
    cut: str

    @classmethod
    def of(cls, member: Member, recipe: str) -> Origin:
        """The origin of a member's parts under a recipe."""
        cut = hashlib.sha256(json.dumps([astuple(part) for part in member.parts]).encode()).hexdigest()[:12]
        return cls(member.sha256, recipe, cut)


@dataclass(frozen=True)
class Checkpoint:
    """A part that is staged.

    Counts are rows; ``nulled`` and ``changed`` count by ``column:rule`` the values that declared rules turned into NULL, or altered;
    ``seconds`` is what its transform took; ``figures`` is what the gate compares of the part's rows (``PartReport.measured``).
    """

    table: str
    part: int
    origin: Origin
    rows_staged: int
    quarantined: int
    duplicate: int
    filtered: int
    nulled: Mapping[str, int]
    changed: Mapping[str, int]
    seconds: float
    figures: Mapping[str, Any] | None = None


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
    mark = checkpoint or Checkpoint(OWN_PROGRESS, 0, Origin("", "", ""), records, 0, 0, 0, {}, {}, 0.0)
    cursor.execute(
        f"""insert into etl.checkpoint (import_id, rows_read, table_name, part, member_sha256, recipe, cut, rows_staged, quarantined,
                                        duplicate, filtered, nulled, changed, seconds, figures)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (import_id, table_name, part) {"do nothing" if checkpoint else REPLACE}""",
        [
            import_id, records, mark.table, mark.part, *astuple(mark.origin), mark.rows_staged, mark.quarantined, mark.duplicate,
            mark.filtered, Json(dict(mark.nulled)), Json(dict(mark.changed)), mark.seconds,
            None if mark.figures is None else Json(dict(mark.figures)),
        ],
    )  # fmt: skip
    return bool(cursor.rowcount)


def move_to_quarantine(cursor: Cursor, import_id: int, table: str, part: int, rows: int) -> None:
    """Count rows of a checkpoint as quarantined that it took for staged; in the transaction that wrote it."""
    cursor.execute(
        """update etl.checkpoint set rows_staged = rows_staged - %s, quarantined = quarantined + %s
            where (import_id, table_name, part) = (%s, %s, %s)""",
        [rows, rows, import_id, table, part],
    )


def other_origins(cursor: Cursor, import_id: int, table: str, origin: Origin) -> str:
    """In what the checkpoints of a table differ from an origin: ``another member, another cut``; "" when they do not."""
    cursor.execute(
        """select coalesce(bool_or(member_sha256 <> %s), false), coalesce(bool_or(recipe <> %s), false), coalesce(bool_or(cut <> %s), false)
             from etl.checkpoint where import_id = %s and table_name = %s""",
        [*astuple(origin), import_id, table],
    )
    kinds = zip(("member", "recipe", "cut"), cursor.fetchone() or (), strict=True)
    return ", ".join(f"another {kind}" for kind, is_another in kinds if is_another)


def read_checkpoints(cursor: Cursor, import_id: int) -> Resume:
    """What of an import is behind checkpoints."""
    cursor.execute("select table_name, part, rows_read from etl.checkpoint where import_id = %s order by table_name, part", [import_id])
    rows = cursor.fetchall()
    parts: dict[str, tuple[int, ...]] = {}
    for table, part, _ in rows:
        if table != OWN_PROGRESS:
            parts[table] = (*parts.get(table, ()), part)
    return Resume(import_id, sum(row[2] for row in rows), parts)
