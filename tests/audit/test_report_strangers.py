"""Whoever was refused every time is told of, with what it could mean; nobody is who was let in once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from toucan_guard.audit.report.figures import Notice, Report
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.core.audit_line import encode_line

START = datetime(2026, 10, 1, 8, tzinfo=UTC)
EVIL = "https://evil.example"
STRANGE = {"origin": EVIL, "outcome": "deny", "reason": "origin_not_allowed"}
TENANT = {"issuer": "https://host.example", "key_id": "k1", "token_id": "t", "tenant": "Blue River Lines"}
BROKEN = {**TENANT, "outcome": "deny", "reason": "rls_missing"}


def _report(traffic: Any, *said: dict[str, Any], since: str | None = None) -> Report:
    gatherer = Gatherer(since=since, until="2026-11-03T00:00:00Z")
    for number, one in enumerate(said):
        event = traffic._event(START + timedelta(days=one.get("days", number / 1000)), **one)
        gatherer.feed(encode_line(event), file="x", number=number)
    return finish(gatherer, None, made=datetime(2026, 11, 2, tzinfo=UTC))


def _told(report: Report) -> Iterator[Notice]:
    return (notice for notice in report.notices if notice.kind.startswith("always_refused"))


def test_a_site_that_is_not_listed(traffic: Any) -> None:
    frame = {**STRANGE, "origin": None, "embedder": EVIL, "reason": "embedder_not_allowed"}
    (told,) = _told(_report(traffic, *[STRANGE] * 7, *[frame] * 5, {}))
    assert (told.kind, told.level) == ("always_refused_site", "look")
    assert told.title == "https://evil.example was refused every time (12)"
    assert told.text.startswith("It is not on the list of web sites that may show charts. The last time was on 1 Oct")
    assert "a new site, or somebody tries" in told.advice
    assert "ALLOWED_ORIGINS only if you know whose it is" in told.advice


def test_a_site_whose_tokens_have_a_fault_is_not_called_a_stranger(traffic: Any) -> None:
    late = {**STRANGE, "reason": "token_expired"}
    (told,) = _told(_report(traffic, *[late] * 6, *[{**late, "reason": "token_missing"}] * 2))
    assert told.title == "https://evil.example was refused every time (8)"
    assert told.text.startswith("6 of 8 times because: the token has run out")
    assert "ALLOWED_ORIGINS" not in told.advice


def test_a_customer(traffic: Any) -> None:
    (told,) = _told(_report(traffic, *[BROKEN] * 9))
    assert (told.kind, told.title) == ("always_refused_customer", "Blue River Lines was refused every time (9)")
    assert told.text.startswith("Each time because: the token does not say whose data to show")


def test_an_address_that_names_no_site(traffic: Any) -> None:
    alone = {"client": "198.51.100.7", "outcome": "deny", "reason": "token_missing"}
    (told,) = _told(_report(traffic, *[alone] * 20, {}))
    assert (told.kind, told.title) == ("always_refused_client", "1 address was refused every time")
    assert told.text.startswith("198.51.100.7 (20), naming no web site. Each time because: no token was sent")
    assert list(_told(_report(traffic, *[alone] * 19))) == []


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([STRANGE] * 4, id="four times is not often"),
        pytest.param([*[STRANGE] * 12, {"origin": EVIL}], id="let in once"),
        pytest.param([*[STRANGE] * 12, {"origin": EVIL, "outcome": "would_deny"}], id="let in on trial"),
        pytest.param([*[STRANGE] * 12, {"origin": EVIL, "outcome": "error"}], id="failed once"),
        pytest.param([*[BROKEN] * 12, TENANT], id="a customer that was let in once"),
        pytest.param(
            [*[{"outcome": "deny", "reason": "token_expired"}] * 30, {"status": 303}],
            id="an address that was sent on into a frame",
        ),
        pytest.param([{**STRANGE, "origin": f"https://{index}.example"} for index in range(30)], id="many, once each"),
    ],
)  # fmt: skip
def test_nobody_is_told_of(traffic: Any, said: list[dict[str, Any]]) -> None:
    assert list(_told(_report(traffic, *said))) == []


def test_an_address_is_not_told_of_beside_the_sites_that_it_named(traffic: Any) -> None:
    assert [told.kind for told in _told(_report(traffic, *[STRANGE] * 40))] == ["always_refused_site"]


def test_many_strangers_fill_no_page(traffic: Any) -> None:
    said = [{**STRANGE, "origin": f"https://s{index}.example"} for index in range(30) for _ in range(5 + index)]
    told = list(_told(_report(traffic, *said)))
    assert len(told) == 5
    assert told[0].title == "https://s29.example was refused every time (34)", "the most frequent first"
    assert told[-1].title == "26 more web sites were refused every time"


def test_a_stranger_that_is_new_is_told_of_once(traffic: Any) -> None:
    report = _report(
        traffic,
        {"days": 0},
        *[{**STRANGE, "days": 20}] * 12,
        {**STRANGE, "days": 20, "origin": "https://other.example"},
        since="2026-10-10T00:00:00Z",
    )
    kinds = {notice.kind: notice for notice in report.notices}
    assert EVIL in kinds["always_refused_site"].title
    assert EVIL not in kinds["new_site_refused"].text
    assert "https://other.example" in kinds["new_site_refused"].text


def test_a_site_that_may_have_been_let_go_for_want_of_room_is_not_accused(traffic: Any) -> None:
    early = [{"origin": EVIL}] * 3
    many = [{"origin": f"https://s{index}.example"} for index in range(12_000)]
    report = _report(traffic, *early, *many, *[STRANGE] * 12)
    assert report.sites.overflowed
    assert list(_told(report)) == []
