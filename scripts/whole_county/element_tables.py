"""The tables of what buildings consist of: fixtures, structural elements and exterior areas, some lines a building."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.cells import digits
from whole_county.codebook import Member
from whole_county.county import LAST_TOTALS
from whole_county.draws import Draw, Numbers, Pool
from whole_county.property_parts import Buildings, Parts, slots
from whole_county.rows import Rows

_ELEMENT_PLACES = {
    kind: Pool(
        [(row[0], text, row[1], row[2], f"{int(row[3]) / 100:.6f}" if row[3] else "") for row in codes.ELEMENT_CODES if row[0] == kind],
        [float(row[4]) for row in codes.ELEMENT_CODES if row[0] == kind],
    )
    for kind, text in codes.ELEMENTS
}  # fmt: skip
#: The elements of a building, and the share of buildings that have each. Seven of a house are seen on real rows.
_RES_ELEMENTS = (("FND", 0.98), ("XWR", 0.98), ("HAC", 0.82), ("CDU", 0.84), ("GRD", 0.84), ("PCR", 0.86), ("CAD", 0.1), ("XWR", 0.06))
_OTHER_ELEMENTS = (("CNS", 0.99), ("FND", 0.97), ("XWO", 0.98), ("HAC", 0.7), ("PLB", 0.75), ("PCR", 0.8))
#: Fixtures, the share of buildings that have each, and how many units, in hundredths, of a pool.
_ROOMS = Pool([(str(rooms),) for rooms in (100, 200, 300, 400, 500, 0)], [4, 16, 48, 26, 5, 1])
_BATHS = Pool([(str(rooms),) for rooms in (100, 200, 300, 400, 0)], [28, 52, 14, 5, 1])
_STORIES = Pool([(str(count),) for count in (100, 200, 150, 300)], [62, 32, 3, 3])
_ONE = Pool([(str(count),) for count in (100, 200)], [88, 12])
_MANY = Pool([(str(count),) for count in (500, 600, 700, 800, 900, 1200)], [20, 26, 22, 17, 10, 5])
_RES_FIXTURES = (
    ("RMB", 0.985, _ROOMS), ("RMF", 0.985, _BATHS), ("RMH", 0.57, _ONE), ("RMT", 0.99, _MANY), ("STY", 0.99, _STORIES), ("FPW", 0.7, _ONE),
    ("RMR", 0.5, _ONE), ("FXT", 0.0, _MANY),
)  # fmt: skip
_OTHER_FIXTURES = (("STY", 0.95, _STORIES), ("WLH", 0.9, _MANY), ("ELV", 0.1, _ONE), ("UNT", 0.4, _MANY), ("RMT", 0.35, _MANY))
_DESCRIBED = {**dict(codes.FIXTURES), "FXT": "Fixtures: Total"}
FIXTURE_POOL = Pool([(code, text) for code, text in _DESCRIBED.items()])


def _several(made: Buildings, kind: str, shares: Sequence[float]) -> tuple[Parts, Numbers]:
    """Lines of the buildings: those kinds of the list that each has; the lines, and which kind each is."""
    has = np.column_stack([made.parts.draw.chance(f"{kind} {place}", share) for place, share in enumerate(shares)])
    building, which = np.nonzero(has)
    draw, valued = (drawn.children(kind, building, which) for drawn in (made.parts.draw, made.parts.valued))
    return Parts(made.parts.owner[building], made.parts.slot[building], draw, valued), which


def fixtures(accounts: Accounts, member: Member) -> Rows:
    """Rooms, baths, stories and the like of all buildings, one kind a line; 8.04 million of 1.48 million buildings."""
    totals = 0.98 if accounts.county.year <= LAST_TOTALS else 0.0
    halves = []
    for made, listed in ((accounts.buildings, _RES_FIXTURES), (accounts.other_buildings, _OTHER_FIXTURES)):
        parts, which = _several(made, "fixture", [totals if kind == "FXT" else share for kind, share, _ in listed])
        place = np.array(FIXTURE_POOL.places(*(kind for kind, _, _ in listed)))[which]
        units = np.zeros(len(which), np.int64)
        for number, (_, _, pool) in enumerate(listed):
            counts = np.array([int(record[0]) for record in pool.records])
            units = np.where(which == number, counts[parts.draw.places("units", pool)], units)
        halves.append((parts.owner, parts.slot, parts.draw.keys, place, units))
    owner, slot, keys, place, units = (np.concatenate(both) for both in zip(*halves, strict=True))
    order = np.argsort(owner, kind="stable")
    owner, slot, place, units = owner[order], slot[order], place[order], units[order]
    rows = Rows(member, owner, Draw(keys[order]), accounts.county)
    rows.put(
        acct=accounts.acct.take(pa.array(owner)),
        bld_num=digits(slot + 1),
        type=FIXTURE_POOL.taken(0, place),
        type_dscr=FIXTURE_POOL.taken(1, place),
    )
    rows.amount("units", units, scale=2)
    return rows


def structural_elem1(accounts: Accounts, member: Member) -> Rows:
    """Structural elements of residential buildings."""
    return _elements(accounts, member, accounts.buildings, _RES_ELEMENTS)


def structural_elem2(accounts: Accounts, member: Member) -> Rows:
    """Structural elements of other buildings."""
    return _elements(accounts, member, accounts.other_buildings, _OTHER_ELEMENTS)


def _elements(accounts: Accounts, member: Member, made: Buildings, listed: Sequence[tuple[str, float]]) -> Rows:
    parts, which = _several(made, "element", [share for _, share in listed])
    place = np.zeros(len(which), np.int64)
    for number, (kind, _) in enumerate(listed):
        places = np.array([_EVERY_ELEMENT[record] for record in _ELEMENT_PLACES[kind].records])
        place = np.where(which == number, places[parts.draw.places("element", _ELEMENT_PLACES[kind])], place)
    rows = Rows(member, parts.owner, parts.draw, accounts.county)
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        bld_num=digits(parts.slot + 1),
        dor_cd=codes.STATE_CLASS.taken(0, accounts.state_class[parts.owner]),
    )
    for column, name in enumerate(("type", "type_dscr", "code", "category_dscr", "adj")):
        rows.put(**{name: _ELEMENT_POOL.taken(column, place)})
    return rows


_ELEMENT_POOL = Pool([record for pool in _ELEMENT_PLACES.values() for record in pool.records])
_EVERY_ELEMENT = {record: place for place, record in enumerate(_ELEMENT_POOL.records)}


def exterior(accounts: Accounts, member: Member) -> Rows:
    """Areas of residential buildings by kind; two garages alike are two lines."""
    made = accounts.buildings
    building, slot = slots(1 + _AREAS[made.parts.draw.whole("areas", 0, len(_AREAS))])
    draw, owner = made.parts.draw.children("exterior", building, slot), made.parts.owner[building]
    rows = Rows(member, owner, draw, accounts.county)
    kind = np.where(slot == 0, 0, draw.places("area", codes.SUBAREAS))
    rows.put(
        acct=accounts.acct.take(pa.array(owner)),
        bld_num=digits(made.parts.slot[building] + 1),
        sar_cd=codes.SUBAREAS.taken(0, kind),
        sar_dscr=codes.SUBAREAS.taken(1, kind),
    )
    rows.amount("area", np.where(slot == 0, made.area[building], draw.whole("feet", 4, 60) * 8))
    return rows


#: Further lines of a building; nothing counts them, so as many as the sum of all members allows.
_AREAS = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 5])
