"""Keys: what may verify, what may sign, and what start-up refuses, each beside a key that is in order."""

from __future__ import annotations

import base64
import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.tokens.algorithms import thumbprint
from toucan_guard.tokens.key_checks import has_roca_fingerprint, rsa_problem, secret_problem
from toucan_guard.tokens.keys import KeyRing, SigningKey, VerificationKey

SECRET = "b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5"
RSA_2048 = rsa.generate_private_key(65537, 2048)
EC_256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def private_pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "ascii")


def public_pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")


def public_jwk(key: PrivateKey, **more: Any) -> dict[str, Any]:
    jwk: dict[str, Any] = VerificationKey(None, SigningKey.load(key).algorithm, key.public_key()).public_jwk()
    return {name: value for name, value in {**jwk, **more}.items() if value is not ...}


def rsa_jwk(modulus: int, exponent: int = 65537) -> dict[str, Any]:
    return {"kty": "RSA", "alg": "RS256", "kid": "r", "n": number(modulus), "e": number(exponent)}


def oct_jwk(secret: bytes = SECRET.encode(), **more: Any) -> dict[str, Any]:
    jwk = {"kty": "oct", "alg": "HS256", "kid": "h", "k": b64(secret), **more}
    return {name: value for name, value in jwk.items() if value is not ...}


def jwks(*keys: Any) -> str:
    return json.dumps({"keys": list(keys)})


def problems(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return " ".join(caught.value.problems)


def roca_modulus() -> int:
    """A modulus of the form that the weak chips make (the paper's section 2); its factors need not be prime here."""
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, int(n**0.5) + 1))]
    product = 1
    for prime in primes:
        product *= prime
    dice = random.Random(15361)

    def factor() -> int:
        return (dice.getrandbits(53) | 1 << 52) * product + pow(65537, dice.getrandbits(200), product)

    modulus = factor() * factor()
    while modulus.bit_length() < 2048 or modulus % 2 == 0:
        modulus = factor() * factor()
    return modulus


# --- every algorithm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        pytest.param("s" + SECRET * 2, "HS256", id="HS256"),
        pytest.param("s" + SECRET * 2, "HS384", id="HS384"),
        pytest.param("s" + SECRET * 2, "HS512", id="HS512"),
        *(pytest.param(RSA_2048, name, id=name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        pytest.param(EC_256, "ES256", id="ES256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ES384", id="ES384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ES512", id="ES512"),
        pytest.param(ED, "EdDSA", id="EdDSA with Ed25519"),
        pytest.param(ED, "Ed25519", id="Ed25519"),
        pytest.param(ed448.Ed448PrivateKey.generate(), "EdDSA", id="EdDSA with Ed448"),
        pytest.param(ed448.Ed448PrivateKey.generate(), "Ed448", id="Ed448"),
    ],
)
def test_what_a_key_signs_its_verification_key_verifies_and_nothing_else(key: Any, algorithm: str) -> None:
    signing = SigningKey.load(key, algorithm=algorithm)
    signature = signing.sign(b"message")
    verifying = signing.verification_key()
    assert verifying.algorithm == algorithm
    assert verifying.verify(b"message", signature) is True
    for message, bad in ((b"messagf", signature), (b"message", signature[:-1]), (b"message", signature + b"\0")):
        assert verifying.verify(message, bad) is False
    for bad in (b"", b"\0" * len(signature), bytes([signature[0] ^ 1]) + signature[1:]):
        assert verifying.verify(b"message", bad) is False


@pytest.mark.parametrize(
    ("algorithm", "material"),
    [
        pytest.param("none", b"", id="none is no algorithm"),
        pytest.param("none", RSA_2048.public_key(), id="none is no algorithm for a public key either"),
        pytest.param("hs256", SECRET.encode(), id="an algorithm in another case"),
        pytest.param("ES256K", EC_256.public_key(), id="an algorithm that is not supported"),
        pytest.param("HS256", SECRET.encode()[:31], id="a secret shorter than its hash"),
        pytest.param("HS512", SECRET.encode(), id="a secret shorter than a longer hash"),
        pytest.param("RS256", SECRET.encode(), id="a secret for RS256"),
        pytest.param("HS256", RSA_2048.public_key(), id="a public key for HS256"),
        pytest.param("HS256", SECRET, id="a secret that is not bytes"),
        pytest.param("RS256", RSA_2048, id="a private key"),
        pytest.param("ES256", RSA_2048.public_key(), id="an RSA key for ES256"),
        pytest.param("ES384", EC_256.public_key(), id="P-256 for ES384"),
        pytest.param("Ed448", ED.public_key(), id="Ed25519 for Ed448"),
        pytest.param("ES256", ec.generate_private_key(ec.SECP256K1()).public_key(), id="secp256k1 for ES256"),
    ],
)
def test_a_key_and_an_algorithm_that_do_not_belong_together(algorithm: str, material: Any) -> None:
    assert problems(lambda: VerificationKey("k", algorithm, material))


