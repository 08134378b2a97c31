"""Requests per second through real servers: uvicorn with uvloop and httptools, two processes, an app bare and guarded.

Once a bare ASGI app, which does nothing at all, and once an endpoint of FastAPI's that returns a dictionary.

The load comes from this machine too, in turns of a second: both stacks lose the same share of the processors to it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import stacks as r
from measure import Figure
from rows import Row

_CONNECTIONS = 16
_SERVED = """
import sys
sys.path.insert(0, {here!r})
import stacks as r
bare = r.bare
def guarded():
    from pathlib import Path
    return r.guard(folder=Path({folder!r}))
def cors():
    return r.cors()
def by_hand():
    return r.by_hand()
def endpoint():
    from fastapi import FastAPI
    app = FastAPI()
    @app.get("/dashboards/{{name}}")
    async def dashboard(name: str):
        return {{"carrier": "AA", "delays": [1, 2, 3]}}
    return app
def guarded_endpoint():
    from pathlib import Path
    return r.guard(endpoint(), folder=Path({folder!r}))
"""


@contextmanager
def _served(folder: Path, *app: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", *app, "--port", str(port), "--workers", "2", "--loop", "uvloop",
               "--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off"]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": f"{folder}:{Path.cwd()}"})
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def requests_per_second() -> Iterator[Row]:
    for what, other, reach in (
        ("guarded", "guarded", 0.85),
        ("CORSMiddleware", "cors", None),
        ("hand-made", "by_hand", None),
    ):
        yield _compared(
            f"{what} : bare (uvicorn, 2 processes)",
            ("served:bare",),
            (f"served:{other}", "--factory"),
            reach,
            name=what,
        )
    yield _compared(
        "FastAPI guarded : FastAPI (uvicorn, 2 processes)",
        ("served:endpoint", "--factory"),
        ("served:guarded_endpoint", "--factory"),
    )


def _compared(
    what: str,
    bare: tuple[str, ...],
    guarded: tuple[str, ...],
    reach: float | None = None,
    *,
    name: str = "guarded",
    turns: int = 8,
    seconds: float = 1.5,
) -> Row:
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    (folder / "served.py").write_text(_SERVED.format(here=str(Path(__file__).parent), folder=str(folder)))
    request = _raw(r.headers(r.bearer(r.mint(r.minter()))))
    rates: dict[str, list[float]] = {"bare": [], name: []}
    with _served(folder, *bare) as first, _served(folder, *guarded) as second:
        ports = {"bare": first, name: second}
        for port in ports.values():
            _load(port, request, seconds)
        for turn in range(turns):
            for each in ("bare", name) if turn % 2 else (name, "bare"):
                rates[each].append(_load(ports[each], request, seconds))
    ratios = [g / b for g, b in zip(rates[name], rates["bare"], strict=True)]
    return Row(
        "server",
        f"requests per second, {what}",
        Figure.of(ratios),
        reach,
        least=True,
        beside={each: f"{Figure.of(values).median:.0f}/s" for each, values in rates.items()},
    )


def _raw(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"GET /dashboards/delays HTTP/1.1\r\n" + lines + b"\r\n"


def _load(port: int, request: bytes, seconds: float) -> float:
    """Requests per second over several connections, each with one request under way."""
    connections = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(_CONNECTIONS)]
    try:
        for connection in connections:
            connection.sendall(request)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for connection in connections:
                answer = connection.recv(65536)
                while not answer.endswith(r.BODY):
                    answer += connection.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(answer[:80])
                connection.sendall(request)
                done += 1
        return done / (time.perf_counter() - began)
    finally:
        for connection in connections:
            connection.close()
