"""What lines mean as text fields: the reading of pandas, to which the fast readers are held.

In go lines that are one record each; out comes a frame of text with one row a line and one column a declared column,
trimmed of blanks and tabs, missing where nothing is left. pandas sees no quote character and no word that stands for
"missing", so that real text such as ``NA`` or a lone quote stays what it is. Property tests compare the fast readers with
this one, cell for cell. It also reads the records that they do not take: fixed-width records with characters of several
bytes, in which a field may begin or end within a character.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.catalog.model import Layout
from pipeline.transform.lines import Lines, Mask

_BLANKS = " \t"
#: Characters that no text uses without an agreement: one of them stands for NUL, at which the C parser ends a field.
_PRIVATE_USE = range(0xE000, 0xF900)


def read_csv(lines: Lines, layout: Layout, fields: Sequence[str | None]) -> pd.DataFrame:
    """Read delimited lines with ``pandas.read_csv``, quoting off.

    Args:
        lines: lines with as many fields as ``fields``, which the layout's encoding can decode.
        layout: delimiter and encoding.
        fields: our column's name for each field, None for one that is ignored.
    """
    names = [field for field in fields if field is not None]
    text = lines.joined().decode(layout.encoding)
    stand_in = next(character for character in map(chr, _PRIVATE_USE) if character not in text)
    # A line of numbers in front: pandas would take a byte order mark at the start of its input for no text.
    header = layout.delimiter.join(map(str, range(len(fields)))) + "\n"
    frame = pd.read_csv(
        io.StringIO(header + text.replace("\0", stand_in)),
        sep=layout.delimiter,
        header=0,
        usecols=[position for position, field in enumerate(fields) if field is not None],
        index_col=False,
        dtype=str,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
        na_values=[""],
        skip_blank_lines=False,
        lineterminator="\n",
        engine="c",
        low_memory=False,
    ).set_axis(names, axis="columns")
    for name in names:
        stripped = frame[name].str.replace(stand_in, "\0", regex=False).str.strip(_BLANKS)
        frame[name] = stripped.mask(stripped == "")
    return frame


def read_fwf(lines: Lines, positions: Mapping[str, tuple[int, int]], encoding: str) -> tuple[pd.DataFrame, Mask]:
    """Read fixed-width lines with ``pandas.read_fwf``.

    Args:
        lines: lines that are as long as a record.
        positions: column -> its first and last byte, from 1, inclusive.
        encoding: of the fields; positions count bytes.

    Returns:
        The frame, and the lines with a field that begins or ends within a character: their rows mean nothing.
    """
    names = list(positions)
    broken: Mask = np.zeros(len(lines), dtype=np.bool_)
    if not len(lines):
        return pd.DataFrame({name: pd.Series(dtype=str) for name in names}), broken
    # As latin-1 a character is a byte, as positions count them; a field is decoded after it has been cut out.
    text = lines.joined().decode("latin-1")
    frame = pd.read_fwf(
        io.StringIO(text),
        colspecs=[(start - 1, end) for start, end in positions.values()],
        names=names,
        header=None,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        skip_blank_lines=False,
    )
    return frame if text.isascii() else _decoded(frame, encoding, broken), broken


def _decoded(frame: pd.DataFrame, encoding: str, broken: Mask) -> pd.DataFrame:
    """A frame read as latin-1 in its own encoding; rows that are none are marked in ``broken``."""
    fields: dict[str, list[str | None]] = {}
    for name in frame.columns:
        fields[name] = values = []
        for row, value in enumerate(frame[name].array):
            try:
                values.append(value.encode("latin-1").decode(encoding) if isinstance(value, str) else None)
            except UnicodeDecodeError:
                broken[row] = True
                values.append(None)
    return pd.DataFrame(fields, dtype=str)
