"""Our own frame-ancestors list: what may be configured, and what narrowing leaves."""

from __future__ import annotations

import re
from typing import Any

import pytest

from toucan_guard.core.allowlist import OriginAllowlist
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.frame_ancestors import NONE, FrameAncestors
from toucan_guard.core.origins import Origin

OWN = Origin("https", "charts.example", 443)
OURS = frozenset({OWN})


@pytest.mark.parametrize(
    ("entries", "sources"),
    [
        pytest.param([], ["'none'"], id="an empty list is nobody"),
        pytest.param(["'none'"], ["'none'"], id="none by name"),
        pytest.param(["'NONE'"], ["'none'"], id="none in capitals"),
        pytest.param(["'self'"], ["'self'"], id="self"),
        pytest.param(["https://a.example"], ["https://a.example"], id="an origin"),
        pytest.param(["HTTPS://A.example:443"], ["https://a.example"], id="mended case and port"),
        pytest.param(["https://a.example:8443"], ["https://a.example:8443"], id="a port"),
        pytest.param(["https://a.example:*"], ["https://a.example:*"], id="any port"),
        pytest.param(["https://*.a.example"], ["https://*.a.example"], id="a wildcard"),
        pytest.param(["https://*.a.example:*"], ["https://*.a.example:*"], id="a wildcard with any port"),
        pytest.param(["a.example"], ["a.example"], id="a host without a scheme"),
        pytest.param(["*.a.example:8443"], ["*.a.example:8443"], id="a wildcard without a scheme"),
        pytest.param(["https:"], ["https:"], id="a scheme-source"),
        pytest.param(["Capacitor:"], ["capacitor:"], id="an app's scheme-source"),
        pytest.param(["capacitor://localhost"], ["capacitor://localhost"], id="an app"),
        pytest.param(["https://münchen.example"], ["https://xn--mnchen-3ya.example"], id="an international name"),
        pytest.param(
            ["https://b.example", "'self'", "https://a.example", "https://b.example"],
            ["'self'", "https://a.example", "https://b.example"],
            id="sorted and unique",
        ),
    ],
)
def test_configured_sources_are_serialised(entries: list[str], sources: list[str]) -> None:
    parsed = FrameAncestors.parse(entries)
    assert parsed.sources == tuple(sources)
    assert parsed.header_value == f"frame-ancestors {' '.join(sources)}"
    assert "example" not in repr(parsed)


REFUSED = [
    pytest.param("", "empty", id="empty"),
    pytest.param("https://a.example https://b.example", "space", id="two in one"),
    pytest.param("https://a.example;script-src", "one entry for each", id="semicolon ends the directive"),
    pytest.param("https://a.example,https://b.example", "one entry for each", id="comma ends the policy"),
    pytest.param("https://a.example\r\nX-Evil: 1", "control", id="newline ends the header"),
    pytest.param("https://a.example\x00", "control", id="NUL"),
    pytest.param("'unsafe-inline'", "keywords", id="another keyword"),
    pytest.param("'nonce-abc'", "keywords", id="a nonce"),
    pytest.param("'sha256-abc='", "keywords", id="a hash"),
    pytest.param('"self"', "keywords", id="self in double quotes"),
    pytest.param("*", "INSECURE_ANY_ORIGIN", id="everybody"),
    pytest.param("https://*", "INSECURE_ANY_ORIGIN", id="every https host"),
    pytest.param("*:8443", "INSECURE_ANY_ORIGIN", id="every host on a port"),
    pytest.param("https://*.com", "every site under .com", id="a whole top-level domain"),
    pytest.param("*.com", "every site under .com", id="the same without a scheme"),
    pytest.param("https://a.*.example", "front", id="a wildcard inside"),
    pytest.param("https://a.example/", "no path", id="a final slash"),
    pytest.param("https://a.example/app", "no path", id="a path"),
    pytest.param("a.example/app", "no path", id="a path without a scheme"),
    pytest.param("https://user@a.example", "user name", id="userinfo"),
    pytest.param("https://192.0.2.1", "address", id="IPv4"),
    pytest.param("192.0.2.1:8443", "address", id="IPv4 without a scheme"),
    pytest.param("https://[2001:db8::1]", "address", id="IPv6"),
    pytest.param("https://a_b.example", "underscore", id="underscore"),
    pytest.param("https://a.example:65536", "port", id="port above 65535"),
    pytest.param("https://a.example:0", "port", id="port 0"),
    pytest.param("https://a.example:**", "port", id="two asterisks for a port"),
    pytest.param("https://a.example::*", "port", id="two colons"),
    pytest.param("https://:*", "host is missing", id="any port of no host"),
    pytest.param(":", "not a scheme", id="a colon alone"),
    pytest.param("data:", "no page", id="data has no origin"),
    pytest.param("htps:", "typing mistake", id="a mistyped scheme-source"),
    pytest.param("htps://a.example", "typing mistake", id="a mistyped scheme"),
    pytest.param("http:", "ENVIRONMENT=development", id="every http page"),
    pytest.param("http://a.example", "ENVIRONMENT=development", id="http"),
    pytest.param("https://localhost:3000", "ENVIRONMENT=development", id="localhost"),
    pytest.param("localhost:3000", "ENVIRONMENT=development", id="localhost without a scheme"),
    pytest.param(7, "of type int", id="a number"),
]


