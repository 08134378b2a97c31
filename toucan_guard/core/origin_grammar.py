"""What an origin is: the strict grammar of a received one, and the forgiving reading of a configured one.

Two readers, because two kinds of people write origins. A browser serialises an
``Origin`` header in exactly one way (RFC 6454 §6.2, WHATWG URL), so whatever is
not in that form was not written by a browser and is malformed. An operator
writes a configuration by hand, so upper case, an international name or a
default port are mended, and everything that would quietly mean something else
is refused with the mend in the message.

``urllib.parse`` is not used: it disagrees with browsers about backslashes, tabs
and newlines, and whoever disagrees with the browser about an origin has a hole.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

import idna

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HIGHEST_PORT: Final = 65535
# A DNS name has at most 253 characters (RFC 1035 §2.3.4) and a final dot. The cap also bounds the label walk.
_LONGEST_HOST: Final = 254
_LONGEST_ORIGIN: Final = _LONGEST_HOST + 64

# Explicit classes and `fullmatch` throughout: `\d` would take digits of other scripts, `$` a final newline.
_NAME: Final = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?"
_ORIGIN: Final = re.compile(rf"([a-z][a-z0-9+.-]{{0,31}})://({_NAME}|\[[0-9a-f:]{{2,39}}\])(?::([1-9][0-9]{{0,4}}))?")
_HOST: Final = re.compile(_NAME)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# What may follow the authority of a Referer: it has no fragment (RFC 9110 §10.1.3) and a browser escapes the rest.
_REFERER: Final = re.compile(r"([^/?#]*//[^/?#]*)(?:[/?][!-\"$-~]*)?")
_HEX_LABEL: Final = re.compile(r"0x[0-9a-f]*")
_LOOPBACK_NAMES: Final = ("localhost", "localhost.")
_LOOPBACK_ADDRESSES: Final = ("[::1]", "[::]")

# Documents of these schemes have an opaque origin (or another document's), which browsers serialise as "null".
_OPAQUE_SCHEMES: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "javascript", "mailto", "view-source"}
)
# These have an origin in the URL standard, but no page comes from there.
_PAGELESS_SCHEMES: Final = frozenset({"ftp", "ws", "wss"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, lower-case host and effective port (RFC 6454 §4).

    Made by ``parse_origin``, ``parse_pattern`` or ``referer_origin``; the
    constructor itself does not check. ``str()`` serialises, without the default port.

    Attributes:
        scheme: Lower case, without the colon.
        host: ASCII and lower case; an IPv6 address in brackets.
        port: The effective port; None only for the schemes of apps (``capacitor://localhost``), which have no default.
    """

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{_port_suffix(self.scheme, self.port)}"


@dataclass(frozen=True, slots=True)
class WildcardOrigin:
    """``https://*.a.example``: every name with one label or more in front of ``a.example``, never the apex itself.

    Attributes:
        scheme: ``https``, or ``http`` in development.
        parent: The host behind the ``*.``.
        port: The effective port; a wildcard covers exactly one.
    """

    scheme: str
    parent: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.scheme}://*.{self.parent}{_port_suffix(self.scheme, self.port)}"


def default_port(scheme: str) -> int | None:
    """The port that goes without saying; the schemes of apps have none."""
    return _DEFAULT_PORTS.get(scheme)


def _port_suffix(scheme: str, port: int | None) -> str:
    return "" if port is None or port == default_port(scheme) else f":{port}"


def parse_origin(value: str) -> Origin | None:
    """Read one value of an ``Origin`` header, or return None where no browser can have written it.

    ``null`` gives None too: it is well-formed but names nobody, and callers decide about it by itself.
    An explicit default port is the same origin as none. Never raises.
    """
    return _parse_origin(value) if len(value) <= _LONGEST_ORIGIN else None


@lru_cache(maxsize=1024)  # a site has few embedders; short texts only, so that strangers cannot fill the memory
def _parse_origin(value: str) -> Origin | None:
    if (found := _ORIGIN.fullmatch(value)) is None:
        return None
    scheme, host, digits = found.groups()
    if scheme in _OPAQUE_SCHEMES or not _is_canonical_host(host):
        return None
    port = int(digits) if digits is not None else default_port(scheme)
    return None if port is not None and port > _HIGHEST_PORT else Origin(scheme, host, port)


def referer_origin(value: str) -> Origin | None:
    """Read the origin of a ``Referer`` URL, or return None where no browser can have written it. Never raises."""
    found = _REFERER.fullmatch(value)
    return None if found is None else parse_origin(found[1])


