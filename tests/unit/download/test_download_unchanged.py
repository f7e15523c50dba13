"""Archives that need not come again, archives that came altered, and what stands in when a server fails."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager, FileSpec
from pipeline.errors import (
    AddressRefused,
    ArchiveAltered,
    ChecksumMismatch,
    DownloadError,
    DownloadRefused,
    NotAnArchive,
    ReleaseChanged,
)
from pipeline.handoff import Receipt, receipt_path, write_json

Make = Callable[..., DownloadManager]


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "a.zip"


def have(manager: DownloadManager, url: str, dest: Path) -> Receipt:
    """Download an archive and write its receipt, as a caller does."""
    receipt = manager.download_file(url, dest)
    write_json(receipt_path(dest), receipt)
    return receipt


@pytest.fixture
def other(archive: bytes) -> bytes:
    return archive[:100] + b"otherwise" + archive[109:]


@pytest.mark.fault(17)
@pytest.mark.parametrize("etag", ['"v1"', None])
def test_unchanged_archive_is_not_sent_again(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path, etag: str | None
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive, etag=etag)
    events: list[str] = []
    manager = make_manager(on_event=lambda name, figures: events.append(name))
    first = have(manager, server.url("/a.zip"), dest)
    again = manager.download_file(server.url("/a.zip"), dest, fingerprint=first.fingerprint, checksum=first.sha256)
    assert route.statuses == [200, 304] and route.sent == len(archive)
    assert again == dataclasses.replace(first, requests_made=1) and events == ["download.done", "download.unchanged"]
    assert sorted(os.listdir(dest.parent)) == ["a.zip", "a.zip.receipt.json"]


@pytest.mark.fault(17)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "receipt", "no receipt", "receipt of another"])
def test_damaged_archive_is_fetched_whole_whatever_the_server_would_say(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path, damage: str
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    receipt = have(manager, server.url("/a.zip"), dest)
    if damage == "flip":
        dest.write_bytes(archive[:-1] + bytes([archive[-1] ^ 1]))
    elif damage == "truncate":
        dest.write_bytes(archive[:-1])
    elif damage == "remove":
        dest.unlink()
    elif damage == "receipt":
        receipt_path(dest).write_text('{"url": 1}')
    elif damage == "no receipt":
        receipt_path(dest).unlink()
    else:
        write_json(receipt_path(dest), dataclasses.replace(receipt, sha256="0" * 64, fingerprint="0" * 12))
    manager.download_file(server.url("/a.zip"), dest)
    assert route.statuses == [200, 200] and dest.read_bytes() == archive


@pytest.mark.fault(17)
def test_force_fetches_every_byte_again(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    have(manager, server.url("/a.zip"), dest)
    manager.download_file(server.url("/a.zip"), dest, force=True)
    assert route.statuses == [200, 200]


def test_archive_that_changed_is_fetched_though_the_old_one_is_whole(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    have(manager, server.url("/a.zip"), dest)
    server.routes["/a.zip"] = hostile.Faithful(other, etag='"v2"', last_modified="Sun, 27 Sep 2026 10:00:00 GMT")
    probe = manager.probe(server.url("/a.zip"))
    receipt = manager.download_file(server.url("/a.zip"), dest, fingerprint=probe.fingerprint)
    assert dest.read_bytes() == other and receipt.etag == '"v2"'


def test_archive_at_hand_of_another_release_than_the_probed_one_is_not_offered(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    have(manager, server.url("/a.zip"), dest)
    with pytest.raises(ReleaseChanged):
        manager.download_file(server.url("/a.zip"), dest, fingerprint="0123456789ab")
    assert "if-none-match" not in server.requests[-1].headers and dest.read_bytes() == archive


@pytest.mark.fault(18)
@pytest.mark.parametrize("known_by", ["receipt", "last_good"])
def test_other_bytes_under_the_same_validators_are_refused_and_reported(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, make_manager: Make, dest: Path, known_by: str
) -> None:
    events: list[Any] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, figures)))
    server.routes["/a.zip"] = hostile.Faithful(archive)
    first = have(manager, server.url("/a.zip"), dest)
    dest.write_bytes(b"damaged")
    last_good = None
    if known_by == "last_good":
        receipt_path(dest).unlink()
        last_good = first
    server.routes["/a.zip"] = hostile.Faithful(other)
    with pytest.raises(ArchiveAltered, match=f"{hashlib.sha256(other).hexdigest()}.*{first.sha256}"):
        manager.download_file(server.url("/a.zip"), dest, last_good=last_good)
    assert dest.read_bytes() == b"damaged" and not dest.with_name("a.zip.part").exists()
    assert events[-1][0] == "download.altered" and events[-1][1]["earlier_sha256"] == first.sha256
    # A person, or a checksum, may vouch for them; it is reported all the same.
    manager.download_file(server.url("/a.zip"), dest, last_good=last_good, force=True)
    assert dest.read_bytes() == other
    dest.unlink()
    manager.download_file(server.url("/a.zip"), dest, hashlib.sha256(other).hexdigest(), last_good=last_good)
    assert [name for name, _ in events].count("download.altered") == 3


@pytest.mark.fault(18)
def test_other_bytes_of_the_same_length_are_no_wonder_where_nothing_else_is_stated(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, make_manager: Make, dest: Path
) -> None:
    events: list[str] = []
    manager = make_manager(on_event=lambda name, figures: events.append(name))
    bare = {"etag": None, "last_modified": None, "date": None}
    server.routes["/a.zip"] = hostile.Faithful(archive, **bare)
    have(manager, server.url("/a.zip"), dest)
    server.routes["/a.zip"] = hostile.Faithful(other, **bare)
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == other and "download.altered" in events


@pytest.mark.parametrize("failure", ["500", "404", "html", "refused", "cut", "wait"])
def test_mirror_stands_in_when_the_first_url_fails_for_good(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Make, dest: Path, failure: str
) -> None:
    routes: dict[str, Any] = {
        "500": lambda request: request.answer("500 Oops", {}),
        "404": lambda request: request.answer("404 Gone", {}),
        "html": lambda request: request.answer("200 OK", {}, b"<html>" * 100),
        "cut": lambda request: request.answer("200 OK", {"ETag": '"v1"'}, archive[:500], length=len(archive)),
        "wait": lambda request: request.answer("503 Busy", {"Retry-After": "86400"}),
    }
    if failure in routes:
        server.routes["/a.zip"] = routes[failure]
    url = server.url("/a.zip") if failure in routes else "http://127.0.0.1:9/a.zip"
    server.routes["/mirror/a.zip"] = hostile.Faithful(archive)
    events: list[Any] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, figures)))
    receipt = manager.download_file(url, dest, max_retries=1, mirrors=[server.url("/mirror/a.zip")])
    assert dest.read_bytes() == archive and receipt.url == server.url("/mirror/a.zip")
    assert [figures["next"] for name, figures in events if name == "download.mirror"] == [server.url("/mirror/a.zip")]
    assert receipt.attempts == (2 if failure in ("404", "html", "wait") else 3)
    assert os.listdir(dest.parent) == ["a.zip"]


def test_mirror_must_have_the_release_that_was_probed_unless_a_checksum_decides(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    mark = manager.probe(server.url("/a.zip")).fingerprint
    server.routes["/a.zip"] = lambda request: request.answer("500 Oops", {})
    server.routes["/old"] = hostile.Faithful(other, etag='"v0"')
    server.routes["/same"] = hostile.Faithful(archive)
    server.routes["/renamed"] = hostile.Faithful(archive, etag='"mirror"')
    old, same, renamed = (server.url(path) for path in ("/old", "/same", "/renamed"))
    receipt = manager.download_file(server.url("/a.zip"), dest, max_retries=0, fingerprint=mark, mirrors=[old, same])
    assert receipt.url == same and receipt.fingerprint == mark
    with pytest.raises(DownloadError, match=r"answered 500.*then.*mirror"):
        manager.download_file(server.url("/a.zip"), dest, max_retries=0, fingerprint=mark, mirrors=[renamed], force=True)
    digest = hashlib.sha256(archive).hexdigest()
    dest.unlink()
    receipt = manager.download_file(
        server.url("/a.zip"), dest, digest, max_retries=0, fingerprint=mark, mirrors=[old, renamed], force=True
    )
    assert receipt.url == renamed and receipt.fingerprint == mark and dest.read_bytes() == archive


def test_mirror_is_not_asked_for_a_release_that_the_publisher_has_replaced(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/old"] = hostile.Faithful(archive)
    mark = manager.probe(server.url("/old")).fingerprint
    server.routes["/a.zip"] = hostile.Faithful(other, etag='"v2"')
    with pytest.raises(ReleaseChanged):
        manager.download_file(server.url("/a.zip"), dest, fingerprint=mark, mirrors=[server.url("/old")])
    assert [request.path for request in server.requests] == ["/old", "/a.zip"]


def test_when_all_fail_the_error_says_what_each_said_and_how_old_the_archive_is_that_stays(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    good = have(manager, server.url("/a.zip"), dest)
    server.routes["/a.zip"] = lambda request: request.answer("403 No", {})
    server.routes["/b.zip"] = lambda request: request.answer("200 OK", {}, b"<html>" * 100)
    urls = [server.url("/b.zip"), "ftp://127.0.0.1/c.zip"]
    with pytest.raises(DownloadRefused) as refused:
        manager.download_file(server.url("/a.zip"), dest, mirrors=urls)
    for said in ("answered 403", "begin with b'<html>", "not an address of the web", f"the last good archive stays, of {good.fetched_at}"):
        assert said in str(refused.value)
    server.routes["/b.zip"] = lambda request: request.answer("503 Busy", {})
    with pytest.raises(DownloadError, match=r"answered 403.*answered 503.*not an address"):
        manager.download_file(server.url("/a.zip"), dest, max_retries=0, mirrors=urls)
    elsewhere = dest.with_name("new.zip")
    with pytest.raises(AddressRefused, match=re.escape(f"the last good archive stays, of {good.fetched_at}")):
        manager.download_file("ftp://127.0.0.1/c.zip", elsewhere, last_good=good)
    with pytest.raises(AddressRefused) as without:
        manager.download_file("ftp://127.0.0.1/c.zip", elsewhere)
    assert "last good" not in str(without.value)
    assert dest.read_bytes() == archive and sorted(os.listdir(dest.parent)) == ["a.zip", "a.zip.receipt.json"]


def test_bytes_that_a_mirror_was_refused_for_are_not_gone_on_with(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(other)
    server.routes["/b.zip"] = lambda request: request.answer("503 Busy", {})
    with pytest.raises(DownloadError):
        manager.download_file(
            server.url("/a.zip"), dest, hashlib.sha256(archive).hexdigest(), max_retries=0, mirrors=[server.url("/b.zip")]
        )
    assert os.listdir(dest.parent) == []


def test_part_of_the_first_url_survives_a_mirror_that_has_nothing(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[1000])
    server.routes["/b.zip"] = lambda request: request.answer("404 Gone", {})
    with pytest.raises(DownloadError):
        manager.download_file(server.url("/a.zip"), dest, max_retries=0, mirrors=[server.url("/b.zip")])
    assert manager.download_file(server.url("/a.zip"), dest).resumed_bytes == 1000


def test_batch_hands_on_what_a_file_says_about_itself(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, tmp_path: Path
) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("404 Gone", {})
    server.routes["/b.zip"] = hostile.Faithful(archive)
    good = Receipt("u", "f", "0" * 64, 1, "0" * 12, None, None, 1, "2026-09-01T00:00:00+00:00")
    found, missing, wrong = manager.download_batch(
        [
            FileSpec(server.url("/a.zip"), tmp_path / "1.zip", mirrors=(server.url("/b.zip"),)),
            FileSpec(server.url("/a.zip"), tmp_path / "2.zip", last_good=good),
            FileSpec(server.url("/b.zip"), tmp_path / "3.zip", checksum="0" * 64),
        ]
    )
    assert isinstance(found, Receipt) and isinstance(wrong, ChecksumMismatch)
    assert isinstance(missing, DownloadRefused) and "2026-09-01" in str(missing)
    assert not isinstance(missing, NotAnArchive)
