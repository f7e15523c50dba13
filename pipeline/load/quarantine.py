"""The quarantine in the ledger: every refused row counted by its rules, and of each rule the first rows of the table kept whole.

Counts and rows are written in the transaction that stages the part, and are durable: they outlive a crash that empties
staging, and an import that is refused. A part gives of each rule its first rows up to the cap; when all parts are there, what
is beyond the cap over the whole table goes. So the rows kept are the first of the member by line, however it was cut and in
whatever order its parts came. A row stays that is among the first of any of its rules. The part's own ``quarantine.jsonl`` has all of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2 import sql
from psycopg2.extras import Json, execute_values

from pipeline.handoff import RawLine

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The part under which rows are counted that were found when all parts were there.
WHOLE_TABLE = -1

INSERT = """
insert into etl.quarantine (import_id, table_name, part, line, byte_offset, member_sha256, raw, raw_base64, rules, reasons) values %s
"""
COUNT = """
insert into etl.quarantine_part (import_id, table_name, part, quarantined, refused) values (%s, %s, %s, %s, %s)
    on conflict (import_id, table_name, part) do update set quarantined = excluded.quarantined, refused = excluded.refused
"""
ADD_TO_PART = """
update etl.quarantine_part set quarantined = quarantined + %s, refused = refused || %s where (import_id, table_name, part) = (%s, %s, %s)
"""
BEYOND_THE_CAP = """
delete from etl.quarantine where quarantine_id in (
    select quarantine_id from (
        select q.quarantine_id, row_number() over (partition by rule order by q.line) as turn
          from etl.quarantine q, unnest(q.rules) rule where q.import_id = %s and q.table_name = %s) ranked
     group by quarantine_id having min(turn) > %s)
"""


@dataclass(frozen=True)
class Place:
    """Where refused rows come from: a part of a table's member, in an import."""

    import_id: int
    table: str
    part: int
    member_sha256: str


@dataclass(frozen=True)
class Conflict:
    """A row that has the key of another one and other values."""

    part: int
    line: int
    standing_line: int


def stage_part(cursor: Cursor, place: Place, jsonl: Path, rows_per_rule: int) -> int:
    """Count a part's refused rows, and keep of each rule the first ones.

    Args:
        cursor: in the transaction that commits the part with its checkpoint.
        place: the part.
        jsonl: its ``quarantine.jsonl``.
        rows_per_rule: how many of each rule are kept.

    Returns:
        The rows in the file.
    """
    # The ledger's rows outlive a crash that empties the unlogged checkpoints; a part that is staged again replaces them.
    where = [place.import_id, place.table, place.part]
    cursor.execute("delete from etl.quarantine where (import_id, table_name, part) = (%s, %s, %s)", where)
    lines: dict[str, list[int]] = {}
    quarantined = 0
    for row in _rows(jsonl):
        quarantined += 1
        for rule in row["rules"]:
            lines.setdefault(rule, []).append(row["line"])
    cursor.execute(COUNT, [*where, quarantined, Json({rule: len(found) for rule, found in lines.items()})])
    # The file is in the order in which chunks were judged, so it is read twice and not kept.
    last = {rule: sorted(found)[:rows_per_rule][-1] for rule, found in lines.items()}
    kept = (row for row in _rows(jsonl) if any(row["line"] <= last[rule] for rule in row["rules"]))
    values = (
        (*where, row["line"], row["offset"], place.member_sha256, row["raw"], row.get("raw_base64"), row["rules"], Json(row["reasons"]))
        for row in kept
    )
    execute_values(cursor, INSERT, values, page_size=1000)
    return quarantined


def add_refused(cursor: Cursor, place: Place, rule: str, messages: Mapping[int, str], raw: Mapping[int, RawLine]) -> None:
    """Count rows of a part that were refused after its transform, under a rule of the line as a whole (``*:...``), and keep them.

    Args:
        cursor: in the transaction that commits the part, after :func:`stage_part`.
        place: the part.
        rule: the rule, which the transform does not use.
        messages: why, by line.
        raw: the lines.
    """
    where = [place.import_id, place.table, place.part]
    cursor.execute(ADD_TO_PART, [len(messages), Json({rule: len(messages)}), *where])
    values = (
        (*where, line, raw[line].byte_offset, place.member_sha256, raw[line].text, raw[line].base64, [rule], Json({"*": [message]}))
        for line, message in messages.items()
    )
    execute_values(cursor, INSERT, values, page_size=1000)


def add_conflicts(
    cursor: Cursor, place: Place, key: str, count: int, kept: Sequence[Conflict], raw: Mapping[int, RawLine]
) -> None:
    """Count the rows of a whole table that contradict another one with their key, and keep the first of them.

    Args:
        cursor: in the transaction that settles the table.
        place: the table; its part plays no role.
        key: the key's columns, as reasons name them.
        count: how many rows there are.
        kept: the first of them.
        raw: their lines.
    """
    rule = f"{key}:conflicting"
    cursor.execute(COUNT, [place.import_id, place.table, WHOLE_TABLE, count, Json({rule: count} if count else {})])
    values = (
        (
            place.import_id, place.table, row.part, row.line, raw[row.line].byte_offset, place.member_sha256, raw[row.line].text,
            raw[row.line].base64, [rule], Json({key: [f"line {row.standing_line} has the same key with other values"]}),
        )
        for row in kept
    )  # fmt: skip
    execute_values(cursor, INSERT, values, page_size=1000)


def trim(cursor: Cursor, import_id: int, table: str, rows_per_rule: int) -> None:
    """Take out what is beyond the cap over all parts of a table."""
    cursor.execute(BEYOND_THE_CAP, [import_id, table, rows_per_rule])


def refused(cursor: Cursor, import_id: int, table: str) -> Counter[str]:
    """The refused rows of a table over all its parts, by ``column:rule``."""
    cursor.execute("select refused from etl.quarantine_part where import_id = %s and table_name = %s", [import_id, table])
    counted: Counter[str] = Counter()
    for (by_rule,) in cursor.fetchall():
        counted.update(by_rule)
    return counted


def clear(cursor: Cursor, import_id: int, table: str) -> None:
    """Forget what was refused of a table: its parts are made of something else now."""
    for name in ("quarantine", "quarantine_part"):
        statement = sql.SQL("delete from {} where import_id = %s and table_name = %s").format(sql.Identifier("etl", name))
        cursor.execute(statement, [import_id, table])


def _rows(jsonl: Path) -> Iterator[dict[str, Any]]:
    with open(jsonl, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
