"""The report: what it counts, what it points out, and that neither order nor malice changes it."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import FunctionType, ModuleType
from typing import Any

import pytest

from toucan_guard.audit.report import people
from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.hours import text_of_moment
from toucan_guard.audit.report.sections import told_seals
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.audit_event import completion_event
from toucan_guard.core.audit_line import encode_line

START = datetime(2026, 10, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
A, B = "https://a.example", "https://b.example"
CLAIMS = {
    "issuer": "https://host.example",
    "key_id": "k1",
    "token_id": "t1",
    "subject": "user-1",
    "tenant": "AA",
    "grants": ["dashboard:delays:view"],
    "rls_attributes": ["carrier"],
    "expires_in_seconds": 240.0,
}


@pytest.fixture
def event(traffic: Any) -> Callable[..., bytes]:
    """One line of the record, some time after the start."""

    def make(*, days: float = 0, **said: Any) -> bytes:
        return encode_line(traffic._event(START + timedelta(days=days), **said))

    return make


def _report(
    lines: Iterable[bytes], *, since: str | None = None, sealed: bool = False, key: bytes | None = None
) -> Report:
    gatherer = Gatherer(since=since, until=text_of_moment(NOW + timedelta(days=1)), files=["audit.jsonl"])
    verifier = ChainVerifier(key)
    for number, line in enumerate(lines, 1):
        gatherer.feed(line, file="audit.jsonl", number=number)
        if sealed:
            verifier.feed(line, file="audit.jsonl", number=number)
    return finish(gatherer, verifier.finish() if sealed else None, made=NOW)


def _kinds(report: Report) -> set[str]:
    return {notice.kind for notice in report.notices} - {"unsealed"}


@pytest.fixture(scope="module")
def month(traffic: Any) -> list[bytes]:
    return list(traffic.month(6_000))


def test_a_month_is_counted(month: list[bytes], traffic: Any) -> None:
    report = _report(month, sealed=True)
    assert report.totals.requests == sum(slot.requests for slot in report.timeline)
    assert report.totals.refused == sum(slot.refused for slot in report.timeline)
    assert report.totals.refused == sum(row.refused for row in report.reasons.rows)
    assert (report.unit, len(report.timeline)) == ("day", 31)
    assert {row.name for row in report.tenants.rows} == set(traffic.TENANTS)
    assert (report.integrity.state, report.integrity.chains, report.integrity.open_ended) == ("intact", 5, 1)
    assert report.source.bad == 0
    assert _kinds(report) == {
        "always_refused_site", "burst", "two_sites", "new_site", "wide_scope", "long_token", "report_only",
        "unused_key",
    }  # fmt: skip
    assert [(stranger.kind, stranger.name) for stranger in report.strangers] == [("site", traffic.PROBER)]
    assert not [notice for notice in report.notices if notice.level == "act"]
    (idle,) = [key for key in report.keys if key.unused_days >= 30]
    assert idle.key_id == "2025-legacy"
    assert [site.site for site in report.new_sites] == [traffic.NEW_SITE]
    assert traffic.TRAVELLER in {person.subject for person in report.travellers}
    assert report.bursts[0].site == "https://portal.northwind.example"


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_lines_and_files_changes_nothing(month: list[bytes], seed: int) -> None:
    shuffled = month[:]
    random.Random(seed).shuffle(shuffled)
    straight, other = _report(month), _report(shuffled)
    # Among equals, who is noted first depends on who came first; everything that is counted does not.
    ignored: dict[str, Any] = {"travellers": (), "notices": (), "scopes": (), "widest": (), "keys": ()}
    for name in ("reasons", "sites", "report_only"):
        for report in (straight, other):
            listing = getattr(report, name)
            assert all(row.count for row in listing.rows)
        kept = [(row.name, row.count, row.refused, row.first, row.last) for row in getattr(straight, name).rows]
        assert kept == [(row.name, row.count, row.refused, row.first, row.last) for row in getattr(other, name).rows]
        ignored[name] = straight.reasons
    bursts = [(burst.reason, burst.start, burst.count) for burst in straight.bursts]
    assert bursts == [(burst.reason, burst.start, burst.count) for burst in other.bursts]
    assert replace(straight, bursts=(), **ignored) == replace(other, bursts=(), **ignored)
    for name in ("scopes", "widest", "keys", "travellers"):
        assert len(getattr(straight, name)) == len(getattr(other, name))
    assert [(key.key_id, key.used, key.last) for key in straight.keys] == [
        (key.key_id, key.used, key.last) for key in other.keys
    ]


def test_since_counts_the_period_and_knows_what_was_before(event: Any) -> None:
    lines = [
        event(days=0, embedder=A, **CLAIMS),
        event(days=0, embedder=A, **{**CLAIMS, "key_id": "old"}),
        event(days=20, embedder=A, **CLAIMS),
        event(days=30.5, embedder=B, **CLAIMS),
    ]
    report = _report(lines, since="2026-10-15T00:00:00.000Z")
    assert (report.totals.requests, report.source.before, report.source.lines) == (2, 2, 4)
    assert [site.site for site in report.new_sites] == [B], "A was there before the period"
    assert {key.key_id: (key.used, key.unused_days) for key in report.keys} == {"old": (0, 30), "k1": (2, 0)}
    assert "unused_key" in _kinds(report)
    assert {row.name: row.count for row in report.sites.rows} == {A: 1, B: 1}


def test_since_beyond_the_record_says_so(event: Any) -> None:
    report = _report([event(embedder=A)], since="2026-10-20T00:00:00.000Z")
    assert (report.begins, report.ends, report.totals.requests, report.timeline) == (None, None, 0, ())
    assert report.newest == "2026-10-01T08:00:00.000Z"
    assert _report([]).newest is None


def test_nobody_is_new_in_a_record_that_has_just_begun(event: Any) -> None:
    report = _report([event(embedder=A), event(days=6, embedder=B)])
    assert (report.known_since, report.new_sites) == (None, ())


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        pytest.param({"outcome": "deny", "reason": "api_key_exposed"}, {"api_key_exposed"}, id="a key in a browser"),
        pytest.param({"dropped": 3}, {"dropped"}, id="decisions that were not written down"),
        pytest.param({**CLAIMS, "rls_attributes": []}, {"no_row_limit"}, id="a token without a limit on rows"),
        pytest.param({**CLAIMS, "grants": ["dashboard:*:view"]}, {"wide_scope"}, id="a token for every dashboard"),
        pytest.param({**CLAIMS, "grants": ["a:b:*:view"]}, {"wide_scope"}, id="a type with a colon"),
        pytest.param({**CLAIMS, "grants": ["dashboard:a*:view"]}, set(), id="a star in a name is a name"),
        pytest.param({**CLAIMS, "expires_in_seconds": 7_200.0}, {"long_token"}, id="a token of two hours"),
        pytest.param({"outcome": "error", "reason": "app_failed"}, {"failures"}, id="an app that fails"),
        pytest.param(
            {"outcome": "error", "reason": "store_unavailable"}, {"failures", "store_unavailable"}, id="no store"
        ),
        pytest.param(
            {"outcome": "deny", "reason": "store_unavailable"}, {"failures", "store_unavailable"}, id="no store, 503"
        ),
        pytest.param(
            {"outcome": "deny", "reason": "keys_unavailable"}, {"failures", "keys_unavailable"}, id="no keys"
        ),
        pytest.param(
            {"steps": [{"layer": "origin", "decision": "would_deny:origin_not_allowed"}], "outcome": "would_deny",
             "reason": "origin_not_allowed"},
            {"report_only"}, id="a rule on trial",
        ),
        pytest.param(
            {"steps": [{"layer": "revocation", "decision": "would_deny:store_unavailable"}], "outcome": "would_deny",
             "reason": "store_unavailable"},
            {"store_fail_open"}, id="nobody could ask whether it was withdrawn",
        ),
        pytest.param(CLAIMS, set(), id="nothing"),
    ],
)  # fmt: skip
def test_what_is_pointed_out(event: Any, said: dict[str, Any], kinds: set[str]) -> None:
    report = _report([event(**said)])
    assert _kinds(report) == kinds
    acting = {"api_key_exposed", "dropped"} & kinds
    assert {notice.kind for notice in report.notices if notice.level == "act"} == acting


def test_a_trial_counts_where_another_layer_refused(event: Any) -> None:
    steps = [
        {"layer": "origin", "decision": "would_deny:origin_not_allowed"},
        {"layer": "embed_token", "decision": "deny:token_expired"},
    ]
    report = _report([event(outcome="deny", reason="token_expired", steps=steps, origin=A)])
    assert [(row.name, row.count, row.notes) for row in report.report_only.rows] == [
        ("origin_not_allowed", 1, ((A, 1),))
    ]


@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        pytest.param({"embedder": A}, {"embedder": B}, True, id="two frames"),
        pytest.param({"origin": A}, {"embedder": B}, True, id="a call and a frame"),
        pytest.param({"embedder": A}, {"embedder": A}, False, id="one site"),
        pytest.param({"embedder": A}, {"origin": B, "fetch_site": "same-origin"}, False, id="our own page"),
        pytest.param({"embedder": A}, {"origin": B, "fetch_site": None}, False, id="the WebSocket of our own page"),
        pytest.param({"embedder": A}, {"embedder": B, "tenant": "BB"}, False, id="a namesake at another customer"),
        pytest.param({"embedder": A}, {}, False, id="a page that hides"),
    ],
)
def test_a_person_in_two_sites(event: Any, first: dict[str, Any], second: dict[str, Any], seen: bool) -> None:
    report = _report([event(**{**CLAIMS, **first}), event(days=1, **{**CLAIMS, **second})])
    assert [(person.subject, person.sites) for person in report.travellers] == ([("user-1", (A, B))] if seen else [])
    assert ("two_sites" in _kinds(report)) is seen


def test_an_api_key_is_told_from_a_signing_key(event: Any) -> None:
    steps = [{"layer": "api_key", "decision": "allow"}, {"layer": "token_service", "decision": "allow"}]
    lines = [event(steps=steps, **CLAIMS), event(embedder=A, **CLAIMS), event(**{**CLAIMS, "key_id": None})]
    keys = {key.key_id: (key.api_key, key.issued, key.used) for key in _report(lines).keys}
    assert keys == {"k1": (True, 1, 1), "": (False, 0, 1)}


def test_completions_and_open_paths_are_no_requests(event: Any) -> None:
    lines = [event(exempt=True), *(_completion(outcome) for outcome in ("error", "deny", "allow")), event()]
    report = _report(lines)
    assert (report.totals.requests, report.totals.exempt, report.totals.cut, report.totals.closed) == (1, 1, 1, 1)


def _completion(outcome: str = "allow", *tables: str, of: str = "d") -> bytes:
    return encode_line(
        completion_event(
            now=START.timestamp(), request_id="r", event_id="e", decision_id=of, outcome=outcome, reason=None,
            tables=dict.fromkeys(tables, "v"), dropped=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True], ids=["as it was written", "the other way round"])
def test_a_table_counts_once_for_a_request_whatever_its_completions_repeat(event: Any, backwards: bool) -> None:
    lines = [
        event(event_id="one", tables={"flights": "v"}),
        _completion("allow", "flights", "airports", of="one"),
        event(event_id="two", tables={"flights": "v"}),
        _completion("error", "flights", of="two"),
        event(event_id="three"),
        _completion("deny", "flights", of="three"),
    ]
    report = _report(reversed(lines) if backwards else lines)
    assert [(row.name, row.count) for row in report.tables.rows] == [("flights", 3), ("airports", 1)]


def test_lines_of_another_age_and_of_other_programs_are_told_and_not_counted(event: Any) -> None:
    report = _report([event(), event(days=400, embedder=B), event(days=-20_000), b"INFO: started\n", b"\n"])
    assert (report.totals.requests, report.source.misdated, report.source.bad) == (1, 2, 2)
    assert [(bad.file, bad.number) for bad in report.source.bad_lines] == [("audit.jsonl", 4), ("audit.jsonl", 5)]
    assert _kinds(report) == {"unreadable", "misdated"}
    assert report.begins == report.ends == "2026-10-01T08:00:00.000Z"


def test_a_record_that_was_changed_needs_somebody_to_act(month: list[bytes]) -> None:
    lines = [line.replace(b'"outcome":"deny"', b'"outcome":"allow"') for line in month]
    report = _report(lines, sealed=True)
    assert (report.integrity.state, report.notices[0].kind, report.notices[0].level) == ("tampered", "tampered", "act")
    assert report.integrity.findings[0].tampering


def test_a_record_without_seals_proves_nothing_and_is_no_evidence(event: Any) -> None:
    report = _report([event()], sealed=True)
    assert report.integrity.state == "unsealed"
    assert [(notice.kind, notice.level) for notice in report.notices] == [("unsealed", "look")]


def test_seals_that_are_all_damaged_are_evidence(month: list[bytes]) -> None:
    report = _report([line.replace(b'"seq"', b'"sek"') for line in month], sealed=True)
    assert report.integrity.state == "tampered"
    assert report.notices[0].level == "act"


def test_a_key_that_was_not_given_is_asked_for(traffic: Any) -> None:
    report = _report(traffic.month(100, key=b"k" * 32), sealed=True)
    assert (report.integrity.state, report.integrity.keyed) == ("unchecked", True)
    assert "unchecked" in _kinds(report)
    assert "a key that this report was not given" in told_seals(report.integrity)


def test_lines_that_fit_no_key_that_was_given_need_somebody_to_act(traffic: Any) -> None:
    known, unknown = (list(traffic.month(100, key=letter * 32)) for letter in (b"k", b"z"))
    report = _report([*known, *unknown], sealed=True, key=b"k" * 32)
    seals = report.integrity
    assert (seals.state, seals.unknown_lines, 2 * seals.unknown_chains) == ("unchecked", len(unknown), seals.chains)
    assert (report.notices[0].kind, report.notices[0].level) == ("unknown_key", "act")
    assert f"of {seals.lines:,} lines in {seals.chains} chains, {len(unknown)} lines in " in told_seals(seals)


def test_a_file_of_something_else_is_told_as_that(month: list[bytes]) -> None:
    gatherer = Gatherer(since=None, until=text_of_moment(NOW + timedelta(days=1)), files=["audit.jsonl", "notes.txt"])
    verifier = ChainVerifier()
    for file, lines in (("audit.jsonl", month[:50]), ("notes.txt", [b"remember the milk\n"])):
        for number, line in enumerate(lines, 1):
            gatherer.feed(line, file=file, number=number)
            verifier.feed(line, file=file, number=number)
    report = finish(gatherer, verifier.finish(), made=NOW)
    assert (report.integrity.state, report.integrity.unknown_lines) == ("unchecked", 0)
    assert "unchecked" in _kinds(report)
    assert "50 lines in 1 chain are as they were written. Of the rest nothing is known" in told_seals(report.integrity)


def _hostile(event: Any, numbers: range) -> Iterable[bytes]:
    """Every name in every line is new."""
    for number in numbers:
        names = {
            name: f"{name}-{number}" * 4
            for name in ("reason", "origin", "embedder", "issuer", "key_id", "token_id", "subject", "tenant", "region")
        }
        yield event(
            days=number % 9_000 / 300,
            outcome=("deny", "allow", "would_deny", "error")[number % 4],
            steps=[{"layer": "origin", "decision": f"would_deny:x_{number}"}],
            grants=[f"dashboard:d-{number}:view"],
            rls_attributes=[f"a-{number}"],
            tables={f"t-{number}": "v"},
            expires_in_seconds=number % 7_000,
            **names,
        )


def _bytes_held_by(thing: object) -> int:
    seen: set[int] = set()
    held, todo = 0, [thing]
    while todo:
        now = todo.pop()
        if id(now) in seen or isinstance(now, type | ModuleType | FunctionType):
            continue
        seen.add(id(now))
        held += sys.getsizeof(now)
        todo.extend(gc.get_referents(now))
    return held


def test_memory_does_not_grow_with_the_record(event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "_MOST_PEOPLE", 2_000)
    gatherer = Gatherer(since=None, until=text_of_moment(NOW + timedelta(days=1)))
    used = []
    for numbers in (range(6_000), range(6_000, 12_000)):
        for number, line in enumerate(_hostile(event, numbers), 1):
            gatherer.feed(line, file="x", number=number)
        used.append(_bytes_held_by(gatherer))
    full, after = used
    assert 2e6 < full < 30e6
    assert after < full * 1.25  # lists are halved when they are full, and grow again
    report = finish(gatherer, None, made=NOW)
    assert report.tenants.overflowed
    assert report.sites.overflowed
    assert report.scopes_overflowed
    assert report.keys_overflowed
    assert report.people_overflowed
    # What could not be kept apart is still counted.
    assert report.totals.requests == 12_000
    assert report.tenants.total == sum(row.count for row in report.tenants.rows) + report.tenants.others
