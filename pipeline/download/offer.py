"""What a source offers for a tax year, and which tax year's offer is taken.

A tax year is complete when every required archive is there and the listing, where the source has one, says what the source asks
of it. ``strict`` takes the year that was asked for or none; ``newest`` takes the newest complete one up to it. Whatever is taken is of
one year: an archive that a year lacks is never filled in from another. Nothing is fetched, and nothing is decided by the clock.
Where the publisher's server does not answer, or answers with nothing but server errors, the source's mirrors are asked, as
:mod:`pipeline.download.mirror` says; a refusal or a 404 is an answer. A listing has no mirrors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.catalog.model import Archive, Source
from pipeline.download.listing import ListedYear, Listing
from pipeline.download.mirror import Known, KnownOf, by_pin, nothing_known, unanswered, why_not
from pipeline.download.probe import Probe
from pipeline.download.redact import redact
from pipeline.errors import AddressRefused, DownloadError, DownloadRefused, ReleaseChanged
from pipeline.handoff import OnEvent, ignore
from pipeline.releases import ArchiveIdentity


class Downloads(Protocol):
    """What is asked of the download stage: :class:`pipeline.download.manager.DownloadManager`."""

    def probe(self, url: str, *, rule: Sequence[str] = (), listed: str | None = None, checksum: str | None = None) -> Probe:
        """Ask for an archive's validators."""
        ...

    def read_document(self, url: str) -> bytes:
        """Read a small document whole."""
        ...


