"""The scenes that --check plays against the running servers: who gets what, who is refused, and why.

A scene is a function that does something and returns the last answer. Its decorator
says what the answer must be; the audit file must say the same, in one line for every
request that reached the guard.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import urlencode

import jwt
from console import say, table
from demo import Demo
from portal import AUDIENCE, ISSUER, Portal
from truth import count_in_raw_data
from visitor import Answer, Visitor

from toucan_guard.core.decisions import EXPLANATIONS, Reason

JFK = "JFK"


class SceneFailedError(AssertionError):
    """Something that a scene looked at is not as it should be."""


@dataclass(frozen=True)
class Scene:
    """What is played, and what must come of it. `reason` None: it is allowed."""

    title: str
    status: int
    reason: Reason | None
    act: Callable[[Stage], Answer]


SCENES: list[Scene] = []


def scene(
    title: str, *, status: int = 200, reason: Reason | None = None
) -> Callable[[Callable[[Stage], Answer]], None]:
    """Put a function on the programme."""

    def enter(act: Callable[[Stage], Answer]) -> None:
        SCENES.append(Scene(title, status, reason, act))

    return enter


class Stage:
    """What a scene plays with: the demo, a fresh browser, true counts, and a workshop for bad tokens."""

    def __init__(self, demo: Demo, truth: dict[tuple[str, str], int]) -> None:
        self.demo, self._truth = demo, truth
        self.visitors: list[Visitor] = []
        self.visitor = self.another_visitor()
        self.api = f"{demo.viz}/api/dashboards/delays"
        self.data = f"{self.api}/data"
        self.page = f"{demo.viz}/dashboards/delays"

    def another_visitor(self) -> Visitor:
        """A second browser, which shares nothing with the first."""
        self.visitors.append(Visitor())
        return self.visitors[-1]

    def requests_to_the_guard(self) -> int:
        """How many requests of this scene went to the chart server."""
        guarded = self.demo.viz.partition("//")[2]
        return sum(visitor.sent.count(guarded) for visitor in self.visitors)

    def flights(self, carrier: str, origin: str | None = None) -> int:
        """How many flights there really are, counted on the raw data without any of the code under test."""
        return sum(n for (c, o), n in self._truth.items() if c == carrier and origin in (None, o))

    def forge(self, *, kid: str = "united-1", alg: str = "ES256", **claims: Any) -> str:
        """A token written by hand with PyJWT; a claim of None is left out."""
        now = int(time.time())
        whole = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "UA-network",
            "jti": base64.b32encode(str(time.time_ns()).encode()).decode(),
            "iat": now,
            "exp": now + 300,
            "ver": 1,
            "tenant": "UA",
            "grants": [{"type": "dashboard", "id": "delays", "actions": ["view"]}],
            "rls": {"carrier": "UA", "airports": ["EWR", "JFK", "LGA"]},
            **claims,
        }
        signing = jwt.PyJWK(dict(self.demo.signing_keys["UA"]))
        return jwt.encode(
            {name: value for name, value in whole.items() if value is not None},
            "" if alg == "none" else signing,
            algorithm=alg,
            headers={"kid": kid, "typ": "embed+jwt"},
        )

    def frames(self, portal: Portal) -> list[str]:
        """The addresses of the frames in a portal's page, fetched as a visitor gets it."""
        page = self.visitor.navigate(f"{portal.origin}/", embedder=None, nested=False)
        check(page.status == 200, f"the portal answered {page.status}")
        return [unescape(src) for src in re.findall(r'<iframe [^>]*src="([^"]+)"', page.body)]


def check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like an assertion
    """Fail the scene with a sentence."""
    if not holds:
        raise SceneFailedError(otherwise)


def framed_by(answer: Answer) -> str:
    """Who may frame this answer, as the guard's own header says."""
    policy = answer.headers.get("content-security-policy", "")
    found = re.findall(r"frame-ancestors ([^;,]*)", policy)
    return str(found[-1]).strip() if found else "anybody"


# --- What is allowed -----------------------------------------------------------------------------


@scene("a portal's frame opens, for that portal alone")
def frame_opens(stage: Stage) -> Answer:
    united = stage.demo.united
    answer, address = stage.visitor.open_frame(stage.frames(united)[0], embedder=united.origin)
    check("embed_token" not in address, "the pass stayed in the address")
    check(framed_by(answer) == united.origin, f"frame-ancestors says {framed_by(answer)}")
    return answer


