"""The shape of a table's rows as a county publishes them: columns with their padding, and values that look like the real ones.

In goes a random generator and a number of rows; out come columns of text as a person would read them: trimmed, nothing where
there is no value, within their widths. Values are drawn column by column (NumPy draws, Arrow writes the text), so that a
million rows take seconds. Amounts add up (land + building + extra features = market value), addresses agree with their parts. The
columns' names, order and meaning are those of the schema file; what is here is how the publisher writes them: HCAD pads its
``char`` columns with blanks, writes an empty ``varchar`` as one blank and NULL as nothing (measured on real rows of 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Texts = Mapping[str, pa.Array]
Numbers = npt.NDArray[np.int64]

#: An account's place in the county, times this, is its number: what a release inserts finds room between two accounts.
ACCOUNT_STRIDE = 1000
FIRST_ACCOUNT = 10_010_000_000


@dataclass(frozen=True)
class Field:
    """How the publisher writes one column.

    Attributes:
        name: the column's, in the schema file.
        width: characters in the fixed-width form; no text is longer.
        pad: delimited form: a text is padded with blanks to so many characters.
        empty: delimited form: what stands there for no value, before padding.
        align: fixed-width form: where the text stands in its field.
    """

    name: str
    width: int
    pad: int = 0
    empty: Literal["", " "] = " "
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Shape:
    """One table of a county.

    Attributes:
        source, table: of the schema file that declares it.
        archive: the publisher's name for the archive, without ``.zip``.
        fields: the columns in the order of the file.
        amounts: the columns whose sums a manifest gives.
        whole: makes so many new rows: all columns but the key.
        reviewed: makes new values for rows that a release updates: some of the columns, one of them always another value.
    """

    source: str
    table: str
    archive: str
    fields: tuple[Field, ...]
    amounts: tuple[str, ...]
    whole: Callable[[np.random.Generator, int, int], Texts]
    reviewed: Callable[[np.random.Generator, int, int], Texts]

    @property
    def record_width(self) -> int:
        """Bytes of a fixed-width record without its line end."""
        return sum(field.width for field in self.fields)

    def positions(self) -> dict[str, tuple[int, int]]:
        """First and last byte of each column in a fixed-width record, from 1, inclusive."""
        ends = np.cumsum([field.width for field in self.fields]).tolist()
        return {field.name: (end - field.width + 1, end) for field, end in zip(self.fields, ends, strict=True)}


def account_texts(numbers: Numbers) -> pa.Array:
    """Account numbers of 13 digits."""
    return pc.utf8_lpad(pc.cast(pa.array(numbers + FIRST_ACCOUNT), pa.string()), 13, "0")


def _words(text: str) -> pa.Array:
    return pa.array(text.split("|"))


FIRST_NAMES = _words("JAMES|MARIA|ROBERT|LINDA|JOSE|PATRICIA|DAVID|BARBARA|MINH|SUSAN|AHMED|KAREN|LUIS|NANCY|WEI|BETTY|OLGA|PAUL|ANITA")
LAST_NAMES = _words(
    "SMITH|GARCIA|NGUYEN|JOHNSON|MARTINEZ|BROWN|TRAN|HERNANDEZ|DAVIS|LOPEZ|PATEL|WILLIAMS|CHEN|RODRIGUEZ|LE|KHAN|O'BRIEN|VAN DE BERG|LEE"
)
OWNERS = _words("CITY OF HOUSTON|COUNTY OF HARRIS|CURRENT OWNER|HARRIS COUNTY MUD NO 1|STATE OF TEXAS|BAYOU HOLDINGS LLC|GULF LAND TRUST")
STREETS = _words(
    "COMMERCE|MAIN|FRANKLIN|FANNIN|TRAVIS|WESTHEIMER|LA BRANCH|MEMORIAL|BISSONNET|OAK HOLLOW|BRANCH BEND|CYPRESS CREEK|KIRBY|"
    "YALE|HEIGHTS|SHEPHERD|BELLAIRE|RICHMOND|HARRISBURG|NAVIGATION|LYONS|QUITMAN|ELLA|TELEPHONE|SPENCER|FAIRMONT|RED BLUFF|LOUETTA"
)
SUFFIXES = _words("ST|DR|LN|RD|CT|CIR|BLVD|AVE|WAY|PL")
CITIES = _words("HOUSTON|BELLAIRE|CYPRESS|KATY|SPRING|HUMBLE|PASADENA|BAYTOWN|TOMBALL|SEABROOK|LA PORTE|WEBSTER")
STATES = _words("TX|CA|LA|NE|CO|OH|FL|NY")
CLASSES = _words("A1|A2|B1|C1|C2|D1|F1|F2|J2|X1|XV|E1")
SUBDIVISIONS = _words("SSBB|MAGNOLIA PK BRANCH (IGN)|(NM)|OAK FOREST SEC 4|WESTBURY SEC 2|KATY LAKES|SPRING TRAILS|CYPRESS MILL R/P")
REMAINDERS = _words("SSBB|(NM)|& PT RES A|TR 14|(IGN)")
MARKET_AREAS = _words("4001|5001|6002|3010|1020|7003|2015|8030")
MARKET_NAMES = _words(
    "Central Business District|Inner Loop Southeast|HISD Inside 610 Loop|Cypress Fairbanks|Katy West|Spring Branch|Clear Lake|Aldine"
)
JURISDICTIONS = _words(
    "001 040 041 042 043 044 048 061 265 268 576|001 040 041 042 043 044 048 061 265 919 920|001 040 041 042 043 044 048 061 265|"
    "001 040 041 042 043 044 048 061 280 575|004 040 041 042 043 044 626|019 040 041 042 043 044 045 675 A12"
)
STATUSES = _words("Noticed|Value Unchanged, Notice Not Required|Certified|Pending Review")

_VALUES = [
    "land_val", "bld_val", "x_features_val", "ag_val", "assessed_val", "tot_appr_val", "tot_mkt_val", "prior_land_val", "prior_bld_val",
    "prior_x_features_val", "prior_ag_val", "prior_tot_appr_val", "prior_tot_mkt_val", "new_construction_val", "tot_rcn_val",
]  # fmt: skip


class _Draw:
    """Draws of one generator, so many rows at a time."""

    def __init__(self, generator: np.random.Generator, rows: int) -> None:
        self.generator, self.rows = generator, rows

    def of(self, pool: pa.Array, first_share: float = 0.0) -> pa.Array:
        """A word of the pool each; the first word with this share of its own."""
        return pool.take(self.index(len(pool), first_share))

    def index(self, count: int, first_share: float = 0.0) -> pa.Array:
        """A place below ``count`` each."""
        places = self.generator.integers(0, count, self.rows, dtype=np.int32)
        if first_share:
            places[self.generator.random(self.rows) < first_share] = 0
        return pa.array(places)

    def whole(self, low: int, high: int) -> Numbers:
        """A number from ``low``, below ``high``, each."""
        return self.generator.integers(low, high, self.rows)

    def chance(self, share: float) -> pa.Array:
        """True with this share."""
        return pa.array(self.generator.random(self.rows) < share)

    def days(self, first: int, last: int) -> pa.Array:
        """A date each between 1 January of one year and of another, as MM/DD/YYYY."""
        low, high = (np.datetime64(f"{year}-01-01").astype("datetime64[D]").astype(int) for year in (first, last))
        return pc.strftime(pa.array(self.whole(int(low), int(high)).astype(np.int32), pa.date32()), "%m/%d/%Y")

    def nothing(self) -> pa.Array:
        """No value in any row."""
        return _repeat("", self.rows)


def _repeat(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def _digits(numbers: Numbers, digits: int = 0) -> pa.Array:
    texts = pc.cast(pa.array(numbers), pa.string())
    return pc.utf8_lpad(texts, digits, "0") if digits else texts


def _join(*parts: pa.Array | str, by: str = " ") -> pa.Array:
    return pc.binary_join_element_wise(*parts, by)


def _address(*parts: pa.Array) -> pa.Array:
    """The parts that are there, a blank between them."""
    there = [pc.if_else(pc.equal(part, ""), pa.scalar(None, pa.string()), part) for part in parts]
    return pc.binary_join_element_wise(*there, " ", null_handling="skip")


def _or(is_so: pa.Array, texts: pa.Array, others: pa.Array | str = "") -> pa.Array:
    return pc.if_else(is_so, texts, others)


def _accounts(generator: np.random.Generator, rows: int, year: int) -> Texts:
    """Everything that ``real_acct`` says of an account."""
    draw = _Draw(generator, rows)
    parts = (_owner(draw), _situs(draw), _codes(draw), _values(draw), _status(draw, year), _legal(draw))
    return {"yr": _repeat(str(year), rows), **{name: texts for part in parts for name, texts in part.items()}}


def _owner(draw: _Draw) -> Texts:
    person = _join(draw.of(LAST_NAMES), draw.of(FIRST_NAMES), "&", draw.of(FIRST_NAMES))
    in_town = draw.chance(0.8)
    return {
        "mailto": _or(draw.chance(0.75), person, draw.of(OWNERS)),
        "mail_addr_1": _or(draw.chance(0.9), _join(_digits(draw.whole(1, 20_000)), draw.of(STREETS), draw.of(SUFFIXES)), "PO BOX 1562"),
        "mail_addr_2": _or(draw.chance(0.06), _join("STE", _digits(draw.whole(100, 3000)))),
        "mail_city": _or(in_town, draw.of(CITIES, 0.6), "OMAHA"),
        "mail_state": _or(in_town, _repeat("TX", draw.rows), draw.of(STATES)),
        "mail_zip": _join("77", _digits(draw.whole(0, 600), 3), "-", _digits(draw.whole(0, 10_000), 4), by=""),
        "mail_country": _or(draw.chance(0.002), _repeat("MEXICO", draw.rows)),
        "undeliverable": _or(draw.chance(0.01), _repeat("Y", draw.rows), "N"),
    }


def _situs(draw: _Draw) -> Texts:
    number, street, suffix = _digits(draw.whole(0, 20_000)), draw.of(STREETS), draw.of(SUFFIXES, 0.3)
    prefix = _or(draw.chance(0.07), draw.of(_words("N|S|E|W")))
    direction = _or(draw.chance(0.03), draw.of(_words("N|S|E|W")))
    return {
        "str_pfx": prefix,
        "str_num": number,
        "str_num_sfx": _or(draw.chance(0.004), draw.of(_words("1/2|A|B"))),
        "str": street,
        "str_sfx": suffix,
        "str_sfx_dir": direction,
        "str_unit": _or(draw.chance(0.09), _digits(draw.whole(1, 4000))),
        "site_addr_1": _address(number, prefix, street, suffix, direction),
        "site_addr_2": draw.of(CITIES, 0.6),
        "site_addr_3": _join("77", _digits(draw.whole(0, 600), 3), by=""),
    }


def _codes(draw: _Draw) -> Texts:
    area, rows = draw.index(len(MARKET_AREAS)), draw.rows
    other = draw.index(len(MARKET_AREAS))
    return {
        "state_class": draw.of(CLASSES, 0.6),
        "school_dist": _digits(draw.whole(1, 60), 2),
        "map_facet": _or(draw.chance(0.9), _join(_digits(draw.whole(4000, 7000)), draw.of(_words("A|B|C|D")), by="")),
        "key_map": _or(draw.chance(0.92), _join(_digits(draw.whole(200, 700)), draw.of(_words("A|F|L|M|Q|Z")), by="")),
        "neighborhood_code": _join(_digits(draw.whole(100, 9900)), _digits(draw.whole(0, 100), 2), by="."),
        "neighborhood_grp": _or(draw.chance(0.6), _digits(draw.whole(1000, 2000)), "0"),
        "market_area_1": MARKET_AREAS.take(area),
        "market_area_1_dscr": MARKET_NAMES.take(area),
        "market_area_2": MARKET_AREAS.take(other),
        "market_area_2_dscr": MARKET_NAMES.take(other),
        "econ_area": _digits(draw.whole(1, 10)),
        "econ_bld_class": _or(draw.chance(0.7), draw.of(_words("A|B|C|D|E"))),
        "center_code": _or(draw.chance(0.97), _digits(draw.whole(10, 50)), "UT"),
        "yr_impr": _or(draw.chance(0.75), _digits(draw.whole(1890, 2025)), draw.of(_words("0|"))),
        "yr_annexed": _or(draw.chance(0.1), _digits(draw.whole(1950, 2020))),
        "splt_dt": draw.nothing(),
        "dsc_cd": draw.nothing(),
        "nxt_bld": _digits(draw.whole(1, 4)),
        "cap_acct": _or(draw.chance(0.4), _repeat("Y", rows), draw.of(_words("N|Pending"), 0.98)),
        "shared_cad": _repeat("N", rows),
    }


def _values(draw: _Draw) -> Texts:
    """Areas and amounts; a few accounts are not valued yet: nothing, or the word ``Pending``, stands in all of them."""
    has_building = np.asarray(draw.chance(0.75))
    land = draw.whole(5_000, 400_000)
    building = np.where(has_building, draw.whole(20_000, 900_000), 0)
    extra = np.where(np.asarray(draw.chance(0.3)), draw.whole(100, 40_000), 0)
    farm = np.where(np.asarray(draw.chance(0.01)), draw.whole(100, 9_000), 0)
    total = land + building + extra
    appraised = np.where(np.asarray(draw.chance(0.3)), total * 9 // 10, total)
    area = draw.whole(1_000, 90_000)
    parts = area * 10_000 // 43_560  # ten-thousandths of an acre
    prior = [np.maximum(amount - draw.whole(0, 5_000), 0) for amount in (land, building, extra)]
    new = np.where(np.asarray(draw.chance(0.02)), draw.whole(1_000, 300_000), 0)
    amounts = [land, building, extra, farm, total, appraised, total, *prior, farm, sum(prior) * 95 // 100, sum(prior), new, building]
    unvalued = pc.if_else(draw.chance(0.0008), "", pc.if_else(draw.chance(0.0005), "Pending", pa.scalar(None, pa.string())))
    return {
        "bld_ar": _digits(np.where(has_building, draw.whole(600, 9_000), 0)),
        "land_ar": _digits(area),
        "acreage": _join(_digits(parts // 10_000), _digits(parts % 10_000, 4), by="."),
        **{name: pc.coalesce(unvalued, _digits(amount)) for name, amount in zip(_VALUES, amounts, strict=True)},
    }


def _status(draw: _Draw, year: int) -> Texts:
    is_noticed, is_certified = draw.chance(0.55), draw.chance(0.9)
    mailings = pa.array([f"{day}/{year}" for day in ("03/31", "04/21", "05/05")])
    return {
        "value_status": draw.of(STATUSES),
        "noticed": _or(is_noticed, _repeat("Y", draw.rows), "N"),
        "notice_dt": _or(is_noticed, draw.of(mailings), draw.of(_words("|12/30/1899"))),
        "protested": _or(draw.chance(0.25), _repeat("Y", draw.rows), "N"),
        "certified_date": _or(is_certified, _repeat(f"08/15/{year}", draw.rows)),
        "rev_dt": _or(draw.chance(0.94), draw.days(1995, 2024)),
        "rev_by": _digits(draw.whole(99, 2000), 5),
        "new_own_dt": _or(draw.chance(0.98), draw.days(1988, 2024), "12/30/1899"),
    }


def _legal(draw: _Draw) -> Texts:
    lot, block = _digits(draw.whole(1, 90)), _digits(draw.whole(1, 60))
    return {
        "lgl_1": _or(draw.chance(0.8), _join("LT", lot, "BLK", block), _join("TR", lot, "ABST", block, "(.50 U/D INT)")),
        "lgl_2": draw.of(SUBDIVISIONS),
        "lgl_3": _or(draw.chance(0.2), draw.of(REMAINDERS)),
        "lgl_4": _or(draw.chance(0.04), draw.of(REMAINDERS)),
        "jurs": draw.of(JURISDICTIONS),
    }


def _reviewed(generator: np.random.Generator, rows: int, generation: int) -> Texts:
    """New values after a review, on a day that no earlier release names, and the day of a new ownership."""
    draw = _Draw(generator, rows)
    day = np.datetime64("2025-01-01") + generation
    return {**_values(draw), "rev_dt": _repeat(day.item().strftime("%m/%d/%Y"), rows), "new_own_dt": draw.days(2024, 2026)}


def _fields(lines: Sequence[str]) -> tuple[Field, ...]:
    """Fields from lines of ``name width [pad] [null] [right]``."""
    made = []
    for name, width, *rest in (words.split() for line in lines for words in line.split(";")):
        pad = next((int(word) for word in rest if word.isdigit()), 0)
        made.append(Field(name, int(width), pad, "" if "null" in rest or pad else " ", "right" if "right" in rest else "left"))
    return tuple(made)


REAL_ACCT = Shape(
    source="hcad",
    table="real_acct",
    archive="Real_acct_owner",
    fields=_fields([
        "acct 13 25;yr 4;mailto 31;mail_addr_1 24;mail_addr_2 8;mail_city 8;mail_state 2;mail_zip 10;mail_country 6;undeliverable 1",
        "str_pfx 2 2;str_num 5;str_num_sfx 3 3;str 13;str_sfx 4;str_sfx_dir 2 2;str_unit 5;site_addr_1 28;site_addr_2 8;site_addr_3 5",
        "state_class 2;school_dist 2 5;map_facet 5;key_map 4;neighborhood_code 7;neighborhood_grp 4;market_area_1 4;market_area_1_dscr 25",
        "market_area_2 4;market_area_2_dscr 25;econ_area 1 5;econ_bld_class 1 5;center_code 2 5;yr_impr 4;yr_annexed 4;splt_dt 1 20",
        "dsc_cd 2 2;nxt_bld 10 right;bld_ar 7 right;land_ar 7 right;acreage 9 right;cap_acct 7;shared_cad 1 3;land_val 9 null right",
        "bld_val 7 null right;x_features_val 7 null right;ag_val 7 null right;assessed_val 7 null right;tot_appr_val 7 null right",
        "tot_mkt_val 7 null right",
        "prior_land_val 7 null right;prior_bld_val 7 null right;prior_x_features_val 7 null right;prior_ag_val 7 null right",
        "prior_tot_appr_val 7 null right;prior_tot_mkt_val 7 null right;new_construction_val 7 null right;tot_rcn_val 7 null right",
        "value_status 36;noticed 1;notice_dt 10;protested 1;certified_date 10 null;rev_dt 10 null;rev_by 5 5;new_own_dt 10",
        "lgl_1 27;lgl_2 24;lgl_3 12 null;lgl_4 12 null;jurs 43",
    ]),
    amounts=("bld_ar", "land_ar", "acreage", *_VALUES),
    whole=_accounts,
    reviewed=_reviewed,
)  # fmt: skip

#: By the table's name; a later table is one more entry.
SHAPES: Mapping[str, Shape] = {REAL_ACCT.table: REAL_ACCT}
