"""The whole guard, on one screen: which layers there are, in which order, and what each is given.

To see where a decision is made, open the layer's file under ``layers/`` and then the
pure core that it names in its first line.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard import layers
from toucan_guard.asgi import existing_trail
from toucan_guard.audit.metrics import Metrics
from toucan_guard.audit.open import open_sink
from toucan_guard.audit.sinks import Sink
from toucan_guard.core.origins import OriginPolicy
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.rls.context import current_row_access
from toucan_guard.settings import GuardSettings
from toucan_guard.settings_audit import settings_digest
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.sessions import EmbedSessions, shared_memory_store


class ToucanGuard:
    """Guards an app: origin, token, rows, audit.

    ``app.add_middleware(ToucanGuard, settings=GuardSettings())``, or ``app = ToucanGuard(app, settings=…)``, or around
    some routes: ``Mount("/embed", routes=[…], middleware=[Middleware(ToucanGuard, settings=settings)])``.

    Build the settings eagerly, as above: Starlette builds its middleware at the first request, and a
    mistake should show at start-up.

    Args:
        app: The app that renders.
        settings: The configuration; ``None`` reads ``TOUCAN_GUARD_…`` from the environment now.

    Raises:
        ConfigError: The configuration is wrong; every mistake at once.
    """

    def __init__(self, app: ASGIApp, *, settings: GuardSettings | None = None) -> None:
        settings = GuardSettings() if settings is None else settings
        reported = settings.report_only
        self._sink = None if settings.insecure_no_audit else self._open_sink(settings)

        origin_policy = OriginPolicy(
            allowlist=settings.allowlist,
            public_origins=settings.public_origins,
            insecure_allow_null=settings.insecure_null_origin,
            insecure_websocket_without_origin=settings.insecure_websocket_without_origin,
        )
        sessions = EmbedSessions(
            shared_memory_store(settings.issuer, settings.audience, settings.key_ring.generation, clock=time.time),
            lifetime_seconds=settings.token_lifetime_seconds,
            leeway_seconds=settings.leeway_seconds,
        )
        verifier = CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(settings.token_cache_size))

        # From the outside in: the first layer sees the request first and its answer last.
        order: list[tuple[Any, dict[str, Any]]] = [
            (
                layers.FrameAncestorsMiddleware,
                {
                    "frame_ancestors": settings.frame_ancestors_policy,
                    "allowlist": settings.allowlist,
                    "framing": settings.framing,
                    "report_only": "frame_ancestors" in reported,
                    "report_uri": settings.frame_report_uri,
                    "public_origins": settings.public_origins,
                    "tenants_listed": bool(settings.tenant_origins),
                },
            ),
            (
                layers.AuditLogMiddleware,
                {
                    "sink": self._sink,
                    "mode": settings.audit_mode,
                    "region": settings.region,
                    "trusted_proxies": settings.trusted_proxies,
                    "pseudonyms": settings.pseudonyms,
                    "metrics": Metrics() if settings.metrics else None,
                    "routes_of": app,
                },
            ),
            (
                layers.CorsMiddleware,
                {
                    "policy": origin_policy,
                    "allowlist": settings.allowlist,
                    "report_only": "origin" in reported,
                },
            ),
            (
                layers.ExemptMiddleware,
                {"bare": app, "paths": settings.exempt_paths, "prefixes": settings.exempt_prefixes},
            ),
            (
                layers.OriginMiddleware,
                {
                    "policy": origin_policy,
                    "trusted_proxies": settings.trusted_proxies,
                    "report_only": "origin" in reported,
                },
            ),
            (
                layers.EmbedTokenMiddleware,
                {
                    "verifier": verifier,
                    "carriers": settings.token_carriers,
                    "sessions": sessions,
                    "report_only_grants": "grant" in reported,
                },
            ),
            (
                layers.TenancyMiddleware,
                {
                    "policy": TenancyPolicy(
                        tenant_origins=settings.tenant_origins,
                        region=settings.region,
                        require_token_origins=settings.require_token_origins,
                    ),
                    "report_only_region": "region" in reported,
                    "report_only_origins": "origin" in reported,
                },
            ),
            (layers.RowLevelSecurityMiddleware, {"policy": settings.policy}),
            (layers.BootstrapExchangeMiddleware, {"sessions": sessions}),
        ]
        if not settings.cors:
            order = [entry for entry in order if entry[0] is not layers.CorsMiddleware]
        if settings.insecure_no_rls:
            order = [entry for entry in order if entry[0] is not layers.RowLevelSecurityMiddleware]

        for layer, options in reversed(order):
            app = layer(app, **options)
        self.app = app

    @staticmethod
    def _open_sink(settings: GuardSettings) -> Sink:
        return open_sink(
            settings.audit,
            mode=settings.audit_mode,
            queue_size=settings.audit_queue_size,
            chain_key=settings.chain_key,
            settings=settings_digest(settings),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                self.close()
            return
        # Servers reuse contexts from one request of a connection to the next: every connection begins with nobody's
        # rows. A guard inside another one continues what that one has found.
        if existing_trail(scope) is not None:
            return await self.app(scope, receive, send)
        previous = current_row_access.set(None)
        try:
            await self.app(scope, receive, send)
        finally:
            current_row_access.reset(previous)
            if (trail := existing_trail(scope)) is not None:
                trail.release()

    def close(self) -> None:
        """Give back what the guard holds open; called at the end of the app's lifespan."""
        if self._sink is not None:
            self._sink.close()
