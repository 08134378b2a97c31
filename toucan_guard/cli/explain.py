"""``toucan-guard explain``: the ordered checks for one request, as the configured guard makes them."""

from __future__ import annotations

import asyncio
import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import typer

from toucan_guard.audit.report.words import told_of
from toucan_guard.cli.output import (
    FINDING,
    WRONG_USE,
    complain,
    read_token,
    say,
    say_json,
    settings_or_leave,
    status_of,
    wrong_use,
)
from toucan_guard.cli.store import read_revocations
from toucan_guard.core.audit_event import Event
from toucan_guard.core.csp import Framing, effective
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.core.origins import Origin, WildcardOrigin
from toucan_guard.settings import GuardSettings
from toucan_guard.stack import ToucanGuard

Headers = list[tuple[bytes, bytes]]

_MEMORY: Final = {"store_url": None, "store_url_file": None, "store_region": None, "workers": 1}
_FRAMING_HEADERS: Final = ("content-security-policy", "x-frame-options")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# What decides, as a note writes it; a header of another name is legitimate and says nothing to the guard.
_READ_HEADERS: Final = {
    name.lower(): name
    for name in (
        "Origin",
        "Referer",
        "Authorization",
        "X-Embed-Token",
        "X-API-Key",
        "Cookie",
        "Host",
        "Sec-Fetch-Site",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    )
}
_LIKE_THEM: Final = ("sec-fetch-user", "access-control-request-private-network", "cookie2")


