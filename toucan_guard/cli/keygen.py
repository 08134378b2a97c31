"""``toucan-guard keygen``: a key pair for embed tokens, its private half readable by its owner only."""

from __future__ import annotations

import base64
import json
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from toucan_guard.cli.output import say, wrong_use
from toucan_guard.tokens.algorithms import ALGORITHMS
from toucan_guard.tokens.key_text import kid_problems
from toucan_guard.tokens.keys import SigningKey

_RSA_BITS: Final = 3072
_SECRET_BYTES: Final = 48


class Algorithm(StrEnum):
    """What to make; the first is the choice for a new deployment."""

    ES256 = "ES256"
    EDDSA = "EdDSA"
    RS256 = "RS256"
    HS256 = "HS256"


def keygen(
    out: Annotated[Path, typer.Option(help="The folder that the files go to.")] = Path(),
    algorithm: Annotated[
        Algorithm, typer.Option("--algorithm", "-a", help="The signature algorithm.")
    ] = Algorithm.ES256,
    kid: Annotated[str | None, typer.Option(help="The key's name; its thumbprint (RFC 7638) by default.")] = None,
) -> None:
    """Make a key: a pair, or for HS256 a secret.

    The host signs with the private file, the guard verifies with the public one (TOUCAN_GUARD_KEYS_FILE). HS256 has one
    secret for both sides.
    """
    if not out.is_dir():
        wrong_use(f"{str(out)!r} is not a folder")
    problems = [] if kid is None else kid_problems(kid)
    if problems:
        wrong_use(*problems)
    files = _secret(kid or secrets.token_hex(8)) if algorithm is Algorithm.HS256 else _pair(algorithm, kid)
    _write_all(out, files)
    for name, _, private in files:
        say(f"{'private' if private else 'public '}  {out / name}")


def _pair(algorithm: Algorithm, kid: str | None) -> list[tuple[str, str, bool]]:
    private: Any
    if algorithm is Algorithm.ES256:
        private = ec.generate_private_key(ec.SECP256R1())
    elif algorithm is Algorithm.EDDSA:
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, _RSA_BITS)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    key = SigningKey.load(pem, kid=kid, algorithm=str(algorithm))
    public = key.verification_key()
    name = _file_name(str(key.kid))
    # The name goes with the key: a PEM file cannot hold it, and a token without it may find no key.
    jwk = {**json.loads(ALGORITHMS[str(algorithm)].engine.to_jwk(private)), **public.public_jwk()}
    public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    return [
        (f"{name}.private.jwk.json", _json(jwk), True),
        (f"{name}.private.pem", pem, True),
        (f"{name}.public.pem", public_pem, False),
        (f"{name}.jwks.json", _json({"keys": [public.public_jwk()]}), False),
    ]


def _secret(kid: str) -> list[tuple[str, str, bool]]:
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    encoded = base64.urlsafe_b64encode(secret.encode("ascii")).rstrip(b"=").decode("ascii")
    jwk = {"kty": "oct", "alg": "HS256", "use": "sig", "kid": kid, "k": encoded}
    name = _file_name(kid)
    return [(f"{name}.secret", f"{secret}\n", True), (f"{name}.jwks.json", _json({"keys": [jwk]}), True)]


def _file_name(kid: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in kid)[:64]


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write_all(folder: Path, files: list[tuple[str, str, bool]]) -> None:
    """All files, each complete from its first moment on, or none; nothing is overwritten."""
    done: list[Path] = []
    try:
        for name, content, private in files:
            _write(folder / name, content, 0o600 if private else 0o644)
            done.append(folder / name)
    except FileExistsError:
        _remove(done)
        wrong_use(f"nothing is overwritten: {name} exists already")
    except OSError as error:
        _remove(done)
        wrong_use(f"{str(folder / name)!r} cannot be written ({error.strerror})")


def _write(path: Path, content: str, mode: int) -> None:
    # Made with its mode, not made and then narrowed: in between anybody could open it.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        path.hardlink_to(draft)  # fails where the name is taken, unlike a rename
    finally:
        draft.unlink()


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
