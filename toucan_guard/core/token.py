"""The token: from bytes that anybody may have sent to claims that the signing key vouches for.

The order is fixed (DESIGN section 5): size and ASCII, three canonical segments, header, type, key, signature, and only
then the payload and its claims. Nothing inside the payload is read before its signature holds. What may change while
a token lives (time, issuer, audience) is in ``recheck`` alone, so that a cached token is judged by the same lines as a
fresh one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant, read_grants
from toucan_guard.core.jws import KeyFinder, VerifyingKey, check_signature, parse_compact
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.sealed import sealing
from toucan_guard.core.strict_json import strict_json

EMBED: Final = "embed+jwt"
BOOTSTRAP: Final = "embed-bootstrap+jwt"
VERSION: Final = 1

MAX_LEEWAY_SECONDS: Final = 60
MAX_BOOTSTRAP_SECONDS: Final = 60
MAX_TOKEN_BYTES: Final = 8192
RESERVED_CLAIMS: Final = frozenset({"iss", "aud", "sub", "jti", "iat", "exp", "nbf", "ver", "session_seconds"})
FIRST_ISSUED: Final = "first_iat"
# What no claim of ours may be renamed to: the token service could not say when a token was first issued.
TAKEN_CLAIMS: Final = RESERVED_CLAIMS | {FIRST_ISSUED}

# Beyond these a float no longer holds every second, and arithmetic with a huge integer raises instead of comparing.
_MAX_TIME: Final = 2**53
_WHOLE_TIMES: Final = range(-_MAX_TIME, _MAX_TIME + 1)


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Under which names a token carries our claims; identity providers force namespaces upon them.

    Raises:
        ConfigError: Two claims share a name, or a name is empty or a registered claim's.
    """

    tenant: str = "tenant"
    grants: str = "grants"
    rls: str = "rls"
    origins: str = "origins"
    region: str = "region"

    def __post_init__(self) -> None:
        names = {item.name: getattr(self, item.name) for item in fields(self)}
        problems = [
            f"the name of the claim {name!r} must be text, and not one of {', '.join(sorted(TAKEN_CLAIMS))}"
            for name, value in names.items()
            if not _is_text(value) or value in TAKEN_CLAIMS
        ]
        if not problems and len(set(names.values())) != len(names):
            problems.append("two claims have the same name; tenant, grants, rls, origins and region must differ")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What a token must say to be accepted.

    Attributes:
        issuer: The exact ``iss``.
        audiences: ``aud`` must name at least one of these, exactly.
        lifetime_seconds: The longest accepted ``exp - iat``, and the longest remaining life.
        leeway_seconds: Accepted clock skew, at most 60.
        require_tenant: Refuse a token that does not name its tenant.
        claim_names: Remapped claim names.
        insecure_typ_jwt: Accept ``typ: JWT`` as an embed token, for issuers that cannot set a type. Any token that such
            an issuer signs for this audience then opens charts (RFC 8725 §3.11).
        max_token_bytes: Longer tokens are refused unread.
        development: Accept http and localhost in a token's ``origins``.

    Raises:
        ConfigError: With every problem.
    """

    issuer: str
    audiences: tuple[str, ...]
    lifetime_seconds: int = 3600
    leeway_seconds: int = 30
    require_tenant: bool = True
    claim_names: ClaimNames = field(default_factory=ClaimNames)
    insecure_typ_jwt: bool = False
    max_token_bytes: int = MAX_TOKEN_BYTES
    development: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not _is_text(self.issuer):
            problems.append("the issuer must be the exact text of the tokens' iss, not empty")
        audiences: object = self.audiences
        if isinstance(audiences, str) or not isinstance(audiences, Iterable):
            problems.append("the audiences must be a collection of strings, not one string")
        else:
            object.__setattr__(self, "audiences", tuple(audiences))
            if not self.audiences or not all(_is_text(audience) for audience in self.audiences):
                problems.append("at least one audience is needed, and none may be empty")
        if not _is_count(self.lifetime_seconds) or self.lifetime_seconds < 1:
            problems.append("the token lifetime must be a whole number of seconds, 1 or more")
        if not _is_count(self.leeway_seconds) or not 0 <= self.leeway_seconds <= MAX_LEEWAY_SECONDS:
            problems.append(f"the leeway must be a whole number of seconds from 0 to {MAX_LEEWAY_SECONDS}")
        if not _is_count(self.max_token_bytes) or not 1 <= self.max_token_bytes <= 1_048_576:
            problems.append("the longest token must have from 1 to 1048576 bytes")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class VerifiedClaims:
    """What the signing key vouches for. Frozen to the depth, so that it can be cached and shared.

    Attributes:
        issuer: ``iss``.
        audiences: ``aud`` as a tuple.
        subject: ``sub``, the host's own user id.
        token_id: ``jti``.
        issued_at: ``iat``, seconds since the epoch.
        expires_at: ``exp``, seconds since the epoch.
        not_before: ``nbf``, or None.
        tenant: The customer organisation, or None.
        origins: Where the token may be embedded; None where it does not say, empty for nowhere.
        grants: Object-level permissions.
        rls: Attribute name to value, lists as tuples; None where the claim is absent, which is not the same as empty.
        region: Data residency, or None.
        key_id: The ``kid`` of the key that verified it, or None for a key without a name.
        algorithm: The algorithm of that key.
        token_type: ``EMBED`` or ``BOOTSTRAP``.
        session_seconds: How long the session of a bootstrap token may last; None for an embed token.
        first_issued_at: ``first_iat``, when the token that this one goes back to was issued: a refreshed token keeps
            it. None where it is absent or no time: the guard demands nothing of it.
        key_mark: What tells that key from another one of its name: see ``VerifyingKey.mark``.
        derived: Room for what other layers work out once per token; no part of the value, and empty in every copy
            that ``dataclasses.replace`` makes: what was worked out of one end does not hold for another.
    """

    issuer: str
    audiences: tuple[str, ...]
    subject: str
    token_id: str
    issued_at: float
    expires_at: float
    not_before: float | None
    tenant: str | None
    origins: OriginAllowlist | None
    grants: tuple[Grant, ...]
    rls: Mapping[str, object] | None = field(repr=False)
    region: str | None
    key_id: str | None
    algorithm: str
    token_type: str
    session_seconds: int | None
    first_issued_at: float | None = None
    key_mark: str = field(default="", repr=False)
    derived: dict[object, object] = field(default_factory=dict, init=False, repr=False, compare=False)


_verified_claims: Final = sealing(VerifiedClaims)


def verify(
    token: str | bytes,
    *,
    policy: TokenPolicy,
    keys: KeyFinder,
    now: float,
    token_type: str = EMBED,
) -> VerifiedClaims | Deny:
    """Verify a token from the outside in (RFC 7515 §5.2, RFC 7519 §7.2, RFC 8725).

    Args:
        token: What the request carried.
        policy: What is accepted.
        keys: The issuer's keys.
        now: Seconds since the epoch.
        token_type: ``EMBED`` or ``BOOTSTRAP``; a token of the other type is refused.

    Never raises; whatever goes wrong below, in a key or a library too, is a refusal.
    """
    try:
        jws = parse_compact(token, max_bytes=policy.max_token_bytes)
        if isinstance(jws, Deny):
            return jws
        typ = jws.jose.typ
        foreign = typ != token_type
        if foreign and not (typ == "jwt" and token_type == EMBED and policy.insecure_typ_jwt):
            return Deny(Reason.TOKEN_TYPE_NOT_ALLOWED, f"the token's typ is not {token_type!r}")
        key = check_signature(jws, keys)
        if isinstance(key, Deny):
            return key
        try:
            payload = strict_json(jws.payload)
        except ValueError:
            return Deny(Reason.TOKEN_MALFORMED, "the token's payload is not strict JSON")
        # A foreign issuer may use "ver" for a version of its own.
        claims = read_claims(payload, policy=policy, key=key, token_type=token_type, check_version=not foreign)
        if isinstance(claims, Deny):
            return claims
        refusal = recheck(claims, policy=policy, now=now)
        return claims if refusal is None else refusal
    except Exception:  # noqa: BLE001 - a token must never be able to cause a 500, whatever raises
        return Deny(Reason.TOKEN_MALFORMED, "the token could not be checked")


def recheck(claims: VerifiedClaims, *, policy: TokenPolicy, now: float) -> Deny | None:
    """What may have changed since a token was verified: issuer, audience and, above all, the time.

    And what another guard, which verified it, may not have asked for: a tenant.

    Every cache hit passes through here, and every first verification too.

    Never raises.
    """
    if claims.issuer != policy.issuer:
        return _OTHER_ISSUER
    for audience in claims.audiences:
        if audience in policy.audiences:
            break
    else:
        return _OTHER_AUDIENCE
    if claims.tenant is None and policy.require_tenant:
        return Deny(Reason.CLAIM_MISSING, "the token names no tenant")
    leeway, lifetime = policy.leeway_seconds, policy.lifetime_seconds
    issued_at, expires_at, not_before = claims.issued_at, claims.expires_at, claims.not_before
    if claims.token_type == BOOTSTRAP and lifetime > MAX_BOOTSTRAP_SECONDS:
        lifetime = MAX_BOOTSTRAP_SECONDS
    # Every comparison is written so that a time which is not a number is refused.
    if not expires_at > now - leeway:
        return _EXPIRED
    latest = now + leeway
    if not issued_at <= latest or not (not_before is None or not_before <= latest):
        return _NOT_YET_VALID
    # The remaining life is bounded too, so that a token from a clock that runs ahead does not outlive the lifetime.
    if not expires_at - issued_at <= lifetime or not expires_at - now <= lifetime + leeway:
        return Deny(Reason.TOKEN_LIFETIME_TOO_LONG, f"the token lives longer than {lifetime} seconds")
    return None


_OTHER_ISSUER: Final = Deny(Reason.ISSUER_NOT_ALLOWED, "the token's issuer is not the configured one")
_OTHER_AUDIENCE: Final = Deny(Reason.AUDIENCE_NOT_ALLOWED, "the token is not meant for this audience")
_EXPIRED: Final = Deny(Reason.TOKEN_EXPIRED, "the token has expired")
_NOT_YET_VALID: Final = Deny(Reason.TOKEN_NOT_YET_VALID, "the token is not valid yet")


def steady_between(claims: VerifiedClaims, *, policy: TokenPolicy) -> tuple[float, float]:
    """From when to when ``recheck`` has nothing to object, to a second, to claims that it has let pass once.

    In between nobody needs to ask it again: what it asks beside the time does not change.
    """
    leeway, begins, ends = policy.leeway_seconds, claims.issued_at, claims.expires_at
    begins = max(begins, ends - policy.lifetime_seconds)
    if claims.not_before is not None:
        begins = max(begins, claims.not_before)
    return begins - leeway + 1, ends + leeway - 1


def read_claims(
    payload: object, *, policy: TokenPolicy, key: VerifyingKey, token_type: str = EMBED, check_version: bool = True
) -> VerifiedClaims | Deny:
    """Give the payload of a verified signature its types; times and names are judged by ``recheck``.

    Never raises. Unknown members of the payload are ignored (RFC 7519 §4); inside ``grants`` they are refused, and
    the policy refuses unknown attributes inside ``rls``.
    """
    if not isinstance(payload, dict):
        return Deny(Reason.TOKEN_MALFORMED, "the token's payload is not a JSON object")
    try:
        # One long function: what every token has is read where it stands, and only what is unusual by a call.
        names, get = policy.claim_names, payload.get
        version = get("ver", VERSION)
        if check_version and (type(version) is not int or version != VERSION):
            raise _invalid("ver", f"is not {VERSION}")
        tenant = get(names.tenant)
        if not isinstance(tenant, str) or not tenant:
            tenant = _optional_text(payload, names.tenant)
            if policy.require_tenant:
                raise _missing(names.tenant)
        issuer = get("iss")
        if not isinstance(issuer, str) or not issuer:
            raise _no_text(payload, "iss")
        audience = get("aud")
        audiences = (audience,) if isinstance(audience, str) else _audiences(payload)
        subject = get("sub")
        if not isinstance(subject, str) or not subject:
            raise _no_text(payload, "sub")
        token_id = get("jti")
        if not isinstance(token_id, str) or not token_id:
            raise _no_text(payload, "jti")
        issued_at = get("iat")
        if type(issued_at) is not int or issued_at not in _WHOLE_TIMES:
            issued_at = _time(payload, "iat")
        expires_at = get("exp")
        if type(expires_at) is not int or expires_at not in _WHOLE_TIMES:
            expires_at = _time(payload, "exp")
        return _verified_claims(
            issuer,
            audiences,
            subject,
            token_id,
            issued_at,
            expires_at,
            _time(payload, "nbf") if "nbf" in payload else None,
            tenant,
            _origins(payload, names.origins, development=policy.development) if names.origins in payload else None,
            _grants(payload, names.grants) if names.grants in payload else (),
            _rls(payload, names.rls) if names.rls in payload else None,
            _optional_text(payload, names.region) if names.region in payload else None,
            key.kid,
            key.algorithm,
            token_type,
            _session_seconds(payload) if token_type == BOOTSTRAP else None,
            _time_of(payload[FIRST_ISSUED]) if FIRST_ISSUED in payload else None,
            key.mark,
        )
    except _ClaimError as bad:
        return Deny(bad.reason, bad.detail)


class _ClaimError(Exception):
    """A claim is missing or of the wrong shape; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _missing(name: str) -> _ClaimError:
    return _ClaimError(Reason.CLAIM_MISSING, f"the claim {name!r} is missing")


