"""Verifying one token, beside the bare signature check (the physical limit), joserfc and PyJWT."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import stacks as r
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwt as joserfc
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from measure import Contest
from rows import Row, microseconds

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.jws import decode_segment
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.keys import KeyRing, SigningKey

_REACH = {"ES256": 1.35, "EdDSA": 1.25, "RS256": 1.8}


def one_token() -> Iterator[Row]:
    policy = TokenPolicy(issuer=r.ISSUER, audiences=(r.AUDIENCE,))
    for algorithm in ("HS256", "RS256", "ES256", "EdDSA"):
        private, public, foreign = _keys(algorithm)
        token = r.mint(r.minter(private))
        ring = KeyRing([SigningKey.load(private).verification_key()])
        signing_input, _, signature = token.rpartition(".")
        raw = decode_segment(signature.encode())
        assert raw is not None

        def guard(token: str = token, ring: KeyRing = ring) -> None:
            if not isinstance(verify(token, policy=policy, keys=ring, now=time.time()), VerifiedClaims):
                raise RuntimeError("not verified")

        def pyjwt(token: str = token, public: Any = public, algorithm: str = algorithm) -> None:
            jwt.decode(token, public, algorithms=[algorithm], audience=r.AUDIENCE, issuer=r.ISSUER)

        registry = joserfc.JWTClaimsRegistry(
            iss={"essential": True, "value": r.ISSUER}, aud={"essential": True, "value": r.AUDIENCE}
        )

        def other(
            token: str = token, foreign: Any = foreign, algorithm: str = algorithm, registry: Any = registry
        ) -> None:
            registry.validate(joserfc.decode(token, foreign, algorithms=[algorithm]).claims)

        contest = Contest(
            {
                "signature": _bare(algorithm, public, signing_input.encode(), raw),
                "guard": guard,
                "PyJWT": pyjwt,
                "joserfc": other,
            }
        )
        beside = {name: microseconds(contest.time(name)) for name in contest.seconds}
        yield Row(
            "token",
            f"verifying a token : the bare signature check, {algorithm}",
            contest.ratio("guard", "signature"),
            _REACH.get(algorithm),
            beside=beside,
        )
        yield Row(
            "token",
            f"verifying a token : joserfc, {algorithm}",
            contest.ratio("guard", "joserfc"),
            1.0 if algorithm == "HS256" else None,
            beside=beside,
        )


def _keys(algorithm: str) -> tuple[Any, Any, Any]:
    if algorithm == "HS256":
        return r.SECRET, r.SECRET, OctKey.import_key(r.SECRET)
    private: Any = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    kind: Any = {"RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}[algorithm]
    verification = SigningKey.load(private).verification_key()
    jwk = {name: value for name, value in verification.public_jwk().items() if name not in ("use", "alg", "kid")}
    return private, private.public_key(), kind.import_key(jwk)


def _bare(algorithm: str, public: Any, signed: bytes, signature: bytes) -> Callable[[], None]:
    if algorithm == "HS256":
        secret = r.SECRET.encode()

        def check() -> None:
            if not hmac.compare_digest(hmac.digest(secret, signed, "sha256"), signature):
                raise RuntimeError("not verified")

        return check
    if algorithm == "RS256":
        return lambda: public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    if algorithm == "ES256":
        half = len(signature) // 2
        der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        return lambda: public.verify(der, signed, ec.ECDSA(hashes.SHA256()))
    return lambda: public.verify(signature, signed)
