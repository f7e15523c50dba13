"""What a county is made from: its size, seed, tax year and release, the rates of its events and quirks, and what all its blocks share.

A :class:`County` says which release of which county; the same one is the same bytes. ``Shared`` holds what is no account's own:
neighborhoods, minerals and protests as the real files that come with the project have them, taxing districts and the sets of
them that an account may lie in.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from whole_county import codes
from whole_county.draws import Draw, Numbers, Pool

SAMPLE = Path(__file__).parents[2] / "tests" / "fixtures" / "sample" / "hcad"
#: Personal property accounts have 7 digits, of which a business takes this many numbers: itself and those that open after it.
BUSINESS_STRIDE = 40
MOST_ACCOUNTS = 1_900_000
#: Counts of HCAD that the made county keeps to, an account (FORMAT of its files: counts of 2025 and 2026).
REAL_ACCOUNTS = 1_628_134
BUSINESSES_SHARE = 203_185 / REAL_ACCOUNTS
MINERALS_SHARE = 7_262 / REAL_ACCOUNTS
MOBILE_HOMES_SHARE = 0.02
NEIGHBORHOODS_SHARE = 12_020 / 1_611_000
#: Years that things changed in: header lines, minerals, the long exemption tables.
FIRST_MINERALS, FIRST_LONG_RATES, LAST_TOTALS = 2024, 2025, 2023

#: Share of rows that have each peculiarity of the real files; where a table can have it at all.
QUIRKS: Mapping[str, tuple[float, str]] = {
    "quote": (0.002, "a quote without a partner in notes, names and legal descriptions: 2,530 of 1.3 million buildings"),
    "high_byte": (0.001, "a letter of Windows-1252 beyond ASCII, in real_acct and building_res"),
    "nul": (0.01, "a NUL byte in a taxing district's name"),
    "pending": (0.0008, "an account whose values are blank, and the word Pending in its exempt_val"),
    "no_date": (0.01, "12/30/1899 where there is no date"),
    "huge_area": (0.000005, "a land area near 2 billion square feet"),
    "no_year": (0.00003, "a word where a business has its tax year"),
    "short_line": (0.00002, "a line that breaks off after some fields"),
    "lost_zeros": (0.00001, "an account number without its first two digits"),
    "undefined_byte": (0.00001, "a byte that Windows-1252 does not define, in real_acct and building_res"),
    "repeat": (0.001, "an equal row once more, in tables without a key, where it is real"),
    "duplicate": (0.00002, "an equal row once more, in tables with a key"),
    "conflict": (0.00002, "the key once more with other values"),
}
#: Shares of the accounts that each release after the first one has.
EVENTS: Mapping[str, tuple[float, str]] = {
    "vanish": (0.001, "the account is no longer there"),
    "split": (0.001, "part of it becomes a new account"),
    "sale": (0.002, "it has another owner"),
    "review": (0.006, "its values change"),
}


@dataclass(frozen=True)
class County:
    """One release of one county.

    Attributes:
        accounts: real property accounts of the first release.
        seed: another one, another county.
        year: the tax year.
        is_current: whether the year has what only the current one has (ownership history, details of extra features).
        quirks: shares that differ from those of QUIRKS.
        headers: tables whose member has its header as the ``last`` line, or has ``none``.
        events: of each release after the first one the shares that differ from those of EVENTS.
    """

    accounts: int
    seed: int = 0
    year: int = 2026
    is_current: bool = True
    quirks: Mapping[str, float] = field(default_factory=dict)
    events: Sequence[Mapping[str, float]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        for given, known in ((self.quirks, QUIRKS), *((events, EVENTS) for events in self.events)):
            unknown = sorted(set(given) - set(known))
            if unknown:
                raise ValueError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
            if any(not 0 <= share <= 1 for share in given.values()):
                raise ValueError("shares are from 0 to 1")
        if wrong := sorted(set(self.headers.values()) - {"first", "last", "none"}):
            raise ValueError(f"a header stands first, last or none, not {', '.join(wrong)}")
        if not 1 <= self.accounts <= MOST_ACCOUNTS or not 0 <= self.release < BUSINESS_STRIDE or not 2005 <= self.year <= 2039:
            raise ValueError(
                f"{self.accounts} accounts, release {self.release}, year {self.year}: "
                f"1 to {MOST_ACCOUNTS}, 0 to {BUSINESS_STRIDE - 1}, 2005 to 2039"
            )

    def quirk(self, name: str) -> float:
        """The share of a peculiarity."""
        return self.quirks.get(name, QUIRKS[name][0])

    def event(self, name: str, release: int) -> float:
        """The share of an event in a release after the first one, which is 0."""
        return self.events[release - 1].get(name, EVENTS[name][0])

    def described(self) -> dict[str, Any]:
        """What makes it, for its manifest; ``County(**described)`` is the same county."""
        return {
            **asdict(self),
            "quirks": dict(self.quirks),
            "events": [dict(events) for events in self.events],
            "headers": dict(self.headers),
        }

    @property
    def release(self) -> int:
        """0 the first one, N the Nth after it."""
        return len(self.events)

    @property
    def businesses(self) -> int:
        """Personal property accounts of the first release."""
        return max(3, round(self.accounts * BUSINESSES_SHARE))

    @property
    def first_mineral(self) -> int:
        """Places from here up to the first mobile home are mineral accounts; so accounts are in the order of their numbers."""
        return self.first_mobile_home - (max(1, round(self.accounts * MINERALS_SHARE)) if self.accounts > 2 else 0)

    @property
    def first_mobile_home(self) -> int:
        """Places from here on are mobile homes."""
        return self.accounts - (max(1, round(self.accounts * MOBILE_HOMES_SHARE)) if self.accounts > 1 else 0)

    @property
    def shared(self) -> Shared:
        """What its blocks share."""
        return _shared(self.accounts, self.seed)


@dataclass(frozen=True)
class Shared:
    """What no account has for itself.

    Attributes:
        neighborhoods: code, group, description.
        districts: code, name, type.
        sets: codes of the districts that an account lies in, school first, then the county's own five.
        set_places: for each set the places of its districts, -1 behind the last.
        minerals: lease, kind of interest, share of it.
        agents: who protests; days: month and day of a protest, as days since 1 January.
    """

    neighborhoods: Pool
    districts: Pool
    sets: Pool
    set_places: Numbers
    minerals: Pool
    agents: Pool
    days: Pool

    @property
    def set_sizes(self) -> Numbers:
        """How many districts each set has."""
        return (self.set_places >= 0).sum(axis=1)


COUNTY_DISTRICTS = (
    ("040", "HARRIS COUNTY", "K"),
    ("041", "HARRIS COUNTY FLOOD CONTROL DISTRICT", "O"),
    ("042", "PORT OF HOUSTON AUTHORITY", "O"),
    ("043", "HARRIS HEALTH SYSTEM", "O"),
    ("044", "HARRIS COUNTY DEPARTMENT OF EDUCATION", "S"),
)
_COLLEGES = (("045", "LONE STAR COLLEGE SYSTEM"), ("046", "LEE JUNIOR COLLEGE DISTRICT"), ("048", "HOUSTON COMMUNITY COLLEGE"))
_CITIES = (
    "HOUSTON|BELLAIRE|BAYTOWN|DEER PARK|GALENA PARK|HUMBLE|JERSEY VILLAGE|KATY|LA PORTE|PASADENA|SEABROOK|TOMBALL|WEBSTER|WEST UNIVERSITY"
)
_SETS, _MUDS, _EMERGENCY = 200, 120, 20


def _districts() -> list[tuple[str, str, str]]:
    return [
        *((f"0{code}", f"{name.upper()} DISTRICT", "S") for code, name in codes.SCHOOLS),
        *COUNTY_DISTRICTS,
        *((code, name, "J") for code, name in _COLLEGES),
        *((f"{61 + place:03}", f"CITY OF {name}", "C") for place, name in enumerate(_CITIES.split("|"))),
        *((f"{265 + place:03}", f"HARRIS COUNTY MUD NO {place + 1}", "M") for place in range(_MUDS)),
        *((f"{620 + place:03}", f"HARRIS COUNTY ESD NO {place + 1}", "E") for place in range(_EMERGENCY)),
        ("A12", "AIRLINE IMPROVEMENT DISTRICT", "O"),
    ]


def _sets(seed: int, districts: list[tuple[str, str, str]]) -> list[list[int]]:
    """Places of the districts of each set: some 7 on average, as 14.6 to 17 million lines of values and exemptions need."""
    by_type = {kind: [place for place, row in enumerate(districts) if row[2] == kind] for kind in "SJCMEO"}
    schools, fixed = by_type["S"][:-1], [len(codes.SCHOOLS) + place for place in range(len(COUNTY_DISTRICTS))]
    draw, made = Draw.of(seed, "set", np.arange(_SETS)), []
    drawn = {kind: draw.whole(kind, 0, 1 << 30) for kind in "SJCME"}
    # Spread evenly over the sets in the order in which neighborhoods take them, so that a small county has its share, too.
    has = {
        kind: (np.arange(_SETS) * step + drawn[kind][0]) % _SETS < share * _SETS
        for kind, share, step in zip("JCME", (0.4, 0.35, 0.15, 0.06), (189, 11, 123, 121), strict=True)
    }
    for place in range(_SETS):
        school = schools[place % len(schools)] if place % 3 else schools[0]
        more = [by_type[kind][drawn[kind][place] % len(by_type[kind])] for kind in "JCME" if has[kind][place]]
        made.append([school, *fixed, *more])
    return made


@lru_cache(maxsize=4)
def _shared(accounts: int, seed: int) -> Shared:
    neighborhoods = _sample("2025/Real_acct_owner.zip", "real_neighborhood_code.txt")
    count = min(len(neighborhoods) - 1, max(12, round(accounts * NEIGHBORHOODS_SHARE)))
    # Every so many of the 12,020: those of a small county are of all kinds, too.
    places = np.linspace(1, len(neighborhoods) - 1, count).astype(int)
    districts = _districts()
    sets = _sets(seed, districts)
    longest = max(map(len, sets))
    minerals = _sample("2025/Real_acct_owner.zip", "real_mnrl.txt")[1:]
    agents, days = _protests()
    return Shared(
        neighborhoods=Pool([neighborhoods[place] for place in places]),
        districts=Pool(districts),
        sets=Pool([(" ".join(districts[place][0] for place in places),) for places in sets]),
        set_places=np.array([places + [-1] * (longest - len(places)) for places in sets]),
        minerals=Pool([(row[2], row[3], row[4]) for row in minerals]),
        agents=agents,
        days=days,
    )


def _sample(archive: str, member: str) -> list[tuple[str, ...]]:
    with zipfile.ZipFile(SAMPLE / archive) as opened:
        return [tuple(line.split("\t")) for line in opened.read(member).decode("cp1252").splitlines()]


def _protests() -> tuple[Pool, Pool]:
    """Who protests, and on which day of the year, as 424,335 real protests of 2019 have it."""
    with zipfile.ZipFile(SAMPLE / "2019/Hearing_files.zip") as opened:
        read = pa_csv.read_csv(
            io.BytesIO(opened.read("arb_protest_real.txt")),
            pa_csv.ReadOptions(column_names=["acct", "by", "day"]),
            pa_csv.ParseOptions(delimiter="\t", quote_char=False),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(("acct", "by", "day"), pa.string())),
        )
    who, when = pc.value_counts(read["by"]), pc.value_counts(read["day"])
    agents = Pool([(text.strip(),) for text in who.field("values").to_pylist()], who.field("counts").to_pylist())
    counted = [(text, count) for text, count in zip(when.field("values").to_pylist(), when.field("counts").to_pylist(), strict=True)]
    known = [(text, count) for text, count in counted if text.endswith("/2019")]
    first = np.datetime64("2019-01-01")
    ordinals = [(np.datetime64(f"2019-{text[:2]}-{text[3:5]}") - first).astype(int) for text, _ in known]
    return agents, Pool([(str(ordinal),) for ordinal in ordinals], [count for _, count in known])
