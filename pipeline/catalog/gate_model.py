"""How far a release may be from what its source promises, and from what is live: the gate's figures as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True)
class Drift:
    """How far a table may be from what is live before a person must look; a first import is not judged by it.

    Attributes:
        max_keys_lost: the largest share of the live keys (rows whose parent is gone, of a table without a key) that may vanish.
        max_rows_lost: the largest share by which a table without a key may have fewer rows.
        max_rows_gained: the largest share by which a table may have more rows.
        max_null_rise: by how much the share of rows without a value may rise in a column.
        max_sum_factor: by which factor the sum of a column may fall, for as many rows; and rise, where its numbers do so too.
        max_value_shift: the largest share of a column of codes that may have moved from one value to another.
        max_shifted_columns: the largest share of the columns of codes that may shift more than that: in one or two it is an update.
        min_rows: a table that has fewer live rows is not judged; of few rows, shares say little.
        warn: those of these names (without ``max_``) that are told and hold nothing.
    """

    max_keys_lost: Decimal = Decimal("0.01")
    max_rows_lost: Decimal = Decimal("0.05")
    max_rows_gained: Decimal = Decimal("0.25")
    max_null_rise: Decimal = Decimal("0.05")
    max_sum_factor: Decimal = Decimal(5)
    max_value_shift: Decimal = Decimal("0.1")
    max_shifted_columns: Decimal = Decimal("0.5")
    min_rows: int = 100
    warn: tuple[str, ...] = ("rows_gained", "value_shift")


@dataclass(frozen=True)
class Gate:
    """What must hold between staging and publishing.

    ``floors`` are the fewest rows a table may have, ``max_quarantined_share`` and ``max_conflicting_share`` the largest
    shares of a table's rows that may be quarantined, or repeat a key with other values; ``max_quarantined_rows`` the most rows.
    ``quarantined_shares`` and ``quarantined_rows`` are the same of single tables. ``drift`` is how far a table may be from what
    is live, ``table_drift`` of single tables.
    """

    floors: Mapping[str, int]
    max_quarantined_share: float
    max_conflicting_share: float
    max_quarantined_rows: int | None = None
    quarantined_shares: Mapping[str, float] = field(default_factory=dict)
    quarantined_rows: Mapping[str, int] = field(default_factory=dict)
    drift: Drift = Drift()
    table_drift: Mapping[str, Drift] = field(default_factory=dict)

    def drift_of(self, table: str) -> Drift:
        """How far a table may be from what is live."""
        return self.table_drift.get(table, self.drift)

    def quarantine_budget(self, table: str) -> tuple[float, int | None]:
        """The largest share and number of a table's rows that may be quarantined; None: any number."""
        share = self.quarantined_shares.get(table, self.max_quarantined_share)
        return share, self.quarantined_rows.get(table, self.max_quarantined_rows)
