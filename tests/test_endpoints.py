"""Every endpoint below an app: its path, and what stands in front of it, with as much of the path as was routed."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from toucan_guard.endpoints import endpoints


class Layer:
    def __init__(self, app: Any) -> None:
        self.app = app


async def page(request: Any) -> None: ...


def _dependency() -> None: ...


def _of_that(needed: None = Depends(_dependency)) -> None: ...


def test_templates_hold_hosts_and_mounts() -> None:
    inner = Starlette(routes=[Route("/x/{id}", page), WebSocketRoute("/live", page), Mount("/files", page)])
    app = Layer(
        Router(
            [
                Route("/", page),
                Mount("/a/{b}", app=Layer(inner)),
                Host("{tenant}.example", Router([Mount("/c", routes=[Route("/d", page)])])),
                Mount("/e", routes=[Host("f.example", Router([Route("/g", page)]))]),
                Mount("/empty", app=Starlette()),
            ]
        )
    )
    assert [(found.path, found.host) for found in endpoints(app, "/at")] == [
        ("/at/", ""),
        ("/at/a/{b}/x/{id}", ""),
        ("/at/a/{b}/live", ""),
        ("/at/a/{b}/files/…", ""),
        ("{tenant}.example/at/c/d", "{tenant}.example"),
        ("f.example/at/e/g", "f.example"),
        ("/at/empty/…", ""),
    ]


def test_what_is_passed_stands_in_order_with_the_path_so_far() -> None:
    around = Middleware(Layer)
    app = Starlette(
        routes=[Mount("/a", routes=[Route("/b", page, middleware=[around])], middleware=[around])], middleware=[around]
    )
    outermost = Layer(app)
    (found,) = endpoints(outermost)
    assert [
        (type(layer), path) for layer, path in found.passed if isinstance(layer, Layer | Starlette | Middleware)
    ] == [
        (Layer, ""),
        (Starlette, ""),
        (Middleware, ""),  # not made yet
        (Layer, "/a"),
        (Layer, "/a/b"),
    ]
    assert found.passed[0].layer is outermost


@pytest.mark.parametrize("layers", [[], [Middleware(Layer)], [Middleware(Layer), Middleware(Layer)]], ids=len)
def test_the_layers_of_a_router_stand_in_front_of_its_routes(layers: list[Middleware]) -> None:
    router = Router([Route("/b", page)], middleware=layers)
    (found,) = endpoints(Starlette(routes=[Mount("/a", router)]))
    passed = [(type(layer), path) for layer, path in found.passed if isinstance(layer, Layer)]
    assert (found.path, passed) == ("/a/b", [(Layer, "/a")] * len(layers))
    # Seen from within, from its outermost layer, as a guard sees them.
    assert [at.path for at in endpoints(router.middleware_stack)] == ["/b"]


def test_included_routers_are_looked_into_and_dependencies_of_dependencies() -> None:
    inner, outer, app = APIRouter(prefix="/b"), APIRouter(prefix="/a"), FastAPI(openapi_url=None)
    inner.get("/{id}", dependencies=[Depends(_of_that)])(page)
    outer.include_router(inner)
    app.include_router(outer)
    (found,) = endpoints(app)
    assert found.path == "/a/b/{id}"
    assert list(found.dependencies()) == [_of_that, _dependency]


@pytest.mark.parametrize("app", [None, page, Layer(page), Layer(None)], ids=["nothing", "bare", "a layer", "half"])
def test_an_app_that_shows_no_routes_is_one_endpoint(app: Any) -> None:
    (found,) = endpoints(app, "/at")
    assert (found.path, found.route) == ("/at/…", app)


def test_an_app_within_itself_has_an_end() -> None:
    app = Starlette(routes=[Route("/x", page)])
    app.router.routes += [Mount("/a", app=app), Mount("/b", app=app)]
    assert [found.path for found in endpoints(app)] == ["/x", "/a/…", "/b/…"]
    around = Layer(None)
    around.app = around
    assert len(list(endpoints(around))) == 1


class Stubborn:
    """What raises, uses up or never ends where somebody looks at it."""

    def __init__(self, **shown: Any) -> None:
        self.shown = shown

    def __getattr__(self, name: str) -> Any:
        if name not in self.shown:
            raise RuntimeError(name)
        return self.shown[name]


class Unlisted(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("not now")


def test_what_does_not_show_itself_is_one_endpoint() -> None:
    used_up = iter([Route("/y", page)])
    stubborn = [
        Stubborn(),
        Stubborn(app=Stubborn()),
        Stubborn(routes=Unlisted([1])),
        Stubborn(routes=used_up),
        Stubborn(routes=5, user_middleware=5),
    ]
    app = Starlette(routes=[Mount(f"/{number}", app=each) for number, each in enumerate(stubborn)])
    assert [found.path for found in endpoints(app)] == ["/0/…", "/1/…", "/2/…", "/3/…", "/4/…"]
    assert len(list(used_up)) == 1
    (found,) = endpoints(Stubborn(routes=[Stubborn()], user_middleware=5), "/at")
    assert found.path == "/at/…"
    assert list(found.dependencies()) == []