def _invalid(name: str, what: str) -> _ClaimError:
    return _ClaimError(Reason.CLAIM_INVALID, f"the claim {name!r} {what}")


def _no_text(payload: Mapping[str, object], name: str) -> _ClaimError:
    return _invalid(name, "is not a string, or is empty") if name in payload else _missing(name)


def _optional_text(payload: Mapping[str, object], name: str) -> str | None:
    if name not in payload:
        return None
    value = payload[name]
    # An explicit null is a mistake of the host, not another way to leave the claim out.
    if not isinstance(value, str) or not value:
        raise _no_text(payload, name)
    return value


def _time(payload: Mapping[str, object], name: str) -> float:
    if name not in payload:
        raise _missing(name)
    read = _time_of(payload[name])
    if read is None:
        raise _invalid(name, "is not a number of seconds since the epoch")
    return read


def _time_of(value: object) -> float | None:
    # A boolean is an int in Python. Strict JSON has no NaN and no Infinity, but claims may be read from elsewhere.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MAX_TIME <= value <= _MAX_TIME:
        return None
    return value


def _audiences(payload: Mapping[str, object]) -> tuple[str, ...]:
    """The audiences of a token whose ``aud`` is not one string."""
    if "aud" not in payload:
        raise _missing("aud")
    value = payload["aud"]
    if not isinstance(value, list) or not all(isinstance(audience, str) for audience in value):
        raise _invalid("aud", "is not a string or a list of strings")
    return tuple(value)


