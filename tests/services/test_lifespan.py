"""Guards around some routes, and the signals by which a server ends: whose chain is closed, and whose is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit.files import read_lines
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.testing import TEST_SECRET

pytest.importorskip("uvicorn")

SECONDS = 60.0
Serve = Callable[..., tuple[subprocess.Popen[bytes], int]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve("told", "--workers", "2")``: a process of its own, and its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(app: str, *options: str, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        environment = {
            "ALLOWED_ORIGINS": "https://portal.example", "ISSUER": "https://host.example", "AUDIENCE": "charts",
            "SECRET": TEST_SECRET, "RLS_COLUMNS": "flights.carrier=carrier", "AUDIT": str(tmp_path / "audit.jsonl"),
            **settings,
        }  # fmt: skip
        with (tmp_path / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", f"lifespan_app:{app}", "--app-dir", str(Path(__file__).parent),
                 "--host", "127.0.0.1", "--port", str(port), "--no-access-log", *options],
                env={**os.environ, **{f"TOUCAN_GUARD_{name}": value for name, value in environment.items()},
                     "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        started.append(process)
        return process, port

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def ask(process: subprocess.Popen[bytes], port: int, path: str) -> int:
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, "the server has ended"
        with suppress(urllib.error.URLError, ConnectionError):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS)
            except urllib.error.HTTPError as error:
                return error.code
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


def chains(path: Path) -> list[bool]:
    """Of each chain, whether it is closed. None may look as if somebody had changed it."""
    verifier = ChainVerifier(None)
    for number, line in enumerate(read_lines(path), 1):
        verifier.feed(line, file=path.name, number=number)
    verdict = verifier.finish()
    assert not verdict.tampered, verdict.findings
    return [chain.closed for chain in verdict.chains]


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_closes_the_chain_of_every_guard(
    serve: Serve, tmp_path: Path, options: tuple[str, ...], by: signal.Signals
) -> None:
    process, port = serve("told", *options)
    assert (ask(process, port, "/a/x"), ask(process, port, "/b/x")) == (401, 401)
    process.send_signal(by)
    process.wait(SECONDS)
    found = chains(tmp_path / "audit.jsonl")
    assert found == [True] * len(found)
    assert len(found) >= 2


def test_a_guard_that_nobody_tells_closes_its_chain_where_the_interpreter_comes_to_its_end(
    serve: Serve, tmp_path: Path
) -> None:
    """With uvicorn it does so at SIGINT, and at SIGTERM it does not."""
    process, port = serve("untold")
    assert (ask(process, port, "/a/x"), ask(process, port, "/b/x")) == (401, 401)
    process.send_signal(signal.SIGINT)
    process.wait(SECONDS)
    assert chains(tmp_path / "audit.jsonl") == [True, True]


def test_a_server_that_is_killed_leaves_its_chains_open_and_says_so(serve: Serve, tmp_path: Path) -> None:
    process, port = serve("told")
    assert (ask(process, port, "/a/x"), ask(process, port, "/b/x")) == (401, 401)
    process.kill()
    process.wait(SECONDS)
    assert chains(tmp_path / "audit.jsonl") == [False, False]


@pytest.mark.parametrize(("app", "path"), [("mistaken", "/x"), ("mistaken_in_a_mount", "/a/x")])
def test_a_server_does_not_start_an_app_that_requires_a_table_which_the_policy_does_not_name(
    serve: Serve, tmp_path: Path, app: str, path: str
) -> None:
    process, _ = serve(app)
    assert process.wait(SECONDS) != 0
    told = (tmp_path / "server.log").read_text()
    assert f"{path} requires a row filter on the table 'fligths', which the policy does not name" in told
    assert "Application startup failed" in told
    assert (tmp_path / "audit.jsonl").read_bytes() == b""


def test_the_store_is_looked_at_before_the_first_request(serve: Serve, tmp_path: Path, make_valkey: Any) -> None:
    valkey = make_valkey("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes")
    process, port = serve("told", STORE_URL=valkey.url)
    assert ask(process, port, "/a/x") == 401
    told = (tmp_path / "server.log").read_text()
    assert told.count("toucan_guard store: ") == 2, "once for each guard"
    assert told.index("noeviction") < told.index("Application startup complete")
