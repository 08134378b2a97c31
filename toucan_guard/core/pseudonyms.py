"""Pseudonyms in the record: a keyed digest where a person's name would stand.

The same person has the same pseudonym everywhere in the record, and without the key nobody can tell whose it is, not
even by trying every name there is. With the key, ``toucan-guard audit who`` finds one person's lines.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

# What is made a pseudonym of; each field's are its own, so that an address cannot be matched with a subject.
FIELDS: Final = ("subject", "token_id", "client")
PREFIX: Final = "hmac:"


class Pseudonyms:
    """Makes pseudonyms with the operator's ``AUDIT_HMAC_KEY``."""

    def __init__(self, key: bytes) -> None:
        self._keys: Mapping[str, bytes] = {
            field: hmac.digest(key, f"toucan_guard audit pseudonym 1 {field}".encode(), "sha256") for field in FIELDS
        }
        self.of = lru_cache(maxsize=8192)(self._of)

    def _of(self, field: str, value: str) -> str:
        """The pseudonym of a field's value: ``hmac:`` and 128 bits of HMAC-SHA-256 in hex."""
        made = hmac.digest(self._keys[field], value.encode("utf-8", "surrogatepass"), "sha256")
        return PREFIX + made.hex()[:32]

    def hide(self, event: dict[str, Any]) -> None:
        """Put pseudonyms into an event."""
        for field in FIELDS:
            value = event.get(field)
            if value is not None:
                event[field] = self.of(field, value)
