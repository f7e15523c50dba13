"""Going on where a download broke off: what is remembered of a part, and when its bytes may be used.

Beside a ``.part`` lies a small state file: the URL without its secrets, and what the server stated of the body. The bytes
are used only together with a condition that the server checks (``If-Range``): a strong entity tag, else a modification time
that is older than the answer it came with. What comes back is judged again here: only the very range that was asked for, of
a body with the same validators and length, is joined to what is there. Everything else means the beginning again, because
a file joined from two versions is worse than none.
"""

from __future__ import annotations

import email.utils
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pipeline.download.redact import redact
from pipeline.download.verify import Stated

_VERSION = 1
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE | re.ASCII)
_BEYOND = re.compile(r"bytes \*/(\d{1,18})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class PartState:
    """What the bytes of a part are the beginning of.

    ``url`` is redacted, for a person who looks; ``url_sha256`` is that of the URL without user name and password.
    """

    url: str
    url_sha256: str
    etag: str | None
    last_modified: str | None
    date: str | None
    length: int | None
    content_type: str
    version: int = _VERSION

    @classmethod
    def of(cls, url: str, stated: Stated) -> Self | None:
        """The state of a body that begins now; None where the server gives no means to go on later."""
        state = cls(
            redact(url), url_identity(url), stated.etag, stated.last_modified, stated.date, stated.length, stated.content_type
        )
        return None if stated.is_encoded or stated.refuses_ranges or state.if_range is None else state

    @classmethod
    def from_json(cls, document: Any) -> Self | None:
        """Read a state back; None where it is not one of this version, whatever it is instead."""
        if not isinstance(document, Mapping) or document.get("version") != _VERSION:
            return None
        try:
            state = cls(**document)
        except TypeError:
            return None
        texts = (state.etag, state.last_modified, state.date)
        is_typed = all(text is None or isinstance(text, str) for text in texts) and isinstance(state.content_type, str)
        has_length = state.length is None or (type(state.length) is int and state.length >= 0)
        return state if is_typed and has_length and state.if_range is not None else None

    @property
    def if_range(self) -> str | None:
        """The If-Range header: the entity tag if it is a strong one, else the modification time if it can serve as one.

        A body that was changed in the very second of the answer could be changed once more in that second: only an older
        modification time names one body and no other (RFC 9110, section 8.8.2.2). The comparison is between two headers of
        one answer; no local clock takes part.
        """
        if self.etag and self.etag.startswith('"'):
            return self.etag
        modified, answered = _seconds(self.last_modified), _seconds(self.date)
        return self.last_modified if modified is not None and answered is not None and modified < answered else None

    @property
    def stated(self) -> Stated:
        """What the server stated of the whole body."""
        return Stated(self.etag, self.last_modified, self.length, False, self.content_type, self.date)

    def range_headers(self, kept_bytes: int) -> dict[str, str]:
        """The headers that ask for the rest after ``kept_bytes``."""
        return {"Range": f"bytes={kept_bytes}-", "If-Range": self.if_range or ""}


def url_identity(url: str) -> str:
    """The sha256 of a URL without user name, password and fragment: a new password fetches the same archive."""
    try:
        split = urlsplit(url)
        public = urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, split.query, ""))
    except ValueError:
        public = ""  # Not a URL; it is refused before anything is asked.
    return hashlib.sha256(public.encode("utf-8", "surrogatepass")).hexdigest()


def joined(kept: PartState, kept_bytes: int, answer: Stated, content_range: str | None) -> Stated | str:
    """Judge a 206: return what is stated of the whole body, or the reason why its bytes are not joined to those kept."""
    found = _RANGE.fullmatch((content_range or "").strip())
    if found is None:
        return f"Content-Range {content_range!r} is no range"
    start, end = int(found[1]), int(found[2])
    length = kept.length if found[3] == "*" else int(found[3])
    if start != kept_bytes or length is None or end != length - 1:
        return f"Content-Range {content_range!r} is not what follows {kept_bytes} bytes"
    if answer.length is not None and answer.length != length - start:
        return f"Content-Length {answer.length} is not that of {content_range!r}"
    return _same_body(kept, answer, length)


def complete(kept: PartState, kept_bytes: int, answer: Stated, content_range: str | None) -> Stated | str:
    """Judge a 416: return what is stated of the whole body if all of it is there, else the reason why it is not."""
    found = _BEYOND.fullmatch((content_range or "").strip())
    if found is None or int(found[1]) != kept_bytes:
        return f"nothing follows {kept_bytes} bytes, says the server (Content-Range {content_range!r})"
    # The length and the type of a 416 are those of its own message.
    return _same_body(kept, replace(answer, is_encoded=False), kept_bytes)


def _same_body(kept: PartState, answer: Stated, length: int) -> Stated | str:
    if answer.is_encoded:
        return "a range of an encoded body"
    if kept.length is not None and kept.length != length:
        return f"the length is {length}, and was {kept.length}"
    for name, now, before in (("ETag", answer.etag, kept.etag), ("Last-Modified", answer.last_modified, kept.last_modified)):
        # A range may come without them: the condition that it was sent under names the body already.
        if now is not None and now != before:
            return f"{name} is {now}, and was {before}"
    return replace(kept.stated, length=length)


def _seconds(header: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(header or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
