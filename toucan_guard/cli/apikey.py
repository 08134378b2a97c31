"""``toucan-guard apikey create | list | retire``: the API keys of the token service, in their file."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from toucan_guard.cli.mint import read_attribute, read_grant
from toucan_guard.cli.output import FINDING, complain, say, say_json, settings_or_leave, wrong_use
from toucan_guard.core.api_key import KEY_ID_ALPHABET, KEY_ID_LENGTH, SECRET_BYTES, ApiKey, format_api_key, is_key_id
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.settings import ApiKeySettings, GuardSettings
from toucan_guard.settings_values import did_you_mean
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry
from toucan_guard.tokens.api_key_file import entry_members, read_time, written_time
from toucan_guard.tokens.api_key_store import change_book
from toucan_guard.tokens.api_keys import LOOK_SECONDS, api_key_digest

app: Final = typer.Typer(help="API keys of the token service.", no_args_is_help=True)

_DAY: Final = 86_400
_DAY_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FILE: Final = "TOUCAN_GUARD_API_KEYS_FILE"
_PEPPER: Final = "TOUCAN_GUARD_API_KEY_PEPPER"

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Texts = list[str] | None


@app.command("create")
def create(  # noqa: PLR0917 - the parameters are the command's options
    label: Annotated[str, typer.Option(help="What people call it: whose it is, and where it lies.")],
    environment: Annotated[str | None, typer.Option("--env", help="A word in the key's text: live, test.")] = None,
    tenant: Annotated[_Texts, typer.Option(help="A tenant that it may speak for; none is all.")] = None,
    origin: Annotated[_Texts, typer.Option(help="Where its tokens may be embedded; none is all.")] = None,
    grant: Annotated[
        _Texts, typer.Option(help="A grant that it may give, as in dashboard:delays:view; none is all.")
    ] = None,
    attribute: Annotated[_Texts, typer.Option(help="attribute=value that it may give, as in carrier=AA.")] = None,
    role: Annotated[_Texts, typer.Option(help="name=type:<id>:action[,action]: a name for grants.")] = None,
    lifetime: Annotated[int | None, typer.Option(min=1, help="Seconds that its tokens live at most.")] = None,
    not_before: Annotated[
        str | None, typer.Option(help="Works from then on, as in 2026-12-01 or 2026-12-01T08:00:00Z.")
    ] = None,
    not_after: Annotated[str | None, typer.Option(help="Works until then; a day is its beginning in UTC.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Works for so many days.")] = None,
    as_json: _Json = False,  # noqa: FBT002
) -> None:
    """Make an API key and print it. This is the only time that it is shown: the file keeps a digest."""
    settings = settings_or_leave(ApiKeySettings)
    path, pepper = _file_of(settings), settings.api_key_pepper
    if pepper is None:
        wrong_use(f"{_PEPPER} (or {_PEPPER}_FILE) is not set: the file keeps digests that are made with it")
    now = int(time.time())
    problems: list[str] = []
    if not label.strip():
        problems.append("--label is empty: say whose key it is, and where it lies")
    begins = _moment("--not-before", not_before, problems) or now
    ends = _moment("--not-after", not_after, problems)
    if days is not None:
        if not_after is not None:
            problems.append("--days and --not-after say the same: give one of them")
        ends = begins + days * _DAY
    elif ends is not None and ends <= begins:
        problems.append("--not-after must be later than --not-before, which is now unless it is given")
    limits = _limits(settings, tenant, origin, grant, attribute, lifetime, problems)
    word = environment or ("live" if settings.environment == "production" else "test")
    roles: dict[str, list[Grant]] = {}
    for text in role or ():
        name, separator, granted = text.partition("=")
        if not separator:
            problems.append(f"{text!r} is not a role: write name=type:id:action, as in viewer=dashboard:delays:view")
            continue
        try:
            roles.setdefault(name, []).append(read_grant(granted))
        except MintError as error:
            problems += error.problems
    if problems:
        wrong_use(*problems)
    made: list[ApiKey] = []
    secret = pepper.get_secret_value().encode()

    def add(book: ApiKeyBook) -> ApiKeyBook:
        key = _new_key(word, book)
        made.append(key)
        return book.with_entry(
            ApiKeyEntry(
                key.key_id,
                key.environment,
                api_key_digest(secret, key.text),
                label=label,
                created=now,
                not_before=begins,
                not_after=ends,
                limits=limits,
                roles=MappingProxyType({name: tuple(grants) for name, grants in roles.items()}),
            )
        )

    try:
        book = change_book(path, add, pepper=secret, development=settings.environment == "development")
    except (ConfigError, ValueError) as error:
        wrong_use(*(error.problems if isinstance(error, ConfigError) else [str(error)]))
    (key,) = made
    if as_json:
        say_json({"key": key.text, **_shown(book.keys[key.key_id], now)})
    else:
        typer.echo(key.text)
        complain(
            f"✓ {key.key_id} is in the file, and every worker knows it within about {LOOK_SECONDS:.0f} s. "
            "Keep the key above now: it is not shown again.",
            style="green",
        )


@app.command("list")
def list_keys(
    expiring: Annotated[
        int | None, typer.Option(min=1, help="A key that ends within so many days is a finding.")
    ] = None,
    as_json: _Json = False,  # noqa: FBT002
) -> None:
    """Show every key of the file: its state, its time, its limits. When it was last used stands in the record."""
    settings = settings_or_leave()
    _file_of(settings)
    assert settings.api_keys is not None  # noqa: S101 - it has a file
    now = time.time()
    entries = sorted(settings.api_keys.entries, key=lambda entry: (entry.created, entry.key_id))
    ending = [
        entry.key_id
        for entry in entries
        if expiring is not None
        and entry.retired is None
        and entry.not_after is not None
        and now < entry.not_after <= now + expiring * _DAY
    ]
    if as_json:
        say_json({"keys": [_shown(entry, now) for entry in entries], "expiring": ending})
    else:
        for entry in entries:
            shown = _shown(entry, now)
            until = "" if entry.not_after is None else f", until {written_time(entry.not_after)}"
            say(f"{entry.key_id}  {shown['state']:<9} {entry.environment}{until}  {entry.label}")
            for name, value in {**shown.get("limits", {}), **shown.get("roles", {})}.items():
                say(f"              {name}: {value}")
        for key_id in ending:
            say(f"! {key_id} ends within {expiring} days: make its successor now", "yellow")
    if ending:
        raise typer.Exit(FINDING)


@app.command("retire")
def retire(
    key_id: Annotated[str, typer.Argument(help="The key's id: the third part of its text.")],
    as_json: _Json = False,  # noqa: FBT002
) -> None:
    """Withdraw a key. It mints nothing more, and every token and session that it made ends."""
    settings = settings_or_leave()
    path = _file_of(settings)
    if not is_key_id(key_id):
        wrong_use("this is no key's id, which has 12 lower-case letters and digits; never write the key itself here")
    now = int(time.time())

    def withdraw(book: ApiKeyBook) -> ApiKeyBook:
        entry = book.keys.get(key_id)
        if entry is None:
            raise ConfigError("no key of the file has this id: see `toucan-guard apikey list`")
        return book if entry.retired is not None else book.with_entry(replace(entry, retired=now))

    try:
        book = change_book(path, withdraw, development=settings.environment == "development")
    except ConfigError as error:
        wrong_use(*error.problems)
    if as_json:
        say_json(_shown(book.keys[key_id], now))
    else:
        say(
            f"✓ {key_id} is retired: every worker that reads this file refuses it and its tokens within about "
            f"{LOOK_SECONDS:.0f} s.",
            "green",
        )


def _file_of(settings: GuardSettings) -> Path:
    if settings.api_keys_file is None:
        wrong_use(f"{_FILE} is not set: it names the file of API keys")
    return settings.api_keys_file


def _new_key(environment: str, book: ApiKeyBook) -> ApiKey:
    while True:
        key_id = "".join(secrets.choice(KEY_ID_ALPHABET) for _ in range(KEY_ID_LENGTH))
        if key_id not in book.keys:
            return format_api_key(environment, key_id, secrets.token_bytes(SECRET_BYTES))


def _moment(option: str, text: str | None, problems: list[str]) -> float | None:
    """A time, or a day, which is its beginning in UTC."""
    if text is None:
        return None
    try:
        return read_time(f"{text}T00:00:00Z" if _DAY_FORM.fullmatch(text) else text)
    except ValueError as error:
        problems.append(f"{option} {error}, or a day such as 2026-12-01")
        return None


def _limits(  # noqa: PLR0917 - the options of one command
    settings: GuardSettings,
    tenant: _Texts,
    origin: _Texts,
    grant: _Texts,
    attribute: _Texts,
    lifetime: int | None,
    problems: list[str],
) -> ApiKeyLimits:
    """The limits. Those that could never be met in this deployment are noted: the mistake would show at the host."""
    origins: OriginAllowlist | None = None
    if origin:
        try:
            origins = OriginAllowlist.parse(origin, development=settings.environment == "development")
        except ConfigError as error:
            problems += error.problems
        else:
            if not settings.allowlist.covers(origins):
                problems.append("an origin is not among TOUCAN_GUARD_ALLOWED_ORIGINS, so no token could be used there")
    values: dict[str, list[Any]] = {}
    for text in attribute or ():
        try:
            name, value = read_attribute(text)
        except MintError as error:
            problems += error.problems
            continue
        values.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        if settings.policy is not None and name not in settings.policy.attributes:
            hint = did_you_mean(name, settings.policy.attributes)
            problems.append(f"the row-level policy has no attribute {name!r}{hint}")
    if lifetime is not None and lifetime > settings.token_lifetime_seconds:
        problems.append(f"TOUCAN_GUARD_TOKEN_LIFETIME_SECONDS is {settings.token_lifetime_seconds}: lower --lifetime")
    grants: list[Grant] = []
    for text in grant or ():
        try:
            grants.append(read_grant(text))
        except MintError as error:
            problems += error.problems
    return ApiKeyLimits(
        tenants=tuple(tenant) if tenant else None,
        origins=origins,
        grants=tuple(grants) if grants else None,
        attributes=MappingProxyType({name: tuple(given) for name, given in values.items()}),
        lifetime_seconds=lifetime,
    )


def _shown(entry: ApiKeyEntry, now: float) -> dict[str, Any]:
    """An entry without its digest, which is of no use to a reader."""
    members = {name: value for name, value in entry_members(entry).items() if name != "digest"}
    return {"id": entry.key_id, "state": entry.state_at(now), **members}
