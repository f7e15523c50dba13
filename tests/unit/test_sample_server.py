"""The sample server, over real sockets: what a client of a district's download host may rely on, and what it may not get."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "sample_server.py"
ZIP = "/hcad/2025/Real_acct_owner.zip"
BODY = bytes(range(256)) * 4096  # 1 MiB: several chunks of the server, and no two neighbouring bytes are equal
LONG_AGO_S = 1_700_000_000


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_server", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sample_server = load_script()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class Served:
    """A running server: its folder, port and log."""

    root: Path
    port: int
    log: Path

    def ask(self, method: str = "GET", target: str = ZIP, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def ask_raw(self, request: bytes) -> bytes:
        """Send bytes as they are and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="ascii").splitlines()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    root = tmp_path / "root"
    file = root / ZIP[1:]
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    os.utime(file, (LONG_AGO_S, LONG_AGO_S))
    (tmp_path / "secret.txt").write_bytes(b"outside")
    log = tmp_path / "requests.log"
    log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    server = sample_server.make_server(root, log_fd=log_fd)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Served(root, server.server_port, log)
    server.shutdown()
    server.server_close()
    thread.join()
    os.close(log_fd)


def replace_by_rename(file: Path, body: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(body)
    os.utime(new, (LONG_AGO_S, LONG_AGO_S))  # not even the date tells the versions apart
    new.replace(file)


def test_get_gives_the_bytes_with_validators_and_type(served: Served) -> None:
    answer = served.ask()
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["Content-Length"] == str(len(BODY))
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(BODY).hexdigest()}"'
    assert answer.headers["Last-Modified"] == formatdate(LONG_AGO_S, usegmt=True)
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_gives_the_headers_of_get_and_no_body(served: Served) -> None:
    get, head = served.ask(), served.ask("HEAD")
    assert (head.status, head.body) == (200, b"")
    headers = [{name: value for name, value in answer.headers.items() if name != "Date"} for answer in (get, head)]
    assert headers[0] == headers[1]
    assert served.ask("HEAD", Range="bytes=5-").status == 200  # RFC 9110, 14.2: Range is for GET


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-", 100, len(BODY) - 1),
        ("bytes=524287-524290", 524_287, 524_290),
        ("bytes=5-99999999999", 5, len(BODY) - 1),
        ("bytes=-10", len(BODY) - 10, len(BODY) - 1),
        ("bytes=-99999999999", 0, len(BODY) - 1),
        ("Bytes=1-2", 1, 2),
    ],
)
def test_a_range_gives_exactly_its_bytes(served: Served, wanted: str, first: int, last: int) -> None:
    answer = served.ask(Range=wanted)
    assert (answer.status, answer.body) == (206, BODY[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(BODY)}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)


@pytest.mark.parametrize("wanted", [f"bytes={len(BODY)}-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_gives_416_with_the_size(served: Served, wanted: str) -> None:
    answer = served.ask(Range=wanted)
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(BODY)}"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(BODY).hexdigest()}"'


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=a-b", "bytes=٣-", "lines=0-1", "bytes=" + "9" * 5000 + "-", ""]
)
def test_a_range_that_is_not_one_is_ignored(served: Served, wanted: str) -> None:
    answer = served.ask(Range=wanted.encode("utf-8").decode("latin-1"))
    assert (answer.status, answer.body) == (200, BODY)


def test_an_empty_file_is_served_and_has_no_range(served: Served) -> None:
    (served.root / "empty.txt").touch()
    answer = served.ask(target="/empty.txt")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert served.ask(target="/empty.txt", Range="bytes=0-").status == 416


