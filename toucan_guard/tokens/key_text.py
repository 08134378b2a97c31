"""Reading keys from what people configure: JSON Web Keys, PEM and secrets.

Everything that is wrong is a sentence with the mend in a ``ConfigError``. No sentence repeats what was read, because
it may be a secret that was put into the wrong variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.exceptions import InvalidKeyError

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import MAX_KID_LENGTH, decode_segment
from toucan_guard.core.strict_json import strict_json
from toucan_guard.tokens.algorithms import ALGORITHMS, DEFAULTS, PUBLIC_MEMBERS, PrivateKey, PublicKey
from toucan_guard.tokens.key_checks import MAKE_ONE, is_placeholder, secret_problem

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})

_PEM_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_PUBLIC_LABELS: Final = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"})

_PRIVATE: Final = "it is a private key; give the public one here, and keep the private one where tokens are made"

# What a library raises at a key that it cannot read; none of its words are passed on, they may quote the key.
_UNREADABLE: Final = (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, LookupError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class JwkFields:
    """A JSON Web Key that has been looked at and not yet loaded; ``named`` says that ``alg`` was written out."""

    key_type: str
    kid: str | None
    algorithm: str
    named: bool
    members: dict[str, str] = field(repr=False)


def jwks_of(source: str | bytes | Mapping[str, object]) -> list[tuple[str, object]]:
    """The keys of a set, each with its place for messages; a lone key counts as a set of one."""
    document: object = source
    if not isinstance(source, Mapping):
        try:
            document = strict_json(encoded(source))
        except ValueError:
            raise ConfigError("the keys are not strict JSON (repeated members are refused too)") from None
    if isinstance(document, Mapping) and "kty" in document:
        return [("the key", document)]
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list | tuple) or not keys:
        raise ConfigError('the keys are not a JSON Web Key Set; it has the form {"keys": [...]} with at least one key')
    return [(f"key {number}", jwk) for number, jwk in enumerate(keys, 1)]


def read_jwk(jwk: object, *, operation: Literal["sign", "verify"]) -> JwkFields:
    """Check everything about a JSON Web Key that needs no arithmetic."""
    if not isinstance(jwk, Mapping):
        raise ConfigError("it is not a JSON object")
    key_type, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(key_type, str) or key_type not in PUBLIC_MEMBERS:
        raise ConfigError(f"kty is not one of {', '.join(sorted(PUBLIC_MEMBERS))}")
    problems = kid_problems(jwk["kid"]) if "kid" in jwk else []
    if operation == "verify" and key_type != "oct" and not _PRIVATE_MEMBERS.isdisjoint(jwk):
        problems.append(_PRIVATE)
    if jwk.get("use", "sig") != "sig":
        problems.append('use is not "sig": the key was not made for signatures')
    operations = jwk.get("key_ops", [operation])
    if (
        not isinstance(operations, list | tuple)
        or operation not in operations
        or len(operations) != len({str(name) for name in operations})
    ):
        problems.append(f"key_ops does not have {operation!r}, or repeats itself")
    named = "alg" in jwk
    curve = curve if isinstance(curve, str) and key_type in ("EC", "OKP") else None
    algorithm = jwk["alg"] if named else DEFAULTS.get((key_type, curve))
    binding = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
    if binding is None:
        problems.append(f"alg or crv is not supported; alg is one of {', '.join(ALGORITHMS)}")
    elif binding.key_type != key_type or (binding.curves and curve not in binding.curves):
        problems.append("alg does not belong to this kty and crv")
    members = {
        name: jwk[name]
        for name in (*PUBLIC_MEMBERS[key_type], *(("k",) if key_type == "oct" else sorted(_PRIVATE_MEMBERS)))
        if name in jwk
    }
    for name, value in members.items():
        if name != "crv" and (not isinstance(value, str) or not value.isascii() or not decode_segment(value.encode())):
            problems.append(f"{name} is not canonical base64url")
    if problems:
        raise ConfigError(problems)
    return JwkFields(key_type, jwk.get("kid"), str(algorithm), named, members)


def load_jwk(fields: JwkFields) -> bytes | PublicKey | PrivateKey:
    """Make the key; points off the curve and numbers that do not belong together fail here."""
    try:
        loaded: Any = ALGORITHMS[fields.algorithm].engine.from_jwk({"kty": fields.key_type, **fields.members})
        if isinstance(loaded, bytes):
            # Bytes of a PEM file inside "k" are still a key that others may know.
            ALGORITHMS[fields.algorithm].engine.prepare_key(loaded)
            if is_placeholder(loaded):
                raise ConfigError(f"k is a well-known placeholder; {MAKE_ONE}")
    except _UNREADABLE:
        raise ConfigError("its members do not make a key; look for one that is missing or was altered") from None
    return cast("bytes | PublicKey | PrivateKey", loaded)


def pem_blocks(text: str) -> list[tuple[str, str]]:
    """The label and the text of every complete PEM block."""
    return [(match[1], match[0]) for match in _PEM_BLOCK.finditer(text)]


def public_from_pem(label: str, block: str) -> PublicKey:
    """Read one PEM block that holds a public key or a certificate."""
    if "PRIVATE KEY" in label:
        raise ConfigError(_PRIVATE)
    try:
        if label == "CERTIFICATE":
            public: object = load_pem_x509_certificate(block.encode("ascii")).public_key()
        elif label in _PUBLIC_LABELS:
            public = load_pem_public_key(block.encode("ascii"))
        else:
            raise ConfigError("it is neither a public key nor a certificate")
    except _UNREADABLE:
        raise ConfigError("it cannot be read; look for a missing line or an altered character") from None
    if not isinstance(public, PublicKey):
        raise ConfigError("its type cannot sign tokens; use RSA, EC or Ed25519")
    return public


def private_from_pem(raw: bytes) -> PrivateKey:
    """Read a private key in PEM that has no password."""
    try:
        private: object = load_pem_private_key(raw, password=None)
    except _UNREADABLE:
        raise ConfigError("the signing key is not a private key in PEM that has no password") from None
    if not isinstance(private, PrivateKey):
        raise ConfigError("the signing key's type cannot sign tokens; use RSA, EC or Ed25519")
    return private


def checked_secret(secret: str | bytes, algorithm: str) -> bytes:
    """The bytes of a secret that a person chose, unless it is short, known or padded."""
    binding = ALGORITHMS.get(algorithm)
    if binding is None or binding.key_type != "oct":
        raise ConfigError("a secret is used with HS256, HS384 or HS512")
    raw = encoded(secret)
    problem = secret_problem(raw, binding.min_secret_bytes)
    if problem is not None:
        raise ConfigError(problem)
    return raw


def kid_problems(kid: object) -> list[str]:
    """What is wrong with the name of a key."""
    if isinstance(kid, str) and 0 < len(kid) <= MAX_KID_LENGTH:
        return []
    return [f"kid is not text of 1 to {MAX_KID_LENGTH} characters"]


def encoded(text: object) -> bytes:
    """Text as UTF-8; the environment may hold bytes that are none."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ConfigError("the key is not text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("the key's text is not UTF-8") from None


def decoded(text: str | bytes) -> str:
    """UTF-8 as text."""
    try:
        return text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise ConfigError("the keys are not UTF-8 text") from None
