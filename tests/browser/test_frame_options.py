"""What Chromium makes of an X-Frame-Options with odd bytes in it is what we make of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from toucan_guard.core.csp_meaning import effective
from toucan_guard.core.origin_grammar import parse_origin

# What may stand around a word without being read by the server or the browser as the end of the line.
ODD = [bytes([number]) for number in (*range(1, 10), 11, 12, *range(14, 33), 0x7F, 0x85, 0xA0, 0xAD, 0xFF)]
CASES: list[tuple[bytes, ...]] = [
    *((b"DENY" + odd,) for odd in ODD),
    *((odd + b"SAMEORIGIN",) for odd in ODD),
    *((b"SAMEORIGIN" + odd + b",SAMEORIGIN",) for odd in (b"\v", b"\f", b"\x1c", b"\xa0")),
    *((b"foo", odd + b"DENY") for odd in (b"\v", b"\f", b"\x1c", b"\xa0")),
    (b'"DENY"',), (b'"DENY,DENY"',), (b"DENY;",), (b",DENY",), (b"DENY,",), (b"",), (b"", b"DENY"), (b"DENY x",),
    (b"foo, bar",), (b"ALLOWALL",), (b"ALLOWALL, foo",), (b"DENY, ALLOW-FROM https://x.example",), (),
]  # fmt: skip


class _Page(BaseHTTPRequestHandler):
    """``/0``, ``/1`` …: a page with the headers of that case; ``/frames/a/b?host`` frames the cases from a to b."""

    def do_GET(self) -> None:
        _, *path = self.path.partition("?")[0].split("/")
        if path[0] == "favicon.ico":
            return self.send_error(404)
        values: Sequence[bytes] = ()
        if path[0] == "frames":
            host = self.path.partition("?")[2]
            frames = range(int(path[1]), min(int(path[2]), len(CASES)))
            body = "".join(f'<iframe name="f{case}" src="//{host}/{case}"></iframe>' for case in frames)
        else:
            body, values = "<p id=shown>shown</p>", CASES[int(path[0])]
        lines = [
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/html",
            b"Content-Length: %d" % len(body),
            b"Connection: close",
        ]
        lines += [b"X-Frame-Options: " + value for value in values]
        self.wfile.write(b"\r\n".join(lines) + b"\r\n\r\n" + body.encode())
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another site", "the same site"])
def test_chromium_shows_what_we_say_that_it_shows(context: Any, port: int, host: str) -> None:
    page, step = context.new_page(), 30
    viewer, own = parse_origin(f"http://127.0.0.1:{port}"), parse_origin(f"http://{host}:{port}")
    for start in range(0, len(CASES), step):
        page.goto(f"http://127.0.0.1:{port}/frames/{start}/{start + step}?{host}:{port}")
        for case in range(start, min(start + step, len(CASES))):
            frame = page.frame(name=f"f{case}")
            shown = frame is not None and frame.query_selector("#shown") is not None
            values = [value.decode("latin-1") for value in CASES[case]]
            assert shown is effective([], values).allows([viewer], own), CASES[case]