def _is_canonical_host(host: str) -> bool:
    """Whether a host that fits the grammar is also in the one form that the URL standard serialises to."""
    if host[0] == "[":
        return _compressed_ipv6(host[1:-1]) == host
    if len(host) > _LONGEST_HOST or (_ends_in_number(host) and not _is_ipv4(host)):
        return False
    return "xn--" not in host or all(map(_is_valid_label, host.split(".")))


def _is_valid_label(label: str) -> bool:
    """Whether browsers would keep this label: an A-label must be one that UTS 46 leaves as it is."""
    if not label.startswith("xn--"):
        return True
    try:
        name = label[4:].encode("ascii").decode("punycode")
        return not name.isascii() and idna.uts46_remap(name, std3_rules=False) == name
    except UnicodeError:
        return False


def _ends_in_number(host: str) -> bool:
    """Whether browsers read this host as an IPv4 address (WHATWG URL, "ends in a number"): ``127.1`` is 127.0.0.1."""
    last = host.removesuffix(".").rpartition(".")[2]
    return last.isdigit() or _HEX_LABEL.fullmatch(last) is not None


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 and str(int(part)) == part for part in parts)


def _compressed_ipv6(text: str) -> str | None:
    """Serialise an IPv6 address as browsers do; the standard library's form differs between its versions."""
    try:
        packed = IPv6Address(text).packed
    except AddressValueError:
        return None
    groups = [f"{(packed[i] << 8) | packed[i + 1]:x}" for i in range(0, 16, 2)]
    start, length = 0, 1
    for first in range(8):
        run = 0
        while first + run < 8 and groups[first + run] == "0":
            run += 1
        if run > length:
            start, length = first, run
    if length == 1:
        return f"[{':'.join(groups)}]"
    return f"[{':'.join(groups[:start])}::{':'.join(groups[start + length :])}]"


def is_ip_literal(host: str) -> bool:
    """Whether a canonical host is an IPv4 or IPv6 address."""
    return host.startswith("[") or _is_ipv4(host)


def _is_loopback(host: str) -> bool:
    if is_ip_literal(host):
        return host in _LOOPBACK_ADDRESSES or host.startswith(("127.", "0.", "[::ffff:7f"))
    return host in _LOOPBACK_NAMES or host.endswith(tuple(f".{name}" for name in _LOOPBACK_NAMES))


def quoted(text: str) -> str:
    """Quote a configured entry for an error message: printable, capped, and without the password of a userinfo."""
    if "@" in text:
        scheme, separator, _ = text.partition("://")
        text = f"{scheme + separator if separator else ''}…@{text.rpartition('@')[2]}"
    shown = text if len(text) <= 80 else f"{text[:79]}…"
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown) + '"'


def parse_pattern(text: str, *, development: bool = False) -> Origin | WildcardOrigin:
    """Read one configured origin, ``https://a.example`` or ``https://*.a.example``.

    Upper case, international names (UTS 46), default ports and long forms of IPv6 are mended.

    Args:
        text: What the operator wrote.
        development: Whether ``http`` and loopback hosts are in order.

    Raises:
        ValueError: With one sentence that says what is wrong and the mend.
    """
    scheme, authority = _split_scheme(text)
    host, port = split_port(authority, text)
    if port is None:
        port = default_port(scheme)
    wildcard = host.startswith("*.")
    parent = parse_host(host.removeprefix("*."), text)
    if not development:
        refuse_http(scheme, text)
        refuse_loopback(scheme, parent, text)
    if not wildcard:
        return Origin(scheme, parent, port)
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{quoted(text)}: the origin of an app is named exactly; write it without the *")
    refuse_wide_wildcard(parent, text)
    return WildcardOrigin(scheme, parent, port)


def _split_scheme(text: str) -> tuple[str, str]:
    """Split a configured origin at ``://``, refusing what is not an origin at all."""
    refuse_unprintable(text)
    if text == "null":
        raise ValueError(
            '"null" is no origin that can be listed: every sandboxed frame and local file sends it; remove it'
        )
    if text == "*":
        raise ValueError('"*" lets every web site in; name the origins, or set TOUCAN_GUARD_INSECURE_ANY_ORIGIN=true')
    scheme, separator, authority = text.partition("://")
    if not separator:
        raise ValueError(f"{quoted(text)}: an origin starts with its scheme; write https:// and then the host")
    return parse_scheme(scheme, text), authority


def refuse_unprintable(text: str) -> None:
    """Refuse what cannot stand in any origin or frame-ancestors source."""
    if not text:
        raise ValueError("an entry is empty; remove it")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{quoted(text)}: there is a space or a control character in it; remove it")
    for separator in ",;":
        if separator in text:
            raise ValueError(f'{quoted(text)}: there is a "{separator}" in it; write one entry for each origin')


