"""The identity of an archive as its server states it, without reading the archive.

A fingerprint is the letters of the validators that it is made of, a dash, and a short hash of their values: ``e`` the entity
tag, ``m`` the modification time, ``b`` the length in bytes, ``l`` the date that the publisher's listing gives. By itself a
strong entity tag counts alone (it changes whenever a byte does, and some servers move the other two without cause), and
without one the modification time and the length; a source may declare another choice. Equal validators give an equal
fingerprint on every machine and in every version of this program. Because it says what it is made of, the answer to a
download can be held against it without knowing the source. Where validators say nothing, the archive's own sha256 can take
their place, if it is known beforehand: ``s`` and its first digits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from pipeline.errors import DownloadRefused

LENGTH = 12
#: What a rule may name, and the letter that stands for it.
VALIDATORS = {"etag": "e", "last_modified": "m", "bytes": "b", "listing": "l"}
_PINNED = re.compile(rf"s-(?P<digits>[0-9a-f]{{{LENGTH}}})")
_FORM = re.compile(r"(?P<letters>[embl]+)-(?P<stated>[0-9a-f]{12}|0)(?P<listed>-[0-9a-f]{12})?")


def fingerprint(
    etag: str | None, last_modified: str | None, length: int | None, *, rule: Sequence[str] = (), listed: str | None = None
) -> str:
    """Return what identifies the archive that these validators describe, such as ``e-5f3a0c1b9d2e``.

    Args:
        etag: the ETag header, quotes included, or None.
        last_modified: the Last-Modified header as sent, or None.
        length: the archive's length in bytes, or None when the server does not say.
        rule: the validators that count, of :data:`VALIDATORS`; empty: a strong entity tag alone, else the modification time and the
            length, as far as they are stated, with a weak entity tag only where there is no modification time.
        listed: the date in the publisher's listing, or None.

    Raises:
        DownloadRefused: a validator that the rule names is not stated, or none at all, so that a change could not be noticed.
    """
    values = {"e": _canonical(etag), "m": _canonical(last_modified), "b": length, "l": _canonical(listed)}
    letters = "".join(VALIDATORS[name] for name in VALIDATORS if name in rule) or _usual(etag, values)
    if missing := [name for name, letter in VALIDATORS.items() if letter in letters and values[letter] is None]:
        raise _unknown(f"the server states no {', '.join(missing)}", f"{', '.join(rule)}, as the source's fingerprint rule says")
    stated = letters.replace("l", "")
    mark = f"{letters}-{_digest([values[letter] for letter in stated]) if stated else 0}"
    return f"{mark}-{_digest([values['l']])}" if "l" in letters else mark


def pinned(sha256: str) -> str:
    """The fingerprint of an archive that is known by its sha256 (hexadecimal, in either case), whatever a server states of it."""
    return f"s-{sha256.lower()[:LENGTH]}"


def is_vouched_for(mark: str, sha256: str | None) -> bool:
    """Whether a checksum that the bytes must have stands behind a fingerprint that compares no validators; true of all others."""
    return _PINNED.fullmatch(mark) is None or (sha256 is not None and mark == pinned(sha256))


def agrees(mark: str, etag: str | None, last_modified: str | None, length: int | None) -> bool:
    """Whether an answer with these validators is one of the archive that the fingerprint identifies.

    Only what the server states is compared; the listing's date is another request's business, and the bytes behind a
    fingerprint made of a sha256 are compared with that. A fingerprint in no known form agrees with nothing.
    """
    if _PINNED.fullmatch(mark):
        return True
    found = _FORM.fullmatch(mark)
    if found is None:
        return False
    stated = found["letters"].replace("l", "")
    if not stated:
        return True
    values = {"e": _canonical(etag), "m": _canonical(last_modified), "b": length}
    return _digest([values[letter] for letter in stated]) == found["stated"]


def _usual(etag: str | None, values: dict[str, str | int | None]) -> str:
    """The letters of the validators that count where the source declares none."""
    if values["e"] is not None and not (etag or "").strip().startswith("W/"):
        return "e"
    letters = "".join(letter for letter in ("m" if values["m"] is not None else "e", "b") if values[letter] is not None)
    if not letters:
        raise _unknown(
            "the server states neither ETag nor Last-Modified nor Content-Length", "at least one of them, to tell one release from the next"
        )
    return letters


def _unknown(seen: str, expected: str) -> DownloadRefused:
    return DownloadRefused(seen, expected, "correct the rule, or put a server in between that sends what is missing")


def _digest(values: list[str | int | None]) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode("utf-8")).hexdigest()[:LENGTH]


def _canonical(header: str | None) -> str | None:
    text = (header or "").strip().removeprefix("W/").strip()
    return text or None
