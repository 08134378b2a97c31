"""What the row-level policy says of attributes, to whoever makes tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class AttributePolicy(Protocol):
    """The part of an ``RlsPolicy`` that minting needs."""

    def problems(self, attributes: Mapping[str, object]) -> tuple[str, ...]:
        """All mistakes in these attributes, as sentences."""
