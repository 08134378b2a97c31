"""Our reading of signatures against the vectors of others.

Sources: C2SP/wycheproof (JSON web signatures), ietf-jose/cookbook (RFC 7520), and in small the appendices of RFC 7515
and RFC 8037. The payloads of vectors are no claims, so the signature step is driven alone: form, key, signature.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import pytest

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import CompactJws, check_signature, parse_compact
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.mint import TokenMinter


class Report(Protocol):
    def add(self, corpus: str, rows: int, agreed: int, deviations: list[tuple[str, str]]) -> None: ...


_PRIVATE: Final = {"d", "p", "q", "dp", "dq", "qi", "oth"}


def public(jwk: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**jwk, **more}.items() if name not in _PRIVATE}


def payload_of(token: str, keys: object) -> bytes | None:
    """What the signature step vouches for, or None: a key set that is refused verifies nothing."""
    try:
        ring = KeyRing.from_jwks(json.dumps(keys))
    except ConfigError:
        return None
    jws = parse_compact(token, max_bytes=65536, allow_empty_payload=True)
    if isinstance(jws, Deny) or isinstance(check_signature(jws, ring), Deny):
        return None
    return jws.payload


# --- our own, so that this file says something where the corpora are absent -----------------------------------------

_JOE: Final = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
_RSA: Final = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS"
    "-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xs"
    "mtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
}
_OWN = [
    pytest.param(
        f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{_JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        id="RFC 7515 appendix A.1, HMAC with SHA-256",
    ),
    pytest.param(
        f"eyJhbGciOiJSUzI1NiJ9.{_JOE}."
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t"
        "1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12j"
        "zDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQ"
        "Ge77Rw",
        _RSA,
        id="RFC 7515 appendix A.2, RSA with SHA-256",
    ),
    pytest.param(
        f"eyJhbGciOiJFUzI1NiJ9.{_JOE}."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        id="RFC 7515 appendix A.3, ECDSA with P-256",
    ),
    pytest.param(
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        id="RFC 8037 appendix A.4, Ed25519",
    ),
]


@pytest.mark.parametrize(("token", "jwk"), _OWN)
def test_a_vector_of_an_rfc_verifies_and_its_neighbours_do_not(token: str, jwk: dict[str, str]) -> None:
    assert payload_of(token, jwk) is not None
    assert payload_of(token, {"keys": [{**jwk, "kid": "k"}]}) is not None
    header, payload, signature = token.split(".")
    for neighbour in (
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}.{signature}AAAA",
        f"{header}.{payload}.{'A' * len(signature)}",
        f"{header}.{payload[:-4]}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
    ):
        assert payload_of(neighbour, jwk) is None
    for refused in ({**jwk, "use": "enc"}, {**jwk, "key_ops": ["encrypt"]}, {"keys": [jwk, jwk]}):
        assert payload_of(token, refused) is None


def test_an_unsecured_jws_is_refused() -> None:
    """RFC 7515 appendix A.5."""
    jws = parse_compact(f"eyJhbGciOiJub25lIn0.{_JOE}.", max_bytes=65536)
    assert isinstance(jws, Deny)
    jws = parse_compact(f"eyJhbGciOiJub25lIn0.{_JOE}.AAAA", max_bytes=65536)
    assert isinstance(jws, CompactJws)
    denied = check_signature(jws, KeyRing.from_jwks(_RSA))
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.ALGORITHM_NOT_ALLOWED


# --- Wycheproof -----------------------------------------------------------------------------------------------------

_FAULTY: Final = {
    367: "marked invalid, byte-identical to the valid vector 357",
    370: "marked invalid, byte-identical to the valid vector 357",
    372: "marked valid with a foreign character in the header",
    373: "marked valid with a foreign character in the payload",
    346: "the key's alg is not the token's",
    347: "the key's alg does not exist",
    350: "the key's alg is not the token's",
    351: "the key's alg does not exist",
}


def test_wycheproof_has_no_false_accept_and_no_false_reject(
    load_corpus: Callable[[str], Any], conformance_report: Report
) -> None:
    vectors = [
        (group.get("public") or group["private"], test)
        for group in load_corpus("wycheproof_json_web_signature.json")["testGroups"]
        for test in group["tests"]
    ]
    wrong: list[str] = []
    deviations: list[tuple[str, str]] = []
    for keys, test in vectors:
        jws = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
        verdict = "invalid" if payload_of(jws, keys) is None else "valid"
        if verdict == test["result"]:
            continue
        if test["tcId"] in _FAULTY:
            deviations.append((str(test["tcId"]), _FAULTY[test["tcId"]]))
        else:
            wrong.append(f"{test['tcId']} {test['comment']}: {test['result']}, but here it is {verdict}")
    conformance_report.add("wycheproof_json_web_signature", len(vectors), len(vectors) - len(deviations), deviations)
    assert len(vectors) == 401
    assert {int(name) for name, _ in deviations} == set(_FAULTY)
    assert not wrong


def test_wycheproof_keys_sign_real_claims(load_corpus: Callable[[str], Any], conformance_report: Report) -> None:
    """A group's private key signs claims; its public half verifies them exactly where it may verify at all."""
    groups = load_corpus("wycheproof_json_web_signature.json")["testGroups"]
    policy = TokenPolicy("https://host.example", ("charts",), require_tenant=False)
    agreed, deviations = 0, []
    for number, group in enumerate(groups):
        keys = group.get("public") or group["private"]
        signing = {name: value for name, value in group["private"].items() if name not in ("use", "key_ops")}
        if signing.get("alg") == "ES521":
            deviations.append((str(number), "the key's alg does not exist"))
            continue
        minter = TokenMinter(signing, issuer="https://host.example", audience="charts")
        token = minter.mint(subject="u")
        may_verify = keys.get("use", "sig") == "sig" and "verify" in keys.get("key_ops", ["verify"])
        try:
            ring = KeyRing.from_jwks(json.dumps(keys))
        except ConfigError:
            assert not may_verify, group["comment"]
        else:
            assert may_verify, group["comment"]
            assert isinstance(verify(token, policy=policy, keys=ring, now=time.time()), VerifiedClaims)
        agreed += 1
    conformance_report.add("wycheproof private keys, real claims", len(groups), agreed, deviations)
    assert agreed >= 20


# --- RFC 7520 -------------------------------------------------------------------------------------------------------


def test_the_cookbook_verifies_in_compact_form_and_in_no_other(
    load_corpus: Callable[[str], Any], conformance_report: Report
) -> None:
    rows = load_corpus("rfc7520_jws.json")
    agreed, deviations = 0, []
    for row in rows:
        token = row["token"] if isinstance(row["token"], str) else json.dumps(row["token"])
        if row["form"] != "compact":
            jwks = row["jwk"] if isinstance(row["jwk"], list) else [row["jwk"]]
            assert all(payload_of(token, public(jwk)) is None for jwk in jwks), row["name"]
            deviations.append((row["name"], "a token is compact; JWS in JSON is refused"))
        elif row["detached"] or row["crit"]:
            jwk = public(row["jwk"], alg=row["alg"])
            assert payload_of(token, jwk) is None, row["name"]
            deviations.append((row["name"], "detached and unencoded payloads are refused"))
        else:
            payload = payload_of(token, public(row["jwk"], alg=row["alg"]))
            assert payload is not None, row["name"]
            assert payload.decode() == row["payload"], row["name"]
            agreed += 1
    conformance_report.add("rfc7520_jws", len(rows), agreed, deviations)
    assert agreed == 5
