"""One request to a publisher's server, redirects followed by our own loop.

What comes back is a response of a status that the caller has use for, its body not read yet. Every hop is judged by the
address rule, there are at most five, and none is retried here: retrying has one layer. Headers and every piece of the body
have a time in which they must come, however busy the peer seems, and the body a rate that it must keep. Failures are sorted
by type: what may pass is a DownloadError, what will not is a DownloadRefused or an AddressRefused. No error quotes a
credential.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, Self
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

import pipeline
from pipeline.download.address import AddressRule, CheckedAdapter
from pipeline.download.rate import RateFloor
from pipeline.download.redact import RedactedLogs, redact, redact_text
from pipeline.download.retry import AskedToWait, Deadline, GivenUp, retry_after_s
from pipeline.download.watchdog import Watchdog
from pipeline.errors import AddressRefused, DownloadError, DownloadRefused

MAX_HOPS = 5
#: Client errors that ask for patience rather than for another request.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USUAL_STATUSES = frozenset({200, 404})
_NEXT_RUN = "nothing: the next run tries again"
_IF_IT_PASSES = "nothing if it passes; else see the network"


class HostSlots(Protocol):
    """A limit on connections to one host."""

    def slot(self, host: str, *, left_s: float) -> AbstractContextManager[object]:
        """Wait for a place, ``left_s`` seconds at most, and hold it in the ``with`` block.

        Args:
            host: a name or an address, without a port: all ports of a host are one machine.
            left_s: what is left until the deadline.

        Raises:
            DownloadError: there was none.
        """


def place(slots: HostSlots | None, url: str, left_s: float) -> AbstractContextManager[object]:
    """A place at the URL's host; no slots: there is always one."""
    if slots is None:
        return nullcontext()
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""  # Not a URL; it is refused before anything is asked.
    return slots.slot(host, left_s=max(0.0, left_s))


