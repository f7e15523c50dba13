"""The words that tables share: names of persons, companies and streets, dates, and texts with the oddities that real ones have."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from whole_county.cells import Cell, day, days, either, joined
from whole_county.draws import Draw, Mask, Numbers, Pool, words_pool
from whole_county.rows import Rows

LAST_NAMES = words_pool(
    "SMITH*9|GARCIA*9|NGUYEN*6|JOHNSON*7|MARTINEZ*8|BROWN*5|TRAN*4|HERNANDEZ*7|DAVIS*4|LOPEZ*5|PATEL*3|WILLIAMS*5|CHEN*3|RODRIGUEZ*7|LE*2|"
    "KHAN*2|O'BRIEN|VAN DE BERG|LEE*3|GONZALEZ*6|PEREZ*4|SANCHEZ*4|RAMIREZ*4|TAYLOR*3|"
    "MOORE*3|WASHINGTON*2|OKAFOR*2|SCHNEIDER*2|DE LA CRUZ*2"
)
FIRST_NAMES = words_pool(
    "JAMES|MARIA|ROBERT|LINDA|JOSE|PATRICIA|DAVID|BARBARA|MINH|SUSAN|AHMED|KAREN|LUIS|NANCY|WEI|BETTY|OLGA|PAUL|ANITA|CARLOS|ELENA|MICHAEL|"
    "JENNIFER|GUADALUPE|THOMAS|CHRISTOPHER|ELIZABETH|FATIMA|PRIYA|SAMUEL"
)
COMPANIES = words_pool(
    "CITY OF HOUSTON*5|COUNTY OF HARRIS*3|CURRENT OWNER*30|HARRIS COUNTY FLOOD CONTROL*3|"
    "STATE OF TEXAS*2|BAYOU HOLDINGS LLC*8|GULF LAND TRUST*5|"
    "CROWN EQUITY GROUP LP*6|SPRING CREEK HOMEOWNERS ASSN*4|"
    "AMERICAN HOMES 4 LEASE LLC*12|CYPRESS VENTURES INC*6|LONE STAR RENTALS SERIES 7*7"
)
#: A quote without a partner, and letters beyond ASCII: text like any other.
QUOTED = words_pool('JOHN "BUD" SMITH|THE "BARN|12" PIPE EASEMENT|LOT 5 "OLD SURVEY|GARCIA MARIA "MIMI')
HIGH = words_pool(
    "MU\u00d1OZ PE\u00d1A|CAF\u00c9 DU MONDE|JOE\u2019S TIRES|\u00bd ACRE TRUST|NU\u00d1EZ \u2013 IBA\u00d1EZ|\u20ac EXCHANGE"
)
STREETS = words_pool(
    "COMMERCE|MAIN|FRANKLIN|FANNIN|TRAVIS|WESTHEIMER|LA BRANCH|MEMORIAL|BISSONNET|OAK HOLLOW|BRANCH BEND|CYPRESS CREEK|KIRBY|YALE|HEIGHTS|"
    "SHEPHERD|BELLAIRE|RICHMOND|HARRISBURG|NAVIGATION|LYONS|QUITMAN|ELLA|TELEPHONE|"
    "SPENCER|FAIRMONT|RED BLUFF|LOUETTA|KUYKENDAHL|GLADE ESTATES|"
    "FOREST TRAIL|MEADOW LARK|SILVER MAPLE|AUTUMN RIDGE|PEBBLE BROOK|WILLOW BEND"
)
SUFFIXES = words_pool("ST*30|DR*28|LN*18|RD*8|CT*10|CIR*3|BLVD*4|AVE*5|WAY*4|PL*2")
CITIES = words_pool("HOUSTON*62|BELLAIRE|CYPRESS*5|KATY*6|SPRING*7|HUMBLE*4|PASADENA*6|BAYTOWN*4|TOMBALL*2|SEABROOK|LA PORTE*2|WEBSTER")
AWAY = Pool(
    [("DALLAS", "TX"), ("AUSTIN", "TX"), ("OMAHA", "NE"), ("DENVER", "CO"), ("COLUMBUS", "OH"), ("LOS ANGELES", "CA"), ("MIAMI", "FL")]
)


def person(draw: Draw) -> pa.Array:
    """Names of persons, last name first."""
    couple = joined(
        draw.of_pool("last", LAST_NAMES), draw.of_pool("first", FIRST_NAMES), b"&", draw.of_pool("second", FIRST_NAMES), by=b" "
    )
    single = joined(draw.of_pool("last", LAST_NAMES), draw.of_pool("first", FIRST_NAMES), by=b" ")
    return either(draw.chance("couple", 0.4), couple, single)


def spoilt(rows: Rows, texts: Cell, *, high: bool, what: str = "") -> pa.Array:
    """Texts, with a stray quote in some, and letters beyond ASCII in some where the table has any."""
    made = either(rows.by_chance("quote", what), rows.draw.of_pool("quoted", QUOTED), texts)
    return either(rows.by_chance("high_byte", what), rows.draw.of_pool("higher", HIGH), made) if high else made


def dates(rows: Rows, name: str, ordinals: Numbers, is_there: Mask | None = None, missing: bytes = b"") -> pa.Array:
    """Dates; some are the day that stands for none."""
    is_none = rows.by_chance("no_date", name, is_there)
    made = days(np.where(is_none, day(1899, 12, 30), ordinals))
    return made.array() if is_there is None else either(is_there, made, missing)


def years(ordinals: Numbers) -> Numbers:
    """The year of each day."""
    return ordinals.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def zip_codes(places: Numbers) -> pa.Array:
    """ZIP codes of the county, by neighborhood."""
    return _ZIPS.taken(0, places * 13 % len(_ZIPS)).array()


_ZIPS = Pool([(f"77{number:03}",) for number in range(2, 600, 3)])
