"""``toucan-guard routes``: the inventory of an app's routes, and which of them ask for a grant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.table import Table
from rich.text import Text
from starlette.routing import PARAM_REGEX, Mount, WebSocketRoute

from toucan_guard.cli.output import FINDING, out, printable, say, say_json, wrong_use
from toucan_guard.core.errors import ConfigError
from toucan_guard.layers import ExemptMiddleware, GrantMiddleware
from toucan_guard.settings_values import did_you_mean
from toucan_guard.stack import ToucanGuard
from toucan_guard.templates import flat_routes
from toucan_guard.token_service import GenerateToken, RefreshToken

_COLUMNS: Final = ("path", "methods", "guard", "grant")
# Endpoints of FastAPI itself: what it says of the API holds nobody's rows.
_DOCUMENTATION: Final = "fastapi.applications"
_DESCRIPTION: Final = "(the API's description)"


class RouteRow(NamedTuple):
    """One route of the inventory; ``problem`` is why it can answer nobody."""

    path: str
    methods: str
    guard: str
    grant: str
    problem: str = ""


def routes(
    target: Annotated[str, typer.Argument(help="module:attribute of the app, as servers take it.")],
    public_docs: Annotated[bool, typer.Option("--public-docs", help="FastAPI's /docs may stand open.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """List every route: guarded, exempt, open or for API keys, and the grant that it asks for. A route that is open,
    that asks for no grant, or for one that its path cannot name, is a finding. What FastAPI itself says of the API
    needs no grant behind the guard; open to everybody it is a finding too, unless that is meant."""
    app = _load(target)
    rows = list(inventory(app))
    if not rows:
        # Nothing found is not nothing open: the routes may stand behind a middleware that does not show them.
        wrong_use(f"{target!r} shows no routes: name the FastAPI or Starlette app itself, or the ToucanGuard around it")
    found = [row for row in rows if _is_finding(row) and not (public_docs and row.grant == _DESCRIPTION)]
    if as_json:
        say_json([row._asdict() for row in rows])
    else:
        table = Table()
        for title in _COLUMNS:
            table.add_column(title, overflow="fold")  # what is cut off may be what was looked for
        for row in rows:
            style = "" if row not in found else "red" if row.guard == "open" else "yellow"
            table.add_row(*(Text(printable(cell), style=style) for cell in row[: len(_COLUMNS)]))
        out.print(table)
        counted = "1 route" if len(rows) == 1 else f"{len(rows)} routes"
        bare = sum(_is_bare(row) for row in found)
        say(f"{counted}, {bare} without guard or grant", "yellow" if bare else "green")
        for row in rows:
            if row.problem:
                say(f"! {row.path} ({row.methods}): {row.problem}", "yellow")
        if any(row.grant == _DESCRIPTION for row in found):
            say("Everybody can read what FastAPI says of the API: FastAPI(openapi_url=None) takes it away,", "yellow")
            say("a guard around the whole app asks for a token, and --public-docs says that it is meant.", "yellow")
    if found:
        raise typer.Exit(FINDING)


def _is_finding(row: RouteRow) -> bool:
    return _is_bare(row) or bool(row.problem)


def _is_bare(row: RouteRow) -> bool:
    return row.guard == "open" or (row.guard == "guarded" and not row.grant)


def _load(target: str) -> Any:
    module, separator, attribute = target.partition(":")
    if not separator:
        wrong_use(f"{target!r} is not an app: write module:attribute")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ConfigError as error:
        problems = (f"✗ {problem}" for problem in error.problems)
        wrong_use(f"{target!r} cannot be loaded, its configuration is wrong:", *problems)
    except Exception as error:  # noqa: BLE001 - the module is the host's, so is what it may raise
        wrong_use(f"{target!r} cannot be loaded: {type(error).__name__}: {error}")
    return found


def inventory(app: Any) -> Iterator[RouteRow]:
    """Every route below an app, in order."""
    exempt: ExemptMiddleware | None = None
    guarded = False
    while isinstance(app, ToucanGuard):
        guarded, exempt, app = True, _exempt_of(app), _bare_app(app)
    yield from _below(app, "", guarded=guarded, exempt=exempt)


def _below(app: Any, prefix: str, *, guarded: bool, exempt: ExemptMiddleware | None) -> Iterator[RouteRow]:
    for middleware in getattr(app, "user_middleware", ()):
        if middleware.cls is ToucanGuard:
            guarded, exempt = True, _exempt_of(ToucanGuard(app, *middleware.args, **middleware.kwargs))
    for route in flat_routes(getattr(app, "routes", None) or ()):
        yield from _of_route(route, prefix, guarded=guarded, exempt=exempt)


def _of_route(route: Any, prefix: str, *, guarded: bool, exempt: ExemptMiddleware | None) -> Iterator[RouteRow]:
    path = prefix + str(getattr(route, "path", None) or "")
    # What FastAPI says of a route of an included router stands in front of the route itself.
    kind = getattr(route, "original_route", route)
    if isinstance(kind, Mount):
        inner: Any = route.app
        while isinstance(inner, ToucanGuard):
            guarded, exempt, inner = True, _exempt_of(inner), _bare_app(inner)
        if getattr(inner, "routes", None):
            yield from _below(inner, path, guarded=guarded, exempt=exempt)
            return
        path += "/…"
    methods = ",".join(sorted(getattr(route, "methods", None) or ())) or "any"
    if isinstance(kind, WebSocketRoute):
        methods = "WEBSOCKET"
    layers = list(_layers_of(route))
    guarded = guarded or any(isinstance(layer, ToucanGuard) for layer in layers)
    state = "guarded" if guarded else "open"
    if any(isinstance(layer, GenerateToken) for layer in layers):
        # The token service asks for an API key where others ask for a token.
        state = "api key"
    elif guarded and exempt is not None and exempt.is_exempt("GET", path) and methods != "WEBSOCKET":
        state = "exempt"
    yield RouteRow(path, methods, state, ", ".join(_grants_of(route)), "; ".join(_problems_of(route, path)))


def _layers_of(route: Any) -> Iterator[object]:
    layer = getattr(route, "app", None)
    while layer is not None:
        yield layer
        layer = getattr(layer, "app", None)


def _grants_of(route: Any) -> Iterator[str]:
    if getattr(getattr(route, "endpoint", None), "__module__", None) == _DOCUMENTATION:
        yield _DESCRIPTION
    for layer in _layers_of(route):
        if isinstance(layer, GrantMiddleware):
            yield layer.describes
        elif isinstance(layer, GenerateToken):
            yield "what the API key may give"
        elif isinstance(layer, RefreshToken):
            yield "the token itself"
    for call in _dependencies_of(getattr(route, "dependant", None)):
        if described := getattr(call, "describes_grant", None):
            yield str(described)


def _dependencies_of(dependant: Any) -> Iterator[Any]:
    """What FastAPI calls for a route, and for what it calls."""
    for dependency in getattr(dependant, "dependencies", ()):
        yield dependency.call
        yield from _dependencies_of(dependency)


def _problems_of(route: Any, path: str) -> Iterator[str]:
    """Why a grant cannot be asked for: its object's id stands in no parameter of the path."""
    names = [name for name, _ in PARAM_REGEX.findall(path)]
    for wanted in _parameters_of(route):
        if wanted not in names:
            hint = did_you_mean(wanted, names)
            yield f"the path has no parameter {wanted!r} for the grant{hint}, so every request is answered with 500"


def _parameters_of(route: Any) -> Iterator[str]:
    for layer in _layers_of(route):
        if isinstance(layer, GrantMiddleware) and layer.id_param is not None:
            yield layer.id_param
    for call in _dependencies_of(getattr(route, "dependant", None)):
        if (wanted := getattr(call, "grant_id_param", None)) is not None:
            yield str(wanted)


def _exempt_of(guard: ToucanGuard) -> ExemptMiddleware | None:
    layer: Any = guard.app
    while layer is not None:
        if isinstance(layer, ExemptMiddleware):
            return layer
        layer = getattr(layer, "app", None)
    return None


def _bare_app(guard: ToucanGuard) -> Any:
    exempt = _exempt_of(guard)
    return None if exempt is None else exempt.bare