def test_a_cut_download_resumes_to_the_same_bytes(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(f"GET {ZIP} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while len(received) < 300_000:
            received += connection.recv(65536)
    headers, _, part = received.partition(b"\r\n\r\n")
    etag = next(line.split(b": ")[1].decode() for line in headers.split(b"\r\n") if line.startswith(b"ETag"))
    rest = served.ask(Range=f"bytes={len(part)}-", If_Range=etag)
    assert rest.status == 206
    assert part + rest.body == BODY


def test_if_range_of_another_version_gives_the_whole_new_file(served: Served) -> None:
    old = served.ask("HEAD").headers["ETag"]
    replace_by_rename(served.root / ZIP[1:], BODY[::-1])
    answer = served.ask(Range="bytes=100-", If_Range=old)
    assert (answer.status, answer.body) == (200, BODY[::-1])
    assert "Content-Range" not in answer.headers


def test_if_range_with_a_weak_tag_or_another_date_gives_the_whole_file(served: Served) -> None:
    headers = served.ask("HEAD").headers
    for validator in (
        f"W/{headers['ETag']}",
        formatdate(LONG_AGO_S - 1, usegmt=True),
        formatdate(LONG_AGO_S + 1, usegmt=True),
        "x",
    ):
        assert served.ask(Range="bytes=100-", If_Range=validator).status == 200
    assert served.ask(Range="bytes=100-", If_Range=headers["Last-Modified"]).status == 206


def test_if_range_with_a_date_of_this_very_second_is_not_trusted(served: Served) -> None:
    file = served.root / ZIP[1:]
    in_a_minute_s = int(time.time()) + 60
    os.utime(file, (in_a_minute_s, in_a_minute_s))
    assert served.ask(Range="bytes=100-", If_Range=formatdate(in_a_minute_s, usegmt=True)).status == 200


def test_an_unchanged_file_gives_304_without_a_body(served: Served) -> None:
    headers = served.ask("HEAD").headers
    for name, value in [
        ("If_None_Match", headers["ETag"]),
        ("If_None_Match", f'"other", W/{headers["ETag"]}'),
        ("If_None_Match", "*"),
        ("If_Modified_Since", headers["Last-Modified"]),
        ("If_Modified_Since", formatdate(LONG_AGO_S + 5, usegmt=True)),
    ]:
        answer = served.ask(**{name: value})
        assert (answer.status, answer.body) == (304, b""), (name, value)
        assert answer.headers["ETag"] == headers["ETag"]


def test_a_condition_that_does_not_hold_or_cannot_be_read_gives_the_file(served: Served) -> None:
    headers = served.ask("HEAD").headers
    assert served.ask(If_None_Match='"other"').status == 200
    assert served.ask(If_Modified_Since=formatdate(LONG_AGO_S - 1, usegmt=True)).status == 200
    assert served.ask(If_Modified_Since="yesterday").status == 200
    # The tag is the stronger one: the same date says nothing when the tag is another.
    assert served.ask(If_None_Match='"other"', If_Modified_Since=headers["Last-Modified"]).status == 200


def test_if_match_and_if_unmodified_since_give_412_for_another_version(served: Served) -> None:
    headers = served.ask("HEAD").headers
    assert served.ask(If_Match='"other"').status == 412
    assert served.ask(If_Match=headers["ETag"]).status == 200
    assert served.ask(If_Unmodified_Since=formatdate(LONG_AGO_S - 1, usegmt=True)).status == 412
    assert served.ask(If_Unmodified_Since=headers["Last-Modified"]).status == 200


def test_a_replaced_file_has_another_etag_even_with_the_same_size_and_date(served: Served) -> None:
    before = served.ask("HEAD").headers
    replace_by_rename(served.root / ZIP[1:], BODY[::-1])
    after = served.ask("HEAD").headers
    assert before["Last-Modified"] == after["Last-Modified"]
    assert after["ETag"] == f'"{hashlib.sha256(BODY[::-1]).hexdigest()}"' != before["ETag"]


def test_a_file_written_to_in_place_has_another_etag(served: Served) -> None:
    before = served.ask("HEAD").headers["ETag"]
    with (served.root / ZIP[1:]).open("r+b") as file:
        file.write(b"other")
    os.utime(served.root / ZIP[1:], (LONG_AGO_S, LONG_AGO_S))
    answer = served.ask()
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"' != before


def test_a_file_replaced_while_it_is_sent_goes_out_in_one_version(served: Served) -> None:
    file = served.root / "large.zip"
    old, new = b"old!" * 4_000_000, b"new!" * 4_000_000  # 16 MB: more than the socket buffers hold
    file.write_bytes(old)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", "/large.zip")
    answer = connection.getresponse()
    first = answer.read(1000)
    replace_by_rename(file, new)
    assert first + answer.read() == old
    assert answer.headers["ETag"] == f'"{hashlib.sha256(old).hexdigest()}"'
    connection.close()
    assert served.ask(target="/large.zip").body == new


def test_a_file_cut_short_while_it_is_sent_ends_the_connection_and_logs_what_was_sent(served: Served) -> None:
    file = served.root / "large.zip"
    file.write_bytes(b"full" * 4_000_000)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", "/large.zip")
    answer = connection.getresponse()
    answer.read(1000)
    os.truncate(file, 1000)
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()
    wait_until(lambda: len(served.lines()) == 1)
    method, path, status, sent = served.lines()[0].split()
    assert (method, path, status) == ("GET", "/large.zip", "200")
    assert 0 < int(sent) < 16_000_000


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/hcad/../../secret.txt",
        "/hcad/%2e%2e/%2e%2e/secret.txt",
        "/hcad/%2E%2E%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%252e%252e/secret.txt",
        "//secret.txt",
        "///secret.txt",
        "/hcad/./2025/Real_acct_owner.zip",
        "/hcad//2025/Real_acct_owner.zip",
        "/link-out.txt",
        "/folder-out/secret.txt",
        "/circle",
        "/pipe",
        "/",
        "/hcad",
        "/hcad/2025/",
        "/hcad/2025/Real_acct_owner.zip/",
        "/hcad/2025/Real_acct_owner.zip%00.txt",
        "/%ff%fe",
        "/" + "x" * 5000,
        "/missing.zip",
        "*",
        "secret.txt",
        "http://127.0.0.1/../secret.txt",
        "http://[/",
    ],
)
def test_nothing_outside_the_tree_and_no_listing(served: Served, tmp_path: Path, target: str) -> None:
    (served.root / "link-out.txt").symlink_to(tmp_path / "secret.txt")
    (served.root / "folder-out").symlink_to(tmp_path)
    (served.root / "circle").symlink_to(served.root / "circle")
    os.mkfifo(served.root / "pipe")
    raw = served.ask_raw(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 404 ")
    assert b"outside" not in raw and b"secret" not in raw


def test_a_link_within_the_tree_and_an_absolute_target_are_served(served: Served) -> None:
    (served.root / "latest.zip").symlink_to(served.root / ZIP[1:])
    assert served.ask(target="/latest.zip").body == BODY
    assert served.ask(target=f"http://127.0.0.1:{served.port}{ZIP}?x=1").body == BODY
    assert served.ask(target="/hcad/2025/Real%5Facct_owner.zip").body == BODY


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused_and_change_nothing(served: Served, method: str) -> None:
    assert served.ask(method).status == 501
    assert served.ask().body == BODY
    assert served.lines()[0] == f"{method} {ZIP} 501 0"


def test_many_requests_use_one_connection(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for method, target, headers, status in [
        ("GET", ZIP, {}, 200),
        ("HEAD", ZIP, {}, 200),
        ("GET", "/missing", {}, 404),
        ("GET", ZIP, {"Range": "bytes=1-2"}, 206),
        ("GET", ZIP, {"Range": "bytes=99999999-"}, 416),
        ("GET", ZIP, {"If-None-Match": "*"}, 304),
        ("GET", ZIP, {"If-Match": '"other"'}, 412),
        ("HEAD", "/missing", {}, 404),
        ("GET", "/-/health", {}, 200),
    ]:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is not None and connection.sock.getsockname()[1] == port
    connection.close()


def test_the_body_of_a_request_is_not_taken_for_the_next_request(served: Served) -> None:
    smuggled = f"GET {ZIP} HTTP/1.1\r\n\r\n".encode()
    raw = served.ask_raw(b"GET /-/health HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(smuggled), smuggled))
    assert raw.count(b"HTTP/1.1 ") == 1
    assert served.lines() == ["GET /-/health 200 7"]


def test_the_log_has_one_line_a_request_before_the_client_has_the_whole_answer(served: Served) -> None:
    expected = []
    for round_ in range(20):
        served.ask()
        expected.append(f"GET {ZIP} 200 {len(BODY)}")
        served.ask("HEAD")
        expected.append(f"HEAD {ZIP} 200 0")
        served.ask(target=f"/missing-{round_}")
        expected.append(f"GET /missing-{round_} 404 14")
        served.ask(Range="bytes=0-9")
        expected.append(f"GET {ZIP} 206 10")
        assert served.lines() == expected  # at once: no waiting


def test_a_request_cannot_forge_a_log_line(served: Served) -> None:
    served.ask_raw(b"GET /a\x1b[2J\xe9 HTTP/1.1\r\nConnection: close\r\n\r\n")
    served.ask_raw(b"GET /a\x85GET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
    served.ask_raw(b"GET /a%0aGET%20/b HTTP/1.1\r\nConnection: close\r\n\r\n")
    text = served.log.read_bytes()
    assert text.count(b"\n") == 3
    assert all(32 <= byte < 127 or byte == 10 for byte in text)


def test_clients_at_the_same_time_get_whole_answers(served: Served) -> None:
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(served.ask().body)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert bodies == [BODY] * 12


def test_a_test_can_inject_a_fault_by_overriding_the_handler(tmp_path: Path) -> None:
    class NoTag(sample_server.SampleHandler):  # type: ignore[misc, name-defined]
        def validators(self, version: object) -> dict[str, str]:
            return {}

    (tmp_path / "a.txt").write_bytes(b"a")
    with (tmp_path / "log").open("wb") as log:
        server = sample_server.make_server(tmp_path, handler=NoTag, log_fd=log.fileno())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        answer = Served(tmp_path, server.server_port, tmp_path / "log").ask(target="/a.txt")
        server.shutdown()
        server.server_close()
        thread.join()
    assert (answer.status, answer.headers["ETag"]) == (200, None)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        sample_server.make_server(tmp_path / "missing")


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Served]]:
    """The program itself, isolated from the virtual environment's packages, in a folder that is not the repository."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "large.zip").write_bytes(b"full" * 4_000_000)
    port_file, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--root", "root", "--port", "0"]
    process = subprocess.Popen([*command, "--port-file", str(port_file), "--log", str(log)], cwd=tmp_path)
    try:
        wait_until(port_file.exists)
        yield process, Served(tmp_path / "root", int(port_file.read_text()), log)
    finally:
        process.kill()
        process.wait()


def test_program_answers_as_soon_as_the_port_file_is_there(
    program: tuple[subprocess.Popen[bytes], Served], tmp_path: Path
) -> None:
    _, served = program
    assert served.ask(target="/-/health").status == 200
    assert served.lines() == ["GET /-/health 200 7"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "port", "root"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_program_at_once_with_0_even_while_a_client_reads(
    program: tuple[subprocess.Popen[bytes], Served], number: signal.Signals
) -> None:
    process, served = program
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        client.sendall(b"GET /large.zip HTTP/1.1\r\n\r\n")
        client.recv(1000)
        process.send_signal(number)
        assert process.wait(timeout=60) == 0


def test_without_a_log_file_the_lines_go_to_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--root", str(tmp_path), "--port-file", str(tmp_path / "port")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_until((tmp_path / "port").exists)
        Served(tmp_path, int((tmp_path / "port").read_text()), tmp_path).ask(target="/port")
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert errors.startswith(b"GET /port 200 ") and errors.count(b"\n") == 1
