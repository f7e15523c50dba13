"""Certificates of an authority of our own: the right one works, every other is terminal, and https never becomes http."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.download import DownloadManager
from pipeline.errors import DownloadError, DownloadRefused

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")

Make = Callable[..., DownloadManager]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.pem`` and the certificates that it signed: ``good``, ``expired``, ``elsewhere``."""
    folder = tmp_path_factory.mktemp("authority")
    new_key = ["-newkey", "rsa:2048", "-nodes"]
    openssl(folder, "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=Our own", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ncertificate=ca.pem\nprivate_key=ca.key\n"
        "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    for name, host, start, end in [
        ("good", "IP:127.0.0.1", "20200101000000Z", "20990101000000Z"),
        ("expired", "IP:127.0.0.1", "20200101000000Z", "20200201000000Z"),
        ("elsewhere", "DNS:download.example", "20200101000000Z", "20990101000000Z"),
    ]:
        (folder / "extensions").write_text(f"subjectAltName={host}\n")
        openssl(folder, "req", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            folder, "ca", "-batch", "-config", "ca.conf", "-extfile", "extensions", "-startdate", start, "-enddate", end,
            "-in", f"{name}.csr", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


@contextlib.contextmanager
def serving(hostile: ModuleType, authority: Path, name: str) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")

    class TlsServer(hostile.HostileServer):  # type: ignore[misc, name-defined]
        def wrap(self, connection: socket.socket) -> socket.socket:
            return context.wrap_socket(connection, server_side=True)

    with TlsServer() as server:
        yield server


@pytest.mark.fault(19)
def test_certificate_of_a_known_authority_is_taken_and_a_cut_body_is_gone_on_with(
    hostile: ModuleType, authority: Path, archive: bytes, make_manager: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
    with serving(hostile, authority, "good") as server:
        route = server.routes["/a.zip"] = hostile.Faithful(archive, cuts=[100_000])
        receipt = make_manager().download_file(f"https://{server.host}/a.zip", tmp_path / "a.zip")
    assert route.statuses == [200, 206] and receipt.bytes == len(archive)


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("name", "bundle", "reason"),
    [
        ("good", None, "self-signed|unable to get local issuer"),
        ("expired", "ca.pem", "expired"),
        ("elsewhere", "ca.pem", "mismatch|not valid for"),
    ],
)
def test_certificate_that_does_not_hold_is_terminal_and_nothing_is_sent(
    hostile: ModuleType, authority: Path, make_manager: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, bundle: str | None, reason: str,
) -> None:  # fmt: skip
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / bundle))
    events: list[str] = []
    with serving(hostile, authority, name) as server:
        manager = make_manager(allow_http=True, on_event=lambda event, figures: events.append(event))
        with pytest.raises(DownloadRefused, match=reason):
            manager.download_file(f"https://{server.host}/a.zip?token=s3cr3t", tmp_path / "a.zip")
        assert not server.requests and not events
    assert list(tmp_path.iterdir()) == []


def answer_raw(listener: socket.socket, answer: bytes) -> None:
    """Answer the first bytes of every connection with these, and close it."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [(b"", DownloadError, "last of 2 attempts"), (b"HTTP/1.1 400 Plain\r\n\r\n", DownloadRefused, "over TLS")],
    ids=["hangs up", "speaks plain http"],
)
def test_server_that_speaks_no_tls_is_terminal_and_one_that_hangs_up_is_not(
    make_manager: Make, tmp_path: Path, answer: bytes, error: type[Exception], text: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_raw, args=(listener, answer), daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a.zip"
        with pytest.raises(error, match=text):
            make_manager().download_file(url, tmp_path / "a.zip", max_retries=1)
        listener.shutdown(socket.SHUT_RDWR)
    assert list(tmp_path.iterdir()) == []
