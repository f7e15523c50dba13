#!/usr/bin/env python3
"""Make the files of a county: any number of records that look like the real ones, some of them bad, and the outcome to expect.

``make_table.py FOLDER [--rows N] [--format delimited|fixed_width] [--seed S] ...`` writes a table's member, or with ``--zip`` the
archive that the publisher has. The same options give the same bytes; both formats hold the same records. ``--next N`` is the Nth
release after the first one: some accounts gone, some reviewed, some new; bad records stay as they are, so that what changes between
two releases is known to the row. ``--manifest FILE`` says what a right import makes of it: rows, quarantine and nulls by rule, sums, and a
digest of each column. ``--schemas FOLDER`` writes schema files that read both formats. Records are made in blocks of 20,000, so memory
does not depend on their number. ``--list`` names the kinds of bad records; ``county_faults.py`` has them, ``county_shapes.py`` the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [entry for entry in (str(SCRIPTS), str(SCRIPTS.parent)) if entry not in sys.path]

from county_faults import ENCODING, KINDS  # noqa: E402
from county_member import BAD_RATE, County, even_rates  # noqa: E402
from county_shapes import SHAPES, Shape  # noqa: E402

from pipeline.catalog import shipped_schemas  # noqa: E402


def write_schemas(shape: Shape, folder: Path, *, year: int = 2025) -> Path:
    """Write a catalog of one source whose table reads both formats; returns its folder.

    The table is the shipped one with a ``[[layout]]`` for fixed width in front; the source fetches from ``${COUNTY_URL}``.
    """
    place = folder / shape.source
    place.mkdir(parents=True, exist_ok=True)
    shipped = (shipped_schemas() / shape.source / f"{shape.table}.toml").read_text(encoding="utf-8")
    # The county has this table alone: a check that looks another one up has nowhere to look.
    shipped = re.sub(r"^\[\[check\]\]\n(?:.+\n)*?table = .*\n(?:.+\n)*\n?", "", shipped, flags=re.MULTILINE)
    before, mark, after = shipped.partition("[[layout]]\n")
    positions = "".join(f"{name} = [{start}, {end}]\n" for name, (start, end) in shape.positions().items())
    layout = (
        f'[[layout]]\nformat = "fixed_width"\nrecord_width = {shape.record_width}\nencoding = "{ENCODING}"\n\n'
        f"[layout.positions]\n{positions}\n"
    )
    (place / f"{shape.table}.toml").write_text(before + layout + mark + after, encoding="utf-8")
    (place / "source.toml").write_text(
        f'[source]\nname = "{shape.source}"\ntitle = "A made county"\npublisher = "scripts/make_table.py"\n'
        f'homepage = "http://127.0.0.1/"\nlicence = "Made up; no record of anybody"\nbase_url = "${{COUNTY_URL}}"\n'
        f'allow_addresses = ["127.0.0.0/8"]\ntax_years = [{year}]\n\n[archives.{shape.archive}]\npath = "{{year}}/{shape.archive}.zip"\n',
        encoding="utf-8",
    )
    return place


def _rate(text: str) -> tuple[str, float]:
    kind, _, rate = text.partition("=")
    return kind, float(rate)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a county's files, some records of them bad, and say what must become of them.")
    parser.add_argument("folder", type=Path, nargs="?", help="where to write; made if it is not there")
    parser.add_argument("--table", choices=sorted(SHAPES), default="real_acct", help="which table (default: real_acct)")
    parser.add_argument("--format", choices=["delimited", "fixed_width"], default="delimited", help="default: delimited")
    parser.add_argument("--rows", type=int, default=300_000, help="records, the bad ones included (default: 300000)")
    parser.add_argument("--seed", type=int, default=0, help="another one, another county (default: 0)")
    parser.add_argument("--year", type=int, default=2025, help="tax year (default: 2025)")
    parser.add_argument("--header", choices=["first", "last", "none"], default="first", help="where a delimited file has its header line")
    parser.add_argument("--bad-rate", type=float, default=BAD_RATE, help=f"share of bad records, of all kinds (default: {BAD_RATE})")
    parser.add_argument("--bad", type=_rate, action="append", default=[], metavar="KIND=RATE", help="share of one kind instead of its part")
    parser.add_argument("--next", type=int, default=0, metavar="N", help="the Nth release after the first")
    for name, default in (("insert", 0.01), ("update", 0.05), ("delete", 0.005)):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="RATE", help=f"share a release {name}s (default: {default})")
    parser.add_argument("--zip", action="store_true", help="write the publisher's archive instead of the member")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="write what must become of it, as JSON")
    parser.add_argument("--schemas", type=Path, metavar="FOLDER", help="write schema files that read both formats")
    parser.add_argument("--list", action="store_true", help="name the kinds of bad records")
    arguments = parser.parse_args(given)
    if arguments.folder is None and not arguments.list:
        parser.error("name a folder, or ask for --list")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _arguments(given)
    if arguments.list:
        for kind in KINDS.values():
            print(f"{kind.name}: {kind.doc}{' (harmless)' if kind.is_harmless else ''}")
        return 0
    try:
        county = County(
            SHAPES[arguments.table], arguments.rows, arguments.seed, arguments.format, arguments.year, arguments.next,
            even_rates(arguments.bad_rate) | dict(arguments.bad), arguments.insert, arguments.update, arguments.delete, arguments.header,
        )  # fmt: skip
    except ValueError as error:
        print(f"make_table: {error}", file=sys.stderr)
        return 2
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / (f"{county.shape.archive}.zip" if arguments.zip else f"{county.shape.table}.txt")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    manifest = county.write_with_manifest(part, is_zip=arguments.zip)
    part.replace(path)
    if arguments.manifest:
        arguments.manifest.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if arguments.schemas:
        write_schemas(county.shape, arguments.schemas, year=county.year)
    print(f"{path}: {manifest['member']['bytes']} bytes, {manifest['part']['read']} records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
