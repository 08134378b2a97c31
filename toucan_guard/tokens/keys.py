"""Keys: what may verify a token, what may sign one, and everything that must not.

A key is bound to one algorithm, and with it to one key type and curve, when it is loaded. The header of a token
chooses among the keys of the ring; it never chooses how a key is used (RFC 8725 §3.1). Mistakes fail here, at
start-up, with every problem at once and without a secret's value.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.tokens.algorithms import (
    ALGORITHMS,
    PrivateKey,
    PublicKey,
    default_algorithm,
    material_problems,
    public_members,
    thumbprint,
)
from toucan_guard.tokens.key_text import (
    checked_secret,
    decoded,
    encoded,
    jwks_of,
    kid_problems,
    load_jwk,
    pem_blocks,
    private_from_pem,
    public_from_pem,
    read_jwk,
)
from toucan_guard.tokens.signatures import SignatureCheck, signature_check

# Generations are compared inside this process only. Keyed, so that one that is logged says nothing about a secret.
_GENERATION_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A secret or public key that is bound to one algorithm.

    Attributes:
        kid: The name that tokens use for it, or None.
        algorithm: The one JWS algorithm that it verifies.
        material: The secret's bytes, or a public key of ``cryptography``.
        mark: A digest of the material, the same in every process.
        verify: Says of bytes and a signature whether the signature over these bytes was made with this key.

    Raises:
        ConfigError: Algorithm and material do not belong together, or the key is too weak.
    """

    kid: str | None
    algorithm: str
    material: bytes | PublicKey = field(repr=False)
    mark: str = field(init=False, repr=False, compare=False)
    verify: SignatureCheck = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problems = [
            *(() if self.kid is None else kid_problems(self.kid)),
            *material_problems(self.algorithm, self.material),
        ]
        if problems:
            raise ConfigError(problems)
        object.__setattr__(self, "mark", _mark(self.material))
        object.__setattr__(self, "verify", signature_check(self.algorithm, self.material))

    @property
    def symmetric(self) -> bool:
        """Whether the same key signs and verifies."""
        return isinstance(self.material, bytes)

    def public_jwk(self) -> dict[str, str]:
        """The key as a JSON Web Key for a ``KEYS`` file.

        Raises:
            ValueError: It is a secret, which has no public half.
        """
        named = {} if self.kid is None else {"kid": self.kid}
        return {**public_members(self.material), **named, "alg": self.algorithm, "use": "sig"}


