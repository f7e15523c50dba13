"""The raw text of single lines of an extracted member, by line number: for the quarantine, and for a person who looks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.handoff import Member, RawLine


def raw_lines(path: Path, member: Member, numbers: Iterable[int], encoding: str) -> dict[int, RawLine]:
    """Read lines of a member by number (from 1), without their ends; only the parts that hold them are read.

    Args:
        path: the extracted file.
        member: what was measured of it.
        numbers: the lines wanted.
        encoding: of the text.
    """
    wanted, found = set(numbers), dict[int, RawLine]()
    with open(path, "rb") as file:
        for part in member.parts:
            of_part = {number for number in wanted if part.first_line <= number < part.first_line + part.lines}
            if not of_part:
                continue
            file.seek(part.start)
            offset, last = part.start, max(of_part)
            for number, line in enumerate(file, part.first_line):
                if number in of_part:
                    found[number] = RawLine.of(offset, line.rstrip(b"\n").removesuffix(b"\r"), encoding)
                if number >= last:
                    break
                offset += len(line)
    return found
