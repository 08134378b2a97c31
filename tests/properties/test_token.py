"""Tokens under any input: a verdict always, the minted claims exactly, and no second spelling of a token."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.grants import Grant, reaches
from toucan_guard.core.jws import decode_segment, encode_segment
from toucan_guard.core.strict_json import strict_json
from toucan_guard.core.token import recheck, steady_between, verify
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, TokenPolicy
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.mint import TokenMinter

NOW = 1_800_000_000.0
SECRET = "b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5"
POLICY = TokenPolicy("https://host.example", ("charts",), require_tenant=False)

HMAC_MINTER = TokenMinter(SECRET, kid="h", issuer=POLICY.issuer, audience="charts", clock=lambda: NOW)
EDWARDS_MINTER = TokenMinter(
    ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
    kid="e",
    issuer=POLICY.issuer,
    audience="charts",
    clock=lambda: NOW,
)
HMAC_RING = KeyRing([HMAC_MINTER.verification_key])
EDWARDS_RING = KeyRing([EDWARDS_MINTER.verification_key])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(lambda t: t != "*")
scalar = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
json_value = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
origin = st.sampled_from(["https://portal.example", "https://*.shop.example", "https://a.b.example:8443"])
grant = st.builds(Grant, plain, plain | st.just("*"), st.lists(plain, min_size=1, max_size=3).map(tuple))


def signed(header: Any, payload: Any) -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signing_input = b".".join(map(encode_segment, parts))
    return (signing_input + b"." + encode_segment(hmac.digest(SECRET.encode(), signing_input, "sha256"))).decode()


def verdict(token: Any, token_type: str = EMBED, now: float = NOW) -> VerifiedClaims | Deny:
    result = verify(token, policy=POLICY, keys=HMAC_RING, now=now, token_type=token_type)
    assert isinstance(result, VerifiedClaims | Deny)
    return result


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_any_bytes_and_any_text_are_a_verdict(token: bytes | str) -> None:
    assert isinstance(verdict(token), Deny)


@given(st.lists(st.binary(max_size=60).map(lambda raw: encode_segment(raw).decode()), min_size=1, max_size=5))
def test_any_canonical_segments_are_a_verdict(segments: list[str]) -> None:
    assert isinstance(verdict(".".join(segments)), Deny)


@given(json_value, json_value)
def test_any_signed_json_is_a_verdict(header: Any, payload: Any) -> None:
    assert isinstance(verdict(signed(header, payload)), Deny)
    assert isinstance(verdict(signed({"alg": "HS256", "kid": "h", "typ": "embed+jwt"}, payload)), Deny)


CLAIMS = {
    "iss": POLICY.issuer,
    "aud": "charts",
    "sub": "u",
    "jti": "t",
    "iat": NOW,
    "exp": NOW + 60,
    "session_seconds": 60,
    "ver": 1,
}
OPTIONAL = ["tenant", "region", "origins", "grants", "rls", "nbf"]


@given(st.sampled_from([*CLAIMS, *OPTIONAL]), json_value, st.sampled_from([EMBED, BOOTSTRAP]))
def test_any_value_of_any_claim_is_a_verdict(claim: str, value: Any, token_type: str) -> None:
    token = signed({"alg": "HS256", "kid": "h", "typ": token_type}, {**CLAIMS, claim: value})
    result = verdict(token, token_type)
    if isinstance(result, VerifiedClaims):
        assert "derived" not in repr(result)


@given(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "enc", "jwk", "x"]), json_value)
def test_any_value_of_any_header_member_is_a_verdict(member: str, value: Any) -> None:
    header = {"alg": "HS256", "kid": "h", "typ": "embed+jwt", member: value}
    verdict(signed(header, CLAIMS))


@given(st.floats())
def test_any_clock_is_a_verdict(now: float) -> None:
    verdict(signed({"alg": "HS256", "kid": "h", "typ": "embed+jwt"}, CLAIMS), now=now)


@given(
    subject=name,
    tenant=st.none() | name,
    region=st.none() | name,
    grants=st.lists(grant, max_size=3),
    rls=st.none() | st.dictionaries(text, scalar | st.lists(scalar, max_size=3), max_size=4),
    origins=st.none() | st.lists(origin, max_size=3),
    lifetime_seconds=st.integers(1, 3600),
)
def test_verifying_a_minted_token_gives_back_what_was_minted(
    subject: str,
    tenant: str | None,
    region: str | None,
    grants: list[Grant],
    rls: dict[str, Any] | None,
    origins: list[str] | None,
    lifetime_seconds: int,
) -> None:
    token = HMAC_MINTER.mint(
        subject=subject,
        tenant=tenant,
        region=region,
        grants=grants,
        rls=rls,
        origins=origins,
        lifetime_seconds=lifetime_seconds,
    )
    claims = verdict(token)
    assert isinstance(claims, VerifiedClaims), claims
    assert (claims.subject, claims.tenant, claims.region, claims.grants) == (subject, tenant, region, tuple(grants))
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + lifetime_seconds)
    assert claims.rls == (
        None if rls is None else {key: tuple(value) if isinstance(value, list) else value for key, value in rls.items()}
    )
    assert (claims.origins is None) is (origins is None)
    if claims.origins is not None and origins is not None:
        assert claims.origins.entries == tuple(sorted(set(origins)))
    verifier = CachedVerifier(POLICY, HMAC_RING, TokenCache(10))
    assert verifier.verify(token, now=NOW) == claims
    assert verifier.verify(token, now=NOW) == claims


@settings(deadline=None)
@given(st.data(), st.sampled_from([(HMAC_MINTER, HMAC_RING), (EDWARDS_MINTER, EDWARDS_RING)]))
def test_a_single_flipped_bit_is_refused(data: st.DataObject, room: tuple[TokenMinter, KeyRing]) -> None:
    minter, ring = room
    token = minter.mint(subject="u-1", tenant="AA", rls={"carrier": "AA"}, token_id="t-1").encode()
    assert isinstance(verify(token, policy=POLICY, keys=ring, now=NOW), VerifiedClaims)
    bit = data.draw(st.integers(0, len(token) * 8 - 1))
    flipped = bytearray(token)
    flipped[bit // 8] ^= 1 << bit % 8
    assert isinstance(verify(bytes(flipped), policy=POLICY, keys=ring, now=NOW), Deny)
    # Latin-1 is how a header value arrives as text.
    assert isinstance(verify(bytes(flipped).decode("latin-1"), policy=POLICY, keys=ring, now=NOW), Deny)


def test_every_bit_of_one_token_counts() -> None:
    token = HMAC_MINTER.mint(subject="u-1", token_id="t-1").encode()
    for bit in range(len(token) * 8):
        flipped = bytearray(token)
        flipped[bit // 8] ^= 1 << bit % 8
        assert isinstance(verdict(bytes(flipped)), Deny), bit


@given(st.binary(max_size=60))
def test_segments_decode_to_what_was_encoded(raw: bytes) -> None:
    assert decode_segment(encode_segment(raw)) == raw


@given(st.binary(max_size=12) | st.text("AZaz09-_+/= ", max_size=12).map(str.encode))
def test_what_decodes_is_spelled_as_it_is_encoded(segment: bytes) -> None:
    decoded = decode_segment(segment)
    if decoded is not None:
        assert encode_segment(decoded) == segment
        assert base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)) == decoded


@given(st.binary(max_size=60))
def test_strict_json_reads_or_raises_value_error(raw: bytes) -> None:
    try:
        value = strict_json(raw)
    except ValueError:
        return
    assert json.loads(raw) == value


@given(json_value)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    assert strict_json(json.dumps(value).encode()) == value


@given(st.lists(grant, max_size=4), plain, plain, plain)
def test_a_grant_that_is_reached_is_one_that_names_it(grants: list[Grant], type_: str, id_: str, action: str) -> None:
    reached = not isinstance(reaches(grants, type_, id_, action), Deny)
    named = [one for one in grants if one.type == type_ and one.id in (id_, "*") and action in one.actions]
    assert reached is bool(named)


@given(json_value)
def test_any_json_is_a_grant_or_none(value: Any) -> None:
    read = Grant.from_claim(value)
    assert read is None or read.to_claim() == value


_second = st.integers(-100, 4000) | st.floats(-100, 4000)


@given(
    issued=_second,
    lives=st.integers(0, 4000) | st.floats(0, 4000),
    begins=st.none() | _second,
    verified=_second,
    asked=_second | st.sampled_from(["first", "last", "before", "after"]),
    leeway=st.integers(0, 60),
    lifetime=st.integers(1, 3600),
)
def test_in_its_steady_time_nothing_is_to_be_said_against_a_token(
    issued: float, lives: float, begins: float | None, verified: float, asked: Any, leeway: int, lifetime: int
) -> None:
    policy = TokenPolicy(POLICY.issuer, ("charts",), leeway_seconds=leeway, lifetime_seconds=lifetime)
    claims = VerifiedClaims(
        issuer=POLICY.issuer,
        audiences=("charts",),
        subject="u",
        token_id="t",
        issued_at=NOW + issued,
        expires_at=NOW + issued + lives,
        not_before=None if begins is None else NOW + begins,
        tenant="acme",
        origins=None,
        grants=(),
        rls=None,
        region=None,
        key_id=None,
        algorithm="HS256",
        token_type=EMBED,
        session_seconds=None,
    )
    if recheck(claims, policy=policy, now=NOW + verified) is not None:
        return
    first, last = steady_between(claims, policy=policy)
    ends = {"first": first, "last": last, "before": first - 1.001, "after": last + 1.001}
    now = ends.get(asked, 0.0) if isinstance(asked, str) else NOW + asked
    if first <= now <= last:
        assert recheck(claims, policy=policy, now=now) is None
    if asked in ("before", "after"):
        assert recheck(claims, policy=policy, now=now) is not None  # to a second, it is all of that time
