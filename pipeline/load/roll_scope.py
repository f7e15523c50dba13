"""Which accounts a computed table is computed for: those of which a row of an input is inserted, updated or deleted by the import.

Staging has decided what changed; here it is asked which accounts that is about, the former one of a row that moved from one account
to another too. An input whose rows may matter to any account, and that has changed at all, means every account. Of inputs that stay as
they are nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from psycopg2 import sql

from pipeline.catalog.roll import RollInput
from pipeline.database.ledger import Import
from pipeline.load.relations import Relations, names, run, same
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: Rows that are staged whole are new, or differ from what is live under their key.
WRITTEN = "insert into {scope} select distinct s.{account} from {rows} s where s.{account} is not null on conflict do nothing"
#: The account that a row had before.
FORMER = """
insert into {scope} select distinct l.{account} from {live} l join {rows} s on {same_anchor}
 where l.tax_year = %(year)s and l.{account} is not null on conflict do nothing
"""
#: Of a table with a key: what is live, less what is staged and was live before, is gone.
GONE = """
select (select count(*) from {live} l where l.tax_year = %(year)s) - (select count(*) from {keys})
       + (select count(*) from {rows} s where not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor}))
"""
VANISHED = """
insert into {scope} select distinct l.{account} from {live} l
 where l.tax_year = %(year)s and l.{account} is not null and not exists (select 1 from {keys} s where {same_anchor}) on conflict do nothing
"""
#: Of a table without a key: contents of which there were more or fewer.
COUNTED = """
select {anchor} from (select {anchor}, row_hash, count(*) as live from {live} where tax_year = %(year)s group by {anchor}, row_hash) o
  full join (select {anchor}, row_hash, count(*) as staged from {keys} group by {anchor}, row_hash) n using ({anchor}, row_hash)
 where coalesce(o.live, 0) <> coalesce(n.staged, 0)
"""
DIFFERING = "insert into {scope} select distinct {account} from ({counted}) c on conflict do nothing"


def is_all(cursor: Cursor, found: Import, inputs: Iterable[RollInput], staged: Mapping[str, StagedTable]) -> bool:
    """Whether an input that matters to every account has changed."""
    return any(
        _has_changed(cursor, found, one) for one in inputs if one.account is None and staged[one.table.name].disposition == "staged"
    )


def fill_scope(
    cursor: Cursor, found: Import, inputs: Iterable[RollInput], staged: Mapping[str, StagedTable], scope: sql.Identifier
) -> int:
    """Put the accounts of which something changed into a table of one column, ``account``, which is its key; returns how many they are."""
    for one in inputs:
        if one.account is not None and staged[one.table.name].disposition == "staged":
            _add(cursor, found, one, one.account, scope)
    cursor.execute(sql.SQL("analyze {}").format(scope))
    cursor.execute(sql.SQL("select count(*) from {}").format(scope))
    return int((cursor.fetchone() or (0,))[0])


def _add(cursor: Cursor, found: Import, one: RollInput, account: str, scope: sql.Identifier) -> None:
    words, values = _words(found, one) | {"scope": scope, "account": sql.Identifier(account)}, {"year": found.key.tax_year}
    if not one.table.is_keyed:
        counted = sql.SQL(COUNTED.replace("%(year)s", "{year}")).format(year=sql.Literal(found.key.tax_year), **words)
        run(cursor, DIFFERING, words | {"counted": counted}, {})
        return
    run(cursor, WRITTEN, words, values)
    if account not in one.table.key:
        run(cursor, FORMER, words, values)
    run(cursor, GONE, words, values)
    if (cursor.fetchone() or (0,))[0]:
        run(cursor, VANISHED, words, values)


def _has_changed(cursor: Cursor, found: Import, one: RollInput) -> bool:
    words, values = _words(found, one), {"year": found.key.tax_year}
    if one.table.is_keyed:
        run(cursor, "select exists (select 1 from {rows})", words, values)
        if (cursor.fetchone() or (False,))[0]:
            return True
        run(cursor, GONE, words, values)
        return bool((cursor.fetchone() or (0,))[0])
    return run(cursor, f"{COUNTED} limit 1", words, values) > 0


def _words(found: Import, one: RollInput) -> dict[str, sql.Composable]:
    relations = Relations(one.table, found.import_id)
    return {
        "live": relations.live, "keys": relations.keys, "rows": relations.rows, "anchor": names(relations.anchor),
        "same_anchor": same(relations.anchor, "l", "s"),
    }  # fmt: skip
