"""Which addresses a node may call: public ones, and the networks its operator allows (server-side request forgery).

A counterparty chooses its callback address and its did:web, so it chooses whom we call. The check is
made on the very address that is connected to, after the name was resolved, so a name that changes
its address between check and connection gains nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpcore
import httpx

from ihds.errors import PeerFailed, SetupFailed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Addresses that count as global but lead inside: NAT64 and site-local ranges, a cloud's own services.
_NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(n) for n in ("fec0::/10", "64:ff9b:1::/48", "192.0.0.0/24", "168.63.129.16/32")
)
#: What a node on a loopback address is allowed by default: itself and its neighbours.
LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class Guard:
    """Resolves names and connects to addresses that are allowed, to no others."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[str]) -> Guard:
        """Read networks in CIDR form.

        Raises:
            SetupFailed: one is not a network.

        """
        try:
            return cls(tuple(ipaddress.ip_network(text) for text in networks))
        except ValueError as error:
            raise SetupFailed(f"allowed_networks: {error}", remedy='write networks like "10.1.0.0/16"') from error

    def allows(self, address: str) -> bool:
        """Return whether an IP address may be called; an IPv4 address inside an IPv6 one is looked at as itself."""
        ip = _embedded(ipaddress.ip_address(address.split("%")[0]))
        if any(ip in network for network in self.networks if network.version == ip.version):
            return True
        return ip.is_global and not ip.is_multicast and not any(ip in n for n in _NEVER if n.version == ip.version)

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed IP addresses of a name.

        Raises:
            PeerFailed: the name stands only for addresses that may not be called.
            OSError: the name is unknown.

        """
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except UnicodeError as error:
            raise OSError(f"{host!r} is no name") from error
        allowed = [ip for ip in found if self.allows(ip)]
        if not allowed:
            raise PeerFailed(
                f"{host}:{port} is {', '.join(found)}: an address this node may not call",
                remedy="if it is one of your own, add its network to allowed_networks in node.toml",
            )
        return allowed

    def connect(
        self, address: tuple[str, int], timeout: float | None = None, source: tuple[str, int] | None = None
    ) -> socket.socket:
        """Return a socket connected to an allowed address of a name: ``socket.create_connection``, guarded."""
        host, port = address
        last: OSError | None = None
        for ip in self.addresses(host, port):
            try:
                return socket.create_connection((ip, port), timeout, source)
            except OSError as error:
                last = error
        assert last is not None
        raise last


def _embedded(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    found = ip.ipv4_mapped or ip.sixtofour
    if found is None and (int(ip) >> 32 == 0x64FF9B << 64 or (int(ip) >> 32 == 0 and int(ip) > 1)):
        found = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return found or ip


class _Backend(httpcore.SyncBackend):
    """httpcore's own network, except that the guard chooses the address."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[typing.Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self.guard.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in addresses[:-1]:
            try:
                return _Timely(super().connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return _Timely(super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options))


_DEADLINE = threading.local()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound everything this thread reads and writes inside, however slowly the other side drips."""
    before = getattr(_DEADLINE, "at", None)
    _DEADLINE.at = time.monotonic() + seconds
    try:
        yield
    finally:
        _DEADLINE.at = before


def _left(timeout: float | None, error: type[Exception]) -> float | None:
    at: float | None = getattr(_DEADLINE, "at", None)
    if at is None:
        return timeout
    left = at - time.monotonic()
    if left <= 0:
        raise error("it takes too long")
    return left if timeout is None else min(timeout, left)


class _Timely(httpcore.NetworkStream):
    """A stream that knows its thread's deadline."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Timely(self.inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> typing.Any:
        return self.inner.get_extra_info(info)


class GuardedTransport(httpx.HTTPTransport):
    """httpx's transport over the guarded network."""

    def __init__(self, guard: Guard, limits: httpx.Limits) -> None:
        """Make a transport; certificates are checked as httpx does by default."""
        context = httpx.create_ssl_context(trust_env=False)
        super().__init__(verify=context, limits=limits, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(guard),
        )
