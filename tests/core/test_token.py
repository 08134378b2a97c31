"""The token, from the outside in: each refusal beside a token that is accepted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from toucan_guard.core.claims import VerifiedClaims, read_claims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant
from toucan_guard.core.jws import KeyFinder, VerifyingKey, decode_segment, parse_compact
from toucan_guard.core.strict_json import strict_json
from toucan_guard.core.token import recheck, steady_between, verify
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED, ClaimNames, TokenPolicy

NOW = 1_800_000_000
SECRET = b"a secret of this test, 32 bytes and more"
POLICY = TokenPolicy("https://host.example", ("charts", "reports"))
CLAIMS: dict[str, Any] = {
    "iss": "https://host.example",
    "aud": "charts",
    "sub": "u-1",
    "jti": "t-1",
    "iat": NOW,
    "exp": NOW + 300,
    "tenant": "AA",
    "ver": 1,
}
HEADER: dict[str, Any] = {"alg": "HS256", "kid": "k1", "typ": "embed+jwt"}


class Hmac:
    """A key of these tests: HS256, so that a token can be signed by hand."""

    kid: str | None = "k1"
    algorithm = "HS256"
    mark = "m1"

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(SECRET, signing_input, "sha256"), signature)


class Ring:
    """A ring of one key that remembers what it was asked."""

    def __init__(self, key: VerifyingKey | None = None) -> None:
        self.key = key or Hmac()
        self.asked: list[tuple[str | None, str]] = []

    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        self.asked.append((kid, algorithm))
        if kid not in (None, self.key.kid):
            return Deny(Reason.KEY_UNKNOWN)
        return self.key if algorithm == self.key.algorithm else Deny(Reason.ALGORITHM_NOT_ALLOWED)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: bytes | dict[str, Any], payload: bytes | dict[str, Any]) -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signing_input = ".".join(map(b64, parts))
    return f"{signing_input}.{b64(hmac.digest(SECRET, signing_input.encode(), 'sha256'))}"


def token(header: dict[str, Any] | None = None, /, **claims: Any) -> str:
    merged = {**CLAIMS, **claims}
    return sign({**HEADER, **(header or {})}, {name: value for name, value in merged.items() if value is not ...})


def check(text: str | bytes, policy: TokenPolicy = POLICY, *, now: float = NOW, **more: Any) -> VerifiedClaims | Deny:
    keys: KeyFinder = more.pop("keys", None) or Ring()
    return verify(text, policy=policy, keys=keys, now=now, **more)


def accepted(text: str | bytes, policy: TokenPolicy = POLICY, **more: Any) -> VerifiedClaims:
    result = check(text, policy, **more)
    assert isinstance(result, VerifiedClaims), result
    return result


def refused(text: str | bytes, policy: TokenPolicy = POLICY, **more: Any) -> Reason | str:
    result = check(text, policy, **more)
    assert isinstance(result, Deny), result
    assert SECRET.decode() not in result.detail
    return result.reason


# --- what comes out -------------------------------------------------------------------------------------------------


def test_every_claim_of_a_full_token_arrives() -> None:
    claims = accepted(
        token(
            aud=["other", "charts"],
            nbf=NOW - 1.5,
            region="eu",
            origins=["https://portal.example", "https://*.shop.example"],
            grants=[{"type": "dashboard", "id": "delays", "actions": ["view"]}],
            rls={"carrier": "AA", "airports": ["JFK", "LGA"], "deep": {"x": [1]}},
        )
    )
    assert claims.issuer == "https://host.example"
    assert claims.audiences == ("other", "charts")
    assert (claims.subject, claims.token_id, claims.tenant, claims.region) == ("u-1", "t-1", "AA", "eu")
    assert (claims.issued_at, claims.expires_at, claims.not_before) == (NOW, NOW + 300, NOW - 1.5)
    assert claims.grants == (Grant("dashboard", "delays", ("view",)),)
    assert claims.rls is not None
    assert dict(claims.rls) == {"carrier": "AA", "airports": ("JFK", "LGA"), "deep": {"x": (1,)}}
    assert claims.origins is not None
    assert claims.origins.entries == ("https://*.shop.example", "https://portal.example")
    assert (claims.key_id, claims.algorithm, claims.key_mark, claims.token_type) == ("k1", "HS256", "m1", EMBED)
    assert claims.session_seconds is None


def test_the_smallest_token_says_nothing_more_than_it_must() -> None:
    claims = accepted(token())
    assert (claims.origins, claims.rls, claims.region, claims.not_before) == (None, None, None, None)
    assert claims.grants == ()


def test_no_claims_and_empty_claims_are_not_the_same() -> None:
    claims = accepted(token(rls={}, origins=[]))
    assert claims.rls == {}
    assert claims.origins is not None
    assert len(claims.origins) == 0


def test_claims_are_frozen_and_hide_row_values() -> None:
    claims = accepted(token(rls={"carrier": "hidden-value", "more": {"x": "hidden-value"}}))
    assert "hidden-value" not in repr(claims)
    assert claims.rls is not None
    with pytest.raises(TypeError):
        claims.rls["carrier"] = "BB"  # type: ignore[index]
    with pytest.raises(TypeError):
        claims.rls["more"]["x"] = "BB"  # type: ignore[index]
    with pytest.raises(AttributeError):
        claims.tenant = "BB"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del claims.tenant


def test_what_layers_derive_is_no_part_of_the_claims() -> None:
    first, second = accepted(token()), accepted(token())
    first.derived["filter"] = object()
    assert first == second
    assert "filter" not in repr(first)
    assert second.derived == {}


def test_text_and_bytes_are_the_same_token() -> None:
    assert accepted(token()) == accepted(token().encode())


# --- the outside ----------------------------------------------------------------------------------------------------


def edited(change: Callable[[list[str]], list[str]]) -> str:
    return ".".join(change(token().split(".")))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty text"),
        pytest.param("..", id="three empty segments"),
        pytest.param("a", id="one segment"),
        pytest.param(edited(lambda s: s[:2]), id="a missing signature and separator"),
        pytest.param(edited(lambda s: [*s[:2], ""]), id="a missing signature"),
        pytest.param(edited(lambda s: [s[0], "", s[2]]), id="an empty payload (detached content)"),
        pytest.param(edited(lambda s: ["", *s[1:]]), id="an empty header"),
        pytest.param(edited(lambda s: [*s, ""]), id="a fourth, empty segment"),
        pytest.param(edited(lambda s: [*s, "x"]), id="junk after the signature"),
        pytest.param(edited(lambda s: [*s, "x", "y"]), id="the five segments of a JWE"),
        pytest.param(edited(lambda s: [s[0] + "=", *s[1:]]), id="padding in the header"),
        pytest.param(edited(lambda s: [*s[:2], s[2] + "="]), id="padding in the signature"),
        pytest.param(edited(lambda s: [*s[:2], s[2] + "\n"]), id="a line break at the end"),
        pytest.param(edited(lambda s: [" " + s[0], *s[1:]]), id="a space in front"),
        pytest.param(edited(lambda s: [s[0], s[1] + "?", s[2]]), id="a foreign character in the payload"),
        pytest.param(edited(lambda s: [s[0], s[1] + "\x00", s[2]]), id="a NUL in the payload"),
        pytest.param(edited(lambda s: [*s[:2], s[2].replace("_", "/").replace("-", "+") + "+/"]), id="plain base64"),
        pytest.param(edited(lambda s: [*s[:2], s[2] + "é"]), id="a character that is not ASCII"),
        pytest.param(edited(lambda s: [*s[:2], s[2] + "\ud800"]), id="a lone surrogate"),
        pytest.param(edited(lambda s: [s[0] + "A" * (1 + -len(s[0]) % 4), *s[1:]]), id="an impossible length"),
        pytest.param('{"payload":"e30","signatures":[]}', id="a JWS in JSON"),
        pytest.param(b"\xff\xfe.a.b", id="bytes that are not ASCII"),
        pytest.param(None, id="None"),
        pytest.param(7, id="a number"),
        pytest.param(bytearray(b"a.b.c"), id="a bytearray"),
    ],
)
def test_what_is_not_a_compact_jws_is_malformed(text: Any) -> None:
    assert refused(text) is Reason.TOKEN_MALFORMED


def test_the_last_character_has_one_spelling_only() -> None:
    text = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 32 bytes are 43 characters; the last one has two bits that decoders ignore.
    twin = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert base64.urlsafe_b64decode(twin.split(".")[2] + "=") == base64.urlsafe_b64decode(text.split(".")[2] + "=")
    assert refused(twin) is Reason.TOKEN_MALFORMED
    accepted(text)


def test_a_token_is_measured_before_it_is_read() -> None:
    text = token(pad="x" * 4000)
    accepted(text)
    accepted(text, replace(POLICY, max_token_bytes=len(text)))
    assert refused(text, replace(POLICY, max_token_bytes=len(text) - 1)) is Reason.TOKEN_TOO_LARGE
    started = time.perf_counter()
    assert refused("é" * 30_000_000) is Reason.TOKEN_TOO_LARGE
    assert refused("." * 30_000_000) is Reason.TOKEN_TOO_LARGE
    assert time.perf_counter() - started < 10  # and not minutes: the size comes first


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"alg":"HS256","typ":"embed+jwt","alg":"none"}', id="a repeated member"),
        pytest.param(b'{"alg":"HS256","typ":"embed+jwt","\\u0061lg":"none"}', id="a member repeated by an escape"),
        pytest.param('{"alg":"HS256","typ":"embed+jwt"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"alg":"HS256","typ":"embed+jwt"}'.encode("utf-8-sig"), id="a byte order mark"),
        pytest.param(b'{"alg":"HS256","typ":"embed+jwt","x":"\xff"}', id="bytes that are not UTF-8"),
        pytest.param(b'{"alg":"HS256","typ":"embed+jwt","x":NaN}', id="NaN"),
        pytest.param(b'{"alg":"HS256","typ":"embed+jwt"} x', id="junk behind the object"),
        pytest.param(b'["HS256"]', id="a list"),
        pytest.param(b'"HS256"', id="a text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{", id="a part of an object"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_header_that_is_not_a_strict_json_object_is_malformed(raw: bytes) -> None:
    assert refused(sign(raw, CLAIMS)) is Reason.TOKEN_MALFORMED
    accepted(sign(b' {"alg" : "HS256",\n"typ":"embed+jwt"} ', CLAIMS))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"sub":"u-1","sub":"u-2"}', id="a repeated member"),
        pytest.param(b'{"rls":{"carrier":"AA","carrier":"BB"}}', id="a repeated member inside a member"),
        pytest.param(b'{"x":[{"a":1,"a":1}]}', id="a repeated member inside a list"),
        pytest.param(b'{"exp":NaN}', id="NaN"),
        pytest.param(b'{"exp":Infinity}', id="Infinity"),
        pytest.param(b'{"exp":-Infinity}', id="minus Infinity"),
        pytest.param(b'{"exp":1e400}', id="a number that is infinite as a float"),
        pytest.param(b'{"x":' + b"9" * 5000 + b"}", id="a number of 5,000 digits"),
        pytest.param('{"sub":"u-1"}'.encode("utf-16-le"), id="UTF-16"),
        pytest.param(b'{"sub":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"\\udc00":1}', id="a lone surrogate in a name"),
        pytest.param(b'{"sub":"a\nb"}', id="a raw control character"),
        pytest.param(b"[" * 33 + b"]" * 33, id="33 levels"),
        pytest.param(b'{"a":' * 33 + b"1" + b"}" * 33, id="33 levels of objects"),
        pytest.param(b"[" * 2900, id="2,900 levels"),
        pytest.param(b"[" * 2900 + b"]" * 2900, id="2,900 levels that are closed"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"7", id="a number"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b"\x00", id="a NUL"),
    ],
)
def test_a_payload_that_is_not_a_strict_json_object_is_malformed(raw: bytes) -> None:
    assert refused(sign(HEADER, raw)) is Reason.TOKEN_MALFORMED


def test_strict_json_still_reads_all_of_json() -> None:
    nested = b"[" * 32 + b"]" * 32
    assert strict_json(nested) is not None
    assert strict_json(b'{"a":"\\ud83d\\ude00 [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}') == {"a": "😀 " + "[" * 36}
    assert strict_json(b' {"a": [1, -2.5, 1e3, true, null, "\xc3\xa9"]} ') == {"a": [1, -2.5, 1000.0, True, None, "é"]}


def test_segments_decode_in_one_spelling_only() -> None:
    assert decode_segment(b"Zm8") == b"fo"
    assert decode_segment(b"") == b""
    for twin in (b"Zm9", b"Zm8=", b"Zm8 ", b"Z", b"Zm8.", b"Zm-8/"):
        assert decode_segment(twin) is None


def test_only_a_signature_vector_may_have_an_empty_payload() -> None:
    text = sign(HEADER, b"")
    assert isinstance(parse_compact(text, max_bytes=1000), Deny)
    parsed = parse_compact(text, max_bytes=1000, allow_empty_payload=True)
    assert not isinstance(parsed, Deny)
    assert (parsed.payload, parsed.signing_input) == (b"", text.rpartition(".")[0].encode())


def test_what_is_read_of_a_token_does_not_show_it() -> None:
    parsed = parse_compact("eyJhIjoxfQ.c2VjcmV0LWNsYWltcw.c2lnbmF0dXJl", max_bytes=1000)
    assert repr(parsed) == "CompactJws(header=mappingproxy({'a': 1}))"


# --- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param({"alg": "none"}, Reason.ALGORITHM_NOT_ALLOWED, id="alg none"),
        pytest.param({"alg": "NoNe"}, Reason.ALGORITHM_NOT_ALLOWED, id="alg none in another case"),
        pytest.param({"alg": "none "}, Reason.ALGORITHM_NOT_ALLOWED, id="alg none with a space"),
        pytest.param({"alg": ""}, Reason.ALGORITHM_NOT_ALLOWED, id="an empty alg"),
        pytest.param({"alg": None}, Reason.ALGORITHM_NOT_ALLOWED, id="a null alg"),
        pytest.param({"alg": ["HS256"]}, Reason.ALGORITHM_NOT_ALLOWED, id="a list of algs"),
        pytest.param({"alg": "hs256"}, Reason.ALGORITHM_NOT_ALLOWED, id="an alg in another case"),
        pytest.param({"alg": "HS512"}, Reason.ALGORITHM_NOT_ALLOWED, id="another alg than the key's"),
        pytest.param({"alg": "RS256"}, Reason.ALGORITHM_NOT_ALLOWED, id="an alg of another key type"),
        pytest.param({"kid": "k2"}, Reason.KEY_UNKNOWN, id="an unknown kid"),
        pytest.param({"kid": "' OR 1=1 --"}, Reason.KEY_UNKNOWN, id="SQL for a kid"),
        pytest.param({"kid": "../../dev/null"}, Reason.KEY_UNKNOWN, id="a path for a kid"),
        pytest.param({"kid": None}, Reason.TOKEN_MALFORMED, id="a null kid"),
        pytest.param({"kid": 1}, Reason.TOKEN_MALFORMED, id="a number for a kid"),
        pytest.param({"kid": ["k1"]}, Reason.TOKEN_MALFORMED, id="a list for a kid"),
        pytest.param({"kid": "k" * 257}, Reason.TOKEN_MALFORMED, id="a kid of 257 characters"),
        pytest.param({"crit": []}, Reason.TOKEN_MALFORMED, id="an empty crit"),
        pytest.param({"crit": ["exp"], "exp": 1}, Reason.TOKEN_MALFORMED, id="a crit"),
        pytest.param({"crit": ["b64"], "b64": False}, Reason.TOKEN_MALFORMED, id="an unencoded payload"),
        pytest.param({"b64": True}, Reason.TOKEN_MALFORMED, id="a b64 that changes nothing"),
        pytest.param({"zip": "DEF"}, Reason.TOKEN_MALFORMED, id="a compressed payload"),
        pytest.param({"enc": "A256GCM"}, Reason.TOKEN_MALFORMED, id="an encrypted payload"),
        pytest.param({"typ": ...}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="no typ"),
        pytest.param({"typ": None}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a null typ"),
        pytest.param({"typ": ["embed+jwt"]}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a list for a typ"),
        pytest.param({"typ": "JWT"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="typ JWT without the switch"),
        pytest.param({"typ": "embed-bootstrap+jwt"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a bootstrap token"),
        pytest.param({"typ": "at+jwt"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="an access token"),
        pytest.param({"typ": "embed+jwt "}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a typ with a space"),
        pytest.param({"typ": "text/embed+jwt"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a typ with another prefix"),
        pytest.param({"typ": "application/application/embed+jwt"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="two prefixes"),
        pytest.param({"typ": "embed+jwt\u0130"}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a typ beyond ASCII"),
    ],
)
def test_a_header_is_refused(header: dict[str, Any], reason: Reason) -> None:
    merged = {name: value for name, value in {**HEADER, **header}.items() if value is not ...}
    assert refused(sign(merged, CLAIMS)) is reason


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="the usual header"),
        pytest.param({"typ": "EMBED+JWT"}, id="typ in another case"),
        pytest.param({"typ": "application/embed+jwt"}, id="typ with its prefix"),
        pytest.param({"typ": "APPLICATION/Embed+jwt"}, id="typ with its prefix in another case"),
        pytest.param({"cty": "x", "x5t": "y"}, id="members that say nothing to us"),
    ],
)
def test_a_header_is_accepted(header: dict[str, Any]) -> None:
    accepted(token(header))


def test_a_header_without_a_kid_asks_the_ring_without_one() -> None:
    ring = Ring()
    accepted(sign({"alg": "HS256", "typ": "embed+jwt"}, CLAIMS), keys=ring)
    accepted(token({"kid": "k1"}), keys=ring)
    assert ring.asked == [(None, "HS256"), ("k1", "HS256")]


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_along_is_ignored(member: str) -> None:
    brought = {"jwk": {"kty": "oct", "k": b64(b"m" * 32)}, "jku": "file:///etc/passwd", "x5u": "http://evil.example"}
    header = {**HEADER, member: brought.get(member, ["MIIB"])}
    accepted(sign(header, CLAIMS))
    signing_input = sign(header, CLAIMS).rpartition(".")[0]
    forged = f"{signing_input}.{b64(hmac.digest(b'm' * 32, signing_input.encode(), 'sha256'))}"
    assert refused(forged) is Reason.SIGNATURE_INVALID


def test_the_switch_for_foreign_issuers_opens_typ_jwt_and_nothing_else() -> None:
    switched = replace(POLICY, insecure_typ_jwt=True)
    for typ in ("JWT", "jwt", "application/jwt"):
        accepted(token({"typ": typ}), switched)
    accepted(token({"typ": "JWT"}, ver="2.0"), switched)
    assert refused(token(ver="2.0"), switched) is Reason.CLAIM_INVALID
    assert refused(sign({"alg": "HS256", "kid": "k1"}, CLAIMS), switched) is Reason.TOKEN_TYPE_NOT_ALLOWED
    assert refused(token({"typ": "at+jwt"}), switched) is Reason.TOKEN_TYPE_NOT_ALLOWED
    assert refused(token({"typ": "embed-bootstrap+jwt"}), switched) is Reason.TOKEN_TYPE_NOT_ALLOWED
    assert (
        refused(token({"typ": "JWT"}, session_seconds=60), switched, token_type=BOOTSTRAP)
        is Reason.TOKEN_TYPE_NOT_ALLOWED
    )


# --- the signature --------------------------------------------------------------------------------------------------


def test_another_secret_is_refused_before_the_payload_is_read() -> None:
    signing_input = sign(HEADER, b"not JSON").rpartition(".")[0]
    assert refused(f"{signing_input}.{b64(b'x' * 32)}") is Reason.SIGNATURE_INVALID
    assert refused(sign(HEADER, b"not JSON")) is Reason.TOKEN_MALFORMED


def test_a_payload_under_another_tokens_signature_is_refused() -> None:
    header, _, signature = token().split(".")
    other = b64(json.dumps({**CLAIMS, "tenant": "BB"}).encode())
    assert refused(f"{header}.{other}.{signature}") is Reason.SIGNATURE_INVALID


class Truthy(Hmac):
    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        return "yes"  # type: ignore[return-value]


class Raising(Hmac):
    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        raise UnicodeEncodeError("ascii", "x", 0, 1, "no reason")


class OtherAlgorithm(Hmac):
    algorithm = "RS256"


class CarelessRing(Ring):
    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        return self.key


class BrokenRing(Ring):
    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        raise RuntimeError("no keys today")


class ClosedRing(Ring):
    def find(self, kid: str | None, algorithm: str) -> VerifyingKey | Deny:
        return Deny(Reason.STORE_UNAVAILABLE)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        pytest.param(Ring(Truthy()), Reason.SIGNATURE_INVALID, id="an answer that is not True is a no"),
        pytest.param(Ring(Raising()), Reason.TOKEN_MALFORMED, id="a key that raises is a refusal"),
        pytest.param(BrokenRing(), Reason.TOKEN_MALFORMED, id="a ring that raises is a refusal"),
        pytest.param(ClosedRing(), Reason.STORE_UNAVAILABLE, id="the ring's own refusal is passed on"),
        pytest.param(
            CarelessRing(OtherAlgorithm()), Reason.ALGORITHM_NOT_ALLOWED, id="a careless ring does not mix algorithms"
        ),
    ],
)
def test_a_ring_that_misbehaves_opens_nothing(keys: KeyFinder, reason: Reason) -> None:
    assert refused(token(), keys=keys) is reason


# --- the claims -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "jti", "iat", "exp", "tenant"])
def test_a_required_claim_may_not_be_absent_null_or_empty(claim: str) -> None:
    assert refused(token(**{claim: ...})) is Reason.CLAIM_MISSING
    wrong: tuple[Any, ...] = (None, True, {}, [1])
    for value in wrong:
        assert refused(token(**{claim: value})) is Reason.CLAIM_INVALID


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"iss": "https://host.example/"}, Reason.ISSUER_NOT_ALLOWED, id="an issuer with a slash more"),
        pytest.param({"iss": "https://host.exampl"}, Reason.ISSUER_NOT_ALLOWED, id="a part of the issuer"),
        pytest.param({"iss": "HTTPS://host.example"}, Reason.ISSUER_NOT_ALLOWED, id="the issuer in another case"),
        pytest.param({"iss": ["https://host.example"]}, Reason.CLAIM_INVALID, id="a list of issuers"),
        pytest.param({"iss": ""}, Reason.CLAIM_INVALID, id="an empty issuer"),
        pytest.param({"aud": "chart"}, Reason.AUDIENCE_NOT_ALLOWED, id="a part of the audience"),
        pytest.param({"aud": "Charts"}, Reason.AUDIENCE_NOT_ALLOWED, id="the audience in another case"),
        pytest.param({"aud": ""}, Reason.AUDIENCE_NOT_ALLOWED, id="an empty audience"),
        pytest.param({"aud": []}, Reason.AUDIENCE_NOT_ALLOWED, id="an empty list of audiences"),
        pytest.param({"aud": ["a", "b"]}, Reason.AUDIENCE_NOT_ALLOWED, id="other audiences"),
        pytest.param({"aud": ["charts", 1]}, Reason.CLAIM_INVALID, id="a number among the audiences"),
        pytest.param({"aud": {"charts": 1}}, Reason.CLAIM_INVALID, id="an object of audiences"),
        pytest.param({"sub": 7}, Reason.CLAIM_INVALID, id="a number for a subject"),
        pytest.param({"sub": ""}, Reason.CLAIM_INVALID, id="an empty subject"),
        pytest.param({"jti": 7}, Reason.CLAIM_INVALID, id="a number for a token id"),
        pytest.param({"tenant": 7}, Reason.CLAIM_INVALID, id="a number for a tenant"),
        pytest.param({"tenant": ""}, Reason.CLAIM_INVALID, id="an empty tenant"),
        pytest.param({"tenant": ["AA"]}, Reason.CLAIM_INVALID, id="a list of tenants"),
        pytest.param({"region": None}, Reason.CLAIM_INVALID, id="a null region"),
        pytest.param({"region": ""}, Reason.CLAIM_INVALID, id="an empty region"),
        pytest.param({"ver": 2}, Reason.CLAIM_INVALID, id="another version"),
        pytest.param({"ver": "1"}, Reason.CLAIM_INVALID, id="the version as text"),
        pytest.param({"ver": True}, Reason.CLAIM_INVALID, id="true for a version"),
        pytest.param({"ver": 1.0}, Reason.CLAIM_INVALID, id="a float for a version"),
        pytest.param({"ver": None}, Reason.CLAIM_INVALID, id="a null version"),
        pytest.param({"exp": str(NOW + 300)}, Reason.CLAIM_INVALID, id="exp as text"),
        pytest.param({"exp": True}, Reason.CLAIM_INVALID, id="true for exp"),
        pytest.param({"exp": [NOW + 300]}, Reason.CLAIM_INVALID, id="a list for exp"),
        pytest.param({"iat": "0"}, Reason.CLAIM_INVALID, id="iat as text"),
        pytest.param({"iat": False}, Reason.CLAIM_INVALID, id="false for iat"),
        pytest.param({"nbf": str(NOW)}, Reason.CLAIM_INVALID, id="nbf as text"),
        pytest.param({"nbf": None}, Reason.CLAIM_INVALID, id="a null nbf"),
        pytest.param({"nbf": True}, Reason.CLAIM_INVALID, id="true for nbf"),
        pytest.param({"exp": 10**400}, Reason.CLAIM_INVALID, id="an exp beyond all floats"),
        pytest.param({"iat": -(10**400)}, Reason.CLAIM_INVALID, id="an iat before all floats"),
        pytest.param({"exp": 1e300}, Reason.CLAIM_INVALID, id="an exp beyond every second"),
        pytest.param({"exp": 884_541_340_800}, Reason.TOKEN_LIFETIME_TOO_LONG, id="an exp in the year 30000"),
        pytest.param({"rls": None}, Reason.CLAIM_INVALID, id="null row claims"),
        pytest.param({"rls": []}, Reason.CLAIM_INVALID, id="an empty list is not all rows"),
        pytest.param({"rls": [{"clause": "1=1"}]}, Reason.CLAIM_INVALID, id="a list of rules"),
        pytest.param({"rls": "carrier"}, Reason.CLAIM_INVALID, id="text for row claims"),
        pytest.param({"rls": False}, Reason.CLAIM_INVALID, id="false for row claims"),
        pytest.param({"grants": None}, Reason.CLAIM_INVALID, id="null grants"),
        pytest.param({"grants": {}}, Reason.CLAIM_INVALID, id="an object of grants"),
        pytest.param({"grants": "dashboard:delays"}, Reason.CLAIM_INVALID, id="text for grants"),
        pytest.param({"grants": ["dashboard"]}, Reason.CLAIM_INVALID, id="a text among the grants"),
        pytest.param(
            {"grants": [{"type": "dashboard", "id": "delays", "actions": ["view"], "dataset": 1}]},
            Reason.CLAIM_INVALID,
            id="an unknown key inside a grant",
        ),
        pytest.param({"grants": [{"type": "dashboard", "actions": ["view"]}]}, Reason.CLAIM_INVALID, id="no id"),
        pytest.param({"origins": None}, Reason.CLAIM_INVALID, id="null origins"),
        pytest.param({"origins": "https://portal.example"}, Reason.CLAIM_INVALID, id="one text of origins"),
        pytest.param({"origins": {"https://a.example": 1}}, Reason.CLAIM_INVALID, id="an object of origins"),
        pytest.param({"origins": [None]}, Reason.CLAIM_INVALID, id="a null among the origins"),
        pytest.param({"origins": ["*"]}, Reason.CLAIM_INVALID, id="a star is no origin"),
        pytest.param({"origins": ["null"]}, Reason.CLAIM_INVALID, id="null as text is no origin"),
        pytest.param({"origins": ["https://*.com"]}, Reason.CLAIM_INVALID, id="a wildcard under a top-level label"),
        pytest.param({"origins": ["http://portal.example"]}, Reason.CLAIM_INVALID, id="http in production"),
        pytest.param({"origins": ["https://portal.example/x"]}, Reason.CLAIM_INVALID, id="an origin with a path"),
        pytest.param({"origins": ["https://a.example;"]}, Reason.CLAIM_INVALID, id="an origin with a semicolon"),
        pytest.param(
            {"origins": ["https://good.example", "https://bad.example\n"]},
            Reason.CLAIM_INVALID,
            id="one bad origin beside a good one",
        ),
    ],
)
def test_a_claim_is_refused(claims: dict[str, Any], reason: Reason) -> None:
    assert refused(token(**claims)) is reason


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"aud": ["x", "reports"]}, id="one of several audiences"),
        pytest.param({"ver": ...}, id="no version"),
        pytest.param({"iat": NOW - 0.5, "exp": NOW + 299.5}, id="times with fractions"),
        pytest.param({"unknown": {"x": [None]}}, id="an unknown claim"),
        pytest.param({"session_seconds": "x"}, id="a bootstrap claim in an embed token"),
        pytest.param({"grants": []}, id="no grants"),
        pytest.param({"origins": ["https://portal.example:8443"]}, id="an origin with a port"),
        pytest.param({"sub": "a\n*/\x00 ; DROP TABLE"}, id="a subject is any text; those who write it escape it"),
    ],
)
def test_a_claim_is_accepted(claims: dict[str, Any]) -> None:
    accepted(token(**claims))


def test_http_origins_are_for_development() -> None:
    text = token(origins=["http://localhost:5173"])
    assert refused(text) is Reason.CLAIM_INVALID
    accepted(text, replace(POLICY, development=True))


def test_the_tenant_may_be_left_out_only_where_that_is_switched_on() -> None:
    relaxed = replace(POLICY, require_tenant=False)
    assert accepted(token(tenant=...), relaxed).tenant is None
    assert refused(token(tenant=None), relaxed) is Reason.CLAIM_INVALID
    assert refused(token(tenant=...)) is Reason.CLAIM_MISSING


def test_remapped_names_are_read_and_the_usual_ones_are_then_strangers() -> None:
    mapped = replace(POLICY, claim_names=ClaimNames(rls="https://acme.example/rls", tenant="org"))
    claims = accepted(
        token(**{"https://acme.example/rls": {"carrier": "AA"}, "rls": {"carrier": "BB"}, "org": "A"}), mapped
    )
    assert claims.rls == {"carrier": "AA"}
    assert claims.tenant == "A"
    assert refused(token(), mapped) is Reason.CLAIM_MISSING


def test_a_refusal_names_the_claim_and_never_its_value() -> None:
    for claims in ({"origins": ["https://very secret"]}, {"exp": "very secret"}, {"iss": "very secret"}):
        result = check(token(**claims))
        assert isinstance(result, Deny)
        assert "secret" not in result.detail + str(result.facts)


# --- the time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "now", "reason"),
    [
        pytest.param({}, NOW + 329.9, None, id="just before exp plus leeway"),
        pytest.param({}, NOW + 330, Reason.TOKEN_EXPIRED, id="at exp plus leeway"),
        pytest.param({}, NOW + 10**9, Reason.TOKEN_EXPIRED, id="long after"),
        pytest.param({}, float("nan"), Reason.TOKEN_EXPIRED, id="a clock that is not a number"),
        pytest.param({}, float("inf"), Reason.TOKEN_EXPIRED, id="a clock at the end of time"),
        pytest.param({}, NOW - 30, None, id="iat at the leeway"),
        pytest.param({}, NOW - 30.1, Reason.TOKEN_NOT_YET_VALID, id="iat beyond the leeway"),
        pytest.param({"nbf": NOW + 30}, NOW, None, id="nbf at the leeway"),
        pytest.param({"nbf": NOW + 30.1}, NOW, Reason.TOKEN_NOT_YET_VALID, id="nbf beyond the leeway"),
        pytest.param({"exp": NOW + 3600}, NOW, None, id="the longest lifetime"),
        pytest.param({"exp": NOW + 3601}, NOW, Reason.TOKEN_LIFETIME_TOO_LONG, id="a second longer"),
        pytest.param({"iat": 0}, NOW, Reason.TOKEN_LIFETIME_TOO_LONG, id="an iat of long ago"),
        pytest.param({"iat": NOW + 30, "exp": NOW + 3630}, NOW, None, id="a clock ahead by the leeway"),
        pytest.param({"exp": NOW - 10}, NOW, None, id="an exp within the leeway"),
        pytest.param({"exp": NOW - 30}, NOW, Reason.TOKEN_EXPIRED, id="an exp at the end of the leeway"),
        pytest.param({"exp": 0, "iat": 0}, NOW, Reason.TOKEN_EXPIRED, id="the epoch"),
    ],
)
def test_time(claims: dict[str, Any], now: float, reason: Reason | None) -> None:
    result = check(token(**claims), now=now)
    assert (result.reason if isinstance(result, Deny) else None) is reason


def test_the_remaining_life_is_bounded_by_itself() -> None:
    claims = accepted(token())
    ahead = replace(claims, issued_at=NOW + 100, expires_at=NOW + 3700)
    refusal = recheck(ahead, policy=replace(POLICY, leeway_seconds=60), now=NOW + 30)
    assert isinstance(refusal, Deny)
    assert refusal.reason is Reason.TOKEN_NOT_YET_VALID
    refusal = recheck(replace(claims, expires_at=NOW + 3600), policy=POLICY, now=NOW - 30.0)
    assert refusal is None


def test_a_recheck_looks_at_everything_that_may_have_changed() -> None:
    claims = accepted(token())
    assert recheck(claims, policy=POLICY, now=NOW + 200) is None
    for policy, now, reason in (
        (POLICY, NOW + 400, Reason.TOKEN_EXPIRED),
        (POLICY, NOW - 400, Reason.TOKEN_NOT_YET_VALID),
        (replace(POLICY, lifetime_seconds=60), NOW, Reason.TOKEN_LIFETIME_TOO_LONG),
        (replace(POLICY, issuer="https://other.example"), NOW, Reason.ISSUER_NOT_ALLOWED),
        (replace(POLICY, audiences=("reports",)), NOW, Reason.AUDIENCE_NOT_ALLOWED),
    ):
        refusal = recheck(claims, policy=policy, now=now)
        assert isinstance(refusal, Deny)
        assert refusal.reason is reason


@pytest.mark.parametrize(("not_before", "first"), [(None, NOW), (NOW - 1, NOW), (NOW + 100, NOW + 100)])
def test_a_recheck_is_of_one_mind_from_here_to_there(not_before: float | None, first: float) -> None:
    claims = replace(accepted(token()), issued_at=NOW, expires_at=NOW + 300, not_before=not_before)
    leeway = POLICY.leeway_seconds
    assert steady_between(claims, policy=POLICY) == (first - leeway + 1, NOW + 300 + leeway - 1)


def test_a_recheck_asks_for_the_tenant_that_another_policy_did_not_ask_for() -> None:
    claims = replace(accepted(token()), tenant=None)
    assert recheck(claims, policy=replace(POLICY, require_tenant=False), now=NOW) is None
    refusal = recheck(claims, policy=POLICY, now=NOW)
    assert isinstance(refusal, Deny)
    assert refusal.reason is Reason.CLAIM_MISSING


# --- bootstrap tokens -----------------------------------------------------------------------------------------------


def bootstrap(**claims: Any) -> str:
    return token({"typ": "embed-bootstrap+jwt"}, **{"exp": NOW + 60, "session_seconds": 900, **claims})


def test_a_bootstrap_token_is_accepted_as_one_and_as_nothing_else() -> None:
    claims = accepted(bootstrap(), token_type=BOOTSTRAP)
    assert (claims.session_seconds, claims.token_type) == (900, BOOTSTRAP)
    assert refused(bootstrap()) is Reason.TOKEN_TYPE_NOT_ALLOWED
    assert refused(token(session_seconds=900, exp=NOW + 60), token_type=BOOTSTRAP) is Reason.TOKEN_TYPE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"exp": NOW + 61}, Reason.TOKEN_LIFETIME_TOO_LONG, id="61 seconds are too long"),
        pytest.param({"iat": NOW - 1}, Reason.TOKEN_LIFETIME_TOO_LONG, id="a second longer at the other end"),
        pytest.param({"session_seconds": ...}, Reason.CLAIM_MISSING, id="no session length"),
        pytest.param({"session_seconds": 0}, Reason.CLAIM_INVALID, id="a session of no length"),
        pytest.param({"session_seconds": -1}, Reason.CLAIM_INVALID, id="a session of negative length"),
        pytest.param({"session_seconds": True}, Reason.CLAIM_INVALID, id="true for a session length"),
        pytest.param({"session_seconds": 60.0}, Reason.CLAIM_INVALID, id="a fraction for a session length"),
        pytest.param({"session_seconds": "60"}, Reason.CLAIM_INVALID, id="text for a session length"),
        pytest.param({"session_seconds": 10**400}, Reason.CLAIM_INVALID, id="a session beyond all floats"),
    ],
)
def test_a_bootstrap_token_is_refused(claims: dict[str, Any], reason: Reason) -> None:
    assert refused(bootstrap(**claims), token_type=BOOTSTRAP) is reason


def test_a_shorter_configured_lifetime_holds_for_bootstrap_tokens_too() -> None:
    short = replace(POLICY, lifetime_seconds=30)
    assert refused(bootstrap(), short, token_type=BOOTSTRAP) is Reason.TOKEN_LIFETIME_TOO_LONG
    accepted(bootstrap(exp=NOW + 30), short, token_type=BOOTSTRAP)


def test_claims_can_be_read_without_a_token() -> None:
    assert isinstance(read_claims([], policy=POLICY, key=Hmac()), Deny)
    claims = read_claims(CLAIMS, policy=POLICY, key=Hmac())
    assert isinstance(claims, VerifiedClaims)
    assert claims == accepted(token())
    refusal = read_claims({**CLAIMS, "exp": float("nan")}, policy=POLICY, key=Hmac())
    assert isinstance(refusal, Deny)
    assert refusal.reason is Reason.CLAIM_INVALID


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"issuer": ""}, id="an empty issuer"),
        pytest.param({"issuer": None}, id="no issuer"),
        pytest.param({"audiences": "charts"}, id="a bare text of audiences"),
        pytest.param({"audiences": ()}, id="no audiences"),
        pytest.param({"audiences": ("",)}, id="an empty audience"),
        pytest.param({"audiences": 7}, id="a number of audiences"),
        pytest.param({"lifetime_seconds": 0}, id="no lifetime"),
        pytest.param({"lifetime_seconds": True}, id="true for a lifetime"),
        pytest.param({"lifetime_seconds": 1.5}, id="a fraction for a lifetime"),
        pytest.param({"leeway_seconds": 61}, id="more than a minute of leeway"),
        pytest.param({"leeway_seconds": -1}, id="negative leeway"),
        pytest.param({"max_token_bytes": 0}, id="no token fits"),
        pytest.param({"max_token_bytes": 2**30}, id="any token fits"),
    ],
)
def test_a_mistaken_policy_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TokenPolicy(**{"issuer": "i", "audiences": ("a",), **settings})


def test_every_mistake_of_a_policy_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TokenPolicy("", (), lifetime_seconds=0, leeway_seconds=99, max_token_bytes=0)
    assert len(caught.value.problems) == 5


def test_a_policy_takes_any_collection_of_audiences() -> None:
    assert TokenPolicy("i", ["a"]).audiences == ("a",)  # type: ignore[arg-type]
    assert TokenPolicy("i", ("a",), leeway_seconds=60).leeway_seconds == 60


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({"rls": ""}, id="an empty name"),
        pytest.param({"rls": "sub"}, id="a registered claim's name"),
        pytest.param({"rls": "first_iat"}, id="the name that a refreshed token keeps its first issue under"),
        pytest.param({"rls": "tenant"}, id="another claim's name"),
        pytest.param({"rls": None}, id="no name"),
    ],
)
def test_mistaken_claim_names_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ClaimNames(**names)


def test_a_digest_of_the_secret_is_not_the_secret() -> None:
    signing_input = token().rpartition(".")[0]
    forged = hmac.digest(hashlib.sha256(SECRET).digest(), signing_input.encode(), "sha256")
    assert refused(f"{signing_input}.{b64(forged)}") is Reason.SIGNATURE_INVALID