def _own_flights_only(stage: Stage, portal: Portal) -> Answer:
    carrier = portal.airline.carrier
    _, page = stage.visitor.open_frame(stage.frames(portal)[0], embedder=portal.origin)
    answer = stage.visitor.fetch_in_frame(
        page.replace("/dashboards/", "/api/dashboards/").replace("?", "/data?"), page=page
    )
    check(answer.json.get("flights") == stage.flights(carrier), f"{answer.json.get('flights')} flights were counted")
    check(answer.json.get("carriers") == [carrier], f"airlines in view: {answer.json.get('carriers')}")
    return answer


@scene("United's frame counts United's flights and no others")
def united_rows(stage: Stage) -> Answer:
    return _own_flights_only(stage, stage.demo.united)


@scene("Delta's frame counts Delta's flights and no others")
def delta_rows(stage: Stage) -> Answer:
    return _own_flights_only(stage, stage.demo.delta)


@scene("two people in one page do not mix")
def two_people(stage: Stage) -> Answer:
    united = stage.demo.united
    pages = [stage.visitor.open_frame(url, embedder=united.origin)[1] for url in stage.frames(united)]
    answers = [
        stage.visitor.fetch_in_frame(f"{stage.data}?{page.partition('?')[2]}", page=page) for page in (*pages, pages[0])
    ]
    counted = [answer.json.get("flights") for answer in answers]
    whole, station = stage.flights("UA"), stage.flights("UA", JFK)
    check(counted == [whole, station, whole], f"{counted} flights were counted")
    check(answers[1].json.get("airports") == [JFK], f"airports in view: {answers[1].json.get('airports')}")
    return answers[1]


@scene("the web component reads its numbers across origins")
def web_component(stage: Stage) -> Answer:
    delta = stage.demo.delta
    desk = stage.visitor.request(
        "POST", f"{delta.origin}/embed/token?as=network", {"sec-fetch-site": "same-origin", "origin": delta.origin}
    )
    answer = stage.visitor.fetch_from(delta.origin, stage.data, token=desk.json["token"])
    check(answer.json.get("flights") == stage.flights("DL"), f"{answer.json.get('flights')} flights were counted")
    check(answer.headers.get("access-control-allow-origin") == delta.origin, "its page may not read the answer")
    check("access-control-allow-credentials" not in answer.headers, "cookies were invited across origins")
    return answer


@scene("a preflight of a listed origin is answered by the guard")
def preflight(stage: Stage) -> Answer:
    origin = stage.demo.united.origin
    answer = stage.visitor.fetch_from(
        origin,
        stage.data,
        method="OPTIONS",
        access_control_request_method="GET",
        access_control_request_headers="authorization",
    )
    check(answer.headers.get("access-control-allow-origin") == origin, "the origin is not allowed")
    check("flights" not in answer.body, "the app answered")
    return answer


@scene("a query that is written as text sees the same flights")
def raw_sql(stage: Stage) -> Answer:
    delta = stage.demo.delta
    answer = stage.visitor.fetch_from(delta.origin, f"{stage.api}/busiest", token=delta.token("network"))
    check(answer.json.get("flights") == stage.flights("DL"), f"{answer.json.get('flights')} flights were counted")
    return answer


def _ask(stage: Stage, sql: str) -> Answer:
    united = stage.demo.united
    question = f"{stage.api}/ask?{urlencode({'sql': sql})}"
    return stage.visitor.fetch_from(united.origin, question, token=united.token("network"))


@scene("an analyst's own SQL counts United's flights, whatever it says")
def own_sql(stage: Stage) -> Answer:
    answer = _ask(
        stage, "SELECT carrier, count(*) FROM flights WHERE 1 = 1 OR carrier = 'DL' -- GROUP\nGROUP BY carrier"
    )
    check(answer.json.get("rows") == [["UA", stage.flights("UA")]], f"it counted {answer.json.get('rows')}")
    return answer


@scene("SQL that asks for every flight gets the first of them, and is told so")
def too_many_rows(stage: Stage) -> Answer:
    answer = _ask(stage, "SELECT month, day, flight FROM flights")
    check(len(answer.json.get("rows", [])) == 500, f"{len(answer.json.get('rows', []))} rows came")
    check(answer.json.get("truncated") is True, "nobody said that there are more")
    return answer


