"""Origin: may this web site call us, or frame us? The rules are in ``core/origins.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Trail, deny, trail_of
from toucan_guard.core.credentials import SUBPROTOCOL_TOKEN, bearer_token
from toucan_guard.core.decisions import Allow, Deny
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy, parse_origin, referer_origin
from toucan_guard.proxies import own_origin


class OriginMiddleware:
    """Judges Origin, Fetch Metadata and Referer against the allowlist.

    Args:
        app: The next layer.
        policy: The allowlist, our own origins and the switches …
        allowlist: … or the origins alone: ``["https://portal.example"]``.
        trusted_proxies: Whose X-Forwarded-Proto and X-Forwarded-Host name our own origin.
        report_only: Record ``would_deny`` and let pass.

    Raises:
        ConfigError: Neither or both of ``policy`` and ``allowlist``, or an origin that is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: OriginPolicy | None = None,
        allowlist: OriginAllowlist | Iterable[str] | None = None,
        trusted_proxies: Sequence[IPv4Network | IPv6Network] = (),
        report_only: bool = False,
    ) -> None:
        self.app = app
        if (policy is None) == (allowlist is None):
            raise ConfigError("OriginMiddleware takes either a policy or an allowlist")
        if policy is None:
            listed = allowlist if isinstance(allowlist, OriginAllowlist) else OriginAllowlist.parse(allowlist or ())
            policy = OriginPolicy(allowlist=listed)
        self._policy = policy
        self._trusted_proxies = tuple(trusted_proxies)
        self._report_only = report_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        websocket = scope["type"] == "websocket"
        received = trail.headers_of(scope)
        decision = self._policy.decide(
            "GET" if websocket else scope["method"],
            received.get(b"origin", ()),
            websocket=websocket,
            fetch_site=received.get(b"sec-fetch-site", ()),
            fetch_mode=received.get(b"sec-fetch-mode", ()),
            fetch_dest=received.get(b"sec-fetch-dest", ()),
            referers=received.get(b"referer", ()),
            ambient_credential=_has_only_ambient_credential(scope, trail),
            self_origins=own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None,
        )
        trail.add("origin", decision, report_only=self._report_only)
        if isinstance(decision, Deny) and not self._report_only:
            return await deny(scope, receive, send, decision)
        _remember(trail, decision.facts if isinstance(decision, Allow) else {})
        await self.app(scope, receive, send)


def _remember(trail: Trail, facts: Mapping[str, str]) -> None:
    """Note whom the list let in, which the tenancy layer narrows. What an outer guard noted no longer holds."""
    ours = "self" in facts
    origin = facts.get("origin", facts.get("referer_origin"))
    trail.own_page = ours and origin is not None
    trail.caller = None if ours or origin is None else parse_origin(origin)
    trail.opaque_caller = not ours and origin is not None and trail.caller is None
    trail.embedder = referer_origin(facts["embedder"]) if "embedder" in facts else None


def _has_only_ambient_credential(scope: Scope, trail: Trail) -> bool:
    """Whether the browser alone may have put a credential here: a cookie or Basic, and no token."""
    headers = trail.headers_of(scope)
    authorization = headers.get(b"authorization", ())
    if not authorization and b"cookie" not in headers:
        return False
    if trail.bootstrap_tokens or b"x-embed-token" in headers:
        return False
    if any(offer.startswith(SUBPROTOCOL_TOKEN) for offer in scope.get("subprotocols") or ()):
        return False
    return all(bearer_token(value) is None for value in authorization)
