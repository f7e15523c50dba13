"""How many bytes a second downloads may take, by the hour of the day: ``08-18:2MB 18-08:0``.

The text is read once into whole hours of this machine's local time, each with its rate. Hours that no entry names, and a rate of
0, have no limit. An hour that two entries name is a mistake and is refused; so is a rate too small to be meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import ConfigurationError

HOURS_A_DAY = 24
_ENTRY = re.compile(r"(?:(?P<first>\d{1,2})-(?P<end>\d{1,2}):)?(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKMG]?i?B?)", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000, "ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_EXPECTED = "a rate such as 2MB, or hours with a rate each, such as 08-18:2MB 18-08:0 (bytes a second; 0: no limit)"


@dataclass(frozen=True)
class BandwidthPlan:
    """Bytes a second for each of the 24 hours of the day, local time; 0: no limit."""

    bytes_per_s: tuple[int, ...] = (0,) * HOURS_A_DAY

    @classmethod
    def parse(cls, text: str) -> BandwidthPlan:
        """Read a plan.

        Args:
            text: entries separated by blanks: ``RATE`` alone for the whole day, or ``FIRST-END:RATE`` for the hours from
                FIRST up to END, which may run past midnight. RATE is a number with ``kB``, ``MB``, ``GB`` (or ``KiB`` ...).
                Empty: no limit.

        Raises:
            ConfigurationError: an entry cannot be read, or two of them name the same hour.
        """
        rates: dict[int, int] = {}
        for entry in text.split():
            hours, rate = _read(entry)
            for hour in hours:
                if hour in rates:
                    raise _error(f"{text!r} names hour {hour:02} twice")
                rates[hour] = rate
        return cls(tuple(rates.get(hour, 0) for hour in range(HOURS_A_DAY)))

    @property
    def is_limited(self) -> bool:
        """Whether any hour has a limit."""
        return any(self.bytes_per_s)

    def rate_at(self, hour: int) -> int:
        """Bytes a second in this hour (0 to 23); 0: no limit."""
        return self.bytes_per_s[hour]


def _read(entry: str) -> tuple[list[int], int]:
    """The hours of an entry, and its rate."""
    found = _ENTRY.fullmatch(entry)
    unit = found["unit"].removesuffix("B").replace("K", "k") if found else "?"
    if found is None or unit not in _UNITS:
        raise _error(f"{entry!r} cannot be read")
    rate = float(found["number"]) * _UNITS[unit]
    if 0 < rate < 1:
        raise _error(f"{entry!r} is less than a byte a second")
    if found["first"] is None:
        return list(range(HOURS_A_DAY)), int(rate)
    first, end = int(found["first"]), int(found["end"])
    if first >= HOURS_A_DAY or end > HOURS_A_DAY or first == end:
        raise _error(f"{entry!r} names no hours of a day")
    return [hour % HOURS_A_DAY for hour in range(first, end if end > first else end + HOURS_A_DAY)], int(rate)


def _error(seen: str) -> ConfigurationError:
    return ConfigurationError(f"[download] bandwidth: {seen}", _EXPECTED, "correct config/luigi.cfg")
