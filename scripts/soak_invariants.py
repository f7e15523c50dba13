"""What must hold after every fault, whatever it was: the invariants I1 to I10 of docs/faults.md, asked of the database and the disk.

``published`` asks at any moment, also while a killed run's remains lie about: what readers see is exactly one release. ``settled`` asks
when a run has ended well: nothing is left over, the accounts balance, history and archives are whole. Both ask in plain SQL and by
the files themselves, not through the code that they judge, and return sentences; an empty list is a pass.
"""

from __future__ import annotations

import hashlib
import re
import resource
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from soak_county import SOURCE, TABLES, YEAR
from soak_ground import CANARY, County

from pipeline.handoff import read_json

#: Of a tiny county: the interpreter with its libraries is most of it.
MAX_RSS_MB = 500
Content = Mapping[str, tuple[int, str]]


Ask = Callable[..., list[Any]]


def content(county: County) -> Content:
    """Rows and digest of every table, in one snapshot; seq and import play no part."""
    with county.snapshot() as ask:
        return _content(ask)


def _content(ask: Ask) -> Content:
    found = dict.fromkeys(TABLES, (0, ""))
    for name, columns in TABLES.items():
        if ask("select to_regclass(%s)", f"{SOURCE}.{name}") != [(None,)]:
            (found[name],) = ask(
                f"""select count(*), coalesce(md5(string_agg(r, E'\n' order by r collate "C")), '')
                      from (select row({", ".join(columns)})::text as r from {SOURCE}.{name} where tax_year = {YEAR}) rows"""
            )
    return found


def published(county: County, releases: Mapping[str, Content], expected: set[str]) -> list[str]:
    """I1: what is live is one of these releases (``""``: nothing), whole, and the ledger says so."""
    with county.snapshot() as ask:
        found = _content(ask)
        names = [name for name, known in releases.items() if known == found]
        wrong = [] if set(names) & expected else [f"I1: live is {names or 'a mix'}, expected {sorted(expected)}: {found}"]
        if ask("select to_regclass('etl.checked')") == [(None,)]:
            return wrong
        current = ask("select import_id from etl.import where source = %s and state = 'published'", SOURCE)
        if len(current) != any(count for count, _ in found.values()):
            wrong.append(f"I1: {len(current)} imports are current")
        for name, count in ask(
            "select table_name, rows_loaded from etl.import_table t join etl.import i using (import_id) where i.state = 'published'"
        ):
            if found[name][0] != count:
                wrong.append(f"I1: {name} has {found[name][0]} rows, the ledger says {count}")
    return wrong


def settled(county: County) -> list[str]:
    """I2, I5, I7, I8 and I10, when nothing is at work any more."""
    return [*_accounts(county), *_archives(county), *_leftovers(county), *_secrets(county), *_history(county)]


def _accounts(county: County) -> Iterator[str]:
    for row in county.sql(
        """select import_id, table_name, rows_read, rows_loaded, quarantined, duplicate, superseded, filtered from etl.import_table
            where rows_read <> rows_loaded + quarantined + duplicate + superseded + filtered"""
    ):
        yield f"I2: {row}"
    for row in county.sql(
        """select q.import_id, q.table_name, q.rows, t.quarantined from (
               select import_id, table_name, count(*) as rows from etl.quarantine group by 1, 2) q
             join etl.import_table t using (import_id, table_name)
            where q.rows <> t.quarantined and t.disposition = 'staged'"""
    ):
        yield f"I2: quarantine of {row[:2]} has {row[2]} rows, the account {row[3]}"


def _archives(county: County) -> Iterator[str]:
    for document in sorted((county.state / "archives").rglob("*.receipt.json")):
        receipt, archive = read_json(document), document.with_name(document.name.removesuffix(".receipt.json"))
        if not archive.is_file() or hashlib.sha256(archive.read_bytes()).hexdigest() != receipt["sha256"]:
            yield f"I5: {archive.name} is not what its receipt says"


_LEFT = {
    "staging tables": "select tablename from pg_tables where schemaname = 'etl_staging'",
    "checkpoints": "select import_id, table_name, part from etl.checkpoint",
    "staged tables": "select import_id, table_name from etl.staged_table",
    "gate markers": "select import_id from etl.checked",
    "open imports": "select import_id from etl.import where state = 'staging'",
    "prepared transactions": "select gid from pg_prepared_xacts where database = current_database()",
    "locks": """select l.pid from pg_locks l join pg_database d on d.oid = l.database
                 where l.locktype = 'advisory' and d.datname = current_database()""",
    "sessions": "select pid, state, query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    "vacuum owed": "select * from etl.owed",
    "running tasks": "select attempt_id from etl.task_attempt where outcome = 'running' and run_id is not null",
}


def _leftovers(county: County) -> Iterator[str]:
    for name, query in _LEFT.items():
        if rows := county.sql(query):
            yield f"I7: {name}: {rows[:5]}"
    for path in county.state.rglob("*"):
        if path.suffix in {".part", ".tmp"} or re.match(r"\.?(tmp|unfinished|new)[-.]", path.name):
            yield f"I7: {path.relative_to(county.state)}"


def _secrets(county: County) -> Iterator[str]:
    for path in (path for path in county.logs.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20):
        if CANARY.encode() in path.read_bytes():
            yield f"I8: the password is in {path.relative_to(county.logs)}"
    for table in ("run", "task_attempt", "import", "decision"):
        if county.sql(f"select 1 from etl.{table} t where t::text like %s limit 1", f"%{CANARY}%"):
            yield f"I8: the password is in etl.{table}"


def _history(county: County) -> Iterator[str]:
    """I10: every run has ended, by its own word or by the next one's."""
    for row in county.sql("select run_id, command from etl.run where finished_at is null or outcome is null"):
        yield f"I10: run {row} has no end"


def runs_since(county: County, last: int) -> list[tuple[int, str | None, int | None, int]]:
    """The attempts since a run's number: number, outcome, exit code, process."""
    return [tuple(row) for row in county.sql("select run_id, outcome, exit_code, pid from etl.run where run_id > %s order by 1", last)]


def peak_rss() -> tuple[float, list[str]]:
    """I9: the most memory that a process of the soak has held so far, in MB, and whether that is too much."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return peak, [f"I9: a process held {peak:.0f} MB, at most {MAX_RSS_MB} were expected"] if peak > MAX_RSS_MB else []
