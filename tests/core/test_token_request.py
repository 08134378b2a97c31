"""The body of generate-token: what it becomes, every mistake at once, and limits that only narrow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.token_request import MintingRules, Mistake, TokenRequest, read_token_request

# A machine under load is no finding.
calm = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PORTAL = "https://portal.example"
VIEW = Grant("dashboard", "delays", ("view",))
POLICY = RlsPolicy.from_columns("flights.carrier=carrier")
BODY: dict[str, Any] = {"user": {"distinctId": "u-1", "attributes": {"carrier": "AA"}}, "tenant": "AA"}


def rules(**changes: Any) -> MintingRules:
    given_rules: dict[str, Any] = {
        "limits": ApiKeyLimits(),
        "roles": {},
        "policy": POLICY,
        "allowlist": OriginAllowlist.parse([PORTAL, "https://*.customers.example"]),
        "lifetime_seconds": 3600,
        **changes,
    }
    return MintingRules(**given_rules)


def read(body: object, **changes: Any) -> TokenRequest | tuple[Mistake, ...]:
    return read_token_request(json.dumps(body).encode(), rules(**changes))


def asked(body: object, **changes: Any) -> TokenRequest:
    found = read(body, **changes)
    assert isinstance(found, TokenRequest), found
    return found


def mistakes(body: object, **changes: Any) -> list[tuple[str, str]]:
    found = read(body, **changes)
    assert isinstance(found, tuple), found
    return [(mistake.pointer, mistake.detail) for mistake in found]


def limits(**changes: Any) -> MintingRules:
    return rules(limits=ApiKeyLimits(**changes))


class TestWhatItBecomes:
    def test_the_least_that_can_be_asked_for(self) -> None:
        assert asked(BODY) == TokenRequest("u-1", "AA", (), {"carrier": "AA"}, None, 300, None)

    def test_everything_that_can_be_asked_for(self) -> None:
        body = {
            "user": {"distinctId": "u-1", "role": "explorer", "attributes": {"carrier": ["AA", "UA"]}},
            "permissions": [VIEW.to_claim(), {"type": "dashboard", "id": "*", "actions": ["view", "export"]}],
            "tenant": "AA",
            "origins": [PORTAL],
            "lifetimeSeconds": 600,
            "frame": True,
            "sessionSeconds": 1200,
        }
        every = Grant("dashboard", "*", ("view", "export"))
        assert asked(body, roles={"explorer": (VIEW,)}) == TokenRequest(
            "u-1", "AA", (VIEW, every), {"carrier": ["AA", "UA"]}, (PORTAL,), 600, 1200
        )

    def test_a_role_is_a_name_for_grants(self) -> None:
        body = {**BODY, "user": {**BODY["user"], "role": "explorer"}}
        assert asked(body, roles={"explorer": (VIEW,)}).grants == (VIEW,)

    def test_null_is_absent(self) -> None:
        nothing = dict.fromkeys(["permissions", "origins", "lifetimeSeconds", "frame", "sessionSeconds"])
        assert asked({**BODY, **nothing, "user": {**BODY["user"], "role": None}}) == asked(BODY)

    def test_a_key_with_one_tenant_and_one_list_of_origins_need_not_say_them(self) -> None:
        narrow = ApiKeyLimits(tenants=("AA",), origins=OriginAllowlist.parse([PORTAL]), lifetime_seconds=120)
        found = asked({"user": BODY["user"]}, limits=narrow)
        assert (found.tenant, found.origins, found.lifetime_seconds) == ("AA", (PORTAL,), 120)

    def test_a_tenant_is_optional_where_the_deployment_says_so(self) -> None:
        assert asked({"user": BODY["user"]}, require_tenant=False).tenant is None

    @pytest.mark.parametrize(
        ("deployment", "key", "expected"),
        [(3600, None, 300), (120, None, 120), (3600, 900, 900), (600, 900, 600)],
    )
    def test_the_usual_lifetime_is_short(self, deployment: int, key: int | None, expected: int) -> None:
        found = asked(BODY, lifetime_seconds=deployment, limits=ApiKeyLimits(lifetime_seconds=key))
        assert found.lifetime_seconds == expected

    def test_a_frame_s_session_is_no_longer_than_a_token(self) -> None:
        assert asked({**BODY, "frame": True}).session_seconds == 900
        assert asked({**BODY, "frame": True}, lifetime_seconds=120).session_seconds == 120

    def test_without_row_rules_there_are_no_attributes(self) -> None:
        assert asked({**BODY, "user": {"distinctId": "u"}}, policy=None).rls is None
        assert asked({**BODY, "user": {"distinctId": "u", "attributes": {}}}, policy=None).rls is None


FORM: list[tuple[str, Any, str, str]] = [
    ("nothing", {}, "/user", "is missing"),
    ("a list", [], "", "one JSON object"),
    ("a number", 7, "", "one JSON object"),
    ("no id", {**BODY, "user": {"attributes": {"carrier": "AA"}}}, "/user/distinctId", "is missing"),
    ("a number for an id", {**BODY, "user": {**BODY["user"], "distinctId": 7}}, "/user/distinctId", "must be text"),
    ("an empty id", {**BODY, "user": {**BODY["user"], "distinctId": ""}}, "/user/distinctId", "must not be empty"),
    ("an endless id", {**BODY, "user": {**BODY["user"], "distinctId": "u" * 257}}, "/user/distinctId", "too many"),
    ("a bell", {**BODY, "user": {**BODY["user"], "distinctId": "\a"}}, "/user/distinctId", "control character"),
    ("a list for a user", {**BODY, "user": []}, "/user", "must be an object"),
    ("an unknown member", {**BODY, "permision": []}, "", "did you mean permissions?"),
    ("snake case", {**BODY, "lifetime_seconds": 5}, "", "did you mean lifetimeSeconds?"),
    ("a stranger", {**BODY, "user": {**BODY["user"], "zzzzzz": 1}}, "/user", "'zzzzzz' is not known"),
    ("an endless name", {**BODY, "x" * 500: 1}, "", "..."),
    ("no attribute", {**BODY, "user": {"distinctId": "u"}}, "/user/attributes", "carrier is missing"),
    ("a wrong attribute", {**BODY, "user": {"distinctId": "u", "attributes": {"carier": 1}}}, "/user/attributes",
     "did you mean carrier?"),
    ("no list of permissions", {**BODY, "permissions": {}}, "/permissions", "must be a list"),
    ("half a permission", {**BODY, "permissions": [{"type": "a", "id": "b"}]}, "/permissions/0/actions", "is missing"),
    ("no action", {**BODY, "permissions": [{"type": "a", "id": "b", "actions": []}]}, "/permissions/0", "one action"),
    ("no type", {**BODY, "permissions": [VIEW.to_claim(), {"type": "", "id": "b", "actions": ["x"]}]},
     "/permissions/1", "not empty"),
    ("too many", {**BODY, "permissions": [VIEW.to_claim()] * 201}, "/permissions", "more than 200"),
    ("no tenant", {"user": BODY["user"]}, "/tenant", "is missing"),
    ("an empty tenant", {**BODY, "tenant": ""}, "/tenant", "must not be empty"),
    ("no origin", {**BODY, "origins": ["nonsense"]}, "/origins/0", "must be an origin"),
    ("a foreign origin", {**BODY, "origins": [PORTAL, "https://elsewhere.example"]}, "/origins/1", "not among"),
    ("a wider wildcard", {**BODY, "origins": ["https://*.example"]}, "/origins/0", "must be an origin"),
    ("no time", {**BODY, "lifetimeSeconds": 0}, "/lifetimeSeconds", "1 or more"),
    ("a float", {**BODY, "lifetimeSeconds": 60.0}, "/lifetimeSeconds", "whole number"),
    ("a bool for a time", {**BODY, "lifetimeSeconds": True}, "/lifetimeSeconds", "whole number"),
    ("a huge time", {**BODY, "lifetimeSeconds": 10**300}, "/lifetimeSeconds", "at most 3600"),
    ("a word for a frame", {**BODY, "frame": "yes"}, "/frame", "true or false"),
    ("a session without a frame", {**BODY, "sessionSeconds": 60}, "/sessionSeconds", "only"),
    ("a long session", {**BODY, "frame": True, "sessionSeconds": 9999}, "/sessionSeconds", "at most 3600"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "pointer", "words"), [row[1:] for row in FORM], ids=[row[0] for row in FORM])
def test_a_mistake_has_its_place_and_no_value(body: Any, pointer: str, words: str) -> None:
    found = mistakes(body)
    assert any(place == pointer and words in detail for place, detail in found), found
    assert not any("elsewhere" in detail or "nonsense" in detail or "\a" in detail for _, detail in found)


def test_attributes_without_row_rules_are_a_mistake() -> None:
    ((pointer, detail),) = mistakes(BODY, policy=None)
    assert (pointer, "no row-level policy" in detail) == ("/user/attributes", True)


def test_a_frame_where_none_is_opened_is_a_mistake() -> None:
    ((pointer, detail),) = mistakes({**BODY, "frame": True}, frames=False)
    assert (pointer, "TOKEN_CARRIERS" in detail) == ("/frame", True)


def test_every_mistake_is_told_at_once() -> None:
    body = {
        "user": {"distinctId": 7, "role": "none", "attributes": {"carier": "AA"}},
        "permissions": [{"type": "", "id": "", "actions": []}, "nonsense"],
        "tenant": 9,
        "origins": ["nonsense"],
        "lifetimeSeconds": -1,
        "frame": 1,
        "sessionSeconds": "x",
        "more": 1,
    }
    assert {pointer for pointer, _ in mistakes(body)} == {
        "/user/distinctId", "/user/role", "/user/attributes", "/permissions/0", "/permissions/1", "/tenant",
        "/origins/0", "/lifetimeSeconds", "/frame", "/sessionSeconds", "",
    }  # fmt: skip


def test_the_list_of_mistakes_ends() -> None:
    assert len(mistakes({**BODY, "origins": ["nonsense"] * 200})) == 50


def test_no_more_mistakes_are_worded_than_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("toucan_guard.core.token_request._meant", lambda name: asked.append(name) or "")
    assert len(mistakes({**BODY, **{f"session{number}": 1 for number in range(900)}})) == 50
    assert len(asked) == 50


BEYOND: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("another tenant", {"tenants": ("UA",)}, {}, "/tenant"),
    ("no tenant of several", {"tenants": ("AA", "UA")}, {"tenant": None}, "/tenant"),
    ("a key for nobody", {"tenants": ()}, {}, "/tenant"),
    ("another origin", {"origins": OriginAllowlist.parse([PORTAL])}, {"origins": ["https://a.customers.example"]},
     "/origins/0"),
    ("every subdomain", {"origins": OriginAllowlist.parse(["https://a.customers.example"])},
     {"origins": ["https://*.customers.example"]}, "/origins/0"),
    ("another object", {"grants": (VIEW,)}, {"permissions": [{"type": "dashboard", "id": "x", "actions": ["view"]}]},
     "/permissions/0"),
    ("every object", {"grants": (VIEW,)}, {"permissions": [{"type": "dashboard", "id": "*", "actions": ["view"]}]},
     "/permissions/0"),
    ("one action more", {"grants": (VIEW,)},
     {"permissions": [{"type": "dashboard", "id": "delays", "actions": ["view", "edit"]}]}, "/permissions/0"),
    ("nothing may be given", {"grants": ()}, {"permissions": [VIEW.to_claim()]}, "/permissions/0"),
    ("another value", {"attributes": {"carrier": ("UA",)}}, {}, "/user/attributes"),
    ("one value more", {"attributes": {"carrier": ("AA",)}},
     {"user": {"distinctId": "u", "attributes": {"carrier": ["AA", "UA"]}}}, "/user/attributes"),
    ("a longer life", {"lifetime_seconds": 60}, {"lifetimeSeconds": 61}, "/lifetimeSeconds"),
    ("a longer session", {"lifetime_seconds": 60}, {"frame": True, "sessionSeconds": 61}, "/sessionSeconds"),
    ("a role that it has not", {}, {"user": {**BODY["user"], "role": "admin"}}, "/user/role"),
]  # fmt: skip


@pytest.mark.parametrize(("limit", "change", "pointer"), [row[1:] for row in BEYOND], ids=[row[0] for row in BEYOND])
def test_a_limit_narrows(limit: dict[str, Any], change: dict[str, Any], pointer: str) -> None:
    found = read({**BODY, **change}, limits=ApiKeyLimits(**limit))
    assert isinstance(found, tuple)
    assert [mistake.pointer for mistake in found] == [pointer]
    if (limit, change) != ({"tenants": ("AA", "UA")}, {"tenant": None}):
        assert found[0].beyond_limits


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        pytest.param({"tenants": ("UA", "AA")}, {}, id="one of several tenants"),
        pytest.param({"origins": OriginAllowlist.parse(["https://*.customers.example"])},
                     {"origins": ["https://a.customers.example", "https://*.b.customers.example"]}, id="subdomains"),
        pytest.param({"grants": (Grant("dashboard", "*", ("view", "edit")),)},
                     {"permissions": [VIEW.to_claim(), {"type": "dashboard", "id": "*", "actions": ["edit"]}]},
                     id="what every object covers"),
        pytest.param({"grants": (VIEW, Grant("dashboard", "delays", ("edit",)))},
                     {"permissions": [{"type": "dashboard", "id": "delays", "actions": ["view", "edit"]}]},
                     id="actions of two grants"),
        pytest.param({"attributes": {"carrier": ("AA", "UA")}},
                     {"user": {"distinctId": "u", "attributes": {"carrier": ["UA"]}}}, id="some of the values"),
        pytest.param({"attributes": {"other": ("x",)}}, {}, id="an attribute that is not limited"),
        pytest.param({"lifetime_seconds": 60}, {"lifetimeSeconds": 60}, id="exactly as long"),
    ],
)  # fmt: skip
def test_what_a_limit_covers_passes(limit: dict[str, Any], change: dict[str, Any]) -> None:
    asked({**BODY, **change}, limits=ApiKeyLimits(**limit))


def test_true_is_not_one() -> None:
    policy = RlsPolicy.from_toml('[attributes]\nn = "integer"\n[tables.t]\nopen = true\n')
    body = {**BODY, "user": {"distinctId": "u", "attributes": {"n": 1}}}
    found = mistakes(body, policy=policy, limits=ApiKeyLimits(attributes={"n": (True,)}))
    assert [pointer for pointer, _ in found] == ["/user/attributes"]


def test_an_attribute_that_is_null_gives_nothing_away() -> None:
    policy = RlsPolicy.from_toml('[attributes]\nn = { type = "integer", required = false }\n[tables.t]\nopen = true\n')
    body = {**BODY, "user": {"distinctId": "u", "attributes": {"n": None}}}
    asked(body, policy=policy, limits=ApiKeyLimits(attributes={"n": (1,)}))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param('{"user": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"tenant": "AA", "tenant": "UA"}', id="a repeated member"),
        pytest.param(b'{"user": {"attributes": {"carrier": "AA", "carrier": "UA"}}}', id="a repeated member inside"),
        pytest.param(b'{"lifetimeSeconds": NaN}', id="NaN"),
        pytest.param(b"[" * 5_000, id="endless nesting"),
        pytest.param(b'{"user": ' + b"[" * 40 + b"]" * 40 + b"}", id="deep nesting"),
        pytest.param(b'{"tenant": "\\ud800"}', id="half a character"),
    ],
)
def test_what_is_not_strict_json_is_one_mistake(body: bytes) -> None:
    found = read_token_request(body, rules())
    assert isinstance(found, tuple)
    assert [mistake.pointer for mistake in found] == [""]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ["user", "permissions", "tenant", "origins", "lifetimeSeconds", "frame", "sessionSeconds", "distinctId", "x"]
)


@calm
@given(st.binary(max_size=300) | st.dictionaries(MEMBERS, JSON).map(lambda body: json.dumps(body).encode()))
def test_any_bytes_give_a_request_or_mistakes(body: bytes) -> None:
    found = read_token_request(body, rules())
    assert isinstance(found, TokenRequest) or (found and all(isinstance(each, Mistake) for each in found))


CARRIERS = st.lists(st.sampled_from(["AA", "UA", "DL"]), min_size=1, unique=True)
ACTIONS = st.lists(st.sampled_from(["view", "edit", "export"]), min_size=1, unique=True)
GRANTS = st.lists(
    st.builds(Grant, st.just("dashboard"), st.sampled_from(["a", "b", "*"]), ACTIONS.map(tuple)), max_size=3
)


@calm
@given(GRANTS, GRANTS, CARRIERS, CARRIERS, st.integers(1, 4000), st.integers(1, 4000), st.sampled_from(["AA", "UA"]))
def test_nothing_that_is_asked_for_is_wider_than_the_limits(
    limited: list[Grant], wanted: list[Grant], carriers: list[str], given_carriers: list[str], longest: int, life: int,
    tenant: str,
) -> None:  # fmt: skip
    key = ApiKeyLimits(
        tenants=("AA",), grants=tuple(limited), attributes={"carrier": tuple(carriers)}, lifetime_seconds=longest
    )
    body = {
        "user": {"distinctId": "u", "attributes": {"carrier": given_carriers}},
        "permissions": [grant.to_claim() for grant in wanted],
        "tenant": tenant,
        "lifetimeSeconds": life,
    }
    found = read(body, limits=key)
    reach = {(grant.id, action) for grant in limited for action in grant.actions}
    wish = {(grant.id, action) for grant in wanted for action in grant.actions}
    within = (
        all((id_, action) in reach or ("*", action) in reach for id_, action in wish)
        and set(given_carriers) <= set(carriers)
        and life <= min(longest, 3600)
        and tenant == "AA"
    )
    assert isinstance(found, TokenRequest) is within
