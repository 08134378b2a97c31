"""What the app does not see, and what every answer made for one viewer says."""

from __future__ import annotations

from typing import Any

import pytest

from toucan_guard.headers import USUAL, strip_credentials, strip_lookalikes
from toucan_guard.response_headers import keep_private
from toucan_guard.trail import Trail

A = "a" * 26

Pairs = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        pytest.param(b"x-embed-subject", True, id="with dashes"),
        pytest.param(b"x_embed_subject", True, id="with underscores, which WSGI bridges turn into dashes"),
        pytest.param(b"x-embed_tenant", True, id="mixed"),
        pytest.param(b"x-embed-token", True, id="the token's own header"),
        pytest.param(b"x-embed-", True, id="the prefix alone"),
        pytest.param(b"x-embedded", False, id="another name"),
        pytest.param(b"embed-subject", False, id="without the x"),
        pytest.param(b"x-request-id", False, id="a header of the host's"),
    ],
)
@pytest.mark.parametrize("strip", [strip_lookalikes, strip_credentials])
def test_imitations_of_the_guards_result(strip: Any, name: bytes, gone: bool) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [(b"accept", b"*/*"), (name, b"forged"), (name, b"again")]}
    strip(scope)
    assert scope["headers"] == [(b"accept", b"*/*"), *([] if gone else [(name, b"forged"), (name, b"again")])]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([(b"authorization", b"Bearer t")], [], id="a bearer token"),
        pytest.param([(b"authorization", b"bEARER\tt")], [], id="in any case, behind any space"),
        pytest.param([(b"authorization", b"Basic x")], [(b"authorization", b"Basic x")], id="Basic is the app's"),
        pytest.param([(b"cookie", f"__Host-embed-{A}=s".encode())], [], id="a session cookie alone"),
        pytest.param(
            [(b"cookie", f"a=b; __Host-embed-{A}=s; c=d".encode())], [(b"cookie", b"a=b; c=d")], id="among others"
        ),
        pytest.param([(b"cookie", b"a=\xe9")], [(b"cookie", b"a=\xe9")], id="latin-1 survives"),
        pytest.param(
            [(b"cookie", f"a=\xe9; __Host-embed-{A}=s".encode("latin-1"))], [(b"cookie", b"a=\xe9")], id="beside ours"
        ),
    ],
)
def test_credentials_do_not_reach_the_app(before: Pairs, after: Pairs) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": before}
    strip_credentials(scope)
    assert scope == {"type": "http", "headers": after}


@pytest.mark.parametrize(
    ("header", "left", "offers", "offers_left"),
    [
        pytest.param(b"embed, embed.token.t", b"embed", ["embed", "embed.token.t"], ["embed"], id="the usual offer"),
        pytest.param(b"embed.token.t", None, ["embed.token.t"], [], id="the token alone leaves no header"),
        pytest.param(
            b"graphql-ws,embed.token.t,embed",
            b"graphql-ws, embed",
            ["graphql-ws", "embed.token.t", "embed"],
            ["graphql-ws", "embed"],
            id="among others, without spaces",
        ),
        pytest.param(b"embed.token.t", None, None, [], id="a server that does not list the offers"),
    ],
)
def test_the_subprotocol_with_the_token(header: bytes, left: bytes | None, offers: Any, offers_left: Any) -> None:
    scope: dict[str, Any] = {"type": "websocket", "headers": [(b"sec-websocket-protocol", header)]}
    if offers is not None:
        scope["subprotocols"] = offers
    strip_credentials(scope)
    assert scope["headers"] == ([] if left is None else [(b"sec-websocket-protocol", left)])
    assert scope["subprotocols"] == offers_left


def test_on_an_exempt_path_the_hosts_own_bearer_token_stays_and_session_cookies_go() -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "headers": [(b"authorization", b"Bearer hosts-own"), (b"cookie", f"__Host-embed-{A}=s; a=b".encode())],
    }
    strip_lookalikes(scope)
    assert scope["headers"] == [(b"authorization", b"Bearer hosts-own"), (b"cookie", b"a=b")]


@pytest.mark.parametrize(
    ("sent", "out"),
    [
        pytest.param([], [b"private, no-store"], id="nothing said"),
        pytest.param([b"public, max-age=600"], [b"private, no-store"], id="public is replaced"),
        pytest.param([b"max-age=600"], [b"private, no-store"], id="a lifetime without private is replaced"),
        pytest.param([b"private, max-age=60"], [b"private, max-age=60"], id="private is the app's word"),
        pytest.param([b"max-age=60,PRIVATE"], [b"max-age=60,PRIVATE"], id="in any case"),
        pytest.param([b"no-store"], [b"no-store"], id="no-store"),
        pytest.param([b'private="set-cookie", max-age=60'], [b"private, no-store"], id="one private field is not it"),
        pytest.param([b"x-private, max-age=60"], [b"private, no-store"], id="a longer word is not it"),
        pytest.param([b"no-store", b"public"], [b"no-store"], id="of two the one that shares goes"),
    ],
)
@pytest.mark.parametrize("name", [b"cache-control", b"Cache-Control"])
def test_no_shared_cache_keeps_an_answer(name: bytes, sent: list[bytes], out: list[bytes]) -> None:
    headers = keep_private([(name, value) for value in sent], Trail())
    assert [value for key, value in headers if key.lower() == b"cache-control"] == out
    assert (b"vary", b"Authorization, Cookie, X-Embed-Token") in headers


@pytest.mark.parametrize(
    ("sent", "out"),
    [
        pytest.param([], [b"same-origin"], id="nothing said"),
        pytest.param([b"no-referrer"], [b"no-referrer"], id="the app's own word"),
    ],
)
def test_the_referer_of_our_pages_stays_with_us(sent: list[bytes], out: list[bytes]) -> None:
    headers = keep_private([(b"Referrer-Policy", value) for value in sent], Trail())
    assert [value for key, value in headers if key.lower() == b"referrer-policy"] == out


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param(b"CDN-Cache-Control", b"max-age=600", False, id="RFC 9213"),
        pytest.param(b"cloudflare-cdn-cache-control", b"max-age=600", False, id="a vendor's form of it"),
        pytest.param(b"Surrogate-Control", b"max-age=600", False, id="Fastly and Varnish"),
        pytest.param(b"edge-control", b"max-age=600", False, id="Akamai"),
        pytest.param(b"x-accel-expires", b"600", False, id="nginx"),
        pytest.param(b"cdn-cache-control", b"no-store", True, id="one that shares nothing stays"),
    ],
)
def test_no_cache_in_front_is_told_otherwise(name: bytes, value: bytes, kept: bool) -> None:
    headers = keep_private([(name, value)], Trail())
    assert ((name, value) in headers) == kept
    assert (b"cache-control", b"private, no-store") in headers


def test_a_name_with_a_line_break_hides_no_rule_for_caches() -> None:
    headers = keep_private([(b"x\ny", b"no-store"), (b"cache-control", b"public"), (b"z", b"no-store")], Trail())
    assert (b"cache-control", b"public") not in headers
    assert headers[:2] == [(b"x\ny", b"no-store"), (b"z", b"no-store")]
    assert (b"cache-control", b"private, no-store") in headers


def test_what_browsers_send_does_not_look_like_ours() -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [(name, b"x") for name in USUAL]}
    strip_lookalikes(scope)
    assert {name for name, _ in scope["headers"]} == USUAL
    assert USUAL.isdisjoint({b"cookie", b"x-embed-token", b"x-api-key", b"sec-websocket-protocol"})
