"""A publisher's own listing of what it has: the JSON interface behind hcad.org/pdata.

Three questions: which tax years there are, whether a year is certified and when it was last updated, and where its files are. The
answers are read strictly: what is no JSON, has another shape, or gives one file two addresses is an error that shows what was
seen, because a listing that is half understood would make a release of half of the files. Rows of other tax years than the one
asked for are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from pipeline.download.redact import redact
from pipeline.errors import ListingError

_TODO = "open it in a browser; when the publisher has changed it, take the listing out of source.toml, and tell the project"
_SHOWN = 80


@dataclass(frozen=True)
class ListedYear:
    """What the listing says of a tax year; ``updated`` is the publisher's own text of a date (``September 20, 2026``)."""

    year: int
    is_listed: bool
    is_certified: bool | None = None
    updated: str | None = None

    def lacks(self, complete: Literal["listed", "dated", "certified"]) -> str | None:
        """Why the year does not count as complete; None: it does."""
        if not self.is_listed:
            return f"{self.year} is not in the listing"
        if complete == "dated" and self.updated is None:
            return f"the listing has no date for {self.year}"
        if complete == "certified" and not self.is_certified:
            return f"{self.year} is not certified"
        return None


class Listing:
    """Asks a listing.

    Args:
        url: its base URL, before ``/get-tax-years``.
        read: fetches a small document; ``DownloadManager.read_document``.
    """

    def __init__(self, url: str, read: Callable[[str], bytes]) -> None:
        self._url, self._read = url.rstrip("/"), read

    def state_of(self, year: int) -> ListedYear:
        """What is said of a tax year.

        Raises:
            ListingError: an answer cannot be read.
            DownloadError, DownloadRefused, AddressRefused: there is none.
        """
        url = f"{self._url}/get-tax-years"
        years = {_year(_text(row, "taxyears", url), url) for row in self._rows(url)}
        if year not in years:
            return ListedYear(year, is_listed=False)
        url = f"{self._url}/get-certification-flag?{urlencode({'t': year})}"
        rows = [row for row in self._rows(url) if _year(_text(row, "taxyear", url), url) == year]
        if not rows:
            return ListedYear(year, is_listed=True)
        flags = {_text(row, "certflg", url).strip().upper() for row in rows}
        dates = {_text(row, "lastUpdatedDate", url, default="").strip() for row in rows}
        if len(flags) > 1 or not flags <= {"Y", "N"} or len(dates) > 1:
            raise ListingError(f"{redact(url)} says {_shown(rows)}", f"one flag, Y or N, and one date for {year}", _TODO)
        return ListedYear(year, True, flags == {"Y"}, dates.pop() or None)

    def links(self, year: int, sections: Sequence[tuple[str, str]]) -> dict[str, str]:
        """The addresses of a tax year's files, by file name in lower case.

        Args:
            year: the tax year.
            sections: category and subcategory of each question.

        Raises:
            ListingError: an answer cannot be read, or a file has two addresses.
            DownloadError, DownloadRefused, AddressRefused: there is none.
        """
        found: dict[str, str] = {}
        for category, subcategory in sections:
            url = f"{self._url}/get-property-downloads?{urlencode({'t': year, 'c': category, 's': subcategory})}"
            for row in self._rows(url):
                if _year(_text(row, "taxYear", url), url) != year:
                    continue
                link = urljoin(url, _text(row, "downloadLink", url).strip())
                name = unquote(urlsplit(link).path.rpartition("/")[2]).lower()
                if not name:
                    raise ListingError(f"{redact(url)} links to {redact(link)}", "the address of a file", _TODO)
                if found.setdefault(name, link) != link:
                    raise ListingError(f"{name} of {year} is at {redact(found[name])} and at {redact(link)}", "one address a file", _TODO)
        return found

    def _rows(self, url: str) -> list[dict[str, Any]]:
        body = self._read(url)
        try:
            rows = json.loads(body.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            seen = f"{redact(url)} answered {len(body)} bytes that are no JSON ({type(error).__name__}), beginning with {body[:_SHOWN]!r}"
            raise ListingError(seen, "a JSON list of rows", _TODO) from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ListingError(f"{redact(url)} says {_shown(rows)}", "a JSON list of rows", _TODO)
        return rows


def _text(row: dict[str, Any], key: str, url: str, *, default: str | None = None) -> str:
    value = row.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ListingError(f"{redact(url)} has a row {_shown(row)}", f"a text under {key!r} in every row", _TODO)
    return value


def _year(text: str, url: str) -> int:
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) == 4):
        raise ListingError(f"{redact(url)} speaks of the tax year {text[:_SHOWN]!r}", "four digits", _TODO)
    return int(stripped)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