@dataclass(frozen=True)
class YearOffer:
    """What there is of a tax year.

    Attributes:
        year: the tax year.
        archives: the answer for each archive that was asked for.
        fallbacks: the answer for each fallback file that was asked for, by its archive.
        listed: what the listing says; None: the source has none.
        lacks: why the year is not complete; empty: it is.
        missing: the required archives that are not there.
    """

    year: int
    archives: Mapping[str, Probe] = field(default_factory=dict)
    fallbacks: Mapping[str, Probe] = field(default_factory=dict)
    listed: ListedYear | None = None
    lacks: str = ""
    missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether a release can be made of it."""
        return not self.lacks

    @property
    def fingerprints(self) -> dict[str, str]:
        """The identity of each archive that is there; one that has a fallback is identified by both."""
        found = {}
        for name, probe in self.archives.items():
            if probe.fingerprint is not None:
                fallback = self.fallbacks.get(name)
                found[name] = str(ArchiveIdentity(probe.fingerprint, fallback=fallback.fingerprint if fallback else None))
        return found


@dataclass(frozen=True)
class Choice:
    """Which tax year was taken, and what else was looked at on the way, newest first; ``taken`` None: nothing is complete."""

    policy: str
    asked: int
    considered: tuple[YearOffer, ...]
    taken: YearOffer | None


def choose(
    downloads: Downloads, source: Source, asked: int, *, known: KnownOf = nothing_known, on_event: OnEvent = ignore
) -> Choice:
    """Look at what there is, by the source's policy.

    Args:
        downloads: the download stage.
        source: the source.
        asked: the tax year that was asked for.
        known: what was offered last of a tax year: mirrors speak for nothing else.
        on_event: is told ``probe.mirror`` (url, error, answered) where a mirror answered in the publisher's place.

    Raises:
        DownloadError, AddressRefused, ListingError: what there is could not be found out.
        DownloadRefused: likewise; for an archive that a release can do without it is noted instead.
    """
    rule = source.probe
    reach = rule.lookback_years if rule.year_policy == "newest" else 0
    considered: list[YearOffer] = []
    for year in range(asked, asked - reach - 1, -1):
        if year != asked and not source.tables_for(year):
            continue
        considered.append(survey(downloads, source, year, known=known, on_event=on_event))
        if considered[-1].is_complete:
            return Choice(rule.year_policy, asked, tuple(considered), considered[-1])
    return Choice(rule.year_policy, asked, tuple(considered), None)


def survey(
    downloads: Downloads, source: Source, year: int, *, known: KnownOf = nothing_known, on_event: OnEvent = ignore
) -> YearOffer:
    """Ask for every archive of a tax year, in the order of the source's file; the arguments are those of :func:`choose`.

    Raises:
        DownloadError, DownloadRefused, AddressRefused, ListingError: as for :func:`choose`.
    """
    places = Places(downloads, source, year, known=known, on_event=on_event)
    if places.listed and (lacks := places.listed.lacks(source.probe.listing_complete)):
        # The listing has the last word: what may lie at an archive's address already is not offered yet.
        return YearOffer(year, listed=places.listed, lacks=lacks, missing=_required(source, year))
    archives, fallbacks = {}, {}
    for archive in source.archives_for(year):
        archives[archive.name] = places.probe(archive)
        if archive.fallback is not None and archives[archive.name].status == "found":
            fallbacks[archive.name] = places.probe(archive, is_fallback=True)
    missing = tuple(name for name in _required(source, year) if archives[name].status != "found")
    is_empty = not any(probe.status == "found" for probe in archives.values())
    lacks = f"no {', '.join(missing)}" if missing else "no archive" if is_empty else ""
    return YearOffer(year, archives, fallbacks, places.listed, lacks, missing)


def _required(source: Source, year: int) -> tuple[str, ...]:
    return tuple(archive.name for archive in source.archives_for(year) if archive.required)


class Places:
    """Where the archives of a source's tax year are: by the listing where there is one, else below the base URL.

    Args:
        downloads: the download stage.
        source: the source.
        year: the tax year.
        known: what was offered last of a tax year.
        on_event: as for :func:`choose`.

    Raises:
        ListingError, DownloadError, DownloadRefused, AddressRefused: the listing cannot be read.
    """

    def __init__(
        self, downloads: Downloads, source: Source, year: int, *, known: KnownOf = nothing_known, on_event: OnEvent = ignore
    ) -> None:
        self._downloads, self._source, self._year = downloads, source, year
        self._known, self._on_event = known, on_event
        self.listed: ListedYear | None = None
        self._links: dict[str, str] = {}
        if source.probe.listing:
            listing = Listing(source.probe.listing, downloads.read_document)
            self.listed = listing.state_of(year)
            if self.listed.is_listed:
                self._links = listing.links(year, source.probe.listing_sections)

    def url(self, archive: Archive, *, is_fallback: bool = False) -> str | None:
        """An archive's address; None: the listing does not link to it."""
        url = self._source.url(archive, self._year, is_fallback=is_fallback)
        if self.listed is None:
            return url
        others = () if is_fallback else self._source.other_urls(archive, self._year)
        linked = (self._links.get(name.rpartition("/")[2].lower()) for name in (url, *others))
        return next((link for link in linked if link is not None), None)

    def other_urls(self, archive: Archive, *, is_fallback: bool = False) -> tuple[str, ...]:
        """Where an archive may lie besides, on the publisher's server; a listing knows where it does."""
        return () if is_fallback or self.listed is not None else self._source.other_urls(archive, self._year)

    def require_url(self, archive: Archive, *, is_fallback: bool = False) -> str:
        """An archive's address.

        Raises:
            ReleaseChanged: the listing does not link to it any more.
        """
        url = self.url(archive, is_fallback=is_fallback)
        if url is None:
            seen = f"the listing has no {archive.name} of {self._year} any more"
            raise ReleaseChanged(seen, "what the probe saw in it", "nothing: the next run probes again")
        return url

    def mirrors(self, archive: Archive, *, is_fallback: bool = False) -> tuple[str, ...]:
        """The archive's addresses on the source's mirrors."""
        return tuple(self._source.url(archive, self._year, is_fallback=is_fallback, mirror=base) for base in self._source.mirrors)

    def probe(self, archive: Archive, *, is_fallback: bool = False) -> Probe:
        """Ask for an archive's validators, of the publisher or, where it does not answer, of a mirror that can speak for it.

        Raises:
            DownloadError, AddressRefused: as for the download; a DownloadError says since when what is here is the last good one.
            DownloadRefused: likewise, of an archive that a release cannot do without.
        """
        url, listed = self.url(archive, is_fallback=is_fallback), self.listed.updated if self.listed else None
        if url is None:
            expected = self._source.url(archive, self._year, is_fallback=is_fallback)
            return Probe(redact(expected), "missing", listed=listed, reason="the listing does not link to it")
        try:
            seen = self._downloads.probe(url, rule=self._source.probe.fingerprint, listed=listed)
            for other in self.other_urls(archive, is_fallback=is_fallback) if seen.status == "missing" else ():
                found = self._downloads.probe(other, rule=self._source.probe.fingerprint, listed=listed)
                if found.status == "found":
                    return found
            return seen
        except DownloadRefused as error:
            if archive.required and not is_fallback:
                raise
            return Probe(redact(url), "refused", listed=listed, reason=str(error))
        except DownloadError as error:
            return self._from_a_mirror(archive, url, error, is_fallback=is_fallback)

    def _from_a_mirror(self, archive: Archive, url: str, error: DownloadError, *, is_fallback: bool) -> Probe:
        """The first mirror's answer that can stand for the publisher's.

        Raises:
            DownloadError: there is none.
        """
        known: Known | None = self._known(self._year)
        which, failures = (archive.name, is_fallback), [error.seen]
        pin = None if is_fallback else archive.sha256.get(self._year)
        listed = self.listed.updated if self.listed else None
        for mirror in self.mirrors(archive, is_fallback=is_fallback):
            try:
                seen = self._downloads.probe(mirror, rule=self._source.probe.fingerprint, listed=listed, checksum=pin)
            except (DownloadError, DownloadRefused, AddressRefused) as refusal:
                failures.append(refusal.seen)
                continue
            if pin is not None:
                seen = by_pin(seen, known, which, pin)
            reason = None if pin is not None and seen.status == "found" else why_not(seen, known, which)
            if reason is None:
                self._on_event("probe.mirror", {"url": redact(url), "error": str(error), "answered": seen.url})
                return replace(seen, reason=str(error), instead_of=redact(url))
            failures.append(reason)
        raise DownloadError(*unanswered(failures, error, known.get(which) if known else None)) from error
