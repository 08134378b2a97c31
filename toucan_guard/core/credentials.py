"""Which credential does this request present: exactly one, or a refusal.

Explicit credentials are put there by code: an Authorization or X-Embed-Token
header, a WebSocket subprotocol, a bootstrap token in the query. An embed session's
cookie is *ambient*: the browser adds it to whatever request it makes. So a cookie is
looked at only where no explicit credential is present, and only on requests that
our own pages, or a frame's navigation, can make (DESIGN section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.origins import is_frame_navigation
from toucan_guard.core.sealed import sealing

AUTHORIZATION: Final = "authorization"
X_EMBED_TOKEN: Final = "x-embed-token"  # noqa: S105 - the name of a header
WEBSOCKET: Final = "websocket"
SESSION: Final = "session"
CARRIERS: Final = (AUTHORIZATION, X_EMBED_TOKEN, WEBSOCKET, SESSION)

SUBPROTOCOL: Final = "embed"
SUBPROTOCOL_TOKEN: Final = "embed.token."  # noqa: S105 - a prefix
COOKIE_PREFIX: Final = "__Host-embed-"

_HANDLE_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_HANDLE_LENGTH: Final = 26


@dataclass(frozen=True, slots=True)
class TokenCredential:
    """An explicit token, and which carrier brought it."""

    token: str
    carrier: Literal["authorization", "x-embed-token", "websocket", "bootstrap"]

    def __repr__(self) -> str:
        return f"TokenCredential(carrier={self.carrier!r})"


_token_credential: Final = sealing(TokenCredential)


@dataclass(frozen=True, slots=True)
class SessionCredential:
    """An embed session's cookie: its public handle and its secret."""

    handle: str
    secret: str

    def __repr__(self) -> str:
        return f"SessionCredential(handle={self.handle!r})"


def explicit_credential(
    carriers: frozenset[str],
    *,
    authorization: Sequence[str] = (),
    x_embed_token: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    bootstrap_tokens: Sequence[str] = (),
) -> TokenCredential | Deny | None:
    """The explicit credential of a request.

    Args:
        carriers: The carriers that are switched on.
        authorization: Every Authorization value; only the scheme Bearer counts (RFC 6750 §2.1).
        x_embed_token: Every X-Embed-Token value.
        subprotocols: The subprotocols that a WebSocket client offers.
        bootstrap_tokens: Every ``embed_token`` of the query string.

    Returns:
        The credential, None where there is none, or a refusal where there are two. A carrier that is switched off
        still counts as a second one: whoever sends two may not choose which one is believed.
    """
    if len(authorization) == 1 and not (x_embed_token or subprotocols or bootstrap_tokens):
        # What nearly every request looks like; the rest of this function says the same of it.
        token = bearer_token(authorization[0])
        if token is None:
            return None
        return _token_credential(token, AUTHORIZATION) if AUTHORIZATION in carriers else switched_off(AUTHORIZATION)
    found: list[TokenCredential] = []
    for value in authorization:
        token = bearer_token(value)
        if token is not None:
            found.append(TokenCredential(token, "authorization"))
    found.extend(TokenCredential(value.strip(" "), "x-embed-token") for value in x_embed_token)
    found.extend(
        TokenCredential(offer.removeprefix(SUBPROTOCOL_TOKEN), "websocket")
        for offer in subprotocols
        if offer.startswith(SUBPROTOCOL_TOKEN)
    )
    found.extend(TokenCredential(value, "bootstrap") for value in bootstrap_tokens)
    if not found:
        return None
    if len(found) > 1 or len(authorization) > 1:
        return Deny(Reason.CREDENTIALS_REPEATED, f"{len(found)} credentials were sent; exactly one may be")
    carrier = SESSION if found[0].carrier == "bootstrap" else found[0].carrier
    if carrier not in carriers:
        return switched_off(carrier)
    return found[0]


def switched_off(carrier: str) -> Deny:
    """The refusal of a credential that stands where none is read."""
    return Deny(Reason.TOKEN_MISSING, f"the token carrier {carrier!r} is switched off in TOUCAN_GUARD_TOKEN_CARRIERS")


