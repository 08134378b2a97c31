"""The file of API keys: what is known of each key, and nothing that could be used as one.

JSON, because a program writes it: ``toucan-guard apikey`` makes and retires keys, a person edits limits. ::

    {
      "version": 1,
      "pepper": "…",
      "keys": {
        "7c1k0v9x2m4q": {
          "label": "AA's portal",
          "environment": "live",
          "digest": "…",
          "created": "2026-11-26T10:00:00Z",
          "not_before": "2026-12-01T00:00:00Z",
          "not_after": "2027-12-01T00:00:00Z",
          "retired": "2027-06-01T08:30:00Z",
          "limits": {
            "tenants": ["AA"],
            "origins": ["https://portal.example"],
            "grants": [{"type": "dashboard", "id": "*", "actions": ["view"]}],
            "attributes": {"carrier": ["AA"]},
            "lifetime_seconds": 900
          },
          "roles": {"explorer": [{"type": "dashboard", "id": "*", "actions": ["view"]}]}
        }
      }
    }

``digest`` is an HMAC-SHA-256 of the key under the pepper, ``pepper`` a check value by which a wrong pepper is noticed.
A file is read whole or not at all; every mistake is told with its place, none with a digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from toucan_guard.core.api_key import is_environment, is_key_id
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant
from toucan_guard.core.hints import Hints
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.strict_json import strict_json
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry

VERSION: Final = 1
MAX_KEYS: Final = 1_000

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TIME_FORM: Final = 'must be a time in UTC such as "2026-12-01T00:00:00Z"'
_GRANT_FORM: Final = 'must be exactly {"type": …, "id": …, "actions": […]}'
_T = TypeVar("_T")


def read_api_keys(text: str, *, development: bool = False, attributes: Collection[str] | None = None) -> ApiKeyBook:
    """Read a file's text.

    Args:
        text: JSON.
        development: Whether ``http`` and loopback origins are in order.
        attributes: Those of the row-level policy, where it is known: a limit of any other would limit nothing.

    Raises:
        ConfigError: Every mistake, each with its place.
    """
    return _Reader(development=development, attributes=attributes).read(text)


def write_api_keys(book: ApiKeyBook) -> str:
    """A book as the text of its file."""
    keys = {key_id: entry_members(entry) for key_id, entry in book.keys.items()}
    content = {"version": VERSION, "pepper": book.pepper_check.hex(), "keys": keys}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def entry_members(entry: ApiKeyEntry) -> dict[str, object]:
    """An entry as its file has it."""
    limits = entry.limits
    limited: dict[str, object] = {
        "tenants": None if limits.tenants is None else list(limits.tenants),
        "origins": None if limits.origins is None else list(limits.origins.entries),
        "grants": None if limits.grants is None else [grant.to_claim() for grant in limits.grants],
        "attributes": {name: list(values) for name, values in limits.attributes.items()} or None,
        "lifetime_seconds": limits.lifetime_seconds,
    }
    members: dict[str, object] = {
        "label": entry.label or None,
        "environment": entry.environment,
        "digest": entry.digest.hex(),
        "created": written_time(entry.created) if entry.created else None,
        "not_before": written_time(entry.not_before) if entry.not_before else None,
        "not_after": None if entry.not_after is None else written_time(entry.not_after),
        "retired": None if entry.retired is None else written_time(entry.retired),
        "limits": {name: value for name, value in limited.items() if value is not None} or None,
        "roles": {name: [grant.to_claim() for grant in grants] for name, grants in entry.roles.items()} or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def written_time(seconds: float) -> str:
    """A time as the file has it: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def read_time(text: object) -> float:
    """The seconds since the epoch of a time such as ``2026-12-01T00:00:00Z``.

    Raises:
        ValueError: It is no time, or does not say its zone.
    """
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError(_TIME_FORM)
    try:
        read = datetime.fromisoformat(text)
        if read.tzinfo is None:
            raise ValueError
        return read.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(_TIME_FORM) from None


