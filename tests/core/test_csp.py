"""What goes out beside an app's own headers: BOUNDARIES section 2."""

from __future__ import annotations

import re

import pytest

from toucan_guard.core.csp import NONE, FrameAncestors, outgoing_headers
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import Origin

CSP, XFO, TYPE = b"content-security-policy", b"x-frame-options", b"content-type"
PORTAL = FrameAncestors.parse(["https://portal.example"])
WITH_SELF = FrameAncestors.parse(["'self'", "https://portal.example"])
OURS = (CSP, b"frame-ancestors https://portal.example")
HTML = (TYPE, b"text/html")


@pytest.mark.parametrize(
    ("ours", "app", "sent"),
    [
        pytest.param(PORTAL, [], [OURS], id="an app without headers"),
        pytest.param(PORTAL, [HTML], [HTML, OURS], id="an app that says nothing about framing"),
        pytest.param(
            PORTAL,
            [(CSP, b"default-src 'self'")],
            [(CSP, b"default-src 'self'"), OURS],
            id="the app's policy stays and ours is a field of its own",
        ),
        pytest.param(
            PORTAL,
            [(CSP, b"frame-ancestors 'self'")],
            [(CSP, b"frame-ancestors 'self'"), OURS],
            id="the app's own list stays and both hold together",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"DENY")],
            [(CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="DENY becomes 'none', since ours would make browsers ignore it",
        ),
        pytest.param(
            WITH_SELF,
            [(XFO, b"sameorigin")],
            [(CSP, b"frame-ancestors 'self'"), (XFO, b"SAMEORIGIN")],
            id="SAMEORIGIN leaves self of a list that names it",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"SAMEORIGIN")],
            [(CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="SAMEORIGIN leaves nobody of a list of partners",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"SAMEORIGIN"), (XFO, b"DENY")],
            [(CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="contradictory fields block, as in browsers",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"\x0bDENY\x0c")],
            [(CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="DENY with what Chromium takes off",
        ),
        pytest.param(PORTAL, [(XFO, b"ALLOW-FROM https://x.example")], [OURS], id="ALLOW-FROM says nothing any more"),
        pytest.param(PORTAL, [(XFO, b"ALLOWALL")], [OURS], id="ALLOWALL widens nothing"),
        pytest.param(
            PORTAL,
            [(XFO, b"DENY"), (CSP, b"default-src 'self'; frame-ancestors https://portal.example")],
            [(CSP, b"default-src 'self'; frame-ancestors https://portal.example"), OURS],
            id="beside a list of the app's own its X-Frame-Options counts for nothing",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"DENY"), (CSP, b"frame-ancestors *\xe9")],
            [(CSP, b"frame-ancestors *\xe9"), (CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="a list that browsers drop lets X-Frame-Options count",
        ),
        pytest.param(
            PORTAL,
            [(XFO, b"DENY"), (CSP + b"-report-only", b"frame-ancestors *")],
            [(CSP + b"-report-only", b"frame-ancestors *"), (CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="a report-only list enforces nothing",
        ),
        pytest.param(
            PORTAL,
            [(b"X-Frame-Options", b"DENY")],
            [(CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")],
            id="names in any case",
        ),
        pytest.param(NONE, [HTML], [HTML, (CSP, b"frame-ancestors 'none'"), (XFO, b"DENY")], id="nobody may frame us"),
    ],
)
def test_narrow_adds_a_policy_that_only_narrows(
    ours: FrameAncestors, app: list[tuple[bytes, bytes]], sent: list[tuple[bytes, bytes]]
) -> None:
    before = list(app)
    assert outgoing_headers(app, ours) == sent
    assert app == before, "the app's own list is not touched"


@pytest.mark.parametrize(
    ("app", "sent"),
    [
        pytest.param([HTML], [HTML, OURS], id="an app that says nothing about framing"),
        pytest.param([(XFO, b"DENY"), HTML], [HTML, OURS], id="the app's X-Frame-Options is removed"),
        pytest.param([(CSP, b"frame-ancestors 'none'")], [OURS], id="a field with nothing else is removed"),
        pytest.param(
            [(CSP, b"default-src 'self'; frame-ancestors 'none'; img-src *")],
            [(CSP, b"default-src 'self'; img-src *"), OURS],
            id="the rest of the policy stays",
        ),
        pytest.param(
            [(CSP, b" Frame-Ancestors\t'none' ; default-src 'self';")],
            [(CSP, b"default-src 'self'"), OURS],
            id="a name in any case, and a tab",
        ),
        pytest.param(
            [(CSP, b"frame-ancestors 'none'; default-src 'self'; frame-ancestors *")],
            [(CSP, b"default-src 'self'"), OURS],
            id="duplicates go too, or the second would win",
        ),
        pytest.param(
            [(CSP, b"frame-ancestors 'none', default-src 'self'")],
            [(CSP, b" default-src 'self'"), OURS],
            id="one policy of two",
        ),
        pytest.param(
            [(CSP, b"default-src 'self',,img-src *;")],
            [(CSP, b"default-src 'self',,img-src *;"), OURS],
            id="a field without a list stays byte by byte",
        ),
        pytest.param(
            [(CSP, b"x-frame-ancestors 'none'; frame-ancestors-x 'none'")],
            [(CSP, b"x-frame-ancestors 'none'; frame-ancestors-x 'none'"), OURS],
            id="names that only look alike stay",
        ),
        pytest.param(
            [(CSP + b"-report-only", b"frame-ancestors 'none'")],
            [(CSP + b"-report-only", b"frame-ancestors 'none'"), OURS],
            id="a report-only field stays",
        ),
        pytest.param(
            [(b"Content-Security-Policy", b"\vframe-ancestors 'none'")], [OURS], id="a vertical tab hides no directive"
        ),
    ],
)
def test_sole_removes_the_app_s_word_about_framing(
    app: list[tuple[bytes, bytes]], sent: list[tuple[bytes, bytes]]
) -> None:
    assert outgoing_headers(app, PORTAL, framing="sole") == sent


def test_sameorigin_is_seen_on_a_list_that_names_us_by_address() -> None:
    ours = FrameAncestors.parse(["https://charts.example", "https://portal.example"])
    own = frozenset({Origin("https", "charts.example", 443)})
    assert outgoing_headers([(XFO, b"SAMEORIGIN")], ours, self_origins=own) == [
        (CSP, b"frame-ancestors 'self'"),
        (XFO, b"SAMEORIGIN"),
    ]


@pytest.mark.parametrize("framing", ["narrow", "sole"])
def test_report_only_leaves_the_app_s_headers_alone(framing: str) -> None:
    app = [(XFO, b"DENY"), (CSP, b"frame-ancestors 'none'")]
    sent = outgoing_headers(app, PORTAL, framing="narrow" if framing == "narrow" else "sole", report_only=True)
    assert sent == [*app, (CSP + b"-report-only", b"frame-ancestors https://portal.example")]


def test_report_only_says_where_to_report() -> None:
    sent = outgoing_headers([], PORTAL, report_only=True, report_uri="https://reports.example/csp?a=b")
    assert sent == [
        (
            CSP + b"-report-only",
            b"frame-ancestors https://portal.example; report-uri https://reports.example/csp?a=b",
        )
    ]


@pytest.mark.parametrize("uri", ["", "https://a.example/;script-src", "https://a.example/,x", "a b", "a\r\nb", "ü"])
def test_a_report_address_that_would_end_the_directive_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("FRAME_REPORT_URI")):
        outgoing_headers([], PORTAL, report_only=True, report_uri=uri)