@pytest.mark.parametrize(("entry", "mend"), REFUSED)
def test_one_bad_source_is_refused_with_the_mend(entry: Any, mend: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(mend)) as refusal:
        FrameAncestors.parse(["https://good.example", entry])
    assert len(refusal.value.problems) == 1


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(["'none'", "https://a.example"], id="none beside another"),
        pytest.param(["'none'", "'none'"], id="none twice"),
    ],
)
def test_none_stands_alone(entries: list[str]) -> None:
    with pytest.raises(ConfigError, match="alone"):
        FrameAncestors.parse(entries)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        FrameAncestors.parse(["'none'", "https://a.example/", "'nonce-x'"])
    assert len(refusal.value.problems) == 2
    with pytest.raises(ConfigError, match="list"):
        FrameAncestors.parse("https://a.example")


@pytest.mark.parametrize("entry", ["http://localhost:3000", "localhost:3000", "http:", "http://*.localhost:3000"])
def test_development_lets_http_and_localhost_in(entry: str) -> None:
    assert FrameAncestors.parse([entry], development=True).sources == (entry,)


@pytest.mark.parametrize("entry", ["*", "https://*", "https://*:*", "*:8443"])
def test_everybody_takes_an_explicit_switch(entry: str) -> None:
    assert FrameAncestors.parse([entry], allow_any=True).sources == (entry,)


def test_the_callers_may_frame_us_too() -> None:
    listed = OriginAllowlist.parse(["https://a.example", "https://*.b.example"])
    assert FrameAncestors.of(listed).sources == ("https://*.b.example", "https://a.example")
    assert FrameAncestors.of(OriginAllowlist()) == NONE
    assert FrameAncestors.of(OriginAllowlist(any=True)).sources == ("*",)


def test_a_caller_that_cannot_be_a_source_is_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        FrameAncestors.of(OriginAllowlist.parse(["https://192.0.2.1", "https://a_b.example", "https://*.a_b.example"]))
    assert len(refusal.value.problems) == 3


@pytest.mark.parametrize(
    ("entries", "headers"),
    [
        pytest.param([], {b"x-frame-options": b"DENY"}, id="nobody sends DENY"),
        pytest.param(["'self'"], {b"x-frame-options": b"SAMEORIGIN"}, id="only self sends SAMEORIGIN"),
        pytest.param(["https://a.example"], {}, id="a partner sends none"),
        pytest.param(["'self'", "https://a.example"], {}, id="a partner beside self sends none"),
    ],
)
def test_x_frame_options_goes_along_where_it_says_the_same(entries: list[str], headers: dict[bytes, bytes]) -> None:
    sent = dict(FrameAncestors.parse(entries).headers)
    assert sent.pop(b"content-security-policy").startswith(b"frame-ancestors ")
    assert sent == headers


