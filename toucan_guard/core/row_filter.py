"""RowFilter: which rows one embed may see.

Every adapter in ``rls/`` enforces the same filter in its own way, and is tested against
``RowFilter.matches``: that function is the meaning, the adapters are translations of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toucan_guard.core.row_rules import TableRule, holds_after
from toucan_guard.core.sealed import sealing

if TYPE_CHECKING:
    from toucan_guard.core.rls_policy import RlsPolicy

# The usual ones first: to ask whether anything else is one takes longer than all the rest of a filter.
MAPPINGS: Final = (MappingProxyType, dict, Mapping)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RowFilter:
    """A policy together with one token's attributes.

    ``RlsPolicy.row_filter`` makes one only from attributes that the policy accepts. Made without that
    check it stays closed: what is absent, null or of another type makes its rules false.

    Attributes:
        policy: The rules.
        attributes: The usable attributes, with Python values and lists as tuples.
        issuer: Who signed the token.
        tenant: The customer organisation.
        expires_at: When the token ends, in seconds since the epoch; None where nobody said.
    """

    policy: RlsPolicy
    attributes: Mapping[str, object]
    issuer: str = ""
    tenant: str | None = None
    expires_at: float | None = None
    _fingerprint: str = field(init=False, default="")

    def __post_init__(self) -> None:
        given: object = self.attributes  # typed as a mapping, but whoever makes a filter may give anything
        usable = usable_attributes(self.policy, given if isinstance(given, MAPPINGS) else {})
        object.__setattr__(self, "attributes", usable)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The usable attributes' names, sorted."""
        return tuple(sorted(self.attributes))

    @property
    def fingerprint(self) -> str:
        """A digest for cache keys: equal exactly where issuer, tenant, attributes and policy are."""
        # Worked out where somebody asks: most tokens come once, and nothing is cached for them.
        if not self._fingerprint:
            object.__setattr__(self, "_fingerprint", _fingerprint(self, self.attributes))
        return self._fingerprint

    def table(self, name: str) -> TableRule | None:
        """What the policy says of a table; None where it does not name it, so that it is closed."""
        return self.policy.tables.get(name)

    def matches(self, table: str, row: Mapping[str, object]) -> bool:
        """Whether this embed may see the row: the meaning that every adapter is tested against.

        Args:
            table: As the policy names it.
            row: Column name to Python value. A column that is absent passes no rule.

        Never raises.
        """
        known = self.table(table)
        if known is None:
            return False
        return known.open if known.rule is None else known.rule.holds(row, self.attributes)

    def still_matches(self, table: str, changed: Mapping[str, object]) -> bool:
        """Whether a row that this embed may see certainly stays so once these columns are changed."""
        known = self.table(table)
        if known is None:
            return False
        return known.open if known.rule is None else holds_after(known.rule, changed, self.attributes)

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, RowFilter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"RowFilter(policy={self.policy.version!r}, attributes={self.attribute_names!r})"


def usable_attributes(policy: RlsPolicy, given: Mapping[str, object]) -> Mapping[str, object]:
    """What is of the declared type, with Python values and lists as tuples."""
    usable: dict[str, object] = {}
    for name, read in policy.readers:
        value = read(given.get(name))
        if value is not None:
            usable[name] = value
    return MappingProxyType(usable)


# A filter of attributes that are known to be the usable ones.
make_row_filter: Final = sealing(RowFilter)


def _fingerprint(row_filter: RowFilter, attributes: Mapping[str, object]) -> str:
    # A list opens the same rows in any order.
    plain = {
        name: sorted(map(repr, value)) if isinstance(value, tuple) else repr(value)
        for name, value in sorted(attributes.items())
    }
    content = [row_filter.issuer, row_filter.tenant, plain, row_filter.policy.version]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
