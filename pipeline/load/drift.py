"""Drift: is what is staged still the table that is live, a little later?

Compared are the keys and, by the figures that every import leaves in the ledger, the columns. What a roll does not do by itself is held:
keys that vanish, values that become none, sums that change their order of magnitude, columns of codes most of which change at once. A
mass update is none of these: each certification changes a column of nearly every account, whose keys stay and have values; it is told
as a note. Bounds are exact. Nothing is read but what differs: of an unchanged table no row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.catalog.gate_model import Drift
from pipeline.catalog.model import Table
from pipeline.catalog.recipe import column_recipe, layout_recipe
from pipeline.database.ledger import Import
from pipeline.load.figures import Figure
from pipeline.load.gate_result import GateResult
from pipeline.load.relations import WIDE_JOINS, Relations, comma, names, same
from pipeline.load.staging import StagedTable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: How many columns, keys or values a result names.
NAMED = 5
#: A column that changes in more than this share of the rows that stay is told as a mass update.
MASS_UPDATE = Fraction(1, 2)
#: Of fewer columns of codes there is no "most of them".
FEWEST_CODED = 3

NEW_KEYS = """
select count(*), count(*) filter (where not exists (select 1 from {live} l where l.tax_year = %(year)s and {same_anchor})) from {rows} s
"""
LOST = """
with lost as materialized (
    select {shown} from {live} l where l.tax_year = %(year)s and not exists (select 1 from {keys} s where {same_anchor}))
select (select count(*) from lost), array(select {example} from (select distinct * from lost order by 1 limit %(named)s) l)
"""
#: The same, and in how many of the rows that stay each column differs.
CHANGED = """
select count(*), count(*) filter (where l.tax_year is null), {counts}
  from {rows} s left join {live} l on l.tax_year = %(year)s and {same_anchor}
