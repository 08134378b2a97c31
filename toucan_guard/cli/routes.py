"""``toucan-guard routes``: the inventory of an app's routes, and which of them ask for a grant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.table import Table
from rich.text import Text
from starlette.middleware import Middleware
from starlette.routing import PARAM_REGEX, WebSocketRoute
from starlette.types import Receive, Scope, Send

from toucan_guard.cli.output import FINDING, out, printable, say, say_json, wrong_use
from toucan_guard.core.errors import ConfigError
from toucan_guard.endpoints import Endpoint, Passed, endpoints
from toucan_guard.layers import ExemptMiddleware, GrantMiddleware
from toucan_guard.required_tables import table_problems
from toucan_guard.settings_values import did_you_mean
from toucan_guard.stack import ToucanGuard
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
    mounted_at: Annotated[str | None, typer.Option(help="Where another app has it: /{tenant}, or /.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """List every route: guarded, exempt, open or for API keys, and the grant that it asks for.

    A route that is open, that asks for no grant, for one that its path cannot name, or for a row filter on a table that
    the policy does not name, is a finding. What FastAPI itself says of the API needs no grant behind the guard; open to
    everybody it is a finding too, unless that is meant.
    """
    if mounted_at is not None and not mounted_at.startswith("/"):
        wrong_use(f"{mounted_at!r} is not where an app is mounted: it begins with a slash")
    app = _load(target)
    rows = list(inventory(app, mounted_at))
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


def inventory(app: Any, mounted_at: str | None = None) -> Iterator[RouteRow]:
    """Every route below an app, in order.

    Args:
        app: The app.
        mounted_at: The template of the path where another app has it; None where that is not known.
    """
    for endpoint in endpoints(app, (mounted_at or "").rstrip("/")):
        if endpoint.route is not app:  # it shows no routes
            yield _row(endpoint._replace(passed=tuple(_made(endpoint.passed))), may_be_mounted=mounted_at is None)


def _row(endpoint: Endpoint, *, may_be_mounted: bool) -> RouteRow:
    route, path = endpoint.route, endpoint.path
    methods = ",".join(sorted(getattr(route, "methods", None) or ())) or "any"
    # What FastAPI says of a route of an included router stands in front of the route itself.
    if isinstance(getattr(route, "original_route", route), WebSocketRoute):
        methods = "WEBSOCKET"
    state = _state_of(endpoint, methods)
    problems = [*_problems_of(endpoint, may_be_mounted=may_be_mounted), *map("it {}".format, table_problems(endpoint))]
    if state == "guarded" and any(isinstance(layer, GenerateToken) for layer, _ in endpoint.passed):
        problems.append(
            "the guard asks for a token where API keys are sent: name this path in TOUCAN_GUARD_EXEMPT_PATHS"
        )
    return RouteRow(path, methods, state, ", ".join(_grants_of(endpoint)), "; ".join(problems))


def _made(around: Iterable[Passed]) -> Iterator[Passed]:
    """What stands in front of an endpoint, with guards and grants made that are only declared."""
    for passed in around:
        layer: Any = passed.layer
        kind: Any = layer.cls if isinstance(layer, Middleware) else None
        if isinstance(kind, type) and issubclass(kind, ToucanGuard | GrantMiddleware):
            layer = kind(_nothing, *layer.args, **layer.kwargs)
            while layer is not _nothing:
                yield Passed(layer, passed.path)
                layer = layer.app
        else:
            yield passed


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the app inside a guard that is only looked at."""


def _state_of(endpoint: Endpoint, methods: str) -> str:
    state, exempt = "open", None
    for layer, _ in endpoint.passed:
        if isinstance(layer, GenerateToken):
            # The token service asks for an API key where others ask for a token: behind a guard nobody gets there.
            return "api key" if state == "open" or _exempts(exempt, "POST", endpoint) else "guarded"
        if isinstance(layer, ToucanGuard):
            state, exempt = "guarded", None
        elif isinstance(layer, ExemptMiddleware):
            exempt = layer
    if state == "guarded" and methods != "WEBSOCKET" and _exempts(exempt, "GET", endpoint):
        return "exempt"
    return state


def _exempts(layer: ExemptMiddleware | None, method: str, endpoint: Endpoint) -> bool:
    return layer is not None and layer.is_exempt(method, endpoint.path.removeprefix(endpoint.host))


def _grants_of(endpoint: Endpoint) -> Iterator[str]:
    if getattr(getattr(endpoint.route, "endpoint", None), "__module__", None) == _DOCUMENTATION:
        yield _DESCRIPTION
    for layer, _ in endpoint.passed:
        if isinstance(layer, GrantMiddleware):
            yield layer.describes
        elif isinstance(layer, GenerateToken):
            yield "what the API key may give"
        elif isinstance(layer, RefreshToken):
            yield "the token itself"
    for call in endpoint.dependencies():
        if described := getattr(call, "describes_grant", None):
            yield str(described)


def _problems_of(endpoint: Endpoint, *, may_be_mounted: bool) -> Iterator[str]:
    """Why a grant cannot be asked for: its object's id stands in no parameter of the path."""
    unless = ", unless a mount around this app names it (say so with --mounted-at)" if may_be_mounted else ""
    for wanted, path in _parameters_of(endpoint):
        names = [name for name, _ in PARAM_REGEX.findall(path)]
        if wanted not in names:
            hint = did_you_mean(wanted, names)
            so = f"so every request is answered with 500{unless}"
            yield f"the path has no parameter {wanted!r} for the grant{hint}, {so}"


def _parameters_of(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """The parameter that each grant looks for, and the path in which it can stand."""
    for layer, path in endpoint.passed:
        if isinstance(layer, GrantMiddleware) and layer.id_param is not None:
            yield layer.id_param, path
    for call in endpoint.dependencies():
        if (wanted := getattr(call, "grant_id_param", None)) is not None:
            yield str(wanted), endpoint.path