def parse_scheme(scheme: str, text: str) -> str:
    """Check a scheme and return it in lower case: ``https``, ``http``, or an app's own such as ``capacitor``."""
    if scheme.isascii():  # the lower case of some other letters is ASCII, the Kelvin sign's for one
        scheme = scheme.lower()
    if _SCHEME.fullmatch(scheme) is None:
        raise ValueError(f"{quoted(text)}: the part before the colon is not a scheme; write https://")
    if scheme in _OPAQUE_SCHEMES or scheme in _PAGELESS_SCHEMES:
        raise ValueError(f"{quoted(text)}: no page has an origin with the scheme {scheme}; remove it")
    if scheme not in _DEFAULT_PORTS and difflib.get_close_matches(scheme, _DEFAULT_PORTS, cutoff=0.75):
        # Any other word is taken for the scheme of an app; this one would silently match nobody.
        raise ValueError(f"{quoted(text)}: the scheme {scheme} looks like a typing mistake; write https://")
    return scheme


def split_port(authority: str, text: str) -> tuple[str, int | None]:
    """Split ``host[:port]``; the host may still be anything but a path or userinfo."""
    if "@" in authority:
        raise ValueError(f"{quoted(text)}: an origin has no user name or password; remove the part before the @")
    if any(c in authority for c in "/\\?#"):
        raise ValueError(f"{quoted(text)}: an origin has no path, not even a final /; end it after the host and port")
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
        separator, digits = rest[:1], rest[1:]
        if separator not in ("", ":"):
            raise ValueError(f"{quoted(text)}: the part behind the ] is not a port; write it as :8443")
    else:
        host, separator, digits = authority.partition(":")
    if not separator:
        return host, None
    if _PORT.fullmatch(digits) is None or int(digits) > _HIGHEST_PORT:
        raise ValueError(f"{quoted(text)}: the port must be a number from 1 to 65535 without leading zeros")
    return host, int(digits)


def parse_host(host: str, text: str) -> str:
    """Bring a configured host into the form that browsers serialise: A-labels, lower case, compressed IPv6."""
    if not host:
        raise ValueError(f"{quoted(text)}: the host is missing")
    if "*" in host:
        raise ValueError(f"{quoted(text)}: a * stands only for whole labels at the front; write https://*.a.example")
    if host.startswith("["):
        address = _compressed_ipv6(host[1:-1]) if host.endswith("]") and "%" not in host else None
        if address is None:
            raise ValueError(f"{quoted(text)}: the part in brackets is not an IPv6 address")
        return address
    name = host.lower()
    if not name.isascii():
        try:
            name = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError:
            raise ValueError(
                f"{quoted(text)}: the host is not a valid international name; write its xn-- form"
            ) from None
    # Checked after the mapping: full-width digits and dots become an address only here.
    if _HOST.fullmatch(name) is None or len(name) > _LONGEST_HOST:
        raise ValueError(f"{quoted(text)}: the host is not a host name; use letters, digits, - and . only")
    if _ends_in_number(name) and not _is_ipv4(name):
        raise ValueError(f"{quoted(text)}: browsers read this host as an IPv4 address; write its four numbers in full")
    if not _is_canonical_host(name):
        raise ValueError(f"{quoted(text)}: a part that starts with xn-- is not a valid international name")
    return name


def refuse_wide_wildcard(parent: str, text: str) -> None:
    """Refuse a wildcard that covers a whole top-level domain, or an address, which has no subdomains."""
    if is_ip_literal(parent):
        raise ValueError(f"{quoted(text)}: an address has no subdomains; write it without the *")
    if "." not in parent.removesuffix(".") and not _is_loopback(parent):
        raise ValueError(
            f"{quoted(text)}: this covers every site under .{parent.removesuffix('.')}; "
            "name your own domain, as in https://*.a.example"
        )


def refuse_http(scheme: str, text: str) -> None:
    """Refuse ``http`` in production."""
    if scheme == "http":
        raise ValueError(
            f"{quoted(text)}: everybody on the way can change a page that comes over http; write https://, "
            "or set TOUCAN_GUARD_ENVIRONMENT=development on your own machine"
        )


def refuse_loopback(scheme: str, host: str, text: str) -> None:
    """Refuse ``https://localhost`` in production; ``capacitor://localhost`` is how apps call themselves."""
    if scheme == "https" and _is_loopback(host):
        raise ValueError(
            f"{quoted(text)}: any program on the visitor's machine can be that host; remove it, "
            "or set TOUCAN_GUARD_ENVIRONMENT=development on your own machine"
        )
