"""The tables of land and of extra features upon it: the rest of Real_building_land.zip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.cells import array, decimals, digits, either, joined
from whole_county.codebook import Member
from whole_county.draws import Draw, Taken, words_pool
from whole_county.property_parts import Features, Land
from whole_county.rows import Rows
from whole_county.words import spoilt


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
        inf_cd=either(inf > 0, codes.INFLUENCE.taken(0, inf)),
        inf_dscr=either(inf > 0, codes.INFLUENCE.taken(1, inf)),
        inf_adj=b"1.00000",
        tp=b"AC" if made.is_farm else b"SF",
        uts=decimals(made.units, 4) if made.is_farm else joined(digits(made.units), b".0000"),
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


def _land_use(accounts: Accounts, made: Land) -> tuple[pa.Array, pa.Array]:
    """Code and description of what each line is used for."""
    draw, is_home = made.parts.draw, accounts.is_home[made.parts.owner]
    if made.is_farm:
        place = draw.places("use", codes.AG_LAND)
        return codes.AG_LAND.taken(0, place).array(), codes.AG_LAND.taken(1, place).array()
    home, other = draw.places("use", codes.RES_LAND), draw.places("use", codes.OTHER_LAND)
    use, text = (either(is_home, codes.RES_LAND.taken(column, home), codes.OTHER_LAND.taken(column, other)) for column in (0, 1))
    return use, text


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
