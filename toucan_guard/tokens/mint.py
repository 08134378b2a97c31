"""Make embed tokens, in the host's own backend.

A token that the guard would refuse is not made: the mistake shows where it was made, at the host, and not in a
customer's browser.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from toucan_guard.core.attribute_policy import AttributePolicy
from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.jws import encode_segment
from toucan_guard.core.strict_json import MAX_JSON_DEPTH, strict_json
from toucan_guard.core.token_policy import (
    BOOTSTRAP,
    EMBED,
    MAX_BOOTSTRAP_SECONDS,
    MAX_TOKEN_BYTES,
    VERSION,
    ClaimNames,
)
from toucan_guard.tokens.algorithms import PrivateKey
from toucan_guard.tokens.keys import SigningKey, VerificationKey
from toucan_guard.tokens.mint_arguments import (
    attribute_claims,
    extra_claims_of,
    grant_claims,
    is_positive,
    lifetime_problems,
    listed_origins,
    text_problems,
)


class TokenMinter:
    """Signs embed tokens.

    Args:
        key: A secret's text, a private JSON Web Key, a private key in PEM, or a ``SigningKey``.
        issuer: ``iss``, exactly as the guard has it.
        audience: ``aud``, one or several.
        lifetime_seconds: How long a token lives where ``mint`` does not say.
        policy: The deployment's ``RlsPolicy``; with it, ``rls`` is checked when a token is made.
        kid: The key's name for the header.
        algorithm: The key's algorithm, where it is not the usual one of its type.
        region: The region of every token where ``mint`` does not say.
        clock: Seconds since the epoch.
        claim_names: Remapped claim names, as the guard has them.
        development: Allow every http origin. Those of this machine (``localhost``) are allowed in any case; a guard in
            production refuses both.

    Raises:
        ConfigError: The key must not sign, or issuer, audience or lifetime are no good.
    """

    def __init__(
        self,
        key: str | bytes | Mapping[str, object] | PrivateKey | SigningKey,
        *,
        issuer: str,
        audience: str | Iterable[str],
        lifetime_seconds: int = 300,
        policy: AttributePolicy | None = None,
        kid: str | None = None,
        algorithm: str | None = None,
        region: str | None = None,
        clock: Callable[[], float] = time.time,
        claim_names: ClaimNames | None = None,
        development: bool = False,
    ) -> None:
        problems: list[str] = []
        try:
            loaded = key if isinstance(key, SigningKey) else SigningKey.load(key, kid=kid, algorithm=algorithm)
        except ConfigError as error:
            problems += error.problems
        del key  # a traceback that prints local variables shows none
        if problems:
            raise ConfigError(problems)
        self._key: Final = loaded
        self._issuer: Final = issuer
        self._audience: Final = audience if isinstance(audience, str) else list(audience)
        self._lifetime_seconds: Final = lifetime_seconds
        self._policy: Final = policy
        self._region: Final = region
        self._clock: Final = clock
        self._names: Final = claim_names or ClaimNames()
        self._development: Final = development
        problems += [
            *text_problems("issuer", issuer),
            *lifetime_problems(lifetime_seconds, None),
            *([] if region is None else text_problems("region", region)),
        ]
        audiences = [self._audience] if isinstance(self._audience, str) else self._audience
        if not audiences or any(text_problems("audience", name) for name in audiences):
            problems.append("the audience must be text, or several texts, and not empty")
        if problems:
            raise ConfigError(problems)

    def __repr__(self) -> str:
        if not hasattr(self, "_issuer"):  # a traceback that prints local variables: its key was no good
            return "TokenMinter()"
        return f"TokenMinter(issuer={self._issuer!r}, kid={self._key.kid!r}, algorithm={self._key.algorithm!r})"

    @property
    def verification_key(self) -> VerificationKey:
        """What a guard needs to verify these tokens."""
        return self._key.verification_key()

    def mint(
        self,
        *,
        subject: str,
        tenant: str | None = None,
        grants: Iterable[Grant] = (),
        rls: Mapping[str, object] | None = None,
        origins: Iterable[str] | None = None,
        region: str | None = None,
        lifetime_seconds: int | None = None,
        token_id: str | None = None,
        extra_claims: Mapping[str, object] | None = None,
    ) -> str:
        """Make an embed token.

        Args:
            subject: The host's own user id.
            tenant: The customer organisation whose data is shown.
            grants: The objects that the token opens.
            rls: Attribute name to a value or a list of values. Dates, times and UUIDs are written as text.
            origins: Where the token may be embedded: None for wherever the guard allows, ``[]`` for nowhere.
            region: Data residency.
            lifetime_seconds: How long it lives.
            token_id: ``jti``; random where it is not given.
            extra_claims: More members for other readers; the guard ignores them.

        Raises:
            MintError: With every reason for which a guard would refuse it.
        """
        return self._mint(
            EMBED,
            self._lifetime_seconds if lifetime_seconds is None else lifetime_seconds,
            {},
            subject=subject,
            tenant=tenant,
            grants=grants,
            rls=rls,
            origins=origins,
            region=region,
            token_id=token_id,
            extra_claims=extra_claims,
        )

    def mint_bootstrap(
        self,
        *,
        subject: str,
        session_seconds: int = 900,
        tenant: str | None = None,
        grants: Iterable[Grant] = (),
        rls: Mapping[str, object] | None = None,
        origins: Iterable[str] | None = None,
        region: str | None = None,
        lifetime_seconds: int | None = None,
        token_id: str | None = None,
        extra_claims: Mapping[str, object] | None = None,
    ) -> str:
        """Make the token for a frame's URL: it is spent once, within 60 seconds, and opens an embed session.

        Args:
            session_seconds: How long the session may last. The guard caps it.

        The other arguments are those of ``mint``.

        Raises:
            MintError: With every reason for which a guard would refuse it.
        """
        if lifetime_seconds is None:
            lifetime_seconds = min(self._lifetime_seconds, MAX_BOOTSTRAP_SECONDS)
        return self._mint(
            BOOTSTRAP,
            lifetime_seconds,
            {"session_seconds": session_seconds},
            subject=subject,
            tenant=tenant,
            grants=grants,
            rls=rls,
            origins=origins,
            region=region,
            token_id=token_id,
            extra_claims=extra_claims,
        )

    def _mint(
        self,
        token_type: str,
        lifetime_seconds: int,
        session: dict[str, int],
        *,
        subject: str,
        tenant: str | None,
        grants: Iterable[Grant],
        rls: Mapping[str, object] | None,
        origins: Iterable[str] | None,
        region: str | None,
        token_id: str | None,
        extra_claims: Mapping[str, object] | None,
    ) -> str:
        region = self._region if region is None else region
        problems = [
            *text_problems("subject", subject),
            *([] if tenant is None else text_problems("tenant", tenant)),
            *([] if region is None else text_problems("region", region)),
            *([] if token_id is None else text_problems("token_id", token_id)),
            *lifetime_problems(lifetime_seconds, MAX_BOOTSTRAP_SECONDS if token_type == BOOTSTRAP else None),
        ]
        if not all(is_positive(seconds) for seconds in session.values()):
            problems.append("session_seconds must be a whole number, 1 or more")
        granted = grant_claims(grants, problems)
        listed = listed_origins(origins, problems, development=self._development)
        attributes = attribute_claims(rls, problems)
        if self._policy is not None:
            if attributes is None:
                problems.append("rls is missing, and the row-level security policy needs it")
            else:
                problems.extend(self._policy.problems(attributes))
        more = extra_claims_of(extra_claims, self._names, problems)
        if problems:
            raise MintError(problems)

        issued_at = int(self._clock())
        names = self._names
        optional = {names.tenant: tenant, names.origins: listed, names.rls: attributes, names.region: region}
        claims: dict[str, object] = {
            **more,
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "jti": secrets.token_urlsafe(16) if token_id is None else token_id,
            "iat": issued_at,
            "exp": issued_at + lifetime_seconds,
            "ver": VERSION,
            **{name: value for name, value in optional.items() if value is not None},
            names.grants: granted,
            **session,
        }
        return self._sign(token_type, claims)

    def _sign(self, token_type: str, claims: dict[str, object]) -> str:
        header = {"alg": self._key.algorithm, "typ": token_type}
        if self._key.kid is not None:
            header["kid"] = self._key.kid
        signing_input = encode_segment(_json(header)) + b"." + encode_segment(_json(claims))
        token = signing_input + b"." + encode_segment(self._key.sign(signing_input))
        if len(token) > MAX_TOKEN_BYTES:
            raise MintError(f"the token has {len(token)} bytes; a guard accepts {MAX_TOKEN_BYTES} at most")
        return token.decode("ascii")


def _json(value: object) -> bytes:
    """Serialize, and read it again as the guard will."""
    try:
        raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
        strict_json(raw)
    except (TypeError, ValueError, RecursionError):
        raise MintError(
            f"a value cannot be written as JSON: only text that is UTF-8, finite numbers, and {MAX_JSON_DEPTH} levels"
        ) from None
    return raw
