"""By how much figures of a table move: what comes, less what goes, so that a refresh with few changes does not read the rows that stay."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, comma, same
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: With more rows than one in so many changed, reading the table once takes less than looking up what they replace.
FEW = 5
COUNTS = """
select (select reltuples from pg_class where oid = to_regclass(%(rows)s)),
       (select rows_loaded from etl.import_table where import_id = %(base)s and table_name = %(table)s)
"""
NEW = "select count(*) from {rows} s where not exists (select 1 from {live} l where l.tax_year = {year} and {same_key})"
COMING = "select {figures} from {rows} r"
REPLACED = "select {figures} from {live} r where r.tax_year = {year} and exists (select 1 from {rows} s where {same_key_of_r})"
VANISHED = "select {figures} from {live} r where r.tax_year = {year} and not exists (select 1 from {keys} s where {same_key_of_r})"


def moved(
    cursor: Cursor, found: Import, relations: Relations, staged: StagedTable, figures: Sequence[sql.Composable]
) -> list[Decimal] | None:
    """By how much each figure moves when a staged table is published.

    Args:
        cursor: in the gate's transaction.
        found: the open import.
        relations: of the table.
        staged: its account.
        figures: counts and sums over rows ``r``; of no row they are 0.

    Returns:
        What is to be added to the figures of the live rows; None: so much changes that all of the table is to be read, or there is
        nothing live, or no key to tell its rows by.
    """
    if found.base_import_id is None or staged.disposition != "staged" or not relations.table.is_keyed:
        return None
    names = {"rows": relations.rows.as_string(cursor), "base": found.base_import_id, "table": staged.table}
    cursor.execute(COUNTS, names)
    changed, live = cursor.fetchone() or (0, None)
    if live is None or changed * FEW > staged.rows_loaded:
        return None
    words: dict[str, sql.Composable] = {
        "rows": relations.rows, "keys": relations.keys, "live": relations.live, "year": sql.Literal(found.key.tax_year),
        "same_key": same(relations.anchor, "l", "s"), "same_key_of_r": same(relations.anchor, "r", "s"), "figures": comma(figures),
    }  # fmt: skip

    def ask(statement: str) -> tuple[Decimal, ...]:
        cursor.execute(sql.SQL(statement).format(**words))
        return tuple(Decimal(figure) for figure in cursor.fetchone() or ())

    (new,) = ask(NEW)
    changes = [ask(COMING), tuple(-figure for figure in ask(REPLACED))]
    # By the account alone: only where it says that keys vanish are they looked for.
    if live > staged.rows_loaded - new:
        changes.append(tuple(-figure for figure in ask(VANISHED)))
    return [sum(of_one, Decimal(0)) for of_one in zip(*changes, strict=True)]
