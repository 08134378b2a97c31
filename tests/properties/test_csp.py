"""frame-ancestors under arbitrary input: subsumption keeps its promise, and what goes out never opens a page."""

from __future__ import annotations

from typing import Literal

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from toucan_guard.core.csp import (
    NONE,
    FrameAncestors,
    Header,
    SourceList,
    effective,
    outgoing_headers,
    parse_source_list,
    subsumes,
)
from toucan_guard.core.csp_meaning import Framing
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import Origin, OriginAllowlist

HOSTS = st.sampled_from(["a.example", "b.a.example", "c.b.a.example", "d.example", "localhost"])
SCHEMES = st.sampled_from(["http", "https", "app"])
PORTS = st.sampled_from([None, 80, 443, 8080])
ORIGINS = st.builds(
    lambda scheme, host, port: Origin(scheme, host, port or {"http": 80, "https": 443}.get(scheme)),
    SCHEMES,
    HOSTS,
    PORTS,
)
SOURCES = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "http://", "https://", "app://", "ws://"]),
    st.sampled_from(["", "*."]),
    HOSTS,
    st.sampled_from(["", ":80", ":443", ":8080", ":*"]),
    st.sampled_from(["", "", "", "/", "/x/", "/x/y"]),
) | st.sampled_from(["'self'", "'none'", "*", "https:", "http:", "ws:", "app:", "https://*", "*:*", "'nonce-x'"])
LISTS = st.lists(SOURCES, max_size=4).map(" ".join).map(parse_source_list)
SELVES = st.none() | ORIGINS
TEXTS = (
    st.text(max_size=40) | st.text(alphabet=st.sampled_from("'*.:/;,a1-_ \t\n\x00\xffselfno"), max_size=30) | SOURCES
)

SECURE = Origin("https", "a.example", 443)
OURS = st.lists(
    st.sampled_from(
        ["'self'", "https://a.example", "https://*.a.example", "https://d.example:*", "d.example", "https:", "app:"]
    ),
    max_size=4,
).map(FrameAncestors.parse)
NARROWINGS = st.lists(
    st.sampled_from(
        [
            "https://a.example",
            "https://b.a.example",
            "https://*.b.a.example",
            "https://*.a.example",
            "https://d.example:8080",
            "app://xyz",
        ]
    ),
    max_size=4,
).map(OriginAllowlist.parse)
CSP_VALUES = st.lists(SOURCES | st.just("'none'"), max_size=3).map(
    lambda sources: f"frame-ancestors {' '.join(sources)}"
)
APP_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"content-security-policy", b"Content-Security-Policy"]),
        (
            CSP_VALUES
            | st.sampled_from(["default-src 'self'", "default-src x; frame-ancestors *, img-src *", "", ";,;"])
        ).map(lambda text: text.encode("latin-1")),
    )
    | st.tuples(
        st.sampled_from([b"x-frame-options", b"X-Frame-Options"]),
        st.sampled_from([b"DENY", b"sameorigin", b"SAMEORIGIN", b"ALLOWALL", b"", b"DENY, SAMEORIGIN"]),
    )
    | st.just((b"content-type", b"text/html")),
    max_size=4,
)


def framing(headers: list[Header]) -> Framing:
    def values(wanted: bytes) -> list[str]:
        return [value.decode("latin-1") for name, value in headers if name.lower() == wanted]

    return effective(values(b"content-security-policy"), values(b"x-frame-options"))


@settings(max_examples=200)
@given(LISTS, st.lists(LISTS, min_size=1, max_size=3), SELVES, ORIGINS)
def test_whom_the_subsumed_lists_let_in_the_wider_one_lets_in(
    wide: SourceList, narrow: list[SourceList], own: Origin | None, origin: Origin
) -> None:
    assert subsumes(wide, wide, own)
    if subsumes(wide, narrow, own):
        together = all(one.matches(origin, own) for one in narrow)
        assert not together or wide.matches(origin, own)


@settings(max_examples=200)
@given(LISTS, LISTS, ORIGINS, ORIGINS)
def test_what_is_subsumed_for_any_response_is_subsumed_for_each(
    wide: SourceList, narrow: SourceList, own: Origin, origin: Origin
) -> None:
    if subsumes(wide, narrow):
        assert not narrow.matches(origin, own) or wide.matches(origin, own)