class KeyRing:
    """The keys of one issuer. Immutable: another set of keys is another ring, with another generation.

    Attributes:
        keys: The keys, in the order given.
        generation: A digest of the contents, equal for equal rings of one process and of no meaning outside of it.

    Raises:
        ConfigError: With every problem: no keys, secrets beside public keys, or keys that cannot be told apart.
    """

    __slots__ = ("_alone", "_by_kid", "_nameless", "generation", "keys")

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys: Final = tuple(keys)
        problems = _ring_problems(self.keys)
        if problems:
            raise ConfigError(problems)
        self._by_kid: Final = {key.kid: key for key in self.keys if key.kid is not None}
        self._nameless: Final = {key.algorithm: key for key in self.keys if key.kid is None}
        self._alone: Final = _alone(self.keys)
        self.generation: Final = _generation(self.keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(f'{key.kid!r}: {key.algorithm}' for key in self.keys)})"

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | Deny:
        """The one key that a token's ``kid`` and ``alg`` may use.

        A ``kid`` is a look-up in a dictionary and nothing else. A key that was configured without a name cannot be
        compared, so it is the candidate for every ``kid`` that is not another key's. A token without a ``kid`` is
        accepted only where one key alone has its algorithm.
        """
        if kid is not None:
            key = self._by_kid.get(kid)
            if key is not None:
                return key if key.algorithm == algorithm else _WRONG_ALGORITHM
            if not self._nameless:
                return _UNKNOWN_KEY
            return self._nameless.get(algorithm, _WRONG_ALGORITHM)
        return self._alone.get(algorithm, _WRONG_ALGORITHM)

    def holds(self, kid: str | None, algorithm: str, mark: str) -> bool:
        """Whether a key that verified something earlier is still here, and not another one of its name."""
        key = self._nameless.get(algorithm) if kid is None else self._by_kid.get(kid)
        return key is not None and key.algorithm == algorithm and key.mark == mark

    @classmethod
    def load(cls, text: str | bytes) -> KeyRing:
        """Read a key set (JSON) or PEM, whichever the text is."""
        content = decoded(text).strip()
        if content.startswith(("{", "[")):
            return cls.from_jwks(content)
        if "-----BEGIN " in content:
            return cls.from_pem(content)
        raise ConfigError(
            "the keys are neither a JSON Web Key Set nor PEM: a secret for HS256 is set as TOUCAN_GUARD_SECRET instead"
        )

    @classmethod
    def from_jwks(cls, text: str | bytes | Mapping[str, object]) -> KeyRing:
        """Read a JSON Web Key Set, or one JSON Web Key (RFC 7517)."""
        problems: list[str] = []
        keys: list[VerificationKey] = []
        for place, jwk in jwks_of(text):
            try:
                keys.append(verification_key(jwk))
            except ConfigError as error:
                problems.extend(f"{place}: {problem}" for problem in error.problems)
        if problems:
            raise ConfigError(problems)
        return cls(keys)

    @classmethod
    def from_pem(cls, text: str | bytes, kid: str | None = None, algorithm: str | None = None) -> KeyRing:
        """Read public keys or certificates in PEM.

        One key has the name that is given, or none. Several have their thumbprints (RFC 7638) as names. An RSA key is
        bound to RS256 unless an algorithm is named.
        """
        blocks = pem_blocks(decoded(text))
        problems = [] if blocks else ["the keys have no complete PEM block"]
        if kid is not None and len(blocks) > 1:
            problems.append("one kid cannot name several PEM keys; give one key, or a JSON Web Key Set")
        keys: list[VerificationKey] = []
        for number, (label, block) in enumerate(blocks, 1):
            try:
                public = public_from_pem(label, block)
                name = kid if len(blocks) == 1 else thumbprint(public)
                keys.append(VerificationKey(name, algorithm or default_algorithm(public), public))
            except ConfigError as error:
                problems.extend(f"PEM block {number}: {problem}" for problem in error.problems)
        if problems:
            raise ConfigError(problems)
        return cls(keys)

    @classmethod
    def from_secret(cls, secret: str | bytes, kid: str | None = None, algorithm: str = "HS256") -> KeyRing:
        """A ring of one HMAC secret, which must not be short, known or padded."""
        return cls([VerificationKey(kid, algorithm, checked_secret(secret, algorithm))])


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret or private key that signs tokens.

    Attributes:
        kid: The name that goes into the header, or None for a secret without a name.
        algorithm: The one algorithm that it signs with.
    """

    kid: str | None
    algorithm: str
    _material: bytes | PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        self.verification_key()  # what may not verify may not sign either

    @classmethod
    def load(
        cls,
        key: str | bytes | Mapping[str, object] | PrivateKey,
        *,
        kid: str | None = None,
        algorithm: str | None = None,
    ) -> SigningKey:
        """Read a private key in PEM, a private JSON Web Key, a private key object, or the text of a secret.

        Args:
            key: The key. A JSON Web Key Set is accepted where it has one key, or where ``kid`` picks one.
            kid: The name for the header. Without one it is the JWK's own, and for a private key its thumbprint.
            algorithm: The algorithm. Without one it is the JWK's own or the usual one of the key's type.

        Raises:
            ConfigError: The key cannot sign, or must not.
        """
        if isinstance(key, PrivateKey):
            return cls._from_private(key, kid, algorithm)
        if isinstance(key, Mapping):
            return cls._from_jwks(key, kid, algorithm)
        if not key:
            raise ConfigError("the signing key is empty")
        raw = encoded(key)
        if raw.lstrip().startswith(b"-----BEGIN "):
            return cls._from_private(private_from_pem(raw), kid, algorithm)
        if raw.lstrip().startswith(b"{"):
            return cls._from_jwks(raw, kid, algorithm)
        name = algorithm or "HS256"
        return cls(kid, name, checked_secret(raw, name))

    @classmethod
    def _from_private(cls, key: PrivateKey, kid: str | None, algorithm: str | None) -> SigningKey:
        public = key.public_key()
        return cls(thumbprint(public) if kid is None else kid, algorithm or default_algorithm(public), key)

    @classmethod
    def _from_jwks(
        cls, source: str | bytes | Mapping[str, object], kid: str | None, algorithm: str | None
    ) -> SigningKey:
        jwks = [jwk for _, jwk in jwks_of(source)]
        if len(jwks) > 1:
            jwks = [jwk for jwk in jwks if kid is not None and isinstance(jwk, Mapping) and jwk.get("kid") == kid]
        if len(jwks) != 1:
            raise ConfigError("the signing key is a set of several keys; give one key, or the kid of one")
        fields = read_jwk(jwks[0], operation="sign")
        if algorithm is not None and fields.named and algorithm != fields.algorithm:
            raise ConfigError("the algorithm is not the alg of the signing key")
        material = load_jwk(fields)
        name = algorithm or fields.algorithm
        if kid is None:
            kid = fields.kid
        if isinstance(material, bytes):
            return cls(kid, name, material)
        if not isinstance(material, PrivateKey):
            raise ConfigError("the signing key is a public key; give the private one")
        return cls._from_private(material, kid, name)

    def sign(self, signing_input: bytes) -> bytes:
        """The signature over these bytes."""
        return ALGORITHMS[self.algorithm].engine.sign(signing_input, self._material)

    def verification_key(self) -> VerificationKey:
        """The key that verifies what this one signs."""
        material = self._material
        return VerificationKey(
            self.kid, self.algorithm, material if isinstance(material, bytes) else material.public_key()
        )


def verification_key(jwk: object) -> VerificationKey:
    """Read one public or symmetric JSON Web Key for verification (RFC 7517).

    Raises:
        ConfigError: With every problem; a private key is refused, because a verifier that holds it can be robbed of it.
    """
    fields = read_jwk(jwk, operation="verify")
    # Its private members were refused above, so it cannot be a private key.
    return VerificationKey(fields.kid, fields.algorithm, cast("bytes | PublicKey", load_jwk(fields)))


_UNKNOWN_KEY: Final = Deny(Reason.KEY_UNKNOWN, "no key has the token's kid")
_AMBIGUOUS_KEY: Final = Deny(Reason.KEY_UNKNOWN, "the token has no kid, and several keys could have signed it")
_WRONG_ALGORITHM: Final = Deny(Reason.ALGORITHM_NOT_ALLOWED, "the token's algorithm is not the algorithm of a key")


def _ring_problems(keys: tuple[VerificationKey, ...]) -> list[str]:
    problems = [] if keys else ["there is no key"]
    if len({key.symmetric for key in keys}) > 1:
        problems.append("secrets and public keys are mixed; a public key must never be mistaken for a secret")
    kids = [key.kid for key in keys if key.kid is not None]
    if len(set(kids)) != len(kids):
        problems.append("two keys have the same kid; give each key a name of its own")
    nameless = [key.algorithm for key in keys if key.kid is None]
    if len(set(nameless)) != len(nameless):
        problems.append(
            "two keys of one algorithm have no kid and cannot be told apart; give each key a name of its own"
        )
    return problems


def _alone(keys: tuple[VerificationKey, ...]) -> dict[str, VerificationKey | Deny]:
    """For each algorithm the one key that has it, or the refusal where several have."""
    alone: dict[str, VerificationKey | Deny] = {}
    for key in keys:
        alone[key.algorithm] = _AMBIGUOUS_KEY if key.algorithm in alone else key
    return alone


def _generation(keys: tuple[VerificationKey, ...]) -> bytes:
    digests = sorted(
        hmac.digest(
            _GENERATION_KEY, b"\0".join((repr((key.kid, key.algorithm)).encode(), _raw(key.material))), "sha256"
        )
        for key in keys
    )
    return hashlib.sha256(b"".join(digests)).digest()


def _mark(material: bytes | PublicKey) -> str:
    # Of a secret it says no more than any token that the secret has signed.
    if isinstance(material, bytes):
        return hmac.digest(material, b"toucan_guard: the mark of a secret", "sha256").hex()
    return hashlib.sha256(_raw(material)).hexdigest()


def _raw(material: bytes | PublicKey) -> bytes:
    if isinstance(material, bytes):
        return material
    return material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
