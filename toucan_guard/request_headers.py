"""What the guard reads of a request's headers, in one pass: the values, and whether one of them is repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from starlette.types import Scope

from toucan_guard.headers import Header

# Nothing that is accepted is nearly as long; of what is longer, its beginning is enough to refuse it.
_LONGEST_READ: Final = 65_536
READ_HEADERS: Final = frozenset(
    {
        b"access-control-request-method",
        b"authorization",
        b"cookie",
        b"origin",
        b"referer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-websocket-protocol",
        b"x-api-key",
        b"x-embed-token",
    }
)
"""Of these every value counts; of others, the last."""

Said = tuple[bytes | None, ...]

_UNREAD: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class RequestHeaders:
    """The headers of one request, as they arrived, or as a guard in front of this one has left them.

    Attributes:
        raw: The last value of each header (see ``read``).
        said: What the headers say of where the request comes from, in a form to remember it by; no credential is in
            it. None where a header that the guard reads is repeated.
    """

    __slots__ = ("_header_count", "_header_values", "_headers", "raw", "said")

    def __init__(self) -> None:
        self.raw: Mapping[bytes, bytes] = _UNREAD
        self.said: Said | None = None
        self._headers: Sequence[Header] = ()
        self._header_count = -1
        self._header_values: Mapping[bytes, tuple[str, ...]] | None = None

    def read(self, scope: Scope) -> None:
        """Read what the guard looks at of the request's headers, in one pass: see ``raw`` and ``said``.

        Read again where the list is another one: what a guard in front took away is gone for the one behind it.
        """
        headers = scope["headers"]
        if headers is not self._headers or len(headers) != self._header_count:
            self.read_headers(headers)

    def read_headers(self, headers: Sequence[Header]) -> None:
        """Read these headers, whatever the scope says: see ``read``."""
        self.raw = raw = dict(headers)
        self.said = None if repeats(headers, raw) else said_of(raw)
        self._headers, self._header_count, self._header_values = headers, len(headers), None

    def _decoded(self) -> Mapping[bytes, tuple[str, ...]]:
        if self._header_values is None:
            # Lists: some servers take as many headers as anybody sends, and a tuple is copied for each.
            found: dict[bytes, list[str]] = {}
            for name, value in self._headers:
                if name in READ_HEADERS:
                    found.setdefault(name, []).append(_beginning(value, _LONGEST_READ))
            self._header_values = {name: tuple(values) for name, values in found.items()}
        return self._header_values

    def values_of(self, name: bytes, *, longest: int = _LONGEST_READ) -> tuple[str, ...]:
        """Every value of a header that the guard reads, of those that were read last; of a longer one its beginning."""
        if self.said is None:
            return self._decoded().get(name, ())
        value = self.raw.get(name)  # the only one
        if value is None:
            return ()
        return (value.decode("latin-1") if len(value) <= longest else _beginning(value, longest),)


def _beginning(value: bytes, longest: int) -> str:
    # What is cut ends in what nothing that is accepted may hold: behind white space, the rest would not be missed.
    return (value if len(value) <= longest else value[:longest] + b"\0").decode("latin-1")


def said_of(raw: Mapping[bytes, bytes]) -> Said:
    """See ``RequestHeaders.said``."""
    value = raw.get  # one call after the other: a loop over the names takes twice as long
    return (
        value(b"access-control-request-method"),
        value(b"origin"),
        value(b"referer"),
        value(b"sec-fetch-dest"),
        value(b"sec-fetch-mode"),
        value(b"sec-fetch-site"),
    )


def repeats(headers: Sequence[Header], raw: Mapping[bytes, bytes]) -> bool:
    """Whether a header that the guard reads is repeated.

    Args:
        headers: All of them.
        raw: The last value of each.
    """
    if len(raw) == len(headers):
        return False
    names = [name for name, _ in headers if name in READ_HEADERS]
    return len(set(names)) != len(names)


def list_headers(scope: Scope) -> None:
    """Make a list of the headers: ASGI allows what can be gone through once."""
    headers: Any = scope.get("headers")
    if headers.__class__ is not list:
        try:
            scope["headers"] = [*headers]
        except TypeError:
            scope["headers"] = [headers]  # which is no header
