"""Origins under arbitrary input: nothing raises, nothing is wider than it says, and the URL standard agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import can_ada
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toucan_guard.core.decisions import Allow, Deny
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import (
    Origin,
    OriginAllowlist,
    OriginPolicy,
    parse_origin,
    parse_pattern,
    referer_origin,
)

Result = TypeVar("Result")

# Small alphabets, so that lists and origins often meet; and letters that have fooled URL parsers.
LABELS = st.sampled_from(["a", "b", "c", "xn--mnchen-3ya"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))
PORTS = st.sampled_from(["", ":443", ":80", ":8443"])
ORIGINS = st.builds(lambda host, port: f"https://{host}{port}", HOSTS, PORTS)
PATTERNS = ORIGINS | st.builds(lambda host, port: f"https://*.{host}{port}", HOSTS, PORTS)
LISTS = st.lists(PATTERNS, max_size=6).map(OriginAllowlist.parse)
TRICKY = st.text(alphabet=st.sampled_from("htps:/\\@.*[]-_0123456789axn%?#,; \t\n\x00\xad\u3002\u212aüA"), max_size=40)
TEXTS = st.text(max_size=60) | TRICKY | TRICKY.map(lambda rest: f"https://{rest}") | ORIGINS | st.just("null")
VALUES = st.lists(TEXTS, max_size=2)
METADATA = st.lists(
    st.sampled_from(["same-origin", "same-site", "cross-site", "none", "navigate", "iframe", "document", ""]),
    max_size=2,
)


def parsed(text: str) -> Origin:
    origin = parse_origin(text)
    assert origin is not None
    return origin


def outcome(compute: Callable[[], Result]) -> Result | ValueError | ConfigError:
    """What a computation returns, or the one kind of exception that it may raise."""
    try:
        return compute()
    except (ValueError, ConfigError) as error:
        return error


@given(TEXTS)
@example("https://example.com\\@evil.com")
@example("https://xn--a")
@example("https://1.2.3.4.")
@example("https://[::127.0.0.1]")
def test_what_is_read_as_an_origin_is_the_same_to_a_browser(text: str) -> None:
    origin = parse_origin(text)
    if origin is not None and origin.scheme in ("http", "https"):
        assert can_ada.parse(text).origin == str(origin)
        assert parse_origin(str(origin)) == origin


@given(st.text(max_size=30) | TRICKY | HOSTS, st.integers(1, 65535))
def test_what_a_browser_serialises_is_read_unless_its_host_is_no_name(host: str, port: int) -> None:
    try:
        serialised = str(can_ada.parse(f"https://{host}:{port}").origin)
    except ValueError:
        return
    name = serialised.removeprefix("https://").rpartition(":")[0] or serialised.removeprefix("https://")
    labels = name.removesuffix(".").split(".")
    plain = name.startswith("[") or all(
        0 < len(label) < 64 and label.replace("-", "").replace("_", "").isalnum() for label in labels
    )
    if plain:
        assert str(parse_origin(serialised)) == serialised


@given(TEXTS)
@example("https://user:pass@a.example/")
def test_the_origin_of_a_referer_is_what_a_browser_says(text: str) -> None:
    origin = referer_origin(text)
    if origin is not None and origin.scheme in ("http", "https"):
        assert can_ada.parse(text).origin == str(origin)


@given(ORIGINS, st.text(max_size=20), st.text(max_size=20))
def test_every_referer_that_a_browser_sends_has_its_origin(origin: str, path: str, query: str) -> None:
    assert referer_origin(f"{origin}/{quote(path)}?{quote(query)}") == parsed(origin)


@given(TEXTS, st.booleans())
def test_a_configured_text_is_read_or_refused_with_a_sentence(text: str, development: bool) -> None:
    pattern = outcome(lambda: parse_pattern(text, development=development))
    if isinstance(pattern, ValueError):
        assert type(pattern) is ValueError
        assert str(pattern).isprintable()
        return
    assert parse_pattern(str(pattern), development=development) == pattern
    if isinstance(pattern, Origin):
        assert parse_origin(str(pattern)) == pattern
        if pattern.scheme in ("http", "https"):
            assert can_ada.parse(text).origin == str(pattern), "the operator and the browser mean the same origin"


@given(st.lists(TEXTS, max_size=5))
def test_a_list_of_anything_is_an_allowlist_or_a_configuration_error(entries: list[str]) -> None:
    allowlist = outcome(lambda: OriginAllowlist.parse(entries))
    if isinstance(allowlist, ConfigError):
        assert 0 < len(allowlist.problems) <= len(entries)
        return
    assert isinstance(allowlist, OriginAllowlist)
    assert OriginAllowlist.parse(allowlist.entries) == allowlist


@settings(max_examples=150)
@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "DELETE", "get", ""]),
    VALUES,
    METADATA,
    METADATA,
    METADATA,
    VALUES,
    st.booleans(),
    st.booleans(),
    LISTS,
)
def test_any_request_gives_a_decision_and_only_facts_that_were_checked(
    method: str,
    origins: list[str],
    site: list[str],
    mode: list[str],
    dest: list[str],
    referers: list[str],
    websocket: bool,
    ambient: bool,
    allowlist: OriginAllowlist,
) -> None:
    ours = frozenset({parsed("https://a.example")})
    policy = OriginPolicy(allowlist=allowlist, public_origins=ours)
    decision = policy.decide(
        method,
        origins,
        websocket=websocket,
        fetch_site=site,
        fetch_mode=mode,
        fetch_dest=dest,
        referers=referers,
        ambient_credential=ambient,
    )
    assert isinstance(decision, Allow | Deny)
    for name in ("origin", "embedder", "referer_origin"):
        told = decision.facts.get(name)
        assert told in (None, "null") or str(parsed(told)) == told
    if isinstance(decision, Deny):
        return
    assert len(origins) <= 1
    if "embedder" in decision.facts:
        assert allowlist.allows(parsed(decision.facts["embedder"]))
    if origins == ["null"]:
        assert site == ["same-origin"]
        assert not websocket
    elif origins:
        origin = parse_origin(origins[0])
        assert origin is not None
        assert origin in ours or allowlist.allows(origin)
    if websocket:
        assert origins
        assert not ambient or parse_origin(origins[0]) in ours
    assert isinstance(policy.preflight(origins), Allow | Deny)


@given(LISTS, LISTS, ORIGINS.map(parsed))
def test_two_lists_narrowed_allow_exactly_what_both_allow(
    one: OriginAllowlist, other: OriginAllowlist, origin: Origin
) -> None:
    narrowed = one.narrowed(other)
    assert narrowed.allows(origin) is (one.allows(origin) and other.allows(origin))
    assert other.narrowed(one).allows(origin) is narrowed.allows(origin)
    assert one.covers(narrowed)
    assert other.covers(narrowed)
    assert one.allows(origin) or not (one.covers(other) and other.allows(origin))


@given(LISTS, ORIGINS.map(parsed))
def test_a_list_allows_what_a_walk_over_its_entries_would_allow(allowlist: OriginAllowlist, origin: Origin) -> None:
    def covers(entry: str) -> bool:
        scheme, _, host = entry.partition("://")
        own = f"{origin.host}:{origin.port}"
        name = host if ":" in host else f"{host}:443"
        return scheme == origin.scheme and (own.endswith(name[1:]) if name.startswith("*.") else own == name)

    assert allowlist.allows(origin) is any(map(covers, allowlist.entries))
