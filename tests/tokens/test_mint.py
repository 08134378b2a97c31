"""Minting: what the guard would refuse is not made."""

from __future__ import annotations

import base64
import datetime
import json
import traceback
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

import toucan_guard.tokens
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, ClaimNames, TokenPolicy
from toucan_guard.tokens import TokenMinter
from toucan_guard.tokens.keys import KeyRing, SigningKey

NOW = 1_800_000_000.75
SECRET = "b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5"
POLICY = TokenPolicy("https://host.example", ("charts",), development=True, require_tenant=False)


def minter(**options: Any) -> TokenMinter:
    key = options.pop("key", SECRET)
    return TokenMinter(key, **{"issuer": "https://host.example", "audience": "charts", "clock": lambda: NOW, **options})


def payload(token: str) -> dict[str, Any]:
    segment = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return decoded


def verified(token: str, one: TokenMinter, policy: TokenPolicy = POLICY, token_type: str = EMBED) -> VerifiedClaims:
    claims = verify(token, policy=policy, keys=KeyRing([one.verification_key]), now=NOW, token_type=token_type)
    assert isinstance(claims, VerifiedClaims), claims
    return claims


@pytest.mark.parametrize(
    "options",
    [{"issuer": ""}, {"kid": ""}, {"key": SECRET[:24]}, {"key": {"kty": "oct", "k": SECRET}, "audience": []}],
    ids=["an issuer", "a key's name", "a weak key", "a key with mistakes"],
)
def test_what_is_wrong_with_a_minter_is_told_without_its_key(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        minter(**options)
    frames = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    *_, last = frames.stack  # the caller's own frames show what it gives
    assert last.locals
    assert not [value for value in last.locals.values() if SECRET[:20] in value]
    assert frames.__context__ is None


def test_the_room_exports_the_minter() -> None:
    assert toucan_guard.tokens.__all__ == ["TokenMinter"]


def test_a_minted_token_is_verified() -> None:
    one = minter(audience=["charts", "reports"], region="eu")
    token = one.mint(
        subject="u-1",
        tenant="AA",
        grants=[Grant("dashboard", "delays", ("view",)), {"type": "question", "id": "*", "actions": ["run"]}],  # type: ignore[list-item]
        rls={"carrier": "AA", "airports": ("JFK", "LGA")},
        origins=["https://portal.example"],
        extra_claims={"theme": "dark"},
    )
    claims = verified(token, one)
    assert (claims.subject, claims.tenant, claims.region) == ("u-1", "AA", "eu")
    assert claims.audiences == ("charts", "reports")
    assert claims.grants == (Grant("dashboard", "delays", ("view",)), Grant("question", "*", ("run",)))
    assert claims.rls == {"carrier": "AA", "airports": ("JFK", "LGA")}
    assert claims.origins is not None
    assert claims.origins.entries == ("https://portal.example",)
    assert (claims.issued_at, claims.expires_at) == (1_800_000_000, 1_800_000_300)
    assert payload(token)["ver"] == 1
    assert payload(token)["theme"] == "dark"


def test_what_is_not_said_is_not_in_the_token() -> None:
    said = payload(minter().mint(subject="u-1"))
    assert sorted(said) == ["aud", "exp", "grants", "iat", "iss", "jti", "sub", "ver"]
    assert payload(minter().mint(subject="u-1", rls={}, origins=[])).items() >= {"rls": {}, "origins": []}.items()


def test_every_token_has_an_id_of_its_own() -> None:
    one = minter()
    assert payload(one.mint(subject="u"))["jti"] != payload(one.mint(subject="u"))["jti"]
    assert payload(one.mint(subject="u", token_id="t-1"))["jti"] == "t-1"


def test_claim_names_are_remapped() -> None:
    names = ClaimNames(rls="https://acme.example/rls", tenant="org")
    one = minter(claim_names=names)
    token = one.mint(subject="u", tenant="AA", rls={"carrier": "AA"})
    assert payload(token)["https://acme.example/rls"] == {"carrier": "AA"}
    policy = TokenPolicy("https://host.example", ("charts",), claim_names=names)
    assert verified(token, one, policy).rls == {"carrier": "AA"}


def test_the_key_is_named_in_the_header_and_shown_nowhere() -> None:
    one = minter(kid="k1")
    header = json.loads(base64.urlsafe_b64decode(one.mint(subject="u").split(".")[0] + "=="))
    assert header == {"alg": "HS256", "typ": "embed+jwt", "kid": "k1"}
    assert SECRET not in repr(one)
    assert "k1" in repr(one)
    named = minter(key=ed25519.Ed25519PrivateKey.generate())
    assert verified(named.mint(subject="u"), named).key_id == named.verification_key.kid
    assert minter(key=SigningKey.load(SECRET, kid="k2")).verification_key.kid == "k2"


def test_a_bootstrap_token_lives_a_minute_at_most() -> None:
    one = minter()
    claims = verified(one.mint_bootstrap(subject="u"), one, token_type=BOOTSTRAP)
    assert (claims.session_seconds, claims.expires_at - claims.issued_at) == (900, 60)
    short = minter(lifetime_seconds=20)
    claims = verified(short.mint_bootstrap(subject="u", session_seconds=60), short, token_type=BOOTSTRAP)
    assert (claims.session_seconds, claims.expires_at - claims.issued_at) == (60, 20)
    claims = verified(one.mint_bootstrap(subject="u", lifetime_seconds=5), one, token_type=BOOTSTRAP)
    assert claims.expires_at - claims.issued_at == 5
    assert isinstance(
        verify(one.mint_bootstrap(subject="u"), policy=POLICY, keys=KeyRing([one.verification_key]), now=NOW), Deny
    )


def test_values_that_a_policy_has_names_for_become_text() -> None:
    written = payload(
        minter().mint(
            subject="u",
            rls={
                "day": datetime.date(2013, 1, 31),
                "since": datetime.datetime(2013, 1, 31, 6, tzinfo=datetime.UTC),
                "id": uuid.UUID(int=7),
                "some": {"b", "a"},
                "all": (1, 2.5, True),
            },
        )
    )["rls"]
    assert written == {
        "day": "2013-01-31",
        "since": "2013-01-31T06:00:00+00:00",
        "id": "00000000-0000-0000-0000-000000000007",
        "some": ["a", "b"],
        "all": [1, 2.5, True],
    }


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param({"subject": ""}, "subject", id="an empty subject"),
        pytest.param({"subject": 7}, "subject", id="a number for a subject"),
        pytest.param({"subject": None}, "subject", id="no subject"),
        pytest.param({"subject": "\ud800"}, "UTF-8", id="a lone surrogate in a subject"),
        pytest.param({"tenant": ""}, "tenant", id="an empty tenant"),
        pytest.param({"tenant": 7}, "tenant", id="a number for a tenant"),
        pytest.param({"region": ""}, "region", id="an empty region"),
        pytest.param({"token_id": ""}, "token_id", id="an empty token id"),
        pytest.param({"lifetime_seconds": 0}, "lifetime", id="no lifetime"),
        pytest.param({"lifetime_seconds": -1}, "lifetime", id="a negative lifetime"),
        pytest.param({"lifetime_seconds": True}, "lifetime", id="true for a lifetime"),
        pytest.param({"lifetime_seconds": 1.5}, "lifetime", id="a fraction for a lifetime"),
        pytest.param({"lifetime_seconds": 10**30}, "lifetime", id="a lifetime beyond all clocks"),
        pytest.param({"origins": "https://portal.example"}, "origins", id="a bare text of origins"),
        pytest.param({"origins": 7}, "origins", id="a number of origins"),
        pytest.param({"origins": ["portal.example"]}, "portal.example", id="an origin without a scheme"),
        pytest.param({"origins": ["https://portal.example/x"]}, "portal.example", id="an origin with a path"),
        pytest.param({"origins": ["*"]}, "*", id="a star for an origin"),
        pytest.param({"origins": [None]}, "origin", id="None for an origin"),
        pytest.param({"origins": ["http://portal.example"]}, "https", id="an http origin"),
        pytest.param({"grants": "dashboard"}, "grants", id="a bare text of grants"),
        pytest.param({"grants": {"type": "dashboard"}}, "grants", id="an object of grants"),
        pytest.param({"grants": ["dashboard"]}, "grants", id="a text among the grants"),
        pytest.param(
            {"grants": [{"type": "dashboard", "id": "x", "actions": ["view"], "more": 1}]},
            "grants",
            id="an unknown key",
        ),
        pytest.param({"rls": [("carrier", "AA")]}, "rls", id="a list for rls"),
        pytest.param({"rls": {1: "AA"}}, "rls", id="a number for an attribute's name"),
        pytest.param({"rls": {"carrier": object()}}, "JSON", id="a value that is no JSON"),
        pytest.param({"rls": {"carrier": float("nan")}}, "JSON", id="a value that is not a number"),
        pytest.param({"rls": {"carrier": b"AA"}}, "JSON", id="bytes for a value"),
        pytest.param({"extra_claims": {"exp": 1}}, "exp", id="an extra claim that lengthens the token"),
        pytest.param({"extra_claims": {"rls": {}}}, "rls", id="an extra claim that replaces the row claims"),
        pytest.param({"extra_claims": {"origins": []}}, "origins", id="an extra claim that has an argument"),
        pytest.param({"extra_claims": {1: 2}}, "extra_claims", id="an extra claim without a name"),
        pytest.param({"extra_claims": [1]}, "extra_claims", id="a list of extra claims"),
        pytest.param({"extra_claims": {"x": "y" * 9000}}, "bytes", id="a token that is too large"),
    ],
)
def test_what_the_guard_would_refuse_is_not_made(arguments: dict[str, Any], word: str) -> None:
    one = minter()
    with pytest.raises(MintError) as caught:
        one.mint(**{"subject": "u", **arguments})
    assert any(word in problem for problem in caught.value.problems)
    one.mint(subject="u")


