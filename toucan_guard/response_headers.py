"""Headers that are put on a response: that it is one viewer's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from toucan_guard.headers import Header, HeaderList, name_of
from toucan_guard.trail import HeaderEdit, Trail

_PRIVATE: Final[HeaderList] = [
    (b"cache-control", b"private, no-store"),
    (b"referrer-policy", b"same-origin"),
    (b"vary", b"Authorization, Cookie, X-Embed-Token"),
]
_CACHE_RULES: Final = frozenset({b"cache-control", b"surrogate-control", b"edge-control", b"x-accel-expires"})


class KeepPrivate(HeaderEdit):
    """The headers of a response that was made for one viewer.

    No shared cache keeps it (RFC 9111 §5.2.2), and the Referer of our pages stays with us.
    """

    names = "\ncache-control\nreferrer-policy\nvary"

    def additions(self, names: str, trail: Trail) -> Sequence[Header] | None:
        """See ``HeaderEdit``."""
        del trail
        if (
            "cache-control" in names  # and every header whose name ends like it
            or "referrer-policy" in names
            or "surrogate-control" in names
            or "edge-control" in names
            or "x-accel-expires" in names
        ):
            return None
        return _PRIVATE

    def __call__(self, headers: HeaderList, trail: Trail) -> HeaderList:
        """See ``HeaderEdit``."""
        del trail
        kept: HeaderList = [*headers]
        cached = referred = False
        # From the end, so that what is taken out moves nothing that is still to be looked at.
        for index, name in _looked_at(tuple(map(bytes, map(name_of, headers)))):
            if name == b"referrer-policy":
                referred = True
            elif not _is_private(headers[index][1]):
                del kept[index]
            elif name == b"cache-control":
                cached = True
        if not cached:
            kept.append(_PRIVATE[0])
        if not referred:
            kept.append(_PRIVATE[1])
        kept.append(_PRIVATE[2])
        return kept


keep_private: Final = KeepPrivate()


@lru_cache(maxsize=256)
def _looked_at(names: tuple[bytes, ...]) -> tuple[tuple[int, bytes], ...]:
    """Of header names, those that are looked at: where they stand, and the name in lower case; the last one first."""
    found = []
    for index, name in enumerate(map(bytes.lower, names)):
        # What caches in front of us obey before Cache-Control: RFC 9213 and what vendors made of it.
        if name == b"referrer-policy" or name in _CACHE_RULES or name.endswith(b"cdn-cache-control"):
            found.append((index, name))
    return tuple(reversed(found))


@lru_cache(maxsize=256)
def _is_private(cache_control: bytes) -> bool:
    # With quotes it may be `private="name"`, which keeps one header private and shares the rest.
    directives = [directive.strip().lower() for directive in cache_control.split(b",")]
    return b'"' not in cache_control and (b"private" in directives or b"no-store" in directives)
