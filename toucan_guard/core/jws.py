"""Strict compact JWS (RFC 7515): the outside of a token, before anybody believes its inside.

Libraries are lenient where a guard must not be, so the outside is read here, in one way only, and a signature library
sees nothing but the signing input, a key and the signature. Reading costs a few C calls whatever the token says; there
is no loop over its characters.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.strict_json import strict_json

MAX_KID_LENGTH: Final = 256

# Each of these changes what the bytes mean (RFC 7515 §4.1.11, RFC 7797, RFC 7516). We implement none of them, and a
# verifier that skips what it does not implement checks something else than what was signed.
_MEANING_CHANGERS: Final = ("crit", "b64", "zip", "enc")

# To the standard alphabet; its own two characters and padding become a byte that no alphabet has.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
# By the length modulo four: the padding that is left out, and the last characters that there may be: those whose spare
# bits are zero (RFC 4648 §3.5). One character alone is nothing.
_ENDS: Final[tuple[tuple[bytes, frozenset[int]], ...]] = (
    (b"", frozenset(range(128))),
    (b"", frozenset()),
    (b"==", frozenset(b"AQgw")),
    (b"=", frozenset(b"AEIMQUYcgkosw048")),
)


class VerifyingKey(Protocol):
    """A public key or secret that is bound to one algorithm."""

    @property
    def kid(self) -> str | None:
        """The name that tokens use for this key, or None for a key without a name."""

    @property
    def algorithm(self) -> str:
        """The one JWS algorithm that this key may be used with (RFC 8725 §3.1)."""

    @property
    def mark(self) -> str:
        """A digest that tells this key from another one of its name, in every process; it says nothing about it."""

    def verify(self, signing_input: bytes, signature: bytes, /) -> bool:
        """Whether the signature over these bytes was made with this key."""


class KeyFinder(Protocol):
    """Anything that answers with the key for a token's header."""

    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        """The one key that this ``kid`` and ``alg`` may use, or the refusal."""


@dataclass(frozen=True, slots=True)
class JoseHeader:
    """A token's header, and what it says of the token's type and key (RFC 7515 §4).

    Attributes:
        members: The JSON object, without repeated members.
        typ: The media type without its optional prefix, in lower case (RFC 7515 §4.1.9), or None.
        kid: The name of the key, or None where it names none.
        algorithm: The name of the algorithm.
        refusal: Why no key may be asked about it; None where one may.
    """

    members: Mapping[str, object]
    typ: str | None
    kid: str | None
    algorithm: str
    refusal: Deny | None


# Not frozen, which would take twice as long to make: it is read once, by whoever had it parsed, and never kept.
@dataclass(slots=True, eq=False, repr=False)
class CompactJws:
    """A compact JWS that is well-formed; nothing about it is verified yet.

    Attributes:
        jose: The header.
        payload: The decoded payload.
        signing_input: The bytes that the signature covers (RFC 7515 §5.1).
        signature: The decoded signature.
    """

    jose: JoseHeader
    payload: bytes
    signing_input: bytes
    signature: bytes

    @property
    def header(self) -> Mapping[str, object]:
        """The JOSE header, a JSON object without repeated members."""
        return self.jose.members

    def __repr__(self) -> str:
        return f"CompactJws(header={self.header!r})"


def parse_compact(token: str | bytes, *, max_bytes: int, allow_empty_payload: bool = False) -> CompactJws | Deny:
    """Read a compact JWS in the one way that is right.

    Args:
        token: What the request carried.
        max_bytes: Longer tokens are refused before anything is done with them.
        allow_empty_payload: A JWS may be empty, a token may not; only signature vectors need this.

    Never raises; malformed input is a ``Deny``.
    """
    if not isinstance(token, (str, bytes)):
        return Deny(Reason.TOKEN_MALFORMED, "a token is text")
    if len(token) > max_bytes:
        return _too_large(max_bytes)
    if not token.isascii():
        return Deny(Reason.TOKEN_MALFORMED, "the token has a byte that is not ASCII")
    raw = token.encode("ascii") if isinstance(token, str) else token
    signing_input, _, signature_segment = raw.rpartition(b".")
    header_segment, dot, payload_segment = signing_input.partition(b".")
    if not dot or payload_segment.find(b".") >= 0:
        return Deny(Reason.TOKEN_MALFORMED, "the token does not have exactly three segments")
    payload = decode_segment(payload_segment)
    signature = decode_segment(signature_segment)
    if not header_segment or not signature or not (payload or (payload is not None and allow_empty_payload)):
        return _BAD_SEGMENT
    jose = _usual_header(header_segment) if len(header_segment) <= _USUAL_HEADER else _read_header(header_segment)
    if isinstance(jose, Deny):
        return jose
    return CompactJws(jose, payload, signing_input, signature)


