"""A release of a county as the publisher offers it: its archives, one after the other, and the manifest of the outcome.

Each member is made block by block and goes straight into its archive, so memory hangs on the size of a block alone. Archives
carry no time of their own: the same county is the same files, byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from whole_county import building_tables, business_tables, codes, element_tables, hearing_tables, land_tables, owner_tables, tax_tables
from whole_county.accounts import Accounts
from whole_county.business_tables import Businesses
from whole_county.cells import LINE_END, content
from whole_county.codebook import Member, members, members_of
from whole_county.county import FIRST_LONG_RATES, County
from whole_county.draws import Draw
from whole_county.lines import Lines, lines_of
from whole_county.outcome import Outcome
from whole_county.population import populate, touched
from whole_county.rows import Rows

#: Accounts made at a time.
BLOCK_ACCOUNTS = 8_000
MANIFEST = "manifest.json"
#: The earliest instant that a zip can carry.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEVEL = 1
Records = list[tuple[str, ...]]

_ACCOUNT_TABLES: Mapping[str, Callable[[Accounts, Member], Rows]] = {
    maker.__name__: maker
    for maker in (
        owner_tables.real_acct, owner_tables.owners, owner_tables.deeds,
        owner_tables.permits, owner_tables.parcel_tieback, owner_tables.real_mnrl,
        owner_tables.ownership_history, building_tables.building_res, building_tables.building_other, element_tables.fixtures,
        element_tables.structural_elem1, element_tables.structural_elem2, element_tables.exterior, land_tables.extra_features,
        land_tables.extra_features_detail1, land_tables.extra_features_detail2, land_tables.land, land_tables.land_ag,
        tax_tables.jur_value, tax_tables.jur_exempt, tax_tables.jur_exempt_cd,
        hearing_tables.arb_protest_real, hearing_tables.arb_hearings_real,
    )
}  # fmt: skip
_BUSINESS_TABLES: Mapping[str, Callable[[Businesses, Member], Rows]] = {
    maker.__name__: maker
    for maker in (
        business_tables.t_business_acct, business_tables.t_business_detail, business_tables.t_jur_value, business_tables.t_jur_exempt,
        business_tables.t_pp_l, business_tables.t_pp_e, hearing_tables.arb_protest_pp, hearing_tables.arb_hearings_pp,
    )
}  # fmt: skip


def write_release(county: County, folder: Path) -> dict[str, Any]:
    """Write the archives of a release into ``folder/<year>``, and its manifest into ``folder``; returns the manifest."""
    place = folder / str(county.year)
    place.mkdir(parents=True, exist_ok=True)
    # What another county left here is no archive of this release.
    for archive in {member.archive for member in members().values()}:
        (place / f"{archive}.zip").unlink(missing_ok=True)
    records, tables = _records(county), {}
    for archive, listed in groupby(members_of(county), key=lambda member: member.archive):
        path = place / f"{archive}.zip"
        with _renamed(path) as part, zipfile.ZipFile(part, "w") as opened:
            for member in listed:
                tables[member.table] = {"archive": archive, **_write_member(county, member, records, opened)}
    manifest = {
        "county": county.described(),
        "release": county.release,
        "rows": sum(table["read"] for table in tables.values()),
        "tables": tables,
        "long": tax_tables.long_tables(county) if county.year < FIRST_LONG_RATES else {},
    }
    with _renamed(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A file beside it to write, which takes its place when it is written in full."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def after(previous: Path, events: Mapping[str, float]) -> County:
    """The county of the release that follows the one in a folder; ``events`` are shares that differ from EVENTS in this release."""
    made = County(**json.loads((previous / MANIFEST).read_text(encoding="utf-8"))["county"])
    return replace(made, events=[*made.events, dict(events)])


def _write_member(county: County, member: Member, records: Mapping[str, Records], opened: zipfile.ZipFile) -> dict[str, Any]:
    named = zipfile.ZipInfo(f"{member.table}.txt", _EPOCH)
    named.compress_type, named.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
    named._compresslevel = _LEVEL
    outcome, digest, size = Outcome(member), hashlib.sha256(), 0
    with opened.open(named, "w", force_zip64=True) as out:
        header = "\t".join(member.columns).encode() + LINE_END
        stands = county.headers.get(member.table, "first")
        first, last = ([header] if stands == where else [] for where in ("first", "last"))
        for block in chain(first, _blocks(county, member, records, outcome), last):
            out.write(block)
            digest.update(block)
            size += len(block)
    return {"member": {"name": named.filename, "bytes": size, "sha256": digest.hexdigest()}, **outcome.manifest()}


def _blocks(county: County, member: Member, records: Mapping[str, Records], outcome: Outcome) -> Iterator[bytes]:
    """The member's lines, block by block; ``outcome`` is told."""
    if member.table in records:
        rows = _recorded(county, member, records[member.table])
        made = lines_of(rows, spoil=False)
        outcome.add(rows, made)
        yield content(made.written)
        return
    is_account = member.table in _ACCOUNT_TABLES
    kind, count = ("account", county.accounts) if is_account else ("business", county.businesses)

    def rows_of(population: Any) -> tuple[Rows, Lines]:
        if is_account:
            rows = _ACCOUNT_TABLES[member.table](Accounts(county, population), member)
        else:
            rows = _BUSINESS_TABLES[member.table](Businesses(county, population), member)
        return rows, lines_of(rows)

    for first in range(0, count, BLOCK_ACCOUNTS):
        now, before = populate(county, kind, first, min(first + BLOCK_ACCOUNTS, count))
        rows, made = rows_of(now)
        outcome.add(rows, made)
        if county.release:
            changed, was = touched(now, before)
            outcome.add_changes(rows_of(changed), rows_of(was))
        yield content(made.written)


def _recorded(county: County, member: Member, records: Records) -> Rows:
    """Rows of a table that is no account's own."""
    # The first column stands where others have their account.
    owner = np.unique([record[0] for record in records], return_inverse=True)[1]
    rows = Rows(member, owner, Draw.of(county.seed, member.table, np.arange(len(records))), county)
    for place, name in enumerate(member.columns):
        rows.put(**{name: pa.array([record[place].encode("cp1252") for record in records], pa.binary())})
    return rows


def _records(county: County) -> dict[str, Records]:
    """The records of all tables that are no account's own."""
    near = county.shared.neighborhoods
    some = [(code, text) for code, _, text in near.records[:: max(1, len(near) // 400)]]
    made = codes.code_tables(county.shared.districts.records, some)
    made["real_neighborhood_code"] = near.records
    made["jur_exemption_dscr"] = tax_tables.exemption_records(county)
    for prefix, is_real in (("", True), ("t_", False)):
        made[f"{prefix}jur_tax_dist_exempt_value_rate"] = tax_tables.rate_records(county, is_real=is_real)
        for what, is_rate in (("exempt_value", False), ("percent_rate", True)):
            made[f"{prefix}jur_tax_dist_{what}"] = tax_tables.wide_records(county, is_real=is_real, is_rate=is_rate)
    return made
