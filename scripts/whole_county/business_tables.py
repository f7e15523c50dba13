"""The tables of personal property: PP_files.zip. Its accounts are businesses of their own, with seven digits."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.cells import day, decimals, digits, either, joined
from whole_county.codebook import Member
from whole_county.county import County
from whole_county.draws import Draw, Mask, Numbers, Taken, words_pool
from whole_county.population import Population
from whole_county.property_parts import slots
from whole_county.rows import Rows
from whole_county.tax_tables import NONE, Pairs, business_exemption, pairs, put_pair
from whole_county.words import CITIES, LAST_NAMES, STREETS, SUFFIXES, dates, person, spoilt, zip_codes

TRADES = words_pool(
    "CAFE|NAILS|AUTO REPAIR|DENTAL|TACOS|LOGISTICS|MARKET|LAW OFFICE|PLUMBING|TRUCKING|FLOORING|SALON|CONSULTING|MACHINE SHOP"
)
KEYS = words_pool("410A|450F|493M|530Q|571T|608Z|333C")
STATUSES = words_pool("Noticed*80|All Values Pending*5|Certified*15")
RETURNS = words_pool("Rendition Received*70|No Rendition*25|Extension Granted*5")
AGENTS = words_pool("*80|000463|005082|000218")
_FIRST = 17


class Businesses:
    """Some businesses of a county, in one state of each."""

    def __init__(self, county: County, population: Population) -> None:
        self.county, self.population, self.shared = county, population, county.shared
        self.draw = Draw.of(county.seed, "business", population.serial)
        self.valued, self.owned = self.draw.at(population.reviews), self.draw.at(population.sales + 1_000)

    def __len__(self) -> int:
        """How many."""
        return len(self.population.serial)

    @cached_property
    def acct(self) -> pa.Array:
        """Account numbers: 7 digits."""
        return digits(self.population.serial + _FIRST, 7)

    @cached_property
    def zone(self) -> Numbers:
        """The place of its neighborhood."""
        return self.draw.whole("zone", 0, len(self.shared.neighborhoods))

    @cached_property
    def set_place(self) -> Numbers:
        """The place of its set of taxing districts."""
        return self.zone * 7 % len(self.shared.sets)

    @cached_property
    def schedule(self) -> Numbers:
        """The place of its schedule."""
        return self.draw.places("schedule", codes.SCHEDULE).astype(np.int64)

    @cached_property
    def is_pending(self) -> Mask:
        """Whether its value is not told yet."""
        return self.draw.chance("pending", self.county.quirk("pending"))

    @cached_property
    def details(self) -> tuple[Numbers, Numbers, Draw, Numbers]:
        """Its departments: owner, slot, draw and assessed value of each."""
        owner, slot = slots(1 + self.draw.whole("departments", 0, 3))
        valued = self.valued.children("department", owner, slot)
        return owner, slot, self.draw.children("department", owner, slot), (500 + valued.units("value") ** 4 * 900_000).astype(np.int64)

    @cached_property
    def asd_val(self) -> Numbers:
        """Assessed value: that of its departments."""
        owner, _, _, amounts = self.details
        return np.bincount(owner, amounts, len(self)).astype(np.int64)

    @cached_property
    def exemption(self) -> Numbers:
        """Its exemption."""
        return business_exemption(self.draw)


def t_business_acct(made: Businesses, member: Member) -> Rows:
    """One row a business."""
    draw, owned, county = made.draw, made.owned, made.county
    rows = Rows(member, np.arange(len(made)), draw, county)
    trade, sic, is_there = draw.of_pool("trade", TRADES), draw.places("sic", codes.SICS), ~made.is_pending
    street = joined(digits(draw.whole("number", 1, 20_000)), draw.of_pool("street", STREETS), draw.of_pool("suffix", SUFFIXES), by=b" ")
    zips, state_class = zip_codes(made.zone), np.array(_CLASS_OF_SCHEDULE)[made.schedule]
    city, name = draw.of_pool("city", CITIES), person(owned)
    is_noticed = is_there & draw.chance("noticed", 0.8)
    rows.put(
        acct=made.acct,
        tax_year=either(rows.by_chance("no_year"), b"NONE", b"%d" % county.year),
        name=spoilt(rows, either(owned.chance("withheld", 0.05), b"CURRENT OWNER", name), high=False),
        bus_name=joined(owned.of_pool("last", LAST_NAMES), trade, by=b" "),
        site_addr=street,
        site_city=city,
        site_state=b"TX",
        site_zip=zips,
        mailto=name,
        mail_addr_1=street,
        mail_addr_2=b" ",
        mail_city=city,
        mail_state=b"TX",
        mail_zip=zips,
        phone=either(draw.chance("phone", 0.8), joined(b"713-555-", digits(draw.whole("phone", 1_000, 10_000)))),
        dscr=trade,
        dscr1=b" ",
        dscr2=b" ",
        dscr3=b" ",
        sched_cd=codes.SCHEDULE.taken(0, made.schedule),
        sched_code_dscr=codes.SCHEDULE.taken(1, made.schedule),
        class_code=codes.SCHEDULE.taken(2, made.schedule),
        class_code_dscr=Taken(_CLASS_TEXTS, state_class),
        sic=codes.SICS.taken(0, sic),
        sic_dscr=codes.SICS.taken(1, sic),
        sqft=digits(draw.whole("feet", 4, 400) * 50),
        cntr_cd=digits(1 + made.zone % 40),
        shared_cad=b"N",
        key_map=draw.of_pool("key map", KEYS),
        return_cd=draw.of_pool("return", RETURNS),
        value_status=draw.of_pool("status", STATUSES),
        noticed=either(is_noticed, b"Y", b"N"),
        noticed_dt=dates(rows, "notice", day(county.year, 5, 20) + draw.whole("notice", 0, 40), is_noticed),
        protested=either(draw.chance("protest", 0.07), b"Y", b"N"),
        certified_date=either(draw.chance("certified", 0.9), b"08/15/%d" % county.year, b""),
        agent_id=draw.of_pool("agent", AGENTS),
        jurs=made.shared.sets.taken(0, made.set_place),
    )
    rows.amount("asd_val", made.asd_val, is_there=is_there)
    rows.amount("prior_asd_val", made.asd_val * draw.whole("prior", 80, 110) // 100, is_there=is_there)
    return rows


_CLASS_NAMES = dict(codes.PP_CLASSES)
_CLASS_OF_SCHEDULE = [list(_CLASS_NAMES).index(record[2]) for record in codes.SCHEDULE.records]
_CLASS_TEXTS = pa.array([text.encode() for text in _CLASS_NAMES.values()], pa.binary())


def t_business_detail(made: Businesses, member: Member) -> Rows:
    """The departments of each business."""
    owner, slot, draw, amounts = made.details
    rows, kind = Rows(member, owner, draw, made.county), draw.places("department", codes.DEPARTMENTS)
    rows.put(
        acct=made.acct.take(pa.array(owner)),
        ln_num=digits(slot + 1),
        dept_grp=codes.DEPARTMENTS.taken(0, kind),
        dscr=codes.DEPARTMENTS.taken(1, kind),
    )
    rows.amount("asd_val", amounts, is_there=~made.is_pending[owner])
    return rows


def t_jur_value(made: Businesses, member: Member) -> Rows:
    """What is appraised and taxed of each business in each of its districts."""
    listed = pairs(made.shared, made.set_place, made.draw, np.ones(len(made), dtype=bool))
    rows = Rows(member, listed.owner, listed.draw, made.county)
    appraised, is_there = made.asd_val[listed.owner], ~made.is_pending[listed.owner]
    rows.put(acct=made.acct.take(pa.array(listed.owner)))
    put_pair(rows, made.shared, listed)
    rows.amount("appraised_val", appraised, is_there=is_there)
    rows.amount("taxable_val", np.where(made.exemption[listed.owner] == NONE, appraised, appraised // 2), is_there=is_there)
    return rows


def t_jur_exempt(made: Businesses, member: Member) -> Rows:
    """What the exemption of a business takes off in each of its districts."""
    listed: Pairs = pairs(made.shared, made.set_place, made.draw, made.exemption != NONE)
    rows, code = Rows(member, listed.owner, listed.draw, made.county), made.exemption[listed.owner]
    rows.put(
        acct=made.acct.take(pa.array(listed.owner)),
        tax_dist=made.shared.districts.taken(0, listed.district),
        tax_dist_name=made.shared.districts.taken(1, listed.district),
        exempt_cat=codes.EXEMPTION.taken(0, code),
        exempt_dscr=codes.EXEMPTION.taken(1, code),
        pct_exempt=decimals(listed.draw.whole("percent", 10, 101) * 100, 2),
    )
    is_pending = rows.note("pending", made.is_pending[listed.owner])
    rows.amount("exempt_val", made.asd_val[listed.owner] // 2, is_there=~is_pending, missing=b"Pending")
    return rows


def t_pp_l(made: Businesses, member: Member) -> Rows:
    """Lines that carry electricity."""
    owner = np.flatnonzero(made.schedule == codes.SCHEDULE.places("L")[0])
    draw = made.draw.only(owner)
    rows = Rows(member, owner, draw, made.county)
    rows.put(
        acct=made.acct.take(pa.array(owner)),
        sched_cd=b"L",
        type_structure=draw.of_pool("structure", _STRUCTURES),
        volt_amp=draw.of_pool("volts", _VOLTS),
        el_mileage=decimals(draw.whole("miles", 10, 9_000), 2),
        Num_of_circuits=digits(draw.whole("circuits", 1, 5)),
        contract_acct=b" ",
    )
    return rows


_STRUCTURES, _VOLTS = words_pool("STEEL TOWER|WOOD POLE*3|CONCRETE POLE"), words_pool("69 KV|138 KV*3|345 KV")


def t_pp_e(made: Businesses, member: Member) -> Rows:
    """Interests in minerals, which were personal property up to 2023."""
    owner = np.flatnonzero(made.draw.chance("mineral", 0.035))
    draw, minerals = made.draw.only(owner), made.shared.minerals
    rows, kind = Rows(member, owner, draw, made.county), draw.places("interest", minerals)
    rows.put(acct=made.acct.take(pa.array(owner)), sched_cd=b"E")
    for place, name in enumerate(("Div_ord", "Type_Interest", "Interest_Percent")):
        rows.put(**{name: minerals.taken(place, kind)})
    return rows
