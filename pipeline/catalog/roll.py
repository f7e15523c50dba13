"""The tables that are computed from a source's tables: what is read, and which SQL gives the rows.

Only accounts of which something has changed are computed again: so each table that is read says which of its columns tells to
which account a row belongs, or that a row of it may matter to any. The first column of the computed table's key or parent is that account.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog.model import Source, Table


@dataclass(frozen=True)
class RollInput:
    """A table that is read.

    Attributes:
        table: the table.
        account: its column that says to which account a row belongs; None: a row may matter to any account.
        required: without this table in a tax year the computed one is left out of it; else it is read as a table without rows.
    """

    table: Table
    account: str | None
    required: bool = True


@dataclass(frozen=True)
class Roll:
    """A computed table of a source: ``table`` has the ledger's name of it (``roll_property``), ``sql`` gives its rows."""

    table: Table
    inputs: tuple[RollInput, ...]
    sql: str

    @property
    def account(self) -> str:
        """The column that says to which account a row belongs."""
        return (self.table.key or self.table.parent)[0]


def rolls_for(source: Source, year: int) -> tuple[Roll, ...]:
    """The computed tables of a tax year: those whose required inputs are wanted of it."""
    there = {table.name for table in source.tables_for(year)}
    return tuple(roll for roll in source.rolls if all(one.table.name in there for one in roll.inputs if one.required))


def roll_of(source: Source, name: str) -> Roll:
    """The computed table that the ledger calls so; KeyError if there is none."""
    for roll in source.rolls:
        if roll.table.name == name:
            return roll
    raise KeyError(name)
