"""One archive from one URL into its part: every attempt, and what each answer means for the bytes that are there.

An attempt asks for the rest of what is kept, if anything is, and for the whole otherwise. The answer decides: a rest that
fits is appended, a whole body replaces what was kept, a 416 may say that nothing is missing, a 304 that the archive at hand
is still the one. The sha256 is taken over the kept bytes as they are on the disk and over every byte that follows, so that
a body put together from ten answers has the sum of an undisturbed one. No byte is thrown away without an event.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import requests

from pipeline.download.fingerprint import agrees
from pipeline.download.part import PartFile
from pipeline.download.rate import RateFloor
from pipeline.download.redact import redact
from pipeline.download.request import Caller, HostSlots, place
from pipeline.download.resume import PartState, complete, joined, url_identity
from pipeline.download.verify import BrokenBody, Stated, check_body, matching_fingerprint
from pipeline.download.wanted import Fetched, Wanted
from pipeline.errors import DiskError, DownloadError, DownloadRefused, RefusedError, ReleaseChanged
from pipeline.handoff import OnEvent, Receipt

_PROGRESS_EVERY_S = 1.0
_NEXT_ATTEMPT = "nothing: the next attempt begins at the first byte"


class Bandwidth(Protocol):
    """A limit on bytes a second, shared by whoever holds it."""

    def take(self, bytes_count: int, *, left_s: float) -> None:
        """Account for bytes that were received, and sleep until the limit allows more, or for ``left_s`` seconds."""


@dataclass(frozen=True)
class Limits:
    """What a transfer may cost.

    ``max_bytes`` bounds the archive; ``unpack_factor`` times its length must be free on the disk besides the length itself;
    the peer must keep ``min_bytes_per_s`` over windows of ``rate_window_s`` seconds.
    """

    chunk_bytes: int
    max_bytes: int
    unpack_factor: float
    min_bytes_per_s: float
    rate_window_s: float


class Transfer:
    """The attempts at one URL.

    Args:
        caller: sends the requests.
        url: absolute.
        part: where the bytes go, locked by us.
        limits: see there.
        wanted: what the body must be, and the archive that may be kept if the server says so.
        fingerprint: the probe's; a body with other validators is another release.
        bandwidth: told of every byte.
        slots: asked for a place for every attempt.
        on_event: ``download.progress``, ``download.resume`` (url, bytes, total) and ``download.restart`` (url, bytes,
            reason), the bytes being those that were kept, or thrown away.
    """

    def __init__(
        self,
        caller: Caller,
        url: str,
        part: PartFile,
        limits: Limits,
        wanted: Wanted,
        *,
        fingerprint: str | None,
        bandwidth: Bandwidth | None,
        slots: HostSlots | None,
        on_event: OnEvent,
    ) -> None:
        self._caller, self._url, self._part, self._limits = caller, url, part, limits
        self._wanted, self._at_hand, self._fingerprint = wanted, wanted.at_hand, fingerprint
        self._has_begun, self._why_whole = False, ""
        self._bandwidth, self._slots, self._on_event = bandwidth, slots, on_event

    def attempt(self) -> Fetched:
        """Ask once, and bring the part to its end.

        Raises:
            DownloadError: it broke off, or what came is of no use; another attempt may do better.
            DownloadRefused: a status that no retry will change, or more bytes than allowed.
            AddressRefused: the URL leads where it may not.
            ReleaseChanged: the validators are not those of the probe.
            NotAnArchive: the body is something else.
            ArchiveError: the body has to be read through, and unpacks without end.
            ChecksumMismatch: the bytes are not those that were promised.
            DiskError: no room, or the disk failed.
        """
        with place(self._slots, self._url, self._caller.left_s):
            try:
                return self._attempt()
            except (BrokenBody, ReleaseChanged, RefusedError) as error:
                # What is kept may be another URL's, as long as this one has brought nothing.
                if self._has_begun:
                    self._restart(error.seen)
                raise
            finally:
                self._caller.hang_up()

    def _attempt(self) -> Fetched:
        kept = self._usable_state()
        kept_bytes = self._part.size if kept else 0
        usable, headers = {200, 404}, self._conditions()
        if self._at_hand is not None and headers:
            usable |= {304}
        if kept is not None:
            usable |= {206, 416}
            headers |= kept.range_headers(kept_bytes)
        with self._caller.send("GET", self._url, headers, usable=usable) as response:
            if response.status_code == 404:
                raise DownloadRefused(f"{redact(self._url)} answered 404", "200 OK", "correct the URL, or wait until it is published")
            if response.status_code == 304 and self._at_hand is not None:
                return _unchanged(self._at_hand)
            if response.status_code == 200 or kept is None:
                return self._whole(response)
            return self._rest(response, kept, kept_bytes)

    def _usable_state(self) -> PartState | None:
        """What is kept and can be gone on with; what cannot stays until the server sends something in its place."""
        self._why_whole = "the server sends it from the first byte"
        if self._part.size == 0:
            return None
        state = self._part.state()
        if state is None:
            self._why_whole = "nothing says what these bytes are"
        elif state.url_sha256 != url_identity(self._url):
            self._why_whole = "they are from another URL"
        elif state.length is not None and self._part.size > state.length:
            self._why_whole = f"the whole has {state.length}"
        elif self._fingerprint is not None and state.length is not None and not self._is_expected(state):
            self._why_whole = "they are of another release"
        else:
            return state
        return None

    def _is_expected(self, state: PartState) -> bool:
        return self._fingerprint is None or agrees(self._fingerprint, state.etag, state.last_modified, state.length)

    def _conditions(self) -> dict[str, str]:
        """The headers that spare us a body which we have."""
        if self._at_hand is None or self._at_hand.url != redact(self._url):
            return {}
        pairs = (("If-None-Match", self._at_hand.etag), ("If-Modified-Since", self._at_hand.last_modified))
        return {name: value for name, value in pairs if value}

    def _whole(self, response: requests.Response) -> Fetched:
        """A body from its first byte."""
        stated = Stated.by(response)
        self._check_before(stated, 0)
        self._has_begun = True
        self._restart(self._why_whole, PartState.of(self._url, stated))
        return self._take_in(response, stated, 0)

    def _rest(self, response: requests.Response, kept: PartState, kept_bytes: int) -> Fetched:
        """What follows the bytes kept, if that is what it is."""
        answer, header = Stated.by(response), response.headers.get("Content-Range")
        is_rest = response.status_code == 206
        stated = joined(kept, kept_bytes, answer, header) if is_rest else complete(kept, kept_bytes, answer, header)
        if isinstance(stated, str):
            self._restart(stated)
            raise DownloadError(f"{redact(self._url)} answered {response.status_code}: {stated}", "the rest", _NEXT_ATTEMPT)
        self._check_before(stated, kept_bytes)
        self._has_begun = True
        self._tell("download.resume", {"bytes": kept_bytes, "total": stated.length})
        return self._take_in(response if is_rest else None, stated, kept_bytes)

    def _check_before(self, stated: Stated, kept_bytes: int) -> None:
        """Refuse what the headers alone give away, before the first byte."""
        length = stated.archive_length
        if length is None:
            return
        if self._fingerprint is not None:
            matching_fingerprint(self._url, stated, length, self._fingerprint)
        self._check_size(length)
        needed, free = round(length * (1 + self._limits.unpack_factor)) - kept_bytes, self._part.free_bytes()
        if needed > free:
            raise DiskError(
                f"{self._part.path.parent} has {free} bytes free",
                f"{needed} bytes: {length - kept_bytes} to come of {redact(self._url)}, and {self._limits.unpack_factor:g} times its "
                "length to unpack it",
                "free space on that disk; the next run downloads",
            )

    def _check_size(self, bytes_count: int) -> None:
        if bytes_count > self._limits.max_bytes:
            raise DownloadRefused(
                f"{redact(self._url)} has {bytes_count} bytes or more",
                f"at most {self._limits.max_bytes} bytes",
                "see what the publisher put there; raise the limit if it is right",
            )

    def _take_in(self, response: requests.Response | None, stated: Stated, kept_bytes: int) -> Fetched:
        """Append the body to what is kept, and judge the whole; no response: nothing is missing."""
        digest, total = self._part.digest(), kept_bytes
        wire_bytes = kept_bytes
        if response is not None:
            floor = RateFloor(self._limits.min_bytes_per_s, self._limits.rate_window_s)
            told_at = time.monotonic()
            for chunk in self._caller.body(response, self._url, self._limits.chunk_bytes, floor):
                total += len(chunk)
                self._check_size(total)
                self._part.write(chunk)
                digest.update(chunk)
                if self._bandwidth is not None:
                    self._bandwidth.take(len(chunk), left_s=self._caller.left_s)
                if time.monotonic() - told_at >= _PROGRESS_EVERY_S:
                    told_at = time.monotonic()
                    self._tell("download.progress", {"bytes": total, "total": stated.archive_length})
            wire_bytes += response.raw.tell()
        check_body(self._part.path, self._url, stated, wire_bytes, is_joined=kept_bytes > 0)
        mark = matching_fingerprint(self._url, stated, total, self._fingerprint)
        fetched = Fetched(stated, digest.hexdigest(), total, mark, resumed_bytes=kept_bytes)
        self._wanted.check_sum(self._url, fetched)
        return fetched

    def _restart(self, reason: str, state: PartState | None = None) -> None:
        if self._part.size:
            self._tell("download.restart", {"bytes": self._part.size, "reason": reason})
        self._part.restart(state)

    def _tell(self, event: str, figures: Mapping[str, object]) -> None:
        self._on_event(event, {"url": redact(self._url), **figures})


def _unchanged(at_hand: Receipt) -> Fetched:
    stated = Stated(at_hand.etag, at_hand.last_modified, at_hand.bytes, False, "")
    return Fetched(stated, at_hand.sha256, at_hand.bytes, at_hand.fingerprint, is_unchanged=True)
