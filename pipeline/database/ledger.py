"""The ledger of imports: which release, under which recipe, is on its way, current, refused, held or taken back.

All state that decides whether work is done lives here, in rows committed with the data they speak for. Functions take a
cursor, so that they join the caller's transaction. "Current" is a state, not a memory: when release A is offered again
after B, its first import is superseded and does not count; a new one is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.errors import ConfigurationError, FencedOut, GateRefused, ReleaseHeld, StagingStale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor

STAGING_SCHEMA = "etl_staging"
#: Raise it when the staging tables, or what stands in them, take another form: what an older program staged is then staged anew.
STAGING_REVISION = 2
RowLock = Literal["", "for share", "for update"]


@dataclass(frozen=True)
class ImportKey:
    """The identity of an import: a release of a source's tax year, and the recipe it is read with."""

    source: str
    tax_year: int
    release: str
    recipe: str

    def __str__(self) -> str:
        return f"{self.source} {self.tax_year} release {self.release} recipe {self.recipe}"


@dataclass(frozen=True)
class Import:
    """One row of ``etl.import``. ``state``: staging, refused, published, superseded or rolled_back; ``message``: why."""

    import_id: int
    key: ImportKey
    state: str
    base_import_id: int | None
    error_code: str | None
    message: str | None
    staging_revision: int

    @property
    def is_open(self) -> bool:
        """Whether parts may be staged into it."""
        return self.state == "staging"

    @property
    def is_held(self) -> bool:
        """Whether it was refused or rolled back, so that no work is done on its release and recipe."""
        return self.state in {"refused", "rolled_back"}


COLUMNS = "import_id, source, tax_year, release, recipe, state, base_import_id, error_code, message, staging_revision"


def standing(cursor: Cursor, key: ImportKey) -> Import | None:
    """The newest import of this identity that is not superseded: staging, refused, current, or rolled back."""
    cursor.execute(
        f"""select {COLUMNS} from etl.import
             where source = %s and tax_year = %s and release = %s and recipe = %s and state <> 'superseded'
             order by import_id desc limit 1""",  # a constant list of columns
        [key.source, key.tax_year, key.release, key.recipe],
    )
    return _import(cursor)


def current(cursor: Cursor, source: str, tax_year: int) -> Import | None:
    """The published import of a source's tax year."""
    cursor.execute(
        f"select {COLUMNS} from etl.import where source = %s and tax_year = %s and state = 'published'",
        [source, tax_year],
    )
    return _import(cursor)


def by_id(cursor: Cursor, import_id: int, *, lock: RowLock = "") -> Import | None:
    """The import of that number, its row locked like that."""
    cursor.execute(f"select {COLUMNS} from etl.import where import_id = %s {lock}", [import_id])
    return _import(cursor)


def why_stale(found: Import, base: Import | None) -> str | None:
    """Why nobody may go on with what an open import has staged; None: one may. ``base`` is what is current."""
    if found.base_import_id != (base.import_id if base else None):
        current = f"import {base.import_id} is current" if base else "none is current"
        return f"it was compared with import {found.base_import_id or 'none'}, and {current}"
    if found.staging_revision != STAGING_REVISION:
        return f"its staging tables are of revision {found.staging_revision}, and this program's of {STAGING_REVISION}"
    return None


def require_open(cursor: Cursor, key: ImportKey, *, lock: RowLock = "for share") -> Import:
    """The open import of this identity, kept open and current-based until the transaction ends.

    Who stages takes it ``for share``, beside others; who publishes or refuses takes :func:`lock_source_year` first and then
    ``for update``, in this order everywhere, so that no two of them wait for each other.

    Raises:
        StagingStale: there is none any more, or another import was published since it was opened.
        ReleaseHeld: it was refused or rolled back meanwhile.
    """
    found = standing(cursor, key)
    locked = by_id(cursor, found.import_id, lock=lock) if found else None
    if locked and locked.is_held:
        raise held(locked)
    why = why_stale(locked, current(cursor, key.source, key.tax_year)) if locked and locked.is_open else None
    if locked is None or not locked.is_open or why:
        raise StagingStale(
            f"the staging of {key} is {f'of no use: {why}' if why else locked.state if locked else 'gone'}",
            "an open import that is compared with the current one",
            "nothing; it is staged again from the transformed parts",
        )
    return locked