@pytest.mark.parametrize(
    ("ours", "other", "sources"),
    [
        pytest.param(
            ["https://a.example", "https://b.example"], ["https://b.example"], ["https://b.example"], id="one of two"
        ),
        pytest.param(["https://a.example"], ["https://b.example"], ["'none'"], id="nothing in common"),
        pytest.param(["https://a.example"], [], ["'none'"], id="nobody"),
        pytest.param([], ["https://a.example"], ["'none'"], id="nobody from the start"),
        pytest.param(
            ["https://*.a.example"], ["https://b.a.example"], ["https://b.a.example"], id="under our wildcard"
        ),
        pytest.param(
            ["https://b.a.example"], ["https://*.a.example"], ["https://b.a.example"], id="under their wildcard"
        ),
        pytest.param(["https:"], ["https://a.example:8443"], ["https://a.example:8443"], id="under our scheme-source"),
        pytest.param(
            ["https:"], ["https://*.a.example"], ["https://*.a.example"], id="a wildcard under a scheme-source"
        ),
        pytest.param(["https:"], ["capacitor://localhost"], ["'none'"], id="an app is not under https:"),
        pytest.param(
            ["capacitor:"], ["capacitor://localhost"], ["capacitor://localhost"], id="an app under its scheme"
        ),
        pytest.param(["a.example"], ["https://a.example"], ["https://a.example"], id="our bare host"),
        pytest.param(
            ["a.example"], ["https://a.example:8443"], ["'none'"], id="our bare host on its default port only"
        ),
        pytest.param(
            ["https://a.example:*"], ["https://a.example:8443"], ["https://a.example:8443"], id="our any port"
        ),
        pytest.param(
            ["https://*.a.example:*"], ["https://*.b.a.example"], ["https://*.b.a.example"], id="nested wildcards"
        ),
        pytest.param(
            ["https://b.a.example:*"], ["https://*.a.example"], ["https://b.a.example"], id="our host, their wildcard"
        ),
        pytest.param(["'self'"], ["https://a.example"], ["'none'"], id="self is not a partner"),
        pytest.param(
            ["'self'", "https://a.example"], ["https://a.example"], ["https://a.example"], id="self is taken away"
        ),
        pytest.param(
            ["'self'", "https://a.example"], ["https://charts.example"], ["'self'"], id="self stays where it is named"
        ),
        pytest.param(["https://a.example"], ["https://a.example", "https://192.0.2.1"], ["'none'"], id="an address"),
        pytest.param(
            ["https://a.example"], ["https://a.example", "https://a_b.example"], ["'none'"], id="an underscore"
        ),
    ],
)
def test_narrowing_leaves_what_both_name(ours: list[str], other: list[str], sources: list[str]) -> None:
    narrowed = FrameAncestors.parse(ours).narrowed(OriginAllowlist.parse(other), self_origins=OURS)
    assert narrowed.sources == tuple(sources)


def test_everybody_narrows_to_the_other_list() -> None:
    everybody = FrameAncestors.parse(["*"], allow_any=True)
    few = FrameAncestors.parse(["'self'", "https://a.example"])
    assert everybody.narrowed(OriginAllowlist.parse(["https://a.example"])).sources == ("https://a.example",)
    assert few.narrowed(OriginAllowlist(any=True)) is few


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(["https://a.example", "https://b.example;script-src *"], id="a bad entry in a list"),
        pytest.param(["https://a.example", 7], id="a number in a list"),
        pytest.param("https://a.example", id="one text"),
        pytest.param(["http://a.example"], id="http outside development"),
        pytest.param(["*"], id="everybody"),
    ],
)
def test_a_bad_list_of_texts_opens_nothing(entries: Any) -> None:
    ours = FrameAncestors.parse(["https://a.example"])
    assert ours.narrowed(entries) == NONE
    assert ours.narrowed(["https://a.example"]) == ours


def test_self_stays_only_where_all_of_our_origins_are_named() -> None:
    ours = FrameAncestors.parse(["'self'"])
    both = frozenset({OWN, Origin("https", "charts2.example", 443)})
    named = OriginAllowlist.of(OWN)
    assert ours.narrowed(named, self_origins=OURS).sources == ("'self'",)
    assert ours.narrowed(named, self_origins=both) == NONE
    assert ours.narrowed(named) == NONE


@pytest.mark.parametrize(
    ("entries", "self_origins", "sources"),
    [
        pytest.param(["'self'", "https://a.example"], frozenset(), ["'self'"], id="self is on the list"),
        pytest.param(["*"], frozenset(), ["'self'"], id="everybody is on the list"),
        pytest.param(["https://a.example"], OURS, ["'none'"], id="we are not on the list"),
        pytest.param(["https://charts.example"], OURS, ["'self'"], id="we are on the list by name"),
        pytest.param(["https:"], OURS, ["'self'"], id="we are on the list by scheme"),
        pytest.param(["charts.example"], OURS, ["'self'"], id="we are on the list as a bare host"),
        pytest.param(["https://charts.example"], frozenset(), ["'none'"], id="nobody has said who we are"),
    ],
)
def test_what_sameorigin_leaves_of_a_list(
    entries: list[str], self_origins: frozenset[Origin], sources: list[str]
) -> None:
    assert FrameAncestors.parse(entries, allow_any=True).same_origin_only(self_origins).sources == tuple(sources)
