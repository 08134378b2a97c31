"""The short ways with headers say what the long ways say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.csp import FrameAncestors
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy
from toucan_guard.headers import HeaderList, strip_bearer, strip_credentials
from toucan_guard.layers import CorsMiddleware, FrameAncestorsMiddleware
from toucan_guard.response_headers import keep_private
from toucan_guard.trail import HeaderEdit, Trail

PORTAL = "https://portal.example"
HANDLE = b"a" * 26
API_KEY = b"tgk_test_0123456789ab_" + b"A" * 43

Headers = list[tuple[bytes, bytes]]

_RESPONSE = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"content-type", b"Vary", b"vary", b"Cache-Control", b"cache-control", b"x-cdn-cache-control",
                b"Expires",
                b"CDN-Cache-Control", b"Surrogate-Control", b"edge-control", b"X-Accel-Expires", b"Referrer-Policy",
                b"Content-Security-Policy", b"content-security-policy-report-only", b"x-frame-options", b"set-cookie",
                b"Access-Control-Allow-Origin", b"access-control-allow-credentials", b"access-control-expose-headers",
                b"access-control-allow-methods", b"",
            ]
        )
        | st.binary(max_size=8),
        st.sampled_from(
            [
                b"", b"private", b"public, max-age=60", b"no-store", b"frame-ancestors *", b"default-src 'self'", b"*",
                b"SAMEORIGIN", b"DENY", PORTAL.encode(), b'private="x"',
            ]
        ),
    ),
    max_size=4,
)  # fmt: skip


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def _edits() -> dict[str, HeaderEdit]:
    """Every edit that a layer of the guard puts on a Trail."""
    allowlist = OriginAllowlist.parse([PORTAL])
    policy = OriginPolicy(allowlist=allowlist)
    found: dict[str, HeaderEdit] = {"private": keep_private}
    for name, options in {
        "narrow": {},
        "sole": {"framing": "sole"},
        "report": {"report_only": True, "report_uri": "https://charts.example/csp"},
    }.items():
        layer: Any = FrameAncestorsMiddleware(
            _nobody, frame_ancestors=FrameAncestors.parse([PORTAL]), allowlist=allowlist, **options
        )
        found[f"frame ancestors, {name}"] = _only_edit_of(layer, [])
    for origin in (None, PORTAL, "https://evil.example", "null"):
        cors = CorsMiddleware(_nobody, policy=policy, allowlist=allowlist)
        sent = [] if origin is None else [(b"origin", origin.encode())]
        found[f"cors, {origin}"] = _only_edit_of(cors, sent)
    return found


def _only_edit_of(layer: Any, headers: Headers) -> HeaderEdit:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": headers}
    with pytest.raises(AssertionError):
        layer(scope, None, None).send(None)
    trail: Trail = scope["toucan_guard.trail"]
    (edit,) = trail.edits
    return edit


EDITS = _edits()


def test_every_kind_of_edit_is_here() -> None:
    ours = {kind for kind in HeaderEdit.__subclasses__() if kind.__module__.startswith("toucan_guard")}
    assert {type(edit) for edit in EDITS.values()} == ours


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@given(headers=_RESPONSE)
def test_what_an_edit_adds_to_an_answer_that_says_nothing_is_what_it_makes_of_it(
    edit: HeaderEdit, headers: Headers
) -> None:
    added = edit.additions(b"\n".join(name for name, _ in headers).lower().decode("latin-1"), Trail())
    if added is not None:
        assert [*headers, *added] == edit([*headers], Trail())
        assert all(f"\n{name.decode().lower()}" in edit.names for name, _ in added)


@given(edits=st.lists(st.sampled_from(list(EDITS.values())), max_size=4), headers=_RESPONSE)
def test_a_trail_makes_of_an_answer_what_its_edits_make_of_it(edits: list[HeaderEdit], headers: Headers) -> None:
    trail = Trail()
    trail.edits += tuple(edits)
    given_headers = [*headers]
    left = trail.edited({"type": "http.response.start", "status": 200, "headers": given_headers})["headers"]
    expected: HeaderList = [*headers]
    for edit in reversed(edits):
        expected = edit(expected, trail)
    assert left == expected
    assert given_headers == headers  # the app's own list is left alone


_REQUEST = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"accept", b"authorization", b"Authorization", b"cookie", b"x-api-key", b"x-embed-token", b"x_embed_x",
                b"x-embed-subject", b"a-x-embed-b", b"x-embedded", b"sec-websocket-protocol", b"host",
            ]
        ),
        st.sampled_from(
            [
                b"Bearer x", b"Bearer ", b"Bearer", b"bearer x", b"Bearer\tx", b"Basic x", b"", API_KEY, b"theme=dark",
                b"__Host-embed-" + HANDLE + b"=s", b"a=b; __Host-embed-x=y", b"embed, embed.token.x", b"\xff",
            ]
        ),
    ),
    max_size=5,
)  # fmt: skip


@given(headers=_REQUEST, kind=st.sampled_from(["http", "websocket"]))
def test_a_bearer_token_is_removed_as_everything_else_is(headers: Headers, kind: str) -> None:
    offers = ["embed", "embed.token.x"] if kind == "websocket" else []
    quick: dict[str, Any] = {"type": kind, "headers": [*headers], "subprotocols": offers}
    # A header that nobody removes, twice: then everything is looked at.
    slow: dict[str, Any] = {"type": kind, "headers": [*headers, (b"x", b"1"), (b"x", b"2")], "subprotocols": offers}
    strip_credentials(quick)
    strip_credentials(slow)
    assert [*quick["headers"], (b"x", b"1"), (b"x", b"2")] == slow["headers"]
    assert (quick["subprotocols"], slow["subprotocols"]) == ((["embed"],) * 2 if offers else ([], []))


@given(headers=_REQUEST)
def test_the_bearer_token_is_removed_alone_or_not_at_all(headers: Headers) -> None:
    once = {
        name: value
        for name, value in headers
        if name not in (b"x-api-key", b"sec-websocket-protocol") and b"__Host-embed-" not in value
    }
    before = list(once.items())
    quick: dict[str, Any] = {"type": "http", "headers": before}
    slow: dict[str, Any] = {"type": "http", "headers": [*before]}
    strip_credentials(slow)
    if strip_bearer(quick, once):
        assert quick["headers"] == slow["headers"] != before
    else:
        assert quick["headers"] is before
