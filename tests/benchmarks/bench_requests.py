"""One request through each stack: what the guard adds to a bare app, beside what other middleware adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import stacks as r
from asgi_cross_origin_protection import CrossOriginProtection
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from measure import Contest
from rows import Row, microseconds

# Tokens that are new to every contestant; made in front of each turn, outside the time.
_KEYS: dict[str, Callable[[], Any]] = {
    "HS256": lambda: r.SECRET,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
_REACH = {"HS256": 0.80, "RS256": 0.80, "ES256": 0.95, "EdDSA": 1.0}


def cached() -> Iterator[Row]:
    """The everyday request: a token that was seen before."""
    request = r.headers(r.bearer(r.mint(r.minter())))

    def same() -> list[tuple[bytes, bytes]]:
        return request

    stacks = {
        "bare": r.bare,
        "CORSMiddleware": r.cors(),
        "cross-origin": CrossOriginProtection(r.bare, allowed_origins=(r.PORTAL,)),
        "hand-made": r.by_hand(),
        "guard": r.guard(),
    }
    contest = Contest({name: r.asking(app, same, 200) for name, app in stacks.items()})
    beside = {name: microseconds(contest.time(name, minus="bare")) for name in stacks if name != "bare"}
    yield Row(
        "request",
        "guard, token in cache, record to a file : CORSMiddleware",
        contest.ratio("guard", "CORSMiddleware", minus="bare"),
        3.0,
        beside=beside,
    )
    yield Row(
        "request",
        "guard, token in cache : hand-made stack, HS256",
        contest.ratio("guard", "hand-made", minus="bare"),
        0.30,
        beside=beside,
    )
    yield Row(
        "request",
        "guard, token in cache : asgi-cross-origin-protection",
        contest.ratio("guard", "cross-origin", minus="bare"),
        beside=beside,
    )


def every_token_new() -> Iterator[Row]:
    """The worst day: no token is seen twice."""
    for algorithm, make in _KEYS.items():
        key = make()
        secret = isinstance(key, str)
        public = key if secret else key.public_key()
        pem = None if secret else public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        guard = r.guard() if secret else r.guard(secret=None, keys=None, keys_file=written(pem))
        fresh, other, passed = (r.Fresh(r.minter(key)) for _ in range(3))
        contest = Contest(
            {
                "bare": r.asking(r.bare, passed, 200),
                "hand-made": r.asking(r.by_hand(public, algorithm), other, 200),
                "guard": r.asking(guard, fresh, 200),
            },
            rounds=21,
            before={"guard": fresh.prepare, "hand-made": other.prepare, "bare": passed.prepare},
        )
        yield Row(
            "request",
            f"guard, every token new : hand-made stack, {algorithm}",
            contest.ratio("guard", "hand-made", minus="bare"),
            _REACH[algorithm],
            beside={name: microseconds(contest.time(name, minus="bare")) for name in ("guard", "hand-made")},
        )


def refusing() -> Iterator[Row]:
    """Saying no must not cost more than saying yes."""
    guard = r.guard()
    token = r.mint(r.minter())
    requests = {
        "allowed": (r.headers(r.bearer(token)), 200),
        "no token": (r.headers(), 401),
        "wrong origin": (r.headers(r.bearer(token), origin="https://evil.example"), 403),
        "1 MB header": (r.headers((b"authorization", b"Bearer " + b"a" * 1_000_000)), 401),
    }
    contest = Contest(
        {name: r.asking(guard, lambda q=request: q, status) for name, (request, status) in requests.items()}
    )
    for name in list(requests)[1:]:
        yield Row(
            "refusal",
            f"refusing ({name}) : allowed request, token in cache",
            contest.ratio(name, "allowed"),
            1.5,
            beside={each: microseconds(contest.time(each)) for each in (name, "allowed")},
        )


def forged() -> Iterator[Row]:
    """A signature that does not hold is refused in the time of one that does."""
    for algorithm, make in _KEYS.items():
        key, stranger = make(), ("another-secret-of-the-same-length-0123456789" if make() == r.SECRET else make())
        secret = isinstance(key, str)
        pem = (
            None if secret else key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )
        guard = r.guard() if secret else r.guard(secret=None, keys_file=written(pem))
        good, bad = r.Fresh(r.minter(key)), r.Fresh(_named(r.minter(stranger), key))
        contest = Contest(
            {"new": r.asking(guard, good, 200), "forged": r.asking(guard, bad, 401)},
            rounds=21,
            before={"new": good.prepare, "forged": bad.prepare},
        )
        yield Row(
            "refusal",
            f"refusing a forged token : allowed request with a new token, {algorithm}",
            contest.ratio("forged", "new"),
            1.0,
            beside={name: microseconds(contest.time(name)) for name in ("forged", "new")},
        )


def _named(maker: Any, _key: Any) -> Any:
    # One configured PEM key has no name, so whatever kid the stranger's token has, it is tried with that key.
    return maker


def written(text: str | None) -> str:
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="benchmarks-")) / "keys.pem"
    path.write_text(text or "")
    return str(path)
