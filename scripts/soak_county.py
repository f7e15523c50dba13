"""The county that the soak imports: four tables, two archives, two releases, made anew from nothing but a number.

``account``, ``owner`` and ``building`` have keys, ``fixture`` has none and repeats rows; every table but ``building`` is cut into several
parts. Each release has rows that are refused, rows that are there twice, and rows without a parent, and differs from the others by a few
inserts, updates, deletes and moved keys in every table, always by less than a gate refuses. The bytes of a release depend on its
name alone.
"""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCE, YEAR = "made", 2025
RELEASES = ("A", "B")
#: Table to the columns by which its rows are compared; seq and import are the database's own business.
TABLES = {
    "account": ("acct", "owner_name", "value", "acreage", "noticed"),
    "owner": ("acct", "line_no", "name", "share"),
    "building": ("acct", "bld_num", "sq_ft", "quality"),
    "fixture": ("acct", "kind", "units"),
}
ARCHIVES = {"roll": ("account", "owner"), "extra": ("building", "fixture")}
#: Members have 4 to 24 kB.
PART_BYTES = 14_000
ACCOUNTS = 400
PUBLISHED_AT = 1_700_000_000

_SOURCE = """\
[source]
name = "made"
title = "The county of the soak"
publisher = "scripts/soak.py"
homepage = "http://127.0.0.1/"
licence = "Made up; no record of anybody"
base_url = "${SOAK_URL}"
tax_years = [2025]
allow_addresses = ["127.0.0.0/8"]

[archives.roll]
path = "{year}/roll.zip"

[archives.extra]
path = "{year}/extra.zip"

[gate]
max_quarantined_share = 0.05
max_conflicting_share = 0.05
"""
_TABLE = """\
[table]
name = "{name}"
archive = "{archive}"
member = "{name}.txt"
{identity}
[[layout]]
format = "delimited"
delimiter = "|"
header = "first"

[columns]
{columns}
"""
_KEYS = {
    "account": 'key = ["acct"]\n',
    "owner": 'key = ["acct", "line_no"]\n',
    "building": 'key = ["acct", "bld_num"]\n',
    "fixture": 'parent = ["acct"]\n',
}
_TEXT = 'type = "text"'
_TYPES = {
    "acct": 'type = "text", required = true, regex = \'^\\d{10}$\'', "value": 'type = "bigint", min = 0',
    "acreage": 'type = "numeric(14,4)"',
    "noticed": 'type = "date", on_error = "null", formats = ["%m/%d/%Y"]',
    "line_no": 'type = "integer", required = true',
    "share": 'type = "numeric(7,4)"', "bld_num": 'type = "integer", required = true', "sq_ft": 'type = "integer"',
    "units": 'type = "numeric(14,4)"',
}  # fmt: skip


def write_schemas(folder: Path) -> Path:
    """Write the source's schema files below a folder, which is then a catalog; returns it."""
    place = folder / SOURCE
    place.mkdir(parents=True)
    (place / "source.toml").write_text(_SOURCE, encoding="utf-8")
    for archive, tables in ARCHIVES.items():
        for name in tables:
            columns = "\n".join(f"{column} = {{ {_TYPES.get(column, _TEXT)} }}" for column in TABLES[name])
            text = _TABLE.format(name=name, archive=archive, identity=_KEYS[name], columns=columns)
            (place / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def write_releases(root: Path) -> None:
    """Write the archives of every release below ``root/<release>/<year>/``."""
    for release in RELEASES:
        folder = root / release / str(YEAR)
        folder.mkdir(parents=True)
        for archive, tables in ARCHIVES.items():
            path = folder / f"{archive}.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in tables:
                    packed.writestr(zipfile.ZipInfo(f"{name}.txt", (2025, 1, 1, 0, 0, 0)), "".join(_lines(name, release)))
            os.utime(path, (PUBLISHED_AT, PUBLISHED_AT))


def _lines(table: str, release: str) -> Iterator[str]:
    yield "|".join(TABLES[table]) + "\r\n"
    generation = RELEASES.index(release)
    rows = [row for number in _accounts(generation) for row in _ROWS[table](number, _turn(table, number, generation))]
    # What no release may be without: a row that is refused, one that is there twice, one without a parent.
    rows += [["x" * 10, *rows[0][1:]], rows[7], ["9999999999", *rows[1][1:]] if table == "fixture" else rows[8]]
    random.Random(f"{table} {release}").shuffle(rows)
    yield from ("|".join(row) + "\r\n" for row in rows)


def _accounts(generation: int) -> list[int]:
    """Each release has lost two accounts of the one before, and has three new ones."""
    return [number for number in range(ACCOUNTS + 3 * generation) if not 40 <= number < 40 + 2 * generation]


def _turn(table: str, number: int, generation: int) -> int:
    """In which release a row has changed last: every hundredth does, others in each table and release."""
    changed = [turn for turn in range(1, generation + 1) if (number + 7 * turn + len(table)) % 100 == 0]
    return changed[-1] if changed else 0


def _account(number: int, turn: int) -> list[list[str]]:
    value = "" if number % 11 == 0 else str(100_000 + 37 * number + turn)
    return [[f"{number:010d}", f"O'Hara \\N {number} {turn}", value, f"{number / 7:.4f}", f"{1 + number % 12:02d}/15/2025"]]


def _owner(number: int, turn: int) -> list[list[str]]:
    # A changed one has its second owner under another line number: a key that moves.
    second = [[f"{number:010d}", str(2 + turn), f'Second "{number}', "0.5000"]] if number % 3 == 0 else []
    return [[f"{number:010d}", "1", f"First {number} {turn}", "0.5000"], *second]


def _building(number: int, turn: int) -> list[list[str]]:
    return [[f"{number:010d}", "1", str(900 + number + turn), "ABCDE"[(number + turn) % 5]]] if number % 2 else []


def _fixture(number: int, turn: int) -> list[list[str]]:
    return [[f"{number:010d}", "RMB", f"{2 + turn}.0000"]] * (1 + number % 2) + [[f"{number:010d}", "RMF", "1.0000"]]


_ROWS: dict[str, Callable[[int, int], list[list[str]]]] = {
    "account": _account, "owner": _owner, "building": _building, "fixture": _fixture,
}  # fmt: skip
