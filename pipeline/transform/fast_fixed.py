"""Fixed-width fields cut out of a block of bytes, as Arrow columns.

In go lines that are as long as a record; out comes a column of text for each field: the very bytes at its positions,
without the blanks and tabs around them. Records at equal distances are read where they lie, others are first copied side by
side; a column is one strided copy, trimmed by Arrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.transform.columns import no_strings, strings, trimmed
from pipeline.transform.lines import Lines

_BLANKS: Final = " \t"


def cut_fixed(lines: Lines, record_width: int, positions: Mapping[str, tuple[int, int]]) -> dict[str, pa.StringArray]:
    """Cut columns out of lines.

    Args:
        lines: lines of ``record_width`` bytes each.
        record_width: at least 1.
        positions: column -> its first and last byte, from 1, inclusive; what lies behind the record is empty.

    Returns:
        Column -> its bytes, trimmed, as an array without NULL that begins at offset zero.
    """
    if not len(lines):
        return {name: no_strings(0) for name in positions}
    records = _records(lines, record_width)
    columns = {}
    for name, (start, end) in positions.items():
        width = min(end, record_width) - start + 1
        if width < 1:
            columns[name] = no_strings(len(lines))
            continue
        field = np.dtype({"names": [name], "formats": [f"V{width}"], "offsets": [start - 1], "itemsize": record_width})
        text = records.view(field)[name].copy()  # as void: a copy of bytes side by side would go byte by byte
        offsets = np.arange(0, len(lines) * width + 1, width, dtype=np.int32)
        columns[name] = trimmed(strings(offsets, pa.py_buffer(text)), _BLANKS)
    return columns


def _records(lines: Lines, record_width: int) -> npt.NDArray[np.void]:
    """The lines' bytes at equal distances: where they are, if they lie so; else copied side by side."""
    distances = np.diff(lines.starts)
    record = f"V{record_width}"
    if (distances == distances[:1]).all():
        stride = int(distances[0]) if len(distances) else record_width
        return np.ndarray(len(lines), record, lines.block, int(lines.starts[0]), (stride,))
    # One record at each byte of the block, overlapping: to index it is to copy records.
    every = np.ndarray(len(lines.block) - record_width + 1, record, lines.block, 0, (1,))
    gathered: npt.NDArray[np.void] = every[lines.starts]
    return gathered
