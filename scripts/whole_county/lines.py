"""Rows as lines of a member, some of them spoilt as lines, and what must become of each.

A spoilt line breaks off, has lost the zeros of its account or holds a byte that means nothing: it is refused. Another one is
there once more: in a table without a key both are rows, in one with a key the second is a duplicate, or contradicts the first
and is refused. Which lines these are hangs on the row alone, so that a release leaves them as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whole_county.cells import array, lines
from whole_county.draws import Mask, Numbers
from whole_county.rows import Rows

#: Tables whose text has bytes beyond ASCII.
WITH_HIGH_BYTES = ("real_acct", "building_res")
#: Tables of which nobody has seen that a line stands twice, although HCAD states no key.
NEVER_REPEATED = ("building_res", "building_other", "land", "land_ag")
#: The rule that refuses a line of each kind.
RULES = {"short_line": "*:field_count", "lost_zeros": "acct:regex", "undefined_byte": "*:encoding"}
SHORT, LOST, UNDEFINED, REPEAT, DUPLICATE, CONFLICT = range(6)
_NAMES = (*RULES, "repeat", "duplicate", "conflict")


@dataclass(frozen=True)
class Lines:
    """Lines of a table and a block.

    Attributes:
        good: the lines as they would be if none were spoilt, one a row.
        times: how many rows each of them becomes: 0 refused, 2 there twice.
        written: the lines as they stand in the file.
        refused: by rule, how many lines are refused.
        duplicate, conflicting: how many lines repeat a key, with the same values and with others.
        quirks: how many rows have each quirk.
    """

    good: pa.Array
    times: Numbers
    written: pa.Array
    refused: dict[str, int]
    duplicate: int
    conflicting: int
    quirks: dict[str, int]


def lines_of(rows: Rows, *, spoil: bool = True) -> Lines:
    """The rows' lines; ``spoil`` is False for tables that are not accounts' own."""
    good = (
        lines([cell if isinstance(cell, bytes) else array(cell, len(rows)) for cell in rows.ordered()])
        if len(rows)
        else pa.array([], pa.binary())
    )
    quirks = {name: int(where.sum()) for name, where in rows.quirks.items() if where.any()}
    times = np.ones(len(rows), np.int64)
    kind = _kinds(rows) if spoil and len(rows) else np.full(len(rows), -1)
    places = np.flatnonzero(kind >= 0)
    if not len(places):
        return Lines(good, times, good, {}, 0, 0, quirks)
    at = {number: places[kind[places] == number] for number in range(len(_NAMES))}
    quirks |= {name: len(at[number]) for number, name in enumerate(_NAMES) if len(at[number])}
    for number in (SHORT, LOST, UNDEFINED):
        times[at[number]] = 0
    times[at[REPEAT]] = 2
    spoilt = [spoil(good.take(pa.array(at[number])), len(rows.member.columns)) for number, spoil in enumerate(_SPOILS)]
    other = _contradicting(rows, at[CONFLICT])
    is_other = np.asarray(pc.not_equal(other, good.take(pa.array(at[CONFLICT])))) if len(other) else np.zeros(0, dtype=bool)
    written = _in_order(good, at, [*spoilt, other])
    refused = {rule: len(at[number]) for number, rule in enumerate(RULES.values()) if len(at[number])}
    return Lines(good, times, written, refused, len(at[DUPLICATE]) + int((~is_other).sum()), int(is_other.sum()), quirks)


def _kinds(rows: Rows) -> Numbers:
    """What each line is spoilt by: a place in ``_NAMES``, or -1."""
    member, county = rows.member, rows.county
    has_account = member.columns[0] == "acct"
    may = {
        "short_line": True,
        "lost_zeros": has_account,
        "undefined_byte": member.table in WITH_HIGH_BYTES,
        "repeat": not member.key and member.table not in NEVER_REPEATED,
        "duplicate": bool(member.key),
        "conflict": bool(member.key) and len(member.key) < len(member.columns) and len(rows) > 1,
    }
    ends = np.cumsum([county.quirk(name) if may[name] else 0.0 for name in _NAMES])
    kind = np.searchsorted(ends, rows.draw.units("line"), side="right")
    return np.where(kind == len(_NAMES), -1, kind)


def _broken_off(good: pa.Array, columns: int) -> pa.Array:
    """The first half of the fields."""
    return pa.array([b"\t".join(line.split(b"\t")[: max(1, columns // 2)]) for line in good.to_pylist()], pa.binary())


def _without_zeros(good: pa.Array, columns: int) -> pa.Array:
    """The account without its first two digits."""
    return pa.array([line[2:] for line in good.to_pylist()], pa.binary())


def _undefined(good: pa.Array, columns: int) -> pa.Array:
    """A byte behind the last field that Windows-1252 does not define."""
    return pa.array([line + b"\x81" for line in good.to_pylist()], pa.binary())


#: What makes the lines of the kinds that are refused; they are some in a hundred thousand.
_SPOILS = (_broken_off, _without_zeros, _undefined)


def _contradicting(rows: Rows, places: Numbers) -> pa.Array:
    """Lines with the keys of these rows and what the next row says otherwise."""
    if not len(places):
        return pa.array([], pa.binary())
    nexts = np.where(places + 1 < len(rows), places + 1, places - 1)
    cells = []
    for name, cell in zip(rows.member.columns, rows.ordered(), strict=True):
        taken = places if name in rows.member.key else nexts
        cells.append(cell if isinstance(cell, bytes) else array(cell, len(rows)).take(pa.array(taken)))
    return lines(cells)


def _in_order(good: pa.Array, at: dict[int, Numbers], spoilt: list[pa.Array]) -> pa.Array:
    """The lines of the file: spoilt ones in place of good ones, further ones behind those that they repeat."""
    count = len(good)
    starts = count + np.cumsum([0, *(len(lines) for lines in spoilt)])
    source = np.arange(count)
    for number, start in zip((SHORT, LOST, UNDEFINED), starts[:3], strict=True):
        source[at[number]] = start + np.arange(len(at[number]))
    again = np.concatenate((at[REPEAT], at[DUPLICATE], at[CONFLICT]))
    sources = np.concatenate((source, at[REPEAT], at[DUPLICATE], starts[3] + np.arange(len(at[CONFLICT]))))
    order = np.argsort(np.concatenate((np.arange(count), again)), kind="stable")
    return pa.concat_arrays([good, *spoilt]).take(pa.array(sources[order]))


def published_places(made: Lines) -> Numbers:
    """The rows that are published, each as often as it is."""
    return np.repeat(np.arange(len(made.times)), made.times)


def is_published(made: Lines) -> Mask:
    """The rows that are published."""
    return made.times > 0