def test_a_key_shows_its_name_and_not_itself() -> None:
    signing = SigningKey.load(SECRET, kid="k1")
    ring = KeyRing([signing.verification_key()])
    for shown in (repr(signing), repr(signing.verification_key()), repr(ring), str(ring)):
        assert "k1" in shown
        assert SECRET not in shown
    assert problems(lambda: VerificationKey("", "HS256", SECRET.encode()))
    assert problems(lambda: VerificationKey("k" * 257, "HS256", SECRET.encode()))


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        pytest.param("", "empty", id="an empty secret"),
        pytest.param("short", "shorter", id="a short secret"),
        pytest.param(SECRET[:31], "shorter", id="one byte too few"),
        pytest.param("secret", "shorter", id="secret"),
        pytest.param(SECRET + "\n", "white space", id="a line break at the end"),
        pytest.param(SECRET + "\r\n", "white space", id="a line break of another system"),
        pytest.param(" " + SECRET, "white space", id="a space in front"),
        pytest.param("secret" + " " * 40, "white space", id="a placeholder padded with spaces"),
        pytest.param("\t" * 40, "white space", id="nothing but tabs"),
        pytest.param("a" * 40, "repeats", id="one character"),
        pytest.param("\0" * 40, "repeats", id="NULs"),
        pytest.param("ab" * 20, "repeats", id="two characters in turn"),
        pytest.param("1234" * 10, "repeats", id="four characters in turn"),
        pytest.param("secret" * 6, "placeholder", id="secret, again and again"),
        pytest.param("changeme-" * 6, "placeholder", id="changeme, again and again"),
        pytest.param("secret" + "0" * 40, "placeholder", id="a padded placeholder"),
        pytest.param("CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET", "placeholder", id="the default of a dashboard"),
        pytest.param("c292a0a3aa32397cdb050e233733900f", "placeholder", id="the default of another dashboard"),
        pytest.param(
            "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "placeholder", id="a tutorial's secret"
        ),
        pytest.param("a-string-secret-at-least-256-bits-long", "placeholder", id="a debugger's secret"),
        pytest.param("django-insecure-#v2(k@1b!z0x8$m4n7w3q9s5e6r", "placeholder", id="a framework's insecure key"),
        pytest.param("Zk3w9" + "x" * 40, "padded", id="a short secret with a long tail"),
        pytest.param("=" * 40 + "Zk3w9", "padded", id="a short secret with a long head"),
        pytest.param(public_pem(RSA_2048).strip(), "asymmetric", id="a public key in PEM"),
        pytest.param(private_pem(EC_256).strip(), "asymmetric", id="a private key in PEM"),
        pytest.param("prefix\n" + public_pem(EC_256).strip(), "asymmetric", id="a PEM behind something"),
        pytest.param(
            ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(), "asymmetric", id="an ssh key"
        ),
        pytest.param(
            EC_256.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
            "asymmetric",
            id="an ssh key of another kind",
        ),
        pytest.param(
            RSA_2048.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[1],
            "asymmetric",
            id="the body of an ssh key",
        ),
        pytest.param("".join(public_pem(RSA_2048).split("\n")[1:-2]), "asymmetric", id="the body of a PEM"),
        pytest.param("\n".join(public_pem(RSA_2048).split("\n")[1:-2]), "asymmetric", id="the body of a PEM in lines"),
        pytest.param("".join(private_pem(ED).split("\n")[1:-2]), "asymmetric", id="the body of a private PEM"),
        pytest.param(json.dumps(oct_jwk()), "JSON Web Key", id="a JWK"),
        pytest.param(jwks(public_jwk(EC_256)), "JSON Web Key", id="a JWKS"),
        pytest.param("\udc80" * 40, "UTF-8", id="bytes of the environment that are no text"),
        pytest.param(7, "not text", id="a number"),
    ],
)
def test_a_secret_is_refused_without_being_shown(secret: Any, word: str) -> None:
    told = problems(lambda: KeyRing.from_secret(secret))
    assert word in told
    assert len(str(secret)) < 7 or str(secret) not in told
    if "PRIVATE KEY" not in str(secret) and not str(secret).startswith("{"):  # a signing key may be those
        problems(lambda: SigningKey.load(secret))


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(SECRET, id="a random text"),
        pytest.param("5f4dcc3b5aa765d61d8327deb882cf99a1b2c3d4e5f60718293a4b5c6d7e8f90", id="random hexadecimal"),
        pytest.param("MC4RLnWxC9M8/PM3o7hQQ6Yz12AQYBxAfxb5YzgSLtU=", id="random base64 that begins like a key"),
        pytest.param("correct horse battery staple, nine times", id="a long sentence"),
        pytest.param("пароль из тридцати двух байтов", id="text beyond ASCII"),
        pytest.param(bytes(range(7, 40)), id="bytes that begin with a control character"),
        pytest.param(b"\n" + bytes(range(128, 160)), id="random bytes may begin like white space"),
    ],
)
def test_a_secret_is_accepted(secret: str | bytes) -> None:
    ring = KeyRing.from_secret(secret)
    signing = SigningKey.load(secret)
    assert ring.keys[0].verify(b"m", signing.sign(b"m"))


