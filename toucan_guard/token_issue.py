"""Making the tokens of the token service: a request that was judged becomes a token that the guard accepts.

Each is verified before it is handed out, as the guard will verify it: what would be refused fails here, at the host.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import MintError
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import FIRST_ISSUED, MAX_BOOTSTRAP_SECONDS
from toucan_guard.core.token_request import MintingRules, TokenRequest
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens import TokenMinter
from toucan_guard.tokens.api_key_book import ApiKeyEntry
from toucan_guard.tokens.api_keys import STATES, ApiKeys
from toucan_guard.tokens.keys import KeyRing

_EXPIRED: Final = Deny(Reason.API_KEY_INVALID, "the API key is not valid", facts={"cause": "the API key has expired"})


@dataclass(frozen=True, slots=True)
class Issued:
    """What is handed out.

    Attributes:
        token: The embed token.
        claims: What it says.
        expires_in: Seconds until it ends.
        bootstrap: The token for a frame's URL, where one was asked for.
        bootstrap_expires_in: Seconds until that one ends.
        session_seconds: How long the session lasts that it opens.
    """

    token: str = field(repr=False)
    claims: VerifiedClaims
    expires_in: int
    bootstrap: str | None = field(default=None, repr=False)
    bootstrap_expires_in: int | None = None
    session_seconds: int | None = None


class TokenIssuer:
    """Makes and renews tokens for API keys.

    Args:
        settings: The deployment's configuration.
        keys: Its API keys.
    """

    def __init__(self, settings: GuardSettings, keys: ApiKeys) -> None:
        self.keys: Final = keys
        self._settings: Final = settings
        self._tenancy: Final = TenancyPolicy(
            tenant_origins=settings.tenant_origins,
            region=settings.region,
            require_token_origins=settings.require_token_origins,
        )

    def rules(self, entry: ApiKeyEntry) -> MintingRules:
        """What a request of this key is judged by."""
        settings = self._settings
        return MintingRules(
            limits=entry.mintable,
            roles=entry.roles,
            policy=settings.policy,
            allowlist=settings.allowlist,
            lifetime_seconds=settings.token_lifetime_seconds,
            require_tenant=settings.require_tenant,
            frames="session" in settings.token_carriers,
            development=settings.environment == "development",
        )

    def issue(self, entry: ApiKeyEntry, asked: TokenRequest, *, now: float) -> Issued | Deny:
        """Make what was asked for. The tokens of one request share their id, so that revoking it ends them all.

        Never raises for anything that can be asked for.
        """
        lifetime = _within_key(asked.lifetime_seconds, entry, now)
        if lifetime < 1:
            return _EXPIRED
        minter = self._minter(entry, now)
        token_id = secrets.token_urlsafe(16)
        common: dict[str, Any] = {
            "subject": asked.subject,
            "tenant": asked.tenant,
            "grants": asked.grants,
            "rls": asked.rls,
            "origins": asked.origins,
            "token_id": token_id,
        }
        bootstrap, bootstrap_lifetime, session = None, None, None
        try:
            token = minter.mint(**common, lifetime_seconds=lifetime, extra_claims={FIRST_ISSUED: int(now)})
            if asked.session_seconds is not None:
                bootstrap_lifetime = min(MAX_BOOTSTRAP_SECONDS, lifetime)
                session = _within_key(asked.session_seconds, entry, now)
                bootstrap = minter.mint_bootstrap(
                    **common, session_seconds=session, lifetime_seconds=bootstrap_lifetime
                )
        except MintError as error:
            return _unmintable(error)
        claims = self._verified(token, entry, now)
        if isinstance(claims, Deny):
            return claims
        return Issued(token, claims, lifetime, bootstrap, bootstrap_lifetime, session)

    def renew(self, claims: VerifiedClaims, *, now: float) -> Issued | Deny:
        """The same token with a later end: never wider, and never past the total age of the deployment.

        Args:
            claims: What the guard verified.
            now: Seconds since the epoch.
        """
        entry = self.keys.entry(claims.key_id)
        first = claims.first_issued_at
        if entry is None or first is None:
            return _not_renewed("only a token of the token service can be renewed")
        if not claims.expires_at > now - self._settings.leeway_seconds:
            return _not_renewed("the token has expired since it was verified")
        state = entry.state_at(now)
        if state != "valid":
            return _not_renewed("the API key that made the token does not work any more", STATES[state])
        if any(entry.mintable.problems(claims)):
            return _not_renewed("the API key may not make such a token any more")
        # Times are whole seconds: a token never lives longer than the one that it replaces.
        left = int(first) + self._settings.token_refresh_seconds - now
        lifetime = _within_key(
            int(min(claims.expires_at - claims.issued_at, self.rules(entry).longest, left)), entry, now
        )
        if lifetime < 1:
            return _not_renewed("the token was renewed for as long as this deployment allows")
        try:
            token = self._minter(entry, now).mint(
                subject=claims.subject,
                tenant=claims.tenant,
                grants=claims.grants,
                rls=claims.rls,
                origins=None if claims.origins is None else claims.origins.entries,
                region=claims.region,
                lifetime_seconds=lifetime,
                token_id=claims.token_id,
                extra_claims={FIRST_ISSUED: int(first)},
            )
        except MintError as error:
            return _unmintable(error)
        renewed = self._verified(token, entry, now)
        return renewed if isinstance(renewed, Deny) else Issued(token, renewed, lifetime)

    def _minter(self, entry: ApiKeyEntry, now: float) -> TokenMinter:
        settings = self._settings
        return TokenMinter(
            self.keys.signing_key(entry.key_id),
            issuer=settings.issuer,
            audience=settings.audience[0] if len(settings.audience) == 1 else settings.audience,
            policy=settings.policy,
            region=settings.region,
            claim_names=settings.token_policy.claim_names,
            development=settings.environment == "development",
            clock=lambda: now,
        )

    def _verified(self, token: str, entry: ApiKeyEntry, now: float) -> VerifiedClaims | Deny:
        """What the guard will make of the token."""
        settings = self._settings
        ring = KeyRing([self.keys.signing_key(entry.key_id).verification_key()])
        claims = verify(token, policy=settings.token_policy, keys=ring, now=now)
        if isinstance(claims, Deny):
            return _refused_by_the_guard(claims)
        checks = [self._tenancy.decide_region(claims), self._tenancy.decide_origins(claims, ())]
        narrowing = self._tenancy.narrowing(claims)
        named = claims.origins is None or len(claims.origins) > 0  # a token for nowhere is asked for as such
        if named and narrowing is not None and len(narrowing) == 0:
            checks.append(Deny(Reason.TENANT_ORIGIN_NOT_ALLOWED, "none of its origins is on its tenant's list"))
        if settings.policy is not None:
            found = settings.policy.row_filter(claims.rls)
            checks += [found] if isinstance(found, Deny) else []
        return next((_refused_by_the_guard(check) for check in checks if isinstance(check, Deny)), claims)


def _within_key(seconds: int, entry: ApiKeyEntry, now: float) -> int:
    """No token outlives its key."""
    return seconds if entry.not_after is None else min(seconds, int(entry.not_after - now))


def _not_renewed(detail: str, cause: str | None = None) -> Deny:
    return Deny(Reason.REFRESH_NOT_ALLOWED, detail, facts={} if cause is None else {"cause": cause})


def _refused_by_the_guard(refusal: Deny) -> Deny:
    return Deny(
        Reason.TOKEN_REQUEST_INVALID,
        f"the guard would refuse this token: {refusal.reason}",
        errors=(("", f"the guard would refuse this token: {refusal.detail}"),),
    )


def _unmintable(error: MintError) -> Deny:
    return Deny(
        Reason.TOKEN_REQUEST_INVALID, "the token cannot be made", errors=tuple(("", told) for told in error.problems)
    )
