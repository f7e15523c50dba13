"""Brings archives from a publisher's server to disk: the right bytes, or an error that says why not.

A file stands under its name only after every byte arrived, its length, kind and checksum held, and it was made durable;
whatever fails on the way leaves the archive that was there before. Transient failures are tried again, from where they
broke off if the server allows it; those that no retry will change are not. Where a URL fails for good its mirrors are
asked. An archive that is at hand, whole by its own receipt, is not fetched again while the server says that it is still the
one. A body whose validators are not those of the probe stops the download, so that a release is never Monday's owners with
Tuesday's buildings.
"""

from __future__ import annotations

import concurrent.futures
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import tenacity

from pipeline.download.address import AddressRule
from pipeline.download.part import PartFile, claim_part
from pipeline.download.probe import Probe, Prober
from pipeline.download.redact import redact
from pipeline.download.request import Caller, HostSlots
from pipeline.download.retry import Deadline, RetryPolicy
from pipeline.download.transfer import Bandwidth, Limits, Transfer
from pipeline.download.wanted import Fetched, Wanted, sha256_of
from pipeline.errors import ConfigurationError, DownloadError, PipelineError, RefusedError, ReleaseChanged
from pipeline.handoff import OnEvent, Receipt, ignore

__all__ = ["Bandwidth", "DownloadManager", "FileSpec", "HostSlots", "Probe"]

PROBE_RETRIES = 3
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class FileSpec:
    """One file of a batch; the fields are :meth:`DownloadManager.download_file`'s parameters."""

    url: str
    dest_path: Path
    checksum: str | None = None
    fingerprint: str | None = None
    mirrors: tuple[str, ...] = ()
    force: bool = False
    last_good: Receipt | None = None
    max_retries: int = 3


