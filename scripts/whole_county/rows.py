"""The rows of one table of one block: a cell for each column of the codebook, and the numbers that its amounts hold.

A table's maker fills them by name. Which columns are padded with blanks is the codebook's business, and happens here. What may
not be forgotten is checked: every column has its cell, and no other name has one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from whole_county.cells import Cell, array, decimals, digits, either, padded
from whole_county.codebook import Member
from whole_county.county import County
from whole_county.draws import Draw, Mask, Numbers


class Rows:
    """Rows of a table, in file order.

    Args:
        member: the table.
        owner: the place of each row's account in the block; none: no account's.
        draw: by the row.
        county: whose quirks the rows have.
    """

    def __init__(self, member: Member, owner: Numbers, draw: Draw, county: County) -> None:
        self.member, self.owner, self.draw, self.county = member, owner, draw, county
        self.cells: dict[str, Cell] = {}
        #: Sums are of these: whole numbers in units of 10**-scale; rows without a value are False in the mask.
        self.amounts: dict[str, tuple[Numbers, Mask, int]] = {}
        #: How often each quirk of a cell is there.
        self.quirks: dict[str, Mask] = {}

    def __len__(self) -> int:
        """How many."""
        return len(self.owner)

    def put(self, **cells: Cell) -> None:
        """Fill columns; a text is one for all rows."""
        for name, cell in cells.items():
            width = self.member.pads.get(name)
            self.cells[name] = padded(cell, width) if width else cell

    def amount(
        self, name: str, numbers: Numbers, *, is_there: Mask | None = None, missing: bytes = b"", scale: int = 0, shown: int = 0
    ) -> None:
        """Fill a column with numbers, kept for the sums; ``missing`` where there is none."""
        texts = decimals(numbers, scale, shown or scale) if scale else digits(numbers)
        there = np.ones(len(self), dtype=bool) if is_there is None else is_there
        self.amounts[name] = (numbers, there, scale)
        self.put(**{name: texts if is_there is None else either(there, texts, missing)})

    def by_chance(self, quirk: str, what: str = "", among: Mask | None = None) -> Mask:
        """Where a quirk is, by its share; noted for the account. ``what`` tells several of one row apart."""
        where = self.draw.chance(f"{quirk} {what}", self.county.quirk(quirk))
        return self.note(quirk, where if among is None else where & among)

    def note(self, quirk: str, where: Mask) -> Mask:
        """Note where a quirk is."""
        self.quirks[quirk] = where | self.quirks[quirk] if quirk in self.quirks else where
        return where

    def ordered(self) -> list[Cell]:
        """The cells in file order."""
        if set(self.cells) != set(self.member.columns):
            raise ValueError(
                f"{self.member.table}: {sorted(set(self.cells) ^ set(self.member.columns))} are not its columns, or have no cell"
            )
        return [self.cells[name] for name in self.member.columns]

    def column(self, name: str) -> pa.Array:
        """A column's texts."""
        return array(self.cells[name], len(self))