def bearer_token(authorization: str) -> str | None:
    """The token of an Authorization value, None for another scheme (RFC 6750 §2.1).

    Any white space ends the scheme: a token after a tab must not be overlooked, or the browser's cookie would
    stand in for it.
    """
    if authorization.startswith("Bearer "):
        return authorization[7:].strip()  # what the rest would find, without looking for white space in the token
    scheme, *rest = authorization.split(maxsplit=1) or [""]
    if scheme.lower() != "bearer":
        return None
    return rest[0].strip() if rest else ""


def session_cookies(cookie_headers: Sequence[str]) -> dict[str, str] | Deny:
    """Handle to secret, for every embed session cookie of a request.

    A handle that occurs twice is refused: one of the two was planted.
    """
    sessions: dict[str, str] = {}
    for header in cookie_headers:
        if COOKIE_PREFIX not in header:
            continue
        for pair in header.split(";"):
            name, _, value = pair.strip(" \t").partition("=")
            if not name.startswith(COOKIE_PREFIX):
                continue
            handle = name.removeprefix(COOKIE_PREFIX)
            if not is_handle(handle):
                continue
            if handle in sessions:
                return Deny(Reason.SESSION_AMBIGUOUS, "a cookie of an embed session is repeated")
            sessions[handle] = value
    return sessions


def without_session_cookies(header: str) -> str:
    """A Cookie header without the embed sessions: their secrets are no business of the app."""
    return "; ".join(
        pair
        for pair in (part.strip(" \t") for part in header.split(";"))
        if pair and not pair.startswith(COOKIE_PREFIX)
    )


def session_credential(
    sessions: dict[str, str], *, query_handles: Sequence[str], referer_handles: Sequence[str]
) -> SessionCredential | Deny | None:
    """Which of the browser's embed sessions this request belongs to.

    By the query's ``embed``, else by that of a same-origin Referer, else the only one there is. Two frames
    with two identities in one page must not mix, so several sessions without a handle are refused.
    """
    for handles in (query_handles, referer_handles):
        if len(handles) > 1:
            return Deny(Reason.SESSION_AMBIGUOUS, "the parameter 'embed' is repeated")
        if handles:
            if not is_handle(handles[0]) or handles[0] not in sessions:
                return Deny(Reason.SESSION_UNKNOWN, "the browser holds no embed session of this handle")
            return SessionCredential(handles[0], sessions[handles[0]])
    if not sessions:
        return None
    if len(sessions) > 1:
        return Deny(Reason.SESSION_AMBIGUOUS, "several embed sessions and no parameter 'embed' that says which")
    ((handle, secret),) = sessions.items()
    return SessionCredential(handle, secret)


def session_readable(
    *,
    websocket: bool,
    method: str,
    origin_is_self: bool,
    fetch_site: Sequence[str],
    fetch_dest: Sequence[str],
) -> Deny | None:
    """Whether the ambient cookie may be looked at; None where it may.

    Only on a request of our own pages (``Sec-Fetch-Site: same-origin``), on a frame's navigation that changes
    nothing (a listed site could otherwise post a form into another customer's frame), and on a WebSocket whose
    Origin is our own (Chromium sends no Sec-Fetch headers on those).
    """
    if websocket:
        if origin_is_self:
            return None
        return Deny(Reason.SESSION_NOT_SAME_ORIGIN, "a WebSocket may use an embed session from our own origin only")
    if list(fetch_site) == ["same-origin"] or (method in ("GET", "HEAD") and is_frame_navigation(fetch_dest)):
        return None
    return Deny(
        Reason.SESSION_NOT_SAME_ORIGIN, "an embed session is read on same-origin requests and frame navigations"
    )


def is_handle(text: str) -> bool:
    """Whether a text has the form of an embed session's handle: 26 characters of lower-case base32."""
    return len(text) == _HANDLE_LENGTH and _HANDLE_ALPHABET.issuperset(text)
