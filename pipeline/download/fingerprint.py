"""The identity of an archive as its server states it, without reading the archive.

The fingerprint is a short hash of the entity tag, the modification time and the length, in a canonical form: a weak tag's
``W/`` and blanks around a value do not count, an absent value differs from every present one. Equal validators give an
equal fingerprint on every machine and in every version of this program; a change of any of the three gives another.
"""

from __future__ import annotations

import hashlib
import json

from pipeline.errors import DownloadRefused

LENGTH = 12


def fingerprint(etag: str | None, last_modified: str | None, length: int | None) -> str:
    """Return 12 hexadecimal digits that identify what these validators describe.

    Args:
        etag: the ETag header, quotes included, or None.
        last_modified: the Last-Modified header as sent, or None.
        length: the archive's length in bytes, or None when the server does not say.

    Raises:
        DownloadRefused: none of the three is known, so that a change could not be noticed.
    """
    tag, modified = _canonical(etag), _canonical(last_modified)
    if tag is None and modified is None and length is None:
        raise DownloadRefused(
            "the server states neither ETag nor Last-Modified nor Content-Length",
            "at least one of them, to tell one release from the next",
            "ask the publisher for validators, or put a server in between that sends them",
        )
    document = json.dumps([tag, modified, length], separators=(",", ":"))
    return hashlib.sha256(document.encode("utf-8")).hexdigest()[:LENGTH]


def _canonical(header: str | None) -> str | None:
    text = (header or "").strip().removeprefix("W/").strip()
    return text or None
