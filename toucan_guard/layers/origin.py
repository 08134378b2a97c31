"""Origin: may this web site call us, or frame us? The rules are in ``core/origins.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Trail, deny, trail_of
from toucan_guard.core.credentials import SUBPROTOCOL_TOKEN, bearer_token
from toucan_guard.core.decisions import Allow, Decision, Deny
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import Origin, OriginAllowlist, OriginPolicy, parse_origin, referer_origin
from toucan_guard.proxies import own_origin

_REMEMBERED: Final = 1024
_LONGEST_REFERER: Final = 512


class _Judged(NamedTuple):
    """A decision, and whom it let in (see ``Trail``)."""

    decision: Decision
    own_page: bool
    caller: Origin | None
    opaque_caller: bool
    embedder: Origin | None

    @classmethod
    def of(cls, decision: Decision) -> _Judged:
        facts = decision.facts if isinstance(decision, Allow) else {}
        ours = "self" in facts
        origin = facts.get("origin", facts.get("referer_origin"))
        caller = None if ours or origin is None else parse_origin(origin)
        return cls(
            decision,
            own_page=ours and origin is not None,
            caller=caller,
            opaque_caller=not ours and origin is not None and caller is None,
            embedder=referer_origin(facts["embedder"]) if "embedder" in facts else None,
        )


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        judged = self._judge(scope, trail)
        decision = judged.decision
        trail.add("origin", decision, report_only=self._report_only)
        if isinstance(decision, Deny) and not self._report_only:
            return await deny(scope, receive, send, decision)
        # Whom the list let in, which the tenancy layer narrows. What an outer guard noted no longer holds.
        trail.own_page, trail.caller = judged.own_page, judged.caller
        trail.opaque_caller, trail.embedder = judged.opaque_caller, judged.embedder
        await self.app(scope, receive, send)

    def _judge(self, scope: Scope, trail: Trail) -> _Judged:
        """The decision about what these headers say, which is the same whenever they say the same."""
        received = trail.headers_of(scope)
        websocket = scope["type"] == "websocket"
        said = (
            "GET" if websocket else scope["method"],
            received.get(b"origin", ()),
            websocket,
            received.get(b"sec-fetch-site", ()),
            received.get(b"sec-fetch-mode", ()),
            received.get(b"sec-fetch-dest", ()),
            received.get(b"referer", ()),
            _has_only_ambient_credential(scope, trail),
        )
        judged = self._judged.get(said)
        if judged is not None:
            return judged
        method, origins, _, fetch_site, fetch_mode, fetch_dest, referers, ambient = said
        forwarded = own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None
        judged = _Judged.of(
            self._policy.decide(
                method,
                origins,
                websocket=websocket,
                fetch_site=fetch_site,
                fetch_mode=fetch_mode,
                fetch_dest=fetch_dest,
                referers=referers,
                ambient_credential=ambient,
                self_origins=forwarded,
            )
        )
        # What a proxy says is another input. Refusals are not kept: strangers would fill the room of our own callers.
        if forwarded is None and isinstance(judged.decision, Allow) and sum(map(len, referers)) <= _LONGEST_REFERER:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[said] = judged
        return judged


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