class _Reader:
    """Reads one file and gathers its mistakes, each with its place."""

    def __init__(self, *, development: bool, attributes: Collection[str] | None) -> None:
        self._development = development
        self._attributes = attributes
        self._meant = Hints()
        self._problems: list[str] = []

    def read(self, text: str) -> ApiKeyBook:
        try:
            content = strict_json(text.encode("utf-8"))
        except (ValueError, RecursionError):
            raise ConfigError("the API keys are not strict JSON (repeated members are refused too)") from None
        if not isinstance(content, dict):
            raise ConfigError('the API keys are a JSON object: {"version": 1, "pepper": …, "keys": {…}}')
        self._only(content, "the file", ("version", "pepper", "keys"))
        if type(content.get("version")) is not int or content["version"] != VERSION:
            self._say("version", f"must be {VERSION}: another release may have written this file")
        check = self._digest(content.get("pepper"), "pepper")
        keys = self._object(content.get("keys"), "keys")
        if len(keys) > MAX_KEYS:
            self._say("keys", f"must be {MAX_KEYS} at most: remove those that were retired long ago")
            keys = {}
        entries = {key_id: self._entry(key_id, body) for key_id, body in keys.items()}
        if self._problems:
            raise ConfigError(self._problems)
        return ApiKeyBook(MappingProxyType(entries), check)

    def _entry(self, key_id: str, body: object) -> ApiKeyEntry:
        place = f"keys.{_shown(key_id)}"
        if not is_key_id(key_id):
            self._say(place, "a key's id has 12 lower-case letters and digits")
        known = self._object(body, place)
        self._only(
            known,
            place,
            ("label", "environment", "digest", "created", "not_before", "not_after", "retired", "limits", "roles"),
        )
        environment, label = known.get("environment"), known.get("label", "")
        if not is_environment(environment):
            self._say(f"{place}.environment", "must be a word of 1 to 16 lower-case letters and digits")
        if not isinstance(label, str) or len(label) > 256 or not label.isprintable():
            self._say(f"{place}.label", "must be text of at most 256 printable characters")
        not_before = self._time(known, "not_before", place) or 0.0
        not_after = self._time(known, "not_after", place)
        if not_after is not None and not_after <= not_before:
            self._say(f"{place}.not_after", "must be later than not_before")
        limits = self._limits(known.get("limits", {}), f"{place}.limits")
        if "retired" not in known:  # a key that makes no token may name what the policy no longer has
            self._limits_something(limits, f"{place}.limits")
        return ApiKeyEntry(
            key_id=key_id,
            environment=str(environment),
            digest=self._digest(known.get("digest"), f"{place}.digest"),
            label=str(label),
            created=self._time(known, "created", place) or 0.0,
            not_before=not_before,
            not_after=not_after,
            retired=self._time(known, "retired", place),
            limits=limits,
            roles=self._roles(known.get("roles", {}), f"{place}.roles"),
        )

    def _roles(self, body: object, place: str) -> Mapping[str, tuple[Grant, ...]]:
        roles = {}
        for name, grants in self._object(body, place).items():
            if not name:
                self._say(place, "has a role without a name")
            roles[name] = self._grants(grants, f"{place}.{_shown(name)}")
        return MappingProxyType(roles)

    def _limits(self, body: object, place: str) -> ApiKeyLimits:
        known = self._object(body, place)
        self._only(known, place, ("tenants", "origins", "grants", "attributes", "lifetime_seconds"))
        seconds = known.get("lifetime_seconds")
        if "lifetime_seconds" in known and (type(seconds) is not int or not 1 <= seconds <= 86_400):
            self._say(f"{place}.lifetime_seconds", "must be a whole number from 1 to 86400")
        attributes = {}
        for name, values in self._object(known.get("attributes", {}), f"{place}.attributes").items():
            attributes[name] = self._list(values, f"{place}.attributes.{_shown(name)}", "must be a list of values")
        return ApiKeyLimits(
            tenants=self._absent_or(known, "tenants", place, self._tenants),
            origins=self._absent_or(known, "origins", place, self._origins),
            grants=self._absent_or(known, "grants", place, self._grants),
            attributes=MappingProxyType(attributes),
            lifetime_seconds=seconds,
        )

    def _limits_something(self, limits: ApiKeyLimits, place: str) -> None:
        # Attributes without a limit are not limited: a misspelt one must not let the real one have any value.
        if self._attributes is None:
            return
        for name in sorted(limits.attributes.keys() - set(self._attributes)):
            hint = self._meant(name, self._attributes)
            self._say(f"{place}.attributes.{_shown(name)}", f"is no attribute of the row-level policy{hint}")

    def _absent_or(
        self, known: Mapping[str, Any], name: str, place: str, read: Callable[[object, str], _T]
    ) -> _T | None:
        # Absent is no limit. A null would be one of the two, and nobody could tell which was meant.
        return read(known[name], f"{place}.{name}") if name in known else None

    def _tenants(self, value: object, place: str) -> tuple[str, ...]:
        tenants = self._list(value, place, "must be a list of tenants")
        if not all(isinstance(tenant, str) and tenant for tenant in tenants):
            self._say(place, "must be a list of tenants, each a text that is not empty")
            return ()
        return tuple(str(tenant) for tenant in tenants)

    def _origins(self, value: object, place: str) -> OriginAllowlist:
        origins = self._list(value, place, "must be a list of origins")
        try:
            return OriginAllowlist.parse(origins, development=self._development)  # type: ignore[arg-type]
        except ConfigError as error:
            for problem in error.problems:
                self._say(place, problem)
            return OriginAllowlist()

    def _grants(self, value: object, place: str) -> tuple[Grant, ...]:
        grants = []
        for number, claim in enumerate(self._list(value, place, "must be a list of grants")):
            grant = Grant.from_claim(claim)
            if grant is None:
                self._say(f"{place}[{number}]", _GRANT_FORM)
            else:
                grants.append(grant)
        return tuple(grants)

    def _time(self, known: Mapping[str, Any], name: str, place: str) -> float | None:
        if name not in known:
            return None
        try:
            return read_time(known[name])
        except ValueError as error:
            self._say(f"{place}.{name}", str(error))
            return None

    def _digest(self, value: object, place: str) -> bytes:
        if isinstance(value, str) and _DIGEST.fullmatch(value):
            return bytes.fromhex(value)
        self._say(place, "must be 64 hexadecimal digits: only `toucan-guard apikey create` can write it")
        return b""

    def _object(self, value: object, place: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._say(place, "must be an object")
        return {}

    def _list(self, value: object, place: str, form: str) -> tuple[object, ...]:
        if isinstance(value, list):
            return tuple(value)
        self._say(place, form)
        return ()

    def _only(self, known: Mapping[str, Any], place: str, names: tuple[str, ...]) -> None:
        for name in sorted(known.keys() - set(names)):
            self._say(place, f"has the member {_shown(name)}, which means nothing here: correct it or remove it")

    def _say(self, place: str, problem: str) -> None:
        self._problems.append(f"{place} {problem}")


def _shown(name: str) -> str:
    """A name of the file's for a message: one line, short."""
    return ascii(name)[1:-1][:40]
