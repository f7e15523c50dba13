"""A column of texts seen as the bytes that it lies in, which is how whole columns are looked through without a Python loop.

``Octets`` shows the bytes of an Arrow string column, where each text begins and which texts are there; NULL has no bytes.
It answers in one pass over the bytes what would cost a regular expression a text: is all of it digits, which texts hold a
certain byte, which texts are these. UTF-8 keeps every ASCII byte for its own character, so that a byte below 128 that is
found is that character, whatever stands around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.transform.coerced import Mask

Places = npt.NDArray[np.intp]
_ZERO, _NINE = 48, 9


@dataclass(frozen=True)
class Octets:
    """The bytes of a column of texts.

    Attributes:
        texts: the column, without an offset, and without bytes where it is NULL.
        octets: all bytes of all texts, one after the other.
        starts: where each text begins in them; one more than texts, the last is the end.
    """

    texts: pa.StringArray
    octets: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: pa.StringArray) -> Octets:
        """Look at a column; it is copied only where its slots are not as promised above."""
        view = cls._plain(texts) if texts.offset == 0 else cls._plain(without(texts, None))
        has_bytes_in_nulls = view.texts.null_count and bool(view.lengths[~view.is_there].any())
        return cls._plain(without(texts, None)) if has_bytes_in_nulls else view

    @classmethod
    def _plain(cls, texts: pa.StringArray) -> Octets:
        _, offsets, data = texts.buffers()
        count = len(texts)
        starts = np.frombuffer(offsets, np.int32, count + 1) if count else np.zeros(1, np.int32)
        first, last = int(starts[0]), int(starts[-1])
        octets = np.frombuffer(data, np.uint8, last - first, first) if last > first else np.empty(0, np.uint8)
        return cls(texts, octets, starts - np.int32(first) if first else starts)

    def __len__(self) -> int:
        """How many texts."""
        return len(self.texts)

    @cached_property
    def is_there(self) -> Mask:
        """Which texts are not NULL."""
        if not self.texts.null_count:
            return np.ones(len(self.texts), dtype=bool)
        there: Mask = self.texts.is_valid().to_numpy(zero_copy_only=False)
        return there

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Bytes of each text; 0 where it is NULL."""
        return np.diff(self.starts)

    @cached_property
    def is_all_digits(self) -> bool:
        """Whether no other byte than an ASCII digit stands anywhere."""
        return bool(len(self.octets) == 0 or (self.octets.min() >= _ZERO and self.octets.max() <= _ZERO + _NINE))

    @cached_property
    def not_digits(self) -> Places:
        """Places of the bytes that are no ASCII digits."""
        return np.flatnonzero((self.octets - np.uint8(_ZERO)) > _NINE)

    def rows_at(self, places: Places) -> Places:
        """Which text each byte is of."""
        return np.searchsorted(self.starts, places.astype(np.int32), side="right") - 1

    def rows_with(self, is_wanted: Mask) -> Mask:
        """Which texts have a byte of those that are wanted."""
        rows = np.zeros(len(self), dtype=bool)
        rows[self.rows_at(np.flatnonzero(is_wanted))] = True
        return rows

    def equal_to(self, wanted: Sequence[bytes]) -> Mask:
        """Which texts are one of those wanted, none of which is empty.

        Rows are compared from the last byte to the first, each time those alone that agreed so far: nearly all are out after
        one or two bytes, so that it costs a fraction of a set lookup.
        """
        found = np.zeros(len(self), dtype=bool)
        for text in wanted:
            rows = np.flatnonzero(self.lengths == len(text))
            for place in range(len(text) - 1, -1, -1):
                if not len(rows):
                    break
                rows = rows[self.octets[self.starts[rows] + place] == text[place]]
            found[rows] = True
        return found

    def first_bytes(self, rows: Mask | Places) -> npt.NDArray[np.uint8]:
        """The first byte of each of these texts, none of which is empty."""
        firsts: npt.NDArray[np.uint8] = self.octets[self.starts[:-1][rows]]
        return firsts


def without(texts: pa.Array, rows: Mask | None) -> pa.Array:
    """The column with NULL in these rows, copied, so that NULL has no bytes (which Arrow's ``if_else`` does not do)."""
    return texts.take(pa.array(np.arange(len(texts), dtype=np.int32), mask=rows))


def replaced(values: pa.Array, rows: Mask, others: pa.Array) -> pa.Array:
    """The column with other values in these rows; as many values as rows."""
    return pc.replace_with_mask(values, pa.array(rows), others) if len(others) else values


def spread(rows: Mask, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Masks over some rows of a column as masks over all of it."""
    places = np.flatnonzero(rows)
    spread_out = {}
    for reason, mask in masks.items():
        spread_out[reason] = np.zeros(len(rows), dtype=bool)
        spread_out[reason][places[mask]] = True
    return spread_out
