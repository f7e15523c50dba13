"""The tables of what stands on the land, and of the land: Real_building_land.zip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts, Buildings, Features, Land, Parts, slots
from whole_county.cells import Cell, array, day, decimals, digits, either, joined
from whole_county.codebook import Member
from whole_county.county import LAST_TOTALS
from whole_county.draws import Draw, Mask, Numbers, Pool, Taken, words_pool
from whole_county.owner_tables import dates, spoilt
from whole_county.rows import Rows

NOTES = words_pool(
    "*5|8 INCH SLAB, REMODELED PER PERMIT, KITCHEN AND BATHS UPDATED BEFORE THE SALE*2|"
    "FIELD CHECK, OWNER REPORTS FOUNDATION WORK AND CRACKS IN BRICK ON "
    "THE NORTH SIDE, SEE PHOTOS*3|"
    "ADDED PER FIELD INSPECTION, CHANGED EFFECTIVE YEAR AND GRADE TO MATCH THE REST OF THE SECTION, WAS NOT ON THE ROLL BEFORE*4|"
    "AGENT PROVIDED PHOTOS, DEFERRED MAINTENANCE NOTED AT REAR OF HOUSE, CONDITION LOWERED "
    "TO FAIR FOR ONE YEAR, CHECK AGAIN AFTER REPAIRS*3|PER OWNER 2 "
    "BEDROOM*2|"
    "CARPORT ENCLOSED, ADDED TO LIVING AREA PER SKETCH, HEATED AND COOLED, NO PERMIT FOUND, CORRECTED FROM AERIAL PHOTOGRAPH OF JANUARY*3|"
    "GARAGE CONVERTED TO BEDROOM AND BATH, SEE SKETCH*2|"
    "FLOODED IN 2017, REPAIRED AND BACK TO AVERAGE CONDITION BY JANUARY 1, OWNER SENT RECEIPTS*3"
)
INCH_NOTES = words_pool('8" SLAB|OWNER CALLS IT "THE BARN|12" WALL|3/4" PLY, SEE "SKETCH"')
PROPERTY_NAMES = words_pool(
    "*40|WESTHEIMER PLAZA|NORTHLINE COMMONS|GULFGATE CENTER|BRAESWOOD VILLAGE APTS|KATY DISTRIBUTION CENTER|SPRING OFFICE PARK"
)
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


def _building(rows: Rows, made: Buildings, types: Pool, styles: Pool, classes: Pool, *, high: bool) -> None:
    """The columns that residential and other buildings share."""
    accounts, draw, parts = made.accounts, made.parts.draw, made.parts
    style, quality, erected = draw.places("style", styles), made.quality, made.erected
    is_known = erected > 0
    year = accounts.county.year
    effective = np.where(is_known, np.minimum(erected + draw.whole("eff", 0, 20), year), 0)
    remodeled = np.where(draw.chance("remodeled", 0.12) & is_known, np.minimum(erected + 22, year), 0)
    kind = draw.places("class", classes)
    note = either(rows.by_chance("quote"), draw.of_pool("inch", INCH_NOTES), draw.of_pool("note", NOTES))
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        property_use_cd=codes.STATE_CLASS.taken(0, accounts.state_class[parts.owner]),
        bld_num=digits(parts.slot + 1),
        impr_tp=draw.of_pool("type", types),
        impr_mdl_cd=styles.taken(0, style),
        structure=classes.taken(0, kind),
        structure_dscr=classes.taken(1, kind),
        accrued_depr_pct=decimals(made.worn, 2, 6),
        qa_cd=codes.QUALITY.taken(0, quality),
        dscr=codes.QUALITY.taken(1, quality),
        date_erected=either(is_known, digits(erected), b"0"),
        eff=digits(effective),
        yr_remodel=digits(remodeled),
        yr_roll=digits(np.where(is_known, erected + 1, 1988)),
        appr_by=digits(draw.whole("by", 99, 2_000), 5),
        appr_dt=dates(rows, "appraised", day(1998) + parts.valued.whole("appraised", 0, 10_000), ~draw.chance("no appraisal", 0.03)),
        notes=note,
    )
    if high:
        rows.put(notes=either(rows.by_chance("high_byte"), b"BATA\xd1O \x96 MU\xd1OZ \xbd BATH", note))
    area = made.area
    for name, share in (("im_sq_ft", 100), ("act_ar", 114), ("heat_ar", 97), ("gross_ar", 121), ("eff_ar", 99), ("base_ar", 100)):
        rows.amount(name, area * share // 100)
    rows.put(perimeter=digits(40 + np.sqrt(area * 18).astype(np.int64)), pct=either(draw.chance("whole", 0.985), b"1.0000", b"0.6500"))
    rows.amount("cama_replacement_cost", made.cost)


def building_res(accounts: Accounts, member: Member) -> Rows:
    """Residential buildings."""
    made = accounts.buildings
    rows = Rows(member, made.parts.owner, made.parts.draw, accounts.county)
    _building(rows, made, codes.RES_TYPE, codes.RES_STYLE, _RESIDENTIAL, high=True)
    rows.amount("dpr_val", made.dpr_val)
    rows.amount("rcnld", made.dpr_val)
    rows.put(
        bld_adj=decimals(made.parts.draw.whole("adj", 80, 160), 2, 6),
        size_index=decimals(made.parts.draw.whole("index", 8_000, 12_500), 4, 6),
        lump_sum_adj=either(made.parts.draw.chance("lump", 0.05), digits(made.parts.draw.whole("lump", 500, 20_000)), b"0"),
    )
    return rows


_RESIDENTIAL = Pool([("R", "Residential")])


def building_other(accounts: Accounts, member: Member) -> Rows:
    """All other buildings, with what they earn."""
    made = accounts.other_buildings
    draw = made.parts.draw
    rows = Rows(member, made.parts.owner, draw, accounts.county)
    _building(rows, made, codes.OTHER_TYPE, codes.OTHER_STYLE, codes.OTHER_CLASS, high=False)
    category = draw.places("category", codes.PGI)
    is_rented = draw.chance("rented", 0.35)
    for name, amounts in (("noticed_Depr_Val", made.dpr_val), ("Depr_Val", made.dpr_val), ("MS_replacement_cost", made.cost)):
        rows.amount(name, amounts)
    rows.put(
        category=codes.PGI.taken(0, category),
        pgi_dscr=codes.PGI.taken(1, category),
        prop_nm=spoilt(rows, draw.of_pool("name", PROPERTY_NAMES), high=False, what="name"),
        units=either(is_rented, digits(draw.whole("units", 1, 300)), b"0"),
        lease_rt=either(is_rented, decimals(draw.whole("rate", 600, 3_800), 2), b"0"),
        occ_rt=either(is_rented, decimals(draw.whole("occupied", 55, 101), 2, 4), b"0"),
    )
    rows.amount("nra", np.where(is_rented, made.area * 9 // 10, 0))
    rows.amount("tot_inc", np.where(is_rented, made.area * parts_rate(made), 0))
    return rows


def parts_rate(made: Buildings) -> Numbers:
    """Income a square foot and year, US dollars."""
    return made.parts.valued.whole("income", 6, 30)


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
        halves.append((parts, place, units))
    return _lines(accounts, member, halves, _put_fixtures)


def _put_fixtures(rows: Rows, accounts: Accounts, parts: Parts, place: Numbers, units: Numbers) -> None:
    rows.put(
        acct=accounts.acct.take(pa.array(parts.owner)),
        bld_num=digits(parts.slot + 1),
        type=FIXTURE_POOL.taken(0, place),
        type_dscr=FIXTURE_POOL.taken(1, place),
    )
    rows.amount("units", units, scale=2)


def _lines(
    accounts: Accounts,
    member: Member,
    halves: Sequence[tuple[Parts, Numbers, Numbers]],
    put: Callable[[Rows, Accounts, Parts, Numbers, Numbers], None],
) -> Rows:
    """Lines of residential and of other buildings together, by account."""
    owner = np.concatenate([parts.owner for parts, _, _ in halves])
    order = np.argsort(owner, kind="stable")
    parts = Parts(
        owner[order],
        np.concatenate([parts.slot for parts, _, _ in halves])[order],
        Draw(np.concatenate([parts.draw.keys for parts, _, _ in halves])[order]),
        Draw(np.concatenate([parts.valued.keys for parts, _, _ in halves])[order]),
    )
    first, second = (np.concatenate([half[place] for half in halves])[order] for place in (1, 2))
    rows = Rows(member, parts.owner, parts.draw, accounts.county)
    put(rows, accounts, parts, first, second)
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


def _feature_rows(accounts: Accounts, member: Member, made: Features) -> tuple[Rows, Callable[[int], Taken]]:
    rows = Rows(member, made.parts.owner, made.parts.draw, accounts.county)

    def taken(column: int) -> Taken:
        return made.pool.taken(column, made.feature)

    rows.put(acct=accounts.acct.take(pa.array(made.parts.owner)), cd=taken(0), bld_num=digits(made.bld_num))
    return rows, taken


def extra_features_detail1(accounts: Accounts, member: Member) -> Rows:
    """Extra features of residential property, each with its size and value."""
    return _details(accounts, member, accounts.features)


def extra_features_detail2(accounts: Accounts, member: Member) -> Rows:
    """Extra features of all other property."""
    return _details(accounts, member, accounts.other_features)


def _details(accounts: Accounts, member: Member, made: Features) -> Rows:
    rows, taken = _feature_rows(accounts, member, made)
    draw = made.parts.draw
    built = accounts.built[made.parts.owner]
    rows.put(
        dscr=taken(2),
        grade=draw.of_pool("grade", _GRADES),
        cond_cd=draw.of_pool("cond", _CONDITIONS),
        length=digits(made.length),
        width=digits(made.width),
        unit_price=decimals(made.unit_price, 2, 4),
        adj_unit_price=decimals(made.unit_price, 2, 6),
        pct_comp=b"1.000",
        act_yr=digits(built),
        eff_yr=digits(np.minimum(built + draw.whole("eff", 0, 12), accounts.county.year)),
        roll_yr=digits(built + 1),
        DT=draw.of_pool("table", _TABLES),
        pct_cond=decimals(made.condition, 2, 5),
        note=spoilt(rows, draw.of_pool("note", _FEATURE_NOTES), high=False),
    )
    rows.amount("units", made.units, scale=2)
    rows.amount("dpr_val", made.asd_val)
    rows.amount("asd_val", made.asd_val)
    return rows


_GRADES, _CONDITIONS, _TABLES = words_pool("3|4*5|5*3|6"), words_pool("A*6|G*2|F|P"), words_pool("20A|25A*3|30A*2|40G")
_FEATURE_NOTES = words_pool(
    "*2|SALV GAR APMT.|SHARED WITH ADJACENT ACCT, SEE MAIN PARCEL*4|"
    "ADDED PER AERIAL PHOTOGRAPH OF JANUARY 2022*6|NOT IN USE, OWNER STATES IT WILL BE REMOVED*3|"
    "OWNER BUILT, NO PERMIT, SIZE ESTIMATED FROM STREET*4"
)


def extra_features(accounts: Accounts, member: Member) -> Rows:
    """All extra features once more, without values."""
    sides = [_features_of(accounts, member, made) for made in (accounts.features, accounts.other_features)]
    owner = np.concatenate([rows.owner for rows in sides])
    order = np.argsort(owner, kind="stable")
    merged = Rows(member, owner[order], Draw(np.concatenate([rows.draw.keys for rows in sides])[order]), accounts.county)
    for name in member.columns:
        both = pa.concat_arrays([array(rows.cells[name], len(rows)) for rows in sides])
        merged.cells[name] = both.take(pa.array(order))
    for name in sides[0].amounts:
        (first, is_first, scale), (second, is_second, _) = (rows.amounts[name] for rows in sides)
        merged.amounts[name] = (np.concatenate((first, second))[order], np.concatenate((is_first, is_second))[order], scale)
    for name in sides[0].quirks:
        merged.quirks[name] = np.concatenate([rows.quirks[name] for rows in sides])[order]
    return merged


def _features_of(accounts: Accounts, member: Member, made: Features) -> Rows:
    rows, taken = _feature_rows(accounts, member, made)
    counts = np.bincount(made.parts.owner, minlength=len(accounts))[made.parts.owner]
    rows.put(
        count=digits(counts),
        grade=made.parts.draw.of_pool("grade", _GRADES),
        s_dscr=taken(1),
        l_dscr=taken(2),
        cat=taken(3),
        dscr=taken(4),
        note=spoilt(rows, made.parts.draw.of_pool("note", _FEATURE_NOTES), high=False),
    )
    rows.amount("uts", made.units, scale=2)
    return rows


def land(accounts: Accounts, member: Member) -> Rows:
    """Land by line."""
    return _land(accounts, member, accounts.land)


def land_ag(accounts: Accounts, member: Member) -> Rows:
    """Agricultural land by line."""
    return _land(accounts, member, accounts.farm)


def _land(accounts: Accounts, member: Member, made: Land) -> Rows:
    parts, draw = made.parts, made.parts.draw
    rows = Rows(member, parts.owner, draw, accounts.county)
    inf = draw.places("influence", codes.INFLUENCE)
    use, texts = _land_use(accounts, made)
    rows.put(acct=accounts.acct.take(pa.array(parts.owner)), num=digits(parts.slot + 1), use_cd=use, use_dscr=texts)
    rows.put(
        inf_cd=_blank(codes.INFLUENCE.taken(0, inf), inf > 0),
        inf_dscr=_blank(codes.INFLUENCE.taken(1, inf), inf > 0),
        inf_adj=b"1.00000",
        tp=b"AC" if made.is_farm else b"SF",
        uts=decimals(made.units, 4 if made.is_farm else 0) if made.is_farm else joined(digits(made.units), b".0000"),
        sz_fact=b"1.00000",
        inf_fact=b"1.00000",
        cond=b"1.00000",
        ovr_dscr=either(draw.chance("override", 0.02), b"Shape or Size", b"No Override of the Neighborhood Land Table"),
        tot_adj=b"1.000000",
        unit_prc=decimals(made.unit_price, 2, 6),
        adj_unit_prc=decimals(made.unit_price, 2, 6),
    )
    rows.amount("val", made.val)
    rows.amount("ovr_val", made.val, is_there=draw.chance("override", 0.02))
    return rows


def _blank(cell: Cell, is_there: Mask) -> pa.Array:
    """One blank where there is no value."""
    return either(is_there, cell)


def _land_use(accounts: Accounts, made: Land) -> tuple[pa.Array, pa.Array]:
    draw, is_home = made.parts.draw, accounts.is_home[made.parts.owner]
    if made.is_farm:
        place = draw.places("use", codes.AG_LAND)
        return codes.AG_LAND.taken(0, place).array(), codes.AG_LAND.taken(1, place).array()
    home, other = draw.places("use", codes.RES_LAND), draw.places("use", codes.OTHER_LAND)
    made_of = [either(is_home, codes.RES_LAND.taken(column, home), codes.OTHER_LAND.taken(column, other)) for column in (0, 1)]
    return made_of[0], made_of[1]
