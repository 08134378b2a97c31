"""Reading a fetched JSON Web Key Set: which of its keys may verify a token here, and when the whole is refused.

A published set is another organisation's: it holds keys for other purposes and of types to come, so a key that does
not suit is dropped and the rest counts. What may not be told apart, or is no set at all, is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from toucan_guard.core.errors import ConfigError, KeysUnavailable
from toucan_guard.core.strict_json import strict_json
from toucan_guard.tokens.keys import KeyRing, VerificationKey, verification_key

MAX_SET_BYTES: Final = 256 * 1024
MAX_SET_KEYS: Final = 64

# What makes a key a private one or a secret (RFC 7518 §6).
_CONFIDENTIAL: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_PUBLISHED: Final = "it is a private key or a secret, and published is neither; whoever read it can sign with it"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of a set that may verify tokens.

    Attributes:
        ring: The keys, each bound to one algorithm.
        dropped: One sentence for each key that was left out; it names the key by its place, and quotes nothing.
        exposed: Those of them that should never have been published: private keys and secrets.
    """

    ring: KeyRing
    dropped: tuple[str, ...]
    exposed: tuple[str, ...]


def read_key_set(body: bytes) -> KeySet:
    """Read the body of an answer (RFC 7517 §5).

    Args:
        body: What the endpoint answered, whatever its content type.

    Raises:
        KeysUnavailable: It is too large, no strict JSON, no set, or has no usable key; or keys cannot be told apart.
    """
    if len(body) > MAX_SET_BYTES:
        raise KeysUnavailable(f"the key set has more than {MAX_SET_BYTES} bytes")
    try:
        document = strict_json(body)
    except ValueError:
        raise KeysUnavailable("the key set is not strict JSON (repeated members are refused too)") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeysUnavailable('the answer is not a JSON Web Key Set; it has the form {"keys": [...]}')
    if len(listed) > MAX_SET_KEYS:
        raise KeysUnavailable(f"the key set has more than {MAX_SET_KEYS} keys")
    keys: list[VerificationKey] = []
    dropped: list[str] = []
    exposed: list[str] = []
    for number, jwk in enumerate(listed, 1):
        try:
            if isinstance(jwk, Mapping) and not _CONFIDENTIAL.isdisjoint(jwk):
                raise ConfigError(_PUBLISHED)
            keys.append(verification_key(jwk))
        except ConfigError as error:
            dropped.append(f"key {number}: {'; '.join(error.problems)}")
            if error.problems == (_PUBLISHED,):
                exposed.append(dropped[-1])
    if not keys:
        raise KeysUnavailable("the key set has no key that may verify a token")
    try:
        return KeySet(KeyRing(keys), tuple(dropped), tuple(exposed))
    except ConfigError as error:
        raise KeysUnavailable(f"the key set is ambiguous: {'; '.join(error.problems)}") from None
