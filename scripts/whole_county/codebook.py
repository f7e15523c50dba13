"""HCAD's codebook as the made county needs it: archives, members, columns in file order, and which of them are padded with blanks.

The codebook is that of 24 February 2025. What it does not say is here: the tables' keys where HCAD's own do not hold or do not
exist, the padding that real rows show, and which tables a tax year has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from whole_county import codes
from whole_county.county import FIRST_LONG_RATES, FIRST_MINERALS, County
from whole_county.draws import words_pool

CODEBOOK = Path(__file__).parents[1] / "codebook" / "hcad-2025-02-24.json"
#: Seen on real rows of real_acct, although the codebook says varchar.
_REAL_ACCT_PADS = {"school_dist": 5, "econ_area": 5, "center_code": 5}
_KEYS: Mapping[str, tuple[str, ...]] = {
    "real_acct": ("acct",),
    "owners": ("acct", "ln_num"),
    "deeds": ("acct", "deed_id"),
    "permits": ("acct", "id"),
    "real_neighborhood_code": ("cd",),
    "real_mnrl": ("acct",),
    "jur_value": ("acct", "tax_district"),
    "jur_exempt": ("acct", "tax_district", "exempt_cat"),
    "jur_exempt_cd": ("acct", "exempt_cat"),
    "jur_exemption_dscr": ("exempt_cat",),
    "jur_tax_dist_exempt_value_rate": ("RP_TYPE", "tax_dist", "exempt_cd"),
    "t_business_acct": ("acct",),
    "t_business_detail": ("acct", "ln_num"),
    "t_jur_value": ("acct", "tax_dist"),
    "t_jur_tax_dist_exempt_value_rate": ("RP_TYPE", "tax_dist", "exempt_cd"),
    "t_pp_e": ("acct",),
    "t_pp_l": ("acct",),
    "desc_r_06_structural_element_type": ("Type", "Category"),
    "desc_r_16_influence_factors": ("UseCd", "InfCd", "InfTbl"),
}
#: Code tables without a key of HCAD's.
_KEYLESS_CODES = {
    "desc_r_18_permit_status", "desc_r_22_hisd_section",
    "desc_r_23_special_codes", "desc_r_25_conclusion_code", "desc_r_26_neighborhood_num_adjust",
}  # fmt: skip
CURRENT_ONLY = {"extra_features_detail1", "extra_features_detail2", "ownership_history"}
LONG_RATES = {"jur_tax_dist_exempt_value_rate", "t_jur_tax_dist_exempt_value_rate"}


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        table: its name without ``.txt``.
        archive: the archive's file name without ``.zip``.
        columns: their names, in file order.
        pads: columns that are padded with blanks, and up to which width.
        key: what tells rows apart; none: equal rows are real.
    """

    table: str
    archive: str
    columns: tuple[str, ...]
    pads: Mapping[str, int]
    key: tuple[str, ...]


@lru_cache(maxsize=1)
def members() -> Mapping[str, Member]:
    """Every table of the codebook, by name."""
    made = {}
    for table in json.loads(CODEBOOK.read_text(encoding="utf-8")):
        name, columns = table["table"], [column["name"] for column in table["cols"]]
        pads = {
            column["name"]: int(column["size"])
            for column in table["cols"]
            if column["type"] == "char" or (column["name"] == "acct" and column["size"] == "25")
        }
        if name == "real_acct":
            pads |= _REAL_ACCT_PADS
        key = _KEYS.get(name, ())
        if name.startswith("desc_") and not key and name not in _KEYLESS_CODES:
            key = (columns[0],)
        archive = table["archive"].removesuffix(".zip").replace("Hearing_Files", "Hearing_files")
        made[name] = Member(name, archive, tuple(columns), pads, key)
    return made


def members_of(county: County) -> list[Member]:
    """The members that HCAD has for the county's tax year, archive by archive."""
    made = dict(members())
    if not county.is_current:
        made = {name: member for name, member in made.items() if name not in CURRENT_ONLY}
    del made["t_pp_e" if county.year >= FIRST_MINERALS else "real_mnrl"]
    if county.year < FIRST_LONG_RATES:
        made = {name: member for name, member in made.items() if name not in LONG_RATES} | _wide()
    return sorted(made.values(), key=lambda member: (member.archive, member.table))


#: The exemption columns of 2019's wide tables: of real property those that are described, in their order.
REAL_WIDE = tuple(sorted(row[0] for row in codes.EXEMPTIONS))
PERSONAL_WIDE = tuple(
    record[0]
    for record in words_pool(
        "ABT|DIS|ERE|ESP|GCC|HIS|MCL|OVR|PAR|PDS|POL|POV|PRO|RES|SOL|SPV|SUR|TOT|UND|V11|V12|V13|V14|V21|V22|V23|V24|VS1|VS2|VS3|VS4"
    ).records
)


def _wide() -> dict[str, Member]:
    first = ("RP_TYPE", "tax_dist", "name", "prop", "curr")
    return {
        f"{prefix}jur_tax_dist_{what}": Member(f"{prefix}jur_tax_dist_{what}", archive, (*first, *wide), {}, ("tax_dist",))
        for prefix, archive, wide in (("", "Real_jur_exempt", REAL_WIDE), ("t_", "PP_files", PERSONAL_WIDE))
        for what in ("exempt_value", "percent_rate")
    }