def test_a_private_der_and_a_certificate_are_no_secrets() -> None:
    der = RSA_2048.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert "asymmetric" in str(secret_problem(der, 32))
    assert "asymmetric" in str(secret_problem(certificate(EC_256).public_bytes(Encoding.DER), 32))
    assert secret_problem(b"\x30" + bytes(range(1, 40)), 32) is None


def test_an_asymmetric_algorithm_takes_no_secret() -> None:
    assert problems(lambda: KeyRing.from_secret(SECRET, algorithm="RS256"))
    assert problems(lambda: KeyRing.from_secret(SECRET, algorithm="none"))
    assert problems(lambda: SigningKey.load(SECRET, algorithm="ES256"))
    assert problems(lambda: KeyRing.from_secret(SECRET, algorithm="HS512"))


# --- RSA ------------------------------------------------------------------------------------------------------------


def test_rsa_moduli_below_2048_bits_are_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)
    assert "1024" in problems(lambda: KeyRing.from_pem(public_pem(small)))
    assert "1024" in problems(lambda: SigningKey.load(small))
    assert "1024" in problems(lambda: KeyRing.from_jwks(rsa_jwk(small.public_key().public_numbers().n)))
    KeyRing.from_pem(public_pem(RSA_2048))


def test_roca_moduli_are_refused_and_others_are_not() -> None:
    assert "ROCA" in problems(lambda: KeyRing.from_jwks(rsa_jwk(roca_modulus())))
    sound = RSA_2048.public_key().public_numbers().n
    assert not has_roca_fingerprint(sound)
    dice = random.Random(1)
    assert not any(has_roca_fingerprint(dice.getrandbits(2048) | 1) for _ in range(2000))


@pytest.mark.parametrize(
    ("modulus", "exponent", "word"),
    [
        pytest.param(1 << 2047 | 1, 1, "exponent", id="an exponent of 1"),
        pytest.param(1 << 2047 | 1, 65536, "exponent", id="an even exponent"),
        pytest.param(1 << 2047 | 1, 1 << 64 | 1, "exponent", id="an exponent that costs time"),
        pytest.param(1 << 2046 | 1, 65537, "2047", id="2,047 bits"),
        pytest.param(1 << 16383 | 1, 65537, "16384", id="16,384 bits cost time"),
    ],
)
def test_an_unsafe_rsa_key_is_refused(modulus: int, exponent: int, word: str) -> None:
    assert word in str(rsa_problem(modulus, exponent))
    assert rsa_problem(1 << 2047 | 1, 65537) is None


