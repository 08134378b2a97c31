"""Claims: what a signed payload says, given its types once, and frozen to the depth.

Whether the signature holds, and whether these claims are accepted now, is ``core/token.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant, read_grants
from toucan_guard.core.jws import VerifyingKey
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.sealed import sealing
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, FIRST_ISSUED, FOREIGN, VERSION, TokenPolicy

# Beyond these a float no longer holds every second, and arithmetic with a huge integer raises instead of comparing.
_MAX_TIME: Final = 2**53
_WHOLE_TIMES: Final = range(-_MAX_TIME, _MAX_TIME + 1)


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
        reading: How the payload was read: see ``TokenPolicy.reads_alike``.
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
    reading: str = field(default="", repr=False)
    derived: dict[object, object] = field(default_factory=dict, init=False, repr=False, compare=False)


_verified_claims: Final = sealing(VerifiedClaims)


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
            policy.reading if check_version else policy.reading + FOREIGN,
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
