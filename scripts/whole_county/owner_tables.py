"""The tables of accounts and their owners: Real_acct_owner.zip and the history of ownership."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.cells import Cell, array, day, digits, either, joined
from whole_county.codebook import Member
from whole_county.draws import Draw, Mask, Numbers, Pool, words_pool
from whole_county.population import STRIDES, Population, untouched
from whole_county.property_parts import Parts
from whole_county.rows import Rows
from whole_county.words import AWAY, CITIES, COMPANIES, LAST_NAMES, STREETS, SUFFIXES, dates, person, spoilt, years, zip_codes

DIRECTIONS, NUMBER_SUFFIXES = words_pool("N|S|E|W"), words_pool("1/2|A|B|C")
FACETS, KEYS = words_pool("A|B|C|D"), words_pool("A|C|F|G|H|K|L|M|P|Q|R|T|V|X|Z")
CLASSES, CENTERS = words_pool("A|B|C|D|E"), words_pool("*3|10|21|28|33|32|45|37|61|UT")
SUBDIVISIONS = words_pool(
    "SSBB|MAGNOLIA PK BRANCH (IGN)|(NM)|OAK FOREST SEC 4|WESTBURY SEC 2|KATY LAKES|"
    "SPRING TRAILS|CYPRESS MILL R/P|COPPERFIELD NORTHMEAD VILLAGE|"
    "BRIDGELAND HIDDEN CREEK SEC 12|FALL CREEK SEC 3|TIMBERGROVE MANOR|"
    "SHARPSTOWN COUNTRY CLUB|EAGLE SPRINGS SEC 41|ATASCOCITA FOREST SEC 5|PARKWOOD"
)
STATUSES = words_pool("Noticed*62|Value Unchanged, Notice Not Required*30|Certified*6|All Values Pending*2")
SHARES = words_pool("1.0000*90|0.5000*9|0.2500")
DEED_BOOKS = words_pool("RP-2019-|RP-2020-|RP-2021-|RP-2022-|RP-2023-|20070|20090|20130")
PERMIT_NOTES = words_pool("NEW RES*3|SFR|REROOF*4|POOL|INTERIOR REMODEL*2|PATIO COVER|WATER HEATER|BUILD OUT|FIRE DAMAGE REPAIR|GENERATOR")
AGENCIES = words_pool("HOU*60|HC*30|PAS*4|BAY*3|KAT*3")

_NUMBERS = Pool([(str(number),) for number in range(20_001)])


def owner_names(accounts: Accounts, owned: Draw) -> pa.Array:
    """The owner of each account; governments own what is exempt."""
    is_person = ~accounts.is_exempt & owned.chance("person", 0.76)
    return either(is_person, person(owned), owned.of_pool("company", COMPANIES))


def _address(draw: Draw) -> pa.Array:
    street = joined(
        digits(draw.whole("mail", 1, 20_000)), draw.of_pool("mail street", STREETS), draw.of_pool("mail suffix", SUFFIXES), by=b" "
    )
    return either(draw.chance("box", 0.08), joined(b"PO BOX ", digits(draw.whole("box no", 10, 99_999))), street)


def _situs(accounts: Accounts) -> dict[str, Cell]:
    draw = accounts.draw
    has_number = ~draw.chance("no number", 0.05)
    number: Cell = _NUMBERS.taken(0, np.where(has_number, draw.whole("number", 1, 20_001), 0))
    # A street of the neighborhood, so that neighbors live on the same ones.
    street = STREETS.taken(0, (accounts.zone * 5 + draw.whole("street", 0, 4)) % len(STREETS))
    suffix = draw.of_pool("suffix", SUFFIXES)
    return {"str_num": number, "str": street, "str_sfx": suffix, "site_addr_1": joined(number, street, suffix, by=b" ")}


def real_acct(accounts: Accounts, member: Member) -> Rows:
    """One row an account."""
    count, draw, county = len(accounts), accounts.draw, accounts.county
    rows = Rows(member, np.arange(count), draw, county)
    rows.put(acct=accounts.acct, yr=b"%d" % county.year)
    owned, zone = accounts.owned, accounts.zone
    is_near = owned.chance("near", 0.86)
    city = CITIES.taken(0, CITIES.slots[zone * 977 % len(CITIES.slots)])
    zips, far = zip_codes(zone), owned.places("away", AWAY)
    rows.put(
        mailto=spoilt(rows, owner_names(accounts, owned), high=True),
        mail_addr_1=_address(owned),
        mail_addr_2=either(owned.chance("suite", 0.06), joined(b"STE ", digits(owned.whole("suite no", 100, 3_000)))),
        mail_city=either(is_near, city, AWAY.taken(0, far)),
        mail_state=either(is_near, b"TX", AWAY.taken(1, far)),
        mail_zip=joined(zips, b"-", digits(owned.whole("plus 4", 1_000, 10_000))),
        mail_country=either(owned.chance("abroad", 0.002), b"MEXICO"),
        undeliverable=either(owned.chance("undeliverable", 0.01), b"Y", b"N"),
        str_pfx=either(draw.chance("prefix", 0.05), draw.of_pool("prefix", DIRECTIONS), b""),
        str_num_sfx=either(draw.chance("half", 0.004), draw.of_pool("half", NUMBER_SUFFIXES), b""),
        str_sfx_dir=either(draw.chance("direction", 0.02), draw.of_pool("direction", DIRECTIONS), b""),
        str_unit=either(draw.chance("unit", 0.07), digits(draw.whole("unit", 1, 4_000))),
        **_situs(accounts),
        site_addr_2=city,
        site_addr_3=zips,
    )
    _put_codes(rows, accounts)
    _put_amounts(rows, accounts)
    is_noticed = ~accounts.is_pending & draw.chance("noticed", 0.62)
    rows.put(
        value_status=draw.of_pool("status", STATUSES),
        noticed=either(is_noticed, b"Y", b"N"),
        notice_dt=dates(rows, "notice", day(county.year, 3, 28) + draw.whole("notice", 0, 60), is_noticed, b" "),
        protested=either(accounts.is_protested, b"Y", b"N"),
        certified_date=either(draw.chance("certified", 0.93), b"08/15/%d" % county.year, b""),
        rev_dt=dates(rows, "review", day(1995) + accounts.valued.whole("reviewed", 0, 11_000), ~draw.chance("never reviewed", 0.06)),
        rev_by=digits(draw.whole("by", 99, 2_000), 5),
        new_own_dt=dates(rows, "owner", accounts.last_sale),
        lgl_1=spoilt(rows, _legal(draw, accounts.is_mineral), high=True, what="legal"),
        lgl_2=SUBDIVISIONS.taken(0, zone % len(SUBDIVISIONS)),
        lgl_3=either(draw.chance("lgl 3", 0.2), joined(b"(", SUBDIVISIONS.taken(0, zone % len(SUBDIVISIONS)), b")"), b""),
        lgl_4=either(draw.chance("lgl 4", 0.03), b"SSBB", b""),
        jurs=accounts.shared.sets.taken(0, accounts.set_place),
    )
    return rows


def _legal(draw: Draw, is_mineral: Mask) -> pa.Array:
    lot, block = digits(draw.whole("lot", 1, 90)), digits(draw.whole("block", 1, 60))
    text = either(draw.chance("lot", 0.84), joined(b"LT ", lot, b" BLK ", block), joined(b"TR ", lot, b" ABST ", block, b" (.50 U/D INT)"))
    return either(is_mineral, joined(b"LEASE ", lot, b" GU ", block), text)


_AREAS, _SCHOOLS = Pool(codes.MARKET_AREAS), Pool(codes.SCHOOLS)


def _put_codes(rows: Rows, accounts: Accounts) -> None:
    draw, zone, near = accounts.draw, accounts.zone, accounts.shared.neighborhoods
    areas = _AREAS
    area = zone // 4 % len(areas)
    other = np.where(zone % 5, area, (area + 1) % len(areas))
    school = accounts.shared.set_places[accounts.set_place, 0]
    rows.put(
        state_class=codes.STATE_CLASS.taken(0, accounts.state_class),
        school_dist=_SCHOOLS.taken(0, school),
        map_facet=either(~draw.chance("no facet", 0.1), joined(digits(4_000 + zone % 3_000), draw.of_pool("facet", FACETS))),
        key_map=either(~draw.chance("no key map", 0.08), joined(digits(200 + zone % 500), draw.of_pool("key", KEYS))),
        Neighborhood_Code=near.taken(0, zone),
        Neighborhood_Grp=near.taken(1, zone),
        Market_Area_1=areas.taken(0, area),
        Market_Area_1_Dscr=areas.taken(1, area),
        Market_Area_2=areas.taken(0, other),
        Market_Area_2_Dscr=areas.taken(1, other),
        econ_area=digits(zone % 9 + 1),
        econ_bld_class=either(accounts.bld_val > 0, draw.of_pool("econ", CLASSES), b""),
        center_code=draw.of_pool("center", CENTERS),
        yr_impr=either(accounts.bld_val > 0, digits(accounts.built)),
        yr_annexed=either(draw.chance("annexed", 0.1), digits(draw.whole("annexed", 1950, 2020))),
        splt_dt=b"",
        dsc_cd=b"",
        nxt_bld=digits(np.bincount(accounts.buildings.parts.owner, minlength=len(accounts)) + 1),
        Cap_acct=either(accounts.is_pending, b"Pending", either(accounts.is_capped, b"Y", b"N")),
        shared_cad=b"N",
    )


def _put_amounts(rows: Rows, accounts: Accounts) -> None:
    """Areas and values; nothing in the values of accounts that are pending."""
    count, is_there = len(accounts), ~accounts.is_pending
    land, buildings = accounts.land, (accounts.buildings, accounts.other_buildings)
    area = land.parts.sums(land.units, count)
    is_huge = rows.by_chance("huge_area")
    rows.amount("bld_ar", sum(made.parts.sums(made.area, count) for made in buildings))
    rows.amount("land_ar", np.where(is_huge, 1_999_999_000 + area % 1_000, area))
    rows.amount("acreage", area * 10_000 // 43_560, scale=4)
    prior = accounts.draw.whole("prior", 88, 106)
    is_new = accounts.built >= accounts.county.year - 1
    market = accounts.tot_mkt_val
    for name, amounts in {
        "land_val": accounts.land_val, "bld_val": accounts.bld_val, "x_features_val": accounts.x_features_val, "ag_val": accounts.ag_val,
        "assessed_val": market, "tot_appr_val": accounts.tot_appr_val, "tot_mkt_val": market,
        "prior_land_val": accounts.land_val * prior // 100, "prior_bld_val": accounts.bld_val * prior // 100,
        "prior_x_features_val": accounts.x_features_val * prior // 100, "prior_ag_val": accounts.ag_val * prior // 100,
        "prior_tot_appr_val": accounts.tot_appr_val * prior // 100, "prior_tot_mkt_val": market * prior // 100,
        "new_construction_val": np.where(is_new, accounts.bld_val, 0), "tot_rcn_val": accounts.bld_val * 5 // 4,
    }.items():  # fmt: skip
        rows.amount(name, amounts, is_there=is_there)


def owners(accounts: Accounts, member: Member) -> Rows:
    """One row an owner: one of ten accounts has two."""
    parts = accounts.parts("owner", 1 + accounts.draw.chance("owner 2", 0.09) + accounts.draw.chance("owner 3", 0.01))
    rows = Rows(member, parts.owner, parts.draw, accounts.county)
    owned = accounts.owned.children("owner", parts.owner, parts.slot)
    is_person = ~accounts.is_exempt[parts.owner] & owned.chance("person", 0.76)
    shared = np.bincount(parts.owner, minlength=len(accounts))[parts.owner]
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        ln_num=digits(parts.slot + 1),
        name=spoilt(rows, either(is_person, person(owned), owned.of_pool("company", COMPANIES)), high=False),
        aka=either(owned.chance("aka", 0.02), joined(b"DBA ", owned.of_pool("aka", LAST_NAMES))),
        pct_own=_PERCENTS.taken(0, shared - 1),
    )
    return rows


_PERCENTS = words_pool("1.0000|0.5000|0.3333")


def deeds(accounts: Accounts, member: Member) -> Rows:
    """What was sold: one for each sale since the first release, and those of before."""
    before = np.where(accounts.is_mineral, 0, _DEEDS_BEFORE[accounts.draw.whole("deeds", 0, len(_DEEDS_BEFORE))])
    parts = accounts.parts("deed", before + accounts.population.sales)
    rows = Rows(member, parts.owner, parts.draw, accounts.county)
    sold = _bought(parts, before, accounts.county.year)
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        dos=dates(rows, "sale", sold),
        clerk_yr=digits(years(sold)),
        clerk_id=joined(parts.draw.of_pool("book", DEED_BOOKS), digits(parts.draw.whole("clerk", 10_000, 700_000))),
        deed_id=digits(1 + parts.slot),
    )
    return rows


def _bought(parts: Parts, before: Numbers, year: int) -> Numbers:
    """The day of each sale: those since the first release in its year."""
    is_new = parts.slot >= before[parts.owner]
    return np.where(is_new, day(year) + parts.draw.whole("sold now", 0, 200), parts.draw.whole("sold", day(1988), day(year)))


#: Deeds of an account from before; nothing counts them, so as many as the sum of all members allows: 0.5 on average.
_DEEDS_BEFORE = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])


def permits(accounts: Accounts, member: Member) -> Rows:
    """Building permits: of five accounts one has some."""
    counts = ~accounts.is_mineral * (accounts.draw.chance("permit", 0.15) + 2 * accounts.draw.chance("permits", 0.03))
    parts = accounts.parts("permit", counts)
    draw, owner = parts.draw, pa.array(parts.owner)
    rows = Rows(member, parts.owner, draw, accounts.county)
    issued, situs, kind = draw.whole("issued", day(2012), day(accounts.county.year)), _situs(accounts), draw.places("permit", codes.PERMITS)
    rows.put(
        acct=accounts.acct.take(owner),
        id=digits(100 + parts.slot),
        agency_id=draw.of_pool("agency", AGENCIES),
        status=draw.of_pool("status", codes.PERMIT_STATUS),
        dscr=spoilt(rows, draw.of_pool("note", PERMIT_NOTES), high=False),
        dor_cd=codes.STATE_CLASS.taken(0, accounts.state_class[parts.owner]),
        permit_type=codes.PERMITS.taken(0, kind),
        permit_tp_descr=codes.PERMITS.taken(1, kind),
        property_tp=b"RP",
        issue_date=dates(rows, "issue", issued),
        yr=digits(years(issued)),
        site_num=situs["str_num"].array().take(owner),
        site_pfx=b" ",
        site_str=situs["str"].array().take(owner),
        site_tp=situs["str_sfx"].array().take(owner),
        site_sfx=b" ",
        site_apt=either(draw.chance("apt", 0.05), digits(draw.whole("apt", 1, 999))),
    )
    return rows


def parcel_tieback(accounts: Accounts, member: Member) -> Rows:
    """Accounts that belong to others: neighbors of the block."""
    parts = accounts.parts("tieback", 1 * accounts.draw.chance("tieback", 0.03))
    draw = parts.draw
    rows, kind = Rows(member, parts.owner, draw, accounts.county), draw.places("kind", codes.RELATIONSHIPS)
    # The parcel of the next number, which is there in every release in which it has not vanished.
    near = Accounts(accounts.county, _next_to(accounts, parts))
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        tp=codes.RELATIONSHIPS.taken(0, kind),
        dscr=codes.RELATIONSHIPS.taken(1, kind),
        related_acct=near.acct,
        pct=draw.of_pool("share", SHARES),
    )
    return rows


def _next_to(accounts: Accounts, parts: Parts) -> Population:
    place = (accounts.place[parts.owner] + 1) % accounts.county.accounts
    return untouched("account", place * STRIDES["account"])


def real_mnrl(accounts: Accounts, member: Member) -> Rows:
    """Interests in minerals, in the manner of the 7,262 of 2025."""
    owner = np.flatnonzero(accounts.is_mineral)
    draw, minerals = accounts.draw.only(owner), accounts.shared.minerals
    rows, kind = Rows(member, owner, draw, accounts.county), draw.places("mineral", minerals)
    rows.put(acct=accounts.acct.take(pa.array(owner)), dor_cd=b"G1")
    for place, name in enumerate(("Rail_leasenum", "Type_Interest", "Interest_Percent")):
        rows.put(**{name: minerals.taken(place, kind)})
    return rows


def ownership_history(accounts: Accounts, member: Member) -> Rows:
    """Who owned it since when: a row a sale since the first release, and some of before for three of ten accounts."""
    before = ~accounts.is_mineral * (1 * accounts.draw.chance("history", 0.25) + accounts.draw.chance("history 2", 0.05))
    parts = accounts.parts("history", before + accounts.population.sales)
    rows = Rows(member, parts.owner, parts.draw, accounts.county)
    situs = array(_situs(accounts)["site_addr_1"], len(accounts)).take(pa.array(parts.owner))
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        purchase_date=dates(rows, "bought", _bought(parts, before, accounts.county.year)),
        name=spoilt(
            rows, either(parts.draw.chance("person", 0.8), person(parts.draw), parts.draw.of_pool("company", COMPANIES)), high=False
        ),
        site_address=pc.binary_join_element_wise(situs, CITIES.taken(0, parts.draw.places("city", CITIES)).array(), b" "),
    )
    return rows
