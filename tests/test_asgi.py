"""The Trail of a connection, and the one way to refuse."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard import Allow, Deny, Reason, Refused
from toucan_guard.asgi import deny
from toucan_guard.core.embed import Embed
from toucan_guard.headers import HeaderList
from toucan_guard.trail import HeaderEdit, Trail, existing_trail, header_values, publish_embed, trail_of


def test_refused_takes_a_refusal() -> None:
    decision = Deny("x_closed")
    assert Refused(decision).decision is decision
    for wrong in (Allow(), "x_closed", None, Reason.GRANT_MISSING):
        with pytest.raises(TypeError, match="takes a Deny"):
            Refused(wrong)  # type: ignore[arg-type]


def test_every_value_of_a_header_is_read() -> None:
    scope = {"headers": [(b"origin", b"a"), (b"x", b"y"), (b"origin", b"\xe9"), (b"origin", b"")]}
    assert header_values(scope, b"origin") == ("a", "\xe9", "")
    assert header_values(scope, b"referer") == ()


def test_of_an_endless_header_only_the_beginning_is_read() -> None:
    scope = {"headers": [(b"authorization", b"Bearer " + b"a" * 1_000_000), (b"cookie", b"b" * 1_000_000)]}
    assert [len(*header_values(scope, name)) for name in (b"authorization", b"cookie")] == [65_537, 65_537]
    assert header_values(scope, b"authorization")[0].endswith("a\0")  # which nothing that is accepted does
    assert header_values({"headers": [(b"cookie", b"b" * 65_536)]}, b"cookie") == ("b" * 65_536,)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param([], (None,) * 6, id="nothing"),
        pytest.param(
            [(b"sec-fetch-site", b"none"), (b"origin", b"a"), (b"referer", b"b"), (b"x", b"c")],
            (None, b"a", b"b", None, None, b"none"),
            id="where it comes from, in an order of its own",
        ),
        pytest.param([(b"authorization", b"a"), (b"cookie", b"b"), (b"x-api-key", b"c")], (None,) * 6, id="secrets"),
        pytest.param([(b"x", b"a"), (b"x", b"b"), (b"origin", b"")], (None, b"", *[None] * 4), id="what nobody reads"),
        pytest.param([(b"origin", b"a"), (b"origin", b"a")], None, id="a repeated header"),
        pytest.param([(b"cookie", b"a"), (b"cookie", b"b")], None, id="a repeated header that is not said"),
        pytest.param([(b"Origin", b"a")], (None,) * 6, id="another name"),
        pytest.param([[b"origin", b"a"]], (None, b"a", *[None] * 4), id="lists for pairs"),
    ],
)  # fmt: skip
def test_what_headers_say_of_where_a_request_comes_from(headers: Any, said: Any) -> None:
    trail = Trail()
    trail.read({"headers": headers})
    assert trail.said == said


def test_headers_are_read_again_where_the_list_is_another_one() -> None:
    scope: dict[str, Any] = {"headers": [(b"origin", b"a"), (b"cookie", b"b"), (b"cookie", b"c")]}
    trail = trail_of(scope)
    assert (trail.values_of(b"origin"), trail.values_of(b"cookie")) == (("a",), ("b", "c"))
    assert trail.raw == {b"origin": b"a", b"cookie": b"c"}
    scope["headers"].append((b"origin", b"d"))
    trail.read(scope)
    assert trail.values_of(b"origin") == ("a", "d")
    scope["headers"] = [(b"cookie", b"e")]
    trail.read(scope)
    assert (trail.values_of(b"origin"), trail.values_of(b"cookie"), trail.values_of(b"referer")) == ((), ("e",), ())


@given(
    st.lists(
        st.tuples(st.sampled_from([b"origin", b"referer", b"cookie", b"authorization", b"x-api-key"]), st.binary()),
        max_size=5,
    )
)
def test_every_value_is_read_whether_a_header_is_repeated_or_not(headers: list[tuple[bytes, bytes]]) -> None:
    trail = Trail()
    trail.read({"headers": headers})
    for name in (b"origin", b"referer", b"cookie", b"authorization", b"x-api-key", b"sec-fetch-site"):
        assert trail.values_of(name) == tuple(value.decode("latin-1") for key, value in headers if key == name)
    names = [name for name, _ in headers]
    assert (trail.said is None) == (len(set(names)) != len(names))


def test_a_hundred_thousand_repeated_headers_are_read_in_one_pass() -> None:
    # uvicorn with httptools takes as many as anybody sends. Copied for each, these would take half a minute.
    began = time.process_time()
    trail = Trail()
    trail.read({"headers": [(b"origin", b"a")] * 100_000})
    assert len(trail.values_of(b"origin")) == 100_000
    assert time.process_time() - began < 10


def test_a_connection_has_one_trail() -> None:
    scope: dict[str, Any] = {"type": "http"}
    assert existing_trail(scope) is None
    trail = trail_of(scope)
    assert trail_of(scope) is trail
    assert existing_trail(scope) is trail


def test_making_the_trail_takes_the_bootstrap_token_out_of_the_query() -> None:
    scope: dict[str, Any] = {"type": "http", "query_string": b"a=1&embed_token=secret&b=2"}
    assert trail_of(scope).bootstrap_tokens == ("secret",)
    assert scope["query_string"] == b"a=1&b=2"


def test_a_trail_takes_decisions_and_nothing_else() -> None:
    trail = Trail()
    trail.add("origin", Allow())
    trail.add("region", Deny(Reason.REGION_MISMATCH), report_only=True)
    assert [(step.layer, step.enforced) for step in trail.steps] == [("origin", True), ("region", False)]
    assert trail.decided("origin")
    assert not trail.decided("grant")
    for wrong in (True, None, "deny"):
        with pytest.raises(TypeError, match="gate"):
            trail.add("gate", wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", [{"db": 1, "embed": "forged"}, {}, None], ids=["forged", "empty", "none"])
def test_the_embed_is_always_overwritten_in_a_state_of_its_own(shared: Any) -> None:
    before = None if shared is None else dict(shared)
    scope: dict[str, Any] = {"type": "http", "state": shared}
    embed = Embed("u", None, (), None, "i", "j", 0.0)
    publish_embed(scope, trail_of(scope), embed)
    assert scope["state"]["embed"] is trail_of(scope).embed is embed
    assert shared == before  # some servers hand out one dictionary for all connections
    publish_embed(scope, trail_of(scope), None)
    assert scope["state"]["embed"] is None


class _Seen(HeaderEdit):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def __call__(self, headers: HeaderList, trail: Trail) -> HeaderList:
        return [*headers, (b"x-seen", self._name)]


@pytest.mark.anyio
async def test_the_first_layer_that_asks_is_the_outermost_and_edits_run_from_the_inside_out() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    trail = Trail()
    outer = trail.wrap(send)
    assert trail.wrap(outer) is outer
    trail.edits += (_Seen(b"outer"), _Seen(b"inner"))
    start = {"type": "http.response.start", "status": 200, "headers": ((b"a", b"b"),)}
    await outer(start)
    await outer({"type": "http.response.body"})
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-seen", b"inner"), (b"x-seen", b"outer")]
    assert start["headers"] == ((b"a", b"b"),)
    assert sent[1] == {"type": "http.response.body"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "extensions", "types"),
    [
        pytest.param("http", None, ["http.response.start", "http.response.body"], id="HTTP"),
        pytest.param(
            "websocket",
            {"websocket.http.response": {}},
            ["websocket.http.response.start", "websocket.http.response.body"],
            id="a socket, with the denial extension",
        ),
        pytest.param("websocket", {}, ["websocket.close"], id="a socket, with other extensions"),
        pytest.param("websocket", None, ["websocket.close"], id="a socket, without extensions"),
    ],
)
async def test_a_refusal_on_every_kind_of_connection(kind: str, extensions: Any, types: list[str]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": kind, "headers": [], "extensions": extensions, "method": "GET"}
    await deny(scope, None, send, Deny(Reason.ORIGIN_NOT_ALLOWED))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == types
    assert trail_of(scope).refusal == Deny(Reason.ORIGIN_NOT_ALLOWED)
    if types == ["websocket.close"]:
        assert (sent[0]["code"], sent[0]["reason"]) == (1008, "origin_not_allowed")
    else:
        assert sent[0]["status"] == 403


@pytest.mark.anyio
async def test_only_the_trails_own_send_is_looked_through() -> None:
    async def server(message: Any) -> None: ...

    trail, other = Trail(), Trail()
    wrapped = trail.wrap(server)
    assert trail.unwrapped(wrapped) is server
    assert trail.wrap(wrapped) is wrapped
    other.wrap(server)
    for send in (server, other.wrap(server), other._edited_send):
        assert trail.unwrapped(send) is None
