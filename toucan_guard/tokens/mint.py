"""Make embed tokens, in the host's own backend.

A token that the guard would refuse is not made: the mistake shows where it was made, at the host, and not in a
customer's browser.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.jws import encode_segment
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.strict_json import MAX_JSON_DEPTH, strict_json
from toucan_guard.core.token_policy import (
    BOOTSTRAP,
    EMBED,
    MAX_BOOTSTRAP_SECONDS,
    MAX_TOKEN_BYTES,
    RESERVED_CLAIMS,
    VERSION,
    ClaimNames,
)
from toucan_guard.tokens.algorithms import PrivateKey
from toucan_guard.tokens.keys import SigningKey, VerificationKey


class AttributePolicy(Protocol):
    """The part of an ``RlsPolicy`` that minting needs."""

    def problems(self, attributes: Mapping[str, object]) -> tuple[str, ...]:
        """All mistakes in these attributes, as sentences."""


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
            *_text_problems("issuer", issuer),
            *_lifetime_problems(lifetime_seconds, None),
            *([] if region is None else _text_problems("region", region)),
        ]
        audiences = [self._audience] if isinstance(self._audience, str) else self._audience
        if not audiences or any(_text_problems("audience", name) for name in audiences):
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
            *_text_problems("subject", subject),
            *([] if tenant is None else _text_problems("tenant", tenant)),
            *([] if region is None else _text_problems("region", region)),
            *([] if token_id is None else _text_problems("token_id", token_id)),
            *_lifetime_problems(lifetime_seconds, MAX_BOOTSTRAP_SECONDS if token_type == BOOTSTRAP else None),
        ]
        if not all(_is_positive(seconds) for seconds in session.values()):
            problems.append("session_seconds must be a whole number, 1 or more")
        granted = _granted(grants, problems)
        listed = _listed_origins(origins, problems, development=self._development)
        attributes = _attributes(rls, problems)
        if self._policy is not None:
            if attributes is None:
                problems.append("rls is missing, and the row-level security policy needs it")
            else:
                problems.extend(self._policy.problems(attributes))
        more = _extra(extra_claims, self._names, problems)
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


def _text_problems(name: str, value: object) -> list[str]:
    return [] if isinstance(value, str) and value else [f"{name} must be text that is not empty"]


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def _lifetime_problems(seconds: object, limit: int | None) -> list[str]:
    if not _is_positive(seconds):
        return ["lifetime_seconds must be a whole number, 1 or more"]
    if limit is not None and isinstance(seconds, int) and seconds > limit:
        return [f"a bootstrap token lives {limit} seconds at most"]
    return []


def _granted(grants: object, problems: list[str]) -> list[dict[str, object]]:
    if isinstance(grants, str | bytes | Mapping) or not isinstance(grants, Iterable):
        problems.append("grants must be a collection of Grant")
        return []
    claims = []
    for grant in grants:
        read = grant if isinstance(grant, Grant) else Grant.from_claim(grant)
        if read is None:
            problems.append("a member of grants is neither a Grant nor exactly type, id and actions")
        else:
            claims.append(read.to_claim())
    return claims


def _listed_origins(origins: object, problems: list[str], *, development: bool) -> list[str] | None:
    if origins is None:
        return None
    if isinstance(origins, str | bytes | Mapping) or not isinstance(origins, Iterable):
        problems.append("origins must be a collection of origins, not one string")
        return None
    listed = list(origins)
    try:
        OriginAllowlist.parse(listed, development=True)
    except ConfigError as error:
        problems.extend(error.problems)
        return None
    # A guard in production refuses these. Those of this machine are let through, because nobody ships them by mistake.
    far = [entry for entry in listed if not development and entry.startswith("http:") and not _is_loopback(entry)]
    problems.extend(f"the origin {entry!r} is not https; use https, or development=True" for entry in far)
    return listed


def _is_loopback(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _attributes(rls: object, problems: list[str]) -> dict[str, object] | None:
    if rls is None:
        return None
    if not isinstance(rls, Mapping) or not all(isinstance(name, str) for name in rls):
        problems.append("rls must be a mapping from attribute names to values")
        return {}
    return {name: _plain(value) for name, value in rls.items()}


def _plain(value: object) -> object:
    """What a policy calls a date, a time or a UUID is text in a token."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _extra(claims: object, names: ClaimNames, problems: list[str]) -> Mapping[str, object]:
    if claims is None:
        return {}
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        problems.append("extra_claims must be a mapping from claim names to values")
        return {}
    ours = {*RESERVED_CLAIMS, names.tenant, names.grants, names.rls, names.origins, names.region}
    problems.extend(
        f"extra_claims may not set {name!r}, which has an argument of its own" for name in sorted(ours & claims.keys())
    )
    return claims
