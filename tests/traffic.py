"""A month in the life of a guard, as its record would tell it: made up, and the same for every seed.

Eight customers and their sites by day and by week; viewers who come back late; a prober; a key that went out of use;
a new site in the last days; somebody who is seen in two sites. ``month`` gives the lines, linked and with a key or
without; ``python tests/traffic.py 40000 > october.jsonl`` writes them.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from toucan_guard.audit.chain import Chain
from toucan_guard.core.audit_event import close_event
from toucan_guard.core.audit_line import dump_json, encode_line

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 31

PROBER = "https://free-flight-charts.example"
NEW_SITE = "https://partners.blue-river.example"
TRAVELLER = "m.okafor"

TENANTS = {
    "Northwind Air": ("https://portal.northwind.example", 34, "eu-west"),
    "Blue River Lines": ("https://app.blue-river.example", 22, "eu-west"),
    "Harbour & Sons": ("https://intranet.harbour.example", 15, "eu-west"),
    "Kestrel Cargo": ("https://kestrel.example", 11, "us-east"),
    "Lagoon Travel": ("https://www.lagoon.example", 8, "us-east"),
    "Aurora Rail": ("https://aurora.example:8443", 6, "eu-west"),
    "Sámi Skies": ("https://xn--smi-ela.example", 3, "eu-west"),
    "Old Town Tours": ("https://oldtown.example", 1, "us-east"),
}
GRANTS = (
    (["dashboard:delays:view"], ["carrier"], 60),
    (["dashboard:delays:view", "dashboard:routes:view"], ["carrier"], 25),
    (["dashboard:delays:view,export", "dashboard:routes:view,export"], ["airports", "carrier"], 10),
    (["dashboard:*:view"], ["carrier"], 4),
    (["dashboard:*:view,export,share", "report:*:view"], ["carrier", "region"], 1),
)
REFUSALS = (
    ("token_expired", 46),
    ("token_missing", 16),
    ("grant_missing", 12),
    ("session_unknown", 9),
    ("rls_attribute_missing", 6),
    ("tenant_origin_not_allowed", 4),
    ("token_spent", 4),
    ("signature_invalid", 2),
    ("region_mismatch", 1),
)
_UNVERIFIED = {"token_expired", "token_missing", "session_unknown", "token_spent", "signature_invalid"}
_STATUS = {"token_expired": 401, "token_missing": 401, "session_unknown": 401, "token_spent": 401}


def month(requests: int, *, seed: int = 7, key: bytes | None = None) -> Iterator[bytes]:
    """The lines of October 2026, about as many as there are requests, in the order in which they were written."""
    chance = random.Random(seed)
    now = START
    chain = Chain(key, settings="5f0c1d2e3b4a5968", dump=dump_json, clock=lambda: now.timestamp())  # noqa: PLW0108 - `now` moves

    yield chain.link(chain.begin())
    for day in range(DAYS):
        events = sorted(
            _day(chance, START + timedelta(days=day), requests / DAYS, day), key=lambda event: event["time"]
        )
        for event in events:
            yield chain.link(event)
        if day % 7 == 6:  # a new version every week
            now = START + timedelta(days=day, hours=23, minutes=59)
            yield chain.link(close_event(now=now.timestamp(), dropped=0))
            chain.end()
            yield chain.link(chain.begin())


NAMES = (
    "reason", "detail", "route", "method", "origin", "embedder", "fetch_site", "fetch_dest", "issuer", "key_id",
    "token_id", "subject", "tenant", "region", "client", "policy_version", "trace_id", "kind",
)  # fmt: skip


def naughty(strings: Iterable[str]) -> Iterator[bytes]:
    """Each string in every place of the record that holds text: refused, let pass, on trial, failed; and by itself."""
    for index, string in enumerate(strings):
        for day, outcome in enumerate(("deny", "allow", "would_deny", "error")):
            yield encode_line(
                _event(
                    START + timedelta(days=day * 7, seconds=index),
                    outcome=outcome,
                    steps=[{"layer": string, "decision": f"would_deny:{string}"}],
                    grants=[string, f"{string}:*:{string}"],
                    rls_attributes=[string],
                    tables={string: string},
                    expires_in_seconds=90_000 - index,
                    **{**dict.fromkeys(NAMES, string), "embedder": f"{string}{day // 2}"},
                )
            )
        yield string.encode("utf-8", "surrogatepass")


def _day(chance: random.Random, start: datetime, requests: float, day: int) -> Iterator[dict[str, Any]]:
    weekend = start.weekday() >= 5
    for _ in range(round(requests * (0.35 if weekend else 1.25) * chance.uniform(0.92, 1.08))):
        moment = start + timedelta(seconds=_second_of_day(chance))
        yield _request(chance, moment, day)
    for _ in range(24):
        yield _event(start + timedelta(hours=_, minutes=7), exempt=True, route="/healthz", kind="http")
    if day == 12:  # a release that no longer renews its tokens
        for _ in range(round(requests * 0.11) + 40):
            moment = start + timedelta(hours=9, seconds=chance.uniform(0, 5_400))
            yield _refused("token_expired", moment, embedder="https://portal.northwind.example")
    if day in (21, 22):
        for _ in range(round(requests * 0.02) + 30):
            moment = start + timedelta(hours=2, seconds=chance.uniform(0, 7_200))
            yield _refused("embedder_not_allowed", moment, embedder=PROBER, steps="origin")
    if day == 18:
        for index in range(3):
            yield _event(
                start + timedelta(hours=11, minutes=index),
                outcome="error", reason="app_failed", status=500, embedder="https://kestrel.example",
                **_claims(chance, "Kestrel Cargo", "2026-q3"),
            )  # fmt: skip
    if day >= 28:
        for index in range(4):
            moment = start + timedelta(hours=10 + index)
            yield _event(moment, embedder=NEW_SITE, **_claims(chance, "Blue River Lines", "2026-q4"))
    if day in (5, 16):
        for tenant, site in (("Harbour & Sons", "https://intranet.harbour.example"), ("Harbour & Sons", PROBER)):
            outcome = "deny" if site == PROBER else "allow"
            yield _event(
                start + timedelta(hours=15, minutes=2),
                outcome=outcome, reason="token_origin_not_allowed" if outcome == "deny" else None,
                status=403 if outcome == "deny" else 200, embedder=site,
                **{**_claims(chance, tenant, "2026-q4"), "subject": TRAVELLER},
            )  # fmt: skip


def _second_of_day(chance: random.Random) -> float:
    while True:
        hour = chance.uniform(0, 24)
        if chance.random() < 0.06 + 0.94 * max(0.0, math.sin((hour - 6) / 14 * math.pi)) ** 1.4:
            return hour * 3_600


def _request(chance: random.Random, moment: datetime, day: int) -> dict[str, Any]:
    tenant = chance.choices(list(TENANTS), [weight for _, weight, _ in TENANTS.values()])[0]
    site, _, region = TENANTS[tenant]
    key = "2026-q3" if chance.random() < 0.4 else "2026-q4"
    if day == 0 and moment.hour < 12 and chance.random() < 0.3:
        key = "2025-legacy"
    claims = _claims(chance, tenant, key)
    where = {"embedder": site} if chance.random() < 0.7 else {"origin": site, "fetch_dest": "empty"}
    if chance.random() < 0.021:
        reason = chance.choices([name for name, _ in REFUSALS], [weight for _, weight in REFUSALS])[0]
        return _refused(reason, moment, region=region, **where, **({} if reason in _UNVERIFIED else claims))
    if chance.random() < 0.004:
        steps = [{"layer": "origin", "decision": "allow"}, {"layer": "grant", "decision": "would_deny:grant_missing"}]
        return _event(
            moment, outcome="would_deny", reason="grant_missing", steps=steps, region=region, **where, **claims
        )
    return _event(moment, region=region, tables={"flights": "5161ee39691c2ddf"}, **where, **claims)


def _claims(chance: random.Random, tenant: str, key: str) -> dict[str, Any]:
    grants, attributes, _ = chance.choices(GRANTS, [weight for _, _, weight in GRANTS])[0]
    long = tenant == "Kestrel Cargo" and chance.random() < 0.02
    return {
        "issuer": "https://sign-in.charts.example",
        "key_id": key,
        "token_id": f"{chance.getrandbits(96):024x}",
        "subject": f"viewer-{chance.randrange(1, 400)}@{tenant.split(maxsplit=1)[0].lower()}",
        "tenant": tenant,
        "grants": grants,
        "rls_attributes": attributes,
        "expires_in_seconds": round(chance.uniform(18_000, 28_000) if long else chance.triangular(20, 3_600, 280), 3),
    }


def _refused(reason: str, moment: datetime, *, steps: str = "embed_token", **said: Any) -> dict[str, Any]:
    decided = [{"layer": steps, "decision": f"deny:{reason}"}]
    return _event(moment, outcome="deny", reason=reason, status=_STATUS.get(reason, 403), steps=decided, **said)


def _event(moment: datetime, **said: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "event": "decision",
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_id": f"019a{round(moment.timestamp() * 1000):012x}",
        "request_id": f"019b{round(moment.timestamp() * 1000):012x}",
        "trace_id": None,
        "outcome": "allow",
        "reason": None,
        "detail": None,
        "steps": [{"layer": "origin", "decision": "allow"}, {"layer": "embed_token", "decision": "allow"}],
        "kind": "http",
        "method": "GET",
        "route": "/dashboards/{dashboard_id}",
        "status": 200,
        "first_byte_ms": 12.5,
        "origin": None,
        "embedder": None,
        "fetch_site": "cross-site",
        "fetch_dest": "iframe",
        "issuer": None,
        "key_id": None,
        "token_id": None,
        "subject": None,
        "tenant": None,
        "grants": [],
        "expires_in_seconds": None,
        "rls_attributes": [],
        "policy_version": "5161ee39691c2ddf",
        "tables": {},
        "region": None,
        "client": "192.0.2.7",
        "exempt": False,
        **said,
    }


if __name__ == "__main__":
    sys.stdout.buffer.writelines(month(int(sys.argv[1])))