@given(st.lists(st.text(max_size=60), max_size=3), st.lists(st.text(max_size=20), max_size=3), SELVES)
@example(["frame-ancestors https://a:" + "9" * 5000], ['"'], None)
def test_any_headers_can_be_read(csp: list[str], xfo: list[str], own: Origin | None) -> None:
    read = effective(csp, xfo)
    assert isinstance(read.allows([SECURE, None], own), bool)
    assert read.allows([], own), "a page of its own is framed by nobody"


@given(st.lists(TEXTS, max_size=4), st.booleans(), st.booleans())
def test_a_list_of_anything_is_a_whole_directive_or_a_configuration_error(
    entries: list[str], development: bool, allow_any: bool
) -> None:
    try:
        ours = FrameAncestors.parse(entries, development=development, allow_any=allow_any)
    except ConfigError:
        return
    value = ours.header_value
    assert value.isascii()
    assert value.isprintable()
    assert not set(value) & set(",;")
    (read,) = effective([value]).lists
    written = 0 if ours.sources == ("'none'",) else len(ours.sources)
    assert len(read.sources) + read.own + read.star == written, "browsers drop none of our sources"
    assert FrameAncestors.parse(ours.sources, development=development, allow_any=allow_any) == ours


@given(st.lists(TEXTS, max_size=3))
def test_narrowing_to_anything_never_raises_and_never_widens(entries: list[str]) -> None:
    ours = FrameAncestors.parse(["https://a.example", "https://*.b.example"])
    narrowed = ours.narrowed(entries)
    assert subsumes(parse_source_list(" ".join(ours.sources)), parse_source_list(" ".join(narrowed.sources)), SECURE)


@given(OURS, NARROWINGS, ORIGINS)
def test_narrowed_lets_in_nobody_whom_either_keeps_out(
    ours: FrameAncestors, other: OriginAllowlist, origin: Origin
) -> None:
    narrowed = parse_source_list(" ".join(ours.narrowed(other, self_origins=frozenset({SECURE})).sources))
    if narrowed.matches(origin, SECURE):
        assert parse_source_list(" ".join(ours.sources)).matches(origin, SECURE)
        assert other.allows(origin)


@given(OURS, NARROWINGS, st.sampled_from([443, 8080]), HOSTS)
def test_narrowed_keeps_everybody_whom_both_name(
    ours: FrameAncestors, other: OriginAllowlist, port: int, host: str
) -> None:
    origin = Origin("https", host, port)
    assume(origin != SECURE)  # 'self' is kept only as a whole
    both = other.allows(origin) and parse_source_list(" ".join(ours.sources)).matches(origin, SECURE)
    narrowed = parse_source_list(" ".join(ours.narrowed(other).sources))
    assert narrowed.matches(origin, SECURE) is both


@settings(max_examples=200)
@given(APP_HEADERS, OURS, st.lists(st.none() | ORIGINS, min_size=1, max_size=2))
def test_narrow_lets_in_exactly_whom_the_app_and_we_let_in(
    app: list[Header], ours: FrameAncestors, ancestors: list[Origin | None]
) -> None:
    sent = outgoing_headers(app, ours, self_origins=frozenset({SECURE}))
    before = framing(app).allows(ancestors, SECURE)
    own = framing(list(ours.headers)).allows(ancestors, SECURE)
    assert framing(sent).allows(ancestors, SECURE) is (before and own)


@given(APP_HEADERS, OURS, st.lists(st.none() | ORIGINS, min_size=1, max_size=2))
def test_narrow_without_knowing_who_we_are_opens_nothing(
    app: list[Header], ours: FrameAncestors, ancestors: list[Origin | None]
) -> None:
    if framing(outgoing_headers(app, ours)).allows(ancestors, SECURE):
        assert framing(app).allows(ancestors, SECURE)
        assert framing(list(ours.headers)).allows(ancestors, SECURE)


@given(APP_HEADERS, OURS)
def test_sole_leaves_our_word_alone(app: list[Header], ours: FrameAncestors) -> None:
    assert framing(outgoing_headers(app, ours, framing="sole")) == framing(list(ours.headers))


@given(APP_HEADERS, OURS, st.sampled_from(["narrow", "sole"]), st.booleans())
def test_other_headers_are_never_touched(
    app: list[Header], ours: FrameAncestors, how: Literal["narrow", "sole"], report_only: bool
) -> None:
    sent = outgoing_headers(app, ours, framing=how, report_only=report_only)
    assert [h for h in sent if h[0] == b"content-type"] == [h for h in app if h[0] == b"content-type"]
    if report_only:
        assert sent[: len(app)] == app


def test_nobody_is_nobody_for_every_ancestor() -> None:
    assert not framing(list(NONE.headers)).allows([SECURE], SECURE)
