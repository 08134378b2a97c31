"""Our reading of frame-ancestors and X-Frame-Options against the browsers' own tests.

Sources: Chromium's unit tests of its CSP implementation (matching and subsumption),
web-platform-tests (frame-ancestors, X-Frame-Options).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from toucan_guard.core.csp import effective, outgoing_headers, parse_source_list, subsumes
from toucan_guard.core.frame_ancestors import FrameAncestors
from toucan_guard.core.origins import Origin

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/:]*)(?::([0-9]+))?(?:/.*)?", re.IGNORECASE)

# The same kinds of row in small, so that this file says something where the corpora are absent.
_OWN_MATCHES = [
    pytest.param(
        "http://a.example", "https://partner.example", "https://a.example", True, id="http source lets https in"
    ),
    pytest.param(
        "https://a.example", "https://partner.example", "http://a.example", False, id="https source keeps http out"
    ),
    pytest.param("*.a.example", "https://x.example", "https://b.a.example", True, id="wildcard covers a name under it"),
    pytest.param("*.a.example", "https://x.example", "https://a.example", False, id="wildcard does not cover the apex"),
    pytest.param("a.example:*", "https://x.example", "https://a.example:8443", True, id="any port"),
    pytest.param(
        "a.example", "https://x.example", "https://a.example:8443", False, id="no port means the default port"
    ),
    pytest.param("a.example/b/", "https://x.example", "https://a.example", False, id="a path matches no ancestor"),
    pytest.param(
        "'none' a.example", "https://x.example", "https://a.example", True, id="'none' beside others is ignored"
    ),
]
_OWN_SUBSUMPTIONS = [
    pytest.param("https://*.a.example", ["https://b.a.example"], True, id="wildcard is wider than a name under it"),
    pytest.param("https://b.a.example", ["https://*.a.example"], False, id="a name is not wider than the wildcard"),
    pytest.param("'self'", ["*", "'self'"], True, id="two lists together are their intersection"),
    pytest.param("'none'", ["'none'"], True, id="nobody is as wide as nobody"),
    pytest.param("'none'", ["*"], False, id="nobody is not as wide as everybody"),
]
_OWN_FRAME_OPTIONS = [
    pytest.param(["DENY"], None, True, False, id="deny"),
    pytest.param(["sameorigin"], None, True, True, id="sameorigin lets our own page in"),
    pytest.param(["SAMEORIGIN"], None, False, False, id="sameorigin keeps others out"),
    pytest.param(["SAMEORIGIN", "DENY"], None, True, False, id="contradictory values block"),
    pytest.param(["ALLOW-FROM https://a.example"], None, False, True, id="allow-from is not known any more"),
    pytest.param(["DENY"], "frame-ancestors 'self'", True, True, id="frame-ancestors makes browsers ignore it"),
]


def _origin(url: str | None) -> Origin | None:
    if url is None or (found := _URL.fullmatch(url)) is None:
        return None
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    return Origin(scheme, host, int(port) if port else _PORTS.get(scheme))


@pytest.mark.parametrize(("sources", "own", "ancestor", "expected"), _OWN_MATCHES)
def test_a_source_list_matches_as_browsers_match(sources: str, own: str, ancestor: str, expected: bool) -> None:
    assert parse_source_list(sources).matches(_origin(ancestor), _origin(own)) is expected


def test_chromium_source_matching(load_corpus: Any, conformance_report: Any) -> None:
    rows = [row for row in load_corpus("csp_source_match.json") if "origin_only" in row["tags"]]
    wrong = []
    for row in rows:
        lists = effective([f"frame-ancestors {policy}" for policy in row["sources"].split(",")]).lists
        if all(one.matches(_origin(row["url"]), _origin(row["self"])) for one in lists) is not row["expected"]:
            wrong.append(row)
    conformance_report.add("csp_source_match.json (origin_only)", len(rows), len(rows) - len(wrong))
    assert {row["expected"] for row in rows} == {True, False}, "a corpus of refusals alone would prove nothing"
    assert not wrong


@pytest.mark.parametrize(("required", "returned", "expected"), _OWN_SUBSUMPTIONS)
def test_a_list_subsumes_what_is_no_wider(required: str, returned: list[str], expected: bool) -> None:
    narrow = [parse_source_list(one) for one in returned]
    assert subsumes(parse_source_list(required), narrow, Origin("https", "x.example", 443)) is expected


def test_chromium_subsumption(load_corpus: Any, conformance_report: Any) -> None:
    rows = load_corpus("csp_subsumption.json")
    wrong = [
        row
        for row in rows
        if subsumes(
            parse_source_list(row["required"].partition(" ")[2]),
            [parse_source_list(returned.partition(" ")[2]) for returned in row["returned"]],
            _origin(row["self"]),
        )
        is not row["expected"]
    ]
    conformance_report.add("csp_subsumption.json", len(rows), len(rows) - len(wrong))
    assert {row["expected"] for row in rows} == {True, False}
    assert not wrong


def test_web_platform_frame_ancestors(load_corpus: Any, conformance_report: Any) -> None:
    rows = load_corpus("frame_ancestors.json")
    wrong = [
        row
        for row in rows
        if effective([row["policy"]]).allows([_origin(one) for one in row["ancestors"]], _origin(row["self"]))
        is not row["allowed"]
    ]
    conformance_report.add("frame_ancestors.json", len(rows), len(rows) - len(wrong))
    assert {row["allowed"] for row in rows} == {True, False}
    assert not wrong


_OURS = Origin("https", "charts.example", 443)
_PARTNER = Origin("https", "partner.example", 443)


@pytest.mark.parametrize(("xfo", "csp", "same_origin", "allowed"), _OWN_FRAME_OPTIONS)
def test_x_frame_options_is_read_as_browsers_read_it(
    xfo: list[str], csp: str | None, same_origin: bool, allowed: bool
) -> None:
    ancestors = [_OURS if same_origin else _PARTNER]
    assert effective([] if csp is None else [csp], xfo).allows(ancestors, _OURS) is allowed


def test_web_platform_x_frame_options(load_corpus: Any, conformance_report: Any) -> None:
    rows = load_corpus("x_frame_options.json")
    wrong = [
        row
        for row in rows
        if effective([row["csp"]] if row["csp"] else [], row["xfo"]).allows(
            [_OURS if row["same_origin"] else _PARTNER], _OURS
        )
        is not row["allowed"]
    ]
    conformance_report.add("x_frame_options.json", len(rows), len(rows) - len(wrong))
    assert {row["allowed"] for row in rows} == {True, False}
    assert not wrong


def test_our_header_opens_no_page_that_x_frame_options_had_closed(load_corpus: Any) -> None:
    """Beside every row of the corpus, a list of ours that names both pages leaves exactly what the row allows."""
    ours = FrameAncestors.parse(["'self'", "https://partner.example"])
    for row in load_corpus("x_frame_options.json"):
        theirs = [(b"x-frame-options", value.encode("latin-1")) for value in row["xfo"]]
        if row["csp"]:
            theirs.append((b"content-security-policy", row["csp"].encode("latin-1")))
        sent = outgoing_headers(theirs, ours)
        framing = effective(
            [value.decode("latin-1") for name, value in sent if name == b"content-security-policy"],
            [value.decode("latin-1") for name, value in sent if name == b"x-frame-options"],
        )
        assert framing.allows([_OURS if row["same_origin"] else _PARTNER], _OURS) is row["allowed"], row
