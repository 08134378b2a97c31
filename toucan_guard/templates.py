"""The whole template of the route that answers, such as ``/embed/dashboards/{dashboard_id}``; never the path.

Starlette says which endpoint it has chosen, and not by which route; FastAPI names the innermost route, without the
mounts and routers around it. So the routes of the app are listed by endpoint, once, and the chosen endpoint is looked
up. An endpoint that stands behind several routes is told by the path; where even that fits more than one, the
template is None rather than a guess.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from starlette.routing import compile_path
from starlette.types import Scope

_DEEPEST: Final = 20  # middleware around an app, and mounts in mounts
_MOST_UNKNOWN: Final = 1_000


class _Template(NamedTuple):
    text: str
    parameters: frozenset[str]
    pattern: re.Pattern[str] | None


class _Index:
    """The templates of one app by endpoint, which is told by its identity: not every endpoint has a hash."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, tuple[Any, tuple[_Template, ...]]] = {}
        self._unknown = 0

    def templates(self, endpoint: Any) -> tuple[_Template, ...]:
        known = self._known.get(id(endpoint))
        if known is None:
            # The first time, or a route that was added since. An app that makes endpoints as it goes is given up.
            if self._unknown < _MOST_UNKNOWN:
                self._list()
                if id(endpoint) not in self._known:
                    self._unknown += 1
                    self._known[id(endpoint)] = endpoint, ()
            known = self._known.get(id(endpoint), (None, ()))
        return known[1]

    def _list(self) -> None:
        listed: dict[int, tuple[Any, dict[str, _Template]]] = {}
        for endpoint, text in _below(_app_with_routes(self._root), "", _DEEPEST):
            listed.setdefault(id(endpoint), (endpoint, {}))[1][text] = _compiled(text)
        self._known.update((key, (endpoint, tuple(texts.values()))) for key, (endpoint, texts) in listed.items())


class RouteTemplates:
    """Finds route templates. One for each layer: it remembers the routes of the apps that it has seen."""

    def __init__(self) -> None:
        self._apps: dict[int, _Index] = {}

    def find(self, scope: Scope, root: Any, root_path: str) -> str | None:
        """The template of the endpoint that a router has chosen; None before that, and where it cannot be told.

        Args:
            scope: The connection, after the router has seen it.
            root: The app whose routes are meant, or a middleware around it.
            root_path: The ``root_path`` with which the root was called.
        """
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        index = self._apps.get(id(root))
        if index is None:
            index = self._apps[id(root)] = _Index(root)
        found = index.templates(endpoint)
        given = scope.get("path_params") or {}
        fitting = [template for template in found if template.parameters == given.keys()]
        if len(fitting) > 1:
            path = scope["path"].removeprefix(scope.get("app_root_path", root_path))
            fitting = [template for template in fitting if template.pattern and template.pattern.match(path)]
        if fitting:
            return fitting[0].text if len(fitting) == 1 else None
        inner = shown(scope.get("route"), "path")
        return None if inner is None else str(inner)  # what a router of the host's own calls a path may be no text


def _app_with_routes(app: Any) -> Any:
    """The app inside its middleware, as far as that names what it wraps."""
    for _ in range(_DEEPEST):
        if shown(app, "routes") is not None or (inner := shown(app, "app")) is None:
            break
        app = inner
    return app


def _below(app: Any, prefix: str, depth: int) -> Iterator[tuple[Any, str]]:
    """Every endpoint below an app, with its template."""
    for route in flat_routes(app):
        path = prefix + str(shown(route, "path") or "")
        endpoint, inner = shown(route, "endpoint"), shown(route, "app")
        if endpoint is not None:
            yield endpoint, path
        elif inner is not None:
            # A mount that has no routes of its own, or where none of them fits, is itself the endpoint.
            yield inner, f"{path}/{{path:path}}"
            if depth:
                yield from _below(route, path, depth - 1)


def shown(thing: Any, name: str) -> Any:
    """What a part of the app has under this name; None where it cannot say: some are made when the app has started."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - whatever a property of the host's does
        return None


def listed(thing: Any, name: str) -> list[Any]:
    """What a part of the app lists under this name; nothing where that is no list, or cannot be gone through."""
    found = shown(thing, name)
    if not isinstance(found, Iterable) or isinstance(found, Iterator):  # to look at an iterator uses it up
        return []
    try:
        return list(found)
    except Exception:  # noqa: BLE001 - as above
        return []


def flat_routes(app: Any) -> list[Any]:
    """The routes of an app, with those of included routers in their places, where FastAPI keeps them apart.

    An empty list where it shows none: apps of other frameworks call other things routes.
    """
    routes = listed(app, "routes")
    flatten = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    if flatten is not None:
        try:
            routes = list(flatten(routes))
        except Exception:  # noqa: BLE001 - as above
            return []
    # Older versions of FastAPI show a route of Starlette's, or a mount, behind a context that is empty.
    return [shown(route, "starlette_route") or route for route in routes]


def _compiled(text: str) -> _Template:
    # A mount's own parameter is not among those that the app sees.
    mounted = text.endswith("/{path:path}")
    try:
        pattern, _, parameters = compile_path(text)
    except ValueError:  # a mount and a route inside it call a parameter the same
        return _Template(text, frozenset(re.findall(r"\{([a-zA-Z_]\w*)(?::\w+)?\}", text)), None)
    return _Template(text, frozenset(parameters) - ({"path"} if mounted else set()), pattern)
