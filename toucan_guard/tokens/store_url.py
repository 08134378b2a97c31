"""Where the store is: a strict reading of ``redis://``, ``rediss://``, ``valkey://`` and ``valkeys://`` URLs.

Drivers forgive much in a URL: they take an unknown option for a setting, a password without a colon for a user name,
and a mistyped database for the first one. A guard that silently shares the wrong database finds no spent token in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

from toucan_guard.core.errors import ConfigError

_VARIABLE: Final = "TOUCAN_GUARD_STORE_URL"
_TLS: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_DEFAULT_PORT: Final = 6379

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DATABASE: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A Redis or Valkey server. ``str()`` is fit for messages: it has neither user name nor password.

    Attributes:
        host: Name or IP address, without brackets.
        port: TCP port.
        tls: Whether the connection is encrypted, and the server's certificate checked.
        username: ACL user, or None for the default user.
        password: Its password, or None.
        database: Number of the database; a cluster has 0 only.
    """

    host: str
    port: int = _DEFAULT_PORT
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    database: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'valkeys' if self.tls else 'valkey'}://{host}:{self.port}/{self.database}"


def parse_store_url(url: str, source: str = _VARIABLE) -> StoreAddress:
    """Read the URL of a store: ``valkeys://user:password@store.example:6379/0``.

    Args:
        url: The text.
        source: The variable that gave it, for messages.

    Raises:
        ConfigError: With every mistake. No message quotes the URL, because a password may stand anywhere in a
            mistyped one.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _TLS:
        raise ConfigError(
            f"{source} starts with {', '.join(f'{name}://' for name in _TLS)} or is memory://; write one of these"
        )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{source} has a space, a control character or a letter that is not ASCII; encode it as %20")
    problems = []
    if "?" in rest or "#" in rest:
        problems.append(
            "takes no options after ? or #; remove them, and write these characters in a password as %3F, %23"
        )
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, _, path = rest.partition("/")
    userinfo, at, place = authority.rpartition("@")
    if "@" in userinfo or "@" in path:
        # Where the host begins is anybody's guess now, so nothing after this would be a help.
        problems.append("has more than one @, or a / before it; write these characters in a password as %40 and %2F")
        raise ConfigError([f"{source} {problem}" for problem in problems])
    username, password = _credentials(userinfo, problems) if at else (None, None)
    host, port = _place(place, problems)
    if path and _DATABASE.fullmatch(path) is None:
        problems.append("ends with something that is not the number of a database; write /0 or nothing")
    if problems:
        raise ConfigError([f"{source} {problem}" for problem in problems])
    return StoreAddress(host, port, _TLS[scheme], username, password, int(path or 0))


def _credentials(userinfo: str, problems: list[str]) -> tuple[str | None, str | None]:
    username, colon, password = userinfo.partition(":")
    if not colon or not password:
        problems.append("has an @ but no password before it; write :password@ or user:password@")
    elif ":" in password:
        problems.append("has more than one : before the @; write this character in a password as %3A")
    try:
        if _PERCENT.search(userinfo):
            raise ValueError("a percent sign without two digits")
        return (_decoded(username) or None, _decoded(password) or None)
    except ValueError:
        problems.append("has a % in its user name or password that begins no character; write a percent sign as %25")
        return None, None


def _decoded(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8")


def _place(place: str, problems: list[str]) -> tuple[str, int]:
    host, port = place, ""
    colon = place.rfind(":")
    if colon > place.rfind("]"):
        host, port = place[:colon], place[colon + 1 :]
        if _PORT.fullmatch(port) is None or not 0 < int(port) <= 65535:
            problems.append("has a port that is not a number from 1 to 65535")
            port = ""
    if not _is_host(host):
        problems.append("does not name a host; write the host's name, or an IPv6 address in brackets")
    return host.strip("[]"), int(port or _DEFAULT_PORT)


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _NAME.fullmatch(host) is not None
    try:
        return host.endswith("]") and IPv6Address(host[1:-1]).scope_id is None
    except AddressValueError:
        return False
