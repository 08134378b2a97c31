"""Whether a request may come from where it says it comes from.

The order follows what a browser cannot forge. ``Sec-Fetch-Site`` comes first,
since a page can neither set nor remove it; then ``Origin``; then ``Referer``,
which a page may suppress, so that its absence proves nothing. A header that is
repeated, empty or unknown counts as absent and is never a reason to allow,
except ``Origin`` itself, where anything but one well-formed value is a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from toucan_guard.core.allowlist import OriginAllowlist
from toucan_guard.core.decisions import Allow, Decision, Deny, Reason
from toucan_guard.core.origin_grammar import Origin, WildcardOrigin, parse_origin, parse_pattern, referer_origin

__all__ = [
    "Origin",
    "OriginAllowlist",
    "OriginPolicy",
    "WildcardOrigin",
    "is_frame_navigation",
    "parse_origin",
    "parse_pattern",
    "referer_origin",
]

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1; TRACE has no use here
_SITES: Final = frozenset({"same-origin", "same-site", "cross-site", "none"})
_MODES: Final = frozenset({"cors", "navigate", "no-cors", "same-origin", "websocket"})
_FRAME_DESTINATIONS: Final = frozenset({"embed", "frame", "iframe", "object"})
_DESTINATIONS: Final = _FRAME_DESTINATIONS | {
    "audio", "audioworklet", "document", "empty", "fencedframe", "font", "image", "json", "manifest", "paintworklet",
    "report", "script", "serviceworker", "sharedworker", "style", "text", "track", "video", "webidentity", "worker",
    "xslt",
}  # fmt: skip  # the Fetch standard's destinations; any other word counts as absent

_NULL: Final = "null"


def is_frame_navigation(fetch_dest: Sequence[str]) -> bool:
    """Whether the browser says that this response is to be shown inside another page.

    The mode is not asked for: browsers have changed theirs for ``<object>`` and ``<embed>``, and a frame that
    calls itself something else must not escape the check of its embedder.
    """
    return _known(fetch_dest, _FRAME_DESTINATIONS) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginPolicy:
    """Decides about the origin of requests (RFC 6454, Fetch Metadata).

    Attributes:
        allowlist: Who else may call and frame us.
        public_origins: Who we are ourselves. Empty: unknown, then nobody is "self" by Origin.
        insecure_allow_null: Let ``Origin: null`` pass where no cookie could be abused by it.
        insecure_websocket_without_origin: Let sockets of programs pass, which send no Origin.
        allow_top_level: Whether a chart may be opened as a page of its own.
    """

    allowlist: OriginAllowlist
    public_origins: frozenset[Origin] = frozenset()
    insecure_allow_null: bool = False
    insecure_websocket_without_origin: bool = False
    allow_top_level: bool = True

    def decide(
        self,
        method: str,
        origins: Sequence[str],
        *,
        websocket: bool = False,
        fetch_site: Sequence[str] = (),
        fetch_mode: Sequence[str] = (),
        fetch_dest: Sequence[str] = (),
        referers: Sequence[str] = (),
        ambient_credential: bool = False,
        self_origins: frozenset[Origin] | None = None,
    ) -> Decision:
        """Decide whether a request from these origins may proceed.

        Preflights are not decided here but by ``preflight``.

        Args:
            method: HTTP method, compared exactly: ``get`` is not GET and counts as unsafe.
            origins: Every ``Origin`` value received, 0..n.
            websocket: Whether this is a WebSocket handshake, which is judged as an unsafe method.
            fetch_site: Every ``Sec-Fetch-Site`` value; likewise ``fetch_mode`` and ``fetch_dest``.
            fetch_mode: Every ``Sec-Fetch-Mode`` value.
            fetch_dest: Every ``Sec-Fetch-Dest`` value.
            referers: Every ``Referer`` value.
            ambient_credential: A cookie or Basic Authorization came along, and no explicit token: a credential
                that the browser adds by itself, whoever asks.
            self_origins: Who we are for this request, where a named proxy has told; else ``public_origins``.

        Returns:
            Allow, with the facts "origin" (serialised), "referer_origin" (the listed one that stands in for it),
            "embedder" (the listed origin of a frame's Referer) and "self" ("true" for a request from our own pages),
            as far as they are known; or Deny.

        Never raises; malformed input is a Deny.
        """
        ours = self.public_origins if self_origins is None else self_origins
        site = _known(fetch_site, _SITES)
        received = _received_origin(origins)
        if isinstance(received, Deny):
            return received
        if websocket:
            return self._websocket(received, site, ours, ambient=ambient_credential)
        if method in _SAFE_METHODS:
            decision = self._safe(received, site, ours, ambient=ambient_credential)
        else:
            decision = self._unsafe(received, site, ours, referers, ambient=ambient_credential)
        if isinstance(decision, Deny):
            return decision
        dest = _known(fetch_dest, _DESTINATIONS)
        if dest in _FRAME_DESTINATIONS:
            return self._frame(decision, site, referers, ours)
        return self._page(decision, _known(fetch_mode, _MODES), dest)

    def preflight(self, origins: Sequence[str], *, self_origins: frozenset[Origin] | None = None) -> Decision:
        """Decide about a CORS preflight by its origin alone; methods and headers are judged by who answers it."""
        ours = self.public_origins if self_origins is None else self_origins
        received = _received_origin(origins)
        if isinstance(received, Deny):
            return received
        if received is None:
            return Deny(Reason.ORIGIN_MISSING, "a preflight carries exactly one Origin")
        # A preflight carries no credential at all, so `null` may be answered where it is switched on.
        return self._self_or_listed(received, ours, ambient=False)

    def _safe(
        self, origin: Origin | str | None, site: str | None, ours: frozenset[Origin], *, ambient: bool
    ) -> Decision:
        if origin is None:
            # Browsers send no Origin with a same-origin GET, nor with a navigation: absence is the normal case.
            return _allow(None, same_origin=site == "same-origin")
        return self._self_or_listed(origin, ours, ambient=ambient)

    def _unsafe(
        self,
        origin: Origin | str | None,
        site: str | None,
        ours: frozenset[Origin],
        referers: Sequence[str],
        *,
        ambient: bool,
    ) -> Decision:
        if site == "same-origin":
            # A form under no-referrer sends `Origin: null` to its own site, so only another tuple is a conflict.
            if isinstance(origin, Origin) and ours and origin not in ours:
                return _conflict(origin)
            return _allow(origin, same_origin=True)
        if site == "none":
            # Typed, bookmarked, or dropped onto the browser: nobody asks, so nobody may be named but ourselves.
            if origin is None:
                return _allow(None)
            return self._not_from_another(origin, ours)
        if site is not None:
            return self._must_be_listed(origin, ours, ambient=ambient)
        if origin is not None:
            return self._self_or_listed(origin, ours, ambient=ambient)
        if referers:
            return self._by_referer(referers, ours)
        if ambient:
            return Deny(Reason.ORIGIN_MISSING, "a cookie came along, but nothing that says which page sent the request")
        return _allow(None)  # no browser and no ambient credential: whoever holds the token decides

    def _websocket(
        self, origin: Origin | str | None, site: str | None, ours: frozenset[Origin], *, ambient: bool
    ) -> Decision:
        if origin is None:
            if self.insecure_websocket_without_origin and not ambient:
                return _allow(None)
            return Deny(Reason.ORIGIN_MISSING, "every browser sends an Origin with a WebSocket handshake")
        # Sec-Fetch-Site may only take away here: "same-origin" never stands in for an Origin that is not ours.
        if site in ("same-site", "cross-site"):
            decision = self._must_be_listed(origin, ours, ambient=ambient)
        elif site is not None and isinstance(origin, Origin) and ours:
            decision = self._not_from_another(origin, ours)
        else:
            decision = self._self_or_listed(origin, ours, ambient=ambient)
        if isinstance(decision, Allow) and ambient and origin not in ours:
            return _deny(
                Reason.ORIGIN_NOT_ALLOWED,
                origin,
                "without a token of its own, a socket may come from our own pages only",
            )
        return decision

    def _self_or_listed(self, origin: Origin | str, ours: frozenset[Origin], *, ambient: bool) -> Decision:
        if not isinstance(origin, Origin):
            return self._null(ambient=ambient)
        if origin in ours:
            return _allow(origin, same_origin=True)
        if self.allowlist.allows(origin):
            return _allow(origin)
        return _deny(Reason.ORIGIN_NOT_ALLOWED, origin, "the origin is not on the list")

    def _must_be_listed(self, origin: Origin | str | None, ours: frozenset[Origin], *, ambient: bool) -> Decision:
        if origin is None:
            return Deny(Reason.ORIGIN_MISSING, "the request comes from another origin and does not say which")
        if not isinstance(origin, Origin):
            return self._null(ambient=ambient)
        if self.allowlist.allows(origin):
            return _allow(origin)
        if origin in ours:
            return _conflict(origin)
        return _deny(Reason.ORIGIN_NOT_ALLOWED, origin, "the origin is not on the list")

    def _not_from_another(self, origin: Origin | str, ours: frozenset[Origin]) -> Decision:
        if not isinstance(origin, Origin):
            return Deny(Reason.ORIGIN_NULL, "a request that no page has sent names no opaque origin")
        if origin in ours:
            return _allow(origin, same_origin=True)
        if self.allowlist.allows(origin):
            return _conflict(origin)
        return _deny(Reason.ORIGIN_NOT_ALLOWED, origin, "the origin is not on the list")

    def _null(self, *, ambient: bool) -> Decision:
        if self.insecure_allow_null and not ambient:
            return Allow({"origin": _NULL})
        return Deny(Reason.ORIGIN_NULL, "null names nobody: sandboxed frames, local files and attackers all send it")

    def _by_referer(self, referers: Sequence[str], ours: frozenset[Origin]) -> Decision:
        if len(referers) > 1:
            return Deny(Reason.ORIGIN_REPEATED, "there is more than one Referer")
        origin = referer_origin(referers[0])
        if origin is None:
            return Deny(Reason.ORIGIN_MALFORMED, "the Referer is not a URL that a browser sends")
        if origin in ours:
            return _allow(None)
        if self.allowlist.allows(origin):
            return Allow({"referer_origin": str(origin)})
        return Deny(
            Reason.ORIGIN_NOT_ALLOWED, "the Referer's origin is not on the list", facts={"referer_origin": str(origin)}
        )

    def _page(self, allowed: Allow, mode: str | None, dest: str | None) -> Decision:
        """Judge where a response outside any frame will be shown, once the request itself is in order."""
        if mode != "navigate" or dest is None or (dest == "document" and self.allow_top_level):
            return allowed
        detail = "top-level pages are switched off" if dest == "document" else "no navigation has this destination"
        return Deny(Reason.DESTINATION_NOT_ALLOWED, detail, facts=allowed.facts)

    def _frame(self, allowed: Allow, site: str | None, referers: Sequence[str], ours: frozenset[Origin]) -> Decision:
        """Judge the page around a frame by its Referer, which may be missing but must not be foreign."""
        if not referers:
            return allowed  # a referrer policy hides honest embedders too; frame-ancestors judges the hidden ones
        embedder = referer_origin(referers[0]) if len(referers) == 1 else None
        if embedder is not None and self.allowlist.allows(embedder):
            return Allow({**allowed.facts, "embedder": str(embedder)})
        if embedder in ours or (site == "same-origin" and not ours):
            # Where our own origin is not configured, the browser's word is the only one that names it.
            return allowed
        facts = {**allowed.facts, **({} if embedder is None else {"referer_origin": str(embedder)})}
        return Deny(Reason.EMBEDDER_NOT_ALLOWED, "the page around the frame is not on the list", facts=facts)


def _received_origin(origins: Sequence[str]) -> Origin | str | Deny | None:
    """The one Origin of a request, "null", None for absent; or the refusal of several, or of a malformed one."""
    if not origins:
        return None
    if len(origins) > 1:
        return Deny(Reason.ORIGIN_REPEATED, "there is more than one Origin, and readers disagree which one counts")
    if origins[0] == _NULL:
        return _NULL
    return parse_origin(origins[0]) or Deny(Reason.ORIGIN_MALFORMED, "no browser writes an Origin like this")


def _known(values: Sequence[str], vocabulary: frozenset[str]) -> str | None:
    """The value of a Fetch Metadata header; repeated, empty or unknown counts as absent."""
    return values[0] if len(values) == 1 and values[0] in vocabulary else None


def _allow(origin: Origin | str | None, *, same_origin: bool = False) -> Allow:
    facts = {} if origin is None else {"origin": str(origin)}
    if same_origin:
        facts["self"] = "true"
    return Allow(facts)


def _deny(reason: Reason, origin: Origin | str, detail: str) -> Deny:
    return Deny(reason, detail, facts={"origin": str(origin)})


def _conflict(origin: Origin) -> Deny:
    return _deny(Reason.FETCH_SITE_CONFLICT, origin, "Sec-Fetch-Site and Origin contradict each other")
