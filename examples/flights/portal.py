"""An airline's own web site: it knows its people, and mints the passes for their charts.

Each portal runs on an origin of its own and holds a private key; the guard knows only the
public half. Nobody logs in here, to keep the demo short: both people of the page are
taken as signed in, which is the part that a real portal would do before it mints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import templates
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from toucan_guard import Grant
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.tokens import TokenMinter

ISSUER = "https://sign-in.flights.example"
AUDIENCE = "runway-analytics"
_FOLDER = Path(__file__).parent / "pages" / "portal"


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in at a portal, and what the portal lets them see."""

    key: str
    name: str
    role: str
    airports: tuple[str, ...]
    dashboards: tuple[str, ...]


@dataclass(frozen=True)
class Airline:
    """A customer: its brand and its people. The first sees the whole airline, the second one station."""

    carrier: str
    brand: str
    name: str
    tagline: str
    headline: str
    people: tuple[Person, Person]


_EVERYWHERE = ("EWR", "JFK", "LGA")

UNITED = Airline(
    "UA",
    "united",
    "United",
    "Operations",
    "How we left New York in 2013",
    (
        Person("network", "Maya Okafor", "Network operations", _EVERYWHERE, ("delays", "routes")),
        Person("station", "Daniel Reyes", "JFK station manager", ("JFK",), ("delays",)),
    ),
)
DELTA = Airline(
    "DL",
    "delta",
    "Delta",
    "Network Review",
    "New York, on time",
    (
        Person("network", "Ingrid Halvorsen", "Network operations", _EVERYWHERE, ("delays", "routes")),
        Person("station", "Samuel Adeyemi", "JFK station manager", ("JFK",), ("delays",)),
    ),
)


class Portal:
    """One airline's portal: its pages, and the desk that gives out passes."""

    def __init__(
        self, airline: Airline, *, origin: str, charts: str, signing_key: Mapping[str, Any], policy: RlsPolicy
    ) -> None:
        """Build the portal.

        Args:
            airline: Whose portal this is.
            origin: Where it is served, for the passes, which work nowhere else.
            charts: The origin of the chart server.
            signing_key: The portal's private key, as a JWK.
            policy: The row policy of the charts: a pass that does not fit it is not minted.
        """
        self.airline, self.origin, self.charts = airline, origin, charts
        self._minter = TokenMinter(signing_key, issuer=ISSUER, audience=AUDIENCE, policy=policy)
        self._people = {person.key: person for person in airline.people}
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/embed/token", self._token, methods=["POST"]),
                Mount("/assets", StaticFiles(directory=_FOLDER / "assets")),
            ]
        )

    def token(self, key: str) -> str:
        """A pass for requests, good for five minutes."""
        return self._minter.mint(**self._claims(self._people[key]))

    def frame_address(self, key: str, dashboard: str) -> str:
        """The address for a frame, with a pass that opens it once within a minute."""
        token = self._minter.mint_bootstrap(**self._claims(self._people[key]), session_seconds=900)
        return f"{self.charts}/dashboards/{dashboard}?embed_token={token}"

    def _claims(self, person: Person) -> dict[str, Any]:
        return {
            "subject": f"{self.airline.carrier}-{person.key}",
            "tenant": self.airline.carrier,
            "grants": [Grant("dashboard", dashboard, ("view",)) for dashboard in person.dashboards],
            "rls": {"carrier": self.airline.carrier, "airports": list(person.airports)},
            "origins": [self.origin],
        }

    async def _page(self, _: Request) -> Response:
        airline, (network, station) = self.airline, self.airline.people
        page = templates.render(
            _FOLDER / "portal.html",
            brand=airline.brand,
            name=airline.name,
            tagline=airline.tagline,
            headline=airline.headline,
            charts=self.charts,
            network_name=network.name,
            network_role=network.role,
            network_frame=self.frame_address("network", "delays"),
            station_name=station.name,
            station_role=station.role,
            station_frame=self.frame_address("station", "delays"),
        )
        policy = (
            f"default-src 'none'; script-src 'self' {self.charts}; style-src 'self' {self.charts}; "
            f"img-src 'self'; frame-src {self.charts}; connect-src 'self' {self.charts}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        # The page carries passes that work once: a copy kept by a cache would be useless, and is not allowed.
        return HTMLResponse(page, headers={"content-security-policy": policy, "cache-control": "no-store"})

    async def _token(self, request: Request) -> Response:
        # A real portal checks its own login here. That the call comes from its own page is checked in any case.
        if request.headers.getlist("sec-fetch-site") not in ([], ["same-origin"]):
            return JSONResponse({"title": "Only this portal's own pages may ask for a pass"}, 403)
        key = request.query_params.get("as", "")
        if key not in self._people:
            return JSONResponse({"title": f"Nobody here is called {escape(key[:40])}"}, 404)
        return JSONResponse({"token": self.token(key)}, headers={"cache-control": "no-store"})
