"""What tables and columns mean, as comments in the database: a live table says what its schema file says, and its history likewise.

In go tables of the catalog; out come COMMENTs where the database says something else, and nothing where it says the same: that costs
one query a source. A changed ``doc`` is in no recipe, so it reaches the database by the next run, whatever that publishes. A table
that somebody holds is left as it is until a later run. Columns and tables of the user's own keep their comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from psycopg2 import sql
from sqlalchemy import Engine

from pipeline.catalog.model import Source, Table
from pipeline.database.engine import transaction
from pipeline.errors import DatabaseBusy
from pipeline.handoff import OnEvent, ignore
from pipeline.load.relations import Relations

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

LOCK_TIMEOUT = "80ms"
#: Of relations that exist: each column's comment, and under the name '' the relation's own.
COMMENTS = """
select t.name, a.name, coalesce(d.description, '') from unnest(%s::text[]) t(name) join pg_class c on c.oid = to_regclass(t.name)
 cross join lateral (select 0 as place, '' as name union all
                     select attnum, attname from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
  left join pg_description d on d.objoid = c.oid and d.classoid = 'pg_class'::regclass and d.objsubid = a.place
"""
#: Relation, as SQL writes it -> column ('': the relation) -> text.
Texts = Mapping[str, Mapping[str, str]]


def describe(cursor: Cursor, relations: Relations) -> int:
    """Bring the comments of a table and its history up to date in the caller's transaction; returns how many were changed."""
    return _write(cursor, _differing(cursor, _wanted(cursor, [relations.table])))


def describe_source(engine: Engine, source: Source, on_event: OnEvent = ignore) -> int:
    """Bring the comments of a source's tables up to date, as far as there are tables and nobody holds them.

    Args:
        engine: of the database.
        source: the source, which the caller holds.
        on_event: is told ``load.comments`` (source, changed) where some differed, and ``load.comments_later`` (source, why).

    Returns:
        How many were changed.
    """
    try:
        with transaction(engine) as cursor:
            differing = _differing(cursor, _wanted(cursor, (*source.tables, *(roll.table for roll in source.rolls))))
            cursor.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
            changed = _write(cursor, differing)
    except DatabaseBusy as error:
        on_event("load.comments_later", {"source": source.name, "why": error.seen})
        return 0
    if changed:
        on_event("load.comments", {"source": source.name, "changed": changed})
    return changed


def _wanted(cursor: Cursor, tables: Iterable[Table]) -> Texts:
    """What the schema files say; what they say nothing of is not there."""
    wanted: dict[str, dict[str, str]] = {}
    for table in tables:
        relations = Relations(table)
        stated = {column.name: column.doc for column in table.columns} | {
            "": table.doc,
            "tax_year": "Tax year of the roll that the row is of",
            "seq": "Tells rows apart that are equal under their parent; stable while the row lives, and no order of the file",
        }
        live = stated | {
            "import_id": "The import that last wrote the row: etl.import",
            "row_hash": "Hash of the row's values in a canonical form",
        }
        history = stated | {
            "": f"Rows of {table.qualified} as they were before an import changed them",
            "import_id": "The import that changed the row: etl.import",
            "operation": "I: the row was not there before, U: it had other values, D: it is there no more",
            "before_image": "The row's values before, by position; etl.before_image reads them by name",
        }
        if table.is_roll:
            live["source"] = "Source of the roll that the row is of"
        wanted[relations.root.as_string(cursor)] = {name: text for name, text in live.items() if text}
        wanted[relations.history.as_string(cursor)] = {name: text for name, text in history.items() if text}
    return wanted


def _differing(cursor: Cursor, wanted: Texts) -> Texts:
    """Of the relations and columns that exist, what they should say and do not."""
    cursor.execute(COMMENTS, [list(wanted)])
    differing: dict[str, dict[str, str]] = {}
    for relation, name, text in cursor.fetchall():
        if (should := wanted[relation].get(name)) is not None and should != text:
            differing.setdefault(relation, {})[name] = should
    return differing


def _write(cursor: Cursor, texts: Texts) -> int:
    statements = [
        sql.SQL("comment on column {}.{} is {}").format(sql.SQL(relation), sql.Identifier(name), sql.Literal(text))
        if name
        else sql.SQL("comment on table {} is {}").format(sql.SQL(relation), sql.Literal(text))
        for relation, columns in texts.items()
        for name, text in columns.items()
    ]
    if statements:
        cursor.execute(sql.SQL("; ").join(statements))
    return len(statements)
