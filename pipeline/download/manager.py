"""Brings archives from a publisher's server to disk: the right bytes, or an error that says why not.

A file stands under its name only after every byte arrived, its length, kind and checksum held, and it was made durable;
whatever fails on the way leaves the archive that was there before. Transient failures are tried again with exponential
backoff and jitter, in this one layer; those that no retry will change are not. A body whose validators are not those of
the probe stops the download, so that a release is never Monday's owners with Tuesday's buildings.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tenacity

from pipeline.download.address import AddressRule
from pipeline.download.part import PartFile, claim_part
from pipeline.download.probe import Probe, Prober
from pipeline.download.redact import redact
from pipeline.download.request import Caller, read_body
from pipeline.download.verify import Stated, check_body, matching_fingerprint
from pipeline.errors import ChecksumMismatch, ConfigurationError, DownloadError, DownloadRefused, PipelineError
from pipeline.handoff import OnEvent, Receipt, ignore

MAX_WAIT_S = 30.0
PROBE_RETRIES = 3
_PROGRESS_EVERY_S = 1.0
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class FileSpec:
    """One file of a batch; the fields are :meth:`DownloadManager.download_file`'s parameters."""

    url: str
    dest_path: Path
    checksum: str | None = None
    fingerprint: str | None = None


class DownloadManager:
    """Probes and downloads archives.

    Args:
        timeout_s: seconds to connect, and seconds without a byte, after which an attempt has failed.
        allow_addresses: networks (CIDR) that are allowed besides public addresses.
        chunk_bytes: bytes read, hashed and written at a time.
        backoff_s: the first wait's upper end in seconds; it doubles with every retry, up to 30 s.
        on_event: is told ``download.progress`` (url, bytes, total; at most one a second), ``download.retry`` (url,
            attempt, error, wait_s) and ``download.done`` (url, file, bytes, sha256, seconds, requests_made).

    Raises:
        ConfigurationError: ``allow_addresses`` holds what is no network.
    """

    def __init__(
        self,
        *,
        timeout_s: tuple[float, float] = (10.0, 60.0),
        allow_addresses: Sequence[str] = (),
        chunk_bytes: int = 1 << 20,
        backoff_s: float = 0.5,
        on_event: OnEvent = ignore,
    ) -> None:
        self._timeout_s = timeout_s
        self._rule = AddressRule(allow_addresses)
        self._chunk_bytes = chunk_bytes
        self._backoff_s = backoff_s
        self._on_event = on_event
        self._prober = Prober(lambda: Caller(self._rule, self._timeout_s), lambda url: self._attempts(url, PROBE_RETRIES))

    def probe(self, url: str, *, rule: Sequence[str] = (), listed: str | None = None) -> Probe:
        """Ask for an archive's validators without fetching it; transient failures are tried again three times.

        Args:
            url: of the archive.
            rule: the validators that make the fingerprint; see :func:`pipeline.download.fingerprint.fingerprint`.
            listed: the date in the publisher's listing.

        Raises:
            DownloadError: no answer, or only server errors, in all attempts.
            DownloadRefused: a status that no retry will change, or a validator that is needed is not stated.
            AddressRefused: the URL leads where it may not.
        """
        return self._prober.probe(url, rule=rule, listed=listed)

    def read_document(self, url: str) -> bytes:
        """Read a small document, such as a listing, whole (at most 4 MiB).

        Raises:
            DownloadError, DownloadRefused, AddressRefused: as for :meth:`probe`.
            ListingError: there is none, or it is longer.
        """
        return self._prober.read(url)

    def download_file(
        self, url: str, dest_path: Path, checksum: str | None = None, max_retries: int = 3, *, fingerprint: str | None = None
    ) -> Receipt:
        """Download an archive to ``dest_path``, replacing what is there only when all is well.

        Args:
            url: http or https; credentials in it are sent, and redacted in the receipt, in events and in errors.
            dest_path: the archive's final name; ``<dest_path>.part`` is written meanwhile, by one process at a time.
            checksum: the sha256 that the bytes must have, 64 hexadecimal digits.
            max_retries: further attempts after the first one has failed in a way that may pass.
            fingerprint: the probe's; the body must come with the same validators.

        Raises:
            DownloadError: connection, time-out, server error or short body in every attempt, or another process downloads it.
            DownloadRefused: a status that no retry will change.
            AddressRefused: the URL leads where it may not.
            ReleaseChanged: the archive is not the one that was probed.
            NotAnArchive: the body is no zip, gzip or tar.
            ChecksumMismatch: the bytes are not those of ``checksum``.
            DiskError: writing failed; not retried.
            ConfigurationError: ``checksum`` is no sha256, or ``max_retries`` is negative.
        """
        _check_arguments(checksum, max_retries)
        started = time.monotonic()
        with claim_part(dest_path.with_name(f"{dest_path.name}.part")) as part, Caller(self._rule, self._timeout_s) as caller:
            for attempt in self._attempts(url, max_retries):
                with attempt:
                    stated, sha256, bytes_received, mark = self._fetch(caller, url, part, fingerprint)
            if checksum is not None and sha256 != checksum.lower():
                raise ChecksumMismatch(
                    f"{redact(url)} has sha256 {sha256}",
                    f"sha256 {checksum.lower()}",
                    "compare with the publisher; correct the pin if it is old",
                )
            part.publish(dest_path)
            requests_made = caller.requests_made
        self._on_event(
            "download.done",
            {
                "url": redact(url),
                "file": dest_path.name,
                "bytes": bytes_received,
                "sha256": sha256,
                "seconds": round(time.monotonic() - started, 3),
                "requests_made": requests_made,
            },
        )
        return Receipt(
            url=redact(url),
            file=dest_path.name,
            sha256=sha256,
            bytes=bytes_received,
            fingerprint=mark,
            etag=stated.etag,
            last_modified=stated.last_modified,
            requests_made=requests_made,
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def download_batch(self, file_specs: Sequence[FileSpec], max_parallel: int = 3) -> list[Receipt | PipelineError]:
        """Download several archives, up to ``max_parallel`` at a time; one that fails stops no other.

        Returns:
            In the order of ``file_specs``: the receipt, or the error that :meth:`download_file` raised.
        """

        def one(spec: FileSpec) -> Receipt | PipelineError:
            try:
                return self.download_file(spec.url, spec.dest_path, spec.checksum, fingerprint=spec.fingerprint)
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
        with open(file_path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == expected_hash.lower()

    def _attempts(self, url: str, max_retries: int) -> tenacity.Retrying:
        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            figures = {"url": redact(url), "attempt": state.attempt_number, "error": str(error)}
            self._on_event("download.retry", {**figures, "wait_s": round(state.upcoming_sleep, 3)})

        def give_up(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, DownloadError):
                raise AssertionError(f"retried what is not retried: {error!r}")
            seen = f"{error.seen}, in the last of {state.attempt_number} attempts"
            raise DownloadError(seen, error.expected, error.todo) from None

        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(max_retries + 1),
            wait=tenacity.wait_random_exponential(multiplier=self._backoff_s, max=MAX_WAIT_S),
            retry=tenacity.retry_if_exception_type(DownloadError),
            before_sleep=tell,
            retry_error_callback=give_up,
        )

    def _fetch(self, caller: Caller, url: str, part: PartFile, fingerprint: str | None) -> tuple[Stated, str, int, str]:
        """One attempt: the whole body into the part; returns what was stated, sha256, bytes received, fingerprint."""
        part.restart()
        digest, bytes_received = hashlib.sha256(), 0
        with caller.send("GET", url) as response:
            if response.status_code == 404:
                raise DownloadRefused(f"{redact(url)} answered 404", "200 OK", "correct the URL, or wait until it is published")
            stated = Stated.by(response)
            if fingerprint is not None and stated.archive_length is not None:
                matching_fingerprint(url, stated, stated.archive_length, fingerprint)
            told_at = time.monotonic()
            for chunk in read_body(response, url, self._chunk_bytes):
                part.write(chunk)
                digest.update(chunk)
                bytes_received += len(chunk)
                if time.monotonic() - told_at >= _PROGRESS_EVERY_S:
                    told_at = time.monotonic()
                    figures = {"url": redact(url), "bytes": bytes_received, "total": stated.archive_length}
                    self._on_event("download.progress", figures)
            check_body(part.path, url, stated, response.raw.tell())
        return stated, digest.hexdigest(), bytes_received, matching_fingerprint(url, stated, bytes_received, fingerprint)


def _check_arguments(checksum: str | None, max_retries: int) -> None:
    if checksum is not None and not _SHA256.fullmatch(checksum):
        raise ConfigurationError(f"the checksum {checksum!r}", "64 hexadecimal digits (sha256)", "correct the source's file")
    if max_retries < 0:
        raise ConfigurationError(f"max_retries = {max_retries}", "0 or more", "correct the configuration")
