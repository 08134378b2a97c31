"""The published JSON Schema: every line that the guard writes is one of its kinds, and the README tells every field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from toucan_guard import Grant, ToucanGuard
from toucan_guard.audit.schema import event_schema
from toucan_guard.core.audit_event import SCHEMA_VERSION
from toucan_guard.core.audit_line import encode_line
from toucan_guard.core.errors import AuditWriteError

SCHEMA: dict[str, Any] = json.loads(event_schema())
KEY = "correct-horse-battery-staple-0123456789"
README = Path(__file__).resolve().parents[2] / "README.md"
_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """What of a value does not fit, for the words of JSON Schema 2020-12 that the schema uses."""
    known = {
        "$schema", "$id", "$defs", "title", "description", "format", "$ref", "oneOf", "anyOf", "const", "enum", "type",
        "pattern", "minimum", "properties", "required", "additionalProperties", "dependentRequired", "items",
        "prefixItems", "minItems", "maxItems",
    }  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    found: list[str] = []
    if "$ref" in schema:
        found += problems(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
    for word, wanted in (("oneOf", 1), ("anyOf", None)):
        if word in schema:
            tried = [problems(value, one, at) for one in schema[word]]
            fitting = sum(not one for one in tried)
            if fitting != wanted if wanted else not fitting:
                found.append(f"{at} fits {fitting} of {word}: {tried}")
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        found.append(f"{at} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is none of {schema['enum']}")
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(
        isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
    ):
        return [*found, f"{at} is not {names}"]
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at} is not like {schema['pattern']}")
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        found.append(f"{at} is too small")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{at} has {len(value)} items")
        first = schema.get("prefixItems", [])
        for index, item in enumerate(value):
            of = first[index] if index < len(first) else schema.get("items", {})
            found += problems(item, of, f"{at}[{index}]")
    if isinstance(value, dict):
        told = schema.get("properties", {})
        found += [f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value]
        for name, needs in schema.get("dependentRequired", {}).items():
            found += [f"{at} lacks {need}" for need in needs if name in value and need not in value]
        for name, item in value.items():
            rest = schema.get("additionalProperties", {})
            if name not in told and rest is False:
                found.append(f"{at}.{name} is not told")
            else:
                found += problems(item, told.get(name, rest if rest is not False else {}), f"{at}.{name}")
    return found


def fits(event: Any) -> bool:
    return not problems(event, SCHEMA)


async def _chart(request: Any) -> PlainTextResponse:
    if request.url.path == "/crash":
        raise RuntimeError
    return PlainTextResponse("chart")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("keys", [{}, {"audit_hmac_key": KEY, "audit_chain_key": KEY}], ids=["plain", "with keys"])
async def test_what_the_guard_writes_fits(
    keys: dict[str, str], http: Any, websocket: Any, make_settings: Any, make_token: Any, tmp_path: Path
) -> None:
    guard = ToucanGuard(
        Starlette(routes=[Route("/charts/{id}", _chart), Route("/crash", _chart)]),
        settings=make_settings(report_only=["origin", "region"], exempt_paths=["/health"], region="eu", **keys),
    )
    bearer = ("authorization", f"Bearer {make_token(grants=[Grant('a' * 99, str(n), ('v',)) for n in range(30)])}")
    await http(guard, path="/charts/1", headers=[bearer, ("sec-fetch-site", "cross-site")])
    await http(guard, path="/charts/1", headers=[bearer, ("origin", "https://evil.example")])
    await http(guard, path="/charts/1")
    await http(guard, path="/health")
    await websocket(guard, headers=[bearer])
    with pytest.raises(RuntimeError):
        await http(guard, path="/crash", headers=[bearer])
    guard.close()
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert {event["event"] for event in events} == {"open", "decision", "close"}
    assert {event.get("outcome") for event in events} == {"allow", "deny", "would_deny", "error", None}
    for event in events:
        assert problems(event, SCHEMA) == []


class Failing:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.fails = True

    def write(self, event: dict[str, Any]) -> None:
        if self.fails:
            raise AuditWriteError("full")
        self.events.append(event)

    def close(self) -> None:
        return


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_completions_and_dropped_events_fit(http: Any) -> None:
    from toucan_guard.layers import AuditLogMiddleware

    async def cut(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sink = Failing()
    audited = AuditLogMiddleware(cut, sink=sink, mode="best_effort")
    await http(audited)
    sink.fails = False
    await http(audited)
    assert [event["event"] for event in sink.events] == ["decision", "completion"]
    assert sink.events[0]["dropped"] == 2
    assert all(map(fits, sink.events))


def test_an_event_that_was_too_large_fits(chained: Callable[..., list[bytes]]) -> None:
    wide = "\U0001f424" * 300
    large = {
        "schema": 1, "event": "decision", "time": "2026-11-23T21:14:07.142Z", "outcome": "allow", "reason": None,
        "status": 200, "subject": wide, "tenant": wide, **{f"f{number}": wide for number in range(40)},
    }  # fmt: skip
    event = json.loads(encode_line(large))
    assert event["truncated"] is True
    assert problems(event, SCHEMA) == []


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"event": "unheard"}, {"time": "yesterday"}, {"outcome": "maybe"}, {"extra": 1}, {"seq": -1},
        {"seq": None},
        {"prev": ""}, {"hash": "0"}, {"chain": "x"}, {"steps": [{"layer": 1}]}, {"exempt": None}, {"status": "200"},
        {"tables": {"a": None}}, {"cut": [[0, "0123456789abcdef"]]}, {"dropped": 0}, {"truncated": False},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_line_of_ours_does_not_fit(change: dict[str, Any]) -> None:
    text = re.search(r"```json\n(\{\"chain.*?\})\n```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    event = json.loads(text[1])
    uuid = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"
    event.update(chain=uuid, event_id=uuid, prev="0" * 32, hash="0" * 64)
    assert problems(event, SCHEMA) == []
    assert not fits({**event, **change})


def test_the_version_is_the_codes() -> None:
    assert {kind["properties"]["schema"]["const"] for kind in SCHEMA["$defs"].values()} == {SCHEMA_VERSION}


def test_the_readme_tells_every_field() -> None:
    section = README.read_text(encoding="utf-8").partition("## The record")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]+) \|", section, re.MULTILINE))
    kinds = {kind: SCHEMA["$defs"][kind]["properties"].keys() for kind in ("decision", "completion", "open", "close")}
    fields = {
        name: ", ".join(kind for kind, names in kinds.items() if name in names)
        for names in kinds.values()
        for name in names
    }
    everywhere = ", ".join(kinds)
    assert told == {name: "every line" if where == everywhere else where for name, where in fields.items()}
