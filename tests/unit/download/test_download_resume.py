"""A download that broke off goes on where it was, and never joins two versions of a file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager
from pipeline.download.resume import PartState
from pipeline.download.verify import Stated
from pipeline.errors import DownloadError, DownloadRefused, NotAnArchive, ReleaseChanged
from pipeline.handoff import read_json


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "a.zip"


@pytest.fixture
def other(archive: bytes) -> bytes:
    """Another archive, of the same length."""
    text = b"PACS 2027"
    return archive[:100] + text + archive[100 + len(text) :]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def keep(server: Any, route: Any, manager: DownloadManager, dest: Path, kept_bytes: int) -> None:
    """Let one attempt break off after so many bytes."""
    route._cuts = iter([kept_bytes])
    server.routes["/a.zip"] = route
    with pytest.raises(DownloadError):
        manager.download_file(server.url("/a.zip"), dest, max_retries=0)
    assert dest.with_name("a.zip.part").stat().st_size == kept_bytes
    server.requests.clear()
    route.statuses.clear()
    route.sent = 0


@pytest.mark.fault(1)
@pytest.mark.parametrize("cut", ["0", "1", "half", "len-1"])
def test_body_cut_anywhere_is_gone_on_with_and_no_byte_is_sent_twice(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path, cut: str
) -> None:
    at = {"0": 0, "1": 1, "half": len(archive) // 2, "len-1": len(archive) - 1}[cut]
    route = server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[at])
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and receipt.sha256 == sha256(archive)
    assert route.statuses == ([200, 206] if at else [200, 200]) and route.sent == len(archive)
    assert (receipt.requests_made, receipt.attempts, receipt.resumed_bytes) == (2, 2, at)
    assert [path.name for path in dest.parent.iterdir()] == ["a.zip"]


@pytest.mark.fault(1)
def test_ten_cuts_give_the_sum_of_an_undisturbed_download(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path
) -> None:
    undisturbed = hostile.Faithful(archive)
    broken = hostile.Faithful(archive, cuts=[len(archive) // 11 + number for number in range(10)])
    server.routes |= {"/once.zip": undisturbed, "/a.zip": broken}
    events: list[str] = []
    manager = make_manager(on_event=lambda name, figures: events.append(name))
    once = manager.download_file(server.url("/once.zip"), dest.with_name("once.zip"))
    often = manager.download_file(server.url("/a.zip"), dest, max_retries=10)
    assert often.sha256 == once.sha256 and often.fingerprint == once.fingerprint and broken.sent == len(archive)
    assert broken.statuses == [200] + [206] * 10
    assert events == ["download.done", *["download.retry", "download.resume"] * 10, "download.done"]


@pytest.mark.fault(2)
def test_part_of_a_failed_download_is_gone_on_with_by_the_next_one(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    dest.write_bytes(b"the last good archive")
    route = server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[1000, 1000, 1000, 1000])
    with pytest.raises(DownloadError, match="in the last of 4 attempts"):
        manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == b"the last good archive" and len(server.requests) == 4
    assert dest.with_name("a.zip.part").read_bytes() == archive[:4000]
    assert manager.download_file(server.url("/a.zip"), dest).resumed_bytes == 4000
    assert dest.read_bytes() == archive and route.sent == len(archive)


@pytest.mark.fault(9)
@pytest.mark.parametrize("same_length", [True, False])
def test_archive_replaced_between_two_attempts_is_fetched_from_its_first_byte(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, make_manager: Callable[..., DownloadManager], dest: Path,
    same_length: bool,
) -> None:  # fmt: skip
    later = other if same_length else b"PK\x03\x04" + bytes(500) + archive
    events: list[Any] = []
    manager = make_manager(on_event=lambda name, figures: events.append((name, figures)))
    keep(server, hostile.Faithful(archive), manager, dest, 100_000)
    events.clear()
    route = server.routes["/a.zip"] = hostile.Faithful(later, etag='"v2"')
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == later and receipt.sha256 == sha256(later) and receipt.etag == '"v2"'
    assert route.statuses == [200] and receipt.resumed_bytes == 0
    assert next((name, figures["bytes"]) for name, figures in events) == ("download.restart", 100_000)


@pytest.mark.fault(9)
def test_archive_replaced_between_two_attempts_is_another_release_where_one_was_probed(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    route = hostile.Faithful(archive)
    keep(server, route, manager, dest, 100_000)
    mark = manager.probe(server.url("/a.zip")).fingerprint
    server.routes["/a.zip"] = hostile.Faithful(other, etag='"v2"')
    with pytest.raises(ReleaseChanged):
        manager.download_file(server.url("/a.zip"), dest, fingerprint=mark)
    assert list(dest.parent.iterdir()) == []


@pytest.mark.fault(9)
def test_part_of_another_release_than_the_one_probed_is_not_asked_for(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    keep(server, hostile.Faithful(archive), manager, dest, 100_000)
    server.routes["/a.zip"] = hostile.Faithful(other, etag='"v2"')
    mark = manager.probe(server.url("/a.zip")).fingerprint
    manager.download_file(server.url("/a.zip"), dest, fingerprint=mark)
    assert dest.read_bytes() == other and "range" not in server.requests[-1].headers


WRONG_ANSWERS = {
    "206 from the first byte": ("206 Partial", {"Content-Range": "bytes 0-{last}/{size}"}, "whole"),
    "206 one byte too far": ("206 Partial", {"Content-Range": "bytes 100001-{last}/{size}"}, "rest"),
    "206 that ends early": ("206 Partial", {"Content-Range": "bytes 100000-200000/{size}"}, "rest"),
    "206 of another length": ("206 Partial", {"Content-Range": "bytes 100000-{size}/{more}"}, "rest"),
    "206 of another length that fits": ("206 Partial", {"Content-Range": "bytes 100000-{size}/{more}"}, "rest and one"),
    "206 without Content-Range": ("206 Partial", {}, "rest"),
    "206 in several parts": ("206 Partial", {"Content-Type": "multipart/byteranges; boundary=x"}, "rest"),
    "206 in other units": ("206 Partial", {"Content-Range": "lines 100000-{last}/{size}"}, "rest"),
    "206 of another entity tag": ("206 Partial", {"Content-Range": "bytes 100000-{last}/{size}", "ETag": '"v2"'}, "rest"),
    "206 of another date": ("206 Partial", {"Content-Range": "bytes 100000-{last}/{size}", "Last-Modified": "Sun"}, "rest"),
    "206 encoded": ("206 Partial", {"Content-Range": "bytes 100000-{last}/{size}", "Content-Encoding": "gzip"}, "rest"),
    "206 that is longer than it says": ("206 Partial", {"Content-Range": "bytes 100000-{last}/{size}"}, "rest and more"),
    "416 of another length": ("416 Beyond", {"Content-Range": "bytes */77"}, ""),
    "416 without Content-Range": ("416 Beyond", {}, ""),
}


@pytest.mark.fault(10)
@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_answer_that_does_not_fit_the_part_is_never_joined_to_it(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, make_manager: Callable[..., DownloadManager], dest: Path,
    case: str,
) -> None:  # fmt: skip
    thrown_away: list[int] = []
    manager = make_manager(
        on_event=lambda name, figures: thrown_away.append(figures["bytes"]) if name == "download.restart" else None
    )
    route = hostile.Faithful(archive)
    keep(server, route, manager, dest, 100_000)
    status, headers, shape = WRONG_ANSWERS[case]
    size = len(other)
    headers = {name: value.format(last=size - 1, size=size, more=size + 1) for name, value in headers.items()}
    body = {"": b"", "whole": other, "rest": other[100_000:], "rest and more": other[100_000:] + b"more", "rest and one": other[100_000:] + b"1"}[shape]

    def wrong_once(request: Any) -> None:
        if len(server.requests) == 1:
            assert request.headers["range"] == "bytes=100000-"
            request.answer(status, headers, body, length=None if shape == "rest and more" else -1)
        else:
            route(request)

    server.routes["/a.zip"] = wrong_once
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and receipt.sha256 == sha256(archive)
    assert (receipt.requests_made, receipt.resumed_bytes) == (2, 0) and route.statuses == [200]
    # Refused by its headers, before a byte of it was written; only a lie about the length needs the bytes.
    assert thrown_away == [len(other) + 4 if shape == "rest and more" else 100_000]


@pytest.mark.fault(10)
def test_server_that_ignores_the_range_sends_everything_and_that_is_taken(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    keep(server, hostile.Faithful(archive), manager, dest, 100_000)
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", {"ETag": '"v1"'}, archive)
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and receipt.requests_made == 1 and receipt.resumed_bytes == 0


@pytest.mark.fault(10)
def test_range_that_nobody_asked_for_is_refused(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("206 Partial", {"Content-Range": "bytes 0-9/10"}, archive[:10])
    with pytest.raises(DownloadRefused, match="206"):
        manager.download_file(server.url("/a.zip"), dest)
    assert len(server.requests) == 1 and list(dest.parent.iterdir()) == []


@pytest.mark.fault(10)
def test_rest_of_another_version_under_the_same_validators_does_not_read_through(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    """The server ignores If-Range and claims that nothing changed: only the archive's own checksums can tell."""
    route = hostile.Faithful(other)
    keep(server, route, manager, dest, 50)
    changed = bytearray(archive)
    changed[1000] ^= 255

    def lie_once(request: Any) -> None:
        hostile.Faithful(bytes(changed) if len(server.requests) == 1 else archive)(request)

    server.routes["/a.zip"] = lie_once
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and (receipt.requests_made, receipt.resumed_bytes) == (2, 0)


