"""Headers that are put on a response: that it is one viewer's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from toucan_guard.headers import Header, HeaderList
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
        kept: HeaderList = []
        cached = referred = False
        for header in headers:
            subject = _subject_of(header[0])
            if subject is None:
                pass
            elif subject == b"referrer-policy":
                referred = True
            elif not _is_private(header[1]):
                continue
            elif subject == b"cache-control":
                cached = True
            kept.append(header)
        if not cached:
            kept.append(_PRIVATE[0])
        if not referred:
            kept.append(_PRIVATE[1])
        kept.append(_PRIVATE[2])
        return kept


keep_private: Final = KeepPrivate()


@lru_cache(maxsize=256)
def _subject_of(name: bytes) -> bytes | None:
    """The name in lower case, where it is one that is looked at."""
    name = name.lower()
    # What caches in front of us obey before Cache-Control: RFC 9213 and what vendors made of it.
    looked_at = name == b"referrer-policy" or name in _CACHE_RULES or name.endswith(b"cdn-cache-control")
    return name if looked_at else None


@lru_cache(maxsize=256)
def _is_private(cache_control: bytes) -> bool:
    # With quotes it may be `private="name"`, which keeps one header private and shares the rest.
    directives = [directive.strip().lower() for directive in cache_control.split(b",")]
    return b'"' not in cache_control and (b"private" in directives or b"no-store" in directives)
