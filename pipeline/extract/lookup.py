"""The raw text of single lines of an extracted member, by line number: for the quarantine, and for a person who looks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.handoff import Member


def raw_lines(path: Path, member: Member, numbers: Iterable[int], encoding: str) -> dict[int, str]:
    r"""Read lines of a member by number (from 1), without their ends; only the parts that hold them are read.

    Args:
        path: the extracted file.
        member: what was measured of it.
        numbers: the lines wanted.
        encoding: of the text; bytes that it does not know, and NUL, come as ``\\xNN``.
    """
    wanted, found = set(numbers), dict[int, str]()
    with open(path, "rb") as file:
        for part in member.parts:
            of_part = {number for number in wanted if part.first_line <= number < part.first_line + part.lines}
            if not of_part:
                continue
            file.seek(part.start)
            for number, line in enumerate(file, part.first_line):
                if number in of_part:
                    text = line.rstrip(b"\n").removesuffix(b"\r").decode(encoding, errors="backslashreplace")
                    found[number] = text.replace("\0", "\\x00")
                if number >= max(of_part):
                    break
    return found
