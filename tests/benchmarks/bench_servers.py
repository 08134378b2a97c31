"""Requests per second through real servers: uvicorn with uvloop and httptools, two processes, an app bare and guarded.

Once a bare ASGI app, which does nothing at all, and once an endpoint of FastAPI's that returns a dictionary.

The load comes from this machine too, in turns of a second: both stacks lose the same share of the processors to it.
What the load does not take part in is the processor time of the server's own processes.
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
from typing import NamedTuple

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


class _Server(NamedTuple):
    port: int
    process: int

    def busy(self) -> float:
        """Seconds of processor that it and its workers have used; 0 where the system does not tell."""
        return sum(map(_processor_seconds, (self.process, *_children(self.process))))


@contextmanager
def _served(folder: Path, *app: str) -> Iterator[_Server]:
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
        yield _Server(port, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def requests_per_second() -> Iterator[Row]:
    for what, other, reach in (
        ("guarded", "guarded", 0.85),
        ("CORSMiddleware", "cors", None),
        ("hand-made", "by_hand", None),
    ):
        yield from _compared(what, ("served:bare",), (f"served:{other}", "--factory"), reach)
    yield from _compared(
        "FastAPI guarded",
        ("served:endpoint", "--factory"),
        ("served:guarded_endpoint", "--factory"),
        bare_name="FastAPI",
    )


def _compared(
    what: str,
    bare: tuple[str, ...],
    stack: tuple[str, ...],
    reach: float | None = None,
    *,
    bare_name: str = "bare",
    turns: int = 8,
    seconds: float = 1.5,
) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    (folder / "served.py").write_text(_SERVED.format(here=str(Path(__file__).parent), folder=str(folder)))
    request = _raw(r.headers(r.bearer(r.mint(r.minter()))))
    rates: dict[str, list[float]] = {bare_name: [], what: []}
    busy: dict[str, list[float]] = {bare_name: [], what: []}
    with _served(folder, *bare) as first, _served(folder, *stack) as second:
        servers = {bare_name: first, what: second}
        for server in servers.values():
            _load(server.port, request, seconds)
        for turn in range(turns):
            for each in (bare_name, what) if turn % 2 else (what, bare_name):
                before = servers[each].busy()
                done, took = _load(servers[each].port, request, seconds)
                rates[each].append(done / took)
                busy[each].append((servers[each].busy() - before) / done * 1e6)
    yield Row(
        "server",
        f"requests per second, {what} : {bare_name} (uvicorn, 2 processes)",
        Figure.of([ours / theirs for ours, theirs in zip(rates[what], rates[bare_name], strict=True)]),
        reach,
        least=True,
        beside={each: f"{Figure.of(values).median:.0f}/s" for each, values in rates.items()},
    )
    yield Row(
        "server",
        f"processor time of a request that {what} adds to {bare_name} (uvicorn, 2 processes)",
        Figure.of([ours - theirs for ours, theirs in zip(busy[what], busy[bare_name], strict=True)]),
        unit="us",
        beside={each: f"{Figure.of(values).median:.0f} us" for each, values in busy.items()},
    )


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _processor_seconds(process: int) -> float:
    try:
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _raw(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"GET /dashboards/delays HTTP/1.1\r\n" + lines + b"\r\n"


def _load(port: int, request: bytes, seconds: float) -> tuple[int, float]:
    """Requests that were answered, and seconds; over several connections, each with one request under way."""
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
        return done, time.perf_counter() - began
    finally:
        for connection in connections:
            connection.close()
