"""RowLevelSecurity: no attributes, no way in; and nobody's rows outlive their connection."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse

from toucan_guard import ToucanGuard
from toucan_guard.core.errors import GuardMissing, NoEmbedContext
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.layers import RowLevelSecurityMiddleware
from toucan_guard.rls.context import RowAccess, current_row_access, require_row_access
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

CARRIER = RlsPolicy.from_columns({"flights.carrier": "carrier"})


async def rows(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the carriers that the current row filter lets through."""
    row_filter = require_row_access().row_filter
    seen = [carrier for carrier in ("AA", "UA", "DL") if row_filter.matches("flights", {"carrier": carrier})]
    assert scope["state"]["embed"].rls is row_filter
    await PlainTextResponse(" ".join(seen))(scope, receive, send)


@pytest.fixture
def bearer(make_token: Any) -> Any:
    return lambda **claims: {"authorization": f"Bearer {make_token(**claims)}"}


@pytest.mark.parametrize(
    ("rls", "answer"),
    [
        pytest.param({"carrier": "AA"}, "AA", id="one value"),
        pytest.param({"carrier": ["AA", "UA"]}, "AA UA", id="a list of values"),
        pytest.param({"carrier": []}, "", id="an empty list is no row"),
        pytest.param(None, "rls_missing", id="no attributes"),
        pytest.param({}, "rls_attribute_missing", id="a required attribute is absent"),
        pytest.param({"carrier": None}, "rls_attribute_missing", id="a required attribute is null"),
        pytest.param({"carrier": 7}, "rls_attribute_invalid", id="another type"),
        pytest.param({"carrier": True}, "rls_attribute_invalid", id="a boolean"),
        pytest.param({"carrier": ["AA", 7]}, "rls_attribute_invalid", id="another type inside a list"),
        pytest.param({"carrier": "AA", "carier": "UA"}, "rls_attribute_unknown", id="a typing mistake"),
    ],
)
async def test_the_door(rls: Any, answer: str, http: Any, make_settings: Any, bearer: Any, audit_lines: Any) -> None:
    guard = ToucanGuard(rows, settings=make_settings())
    for _ in range(2):  # the second time from beside the cached claims
        got = await http(guard, headers=bearer(rls=rls))
        if answer.startswith("rls_"):
            assert (got.status, got.reason) == (403, answer)
        else:
            assert (got.status, got.body.decode()) == (200, answer)
    line = audit_lines()[1]
    if line["outcome"] == "allow":
        assert line["rls_attributes"] == ["carrier"]
        assert line["policy_version"] == CARRIER.version
    assert '"AA"' not in str(line).replace("'", '"')


async def test_the_row_filter_ends_with_its_connection(http: Any, make_settings: Any, bearer: Any) -> None:
    kept: list[RowAccess] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(require_row_access())
        await rows(scope, receive, send)

    assert (await http(ToucanGuard(app, settings=make_settings()), headers=bearer())).status == 200
    assert kept[0].closed
    assert kept[0].row_filter.expires_at is not None  # for whoever could keep it longer
    assert current_row_access.get() is None


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()], ids=["an exception", "an interruption"])
async def test_it_ends_whatever_the_app_raises(
    error: BaseException, http: Any, make_settings: Any, bearer: Any
) -> None:
    kept: list[RowAccess] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(require_row_access())
        raise error

    with pytest.raises(type(error)):
        await http(ToucanGuard(app, settings=make_settings()), headers=bearer())
    assert kept[0].closed
    assert current_row_access.get() is None


async def test_a_task_that_outlives_its_connection_finds_its_queries_refused(
    http: Any, make_settings: Any, bearer: Any
) -> None:
    found: list[str] = []
    ended = anyio.Event()

    async def later() -> None:
        require_row_access()
        await ended.wait()
        try:
            require_row_access()
        except NoEmbedContext as error:
            found.append(str(error))

    async with anyio.create_task_group() as tasks:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.start_soon(later)
            await anyio.sleep(0.01)
            await rows(scope, receive, send)

        await http(ToucanGuard(app, settings=make_settings()), headers=bearer())
        ended.set()
    assert len(found) == 1
    assert "after the end" in found[0]


