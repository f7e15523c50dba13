"""Text and codes: control characters are met here, and normalisation begins here.

A control character is one of U+0000 to U+001F (C0). Where a column says ``controls = "blank"`` each of them, the tab among them,
becomes a blank and the text is trimmed again; otherwise a text with one is refused, but for a tab, which stays. U+007F and U+0080 to
U+009F stay in either case: PostgreSQL stores them like any other character. A line feed or a carriage return in a field is refused
with its line, before any column is seen. Codes of a boolean are compared as they are, case and all.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column
from pipeline.transform.coerced import BLANKS, Coerced, Mask, Refusal, TextReader
from pipeline.transform.normalize import Step, normalized_text, one_text
from pipeline.transform.octets import Octets, replaced, without

_TAB, _BLANK = 9, 32
_CONTROLS = re.compile(r"[\x00-\x1f]")
_REFUSED = re.compile(r"[\x00-\x08\x0a-\x1f]")
_NO_CODE: Final = 2


def text_reader(column: Column) -> TextReader:
    """The reader of one text of a text column.

    Raises:
        CatalogError: the column declares a step that this program does not know.
    """
    steps = [one_text(name) for name in column.normalize]

    def read(text: str) -> str | Refusal | None:
        if column.controls == "blank":
            text = _CONTROLS.sub(" ", text).strip(BLANKS)
            if not text or text in column.nulls:
                return None
        elif _REFUSED.search(text):
            return Refusal("control_character")
        return normalized_text(text, steps)

    return read


class TextTyper:
    """Types a text column: refuses control characters that are still there, and normalises."""

    def __init__(self, column: Column) -> None:
        """Make the steps; each has a bounded memory."""
        self._steps = [Step.of(step) for step in column.normalize]

    def __call__(self, seen: Octets, is_ascii: bool, has_controls: bool) -> Coerced:
        """Type a column whose declared nulls are NULL."""
        texts, refusals = seen.texts, dict[str, Mask]()
        if has_controls:
            is_bad = seen.rows_with((seen.octets < _BLANK) & (seen.octets != _TAB))
            if is_bad.any():
                texts, refusals = without(texts, is_bad), {"control_character": is_bad}
        for step in self._steps:
            texts, refused = step.apply(texts, is_ascii=is_ascii)
            for reason, mask in refused.items():
                refusals[reason] = refusals[reason] | mask if reason in refusals else mask
        return Coerced(texts, refusals, canonical=texts)


def blank_controls(seen: Octets) -> tuple[Octets, Mask]:
    """Put a blank for each control character and trim again; also which rows had one."""
    is_control = seen.octets < _BLANK
    rows = seen.rows_with(is_control)
    if not rows.any():
        return seen, rows
    octets = np.where(is_control, np.uint8(_BLANK), seen.octets)
    validity = seen.texts.buffers()[0]
    texts = pa.StringArray.from_buffers(len(seen), pa.py_buffer(seen.starts), pa.py_buffer(octets), validity)
    trimmed = pc.utf8_trim(texts.filter(pa.array(rows)), characters=BLANKS)
    trimmed = without(trimmed, pc.equal(trimmed, "").to_numpy(zero_copy_only=False))
    return Octets.of(replaced(texts, rows, trimmed)), rows


def code_reader(column: Column) -> TextReader:
    """The reader of one text of a boolean column."""
    codes = {code: False for code in column.false_codes} | {code: True for code in column.true_codes}
    return lambda text: codes.get(text, Refusal("not_a_code"))


class CodeTyper:
    """Types a boolean column: by a table of 256 where texts and codes are one byte, which is nearly always."""

    def __init__(self, column: Column) -> None:
        """Make the table."""
        codes = [(code, 0) for code in column.false_codes] + [(code, 1) for code in column.true_codes]
        self._codes = pa.array([code for code, _ in codes], pa.string())
        self._meanings = np.array([meaning for _, meaning in codes], np.uint8)
        self._by_byte = np.full(256, _NO_CODE, np.uint8)
        for code, meaning in codes:
            if len(code.encode()) == 1:
                self._by_byte[ord(code)] = meaning

    def __call__(self, seen: Octets, is_ascii: bool, has_controls: bool) -> Coerced:
        """Type a column whose declared nulls are NULL."""
        is_there = seen.is_there
        meanings = np.full(len(seen), _NO_CODE, np.uint8)
        if len(seen.octets) == int(is_there.sum()) and (seen.lengths <= 1).all():
            meanings[is_there] = self._by_byte[seen.octets]
        else:
            found = self._looked_up(seen.texts)
            meanings[found >= 0] = self._meanings[found[found >= 0]]
        is_code = meanings != _NO_CODE
        values = pa.array(meanings == 1, mask=~is_code)
        is_refused = is_there & ~is_code
        return Coerced(values, {"not_a_code": is_refused} if is_refused.any() else {})

    def _looked_up(self, texts: pa.StringArray) -> npt.NDArray[np.int32]:
        """The number of each text's code; -1: it is none."""
        found: npt.NDArray[np.int32] = pc.fill_null(pc.index_in(texts, value_set=self._codes), -1).to_numpy()
        return found


