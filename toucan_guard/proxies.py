"""What a trusted proxy says about a request; from anybody else it counts for nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.types import Scope

from toucan_guard.core.origins import Origin, parse_origin

Networks = Sequence[IPv4Network | IPv6Network]

# Some proxies name the scheme of the handshake; a page's Origin never does.
_SCHEMES: Final = {"https": "https", "http": "http", "wss": "https", "ws": "http"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)


def from_trusted_proxy(scope: Scope, trusted: Networks) -> bool:
    """Whether the peer of this connection is one of the named proxies."""
    client = scope.get("client")
    if not client or not trusted:
        return False
    return _is_trusted(_address(client[0]), trusted)


def client_address(scope: Scope, trusted: Networks) -> str | None:
    """Who asks: the peer, or whom the named proxies forward for (X-Forwarded-For, read from the right).

    The first address that is no named proxy is the client's; what stands to its left is its own claim.
    """
    client = scope.get("client")
    if not client:
        return None
    if not trusted or not from_trusted_proxy(scope, trusted):
        return str(client[0])
    forwarded = [
        value.decode("latin-1")
        for name, value in scope["headers"]
        if name == b"x-forwarded-for" and isinstance(value, bytes)
    ]
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:
            break
        if not _is_trusted(address, trusted):
            return str(address)
    return str(client[0])


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # A server that listens on IPv6 shows IPv4 peers like this.
        return address.ipv4_mapped
    return address


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: Networks) -> bool:
    return address is not None and any(address in network for network in trusted)


def own_origin(scope: Scope, trusted: Networks) -> frozenset[Origin] | None:
    """Our own origin as a trusted proxy forwards it; None where none says so.

    Repeated or listed values are refused as a whole: one of them is somebody else's.
    """
    if not from_trusted_proxy(scope, trusted):
        return None
    protocol = _single(scope, b"x-forwarded-proto")
    host = _single(scope, b"x-forwarded-host")
    if protocol is None or host is None:
        return None
    scheme = _SCHEMES.get(protocol)
    origin = None if scheme is None else parse_origin(f"{scheme}://{host}")
    return None if origin is None else frozenset((origin,))


def inherited_request_id(scope: Scope, trusted: Networks) -> str | None:
    """The X-Request-ID that a trusted proxy gave this request, where it is harmless text."""
    if not from_trusted_proxy(scope, trusted):
        return None
    value = _single(scope, b"x-request-id")
    return value if value is not None and _REQUEST_ID.fullmatch(value) else None


def _single(scope: Scope, name: bytes) -> str | None:
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 and isinstance(values[0], bytes) else None
