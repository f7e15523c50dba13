"""One request to a publisher's server, redirects followed by our own loop.

What comes back is a response with a status that the caller can use, its body not read yet. Every hop is judged by the address rule, there
are at most five, and none is retried here: retrying has one layer, in the manager. Failures are sorted by type: what may
pass is a DownloadError, what will not is a DownloadRefused or an AddressRefused. No error quotes a credential.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import urljoin

import requests

import pipeline
from pipeline.download.address import AddressRule, CheckedAdapter
from pipeline.download.redact import redact, redact_text
from pipeline.errors import AddressRefused, DownloadError, DownloadRefused

MAX_HOPS = 5
#: Client errors that ask for patience rather than for another request.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Caller:
    """Sends the requests of one download and counts them (``requests_made``, redirect hops included).

    Args:
        rule: which addresses are allowed.
        timeout_s: seconds to connect, and seconds without a byte.
    """

    def __init__(self, rule: AddressRule, timeout_s: tuple[float, float]) -> None:
        self._rule = rule
        self._timeout_s = timeout_s
        self.requests_made = 0
        self._session = requests.Session()
        # The environment's proxy and CA bundle are honoured below; .netrc holds credentials that nobody gave to this program.
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": f"hcad-pipeline/{pipeline.__version__}", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, CheckedAdapter(rule.check_address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, usable: frozenset[int] = frozenset({200, 404})
    ) -> requests.Response:
        """Send a request and follow where it leads.

        Args:
            method: of HTTP.
            url: absolute.
            headers: besides those that every request has.
            usable: the statuses that the caller knows what to do with.

        Returns:
            A response of a usable status whose body is unread; the caller closes it.

        Raises:
            DownloadError: connection, time-out, 5xx, 408, 425 or 429.
            DownloadRefused: any other status, a certificate that does not hold, too many hops.
            AddressRefused: a hop leads where it may not.
        """
        came_from: str | None = None
        at = url
        for _ in range(MAX_HOPS + 1):
            self._rule.check_url(at, came_from)
            response = self._send_once(method, at, headers or {})
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return _with_usable_status(response, at, usable)
            response.close()
            came_from, at = at, _joined(at, location)
        raise AddressRefused(
            f"{redact(url)} redirects more than {MAX_HOPS} times, last to {redact(at)}",
            f"at most {MAX_HOPS} redirects",
            "correct the source's URL to where the archive is",
        )

    def _send_once(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        self.requests_made += 1
        proxies = requests.utils.get_environ_proxies(url)
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        try:
            prepared = self._session.prepare_request(requests.Request(method, url, headers=dict(headers)))
            # Not through Session.send, which reads a redirect's body whole and stumbles over its Location.
            adapter = self._session.get_adapter(url)
            return adapter.send(prepared, stream=True, timeout=self._timeout_s, proxies=proxies, verify=bundle or True)
        except requests.RequestException as error:
            failure = _failure(error, url)
        raise failure


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise AddressRefused(f"{redact(url)} redirects to what is no URL", "a URL", "correct the source's URL") from None


def read_body(response: requests.Response, url: str, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the body in chunks of at most ``chunk_bytes``; a connection that fails on the way is a DownloadError."""
    failure: Exception | None = None
    try:
        yield from response.iter_content(chunk_bytes)
    except requests.RequestException as error:
        failure = _failure(error, url)
    if failure is not None:
        raise failure


def _with_usable_status(response: requests.Response, url: str, usable: frozenset[int]) -> requests.Response:
    status = response.status_code
    if status in usable:
        return response
    response.close()
    seen = f"{redact(url)} answered {status} {redact_text(response.reason or '', url)}".rstrip()
    if status >= 500 or status in TRANSIENT_STATUSES:
        raise DownloadError(seen, "200 OK", "nothing: the next run tries again")
    raise DownloadRefused(seen, "200 OK", "look at the URL in a browser, then correct the source's file")


def _failure(error: requests.RequestException, url: str) -> DownloadError | DownloadRefused:
    """What a failure of the library means, in words that quote no secret."""
    text = redact_text(_root_cause(error), url)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return DownloadRefused(
            f"the certificate of {redact(url)} does not hold ({text})",
            "a certificate that an authority of this machine vouches for",
            "see whether the server is the right one; add its authority to the machine if it is",
        )
    if isinstance(error, requests.exceptions.InvalidURL):
        return DownloadRefused(f"{redact(url)} cannot be asked for ({text})", "a URL", "correct the source's file")
    return DownloadError(f"{redact(url)} failed ({text})", "an answer", "nothing if it passes; else see the network")


def _root_cause(error: BaseException) -> str:
    """The innermost failure: the libraries' outer messages quote the URL, the innermost says what happened."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if isinstance(inner, BaseException):
            error = inner
    return f"{type(error).__name__}: {error}"
