"""Tokens of an identity provider that forces namespaces: read under their own names, and under no others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import PyJWK
from jwt.algorithms import RSAAlgorithm

from toucan_guard import GuardSettings, ToucanGuard
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import encode_segment

SPACE = "https://acme.example/"
NAMES = {
    "claim_tenant": f"{SPACE}org",
    "claim_grants": f"{SPACE}grants",
    "claim_rls": f"{SPACE}rls",
    "claim_origins": f"{SPACE}origins",
    "claim_region": f"{SPACE}region",
}
KEY = rsa.generate_private_key(65537, 2048)
PORTAL, CUSTOMER = "https://portal.example", "https://a.customers.example"

pytestmark = pytest.mark.anyio


def idp_token(**changes: Any) -> str:
    """As an identity provider would sign it: RS256, ``typ: JWT``, namespaces, and much that is its own."""
    now = int(time.time())
    claims = {
        "iss": "https://host.example", "aud": ["charts", "https://login.example/userinfo"], "sub": "auth0|17",
        "jti": "t-1", "iat": now, "exp": now + 300, "azp": "client", "scope": "openid", "ver": "1.0", "gty": "x",
        f"{SPACE}org": "acme", f"{SPACE}rls": {"carrier": "AA"}, f"{SPACE}region": "eu",
        f"{SPACE}grants": [{"type": "dashboard", "id": "delays", "actions": ["view"]}],
        **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not ...}
    parts = ({"alg": "RS256", "typ": "JWT", "kid": "idp-1"}, claims)
    signing_input = b".".join(encode_segment(json.dumps(part).encode()) for part in parts)
    return (signing_input + b"." + encode_segment(RSAAlgorithm(RSAAlgorithm.SHA256).sign(signing_input, KEY))).decode()


def jwks() -> dict[str, Any]:
    public = RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    assert PyJWK({**public, "alg": "RS256"}).key_type == "RSA"
    return {"keys": [{"kty": "RSA", "n": public["n"], "e": public["e"], "kid": "idp-1", "use": "sig"}]}


@pytest.fixture
def ask(make_settings: Any, http: Any) -> Any:
    """What the app sees of a token, or the reason of its refusal."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        embed = scope["state"]["embed"]
        seen = {"subject": embed.subject, "tenant": embed.tenant, "rls": dict(embed.rls.attributes),
                "grants": [f"{grant.type}:{grant.id}:{','.join(grant.actions)}" for grant in embed.grants]}  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})

    settings = make_settings(secret=None, keys=jwks(), insecure_typ_jwt=True, region="eu", **NAMES)
    guard = ToucanGuard(app, settings=settings)

    async def answer(held: str, **headers: str) -> Any:
        got = await http(guard, "GET", "/d", {"authorization": f"Bearer {held}", **headers})
        return json.loads(got.body) if got.status == 200 else got.problem["reason"]

    return answer


async def test_a_namespaced_token_is_understood(ask: Any) -> None:
    assert await ask(idp_token()) == {
        "subject": "auth0|17",
        "tenant": "acme",
        "rls": {"carrier": ["AA"]},
        "grants": ["dashboard:delays:view"],
    }


async def test_our_own_names_are_then_foreign_and_ignored(ask: Any) -> None:
    plain = {"tenant": 7, "rls": {"carrier": "UA", "everything": True}, "grants": "all", "origins": "*", "region": "us"}
    assert await ask(idp_token(**plain)) == await ask(idp_token())


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        pytest.param({f"{SPACE}org": ..., "tenant": "acme"}, "claim_missing", id="the tenant"),
        pytest.param({f"{SPACE}rls": ..., "rls": {"carrier": "AA"}}, "rls_missing", id="the rows"),
        pytest.param({f"{SPACE}region": ..., "region": "eu"}, "region_mismatch", id="the region"),
    ],
)
async def test_our_own_names_stand_in_for_nothing(removed: dict[str, Any], reason: str, ask: Any) -> None:
    assert await ask(idp_token(**removed)) == reason


async def test_every_claim_is_enforced_under_its_own_name(ask: Any) -> None:
    assert await ask(idp_token(**{f"{SPACE}region": "us"})) == "region_mismatch"
    assert await ask(idp_token(**{f"{SPACE}rls": {"carier": "AA"}})) == "rls_attribute_unknown"
    assert await ask(idp_token(**{f"{SPACE}grants": [{"type": "dashboard"}]})) == "claim_invalid"
    narrowed = idp_token(**{f"{SPACE}origins": [PORTAL]})
    assert (await ask(narrowed, origin=PORTAL))["tenant"] == "acme"
    assert await ask(narrowed, origin=CUSTOMER) == "token_origin_not_allowed"
    # The plain name narrows nothing, and it cannot widen what the namespaced one says.
    assert await ask(idp_token(origins=[CUSTOMER], **{f"{SPACE}origins": [PORTAL]}), origin=CUSTOMER) == (
        "token_origin_not_allowed"
    )


async def test_a_claim_that_stands_there_twice_is_refused(ask: Any) -> None:
    doubled = b'{"https://acme.example/org":"acme","https://acme.example/org":"other"}'
    header = encode_segment(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "idp-1"}).encode())
    signing_input = header + b"." + encode_segment(doubled)
    signature = encode_segment(RSAAlgorithm(RSAAlgorithm.SHA256).sign(signing_input, KEY))
    assert await ask((signing_input + b"." + signature).decode()) == "token_malformed"


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({"claim_rls": "tenant"}, id="the name of another claim of ours"),
        pytest.param({"claim_rls": f"{SPACE}x", "claim_grants": f"{SPACE}x"}, id="one name for two claims"),
        pytest.param({"claim_tenant": "sub"}, id="the subject"),
        pytest.param({"claim_tenant": "iss"}, id="the issuer"),
        pytest.param({"claim_region": "aud"}, id="the audience"),
        pytest.param({"claim_rls": "session_seconds"}, id="a claim of bootstrap tokens"),
        pytest.param({"claim_rls": ""}, id="no name"),
        pytest.param({"claim_rls": f" {SPACE}rls"}, id="a padded name"),
    ],
)
async def test_names_that_collide_stop_the_start(names: dict[str, str], make_settings: Any) -> None:
    with pytest.raises(ConfigError, match="TOUCAN_GUARD_CLAIM_"):
        make_settings(**names)


async def test_names_may_be_exchanged(make_settings: Any) -> None:
    settings: GuardSettings = make_settings(claim_tenant="region", claim_region="tenant")
    assert (settings.token_policy.claim_names.tenant, settings.token_policy.claim_names.region) == ("region", "tenant")