@scene("SQL that asks for the database's own tables", status=400)
def catalogue(stage: Stage) -> Answer:
    return _ask(stage, "SELECT * FROM sqlite_master UNION SELECT * FROM pg_class")


@scene("SQL that asks for a column that nobody is shown", status=400)
def hidden_column(stage: Stage) -> Answer:
    return _ask(stage, "SELECT max(tailnum) FROM flights")


@scene("SQL that changes something", status=400)
def changing_sql(stage: Stage) -> Answer:
    return _ask(stage, "DELETE FROM flights")


@scene("the live feed plays a day of the airline", status=101)
def live_feed(stage: Stage) -> Answer:
    united = stage.demo.united
    _, page = stage.visitor.open_frame(stage.frames(united)[1], embedder=united.origin)
    feed = f"{stage.demo.viz}/live/delays?{page.partition('?')[2]}"
    answer = stage.visitor.listen(feed, origin=stage.demo.viz)
    check(answer.json.get("viewer") == "UA-station", f"it played for {answer.json.get('viewer')}")
    return answer


@scene("a health check needs no pass")
def health(stage: Stage) -> Answer:
    return stage.visitor.fetch_from(None, f"{stage.demo.viz}/healthz")


# --- Passes that are not good --------------------------------------------------------------------


@scene("no pass", status=401, reason=Reason.TOKEN_MISSING)
def no_token(stage: Stage) -> Answer:
    return stage.visitor.fetch_from(stage.demo.united.origin, stage.data)


def _bearer(stage: Stage, token: str) -> Answer:
    return stage.visitor.fetch_from(stage.demo.united.origin, stage.data, token=token)


@scene("an expired pass", status=401, reason=Reason.TOKEN_EXPIRED)
def expired(stage: Stage) -> Answer:
    now = int(time.time())
    return _bearer(stage, stage.forge(iat=now - 600, exp=now - 300))


@scene("a pass with its airline changed by hand", status=401, reason=Reason.SIGNATURE_INVALID)
def tampered(stage: Stage) -> Answer:
    header, _, signature = stage.forge().split(".")
    payload = stage.forge(tenant="DL", rls={"carrier": "DL", "airports": ["EWR", "JFK", "LGA"]}).split(".")[1]
    return _bearer(stage, f"{header}.{payload}.{signature}")


@scene("a pass for another service", status=401, reason=Reason.AUDIENCE_NOT_ALLOWED)
def wrong_audience(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(aud="another-service"))


@scene("a pass that says it needs no signature (alg: none)", status=401, reason=Reason.TOKEN_MALFORMED)
def algorithm_none(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(alg="none"))


@scene("the same, with some signature left in its place", status=401, reason=Reason.ALGORITHM_NOT_ALLOWED)
def algorithm_none_signed(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(alg="none") + stage.forge().rpartition(".")[2])


@scene("a pass signed with a key that nobody knows", status=401, reason=Reason.KEY_UNKNOWN)
def unknown_key(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(kid="somebody-else"))


@scene("a pass that says nothing about rows", status=403, reason=Reason.RLS_MISSING)
def no_rls(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(rls=None))


@scene("a pass with a mistyped attribute", status=403, reason=Reason.RLS_ATTRIBUTE_UNKNOWN)
def unknown_attribute(stage: Stage) -> Answer:
    rls = {"carrier": "UA", "airports": ["EWR", "JFK", "LGA"], "airport": "JFK"}
    return _bearer(stage, stage.forge(rls=rls))


@scene("a pass that forgot its airports", status=403, reason=Reason.RLS_ATTRIBUTE_MISSING)
def missing_attribute(stage: Stage) -> Answer:
    return _bearer(stage, stage.forge(rls={"carrier": "UA"}))


@scene("a pass for another dashboard", status=403, reason=Reason.GRANT_MISSING)
def other_dashboard(stage: Stage) -> Answer:
    routes = f"{stage.demo.viz}/api/dashboards/routes/data"
    return stage.visitor.fetch_from(stage.demo.united.origin, routes, token=stage.demo.united.token("station"))


@scene("two passes at once", status=400, reason=Reason.CREDENTIALS_REPEATED)
def two_tokens(stage: Stage) -> Answer:
    united = stage.demo.united
    more = {"x_embed_token": united.token("station")}
    return stage.visitor.fetch_from(united.origin, stage.data, token=united.token("network"), **more)


