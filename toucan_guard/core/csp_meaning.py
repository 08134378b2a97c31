"""What a browser makes of somebody else's framing headers: frame-ancestors and X-Frame-Options.

This is the lenient half. It reads whatever an app sends, as browsers do (CSP
Level 3 §6.4.2 and §6.7.2, HTML "X-Frame-Options"), so that ``check`` and
``explain`` can say who may really frame a response, and so that our own header
is only ever added to a policy that was understood. What *we* send is written by
``core/csp.py``, which is strict.

Where the specification and browsers differ, this follows the browsers, and of
two browsers the one that lets more through: "nobody else can frame this" must
never be said wrongly. So an IPv4 address in a source matches as text, though
CSP 3 says that no address matches.

A source list is taken apart into *cells*: one scheme, a host pattern, a port. A
cell means the same in matching, in intersecting and in comparing two lists,
which is why ``subsumes`` can be trusted: it is set inclusion, cell by cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from toucan_guard.core.origin_grammar import Origin

__all__ = ["Cell", "Framing", "SourceList", "effective", "enforced_lists", "parse_source_list", "subsumes"]

FRAME_ANCESTORS: Final = "frame-ancestors"
ASCII_WHITESPACE: Final = "\t\n\f\r "  # the WHATWG's set; str.strip() would also take bytes that browsers keep

# The specification takes spaces and tabs off an option; Chromium takes off all of these, and then DENY is one.
_TRIMMED: Final = "\t\n\v\f\r "
_WHITESPACE: Final = re.compile(rf"[{ASCII_WHITESPACE}]+")
# Browsers drop the whole directive, not only the source, for one byte of this kind.
_BAD_BYTE: Final = re.compile(r"[^\t\n\f\r -~]")
_SCHEME_SOURCE: Final = re.compile(r"([a-z][a-z0-9+.-]*):")
_HOST_SOURCE: Final = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?(\*|(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*\.?)(?::(\*|[0-9]+))?(/[^?#]*)?(?:[?#].*)?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_UPGRADES: Final = {"http": "https", "ws": "wss"}
_NETWORK_SCHEMES: Final = ("ftp", "http", "https", "ws", "wss")
_HIGHEST_PORT: Final = 65535

_ANY: Final = "*"
_OWN_SCHEME: Final = ""  # stands for our own scheme where nobody has said what it is
_OWN_HOST: Final = "'self'"

Port = int | None | Literal["*"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One scheme, a host pattern, a port and a path: the smallest part of a source list.

    Attributes:
        scheme: Lower case.
        host: A host, ``.a.example`` for every name under it, or ``*``.
        port: A number, None for "this scheme has no default", or ``*``.
        path: Empty, or a path, which no ancestor has.
    """

    scheme: str
    host: str
    port: Port
    path: str = ""

    def holds(self, origin: Origin) -> bool:
        """Whether an ancestor with this origin is in the cell."""
        port = _DEFAULT_PORTS.get(origin.scheme) if origin.port is None else origin.port
        return self.contains(Cell(origin.scheme, origin.host, port))

    def contains(self, other: Cell) -> bool:
        """Whether every origin of the other cell is in this one."""
        return (
            self.scheme == other.scheme
            and _host_within(other.host, self.host)
            and self.port in (_ANY, other.port)
            and _path_within(other.path, self.path)
        )

    def meet(self, other: Cell) -> Cell | None:
        """What both cells hold. Two host patterns, like two ports, are nested or disjoint, so this is one cell."""
        if self.scheme != other.scheme:
            return None
        if _host_within(other.host, self.host):
            host = other.host
        elif _host_within(self.host, other.host):
            host = self.host
        else:
            return None
        if self.port not in (_ANY, other.port) and other.port != _ANY:
            return None
        if _path_within(other.path, self.path):
            path = other.path
        elif _path_within(self.path, other.path):
            path = self.path
        else:
            return None
        return Cell(self.scheme, host, other.port if self.port == _ANY else self.port, path)


def _host_within(host: str, pattern: str) -> bool:
    return pattern in (_ANY, host) or (pattern.startswith(".") and host.endswith(pattern))


