"""Every section counts the same requests: their sums agree with each other and with the events, whatever these are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.audit.report.figures import Listing, Report
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.page import page
from toucan_guard.core.audit_line import encode_line

START = datetime(2026, 10, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)

# What was asked for, as the record tells it apart; a chart, its data and a live feed are requests.
KINDS: dict[str, dict[str, Any]] = {
    "chart": {},
    "not modified": {"status": 304},
    "feed": {"kind": "websocket", "method": None, "status": 101},
    "options": {"method": "OPTIONS"},
    "preflights": {"method": "OPTIONS", "layer": "cors"},
    "redirects": {"status": 303, "layer": "bootstrap"},
    "exempt": {"exempt": True},
    "issued": {"method": "POST", "layer": "api_key"},
    "renewed": {"method": "POST", "layer": "token_service"},
}
REQUESTS = ("chart", "not modified", "feed", "options")
LET_IN = ("allow", "would_deny")
UNDECIDED = "store_unavailable"  # a refusal for want of the store is none: it counts as failed
RULES = ("grant_missing", "origin_not_allowed")

ASKED = st.fixed_dictionaries({
    "kind": st.sampled_from(list(KINDS)),
    "outcome": st.sampled_from(["allow", "allow", "deny", "deny", "would_deny", "error"]),
    "reason": st.sampled_from(["token_expired", "origin_not_allowed", "grant_missing", UNDECIDED]),
    "trials": st.lists(st.sampled_from(RULES), max_size=3),
    "embedder": st.sampled_from([None, "https://a.example", "https://b.example"]),
    "origin": st.sampled_from([None, "https://a.example", "https://c.example"]),
    "region": st.sampled_from([None, "eu-west", "us-east"]),
    "key_id": st.sampled_from(["k1", "k2", None]),
    "tenant": st.sampled_from(["AA", "BB", None]),
    "token": st.booleans(),
    "left": st.sampled_from([30.0, 600.0, 90_000.0]),
    "grants": st.sampled_from([["dashboard:delays:view"], ["dashboard:*:view"], []]),
    "rls": st.sampled_from([[], ["carrier"]]),
    "client": st.sampled_from(["192.0.2.1", "192.0.2.2"]),
    "minutes": st.integers(0, 60 * 24 * 20),
})  # fmt: skip


def _event(asked: dict[str, Any], traffic: Any, number: int) -> dict[str, Any]:
    said = dict(KINDS[asked["kind"]])
    layer = said.pop("layer", "embed_token")
    outcome = asked["outcome"]
    failed = {"deny": f"deny:{asked['reason']}"}.get(outcome, "allow")
    steps = [{"layer": "origin", "decision": f"would_deny:{rule}"} for rule in _trials(asked)]
    steps.append({"layer": layer, "decision": failed})
    if not said.get("status"):
        said["status"] = {"deny": 403, "error": 500}.get(outcome, 200)
    claims = {
        "issuer": "https://host.example", "key_id": asked["key_id"], "token_id": f"t{number}", "subject": "user-1",
        "tenant": asked["tenant"], "grants": asked["grants"], "rls_attributes": asked["rls"],
        "expires_in_seconds": asked["left"],
    }  # fmt: skip
    event: dict[str, Any] = traffic._event(
        START + timedelta(minutes=asked["minutes"]),
        **{
            "outcome": outcome,
            "reason": None if outcome == "allow" else asked["reason"],
            "steps": steps,
            "event_id": f"e{number}",
            "client": asked["client"],
            **{name: asked[name] for name in ("embedder", "origin", "region")},
            **said,
            **(claims if asked["token"] else {}),
        },
    )
    return event


def _trials(asked: dict[str, Any]) -> list[str]:
    """The rules on trial that a request broke, as often as it broke them."""
    trials: list[str] = asked["trials"]
    return trials if asked["outcome"] != "would_deny" or trials else ["grant_missing"]


def _is_request(asked: dict[str, Any]) -> bool:
    """A step beside a request leads to one where it was let in; refused or failed, it is all that came."""
    if asked["kind"] == "exempt":
        return False
    return asked["kind"] in REQUESTS or asked["outcome"] not in LET_IN


def _made(lines: Iterable[bytes]) -> Report:
    gatherer = Gatherer(since=None, until="2026-11-03T00:00:00Z", files=["audit.jsonl"])
    for number, line in enumerate(lines, 1):
        gatherer.feed(line, file="audit.jsonl", number=number)
    return finish(gatherer, None, made=NOW)


def _outcome(asked: dict[str, Any]) -> str:
    outcome: str = asked["outcome"]
    return "error" if (outcome, asked["reason"]) == ("deny", UNDECIDED) else outcome


def _outcomes(counted: Iterable[dict[str, Any]]) -> tuple[int, int, int]:
    """All, let in, refused."""
    outcomes = Counter(map(_outcome, counted))
    return outcomes.total(), outcomes["allow"] + outcomes["would_deny"], outcomes["deny"]


def _sums(listing: Listing) -> tuple[int, int, int]:
    rows = listing.rows
    assert listing.total == sum(row.count for row in rows)
    return listing.total, sum(row.let_in for row in rows), sum(row.refused for row in rows)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=st.lists(ASKED, max_size=40))
def test_the_sections_agree_with_the_events_and_with_each_other(traffic: Any, asked: list[dict[str, Any]]) -> None:
    report = _made(encode_line(_event(one, traffic, number)) for number, one in enumerate(asked))
    requests = [one for one in asked if _is_request(one)]
    totals = report.totals
    everything, let_in, refused = _outcomes(requests)

    assert (totals.requests, totals.let_in, totals.refused) == (everything, let_in, refused)
    assert totals.failed == everything - let_in - refused
    for beside in ("exempt", "preflights", "redirects", "issued", "renewed"):
        apart = [one for one in asked if one["kind"] == beside and not _is_request(one)]
        assert getattr(totals, beside) == len(apart), beside
    assert totals.refused_preflights == sum(one["kind"] == "preflights" and _outcome(one) == "deny" for one in requests)

    # Over time.
    slots = report.timeline
    assert sum(slot.requests for slot in slots) == everything
    assert (sum(slot.let_in for slot in slots), sum(slot.refused for slot in slots)) == (let_in, refused)

    # Reasons, web sites, regions.
    assert sum(row.refused for row in report.reasons.rows) == refused
    assert sum(row.failed for row in report.reasons.rows) == totals.failed
    named = [one for one in requests if one["embedder"] or one["origin"]]
    assert _sums(report.sites) == _outcomes(named)
    assert (totals.siteless, totals.refused_siteless) == (
        everything - report.sites.total, refused - _outcomes(named)[2],
    )  # fmt: skip
    assert _sums(report.regions) == _outcomes(one for one in requests if one["region"])

    # Tokens: keys, customers, scopes, time left.
    given = [one for one in requests if one["kind"] == "issued" and one["outcome"] != "deny"]
    with_token = [one for one in requests if one["token"] and one not in given]
    keys = report.keys
    assert (
        sum(key.used for key in keys), sum(key.let_in for key in keys), sum(key.refused for key in keys)
    ) == _outcomes(with_token)  # fmt: skip
    assert (totals.with_token, totals.let_in_with_token) == _outcomes(with_token)[:2]
    assert _sums(report.tenants) == _outcomes(one for one in with_token if one["tenant"])
    for counted in (
        sum(scope.count for scope in report.scopes),
        sum(scope.count for scope in report.widest),
        sum(count for _, count in report.lifetimes),
    ):
        assert counted == totals.let_in_with_token
    assert report.unlimited == sum(scope.count for scope in report.scopes if not scope.rls_attributes)
    issued = sum(key.issued for key in keys)
    assert issued == sum(one["kind"] == "issued" and one["token"] for one in asked if not _is_request(one))

    # Rules on trial.
    for rule in RULES:
        broke = [one for one in requests if rule in _trials(one)]
        rows = [row for row in report.report_only.rows if row.name == rule]
        assert [(row.count, row.let_in, row.refused) for row in rows] == ([_outcomes(broke)] if broke else [])
    assert totals.would_refuse == sum(one["outcome"] == "would_deny" for one in requests)

    # Whoever was refused every time, was.
    for stranger in report.strangers:
        assert stranger.count == sum(count for _, count in stranger.reasons) >= 5
        if stranger.kind == "site":
            there = [one for one in requests if (one["embedder"] or one["origin"]) == stranger.name]
            assert {_outcome(one) for one in there} == {"deny"}
            assert len(there) == stranger.count


class _Tables(HTMLParser):
    """The tables of a page by the beginning of their caption: headings, and rows of text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, list[list[str]]]] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append(("", []))
        elif tag == "tr":
            self.found[-1][1].append([])
        elif tag in ("th", "td"):
            self.found[-1][1][-1].append("")
        if tag in ("th", "td", "caption"):
            self._into = [tag]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "caption"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into == ["caption"]:
            caption, rows = self.found[-1]
            self.found[-1] = (caption + data, rows)
        elif self._into:
            self.found[-1][1][-1][-1] += data


