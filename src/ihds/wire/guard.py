"""Which addresses a node may call: public ones, and the networks its operator allows (server-side request forgery).

A counterparty chooses its callback address and its did:web, so it chooses whom we call. The check is
made on the very address that is connected to, after the name was resolved, so a name that changes
its address between check and connection gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import typing
from collections.abc import Iterable
from dataclasses import dataclass

import httpcore
import httpx

from ihds.errors import PeerFailed, SetupFailed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
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
        """Return whether an IP address may be called."""
        ip = ipaddress.ip_address(address.split("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return (ip.is_global and not ip.is_multicast) or any(
            ip in network for network in self.networks if network.version == ip.version
        )

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed IP addresses of a name.

        Raises:
            PeerFailed: the name stands only for addresses that may not be called.
            OSError: the name is unknown.

        """
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
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
        return socket.create_connection((self.addresses(host, port)[0], port), timeout, source)


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
            address = self.guard.addresses(host, port)[0]
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return super().connect_tcp(address, port, timeout, local_address, socket_options)


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
