"""``toucan-guard inspect``: what a token says, and what the configured guard says to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toucan_guard.cli.output import FINDING, say, say_json, settings_or_leave, wrong_use
from toucan_guard.core.decisions import Deny
from toucan_guard.core.jws import parse_compact, strict_json
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.token import BOOTSTRAP, EMBED, VerifiedClaims, verify

_TIMES = ("iat", "nbf", "exp")


def inspect(
    token_file: Annotated[Path, typer.Argument(help="A file with the token; '-' is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Show header and claims of a token, and the guard's verdict. Never takes the token on the command line,
    where the shell's history would keep it."""
    settings = settings_or_leave()
    text = typer.get_text_stream("stdin").read() if str(token_file) == "-" else _read(token_file)
    token = text.strip()
    parsed = parse_compact(token, max_bytes=settings.token_policy.max_token_bytes)
    header: Any = {} if isinstance(parsed, Deny) else dict(parsed.header)
    claims = {} if isinstance(parsed, Deny) else _claims(parsed.payload)
    bootstrap = str(header.get("typ", "")).lower().removeprefix("application/") == BOOTSTRAP
    verdict = verify(
        token,
        policy=settings.token_policy,
        keys=settings.key_ring,
        now=time.time(),
        token_type=BOOTSTRAP if bootstrap else EMBED,
    )
    reason, detail = _verdict(verdict, settings)
    if as_json:
        say_json({"header": header, "claims": claims, "valid": reason is None, "reason": reason, "detail": detail})
    else:
        for title, members in (("header", header), ("claims", claims)):
            say(title, "bold")
            for name, value in members.items():
                say(f"  {name}: {value}{_when(name, value)}")
        say(f"✓ {detail}" if reason is None else f"✗ {reason}: {detail}", "green" if reason is None else "red")
    if reason is not None:
        raise typer.Exit(FINDING)


def _read(path: Path) -> str:
    try:
        return path.read_text("latin-1")
    except OSError as error:
        wrong_use(f"the token file cannot be read ({error.strerror})")


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = strict_json(payload)
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def _verdict(verdict: VerifiedClaims | Deny, settings: Any) -> tuple[str | None, str]:
    if isinstance(verdict, Deny):
        return str(verdict.reason), verdict.detail
    if settings.policy is None:
        return None, "The guard accepts this token. Row-level security is switched off."
    judged = settings.policy.row_filter(verdict.rls, issuer=verdict.issuer, tenant=verdict.tenant)
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