def explain(  # noqa: PLR0917 - the parameters are the command's options
    url: Annotated[str, typer.Argument(help="The path, or the whole URL, that was asked for.")],
    method: Annotated[str, typer.Option("--method", "-X", help="The HTTP method.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header, as in 'Origin: https://a.example'.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="A file with the bearer token ('-': standard input).")
    ] = None,
    app_header: Annotated[
        list[str] | None,
        typer.Option("--app-header", help="A header that your app answers with, as in 'X-Frame-Options: DENY'."),
    ] = None,
    websocket: Annotated[bool, typer.Option("--websocket", help="A WebSocket handshake.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Say which check lets a request pass and which refuses it, without the app and without a server.

    Leaves with 1 where it is refused, and with 2 where that depends on keys or a store that cannot be asked.
    """
    settings = settings_or_leave()
    headers = [_header(text) for text in header or ()]
    for name, _ in headers:
        _note_a_near_miss(name.decode("latin-1"))
    if token_file is not None:
        headers.append((b"authorization", b"Bearer " + read_token(token_file).encode("latin-1", "replace")))
    scope = _scope(_parts(url), method.upper(), headers, websocket=websocket)
    event, answered, unasked = asyncio.run(_ask(settings, {**scope}, [_header(text) for text in app_header or ()]))
    kept_out: list[str] = []
    if app_header:
        _, alone, _ = asyncio.run(_ask(settings, {**scope}, []))
        kept_out = _kept_out(settings, alone, answered)
    if as_json:
        say_json({**event, "response_headers": answered, "kept_out": kept_out, "not_asked": unasked})
    else:
        _tell(event, answered, unasked)
        for embedder in kept_out:
            say(
                f"! {embedder} may frame us, and the app's own header keeps it out: mend the app's header, or", "yellow"
            )
            say("  set TOUCAN_GUARD_FRAMING=sole, which removes what the app says about framing.", "yellow")
    if event["outcome"] != "allow":
        raise typer.Exit(status_of(event["reason"]))
    if kept_out or unasked:
        raise typer.Exit(FINDING if kept_out else WRONG_USE)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        wrong_use(f"{url!r} is not a URL")
    if not url.isprintable():
        # Bytes that are no UTF-8 are no text of a server's either: it says %FF, and the path is decoded.
        wrong_use(f"{url!r} holds what cannot stand in a URL: write %0A for a newline, and so on")
    if not parts.path.startswith("/") and not parts.netloc:
        wrong_use(f"{url!r} is neither a path nor a whole URL: begin a path with /")
    return parts


def _header(text: str) -> tuple[bytes, bytes]:
    """A header as an option has it; leaves where its name is none (RFC 9110 §5.1): with the first colon forgotten, that
    of ``https:`` would be taken for it, and the guard would never see the header that was meant."""
    name, separator, value = text.partition(":")
    if not separator or not _TOKEN.fullmatch(name.strip()):
        wrong_use(f"{text!r} is not a header: write 'Name: value'")
    return name.strip().lower().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace")


def _note_a_near_miss(name: str) -> None:
    near = difflib.get_close_matches(name, _READ_HEADERS, n=1, cutoff=0.8)
    if near and name not in (*_READ_HEADERS, *_LIKE_THEM):
        complain(f"! The guard does not read {name!r} (did you mean {_READ_HEADERS[near[0]]}?)", style="yellow")


def _scope(parts: SplitResult, method: str, headers: Headers, *, websocket: bool) -> dict[str, Any]:
    return {
        "type": "websocket" if websocket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": parts.scheme or "https",
        "path": unquote(parts.path or "/"),  # as servers do
        "raw_path": (parts.path or "/").encode(),
        "root_path": "",
        "query_string": parts.query.encode("latin-1", "replace"),
        "headers": headers,
        "client": None,
        "server": None,
        # As servers do (RFC 6455 §4.1): a browser's socket has its token here.
        "subprotocols": [
            offer.strip()
            for name, value in headers
            if name == b"sec-websocket-protocol"
            for offer in value.decode("latin-1").split(",")
        ],
        "extensions": {"websocket.http.response": {}},
    }


async def _ask(
    settings: GuardSettings, scope: dict[str, Any], says: Headers
) -> tuple[Event, list[tuple[str, str]], str | None]:
    """The decision about a request, the headers that leave where the app answers with ``says``, and why the store could
    not be asked for what it would have been asked."""
    from toucan_guard.audit import sinks

    websocket = scope["type"] == "websocket"
    answered: list[tuple[str, str]] = []
    events: list[Event] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if websocket:
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": says})
            await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if websocket else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        answered.extend((key.decode("latin-1"), value.decode("latin-1")) for key, value in message.get("headers", ()))

    # Nothing is written to the real record, and nothing is spent in the real store: this request never happened.
    unreal = {"insecure_no_audit": True, "audit_region": None, **_MEMORY}
    imagined = settings.model_copy(update=unreal)
    guard = ToucanGuard(app, settings=imagined)
    unasked: str | None = None
    try:
        for revocation in await read_revocations(settings):
            await imagined.store.revoke(imagined.issuer, revocation.to_entry())
    except StoreUnavailable as error:
        unasked = str(error)
    sinks.observers.append(events.append)
    try:
        await guard(scope, receive, send)
    finally:
        sinks.observers.remove(events.append)
    (event, *_) = events
    return event, answered, None if event["token_id"] is None else unasked


def _kept_out(settings: GuardSettings, alone: list[tuple[str, str]], answered: list[tuple[str, str]]) -> list[str]:
    """Who may frame the guard's answer by itself, and not what leaves with the app's own headers."""
    itself = next(iter(sorted(settings.public_origins, key=str)), None)
    listed = settings.frame_ancestors_policy.origins
    samples: dict[Origin | WildcardOrigin, Origin] = {origin: origin for origin in listed.exact} | {
        wildcard: Origin(wildcard.scheme, f"a.{wildcard.parent}", wildcard.port) for wildcard in listed.wildcards
    }
    may, does = _framing(alone), _framing(answered)
    return sorted(
        str(pattern)
        for pattern, sample in samples.items()
        if may.allows([sample], itself) and not does.allows([sample], itself)
    )


def _plain(text: str) -> str:
    return text.replace("`", "")


def _framing(headers: list[tuple[str, str]]) -> Framing:
    said = {wanted: [value for name, value in headers if name.lower() == wanted] for wanted in _FRAMING_HEADERS}
    return effective(*said.values())


def _tell(event: Event, answered: list[tuple[str, str]], unasked: str | None) -> None:
    for step in event["steps"]:
        decision, _, reason = step["decision"].partition(":")
        mark, style = {"allow": ("✓", "green"), "deny": ("✗", "red")}.get(decision, ("!", "yellow"))
        say(f"{mark} {step['layer']:<20} {reason or decision}", style)
    if event["reason"] is None:
        say("")
        if unasked is None:
            say("The guard lets this request pass.", "green")
            if event["token_id"] is not None:
                say("What the endpoint itself asks for, a grant or a row filter, comes behind it.", "dim")
    if unasked is not None:
        complain(f"! {unasked}; whether this token is revoked is not known", style="yellow")
    if event["reason"] is not None:
        told = told_of(event["reason"])
        say("")
        say(f"{event['status']}  {_plain(told.meaning)}")
        if event["detail"]:
            say(f"     {event['detail']}")
        say(f"     What helps: {_plain(told.mend)}.")
    for name, value in answered:
        if name in (*_FRAMING_HEADERS, "content-security-policy-report-only"):
            say("")
            say(f"{name}: {value}", "dim")
