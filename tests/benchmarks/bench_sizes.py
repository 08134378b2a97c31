"""What must not grow: with the allowlist, with the tenants, with the tokens that were seen."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import stacks as r
from measure import Contest
from rows import Row, exactly, microseconds

from toucan_guard.core.origins import OriginAllowlist, parse_origin
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.keys import KeyRing

_MANY = 100_000


def allowlist() -> Iterator[Row]:
    exact = [OriginAllowlist.parse([f"https://c{n}.example" for n in range(size)]) for size in (1, _MANY)]
    wild = [OriginAllowlist.parse([f"https://*.c{n}.example" for n in range(size)]) for size in (1, _MANY)]
    asked = parse_origin("https://c0.example")
    under = parse_origin("https://www.c0.example")
    assert asked is not None
    assert under is not None
    contest = Contest(
        {
            "exact, 1": lambda: exact[0].allows(asked),
            "exact, 100,000": lambda: exact[1].allows(asked),
            "wildcard, 1": lambda: wild[0].allows(under),
            "wildcard, 100,000": lambda: wild[1].allows(under),
        }
    )
    for kind in ("exact", "wildcard"):
        yield Row(
            "size",
            f"looking an origin up in 100,000 : in 1 ({kind})",
            contest.ratio(f"{kind}, 100,000", f"{kind}, 1"),
            1.2,
            beside={f"{kind}, {n}": microseconds(contest.time(f"{kind}, {n}")) for n in ("1", "100,000")},
        )


def tenants() -> Iterator[Row]:
    """Bytes of our header on the wire, with one tenant and with 100,000."""
    sizes = []
    for size in (1, _MANY):
        folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
        listed = [f"https://t{n}.example" for n in range(size)]
        text = "".join(f't{n} = ["https://t{n}.example"]\n' for n in range(size))
        (folder / "tenants.toml").write_text(text)
        app = r.guard(folder=folder, allowed_origins=listed, tenant_origins_file=str(folder / "tenants.toml"))
        request = r.headers(r.bearer(r.mint(r.minter(), tenant="t0")), origin="https://t0.example")
        sent: list[tuple[bytes, bytes]] = []

        async def send(message: dict[str, object], sent: list[tuple[bytes, bytes]] = sent) -> None:
            if message["type"] == "http.response.start":
                sent.extend(message["headers"])  # type: ignore[call-overload]

        asyncio.run(app(r.scope_of(request), r.receive, send))
        sizes.append(sum(len(value) for name, value in sent if name == b"content-security-policy"))
    yield Row(
        "size",
        "frame-ancestors bytes on the wire with 100,000 tenants : with 1",
        exactly(sizes[1] / sizes[0]),
        1.0,
        beside={"1": f"{sizes[0]} bytes", "100,000": f"{sizes[1]} bytes"},
    )


def cache(tokens: int = 1_000_000) -> Iterator[Row]:
    """Memory of one remembered token; and what a flood of distinct valid ones does to the hot one."""
    policy = TokenPolicy(issuer=r.ISSUER, audiences=(r.AUDIENCE,))
    ring = KeyRing.from_secret(r.SECRET)
    maker = r.minter()
    few = [r.mint(maker, subject=f"user-{n}") for n in range(2000)]
    yield Row(
        "size", "memory of one token that the guard has seen", exactly(_kept_of_each(few) / 1024), 4.0, unit="KiB"
    )

    quiet = CachedVerifier(policy, ring, TokenCache(10_000))
    kept = TokenCache(10_000)
    flooded = CachedVerifier(policy, ring, kept)
    hot = few[0]
    marks: list[int] = []
    for number in range(tokens):
        flooded.verify(r.mint(maker, subject=f"flood-{number}"), now=time.time())
        if number % 1000 == 0:
            flooded.verify(hot, now=time.time())
        if number in (tokens // 2, tokens - 1):
            marks.append(_resident())
    contest = Contest(
        {
            "quiet": lambda: quiet.verify(hot, now=time.time()),
            "flooded": lambda: flooded.verify(hot, now=time.time()),
        }
    )
    yield Row(
        "size",
        f"the hot token after {tokens:,} distinct ones : before",
        contest.ratio("flooded", "quiet"),
        1.3,
        beside={name: microseconds(contest.time(name)) for name in contest.seconds},
    )
    yield Row(
        "size",
        f"growth of the process from {tokens // 2:,} to {tokens:,} distinct tokens",
        exactly((marks[1] - marks[0]) / 1024),
        unit="MiB",
        beside={"entries kept": f"{len(kept):,}"},
    )


def _kept_of_each(tokens: list[str]) -> float:
    """Bytes that stay of a token that has come three times: claims, rows, what was admitted, and all that is beside."""
    app = r.guard()
    requests = [r.headers(r.bearer(token)) for token in tokens]

    async def ask(some: list[list[tuple[bytes, bytes]]]) -> None:
        for request in some:
            for _ in range(3):
                await r.asking(app, lambda q=request: [*map(_as_a_server_would, q)], 200)()

    asyncio.run(ask(requests[:200]))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    asyncio.run(ask(requests[200:]))
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return kept / len(requests[200:])


def _as_a_server_would(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    # Every request has values of its own; what is kept of them is not shared with the next one.
    return header[0], bytes(bytearray(header[1]))


def _resident() -> int:
    """KiB of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0
