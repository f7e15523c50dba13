#!/usr/bin/env python3
"""Make a whole county: all archives of HCAD's codebook, of any size, release by release, and the outcome to expect of each table.

``make_county.py FOLDER --accounts N --seed S --year Y`` writes ``FOLDER/Y/<archive>.zip`` and ``FOLDER/manifest.json``.
``--next PREVIOUS`` makes the release that follows the one in the folder PREVIOUS: accounts vanish, split, are sold and
reviewed; the manifest then says what a table's rows inserted, updated and deleted are. The same options give the same bytes.
``--quirk NAME=SHARE`` and ``--event NAME=SHARE`` set how often what happens; ``--list`` names them. Rows an account and bytes a
row are those counted of HCAD's files; files are made block by block, so memory does not depend on the number of accounts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [entry for entry in (str(SCRIPTS), str(SCRIPTS.parent)) if entry not in sys.path]

from whole_county.county import EVENTS, QUIRKS, County  # noqa: E402
from whole_county.release import after, write_release  # noqa: E402


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    return name, float(share)


def _place(text: str) -> tuple[str, str]:
    table, _, place = text.partition("=")
    return table, place


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make all archives of a county, and say what must become of each table.")
    parser.add_argument("folder", type=Path, nargs="?", help="where to write; made if it is not there")
    first = parser.add_argument_group("the first release")
    first.add_argument("--accounts", type=int, default=20_000, help="real property accounts (default: 20000)")
    first.add_argument("--seed", type=int, default=0, help="another one, another county (default: 0)")
    first.add_argument("--year", type=int, default=2026, help="tax year (default: 2026)")
    first.add_argument(
        "--back-year", action="store_true", help="without what only the current year has: details of extra features, ownership history"
    )
    first.add_argument(
        "--quirk", type=_share, action="append", default=[], metavar="NAME=SHARE", help="how many rows have a peculiarity of the real files"
    )
    first.add_argument(
        "--header", type=_place, action="append", default=[], metavar="TABLE=PLACE", help="a member's header line: first, last or none"
    )
    parser.add_argument("--next", type=Path, metavar="PREVIOUS", help="make the release after the one in this folder")
    parser.add_argument(
        "--event", type=_share, action="append", default=[], metavar="NAME=SHARE", help="how many accounts an event of --next strikes"
    )
    parser.add_argument("--list", action="store_true", help="name the quirks and events")
    arguments = parser.parse_args(given)
    if arguments.folder is None and not arguments.list:
        parser.error("name a folder, or ask for --list")
    return arguments


def _county(arguments: argparse.Namespace) -> County:
    if arguments.next is None:
        if arguments.event:
            raise ValueError("events happen from one release to the next: --next")
        return County(
            arguments.accounts,
            arguments.seed,
            arguments.year,
            not arguments.back_year,
            dict(arguments.quirk),
            headers=dict(arguments.header),
        )
    if arguments.next.resolve() == arguments.folder.resolve():
        raise ValueError("the next release goes into a folder of its own")
    return after(arguments.next, dict(arguments.event))


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _arguments(given)
    if arguments.list:
        for kind, listed in (("quirk", QUIRKS), ("event", EVENTS)):
            for name, (share, doc) in listed.items():
                print(f"{kind} {name}={share:f}".rstrip("0") + f": {doc}")
        return 0
    started = time.monotonic()
    try:
        county = _county(arguments)
        manifest = write_release(county, arguments.folder)
    except (ValueError, OSError) as error:
        print(f"make_county: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - started
    size = sum(table["member"]["bytes"] for table in manifest["tables"].values())
    print(
        f"{arguments.folder}: release {county.release} of {county.accounts} accounts, "
        f"{len(manifest['tables'])} tables, {manifest['rows']} rows, "
        f"{size} bytes in {seconds:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
