"""The parts of accounts that have an area, a size and a value: buildings, extra features and lines of land, as whole arrays.

A part belongs to the account at the place ``owner`` of its block and has a number within it. What it is hangs on the part, what it is
worth on how often its account was reviewed, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from whole_county import codes
from whole_county.draws import Draw, Numbers

if TYPE_CHECKING:
    from whole_county.accounts import Accounts


@dataclass(frozen=True)
class Parts:
    """Parts of the block's accounts, in their order.

    Attributes:
        owner: the place of the account in the block.
        slot: the part's number within its account, from 0.
        draw: by the part; valued: by the part and its account's reviews.
    """

    owner: Numbers
    slot: Numbers
    draw: Draw
    valued: Draw

    def __len__(self) -> int:
        """How many."""
        return len(self.owner)

    def sums(self, amounts: Numbers, accounts: int) -> Numbers:
        """The amounts' sum of each account."""
        return np.bincount(self.owner, amounts, accounts).astype(np.int64)


def slots(counts: Numbers) -> tuple[Numbers, Numbers]:
    """Owner and slot of each part, from how many each owner has."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


class Buildings:
    """Buildings of a block: areas, years, quality and value."""

    def __init__(self, accounts: Accounts, parts: Parts, kind: str) -> None:
        self.accounts, self.parts, self.kind = accounts, parts, kind

    @cached_property
    def area(self) -> Numbers:
        """Base area, square feet."""
        spread = self.parts.draw.units("area")
        return (640 + spread * spread * 4_200).astype(np.int64) if self.kind == "res" else (800 + spread**4 * 160_000).astype(np.int64)

    @cached_property
    def erected(self) -> Numbers:
        """The year built; 0 where it is not known."""
        year = np.minimum(self.accounts.built[self.parts.owner] + self.parts.slot * 7, self.accounts.county.year - 1)
        return np.where(self.parts.draw.chance("no year", 0.004), 0, year)

    @cached_property
    def quality(self) -> Numbers:
        """The place of its quality."""
        return self.parts.draw.places("quality", codes.QUALITY)

    @cached_property
    def cost(self) -> Numbers:
        """Replacement cost, US dollars."""
        rate = np.array([260, 220, 165, 125, 98, 80, 65])[self.quality] * (1 if self.kind == "res" else 0.8)
        return (self.area * rate * (self.parts.valued.whole("cost", 90, 112) / 100)).astype(np.int64)

    @cached_property
    def worn(self) -> Numbers:
        """What of the cost is left, in hundredths."""
        age = self.accounts.county.year - np.where(self.erected, self.erected, 1960)
        return np.maximum(100 - age, 22)

    @cached_property
    def dpr_val(self) -> Numbers:
        """Depreciated value, US dollars."""
        return self.cost * self.worn // 100


class Features:
    """Extra features of a block."""

    def __init__(self, accounts: Accounts, parts: Parts, kind: str) -> None:
        self.accounts, self.parts, self.pool = accounts, parts, codes.RES_FEATURE if kind == "res" else codes.OTHER_FEATURE

    @cached_property
    def feature(self) -> Numbers:
        """The place of the feature in its pool; some are what the one before them is: 33,569 of 953,407 repeat code and building."""
        drawn = self.parts.draw.places("feature", self.pool).astype(np.int64)
        before, again = np.roll(drawn, 1), self.parts.draw.chance("again", 0.03)
        other = np.where(drawn == before, (drawn + 1) % len(self.pool), drawn)
        return np.where(self.parts.slot == 0, drawn, np.where(again, before, other))

    @cached_property
    def bld_num(self) -> Numbers:
        """The building that it belongs to; 0: none."""
        return self.parts.draw.whole("building", 0, 2)

    @cached_property
    def length(self) -> Numbers:
        """Feet."""
        return self.parts.draw.whole("length", 1, 13) * 4

    @cached_property
    def width(self) -> Numbers:
        """Feet."""
        return self.parts.draw.whole("width", 1, 9) * 4

    @cached_property
    def unit_price(self) -> Numbers:
        """In cents."""
        return np.array([int(record[5]) for record in self.pool.records])[self.feature]

    @cached_property
    def units(self) -> Numbers:
        """In hundredths; single things count as one."""
        return np.where(self.unit_price >= 50_000, 1, self.length * self.width) * 100

    @cached_property
    def condition(self) -> Numbers:
        """What of it is left, in hundredths."""
        return self.parts.valued.whole("condition", 35, 101)

    @cached_property
    def asd_val(self) -> Numbers:
        """US dollars."""
        return self.units * self.unit_price // 10_000 * self.condition // 100


class Land:
    """Lines of land of a block."""

    def __init__(self, accounts: Accounts, parts: Parts, *, is_farm: bool) -> None:
        self.accounts, self.parts, self.is_farm = accounts, parts, is_farm

    @cached_property
    def units(self) -> Numbers:
        """Square feet; of agricultural land ten-thousandths of an acre."""
        spread = self.parts.draw.units("land")
        is_home = self.accounts.is_home[self.parts.owner]
        whole = np.where(is_home, 2_400 + spread * spread * 16_000, 3_000 + spread**5 * 900_000).astype(np.int64)
        # Half of it goes with each split.
        return whole >> self.accounts.population.splits[self.parts.owner]

    @cached_property
    def unit_price(self) -> Numbers:
        """In cents a square foot (an acre's 1/10,000), by neighborhood and review."""
        zone = self.accounts.zone[self.parts.owner]
        return (2 if self.is_farm else 120) + (zone * 37 % 50) * (1 if self.is_farm else 45) + self.parts.valued.whole("price", 0, 60)

    @cached_property
    def val(self) -> Numbers:
        """US dollars."""
        return self.units * self.unit_price // 100
