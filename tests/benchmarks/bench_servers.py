"""Requests per second through real servers: uvicorn with uvloop and httptools, two processes, the app bare and guarded.

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


def requests_per_second(turns: int = 8, seconds: float = 1.5) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    (folder / "served.py").write_text(_SERVED.format(here=str(Path(__file__).parent), folder=str(folder)))
    request = _raw(r.headers(r.bearer(r.mint(r.minter()))))
    rates: dict[str, list[float]] = {"bare": [], "guarded": []}
    with _served(folder, "served:bare") as bare, _served(folder, "served:guarded", "--factory") as guarded:
        ports = {"bare": bare, "guarded": guarded}
        for name, port in ports.items():
            _load(port, request, seconds)
            del name
        for turn in range(turns):
            for name in ("bare", "guarded") if turn % 2 else ("guarded", "bare"):
                rates[name].append(_load(ports[name], request, seconds))
    ratios = [guarded / bare for guarded, bare in zip(rates["guarded"], rates["bare"], strict=True)]
    yield Row(
        "server",
        "requests per second, guarded : bare (uvicorn, 2 processes)",
        Figure.of(ratios),
        0.85,
        least=True,
        beside={name: f"{Figure.of(values).median:.0f}/s" for name, values in rates.items()},
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
