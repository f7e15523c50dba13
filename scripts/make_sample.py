#!/usr/bin/env python3
"""Make the sample bundle: real rows of two appraisal districts, in zips that carry the districts' own names.

The bundle is what the quickstart and the tests import. Every member is checked against its SHA-256 and its number of lines
before an archive is written, so a wrong or damaged input stops the script and leaves the bundle as it was. The bytes of a member
are never touched: line ends, blank padding and the place of the header stay as found. An archive depends on its members alone:
fixed time stamps, fixed order, fixed compression; made twice it is the same file (but zlib and zlib-ng deflate differently).
`--data` names a folder with the source files; without it the members come out of the bundle's own archives. Beside the archives
stands `SHA256SUMS`, in the form that `sha256sum --check` reads. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "sample"
SUMS = "SHA256SUMS"
#: The earliest instant that a zip can carry; says openly that it is not a time at which anything happened.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
UNIX = 3
REGULAR_0644 = 0o100644


class SampleError(Exception):
    """An input is missing or is not the file that the bundle is made of."""


@dataclass(frozen=True)
class Member:
    """A file inside an archive of the bundle.

    Attributes:
        name: its name in the archive.
        source: its path below the data folder; `.gz` is unpacked.
        lines: number of lines, a header line included.
        sha256: of its bytes, 64 hex digits.
    """

    name: str
    source: str
    lines: int
    sha256: str


#: Archive, by its path in the bundle, to its members.
ARCHIVES: dict[str, tuple[Member, ...]] = {
    "hcad/2019/Hearing_files.zip": (
        Member(
            "arb_protest_real.txt",
            "hcad/arb_protest_real_2019.txt.gz",
            424_335,
            "05993b4c097fe83fd3a772d3381628c342b7ace5e9e8e20ba284b0fbd39851d8",
        ),
    ),
    "hcad/2025/Real_acct_owner.zip": (
        Member(
            "real_acct.txt",
            "hcad/real_acct_2025_50rows_masked.txt",
            51,
            "87c4349aac20cf45373cac71e315c2d67135e64eac52aa9752d403ed6c736d92",
        ),
        Member(
            "real_mnrl.txt",
            "hcad/real_mnrl_2025.txt",
            7_263,
            "58d13ec7f3aff5503a9bf4874b1dead72ee0f8c4c1de944911edfde9db979f23",
        ),
        Member(
            "real_neighborhood_code.txt",
            "hcad/real_neighborhood_code_2025.txt",
            12_021,
            "4ab27f81e8ebc4a2cbb526a9a59c45cbad492a498985cd996e8a7cea5959c075",
        ),
    ),
    "travis/2019/Appraisal_Export.zip": (
        Member(
            "ABS_SUBD.TXT",
            "pacs/travis_2020/ABS_SUBD.TXT",
            23_844,
            "b4127ad0c07ace92cdba73d54f21678a6cefa0e326faa104e013c468b570150e",
        ),
        Member(
            "APPR_HDR.TXT",
            "pacs/travis_2020/APPR_HDR.TXT",
            1,
            "3af8f988b92b837ef94eeb67cda5b90ac57a58fc722688f041282c613cbd9c45",
        ),
        Member(
            "COUNTRY.TXT",
            "pacs/travis_2020/COUNTRY.TXT",
            245,
            "04c3a65c89b87bff28e1015fb81ca1e818f957dfb29ea64c1a02f33936a6d0be",
        ),
        Member(
            "ENTITY.TXT",
            "pacs/travis_2020/ENTITY.TXT",
            229,
            "b913bdc651f8c8c5dbfd21abbb6429b269e18a4b604a04cfc3c282b8d2f57d8d",
        ),
        Member(
            "STATE_CD.TXT",
            "pacs/travis_2020/STATE_CD.TXT",
            45,
            "ac5290301bf99742bf17bf30e4f1ae157e9ee265d3df33dc2401982664515746",
        ),
    ),
}


def make_bundle(out: Path, data: Path | None = None) -> dict[str, str]:
    """Write the archives and `SHA256SUMS`.

    Args:
        out: the bundle's folder; made when missing.
        data: the folder with the source files, or None to take the members out of the archives in `out`.

    Returns:
        The SHA-256 of every archive (64 hex digits), by its path in the bundle, sorted.

    Raises:
        SampleError: a member is missing or is not the one declared; nothing has been written then.
    """
    members = {  # all are read and checked before the first is packed: deflating takes seconds
        archive: {member.name: read_member(archive, member, out, data) for member in declared}
        for archive, declared in sorted(ARCHIVES.items())
    }
    contents = {archive: pack(named) for archive, named in members.items()}
    sums = {archive: hashlib.sha256(body).hexdigest() for archive, body in contents.items()}
    for archive, body in contents.items():
        write_whole(out / archive, body)
    write_whole(out / SUMS, "".join(f"{digest}  {archive}\n" for archive, digest in sums.items()).encode("ascii"))
    return sums


def pack(members: dict[str, bytes]) -> bytes:
    """Zip members, sorted by name, so that equal members give equal bytes.

    Args:
        members: name in the archive to bytes.

    Returns:
        The zip, deflated at level 9.
    """
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in sorted(members.items()):
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.create_system = UNIX
            entry.external_attr = REGULAR_0644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    return body.getvalue()


def read_member(archive: str, member: Member, out: Path, data: Path | None) -> bytes:
    """Read a member from the data folder, or from the bundle itself, and check that it is the one declared.

    Args:
        archive: path of its archive in the bundle.
        member: which one.
        out: the bundle's folder.
        data: the folder with the source files, or None.

    Returns:
        The member's bytes.

    Raises:
        SampleError: it cannot be read, or its SHA-256 or number of lines is another.
    """
    place = out / archive if data is None else data / member.source
    try:
        if data is None:
            with zipfile.ZipFile(place) as packed:
                content = packed.read(member.name)
        else:
            content = place.read_bytes()
            if place.suffix == ".gz":
                content = gzip.decompress(content)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise SampleError(f"{member.name} cannot be read from {place}: {error}") from error
    digest, lines = hashlib.sha256(content).hexdigest(), content.count(b"\n")
    if (digest, lines) != (member.sha256, member.lines):
        raise SampleError(
            f"{member.name} in {place} has {lines} lines and SHA-256 {digest}; expected {member.lines} lines and {member.sha256}"
        )
    return content


def write_whole(path: Path, body: bytes) -> None:
    """Write a file by one rename, so that a reader finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Make the bundle and print the SHA-256 of every archive. Returns 0, or 1 when an input is not the one declared."""
    parser = argparse.ArgumentParser(description="Make the sample bundle.")
    parser.add_argument("--data", type=Path, help="folder with the source files (default: the bundle's own archives)")
    parser.add_argument("--out", type=Path, default=BUNDLE, help=f"folder of the bundle (default: {BUNDLE})")
    options = parser.parse_args(arguments)
    try:
        sums = make_bundle(options.out, options.data)
    except SampleError as error:
        print(f"make_sample: {error}", file=sys.stderr)
        return 1
    for archive, digest in sums.items():
        print(f"{digest}  {archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
