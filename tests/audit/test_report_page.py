"""The page: whole, readable without scripts, and nothing that stands in the record can be markup in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.audit.report.charts import ticks_up_to
from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.markup import Html, element, esc
from toucan_guard.audit.report.page import page
from toucan_guard.audit.report.style import STYLE
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.audit_line import encode_line

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
TAGS = {
    "html", "head", "meta", "title", "style", "body", "div", "header", "main", "section", "footer", "nav", "h1", "h2",
    "h3", "p", "ul", "li", "dl", "dt", "dd", "a", "strong", "small", "span", "bdi", "wbr", "code", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary",
    "svg", "desc", "g", "rect", "line", "text", "path", "circle",
}  # fmt: skip
ATTACKS = (
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "</title></svg><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "&lt;b&gt; &amp; &#60;",
    "a`<b>`c",
    "<!-- --> ]]> <![CDATA[",
    "\x1b]0;title\x07\x1b[2J",
    "\u202etxet",
    "\ud800\udfff\x00\ufffe",
)


class Reader(HTMLParser):
    """Reads a page as a browser would, and remembers what is in it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "wbr"} and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(html: str) -> Reader:
    """The page as read; fails where it is not well-formed, or holds anything but what we put into it."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert {tag for tag, _ in reader.tags} <= TAGS
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset")], tag
        assert all((value or "").startswith("#") for name, value in attributes.items() if name == "href")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    return reader


def _report(lines: Iterable[bytes]) -> Report:
    gatherer = Gatherer(since=None, until="2026-11-03T00:00:00Z", files=["audit.jsonl"])
    for number, line in enumerate(lines, 1):
        gatherer.feed(line, file="audit.jsonl", number=number)
    return finish(gatherer, None, made=NOW)


@pytest.fixture(scope="module")
def october(traffic: Any) -> str:
    return page(_report(traffic.month(3_000)))


def test_the_page_is_well_formed_and_says_what_the_record_says(october: str) -> None:
    reader = read(october)
    text = " ".join("".join(reader.words).split())
    for words in ("1 to 31 October 2026", "Nothing needs action", "Northwind Air", "https://free-flight-charts.example",
                  "the token has run out", "2025-legacy", "can be retired", "every one"):  # fmt: skip
        assert words in text


def test_what_failed_stands_apart_from_what_was_refused(traffic: Any) -> None:
    day = datetime(2026, 10, 1, tzinfo=UTC)
    closed = {"outcome": "deny", "reason": "keys_unavailable", "status": 503}
    html = page(_report(encode_line(traffic._event(day, **said)) for said in (closed, {})))
    text = " ".join("".join(read(html).words).split())
    assert "Nobody was refused." in text
    assert "1 failure by reason" in text
    assert "The keys that tokens are checked with could not be fetched for too long." in text
    assert "Why requests failed" not in page(_report([encode_line(traffic._event(day))]))


@pytest.mark.parametrize(("failed", "shown"), [(1, False), (12, True)], ids=["one of a thousand", "many"])
def test_many_failures_have_a_chart_of_their_own(traffic: Any, failed: int, shown: bool) -> None:
    day = datetime(2026, 10, 1, tzinfo=UTC)
    closed = {"outcome": "deny", "reason": "store_unavailable", "status": 503}
    said = [closed] * failed + [{}] * 1_000
    events = (traffic._event(day + timedelta(minutes=index), **one) for index, one in enumerate(said))
    html = page(_report(map(encode_line, events)))
    charts = {(attributes["class"] or "").split()[1] for tag, attributes in read(html).tags if tag == "svg"
              and (attributes["class"] or "").startswith("chart")}  # fmt: skip
    assert charts == {"traffic", "failed"} if shown else charts == {"traffic"}


def test_a_file_that_could_not_be_read_is_named_wherever_the_page_names_files(traffic: Any) -> None:
    gatherer, verifier = Gatherer(since=None, until="2026-11-03T00:00:00Z", files=["a", "b"]), ChainVerifier()
    for number, line in enumerate(traffic.month(40), 1):
        gatherer.feed(line, file="a", number=number)
        verifier.feed(line, file="a", number=number)
    for each in (gatherer, verifier):
        each.cannot_read("b", "cannot be read (it is gone)")
    text = " ".join("".join(read(page(finish(gatherer, verifier.finish(), made=NOW))).words).split())
    assert "b cannot be read (it is gone). What stands there is not in this report" in text
    assert "Files that could not be read1" in text
    assert "b: unread. This file cannot be read (it is gone): nothing is known of what is in there." in text
    assert "lines of a and b (not read to its end)." in text


def test_its_own_policy_allows_its_style_sheet_and_nothing_else(october: str) -> None:
    policy = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', october)
    style = re.search("<style>(.*?)</style>", october, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1] == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # The policy stands before everything that it is about.
    assert october.index("Content-Security-Policy") < october.index("<title>") < october.index("<style>")
    assert "http" not in style[1]
    assert "@import" not in style[1]
    assert "url(" not in style[1]


def test_it_can_be_read_without_seeing_it(october: str) -> None:
    reader = read(october)
    ids = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    levels = [int(tag[1]) for tag, _ in reader.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    for tag, attributes in reader.tags:
        if tag == "svg" and attributes.get("role") == "img":
            assert set(str(attributes["aria-labelledby"]).split()) <= ids
        elif tag == "svg":
            assert attributes["aria-hidden"] == "true"
        if tag == "a":
            assert str(attributes["href"])[1:] in ids
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    tables = [tag for tag, _ in reader.tags if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    assert 'lang="en"' in october


@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
def test_nothing_in_the_record_can_be_markup(traffic: Any, attack: str) -> None:
    html = page(_report(traffic.naughty([attack])))
    read(html)
    assert "\x1b" not in html
    assert "\u202e" not in html
    html.encode("utf-8")


@pytest.mark.parametrize(
    "attack", [*ATTACKS, "א'ב (12) <b>", "x" * 600, "a, b and c"], ids=lambda attack: ascii(attack)[:20]
)
def test_no_stranger_s_name_can_be_markup(traffic: Any, attack: str) -> None:
    refused = {"outcome": "deny", "reason": "origin_not_allowed", "status": 403, "client": attack}
    days = range(30)
    html = page(_report(
        encode_line(traffic._event(datetime(2026, 10, 1 + day, tzinfo=UTC), **refused, **said))
        for said in ({"origin": attack}, {"embedder": "'" + attack}, {"tenant": attack}, {})
        for day in days
    ))  # fmt: skip
    read(html)
    assert html.count("refused every time") == 4, "two sites, a customer, an address"
    assert "\x1b" not in html
    assert "\u202e" not in html


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mode", [0, 1, 2], ids=["light", "dark", "paper"])
def test_every_colour_can_be_read(mode: int) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    colours = dict(re.findall(r"--(\w+):(#\w+)", re.findall(r":root\{([^}]*)\}", STYLE)[mode]))
    for text in ("ink", "soft", "blue", "red", "amber"):
        assert _contrast(colours[text], colours["paper"]) >= 4.5, text
    for text, ground in (
        ("ink", "act"), ("ink", "look"), ("ink", "calm"), ("amber", "look"), ("red", "act"), ("soft", "tint"),
    ):  # fmt: skip
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for drawn in ("blue", "red", "deep", "soft", "green"):
        assert _contrast(colours[drawn], colours["paper"]) >= 3, drawn


def test_a_sentence_is_whole_however_long(traffic: Any) -> None:
    said = [
        {"exempt": True}, {"status": 303}, {"method": "OPTIONS", "steps": [{"layer": "cors", "decision": "allow"}]},
        {"steps": [{"layer": "api_key", "decision": "allow"}]},
        {"steps": [{"layer": "token_service", "decision": "allow"}]}, {},
    ]  # fmt: skip
    html = page(_report(encode_line(traffic._event(datetime(2026, 10, 1, tzinfo=UTC), **one)) for one in said))
    assert "renewed by a page)." in html
    assert "…" not in html


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(lambda event: [], id="no line at all"),
        pytest.param(lambda event: [b"INFO started"], id="no line of ours"),
        pytest.param(lambda event: [event()], id="one request"),
        pytest.param(lambda event: [event(exempt=True)], id="health checks alone"),
        pytest.param(lambda event: [event(outcome="deny", reason="token_missing", status=401)], id="one refusal"),
    ],
)
def test_a_record_with_little_in_it_gives_a_page_all_the_same(
    traffic: Any, lines: Callable[[Callable[..., bytes]], list[bytes]]
) -> None:
    def event(**said: Any) -> bytes:
        return encode_line(traffic._event(datetime(2026, 10, 1, tzinfo=UTC), **said))

    reader = read(page(_report(lines(event))))
    assert [tag for tag, _ in reader.tags].count("h1") == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["OPTIONS", "cors", "api_key", "token_service", "allow", "deny:x", "would_deny:x", 303, "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["layer", "decision", "a"]), inner),
    max_leaves=6,
)  # fmt: skip
FIELDS = (
    "reason", "steps", "kind", "method", "status", "origin", "embedder", "fetch_site", "issuer", "key_id", "token_id",
    "subject", "tenant", "grants", "expires_in_seconds", "rls_attributes", "tables", "region", "client", "exempt",
    "dropped", "truncated", "event_id", "route",
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["allow", "deny", "would_deny", "error"]),
            st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8),
        ),
        max_size=6,
    )
)
def test_whatever_stands_in_a_field_is_counted_and_shown(
    traffic: Any, events: list[tuple[str, dict[str, Any]]]
) -> None:
    claims = {"issuer": "https://host.example", "tenant": "AA", "token_id": "t", "expires_in_seconds": 3.0}
    lines = [
        json.dumps(traffic._event(datetime(2026, 10, 1, index, tzinfo=UTC), **{**claims, "outcome": outcome, **said}))
        for index, (outcome, said) in enumerate(events)
    ]
    report = _report(line.encode() for line in lines * 6)
    totals = report.totals
    beside = totals.exempt + totals.preflights + totals.redirects + totals.issued + totals.renewed
    assert totals.requests + beside == len(lines) * 6
    assert totals.requests == sum(slot.requests for slot in report.timeline)
    read(page(report))


@given(text=st.text(max_size=60))
def test_text_becomes_markup_that_shows_it(text: str) -> None:
    reader = Reader()
    reader.feed(f"<p>{esc(text)}</p>{element('p', text, title=text)}")
    reader.close()
    assert [tag for tag, _ in reader.tags] == ["p", "p"]
    assert isinstance(esc(text), Html)


@given(highest=st.integers(0, 10**12))
def test_the_axis_reaches_over_the_highest_column(highest: int) -> None:
    ticks = ticks_up_to(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest
    assert ticks[-1] > 0
    assert 2 <= len(ticks) <= 5
    assert ticks == sorted(set(ticks))
