"""Many downloads through a server that does its worst: each ends with the right bytes or the right error, never a wrong file."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager
from pipeline.errors import DownloadError, ReleaseChanged
from pipeline.handoff import Receipt

pytestmark = [pytest.mark.fault(1), pytest.mark.fault(9), pytest.mark.fault(13)]

FATES = ("whole", "whole", "break", "break", "break", "change", "stall", "503", "ignores range", "ignores if-range", "no length", "reset")
MIB = 1 << 20


def zip_of(size: int, seed: int) -> bytes:
    """A zip of about this size, its member stored."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr("real_acct.txt", random.Random(seed).randbytes(size))
    return out.getvalue()


class Chaos:
    """A route whose every answer is decided by a seed. It serves two versions of one length, and says by the ETag which."""

    def __init__(self, versions: list[bytes], seed: int) -> None:
        self.random, self.versions, self.now = random.Random(seed), versions, 0
        self.fates: list[str] = []
        self.is_kind = False

    def etag(self) -> str:
        return f'"{self.now}"'

    def __call__(self, request: Any) -> None:
        fate = "whole" if self.is_kind or request.method == "HEAD" else self.random.choice(FATES)
        self.fates.append(fate)
        if fate == "change":
            self.now = 1 - self.now
        if fate == "503":
            return request.answer("503 Busy", self.random.choice([{}, {"Retry-After": "0"}, {"Retry-After": "soon"}]))
        if fate == "reset":
            return request.reset()
        body, start, status = self.versions[self.now], 0, "200 OK"
        headers = {"ETag": self.etag(), "Content-Type": "application/zip"}
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        is_same = request.headers.get("if-range") == self.etag() or fate == "ignores if-range"
        if wanted and is_same and fate != "ignores range":
            start = int(wanted[1])
            if start >= len(body):
                return request.answer("416 Beyond", headers | {"Content-Range": f"bytes */{len(body)}"})
            status, headers["Content-Range"] = "206 Partial", f"bytes {start}-{len(body) - 1}/{len(body)}"
            if fate == "ignores if-range":
                del headers["ETag"]  # Now only the archive's own checksums can tell.
        request.answer(status, headers, b"", length=None if fate == "no length" else len(body) - start)
        if request.method == "HEAD":
            return None
        end = start + self.random.randrange(len(body) - start) if fate in ("break", "stall") else len(body)
        request.send(memoryview(body)[start:end])
        if fate == "stall":
            request.connection.recv(1)  # until the client gives up
        return None


def soak(
    server: Any, make_manager: Callable[..., DownloadManager], folder: Path, versions: list[bytes], seed: int
) -> tuple[bool, Chaos]:
    """One download; whether it brought the archive."""
    chaos = server.routes["/a.zip"] = Chaos(versions, seed)
    sums = [hashlib.sha256(version).hexdigest() for version in versions]
    dest = folder / f"{seed}.zip"
    dest.write_bytes(b"the last good archive")
    manager = make_manager(timeout_s=(5.0, 0.25), chunk_bytes=MIB, backoff_s=0.001)
    chaos.is_kind = True
    mark = manager.probe(server.url("/a.zip")).fingerprint if chaos.random.random() < 0.5 else None
    chaos.is_kind = False
    said = f"seed {seed}"
    receipt: Receipt | None = None
    for attempt in range(4):
        chaos.is_kind = attempt == 3
        try:
            receipt = manager.download_file(server.url("/a.zip"), dest, fingerprint=mark)
            break
        except DownloadError:
            assert dest.read_bytes() == b"the last good archive", said
        except ReleaseChanged:
            assert mark is not None and "change" in chaos.fates, said
            assert dest.read_bytes() == b"the last good archive", said
            assert os.listdir(folder) == [dest.name], said
            dest.unlink()
            return False, chaos
    assert receipt is not None, f"{said}: not even a kind server helped, after {chaos.fates}"
    version = int((receipt.etag or "").strip('"'))
    assert receipt.sha256 == sums[version] == hashlib.sha256(dest.read_bytes()).hexdigest(), f"{said}: {chaos.fates}"
    assert mark is None or version == 0, said
    assert os.listdir(folder) == [dest.name], said
    dest.unlink()
    return True, chaos


def run(server: Any, make_manager: Callable[..., DownloadManager], folder: Path, size: int, seeds: range) -> None:
    versions = [zip_of(size, 1), zip_of(size, 2)]
    folder.mkdir()
    results = [soak(server, make_manager, folder, versions, seed) for seed in seeds]
    met = {fate for _, chaos in results for fate in chaos.fates}
    assert met == set(FATES), "the seeds meet every kind of trouble"
    assert sum(brought for brought, _ in results) > len(seeds) // 2, "and most downloads end well all the same"
    assert not [thread for thread in threading.enumerate() if thread.name == "download-watchdog"]


def test_thirty_downloads_through_a_hostile_server_bring_the_right_bytes_or_the_right_error(
    server: Any, hostile: ModuleType, make_manager: Callable[..., DownloadManager], tmp_path: Path
) -> None:
    run(server, make_manager, tmp_path / "soak", 4 * MIB, range(30))


@pytest.mark.slow
def test_two_hundred_downloads_of_64_mb_through_a_hostile_server_bring_the_right_bytes_or_the_right_error(
    server: Any, hostile: ModuleType, make_manager: Callable[..., DownloadManager], tmp_path: Path
) -> None:
    run(server, make_manager, tmp_path / "soak", 64 * MIB, range(200))
