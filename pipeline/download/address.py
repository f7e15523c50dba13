"""Which addresses a download may lead to.

A URL is https, and every address that its host resolves to is a global one or lies in a network that the source allows.
Plain http is for networks that the source allows by name, where it is the source's own business, and elsewhere only when
it is allowed altogether. The same is asked again of the address that the socket was in fact connected to, before a byte is
sent, so that a name which resolves differently a moment later gains nothing. A chain that was https once never goes on
over http.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import ProxyManager

from pipeline.download.redact import redact
from pipeline.errors import AddressRefused, ConfigurationError, DownloadError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TODO = "correct the source's URL, or name the network in its allow_addresses if it is meant"


#: RFC 6052: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRule:
    """The addresses that are allowed: global ones over https, and those in the networks given.

    Args:
        allow_addresses: networks or single addresses, as CIDR texts (``127.0.0.0/8``), for https and http.
        allow_http: global addresses may be asked over http, too.

    Raises:
        ConfigurationError: a text is no network.
    """

    def __init__(self, allow_addresses: Sequence[str] = (), *, allow_http: bool = False) -> None:
        self._allow_http = allow_http
        try:
            self._allowed = tuple(ipaddress.ip_network(text, strict=False) for text in allow_addresses)
        except ValueError as error:
            raise ConfigurationError(
                f"allow_addresses holds what is no network: {error}", "CIDR texts such as 10.0.0.0/8", "correct the source's file"
            ) from None

    def check_address(self, text: str, scheme: str = "https") -> None:
        """Raise AddressRefused unless this IP address may be connected to under this scheme."""
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        if any(address in network for network in self._allowed):
            return
        if not address.is_global or address.is_multicast:
            raise AddressRefused(
                f"the download leads to {address}, which is not a public address",
                "a public address, or one that the source allows",
                _TODO,
            )
        if scheme == "http" and not self._allow_http:
            raise AddressRefused(
                f"the download leads to {address} over plain http", "https", "correct the source's URL, or allow http if it must be"
            )

    def check_url(self, url: str, came_from: str | None = None) -> None:
        """Judge a URL before it is asked for.

        Args:
            url: absolute.
            came_from: the URL that redirected to it.

        Raises:
            AddressRefused: scheme, host or one of the host's addresses is not allowed, or https would become http.
            DownloadError: the host's name cannot be resolved now.
        """
        try:
            split = urlsplit(url)
            scheme, host, port = split.scheme.lower(), split.hostname, split.port
        except ValueError:
            raise AddressRefused(f"{redact(url)} is not a URL", "http://host/path or https://host/path", _TODO) from None
        if scheme not in _DEFAULT_PORTS or not host:
            raise AddressRefused(f"{redact(url)} is not an address of the web", "http://host/path or https://host/path", _TODO)
        if came_from is not None and scheme == "http" and urlsplit(came_from).scheme.lower() == "https":
            raise AddressRefused(f"{redact(came_from)} leads from https to {redact(url)}", "https all the way", _TODO)
        for address in _resolve(host, port or _DEFAULT_PORTS[scheme]):
            self.check_address(address, scheme)


def _resolve(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise DownloadError(
            f"the name {host} cannot be resolved ({error.strerror})", "an address", "nothing if it passes; else see DNS"
        ) from None
    except UnicodeError:
        raise AddressRefused(f"{host!r} cannot be a host's name", "a name or an address", _TODO) from None
    return tuple(str(entry[4][0]) for entry in found)


class CheckedAdapter(HTTPAdapter):
    """A requests adapter without retries of its own, which judges the peer of every socket it opens itself.

    Through a configured proxy the peer is the proxy, which the operator chose: there only the URL is judged.

    Args:
        check_address: is given the address connected to and the scheme, and raises.
        on_connect: is given every connection, once it was judged and before a byte is sent.
    """

    def __init__(self, check_address: Callable[[str, str], None], on_connect: Callable[[socket.socket], None]) -> None:
        self._check_address = check_address
        self._on_connect = on_connect
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools from connections that know the rule."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self._check_address, self._on_connect)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make a proxy's pools from connections that are watched, and not judged."""
        manager = super().proxy_manager_for(*args, **kwargs)
        # A SOCKS manager makes its connections in classes of its own.
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = _pool_classes(lambda address, scheme: None, self._on_connect)
        return manager


def _pool_classes(check: Callable[[str, str], None], on_connect: Callable[[socket.socket], None]) -> dict[str, type[HTTPConnectionPool]]:
    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(super()._new_conn(), "http", check, on_connect)

    class TlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(super()._new_conn(), "https", check, on_connect)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}


def _checked(
    connection: socket.socket, scheme: str, check: Callable[[str, str], None], on_connect: Callable[[socket.socket], None]
) -> socket.socket:
    try:
        check(connection.getpeername()[0], scheme)
        on_connect(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address is a way of writing (mapped, compatible, 6to4, Teredo, NAT64), or the address itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour or address
    if address.teredo:
        return address.teredo[1]
    is_compatible = int(address) >> 32 == 0 and int(address) > 1
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if is_compatible or address in _NAT64 else address
