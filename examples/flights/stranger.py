"""A web site that nobody allowed, with passes copied out of United's pages: whatever it tries, it gets no chart.

What it shows is the browser's and the guard's side of one promise. What it cannot show: a
program without a browser that holds a stolen pass. Passes are short-lived for that reason.
"""

from __future__ import annotations

import json
from pathlib import Path

import templates
from portal import Portal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

_FOLDER = Path(__file__).parent / "pages" / "stranger"


class Stranger:
    """The site of the stranger; `robbed` is the portal whose passes it has copied."""

    def __init__(self, robbed: Portal, *, charts: str) -> None:
        self._robbed, self._charts = robbed, charts
        self.app = Starlette(
            routes=[Route("/", self._page), Mount("/assets", StaticFiles(directory=_FOLDER / "assets"))]
        )

    async def _page(self, _: Request) -> Response:
        sockets = self._charts.replace("http", "ws", 1)
        page = templates.render(
            _FOLDER / "stranger.html",
            charts=self._charts,
            portal=self._robbed.origin,
            named_frame=self._robbed.frame_address("network", "delays"),
            hidden_frame=self._robbed.frame_address("network", "delays"),
            loot=json.dumps({"charts": self._charts, "sockets": sockets, "token": self._robbed.token("network")}),
        )
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; frame-src {self._charts}; "
            f"connect-src 'self' {self._charts} {sockets}; base-uri 'none'; form-action 'none'"
        )
        return HTMLResponse(page, headers={"content-security-policy": policy, "cache-control": "no-store"})
