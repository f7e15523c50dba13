"""The tables of buildings, one line a building: building_res and building_other of Real_building_land.zip."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.cells import day, decimals, digits, either
from whole_county.codebook import Member
from whole_county.draws import Pool, words_pool
from whole_county.property_parts import Buildings
from whole_county.rows import Rows
from whole_county.words import dates, spoilt

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
    _building(rows, made, codes.RES_TYPE, codes.RES_STYLE, codes.RES_CLASS, high=True)
    rows.amount("dpr_val", made.dpr_val)
    rows.amount("rcnld", made.dpr_val)
    rows.put(
        bld_adj=decimals(made.parts.draw.whole("adj", 80, 160), 2, 6),
        size_index=decimals(made.parts.draw.whole("index", 8_000, 12_500), 4, 6),
        lump_sum_adj=either(made.parts.draw.chance("lump", 0.05), digits(made.parts.draw.whole("lump", 500, 20_000)), b"0"),
    )
    return rows


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
    rows.amount("tot_inc", np.where(is_rented, made.area * made.parts.valued.whole("income", 6, 30), 0))
    return rows
