"""Gate: any function of the host's as a layer, and nothing that it does by mistake is a way in."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from toucan_guard import Allow, Deny, GateMiddleware, Refused, ToucanGuard
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"


async def chart(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("the rows")(scope, receive, send)


async def _closed(scope: Any) -> Deny:
    return Deny("x_closed", "closed at night", status=451)


class _Open:
    """A callable object, and an awaitable that is no coroutine."""

    def __call__(self, scope: Any) -> _Open:
        return self

    def __await__(self) -> Any:
        yield from ()
        return Allow({"desk": "7"})


@pytest.mark.parametrize(
    ("decide", "status"),
    [
        pytest.param(lambda scope: Allow(), 200, id="a function that allows"),
        pytest.param(lambda scope: Deny("x_closed", status=451), 451, id="a function that refuses"),
        pytest.param(_closed, 451, id="a coroutine function that refuses"),
        pytest.param(_Open(), 200, id="an object whose result can be awaited"),
    ],
)
async def test_a_gate_decides(decide: Any, status: int, http: Any, websocket: Any) -> None:
    gate = GateMiddleware(chart, name="office_hours", decide=decide)
    answer = await http(gate)
    assert answer.status == status
    assert (answer.body == b"the rows") is (status == 200)
    socket = await websocket(gate)
    assert (socket.messages[0]["type"] == "websocket.accept") is (status == 200)


@pytest.mark.parametrize(
    "decided",
    [
        pytest.param(True, id="True"),
        pytest.param(None, id="nothing, as from a branch without return"),
        pytest.param("allow", id="a text"),
        pytest.param(Deny, id="the class"),
    ],
)
async def test_what_is_no_decision_is_no_way_in(decided: Any, http: Any) -> None:
    with pytest.raises(TypeError, match="office_hours"):
        await http(GateMiddleware(chart, name="office_hours", decide=lambda scope: decided))


async def test_a_gate_that_fails_is_no_way_in(http: Any, make_settings: Any, make_token: Any, audit_lines: Any) -> None:
    def broken(scope: Any) -> Any:
        raise KeyError("the calendar")

    guard = ToucanGuard(GateMiddleware(chart, name="calendar", decide=broken), settings=make_settings())
    messages: list[Any] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            messages.append(message)

        await guard(scope, receive, keep)

    with pytest.raises(KeyError):
        await http(server, headers={"authorization": f"Bearer {make_token()}"})
    assert messages[0]["status"] == 500
    assert b"the rows" not in messages[1]["body"]
    assert [(line["outcome"], line["reason"]) for line in audit_lines()] == [("error", "app_failed")]


async def test_a_gate_may_raise_its_refusal_too(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    def raising(scope: Any) -> Any:
        raise Refused(Deny("x_closed"))

    guard = ToucanGuard(GateMiddleware(chart, name="calendar", decide=raising), settings=make_settings())
    assert (await http(guard, headers={"authorization": f"Bearer {make_token()}"})).reason == "x_closed"
    assert audit_lines()[0]["reason"] == "x_closed"


async def test_the_record_calls_it_by_its_name(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    gate = GateMiddleware(chart, name="office_hours", decide=lambda scope: Deny("x_closed", "closed at night"))
    await http(ToucanGuard(gate, settings=make_settings()), headers={"authorization": f"Bearer {make_token()}"})
    line = audit_lines()[0]
    assert line["steps"][-1] == {"layer": "office_hours", "decision": "deny:x_closed"}
    assert (line["reason"], line["detail"]) == ("x_closed", "closed at night")


async def test_report_only_records_and_lets_pass(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    gate = GateMiddleware(chart, name="office_hours", decide=_closed, report_only=True)
    answer = await http(
        ToucanGuard(gate, settings=make_settings()), headers={"authorization": f"Bearer {make_token()}"}
    )
    assert answer.body == b"the rows"
    assert [(line["outcome"], line["reason"], line["status"]) for line in audit_lines()] == [
        ("would_deny", "x_closed", 200)
    ]


async def test_a_gate_sees_the_verified_embed(http: Any, make_settings: Any, make_token: Any) -> None:
    def only_acme(scope: Any) -> Any:
        embed = trail_of(scope).embed
        return Allow() if embed is not None and embed.tenant == "acme" else Deny("x_tenant")

    guard = ToucanGuard(GateMiddleware(chart, name="tenant", decide=only_acme), settings=make_settings())
    acme, other = ({"authorization": f"Bearer {make_token(tenant=tenant)}"} for tenant in ("acme", "other"))
    assert (await http(guard, headers=acme)).status == 200
    assert (await http(guard, headers=other)).reason == "x_tenant"


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    def never(scope: Any) -> Any:
        raise AssertionError

    await GateMiddleware(app, name="never", decide=never)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