async def test_two_connections_at_once_see_their_own_rows(http: Any, make_settings: Any, bearer: Any) -> None:
    meet = anyio.Event()
    answers: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if len(waiting) == 1:
            meet.set()
        waiting.append(1)
        await meet.wait()
        await anyio.lowlevel.checkpoint()
        await rows(scope, receive, send)

    waiting: list[int] = []
    guard = ToucanGuard(app, settings=make_settings())

    async def ask(carrier: str) -> None:
        answers[carrier] = (await http(guard, headers=bearer(rls={"carrier": carrier}))).body.decode()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "AA")
        tasks.start_soon(ask, "UA")
    assert answers == {"AA": "AA", "UA": "UA"}


async def test_a_worker_thread_sees_the_rows_of_its_connection(http: Any, make_settings: Any, bearer: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = await anyio.to_thread.run_sync(require_row_access)
        assert access is require_row_access()
        await rows(scope, receive, send)

    assert (await http(ToucanGuard(app, settings=make_settings()), headers=bearer())).body == b"AA"


@pytest.mark.parametrize("exempt", [True, False])
async def test_an_exempt_path_has_nobodys_rows(exempt: bool, http: Any, make_settings: Any, bearer: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(str(current_row_access.get() is None))(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(exempt_paths=["/health"]))
    token = current_row_access.set(RowAccess(CARRIER.row_filter({"carrier": "UA"})))  # type: ignore[arg-type]
    try:
        path = "/health" if exempt else "/chart"
        assert (await http(guard, path=path, headers=bearer())).body == str(exempt).encode()
    finally:
        current_row_access.reset(token)


async def test_without_row_level_security_there_is_no_filter(http: Any, make_settings: Any, bearer: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"]["embed"].rls is None
        with pytest.raises(NoEmbedContext):
            require_row_access()
        await PlainTextResponse("every row")(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(rls_columns=None, insecure_no_rls=True))
    assert (await http(guard, headers=bearer(rls=None))).body == b"every row"


async def test_an_outer_guard_without_a_filter_does_not_lend_the_previous_ones(
    http: Any, make_settings: Any, bearer: Any
) -> None:
    stale = RowAccess(CARRIER.row_filter({"carrier": "UA"}))  # type: ignore[arg-type]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(str(current_row_access.get() is None))(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(rls_columns=None, insecure_no_rls=True))
    token = current_row_access.set(stale)
    try:
        assert (await http(guard, headers=bearer(rls=None))).body == b"True"
    finally:
        current_row_access.reset(token)


async def test_a_socket_gets_the_same(websocket: Any, make_settings: Any, bearer: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert require_row_access().row_filter.attribute_names == ("carrier",)
        await send({"type": "websocket.accept"})

    guard = ToucanGuard(app, settings=make_settings())
    origin = {"origin": "https://portal.example"}
    assert (await websocket(guard, headers={**bearer(), **origin})).messages[0]["type"] == "websocket.accept"
    assert (await websocket(guard, headers={**bearer(rls=None), **origin})).reason == "rls_missing"


async def test_the_layer_needs_verified_claims(http: Any) -> None:
    with pytest.raises(GuardMissing, match="EmbedTokenMiddleware"):
        await http(RowLevelSecurityMiddleware(rows, policy=CARRIER))


async def test_two_policies_judge_one_cached_token_apart(http: Any, make_settings: Any, bearer: Any) -> None:
    """What is kept beside the claims belongs to one layer: an inner guard's other policy is asked on its own."""
    headers = bearer(rls={"carrier": "AA"})
    inner = RowLevelSecurityMiddleware(rows, policy=RlsPolicy.from_columns({"flights.origin": "airport"}))
    assert (await http(ToucanGuard(rows, settings=make_settings()), headers=headers)).status == 200
    assert (await http(ToucanGuard(inner, settings=make_settings()), headers=headers)).reason == "rls_attribute_unknown"


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await RowLevelSecurityMiddleware(app, policy=CARRIER)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]


async def test_what_was_filtered_is_recorded(http: Any, make_settings: Any, bearer: Any, audit_lines: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = trail_of(scope).access
        assert access is not None
        access.receipts["flights"] = "v1"
        await rows(scope, receive, send)

    await http(ToucanGuard(app, settings=make_settings()), headers=bearer())
    assert [line["tables"] for line in audit_lines()] == [{"flights": "v1"}]
