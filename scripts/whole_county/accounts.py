"""The real property accounts of a block: what each is, where it lies, what stands on it and what it is worth, as whole arrays.

Everything is a function of the account and of how often it was reviewed and sold, worked out when it is first asked for, so
that a table costs only what it needs. Amounts are made from below: an account's land, building and feature values are the sums
of its lines, the market value their sum, the taxable value what the exemptions leave; every table that says the same says it
from here.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.cells import day, digits
from whole_county.county import County
from whole_county.draws import Draw, Mask, Numbers, Pool
from whole_county.population import STRIDES, Population
from whole_county.property_parts import Buildings, Features, Land, Parts, slots

_CLASSES = [row[0] for row in codes.STATE_CLASSES]
MOBILE_HOME, MINERAL = _CLASSES.index("M3"), _CLASSES.index("G1")
#: Account numbers: the first real parcel, and the distance of two that are neighbors.
_FIRST, _APART, _FIRST_MINERAL, _FIRST_MOBILE_HOME = 10_010_000_013, 800_000, 4_000_000_010_001, 6_000_000_000_001


def _by_class(shares: dict[str, float], other: float = 0.0) -> np.ndarray:
    return np.array([shares.get(name, other) for name in _CLASSES])


_IS_HOME = _by_class(dict.fromkeys(("A1", "A2", "A4", "E1"), 1.0)) > 0
_IS_EXEMPT = np.array([name.startswith("X") for name in _CLASSES])
#: Share of the accounts of a class with residential and with other buildings, and how many these have: 1,269,710 accounts have 1,318,785
#: residential buildings, 68,857 have 159,120 other ones.
_RES_SHARE = _by_class(
    {
        "A1": 0.986,
        "A2": 0.986,
        "A4": 0.986,
        "E1": 0.986,
        "A3": 1,
        "B2": 1,
        "B3": 1,
        "B4": 1,
        "M3": 1,
        "F1": 0.25,
        "X1": 0.2,
        "XV": 0.2,
        "O1": 0.5,
    }
)
_OTHER_SHARE = _by_class({"F1": 0.62, "F2": 0.9, "B1": 0.95, "X1": 0.15, "XV": 0.15})
_MORE_OTHER = Pool([(str(count),) for count in (1, 2, 3, 5, 8, 12)], [55, 20, 10, 8, 5, 2])
_FEATURES_OF = {
    "res": Pool([(str(count),) for count in (0, 1, 2, 3, 5)], [59, 22, 10.5, 5.5, 3]),
    "other": Pool([(str(count),) for count in (0, 1, 3, 4, 6)], [64, 15, 11, 5, 5]),
}
_AG_SHARE = _by_class({"D1": 1.0, "E1": 0.25})


def _numbers(pool: Pool) -> Numbers:
    return np.array([int(record[0]) for record in pool.records])


class Accounts:
    """Some accounts of a county, in one state of each."""

    def __init__(self, county: County, population: Population) -> None:
        self.county, self.population, self.shared = county, population, county.shared
        self.draw = Draw.of(county.seed, "account", population.serial)
        self.valued, self.owned = self.draw.at(population.reviews), self.draw.at(population.sales + 1_000)
        self.place = population.serial // STRIDES["account"]

    def __len__(self) -> int:
        """How many."""
        return len(self.place)

    def parts(self, kind: str, counts: Numbers) -> Parts:
        """Parts of a kind, so many each."""
        owner, slot = slots(counts)
        return Parts(owner, slot, self.draw.children(kind, owner, slot), self.valued.children(kind, owner, slot))

    @cached_property
    def acct(self) -> pa.Array:
        """Account numbers: 13 digits."""
        county, birth = self.county, self.population.serial % STRIDES["account"]
        numbers = np.select(
            [self.is_mineral, self.is_mobile_home],
            [
                _FIRST_MINERAL + (self.place - county.first_mineral) * STRIDES["account"],
                _FIRST_MOBILE_HOME + (self.place - county.first_mobile_home) * STRIDES["account"],
            ],
            _FIRST + self.place * _APART,
        )
        return digits(numbers + birth, 13)

    @cached_property
    def state_class(self) -> Numbers:
        """The place of its class in ``codes.STATE_CLASS``."""
        drawn = self.draw.places("class", codes.STATE_CLASS).astype(np.int64)
        drawn[self.is_mobile_home] = MOBILE_HOME
        drawn[self.is_mineral] = MINERAL
        return drawn

    @cached_property
    def is_mineral(self) -> Mask:
        """Whether it is an interest in minerals."""
        return (self.place >= self.county.first_mineral) & ~self.is_mobile_home

    @cached_property
    def is_mobile_home(self) -> Mask:
        """Whether it is a mobile home."""
        return self.place >= self.county.first_mobile_home

    @cached_property
    def is_home(self) -> Mask:
        """Whether its class is one of those that people live in."""
        return _IS_HOME[self.state_class]

    @cached_property
    def is_exempt(self) -> Mask:
        """Whether its class pays no taxes."""
        return _IS_EXEMPT[self.state_class]

    @cached_property
    def is_pending(self) -> Mask:
        """Whether its values are not told yet."""
        return self.draw.chance("pending", self.county.quirk("pending"))

    @cached_property
    def zone(self) -> Numbers:
        """The place of its neighborhood: neighbors share one."""
        count = len(self.shared.neighborhoods)
        return np.minimum(self.place * count // self.county.accounts + self.draw.whole("zone", 0, 2), count - 1)

    @cached_property
    def set_place(self) -> Numbers:
        """The place of its set of taxing districts."""
        return self.zone * 7 % len(self.shared.sets)

    @cached_property
    def built(self) -> Numbers:
        """The year of its first building."""
        return 1905 + np.sqrt(self.draw.units("built") * (self.county.year - 1906) ** 2).astype(np.int64)

    @cached_property
    def buildings(self) -> Buildings:
        """Its residential buildings."""
        counts = (self.draw.units("res") < _RES_SHARE[self.state_class]) * (
            1 + self.draw.chance("res 2", 0.03) + self.draw.chance("res 3", 0.006)
        )
        return Buildings(self, self.parts("res", counts), "res")

    @cached_property
    def other_buildings(self) -> Buildings:
        """Its other buildings."""
        counts = (self.draw.units("other") < _OTHER_SHARE[self.state_class]) * _numbers(_MORE_OTHER)[
            self.draw.places("others", _MORE_OTHER)
        ]
        return Buildings(self, self.parts("other", counts), "other")

    @cached_property
    def features(self) -> Features:
        """The extra features of residential property."""
        return self._features("res", self.has_residence)

    @cached_property
    def other_features(self) -> Features:
        """The extra features of the other half."""
        return self._features("other", ~self.has_residence & ~self.is_mineral)

    @cached_property
    def has_residence(self) -> Mask:
        """Whether it has a residential building."""
        return self.draw.units("res") < _RES_SHARE[self.state_class]

    @cached_property
    def land(self) -> Land:
        """Its lines of land; mobile homes and minerals have none."""
        counts = (~self.is_mobile_home & ~self.is_mineral) * (1 + self.draw.chance("land 2", 0.05) + self.draw.chance("land 3", 0.008))
        return Land(self, self.parts("land", counts), is_farm=False)

    @cached_property
    def farm(self) -> Land:
        """Its lines of agricultural land."""
        counts = (self.draw.units("farm") < _AG_SHARE[self.state_class]) * (1 + self.draw.chance("farm 2", 0.3))
        return Land(self, self.parts("farm", counts), is_farm=True)

    @cached_property
    def land_val(self) -> Numbers:
        """Market value of the land."""
        return self.land.parts.sums(self.land.val, len(self))

    @cached_property
    def bld_val(self) -> Numbers:
        """Value of the buildings."""
        return sum(made.parts.sums(made.dpr_val, len(self)) for made in (self.buildings, self.other_buildings))

    @cached_property
    def x_features_val(self) -> Numbers:
        """Value of the extra features."""
        return sum(made.parts.sums(made.asd_val, len(self)) for made in (self.features, self.other_features))

    @cached_property
    def ag_val(self) -> Numbers:
        """Value of the land for agriculture."""
        return self.farm.parts.sums(self.farm.val, len(self))

    @cached_property
    def tot_mkt_val(self) -> Numbers:
        """Market value; what a mineral interest is worth."""
        return self.land_val + self.bld_val + self.x_features_val + self.is_mineral * self.valued.whole("mineral", 5, 9_000)

    @cached_property
    def has_homestead(self) -> Mask:
        """871,646 accounts have one."""
        return self.is_home & self.draw.chance("homestead", 0.744)

    @cached_property
    def is_capped(self) -> Mask:
        """Whether its appraised value is held below the market's."""
        return self.has_homestead & self.draw.chance("capped", 0.62)

    @cached_property
    def tot_appr_val(self) -> Numbers:
        """Appraised value."""
        return np.where(self.is_capped, self.tot_mkt_val * self.valued.whole("cap", 78, 100) // 100, self.tot_mkt_val)

    @cached_property
    def is_protested(self) -> Mask:
        """424,335 protests were on 403,601 accounts; some file when they are reviewed again."""
        return self.draw.chance("protest", 0.25) | ((self.population.reviews > 0) & self.valued.chance("protest", 0.2))

    @cached_property
    def last_sale(self) -> Numbers:
        """The day of the newest ownership: one of eight has the day on which the records begin."""
        before = np.where(self.owned.chance("old", 0.13), day(1988, 1, 2), self.owned.whole("owned", day(1988), day(self.county.year)))
        return np.where(
            self.population.sales > 0, day(self.county.year) + self.population.sales * 5 + self.owned.whole("sold", 0, 5), before
        )

    def _features(self, kind: str, has: Mask) -> Features:
        pool = _FEATURES_OF[kind]
        counts = has * _numbers(pool)[self.draw.places(f"{kind} features", pool)]
        return Features(self, self.parts(f"{kind} feature", counts), kind)
