"""Which credential counts: exactly one, explicit before ambient, and no falling through."""

from __future__ import annotations

from typing import Any

import pytest

from toucan_guard.core.credentials import (
    CARRIERS,
    SessionCredential,
    TokenCredential,
    bearer_token,
    explicit_credential,
    is_handle,
    session_cookies,
    session_credential,
    session_readable,
    without_session_cookies,
)
from toucan_guard.core.decisions import Deny, Reason

ALL = frozenset(CARRIERS)
A = "a" * 26
B = "b" * 26


def _reason(result: object) -> Reason | str | None:
    return result.reason if isinstance(result, Deny) else None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        pytest.param("Bearer abc", "abc", id="the usual form"),
        pytest.param("bEaReR abc", "abc", id="the scheme in any case"),
        pytest.param("Bearer   abc  ", "abc", id="spaces around the token"),
        pytest.param("Bearer\tabc", "abc", id="a tab ends the scheme"),
        pytest.param("Bearer\xa0abc", "abc", id="a no-break space ends the scheme"),
        pytest.param(" Bearer abc", "abc", id="a space before the scheme"),
        pytest.param("Bearer", "", id="the scheme alone is an empty token, not no token"),
        pytest.param("Bearer abc, Bearer def", "abc, Bearer def", id="two joined by a proxy are one bad token"),
        pytest.param("Basic abc", None, id="another scheme"),
        pytest.param("Bearerabc", None, id="a scheme that only begins like it"),
        pytest.param("", None, id="empty"),
        pytest.param("  ", None, id="blank"),
    ],
)
def test_the_token_of_an_authorization_value(value: str, token: str | None) -> None:
    assert bearer_token(value) == token


@pytest.mark.parametrize(
    ("given", "carrier"),
    [
        pytest.param({"authorization": ["Bearer t"]}, "authorization", id="a bearer token"),
        pytest.param({"x_embed_token": ["t"]}, "x-embed-token", id="the header of our own"),
        pytest.param({"x_embed_token": [" t "]}, "x-embed-token", id="the header of our own, padded"),
        pytest.param({"subprotocols": ["embed", "embed.token.t"]}, "websocket", id="a subprotocol"),
        pytest.param({"bootstrap_tokens": ["t"]}, "bootstrap", id="a bootstrap token in the query"),
        pytest.param({"authorization": ["Basic x"], "x_embed_token": ["t"]}, "x-embed-token", id="Basic is not ours"),
    ],
)
def test_one_explicit_credential_is_found(given: dict[str, list[str]], carrier: str) -> None:
    found = explicit_credential(ALL, **given)
    assert found == TokenCredential("t", carrier)  # type: ignore[arg-type]
    assert "token='t'" not in repr(found)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"authorization": ["Bearer t", "Bearer t"]}, id="the same header twice"),
        pytest.param({"authorization": ["Bearer t", "Basic x"]}, id="a second Authorization of another scheme"),
        pytest.param({"authorization": ["Bearer\tt"], "x_embed_token": ["t"]}, id="one of them behind a tab"),
        pytest.param({"x_embed_token": ["t", "t"]}, id="the header of our own twice"),
        pytest.param({"x_embed_token": ["t", ""]}, id="an empty second one counts"),
        pytest.param({"subprotocols": ["embed.token.t", "embed.token.u"]}, id="two subprotocols"),
        pytest.param({"bootstrap_tokens": ["t", "t"]}, id="the query parameter twice"),
        pytest.param({"authorization": ["Bearer t"], "bootstrap_tokens": ["t"]}, id="header and query"),
        pytest.param({"authorization": ["Bearer t"], "subprotocols": ["embed.token.t"]}, id="header and subprotocol"),
    ],
)
@pytest.mark.parametrize("carriers", [ALL, frozenset({"authorization"}), frozenset()], ids=["all", "one", "none"])
def test_two_explicit_credentials_are_refused_whatever_is_switched_on(
    given: dict[str, list[str]], carriers: frozenset[str]
) -> None:
    assert _reason(explicit_credential(carriers, **given)) == Reason.CREDENTIALS_REPEATED