def open_import(cursor: Cursor, key: ImportKey, profile: str) -> tuple[Import, Import | None]:
    """Find the open import of this identity or open one; older open ones of the source's tax year are superseded.

    An open one that is stale (:func:`why_stale`) is superseded too, and a new one opened. When the identity is current already, that
    import is returned: there is nothing to stage.

    Returns:
        The import; and where it was opened now, the one of this identity that was given up before it: its ``message`` says why.

    Raises:
        ReleaseHeld: this release was refused or rolled back under this recipe.
    """
    lock_source_year(cursor, key.source, key.tax_year)
    found = standing(cursor, key)
    if found and found.is_held:
        raise held(found)
    if found and found.state == "published":
        return found, None
    base = current(cursor, key.source, key.tax_year)
    why = why_stale(found, base) if found else None
    if found and not why:
        return found, None
    abandon_staging(cursor, key.source, key.tax_year, why or f"release {key.release} with recipe {key.recipe} took its place")
    given_up = _given_up(cursor, key)
    cursor.execute(
        f"""insert into etl.import (source, tax_year, release, recipe, profile, base_import_id, staging_revision)
            values (%s, %s, %s, %s, %s, %s, %s) returning {COLUMNS}""",
        [key.source, key.tax_year, key.release, key.recipe, profile, base.import_id if base else None, STAGING_REVISION],
    )
    opened = _import(cursor)
    if opened is None:
        raise AssertionError("insert returning gave no row")
    return opened, given_up


def _given_up(cursor: Cursor, key: ImportKey) -> Import | None:
    """The newest import of this identity, if it was superseded before it was published."""
    cursor.execute(
        f"""select {COLUMNS} from (select * from etl.import where (source, tax_year, release, recipe) = (%s, %s, %s, %s)
                                    order by import_id desc limit 1) newest
             where state = 'superseded' and published_at is null""",
        [key.source, key.tax_year, key.release, key.recipe],
    )
    return _import(cursor)


def abandon_staging(cursor: Cursor, source: str, tax_year: int, why: str) -> None:
    """Supersede what is being staged for a source's tax year, and drop the staging tables of it and of refused imports.

    ``why`` is kept in the ledger, for a person and for the event of the next import of that identity.
    """
    cursor.execute(
        """update etl.import set state = 'superseded', closed_at = clock_timestamp(), message = %s
            where source = %s and tax_year = %s and state = 'staging'""",
        [why, source, tax_year],
    )
    cursor.execute(
        "select import_id from etl.import where source = %s and tax_year = %s and state in ('superseded', 'refused')",
        [source, tax_year],
    )
    drop_staging(cursor, [row[0] for row in cursor.fetchall()])


def accepted_checks(cursor: Cursor, key: ImportKey) -> frozenset[tuple[str, str, str]] | None:
    """The checks (table, kind, check) that a person let this release through in spite of, under this recipe; None: any.

    Decisions that were made before checks were kept with them are about any.
    """
    cursor.execute(
        """select d.checks from etl.decision d join etl.import i using (import_id) where d.action = 'accept'
              and (i.source, i.tax_year, i.release, i.recipe) = (%s, %s, %s, %s)""",
        [key.source, key.tax_year, key.release, key.recipe],
    )
    decisions = [checks for (checks,) in cursor.fetchall()]
    if None in decisions:
        return None
    return frozenset((table, kind, check) for checks in decisions for table, kind, check in checks)


def holding_checks(cursor: Cursor, import_id: int) -> list[tuple[str, str, str]]:
    """The checks (table, kind, check) that hold an import."""
    cursor.execute(
        """select table_name, kind, check_name from etl.gate_result
            where import_id = %s and not passed and severity = 'error' order by 1, 2, 3""",
        [import_id],
    )
    return cursor.fetchall()


def refused_by_gate(cursor: Cursor, source: str, tax_year: int | None) -> list[Import]:
    """What the gate holds of a source: of each tax year (or one) its newest import, where that one is refused by the gate."""
    cursor.execute(
        """select import_id from (
                select distinct on (tax_year) * from etl.import
                 where source = %(source)s and (%(year)s::integer is null or tax_year = %(year)s)
                   and state in ('refused', 'staging', 'published')
                 order by tax_year, import_id desc) newest
             where state = 'refused' and error_code = %(code)s order by tax_year""",
        {"source": source, "year": tax_year, "code": GateRefused.code},
    )
    return [found for (import_id,) in cursor.fetchall() if (found := by_id(cursor, import_id))]


