"""The guarded app: dashboards for frames, their data, a live feed, and the web component.

Everything that decides who sees what is in two places: the guard in front
(`app.add_middleware` below) and one dependency per endpoint that names the object it
opens. The handlers ask for rows without saying whose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import dashboards
import queries
import raw_sql
import templates
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request

from toucan_guard import Embed, GuardSettings, ToucanGuard
from toucan_guard.core.errors import QueryRefused
from toucan_guard.fastapi import require_grant
from toucan_guard.rls.sqlalchemy import protect

_FOLDER = Path(__file__).parent / "pages" / "viz"
_BRANDS = {"UA": "united", "DL": "delta"}
_TICK_SECONDS = 0.8
_AT_ONCE = 24  # the first departures arrive together, so that the feed does not start empty
# The page's own policy; who may frame it is not its business, the guard adds that.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)

Viewer = Annotated[Embed, Depends(require_grant("dashboard", "dashboard_id", action="view"))]
Width = Annotated[int, Query(ge=240, le=1600)]
router = APIRouter()


def create_app(settings: GuardSettings, engine: Engine) -> FastAPI:
    """The app with the guard in front and the row filter in its sessions, or in its database."""
    sessions = sessionmaker(engine)
    if settings.policy is None:
        raise ValueError("the flights belong to different customers: without a row policy nobody may see any")
    # PostgreSQL has policies of its own (on_postgres.py); everywhere else SQLAlchemy writes the filter into each query.
    if engine.dialect.name != "postgresql":
        protect(sessions, settings.policy)

    app = FastAPI(title="Runway Analytics")
    app.state.sessions = sessions
    app.include_router(router)
    app.mount("/assets", StaticFiles(directory=_FOLDER / "assets"))
    app.add_exception_handler(raw_sql.TookTooLong, _took_too_long)
    app.add_middleware(ToucanGuard, settings=settings)
    return app


def open_session(connection: HTTPConnection) -> Iterator[Session]:
    """One database session for one request."""
    with connection.app.state.sessions() as session:
        yield session


Database = Annotated[Session, Depends(open_session)]


@router.get("/dashboards/{dashboard_id}")
def dashboard_page(dashboard_id: str, embed: Viewer) -> HTMLResponse:
    """The page for a frame: an empty board that fetches its own data."""
    _known(dashboard_id)
    page = templates.render(
        _FOLDER / "dashboard.html",
        title=dashboard_id.title(),
        dashboard=dashboard_id,
        theme=_BRANDS.get(embed.tenant or "", ""),
    )
    return HTMLResponse(page, headers={"content-security-policy": _CSP})


@router.get("/api/dashboards/{dashboard_id}/data")
def dashboard_data(dashboard_id: str, embed: Viewer, session: Database, width: Width = 640) -> JSONResponse:
    """The numbers and drawings of one dashboard, of the rows that the pass opens."""
    _known(dashboard_id)
    return JSONResponse({**dashboards.build(dashboard_id, session, width), "viewer": embed.subject})


@router.get("/api/dashboards/{dashboard_id}/busiest")
def busiest_routes(dashboard_id: str, embed: Viewer, session: Database) -> JSONResponse:
    """The same routes as in the dashboard, by a query that is written as text."""
    _known(dashboard_id)
    columns, rows, truncated = raw_sql.ask(session, embed, raw_sql.BUSIEST_ROUTES)
    routes = [dict(zip(columns, row, strict=True)) for row in rows]
    return JSONResponse(
        {"flights": sum(route["flights"] for route in routes), "routes": routes, "truncated": truncated}
    )


@router.get("/api/dashboards/{dashboard_id}/ask")
def ask(dashboard_id: str, embed: Viewer, session: Database, sql: str) -> JSONResponse:
    """A SELECT of the viewer's own. Why it was refused is theirs to know, what the database says is not."""
    _known(dashboard_id)
    try:
        columns, rows, truncated = raw_sql.ask(session, embed, sql)
    except QueryRefused as refusal:
        return _problem(400, "This query is not answered", str(refusal))
    except session.connection().dialect.loaded_dbapi.Error:
        return _problem(400, "This query is not answered", "the database cannot run it")
    return JSONResponse({"columns": columns, "rows": rows, "truncated": truncated})


@router.websocket("/live/{dashboard_id}")
async def live(websocket: WebSocket, dashboard_id: str, embed: Viewer) -> None:
    """Play the departures of a day of 2013 that is drawn by lot."""
    month, day = random.randint(1, 12), random.randint(1, 28)  # noqa: S311 - a day to look at, not a secret

    def read() -> list[queries.Departure]:
        with websocket.app.state.sessions() as session:
            return list(queries.departures(session, month, day))

    flights = await run_in_threadpool(read)
    await websocket.accept()
    await websocket.send_json(
        {
            "type": "day",
            "day": f"{day} {dashboards.long_month(month)} 2013",
            "flights": len(flights),
            "viewer": embed.subject,
        }
    )
    try:
        for number, flight in enumerate(flights):
            await websocket.send_json(
                {
                    "type": "flight",
                    "clock": flight.clock,
                    "name": flight.name,
                    "origin": flight.origin,
                    "dest": flight.dest,
                    "delay": flight.delay,
                }
            )
            await asyncio.sleep(0 if number < min(_AT_ONCE, len(flights) // 2) else _TICK_SECONDS)
        await websocket.close()
    except WebSocketDisconnect:
        return


@router.get("/widget.js")
def widget() -> FileResponse:
    """The web component. Code for everybody, data for nobody: it is exempt from the guard."""
    return FileResponse(_FOLDER / "widget.js", media_type="text/javascript")


@router.get("/healthz")
def health() -> PlainTextResponse:
    """For load balancers, which have no pass."""
    return PlainTextResponse("ok")


@router.get("/crash")
def crash() -> None:
    """A bug in the app, on purpose: its answer still leaves with the guard's headers and is on record."""
    raise RuntimeError("this endpoint always fails")


def _took_too_long(_request: Request, _error: Exception) -> JSONResponse:
    detail = f"it was stopped after {raw_sql.MOST_SECONDS:g} seconds: ask for less"
    return _problem(422, "This query takes too long", detail)


def _problem(status: int, title: str, detail: str) -> JSONResponse:
    """Problem details (RFC 9457), the form in which the guard refuses as well."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(content, status, media_type="application/problem+json")


def _known(dashboard_id: str) -> None:
    if dashboard_id not in dashboards.DASHBOARDS:
        raise HTTPException(404, "there is no such dashboard")