@pytest.mark.fault(11)
@pytest.mark.parametrize("states_length", [True, False])
def test_complete_part_is_verified_and_finished_without_a_byte(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path, states_length: bool
) -> None:
    keep(server, hostile.Faithful(archive, states_length=states_length), manager, dest, len(archive) - 10)
    part = dest.with_name("a.zip.part")
    with open(part, "ab") as out:  # killed between the last byte and the rename
        out.write(archive[-10:])
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    receipt = manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and receipt.sha256 == sha256(archive) and receipt.resumed_bytes == len(archive)
    assert route.statuses == [416] and route.sent == 0
    assert [path.name for path in dest.parent.iterdir()] == ["a.zip"]


@pytest.mark.fault(11)
def test_complete_part_that_is_not_the_archive_is_thrown_away(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    keep(server, hostile.Faithful(archive), manager, dest, len(archive) - 10)
    with open(dest.with_name("a.zip.part"), "ab") as out:
        out.write(bytes(10))
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and route.statuses == [416, 200]


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("etag", "last_modified", "date", "if_range"),
    [
        ('"v1"', "Sat, 26 Sep 2026 10:00:00 GMT", "Sat, 26 Sep 2026 12:00:00 GMT", '"v1"'),
        ('W/"v1"', "Sat, 26 Sep 2026 10:00:00 GMT", "Sat, 26 Sep 2026 12:00:00 GMT", "Sat, 26 Sep 2026 10:00:00 GMT"),
        (None, "Sat, 26 Sep 2026 10:00:00 GMT", "Sat, 26 Sep 2026 10:00:01 GMT", "Sat, 26 Sep 2026 10:00:00 GMT"),
        # Changed in the second of the answer: it may change once more in it.
        (None, "Sat, 26 Sep 2026 10:00:00 GMT", "Sat, 26 Sep 2026 10:00:00 GMT", None),
        (None, "Sat, 26 Sep 2026 10:00:00 GMT", None, None),
        (None, "yesterday", "Sat, 26 Sep 2026 10:00:00 GMT", None),
        ('W/"v1"', None, "Sat, 26 Sep 2026 10:00:00 GMT", None),
        (None, None, None, None),
    ],
)
def test_part_is_kept_exactly_when_the_server_can_say_that_it_is_still_the_beginning(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path,
    etag: str | None, last_modified: str | None, date: str | None, if_range: str | None,
) -> None:  # fmt: skip
    route = hostile.Faithful(archive, etag=etag, last_modified=last_modified, date=date, cuts=[50_000])
    server.routes["/a.zip"] = route
    manager.download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive
    assert server.requests[1].headers.get("if-range") == if_range
    assert server.requests[1].headers.get("range") == (f"bytes={50_000}-" if if_range else None)
    assert route.statuses == [200, 206 if if_range else 200]


