"""Suite ``acquire``: the first two stages against the tools that a person would use for them.

Download: 1 GB over the loopback by ``DownloadManager`` (hash, fsync and rename included) against ``curl -o``, then ``sha256sum``, then
``sync`` of the file. Extraction: a 200 MB zip of roll-like text by ``ExtractManager`` (the archive's hash, CRC, the member's hash, lines,
widths, parts, fsync and rename included) against ``unzip``, which does none of it but the CRC. Ours runs in a process of its own, started
and imported before the clock; its peak memory is taken there. A tool that this machine does not have ends the suite with its name.
"""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import random
import shutil
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from bench import Target, suite
from county_member import County
from county_shapes import REAL_ACCT
from measuring import Worker, peak_mb, serve, side_by_side

TOOLS = ("curl", "sha256sum", "sync", "unzip")
DOWNLOAD_BYTES = 1 << 30
ARCHIVE_BYTES = 200 << 20
MEMORY_MB = 60.0
LINES = 100_000


@suite(
    "acquire",
    Target("download / curl, sha256sum, sync", 1.0, doc="download_file of 1 GB to curl -o, then sha256sum, then sync"),
    Target("extract / unzip", 1.0, doc="extract_archive of a 200 MB zip of roll-like text to unzip -o"),
    Target("download memory above imports, MB", MEMORY_MB, doc="peak of a process that downloads 1 GB, less what its imports take"),
    Target("extract memory above imports, MB", MEMORY_MB, doc="peak of a process that extracts the zip, less what its imports take"),
)
def acquire(number: int, folder: Path) -> dict[str, float]:
    """Download and extraction against curl and unzip, and their memory."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise SystemExit(f"bench acquire needs {', '.join(missing)}, which this machine does not have")
    return _download(number, folder) | _extract(number, folder)


def _download(number: int, folder: Path) -> dict[str, float]:
    grown: list[float] = []
    with _served(_big_file()) as url:

        def ours(turn: int) -> None:
            grown.append(child.run()["grown_mb"])

        def theirs(turn: int) -> None:
            path = folder / "theirs"
            subprocess.run(["curl", "-s", "-f", "-o", path, url], check=True)
            subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["sync", path], check=True)

        with Worker(__file__, "download", url, str(folder / "ours")) as child:
            ours_s, theirs_s = side_by_side(number, ours, theirs)
    _forget(folder / "ours", folder / "theirs")
    return {
        "download / curl, sha256sum, sync": ours_s / theirs_s,
        "download memory above imports, MB": max(grown),
        "download_s": ours_s, "curl_s": theirs_s,
    }  # fmt: skip


def _extract(number: int, folder: Path) -> dict[str, float]:
    grown: list[float] = []
    archive = _roll_zip()

    def theirs(turn: int) -> None:
        subprocess.run(["unzip", "-q", "-o", archive, "-d", folder / "unzipped"], check=True)

    with Worker(__file__, "extract", str(archive), str(folder / "members")) as child:
        ours_s, theirs_s = side_by_side(number, lambda turn: grown.append(child.run()["grown_mb"]), theirs)
    _forget(folder / "members", folder / "unzipped")
    return {
        "extract / unzip": ours_s / theirs_s,
        "extract memory above imports, MB": max(grown),
        "extract_s": ours_s, "unzip_s": theirs_s,
    }  # fmt: skip


def _forget(*paths: Path) -> None:
    """Remove what a side wrote and let the disk come to rest, so that the next side does not pay for it."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    os.sync()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Sends files by sendfile, so that the server's own work is small on both sides."""

    protocol_version = "HTTP/1.1"

    def copyfile(self, source: object, outputfile: object) -> None:
        self.wfile.flush()
        self.connection.sendfile(cast("socketserver._SendFile", source))

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@contextmanager
def _served(path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(path.parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{path.name}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@functools.cache
def _shared() -> tempfile.TemporaryDirectory[str]:
    """What all rounds read; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="bench-acquire-")


@functools.cache
def _big_file() -> Path:
    """A stored zip of 1 GB."""
    path = Path(_shared().name) / "big.zip"
    block = random.Random(1).randbytes(16 << 20)
    _write_zip(path, [block] * (DOWNLOAD_BYTES // len(block)), [block] * (DOWNLOAD_BYTES // len(block)), method=0)
    os.sync()
    return path


@functools.cache
def _roll_zip() -> Path:
    """A zip of 200 MB: roll-like text, as zlib deflates it at the level that zip programs use, repeated until it is long enough."""
    path = Path(_shared().name) / "roll.zip"
    text = b"".join(County(REAL_ACCT, LINES).blocks())
    deflating = zlib.compressobj(6, zlib.DEFLATED, -15)
    piece = deflating.compress(text) + deflating.flush(zlib.Z_FULL_FLUSH)
    count = ARCHIVE_BYTES // len(piece)
    end = zlib.compressobj(6, zlib.DEFLATED, -15).flush()
    _write_zip(path, [*itertools.repeat(piece, count), end], [text] * count, method=8)
    os.sync()
    return path


def _write_zip(path: Path, pieces: list[bytes], contents: list[bytes], *, method: int) -> None:
    """One member, ``real_acct.txt``, whose packed bytes and content are given in pieces."""
    crc, name = 0, b"real_acct.txt"
    for content in contents:
        crc = zlib.crc32(content, crc)
    fields = (method, 0, 33, crc, sum(map(len, pieces)), sum(map(len, contents)), len(name), 0)
    with open(path, "wb") as out:
        out.write(struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, *fields) + name)
        out.writelines(pieces)
        start = out.tell()
        directory = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 0x314, 20, 0, *fields, 0, 0, 0, 0o644 << 16, 0) + name
        out.write(directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), start, 0))


def _work(work: str, source: str, destination: Path) -> None:
    """What the measured process does: import, say so, wait, work, say by how much its memory grew."""
    from pipeline.catalog.source_parts import DEFAULT_LIMITS
    from pipeline.download import DownloadManager
    from pipeline.extract import ExtractManager, WantedMember

    downloads = DownloadManager(allow_addresses=("127.0.0.0/8",))
    extracts = ExtractManager(limits=DEFAULT_LIMITS)
    before_mb = peak_mb()

    def run() -> dict[str, float]:
        if work == "download":
            downloads.download_file(source, destination)
        else:
            extracts.extract_archive(Path(source), destination, members=[WantedMember("real_acct.txt")])
        return {"grown_mb": peak_mb() - before_mb}

    serve(run)


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
