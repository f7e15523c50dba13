"""A file under its name is the right one: bodies that lie, break off, or are something else."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import io
import logging
import lzma
import os
import random
import resource
import string
import subprocess
import sys
import tarfile
import textwrap
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.download import DownloadManager, FileSpec, fingerprint, redact
from pipeline.download.verify import Stated, check_body
from pipeline.errors import (
    ChecksumMismatch,
    ConfigurationError,
    DiskError,
    DownloadError,
    DownloadRefused,
    NotAnArchive,
    ReleaseChanged,
)
from pipeline.handoff import Receipt

VALIDATORS = {"ETag": '"v1"', "Last-Modified": "Sat, 26 Sep 2026 10:00:00 GMT", "Content-Type": "application/zip"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_untouched(dest: Path, *kept: str) -> None:
    """The last good archive stands, and nothing is left beside it but what is named."""
    assert dest.read_bytes() == b"the last good archive"
    assert sorted(path.name for path in dest.parent.iterdir()) == sorted([dest.name, *kept])


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "archives" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(b"the last good archive")
    return path


def test_archive_arrives_byte_for_byte_with_its_receipt(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], tmp_path: Path
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    events: list[tuple[str, Any]] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, figures)))
    dest = tmp_path / "new" / "a.zip"
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive
    assert receipt.sha256 == sha256(archive) and receipt.bytes == len(archive) and receipt.file == "a.zip"
    assert receipt.fingerprint == fingerprint(VALIDATORS["ETag"], VALIDATORS["Last-Modified"], len(archive))
    assert (receipt.etag, receipt.last_modified, receipt.requests_made) == ('"v1"', VALIDATORS["Last-Modified"], 1)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert [name for name, _ in events] == ["download.done"] and events[0][1]["bytes"] == len(archive)
    assert sorted(path.name for path in dest.parent.iterdir()) == ["a.zip"]
    assert dest.stat().st_mode & 0o777 == 0o640


@pytest.mark.fault(1)
@pytest.mark.parametrize("cut", [0, 1, 0.5, -1])
def test_body_cut_once_is_fetched_again_whole(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path, cut: float
) -> None:
    keep = int(len(archive) * cut) if isinstance(cut, float) else cut if cut >= 0 else len(archive) - 1

    def route(request: Any) -> None:
        body = archive[:keep] if len(server.requests) == 1 else archive
        request.answer("200 OK", VALIDATORS, body, length=len(archive))

    server.routes["/a.zip"] = route
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert receipt.requests_made == 2 and dest.read_bytes() == archive


@pytest.mark.fault(2)
def test_body_cut_every_time_leaves_the_old_archive(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive[:1000], length=len(archive))
    with pytest.raises(DownloadError, match="last of 3 attempts"):
        manager.download_file(server.url("/a.zip"), dest, max_retries=2)
    assert len(server.requests) == 3
    assert_untouched(dest, "a.zip.part", "a.zip.part.json")
    assert dest.with_name("a.zip.part").stat().st_size == 1000


@pytest.mark.fault(3)
@pytest.mark.parametrize("lie", [-100, 100])
def test_length_that_lies_publishes_nothing(server: Any, archive: bytes, manager: DownloadManager, dest: Path, lie: int) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive, length=len(archive) + lie)
    with pytest.raises(DownloadError):
        manager.download_file(server.url("/a.zip"), dest, max_retries=1)
    # Too long: what came may be gone on with. Too short: it is all there, and no archive.
    assert_untouched(dest, *(("a.zip.part", "a.zip.part.json") if lie > 0 else ()))


@pytest.mark.fault(3)
def test_length_is_checked_whatever_the_http_library_checks(archive: bytes, tmp_path: Path) -> None:
    body = tmp_path / "a.zip"
    body.write_bytes(archive)
    stated = Stated(None, None, len(archive), False, "application/zip")
    check_body(body, "http://h/a.zip", stated, len(archive))
    for wire_bytes in (len(archive) - 1, len(archive) + 1):
        with pytest.raises(DownloadError, match=f"{len(archive)} bytes, as announced"):
            check_body(body, "http://h/a.zip", stated, wire_bytes)


def in_tar(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        header = tarfile.TarInfo("real_acct.txt")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "wrap", [bytes, gzip.compress, in_tar, bz2.compress, lzma.compress], ids=["zip", "gzip", "tar", "bzip2", "xz"]
)
def test_early_close_without_length_is_no_success(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path, wrap: Callable[[bytes], bytes]
) -> None:
    body = wrap(archive)
    cut = len(body) // 2
    server.routes["/a"] = lambda request: request.answer("200 OK", VALIDATORS, body[:cut], length=None)
    with pytest.raises(DownloadError, match="without its end"):
        manager.download_file(server.url("/a"), dest, max_retries=1)
    assert len(server.requests) == 2
    assert_untouched(dest, "a.zip.part", "a.zip.part.json")
    server.routes["/a"] = lambda request: request.answer("200 OK", VALIDATORS, body, length=None)
    manager.download_file(server.url("/a"), dest)
    assert dest.read_bytes() == body


@pytest.mark.fault(5)
def test_missing_last_chunk_is_retried(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    def route(request: Any) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for start in range(0, len(archive), 50_000):
            piece = archive[start : start + 50_000]
            request.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        if len(server.requests) > 1:
            request.send(b"0\r\n\r\n")

    server.routes["/a.zip"] = route
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert receipt.requests_made == 2 and dest.read_bytes() == archive


@pytest.mark.fault(7)
@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "408 Slow", "425 Early", "429 Enough"])
def test_server_trouble_twice_costs_three_requests(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path, status: str
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer(
        *((status, {}) if len(server.requests) < 3 else ("200 OK", VALIDATORS, archive))
    )
    events: list[str] = []
    manager = make_manager(on_event=lambda name, figures: events.append(name))
    assert manager.download_file(server.url("/a.zip"), dest).requests_made == 3
    assert len(server.requests) == 3 and events == ["download.retry", "download.retry", "download.done"]


@pytest.mark.fault(8)
@pytest.mark.parametrize("status", ["404 Gone fishing", "403 No", "410 Gone", "401 Who", "204 Nothing", "304 Same"])
def test_terminal_status_is_asked_for_once(server: Any, manager: DownloadManager, dest: Path, status: str) -> None:
    server.routes["/a.zip"] = lambda request: request.answer(status, {})
    with pytest.raises(DownloadRefused, match=status[:3]):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1
    assert_untouched(dest)


@pytest.mark.fault(9)
@pytest.mark.parametrize("states_length", [True, False])
def test_archive_replaced_since_the_probe_is_not_taken(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path, states_length: bool
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    probe = manager.probe(server.url("/a.zip"))
    later = VALIDATORS | {"ETag": '"v2"'}
    length = -1 if states_length else None
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", later, archive, length=length)
    with pytest.raises(ReleaseChanged):
        manager.download_file(server.url("/a.zip"), dest, fingerprint=probe.fingerprint)
    assert len(server.requests) == 2
    assert_untouched(dest)


@pytest.mark.parametrize("length_in_head", [True, False])
@pytest.mark.parametrize("length_in_get", [True, False])
def test_unchanged_archive_is_recognised_wherever_its_length_is_stated(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path, length_in_head: bool, length_in_get: bool
) -> None:
    def route(request: Any) -> None:
        stated = length_in_head if request.method == "HEAD" else length_in_get
        request.answer("200 OK", VALIDATORS, archive, length=-1 if stated else None)

    server.routes["/a.zip"] = route
    probe = manager.probe(server.url("/a.zip"))
    assert probe.bytes == (len(archive) if length_in_head else None)
    receipt = manager.download_file(server.url("/a.zip"), dest, fingerprint=probe.fingerprint)
    assert receipt.fingerprint == probe.fingerprint and dest.read_bytes() == archive


@pytest.mark.fault(13)
def test_stall_ends_the_attempt_and_the_next_one_succeeds(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path
) -> None:
    def route(request: Any) -> None:
        if len(server.requests) == 1:
            request.answer("200 OK", VALIDATORS, archive[:5000], length=len(archive))
            request.connection.recv(1)  # until the client gives up
        else:
            request.answer("200 OK", VALIDATORS, archive)

    server.routes["/a.zip"] = route
    manager = make_manager(timeout_s=(1.0, 0.3))
    # On a machine that is busy another attempt may be ended, too.
    assert manager.download_file(server.url("/a.zip"), dest, max_retries=20).requests_made >= 2
    assert dest.read_bytes() == archive


@pytest.mark.fault(15)
@pytest.mark.parametrize("length", [-1, None])
def test_html_page_under_the_archives_name_is_refused(
    server: Any, manager: DownloadManager, dest: Path, length: int | None
) -> None:
    page = b"<!DOCTYPE html><html><body>Please sign in</body></html>" * 1000
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", {"Content-Type": "text/html"}, page, length=length)
    with pytest.raises(NotAnArchive, match="text/html that begin with b'<!DOCTYPE html"):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1
    assert_untouched(dest)


@pytest.mark.fault(16)
def test_encoded_body_is_stored_decoded(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    headers = VALIDATORS | {"Content-Encoding": "gzip"}
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", headers, gzip.compress(archive))
    probe = manager.probe(server.url("/a.zip"))
    receipt = manager.download_file(server.url("/a.zip"), dest, fingerprint=probe.fingerprint)
    assert dest.read_bytes() == archive and receipt.sha256 == sha256(archive) and receipt.bytes == len(archive)


@pytest.mark.fault(20)
def test_reset_in_the_headers_is_retried(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    def route(request: Any) -> None:
        if len(server.requests) == 1:
            request.send(b"HTTP/1.1 200")
            request.reset()
        else:
            request.answer("200 OK", VALIDATORS, archive)

    server.routes["/a.zip"] = route
    assert manager.download_file(server.url("/a.zip"), dest).requests_made == 2


@pytest.mark.fault(21)
def test_disk_that_takes_no_more_is_an_error_without_retry(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskError, match="File too large"):
            manager.download_file(server.url("/a.zip"), dest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(server.requests) == 1
    assert_untouched(dest)


@pytest.mark.fault(22)
def test_kill_in_the_middle_leaves_the_old_archive_and_the_next_download_works(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    def route(request: Any) -> None:
        if len(server.requests) == 1:
            request.answer("200 OK", VALIDATORS, archive[:150_000], length=len(archive))
            child.wait_for_half()
        else:
            request.answer("200 OK", VALIDATORS, archive)

    class Child:
        def wait_for_half(self) -> None:
            part = dest.with_name("a.zip.part")
            while not part.exists() or part.stat().st_size < 100_000:
                time.sleep(0.005)
            self.process.kill()

        process: subprocess.Popen[bytes]

    child = Child()
    server.routes["/a.zip"] = route
    code = textwrap.dedent("""
        import sys, pathlib
        from pipeline.download import DownloadManager
        DownloadManager(allow_addresses=["127.0.0.0/8"], chunk_bytes=4096).download_file(sys.argv[1], pathlib.Path(sys.argv[2]))
    """)
    child.process = subprocess.Popen([sys.executable, "-c", code, server.url("/a.zip"), str(dest)])
    assert child.process.wait(120) == -9
    assert dest.read_bytes() == b"the last good archive"
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive
    assert [path.name for path in dest.parent.iterdir()] == ["a.zip"]


@pytest.mark.fault(23)
def test_second_writer_of_the_same_file_is_told_so_and_harms_nothing(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    part = dest.with_name("a.zip.part")
    part.write_bytes(b"of the first")
    with open(part, "rb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="locked"):
            manager.download_file(server.url("/a.zip"), dest)
        assert part.read_bytes() == b"of the first" and not server.requests
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and not part.exists()


@pytest.mark.fault(21)
def test_planted_link_in_place_of_the_part_is_not_followed(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.symlink(victim, dest.with_name("a.zip.part"))
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    with pytest.raises(DiskError):
        manager.download_file(server.url("/a.zip"), dest)
    assert victim.read_bytes() == b"precious" and dest.read_bytes() == b"the last good archive"


def test_checksum_decides_in_either_case_of_letters(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    with pytest.raises(ChecksumMismatch, match=sha256(archive)):
        manager.download_file(server.url("/a.zip"), dest, "0" * 64)
    assert len(server.requests) == 1
    assert_untouched(dest)
    manager.download_file(server.url("/a.zip"), dest, sha256(archive).upper())
    assert manager.verify_checksum(dest, sha256(archive).upper())
    assert not manager.verify_checksum(dest, "0" * 64)
    with pytest.raises(ConfigurationError):
        manager.verify_checksum(dest, "md5:1234")


def test_self_extracting_zip_is_an_archive_and_a_program_is_not(
    server: Any, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, b"MZ" + bytes(5000) + archive)
    assert manager.download_file(server.url("/a.zip"), dest).bytes == 5002 + len(archive)
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, b"MZ" + bytes(5000))
    with pytest.raises(NotAnArchive):
        manager.download_file(server.url("/a.zip"), dest)


def test_one_failing_file_of_a_batch_stops_no_other(
    server: Any, archive: bytes, manager: DownloadManager, tmp_path: Path
) -> None:
    for name in ("/a", "/b", "/c", "/d"):
        server.routes[name] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    server.routes["/b"] = lambda request: request.answer("404 Not Found", {})
    specs = [FileSpec(server.url(f"/{name}"), tmp_path / f"{name}.zip") for name in "abcd"]
    results = manager.download_batch(specs)
    assert [type(result) for result in results] == [Receipt, DownloadRefused, Receipt, Receipt]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "c.zip", "d.zip"]


@pytest.mark.fault(25)
def test_credentials_work_and_are_shown_nowhere(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    manager = make_manager(on_event=lambda name, figures: shown.append(repr(figures)))
    server.routes["/a.zip"] = lambda request: request.answer(
        *(("503 Busy", {}) if len(server.requests) == 1 else ("200 OK", VALIDATORS, archive))
    )
    password, token = "hunter2", "s3cr3t"
    url = f"http://user:{password}@{server.host}/a.zip?token={token}&year=2026"
    shown.append(repr(manager.download_file(url, dest)))
    assert server.requests[1].headers["authorization"] == "Basic dXNlcjpodW50ZXIy"
    assert server.requests[1].path == "/a.zip?token=s3cr3t&year=2026"
    server.routes["/a.zip"] = lambda request: request.answer(f"403 {token} is no good", {})
    with pytest.raises(DownloadRefused) as refused:
        manager.download_file(url, dest)
    closed = url.replace(server.host, "127.0.0.1:9")
    with pytest.raises(DownloadError) as failed:
        manager.download_file(closed, dest, max_retries=0)
    # Headers that cannot be parsed: the library logs the whole URL.
    server.routes["/a.zip"] = lambda request: request.send(b"HTTP/1.1 503 Busy\r\nno colon\r\n\r\n")
    with pytest.raises(DownloadError):
        manager.download_file(url, dest, max_retries=0)
    shown += [record.getMessage() for record in caplog.records]
    assert [text for text in shown if "Failed to parse headers (url=http://127.0.0.1" in text] and "GET /a.zip?***" in " ".join(shown)
    shown += [*traceback.format_exception(refused.value), *traceback.format_exception(failed.value)]
    assert not [text for text in shown if "hunter2" in text or "s3cr3t" in text]
    assert "***@127.0.0.1" in shown[0] and "token=***" in shown[-1]


def test_file_of_a_batch_has_attempts_of_its_own(server: Any, manager: DownloadManager, tmp_path: Path) -> None:
    for path in ("/once", "/twice"):
        server.routes[path] = lambda request: request.answer("503 Busy", {})
    specs = [FileSpec(server.url(f"/{name}"), tmp_path / name, max_retries=retries) for name, retries in (("once", 0), ("twice", 1))]
    assert all(isinstance(result, DownloadError) for result in manager.download_batch(specs))
    assert sorted(request.path for request in server.requests) == ["/once", "/twice", "/twice"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://download.hcad.org/data/a.zip", "https://download.hcad.org/data/a.zip"),
        ("https://u:p@h:8443/a.zip?t=1&k#part", "https://***@h:8443/a.zip?t=***&***"),
        ("https://u@h/a.zip", "https://***@h/a.zip"),
        ("http://[::1", "***"),
        ("https://h/token/s3cr3t/a.zip", "https://h/token/***/a.zip"),
        ("https://h/api-key/s3cr3t", "https://h/api-key/***"),
        ("https://h/sig/Real_acct_owner.zip", "https://h/sig/Real_acct_owner.zip"),
        ("https://h/a.zip;sig=s3cr3t;v=2", "https://h/a.zip;sig=***;v=***"),
        ("https://h/d/550e8400-e29b-41d4-a716-446655440000/a.zip", "https://h/d/***/a.zip"),
        ("https://h/d/d41d8cd98f00b204e9800998ecf8427e/a.zip", "https://h/d/***/a.zip"),
        ("https://h/d/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N/a.zip", "https://h/d/***/a.zip"),
        ("https://h/s/aB3dE5gH7jK9mN1pQ3sT/a.zip", "https://h/s/***/a.zip"),
        ("https://h/2025/Certified_Appraisal_Roll_Export_2025-08-15T101500Z.zip",) * 2,
        ("https://h/wp-content/uploads/2025/08/TCAD_AppraisalExport_Supp_0_20250816.zip",) * 2,
        ("https://h/documents/12345678901234567890/PreliminaryRollExportFilesV2.zip",) * 2,
    ],
)
def test_redacted_url_keeps_only_what_is_public(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_key_drawn_at_random_is_taken_for_one() -> None:
    draw = random.Random(25)
    keys = ["".join(draw.choices(string.ascii_letters + string.digits + "-_", k=32)) for _ in range(500)]
    assert sum(f"/{key}/" in redact(f"https://h/{key}/a.zip") for key in keys) <= 10


@pytest.mark.fault(25)
def test_key_in_the_path_is_sent_and_shown_nowhere(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    manager = make_manager(on_event=lambda name, figures: shown.append(f"{name} {dict(figures)}"))
    server.routes["/d/aB3dE5gH7jK9mN1pQ3sT/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    url = server.url("/d/aB3dE5gH7jK9mN1pQ3sT/a.zip")
    shown += [str(manager.download_file(url, dest)), str(manager.probe(url))]
    with pytest.raises(DownloadError) as failed:
        manager.download_file(url.replace(server.host, "127.0.0.1:9"), dest, max_retries=0)
    shown += [*traceback.format_exception(failed.value), *(record.getMessage() for record in caplog.records)]
    assert not [text for text in shown if "aB3dE5" in text] and [text for text in shown if "/d/***/a.zip" in text]


def test_progress_is_told_once_a_second_with_bytes_and_total(
    server: Any, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path
) -> None:
    def route(request: Any) -> None:
        request.answer("200 OK", VALIDATORS, archive[:100_000], length=len(archive))
        time.sleep(1.1)
        for start in range(100_000, len(archive), 1000):
            request.send(archive[start : start + 1000])

    server.routes["/a.zip"] = route
    told: list[Any] = []
    manager = make_manager(on_event=lambda name, figures: told.append(figures) if name == "download.progress" else None)
    began = time.monotonic()
    manager.download_file(server.url("/a.zip"), dest)
    # Once, unless the machine took its time with the pieces that follow the pause.
    assert 1 <= len(told) <= time.monotonic() - began
    assert all(figures["total"] == len(archive) and 0 < figures["bytes"] <= len(archive) for figures in told)
