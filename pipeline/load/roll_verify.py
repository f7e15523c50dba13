"""A computed table held to what it is made of: every row computed again from the live tables, and compared with the one that is live.

Rows are compared by key (or parent) and hash, as often as they come, and live rows with the hash that they carry. What the ledger says
was made by another recipe is not compared: it is computed anew by the next import. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.model import Source
from pipeline.catalog.recipe import roll_recipe
from pipeline.catalog.roll import Roll
from pipeline.database.ledger import Import
from pipeline.load.images import pin_forms
from pipeline.load.relations import WIDE_JOINS, Relations, names, run
from pipeline.load.roll_inputs import RollQuery, row_hash

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

STATED = "select count(*), count(*) filter (where r.row_hash <> {row_hash}) from {live} r where r.tax_year = %(year)s"
DIFFERING = """
with computed as materialized (select {anchor}, row_hash from ({typed}) q),
     differing as materialized (
         select distinct {account} as account
           from (select {anchor}, row_hash, count(*) as rows from {live} where tax_year = %(year)s group by {anchor}, row_hash) l
           full join (select {anchor}, row_hash, count(*) as rows from computed group by {anchor}, row_hash) c using ({anchor}, row_hash)
          where l.rows is distinct from c.rows)
select (select count(*) from differing), array(select account::text from differing order by 1 limit 3)
"""


@dataclass(frozen=True)
class RollChecked:
    """What was seen of a computed table: ``rows`` live, ``changed`` of them not as their hashes state, and what differs when computed.

    ``differing`` counts accounts, ``examples`` names some; both empty where the table was made by another recipe, or not published.
    """

    rows: int
    changed: int
    rows_stated: int | None
    is_current: bool
    differing: int = 0
    examples: tuple[str, ...] = ()


def check_roll(cursor: Cursor, found: Import, source: Source, roll: Roll, *, compute: bool) -> RollChecked | None:
    """Look at one computed table of the current import; with ``compute`` every row is computed again. None: it was not published yet."""
    cursor.execute(
        "select recipe, rows_loaded from etl.import_table where import_id = %s and table_name = %s", [found.import_id, roll.table.name]
    )
    row = cursor.fetchone()
    if row is None:
        return None
    recipe, rows_stated = row
    pin_forms(cursor)
    cursor.execute(WIDE_JOINS)
    relations, year = Relations(roll.table), found.key.tax_year
    run(cursor, STATED, {"row_hash": row_hash(relations.column_names), "live": relations.live}, {"year": year})
    rows, changed = cursor.fetchone() or (0, 0)
    is_current = recipe == roll_recipe(source, roll, year)
    if not (compute and is_current):
        return RollChecked(rows, changed, rows_stated, is_current)
    words: dict[str, sql.Composable] = {
        "anchor": names(relations.anchor), "account": sql.Identifier(roll.account), "live": relations.live,
        "typed": RollQuery(source, roll, found, None).typed(),
    }  # fmt: skip
    run(cursor, DIFFERING, words, {"year": year})
    differing, examples = cursor.fetchone() or (0, [])
    return RollChecked(rows, changed, rows_stated, is_current, differing, tuple(examples))
