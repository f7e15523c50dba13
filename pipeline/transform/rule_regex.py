r"""Regular expressions for whole columns: what RE2 passes, Python's ``re`` would pass as well.

Cerberus matches with ``re.match`` and ``$`` at the end. Arrow's RE2 is many times as fast but another engine: its ``\d`` is ASCII,
its ``$`` stands at the very end only. ``translated`` rewrites a pattern whose parts mean in RE2 the same or less than in Python,
and gives None for any other: look-arounds, flags, back references, ``\D``, an empty thing repeated without end. So a match by
RE2 is a match; what RE2 does not match must be shown to Python. A property test holds the two together.
"""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

#: What RE2 repeats at most.
_MOST_REPEATS: Final = 1000
_CLASS_ITEM = r"(?:\\[][\\^$.*+?(){}|/\-]|[^][\\\-\n&~|](?:-[A-Za-z0-9])?|-(?=\]))"
_TOKEN: Final = re.compile(
    rf"""
    (?P<letters>\\[dws])
  | (?P<literal>\\[][\\^$.*+?(){{}}|/\-"' ] | [A-Za-z0-9\ _,:;\#@!%&=<>~"'/\-])
  | (?P<any>\.)
  | (?P<class>\[(?:\^(?!\])|(?!\^))(?:\\[dws]|{_CLASS_ITEM})+\])
  | (?P<repeat>[*+?] | \{{(?P<least>[0-9]+)(?P<open>,(?P<most>[0-9]*))?\}})
  | (?P<begin>\((?:\?:)?)
  | (?P<end>\))
  | (?P<or>\|)
  | (?P<anchor>[\^$])
    """,
    re.VERBOSE,
)
_LETTERS: Final = {r"\d": "0-9", r"\w": "0-9A-Za-z_", r"\s": r"\t\n\f\r "}
_FIXED_DIGITS = re.compile(r"\^?(?:\\d|\[0-9\])\{([1-9][0-9]{0,2})\}\$?")


def anchored(pattern: str) -> str:
    """The pattern as Cerberus hands it to ``re.match``."""
    return pattern if pattern.endswith("$") else pattern + "$"


def fixed_digits(pattern: str) -> int | None:
    r"""How many digits a pattern such as ``^\d{13}$`` asks for and nothing else; None for any other pattern."""
    match = _FIXED_DIGITS.fullmatch(pattern)
    return int(match[1]) if match else None


def translated(pattern: str) -> str | None:
    r"""A pattern for ``pc.match_substring_regex`` that matches only what Python's ``re.match`` matches.

    >>> translated(r"^\d{3}-[A-Z]?$")
    '\\A(?:^[0-9]{3}-[A-Z]?$)'
    >>> translated(r"(?i)abc") is None
    True
    """
    body = _Translation(anchored(pattern)).body()
    if body is None:
        return None
    whole = rf"\A(?:{body})"
    try:
        pc.match_substring_regex(pa.array([""]), pattern=whole)
    except pa.ArrowInvalid:  # too large for RE2, or nothing to repeat
        return None
    return whole


class _Translation:
    """One walk over the tokens of a pattern; for each open group it knows whether all its ways take a character."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.pieces: list[str] = []
        #: For each open group: whether its finished ways all take a character, and whether the present one does.
        self.groups: list[list[bool]] = [[True, False]]
        #: Whether the thing before takes a character and is a group; None: there is nothing that could be repeated.
        self.last: tuple[bool, bool] | None = None

    def body(self) -> str | None:
        """The pattern rewritten, or None."""
        position = 0
        while position < len(self.pattern):
            token = _TOKEN.match(self.pattern, position)
            if token is None or not self._take(token):
                return None
            position = token.end()
        self._settle()
        return "".join(self.pieces) if len(self.groups) == 1 else None

    def _settle(self) -> None:
        """The thing before is not repeated: it counts as it is."""
        if self.last is not None:
            self.groups[-1][1] |= self.last[0]
            self.last = None

    def _take(self, token: re.Match[str]) -> bool:
        kind, text = token.lastgroup, token[0]
        if token["repeat"]:
            return self._repeat(token)
        self._settle()
        if kind == "letters":
            text = f"[{_LETTERS[text]}]"
        elif kind == "class":
            if text.startswith("[^") and re.search(r"(?<!\\)(?:\\\\)*\\[dws]", text):
                return False  # less inside of "not" would be more
            text = re.sub(r"\\(.)", lambda found: _LETTERS.get(found[0], found[0]), text)
        if kind in ("letters", "literal", "any", "class"):
            self.last = (True, False)
        elif kind == "begin":
            self.groups.append([True, False])
        elif kind == "end":
            if len(self.groups) == 1:
                return False
            finished, present = self.groups.pop()
            self.last = (finished and present, True)
        elif kind == "or":
            group = self.groups[-1]
            group[:] = [group[0] and group[1], False]
        self.pieces.append(text)
        return True

    def _repeat(self, token: re.Match[str]) -> bool:
        if self.last is None:
            return False
        takes, is_group = self.last
        least = int(token["least"]) if token["least"] else int(token["repeat"] == "+")
        most = int(token["most"] or least)
        # Engines differ on an empty thing that is repeated, and on what is repeated twice.
        if (is_group and not takes) or max(least, most) > _MOST_REPEATS:
            return False
        self.groups[-1][1] |= takes and least > 0
        self.last = None
        self.pieces.append(token["repeat"])
        return True
