"""The whole guard, on one screen: which layers there are, in which order, and what each is given.

To see where a decision is made, open the layer's file under ``layers/`` and then the
pure core that it names in its first line.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard import layers
from toucan_guard.audit.sinks import Sink
from toucan_guard.core.credentials import SESSION
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.core.exempt_paths import exempt_paths
from toucan_guard.core.origins import OriginPolicy
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.recording import audit_options
from toucan_guard.required_tables import check_required_tables
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.jwks import Fetch
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.sessions import EmbedSessions
from toucan_guard.verification_keys import verification_keys

_log: Final = logging.getLogger("toucan_guard")
_CLOSING_SECONDS: Final = 1.0


class ToucanGuard:
    """Guards an app: origin, token, rows, audit.

    ``app.add_middleware(ToucanGuard, settings=GuardSettings())``, or ``app = ToucanGuard(app, settings=…)``, or around
    some routes: ``Mount("/embed", routes=[…], middleware=[Middleware(ToucanGuard, settings=settings)])``.

    Build the settings eagerly, as above: Starlette builds its middleware at the first request, and a
    mistake should show at start-up. A guard serves one event loop at a time: several that run in threads beside each
    other have one each.

    Args:
        app: The app that renders.
        settings: The configuration; ``None`` reads ``TOUCAN_GUARD_…`` from the environment now.
        fetch_keys: The host's own way to fetch ``JWKS_URL``, through a proxy for example: URL in, bytes out.

    Raises:
        ConfigError: The configuration is wrong; every mistake at once.
    """

    def __init__(self, app: ASGIApp, *, settings: GuardSettings | None = None, fetch_keys: Fetch | None = None) -> None:
        settings = GuardSettings() if settings is None else settings
        if not isinstance(settings, GuardSettings):
            raise ConfigError("settings takes a GuardSettings, such as GuardSettings()")
        reported = settings.report_only
        audit = audit_options(settings)
        self._sink: Sink | None = audit["sink"]

        origin_policy = OriginPolicy(
            allowlist=settings.allowlist,
            public_origins=settings.public_origins,
            insecure_allow_null=settings.insecure_null_origin,
            insecure_websocket_without_origin=settings.insecure_websocket_without_origin,
        )
        self._store = settings.store
        sessions = EmbedSessions(
            self._store,
            lifetime_seconds=settings.token_lifetime_seconds,
            leeway_seconds=settings.leeway_seconds,
        )
        self._keys = verification_keys(settings, fetch_keys=fetch_keys)
        verifier = CachedVerifier(settings.token_policy, self._keys, TokenCache(settings.token_cache_size))

        revocations = None
        if settings.revocable:
            revocations = Revocations(
                self._store, issuer=settings.issuer, staleness_seconds=settings.revocation_staleness_seconds
            )

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
                {**audit, "routes_of": app},
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
                    "revocations": revocations,
                    "insecure_store_fail_open": settings.insecure_store_fail_open,
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
            (layers.ArrivalMiddleware, {}),
        ]
        # What has nothing to do stands in nobody's way.
        idle = {
            layers.CorsMiddleware: not settings.cors,
            layers.ExemptMiddleware: not (settings.exempt_paths or settings.exempt_prefixes),
            layers.RowLevelSecurityMiddleware: settings.insecure_no_rls,
            layers.BootstrapExchangeMiddleware: SESSION not in settings.token_carriers,
        }
        order = [entry for entry in order if not idle.get(entry[0], False)]

        guarded = app
        for layer, options in reversed(order):
            guarded = layer(guarded, **options)
            if isinstance(guarded, layers.AuditLogMiddleware):
                recorder = guarded.recorder

        # What all of them have let in lets in the same again, and the next token of its kind, while nothing changes.
        self.app = layers.AdmissionMiddleware(
            guarded,
            bare=app,
            recorder=recorder,
            verifier=verifier,
            is_exempt=exempt_paths(settings.exempt_paths, settings.exempt_prefixes),
            policy=None if settings.insecure_no_rls else settings.policy,
            tenants_listed=bool(settings.tenant_origins),
            remembers=settings.token_cache_size > 0,
            revocations=revocations,
            insecure_store_fail_open=settings.insecure_store_fail_open,
            trusted_proxies=settings.trusted_proxies,
        )
        self._enter: Final = self.app.__call__  # calling the object itself takes twice as long

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await self._enter(scope, receive, send)
        try:
            check_required_tables(self.app, scope.get("app"))
        except ConfigError as error:
            # Servers take it for an app that knows no lifespan, and go on, where nothing is said.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await self.start()
        try:
            await self.app(scope, receive, send)
        finally:
            await self.aclose()

    def close(self) -> None:
        """Close the record."""
        if self._sink is not None:
            self._sink.close()

    async def aclose(self) -> None:
        """Give back what the guard holds open; called at the end of the app's lifespan."""
        self.close()
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await self._store.aclose()

    async def start(self) -> None:
        """Look at the endpoints and the store, and have keys before the first request.

        For a guard that hears no lifespan.

        Raises:
            ConfigError: An endpoint requires a row filter on a table that the policy does not name.
        """
        check_required_tables(self.app)
        await self._look_at_the_store()
        await self._keys.start()

    async def _look_at_the_store(self) -> None:
        """Say at start-up what the store would forget. One that does not answer yet stops nothing: requests get 503."""
        try:
            for warning in await self._store.warnings():
                _log.warning("toucan_guard store: %s", warning)
        except StoreUnavailable as error:
            _log.warning("toucan_guard store: %s; whatever needs it is refused until it answers", error)
