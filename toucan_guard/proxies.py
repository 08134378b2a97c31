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
    try:
        address: IPv4Address | IPv6Address = ip_address(client[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # A server that listens on IPv6 shows IPv4 peers like this.
        address = address.ipv4_mapped
    return any(address in network for network in trusted)


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
    return values[0].decode("latin-1") if len(values) == 1 else None
