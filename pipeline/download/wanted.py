"""What one download is after, and what it knows of the past.

The past is receipts: the one beside the archive at its place, and that of the archive in use. An archive whose bytes are
still those of its receipt need not come again if the server says so. One that comes with the validators of a receipt must
have its sha256. And when every URL has failed, the receipts say since when the archive that stays is the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.download.fingerprint import is_vouched_for
from pipeline.download.part import disk_errors
from pipeline.download.redact import redact
from pipeline.download.verify import Stated
from pipeline.errors import ArchiveAltered, ChecksumMismatch, DownloadError, PipelineError, ReleaseChanged
from pipeline.handoff import Receipt, read_receipt, receipt_path


@dataclass(frozen=True)
class Fetched:
    """A whole and verified body in the part; ``is_unchanged``: none came, because the archive at hand is still the one."""

    stated: Stated
    sha256: str
    bytes: int
    fingerprint: str
    resumed_bytes: int = 0
    is_unchanged: bool = False


@dataclass(frozen=True)
class Wanted:
    """One archive: where it may be had, what it must be, and the receipts that are known.

    ``at_hand`` is the receipt of the archive that is there already, whole, and may be kept.
    """

    urls: tuple[str, ...]
    checksum: str | None
    fingerprint: str | None
    force: bool
    known: tuple[Receipt, ...]
    at_hand: Receipt | None

    @classmethod
    def of(
        cls, urls: tuple[str, ...], dest: Path, checksum: str | None, fingerprint: str | None, last_good: Receipt | None, *, force: bool
    ) -> Self:
        """Look at what is at ``dest``.

        Raises:
            DiskError: it cannot be read.
            ReleaseChanged: the fingerprint is made of another sha256 than ``checksum``.
        """
        if fingerprint is not None and not is_vouched_for(fingerprint, checksum):
            raise ReleaseChanged(
                f"the release was probed by a pinned sha256 (fingerprint {fingerprint}), and the pin is {checksum or 'gone'}",
                "the pin of the probe",
                "nothing: the next run probes again",
            )
        with disk_errors(dest):
            receipt = read_receipt(receipt_path(dest))
            known = tuple(found for found in (receipt, last_good) if found is not None)
            is_wanted = receipt is not None and fingerprint in (None, receipt.fingerprint)
            is_wanted = is_wanted and receipt is not None and (checksum or receipt.sha256).lower() == receipt.sha256
            at_hand = receipt if is_wanted and not force and _is_whole(dest, receipt) else None
        return cls(urls, checksum, fingerprint, force, known, at_hand)

    def fingerprint_at(self, number: int) -> str | None:
        """What a body from this URL must carry: a mirror's own validators say nothing where a checksum decides."""
        return self.fingerprint if number == 0 or self.checksum is None else None

    def check_sum(self, url: str, fetched: Fetched) -> None:
        """Raise ChecksumMismatch if the bytes are not those that were promised."""
        if self.checksum is not None and fetched.sha256 != self.checksum.lower():
            raise ChecksumMismatch(
                f"{redact(url)} has sha256 {fetched.sha256}",
                f"sha256 {self.checksum.lower()}",
                "compare with the publisher; correct the pin if it is old",
            )

    def altered_by(self, fetched: Fetched) -> Iterator[Receipt]:
        """The receipts with these validators and other bytes."""
        for earlier in self.known:
            if earlier.fingerprint == (self.fingerprint or fetched.fingerprint) and earlier.sha256 != fetched.sha256:
                yield earlier

    def refuse_altered(self, url: str, fetched: Fetched, earlier: Receipt) -> None:
        """Raise ArchiveAltered, unless a person or a checksum vouches for the bytes, or a length is all that was compared."""
        if self.force or self.checksum is not None or not (fetched.stated.etag or fetched.stated.last_modified):
            return
        raise ArchiveAltered(
            f"{redact(url)} has sha256 {fetched.sha256} under ETag {fetched.stated.etag}, Last-Modified "
            f"{fetched.stated.last_modified}, {fetched.bytes} bytes",
            f"sha256 {earlier.sha256}, which came with the same on {earlier.fetched_at}",
            "compare with the publisher; download by force, or pin the checksum, if the new bytes are right",
        )

    def failure(self, failures: Sequence[PipelineError]) -> PipelineError:
        """One error for what every URL said, and for how old the archive is that stays in use."""
        # If one of them may work the next time, so may the download.
        passing = next((error for error in failures if isinstance(error, DownloadError)), None)
        kind = type(failures[0]) if passing is None else DownloadError
        seen = "; then ".join(error.seen for error in failures)
        if self.known:
            good = max(self.known, key=lambda receipt: receipt.fetched_at)
            seen += f"; the last good archive stays, of {good.fetched_at} (sha256 {good.sha256})"
        shown = passing or failures[0]
        return kind(seen, shown.expected, shown.todo)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(dest: Path, receipt: Receipt | None) -> bool:
    """Whether the archive's bytes are still those of its receipt."""
    return receipt is not None and dest.is_file() and dest.stat().st_size == receipt.bytes and sha256_of(dest) == receipt.sha256
