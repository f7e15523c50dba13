"""The tables of taxing districts and exemptions: Real_jur_exempt.zip, and its like for personal property.

An account pays to the districts of its set. Its exemptions take something off in the districts that grant them; what is left is
the taxable value. The two tables disagree on 0.26 % of the pairs of account and district, as the real ones do: lines are
missing in one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.cells import either, joined
from whole_county.codebook import PERSONAL_WIDE, REAL_WIDE, Member
from whole_county.county import County, Shared
from whole_county.draws import Draw, Mask, Numbers
from whole_county.property_parts import slots
from whole_county.rows import Rows

_CODES = [row[0] for row in codes.EXEMPTIONS]
RES, TOT = _CODES.index("RES"), _CODES.index("TOT")
#: What a homestead may add, and the weights among those; what a business may have.
_MORE = np.array([_CODES.index(code) for code in ("DIS", "VTX", "V11", "V12", "V13", "V14", "SOL")])
_OF_BUSINESS = np.array([_CODES.index(code) for code in ("ABT", "POL", "TOT", "HIS", "PRO")])
#: Places within a set (school, county, flood control, port, health, ...) in which a homestead takes something off.
_HOMESTEAD_PLACES = np.array([True, True, False, False, True])
NONE = -1
#: Shares of the pairs that are missing in one table: 19,000 and 7,000 of some millions.
_VALUE_MISSING, _EXEMPT_MISSING = 0.0017, 0.0006


def exemptions(accounts: Accounts) -> tuple[Numbers, Numbers]:
    """The first and the second exemption of each account, as places in ``codes.EXEMPTIONS``; NONE where there is none."""
    draw = accounts.draw
    rare = draw.places("exemption", codes.EXEMPTION).astype(np.int64)
    first = np.select(
        [accounts.has_homestead, accounts.is_exempt, draw.chance("rare exemption", 0.004)],
        [np.full(len(accounts), RES), np.full(len(accounts), TOT), rare],
        NONE,
    )
    more = _MORE[draw.whole("more", 0, len(_MORE))]
    second = np.where((first == RES) & draw.chance("second exemption", 0.08), more, NONE)
    return first, second


def taken_off(code: Numbers, place: Numbers, appraised: Numbers) -> Numbers:
    """What an exemption takes off in the district at a place of the set, US dollars."""
    is_school = place == 0
    homestead = (
        np.where(is_school, np.minimum(appraised, 100_000), appraised // 5)
        * _HOMESTEAD_PLACES[np.minimum(place, len(_HOMESTEAD_PLACES) - 1)]
    )
    homestead = np.where(place < len(_HOMESTEAD_PLACES), homestead, 0)
    some = np.minimum(appraised, 5_000 + 1_000 * (code % 8))
    return np.select(
        [code == NONE, code == RES, (code == TOT) | (code == _CODES.index("VTX"))], [np.zeros_like(appraised), homestead, appraised], some
    )


def granted(code: Numbers, place: Numbers) -> Mask:
    """Whether the district at a place of the set grants the exemption."""
    at_home = (place < len(_HOMESTEAD_PLACES)) & _HOMESTEAD_PLACES[np.minimum(place, len(_HOMESTEAD_PLACES) - 1)]
    return (code != NONE) & np.where(code == RES, at_home, True)


@dataclass(frozen=True)
class Pairs:
    """Pairs of account and taxing district.

    Attributes:
        owner: the account's place in the block.
        place: the district's place in its set; district: in the county's districts.
        draw: by the pair.
    """

    owner: Numbers
    place: Numbers
    district: Numbers
    draw: Draw


def pairs(shared: Shared, sets: Numbers, draw: Draw, pays: Mask) -> Pairs:
    """Every account that pays taxes with each district of its set."""
    owner, place = slots(shared.set_sizes[sets] * pays)
    return Pairs(owner, place, shared.set_places[sets[owner], place], draw.children("district", owner, place))


def _put_district(rows: Rows, shared: Shared, district: Numbers, name: str) -> None:
    rows.put(**{name: shared.districts.taken(0, district)})


def jur_value(accounts: Accounts, member: Member) -> Rows:
    """What is appraised and taxed of each account in each of its districts."""
    made = pairs(accounts.shared, accounts.set_place, accounts.draw, ~accounts.is_mineral)
    first, second = exemptions(accounts)
    is_missing = (first[made.owner] != NONE) & made.draw.chance("no value", _VALUE_MISSING)
    made = Pairs(made.owner[~is_missing], made.place[~is_missing], made.district[~is_missing], made.draw.only(~is_missing))
    rows = Rows(member, made.owner, made.draw, accounts.county)
    appraised = accounts.tot_appr_val[made.owner]
    off = sum(taken_off(code[made.owner], made.place, appraised) for code in (first, second))
    is_there = ~accounts.is_pending[made.owner]
    rows.put(
        acct=accounts.acct.take(pa.array(made.owner)),
        tp_cd=accounts.shared.districts.taken(2, made.district),
        pct_district=either(made.draw.chance("partly", 0.001), b"0.5000", b"1.0000"),
    )
    _put_district(rows, accounts.shared, made.district, "tax_district")
    rows.amount("appraised_val", appraised, is_there=is_there)
    rows.amount("taxable_val", np.maximum(appraised - off, 0), is_there=is_there)
    return rows


def jur_exempt(accounts: Accounts, member: Member) -> Rows:
    """What each exemption of an account takes off in each district that grants it."""
    made = pairs(accounts.shared, accounts.set_place, accounts.draw, ~accounts.is_mineral)
    both = exemptions(accounts)
    has = np.column_stack([granted(code[made.owner], made.place) for code in both])
    pair, which = np.nonzero(has)
    draw = made.draw.children("exemption", pair, which)
    is_kept = ~draw.chance("no exemption", _EXEMPT_MISSING)
    pair, which, draw = pair[is_kept], which[is_kept], draw.only(is_kept)
    owner, place = made.owner[pair], made.place[pair]
    code = np.column_stack(both)[owner, which]
    rows = Rows(member, owner, draw, accounts.county)
    rows.put(acct=accounts.acct.take(pa.array(owner)), exempt_cat=codes.EXEMPTION.taken(0, code))
    _put_district(rows, accounts.shared, made.district[pair], "tax_district")
    is_pending = rows.note("pending", accounts.is_pending[owner])
    rows.amount("exempt_val", taken_off(code, place, accounts.tot_appr_val[owner]), is_there=~is_pending, missing=b"Pending")
    return rows


def jur_exempt_cd(accounts: Accounts, member: Member) -> Rows:
    """The exemptions of each account that has one, all in one cell."""
    first, second = exemptions(accounts)
    owner = np.flatnonzero((first != NONE) & ~accounts.is_mineral)
    rows = Rows(member, owner, accounts.draw.only(owner), accounts.county)
    texts = [codes.EXEMPTION.taken(0, np.maximum(code[owner], 0)) for code in (first, second)]
    rows.put(
        acct=accounts.acct.take(pa.array(owner)),
        exempt_cat=either(second[owner] != NONE, joined(texts[0], b" ", texts[1]), texts[0]),
    )
    return rows


def exemption_records(county: County) -> list[tuple[str, ...]]:
    """What the exemptions stand for."""
    return [row[:2] for row in codes.EXEMPTIONS]


#: Exemptions of which each district says what it grants.
_RATED = ("RES", "TOT", "DIS", "OVR", "V14", "VTX", "SUR", "ABT")


def rate_records(county: County, *, is_real: bool) -> list[tuple[str, ...]]:
    """What each district levies and exempts: a row a district and exemption; a NUL byte in some names."""
    rows = []
    for code, name, prop, curr, row_codes in _rated(county, is_real):
        for rated, (value, rate) in row_codes.items():
            rows.append(("R" if is_real else "P", code, name, rated, prop, curr, value, rate))
    return rows


def wide_records(county: County, *, is_real: bool, is_rate: bool) -> list[tuple[str, ...]]:
    """The same as HCAD wrote it before 2025: a row a district, a column an exemption."""
    columns = REAL_WIDE if is_real else PERSONAL_WIDE
    return [
        ("R" if is_real else "P", code, name, prop, curr, *(row_codes.get(column, ("", ""))[is_rate] for column in columns))
        for code, name, prop, curr, row_codes in _rated(county, is_real)
    ]


def long_tables(county: County) -> dict[str, dict[str, object]]:
    """What the wide members are in the form of today: the rows and sums of each long table."""
    made = {}
    for prefix, is_real in (("", True), ("t_", False)):
        rows = rate_records(county, is_real=is_real)
        made[f"{prefix}jur_tax_dist_exempt_value_rate"] = {
            "of": [f"{prefix}jur_tax_dist_exempt_value", f"{prefix}jur_tax_dist_percent_rate"],
            "written": len(rows),
            "sums": {"exempt_val": str(sum(int(row[6]) for row in rows)), "exempt_rate": str(sum(Decimal(row[7]) for row in rows))},
        }
    return made


def _rated(county: County, is_real: bool) -> list[tuple[str, str, str, str, dict[str, tuple[str, str]]]]:
    made, records = [], county.shared.districts.records
    draw = Draw.of(county.seed, "rates" if is_real else "personal rates", np.arange(len(records)))
    levies, has_nul = draw.whole("levy", 5_000, 1_400_000), draw.chance("nul", county.quirk("nul"))
    for place, (code, name, _) in enumerate(records):
        text = name.replace(" ", "\0", 1) if has_nul[place] else name
        listed = [rated for rated in _RATED if is_real or rated in PERSONAL_WIDE]
        rated = {
            one: (str(1_000 * (1 + (place * 7 + number * 13) % 100)), f"{(place + number) % 5 / 20:.6f}")
            for number, one in enumerate(listed)
        }
        made.append((code, text, f"{levies[place] / 1e6 + 0.01:.6f}", f"{levies[place] / 1e6:.6f}", rated))
    return made


def business_exemption(draw: Draw) -> Numbers:
    """The exemption of each business, as a place in ``codes.EXEMPTIONS``; NONE where there is none."""
    return np.where(draw.chance("exemption", 0.035), _OF_BUSINESS[draw.whole("exemption", 0, len(_OF_BUSINESS))], NONE)


def put_pair(rows: Rows, shared: Shared, made: Pairs) -> None:
    """The district of each pair, and what kind of one it is."""
    _put_district(rows, shared, made.district, "tax_dist")
    rows.put(tp_cd=shared.districts.taken(2, made.district), pct_district=b"1.0000")
