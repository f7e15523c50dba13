"""The probe, and where requests may lead."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager, fingerprint
from pipeline.download.address import AddressRule
from pipeline.errors import AddressRefused, ConfigurationError, DownloadError, DownloadRefused

VALIDATORS = {"ETag": '"v1"', "Last-Modified": "Sat, 26 Sep 2026 10:00:00 GMT"}


def test_probe_reads_the_validators_without_the_body(server: Any, archive: bytes, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, archive)
    probe = manager.probe(server.url("/a.zip"))
    assert (probe.status, probe.etag, probe.bytes) == ("found", '"v1"', len(archive))
    assert probe.fingerprint == fingerprint('"v1"', VALIDATORS["Last-Modified"], len(archive))
    assert [request.method for request in server.requests] == ["HEAD"]


@pytest.mark.fault(8)
def test_probe_of_an_unpublished_archive_says_missing(server: Any, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("404 Not Found", VALIDATORS)
    probe = manager.probe(server.url("/a.zip"))
    assert (probe.status, probe.fingerprint, probe.bytes) == ("missing", None, None)
    assert len(server.requests) == 1


def test_probe_is_retried_on_server_errors_and_refused_on_others(server: Any, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer(
        "502 Bad Gateway" if len(server.requests) < 4 else "200 OK", VALIDATORS, b"12345"
    )
    assert manager.probe(server.url("/a.zip")).bytes == 5
    server.routes["/a.zip"] = lambda request: request.answer("502 Bad Gateway", {})
    with pytest.raises(DownloadError, match=r"502.*last of 4 attempts"):
        manager.probe(server.url("/a.zip"))
    assert len(server.requests) == 8
    server.routes["/a.zip"] = lambda request: request.answer("403 Forbidden", {})
    with pytest.raises(DownloadRefused, match="403"):
        manager.probe(server.url("/a.zip"))
    # HEAD, and the one GET that could have got through where HEAD may not.
    assert len(server.requests) == 10


def test_server_without_any_validator_is_refused_with_the_reason(server: Any, manager: DownloadManager) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", {}, length=None)
    with pytest.raises(DownloadRefused, match="neither ETag nor Last-Modified nor Content-Length"):
        manager.probe(server.url("/a.zip"))


@pytest.mark.fault(14)
@pytest.mark.parametrize("method", ["probe", "download"])
def test_redirect_loop_ends_after_five_hops(server: Any, manager: DownloadManager, tmp_path: Path, method: str) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("302 Found", {"Location": "/a.zip"})
    with pytest.raises(AddressRefused, match="more than 5 times"):
        if method == "probe":
            manager.probe(server.url("/a.zip"))
        else:
            manager.download_file(server.url("/a.zip"), tmp_path / "a.zip")
    assert len(server.requests) == 6


@pytest.mark.fault(14)
def test_five_hops_are_followed(server: Any, manager: DownloadManager) -> None:
    for hop in range(5):
        server.routes[f"/{hop}"] = lambda request, hop=hop: request.answer("301 Moved", {"Location": f"/{hop + 1}"})
    server.routes["/5"] = lambda request: request.answer("200 OK", VALIDATORS, b"12345")
    assert manager.probe(server.url("/0")).bytes == 5


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("file:///etc/passwd", "not an address of the web"),
        ("ftp://example.org/a.zip", "not an address of the web"),
        ("http://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("http://10.0.0.1/a.zip", "not a public address"),
        ("http://[::1]/a.zip", "not a public address"),
        ("http://[::ffff:10.0.0.1]/a.zip", "not a public address"),
        ("http://0.0.0.0/a.zip", "not a public address"),
        ("http://2130706434/", "not a public address"),
        ("http://224.0.0.1/a.zip", "not a public address"),
        ("http://[ff0e::1]/a.zip", "not a public address"),
        ("http://93.184.216.34/a.zip", "over plain http"),
        ("http://[bad/a.zip", "no URL"),
        ("http://127.0.0.1:99999/", "not a URL"),
    ],
)
def test_hop_to_a_forbidden_place_is_refused_unasked(server: Any, manager: DownloadManager, target: str, why: str) -> None:
    rule_manager = manager if target != "http://2130706434/" else DownloadManager(allow_addresses=["127.0.0.1/32"])
    server.routes["/a.zip"] = lambda request: request.answer("302 Found", {"Location": target})
    with pytest.raises(AddressRefused, match=why):
        rule_manager.probe(server.url("/a.zip"))
    assert len(server.requests) == 1


@pytest.mark.fault(14)
def test_loopback_is_refused_unless_allowed(server: Any) -> None:
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, b"12345")
    with pytest.raises(AddressRefused, match=r"127\.0\.0\.1"):
        DownloadManager().probe(server.url("/a.zip"))
    assert not server.requests
    with pytest.raises(ConfigurationError, match="nonsense"):
        DownloadManager(allow_addresses=["nonsense"])


@pytest.mark.fault(14)
def test_name_that_changes_its_address_after_the_check_gains_nothing(
    server: Any, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when judged, loopback when connected to."""
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, b"12345")
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(AddressRefused, match=r"127\.0\.0\.1"):
        DownloadManager(timeout_s=(2, 2), backoff_s=0.01, allow_http=True).probe(f"http://rebind.example:{server.host.split(':')[1]}/a.zip")
    assert len(asked) == 2 and not server.requests