# --- JSON Web Keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("", "Set", id="nothing"),
        pytest.param("{}", "Set", id="an empty object"),
        pytest.param('{"keys":[]}', "Set", id="no keys"),
        pytest.param('{"keys":{}}', "Set", id="an object of keys"),
        pytest.param("[]", "Set", id="a list"),
        pytest.param('{"keys":[7]}', "JSON object", id="a number among the keys"),
        pytest.param('{"keys":[', "strict JSON", id="a part of a set"),
        pytest.param('{"kty":"oct","kty":"oct"}', "strict JSON", id="a repeated member"),
        pytest.param(b"\xff{}", "strict JSON", id="bytes that are no text"),
        pytest.param(jwks({"kid": "x"}), "kty", id="no kty"),
        pytest.param(jwks({"kty": "XYZ"}), "kty", id="an unknown kty"),
        pytest.param(jwks({"kty": ["RSA"]}), "kty", id="a list for a kty"),
        pytest.param(jwks(public_jwk(EC_256, kid="")), "kid", id="an empty kid"),
        pytest.param(jwks(public_jwk(EC_256, kid=7)), "kid", id="a number for a kid"),
        pytest.param(jwks(public_jwk(EC_256, kid=None)), "kid", id="a null kid"),
        pytest.param(jwks(public_jwk(EC_256, kid="k" * 257)), "kid", id="a kid of 257 characters"),
        pytest.param(jwks(public_jwk(EC_256, use="enc")), "use", id="a key for encryption"),
        pytest.param(jwks(public_jwk(EC_256, use=None)), "use", id="a null use"),
        pytest.param(jwks(public_jwk(EC_256, key_ops=["encrypt"])), "key_ops", id="key_ops without verify"),
        pytest.param(jwks(public_jwk(EC_256, key_ops=["sign"])), "key_ops", id="key_ops of the other half"),
        pytest.param(jwks(public_jwk(EC_256, key_ops=[])), "key_ops", id="empty key_ops"),
        pytest.param(jwks(public_jwk(EC_256, key_ops="verify")), "key_ops", id="a bare text of key_ops"),
        pytest.param(jwks(public_jwk(EC_256, key_ops=None)), "key_ops", id="null key_ops"),
        pytest.param(jwks(public_jwk(EC_256, key_ops=["verify", "verify"])), "key_ops", id="repeated key_ops"),
        pytest.param(jwks(public_jwk(EC_256, alg="ES384")), "alg", id="an alg of another curve"),
        pytest.param(jwks(public_jwk(EC_256, alg="RS256")), "alg", id="an alg of another key type"),
        pytest.param(jwks(public_jwk(EC_256, alg="HS256")), "alg", id="an HMAC alg on a public key"),
        pytest.param(jwks(public_jwk(EC_256, alg="none")), "alg", id="alg none"),
        pytest.param(jwks(public_jwk(EC_256, alg=None)), "alg", id="a null alg"),
        pytest.param(jwks(public_jwk(EC_256, alg="ECDH-ES")), "alg", id="an alg for encryption"),
        pytest.param(jwks(public_jwk(EC_256, crv="P-384", alg="ES384")), "members", id="a point of another curve"),
        pytest.param(jwks(public_jwk(EC_256, crv="secp256k1", alg=...)), "crv", id="an unsupported curve"),
        pytest.param(jwks(public_jwk(EC_256, crv=["P-256"], alg=...)), "crv", id="a list for a crv"),
        pytest.param(jwks(public_jwk(EC_256, x="AAAA")), "members", id="a short coordinate"),
        pytest.param(jwks(public_jwk(EC_256, x=b64(b"\1" * 32))), "members", id="a point off the curve"),
        pytest.param(jwks(public_jwk(EC_256, y=...)), "members", id="a missing coordinate"),
        pytest.param(jwks(public_jwk(EC_256, y=7)), "base64url", id="a number for a coordinate"),
        pytest.param(jwks(public_jwk(ED, x=b64(b"\1" * 31))), "members", id="a short Edwards key"),
        pytest.param(jwks(public_jwk(RSA_2048, n=...)), "members", id="a missing modulus"),
        pytest.param(jwks(public_jwk(RSA_2048, e="")), "base64url", id="an empty exponent"),
        pytest.param(jwks(public_jwk(RSA_2048, e="AQAB=")), "base64url", id="padding"),
        pytest.param(jwks(public_jwk(RSA_2048, e="Aé")), "base64url", id="a character beyond ASCII"),
        pytest.param(jwks(oct_jwk(k=...)), "members", id="a missing secret"),
        pytest.param(jwks(oct_jwk(k="")), "base64url", id="an empty secret"),
        pytest.param(jwks(oct_jwk(b"x" * 31)), "shorter", id="a short secret"),
        pytest.param(jwks(oct_jwk(alg="HS512")), "shorter", id="a secret too short for its alg"),
        pytest.param(jwks(oct_jwk(public_pem(RSA_2048).encode())), "members", id="a PEM inside a secret"),
        pytest.param(jwks(oct_jwk(b"changeme" * 4)), "placeholder", id="a placeholder inside a secret"),
        pytest.param(jwks(oct_jwk(alg="RS256")), "alg", id="RS256 with a secret"),
        pytest.param(jwks(public_jwk(EC_256, d=b64(b"\1" * 32))), "private", id="a private key"),
        pytest.param(jwks(public_jwk(RSA_2048, p="AQAB")), "private", id="a part of a private key"),
        pytest.param(jwks(oct_jwk(), public_jwk(EC_256, kid="e")), "mixed", id="secrets beside public keys"),
        pytest.param(
            jwks(public_jwk(EC_256, kid="a"), public_jwk(RSA_2048, kid="a")), "same kid", id="a kid that occurs twice"
        ),
        pytest.param(jwks(public_jwk(EC_256), public_jwk(EC_256)), "told apart", id="two keys without a name"),
    ],
)
def test_a_jwks_is_refused(text: str | bytes, word: str) -> None:
    if not text:
        text = "[]"
    assert word in problems(lambda: KeyRing.from_jwks(text))


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        pytest.param(public_jwk(EC_256), "ES256", id="with everything"),
        pytest.param(public_jwk(EC_256, alg=..., use=...), "ES256", id="an EC key without alg has its curve's"),
        pytest.param(public_jwk(ED, alg=...), "EdDSA", id="an Edwards key without alg"),
        pytest.param(public_jwk(ED, alg="Ed25519"), "Ed25519", id="an Edwards key with its own name"),
        pytest.param(public_jwk(RSA_2048, alg=...), "RS256", id="an RSA key without alg is RS256"),
        pytest.param(public_jwk(RSA_2048, alg="PS512"), "PS512", id="an RSA key with alg"),
        pytest.param(public_jwk(EC_256, key_ops=["verify"]), "ES256", id="key_ops with verify"),
        pytest.param(public_jwk(EC_256, key_ops=["verify", "sign"]), "ES256", id="key_ops with more"),
        pytest.param(public_jwk(EC_256, x5t="abc", ext=True), "ES256", id="unknown members"),
        pytest.param(oct_jwk(alg=...), "HS256", id="a secret without alg is HS256"),
        pytest.param(oct_jwk(bytes(64), alg="HS512"), "HS512", id="a secret is judged by length alone in a JWK"),
    ],
)
def test_a_jwk_is_accepted(jwk: dict[str, Any], algorithm: str) -> None:
    for source in (jwk, json.dumps(jwk), {"keys": [jwk]}, jwks(jwk).encode()):
        ring = KeyRing.from_jwks(source)
        assert [key.algorithm for key in ring.keys] == [algorithm]
        assert len(ring) == 1


