"""The check of a signature, for each algorithm: what another library signed, and nothing else."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.tokens.algorithms import ALGORITHMS
from toucan_guard.tokens.keys import SigningKey, VerificationKey

INPUT, OTHER = b"header.payload", b"header.payloaf"

_RSA = rsa.generate_private_key(65537, 2048)
_CURVES: dict[str, Any] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(algorithm: str) -> Any:
    """A key for the algorithm. Signing is PyJWT's: what checks signatures is not asked what a good one is."""
    if algorithm.startswith("HS"):
        return bytes(range(64))
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    return ed448.Ed448PrivateKey.generate() if algorithm == "Ed448" else _RSA


SIGNERS = {algorithm: SigningKey("k1", algorithm, private_key(algorithm)) for algorithm in ALGORITHMS}
KEYS = {algorithm: signer.verification_key() for algorithm, signer in SIGNERS.items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_holds_for_its_bytes_and_its_key_alone(algorithm: str) -> None:
    key, signature = KEYS[algorithm], SIGNERS[algorithm].sign(INPUT)
    # Again and again: nothing of one check is left for the next one.
    for _ in range(2):
        assert key.verify(INPUT, signature) is True
        assert key.verify(OTHER, signature) is False
        assert key.verify(b"", signature) is False
        assert key.verify(INPUT, SIGNERS[algorithm].sign(OTHER)) is False
        for wrong in (
            b"",
            signature[:-1],
            signature + b"\0",
            b"\0" + signature,
            signature[::-1],
            bytes(len(signature)),
        ):
            assert key.verify(INPUT, wrong) is False
        for place in range(0, len(signature), 7):
            flipped = bytearray(signature)
            flipped[place] ^= 1
            assert key.verify(INPUT, bytes(flipped)) is False


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in ("EdDSA", "Ed25519")])
def test_a_signature_of_another_algorithm_with_the_same_key_does_not_hold(algorithm: str) -> None:
    material = KEYS[algorithm].material
    for other in ALGORITHMS:
        if other != algorithm and ALGORITHMS[other].key_type == ALGORITHMS[algorithm].key_type in ("RSA", "oct"):
            foreign = SigningKey("k1", other, bytes(range(64)) if isinstance(material, bytes) else _RSA)
            assert KEYS[algorithm].verify(INPUT, foreign.sign(INPUT)) is False


@pytest.mark.parametrize("algorithm", _CURVES)
def test_an_ecdsa_signature_has_one_form(algorithm: str) -> None:
    """RFC 7518 §3.4: not the DER of other protocols, and no number shortened."""
    private = private_key(algorithm)
    key = SigningKey("k1", algorithm, private).verification_key()
    digest = {"ES256": "SHA256", "ES384": "SHA384", "ES512": "SHA512"}[algorithm]
    der = private.sign(INPUT, ec.ECDSA(getattr(hashes, digest)()))
    first, second = decode_dss_signature(der)
    size = (private.key_size + 7) // 8
    assert key.verify(INPUT, first.to_bytes(size, "big") + second.to_bytes(size, "big")) is True
    assert key.verify(INPUT, der) is False
    longer = first.to_bytes(size + 1, "big") + second.to_bytes(size + 1, "big")
    assert key.verify(INPUT, longer) is False
    for numbers in ((0, second), (first, 0), (0, 0), (2 ** (8 * size) - 1, second)):
        assert key.verify(INPUT, b"".join(number.to_bytes(size, "big") for number in numbers)) is False


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "EdDSA"])
@given(signing_input=st.binary(max_size=40), signature=st.binary(max_size=80))
def test_any_bytes_are_judged_and_no_made_up_signature_holds(
    algorithm: str, signing_input: bytes, signature: bytes
) -> None:
    assert KEYS[algorithm].verify(signing_input, signature) is False


def test_a_key_keeps_its_check() -> None:
    key, other = KEYS["HS256"], VerificationKey("k1", "HS256", bytes(range(64)))
    assert key == other
    with pytest.raises(FrozenInstanceError):
        key.verify = lambda signing_input, signature: True  # type: ignore[misc]
    assert "verify" not in repr(key)