"""
DIFFERS = "count(*) filter (where l.tax_year is not null and l.{0} is distinct from s.{0})"
STAGED_WHOLE = "select reltuples from pg_class where oid = to_regclass(%s)"


@dataclass(frozen=True)
class Moved:
    """How far one column is from what it was: ``amount`` is what is held to the bound, ``told`` says it."""

    column: str
    amount: Fraction
    told: str


class TableDrift:
    """Judges one staged table against what is live.

    Args:
        cursor: in the gate's transaction.
        found: the open import.
        staged: the table's account.
        table: its declaration.
        limits: how far it may be from what is live.
        now: the figures of what is staged, by column.
        before: those of the import that is current.
    """

    def __init__(
        self, cursor: Cursor, found: Import, staged: StagedTable, table: Table, limits: Drift,
        now: Mapping[str, Figure], before: Mapping[str, Figure],
    ) -> None:  # fmt: skip
        self._cursor, self._found, self._staged, self._table, self._limits = cursor, found, staged, table, limits
        self._now, self._before = now, before
        self._relations = Relations(table, found.import_id)
        self._words: dict[str, sql.Composable] = {
            "live": self._relations.live, "keys": self._relations.keys, "rows": self._relations.rows,
            "same_anchor": same(self._relations.anchor, "l", "s"),
        }  # fmt: skip
        self._values = {"year": found.key.tax_year, "named": NAMED}

    def run(self) -> list[GateResult]:
        """The results; none of a table that had fewer rows than are judged, or none at all."""
        self._cursor.execute(
            "select rows_loaded from etl.import_table where import_id = %s and table_name = %s",
            [self._found.base_import_id, self._table.name],
        )
        (rows,) = self._cursor.fetchone() or (0,)
        if rows < self._limits.min_rows:
            return []
        self._cursor.execute(WIDE_JOINS)
        results = self._keyed(rows) if self._table.is_keyed else self._keyless(rows)
        return [*results, self._gained(rows), *self._columns()]

    def _keyed(self, rows: int) -> list[GateResult]:
        """The keys that vanish, and the columns that change in most of the rows that stay."""
        self._cursor.execute(STAGED_WHOLE, [self._relations.rows.as_string(self._cursor)])
        (whole,) = self._cursor.fetchone() or (0,)
        changed: Mapping[str, int] | None = None
        if whole > MASS_UPDATE * rows:
            differing, new, changed = self._changed()
        else:
            self._cursor.execute(sql.SQL(NEW_KEYS).format(**self._words), self._values)
            differing, new = self._cursor.fetchone() or (0, 0)
        # By the account alone: only where it says that keys are lost is the live table asked which.
        lost, examples = self._lost() if rows > self._staged.rows_loaded - new else (0, [])
        seen = f"{lost} of {rows} keys are gone" + (f" and {new} are new" if lost and new else "") + _among(examples)
        result = self._share("keys lost", lost, rows, self._limits.max_keys_lost, seen)
        kept = rows - lost
        if differing - new <= MASS_UPDATE * kept:
            return [result]
        return [result, *self._mass_update(kept, self._changed()[2] if changed is None else changed)]

    def _keyless(self, rows: int) -> list[GateResult]:
        """The rows whose parent vanishes, and by how many there are fewer."""
        lost, examples = self._lost()
        fewer = max(rows - self._staged.rows_loaded, 0)
        parent = ", ".join(self._relations.anchor)
        seen = f"of {lost} of {rows} rows {parent} is gone{_among(examples)}"
        return [
            self._share("keys lost", lost, rows, self._limits.max_keys_lost, seen),
            self._share("rows lost", fewer, rows, self._limits.max_rows_lost, f"{fewer} rows fewer than {rows}"),
        ]

    def _gained(self, rows: int) -> GateResult:
        more = max(self._staged.rows_loaded - rows, 0)
        return self._share("rows gained", more, rows, self._limits.max_rows_gained, f"{more} rows more than {rows}")

    def _share(self, check: str, count: int, rows: int, limit: Decimal, seen: str) -> GateResult:
        # A key whose declaration was mended may be written otherwise in every row.
        mended = self._mended(*self._relations.anchor) if check == "keys lost" else []
        told = f"{seen}; {', '.join(mended)} was declared otherwise then" if mended and count else seen
        result = self._result(check, count <= limit * rows, told, f"at most {_percent(limit)}", Fraction(count, rows), limit)
        return replace(result, severity="warn") if mended else result

    def _lost(self) -> tuple[int, list[str]]:
        """How many live rows are not in the release by their key or parent, and some of them."""
        shown = [name for name in self._relations.anchor if not self._table.column(name).personal]
        example = sql.SQL(" || ' ' || ").join(
            sql.SQL("{} || ' ' || {}::text").format(sql.Literal(name), sql.Identifier("l", name)) for name in shown
        )
        words = self._words | {"shown": names(self._relations.anchor, "l"), "example": example if shown else sql.SQL("null::text")}
        self._cursor.execute(sql.SQL(LOST).format(**words), self._values)
        count, examples = self._cursor.fetchone() or (0, [])
        return int(count), [text for text in examples if text]

    def _changed(self) -> tuple[int, int, Mapping[str, int]]:
        """The rows that are staged whole, those of them whose key is new, and by column in how many of the others it differs."""
        columns = [name for name in self._relations.column_names if name not in self._relations.anchor]
        counts = comma([sql.SQL(DIFFERS).format(sql.Identifier(name)) for name in columns] or [sql.SQL("0")])
        self._cursor.execute(sql.SQL(CHANGED).format(counts=counts, **self._words), self._values)
        whole, new, *found = self._cursor.fetchone() or (0, 0)
        return whole, new, dict(zip(columns, found, strict=bool(columns)))

    def _mass_update(self, kept: int, found: Mapping[str, int]) -> list[GateResult]:
        """A note of the columns that change in most rows."""
        # The publish counts the same, over the same rows.
        self._cursor.execute(
            "update etl.staged_table set changed_columns = %s where import_id = %s and table_name = %s",
            [Json(dict(found)), self._found.import_id, self._table.name],
        )
        changed = sorted(((count, name) for name, count in found.items()), key=lambda pair: (-pair[0], pair[1]))
        told = [f"{name} in {_percent(Fraction(count, kept))}" for count, name in changed if count > MASS_UPDATE * kept]
        if not told:
            return []
        seen = f"of {kept} rows that stay, {_listed(told)} have another value"
        result = self._result("columns changed", True, seen, "any number, as long as keys and values stay", None, None)
        return [replace(result, severity="note")]

    def _columns(self) -> list[GateResult]:
        """What became of the columns that both releases have, under the declaration of now."""
        if not self._before or not self._staged.rows_loaded:
            return []
        mended, absent = set(self._mended(*self._now)), self._absent()
        pairs = [(self._before[name], now) for name, now in self._now.items() if name in self._before and name not in mended | absent]
        limits = self._limits
        shifts = self._moved(pairs, self._shift)
        return [
            self._judged("null rise", self._moved(pairs, self._null_rise), limits.max_null_rise),
            self._judged("sum factor", self._moved(pairs, self._sum_factor), limits.max_sum_factor),
            self._judged("value shift", shifts, limits.max_value_shift),
            *self._shifted(shifts),
        ]

    def _moved(
        self, pairs: list[tuple[Figure, Figure]], move: Callable[[Figure, Figure], tuple[Fraction, str] | None]
    ) -> list[Moved]:
        moves = [(before.column, move(before, now)) for before, now in pairs]
        return sorted((Moved(name, *found) for name, found in moves if found), key=lambda one: (-one.amount, one.column))

    def _judged(self, check: str, moves: list[Moved], limit: Decimal) -> GateResult:
        beyond = [one.told for one in moves if one.amount > limit]
        most = moves[0].amount if moves else Fraction(0)
        seen = _listed(beyond) or f"{len(moves)} columns" + (f", most {moves[0].told}" if most and moves[0].told else "")
        bound = f"a factor of at most {limit}" if check == "sum factor" else f"at most {_percent(limit)}"
        return self._result(check, not beyond, seen, bound, most, limit)

    def _shifted(self, shifts: list[Moved]) -> list[GateResult]:
        """Whether most columns of codes have other values: then it is no update of a column, but other data."""
        if len(shifts) < FEWEST_CODED:
            return []
        shifted = [one.column for one in shifts if one.amount > self._limits.max_value_shift]
        limit = self._limits.max_shifted_columns
        seen = f"{len(shifted)} of {len(shifts)} columns of codes" + (f": {_listed(shifted)}" if shifted else "")
        passed = len(shifted) <= limit * len(shifts)
        return [self._result("shifted columns", passed, seen, f"at most {_percent(limit)}", Fraction(len(shifted), len(shifts)), limit)]

    def _null_rise(self, before: Figure, now: Figure) -> tuple[Fraction, str]:
        was, share = Fraction(before.nulls, before.rows), Fraction(now.nulls, now.rows)
        told = f"{now.column} has no value in {_percent(share)} of the rows, before {_percent(was)}"
        # The last values of a column that few rows have are a loss, too.
        is_emptied = now.filled == 0 and before.filled >= self._limits.min_rows
        return (Fraction(1) if is_emptied else max(share - was, Fraction(0))), told

    def _sum_factor(self, before: Figure, now: Figure) -> tuple[Fraction, str] | None:
        """By which factor a sum, for as many rows, fell, or rose with its numbers.

        A column with few numbers, or that summed up to 0, is not judged.
        """
        if before.total is None or now.total is None or not before.total or before.counted < self._limits.min_rows:
            return None
        told = f"the sum of {now.column} is {now.total:f}, before {before.total:f}"
        if not now.total or (now.total < 0) != (before.total < 0):
            return Fraction(10**9), told
        whole = abs(Fraction(now.total) / Fraction(before.total))
        factor = whole * before.rows / now.rows
        if factor < 1:
            return 1 / factor, told
        return max(min(factor, whole * before.counted / max(now.counted, 1)), Fraction(1)), told

    def _shift(self, before: Figure, now: Figure) -> tuple[Fraction, str] | None:
        """The share of a column's values that moved to other ones, all of it where it holds no codes any more; of few values none."""
        if before.values is None or before.filled < self._limits.min_rows or not now.filled:
            return None
        if now.values is None:
            return Fraction(1), f"{now.column} had {len(before.values)} different values and has too many to tell"
        was, are = sum(before.values.values()), sum(now.values.values())
        if not was or not are:
            return None
        shares = {
            value: (Fraction(before.values.get(value, 0), was), Fraction(now.values.get(value, 0), are))
            for value in {**before.values, **now.values}
        }
        moves = {value: abs(is_now - then) for value, (then, is_now) in shares.items()}
        most = sorted(moves, key=lambda value: (-moves[value], value))[:2]
        told = ", ".join(f"{value!r} {_percent(shares[value][0])} -> {_percent(shares[value][1])}" for value in most)
        return sum(moves.values(), Fraction(0)) / 2, f"{now.column} ({told})"

    def _mended(self, *columns: str) -> list[str]:
        """Those of these columns whose declaration is another one than that of the import before."""
        return [name for name in columns if name in self._before and self._before[name].declared != column_recipe(self._table.column(name))]

    def _absent(self) -> set[str]:
        """The columns that the layout of this release does not have, as it declares."""
        of = [layout for layout in self._table.layouts if layout_recipe(self._table, layout) == self._staged.recipe]
        return set(of[0].absent) if of else set()

    def _result(
        self, check: str, passed: bool, seen: str, expected: str, figure: Fraction | None, bound: Decimal | None
    ) -> GateResult:
        severity: Literal["warn", "error"] = "warn" if check.replace(" ", "_") in self._limits.warn else "error"
        return GateResult(
            check, self._table.name, passed, seen, expected, "drift", severity,
            None if figure is None else Decimal(figure.numerator) / figure.denominator, bound,
        )  # fmt: skip


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return f"{'; '.join(texts[:NAMED])}{more}"


def _among(examples: list[str]) -> str:
    return f", among them {'; '.join(examples)}" if examples else ""


def _percent(share: Decimal | Fraction) -> str:
    """A share in percent, to the hundredth where it is no whole one."""
    return f"{float(share) * 100:.2f}".rstrip("0").rstrip(".") + " %"
