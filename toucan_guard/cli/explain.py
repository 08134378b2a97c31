"""``toucan-guard explain``: the ordered checks for one request, as the configured guard makes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from toucan_guard.cli.output import FINDING, say, say_json, settings_or_leave, wrong_use
from toucan_guard.core.audit_event import Event
from toucan_guard.core.decisions import EXPLANATIONS, Reason
from toucan_guard.stack import ToucanGuard


def explain(  # noqa: PLR0917 - the parameters are the command's options
    url: Annotated[str, typer.Argument(help="The path, or the whole URL, that was asked for.")],
    method: Annotated[str, typer.Option("--method", "-X", help="The HTTP method.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header, as in 'Origin: https://a.example'.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="A file with the bearer token ('-': standard input).")
    ] = None,
    websocket: Annotated[bool, typer.Option("--websocket", help="A WebSocket handshake.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Say which check lets a request pass and which refuses it, without the app and without a server."""
    settings = settings_or_leave()
    headers = [_header(text) for text in header or ()]
    if token_file is not None:
        token = typer.get_text_stream("stdin").read() if str(token_file) == "-" else token_file.read_text()
        headers.append((b"authorization", b"Bearer " + token.strip().encode("latin-1", "replace")))
    event, answered = asyncio.run(_ask(settings, url, method.upper(), headers, websocket=websocket))
    if as_json:
        say_json({**event, "response_headers": answered})
    else:
        _tell(event, answered)
    if event["outcome"] != "allow":
        raise typer.Exit(FINDING)


def _header(text: str) -> tuple[bytes, bytes]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        wrong_use(f"{text!r} is not a header: write 'Name: value'")
    return name.strip().lower().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace")


async def _ask(
    settings: Any, url: str, method: str, headers: list[tuple[bytes, bytes]], *, websocket: bool
) -> tuple[Event, list[tuple[str, str]]]:
    from toucan_guard.audit import sinks

    parts = urlsplit(url)
    scope: dict[str, Any] = {
        "type": "websocket" if websocket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": parts.scheme or "https",
        "path": parts.path or "/",
        "raw_path": (parts.path or "/").encode(),
        "root_path": "",
        "query_string": parts.query.encode("latin-1", "replace"),
        "headers": headers,
        "client": None,
        "server": None,
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    answered: list[tuple[str, str]] = []
    events: list[Event] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if websocket:
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if websocket else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        answered.extend((key.decode("latin-1"), value.decode("latin-1")) for key, value in message.get("headers", ()))

    # Nothing is written to the real record: this request never happened.
    guard = ToucanGuard(app, settings=settings.model_copy(update={"insecure_no_audit": True}))
    sinks.observers.append(events.append)
    try:
        await guard(scope, receive, send)
    finally:
        sinks.observers.remove(events.append)
    return events[0], answered


def _tell(event: Event, answered: list[tuple[str, str]]) -> None:
    for step in event["steps"]:
        decision, _, reason = step["decision"].partition(":")
        mark, style = {"allow": ("✓", "green"), "deny": ("✗", "red")}.get(decision, ("!", "yellow"))
        say(f"{mark} {step['layer']:<20} {reason or decision}", style)
    if event["reason"] is not None:
        told = EXPLANATIONS.get(event["reason"]) if event["reason"] in list(Reason) else None
        say("")
        say(f"{event['status']}  {told.title if told else event['reason']}")
        if event["detail"]:
            say(f"     {event['detail']}")
        if told:
            say(f"     {told.advice}")
    for name, value in answered:
        if name in ("content-security-policy", "content-security-policy-report-only", "x-frame-options"):
            say("")
            say(f"{name}: {value}", "dim")
