"""RlsPolicy: which attributes a token carries, and which rows of which table they open.

Written as TOML or JSON, or as the shorthand ``flights.carrier=carrier,flights.origin=airports``; what may be written is
in ``policy_reader.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.hints import Hints
from toucan_guard.core.policy_reader import one_of, read_columns, read_json, read_toml, shown
from toucan_guard.core.row_filter import MAPPINGS, RowFilter, make_row_filter, usable_attributes
from toucan_guard.core.row_rules import Attribute, TableRule

_MOST_COMPARED: Final = 1_000  # pairs of names, while a request waits: some milliseconds


class RlsPolicy:
    """The attributes and the rules of a deployment. Immutable; equal where the rules are.

    Attributes:
        attributes: Name to declaration.
        tables: Name to rules. A table that is not here is closed.
        version: A digest of the content; the same for TOML and JSON that say the same.
        readers: The attributes' names, and what reads the value of each: ``Attribute.read``.
    """

    __slots__ = ("attributes", "readers", "tables", "version")

    attributes: Mapping[str, Attribute]
    readers: tuple[tuple[str, Callable[[object], object]], ...]
    tables: Mapping[str, TableRule]
    version: str

    def __init__(self, attributes: Iterable[Attribute], tables: Iterable[TableRule]) -> None:
        by_name = {attribute.name: attribute for attribute in attributes}
        by_table = {table.name: table for table in tables}
        content = {
            "attributes": {name: [known.type, known.shape, known.required] for name, known in by_name.items()},
            "tables": {name: table.to_plain() for name, table in by_table.items()},
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        object.__setattr__(self, "attributes", MappingProxyType(by_name))
        object.__setattr__(self, "readers", tuple((name, known.read) for name, known in by_name.items()))
        object.__setattr__(self, "tables", MappingProxyType(by_table))
        object.__setattr__(self, "version", digest)

    @classmethod
    def from_toml(cls, text: str) -> RlsPolicy:
        """Read a policy file.

        Raises:
            ConfigError: Every mistake, each with its place.
        """
        return cls(*read_toml(text))

    @classmethod
    def from_json(cls, text: str) -> RlsPolicy:
        """Read a policy file written as JSON.

        Raises:
            ConfigError: Every mistake, each with its place.
        """
        return cls(*read_json(text))

    @classmethod
    def from_columns(cls, columns: str | Mapping[str, str] | Iterable[str]) -> RlsPolicy:
        """Read the shorthand: each attribute is text or a list of texts, and all columns of a table have to match.

        Args:
            columns: ``"flights.carrier=carrier,flights.origin=airports"``, the same split at its commas,
                or ``{"flights.carrier": "carrier"}``.

        Raises:
            ConfigError: Every mistake.
        """
        return cls(*read_columns(columns))

    def row_filter(
        self,
        attributes: Mapping[str, object] | None,
        *,
        issuer: str = "",
        tenant: str | None = None,
        expires_at: float | None = None,
    ) -> RowFilter | Deny:
        """The check at the door: attributes that the policy accepts become a filter.

        Args:
            attributes: The token's ``rls`` claim; None where the token has none.
            issuer: The token's issuer, for the fingerprint.
            tenant: The token's tenant, for the fingerprint.
            expires_at: When the token ends, in seconds since the epoch.

        Returns:
            The filter, or ``Deny(RLS_MISSING | RLS_ATTRIBUTE_UNKNOWN | _MISSING | _INVALID)``.

        Never raises.
        """
        given: object = attributes
        if not isinstance(given, MAPPINGS):
            return Deny(Reason.RLS_MISSING, "the token does not say which rows it opens")
        usable = usable_attributes(self, given)
        # Where everything that was given is usable, and everything that there is was given, nothing can be wrong.
        # What is usable is in both of the others, so that counting tells.
        if not len(given) == len(self.attributes) == len(usable):
            for reason, problem in self._mistakes(given):
                return Deny(reason, problem)
        return make_row_filter(self, usable, issuer, tenant, expires_at)

    def problems(self, attributes: Mapping[str, object]) -> tuple[str, ...]:
        """Every mistake in these attributes, as sentences without any value; for minting."""
        given: object = attributes
        if not isinstance(given, Mapping):
            return ("rls must be a mapping from attribute names to values",)
        return tuple(problem for _, problem in self._mistakes(given))

    def _mistakes(self, given: Mapping[object, object]) -> Iterable[tuple[Reason, str]]:
        meant = Hints(_MOST_COMPARED)
        for name in given:
            if name not in self.attributes:
                known = one_of(self.attributes) if self.attributes else "none"
                hint = meant(name, self.attributes) or f" (it has {known})"
                yield Reason.RLS_ATTRIBUTE_UNKNOWN, f"rls has the attribute {shown(name)}, not the policy{hint}"
        for name, attribute in self.attributes.items():
            value = given.get(name)
            if value is None:  # null and absent are the same: nothing
                if attribute.required:
                    yield (
                        Reason.RLS_ATTRIBUTE_MISSING,
                        f"the attribute {name} is missing: it must be {attribute.expected}",
                    )
            elif attribute.read(value) is None:
                yield Reason.RLS_ATTRIBUTE_INVALID, f"the attribute {name} must be {attribute.expected}"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a policy does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a policy does not change")

    def __eq__(self, other: object) -> bool:
        return self.version == other.version if isinstance(other, RlsPolicy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.version)

    def __repr__(self) -> str:
        return f"RlsPolicy(version={self.version!r}, tables={tuple(sorted(self.tables))!r})"