_BAD_SEGMENT: Final = Deny(Reason.TOKEN_MALFORMED, "a segment of the token is empty or not canonical base64url")


@lru_cache(maxsize=8)
def _too_large(max_bytes: int) -> Deny:
    return Deny(Reason.TOKEN_TOO_LARGE, f"the token has more than {max_bytes} bytes")


def _read_header(segment: bytes) -> JoseHeader | Deny:
    decoded = decode_segment(segment)
    if decoded is None:
        return _BAD_SEGMENT
    try:
        members = strict_json(decoded)
    except ValueError:
        return Deny(Reason.TOKEN_MALFORMED, "the token's header is not strict JSON")
    if not isinstance(members, dict):
        return Deny(Reason.TOKEN_MALFORMED, "the token's header is not a JSON object")
    typ, kid, algorithm = members.get("typ"), members.get("kid"), members.get("alg")
    return JoseHeader(
        MappingProxyType(members),
        typ.lower().removeprefix("application/") if isinstance(typ, str) and typ.isascii() else None,
        kid if isinstance(kid, str) else None,
        algorithm if isinstance(algorithm, str) else "",
        _header_refusal(members),
    )


def _header_refusal(members: Mapping[str, object]) -> Deny | None:
    for name in _MEANING_CHANGERS:
        if name in members:
            return Deny(Reason.TOKEN_MALFORMED, f"the token's header has {name!r}, which is not supported")
    kid = members.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH:
        return Deny(Reason.TOKEN_MALFORMED, f"the token's kid is not a string of at most {MAX_KID_LENGTH} characters")
    algorithm = members.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        return Deny(Reason.ALGORITHM_NOT_ALLOWED, "the token's header names no algorithm")
    return None


# All tokens of a key have the same header, so it is read once. What is remembered is what the bytes say, which is the
# same for every ring and policy, and no judgement of a key. Strangers can push a header out, so that it is read again;
# they cannot make the memory grow: it holds few headers, and none that is long.
_USUAL_HEADER: Final = 512
_usual_header: Final = lru_cache(maxsize=256)(_read_header)


def check_signature(jws: CompactJws, keys: KeyFinder) -> VerifyingKey | Deny:
    """The header's policy and the signature; the key that it was made with.

    Keys come from the ring alone: ``jwk``, ``jku``, ``x5u`` and ``x5c`` in the header are words of the sender.

    Raises whatever the ring or the key raises; the caller turns that into a refusal.
    """
    jose = jws.jose
    if jose.refusal is not None:
        return jose.refusal
    key = keys.find(jose.kid, jose.algorithm)
    if isinstance(key, Deny):
        return key
    # The ring has compared already. Compared again here, because a ring that forgets to is how a public key
    # becomes an HMAC secret.
    if key.algorithm != jose.algorithm:
        return _OTHER_ALGORITHM
    if key.verify(jws.signing_input, jws.signature) is not True:
        return _BAD_SIGNATURE
    return key


_OTHER_ALGORITHM: Final = Deny(Reason.ALGORITHM_NOT_ALLOWED, "the token's algorithm is not the algorithm of its key")
_BAD_SIGNATURE: Final = Deny(Reason.SIGNATURE_INVALID, "the token's signature is not valid")


def decode_segment(segment: bytes) -> bytes | None:
    """Canonical base64url without padding (RFC 4648 §5, RFC 7515 §2), or None.

    One text for one value: foreign bytes, padding and stray bits in the last character are refused.
    """
    padding, last = _ENDS[len(segment) % 4]
    if segment and segment[-1] not in last:
        return None
    try:
        return binascii.a2b_base64(segment.translate(_TO_STANDARD) + padding, strict_mode=True)
    except ValueError:
        return None


def encode_segment(raw: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=")
