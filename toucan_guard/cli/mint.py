"""``toucan-guard mint``: a token for trying things out, made with a key in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from toucan_guard.cli.inspect import verdict
from toucan_guard.cli.output import FINDING, complain, settings_or_leave, status_of, wrong_use
from toucan_guard.core.allowlist import OriginAllowlist
from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.token_policy import MAX_BOOTSTRAP_SECONDS
from toucan_guard.tokens import TokenMinter


def mint(  # noqa: PLR0917 - the parameters are the command's options
    subject: Annotated[str, typer.Option(help="The host's own user id.")],
    key_file: Annotated[Path, typer.Option(help="The signing key: a secret, a private JWK, or a private PEM.")],
    tenant: Annotated[str | None, typer.Option(help="The customer organisation.")] = None,
    grant: Annotated[
        list[str] | None, typer.Option(help="type:<id>:action[,action], as in dashboard:delays:view.")
    ] = None,
    rls: Annotated[
        list[str] | None, typer.Option(help="attribute=value; the value is JSON, or else text: carrier=AA, ids=[1,2].")
    ] = None,
    origin: Annotated[list[str] | None, typer.Option(help="Where it may be embedded.")] = None,
    kid: Annotated[str | None, typer.Option(help="The key's name, where the file does not say.")] = None,
    lifetime: Annotated[int, typer.Option(help="Seconds.")] = 300,
    frame: Annotated[bool, typer.Option("--frame", help="A bootstrap token for a frame's URL.")] = False,  # noqa: FBT002
) -> None:
    """Print a token for the configured issuer and audience.

    Mistakes are refused here, all at once. A token that is well made and yet refused by the configured guard is printed
    with the reason beside it, and is a finding.
    """
    settings = settings_or_leave()
    try:
        text = key_file.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        wrong_use("the key file cannot be read")
    problems: list[str] = []
    grants: list[Grant] = []
    for entry in grant or ():
        with _gathered(problems):
            grants.append(read_grant(entry))
    attributes: dict[str, Any] = {}
    for entry in rls or ():
        with _gathered(problems):
            _add(attributes, entry)
    with _gathered(problems):
        minter = TokenMinter(
            text,
            kid=kid,
            issuer=settings.issuer,
            audience=settings.audience,
            policy=settings.policy,
            region=settings.region,
            claim_names=settings.token_policy.claim_names,
            development=settings.environment == "development",
        )
        make = minter.mint_bootstrap if frame else minter.mint
        token = make(
            subject=subject,
            tenant=tenant,
            grants=grants,
            rls=attributes if rls else None,
            origins=origin,
            lifetime_seconds=min(lifetime, MAX_BOOTSTRAP_SECONDS) if frame else lifetime,
        )
    if problems:
        wrong_use(*problems)
    typer.echo(token)
    reason, detail = verdict(token, settings, bootstrap=frame)
    if reason is not None:
        complain(f"! The configured guard refuses this token: {reason}: {detail}", style="yellow")
        raise typer.Exit(status_of(reason))
    named = OriginAllowlist.parse(origin or (), development=True)
    # Where framing differs, a site that may not call may still frame, and the frame send a token that it was given.
    if (frame or settings.frame_ancestors is None) and not settings.allowlist.covers(named):
        complain(
            "! An origin is not among TOUCAN_GUARD_ALLOWED_ORIGINS, so the token cannot be used there", style="yellow"
        )
        raise typer.Exit(FINDING)


@contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (ConfigError, MintError) as error:
        problems.extend(error.problems)


def _add(attributes: dict[str, Any], text: str) -> None:
    name, value = read_attribute(text)
    if name in attributes:  # one that is given twice would have two meanings
        raise MintError(f"the attribute {name!r} is given twice: write a list, as in {name}=[1,2]")
    attributes[name] = value


def read_grant(text: str) -> Grant:
    """A grant as an option has it.

    Raises:
        MintError: It is none.
    """
    kind, _, rest = text.partition(":")
    object_id, separator, actions = rest.rpartition(":")
    if not separator:
        raise MintError(f"{text!r} is not a grant: write type:id:action, as in dashboard:delays:view")
    return Grant(kind, object_id, tuple(actions.split(",")))


def read_attribute(text: str) -> tuple[str, Any]:
    """An attribute as an option has it.

    Raises:
        MintError: It is none.
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise MintError(f"{text!r} is not an attribute: write name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
    except RecursionError:
        raise MintError(f"the attribute {name!r} is nested too deep") from None
