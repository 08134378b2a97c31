"""The token: from bytes that anybody may have sent to claims that the signing key vouches for.

The order is fixed (DESIGN section 5): size and ASCII, three canonical segments, header, type, key, signature, and only
then the payload and its claims. Nothing inside the payload is read before its signature holds. What may change while
a token lives (time, issuer, audience) is in ``recheck`` alone, so that a cached token is judged by the same lines as a
fresh one.
"""

from __future__ import annotations

from typing import Final

from toucan_guard.core.claims import VerifiedClaims, read_claims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.jws import KeyFinder, check_signature, parse_compact
from toucan_guard.core.strict_json import strict_json
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, MAX_BOOTSTRAP_SECONDS, TokenPolicy


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
