"""Where a key set may be fetched from: https, or http on the machine itself."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

# The same for every reader: browsers, this guard and the HTTP library. No user, no fragment, no backslash.
_URL: Final = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?)(?::([0-9]{1,5}))?(/[!$%&'()*+,./:;=?@\w~-]*)?",
    re.ASCII | re.IGNORECASE,
)


def jwks_url_problem(url: str) -> str:
    """Say what is wrong with the address of a key set, or nothing; the words follow its name, and do not quote it."""
    parts = _URL.fullmatch(url)
    if parts is None or (parts[3] is not None and not 0 < int(parts[3]) <= 65535):
        return (
            "must be an https URL such as https://login.example/.well-known/jwks.json, without user, fragment, "
            "backslash or space: mend it"
        )
    if parts[1].lower() == "http" and not _is_loopback(parts[2].lower()):
        return "must be an https URL, for whoever can change the answer on its way can sign tokens: write https://"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        address = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except AddressValueError:
        return host == "localhost"
    return address.is_loopback
