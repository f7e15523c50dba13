"""Whether a body is what the server announced, and what the probe saw.

A body that is shorter than announced, or that is an archive without its end, may be whole at the next attempt
(DownloadError). One that is something else under the archive's name will not (NotAnArchive). Where no length was announced,
or where the body was put together from several answers, the archive is read through: its checksums stand in for the
length. One whose validators differ from the probe's is another release (ReleaseChanged).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import requests

from pipeline.download.content import archive_kind, condition, first_bytes
from pipeline.download.fingerprint import agrees, fingerprint
from pipeline.download.redact import redact
from pipeline.errors import DownloadError, NotAnArchive, ReleaseChanged

#: More digits than any archive has bytes are no length (and Python refuses to read thousands of them).
_LENGTH = re.compile(r"[0-9]{1,18}")
_TRY_AGAIN = "nothing if it passes; else tell the publisher"


@dataclass(frozen=True)
class Stated:
    """What a response states: its validators, and the length of the bytes on the wire (None: not stated)."""

    etag: str | None
    last_modified: str | None
    length: int | None
    is_encoded: bool
    content_type: str
    date: str | None = None
    refuses_ranges: bool = False

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
            int(length) if _LENGTH.fullmatch(length) else None,
            encoding not in ("", "identity"),
            response.headers.get("Content-Type", "none stated"),
            response.headers.get("Date"),
            response.headers.get("Accept-Ranges", "").strip().lower() == "none",
        )

    @property
    def archive_length(self) -> int | None:
        """The archive's own length: that of an encoded body says nothing about it."""
        return None if self.is_encoded else self.length


class BrokenBody(DownloadError):
    """The bytes received are not the beginning of the archive: they are of no use to a later attempt."""


def check_body(path: Path, url: str, stated: Stated, wire_bytes: int, *, is_joined: bool = False) -> None:
    """Judge a received body by its length and its own bytes.

    Args:
        path: the body on disk.
        url: where it came from.
        stated: what was stated of the whole body.
        wire_bytes: bytes of it read from connections, before any content encoding was undone.
        is_joined: it was put together from several answers.

    Raises:
        DownloadError: it is shorter than announced, or an archive without its end; more may follow.
        BrokenBody: it is longer than announced, or as long, and has no end or does not read through.
        NotAnArchive: it is no zip, gzip, bzip2, xz or tar.
        ArchiveError: reading it through would have no end.
    """
    if stated.length is not None and wire_bytes != stated.length:
        kind_of_error = DownloadError if wire_bytes < stated.length else BrokenBody
        raise kind_of_error(f"{redact(url)} brought {wire_bytes} bytes", f"{stated.length} bytes, as announced", _TRY_AGAIN)
    if stated.length is None and path.stat().st_size == 0:
        raise DownloadError(f"{redact(url)} brought no byte and no length", "an archive", _TRY_AGAIN)
    kind = archive_kind(path)
    if kind is None:
        raise NotAnArchive(
            f"{redact(url)} brought {path.stat().st_size} bytes of content type {stated.content_type} "
            f"that begin with {first_bytes(path)}",
            "a zip, gzip, bzip2, xz or tar file",
            "open the URL in a browser: it is often a page that says why, or the archive has moved",
        )
    found = condition(path, kind, read_through=stated.length is None or is_joined)
    brought = f"{redact(url)} brought {path.stat().st_size} bytes of a {kind}"
    if found == "cut":
        raise (DownloadError if stated.length is None else BrokenBody)(f"{brought} without its end", f"a whole {kind}", _TRY_AGAIN)
    if found == "damaged":
        raise BrokenBody(f"{brought} that does not hold what its checksums say", f"a whole {kind}", _TRY_AGAIN)


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
