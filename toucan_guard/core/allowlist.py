"""The allowlist: which origins may call us and frame us, looked up at the same cost however long it is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origin_grammar import Origin, WildcardOrigin, parse_pattern


def checked_entries(entries: Iterable[str], what: str) -> Iterator[str]:
    """Iterate over configured entries, refusing a bare text (STYLE: a bare ``str`` is not a collection)."""
    if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
        raise ConfigError(f'{what} are a list: write ["https://a.example"] instead of one text')
    return iter(entries)


@dataclass(frozen=True, repr=False)
class OriginAllowlist:
    """Which origins may call and frame us. Empty means nobody.

    Looking an origin up costs the same in a list of 1 and of 100,000: one hash for the exact origins, and one for
    each label of the host where there are wildcards. ``bool()`` is refused, because an empty list, which means
    nobody, must never fall through ``token_origins or configured_origins`` to a wider one.

    Attributes:
        exact: The origins that are named in full.
        wildcards: The patterns with a ``*.``.
        any: Whether every origin is allowed (``null`` never is).
    """

    exact: frozenset[Origin] = frozenset()
    wildcards: frozenset[WildcardOrigin] = frozenset()
    any: bool = False

    @classmethod
    def parse(cls, entries: Iterable[str], *, development: bool = False, allow_any: bool = False) -> OriginAllowlist:
        """Read configured entries.

        Args:
            entries: Origins and wildcards, as ``parse_pattern`` takes them, or ``*``.
            development: Whether ``http`` and loopback hosts are in order.
            allow_any: Whether ``*`` is in order (the operator has said so aloud).

        Raises:
            ConfigError: With every mistake at once.
        """
        problems: list[str] = []
        patterns: set[Origin | WildcardOrigin] = set()
        any_origin = False
        for entry in checked_entries(entries, "the origins"):
            if entry == "*" and allow_any:
                any_origin = True
                continue
            try:
                if not isinstance(entry, str):
                    raise ValueError(f"an origin is a text, not of type {type(entry).__name__}")
                patterns.add(parse_pattern(entry, development=development))
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(problems)
        found = cls.of(*patterns)
        return cls(found.exact, found.wildcards, any_origin)

    @classmethod
    def of(cls, *patterns: Origin | WildcardOrigin) -> OriginAllowlist:
        """The list of these origins."""
        exact, wildcards = set(), set()
        for pattern in patterns:
            if isinstance(pattern, Origin):
                exact.add(pattern)
            else:
                wildcards.add(pattern)
        return cls(frozenset(exact), frozenset(wildcards))

    def allows(self, origin: Origin) -> bool:
        """Whether the list names this origin, exactly or by a wildcard."""
        if self.any or origin in self.exact:
            return True
        return bool(self.wildcards) and self._covered_by_wildcard(origin.scheme, origin.host, origin.port)

    def _covered_by_wildcard(self, scheme: str, host: str, port: int | None) -> bool:
        parent = host.partition(".")[2]
        while parent:
            if WildcardOrigin(scheme, parent, port) in self.wildcards:
                return True
            parent = parent.partition(".")[2]
        return False

    def covers(self, other: OriginAllowlist) -> bool:
        """Whether this list allows whatever the other one allows, entry by entry."""
        if self.any or other.any:
            return self.any
        return all(map(self.allows, other.exact)) and all(
            wildcard in self.wildcards or self._covered_by_wildcard(wildcard.scheme, wildcard.parent, wildcard.port)
            for wildcard in other.wildcards
        )

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """Everything on the list, serialised and sorted."""
        patterns: list[Origin | WildcardOrigin] = [*self.exact, *self.wildcards]
        return tuple(sorted([*map(str, patterns), *(["*"] if self.any else [])]))

    def narrowed(self, other: OriginAllowlist) -> OriginAllowlist:
        """The origins that both lists allow; never wider than either.

        The smaller list is walked and looked up in the larger one, so a token's few origins cost the same
        beside a configured list of any length.
        """
        if self.any:
            return other
        if other.any:
            return self
        small, large = (self, other) if len(self) <= len(other) else (other, self)
        common: set[Origin | WildcardOrigin] = {origin for origin in small.exact if large.allows(origin)}
        for wildcard in small.wildcards:
            if wildcard in large.wildcards or large._covered_by_wildcard(  # noqa: SLF001 - the same class
                wildcard.scheme, wildcard.parent, wildcard.port
            ):
                common.add(wildcard)
            else:
                common.update(large._under(wildcard))  # noqa: SLF001 - the same class
        return self.of(*common)

    def _under(self, wildcard: WildcardOrigin) -> Iterator[Origin | WildcardOrigin]:
        """Everything on this list that the wildcard covers, found without walking the list."""
        keys, patterns = self._by_suffix
        prefix = _suffix_key(wildcard)
        for index in range(bisect_left(keys, prefix), len(keys)):
            if not keys[index].startswith(prefix):
                break
            yield patterns[index]

    @cached_property
    def _by_suffix(self) -> tuple[list[str], list[Origin | WildcardOrigin]]:
        """The list sorted by host from the right, so that everything under one domain lies together."""
        patterns: list[Origin | WildcardOrigin] = sorted([*self.exact, *self.wildcards], key=_suffix_key)
        return [_suffix_key(pattern) for pattern in patterns], patterns

    def __len__(self) -> int:
        return len(self.exact) + len(self.wildcards) + self.any

    def __bool__(self) -> NoReturn:
        raise TypeError("an empty allowlist means nobody, so it is not a boolean: use len() or `is None`")

    def __repr__(self) -> str:
        return f"<OriginAllowlist of {len(self)}>"


def _suffix_key(pattern: Origin | WildcardOrigin) -> str:
    host = pattern.host if isinstance(pattern, Origin) else f".{pattern.parent}"
    return f"{pattern.scheme} {pattern.port} {host[::-1]}"
