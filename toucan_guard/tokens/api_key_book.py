"""What is known of the API keys, and nothing that could be used as one: as values; ``api_key_file.py`` has the text."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Final, Literal

from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.grants import Grant

_NO_LIMITS: Final = ApiKeyLimits()


@dataclass(frozen=True, slots=True)
class ApiKeyEntry:
    """What is known of one API key.

    Attributes:
        key_id: Its public name.
        environment: The word that its text carries.
        digest: HMAC-SHA-256 of its text under the pepper.
        label: What people call it.
        created: When it was made, in seconds since the epoch.
        not_before: It works from then on.
        not_after: It works until then, and so do the tokens that it made; None is no end.
        retired: When it was withdrawn, or None.
        limits: What it may mint.
        roles: Names that its holder may use in place of grants.
    """

    key_id: str
    environment: str
    digest: bytes = field(repr=False)
    label: str = ""
    created: float = 0
    not_before: float = 0
    not_after: float | None = None
    retired: float | None = None
    limits: ApiKeyLimits = _NO_LIMITS
    roles: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)

    @property
    def mintable(self) -> ApiKeyLimits:
        """The limits, with what its roles give away beside them."""
        if self.limits.grants is None:
            return self.limits
        return replace(self.limits, grants=(*self.limits.grants, *chain.from_iterable(self.roles.values())))

    def state_at(self, now: float) -> Literal["valid", "retired", "early", "expired"]:
        """In which part of its life the key is."""
        if self.retired is not None:
            return "retired"
        if now < self.not_before:
            return "early"
        return "expired" if self.not_after is not None and now >= self.not_after else "valid"


@dataclass(frozen=True, slots=True)
class ApiKeyBook:
    """The content of one file of API keys.

    Attributes:
        keys: Key id to entry.
        pepper_check: A value that only the right pepper gives.
    """

    keys: Mapping[str, ApiKeyEntry]
    pepper_check: bytes = field(repr=False)

    @classmethod
    def empty(cls, pepper: bytes) -> ApiKeyBook:
        """A book without keys."""
        return cls(MappingProxyType({}), pepper_check(pepper))

    def with_entry(self, entry: ApiKeyEntry) -> ApiKeyBook:
        """The same with this entry, new or changed."""
        return ApiKeyBook(MappingProxyType({**self.keys, entry.key_id: entry}), self.pepper_check)


def pepper_check(pepper: bytes) -> bytes:
    """What the file says of its pepper: it shows a wrong one, and nothing about the right one."""
    return hmac.digest(pepper, b"toucan_guard API key pepper", "sha256")