def _column(tables: Sequence[tuple[str, list[list[str]]]], caption: str, title: str) -> int:
    ((heads, *rows),) = [rows for told, rows in tables if caption in told]
    place = heads.index(title)
    return sum(int(row[place].split("(")[0].split("%")[0].replace(",", "").removesuffix("every time")) for row in rows)


@pytest.fixture(scope="module")
def october(traffic: Any) -> tuple[Report, list[tuple[str, list[list[str]]]]]:
    report = _made(traffic.month(3_000))
    reader = _Tables()
    reader.feed(page(report))
    return report, reader.found


@pytest.mark.parametrize(
    ("caption", "title", "total"),
    [
        pytest.param("day by day", "Requests", "requests", id="over time: all"),
        pytest.param("day by day", "Let in", "let_in", id="over time: let in"),
        pytest.param("day by day", "Refused", "refused", id="over time: refused"),
        pytest.param("with a valid token, by key", "Requests", "with_token", id="keys: all"),
        pytest.param("with a valid token, by key", "Let in", "let_in_with_token", id="keys: let in"),
        pytest.param("day by day", "Failed", "failed", id="over time: failed"),
        pytest.param("with a valid token of theirs", "Requests", "with_token", id="customers: all"),
        pytest.param("with a valid token of theirs", "Let in", "let_in_with_token", id="customers: let in"),
        pytest.param("The widest scopes", "Let in", "let_in_with_token", id="scopes: let in"),
        pytest.param("still had to live when they let", "Let in", "let_in_with_token", id="time left: let in"),
    ],
)
def test_the_columns_of_the_page_add_up_to_what_it_says_at_the_top(
    october: tuple[Report, list[tuple[str, list[list[str]]]]], caption: str, title: str, total: str
) -> None:
    report, tables = october
    assert _column(tables, caption, title) == getattr(report.totals, total) > 0


def test_a_column_that_is_called_requests_stands_beside_what_was_let_in_or_refused(
    october: tuple[Report, list[tuple[str, list[list[str]]]]],
) -> None:
    """So that nobody takes all requests for those that were let in."""
    _, tables = october
    for caption, (heads, *_) in tables:
        if "Requests" in heads and not caption.startswith("Tables whose rows"):
            assert "Refused" in heads, caption
        if "Let in" in heads and "Requests" in heads:
            assert "Failed" in heads, "what is neither would be missing from the sum"