@scene("a frame's pass used for something else", status=401, reason=Reason.TOKEN_TYPE_NOT_ALLOWED)
def bootstrap_as_bearer(stage: Stage) -> Answer:
    return _bearer(stage, stage.demo.united.frame_address("network", "delays").partition("=")[2])


# --- Pages that may not ask ----------------------------------------------------------------------


@scene("a fetch from a site that is not on the list", status=403, reason=Reason.ORIGIN_NOT_ALLOWED)
def wrong_origin(stage: Stage) -> Answer:
    answer = stage.visitor.fetch_from(stage.demo.stranger, stage.data, token=stage.demo.united.token("network"))
    check("access-control-allow-origin" not in answer.headers, "the stranger may read the answer")
    return answer


@scene("United's pass on Delta's site", status=403, reason=Reason.TENANT_ORIGIN_NOT_ALLOWED)
def other_portal(stage: Stage) -> Answer:
    return stage.visitor.fetch_from(stage.demo.delta.origin, stage.data, token=stage.demo.united.token("network"))


@scene("a POST from a site that is not on the list", status=403, reason=Reason.ORIGIN_NOT_ALLOWED)
def cross_origin_post(stage: Stage) -> Answer:
    token = stage.demo.united.token("network")
    return stage.visitor.fetch_from(stage.demo.stranger, stage.data, token=token, method="POST")


@scene("a preflight from a site that is not on the list", status=403, reason=Reason.ORIGIN_NOT_ALLOWED)
def wrong_preflight(stage: Stage) -> Answer:
    return stage.visitor.fetch_from(
        stage.demo.stranger, stage.data, method="OPTIONS", access_control_request_method="GET"
    )


@scene("OPTIONS that is no preflight, without a pass", status=401, reason=Reason.TOKEN_MISSING)
def bare_options(stage: Stage) -> Answer:
    return stage.visitor.fetch_from(stage.demo.united.origin, stage.data, method="OPTIONS")


@scene("a frame in a site that is not on the list", status=403, reason=Reason.EMBEDDER_NOT_ALLOWED)
def wrong_embedder(stage: Stage) -> Answer:
    answer = stage.visitor.navigate(stage.demo.united.frame_address("network", "delays"), embedder=stage.demo.stranger)
    check(framed_by(answer) == "'none'", f"frame-ancestors says {framed_by(answer)}")
    return answer


@scene("a frame that hides where it is", status=403, reason=Reason.EMBEDDER_UNKNOWN)
def hidden_embedder(stage: Stage) -> Answer:
    headers = {
        "accept": "text/html",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "iframe",
    }
    return stage.visitor.request("GET", stage.demo.united.frame_address("network", "delays"), headers)


@scene("a hostile frame inside an allowed page", status=403, reason=Reason.EMBEDDER_NOT_ALLOWED)
def hostile_frame(stage: Stage) -> Answer:
    # The page at the top is United's; the frame in it is not, and navigates a frame of its own to a chart.
    united = stage.demo.united
    stage.visitor.open_frame(stage.frames(united)[0], embedder=united.origin)
    loot = united.frame_address("station", "delays")
    refused = stage.visitor.navigate(loot, embedder=stage.demo.stranger)
    check("set-cookie" not in refused.headers, "it planted a session")
    check(framed_by(refused) == "'none'", f"frame-ancestors says {framed_by(refused)}")
    opened, _ = stage.visitor.open_frame(loot, embedder=united.origin)
    check(opened.status == 200, "the refused attempt spent the pass of its owner")
    return stage.visitor.navigate(loot, embedder=stage.demo.stranger)


@scene("a frame's address copied to another browser", status=401, reason=Reason.TOKEN_SPENT)
def copied_address(stage: Stage) -> Answer:
    united = stage.demo.united
    address = stage.frames(united)[0]
    stage.visitor.open_frame(address, embedder=united.origin)
    again, _ = stage.visitor.open_frame(address, embedder=united.origin)
    check(again.status == 200, f"its own browser got {again.status} when it went back to the address")
    return stage.another_visitor().navigate(address, embedder=united.origin)