class DownloadManager:
    """Probes and downloads archives.

    Args:
        timeout_s: seconds to connect, and seconds without a byte, after which an attempt has failed; an answer's headers must
            be there after both together.
        allow_addresses: networks (CIDR) that are allowed besides public addresses, over https and http.
        chunk_bytes: bytes read, hashed and written at a time, at most.
        backoff_s: the first wait's upper end in seconds; it doubles with every retry, up to ``max_wait_s``.
        max_wait_s: seconds.
        retry_after_cap_s: the longest wait, in seconds, that a server may ask for; one that asks for more ends the download.
        deadline_s: seconds after which a download, with its waits and mirrors, is given up.
        min_bytes_per_s: what a peer must send on the average of every window of ``rate_window_s``; 0: anything goes.
        rate_window_s: seconds spent waiting for the peer; what a bandwidth limit takes does not count.
        max_bytes: the largest archive that is accepted.
        unpack_factor: how many times an archive's length must be free on the disk besides the length itself.
        allow_http: public addresses may be asked over plain http, too.
        bandwidth: told of every byte received; sleeps as long as it must.
        slots: asked for a place for every attempt of a download, a probe or a document.
        on_event: is told ``download.progress`` (url, bytes, total; at most one a second), ``download.retry`` (url,
            attempt, error, wait_s), ``download.resume`` (url, bytes, total), ``download.restart`` (url, bytes, reason),
            ``download.mirror`` (url, error, next), ``download.altered`` (url, fingerprint, sha256, earlier_sha256), and
            ``download.done`` or ``download.unchanged`` (url, file, bytes, sha256, seconds, requests_made, attempts,
            resumed_bytes).

    Raises:
        ConfigurationError: ``allow_addresses`` holds what is no network, or a figure is negative.
    """

    def __init__(
        self,
        *,
        timeout_s: tuple[float, float] = (10.0, 60.0),
        allow_addresses: Sequence[str] = (),
        chunk_bytes: int = 1 << 20,
        backoff_s: float = 0.5,
        max_wait_s: float = 30.0,
        retry_after_cap_s: float = 120.0,
        deadline_s: float = 4 * 3600.0,
        min_bytes_per_s: float = 4096.0,
        rate_window_s: float = 60.0,
        max_bytes: int = 16 << 30,
        unpack_factor: float = 5.0,
        allow_http: bool = False,
        bandwidth: Bandwidth | None = None,
        slots: HostSlots | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self._timeout_s = timeout_s
        self._rule = AddressRule(allow_addresses, allow_http=allow_http)
        self._retry = RetryPolicy(backoff_s, max_wait_s, retry_after_cap_s)
        self._deadline_s = deadline_s
        self._limits = Limits(chunk_bytes, max_bytes, unpack_factor, min_bytes_per_s, rate_window_s)
        self._bandwidth, self._slots = bandwidth, slots
        self._on_event = on_event
        _check_not_negative(self._retry, self._limits, deadline_s)
        self._prober = Prober(self._probing, slots)

    def probe(self, url: str, *, rule: Sequence[str] = (), listed: str | None = None, checksum: str | None = None) -> Probe:
        """Ask for an archive's validators without fetching it; transient failures are tried again three times.

        Args:
            url: of the archive.
            rule: the validators that make the fingerprint; see :func:`pipeline.download.fingerprint.fingerprint`.
            listed: the date in the publisher's listing.
            checksum: the sha256 that the archive must have: it is the fingerprint then, whatever the server states.

        Raises:
            DownloadError: no answer, or only server errors, in all attempts.
            DownloadRefused: a status that no retry will change, or a validator that is needed is not stated.
            AddressRefused: the URL leads where it may not.
        """
        return self._prober.probe(url, rule=rule, listed=listed, checksum=checksum)

    def read_document(self, url: str) -> bytes:
        """Read a small document, such as a listing, whole (at most 4 MiB).

        Raises:
            DownloadError, DownloadRefused, AddressRefused: as for :meth:`probe`.
            ListingError: there is none, or it is longer.
        """
        return self._prober.read(url)

    def download_file(
        self,
        url: str,
        dest_path: Path,
        checksum: str | None = None,
        max_retries: int = 3,
        *,
        fingerprint: str | None = None,
        mirrors: Sequence[str] = (),
        force: bool = False,
        last_good: Receipt | None = None,
    ) -> Receipt:
        """Download an archive to ``dest_path``, replacing what is there only when all is well.

        Where an archive and its receipt (see :func:`pipeline.handoff.receipt_path`; the caller writes it) are there and agree,
        the server is asked only for what changed since.

        Args:
            url: https, or http where it is allowed; credentials in it are sent, and redacted in the receipt, in events and in errors.
            dest_path: the archive's final name; ``<dest_path>.part`` is written meanwhile, by one process at a time, and kept
                with ``<dest_path>.part.json`` for the next attempt after a failure that may pass.
            checksum: the sha256 that the bytes must have, 64 hexadecimal digits.
            max_retries: further attempts at each URL after the first one has failed in a way that may pass.
            fingerprint: the probe's; the body must come with the same validators. With a checksum, a mirror's need not be.
            mirrors: further URLs of the same archive, asked in this order when ``url`` has failed for good.
            force: fetch every byte again, and accept other bytes under the validators of an earlier receipt.
            last_good: the receipt of the archive that stays in use when this fails; default: the one beside ``dest_path``.

        Raises:
            DownloadError: connection, time-out, server error or short body in every attempt, or another process downloads it.
            DownloadRefused: a status that no retry will change, or an archive of more than ``max_bytes``.
            AddressRefused: the URL leads where it may not.
            ReleaseChanged: the archive is not the one that was probed, or was probed by another checksum.
            NotAnArchive: the body is no zip, gzip, bzip2, xz or tar.
            ArchiveError: the body has to be read through, and unpacks without end.
            ChecksumMismatch: the bytes are not those of ``checksum``.
            ArchiveAltered: the bytes are not those of an earlier receipt, although the validators are.
            DiskError: too little room, or writing failed; not retried.
            ConfigurationError: ``checksum`` is no sha256, or ``max_retries`` is negative.
        """
        _check_arguments(checksum, max_retries)
        started, deadline = time.monotonic(), Deadline(self._deadline_s)
        with claim_part(dest_path.with_name(f"{dest_path.name}.part")) as part, self._caller(deadline) as caller:
            wanted = Wanted.of((url, *mirrors), dest_path, checksum, fingerprint, last_good, force=force)
            url, fetched, attempts = self._from_first_that_has_it(caller, part, wanted, max_retries, deadline)
            if fetched.is_unchanged and wanted.at_hand is not None:
                receipt = replace(wanted.at_hand, requests_made=caller.requests_made, attempts=attempts, resumed_bytes=0)
            else:
                self._on_altered(url, fetched, wanted)
                part.publish(dest_path)
                mark = fingerprint or fetched.fingerprint
                receipt = _receipt(url, dest_path, fetched, mark, caller.requests_made, attempts)
        self._tell_done(receipt, fetched, started)
        return receipt

    def download_batch(self, file_specs: Sequence[FileSpec], max_parallel: int = 3) -> list[Receipt | PipelineError]:
        """Download several archives, up to ``max_parallel`` at a time; one that fails stops no other.

        Returns:
            In the order of ``file_specs``: the receipt, or the error that :meth:`download_file` raised.
        """

        def one(spec: FileSpec) -> Receipt | PipelineError:
            try:
                return self.download_file(
                    spec.url, spec.dest_path, spec.checksum, spec.max_retries,
                    fingerprint=spec.fingerprint, mirrors=spec.mirrors, force=spec.force, last_good=spec.last_good,
                )  # fmt: skip
            except PipelineError as error:
                return error

        with concurrent.futures.ThreadPoolExecutor(max_workers=max_parallel) as pool:
            return list(pool.map(one, file_specs))

    def verify_checksum(self, file_path: Path, expected_hash: str) -> bool:
        """Whether a file has this sha256 (hexadecimal, in either case); read in chunks.

        Raises:
            ConfigurationError: ``expected_hash`` is no sha256.
            FileNotFoundError: there is no such file.
        """
        _check_arguments(expected_hash, 0)
        return sha256_of(file_path) == expected_hash.lower()

    def _probing(self, url: str) -> tuple[Caller, tenacity.Retrying]:
        """Who sends a probe's requests, and how often."""
        deadline = Deadline(self._deadline_s)
        return self._caller(deadline), self._retry.attempts(url, PROBE_RETRIES, deadline, self._on_event)

    def _caller(self, deadline: Deadline) -> Caller:
        return Caller(self._rule, self._timeout_s, deadline, self._retry.retry_after_cap_s)

    def _from_first_that_has_it(
        self, caller: Caller, part: PartFile, wanted: Wanted, max_retries: int, deadline: Deadline
    ) -> tuple[str, Fetched, int]:
        """The URL that brought the archive, what it brought, and the attempts at all URLs."""
        failures: list[PipelineError] = []
        attempts = 0
        for number, url in enumerate(wanted.urls):
            transfer = Transfer(
                caller, url, part, self._limits, wanted, fingerprint=wanted.fingerprint_at(number),
                bandwidth=self._bandwidth, slots=self._slots, on_event=self._on_event,
            )  # fmt: skip
            try:
                for attempt in self._retry.attempts(url, max_retries, deadline, self._on_event):
                    attempts += 1
                    with attempt:
                        fetched = transfer.attempt()
                return url, fetched, attempts
            except (DownloadError, RefusedError, ReleaseChanged) as error:
                # The publisher's own server has another release: a mirror could only have the one that is gone.
                if number == 0 and isinstance(error, ReleaseChanged):
                    raise
                failures.append(error)
                if number + 1 < len(wanted.urls):
                    following = redact(wanted.urls[number + 1])
                    self._on_event("download.mirror", {"url": redact(url), "error": str(error), "next": following})
        raise wanted.failure(failures)

    def _on_altered(self, url: str, fetched: Fetched, wanted: Wanted) -> None:
        """Report bytes that changed although the validators did not; refuse them unless somebody vouches for them."""
        for earlier in wanted.altered_by(fetched):
            figures = {"url": redact(url), "sha256": fetched.sha256, "earlier_sha256": earlier.sha256}
            self._on_event("download.altered", {**figures, "fingerprint": earlier.fingerprint})
            wanted.refuse_altered(url, fetched, earlier)

    def _tell_done(self, receipt: Receipt, fetched: Fetched, started: float) -> None:
        self._on_event(
            "download.unchanged" if fetched.is_unchanged else "download.done",
            {
                "url": receipt.url,
                "file": receipt.file,
                "bytes": receipt.bytes,
                "sha256": receipt.sha256,
                "seconds": round(time.monotonic() - started, 3),
                "requests_made": receipt.requests_made,
                "attempts": receipt.attempts,
                "resumed_bytes": receipt.resumed_bytes,
            },
        )


def _receipt(url: str, dest: Path, fetched: Fetched, mark: str, requests_made: int, attempts: int) -> Receipt:
    return Receipt(
        url=redact(url),
        file=dest.name,
        sha256=fetched.sha256,
        bytes=fetched.bytes,
        fingerprint=mark,
        etag=fetched.stated.etag,
        last_modified=fetched.stated.last_modified,
        requests_made=requests_made,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        attempts=attempts,
        resumed_bytes=fetched.resumed_bytes,
    )


def _check_arguments(checksum: str | None, max_retries: int) -> None:
    if checksum is not None and not _SHA256.fullmatch(checksum):
        raise ConfigurationError(f"the checksum {checksum!r}", "64 hexadecimal digits (sha256)", "correct the source's file")
    if max_retries < 0:
        raise ConfigurationError(f"max_retries = {max_retries}", "0 or more", "correct the configuration")


def _check_not_negative(retry: RetryPolicy, limits: Limits, deadline_s: float) -> None:
    figures = {**asdict(retry), **asdict(limits), "deadline_s": deadline_s}
    for name, value in figures.items():
        if value < 0:
            raise ConfigurationError(f"{name} = {value}", "0 or more", "correct the configuration")
