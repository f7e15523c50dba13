"""The tables of protests and hearings: Hearing_files.zip. Their lines are in no order of accounts within a block."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from whole_county import codes
from whole_county.accounts import Accounts
from whole_county.business_tables import Businesses
from whole_county.cells import day, days, either
from whole_county.codebook import Member
from whole_county.draws import Draw, Mask, Numbers, words_pool
from whole_county.owner_tables import owner_names
from whole_county.property_parts import slots
from whole_county.rows import Rows
from whole_county.words import dates, person, spoilt

_KINDS = words_pool("I*60|F*40")


def _protests(made: Accounts | Businesses, member: Member, counts: Numbers) -> Rows:
    """Protests: one of twenty accounts has two, some of them alike; some have no day."""
    owner, slot = slots(counts)
    draw = made.draw.children("protest", owner, slot)
    order = np.argsort(draw.keys, kind="stable")
    owner, draw = owner[order], draw.only(order)
    rows, shared = Rows(member, owner, draw, made.county), made.shared
    first = np.array([int(record[0]) for record in shared.days.records])[draw.places("day", shared.days)]
    rows.put(
        acct=made.acct.take(pa.array(owner)),
        protested_by=draw.of_pool("agent", shared.agents),
        protested_dt=either(draw.chance("no day", 0.0002), b" ", days(day(made.county.year) + first)),
    )
    return rows


def arb_protest_real(accounts: Accounts, member: Member) -> Rows:
    """Protests of real property: 424,335 of 403,601 accounts in 2019."""
    return _protests(accounts, member, accounts.is_protested * (1 + accounts.draw.chance("protest 2", 0.051)))


def arb_protest_pp(made: Businesses, member: Member) -> Rows:
    """Protests of personal property: 14,550 in 2019."""
    return _protests(made, member, made.draw.chance("protest", 0.07) * (1 + made.draw.chance("protest 2", 0.009)))


def _heard(made: Accounts | Businesses, member: Member, counts: Numbers) -> tuple[Rows, Numbers, Draw]:
    owner, slot = slots(counts)
    draw, valued = (drawn.children("hearing", owner, slot) for drawn in (made.draw, made.valued))
    order = np.argsort(draw.keys, kind="stable")
    owner, draw, valued = owner[order], draw.only(order), valued.only(order)
    rows, year = Rows(member, owner, draw, made.county), made.county.year
    scheduled = day(year, 5, 20) + draw.whole("scheduled", 0, 90)
    is_held = draw.chance("held", 0.9)
    rows.put(
        acct=made.acct.take(pa.array(owner)),
        Tax_Year=b"%d" % year,
        Hearing_Type=draw.of_pool("kind", _KINDS),
        Scheduled_for_Date=days(scheduled),
        Actual_Hearing_Date=dates(rows, "hearing", scheduled + draw.whole("delay", 0, 20), is_held, b" "),
        Release_Date=dates(rows, "release", scheduled + draw.whole("release", 20, 45), is_held, b" "),
        Letter_Type=draw.of_pool("letter", codes.CONCLUSIONS),
        Agent_Code=draw.of_pool("agent", made.shared.agents),
    )
    return rows, owner, valued


def _values(rows: Rows, valued: Draw, initial: Numbers, names: tuple[str, str], is_there: Mask) -> None:
    rows.amount(names[0], initial, is_there=is_there)
    rows.amount(names[1], initial * valued.whole("lowered", 82, 101) // 100, is_there=is_there)


def arb_hearings_real(accounts: Accounts, member: Member) -> Rows:
    """Hearings of those who protested and did not settle before."""
    rows, owner, valued = _heard(accounts, member, accounts.is_protested * 1 * accounts.draw.chance("hearing", 0.75))
    rows.put(
        Real_Personal_Property=b"R",
        State_Class_Code=codes.STATE_CLASS.taken(1, accounts.state_class[owner]),
        Owner_Name=spoilt(rows, owner_names(accounts, accounts.owned).take(pa.array(owner)), high=False),
    )
    is_there = ~accounts.is_pending[owner]
    _values(rows, valued, accounts.tot_appr_val[owner], ("Initial_Appraised_Value", "Final_Appraised_Value"), is_there)
    _values(rows, valued, accounts.tot_mkt_val[owner], ("Initial_Market_Value", "Final_Market_Value"), is_there)
    return rows


def arb_hearings_pp(made: Businesses, member: Member) -> Rows:
    """Hearings of personal property: 15,706 in 2019, 8 accounts twice."""
    rows, owner, valued = _heard(made, member, 1 * made.draw.chance("hearing", 0.077) + made.draw.chance("hearings", 0.00004))
    rows.put(
        Personal=b"P",
        State_Class_Code=codes.SCHEDULE.taken(2, made.schedule[owner]),
        Owner_Name=spoilt(rows, person(made.owned.only(owner)), high=False),
    )
    _values(rows, valued, made.asd_val[owner], ("Initial_Value", "Final_Value"), ~made.is_pending[owner])
    return rows
