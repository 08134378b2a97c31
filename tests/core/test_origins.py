"""Decisions about the origin of requests: BOUNDARIES section 1, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from toucan_guard.core.decisions import Allow, Decision, Deny, Reason
from toucan_guard.core.origins import (
    Origin,
    OriginAllowlist,
    OriginPolicy,
    WildcardOrigin,
    is_frame_navigation,
    parse_origin,
    parse_pattern,
    referer_origin,
)

OWN = "https://charts.example"
LISTED = "https://portal.example"
FOREIGN = "https://evil.example"
OURS = frozenset({Origin("https", "charts.example", 443)})
ALLOWLIST = OriginAllowlist.parse([LISTED, "https://*.tenants.example", "capacitor://localhost"])

POLICY = OriginPolicy(allowlist=ALLOWLIST, public_origins=OURS)
NULL_POLICY = OriginPolicy(allowlist=ALLOWLIST, public_origins=OURS, insecure_allow_null=True)
UNKNOWN_SELF = OriginPolicy(allowlist=ALLOWLIST)
SOCKET_POLICY = OriginPolicy(allowlist=ALLOWLIST, public_origins=OURS, insecure_websocket_without_origin=True)
FRAMES_ONLY = OriginPolicy(allowlist=ALLOWLIST, public_origins=OURS, allow_top_level=False)
NOBODY = OriginPolicy(allowlist=OriginAllowlist(), public_origins=OURS)
EVERYBODY = OriginPolicy(allowlist=OriginAllowlist(any=True), public_origins=OURS)

FRAME: dict[str, Any] = {"fetch_site": ["cross-site"], "fetch_mode": ["navigate"], "fetch_dest": ["iframe"]}


def decide(policy: OriginPolicy, method: str, **given: Any) -> Decision:
    origins = given.pop("origins", [])
    return policy.decide(method, origins, **given)


def case(expected: object, method: str, *, policy: OriginPolicy = POLICY, id: str, **given: Any) -> Any:  # noqa: A002
    """A row of the table: the facts of an Allow, or the reason of a Deny."""
    return pytest.param(policy, method, given, expected, id=id)


def fetched(site: str, **given: Any) -> dict[str, Any]:
    return {"fetch_site": [site], **given}


CASES = [
    # The header itself
    case("origin_repeated", "GET", origins=[LISTED, LISTED], id="two Origin fields are refused"),
    case("origin_repeated", "POST", origins=[LISTED, FOREIGN], id="two Origin fields of an unsafe request"),
    case("origin_repeated", "POST", **fetched("same-origin", origins=[OWN, OWN]), id="two Origins of our own page"),
    case("origin_malformed", "GET", origins=[""], id="an empty Origin is malformed, which is not absent"),
    case("origin_malformed", "POST", origins=[f"{LISTED}, {FOREIGN}"], id="two origins in one field"),
    case("origin_malformed", "POST", origins=[f"{LISTED}/"], id="a final slash"),
    case("origin_malformed", "POST", origins=["https://portal.example\\@evil.example"], id="backslash and userinfo"),
    case("origin_malformed", "POST", origins=["HTTPS://portal.example"], id="upper-case scheme"),
    case("origin_malformed", "POST", origins=["https://p\xf6rtal.example"], id="a byte outside ASCII"),
    case("origin_malformed", "POST", **fetched("same-origin", origins=["x"]), id="malformed beside same-origin"),
    case("origin_malformed", "GET", origins=["NULL"], id="null in another spelling is malformed"),
    # Unsafe methods, rule 1: same-origin
    case({"self": "true"}, "POST", **fetched("same-origin"), id="same-origin without an Origin"),
    case({"origin": OWN, "self": "true"}, "POST", **fetched("same-origin", origins=[OWN]), id="same-origin with ours"),
    case(
        {"origin": "null", "self": "true"},
        "POST",
        **fetched("same-origin", origins=["null"], ambient_credential=True),
        id="a no-referrer form of our own page sends null",
    ),
    case("fetch_site_conflict", "POST", **fetched("same-origin", origins=[FOREIGN]), id="same-origin with another"),
    case("fetch_site_conflict", "POST", **fetched("same-origin", origins=[LISTED]), id="same-origin with a listed one"),
    case(
        {"origin": FOREIGN, "self": "true"},
        "POST",
        policy=UNKNOWN_SELF,
        **fetched("same-origin", origins=[FOREIGN]),
        id="without a public origin nothing can conflict",
    ),
    case("fetch_site_conflict", "POST", **fetched("same-origin", origins=[f"{OWN}:8443"]), id="same host, other port"),
    # Rule 2: none
    case({}, "POST", **fetched("none"), id="none without an Origin"),
    case({"origin": OWN, "self": "true"}, "POST", **fetched("none", origins=[OWN]), id="none with our own"),
    case("fetch_site_conflict", "POST", **fetched("none", origins=[LISTED]), id="none with a listed origin"),
    case("origin_not_allowed", "POST", **fetched("none", origins=[FOREIGN]), id="none with a foreign origin"),
    case("origin_null", "POST", **fetched("none", origins=["null"]), id="none with null"),
    case(
        "origin_null", "POST", policy=NULL_POLICY, **fetched("none", origins=["null"]), id="none with null switched on"
    ),
    # Rule 3: same-site and cross-site
    case({"origin": LISTED}, "POST", **fetched("cross-site", origins=[LISTED]), id="cross-site with a listed origin"),
    case({"origin": LISTED}, "POST", **fetched("same-site", origins=[LISTED]), id="same-site with a listed origin"),
    case("origin_not_allowed", "POST", **fetched("cross-site", origins=[FOREIGN]), id="cross-site with a foreign one"),
    case("origin_not_allowed", "POST", **fetched("same-site", origins=[FOREIGN]), id="same-site with a foreign one"),
    case("origin_missing", "POST", **fetched("cross-site"), id="cross-site without an Origin"),
    case("origin_missing", "POST", **fetched("same-site", referers=[f"{LISTED}/"]), id="same-site with a Referer only"),
    case("origin_null", "POST", **fetched("cross-site", origins=["null"]), id="cross-site with null"),
    case("fetch_site_conflict", "POST", **fetched("cross-site", origins=[OWN]), id="cross-site with our own"),
    # Rule 4: no Fetch Metadata
    case({"origin": OWN, "self": "true"}, "POST", origins=[OWN], id="our own Origin alone"),
    case({"origin": LISTED}, "POST", origins=[LISTED], id="a listed Origin alone"),
    case({"origin": LISTED}, "POST", origins=[f"{LISTED}:443"], id="an explicit default port is the same origin"),
    case({"origin": "https://a.tenants.example"}, "POST", origins=["https://a.tenants.example"], id="under a wildcard"),
    case({"origin": "capacitor://localhost"}, "POST", origins=["capacitor://localhost"], id="a listed app"),
    case("origin_not_allowed", "POST", origins=["ionic://localhost"], id="an app that is not listed"),
    case("origin_not_allowed", "POST", origins=["https://tenants.example"], id="the apex of a wildcard"),
    case("origin_not_allowed", "POST", origins=["https://portal.example.evil.example"], id="a listed name as prefix"),
    case("origin_not_allowed", "POST", origins=["https://portal.example."], id="a final dot is another host"),
    case("origin_not_allowed", "POST", origins=["http://portal.example"], id="another scheme"),
    case("origin_not_allowed", "POST", policy=NOBODY, origins=[LISTED], id="an empty list means nobody"),
    case({"origin": FOREIGN}, "POST", policy=EVERYBODY, origins=[FOREIGN], id="everybody, switched on aloud"),
    case("origin_not_allowed", "POST", policy=UNKNOWN_SELF, origins=[OWN], id="self that nobody configured is no self"),
    case("origin_null", "POST", origins=["null"], id="null matches no list"),
    case("origin_null", "POST", policy=EVERYBODY, origins=["null"], id="null does not match everybody either"),
    case({"origin": "null"}, "POST", policy=NULL_POLICY, origins=["null"], id="null with its switch and a token"),
    case(
        "origin_null",
        "POST",
        policy=NULL_POLICY,
        origins=["null"],
        ambient_credential=True,
        id="null with its switch and a cookie alone",
    ),
    case({"referer_origin": LISTED}, "POST", referers=[f"{LISTED}/page?x"], id="a listed Referer and no Origin"),
    case({}, "POST", referers=[f"{OWN}/page"], ambient_credential=True, id="our own Referer where there is no Origin"),
    case("origin_not_allowed", "POST", referers=[f"{FOREIGN}/page"], id="a foreign Referer"),
    case("origin_malformed", "POST", referers=["about:blank"], id="a Referer that is no URL of a page"),
    case("origin_malformed", "POST", referers=[""], id="an empty Referer"),
    case("origin_repeated", "POST", referers=[f"{LISTED}/", f"{LISTED}/"], id="two Referers"),
    case("origin_not_allowed", "POST", origins=[FOREIGN], referers=[f"{LISTED}/"], id="a Referer mends no Origin"),
    # Rule 5: no signal
    case({}, "POST", id="no signal and no cookie: the token decides"),
    case("origin_missing", "POST", ambient_credential=True, id="no signal but a cookie"),
    # Other methods are unsafe, and compared exactly
    case("origin_missing", "DELETE", **fetched("cross-site"), id="delete is unsafe"),
    case("origin_missing", "TRACE", **fetched("cross-site"), id="trace is unsafe"),
    case("origin_missing", "get", **fetched("cross-site"), id="a lower-case get is not GET"),
    # Fetch Metadata that counts as absent
    case(
        {}, "POST", fetch_site=["same-origin", "same-origin"], id="a repeated Sec-Fetch-Site allows nothing by itself"
    ),
    case(
        "origin_missing",
        "POST",
        fetch_site=["same-origin", "cross-site"],
        ambient_credential=True,
        id="a repeated Sec-Fetch-Site counts as absent",
    ),
    case("origin_missing", "POST", fetch_site=[""], ambient_credential=True, id="an empty one counts as absent"),
    case("origin_missing", "POST", fetch_site=["Same-Origin"], ambient_credential=True, id="an unknown one as well"),
    case(
        "origin_not_allowed", "POST", fetch_site=["same-origin "], origins=[FOREIGN], id="unknown is no reason to allow"
    ),
    # Safe methods
    case({}, "GET", id="a plain get"),
    case({}, "GET", ambient_credential=True, **fetched("cross-site"), id="a cross-site link"),
    case({"self": "true"}, "GET", **fetched("same-origin"), id="a frame's own fetch is same-origin without an Origin"),
    case({"origin": LISTED}, "GET", **fetched("cross-site", origins=[LISTED]), id="a listed caller reads"),
    case({"origin": OWN, "self": "true"}, "HEAD", origins=[OWN], id="our own page reads"),
    case("origin_not_allowed", "GET", origins=[FOREIGN], id="a foreign caller reads nothing"),
    case("origin_not_allowed", "HEAD", **fetched("cross-site", origins=[FOREIGN]), id="nor the headers"),
    case("origin_not_allowed", "OPTIONS", origins=[FOREIGN], id="nor the options"),
    case("origin_null", "GET", origins=["null"], id="null reads nothing"),
    case({"origin": "null"}, "GET", policy=NULL_POLICY, origins=["null"], id="null reads where it is switched on"),
    # Frame navigations
    case({"embedder": LISTED}, "GET", referers=[f"{LISTED}/"], **FRAME, id="a frame in a listed page"),
    case({"embedder": LISTED}, "GET", referers=[f"{LISTED}/dash?a=b"], **FRAME, id="a frame with a whole Referer"),
    case({}, "GET", **FRAME, id="a frame without a Referer goes on: absence proves nothing"),
    case({}, "GET", referers=[f"{OWN}/outer"], **FRAME, id="a frame in our own page"),
    case("embedder_not_allowed", "GET", referers=[f"{FOREIGN}/"], **FRAME, id="a frame in a foreign page"),
    case("embedder_not_allowed", "GET", referers=["about:blank"], **FRAME, id="a frame with a malformed Referer"),
    case("embedder_not_allowed", "GET", referers=[""], **FRAME, id="a frame with an empty Referer"),
    case("embedder_not_allowed", "GET", referers=[f"{LISTED}/"] * 2, **FRAME, id="a frame with two Referers"),
    case("embedder_not_allowed", "GET", policy=NOBODY, referers=[f"{LISTED}/"], **FRAME, id="a frame when nobody may"),
    case(
        "embedder_not_allowed", "GET", policy=UNKNOWN_SELF, referers=[f"{OWN}/"], **FRAME, id="an unknown self around"
    ),
    case(
        {"self": "true"},
        "GET",
        policy=UNKNOWN_SELF,
        referers=[f"{OWN}/"],
        **{**FRAME, "fetch_site": ["same-origin"]},
        id="a same-origin frame where our own origin is not configured",
    ),
    case(
        "embedder_not_allowed",
        "GET",
        referers=[f"{FOREIGN}/"],
        **{**FRAME, "fetch_site": ["same-origin"]},
        id="a same-origin frame whose Referer is foreign",
    ),
    case(
        {"embedder": LISTED, "origin": LISTED},
        "POST",
        origins=[LISTED],
        referers=[f"{LISTED}/"],
        **FRAME,
        id="a form that opens in a frame of a listed page",
    ),
    case("origin_missing", "POST", referers=[f"{LISTED}/"], **FRAME, id="a form in a frame still needs its Origin"),
    *(
        case(
            "embedder_not_allowed",
            "GET",
            fetch_dest=[dest],
            referers=[f"{FOREIGN}/"],
            id=f"a foreign page around {dest}",
        )
        for dest in ("iframe", "frame", "object", "embed")
    ),
    case(
        {}, "GET", fetch_dest=["iframe", "iframe"], referers=[f"{FOREIGN}/"], id="a repeated Sec-Fetch-Dest is absent"
    ),
    case({}, "GET", referers=[f"{FOREIGN}/"], id="without Fetch Metadata a Referer is no gate"),
    # Destinations
    case({}, "GET", fetch_mode=["navigate"], fetch_dest=["document"], referers=[f"{FOREIGN}/"], id="a link to a page"),
    case(
        "destination_not_allowed",
        "GET",
        policy=FRAMES_ONLY,
        fetch_mode=["navigate"],
        fetch_dest=["document"],
        id="a top-level page where only frames are wanted",
    ),
    case({"embedder": LISTED}, "GET", policy=FRAMES_ONLY, referers=[f"{LISTED}/"], **FRAME, id="and a frame there"),
    *(
        case("destination_not_allowed", "GET", fetch_mode=["navigate"], fetch_dest=[dest], id=f"a navigation to {dest}")
        for dest in ("empty", "script", "image", "worker", "fencedframe")
    ),
    case({}, "GET", fetch_mode=["navigate"], fetch_dest=["hologram"], id="an unknown destination counts as absent"),
    case({}, "GET", fetch_mode=["navigate", "cors"], fetch_dest=["script"], id="a repeated mode counts as absent"),
    case({}, "GET", fetch_mode=["cors"], fetch_dest=["empty"], id="node's fetch is no browser"),
    # WebSockets
    case({"origin": OWN, "self": "true"}, "GET", websocket=True, origins=[OWN], id="a socket of our own page"),
    case({"origin": LISTED}, "GET", websocket=True, origins=[LISTED], id="a socket of a listed page"),
    case("origin_not_allowed", "GET", websocket=True, origins=[FOREIGN], id="a socket of a foreign page"),
    case("origin_repeated", "GET", websocket=True, origins=[OWN, OWN], id="a socket with two Origins"),
    case("origin_malformed", "GET", websocket=True, origins=["x"], id="a socket with a malformed Origin"),
    case("origin_null", "GET", websocket=True, origins=["null"], id="a socket with null"),
    case(
        {"origin": "null"},
        "GET",
        policy=NULL_POLICY,
        websocket=True,
        origins=["null"],
        id="a socket with null switched on",
    ),
    case(
        "origin_null",
        "GET",
        websocket=True,
        **fetched("same-origin", origins=["null"]),
        id="a socket with null is judged by its Origin, not by its site",
    ),
    case("origin_missing", "GET", websocket=True, id="a socket without an Origin"),
    case("origin_missing", "GET", websocket=True, **fetched("same-origin"), id="same-origin stands in for no Origin"),
    case("origin_missing", "GET", websocket=True, referers=[f"{LISTED}/"], id="nor does a Referer"),
    case({}, "GET", policy=SOCKET_POLICY, websocket=True, id="a program's socket, switched on aloud"),
    case(
        "origin_missing",
        "GET",
        policy=SOCKET_POLICY,
        websocket=True,
        ambient_credential=True,
        id="a program's socket with a cookie",
    ),
    case(
        {"origin": OWN, "self": "true"},
        "GET",
        websocket=True,
        origins=[OWN],
        ambient_credential=True,
        id="an embed session's socket of our own page",
    ),
    case(
        "origin_not_allowed",
        "GET",
        websocket=True,
        origins=[LISTED],
        ambient_credential=True,
        id="an embed session's socket of a listed page",
    ),
    case(
        "fetch_site_conflict", "GET", websocket=True, **fetched("same-origin", origins=[LISTED]), id="socket conflict"
    ),
    case(
        "fetch_site_conflict", "GET", websocket=True, **fetched("cross-site", origins=[OWN]), id="socket conflict back"
    ),
    case({"origin": LISTED}, "GET", websocket=True, **fetched("cross-site", origins=[LISTED]), id="socket, cross-site"),
    case(
        {"origin": LISTED},
        "GET",
        policy=UNKNOWN_SELF,
        websocket=True,
        **fetched("same-origin", origins=[LISTED]),
        id="a listed socket where our own origin is not configured",
    ),
    case(
        "origin_not_allowed",
        "GET",
        policy=UNKNOWN_SELF,
        websocket=True,
        **fetched("same-origin", origins=[FOREIGN]),
        id="a foreign socket where our own origin is not configured",
    ),
    # Who we are, for one request
    case(
        {"origin": "https://other.example", "self": "true"},
        "POST",
        origins=["https://other.example"],
        self_origins=frozenset({Origin("https", "other.example", 443)}),
        id="a named proxy says who we are",
    ),
    case("origin_not_allowed", "POST", origins=[OWN], self_origins=frozenset(), id="and who we are not"),
]


@pytest.mark.parametrize(("policy", "method", "given", "expected"), CASES)
def test_a_request_is_decided_by_where_it_comes_from(
    policy: OriginPolicy, method: str, given: Mapping[str, Any], expected: Any
) -> None:
    decision = decide(policy, method, **given)
    if isinstance(expected, str):
        assert isinstance(decision, Deny), decision
        assert decision.reason == expected
        assert decision.detail
    else:
        assert isinstance(decision, Allow), decision
        assert dict(decision.facts) == expected


@pytest.mark.parametrize(
    ("policy", "origins", "expected"),
    [
        pytest.param(POLICY, [LISTED], {"origin": LISTED}, id="a listed origin"),
        pytest.param(POLICY, [OWN], {"origin": OWN, "self": "true"}, id="our own origin"),
        pytest.param(POLICY, [FOREIGN], "origin_not_allowed", id="a foreign origin"),
        pytest.param(POLICY, ["null"], "origin_null", id="null"),
        pytest.param(NULL_POLICY, ["null"], {"origin": "null"}, id="null, switched on"),
        pytest.param(POLICY, [], "origin_missing", id="no origin"),
        pytest.param(POLICY, [LISTED, LISTED], "origin_repeated", id="two origins"),
        pytest.param(POLICY, [f"{LISTED}/"], "origin_malformed", id="a malformed origin"),
        pytest.param(NOBODY, [LISTED], "origin_not_allowed", id="an empty list"),
    ],
)
def test_a_preflight_is_decided_by_its_origin_alone(policy: OriginPolicy, origins: list[str], expected: Any) -> None:
    decision = policy.preflight(origins)
    if isinstance(expected, str):
        assert isinstance(decision, Deny)
        assert decision.reason == expected
    else:
        assert isinstance(decision, Allow)
        assert dict(decision.facts) == expected


def test_a_preflight_takes_the_word_of_a_named_proxy() -> None:
    decision = UNKNOWN_SELF.preflight([OWN], self_origins=OURS)
    assert isinstance(decision, Allow)
    assert decision.facts["self"] == "true"


def test_a_refusal_records_who_asked_and_not_the_list() -> None:
    decision = decide(POLICY, "POST", origins=[FOREIGN])
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.ORIGIN_NOT_ALLOWED
    assert dict(decision.facts) == {"origin": FOREIGN}
    assert "portal" not in decision.detail

    framed = decide(POLICY, "GET", referers=[f"{FOREIGN}/secret-path"], **FRAME)
    assert isinstance(framed, Deny)
    assert dict(framed.facts) == {"referer_origin": FOREIGN}

    unsigned = decide(POLICY, "POST", referers=[f"{FOREIGN}/"])
    assert isinstance(unsigned, Deny)
    assert dict(unsigned.facts) == {"referer_origin": FOREIGN}


def test_a_malformed_origin_is_never_recorded() -> None:
    decision = decide(POLICY, "POST", origins=["https://evil.example\r\nX: y"])
    assert isinstance(decision, Deny)
    assert dict(decision.facts) == {}


@pytest.mark.parametrize(
    ("dest", "expected"),
    [
        pytest.param(["iframe"], True, id="iframe"),
        pytest.param(["object"], True, id="object"),
        pytest.param(["document"], False, id="a page of its own"),
        pytest.param(["iframe", "iframe"], False, id="repeated"),
        pytest.param([], False, id="absent"),
    ],
)
def test_a_frame_navigation_is_known_by_its_destination(dest: list[str], expected: bool) -> None:
    assert is_frame_navigation(dest) is expected


def test_everything_about_origins_is_found_in_one_place() -> None:
    assert parse_origin(LISTED) == parse_pattern(LISTED) == referer_origin(f"{LISTED}/")
    assert parse_pattern("https://*.a.example") == WildcardOrigin("https", "a.example", 443)
