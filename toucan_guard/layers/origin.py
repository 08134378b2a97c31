"""Origin: may this web site call us, or frame us? The rules are in ``core/origins.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.core.credentials import SUBPROTOCOL_TOKEN, bearer_token
from toucan_guard.core.decisions import Allow, Decision, Deny
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy, parse_origin, referer_origin
from toucan_guard.proxies import own_origin
from toucan_guard.trail import Step, Trail, header_values, trail_of

_LAYER: Final = "origin"
_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 1024


class _Judged:
    """A decision, its step, and whom it let in (see ``Trail``). One for all requests that say the same."""

    __slots__ = ("caller", "decision", "embedder", "opaque_caller", "own_page", "step")

    def __init__(self, decision: Decision, *, report_only: bool) -> None:
        facts = decision.facts if isinstance(decision, Allow) else {}
        ours = "self" in facts
        origin = facts.get("origin", facts.get("referer_origin"))
        caller = None if ours or origin is None else parse_origin(origin)
        self.decision = decision
        self.step = Step(_LAYER, decision, not report_only)
        self.own_page = ours and origin is not None
        self.caller = caller
        self.opaque_caller = not ours and origin is not None and caller is None
        self.embedder = referer_origin(facts["embedder"]) if "embedder" in facts else None


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
        self._judged: dict[object, _Judged] = {}
        self._turned_away: dict[object, _Judged] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        judged = self._judge(scope, trail)
        trail.steps += (judged.step,)
        if isinstance(judged.decision, Deny) and not self._report_only:
            return await deny(scope, receive, send, judged.decision)
        # Whom the list let in, which the tenancy layer narrows. What an outer guard noted no longer holds.
        trail.own_page, trail.caller = judged.own_page, judged.caller
        trail.opaque_caller, trail.embedder = judged.opaque_caller, judged.embedder
        await self.app(scope, receive, send)

    def _judge(self, scope: Scope, trail: Trail) -> _Judged:
        """The decision about what these headers say, which is the same whenever they say the same."""
        trail.read(scope)
        websocket = scope["type"] == "websocket"
        method = "GET" if websocket else scope["method"]
        ambient = _has_only_ambient_credential(scope, trail)
        forwarded = own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None
        said = (trail.said, method, websocket, ambient, forwarded)
        judged = self._judged.get(said) or self._turned_away.get(said)
        if judged is not None:
            return judged
        values_of = trail.values_of
        judged = _Judged(
            self._policy.decide(
                method,
                values_of(b"origin"),
                websocket=websocket,
                fetch_site=values_of(b"sec-fetch-site"),
                fetch_mode=values_of(b"sec-fetch-mode"),
                fetch_dest=values_of(b"sec-fetch-dest"),
                referers=values_of(b"referer"),
                ambient_credential=ambient,
                self_origins=forwarded,
            ),
            report_only=self._report_only,
        )
        # Strangers do not fill the room of our own callers. What a repeated header says is not kept.
        if trail.said is not None and len(method) + sum(map(len, filter(None, trail.said))) <= _LONGEST_REMEMBERED:
            kept = self._judged if isinstance(judged.decision, Allow) else self._turned_away
            if len(kept) >= _REMEMBERED:
                kept.clear()
            kept[said] = judged
        return judged


def _has_only_ambient_credential(scope: Scope, trail: Trail) -> bool:
    """Whether the browser alone may have put a credential here: a cookie or Basic, and no token."""
    raw = trail.raw
    if b"authorization" not in raw and b"cookie" not in raw:
        return False
    if trail.said is not None and raw.get(b"authorization", b"").startswith(b"Bearer "):
        return False
    if trail.bootstrap_tokens or b"x-embed-token" in raw:
        return False
    if any(offer.startswith(SUBPROTOCOL_TOKEN) for offer in scope.get("subprotocols") or ()):
        return False
    return all(bearer_token(value) is None for value in header_values(scope, b"authorization"))