def _origins(payload: Mapping[str, object], name: str, *, development: bool) -> OriginAllowlist:
    value = payload[name]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _invalid(name, "is not a list of origins")
    try:
        return OriginAllowlist.parse(value, development=development)
    except ConfigError:
        # The problems quote the entries, and a refusal never quotes a claim's values.
        raise _invalid(name, "has an entry that is not an allowed origin") from None


def _grants(payload: Mapping[str, object], name: str) -> tuple[Grant, ...]:
    value = payload[name]
    if not isinstance(value, list):
        raise _invalid(name, "is not a list of grants")
    grants = read_grants(value)
    if grants is None:
        raise _invalid(name, "has a member that is not exactly type, id and actions")
    return grants


def _rls(payload: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = payload[name]
    # An empty list must not pass for "no restriction", so nothing but an object is read as one.
    if not isinstance(value, dict):
        raise _invalid(name, "is not an object")
    return MappingProxyType(
        {attribute: content if isinstance(content, str) else _frozen(content) for attribute, content in value.items()}
    )


def _session_seconds(payload: Mapping[str, object]) -> int:
    if "session_seconds" not in payload:
        raise _missing("session_seconds")
    value = payload["session_seconds"]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_TIME:
        raise _invalid("session_seconds", "is not a whole number of seconds above 0")
    return value


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