class Caller:
    """Sends the requests of one download and counts them (``requests_made``, redirect hops included).

    Args:
        rule: which addresses are allowed.
        timeout_s: seconds to connect, and seconds without a byte; the headers must be here after both together.
        deadline: no request and no reading goes on after it.
        retry_after_cap_s: the longest wait that a server may ask for; one that asks for more ends the download.
    """

    def __init__(self, rule: AddressRule, timeout_s: tuple[float, float], deadline: Deadline, retry_after_cap_s: float) -> None:
        self._rule = rule
        self._timeout_s = timeout_s
        self._deadline = deadline
        self._retry_after_cap_s = retry_after_cap_s
        self._watchdog = Watchdog()
        self._logs = RedactedLogs()
        self.requests_made = 0
        self._session = requests.Session()
        # The environment's proxy and CA bundle are honoured below; .netrc holds credentials that nobody gave to this program.
        self._session.trust_env = False
        # A connection serves one request, so that the one being watched is the one in use.
        self._session.headers.update(
            {"User-Agent": f"hcad-pipeline/{pipeline.__version__}", "Accept-Encoding": "identity", "Connection": "close"}
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, CheckedAdapter(rule.check_address, self._watchdog.watch))

    def __enter__(self) -> Self:
        self._logs.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._watchdog.close()
        self._logs.__exit__(None, None, None)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self._deadline.left_s

    def hang_up(self) -> None:
        """Let the peer see that its last answer is done with."""
        self._watchdog.release()

    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, usable: Collection[int] = _USUAL_STATUSES
    ) -> requests.Response:
        """Send a request and follow where it leads.

        Args:
            method: HEAD or GET.
            url: absolute.
            headers: sent with every hop.
            usable: the statuses that are an answer and not a failure.

        Returns:
            A response of one of these statuses whose body is unread; the caller closes it.

        Raises:
            DownloadError: connection, time-out, deadline, 5xx, 408, 425 or 429.
            DownloadRefused: any other status, a certificate that does not hold.
            AddressRefused: a hop leads where it may not, or there are too many.
        """
        came_from: str | None = None
        at = url
        for _ in range(MAX_HOPS + 1):
            self._rule.check_url(at, came_from)
            response = self._send_once(method, at, headers or {})
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return self._if_usable(response, at, usable)
            response.close()
            came_from, at = at, joined_url(at, location)
        raise AddressRefused(
            f"{redact(url)} redirects more than {MAX_HOPS} times, last to {redact(at)}",
            f"at most {MAX_HOPS} redirects",
            "correct the source's URL to where the archive is",
        )

    def body(self, response: requests.Response, url: str, chunk_bytes: int, floor: RateFloor) -> Iterator[bytes]:
        """Yield the body as it comes, in pieces of at most ``chunk_bytes``.

        Raises:
            DownloadError: the connection failed, the peer was silent or too slow, or the deadline passed.
        """
        chunk = b"begin"
        while chunk:
            self._deadline.check(url)
            began = time.monotonic()
            chunk = self._read(response, url, chunk_bytes, floor.window_s + self._timeout_s[1])
            # Only the time spent waiting for the peer counts: not ours for writing, nor a bandwidth limit's.
            floor.count(len(chunk), time.monotonic() - began, url)
            if chunk:
                yield chunk

    def _read(self, response: requests.Response, url: str, chunk_bytes: int, limit_s: float) -> bytes:
        limit_s = min(limit_s, max(self._deadline.left_s, 0.0))
        failure: Exception | None = None
        chunk = b""
        with self._watchdog.allowing(limit_s):
            try:
                # read1: what is there now. A full read would wait for the last byte of a chunk however slowly they drip.
                chunk = response.raw.read1(chunk_bytes, decode_content=True)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failure = _failure(error, url)
        if self._watchdog.has_cut:
            self._deadline.check(url)
            failure = DownloadError(f"{redact(url)} brought nothing useful in {limit_s:.0f} s", "a body", _IF_IT_PASSES)
        if failure is not None:
            raise failure
        return chunk

    def _send_once(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        self._deadline.check(url)
        self.requests_made += 1
        proxies = requests.utils.get_environ_proxies(url)
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        left_s = self._deadline.left_s
        connect_s, read_s = (max(min(seconds, left_s), 0.001) for seconds in self._timeout_s)
        self._logs.urls |= {url, *proxies.values()}
        failure: Exception | None = None
        with self._watchdog.allowing(min(sum(self._timeout_s), left_s)):
            try:
                prepared = self._session.prepare_request(requests.Request(method, url, headers=dict(headers)))
                # Not through Session.send, which reads a redirect's body whole and stumbles over its Location.
                adapter = self._session.get_adapter(url)
                response = adapter.send(prepared, stream=True, timeout=(connect_s, read_s), proxies=proxies, verify=bundle or True)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                failure = _failure(error, url, *proxies.values())
        if self._watchdog.has_cut:
            # Headers that end in the middle look like headers that end.
            if failure is None:
                response.close()
            self._deadline.check(url)
            failure = DownloadError(f"{redact(url)} sent no headers in {sum(self._timeout_s):g} s", "an answer", _IF_IT_PASSES)
        if failure is not None:
            raise failure
        return response

    def _if_usable(self, response: requests.Response, url: str, usable: Collection[int]) -> requests.Response:
        status = response.status_code
        if status in usable:
            return response
        response.close()
        seen = f"{redact(url)} answered {status} {redact_text(response.reason or '', url)}".rstrip()
        if status < 500 and status not in TRANSIENT_STATUSES:
            raise DownloadRefused(seen, "200 OK", "look at the URL in a browser, then correct the source's file")
        wait_s = retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"))
        if wait_s is None:
            raise DownloadError(seen, "200 OK", _NEXT_RUN)
        seen += f" and asks to wait {wait_s:.0f} s"
        if wait_s > self._retry_after_cap_s:
            raise GivenUp(seen, f"200 OK, or a wait of at most {self._retry_after_cap_s:g} s", _NEXT_RUN)
        error = AskedToWait(seen, "200 OK", _NEXT_RUN)
        error.wait_s = wait_s
        raise error


def joined_url(url: str, location: str) -> str:
    """Where a Location leads.

    Raises:
        AddressRefused: it is no URL.
    """
    try:
        return urljoin(url, location)
    except ValueError:
        raise AddressRefused(f"{redact(url)} redirects to what is no URL", "a URL", "correct the source's URL") from None


def _failure(error: Exception, *urls: str) -> DownloadError | DownloadRefused:
    """What a failure of the libraries means, in words that quote no secret of these URLs: the one asked for, its proxies."""
    url = urls[0]
    text = redact_text(_root_cause(error), *urls)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return DownloadRefused(
            f"the certificate of {redact(url)} does not hold ({text})",
            "a certificate that an authority of this machine vouches for",
            "see whether the server is the right one; add its authority to the machine if it is",
        )
    if isinstance(error, requests.exceptions.SSLError) and not _was_cut(error):
        return DownloadRefused(
            f"{redact(url)} cannot be talked to over TLS ({text})", "TLS 1.2 or newer", "see what the server speaks; http is no way out"
        )
    if isinstance(error, requests.exceptions.InvalidURL):
        return DownloadRefused(f"{redact(url)} cannot be asked for ({text})", "a URL", "correct the source's file")
    return DownloadError(f"{redact(url)} failed ({text})", "an answer", _IF_IT_PASSES)


def _was_cut(error: BaseException) -> bool:
    """Whether the connection ended in the handshake, which says nothing against the server."""
    return isinstance(_innermost(error), ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError | ConnectionError | TimeoutError)


def _root_cause(error: BaseException) -> str:
    """The innermost failure: the libraries' outer messages quote the URL, the innermost says what happened."""
    innermost = _innermost(error)
    return f"{type(innermost).__name__}: {innermost}"


def _innermost(error: BaseException) -> BaseException:
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if isinstance(inner, BaseException):
            error = inner
    return error
