"""What the database owes and what it need not keep: VACUUM and ANALYZE after a publish, and the retention of history and staging.

A publish or rollback notes in its own transaction which partitions it wrote; who pays takes the note away afterwards, so that the next
run pays for one that died in between. Neither waits for readers nor makes them wait. Retention removes row history from the
oldest import on, and staging that nobody has taken up again; what is published is never touched, and an import
whose history is gone is marked, so that it is not taken back by half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.database import ledger
from pipeline.database.engine import connect, transaction, translated
from pipeline.database.ledger import Import
from pipeline.errors import TransientError
from pipeline.handoff import OnEvent, ignore
from pipeline.load.images import forget_columns
from pipeline.load.publish import Changes
from pipeline.load.relations import identifier, partition_of

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: VACUUM waits for a person's DDL on the table so long, as pruning does for the tax year, and then leaves it to the next run.
LOCK_TIMEOUT = "5s"

OWE = """
insert into etl.owed (source, tax_year, table_name, import_id, rows) values (%s, %s, %s, %s, %s)
on conflict (source, tax_year, table_name) do update
   set import_id = excluded.import_id, rows = etl.owed.rows + excluded.rows, owed_since = clock_timestamp()
"""
#: ANALYZE of 71 columns takes seconds and VACUUM of what a refresh wrote none: it is for when it may tell something new. Small changes
#: that add up are autovacuum's, which counts them.
ANALYZE_SHARE = 0.05
#: The imports that the current one stands on, the newest first.
CHAIN = """
with recursive chain as (
    select * from etl.import where source = %(source)s and tax_year = %(year)s and state = 'published'
    union all
    select i.* from etl.import i join chain c on i.import_id = c.base_import_id
)
select import_id, base_import_id, history_dropped_at, published_at < now() - make_interval(days => %(days)s)
  from chain order by import_id desc
"""


@dataclass(frozen=True)
class Kept:
    """How long what is not published is kept; whichever of the first two keeps an import's row history longer counts.

    Attributes:
        history_imports: of how many of the newest imports of a tax year the row history is kept: so many can be taken back.
        history_days: for how many days after its publish the row history of an import is kept.
        staging_days: for how many days the staging of an import that is refused, or was left unfinished, is kept.
    """

    history_imports: int = 10
    history_days: int = 90
    staging_days: int = 30


def owe(cursor: Cursor, found: Import, changes: Mapping[str, Changes]) -> None:
    """Note, in the transaction that wrote them, which tables want VACUUM and ANALYZE."""
    for table, written in changes.items():
        if written != Changes():
            rows = written.inserted + written.updated + written.deleted
            cursor.execute(OWE, [found.key.source, found.key.tax_year, table, found.import_id, rows])


def pay_if_possible(engine: Engine, sources: Iterable[str], on_event: OnEvent = ignore) -> int:
    """As :func:`pay`; what cannot be done now stays owed, and is an event: what was published before is published all the same."""
    try:
        return pay(engine, sources, on_event)
    except TransientError as error:
        on_event("load.owed", {"error": error.seen})
        return 0


def pay(engine: Engine, sources: Iterable[str], on_event: OnEvent = ignore) -> int:
    """VACUUM what is owed of these sources, and ANALYZE it where a share of it is new; returns how many partitions.

    Raises:
        DatabaseUnavailable: the server broke off, or somebody holds a table; the rest stays owed.
    """
    with transaction(engine) as cursor:
        cursor.execute(
            "select source, tax_year, table_name, rows, owed_since from etl.owed where source = any(%s) order by 1, 2, 3", [list(sources)]
        )
        owed = cursor.fetchall()
    for source, year, table, rows, since in owed:
        partition = partition_of(source, table, year)
        with translated(), closing(connect(engine)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
                cursor.execute("select reltuples from pg_class where oid = to_regclass(%s)", [partition.as_string(cursor)])
                if found := cursor.fetchone():
                    analyze = sql.SQL("true" if rows > ANALYZE_SHARE * max(found[0], 0) else "false")
                    # Without truncate, which locks readers out to give empty pages at the end back.
                    cursor.execute(sql.SQL("vacuum (analyze {}, truncate false) {}").format(analyze, partition))
                # One that was written again meanwhile is owed again.
                cursor.execute(
                    "delete from etl.owed where (source, tax_year, table_name, owed_since) = (%s, %s, %s, %s)", [source, year, table, since]
                )
        on_event("load.vacuumed", {"table": f"{source}.{table}", "tax_year": year})
    return len(owed)


def prune(engine: Engine, source: str, keep: Kept = Kept(), on_event: OnEvent = ignore) -> int:
    """Remove history and staging of a source that the policy no longer keeps; returns the rows of history removed.

    The caller holds the source. Each tax year is a transaction of its own.
    """
    with transaction(engine) as cursor:
        cursor.execute("select distinct tax_year from etl.import where source = %s order by 1", [source])
        years = [year for (year,) in cursor.fetchall()]
    removed = 0
    for year in years:
        with transaction(engine) as cursor:
            # What a killed process was doing may still wait in the server, with the year locked; this can wait for another day.
            cursor.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
            ledger.lock_source_year(cursor, source, year)
            forgotten, rows = _forget_history(cursor, source, year, keep)
            dropped = _forget_staging(cursor, source, year, keep.staging_days)
        removed += rows
        if forgotten or dropped:
            on_event("load.pruned", {"source": source, "tax_year": year, "history_of": forgotten, "rows": rows, "staging_of": dropped})
    return removed


def _forget_history(cursor: Cursor, source: str, year: int, keep: Kept) -> tuple[list[int], int]:
    cursor.execute(CHAIN, {"source": source, "year": year, "days": keep.history_days})
    # A first import has no row history, and is taken back without.
    going = [
        import_id
        for place, (import_id, base, dropped_at, is_old) in enumerate(cursor.fetchall())
        if place >= keep.history_imports and is_old and base is not None and dropped_at is None
    ]
    if not going:
        return [], 0
    cursor.execute(
        "select distinct table_name from etl.import_table where import_id = any(%s) and inserted + updated + deleted > 0", [going]
    )
    rows = 0
    for (table,) in cursor.fetchall():
        history = identifier("history", f"{source}_{table}")
        cursor.execute(sql.SQL("delete from {} where tax_year = %s and import_id = any(%s)").format(history), [year, going])
        rows += cursor.rowcount
        forget_columns(cursor, going, table)
    cursor.execute("update etl.import set history_dropped_at = clock_timestamp() where import_id = any(%s)", [going])
    return going, rows


def _forget_staging(cursor: Cursor, source: str, year: int, days: int) -> list[int]:
    cursor.execute(
        """select import_id from etl.import where source = %s and tax_year = %s and state in ('staging', 'refused')
              and coalesce(closed_at, opened_at) < now() - make_interval(days => %s) order by 1""",
        [source, year, days],
    )
    old = [import_id for (import_id,) in cursor.fetchall()]
    cursor.execute(
        """select distinct split_part(tablename, '_', 1) from pg_tables where schemaname = %s""", [ledger.STAGING_SCHEMA]
    )
    staged = {name for (name,) in cursor.fetchall()}
    going = [import_id for import_id in old if f"i{import_id}" in staged]
    if going:
        ledger.drop_staging(cursor, going)
        # A refused one stays refused; one that was left unfinished begins anew.
        cursor.execute(
            "update etl.import set state = 'superseded', closed_at = clock_timestamp() where import_id = any(%s) and state = 'staging'",
            [going],
        )
    return going
