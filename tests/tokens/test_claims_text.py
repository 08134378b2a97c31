"""Claims in a store: what is written comes back equal, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, TokenPolicy
from toucan_guard.testing import TEST_SECRET, sign_token
from toucan_guard.tokens.claims_text import claims_from_text, claims_to_text
from toucan_guard.tokens.keys import KeyRing

NOW = 1_800_000_000
_RLS = MappingProxyType({"carrier": "AA", "airports": ("JFK", "EWR"), "deep": MappingProxyType({"n": (1, None)})})


def _claims(**changes: Any) -> VerifiedClaims:
    given: dict[str, Any] = {
        "issuer": "https://host.example", "audiences": ("charts", "tables"), "subject": "u", "token_id": "t",
        "issued_at": NOW, "expires_at": NOW + 60.5, "not_before": None, "tenant": "acme",
        "origins": OriginAllowlist.parse(["https://a.example", "https://*.b.example"]),
        "grants": (Grant("dashboard", "delays", ("view", "export")), Grant("chart", "*", ("view",))),
        "rls": _RLS, "region": "eu", "key_id": "k1", "algorithm": "ES256", "token_type": BOOTSTRAP,
        "session_seconds": 900, **changes,
    }  # fmt: skip
    return VerifiedClaims(**given)


_words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text != "*"
)
_times = st.integers(-(2**53), 2**53) | st.floats(-(2**53), 2**53, allow_nan=False)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _words
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(_words, inner, max_size=3).map(MappingProxyType)
    ),
    max_leaves=8,
)
_hosts = st.sampled_from(
    ["https://a.example", "https://*.b.example:8443", "http://localhost:3000", "capacitor://localhost", "https://[::1]"]
)
_any_claims = st.builds(
    VerifiedClaims,
    issuer=_words,
    audiences=st.lists(_words, max_size=3).map(tuple),
    subject=_words,
    token_id=_words,
    issued_at=_times,
    expires_at=_times,
    not_before=st.none() | _times,
    tenant=st.none() | _words,
    origins=st.none() | st.lists(_hosts, max_size=4).map(lambda hosts: OriginAllowlist.parse(hosts, development=True)),
    grants=st.lists(
        st.builds(Grant, _plain, _plain | st.just("*"), st.lists(_plain, min_size=1, max_size=3).map(tuple)), max_size=3
    ).map(tuple),
    rls=st.none() | st.dictionaries(_words, _values, max_size=3).map(MappingProxyType),
    region=st.none() | _words,
    key_id=st.none() | st.just("") | _words,
    algorithm=st.sampled_from(["HS256", "ES256"]),
    token_type=st.sampled_from([EMBED, BOOTSTRAP, "embed-session"]),
    session_seconds=st.none() | st.integers(1, 2**53),
)


@settings(max_examples=200, deadline=None)
@given(_any_claims)
def test_what_is_written_comes_back_equal_and_of_the_same_types(claims: VerifiedClaims) -> None:
    text = claims_to_text(claims)
    read = claims_from_text(text)
    assert read == claims
    assert read is not None
    assert claims_to_text(read) == text
    for item in fields(VerifiedClaims):
        assert type(getattr(read, item.name)) is type(getattr(claims, item.name)), item.name
    assert hash(read.grants) == hash(claims.grants)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | _words.map(str.encode))
def test_no_bytes_make_the_reader_raise(raw: bytes) -> None:
    assert claims_from_text(raw) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_text_is_no_claims_or_other_claims_and_never_a_crash(data: st.DataObject) -> None:
    text = bytearray(claims_to_text(_claims()))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255))
    read = claims_from_text(bytes(text))
    assert read is None or isinstance(read, VerifiedClaims)
    assert claims_from_text(bytes(text[:place])) is None


def test_claims_of_a_real_token_survive() -> None:
    token = sign_token(rls={"carrier": "Ä\u2028", "airports": ["JFK"]}, origins=["https://bücher.example"], now=NOW)
    policy = TokenPolicy(issuer="https://host.example", audiences=("charts",))
    claims = verify(token, policy=policy, keys=KeyRing.from_secret(TEST_SECRET), now=NOW)
    assert isinstance(claims, VerifiedClaims), claims
    assert claims_from_text(claims_to_text(claims)) == claims


def test_what_other_layers_derived_is_not_written() -> None:
    claims = _claims()
    claims.derived["row filter"] = object()
    assert b"row filter" not in claims_to_text(claims)
    assert claims_from_text(claims_to_text(claims)) == claims


def test_nothing_of_the_absent_and_the_empty_is_mixed_up() -> None:
    cases: list[dict[str, Any]] = [{"rls": None}, {"rls": {}}, {"origins": None}, {"origins": OriginAllowlist()}]
    for changes in cases:
        read = claims_from_text(claims_to_text(_claims(**changes)))
        assert read is not None
        for name, value in changes.items():
            assert getattr(read, name) == value
            assert (getattr(read, name) is None) is (value is None)


class _OwnText(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"rls": {"a": {1}}}, id="a set is no JSON"),
        pytest.param({"rls": {"a": ["x"]}}, id="a list that is not frozen would come back frozen"),
        pytest.param({"rls": {"a": float("nan")}}, id="a value that is not a number"),
        pytest.param({"rls": {"a": float("inf")}}, id="an infinite value"),
        pytest.param({"rls": {1: "x"}}, id="a name that is not text"),
        pytest.param({"rls": {"a": _OwnText("x")}}, id="a text with a type of its own"),
        pytest.param({"rls": {"a": "\ud800"}}, id="a lone surrogate in a value"),
        pytest.param({"subject": "\ud800"}, id="a lone surrogate in the subject"),
        pytest.param({"subject": ""}, id="an empty subject"),
        pytest.param({"subject": 7}, id="a subject that is not text"),
        pytest.param({"issued_at": True}, id="a boolean for a time"),
        pytest.param({"expires_at": float("nan")}, id="a time that is not a number"),
        pytest.param({"session_seconds": 0}, id="a session of no seconds"),
        pytest.param({"audiences": "charts"}, id="one text for the audiences"),
        pytest.param(
            {"origins": OriginAllowlist.parse(["*"], allow_any=True)}, id="every origin, which no token can say"
        ),
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="claims") as caught:
        claims_to_text(_claims(**changes))
    assert "charts" not in str(caught.value)


def test_endless_nesting_is_not_written() -> None:
    value: object = 1
    for _ in range(100_000):
        value = (value,)
    with pytest.raises(ValueError, match="claims"):
        claims_to_text(_claims(rls={"deep": value}))
    while isinstance(value, tuple):  # taken apart by hand: freeing it recursively is not ours to test
        value = value[0]


def _without(name: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(claims_to_text(_claims()))
    del members[name]
    return members


@pytest.mark.parametrize("name", [item.name for item in fields(VerifiedClaims) if item.name != "derived"])
def test_a_text_without_one_of_its_members_is_no_claims(name: str) -> None:
    assert claims_from_text(json.dumps(_without(name)).encode()) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"schema": 2}, id="a later schema"),
        pytest.param({"schema": 0}, id="an earlier schema"),
        pytest.param({"schema": True}, id="a boolean for the schema"),
        pytest.param({"schema": "1"}, id="a text for the schema"),
        pytest.param({"schema": 1.0}, id="a fraction for the schema"),
        pytest.param({"added_later": 1}, id="a member that this version does not know"),
        pytest.param({"derived": {}}, id="what is never written"),
        pytest.param({"issuer": None}, id="no issuer"),
        pytest.param({"audiences": "charts"}, id="one text for the audiences"),
        pytest.param({"audiences": [1]}, id="an audience that is not text"),
        pytest.param({"issued_at": "1800000000"}, id="a text for a time"),
        pytest.param({"issued_at": True}, id="a boolean for a time"),
        pytest.param({"expires_at": 2**60}, id="a time beyond all clocks"),
        pytest.param({"expires_at": None}, id="no end"),
        pytest.param({"tenant": ""}, id="an empty tenant"),
        pytest.param({"origins": "https://a.example"}, id="one text for the origins"),
        pytest.param({"origins": ["*"]}, id="every origin"),
        pytest.param({"origins": ["https://a.example/path"]}, id="an origin with a path"),
        pytest.param({"origins": ["https://B.example"]}, id="an origin that is not in its written form"),
        pytest.param({"origins": ["https://b.example", "https://a.example"]}, id="origins that are not sorted"),
        pytest.param({"grants": [{"type": "dashboard", "id": "x"}]}, id="a grant without actions"),
        pytest.param({"grants": [{"type": "d", "id": "x", "actions": ["view"], "y": 1}]}, id="a grant with more"),
        pytest.param({"grants": {}}, id="an object for the grants"),
        pytest.param({"rls": []}, id="a list for the rows"),
        pytest.param({"key_id": 1}, id="a number for the key"),
        pytest.param({"session_seconds": 0}, id="a session of no seconds"),
        pytest.param({"session_seconds": 1.5}, id="a session of a fraction"),
    ],
)
def test_a_text_of_another_shape_is_no_claims(changes: dict[str, Any]) -> None:
    members = json.loads(claims_to_text(_claims()))
    assert claims_from_text(json.dumps({**members, **changes}).encode()) is None


def test_repeated_members_are_no_claims() -> None:
    text = claims_to_text(_claims()).decode()
    assert claims_from_text((text[:-1] + ',"tenant":"acme"}').encode()) is None


def test_the_fields_are_those_of_the_claims() -> None:
    members = json.loads(claims_to_text(_claims()))
    assert members.keys() == {item.name for item in fields(VerifiedClaims)} - {"derived"} | {"schema"}
    claims = _claims()
    claims.derived["x"] = 1
    assert claims == _claims()