@pytest.mark.fault(14)
def test_allowed_address_that_changes_to_a_public_one_is_not_asked_over_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain http is for the allowed networks alone: the socket's own peer decides, not the name's first answer."""
    rule = AddressRule(["127.0.0.0/8"])
    rule.check_address("127.0.0.1", "http")
    with pytest.raises(AddressRefused, match="over plain http"):
        rule.check_address("93.184.216.34", "http")
    rule.check_address("93.184.216.34", "https")
    AddressRule(["127.0.0.0/8"], allow_http=True).check_address("93.184.216.34", "http")
    # On the wire: the peer is 127.0.0.2, which is not the network that the source allows.
    listener = socket.create_server(("127.0.0.2", 0))
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with listener, pytest.raises(AddressRefused, match=r"127\.0\.0\.2"):
        DownloadManager(timeout_s=(2, 2), backoff_s=0.01, allow_addresses=["127.0.0.1/32"]).probe(
            f"http://rebind.example:{listener.getsockname()[1]}/a.zip"
        )


def test_address_written_as_ipv6_is_judged_as_what_it_is() -> None:
    rule = AddressRule(["127.0.0.0/8"])
    rule.check_address("::ffff:127.0.0.1")
    rule.check_address("2606:2800:220:1::1")
    written_otherwise = ("64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1")
    for address in ("::ffff:10.0.0.1", "fe80::1%eth0", "::1", "fd00::1", *written_otherwise):
        with pytest.raises(AddressRefused):
            rule.check_address(address)


def test_https_is_never_left_for_http() -> None:
    rule = AddressRule(["127.0.0.0/8"])
    rule.check_url("http://127.0.0.1/", "http://127.0.0.1/")
    with pytest.raises(AddressRefused, match="not an address"):
        rule.check_url("http:///a.zip")
    rule.check_url("https://127.0.0.1/", "http://127.0.0.1/")
    with pytest.raises(AddressRefused, match="leads from https"):
        rule.check_url("http://127.0.0.1/", "https://127.0.0.1/")


@pytest.mark.fault(19)
def test_refused_connection_and_unknown_name_are_transient(manager: DownloadManager) -> None:
    with pytest.raises(DownloadError, match="Connection refused"):
        manager.probe("http://127.0.0.1:9/a.zip")
    with pytest.raises(DownloadError, match="cannot be resolved"):
        manager.probe("http://no-such-host.invalid/a.zip")


@pytest.mark.fault(19)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_self_signed_certificate_is_terminal(
    hostile: ModuleType, make_manager: Callable[..., DownloadManager], tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class TlsServer(hostile.HostileServer):  # type: ignore[misc, name-defined]
        def wrap(self, connection: socket.socket) -> socket.socket:
            return context.wrap_socket(connection, server_side=True)

    events: list[str] = []
    with TlsServer() as server:
        with pytest.raises(DownloadRefused, match="certificate"):
            make_manager(on_event=lambda name, figures: events.append(name)).probe(f"https://{server.host}/a.zip")
        assert not server.requests and not events


@pytest.mark.fault(25)
def test_proxy_is_used_and_its_password_is_shown_nowhere(
    server: Any, hostile: ModuleType, archive: bytes, manager: DownloadManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://user:hunter2@{server.host}")
    route = hostile.Faithful(archive, cuts=[1000])
    server.routes["http://127.0.0.1:8/a.zip"] = route
    receipt = manager.download_file("http://127.0.0.1:8/a.zip", tmp_path / "a.zip")
    assert route.statuses == [200, 206] and receipt.bytes == len(archive)
    assert server.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpodW50ZXIy"
    monkeypatch.setenv("http_proxy", "http://user:hunter2@127.0.0.1:9")
    with pytest.raises(DownloadError) as failed:
        manager.download_file("http://127.0.0.1:8/a.zip", tmp_path / "b.zip", max_retries=0)
    assert "hunter2" not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(AddressRefused):
        manager.download_file("http://10.0.0.1/a.zip", tmp_path / "b.zip")


@pytest.mark.fault(25)
def test_password_that_lies_in_the_users_netrc_is_not_sent(
    server: Any, manager: DownloadManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.routes["/a.zip"] = lambda request: request.answer("200 OK", VALIDATORS, b"12345")
    manager.probe(server.url("/a.zip"))
    assert "authorization" not in server.requests[0].headers