def test_every_problem_of_a_set_is_named_at_once_with_its_place() -> None:
    told = problems(lambda: KeyRing.from_jwks(jwks(oct_jwk(b"x"), public_jwk(EC_256, use="enc", kid=7), 7)))
    for words in ("key 1: the secret is shorter", "key 2: kid", "key 2: use", "key 3: it is not"):
        assert words in told


def test_messages_do_not_repeat_a_key() -> None:
    jwk = {**SigningKey.load(EC_256).verification_key().public_jwk(), "d": "c2VjcmV0LXNlY3JldA"}
    assert "c2VjcmV0" not in problems(lambda: KeyRing.from_jwks(jwks(jwk)))
    assert SECRET not in problems(lambda: KeyRing.load(SECRET))
    assert SECRET not in problems(lambda: KeyRing.load("{" + SECRET))


# --- PEM ------------------------------------------------------------------------------------------------------------


def certificate(key: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host.example")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        pytest.param(public_pem(RSA_2048), "RS256", id="an RSA key"),
        pytest.param(public_pem(EC_256), "ES256", id="an EC key"),
        pytest.param(public_pem(ED), "EdDSA", id="an Edwards key"),
        pytest.param(certificate(EC_256).public_bytes(Encoding.PEM).decode(), "ES256", id="a certificate"),
        pytest.param("# our key\n" + public_pem(ED) + "\n", "EdDSA", id="a key with a note"),
        pytest.param(
            RSA_2048.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode(), "RS256", id="an old RSA form"
        ),
    ],
)
def test_a_pem_is_accepted(text: str, algorithm: str) -> None:
    for ring in (KeyRing.load(text), KeyRing.load(text.encode()), KeyRing.from_pem(text, kid="k")):
        assert [key.algorithm for key in ring.keys] == [algorithm]
    assert KeyRing.from_pem(text, kid="k").keys[0].kid == "k"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(private_pem(RSA_2048), "private", id="a private key"),
        pytest.param(
            RSA_2048.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(),
            "private",
            id="a private key in an old form",
        ),
        pytest.param("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "read", id="a broken key"),
        pytest.param("-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----", "read", id="a key beyond ASCII"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nAAAA\n", "complete", id="half a key"),
        pytest.param("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----", "neither", id="another thing"),
        pytest.param(
            dsa.generate_private_key(1024)
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            "type",
            id="a DSA key",
        ),
        pytest.param(public_pem(ec.generate_private_key(ec.SECP256K1())), "curve", id="an unsupported curve"),
        pytest.param("hello", "neither", id="a text"),
        pytest.param(b"\xff-----BEGIN", "UTF-8", id="bytes that are no text"),
    ],
)
def test_a_pem_is_refused(text: str | bytes, word: str) -> None:
    assert word in problems(lambda: KeyRing.load(text))


