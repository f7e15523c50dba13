"""Each distinct text of a column is read once: the way for every text that no whole-column path takes.

A reader of one text is the meaning of a column; ``Distinct`` applies it to a column, calling it once for each text that
is not known yet. What it has read it remembers over chunks, up to a bound in texts and in their length, so that the memory of a
run does not grow with the member.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.transform.coerced import Coerced, Mask, Refusal, TextReader

#: Together at most a few megabytes a column.
MOST_TEXTS: Final = 20_000
MOST_CHARACTERS: Final = 64


class Distinct:
    """Reads columns of texts by a function of one text.

    Args:
        read: the function; it must give the same for the same text.
        target: the Arrow type of its values.
    """

    def __init__(self, read: TextReader, target: pa.DataType) -> None:
        """Begin without memory."""
        self._read = read
        self._target = target
        self._known: dict[str, Any] = {}

    def __call__(self, texts: pa.Array) -> Coerced:
        """Read a column.

        Args:
            texts: trimmed, none blank; NULL stays NULL.

        Returns:
            As many values as texts, and the refusals; nothing of ``changed`` or ``canonical``.
        """
        encoded = pc.dictionary_encode(texts)
        results = [self._value_of(text) for text in encoded.dictionary.to_pylist()]
        values = pa.array([None if isinstance(result, Refusal) else result for result in results], self._target)
        refusals: dict[str, Mask] = {}
        for reason in sorted({result.reason for result in results if isinstance(result, Refusal)}):
            is_refused = pa.array([isinstance(result, Refusal) and result.reason == reason for result in results])
            mask = pc.fill_null(is_refused.take(encoded.indices), False)
            refusals[reason] = mask.to_numpy(zero_copy_only=False)
        return Coerced(values.take(encoded.indices), refusals)

    def _value_of(self, text: str) -> Any:
        known = self._known
        if text in known:
            return known[text]
        value = self._read(text)
        if len(text) <= MOST_CHARACTERS:
            if len(known) >= MOST_TEXTS:
                known.clear()
            known[text] = value
        return value