def drop_staging(cursor: Cursor, import_ids: list[int]) -> None:
    """Drop the staging tables and markers of these imports."""
    wanted = {f"i{import_id}" for import_id in import_ids}
    cursor.execute("select tablename from pg_tables where schemaname = %s", [STAGING_SCHEMA])
    for (name,) in cursor.fetchall():
        if name.split("_", 1)[0] in wanted:
            cursor.execute(sql.SQL("drop table {} cascade").format(sql.Identifier(STAGING_SCHEMA, name)))
    for table in ("checkpoint", "staged_table", "checked"):
        statement = sql.SQL("delete from {} where import_id = any(%s)").format(sql.Identifier("etl", table))
        cursor.execute(statement, [import_ids])


def refuse(cursor: Cursor, import_id: int, error_code: str, message: str) -> None:
    """Hold an open import: later runs do no work on it. Its staging stays, so that a person may accept it."""
    cursor.execute(
        """update etl.import set state = 'refused', error_code = %s, message = %s, closed_at = clock_timestamp()
            where import_id = %s and state = 'staging'""",
        [error_code, message, import_id],
    )


def reopen(cursor: Cursor, found: Import) -> None:
    """Open a refused import again; another one that is being staged for its tax year gives way."""
    cursor.execute(
        """update etl.import set state = 'superseded', closed_at = clock_timestamp(), message = %s
            where source = %s and tax_year = %s and state = 'staging' returning import_id""",
        [f"import {found.import_id} was accepted", found.key.source, found.key.tax_year],
    )
    drop_staging(cursor, [row[0] for row in cursor.fetchall()])
    cursor.execute(
        "update etl.import set state = 'staging', error_code = null, message = null, closed_at = null where import_id = %s",
        [found.import_id],
    )


def held(found: Import) -> ReleaseHeld:
    """The error that says why no work is done on a held release."""
    why = "was rolled back" if found.state == "rolled_back" else f"was refused ({found.error_code})"
    return ReleaseHeld(
        f"{found.key} {why} as import {found.import_id}: {found.message or 'no further word'}",
        "another release, or a schema file that reads this one",
        f"look at it, then mend the schema file or run: hcad-pipeline accept {found.import_id} --reason '...'",
    )


def record_release(cursor: Cursor, source: str, tax_year: int, release: str, profile: str, archives: Mapping[str, object]) -> None:
    """Note what a source offers now."""
    cursor.execute(
        """insert into etl.release (source, tax_year, release, profile, archives) values (%s, %s, %s, %s, %s)
           on conflict (source, tax_year, release) do update set last_seen_at = clock_timestamp(), profile = excluded.profile""",
        [source, tax_year, release, profile, Json(archives)],
    )


def decide(
    cursor: Cursor, import_id: int, action: str, reason: str, decided_by: str, checks: Sequence[tuple[str, str, str]] | None = None
) -> None:
    """Note what a person decided about an import: ``accept``, with the checks that it is about, or ``rollback``.

    Raises:
        ConfigurationError: no reason is given.
    """
    if not reason.strip():
        raise ConfigurationError(f"no reason to {action} import {import_id}", "why, in words: it is kept", "say why")
    cursor.execute(
        "insert into etl.decision (import_id, action, reason, decided_by, checks) values (%s, %s, %s, %s, %s)",
        [import_id, action, reason, decided_by, None if checks is None else Json(list(checks))],
    )


def take_source(cursor: Cursor, source: str, run_id: int) -> int:
    """Raise the fencing token of a source for a run; returns the new token."""
    cursor.execute(
        """insert into etl.writer (source, token, run_id, taken_at) values (%s, 1, %s, clock_timestamp())
           on conflict (source) do update set token = etl.writer.token + 1, run_id = excluded.run_id, taken_at = excluded.taken_at
           returning token""",
        [source, run_id],
    )
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def check_fence(cursor: Cursor, source: str, token: int | None) -> None:
    """Keep a run from writing after a newer one has taken its source; ``None``: a plain Luigi run, which holds no token.

    Raises:
        FencedOut: another run holds the source now.
    """
    if token is None:
        return
    cursor.execute("select token, run_id from etl.writer where source = %s for share", [source])
    row = cursor.fetchone()
    if row is None or row[0] != token:
        raise FencedOut(
            f"run {row[1] if row else '?'} has taken over {source} (token {row[0] if row else '?'}, ours is {token})",
            "the token that this run was given",
            "nothing; the newer run does the work",
        )


def lock_source_year(cursor: Cursor, source: str, tax_year: int) -> None:
    """Keep every other transaction that changes an import's state out of a source's tax year, until this one ends."""
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"hcad-pipeline import {source} {tax_year}"])


def _import(cursor: Cursor) -> Import | None:
    row = cursor.fetchone()
    if row is None:
        return None
    return Import(row[0], ImportKey(row[1], row[2], row[3], row[4]), *row[5:])
