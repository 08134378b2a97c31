"""Each reason in words, for people who run a guard: what happened, and the mend.

What a refused client reads is in ``core/decisions.py``; these are the words of the README's table and of the
audit report, which a test holds to each other. Backticks mark names that are typed as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from toucan_guard.core.decisions import Reason


class Told(NamedTuple):
    """A reason in words.

    Attributes:
        meaning: What happened.
        mend: What to do about it.
    """

    meaning: str
    mend: str


REASON_TABLE: Final[Mapping[Reason, Told]] = MappingProxyType(
    {
        Reason.ORIGIN_REPEATED: Told(
            "the request names its web site twice (two Origin headers)", "a proxy adds one; let it pass the browser's"
        ),
        Reason.ORIGIN_MALFORMED: Told(
            "the web site's name is written as no browser writes it (Origin)",
            "a program, not a browser: look at the client",
        ),
        Reason.ORIGIN_NULL: Told(
            "the page has no address of its own (`Origin: null`): a sandboxed frame, a local file",
            "give the frame `allow-same-origin`, serve the page over http(s)",
        ),
        Reason.ORIGIN_NOT_ALLOWED: Told(
            "the web site that asked is not on the list",
            "add it to `ALLOWED_ORIGINS`, if it is yours; if it is the charts' own, set `PUBLIC_ORIGIN`",
        ),
        Reason.ORIGIN_MISSING: Told(
            "a changing request, or a WebSocket, that does not say which web site it comes from",
            "send a bearer token instead of a cookie; a program's WebSocket needs an Origin, "
            "or `INSECURE_WEBSOCKET_WITHOUT_ORIGIN`",
        ),
        Reason.FETCH_SITE_CONFLICT: Told(
            "two headers of one request disagree on where it comes from (Origin, Sec-Fetch-Site)",
            "set `PUBLIC_ORIGIN` to what browsers see",
        ),
        Reason.EMBEDDER_NOT_ALLOWED: Told(
            "the web site around the frame is not on the list", "add it to `ALLOWED_ORIGINS`, if it is yours"
        ),
        Reason.EMBEDDER_UNKNOWN: Told(
            "the page around the frame hides its address (a bootstrap token without a listed Referer)",
            '`referrerpolicy="strict-origin"` on the iframe',
        ),
        Reason.DESTINATION_NOT_ALLOWED: Told(
            "opened as something that is neither page nor frame", "embed with an iframe"
        ),
        Reason.PREFLIGHT_NOT_ALLOWED: Told(
            "another site asked for a method, or a private network, that is not allowed", "use a standard method"
        ),
        Reason.TOKEN_MISSING: Told(
            "no token was sent, or in a way that is switched off", "open the chart from its page; see `TOKEN_CARRIERS`"
        ),
        Reason.CREDENTIALS_REPEATED: Told("two tokens in one request", "send one"),
        Reason.TOKEN_TOO_LARGE: Told("the token is larger than 8 KiB", "fewer grants or attributes"),
        Reason.TOKEN_MALFORMED: Told("this is no token (no strict compact JWS, RFC 7515)", "look at what signs it"),
        Reason.TOKEN_TYPE_NOT_ALLOWED: Told(
            "a token of another kind (the header's `typ`)", "`embed+jwt`, or `INSECURE_TYP_JWT` for a foreign issuer"
        ),
        Reason.ALGORITHM_NOT_ALLOWED: Told(
            "the token is signed in a way that its key does not allow (`alg`)", "sign with the key's algorithm"
        ),
        Reason.KEY_UNKNOWN: Told(
            "the token is signed with a key that we do not know (`kid`)",
            "deploy the new public key before signing with it",
        ),
        Reason.SIGNATURE_INVALID: Told(
            "the signature does not hold: the token was changed, or signed with another key",
            "compare the secret, or the key, on both sides",
        ),
        Reason.TOKEN_EXPIRED: Told("the token has run out (`exp`)", "let the page get a new one in time"),
        Reason.TOKEN_NOT_YET_VALID: Told(
            "the token begins in the future (`iat`, `nbf`)", "set the clocks; see `LEEWAY_SECONDS`"
        ),
        Reason.TOKEN_LIFETIME_TOO_LONG: Told(
            "the token would live longer than the limit (`exp - iat`)",
            "make shorter tokens, or raise `TOKEN_LIFETIME_SECONDS`",
        ),
        Reason.ISSUER_NOT_ALLOWED: Told("somebody else issued the token (`iss`)", "it must be `ISSUER`, to the letter"),
        Reason.AUDIENCE_NOT_ALLOWED: Told(
            "the token is meant for another service (`aud`)", "it must name `AUDIENCE`, to the letter"
        ),
        Reason.CLAIM_MISSING: Told("the token lacks something that it must say (a claim)", "`detail` names it"),
        Reason.CLAIM_INVALID: Told(
            "the token says something in another form than it must (a claim)", "`detail` names it"
        ),
        Reason.BOOTSTRAP_NOT_NAVIGATION: Told(
            "a frame's first token (bootstrap) was sent with something else", "use a normal token"
        ),
        Reason.TOKEN_SPENT: Told(
            "a frame's first token (bootstrap) was used a second time", "a new token for each page view"
        ),
        Reason.SESSION_UNKNOWN: Told("the embed session has ended", "reload the embedding page"),
        Reason.SESSION_AMBIGUOUS: Told(
            "several embeds are open, and the request does not say whose it is (no handle)", "pass `location.search` on"
        ),
        Reason.SESSION_NOT_SAME_ORIGIN: Told(
            "the cookie of an open chart came with a request of another site",
            "send a bearer token; a frame's WebSocket needs `PUBLIC_ORIGIN`",
        ),
        Reason.TOKEN_REVOKED: Told(
            "the token, its subject, its tenant or its key was revoked",
            "sign in again; `toucan-guard revoke --list` tells what is in force",
        ),
        Reason.ORIGINS_MISSING: Told(
            "neither token nor tenant names the web sites that may show it",
            "put `origins` into the token; see `REQUIRE_TOKEN_ORIGINS`",
        ),
        Reason.TOKEN_ORIGIN_NOT_ALLOWED: Told(
            "the web site is on the list, but not on this token's",
            "add the site to the token's `origins`, if it is theirs",
        ),
        Reason.TENANT_ORIGIN_NOT_ALLOWED: Told(
            "the web site is on the list, but not on this tenant's", "add it in `TENANT_ORIGINS_FILE`, if it is theirs"
        ),
        Reason.REGION_MISMATCH: Told(
            "the token belongs to another region", "send the viewer to the server of their region"
        ),
        Reason.RLS_MISSING: Told(
            "the token does not say whose data to show (no row-level attributes)",
            "the host's server must put `rls` into its tokens",
        ),
        Reason.RLS_ATTRIBUTE_UNKNOWN: Told(
            "the token limits rows by something that the policy does not know",
            "mend the name: a typing mistake must not widen",
        ),
        Reason.RLS_ATTRIBUTE_MISSING: Told(
            "the token leaves out an attribute that rows are limited by",
            "the host's server must put it into its tokens",
        ),
        Reason.RLS_ATTRIBUTE_INVALID: Told(
            "an attribute that rows are limited by is of another type", "the host's server must send the policy's type"
        ),
        Reason.GRANT_MISSING: Told(
            "the token does not open this object (no grant)", "add the grant to the token, if the viewer should see it"
        ),
        Reason.STORE_UNAVAILABLE: Told(
            "the store does not answer, or is full: nobody knows what is spent or revoked",
            "look at the store; nothing needs a restart",
        ),
        Reason.AUDIT_UNAVAILABLE: Told("the record could not be written", "look at where `AUDIT` points"),
        Reason.APP_FAILED: Told(
            "the app raised", "look at its log; the line of `toucan_guard` there has the reference"
        ),
        Reason.ROW_FILTER_MISSING: Told(
            "the endpoint must filter a table's rows, and no query has (`require_row_filter`)",
            "a mistake in the app: its log names the table",
        ),
        Reason.API_KEY_MISSING: Told(
            "a request for tokens came without an API key",
            "send it as `x-api-key`, from your server",
        ),
        Reason.API_KEY_INVALID: Told(
            "the API key is unknown, wrong, too early, expired or retired",
            "`detail` in the record tells which",
        ),
        Reason.API_KEY_EXPOSED: Told(
            "an API key came from a browser, where anybody can read it",
            "replace the key now; ask for tokens from your server",
        ),
        Reason.API_KEY_LIMIT: Told(
            "more was asked for than the API key may give",
            "`errors` in the answer names each limit",
        ),
        Reason.TOKEN_REQUEST_INVALID: Told(
            "a request for tokens has mistakes (405, 413 and 415 for its form)",
            "`errors` in the answer names each",
        ),
        Reason.REFRESH_NOT_ALLOWED: Told(
            "no new token for this one: a session, another signer's, too old, or its key may give less now",
            "generate a new one",
        ),
        Reason.KEYS_UNAVAILABLE: Told(
            "the keys that tokens are checked with could not be fetched for too long",
            "look at `JWKS_URL`; `toucan-guard check` says why",
        ),
        Reason.REQUEST_MALFORMED: Told(
            "the server handed headers on that are no pairs of bytes, as ASGI has them",
            "look at the server, and at what stands in front of the guard",
        ),
    }
)
