"""Which lines of the record are requests for charts, and which are steps beside them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.headline import counting, headline, tiles
from toucan_guard.audit.report.kinds import is_fault, step_beside, steps_of
from toucan_guard.core.audit_line import encode_line

START = datetime(2026, 10, 1, 8, tzinfo=UTC)
CLAIMS = {"issuer": "https://host.example", "key_id": "k1", "token_id": "t1", "tenant": "AA"}
PREFLIGHT = {"method": "OPTIONS", "steps": [{"layer": "cors", "decision": "allow"}], "origin": "https://a.example"}
REFUSED = {"outcome": "deny", "reason": "origin_not_allowed", "status": 403}
NO = [{"layer": "cors", "decision": "deny:origin_not_allowed"}]
BOOTSTRAP = [{"layer": "embed_token", "decision": "allow"}, {"layer": "bootstrap", "decision": "allow"}]


@pytest.mark.parametrize(
    ("said", "beside"),
    [
        pytest.param({}, None, id="a chart"),
        pytest.param(PREFLIGHT, "preflights", id="a preflight"),
        pytest.param({"method": "OPTIONS"}, None, id="OPTIONS that is no preflight"),
        pytest.param({**PREFLIGHT, "method": "GET"}, None, id="a cross-site call that the same layer lets read"),
        pytest.param({"status": 303, "steps": BOOTSTRAP}, "redirects", id="into a frame"),
        pytest.param({"status": 307}, "redirects", id="to another address of the app"),
        pytest.param({"status": 304}, None, id="a chart that the browser has kept"),
        pytest.param({"steps": [{"layer": "api_key", "decision": "allow"}]}, "issued", id="a token is given"),
        pytest.param({"steps": [{"layer": "token_service", "decision": "allow"}]}, "renewed", id="a token is renewed"),
        pytest.param({"route": '"api_key"'}, None, id="a route that is called so"),
        pytest.param({"steps": "cors", "method": "OPTIONS"}, None, id="steps that are none"),
        pytest.param({"steps": ["cors", {"layer": "cors"}], "method": "OPTIONS"}, None, id="a step without a decision"),
        pytest.param({"status": "303"}, None, id="a status that is text"),
    ],
)
def test_a_step_beside_a_request_is_told_from_one(traffic: Any, said: dict[str, Any], beside: str | None) -> None:
    event = traffic._event(START, **said)
    assert step_beside(event, steps_of(event)) == beside


@pytest.mark.parametrize(
    ("reason", "status", "fault"),
    [
        pytest.param("store_unavailable", 503, True, id="the store did not answer"),
        pytest.param("keys_unavailable", 503, True, id="the keys could not be fetched"),
        pytest.param("audit_unavailable", 503, True, id="the record could not be written"),
        pytest.param("store_unavailable", 403, True, id="a WebSocket, whose refusals all have one status"),
        pytest.param("row_filter_missing", 500, True, id="a mistake in the app"),
        pytest.param("token_expired", 401, False, id="a token that has run out"),
        pytest.param("token_revoked", 503, False, id="a known reason decides, whatever the status"),
        pytest.param("x_maintenance", 503, True, id="a reason of the app's own, that says 503"),
        pytest.param("x_office_hours", 403, False, id="a reason of the app's own"),
        pytest.param("x_office_hours", "503", False, id="a status that is text"),
        pytest.param("unknown", None, False, id="no status"),
    ],
)
def test_a_fault_on_our_side_is_no_refusal(traffic: Any, reason: str, status: Any, fault: bool) -> None:
    said = {"outcome": "deny", "reason": reason, "status": status, "origin": "https://a.example", "region": "eu-west"}
    event = traffic._event(START, **said, **CLAIMS)
    assert is_fault(event, reason) is fault
    report = _report(traffic, {**said, **CLAIMS})
    assert (report.totals.refused, report.totals.failed) == (not fault, fault)
    for row in (*report.reasons.rows, *report.sites.rows, *report.tenants.rows, *report.regions.rows, *report.keys):
        assert (row.let_in, row.refused, row.failed) == (0, not fault, fault)


def test_a_live_feed_that_ended_because_the_store_did_not_answer_broke_off(traffic: Any) -> None:
    ended = {"event": "completion", "decision_id": "e", "outcome": "deny"}
    report = _report(traffic, {**ended, "reason": "store_unavailable"}, {**ended, "reason": "token_revoked"}, ended)
    assert (report.totals.cut, report.totals.closed) == (1, 2)


def test_a_request_is_on_trial_once_for_each_reason() -> None:
    steps = [
        {"layer": "origin", "decision": "would_deny:origin_not_allowed"},
        {"layer": "frame_ancestors", "decision": "would_deny:origin_not_allowed"},
        {"layer": "grant", "decision": "would_deny:grant_missing"},
        {"layer": "x", "decision": "would_deny:"},
        {"layer": "x", "decision": 3},
        "…",
    ]
    assert steps_of({"steps": steps}).trials == ("origin_not_allowed", "grant_missing", "unknown")
    assert steps_of({"steps": None}).trials == steps_of({}).trials == ()


def _report(traffic: Any, *said: dict[str, Any]) -> Any:
    gatherer = Gatherer(since=None, until="2026-11-03T00:00:00Z")
    for number, one in enumerate(said, 1):
        gatherer.feed(encode_line(traffic._event(START, **one)), file="x", number=number)
    return finish(gatherer, None, made=datetime(2026, 11, 2, tzinfo=UTC))


def test_who_opens_a_frame_once_is_counted_once(traffic: Any) -> None:
    frame = {"embedder": "https://a.example", **CLAIMS}
    report = _report(traffic, PREFLIGHT, {**frame, "status": 303, "steps": BOOTSTRAP}, frame)
    assert headline(report) == "1 request came in, and was not refused"
    assert (report.totals.preflights, report.totals.redirects) == (1, 1)
    assert [(row.name, row.count) for row in report.sites.rows] == [("https://a.example", 1)]
    assert [(row.name, row.count, row.let_in) for row in report.tenants.rows] == [("AA", 1, 1)]
    assert counting(report) == (
        "A request asks for a chart, its data or its live feed, and is let in, is refused or fails. Counted apart, as "
        "they show nothing: 1 redirect (a browser is sent on, as into a frame) and 1 preflight (a browser's question "
        "beforehand, whether it may ask)."
    )


def test_a_preflight_that_is_refused_is_all_that_comes_and_counts(traffic: Any) -> None:
    report = _report(traffic, {**PREFLIGHT, **REFUSED, "steps": NO}, {})
    assert headline(report) == "2 requests came in, and 1 (50.0%) was refused"
    assert (report.totals.preflights, report.totals.refused_preflights) == (0, 1)
    assert "1 was a preflight: the browser asked beforehand, and was told no" in counting(report)
    assert [(row.name, row.refused) for row in report.sites.rows] == [("https://a.example", 1)]


def test_a_key_that_only_opened_frames_was_used_all_the_same(traffic: Any) -> None:
    report = _report(traffic, {**CLAIMS, "status": 303, "steps": BOOTSTRAP})
    assert headline(report) == "No requests for charts came in"
    (key,) = report.keys
    assert (key.key_id, key.used, key.tenants, key.last) == ("k1", 0, ("AA",), "2026-10-01T08:00:00.000Z")
    assert (report.tenants.rows, report.sites.rows, report.scopes, report.new_sites) == ((), (), (), ())


def test_a_site_that_only_asked_beforehand_is_not_told_to_be_new(traffic: Any) -> None:
    gatherer = Gatherer(since="2026-10-01T07:00:00Z", until="2026-11-03T00:00:00Z")
    for number, (hours, said) in enumerate([(-2, {}), (0, PREFLIGHT), (1, {"origin": "https://b.example"})], 1):
        gatherer.feed(encode_line(traffic._event(START + timedelta(hours=hours), **said)), file="x", number=number)
    report = finish(gatherer, None, made=datetime(2026, 11, 2, tzinfo=UTC))
    assert [site.site for site in report.new_sites] == ["https://b.example"]
    assert report.totals.preflights == 1


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ("a", "1 request came in, and was not refused"),
        ("d", "1 request came in, and was refused"),
        ("aa", "2 requests came in, and none of them were refused"),
        ("dd", "2 requests came in, and all of them were refused"),
        ("aad", "3 requests came in, and 1 (33.3%) was refused"),
        ("add", "3 requests came in, and 2 (66.7%) were refused"),
        ("ae", "2 requests came in: none of them were refused, and 1 (50.0%) failed"),
        ("ade", "3 requests came in: 1 (33.3%) was refused, and 1 (33.3%) failed"),
        ("e", "1 request came in, and failed"),
        ("ee", "2 requests came in, and all of them failed"),
        ("a" * 100 + "e", "101 requests came in, and none of them were refused"),
    ],
)
def test_the_headline(traffic: Any, outcomes: str, told: str) -> None:
    kinds = {"a": {}, "d": REFUSED, "e": {"outcome": "error", "reason": "app_failed", "status": 500}}
    assert headline(_report(traffic, *(kinds[outcome] for outcome in outcomes))) == told


def test_the_numbers_at_the_top_are_all_there_is(traffic: Any) -> None:
    trial = {"outcome": "would_deny", "reason": "grant_missing"}
    report = _report(traffic, {}, trial, REFUSED, {"outcome": "error", "reason": "app_failed"}, PREFLIGHT)
    shown = {tile.label: (tile.value, tile.more) for tile in tiles(report)}
    assert shown["Let in"] == ("2", "50.0%")
    assert shown["On trial"] == ("1", "of those let in")
    assert (shown["Refused"], shown["Failed"]) == (("1", "25.0%"), ("1", "25.0%"))


def test_whom_the_store_could_not_be_asked_about_is_not_on_trial(traffic: Any) -> None:
    steps = [
        {"layer": "embed_token", "decision": "allow"},
        {"layer": "revocation", "decision": "would_deny:store_unavailable"},
    ]
    unasked = {"outcome": "would_deny", "reason": "store_unavailable", "steps": steps}
    trial = [*steps, {"layer": "grant", "decision": "would_deny:grant_missing"}]
    report = _report(traffic, unasked, {**unasked, "steps": trial}, {**REFUSED, "steps": [*steps, *NO]})
    assert (report.totals.allowed, report.totals.would_refuse, report.totals.unasked) == (1, 1, 2)
    assert [(row.name, row.let_in, row.refused) for row in report.report_only.rows] == [("grant_missing", 1, 0)]