def _path_within(path: str, pattern: str) -> bool:
    return pattern in ("", path) or (pattern.endswith("/") and path.startswith(pattern))


@dataclass(frozen=True, slots=True)
class _Source:
    """A scheme-source (no host) or a host-source."""

    scheme: str | None
    host: str = _ANY
    port: Port = None
    path: str = ""
    scheme_only: bool = False

    def cells(self, own_scheme: str) -> Iterator[Cell]:
        scheme = own_scheme if self.scheme is None else self.scheme
        upgraded = _UPGRADES.get(scheme)
        if self.scheme_only:
            yield Cell(scheme, _ANY, _ANY)
            if upgraded is not None:
                yield Cell(upgraded, _ANY, _ANY)
            return
        yield Cell(scheme, self.host, self.port or _DEFAULT_PORTS.get(scheme), self.path)
        if upgraded is not None:
            # Port and scheme are upgraded together: http://a:80 lets https://a in, but not https://a:80.
            default = _DEFAULT_PORTS[upgraded]
            port = default if self.port in (None, _DEFAULT_PORTS[scheme]) else self.port
            yield Cell(upgraded, self.host, port, self.path)


@dataclass(frozen=True, slots=True)
class SourceList:
    """The value of one frame-ancestors directive, as a browser understands it. Empty means nobody.

    Attributes:
        sources: The scheme- and host-sources, without those that browsers drop.
        own: Whether ``'self'`` is among them.
        star: Whether ``*`` is among them.
    """

    sources: tuple[_Source, ...] = ()
    own: bool = False
    star: bool = False

    def matches(self, origin: Origin | None, self_origin: Origin | None = None) -> bool:
        """Whether one ancestor is allowed.

        Args:
            origin: The ancestor's origin; None for an opaque one, which never matches, not even ``*``.
            self_origin: The origin of the framed response; None for an opaque one.
        """
        return origin is not None and any(cell.holds(origin) for cell in self.cells(self_origin))

    def cells(self, self_origin: Origin | None) -> Iterator[Cell]:
        """The list as cells, for a response of this origin."""
        own_scheme = _OWN_SCHEME if self_origin is None else self_origin.scheme
        for source in self.sources:
            yield from source.cells(own_scheme)
        if self.star:
            for scheme in {*_NETWORK_SCHEMES, own_scheme}:
                yield Cell(scheme, _ANY, _ANY)
        if self.own:
            yield from _own_cells(self_origin)


def _own_cells(self_origin: Origin | None) -> Iterator[Cell]:
    """``'self'``: our origin, and the same host over https on the same port or from default port to default port."""
    if self_origin is None:
        yield Cell(_OWN_SCHEME, _OWN_HOST, _ANY)
        return
    default = _DEFAULT_PORTS.get(self_origin.scheme)
    port = default if self_origin.port is None else self_origin.port
    yield Cell(self_origin.scheme, self_origin.host, port)
    if self_origin.scheme in ("http", "ws", "wss"):
        yield Cell("https", self_origin.host, _DEFAULT_PORTS["https"] if port == default else port)


def parse_source_list(text: str) -> SourceList:
    """Read the value of a frame-ancestors directive. Sources that browsers do not know are dropped. Never raises."""
    sources: list[_Source] = []
    own = star = False
    for expression in _WHITESPACE.split(text):
        lowered = expression.lower()
        if lowered == _OWN_HOST:
            own = True
        elif lowered == _ANY:
            star = True
        elif expression.isascii() and (source := _parse_source(lowered)) is not None:
            sources.append(source)
    return SourceList(tuple(sources), own, star)


def _parse_source(expression: str) -> _Source | None:
    if found := _SCHEME_SOURCE.fullmatch(expression):
        return _Source(found[1], scheme_only=True)
    if (found := _HOST_SOURCE.fullmatch(expression)) is None:
        return None
    scheme, host, digits, path = found.groups()
    port: Port = None
    if digits == _ANY:
        port = _ANY
    elif digits is not None:
        # Capped before int(), which takes quadratic time for long texts and refuses the longest.
        number = digits.lstrip("0") or "0"
        if len(number) > 5 or not 0 < int(number) <= _HIGHEST_PORT:
            return None
        port = int(number)
    # An ancestor is an origin, so its path is "/": any longer path in a source matches nothing.
    return _Source(scheme, host.removeprefix("*") if len(host) > 1 else host, port, "" if path == "/" else path or "")


