"""A fetched key set: what is dropped, what refuses the whole, and what is bound to what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from toucan_guard.core.errors import KeysUnavailable
from toucan_guard.tokens.jwks_text import MAX_SET_BYTES, MAX_SET_KEYS, read_key_set

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = Ed25519PrivateKey.generate()


def jwk(key: Any = ED, /, **members: Any) -> dict[str, Any]:
    """A public JSON Web Key, and whatever a test changes about it; ... removes a member."""
    algorithm = RSAAlgorithm if key is RSA else ECAlgorithm if key is EC else OKPAlgorithm
    public = algorithm.to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {name: value for name, value in {**public, "kid": "k1", **members}.items() if value is not ...}


def private(key: Any, **members: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if key is RSA else ECAlgorithm if key is EC else OKPAlgorithm
    made: dict[str, Any] = algorithm.to_jwk(key, as_dict=True)
    made.pop("key_ops", None)
    return {**made, "kid": "private", **members}


def body(*keys: Any, **more: Any) -> bytes:
    return json.dumps({"keys": keys, **more}).encode()


OTHER_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"  # RFC 8037, appendix A.2
GOOD = jwk(kid="good")

DROPPED: list[tuple[str, object]] = [
    ("a secret", {"kty": "oct", "kid": "s", "alg": "HS256", "k": "a" * 43}),
    ("a secret without a name", {"kty": "oct", "k": "a" * 43}),
    ("a secret without its value", {"kty": "oct", "kid": "s"}),
    ("a public key with a secret in it", jwk(k="a" * 43)),
    ("a private RSA key", private(RSA)),
    ("a private EC key", private(EC)),
    ("a private Edwards key", private(ED)),
    ("a key for encryption", jwk(RSA, use="enc")),
    ("a key for encryption by its alg", jwk(RSA, alg="RSA-OAEP")),
    ("a key whose key_ops do not verify", jwk(key_ops=["encrypt"])),
    ("an unknown kty", {"kty": "AKP", "kid": "pq", "alg": "ML-DSA-65", "pub": "AAAA"}),
    ("a kty in lower case", jwk(kty="okp")),
    ("an unsupported curve", jwk(EC, crv="secp256k1")),
    ("alg none", jwk(alg="none")),
    ("an HMAC alg on a public key", jwk(RSA, alg="HS256")),
    ("an alg of another type", jwk(EC, alg="RS256")),
    ("a point that is on no curve", jwk(EC, x="AAAA")),
    ("a short RSA key", jwk(RSA, n="AQAB")),
    ("an even exponent", jwk(RSA, e="AQAA")),
    ("a number for a kid", jwk(kid=7)),
    ("an endless kid", jwk(kid="k" * 257)),
    ("padding", jwk(x="AAAA=")),
    ("a text where a key belongs", "key"),
    ("null where a key belongs", None),
    ("a list where a key belongs", []),
]

REFUSED: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no JSON", b"<html>it works</html>"),
    ("not UTF-8", "{}".encode("utf-16")),
    ("repeated members", b'{"keys": [], "keys": []}'),
    ("nested without end", b"[" * 5000),
    ("a list", b"[]"),
    ("null", b"null"),
    ("a number", b"1e999"),
    ("one key and no set", json.dumps(GOOD).encode()),
    ("no keys", b"{}"),
    ("an object of keys", b'{"keys": {"a": 1}}'),
    ("an empty set", body()),
    ("a set of nothing usable", body(private(RSA), jwk(RSA, use="enc"))),
    ("two keys of one name", body(GOOD, jwk(EC, kid="good"))),
    ("one key twice", body(GOOD, GOOD)),
    (
        "two keys of one algorithm without names",
        body(jwk(kid=...), jwk(kid=..., x=OTHER_X)),
    ),
    ("too many keys", body(*(jwk(kid=str(number)) for number in range(MAX_SET_KEYS + 1)))),
    ("too many bytes", body(GOOD, padding="x" * MAX_SET_BYTES)),
]


@pytest.mark.parametrize("unusable", [pytest.param(key, id=name) for name, key in DROPPED])
def test_a_key_that_does_not_suit_is_dropped_and_the_rest_counts(unusable: object) -> None:
    found = read_key_set(body(unusable, GOOD))
    assert [key.kid for key in found.ring.keys] == ["good"]
    assert len(found.dropped) == 1
    assert found.dropped[0].startswith("key 1: ")


def test_what_should_not_have_been_published_is_told_apart() -> None:
    found = read_key_set(body(GOOD, private(RSA), jwk(RSA, use="enc"), {"kty": "oct", "k": "a" * 43}, private(ED)))
    assert [sentence.partition(":")[0] for sentence in found.dropped] == ["key 2", "key 3", "key 4", "key 5"]
    assert [sentence.partition(":")[0] for sentence in found.exposed] == ["key 2", "key 4", "key 5"]


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in REFUSED])
def test_what_is_no_usable_set_is_refused_as_a_whole(answer: bytes) -> None:
    with pytest.raises(KeysUnavailable):
        read_key_set(answer)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        pytest.param(jwk(RSA), "RS256", id="an RSA key without alg"),
        pytest.param(jwk(RSA, alg="PS384"), "PS384", id="an RSA key with one"),
        pytest.param(jwk(EC), "ES256", id="an EC key"),
        pytest.param(jwk(ED), "EdDSA", id="an Edwards key"),
        pytest.param(jwk(ED, alg="Ed25519"), "Ed25519", id="an Edwards key with the name of its curve"),
    ],
)
def test_each_key_is_bound_to_one_algorithm(key: Mapping[str, Any], algorithm: str) -> None:
    assert [one.algorithm for one in read_key_set(body(key)).ring.keys] == [algorithm]


def test_foreign_members_are_ignored() -> None:
    key = jwk(RSA, x5c=["MII"], x5t="AAAA", x5u="https://elsewhere.example/", jku="file:///etc/passwd", nbf=1)
    assert len(read_key_set(body(key, next="https://elsewhere.example/")).ring) == 1


def test_no_message_quotes_the_answer() -> None:
    words = "ignore-all-rules\r\n\x1b[31m"
    for answer in (words.encode(), body(jwk(kid=words * 200), jwk(alg=words)), body(jwk(kty=words))):
        with pytest.raises(KeysUnavailable) as caught:
            read_key_set(answer)
        assert "ignore-all" not in str(caught.value)
    found = read_key_set(body(GOOD, jwk(kid=words * 200), jwk(kty=words), jwk(alg=words), private(ED)))
    assert "ignore-all" not in "".join(found.dropped)
    assert private(ED)["d"] not in "".join(found.dropped)
