"""What a refused client reads: problem details for programs, a page for people, and neither tells a secret."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from starlette.responses import Response

from toucan_guard import Grant, Reason, ToucanGuard
from toucan_guard.core.decisions import EXPLANATIONS, Deny
from toucan_guard.refusals import refusal_response
from toucan_guard.testing import TEST_SECRET

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
REQUEST_ID = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"


def refuse(decision: Deny, *headers: tuple[str, str], kind: str = "http") -> Response:
    scope = {"type": kind, "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers]}
    made = refusal_response(scope, decision, REQUEST_ID)
    response = Response(made.body, made.status_code)
    response.raw_headers = made.raw_headers
    return response


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_as_problem_details(reason: Reason) -> None:
    response = refuse(Deny(reason))
    told = EXPLANATIONS[reason]
    assert response.status_code == told.status
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body) == {
        "type": f"urn:toucan-guard:reason:{reason}",
        "title": told.title,
        "status": told.status,
        "detail": told.advice,
        "advice": told.advice,
        "reason": reason,
        "request_id": REQUEST_ID,
    }


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_as_a_page(reason: Reason) -> None:
    response = refuse(Deny(reason, "a sentence for developers"), ("accept", BROWSER))
    page = bytes(response.body).decode()
    assert response.status_code == EXPLANATIONS[reason].status
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<dd>{reason}</dd>" in page
    assert REQUEST_ID in page
    assert "developers" not in page
    assert page.startswith('<!doctype html><html lang="en">')
    assert page.count("<h1>") == 1
    assert "$" not in page


@pytest.mark.parametrize("accept", ["application/json", BROWSER], ids=["a program", "a person"])
@pytest.mark.parametrize(
    ("decision", "challenge"),
    [
        pytest.param(Deny(Reason.TOKEN_MISSING), "Bearer", id="no error code where no credential was sent"),
        pytest.param(Deny(Reason.TOKEN_EXPIRED), 'Bearer error="invalid_token"', id="a bad token"),
        pytest.param(Deny("x_login", status=401), "Bearer", id="a reason of one's own"),
        pytest.param(Deny(Reason.GRANT_MISSING), None, id="403 asks for nothing"),
        pytest.param(Deny(Reason.CREDENTIALS_REPEATED), None, id="400 asks for nothing"),
        pytest.param(Deny(Reason.TOKEN_EXPIRED, status=403), None, id="a status of one's own counts"),
    ],
)
def test_headers_of_a_refusal(accept: str, decision: Deny, challenge: str | None) -> None:
    headers = refuse(decision, ("accept", accept)).headers
    assert headers.get("www-authenticate") == challenge
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("headers", "page"),
    [
        pytest.param([("accept", BROWSER)], True, id="what browsers send for a navigation"),
        pytest.param([("accept", BROWSER), ("sec-fetch-mode", "navigate")], True, id="a navigation"),
        pytest.param([("accept", BROWSER), ("sec-fetch-mode", "cors")], False, id="fetch() is no navigation"),
        pytest.param(
            [("accept", BROWSER), ("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "cors")], False, id="two modes"
        ),
        pytest.param([], False, id="nothing is said"),
        pytest.param([("accept", "")], False, id="an empty Accept"),
        pytest.param([("accept", "*/*")], False, id="anything"),
        pytest.param([("accept", "text/*")], False, id="any text"),
        pytest.param([("accept", "application/json")], False, id="JSON"),
        pytest.param([("accept", "text/html, application/json")], False, id="both alike: a program can read"),
        pytest.param([("accept", "text/html, application/json;q=0.9")], True, id="HTML before JSON"),
        pytest.param(
            [("accept", "text/html;q=0.8, application/problem+json;q=0.9")], False, id="problem details before HTML"
        ),
        pytest.param([("accept", "TEXT/HTML")], True, id="in upper case"),
        pytest.param([("accept", "application/json;q=0.1"), ("accept", "text/html")], True, id="in two fields"),
        pytest.param([("accept", "text/html;q=0")], False, id="HTML refused"),
        pytest.param([("accept", "text/html;q=0.000")], False, id="HTML refused at length"),
        pytest.param([("accept", "text/html;level=1;q=0.5")], True, id="a weight behind another parameter"),
        pytest.param([("accept", "text/html;q=1.")], True, id="a weight that ends in a dot"),
        pytest.param([("accept", "text/html;q=2")], False, id="a weight above one is none"),
        pytest.param([("accept", "text/html;q=1.5, application/json")], False, id="so is one and a half"),
        pytest.param([("accept", "text/html;q=nan")], False, id="so is no number"),
        pytest.param([("accept", "text/html;q=-1")], False, id="so is a negative one"),
        pytest.param([("accept", "text/html;q=1e9")], False, id="so is an exponent"),
        pytest.param([("accept", "text/html;q=0.1234")], False, id="so are four digits"),
        pytest.param([("accept", "text/html;q=¹")], False, id="so is a superscript"),
        pytest.param([("accept", "text/html;q=")], False, id="so is nothing"),
        pytest.param([("accept", "text/html-like")], False, id="a type that begins like HTML"),
        pytest.param([("accept", ";;,,;q=1,text/html")], True, id="noise in front"),
    ],
)
def test_who_gets_the_page(headers: list[tuple[str, str]], page: bool) -> None:
    response = refuse(Deny(Reason.TOKEN_MISSING), *headers)
    assert response.headers["content-type"].startswith("text/html" if page else "application/problem+json")


def test_own_reasons_may_say_a_sentence_to_programs() -> None:
    problem = json.loads(refuse(Deny("x_night", 'closed "at" night\r\n', status=423)).body)
    assert (problem["reason"], problem["status"], problem["detail"]) == ("x_night", 423, 'closed "at" night\r\n')
    assert problem["type"] == "urn:toucan-guard:reason:x_night"


def test_nothing_in_a_page_is_markup_of_a_strangers() -> None:
    scope = {"type": "http", "headers": [(b"accept", b"text/html")]}
    page = bytes(refusal_response(scope, Deny("x_own"), "<script>alert('1')</script>$title").body).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;$title" in page


def test_a_page_that_quotes_is_escaped() -> None:
    page = bytes(refuse(Deny(Reason.EMBEDDER_UNKNOWN), ("accept", BROWSER)).body).decode()
    assert "referrerpolicy=&quot;strict-origin&quot;" in page


def test_the_pages_own_policy_lets_its_style_and_nothing_else_through() -> None:
    response = refuse(Deny(Reason.TOKEN_MISSING), ("accept", BROWSER))
    page = bytes(response.body).decode()
    styles = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert len(styles) == 1
    assert response.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    for needs_more in (" style=", "<script", "<img", "http:", "https:", "url(", "@import", "<form", "<link"):
        assert needs_more not in page


@pytest.mark.anyio
@pytest.mark.parametrize("accept", ["application/json", BROWSER], ids=["a program", "a person"])
@pytest.mark.parametrize(
    ("claims", "headers", "reason"),
    [
        pytest.param({"rls": {"carrier": {"secret-row": 1}}}, {}, "rls_attribute_invalid", id="a bad attribute"),
        pytest.param({"rls": {"carier": "secret-row"}}, {}, "rls_attribute_unknown", id="an unknown attribute"),
        pytest.param({"subject": "secret-row", "grants": []}, {}, "grant_missing", id="a missing grant"),
        pytest.param({"region": "secret-row"}, {}, "region_mismatch", id="another region"),
        pytest.param({"issuer": "https://secret-row.example"}, {}, "issuer_not_allowed", id="another issuer"),
        pytest.param({"audience": "secret-row"}, {}, "audience_not_allowed", id="another audience"),
        pytest.param(
            {"origins": ["https://secret-row.example"]},
            {"origin": "https://portal.example"},
            "token_origin_not_allowed",
            id="another site's token",
        ),
        pytest.param({"key": "secret-row-aB3$xY7&qW9!eR5*tU1@iO"}, {}, "signature_invalid", id="another key"),
        pytest.param({}, {"origin": "https://secret-row.example"}, "origin_not_allowed", id="a stranger"),
    ],
)
async def test_a_refusal_tells_no_claim_no_key_and_no_list(
    accept: str, claims: Any, headers: Any, reason: str, http: Any, make_settings: Any, make_token: Any
) -> None:
    from toucan_guard.layers import GrantMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response("the rows")(scope, receive, send)

    guard = ToucanGuard(GrantMiddleware(app, type="dashboard", action="view", id="delays"), settings=make_settings())
    token = make_token(**claims)
    answer = await http(guard, headers={"authorization": f"Bearer {token}", "accept": accept, **headers})
    said = answer.body + repr(answer.start).encode()
    assert reason.encode() in said
    for secret in (b"secret-row", TEST_SECRET.encode(), b"customers.example", b"host.example", token.encode()):
        if secret == b"secret-row" and "origin" in headers and reason == "origin_not_allowed":
            assert secret not in answer.body
        else:
            assert secret not in said, secret
    allowed = await http(guard, headers={"authorization": f"Bearer {make_token(grants=[VIEW])}", "accept": accept})
    assert allowed.body == b"the rows"


VIEW = Grant("dashboard", "delays", ("view",))


@pytest.mark.anyio
@pytest.mark.parametrize("accept", ["application/json", BROWSER], ids=["a program", "a person"])
async def test_a_head_request_is_refused_with_the_headers_of_a_get(accept: str, http: Any, make_settings: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not reached")

    guard = ToucanGuard(app, settings=make_settings())
    head, get = [await http(guard, method, headers={"accept": accept}) for method in ("HEAD", "GET")]
    assert head.status == get.status == 401
    for name in ("content-type", "content-length", "www-authenticate", "cache-control"):
        assert head.header(name) == get.header(name)
