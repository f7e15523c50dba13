"""Numbers by chance that are a function of what they are drawn for: the same account has the same ones in every release and block.

A :class:`Draw` has one 64-bit key an entity (account, building, line) and gives, for a name, a number each: a hash of seed,
entity and name, so that nothing depends on how many entities are made at once or in which order. Of an entity's parts
(``children``) and of its states (``at``: the account after its third review) there are draws of their own. All of it is whole-
array arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: Shares of a pool are held to 1 in this many.
_SLOTS = 1 << 16


def mixed(words: Words) -> Words:
    """Words of which every bit hangs on every bit of those given (splitmix64's last steps)."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


@lru_cache(maxsize=4096)
def _salt(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


class Pool:
    """Records to draw from, each with a weight: parallel columns of texts.

    Args:
        records: tuples of texts, one a column.
        weights: one a record; none: all alike.
    """

    def __init__(self, records: Sequence[tuple[str, ...]], weights: Sequence[float] | None = None) -> None:
        self.records = list(records)
        self.columns = [pa.array([record[place].encode("cp1252") for record in records], pa.binary()) for place in range(len(records[0]))]
        shares = np.asarray(weights if weights is not None else [1.0] * len(records), dtype=float)
        ends = np.cumsum(shares) / shares.sum() * _SLOTS
        self.slots = np.searchsorted(ends, np.arange(_SLOTS) + 0.5, side="right").clip(0, len(records) - 1).astype(np.int32)

    def __len__(self) -> int:
        """How many records."""
        return len(self.records)

    def taken(self, column: int, places: npt.NDArray[np.integer]) -> Taken:
        """The texts of a column in the records at these places."""
        return Taken(self.columns[column], places)

    def places(self, *codes: str) -> list[int]:
        """Where the records of these codes stand."""
        known = {record[0]: place for place, record in enumerate(self.records)}
        return [known[code] for code in codes]


def words_pool(text: str) -> Pool:
    """A pool of one column from ``word|word*3|...``: the number is a weight; no word is one blank, as HCAD writes an empty varchar."""
    parts = [part.rpartition("*") if "*" in part else (part, "", "1") for part in text.split("|")]
    return Pool([(word or " ",) for word, _, _ in parts], [float(weight) for _, _, weight in parts])


class Taken:
    """Texts of a pool's column, by place: padded as a pool, which is short, before they are taken."""

    def __init__(self, texts: pa.Array, places: npt.NDArray[np.integer]) -> None:
        self.texts, self.places = texts, places.astype(np.int32, copy=False)

    def __len__(self) -> int:
        """How many texts."""
        return len(self.places)

    def array(self) -> pa.Array:
        """The texts."""
        return self.texts.take(pa.array(self.places))


class Draw:
    """Draws for some entities, by their keys."""

    def __init__(self, keys: Words) -> None:
        self.keys = keys

    @classmethod
    def of(cls, seed: int, kind: str, numbers: Numbers) -> Draw:
        """Draws for the entities of a kind with these numbers."""
        return cls(mixed(numbers.astype(np.uint64) * _ODD + (_salt(kind) ^ mixed(np.array([seed], np.uint64))[0])))

    def __len__(self) -> int:
        """How many entities."""
        return len(self.keys)

    def at(self, state: Numbers) -> Draw:
        """The same entities in a state: another number, other draws."""
        return Draw(mixed(self.keys + (state.astype(np.uint64) + np.uint64(1)) * _ODD))

    def children(self, kind: str, owner: Numbers, slot: Numbers) -> Draw:
        """Parts of the entities: ``owner`` is the entity's place, ``slot`` the part's number within it."""
        return Draw(mixed(self.keys[owner] + (_salt(kind) | np.uint64(1)) * (slot.astype(np.uint64) + np.uint64(1))))

    def only(self, places: Numbers | Mask) -> Draw:
        """Some of the entities."""
        return Draw(self.keys[places])

    def words(self, name: str) -> Words:
        """64 bits each."""
        return mixed(self.keys ^ _salt(name))

    def units(self, name: str) -> npt.NDArray[np.float64]:
        """A number from 0, below 1, each."""
        return (self.words(name) >> np.uint64(11)) * 2.0**-53

    def chance(self, name: str, share: float) -> Mask:
        """True with this share."""
        return self.words(name) < np.uint64(min(int(share * 2.0**64), 2**64 - 1))

    def whole(self, name: str, low: int, high: int) -> Numbers:
        """A number from ``low``, below ``high``, each."""
        return (((self.words(name) >> np.uint64(32)) * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64) + low

    def places(self, name: str, pool: Pool) -> npt.NDArray[np.int32]:
        """The place of a record each, by the pool's weights."""
        return pool.slots[(self.words(name) >> np.uint64(48)).astype(np.intp)]

    def of_pool(self, name: str, pool: Pool, column: int = 0) -> Taken:
        """A text of the pool each."""
        return pool.taken(column, self.places(name, pool))
