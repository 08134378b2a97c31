"""Strict compact JWS (RFC 7515) and strict JSON: the outside of a token, before anybody believes its inside.

Libraries are lenient where a guard must not be: repeated members, padding, UTF-16, endless nesting. So the
outside is read here, in one way only, and a signature library sees nothing but the signing input, a key and the
signature. Reading costs a few C calls whatever the token says; there is no loop over its characters.
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, Protocol

from toucan_guard.core.decisions import Deny, Reason

MAX_JSON_DEPTH: Final = 32
MAX_KID_LENGTH: Final = 256

# Each of these changes what the bytes mean (RFC 7515 §4.1.11, RFC 7797, RFC 7516). We implement none of them, and a
# verifier that skips what it does not implement checks something else than what was signed.
_MEANING_CHANGERS: Final = ("crit", "b64", "zip", "enc")

# To the standard alphabet; its own two characters and padding become a byte that no alphabet has.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_PADDING: Final = (b"", None, b"==", b"=")  # by the length modulo four; one character alone is nothing
# The last characters whose spare bits are zero (RFC 4648 §3.5), by the same.
_LAST: Final = (None, None, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))


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

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature over these bytes was made with this key."""


class KeyFinder(Protocol):
    """Anything that answers with the key for a token's header."""

    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        """The one key that this ``kid`` and ``alg`` may use, or the refusal."""


class CompactJws(NamedTuple):
    """A compact JWS that is well-formed; nothing about it is verified yet.

    Attributes:
        header: The JOSE header, a JSON object without repeated members.
        payload: The decoded payload.
        signing_input: The bytes that the signature covers (RFC 7515 §5.1).
        signature: The decoded signature.
    """

    header: Mapping[str, object]
    payload: bytes
    signing_input: bytes
    signature: bytes

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
    if not isinstance(token, str | bytes):
        return Deny(Reason.TOKEN_MALFORMED, "a token is text")
    if len(token) > max_bytes:
        return _too_large(max_bytes)
    if not token.isascii():
        return Deny(Reason.TOKEN_MALFORMED, "the token has a byte that is not ASCII")
    raw = token.encode("ascii") if isinstance(token, str) else token
    segments = raw.split(b".", 3)
    if len(segments) != 3:
        return Deny(Reason.TOKEN_MALFORMED, "the token does not have exactly three segments")
    header_segment, payload_segment, signature_segment = segments
    payload = decode_segment(payload_segment)
    signature = decode_segment(signature_segment)
    if not header_segment or not signature or payload is None or not (payload or allow_empty_payload):
        return Deny(Reason.TOKEN_MALFORMED, "a segment of the token is empty or not canonical base64url")
    header = (_usual_header if len(header_segment) <= _USUAL_HEADER else _read_header)(header_segment)
    if isinstance(header, Deny):
        return header
    return CompactJws(header, payload, raw[: len(header_segment) + 1 + len(payload_segment)], signature)


@lru_cache(maxsize=8)
def _too_large(max_bytes: int) -> Deny:
    return Deny(Reason.TOKEN_TOO_LARGE, f"the token has more than {max_bytes} bytes")


def _read_header(segment: bytes) -> Mapping[str, object] | Deny:
    decoded = decode_segment(segment)
    if decoded is None:
        return Deny(Reason.TOKEN_MALFORMED, "a segment of the token is empty or not canonical base64url")
    try:
        header = strict_json(decoded)
    except ValueError:
        return Deny(Reason.TOKEN_MALFORMED, "the token's header is not strict JSON")
    if not isinstance(header, dict):
        return Deny(Reason.TOKEN_MALFORMED, "the token's header is not a JSON object")
    return MappingProxyType(header)


# All tokens of a key have the same header, so it is read once. Short ones only: strangers must not fill the memory.
_USUAL_HEADER: Final = 512
_usual_header: Final = lru_cache(maxsize=256)(_read_header)


def check_signature(jws: CompactJws, keys: KeyFinder) -> VerifyingKey | Deny:
    """The header's policy and the signature; the key that it was made with.

    Keys come from the ring alone: ``jwk``, ``jku``, ``x5u`` and ``x5c`` in the header are words of the sender.

    Raises whatever the ring or the key raises; the caller turns that into a refusal.
    """
    header = jws.header
    for name in _MEANING_CHANGERS:
        if name in header:
            return Deny(Reason.TOKEN_MALFORMED, f"the token's header has {name!r}, which is not supported")
    kid = header.get("kid")
    if "kid" in header and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        return Deny(Reason.TOKEN_MALFORMED, f"the token's kid is not a string of at most {MAX_KID_LENGTH} characters")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        return Deny(Reason.ALGORITHM_NOT_ALLOWED, "the token's header names no algorithm")
    key = keys.find(kid if isinstance(kid, str) else None, algorithm)
    if isinstance(key, Deny):
        return key
    # The ring has compared already. Compared again here, because a ring that forgets to is how a public key
    # becomes an HMAC secret.
    if key.algorithm != algorithm:
        return Deny(Reason.ALGORITHM_NOT_ALLOWED, "the token's algorithm is not the algorithm of its key")
    if key.verify(jws.signing_input, jws.signature) is not True:
        return Deny(Reason.SIGNATURE_INVALID, "the token's signature is not valid")
    return key


def decode_segment(segment: bytes) -> bytes | None:
    """Canonical base64url without padding (RFC 4648 §5, RFC 7515 §2), or None.

    One text for one value: foreign bytes, padding and stray bits in the last character are refused.
    """
    rest = len(segment) % 4
    padding, last = _PADDING[rest], _LAST[rest]
    if padding is None or (last is not None and segment[-1] not in last):
        return None
    try:
        return binascii.a2b_base64(segment.translate(_TO_STANDARD) + padding, strict_mode=True)
    except ValueError:
        return None


def encode_segment(raw: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def strict_json(raw: bytes) -> object:
    """Decode JSON that means the same to every reader (RFC 8259, RFC 8725 §2.6).

    Refused beyond what JSON forbids: repeated members at any depth, numbers that are not finite, nesting deeper than
    32, byte order marks, encodings other than UTF-8, and lone surrogates, which cannot be written out again.

    Raises:
        ValueError: It is not strict JSON. The message never quotes the input.
    """
    try:
        text = raw.decode("utf-8")
        decoded: object
        if text.startswith("{"):
            decoded, end = _DECODER.raw_decode(text)  # without looking for white space around it
            if end != len(text):
                decoded = _DECODER.decode(text)
        else:
            decoded = _DECODER.decode(text)
        # Nesting cannot be deeper than there are brackets, so that most tokens are not walked at all.
        if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _is_deeper(decoded, MAX_JSON_DEPTH):
            raise ValueError("nested too deeply")
        # Only an escape can make a lone surrogate, and only in a text that has one.
        if "\\u" in text:
            json.dumps(decoded, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None
    return decoded


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return any(isinstance(value, dict | list) for value in level)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_float=_finite
)
