"""Asking a publisher's server what it has, without fetching it.

A HEAD request tells an archive's validators; where the server does not answer HEAD (405, 501, 403), the first byte of a GET does. A
404 is an answer, not an error: not published yet. Small documents (a listing) are read here too, up to a size that a listing never
has. Addresses are judged, redirects followed and failures sorted and tried again exactly as for a download.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import tenacity

from pipeline.download.fingerprint import fingerprint as fingerprint_of
from pipeline.download.fingerprint import pinned
from pipeline.download.rate import RateFloor
from pipeline.download.redact import redact
from pipeline.download.request import Caller, HostSlots, place
from pipeline.download.verify import Stated
from pipeline.errors import ListingError

MAX_DOCUMENT_BYTES = 4 << 20
#: How servers say that HEAD is not for them; S3-like ones answer 403 to a HEAD for which they let a GET through.
HEAD_NOT_ALLOWED = frozenset({403, 405, 501})
_PIECE_BYTES, _WINDOW_S = 65_536, 30.0
_TOTAL = re.compile(r"bytes 0-0/(\d{1,18})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Probe:
    """What a server says of an archive without sending it.

    ``url`` is redacted. ``status`` is ``missing`` when the server answers 404, and ``refused`` when it will not say and the
    caller can do without the archive (``reason`` has its words); then the other fields are None. ``listed`` is the date in
    the publisher's listing. ``instead_of`` is the publisher's own address where ``url`` is a mirror's that was asked in its
    place; ``reason`` then says why.
    """

    url: str
    status: Literal["found", "missing", "refused"]
    etag: str | None = None
    last_modified: str | None = None
    bytes: int | None = None
    fingerprint: str | None = None
    listed: str | None = None
    reason: str | None = None
    instead_of: str | None = None


class Prober:
    """Sends the requests of a probe.

    Args:
        begin: gives, for a URL, who sends the requests of one probe, and the attempts; the manager's own policy.
        slots: asked for a place at the host for every attempt, as for a download.
    """

    def __init__(self, begin: Callable[[str], tuple[Caller, tenacity.Retrying]], slots: HostSlots | None = None) -> None:
        self._begin, self._slots = begin, slots

    def probe(self, url: str, *, rule: Sequence[str] = (), listed: str | None = None, checksum: str | None = None) -> Probe:
        """Ask for an archive's validators; the arguments and errors are those of the manager's own."""
        caller, attempts = self._begin(url)
        with caller:
            for attempt in attempts:
                with attempt, place(self._slots, url, caller.left_s):
                    stated = _ask(caller, url)
                    if stated is None:
                        return Probe(redact(url), "missing", listed=listed)
                    length = stated.archive_length
                    if checksum is not None:
                        mark = pinned(checksum)
                    else:
                        mark = fingerprint_of(stated.etag, stated.last_modified, length, rule=rule, listed=listed)
                    return Probe(redact(url), "found", stated.etag, stated.last_modified, length, mark, listed)
        raise AssertionError("tenacity ended without an outcome")

    def read(self, url: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Read a small document whole.

        Raises:
            DownloadError, DownloadRefused, AddressRefused: as for a probe.
            ListingError: the server answers 404, or the document is longer than ``max_bytes``.
        """
        caller, attempts = self._begin(url)
        with caller:
            for attempt in attempts:
                with attempt, place(self._slots, url, caller.left_s), caller.send("GET", url) as response:
                    if response.status_code == 404:
                        raise ListingError(f"{redact(url)} answered 404", "a document", "correct the listing's URL in source.toml")
                    body = bytearray()
                    for chunk in caller.body(response, url, _PIECE_BYTES, RateFloor(0, _WINDOW_S)):
                        body += chunk
                        if len(body) > max_bytes:
                            raise ListingError(f"{redact(url)} is longer than {max_bytes} bytes", "a listing", "open it in a browser")
                    return bytes(body)
        raise AssertionError("tenacity ended without an outcome")


def _ask(caller: Caller, url: str) -> Stated | None:
    """What the server states of an archive; None: it has none."""
    with caller.send("HEAD", url, usable=frozenset({200, 404}) | HEAD_NOT_ALLOWED) as response:
        if response.status_code not in HEAD_NOT_ALLOWED:
            return None if response.status_code == 404 else Stated.by(response)
    # The body is not read: of a server that ignores the range, only what is on the way already is thrown away.
    with caller.send("GET", url, {"Range": "bytes=0-0"}, usable=frozenset({200, 206, 404})) as response:
        if response.status_code == 404:
            return None
        stated = Stated.by(response)
        return stated if response.status_code == 200 else replace(stated, length=total_of(response.headers.get("Content-Range", "")))


def total_of(content_range: str) -> int | None:
    """The length of the whole archive, as the Content-Range of a 206 to a request for its first byte states it."""
    found = _TOTAL.fullmatch(content_range.strip())
    return int(found[1]) if found else None