@pytest.mark.parametrize(
    ("given", "carrier"),
    [
        pytest.param({"authorization": ["Bearer t"]}, "authorization", id="authorization"),
        pytest.param({"x_embed_token": ["t"]}, "x-embed-token", id="x-embed-token"),
        pytest.param({"subprotocols": ["embed.token.t"]}, "websocket", id="websocket"),
        pytest.param({"bootstrap_tokens": ["t"]}, "session", id="session"),
    ],
)
def test_a_carrier_that_is_switched_off_is_no_way_in(given: dict[str, list[str]], carrier: str) -> None:
    refused = explicit_credential(ALL - {carrier}, **given)
    assert _reason(refused) == Reason.TOKEN_MISSING
    assert carrier in refused.detail  # type: ignore[union-attr]
    assert isinstance(explicit_credential(frozenset({carrier}), **given), TokenCredential)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"authorization": ["Basic x"]}, id="another scheme"),
        pytest.param({"authorization": ["Basic x", "Basic y"]}, id="another scheme twice is not ours to judge"),
        pytest.param({"subprotocols": ["embed", "graphql-ws"]}, id="subprotocols without a token"),
    ],
)
def test_no_explicit_credential(given: dict[str, list[str]]) -> None:
    assert explicit_credential(ALL, **given) is None


@pytest.mark.parametrize(
    ("headers", "sessions"),
    [
        pytest.param([], {}, id="no cookie"),
        pytest.param(["theme=dark"], {}, id="a cookie of the app"),
        pytest.param([f"__Host-embed-{A}=one"], {A: "one"}, id="one session"),
        pytest.param([f"a=b;\t__Host-embed-{A}=one ; c=d"], {A: "one"}, id="among others, with odd spaces"),
        pytest.param([f"__Host-embed-{A}=one", f"__Host-embed-{B}=two"], {A: "one", B: "two"}, id="two headers"),
        pytest.param([f"__Host-embed-{A}=x=y="], {A: "x=y="}, id="a value with equals signs"),
        pytest.param([f"__Host-embed-{A}"], {A: ""}, id="without a value"),
        pytest.param(["__Host-embed-short=x"], {}, id="a handle of another form"),
        pytest.param([f"__Host-embed-{A.upper()}=x"], {}, id="upper case is another handle"),
        pytest.param([f"__host-embed-{A}=x"], {}, id="another name"),
        pytest.param([f"x=__Host-embed-{A}=one"], {}, id="the name inside a value"),
        pytest.param(["__Host-embed-\xff=x"], {}, id="latin-1"),
    ],
)
def test_the_sessions_of_a_browser(headers: list[str], sessions: dict[str, str]) -> None:
    assert session_cookies(headers) == sessions


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([f"__Host-embed-{A}=one; __Host-embed-{A}=two"], id="in one header"),
        pytest.param([f"__Host-embed-{A}=one", f"__Host-embed-{A}=one"], id="in two headers, even the same value"),
    ],
)
def test_a_repeated_session_cookie_is_refused(headers: list[str]) -> None:
    assert _reason(session_cookies(headers)) == Reason.SESSION_AMBIGUOUS


def test_a_page_of_many_charts_that_is_reloaded_is_no_attack() -> None:
    handles = [f"{chr(97 + number % 26)}{chr(97 + number // 26)}" + "a" * 24 for number in range(180)]
    header = "; ".join(f"__Host-embed-{handle}=s" for handle in handles)
    assert session_cookies([header]) == dict.fromkeys(handles, "s")


@pytest.mark.parametrize(
    ("header", "left"),
    [
        pytest.param("a=b; c=d", "a=b; c=d", id="nothing of ours"),
        pytest.param(f"a=b; __Host-embed-{A}=s; c=d", "a=b; c=d", id="ours goes"),
        pytest.param(f"__Host-embed-{A}=s", "", id="nothing is left"),
        pytest.param("__Host-embed-odd=s; a=b", "a=b", id="what looks like ours goes as well"),
        pytest.param(";; a=b ;", "a=b", id="empty pairs"),
    ],
)
def test_the_app_does_not_see_session_cookies(header: str, left: str) -> None:
    assert without_session_cookies(header) == left


TWO = {A: "one", B: "two"}


@pytest.mark.parametrize(
    ("sessions", "query", "referer", "handle"),
    [
        pytest.param(TWO, [A], [B], A, id="the query's handle counts first"),
        pytest.param(TWO, [], [B], B, id="then the Referer's"),
        pytest.param({A: "one"}, [], [], A, id="then the only one"),
        pytest.param({A: "one"}, [A], [], A, id="the query's, which is the only one"),
    ],
)
def test_a_request_finds_its_session(sessions: dict[str, str], query: Any, referer: Any, handle: str) -> None:
    found = session_credential(sessions, query_handles=query, referer_handles=referer)
    assert found == SessionCredential(handle, sessions[handle])
    assert sessions[handle] not in repr(found)


