"""Our own frame-ancestors list: who may frame a response, validated when it is configured.

This is the strict half: one bad byte in the directive makes browsers drop it and
opens the frame, so every source is checked, and what cannot be a source is
refused with the mend. How browsers read other people's lists is in
``core/csp_meaning.py``; what goes out beside an app's headers, in ``core/csp.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from toucan_guard.core.allowlist import OriginAllowlist, checked_entries
from toucan_guard.core.csp_meaning import FRAME_ANCESTORS, Cell, parse_source_list
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origin_grammar import (
    Origin,
    WildcardOrigin,
    default_port,
    is_ip_literal,
    parse_host,
    parse_scheme,
    quoted,
    refuse_http,
    refuse_loopback,
    refuse_unprintable,
    refuse_wide_wildcard,
    split_port,
)

Header = tuple[bytes, bytes]

CSP: Final = b"content-security-policy"
X_FRAME_OPTIONS: Final = b"x-frame-options"

_SELF: Final = "'self'"
_NONE: Final = "'none'"
_ANY: Final = "*"
_NOBODY: Final = OriginAllowlist()


@dataclass(frozen=True, repr=False)
class FrameAncestors:
    """A validated frame-ancestors list of our own.

    Attributes:
        origins: The sources with a scheme and one port; ``any`` is the source ``*``.
        own: Whether ``'self'`` is a source.
        loose: Every other source: scheme-sources, hosts without a scheme, hosts with any port. Sorted.
    """

    origins: OriginAllowlist = _NOBODY
    own: bool = False
    loose: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str], *, development: bool = False, allow_any: bool = False) -> FrameAncestors:
        """Read configured sources: ``https://a.example``, ``https://*.a.example:*``, ``a.example``, ``https:``,
        ``'self'``, or ``'none'`` alone (CSP Level 3 §6.4.2, without paths, addresses and other keywords).

        Args:
            entries: The sources; none means ``'none'``.
            development: Whether ``http`` and loopback hosts are in order.
            allow_any: Whether ``*`` is in order (the operator has said so aloud).

        Raises:
            ConfigError: With every mistake at once.
        """
        problems: list[str] = []
        found: list[Origin | WildcardOrigin | str] = []
        for entry in checked_entries(entries, "the frame ancestors"):
            try:
                if not isinstance(entry, str):
                    raise ValueError(f"a frame ancestor is a text, not of type {type(entry).__name__}")
                found.append(_parse_source(entry, development=development, allow_any=allow_any))
            except ValueError as error:
                problems.append(str(error))
        if _NONE in found and len(found) > 1:
            # Browsers would ignore the 'none' and obey the rest, which is the opposite of what it says.
            problems.append(f"{_NONE} stands alone: remove it, or everything beside it")
        if problems:
            raise ConfigError(problems)
        return cls._of(found)

    @classmethod
    def _of(cls, found: Iterable[Origin | WildcardOrigin | str]) -> FrameAncestors:
        patterns = [source for source in found if not isinstance(source, str)]
        texts = {source for source in found if isinstance(source, str)} - {_NONE}
        allowlist = OriginAllowlist.of(*patterns)
        return cls(
            OriginAllowlist(allowlist.exact, allowlist.wildcards, _ANY in texts),
            _SELF in texts,
            tuple(sorted(texts - {_SELF, _ANY})),
        )

    @classmethod
    def of(cls, allowlist: OriginAllowlist) -> FrameAncestors:
        """Let the same origins frame us that may call us.

        Raises:
            ConfigError: Where an origin cannot be written as a source: an address, or a name with an underscore.
        """
        problems = [problem for pattern in _patterns(allowlist) if (problem := _unframeable(pattern))]
        if problems:
            raise ConfigError(sorted(problems))
        return cls(allowlist)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The sources, serialised and sorted; ``("'none'",)`` for nobody."""
        found = sorted((*self.origins.entries, *self.loose, *((_SELF,) if self.own else ())))
        return tuple(found) or (_NONE,)

    @cached_property
    def header_value(self) -> str:
        """The directive: ``frame-ancestors https://a.example https://b.example``."""
        return f"{FRAME_ANCESTORS} {' '.join(self.sources)}"

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """The header fields of an enforced policy, ready to send.

        X-Frame-Options goes along for old readers where it can say the same; it cannot name a partner.
        """
        policy = (CSP, self.header_value.encode("ascii"))
        if self.sources == (_NONE,):
            return (policy, (X_FRAME_OPTIONS, b"DENY"))
        if self.sources == (_SELF,):
            return (policy, (X_FRAME_OPTIONS, b"SAMEORIGIN"))
        return (policy,)

    def narrowed(
        self,
        other: OriginAllowlist | Iterable[str],
        *,
        development: bool = False,
        self_origins: frozenset[Origin] = frozenset(),
    ) -> FrameAncestors:
        """The list that only those of ``other`` remain on; never wider than either. Never raises.

        Args:
            other: Where a tenant or a token may be embedded. One entry that cannot be a source, or one bad text
                in a list of texts, makes the result ``'none'``: half-understood lists open nothing.
            development: For a list of texts: whether ``http`` and loopback hosts are in order.
            self_origins: Who we are; ``'self'`` remains only where the other list names all of these.
        """
        if not isinstance(other, OriginAllowlist):
            try:
                other = OriginAllowlist.parse(other, development=development)
            except ConfigError:
                return NONE
        if other.any:
            return self
        if any(_unframeable(pattern) for pattern in _patterns(other)):
            return NONE
        common: list[Origin | WildcardOrigin] = list(_patterns(self.origins.narrowed(other)))
        if self.loose:
            common.extend(_met(self.loose, other))
        own = self.own and bool(self_origins) and all(other.allows(origin) for origin in self_origins)
        return FrameAncestors(OriginAllowlist.of(*common), own)

    def same_origin_only(self, self_origins: frozenset[Origin] = frozenset()) -> FrameAncestors:
        """The list intersected with ``'self'``: what remains beside an app's X-Frame-Options: SAMEORIGIN.

        Where the list names us only by our address, it takes ``self_origins`` to see that.
        """
        if self.own or self.origins.any:
            return _SELF_ONLY
        loose = parse_source_list(" ".join(self.loose))
        if self_origins and all(self.origins.allows(one) or loose.matches(one, one) for one in self_origins):
            return _SELF_ONLY
        return NONE

    def __repr__(self) -> str:
        return f"<FrameAncestors of {len(self.sources)}>"