@scene("an open chart's cookie, used by another page", status=401, reason=Reason.SESSION_NOT_SAME_ORIGIN)
def foreign_cookie(stage: Stage) -> Answer:
    united = stage.demo.united
    _, page = stage.visitor.open_frame(stage.frames(united)[0], embedder=united.origin)
    return stage.visitor.fetch_from(united.origin, f"{stage.data}?{page.partition('?')[2]}")


@scene("a live feed from a site that is not on the list", status=403, reason=Reason.ORIGIN_NOT_ALLOWED)
def cross_origin_socket(stage: Stage) -> Answer:
    feed = f"{stage.demo.viz}/live/delays"
    return stage.visitor.listen(feed, origin=stage.demo.stranger, token=stage.demo.united.token("network"))


@scene("the app crashes: still framed by nobody else, still on record", status=500, reason=Reason.APP_FAILED)
def crash(stage: Stage) -> Answer:
    united = stage.demo.united
    answer = stage.visitor.fetch_from(united.origin, f"{stage.demo.viz}/crash", token=united.token("network"))
    check(framed_by(answer) == united.origin, f"frame-ancestors says {framed_by(answer)}")
    check("this endpoint always fails" not in answer.body, "the exception's text left the house")
    return answer


# --- The play ------------------------------------------------------------------------------------


def play(demo: Demo) -> bool:
    """Play every scene and print the table. True where everything was as it should be."""
    say("Counting the flights of each airline in the raw data…")
    truth = count_in_raw_data()
    rows, bad = [], []
    for entry in SCENES:
        stage = Stage(demo, truth)
        seen = _size(demo)
        request, got, wrong = "", "nothing", ""
        try:
            answer = entry.act(stage)
            request, got = answer.request, " ".join(filter(None, (str(answer.status), answer.reason)))
            wrong = _judge(entry, answer, _decisions(demo, seen), requests=stage.requests_to_the_guard())
        except SceneFailedError as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the other scenes are played too
            wrong = f"{type(error).__name__}: {error}"
        finally:
            for visitor in stage.visitors:
                visitor.close()
        expected = " ".join(filter(None, (str(entry.status), entry.reason)))
        why = EXPLANATIONS[entry.reason].title if entry.reason else "allowed"
        rows.append((entry.title, request, expected, got, f"WRONG: {wrong}" if wrong else why))
        bad.append(bool(wrong))
    leaks = _tokens_in(demo)
    say()
    table("Scenes against the running servers", ("Scene", "Request", "Expected", "Got", "Reason"), rows, bad=bad)
    say()
    say(f"{len(rows) - sum(bad)} of {len(rows)} scenes as expected, each with its audit line.")
    if leaks:
        say(f"WRONG: {leaks} audit lines carry a token.", style="bold red")
    return not any(bad) and not leaks


def _judge(entry: Scene, answer: Answer, decisions: list[dict[str, Any]], *, requests: int) -> str:
    """What is wrong with an answer and its audit line; empty for nothing."""
    if answer.status != entry.status:
        return f"the status is {answer.status}"
    # A crash is told in the app's own words, and a WebSocket without a body in none.
    if entry.reason and answer.reason not in (entry.reason, None):
        return f"the reason is {answer.reason}"
    if len({decision["request_id"] for decision in decisions}) != requests or len(decisions) != requests:
        return f"{requests} requests left {len(decisions)} audit lines"
    line = decisions[-1]
    outcome = "allow" if entry.reason is None else "error" if entry.reason is Reason.APP_FAILED else "deny"
    told = (line["outcome"], line["reason"], line["status"])
    if told != (outcome, entry.reason, entry.status):
        return f"the audit line says {told}"
    if "flights" in answer.json and entry.status == 200 and "flights" not in line["tables"]:
        return "the audit line does not say that the flights were filtered"
    if answer.json.get("request_id") not in (None, line["request_id"]):
        return "the answer and the audit line name different requests"
    return ""


def _size(demo: Demo) -> int:
    return demo.audit.stat().st_size if demo.audit.exists() else 0


def _decisions(demo: Demo, start: int) -> list[dict[str, Any]]:
    with demo.audit.open("rb") as lines:
        lines.seek(start)
        events = [json.loads(line) for line in lines]
    return [event for event in events if event["event"] == "decision"]


def _tokens_in(demo: Demo) -> int:
    """Lines of the audit file with something in them that looks like a token."""
    return len(re.findall(rb"eyJ[\w-]{10,}\.eyJ", demo.audit.read_bytes()))
