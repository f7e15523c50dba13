"""Who is there in a release: accounts and businesses with how often each was reviewed and sold, block by block.

A block is a range of places of the first release. Each release after it lets some vanish, split, be sold or be reviewed; an
account that splits off stands behind the one that it was part of. What happens to an account hangs on the seed, the account and
the release alone, so a population is walked from the first release to the one asked for, and the same whichever is asked for.
``touched`` are those in which two releases differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whole_county.county import BUSINESS_STRIDE, County
from whole_county.draws import Draw, Mask, Numbers

#: Numbers that an account's place has: itself, and one for each release in which it may split.
STRIDES = {"account": 100, "business": BUSINESS_STRIDE}


@dataclass(frozen=True)
class Population:
    """Some accounts (or businesses), in order.

    Attributes:
        kind: ``account`` or ``business``.
        serial: place in the first release times the stride, plus the release in which it split off (0: never).
        reviews, sales, splits: how often each has happened; a split is a review, too.
    """

    kind: str
    serial: Numbers
    reviews: Numbers
    sales: Numbers
    splits: Numbers

    def only(self, which: Mask) -> Population:
        """Some of them."""
        return Population(self.kind, self.serial[which], self.reviews[which], self.sales[which], self.splits[which])

    def same_as(self, other: Population) -> Mask:
        """Those that are in the other one with the same reviews and sales."""
        if not len(other.serial):
            return np.zeros(len(self.serial), dtype=bool)
        place = np.searchsorted(other.serial, self.serial).clip(0, len(other.serial) - 1)
        return (
            (other.serial[place] == self.serial) & (other.reviews[place] == self.reviews) & (other.sales[place] == self.sales)
        )  # fmt: skip


def populate(county: County, kind: str, first: int, last: int) -> tuple[Population, Population]:
    """Those of the places from ``first``, below ``last``, in the county's release and in the one before it (none before the first)."""
    stride = STRIDES[kind]
    serial = np.arange(first, last, dtype=np.int64) * stride
    now = untouched(kind, serial)
    before = now.only(np.zeros(len(serial), dtype=bool))
    for release in range(1, county.release + 1):
        before, now = now, _after(county, now, release, stride)
    return now, before


def untouched(kind: str, serial: Numbers) -> Population:
    """Those of these serials, as they were at first."""
    return Population(kind, serial, *(np.zeros(len(serial), np.int64) for _ in range(3)))


def touched(now: Population, before: Population) -> tuple[Population, Population]:
    """Of both those that the other one does not have as they are."""
    return now.only(~now.same_as(before)), before.only(~before.same_as(now))


def _after(county: County, now: Population, release: int, stride: int) -> Population:
    chance = Draw.of(county.seed, now.kind, now.serial).at(np.full(len(now.serial), release)).units("event")
    ends = np.cumsum([county.event(name, release) for name in ("vanish", "split", "sale", "review")])
    vanishes = chance < ends[0]
    # An account splits once, and not what came of a split, a mobile home or a mineral interest.
    splits = ~vanishes & (chance < ends[1]) & (now.serial % stride == 0)
    if now.kind == "account":
        splits &= now.serial < county.first_mineral * stride
    is_sold = ~vanishes & (chance >= ends[1]) & (chance < ends[2])
    is_reviewed = splits | ((chance >= ends[2]) & (chance < ends[3]))
    left = Population(now.kind, now.serial, now.reviews + is_reviewed, now.sales + is_sold, now.splits + splits).only(~vanishes)
    born = untouched(now.kind, now.serial[splits] + release)
    order = np.argsort(np.concatenate((left.serial, born.serial)), kind="stable")
    columns = (np.concatenate((getattr(left, name), getattr(born, name)))[order] for name in ("serial", "reviews", "sales", "splits"))
    return Population(now.kind, *columns)
