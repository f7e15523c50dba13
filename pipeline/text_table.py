"""Rows as lines of a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: text to the left, numbers to the right."""
    cells = [
        tuple(f"{cell:,}" if isinstance(cell, int) and name != "year" else str(cell) for name, cell in zip(header, row, strict=True))
        for row in rows
    ]
    widths = [max(len(line[place]) for line in [tuple(header), *cells]) for place in range(len(header))]
    text = [
        all(isinstance(row[place], str) and not str(row[place]).replace(".", "").isdigit() for row in rows) for place in range(len(header))
    ]
    return [
        "  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(line, widths, text, strict=True)).rstrip()
        for line in [tuple(header), *cells]
    ]
