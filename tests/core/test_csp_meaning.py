"""How browsers read frame-ancestors and X-Frame-Options of other people."""

from __future__ import annotations

import pytest

from toucan_guard.core.csp_meaning import Cell, SourceList, effective, enforced_lists, parse_source_list, subsumes
from toucan_guard.core.origins import Origin, parse_origin

HTTPS = Origin("https", "charts.example", 443)
HTTP = Origin("http", "charts.example", 80)


def origin(text: str) -> Origin:
    parsed = parse_origin(text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("sources", "own", "ancestor", "expected"),
    [
        pytest.param("http://a.example", HTTPS, "https://a.example", True, id="http source lets https in"),
        pytest.param("https://a.example", HTTPS, "http://a.example", False, id="https source keeps http out"),
        pytest.param("http://a.example", HTTPS, "https://a.example:8443", False, id="no port means the default port"),
        pytest.param("http://a.example:80", HTTPS, "https://a.example", True, id="port 80 is upgraded with the scheme"),
        pytest.param("http://a.example:80", HTTPS, "http://a.example:443", False, id="but not without it"),
        pytest.param("http://a.example:8080", HTTPS, "https://a.example:8080", True, id="another port stays"),
        pytest.param("http://a.example:443", HTTPS, "https://a.example", True, id="443 of http is 443 of https"),
        pytest.param("https://a.example:*", HTTPS, "https://a.example:8443", True, id="any port"),
        pytest.param("a.example", HTTPS, "https://a.example", True, id="a bare host takes our scheme"),
        pytest.param("a.example", HTTPS, "http://a.example", False, id="and so keeps http out"),
        pytest.param("a.example", HTTP, "http://a.example", True, id="or lets it in where we are http"),
        pytest.param("a.example", None, "https://a.example", False, id="a bare host of an opaque page matches nothing"),
        pytest.param("*.a.example", HTTPS, "https://b.a.example", True, id="wildcard"),
        pytest.param("*.a.example", HTTPS, "https://a.example", False, id="wildcard without the apex"),
        pytest.param("https://*", HTTPS, "https://b.example", True, id="any host"),
        pytest.param("https://*", HTTPS, "https://b.example:8443", False, id="any host on the default port"),
        pytest.param("https:", HTTPS, "https://b.example:8443", True, id="any https page"),
        pytest.param("https:", HTTPS, "http://b.example", False, id="https: keeps http out"),
        pytest.param("http:", HTTPS, "https://b.example", True, id="http: lets https in"),
        pytest.param("capacitor:", HTTPS, "capacitor://localhost", True, id="an app's scheme"),
        pytest.param("capacitor://localhost", HTTPS, "capacitor://localhost", True, id="an app"),
        pytest.param("*", HTTPS, "http://b.example:8080", True, id="everybody on the network"),
        pytest.param("*", HTTPS, "capacitor://localhost", False, id="but no app"),
        pytest.param("*", origin("capacitor://localhost"), "capacitor://localhost", True, id="unless we are one"),
        pytest.param("'self'", HTTPS, "https://charts.example", True, id="self"),
        pytest.param("'SELF'", HTTPS, "https://charts.example", True, id="keywords in any case"),
        pytest.param("'self'", HTTPS, "https://charts.example:8443", False, id="self on another port"),
        pytest.param("'self'", HTTPS, "http://charts.example", False, id="self is not downgraded"),
        pytest.param("'self'", HTTP, "https://charts.example", True, id="self may be upgraded"),
        pytest.param(
            "'self'",
            origin("http://charts.example:81"),
            "https://charts.example:81",
            True,
            id="self upgraded on its port",
        ),
        pytest.param("'self'", origin("app://localhost"), "app://localhost", True, id="self as an app"),
        pytest.param("'self'", None, "https://charts.example", False, id="self of an opaque page"),
        pytest.param("'none'", HTTPS, "https://charts.example", False, id="none"),
        pytest.param("", HTTPS, "https://charts.example", False, id="an empty list is nobody"),
        pytest.param("'none' https://a.example", HTTPS, "https://a.example", True, id="none beside others is ignored"),
        pytest.param("https://a.example/", HTTPS, "https://a.example", True, id="the root path is every page's"),
        pytest.param("https://a.example/b", HTTPS, "https://a.example", False, id="a path matches no ancestor"),
        pytest.param("https://a.example/?q", HTTPS, "https://a.example", True, id="a query is dropped"),
        pytest.param("HTTPS://A.example", HTTPS, "https://a.example", True, id="case does not matter"),
        pytest.param("https://a.example\thttps://b.example", HTTPS, "https://b.example", True, id="tabs separate"),
        pytest.param("https://a.example\xa0", HTTPS, "https://a.example", False, id="other spaces do not"),
        pytest.param("https://\u212a.example", HTTPS, "https://k.example", False, id="Kelvin sign is no k"),
        pytest.param("https://a_b.example", HTTPS, "https://a_b.example", False, id="underscore drops the source"),
        pytest.param("https://a.example:0", HTTPS, "https://a.example", False, id="port 0 drops the source"),
        pytest.param("https://a.example:65536", HTTPS, "https://a.example", False, id="too high a port as well"),
        pytest.param("https://a.example:" + "9" * 9999, HTTPS, "https://a.example", False, id="a port of 9,999 digits"),
        pytest.param("https://a.example:0443", HTTPS, "https://a.example", True, id="leading zeros are read"),
        pytest.param("'nonce-abc' 'unsafe-inline'", HTTPS, "https://a.example", False, id="other keywords are dropped"),
        pytest.param("https://192.0.2.1", HTTPS, "https://192.0.2.1", True, id="browsers compare IPv4 as text"),
        pytest.param("https://[::1]", HTTPS, "https://[::1]", False, id="and drop IPv6"),
    ],
)
def test_an_ancestor_is_matched_as_browsers_match(
    sources: str, own: Origin | None, ancestor: str, expected: bool
) -> None:
    assert parse_source_list(sources).matches(origin(ancestor), own) is expected


