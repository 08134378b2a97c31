"""Keys that must not protect anything: known, guessable, too short, or broken when they were made.

Nothing here ever repeats a secret: each check answers with a sentence that says what is wrong and the mend.
"""

from __future__ import annotations

import base64
import contextlib
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from cryptography.x509 import load_der_x509_certificate

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # a longer one costs milliseconds for each token, which is a gift to whoever floods us

MAKE_ONE: Final = "make a new one with `toucan-guard keygen -a HS256`"

# Secrets that stand in documentation, templates and leaked configurations, in lower case and without punctuation.
# Several were found in thousands of deployments: Superset's and Redash's defaults (CVE-2023-27524, CVE-2021-41192), the
# examples of FastAPI's tutorial and of the JWT debugger.
_PLACEHOLDERS: Final = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "21thisismyscretkey12eyyh",
        "admin",
        "astringsecretatleast256bitslong",
        "avalidstringsecretthatisatleast512bitslongwhichisverylong",
        "c292a0a3aa32397cdb050e233733900f",
        "change",
        "changeit",
        "changeme",
        "changemetoacomplexrandomsecret",
        "changethis",
        "changethissecret",
        "default",
        "dummy",
        "example",
        "insecure",
        "jwtsecret",
        "keyboardcat",
        "mysecret",
        "mysecretkey",
        "password",
        "placeholder",
        "pleasechangeme",
        "replaceme",
        "secret",
        "secretkey",
        "supersecret",
        "supersecretkey",
        "test",
        "testnondevsecret",
        "testsecret",
        "thisisasecret1234",
        "todo",
        "token",
        "topsecret",
        "verysecret",
        "your256bitsecret",
        "your384bitsecret",
        "your512bitsecret",
        "yourownrandomgeneratedsecretkey",
        "yoursecret",
        "yoursecretkey",
    }
)

# Text that is a key which others may know (CVE-2022-29217, CVE-2024-33663), and the beginnings of an SSH key's body.
_KEY_TEXT: Final = re.compile(rb"-----BEGIN|---- BEGIN SSH2|^\s*(?:ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)")
_SSH_BODY: Final = re.compile(rb"\x00\x00\x00.(?:ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)")
_JWK_TEXT: Final = re.compile(rb'"(?:kty|keys)"\s*:')

_LONG_RUN_AT_THE_END: Final = re.compile(rb"(.)\1{7,}\Z", re.DOTALL)
_LONG_RUN_AT_THE_START: Final = re.compile(rb"\A(.)\1{7,}", re.DOTALL)


def secret_problem(secret: bytes, minimum: int) -> str | None:
    """What is wrong with a secret that a person put into the configuration, or None.

    Args:
        secret: The secret.
        minimum: The fewest bytes that the algorithm accepts (RFC 7518 §3.2: the size of its hash).
    """
    if not secret:
        return f"the secret is empty; {MAKE_ONE}"
    # A random byte may look like white space; a line break at the end of a text is an accident.
    if secret != secret.strip() and _is_text(secret):
        return "the secret begins or ends with white space; remove it, and look for a line break at its end"
    if _KEY_TEXT.search(secret) or _is_key_body(secret):
        return (
            "the secret is the text of an asymmetric key or certificate, which others may know; "
            "set it as TOUCAN_GUARD_KEYS"
        )
    if _JWK_TEXT.search(secret):
        return "the secret is a JSON Web Key; set it as TOUCAN_GUARD_KEYS"
    if len(secret) < minimum:
        return f"the secret is shorter than {minimum} bytes; {MAKE_ONE}"
    if is_placeholder(secret):
        return f"the secret is a well-known placeholder; {MAKE_ONE}"
    if len(_unit(secret)) <= 4:
        return f"the secret repeats the same few characters; {MAKE_ONE}"
    core = _LONG_RUN_AT_THE_START.sub(b"", _LONG_RUN_AT_THE_END.sub(b"", secret))
    if len(core) < minimum:
        return f"the secret is a shorter one, padded; {MAKE_ONE}"
    return None


def rsa_problem(modulus: int, exponent: int) -> str | None:
    """What is wrong with an RSA public key, or None."""
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        return f"the RSA key has {bits} bits; make one of {MIN_RSA_BITS} or more"
    if bits > MAX_RSA_BITS:
        return f"the RSA key has {bits} bits; {MAX_RSA_BITS} are the most that are accepted"
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        return "the RSA key has an unsafe public exponent; make a new key with the exponent 65537"
    if has_roca_fingerprint(modulus):
        return "the RSA key was made by a chip with the ROCA weakness (CVE-2017-15361); make a new one in software"
    return None


def has_roca_fingerprint(modulus: int) -> bool:
    """Whether a modulus comes from the RSA library that CVE-2017-15361 describes.

    Source: Nemec, Sys, Svenda, Klinec, Matyas, "The Return of Coppersmith's Attack: Practical Factorization of Widely
    Used RSA Moduli", ACM CCS 2017, section 2. Its primes have the form ``k * M + (65537 ** a mod M)``, where M is the
    product of the first primes. So the modulus lies, modulo each of these primes, in the group that 65537 generates.
    A sound modulus does so for all primes up to 167 once in about a hundred million.
    """
    return all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES)


def _is_text(secret: bytes) -> bool:
    try:
        return all(character.isprintable() or character.isspace() for character in secret.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def _is_key_body(secret: bytes) -> bool:
    """Whether it is a DER key or an SSH key's body, or the base64 that a PEM file or ``.pub`` file holds of one."""
    bodies = [secret]
    with contextlib.suppress(ValueError):
        bodies.append(base64.b64decode(b"".join(secret.split()), validate=True))
    return any(_SSH_BODY.match(body) or _is_der_key(body) for body in bodies)


def _is_der_key(body: bytes) -> bool:
    if not body.startswith(b"\x30"):  # every DER key is a SEQUENCE
        return False
    for load in (load_der_public_key, load_der_x509_certificate, _load_der_private_key):
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            load(body)
            return True
    return False


def _load_der_private_key(body: bytes) -> object:
    return load_der_private_key(body, password=None)


def is_placeholder(secret: bytes) -> bool:
    """Whether a secret is one that everybody knows, alone, repeated, numbered or padded."""
    letters = bytes(byte for byte in secret.lower() if chr(byte).isalnum())
    stripped = _LONG_RUN_AT_THE_END.sub(b"", letters)
    candidates = {letters, _unit(letters), stripped, letters.rstrip(b"0123456789")}
    return any(text.decode("latin-1") in _PLACEHOLDERS for text in candidates) or letters.startswith(b"djangoinsecure")


def _unit(text: bytes) -> bytes:
    """The shortest piece that the whole text is a repetition of."""
    # A text occurs inside its own double, at an offset other than 0, exactly where it is shifted by its period.
    period = (text + text).find(text, 1) if text else 0
    return text[:period]


def _generated_by_65537(prime: int) -> frozenset[int]:
    residues, power = set(), 1
    while power not in residues:
        residues.add(power)
        power = power * 65537 % prime
    return frozenset(residues)


_ROCA_PRIMES: Final = tuple(
    number for number in range(3, 168) if all(number % divisor for divisor in range(2, int(number**0.5) + 1))
)
_ROCA_RESIDUES: Final = tuple((prime, _generated_by_65537(prime)) for prime in _ROCA_PRIMES)