def test_several_pem_keys_are_named_by_their_thumbprints() -> None:
    ring = KeyRing.from_pem(public_pem(EC_256) + public_pem(ED))
    assert [key.kid for key in ring.keys] == [thumbprint(EC_256.public_key()), thumbprint(ED.public_key())]
    assert "one kid" in problems(lambda: KeyRing.from_pem(public_pem(EC_256) + public_pem(ED), kid="k"))


def test_a_pem_may_be_bound_to_another_algorithm_of_its_type() -> None:
    assert KeyRing.from_pem(public_pem(RSA_2048), algorithm="PS256").keys[0].algorithm == "PS256"
    assert problems(lambda: KeyRing.from_pem(public_pem(RSA_2048), algorithm="HS256"))


def test_a_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 7638 §3.1 and RFC 8037 appendix A.3."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    ring = KeyRing.from_jwks({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    assert thumbprint(ring.keys[0].material) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"  # type: ignore[arg-type]
    edwards = KeyRing.from_jwks({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    assert thumbprint(edwards.keys[0].material) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # type: ignore[arg-type]


# --- rings ----------------------------------------------------------------------------------------------------------


def reason_of(found: VerificationKey | Deny) -> str | None:
    return found.reason if isinstance(found, Deny) else found.kid


RSA_RING = KeyRing.from_jwks(jwks(public_jwk(RSA_2048, kid="r"), public_jwk(EC_256, kid="e"), public_jwk(ED, kid="o")))
TWO_OF_A_KIND = KeyRing.from_jwks(jwks(public_jwk(EC_256, kid="a"), public_jwk(EC_256, kid="b")))


@pytest.mark.parametrize(
    ("ring", "kid", "algorithm", "expected"),
    [
        pytest.param(RSA_RING, "r", "RS256", "r", id="a kid picks its key"),
        pytest.param(RSA_RING, "r", "ES256", Reason.ALGORITHM_NOT_ALLOWED, id="a kid under another algorithm"),
        pytest.param(RSA_RING, "r", "HS256", Reason.ALGORITHM_NOT_ALLOWED, id="a kid under an HMAC algorithm"),
        pytest.param(RSA_RING, "x", "RS256", Reason.KEY_UNKNOWN, id="an unknown kid"),
        pytest.param(RSA_RING, "R", "RS256", Reason.KEY_UNKNOWN, id="a kid in another case"),
        pytest.param(RSA_RING, None, "ES256", "e", id="no kid where one key has the algorithm"),
        pytest.param(RSA_RING, None, "PS256", Reason.ALGORITHM_NOT_ALLOWED, id="no kid and no key"),
        pytest.param(TWO_OF_A_KIND, None, "ES256", Reason.KEY_UNKNOWN, id="no kid where two keys have the algorithm"),
        pytest.param(TWO_OF_A_KIND, "b", "ES256", "b", id="a kid where two keys have the algorithm"),
    ],
)
def test_finding_a_key(ring: KeyRing, kid: str | None, algorithm: str, expected: str) -> None:
    assert reason_of(ring.find(kid, algorithm)) == expected


def test_a_key_without_a_name_answers_to_every_name_that_is_not_anothers() -> None:
    ring = KeyRing.from_secret(SECRET)
    for kid in (None, "k1", "anything"):
        assert ring.find(kid, "HS256") is ring.keys[0]
        assert reason_of(ring.find(kid, "HS384")) == Reason.ALGORITHM_NOT_ALLOWED
    mixed = KeyRing.from_jwks(jwks(public_jwk(EC_256, kid="e"), public_jwk(RSA_2048)))
    assert reason_of(mixed.find("e", "RS256")) == Reason.ALGORITHM_NOT_ALLOWED
    assert mixed.find("other", "RS256") is mixed.keys[1]
    assert reason_of(mixed.find("other", "ES256")) == Reason.ALGORITHM_NOT_ALLOWED


def test_a_ring_knows_which_keys_it_still_holds() -> None:
    mark = RSA_RING.keys[0].mark
    assert RSA_RING.holds("r", "RS256", mark)
    assert not RSA_RING.holds("r", "ES256", mark)
    assert not RSA_RING.holds("gone", "RS256", mark)
    assert not RSA_RING.holds(None, "RS256", mark)
    assert not RSA_RING.holds("r", "RS256", "")
    secret, other = KeyRing.from_secret(SECRET), KeyRing.from_secret(SECRET[::-1])
    assert secret.holds(None, "HS256", secret.keys[0].mark)
    assert not secret.holds(None, "HS256", other.keys[0].mark)


def test_a_key_s_mark_is_the_same_everywhere_and_another_for_another_key() -> None:
    first, again, other = (
        KeyRing.from_jwks(jwks(key)).keys[0]
        for key in (public_jwk(RSA_2048, kid="a"), public_jwk(RSA_2048, kid="b", alg="PS256"), public_jwk(EC_256))
    )
    assert first.mark == again.mark
    assert first.mark != other.mark
    # Sessions in a store outlive the process that wrote the mark: these digests never change.
    assert KeyRing.from_secret("b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5").keys[0].mark == (
        "cebd175a7a8b004bc2a902a0034157ca5a94e66401025f663e1f128bd6a67ec3"
    )


def test_a_ring_knows_a_key_of_another_ring_and_not_just_its_name() -> None:
    alone, beside, other = (
        KeyRing.from_jwks(jwks(*keys))
        for keys in (
            [public_jwk(RSA_2048, kid="r")],
            [public_jwk(RSA_2048, kid="r"), public_jwk(EC_256, kid="e")],
            [public_jwk(EC_256, kid="r"), public_jwk(RSA_2048, kid="e")],
        )
    )
    rsa, ec = (key.mark for key in beside.keys)
    assert beside.holds("r", "RS256", alone.keys[0].mark)
    assert alone.holds("r", "RS256", rsa)
    assert not alone.holds("e", "ES256", ec)
    assert not other.holds("r", "RS256", rsa)
    secrets = [KeyRing.from_secret(SECRET), KeyRing.from_secret(SECRET[::-1])]
    assert not secrets[0].holds(None, "HS256", secrets[1].keys[0].mark)


def test_an_empty_ring_is_refused() -> None:
    assert "no key" in problems(lambda: KeyRing([]))


def test_the_generation_follows_the_contents_and_nothing_else() -> None:
    one, two = public_jwk(EC_256, kid="a"), public_jwk(RSA_2048, kid="b")
    generation = KeyRing.from_jwks(jwks(one, two)).generation
    assert KeyRing.from_jwks(jwks(two, one)).generation == generation
    for other in ((one,), (two,), ({**one, "kid": "c"}, two), (one, {**two, "alg": "PS256"})):
        assert KeyRing.from_jwks(jwks(*other)).generation != generation
    assert KeyRing.from_secret(SECRET).generation == KeyRing.from_secret(SECRET).generation
    assert KeyRing.from_secret(SECRET).generation != KeyRing.from_secret(SECRET + "x").generation
    assert SECRET.encode() not in KeyRing.from_secret(SECRET).generation


# --- signing --------------------------------------------------------------------------------------------------------


def private_jwk(**more: Any) -> dict[str, Any]:
    numbers = EC_256.private_numbers()
    jwk = {**public_jwk(EC_256, kid="e"), "d": b64(numbers.private_value.to_bytes(32, "big")), **more}
    return {name: value for name, value in jwk.items() if value is not ...}


@pytest.mark.parametrize(
    ("key", "options", "kid", "algorithm"),
    [
        pytest.param(SECRET, {}, None, "HS256", id="a secret has no name of its own"),
        pytest.param(SECRET.encode(), {"kid": "k"}, "k", "HS256", id="a secret with a name"),
        pytest.param(private_pem(EC_256), {}, thumbprint(EC_256.public_key()), "ES256", id="a PEM"),
        pytest.param(private_pem(RSA_2048), {"kid": "r", "algorithm": "PS256"}, "r", "PS256", id="a PEM with more"),
        pytest.param(ED, {}, thumbprint(ED.public_key()), "EdDSA", id="a key object"),
        pytest.param(private_jwk(), {}, "e", "ES256", id="a JWK"),
        pytest.param(
            json.dumps(private_jwk(kid=...)), {}, thumbprint(EC_256.public_key()), "ES256", id="a JWK as text"
        ),
        pytest.param(private_jwk(key_ops=["sign"]), {"kid": "z"}, "z", "ES256", id="a JWK under another name"),
        pytest.param(oct_jwk(), {}, "h", "HS256", id="a symmetric JWK"),
        pytest.param(jwks(private_jwk()), {}, "e", "ES256", id="a set of one"),
        pytest.param(jwks(oct_jwk(kid="x"), private_jwk()), {"kid": "e"}, "e", "ES256", id="one of a set, by its kid"),
    ],
)
def test_a_signing_key_is_loaded(key: Any, options: dict[str, Any], kid: str | None, algorithm: str) -> None:
    signing = SigningKey.load(key, **options)
    assert (signing.kid, signing.algorithm) == (kid, algorithm)
    assert signing.verification_key().verify(b"m", signing.sign(b"m"))


@pytest.mark.parametrize(
    ("key", "options", "word"),
    [
        pytest.param("", {}, "empty", id="nothing"),
        pytest.param(public_pem(EC_256), {}, "private key", id="a public key in PEM"),
        pytest.param(
            EC_256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode(),
            {},
            "password",
            id="a key with a password",
        ),
        pytest.param(private_pem(dsa.generate_private_key(1024)), {}, "type", id="a DSA key"),
        pytest.param(public_jwk(EC_256), {}, "public key", id="a public JWK"),
        pytest.param(private_jwk(key_ops=["verify"]), {}, "key_ops", id="a JWK that may only verify"),
        pytest.param(private_jwk(use="enc"), {}, "use", id="a JWK for encryption"),
        pytest.param(private_jwk(d=b64(b"\1" * 32)), {}, "members", id="halves that do not belong together"),
        pytest.param(private_jwk(), {"algorithm": "ES384"}, "alg", id="another algorithm than the JWK's"),
        pytest.param(private_jwk(alg=...), {"algorithm": "ES384"}, "curve", id="another algorithm than the curve's"),
        pytest.param(private_jwk(), {"kid": ""}, "kid", id="an empty name"),
        pytest.param(jwks(private_jwk(), oct_jwk()), {}, "several", id="a set of two"),
        pytest.param(jwks(private_jwk(), oct_jwk()), {"kid": "q"}, "several", id="a set without the kid"),
        pytest.param(jwks(private_jwk(), 7), {"kid": "q"}, "several", id="a set with something else in it"),
        pytest.param(rsa.generate_private_key(65537, 1024), {}, "1024", id="a short RSA key"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), {}, "curve", id="an unsupported curve"),
    ],
)
def test_a_signing_key_is_refused(key: Any, options: dict[str, Any], word: str) -> None:
    assert word in problems(lambda: SigningKey.load(key, **options))


def test_an_unnamed_rsa_jwk_signs_with_the_algorithm_that_is_asked_for() -> None:
    numbers = RSA_2048.private_numbers()
    jwk = {**public_jwk(RSA_2048, alg=...), "d": number(numbers.d)}
    assert SigningKey.load(jwk, algorithm="PS384").algorithm == "PS384"
    assert SigningKey.load(jwk).algorithm == "RS256"


def test_a_public_jwk_goes_round_and_a_secret_has_none() -> None:
    for key in (RSA_2048, EC_256, ED):
        verifying = SigningKey.load(key, kid="k").verification_key()
        jwk = verifying.public_jwk()
        assert "d" not in jwk
        assert KeyRing.from_jwks(jwk).keys[0] == verifying
    with pytest.raises(ValueError, match="public half"):
        SigningKey.load(SECRET).verification_key().public_jwk()