@pytest.mark.parametrize("sources", ["*", "https:", "'self'", "data:", "https://*:*"])
def test_an_opaque_ancestor_never_matches(sources: str) -> None:
    assert not parse_source_list(sources).matches(None, HTTPS)


@pytest.mark.parametrize(
    ("values", "lists"),
    [
        pytest.param([], [], id="no header"),
        pytest.param(["default-src 'none'"], [], id="no fallback to default-src"),
        pytest.param(["frame-ancestors 'self'"], ["'self'"], id="one"),
        pytest.param(["Frame-Ancestors 'self'"], ["'self'"], id="name in any case"),
        pytest.param(["frame-ancestors"], [""], id="without a value"),
        pytest.param(["default-src x; frame-ancestors\thttps://a.example ;"], ["https://a.example"], id="among others"),
        pytest.param(["frame-ancestors 'none'; frame-ancestors *"], ["'none'"], id="the first duplicate wins"),
        pytest.param(
            ["frame-ancestors *, frame-ancestors 'none'"], ["*", "'none'"], id="a comma starts another policy"
        ),
        pytest.param(["frame-ancestors *", "frame-ancestors 'none'"], ["*", "'none'"], id="every field counts"),
        pytest.param(["frame-ancestors\xa0'none'"], [], id="another kind of space is part of the name"),
        pytest.param(["frame-ancestors 'none' \xe9"], [], id="one bad byte drops the directive"),
        pytest.param(["frame-ancestors 'none'\x01"], [], id="one control character as well"),
        pytest.param(["frame-ancestors \x01; frame-ancestors 'none'"], [], id="and its duplicate is ignored"),
        pytest.param(["frame-ancestors-x 'none'"], [], id="a longer name is another directive"),
    ],
)
def test_the_enforced_lists_of_a_response(values: list[str], lists: list[str]) -> None:
    assert enforced_lists(values) == tuple(parse_source_list(one) for one in lists)


PARTNER = origin("https://partner.example")


@pytest.mark.parametrize(
    ("csp", "xfo", "ancestors", "expected"),
    [
        pytest.param([], [], [PARTNER], True, id="no header lets everybody in"),
        pytest.param(["frame-ancestors 'none'"], [], [], True, id="a page of its own has no ancestor"),
        pytest.param([], ["DENY"], [], True, id="nor has it under DENY"),
        pytest.param([], ["DENY"], [HTTPS], False, id="DENY keeps ourselves out"),
        pytest.param([], ["SAMEORIGIN"], [HTTPS, HTTPS], True, id="SAMEORIGIN lets ourselves in"),
        pytest.param([], ["SAMEORIGIN"], [HTTPS, PARTNER], False, id="every ancestor counts for SAMEORIGIN"),
        pytest.param([], ["SAMEORIGIN"], [None], False, id="an opaque page is not the same origin"),
        pytest.param(
            ["frame-ancestors https://partner.example"], ["DENY"], [PARTNER], True, id="the list wins over DENY"
        ),
        pytest.param(["frame-ancestors 'self'"], [], [HTTPS, PARTNER], False, id="every ancestor counts for the list"),
        pytest.param(["frame-ancestors 'self' https://partner.example"], [], [HTTPS, PARTNER], True, id="both named"),
        pytest.param(["frame-ancestors *", "frame-ancestors 'self'"], [], [PARTNER], False, id="all policies together"),
        pytest.param(["frame-ancestors *"], [], [None], False, id="opaque never"),
        pytest.param(["frame-ancestors 'none'\xe9"], ["DENY"], [PARTNER], False, id="a dropped list lets DENY count"),
        pytest.param([], ["ALLOWALL", "DENY"], [HTTPS], False, id="contradictions block"),
        pytest.param([], ["ALLOWALL"], [PARTNER], True, id="an unknown value means nothing"),
        pytest.param([], ["x", "y"], [PARTNER], True, id="nor do two"),
        pytest.param([], ['"DENY, SAMEORIGIN"'], [PARTNER], True, id="a quoted list is one unknown value"),
        pytest.param([], ['"a\\",b", DENY'], [PARTNER], False, id="a quote inside quotes is escaped"),
        pytest.param([], ['"DENY'], [PARTNER], True, id="a quote that does not close"),
    ],
)
def test_what_a_browser_enforces(
    csp: list[str], xfo: list[str], ancestors: list[Origin | None], expected: bool
) -> None:
    assert effective(csp, xfo).allows(ancestors, HTTPS) is expected