@pytest.mark.fault(12)
def test_part_that_cannot_be_gone_on_with_is_not_left_behind(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    for name, headers in {"/none": {}, "/refuses": {"ETag": '"v1"', "Accept-Ranges": "none"}, "/weak": {"ETag": 'W/"v1"'}}.items():
        server.routes[name] = lambda request, headers=headers: request.answer("200 OK", headers, archive[:99], length=len(archive))
        with pytest.raises(DownloadError):
            manager.download_file(server.url(name), dest, max_retries=0)
        assert list(dest.parent.iterdir()) == []


@pytest.mark.fault(16)
def test_encoded_body_is_never_gone_on_with(server: Any, archive: bytes, manager: DownloadManager, dest: Path) -> None:
    headers = {"ETag": '"v1"', "Content-Encoding": "identity, gzip"}
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", headers, archive[:99], length=len(archive))
    with pytest.raises(DownloadError):
        manager.download_file(server.url("/a.zip"), dest, max_retries=0)
    assert list(dest.parent.iterdir()) == []


@pytest.mark.fault(15)
def test_part_of_what_is_finally_refused_is_removed(
    server: Any, hostile: ModuleType, manager: DownloadManager, dest: Path
) -> None:
    page = b"<!DOCTYPE html><html><body>Please sign in</body></html>" * 1000
    server.routes["/a.zip"] = hostile.Faithful(page, cuts=[500])
    with pytest.raises(NotAnArchive, match="DOCTYPE"):
        manager.download_file(server.url("/a.zip"), dest)
    assert list(dest.parent.iterdir()) == []


@pytest.mark.parametrize(
    "state",
    [
        "", "{", "[]", "null", "{}", '{"version": 1}', '{"version": 99}', "[" * 100_000, '"\\ud800"', "\x00\xff",
        '{"version":1,"url":"u","url_sha256":"0","etag":5,"last_modified":null,"date":null,"length":1,"content_type":"z"}',
        '{"version":1,"url":"u","url_sha256":"0","etag":"\\"v1\\"","last_modified":null,"date":null,"length":"9","content_type":"z"}',
        '{"version":1,"url":"u","url_sha256":"0","etag":"\\"v1\\"","last_modified":null,"date":null,"length":9,"content_type":"z"}',
    ],
)  # fmt: skip
def test_state_that_makes_no_sense_costs_the_part_and_nothing_else(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path, state: str
) -> None:
    server.routes["/a.zip"] = hostile.Faithful(archive)
    dest.with_name("a.zip.part").write_bytes(archive[:1000])
    dest.with_name("a.zip.part.json").write_text(state, encoding="latin-1")
    events: list[str] = []
    make_manager(on_event=lambda name, figures: events.append(name)).download_file(server.url("/a.zip"), dest)
    assert dest.read_bytes() == archive and "range" not in server.requests[0].headers
    assert events == ["download.restart", "download.done"]
    assert [path.name for path in dest.parent.iterdir()] == ["a.zip"]


def test_part_of_another_url_is_not_gone_on_with(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    keep(server, hostile.Faithful(archive), manager, dest, 100_000)
    server.routes["/b.zip"] = hostile.Faithful(other)  # and, as it happens, the same entity tag
    manager.download_file(server.url("/b.zip"), dest)
    assert dest.read_bytes() == other and "range" not in server.requests[0].headers


@pytest.mark.fault(9)
def test_state_never_speaks_for_the_bytes_of_another_version(
    server: Any, hostile: ModuleType, archive: bytes, other: bytes, manager: DownloadManager, dest: Path
) -> None:
    """The first version can be gone on with, the second, in its place, cannot; then the first is back."""
    keep(server, hostile.Faithful(archive), manager, dest, 100_000)
    nameless = hostile.Faithful(other, etag=None, last_modified=None, cuts=[150_000])

    def route(request: Any) -> None:
        (nameless if len(server.requests) == 1 else hostile.Faithful(archive))(request)

    server.routes["/a.zip"] = route
    manager.download_file(server.url("/a.zip"), dest)
    assert "range" in server.requests[0].headers and "range" not in server.requests[1].headers
    assert len(server.requests) == 2 and dest.read_bytes() == archive


@pytest.mark.fault(25)
def test_state_file_holds_no_secret_and_a_new_password_goes_on(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    route = server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[1000])
    with pytest.raises(DownloadError):
        manager.download_file(f"http://user:hunter2@{server.host}/a.zip?token=s3cr3t", dest, max_retries=0)
    text = dest.with_name("a.zip.part.json").read_text()
    assert "hunter2" not in text and "s3cr3t" not in text and "user" not in text
    assert json.loads(text)["length"] == len(archive)
    manager.download_file(f"http://user:changed@{server.host}/a.zip?token=s3cr3t", dest)
    assert route.statuses == [200, 206] and dest.read_bytes() == archive


def test_state_reads_back_equal() -> None:
    stated = Stated('"v1"', None, 10, False, "application/zip", "Sat, 26 Sep 2026 12:00:00 GMT")
    state = PartState.of("https://h/a.zip", stated)
    assert state is not None and state.stated == stated
    assert PartState.from_json(state.__dict__) == state


KILLED = textwrap.dedent("""
    import sys, pathlib
    from pipeline.download import DownloadManager
    DownloadManager(allow_addresses=["127.0.0.0/8"], chunk_bytes=4096).download_file(sys.argv[1], pathlib.Path(sys.argv[2]))
""")


@pytest.mark.fault(22)
def test_download_that_was_killed_goes_on_from_its_last_byte(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    part = dest.with_name("a.zip.part")

    def stall(request: Any) -> None:
        request.answer("200 OK", hostile.Faithful(archive).validators(), archive[:150_000], length=len(archive))
        request.connection.recv(1)

    server.routes["/a.zip"] = stall
    child = subprocess.Popen([sys.executable, "-c", KILLED, server.url("/a.zip"), str(dest)])
    end = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size == 150_000):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert read_json(dest.with_name("a.zip.part.json"))["etag"] == '"v1"'
    route = server.routes["/a.zip"] = hostile.Faithful(archive)
    assert manager.download_file(server.url("/a.zip"), dest).resumed_bytes == 150_000
    assert route.statuses == [206] and dest.read_bytes() == archive


def test_leftover_of_a_state_that_was_never_named_is_swept(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, dest: Path
) -> None:
    dest.with_name(".a.zip.part.json.4711.part").write_text("{")
    neighbour = dest.with_name(".b.zip.part.json.4711.part")
    neighbour.write_text("{")
    server.routes["/a.zip"] = hostile.Faithful(archive)
    manager.download_file(server.url("/a.zip"), dest)
    assert sorted(os.listdir(dest.parent)) == [neighbour.name, "a.zip"]


def test_interrupted_download_keeps_its_part(
    server: Any, hostile: ModuleType, archive: bytes, make_manager: Callable[..., DownloadManager], dest: Path
) -> None:
    class Impatient:
        def take(self, bytes_count: int, *, left_s: float) -> None:
            raise KeyboardInterrupt

    server.routes["/a.zip"] = hostile.Faithful(archive)
    with pytest.raises(KeyboardInterrupt):
        make_manager(bandwidth=Impatient()).download_file(server.url("/a.zip"), dest)
    kept = dest.with_name("a.zip.part").stat().st_size
    assert kept > 0
    assert make_manager().download_file(server.url("/a.zip"), dest).resumed_bytes == kept
    assert dest.read_bytes() == archive
