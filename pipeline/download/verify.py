"""Whether a body is what the server announced, and what the probe saw.

A body that is shorter than announced, or that is an archive without its end, may be whole at the next attempt
(DownloadError). One that is something else under the archive's name will not (NotAnArchive). One whose validators differ
from the probe's is another release (ReleaseChanged).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import requests

from pipeline.download.content import archive_kind, first_bytes, is_whole
from pipeline.download.fingerprint import agrees, fingerprint
from pipeline.download.redact import redact
from pipeline.errors import DownloadError, NotAnArchive, ReleaseChanged

_TRY_AGAIN = "nothing if it passes; else tell the publisher"


@dataclass(frozen=True)
class Stated:
    """What a response states: its validators, and the length of the bytes on the wire (None: not stated)."""

    etag: str | None
    last_modified: str | None
    length: int | None
    is_encoded: bool
    content_type: str

    @classmethod
    def by(cls, response: requests.Response) -> Self:
        """Read the headers of a response."""
        # A chunked body ends where its last chunk says; a length beside it does not count (RFC 9112, section 6.3).
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        length = "" if is_chunked else response.headers.get("Content-Length", "").strip()
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        return cls(
            response.headers.get("ETag"),
            response.headers.get("Last-Modified"),
            int(length) if length.isascii() and length.isdigit() else None,
            encoding not in ("", "identity"),
            response.headers.get("Content-Type", "none stated"),
        )

    @property
    def archive_length(self) -> int | None:
        """The archive's own length: that of an encoded body says nothing about it."""
        return None if self.is_encoded else self.length


def check_body(path: Path, url: str, stated: Stated, wire_bytes: int) -> None:
    """Judge a received body by its length and its own bytes.

    Args:
        path: the body on disk.
        url: where it came from.
        stated: the response's headers.
        wire_bytes: bytes read from the connection, before any content encoding was undone.

    Raises:
        DownloadError: it is shorter than announced, or an archive without its end.
        NotAnArchive: it is no zip, gzip or tar.
    """
    if stated.length is not None and wire_bytes != stated.length:
        raise DownloadError(f"{redact(url)} brought {wire_bytes} bytes", f"{stated.length} bytes, as announced", _TRY_AGAIN)
    if stated.length is None and path.stat().st_size == 0:
        raise DownloadError(f"{redact(url)} brought no byte and no length", "an archive", _TRY_AGAIN)
    kind = archive_kind(path)
    if kind is None:
        raise NotAnArchive(
            f"{redact(url)} brought {path.stat().st_size} bytes of content type {stated.content_type} "
            f"that begin with {first_bytes(path)}",
            "a zip, gzip or tar file",
            "open the URL in a browser: it is often a page that says why, or the archive has moved",
        )
    if not is_whole(path, kind, length_was_stated=stated.length is not None):
        seen = f"{redact(url)} brought {path.stat().st_size} bytes of a {kind} without its end"
        raise DownloadError(seen, f"a whole {kind}", _TRY_AGAIN)


def matching_fingerprint(url: str, stated: Stated, archive_bytes: int, expected: str | None) -> str:
    """Return the body's fingerprint: the expected one where it agrees, its own where none is expected.

    Raises:
        ReleaseChanged: the validators are not those that gave ``expected``.
    """
    if expected is None:
        return fingerprint(stated.etag, stated.last_modified, archive_bytes)
    if not agrees(expected, stated.etag, stated.last_modified, archive_bytes):
        raise ReleaseChanged(
            f"{redact(url)} came with ETag {stated.etag}, Last-Modified {stated.last_modified}, {archive_bytes} bytes",
            f"the validators that the probe saw (fingerprint {expected})",
            "nothing: the next probe takes the new release",
        )
    return expected