def test_a_value_that_is_too_deep_is_not_made() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(MintError, match="levels"):
        minter().mint(subject="u", extra_claims={"x": deep})


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(MintError) as caught:
        minter().mint(subject="", tenant="", origins="x", grants="y", lifetime_seconds=0)  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param({"lifetime_seconds": 61}, "60", id="a bootstrap token of 61 seconds"),
        pytest.param({"session_seconds": 0}, "session_seconds", id="a session of no length"),
        pytest.param({"session_seconds": True}, "session_seconds", id="true for a session's length"),
        pytest.param({"subject": ""}, "subject", id="an empty subject"),
    ],
)
def test_a_bootstrap_token_is_not_made(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(MintError, match=word):
        minter().mint_bootstrap(**{"subject": "u", **arguments})


def test_http_origins_of_this_machine_are_let_through() -> None:
    for origin in ("http://localhost:8001", "http://127.0.0.1:8001", "http://[::1]:8001"):
        one = minter()
        assert verified(one.mint(subject="u", origins=[origin]), one).origins is not None
    one = minter(development=True)
    assert verified(one.mint(subject="u", origins=["http://portal.example"]), one).origins is not None


class Demanding:
    """A policy that wants a carrier."""

    def problems(self, attributes: Mapping[str, object]) -> tuple[str, ...]:
        return () if attributes.get("carrier") == "AA" else ("the attribute 'carrier' is missing",)


def test_attributes_are_held_against_the_policy() -> None:
    one = minter(policy=Demanding())
    one.mint(subject="u", rls={"carrier": "AA"})
    with pytest.raises(MintError, match="carrier"):
        one.mint(subject="u", rls={"airline": "AA"})
    with pytest.raises(MintError, match="rls is missing"):
        one.mint(subject="u")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"key": "short"}, id="a short secret"),
        pytest.param({"key": ""}, id="no secret"),
        pytest.param({"key": 7}, id="a number for a key"),
        pytest.param({"issuer": ""}, id="an empty issuer"),
        pytest.param({"audience": ""}, id="an empty audience"),
        pytest.param({"audience": []}, id="no audience"),
        pytest.param({"audience": ["charts", ""]}, id="an empty audience among others"),
        pytest.param({"lifetime_seconds": 0}, id="no lifetime"),
        pytest.param({"region": ""}, id="an empty region"),
        pytest.param({"algorithm": "none"}, id="no algorithm"),
    ],
)
def test_a_mistaken_minter_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        minter(**options)
