"""Checking signatures: one function for one key, made when the key is loaded.

Which algorithm a key is used with is settled before a token comes (RFC 8725 §3.1), so the function knows it and a
token cannot choose. The mathematics are those of ``cryptography``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hmac import HMAC

from toucan_guard.tokens.algorithms import PublicKey

# Whether a signature (the second) over these bytes (the first) was made with the key.
SignatureCheck = Callable[[bytes, bytes], bool]

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
)


def signature_check(algorithm: str, material: bytes | PublicKey) -> SignatureCheck:
    """The check for a key and an algorithm that go together (see ``material_problems``)."""
    if isinstance(material, bytes):
        return _hmac_check(material, _HASHES[algorithm[2:]])
    if isinstance(material, RSAPublicKey):
        return _rsa_check(material, algorithm)
    if isinstance(material, EllipticCurvePublicKey):
        return _ecdsa_check(material, algorithm)
    return _eddsa_check(material)


def _hmac_check(secret: bytes, digest: hashes.HashAlgorithm) -> SignatureCheck:
    """RFC 7518 §3.2. What does not depend on the token is worked out once: a copy of it is taken further."""
    keyed = HMAC(secret, digest)

    def check(signing_input: bytes, signature: bytes) -> bool:
        code = keyed.copy()
        code.update(signing_input)
        try:
            code.verify(signature)  # compares in constant time
        except InvalidSignature:
            return False
        return True

    return check


def _rsa_check(key: RSAPublicKey, algorithm: str) -> SignatureCheck:
    """RFC 7518 §3.3 and §3.5; the salt of PSS is as long as the hash."""
    digest = _HASHES[algorithm[2:]]
    padding: Any = PSS(MGF1(digest), digest.digest_size) if algorithm.startswith("PS") else PKCS1v15()

    def check(signing_input: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signing_input, padding, digest)
        except InvalidSignature:
            return False
        return True

    return check


def _ecdsa_check(key: EllipticCurvePublicKey, algorithm: str) -> SignatureCheck:
    """RFC 7518 §3.4: two numbers, each as long as the curve's, and not the DER that libraries take."""
    ecdsa = ECDSA(_HASHES[algorithm[2:]])
    size = (key.curve.key_size + 7) // 8

    def check(signing_input: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * size:
            return False
        der = encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))
        try:
            key.verify(der, signing_input, ecdsa)
        except InvalidSignature:
            return False
        return True

    return check


def _eddsa_check(key: Ed25519PublicKey | Ed448PublicKey) -> SignatureCheck:
    """RFC 8037 §3.1."""

    def check(signing_input: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signing_input)
        except InvalidSignature:
            return False
        return True

    return check