def enforced_lists(csp_values: Iterable[str]) -> tuple[SourceList, ...]:
    """The frame-ancestors lists of all enforced policies in these Content-Security-Policy fields.

    A comma starts another policy, the first directive of a name wins, and a directive with a byte outside printable
    ASCII is dropped whole: its policy then says nothing about framing.
    """
    lists = (_frame_ancestors(policy) for value in csp_values for policy in value.split(","))
    return tuple(found for found in lists if found is not None)


def _frame_ancestors(policy: str) -> SourceList | None:
    for directive in policy.split(";"):
        name, *rest = _WHITESPACE.split(directive.strip(ASCII_WHITESPACE), maxsplit=1)
        if name.lower() == FRAME_ANCESTORS:
            value = "".join(rest)
            return None if _BAD_BYTE.search(value) else parse_source_list(value)
    return None


def subsumes(wide: SourceList, narrow: SourceList | Sequence[SourceList], self_origin: Origin | None = None) -> bool:
    """Whether ``narrow`` lets in nobody whom ``wide`` keeps out.

    Args:
        wide: The list that may be wider.
        narrow: One list, or several that are enforced together, which is their intersection.
        self_origin: Whose ``'self'`` and scheme are meant; None compares for any response at once.

    A False may be too careful (a cell that only several cells of ``wide`` together cover); a True is never wrong.
    """
    lists = (narrow,) if isinstance(narrow, SourceList) else tuple(narrow)
    if not lists:
        return False  # no list at all lets everybody in
    common = set(lists[0].cells(self_origin))
    for following in lists[1:]:
        cells = set(following.cells(self_origin))
        common = {met for one in common for other in cells if (met := one.meet(other)) is not None}
    covering = set(wide.cells(self_origin))
    return all(any(cell.contains(part) for cell in covering) for part in common)


@dataclass(frozen=True, slots=True)
class Framing:
    """Who may frame one response, when all its headers are enforced together.

    Attributes:
        lists: The frame-ancestors lists; an ancestor must be on each.
        frame_options: What X-Frame-Options says; it counts only where there is no list at all.
    """

    lists: tuple[SourceList, ...]
    frame_options: Literal["deny", "sameorigin"] | None

    def allows(self, ancestors: Sequence[Origin | None], self_origin: Origin | None) -> bool:
        """Whether a browser shows the response inside these ancestors.

        Args:
            ancestors: Every page above the frame, parent first; None for an opaque origin.
            self_origin: The origin of the response.
        """
        if self.lists:
            return all(listed.matches(ancestor, self_origin) for ancestor in ancestors for listed in self.lists)
        if self.frame_options == "deny":
            return not ancestors
        if self.frame_options == "sameorigin":
            return all(ancestor is not None and ancestor == self_origin for ancestor in ancestors)
        return True


def effective(csp_values: Iterable[str], xfo_values: Sequence[str] = ()) -> Framing:
    """What a browser enforces for a response with these header fields.

    Args:
        csp_values: Every Content-Security-Policy value (not the report-only ones, which enforce nothing).
        xfo_values: Every X-Frame-Options value.
    """
    return Framing(enforced_lists(csp_values), _frame_options(xfo_values))


def _frame_options(values: Sequence[str]) -> Literal["deny", "sameorigin"] | None:
    """HTML, "check a navigation response's adherence to X-Frame-Options"; contradictory values block."""
    options = {option.strip(_TRIMMED).lower() for option in _split_list(", ".join(values))}
    if len(options) > 1:
        return "deny" if options & {"deny", "allowall", "sameorigin"} else None
    if options == {"deny"}:
        return "deny"
    return "sameorigin" if options == {"sameorigin"} else None


def _split_list(text: str) -> Iterator[str]:
    """Split at commas outside quoted strings (Fetch, "get, decode, and split")."""
    start, quoted, escaped = 0, False, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            yield text[start:index].strip("\t ")
            start = index + 1
    yield text[start:].strip("\t ")
