"""``toucan-guard revoke``: end tokens, sessions, sockets and streams before their time, in every worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import anyio
import typer

from toucan_guard.cli.output import FINDING, say, say_json, settings_or_leave, wrong_use
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.revocation import in_force, lift
from toucan_guard.revocation import revoke as add
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.revocation import Revocation, RevocationKind

_AHEAD_SECONDS: Final = 60
_YEAR_9999: Final = 253_370_764_800  # later dates cannot be written


def revoke(  # noqa: PLR0917 - the parameters are the command's options
    token: Annotated[str | None, typer.Option(help="A token's jti, as it stands in the audit record.")] = None,
    subject: Annotated[str | None, typer.Option(help="A subject, the host's own user id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="A tenant.")] = None,
    key: Annotated[str | None, typer.Option(help="A key's kid. Take it out of the ring as well.")] = None,
    issued_before: Annotated[
        str | None,
        typer.Option(help="Whatever was issued before this time: now, seconds, or 2026-11-26T11:00:00Z."),
    ] = None,
    seconds: Annotated[
        int | None,
        typer.Option(
            "--for", min=1, help="Seconds until it is dropped; by default the longest life of a token, for a key years."
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what is named.")] = False,  # noqa: FBT002
    show: Annotated[bool, typer.Option("--list", help="Show what is in force.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Revoke in the store that all workers share.

    Each of them refuses what is named within the declared time, also new tokens of a subject or tenant, and closes what
    is open. Leaves with 1 where there was nothing to take back, and with 2 where the store does not answer: then nobody
    knows whether it has heard, so do it again.
    """
    named = {
        name: value
        for name, value in (("token", token), ("subject", subject), ("tenant", tenant), ("key", key))
        if value is not None
    }
    asked: dict[str, Any] = {**named}
    if issued_before is not None:
        asked["issued_before"] = _time(issued_before)
    if show == bool(asked):
        wrong_use("name what to revoke (--token, --subject, --tenant, --key, --issued-before), or --list what is")
    if seconds is not None and (show or undo):
        wrong_use("--for says how long a new revocation lasts")
    if undo and show:
        wrong_use("--undo takes back what is named; --list shows all")
    settings = settings_or_leave()
    if settings.store_address is None:
        wrong_use(
            "TOUCAN_GUARD_STORE_URL is memory://, which lives in the server's process: "
            "revoke there (toucan_guard.revocation.revoke), or name a store that all share"
        )
    if not show and not undo and seconds is not None:
        asked["until"] = time.time() + seconds
    try:
        revocations = anyio.run(_run, settings, asked, show, undo)
    except StoreUnavailable as error:
        wrong_use(f"✗ {error}")
    except (ConfigError, ValueError) as error:
        wrong_use(str(error))
    _tell(revocations, as_json=as_json, done="" if show else "no longer revoked" if undo else "revoked")
    if undo and not revocations:
        raise typer.Exit(FINDING)


async def _run(settings: GuardSettings, asked: dict[str, Any], show: bool, undo: bool) -> tuple[Revocation, ...]:  # noqa: FBT001
    try:
        if show:
            return await in_force(settings)
        return await (lift(settings, **asked) if undo else add(settings, **asked))
    finally:
        await settings.store.aclose()


def _time(text: str) -> float:
    now = time.time()
    if text == "now":
        return now
    try:
        seconds = float(min(int(text), 2**53)) if text.isascii() and text.isdigit() else _instant(text)
    except ValueError:
        wrong_use(f"{text!r} is no time: write now, seconds since the epoch, or 2026-11-26T11:00:00Z")
    if seconds > now + _AHEAD_SECONDS:
        wrong_use(f"{text!r} lies ahead: until then every new token would be refused as well")
    return seconds


def _instant(text: str) -> float:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("a time of nobody knows where")
    return instant.timestamp()


def _tell(revocations: Sequence[Revocation], *, as_json: bool, done: str) -> None:
    if as_json:
        say_json([{"kind": it.kind.value, "value": it.value, "until": _date(it.until)} for it in revocations])
        return
    for it in revocations:
        value = _date(float(it.value)) if it.kind is RevocationKind.ISSUED_BEFORE else it.value
        end = "" if done == "no longer revoked" else f"  until {_date(it.until)}"
        say(f"{it.kind.value.replace('_', '-')}  {value}{end}{'  ' if done else ''}{done}")
    if not revocations:
        say("nothing is revoked" if not done else "nothing of it was revoked")


def _date(seconds: float) -> str:
    if not 0 <= seconds < _YEAR_9999:
        return f"{seconds:.0f}"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
