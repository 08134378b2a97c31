"""A token of a known key, while the endpoint of the keys hangs: it must not notice."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import time
from collections.abc import Iterator

import stacks as r
from cryptography.hazmat.primitives.asymmetric import ed25519
from measure import Figure
from rows import Row

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.jwks import JwksKeys
from toucan_guard.tokens.keys import SigningKey

_CALLS = 2000


def while_the_endpoint_hangs(rounds: int = 15) -> Iterator[Row]:
    logging.disable(logging.WARNING)  # each fetch that hangs is told
    ratios, idle, hanging = asyncio.run(_compare(rounds))
    yield Row(
        "keys",
        "a known key, 99th percentile, while the key endpoint hangs : idle",
        Figure.of(ratios),
        1.2,
        beside={
            "idle": f"{statistics.median(idle) * 1e6:.1f} us",
            "hanging": f"{statistics.median(hanging) * 1e6:.1f} us",
        },
    )


async def _compare(rounds: int) -> tuple[list[float], list[float], list[float]]:
    private = ed25519.Ed25519PrivateKey.generate()
    body = json.dumps({"keys": [SigningKey.load(private, kid="k").verification_key().public_jwk()]}).encode()
    hang = asyncio.Event()

    async def answer(_url: str) -> bytes:
        return body

    async def never(_url: str) -> bytes:
        await hang.wait()
        return body

    maker = r.TokenMinter(private, kid="k", issuer=r.ISSUER, audience=r.AUDIENCE, lifetime_seconds=900)
    ratios, idle, hanging = [], [], []
    for _ in range(rounds):
        url = "https://issuer.example/keys"
        quiet = JwksKeys(url, fetch=answer)
        await quiet.start()
        # Young keys, and a fetch under way that a made-up key has begun.
        held = JwksKeys(url, fetch=answer, cooldown_seconds=0.01)
        await held.start()
        held._fetch = never
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(held.look_again("made-up"))
        await asyncio.sleep(0)
        for keys, percentiles in ((quiet, idle), (held, hanging)):
            percentiles.append(await _percentile(keys, maker))
        ratios.append(hanging[-1] / idle[-1])
        waiting.cancel()
    return ratios, idle, hanging


async def _percentile(keys: JwksKeys, maker: r.TokenMinter) -> float:
    verifier = CachedVerifier(TokenPolicy(issuer=r.ISSUER, audiences=(r.AUDIENCE,)), keys, TokenCache(0))
    tokens = [r.mint(maker, subject=f"user-{number}") for number in range(50)]
    took = []
    for number in range(_CALLS):
        began = time.thread_time_ns()
        result = verifier.verify(tokens[number % 50], now=time.time())
        took.append((time.thread_time_ns() - began) / 1e9)
        if not isinstance(result, VerifiedClaims):
            raise TypeError("not verified")
        if number % 100 == 0:
            await asyncio.sleep(0)
    return statistics.quantiles(took, n=100)[98]
