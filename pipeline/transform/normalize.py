r"""Normalisation: the declared steps that bring a text to the one way in which it is to be compared and shown.

Each step is a function of one text, with examples that a test runs; what it cannot take it refuses with a reason of its own, and
never guesses. For a whole column a step has a short way for the texts that it leaves alone or that Arrow changes in the same
manner; the other texts go to the function, each distinct one once. Texts come trimmed and not empty, and a step leaves
no text empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.meta_schema import STEPS
from pipeline.errors import CatalogError
from pipeline.transform.coerced import Mask, Refusal
from pipeline.transform.distinct import Distinct
from pipeline.transform.octets import Octets, replaced, spread, without

_TAB, _BLANK, _HYPHEN, _ZERO, _ASCII = 9, 32, 45, 48, 128
_BLANK_RUN = re.compile("[ \t]+")
_ACCOUNT = re.compile(r"[0-9](?:[ \t-]*[0-9])*")
_PHONE = re.compile(r"(?:\+?1)?([0-9]{3})([0-9]{3})([0-9]{4})")
_PHONE_MARKS = str.maketrans("", "", " \t().-/")
_ZIP_CODE = re.compile(r"([0-9]{5})(?:[ -]?([0-9]{4})|-)?")
#: The first letter of a word; also a letter after one letter and an apostrophe, if another one follows (O'Neil, but People's).
_WORD = re.compile(r"(?<![\w'\u2019])\w|(?<=\b\w['\u2019])\w(?=\w)")

#: A text after a step, or why the step cannot take it.
OneText = Callable[[str], str | Refusal]
#: A column after what can be done at once, and the rows that the step's function must see.
Shortcut = Callable[[Octets, bool], tuple[pa.Array, Mask]]


def collapse_blanks(text: str) -> str:
    r"""Put one blank for each run of blanks and tabs.

    >>> collapse_blanks("CITY  OF \t HOUSTON")
    'CITY OF HOUSTON'
    """
    return _BLANK_RUN.sub(" ", text)


def upper(text: str) -> str:
    r"""Write every letter as a capital.

    >>> upper("Stra\u00dfe 5a")
    'STRASSE 5A'
    """
    return text.upper()


def lower(text: str) -> str:
    """Write every letter as a small one.

    >>> lower("Owner@Example.ORG")
    'owner@example.org'
    """
    return text.lower()


def title(text: str) -> str:
    """Begin each word with a capital; a word may begin with a digit and hold apostrophes.

    >>> title("1ST NATIONAL BANK-TRUST")
    '1st National Bank-Trust'
    >>> title("O'NEIL'S PEOPLE'S PARK")
    "O'Neil's People's Park"
    """
    return _WORD.sub(lambda match: match[0].title(), text.lower())


def strip_zeros(text: str) -> str:
    """Take off leading zeros, but for the last character.

    >>> strip_zeros("00012"), strip_zeros("0A"), strip_zeros("000")
    ('12', 'A', '0')
    """
    return text.lstrip("0") or "0"


def zero_pad(text: str, width: int) -> str:
    """Put zeros in front, up to so many characters; a longer text stays.

    >>> zero_pad("21000000001", 13), zero_pad("12345", 3)
    ('0021000000001', '12345')
    """
    return text.rjust(width, "0")


def account_number(text: str) -> str | Refusal:
    """Digits alone; blanks and hyphens between them are dropped.

    >>> account_number("001-002-000-0013")
    '0010020000013'
    >>> account_number("R12345"), account_number("1-"), account_number("-")
    (Refusal(reason='not_an_account_number'), Refusal(reason='not_an_account_number'), Refusal(reason='not_an_account_number'))
    """
    if _ACCOUNT.fullmatch(text) is None:
        return Refusal("not_an_account_number")
    return _BLANK_RUN.sub("", text).replace("-", "")


def phone(text: str) -> str | Refusal:
    """Ten digits of the North American plan, written alike; punctuation and the country code 1 are dropped.

    >>> phone("(713) 555-0100"), phone("+1 713.555.0100"), phone("7135550100")
    ('713-555-0100', '713-555-0100', '713-555-0100')
    >>> phone("555-0100"), phone("713-555-0100 x12")
    (Refusal(reason='not_a_phone'), Refusal(reason='not_a_phone'))
    """
    match = _PHONE.fullmatch(text.translate(_PHONE_MARKS))
    return f"{match[1]}-{match[2]}-{match[3]}" if match else Refusal("not_a_phone")


def zip_code(text: str) -> str | Refusal:
    """Five digits, or five and four with a hyphen; a hyphen with nothing behind it is dropped.

    >>> zip_code("77002"), zip_code("770021234"), zip_code("77002 1234"), zip_code("77002-")
    ('77002', '77002-1234', '77002-1234', '77002')
    >>> zip_code("7702"), zip_code("K1A 0B1")
    (Refusal(reason='not_a_zip_code'), Refusal(reason='not_a_zip_code'))
    """
    match = _ZIP_CODE.fullmatch(text)
    if match is None:
        return Refusal("not_a_zip_code")
    return f"{match[1]}-{match[2]}" if match[2] else match[1]


def one_text(name: str) -> OneText:
    """The function of a step that a schema file names: ``zero_pad:13`` or one of :data:`pipeline.catalog.meta_schema.STEPS`.

    Raises:
        CatalogError: there is none of that name.
    """
    width = _pad_width(name)
    if width is not None:
        return lambda text: zero_pad(text, width)
    if name not in _STEPS:
        raise CatalogError(f"normalize step {name!r}", f"{', '.join(STEPS)} or zero_pad:N", "correct the schema file")
    return _STEPS[name][0]


def _pad_width(name: str) -> int | None:
    match = re.fullmatch("zero_pad:([1-9][0-9]?)", name)
    return int(match[1]) if match else None


def normalized_text(text: str, steps: Sequence[OneText]) -> str | Refusal:
    """A trimmed text after some steps, in order: the meaning that whole columns follow."""
    for step in steps:
        value = step(text)
        if isinstance(value, Refusal):
            return value
        text = value
    return text


@dataclass(frozen=True)
class Step:
    """A step of ``normalize`` for columns: its function of one text, its short way, and what it remembers."""

    one: OneText
    shortcut: Shortcut
    distinct: Distinct

    @classmethod
    def of(cls, name: str) -> Step:
        """The step that a schema file names; CatalogError where there is none of that name."""
        one = one_text(name)
        width = _pad_width(name)
        return cls(one, _STEPS[name][1] if width is None else _pads(width), Distinct(one, pa.string()))

    def apply(self, texts: pa.StringArray, *, is_ascii: bool) -> tuple[pa.StringArray, dict[str, Mask]]:
        """The column after the step, NULL where refused, and the refusals by reason."""
        seen = Octets.of(texts)
        changed, rows = self.shortcut(seen, is_ascii)
        rows = rows & seen.is_there
        if not rows.any():
            return changed, {}
        read = self.distinct(seen.texts.filter(pa.array(rows)))
        return replaced(changed, rows, read.values), spread(rows, read.refusals)


def _blank_runs(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
    """Texts are trimmed, so that a blank followed by a blank is in one text."""
    octets = seen.octets
    is_run = octets == _TAB
    is_run[:-1] |= (octets[:-1] == _BLANK) & (octets[1:] == _BLANK)
    return seen.texts, seen.rows_with(is_run)


def _ascii_case(change: Callable[[pa.Array], pa.Array]) -> Shortcut:
    """Letters of ASCII are Arrow's; a text with another character is Python's, which knows letters that become two."""

    def shortcut(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
        others = np.zeros(len(seen), dtype=bool) if is_ascii else seen.rows_with(seen.octets >= _ASCII)
        return change(without(seen.texts, others) if others.any() else seen.texts), others

    return shortcut


def _pads(width: int) -> Shortcut:
    def shortcut(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
        pad = pc.ascii_lpad if is_ascii else pc.utf8_lpad
        return pad(seen.texts, width, "0"), np.zeros(len(seen), dtype=bool)

    return shortcut


def _leading_zeros(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
    is_long = seen.lengths > 1
    none = np.zeros(len(seen), dtype=bool)
    if not (seen.first_bytes(is_long) == _ZERO).any():
        return seen.texts, none
    stripped = pc.ascii_ltrim(seen.texts, "0")
    return pc.if_else(pc.equal(pc.binary_length(stripped), 0), "0", stripped), none


def _not_all_digits(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
    rows = np.zeros(len(seen), dtype=bool)
    rows[seen.rows_at(seen.not_digits)] = True
    return seen.texts, rows


def _not_yet_zip_codes(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
    places = seen.not_digits
    rows = seen.rows_at(places)
    is_plain = seen.lengths == 5
    is_plain[rows] = False
    # Ten bytes, of which one is no digit, and that is a hyphen in its place.
    is_hyphen = (seen.octets[places] == _HYPHEN) & (places - seen.starts[rows] == 5) & (seen.lengths[rows] == 10)
    is_plain[rows[is_hyphen]] = True
    is_plain[rows[~is_hyphen]] = False
    return seen.texts, ~is_plain


def _everything(seen: Octets, is_ascii: bool) -> tuple[pa.Array, Mask]:
    return seen.texts, np.ones(len(seen), dtype=bool)


_STEPS: Final[dict[str, tuple[OneText, Shortcut]]] = {
    "collapse_blanks": (collapse_blanks, _blank_runs),
    "upper": (upper, _ascii_case(pc.ascii_upper)),
    "lower": (lower, _ascii_case(pc.ascii_lower)),
    "title": (title, _everything),
    "strip_zeros": (strip_zeros, _leading_zeros),
    "account_number": (account_number, _not_all_digits),
    "phone": (phone, _everything),
    "zip_code": (zip_code, _not_yet_zip_codes),
}