def test_sameorigin_of_an_opaque_response_lets_nobody_in() -> None:
    assert not effective([], ["SAMEORIGIN"]).allows([None], None)
    assert not effective([], ["SAMEORIGIN"]).allows([HTTPS], None)


@pytest.mark.parametrize(
    ("wide", "narrow", "own", "expected"),
    [
        pytest.param("*", ["https://a.example"], HTTPS, True, id="everybody is wider than somebody"),
        pytest.param("*", ["capacitor:"], HTTPS, False, id="everybody does not cover apps"),
        pytest.param("https:", ["https://a.example:8443"], HTTPS, True, id="a scheme is wider than its hosts"),
        pytest.param("https://*", ["https:"], HTTPS, False, id="any host on 443 is not any host"),
        pytest.param("https:", ["http://a.example"], HTTPS, False, id="https: does not cover http"),
        pytest.param("http:", ["https:"], HTTPS, True, id="http: covers https:"),
        pytest.param("https://a.example:*", ["https://a.example"], HTTPS, True, id="any port is wider"),
        pytest.param("https://a.example", ["https://a.example:*"], HTTPS, False, id="one port is not"),
        pytest.param(
            "http://a.example", ["http://a.example:80"], HTTPS, True, id="port 80 of http goes without saying"
        ),
        pytest.param("https://a.example/x/", ["https://a.example/x/y"], HTTPS, True, id="a folder covers its files"),
        pytest.param("https://a.example/x", ["https://a.example"], HTTPS, False, id="a file does not cover the host"),
        pytest.param("'none'", ["https://a.example/x/", "https://a.example/y/"], HTTPS, True, id="disjoint paths"),
        pytest.param(
            "https://a.example/x/y", ["https://a.example/x/", "https://a.example/x/y"], HTTPS, True, id="met paths"
        ),
        pytest.param(
            "https://a.example/x/y", ["https://a.example/x/y", "https://a.example/x/"], HTTPS, True, id="met back"
        ),
        pytest.param("'none'", ["https://a.example:1", "https://a.example:2"], HTTPS, True, id="disjoint ports"),
        pytest.param(
            "https://a.example:1", ["https://a.example:1", "https://a.example:*"], HTTPS, True, id="met ports"
        ),
        pytest.param(
            "https://b.a.example", ["https://b.a.example", "https://*.a.example"], HTTPS, True, id="met hosts"
        ),
        pytest.param("'self'", ["https://charts.example"], HTTPS, True, id="self by its name"),
        pytest.param("https://charts.example", ["'self'"], HTTPS, True, id="the name as self"),
        pytest.param(
            "'self'", ["https://charts.example"], None, False, id="self is not known by name without an origin"
        ),
        pytest.param("'self'", ["'self'"], None, True, id="self covers self, whoever that is"),
        pytest.param("a.example", ["a.example"], None, True, id="a bare host covers itself, whatever our scheme"),
        pytest.param("https://a.example", ["a.example"], None, False, id="https does not cover a bare host"),
        pytest.param("*", ["a.example 'self'"], None, True, id="everybody covers both"),
        pytest.param("*", [], HTTPS, False, id="no list at all is wider than any"),
        pytest.param("'none'", [""], HTTPS, True, id="an empty list is nobody"),
    ],
)
def test_a_list_subsumes_another(wide: str, narrow: list[str], own: Origin | None, expected: bool) -> None:
    assert subsumes(parse_source_list(wide), [parse_source_list(one) for one in narrow], own) is expected


def test_one_list_may_be_given_alone() -> None:
    assert subsumes(parse_source_list("*"), parse_source_list("'self'"), HTTPS)
    assert not subsumes(SourceList(), parse_source_list("'self'"), HTTPS)


def test_a_cell_of_a_scheme_without_a_default_port_holds_its_origin() -> None:
    assert Cell("app", "localhost", None).holds(Origin("app", "localhost", None))
    assert Cell("wss", "a.example", 443).holds(Origin("wss", "a.example", None))
    assert not Cell("app", "localhost", None).holds(Origin("app", "localhost", 1))
    assert Cell("https", "a.example", 443).meet(Cell("http", "a.example", 80)) is None


@pytest.mark.parametrize(
    ("one", "other", "met"),
    [
        pytest.param(Cell("https", ".a.example", 443), Cell("https", "x.a.example", 443), "x.a.example", id="nested"),
        pytest.param(Cell("https", "x.a.example", 443), Cell("https", ".a.example", 443), "x.a.example", id="turned"),
        pytest.param(Cell("https", "a.example", 443), Cell("https", "b.example", 443), None, id="disjoint"),
    ],
)
def test_two_cells_meet_in_the_smaller_one(one: Cell, other: Cell, met: str | None) -> None:
    found = one.meet(other)
    assert (None if found is None else found.host) == met
