"""What must hold of a source's live tables before anything is downloaded, and what users have hung on them.

Tables that differ from their schema files stop the run, with the statements to weigh. Views, triggers, foreign keys and other
constraints of the user's own are noted: they survive every import, because rows are changed and tables are never replaced; but all
of them save views take part in each publish, and can refuse it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.database.engine import transaction
from pipeline.database.preflight import extension_notes, require_room, require_server
from pipeline.database.repeat import repeated
from pipeline.load.relations import Relations, live_name
from pipeline.load.shape import require_shapes

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

DEPENDENTS = """
with ours as (
    select c.oid, format('%%I.%%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = any(array(select to_regclass(t) from unnest(%s::text[]) t))
)
select distinct ours.name, case v.relkind when 'm' then 'materialized view' else 'view' end, format('%%I.%%I', m.nspname, v.relname)
  from ours join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = ours.oid and d.classid = 'pg_rewrite'::regclass
  join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class and v.oid <> ours.oid
  join pg_namespace m on m.oid = v.relnamespace
union all
select ours.name, 'trigger', t.tgname from ours join pg_trigger t on t.tgrelid = ours.oid and not t.tgisinternal
union all
select ours.name, 'foreign key', format('%%I of %%s', k.conname, k.conrelid::regclass)
  from ours join pg_constraint k on k.contype = 'f' and k.conparentid = 0 and ours.oid in (k.conrelid, k.confrelid)
union all
select ours.name, case k.contype when 'c' then 'check' else 'exclusion' end || ' constraint', k.conname
  from ours join pg_constraint k on k.contype in ('c', 'x') and k.conrelid = ours.oid
union all
select ours.name, 'unique index', i.relname
  from ours join pg_index x on x.indrelid = ours.oid and x.indisunique and not x.indisprimary join pg_class i on i.oid = x.indexrelid
 order by 1, 2, 3
"""


def preflight(engine: Engine, sources: Iterable[Source], *, min_free_bytes: int = 0) -> list[str]:
    """Look at the server and at the live tables of sources; nothing is changed.

    Returns:
        Notes for a person, one sentence each.

    Raises:
        ConfigurationError: of the server: version, encoding, privileges, read only (subclasses).
        DatabaseFull: less room than that, where it can be known.
        ShapeError: a live table is not what its schema file says.
    """
    wanted = list(sources)
    tables = [table for source in wanted for table in _live_tables(source)]
    require_server(engine, [live_name(table.source, table.name) for table in tables])
    notes = []
    if note := require_room(engine, min_free_bytes):
        notes.append(note)
    if any(index.using == "trgm" for table in tables for index in table.indexes):
        notes += extension_notes(engine, ["pg_trgm"])
    for source in wanted:
        require_shapes(engine, source)
    return notes + dependents(engine, wanted)


@repeated
def dependents(engine: Engine, sources: Iterable[Source]) -> list[str]:
    """A sentence for each view, trigger, foreign key and other constraint of a user's own on the live tables of these sources."""
    with transaction(engine) as cursor:
        relations = [Relations(table).live.as_string(cursor) for source in sources for table in _live_tables(source)]
        return [f"{table} has a {kind} of your own, {name}: it is kept" for table, kind, name in _rows(cursor, relations)]


def _live_tables(source: Source) -> list[Table]:
    return [*source.tables, *(roll.table for roll in source.rolls)]


def _rows(cursor: Cursor, relations: list[str]) -> list[tuple[str, str, str]]:
    cursor.execute(DEPENDENTS, [relations])
    return list(cursor.fetchall())
