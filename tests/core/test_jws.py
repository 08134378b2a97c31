"""What is remembered of a token's header: what its bytes say, and nothing about any key."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest

from toucan_guard.core import jws as module
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.jws import check_signature, parse_compact
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.keys import KeyRing, VerificationKey

NOW = 1_800_000_000
FIRST, SECOND = b"the first secret of this test, 32 bytes", b"the second secret of this test, 32 bytes"
POLICY = TokenPolicy("https://host.example", ("charts",))
HEADER: dict[str, Any] = {"alg": "HS256", "kid": "k1", "typ": "embed+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": "https://host.example",
    "aud": "charts",
    "sub": "u-1",
    "jti": "t-1",
    "iat": NOW,
    "exp": NOW + 300,
    "tenant": "AA",
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: dict[str, Any], secret: bytes = FIRST, digest: str = "sha256") -> str:
    signing_input = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), digest))}"


def ring(*keys: tuple[str | None, str, bytes]) -> KeyRing:
    return KeyRing([VerificationKey(*key) for key in keys])


def reason(text: str, keys: KeyRing, policy: TokenPolicy = POLICY) -> Reason | str | None:
    result = verify(text, policy=policy, keys=keys, now=NOW)
    assert isinstance(result, (VerifiedClaims, Deny))
    return result.reason if isinstance(result, Deny) else None


@pytest.fixture(autouse=True)
def _forget() -> None:
    module._usual_header.cache_clear()


def test_a_flood_of_made_up_headers_fills_nothing() -> None:
    keys, good = ring(("k1", "HS256", FIRST)), sign(HEADER)
    assert reason(good, keys) is None
    for number in range(3000):
        assert reason(sign({**HEADER, "x": number}, b"forged"), keys) is Reason.SIGNATURE_INVALID
    info = module._usual_header.cache_info()
    assert info.currsize == info.maxsize == 256
    assert reason(good, keys) is None


def test_a_long_header_is_not_remembered() -> None:
    keys = ring(("k1", "HS256", FIRST))
    assert reason(sign({**HEADER, "x": "y" * 600}), keys) is None
    assert reason(sign({**HEADER, "x": "y" * 600}, b"forged"), keys) is Reason.SIGNATURE_INVALID
    assert module._usual_header.cache_info().currsize == 0


def test_a_header_that_a_good_token_has_vouches_for_no_other_token() -> None:
    keys = ring(("k1", "HS256", FIRST))
    for _ in range(2):
        assert reason(sign(HEADER), keys) is None
        assert reason(sign(HEADER, SECOND), keys) is Reason.SIGNATURE_INVALID
        header, _, rest = sign(HEADER).partition(".")
        assert reason(f"{header}.{rest[:-4]}AAAA", keys) is Reason.SIGNATURE_INVALID


def test_a_header_is_judged_anew_by_each_ring() -> None:
    text = sign(HEADER)
    expected = [
        (ring(("k1", "HS256", FIRST)), None),
        (ring(("k1", "HS256", SECOND)), Reason.SIGNATURE_INVALID),
        (ring(("k2", "HS256", FIRST)), Reason.KEY_UNKNOWN),
        (ring(("k1", "HS512", FIRST * 2)), Reason.ALGORITHM_NOT_ALLOWED),
        (ring((None, "HS256", FIRST)), None),
    ]
    for keys, outcome in expected * 2:
        assert reason(text, keys) is outcome


def test_a_header_is_judged_anew_by_each_policy() -> None:
    keys, text = ring(("k1", "HS256", FIRST)), sign({**HEADER, "typ": "JWT"})
    lenient = TokenPolicy("https://host.example", ("charts",), insecure_typ_jwt=True)
    for _ in range(2):
        assert reason(text, keys, lenient) is None
        assert reason(text, keys) is Reason.TOKEN_TYPE_NOT_ALLOWED


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"crit": ["exp"]}, id="crit"),
        pytest.param({"b64": False}, id="b64"),
        pytest.param({"zip": "DEF"}, id="zip"),
        pytest.param({"enc": "A256GCM"}, id="enc"),
        pytest.param({"kid": 1}, id="a kid that is no text"),
        pytest.param({"kid": None}, id="a kid that is null"),
        pytest.param({"kid": "k" * 257}, id="a kid that is too long"),
        pytest.param({"alg": "none"}, id="alg none"),
        pytest.param({"alg": "nOnE"}, id="alg none in another spelling"),
        pytest.param({"alg": None}, id="no alg"),
        pytest.param({"alg": ["HS256"]}, id="a list of algorithms"),
        pytest.param({"typ": None}, id="no typ"),
        pytest.param({"typ": "embed\u212a+jwt"}, id="a typ that is ASCII in lower case only"),
    ],
)
def test_a_header_that_is_refused_is_refused_again_in_the_same_words(changes: dict[str, Any]) -> None:
    keys = ring(("k1", "HS256", FIRST))
    text = sign({**HEADER, **changes})
    first, again = (verify(text, policy=POLICY, keys=keys, now=NOW) for _ in range(2))
    assert isinstance(first, Deny)
    assert first == again
    module._usual_header.cache_clear()
    assert verify(text, policy=POLICY, keys=keys, now=NOW) == first


def test_what_is_remembered_of_a_header_cannot_be_changed() -> None:
    parsed = parse_compact(sign(HEADER), max_bytes=1000)
    assert not isinstance(parsed, Deny)
    with pytest.raises(TypeError):
        parsed.header["alg"] = "none"  # type: ignore[index]
    with pytest.raises(AttributeError):
        parsed.jose.kid = "k2"  # type: ignore[misc]
    assert not isinstance(check_signature(parsed, ring(("k1", "HS256", FIRST))), Deny)