@pytest.mark.parametrize(
    ("sessions", "query", "referer", "reason"),
    [
        pytest.param(TWO, [], [], Reason.SESSION_AMBIGUOUS, id="two identities and no handle"),
        pytest.param(TWO, [A, A], [], Reason.SESSION_AMBIGUOUS, id="the parameter repeated"),
        pytest.param(TWO, [], [A, B], Reason.SESSION_AMBIGUOUS, id="the Referer's parameter repeated"),
        pytest.param({B: "two"}, [A], [], Reason.SESSION_UNKNOWN, id="a copied URL does not fall to the only session"),
        pytest.param({B: "two"}, [A], [B], Reason.SESSION_UNKNOWN, id="nor to the Referer's"),
        pytest.param({B: "two"}, [], [A], Reason.SESSION_UNKNOWN, id="a Referer's handle does not either"),
        pytest.param({A: "one"}, ["1"], [], Reason.SESSION_UNKNOWN, id="a handle of another form"),
        pytest.param({A: "one"}, [""], [], Reason.SESSION_UNKNOWN, id="an empty handle"),
        pytest.param({}, [A], [], Reason.SESSION_UNKNOWN, id="a handle and no cookie at all"),
    ],
)
def test_a_request_does_not_take_somebody_elses_session(
    sessions: dict[str, str], query: Any, referer: Any, reason: Reason
) -> None:
    assert _reason(session_credential(sessions, query_handles=query, referer_handles=referer)) == reason


def test_no_session_at_all() -> None:
    assert session_credential({}, query_handles=[], referer_handles=[]) is None


@pytest.mark.parametrize(
    ("given", "readable"),
    [
        pytest.param({"fetch_site": ["same-origin"]}, True, id="our own page fetches"),
        pytest.param({"fetch_site": ["same-origin"], "method": "POST"}, True, id="our own page posts"),
        pytest.param({"fetch_site": ["cross-site"], "fetch_dest": ["iframe"]}, True, id="a frame's navigation"),
        pytest.param({"fetch_site": ["cross-site"], "fetch_dest": ["object"]}, True, id="an object's navigation"),
        pytest.param(
            {"fetch_site": ["cross-site"], "fetch_dest": ["iframe"], "method": "HEAD"}, True, id="a frame's HEAD"
        ),
        pytest.param(
            {"fetch_site": ["cross-site"], "fetch_dest": ["iframe"], "method": "POST"},
            False,
            id="another site posts a form into the frame",
        ),
        pytest.param({"fetch_site": ["cross-site"], "fetch_dest": ["empty"]}, False, id="another site fetches"),
        pytest.param({"fetch_site": ["same-site"]}, False, id="a sibling fetches"),
        pytest.param({"fetch_site": ["none"], "fetch_dest": ["document"]}, False, id="typed into the address bar"),
        pytest.param({}, False, id="no Fetch Metadata"),
        pytest.param({"fetch_site": ["same-origin", "same-origin"]}, False, id="repeated counts as absent"),
        pytest.param({"fetch_site": ["cross-site"], "fetch_dest": ["iframe", "iframe"]}, False, id="destination twice"),
        pytest.param({"websocket": True, "origin_is_self": True}, True, id="a socket from our own origin"),
        pytest.param({"websocket": True}, False, id="a socket from elsewhere"),
        pytest.param(
            {"websocket": True, "fetch_site": ["same-origin"]}, False, id="a socket needs the Origin, whatever else"
        ),
    ],
)
def test_where_a_session_cookie_may_be_looked_at(given: dict[str, Any], readable: bool) -> None:
    whole = {
        "websocket": False, "method": "GET", "origin_is_self": False, "fetch_site": [], "fetch_dest": [], **given
    }  # fmt: skip
    refused = session_readable(**whole)
    assert _reason(refused) == (None if readable else Reason.SESSION_NOT_SAME_ORIGIN)


@pytest.mark.parametrize(
    ("text", "good"),
    [(A, True), ("234567" + "a" * 20, True), (A + "a", False), (A[1:], False), (A[1:] + "1", False), ("", False)],
)
def test_the_form_of_a_handle(text: str, good: bool) -> None:
    assert is_handle(text) is good