NONE: Final = FrameAncestors()
_SELF_ONLY: Final = FrameAncestors(own=True)


def _patterns(allowlist: OriginAllowlist) -> Iterator[Origin | WildcardOrigin]:
    yield from allowlist.exact
    yield from allowlist.wildcards


def _unframeable(pattern: Origin | WildcardOrigin) -> str:
    """Why browsers do not take this origin as a source; empty where they do."""
    host = pattern.host if isinstance(pattern, Origin) else pattern.parent
    if is_ip_literal(host):
        return f"{quoted(str(pattern))}: frame-ancestors cannot name an address; use a host name"
    if "_" in host:
        return f"{quoted(str(pattern))}: frame-ancestors cannot name a host with an underscore; use another name"
    return ""


def _met(loose: tuple[str, ...], other: OriginAllowlist) -> Iterator[Origin | WildcardOrigin]:
    """What of ``other`` the loose sources cover, narrowed to the smaller of the two.

    A host without a scheme is taken for its https form, which it covers whatever our own scheme is.
    """
    cells = set(parse_source_list(" ".join(loose)).cells(Origin("https", "", 443)))
    for pattern in _patterns(other):
        host = pattern.host if isinstance(pattern, Origin) else f".{pattern.parent}"
        for cell in cells:
            met = cell.meet(Cell(pattern.scheme, host, pattern.port))
            if met is not None:
                if met.host.startswith("."):
                    yield WildcardOrigin(met.scheme, met.host[1:], pattern.port)
                else:
                    yield Origin(met.scheme, met.host, pattern.port)


def _parse_source(text: str, *, development: bool, allow_any: bool) -> Origin | WildcardOrigin | str:
    """Read one configured source. Texts come back for those that are not an origin with one port."""
    refuse_unprintable(text)
    lowered = text.lower()
    if lowered in (_SELF, _NONE):
        return lowered
    if "'" in text or '"' in text:
        raise ValueError(f"{quoted(text)}: frame-ancestors knows the keywords 'self' and 'none' only; remove it")
    if text == _ANY:
        return _allowed_any(text, allow_any=allow_any)
    if text.endswith(":"):
        scheme = parse_scheme(lowered.removesuffix(":"), text)
        if not development:
            refuse_http(scheme, text)
        return f"{scheme}:"
    before, separator, after = text.partition("://")
    scheme = parse_scheme(before.lower(), text) if separator else ""
    authority = after if separator else text
    any_port = authority.endswith(":*")
    host, port = split_port(authority.removesuffix(":*"), text)
    if host == _ANY:
        _allowed_any(text, allow_any=allow_any)
        name = _ANY
    else:
        name = parse_host(host.removeprefix("*."), text)
        if host.startswith("*."):
            refuse_wide_wildcard(name, text)
    if not development:
        refuse_http(scheme, text)
        # A host without a scheme takes ours, which is https in production.
        refuse_loopback(scheme or "https", name, text)
    if problem := _unframeable(Origin(scheme or "https", name, None)):
        raise ValueError(problem)
    if scheme and not any_port and name != _ANY:
        port = default_port(scheme) if port is None else port
        return WildcardOrigin(scheme, name, port) if host.startswith("*.") else Origin(scheme, name, port)
    front = f"{scheme}://" if scheme else ""
    end = ":*" if any_port else "" if port is None else f":{port}"
    return f"{front}{'*.' if host.startswith('*.') else ''}{name}{end}"


def _allowed_any(text: str, *, allow_any: bool) -> str:
    if not allow_any:
        raise ValueError(
            f"{quoted(text)} lets every web site frame us; name them, or set TOUCAN_GUARD_INSECURE_ANY_ORIGIN=true"
        )
    return text
