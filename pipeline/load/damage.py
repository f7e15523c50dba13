"""Checkpoints that do not tell the truth: found when a table's staging is gone on with, or its account does not add up.

A checkpoint is committed with its rows, so that only a hand, or a fault of the server's disk, makes the two disagree. It costs a
count by part to see which ones, of a table of which nothing is staged yet nothing. What is taken back is staged again from the
part's folder; each is told with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.load.relations import Relations

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

UNCERTAIN = "the account over all parts does not add up, and which of them is wrong cannot be told"
#: Parts whose checkpoint, rows and quarantine do not fit together.
DAMAGED = """
select part, why from (
    select part, case
        when c.part is null then s.rows || ' rows are staged without a checkpoint'
        when part not between 0 and coalesce(%(parts)s, part + 1) - 1 then 'the member has no such part'
        when coalesce(s.rows, 0) <> c.rows_staged then 'it says ' || c.rows_staged || ' rows, and ' || coalesce(s.rows, 0) || ' are staged'
        when (c.figures ->> 'whole')::bigint <> coalesce(w.rows, 0)
            then 'it says ' || (c.figures ->> 'whole') || ' rows whole, and ' || coalesce(w.rows, 0) || ' are staged'
        when c.rows_read <> c.rows_staged + c.quarantined + c.duplicate + c.filtered then 'it does not balance'
        when c.quarantined is distinct from q.quarantined
            then 'it says ' || c.quarantined || ' quarantined, and the ledger ' || coalesce(q.quarantined::text, 'nothing')
        end as why
      from (select * from etl.checkpoint where import_id = %(import_id)s and table_name = %(table)s) c
      full join (select part, count(*) as rows from {keys} group by part) s using (part)
      left join (select part, count(*) as rows from {rows} group by part) w using (part)
      left join (select part, quarantined from etl.quarantine_part
                  where import_id = %(import_id)s and table_name = %(table)s) q using (part)
) judged where why is not null or %(all)s order by part
"""


def take_back(cursor: Cursor, relations: Relations, parts: int | None = None, *, all_of_them: bool = False) -> dict[int, str]:
    """Take back the parts of a table whose checkpoints are damaged.

    Args:
        cursor: in a transaction that holds the table's lock (``staging.lock_table``).
        relations: the table's relations for the open import.
        parts: how many parts its member has; None: as many as there are.
        all_of_them: the account does not add up: where no part shows damage, every one is taken back.

    Returns:
        Why, by part.
    """
    values = {"import_id": relations.import_id, "table": relations.table.name, "parts": parts}
    found: dict[int, str] = {}
    for may_be_any in (False, True) if all_of_them else (False,):
        cursor.execute(sql.SQL(DAMAGED).format(keys=relations.keys, rows=relations.rows), values | {"all": may_be_any})
        found = {part: why or UNCERTAIN for part, why in cursor.fetchall()}
        if found:
            break
    for name in (relations.rows, relations.keys):
        cursor.execute(sql.SQL("delete from {} where part = any(%s)").format(name), [list(found)])
    for table in ("checkpoint", "quarantine_part", "quarantine"):
        statement = sql.SQL("delete from {} where import_id = %s and table_name = %s and part = any(%s)")
        cursor.execute(statement.format(sql.Identifier("etl", table)), [relations.import_id, relations.table.name, list(found)])
    return found
