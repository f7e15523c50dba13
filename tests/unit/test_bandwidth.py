"""The plan of bytes a second by the hour."""

from __future__ import annotations

import pytest

from pipeline.bandwidth import BandwidthPlan
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "at_3", "at_8", "at_17", "at_18"),
    [
        ("", 0, 0, 0, 0),
        ("0", 0, 0, 0, 0),
        ("500kB", 500_000, 500_000, 500_000, 500_000),
        ("08-18:2MB 18-08:0", 0, 2_000_000, 2_000_000, 0),
        ("8-18:1.5MB", 0, 1_500_000, 1_500_000, 0),
        ("18-08:1MiB 08-18:64KiB", 1 << 20, 65_536, 65_536, 1 << 20),
        ("0-24:1000", 1_000, 1_000, 1_000, 1_000),
        ("22-4:7B", 7, 0, 0, 0),
    ],
)
def test_plan_gives_each_hour_its_rate(text: str, at_3: int, at_8: int, at_17: int, at_18: int) -> None:
    plan = BandwidthPlan.parse(text)
    assert [plan.rate_at(hour) for hour in (3, 8, 17, 18)] == [at_3, at_8, at_17, at_18]
    assert plan.is_limited == any((at_3, at_8, at_17, at_18))


@pytest.mark.parametrize(
    "text", ["fast", "8:2MB", "8-8:2MB", "24-25:1MB", "2MB 8-9:1MB", "08-18:1MB 17-20:1MB", "-1", "1TB", "0.2B", "08-18: 2MB", "1e6"]
)
def test_plan_that_cannot_be_meant_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bandwidth.*08-18:2MB"):
        BandwidthPlan.parse(text)
