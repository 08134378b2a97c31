"""``toucan-guard inspect``: what a token says, and what the configured guard says to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toucan_guard.cli.keys import keys_now
from toucan_guard.cli.output import read_token, say, say_json, settings_or_leave, status_of
from toucan_guard.cli.store import revoked_now
from toucan_guard.core.credentials import SESSION, switched_off
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import KeysUnavailable
from toucan_guard.core.jws import parse_compact
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.strict_json import strict_json
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED
from toucan_guard.settings import GuardSettings

_TIMES = ("iat", "nbf", "exp")


def inspect(
    token_file: Annotated[Path, typer.Argument(help="A file with the token; '-' is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Show header and claims of a token, and the guard's verdict.

    Never takes the token on the command line, where the shell's history would keep it. Leaves with 1 where the token is
    refused, and with 2 where its keys or the store of revocations cannot be asked.
    """
    settings = settings_or_leave()
    token = read_token(token_file)
    parsed = parse_compact(token, max_bytes=settings.token_policy.max_token_bytes)
    header: Any = {} if isinstance(parsed, Deny) else dict(parsed.header)
    claims = {} if isinstance(parsed, Deny) else _claims(parsed.payload)
    bootstrap = str(header.get("typ", "")).lower().removeprefix("application/") == BOOTSTRAP
    reason, detail = verdict(token, settings, bootstrap=bootstrap)
    if as_json:
        say_json({"header": header, "claims": claims, "valid": reason is None, "reason": reason, "detail": detail})
    else:
        for title, members in (("header", header), ("claims", claims)):
            say(title, "bold")
            for name, value in members.items():
                say(f"  {name}: {value}{_when(name, value)}")
        say(f"✓ {detail}" if reason is None else f"✗ {reason}: {detail}", "green" if reason is None else "red")
    if reason is not None:
        raise typer.Exit(status_of(reason))


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = strict_json(payload)
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def verdict(token: str, settings: GuardSettings, *, bootstrap: bool) -> tuple[str | None, str]:
    """What the configured guard says to a token: the reason of its refusal, or None; and a sentence."""
    try:
        keys = keys_now(settings)
    except KeysUnavailable as error:
        return str(Reason.KEYS_UNAVAILABLE), str(error)
    claims = verify(
        token,
        policy=settings.token_policy,
        keys=keys,
        now=time.time(),
        token_type=BOOTSTRAP if bootstrap else EMBED,
    )
    if not isinstance(claims, Deny) and bootstrap and SESSION not in settings.token_carriers:
        claims = switched_off(SESSION)
    if isinstance(claims, Deny):
        return str(claims.reason), claims.detail
    revoked = revoked_now(settings, claims)
    if revoked is not None:
        return str(revoked.reason), revoked.detail
    if settings.policy is None:
        return None, "The guard accepts this token. Row-level security is switched off."
    judged = settings.policy.row_filter(claims.rls, issuer=claims.issuer, tenant=claims.tenant)
    if isinstance(judged, RowFilter):
        return (
            None,
            f"The guard accepts this token. Rows are filtered by {', '.join(judged.attribute_names) or 'nothing'}.",
        )
    return str(judged.reason), judged.detail


def _when(name: str, value: object) -> str:
    if name not in _TIMES or isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    try:
        return f"  ({datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, OverflowError, OSError):
        return ""
