"""``toucan-guard check``: would the guard start, and is there something to think about?"""

from __future__ import annotations

import os
import time
from typing import Annotated

import anyio
import typer
from publicsuffixlist import PublicSuffixList

from toucan_guard.cli.keys import fetched, why_not
from toucan_guard.cli.output import FINDING, say, say_json
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.settings import GuardSettings
from toucan_guard.settings_regions import undeclared
from toucan_guard.settings_values import PREFIX
from toucan_guard.tokens.api_key_file import written_time
from toucan_guard.tokens.jwks import JwksKeys

_MANY_ORIGINS = 2
_SOON_SECONDS = 14 * 86_400


def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:  # noqa: FBT002
    """Run the start-up validation on the environment, and look for what is allowed but seldom meant."""
    try:
        settings = GuardSettings()
    except ConfigError as error:
        errors, findings, keys = list(error.problems), [], None
    else:
        keys = None if settings.jwks_url is None else fetched(settings)
        errors, findings = [], [*_findings(settings), *anyio.run(_of_the_store, settings)]
        findings += [] if keys is None else _key_findings(keys)
    if as_json:
        say_json({"errors": errors, "findings": findings, **({} if keys is None else {"keys": _keys(keys)})})
    else:
        if keys is not None:
            for key in _keys(keys):
                say(f"✓ A fetched key verifies {key['alg']}: {key['kid']}", "green")
            for sentence in keys.dropped:
                say(f"  The key set's {sentence}; left out.", "dim")
        for problem in errors:
            say(f"✗ {problem}", "red")
        for finding in findings:
            say(f"! {finding}", "yellow")
        if not errors:
            say("✓ The guard starts with this configuration.", "green")
    if errors or findings:
        raise typer.Exit(FINDING)


def _findings(settings: GuardSettings) -> list[str]:
    found = [f"{name}=true: {_opened_by(name)}" for name in settings.insecure]
    found += [f"TOUCAN_GUARD_REPORT_ONLY={name} records and does not refuse." for name in settings.report_only]
    if settings.environment == "development":
        found.append("TOUCAN_GUARD_ENVIRONMENT=development accepts http and localhost origins.")
    suffixes = PublicSuffixList()
    found += [
        f"TOUCAN_GUARD_ALLOWED_ORIGINS: {wildcard} covers sites of other people: "
        f"{wildcard.parent} is a public suffix. Name your own domain."
        for wildcard in sorted(settings.allowlist.wildcards, key=str)
        if suffixes.publicsuffix(wildcard.parent, accept_unknown=False) == wildcard.parent
    ]
    found += [
        f"TOUCAN_GUARD_FRAME_ANCESTORS: {source} lets every site of that scheme frame us. Name the sites."
        for source in settings.frame_ancestors_policy.loose
        if source.endswith(":")
    ]
    if len(settings.allowlist) >= _MANY_ORIGINS and not settings.require_token_origins:
        found.append(
            "Several origins are listed. If they are several customers', a token of one works on the sites of all: set "
            "TOUCAN_GUARD_REQUIRE_TOKEN_ORIGINS=true, and name origins in the tokens, or per tenant in "
            "TOUCAN_GUARD_TENANT_ORIGINS_FILE."
        )
    found += [
        f"TOUCAN_GUARD_TENANT_ORIGINS_FILE: an origin of the tenant {tenant!r} is not among "
        "TOUCAN_GUARD_ALLOWED_ORIGINS, so nothing is shown there."
        for tenant, listed in sorted(settings.tenant_origins.items())
        if settings.frame_ancestors is None and not settings.allowlist.covers(listed)  # else it may frame all the same
    ]
    if "session" in settings.token_carriers and not settings.public_origins and not settings.trusted_proxies:
        found.append(
            "TOUCAN_GUARD_PUBLIC_ORIGIN is not set: a WebSocket of a framed page cannot be told from a stranger's, "
            "and is refused."
        )
    if not settings.revocable:
        found.append(
            "Nothing can be revoked: each worker has a memory of its own. Give a server in TOUCAN_GUARD_STORE_URL."
        )
    if not settings.insecure_no_audit and settings.audit == os.devnull:
        found.append(
            f"TOUCAN_GUARD_AUDIT is {os.devnull}, so nothing is recorded. Name a file or stdout, or say it aloud with "
            "TOUCAN_GUARD_INSECURE_NO_AUDIT=true."
        )
    found += _api_key_findings(settings)
    found += undeclared(settings)
    return found


def _api_key_findings(settings: GuardSettings) -> list[str]:
    if settings.api_keys is None or settings.api_keys_file is None:
        return []
    now, found = time.time(), []
    if settings.api_keys_file.stat().st_mode & 0o022:
        found.append(
            "TOUCAN_GUARD_API_KEYS_FILE may be written by others than its owner: who can write it can lift the limits "
            "of every key."
        )
    working = [entry for entry in settings.api_keys.entries if entry.state_at(now) == "valid"]
    if not working:
        found.append("No API key works now. Make one with `toucan-guard apikey create`.")
    found += [
        f"The API key {entry.key_id} ends at {written_time(entry.not_after)}. Make its successor now."
        for entry in working
        if entry.not_after is not None and entry.not_after < now + _SOON_SECONDS
    ]
    return found


def _keys(keys: JwksKeys) -> list[dict[str, str | None]]:
    return [] if keys.ring is None else [{"kid": key.kid, "alg": key.algorithm} for key in keys.ring.keys]


def _key_findings(keys: JwksKeys) -> list[str]:
    found = [f"TOUCAN_GUARD_JWKS_URL: {sentence}. Have it withdrawn." for sentence in keys.exposed]
    if keys.ring is None:
        found.append(f"{why_not(keys)}. While that is so, the guard answers every token with 503.")
    elif any(key.kid is None for key in keys.ring.keys):
        found.append("TOUCAN_GUARD_JWKS_URL: a key has no kid, so it can only be replaced and not rotated.")
    return found


async def _of_the_store(settings: GuardSettings) -> list[str]:
    """What only the store itself can tell. The memory of a process has nothing to say."""
    try:
        warnings = await settings.store.warnings()
    except StoreUnavailable as error:
        warnings = (f"{error}; until it answers, what needs it is refused",)
    finally:
        await settings.store.aclose()
    return [f"TOUCAN_GUARD_STORE_URL: {warning}" for warning in warnings]


def _opened_by(name: str) -> str:
    """What a dangerous switch opens, in the words of its own documentation."""
    described = GuardSettings.model_fields[name.removeprefix(PREFIX).lower()].description
    return str(described).replace("`", "")
