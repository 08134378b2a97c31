"""Every endpoint below an app, and what stands in front of it: layers, whole guards, what FastAPI calls for it.

Down through mounts, hosts, included routers and apps in apps, as far as they name what they are around. A middleware
that hides its app hides what is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from starlette.routing import Router

from toucan_guard.templates import flat_routes, listed, shown

_MOST_LAYERS: Final = 100  # around one app
_DEEPEST: Final = 20  # mounts in mounts


class Passed(NamedTuple):
    """What a request passes on the way to its endpoint.

    Attributes:
        layer: What ``add_middleware`` was given stands here as a ``Middleware``: it is made at the first request.
        path: The template of as much as was routed before.
    """

    layer: Any
    path: str


class Endpoint(NamedTuple):
    """One endpoint.

    Attributes:
        path: Its template, behind those of the hosts and mounts around it; ``/…`` stands for what an app answers that
            shows no routes.
        host: The beginning of ``path`` that is no path, but the template of a host.
        route: What leads to it, as its router has it; the app itself, where that shows no routes.
        passed: What stands in front of it, the outermost first.
    """

    path: str
    host: str
    route: Any
    passed: tuple[Passed, ...]

    def dependencies(self) -> Iterator[Any]:
        """What FastAPI calls for it, and for what it calls."""
        return _dependencies_of(shown(self.route, "dependant"))


def endpoints(app: Any, path: str = "") -> Iterator[Endpoint]:
    """Every endpoint below an app, in order.

    Args:
        app: The app, or what is around it.
        path: The template of where it is mounted.
    """
    yield from _below(app, Endpoint(path, "", app, ()), _DEEPEST)


def _below(app: Any, at: Endpoint, depth: int) -> Iterator[Endpoint]:
    layers = list(layers_of(app))
    passed = (*at.passed, *(Passed(layer, at.path) for layer in layers))
    last = layers[-1] if layers else None
    # Some routes lead back to the app that they are of.
    routes = flat_routes(last) if depth and not any(last is layer for layer, _ in at.passed) else []
    if not routes:
        leads_to_an_endpoint = shown(at.route, "endpoint") is not None
        yield at._replace(path=at.path if leads_to_an_endpoint else f"{at.path}/…", passed=passed)
        return
    passed += tuple(Passed(layer, at.path) for layer in (*_within(last), *listed(last, "user_middleware")))
    for route in routes:
        host = at.host + str(shown(route, "host") or "")
        path = host + at.path.removeprefix(at.host) + str(shown(route, "path") or "")
        yield from _below(shown(route, "app"), Endpoint(path, host, route, passed), depth - 1)


def _within(router: Any) -> list[Any]:
    """The layers between a router of Starlette's and its routes; those of an app are what it declares."""
    layers = list(layers_of(shown(router, "middleware_stack")))
    # Behind them stand a method of the router's, and the router itself.
    return layers[:-2] if layers and layers[-1] is router else []


def layers_of(app: Any) -> Iterator[Any]:
    """An app and what it is around, as far as that is named, down to what has routes."""
    for _ in range(_MOST_LAYERS):
        if app is None:
            return
        yield app
        if shown(app, "routes") is not None:
            return
        inner = shown(app, "app")
        if inner is None and isinstance(router := shown(app, "__self__"), Router):
            inner = router  # the layers of a router are around a method of its own
        app = inner


def _dependencies_of(dependant: Any) -> Iterator[Any]:
    for dependency in listed(dependant, "dependencies"):
        yield shown(dependency, "call")
        yield from _dependencies_of(dependency)
