"""FrameAncestors: says on every response who may frame it. Cannot refuse, cannot fail.

The rules are in ``core/csp.py``. A response of a verified embed is framable by the
configured origins, narrowed by tenant and token. A refusal is framable by exactly one
origin, the Referer's if it is listed: so the page is seen by the embedder who should
see it, and the header names no other customer. That the app has failed may be seen by
whoever may see the chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES
from toucan_guard.core.csp import NONE, FrameAncestors, outgoing_headers
from toucan_guard.core.decisions import Reason
from toucan_guard.core.origins import Origin, OriginAllowlist, referer_origin
from toucan_guard.headers import Header, HeaderList
from toucan_guard.trail import HeaderEdit, Trail, trail_of

_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 512


class _Narrowed(NamedTuple):
    """Our list, narrowed by the list of a token and its tenant."""

    by: OriginAllowlist
    result: FrameAncestors


class FrameAncestorsMiddleware:
    """Adds ``Content-Security-Policy: frame-ancestors`` to every response that leaves.

    Args:
        app: The next layer.
        frame_ancestors: Who may frame us, before tenant and token narrow it.
        allowlist: The origins among which a refusal looks for its one reader.
        framing: ``narrow`` lets the app's own policies count as well; ``sole`` removes them.
        report_only: Send the policy as ``Content-Security-Policy-Report-Only``.
        report_uri: Where browsers report violations to, or None.
        public_origins: Who we are ourselves, for ``'self'``.
        tenants_listed: The configured list names several customers, so that an exempt response may not show it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        frame_ancestors: FrameAncestors,
        allowlist: OriginAllowlist,
        framing: Literal["narrow", "sole"] = "narrow",
        report_only: bool = False,
        report_uri: str | None = None,
        public_origins: frozenset[Origin] = frozenset(),
        tenants_listed: bool = False,
    ) -> None:
        self.app = app
        self._frame_ancestors = frame_ancestors
        self._allowlist = allowlist
        self._framing: Literal["narrow", "sole"] = framing
        self.report_only = report_only
        self._report_uri = report_uri
        self._public_origins = public_origins
        self._tenants_listed = tenants_listed
        self._readers: dict[str, FrameAncestors] = {}
        self._policy = _Policy(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        trail.edits += (self._policy,)
        await self.app(scope, receive, trail.wrap(send))

    def add_policy(self, headers: HeaderList, trail: Trail) -> HeaderList:
        """The headers of a response with who may frame it."""
        return outgoing_headers(
            headers,
            self.who_may_frame(trail),
            framing=self._framing,
            report_only=self.report_only,
            report_uri=self._report_uri,
            self_origins=self._public_origins,
        )

    def who_may_frame(self, trail: Trail) -> FrameAncestors:
        """Who may frame the response of a connection, as far as that is known now."""
        refused = trail.refusal is not None and trail.refusal.reason != Reason.APP_FAILED
        if refused or (self._tenants_listed and trail.claims is None):
            return self._the_reader(trail)
        if trail.narrowing is None:
            return self._frame_ancestors
        if trail.claims is None:
            return self._frame_ancestors.narrowed(trail.narrowing)
        # Narrowed once for each token, and kept beside its claims; a nested guard may have narrowed further.
        kept = trail.claims.derived.get(self)
        if isinstance(kept, _Narrowed) and kept.by is trail.narrowing:
            return kept.result
        narrowed = self._frame_ancestors.narrowed(trail.narrowing, self_origins=self._public_origins)
        trail.claims.derived[self] = _Narrowed(trail.narrowing, narrowed)
        return narrowed

    def _the_reader(self, trail: Trail) -> FrameAncestors:
        referers = trail.values_of(b"referer")
        if len(referers) != 1:
            return NONE
        known = self._readers.get(referers[0])
        if known is not None:
            return known
        reader = referer_origin(referers[0])
        if reader is None or not self._allowlist.allows(reader):
            return NONE
        found = self._frame_ancestors.narrowed(OriginAllowlist.of(reader))
        # Only of listed origins: strangers would fill the room of our own.
        if len(referers[0]) <= _LONGEST_REMEMBERED:
            if len(self._readers) >= _REMEMBERED:
                self._readers.clear()
            self._readers[referers[0]] = found
        return found


class _Policy(HeaderEdit):
    """The policy on a connection's responses, which is not known before they leave."""

    names = "\ncontent-security-policy\nx-frame-options"

    def __init__(self, layer: FrameAncestorsMiddleware) -> None:
        self._layer = layer

    def additions(self, names: str, trail: Trail) -> Sequence[Header] | None:
        """See ``HeaderEdit``."""
        if self._layer.report_only or "content-security-policy" in names or "x-frame-options" in names:
            return None
        return self._layer.who_may_frame(trail).headers

    def __call__(self, headers: HeaderList, trail: Trail) -> HeaderList:
        """See ``HeaderEdit``."""
        return self._layer.add_policy(headers, trail)
