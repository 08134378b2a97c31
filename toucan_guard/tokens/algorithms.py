"""The algorithms that a token may use, and what each demands of its key.

A key is bound to one algorithm, and with it to one key type and curve (RFC 8725 §3.1). This is the table of those
bindings. Signatures are made by PyJWT's algorithm objects, and checked in ``signatures.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from jwt.algorithms import Algorithm, get_default_algorithms

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import encode_segment
from toucan_guard.tokens.key_checks import rsa_problem

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey


@dataclass(frozen=True, slots=True)
class Binding:
    """What an algorithm demands of its key: type, curves, and the fewest bytes of a secret."""

    key_type: str
    curves: tuple[str, ...]
    engine: Algorithm
    min_secret_bytes: int = 0


_ENGINES: Final = get_default_algorithms()

# The algorithms that a token may use. "none" is no member, so nothing can be bound to it.
ALGORITHMS: Final[Mapping[str, Binding]] = MappingProxyType(
    {
        "HS256": Binding("oct", (), _ENGINES["HS256"], 32),
        "HS384": Binding("oct", (), _ENGINES["HS384"], 48),
        "HS512": Binding("oct", (), _ENGINES["HS512"], 64),
        "RS256": Binding("RSA", (), _ENGINES["RS256"]),
        "RS384": Binding("RSA", (), _ENGINES["RS384"]),
        "RS512": Binding("RSA", (), _ENGINES["RS512"]),
        "PS256": Binding("RSA", (), _ENGINES["PS256"]),
        "PS384": Binding("RSA", (), _ENGINES["PS384"]),
        "PS512": Binding("RSA", (), _ENGINES["PS512"]),
        "ES256": Binding("EC", ("P-256",), _ENGINES["ES256"]),
        "ES384": Binding("EC", ("P-384",), _ENGINES["ES384"]),
        "ES512": Binding("EC", ("P-521",), _ENGINES["ES512"]),
        "EdDSA": Binding("OKP", ("Ed25519", "Ed448"), _ENGINES["EdDSA"]),
        # RFC 9864 gives each Edwards curve a name of its own.
        "Ed25519": Binding("OKP", ("Ed25519",), _ENGINES["EdDSA"]),
        "Ed448": Binding("OKP", ("Ed448",), _ENGINES["EdDSA"]),
    }
)

# What a key is bound to where nothing names an algorithm. An RSA key could be used with six; one is chosen.
DEFAULTS: Final[Mapping[tuple[str, str | None], str]] = MappingProxyType(
    {
        ("oct", None): "HS256",
        ("RSA", None): "RS256",
        ("EC", "P-256"): "ES256",
        ("EC", "P-384"): "ES384",
        ("EC", "P-521"): "ES512",
        ("OKP", "Ed25519"): "EdDSA",
        ("OKP", "Ed448"): "EdDSA",
    }
)

_CURVES: Final = MappingProxyType({"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"})

# The members that a key of each type consists of; the public ones are also what RFC 7638 hashes.
PUBLIC_MEMBERS: Final = MappingProxyType({"RSA": ("e", "n"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ()})


def material_problems(algorithm: str, material: object) -> list[str]:
    """Why this key must not be used with this algorithm; empty where it may be."""
    binding = ALGORITHMS.get(algorithm)
    if binding is None:
        return [f"the algorithm is not one of {', '.join(ALGORITHMS)}"]
    if isinstance(material, bytes):
        if binding.key_type != "oct":
            return ["a secret cannot be used with an algorithm for public keys"]
        if len(material) < binding.min_secret_bytes:
            return [f"the secret is shorter than the {binding.min_secret_bytes} bytes that {algorithm} needs"]
        return []
    if not isinstance(material, PublicKey):
        return ["the key is neither a secret's bytes nor a public key"]
    key_type, curve = shape(material)
    if binding.key_type != key_type or (binding.curves and curve not in binding.curves):
        return ["the algorithm does not belong to this type of key and curve"]
    if isinstance(material, RSAPublicKey):
        numbers = material.public_numbers()
        problem = rsa_problem(numbers.n, numbers.e)
        return [] if problem is None else [problem]
    return []


def shape(key: PublicKey) -> tuple[str, str | None]:
    """Key type and curve in the words of JSON Web Keys; None for no curve, or one that no algorithm here uses."""
    if isinstance(key, RSAPublicKey):
        return "RSA", None
    if isinstance(key, EllipticCurvePublicKey):
        return "EC", _CURVES.get(key.curve.name)
    return "OKP", "Ed25519" if isinstance(key, Ed25519PublicKey) else "Ed448"


def default_algorithm(key: PublicKey) -> str:
    """What a key is bound to where nothing names an algorithm."""
    algorithm = DEFAULTS.get(shape(key))
    if algorithm is None:
        raise ConfigError("the key's curve is not one of P-256, P-384 and P-521")
    return algorithm


def public_members(material: bytes | PublicKey) -> dict[str, str]:
    """The members that make the key, without names or uses."""
    if isinstance(material, bytes):
        raise ValueError("a secret has no public half")
    key_type, _ = shape(material)
    to_jwk: Callable[..., dict[str, str]] = ALGORITHMS[default_algorithm(material)].engine.to_jwk
    jwk = to_jwk(material, as_dict=True)
    return {"kty": key_type, **{name: jwk[name] for name in PUBLIC_MEMBERS[key_type]}}


def thumbprint(key: PublicKey) -> str:
    """SHA-256 thumbprint of a public key (RFC 7638), the ``kid`` of keys that nobody named."""
    canonical = json.dumps(public_members(key), sort_keys=True, separators=(",", ":"))
    return encode_segment(hashlib.sha256(canonical.encode("ascii")).digest()).decode("ascii")
