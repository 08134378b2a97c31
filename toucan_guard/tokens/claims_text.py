"""Verified claims as JSON text and back, for a store outside this process.

Strict in both directions: what could not be read back equal is not written, and a text that is damaged, incomplete or
of another schema version is no claims at all. So two releases can share one store during a deployment; a session that
the other one wrote is unknown to this one and its viewer gets a new pass.

A text is no proof. It says what a key vouched for when the session was opened, so whoever can write to the store can
open sessions; reading it is not enough, because its key is a digest of a secret that the browser alone holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.strict_json import strict_json

SCHEMA: Final = 1

# ``derived`` is worked out again by whoever needs it. Everything else has to be there, so that a field which a later
# release adds cannot be forgotten here: the round trip of the tests would break.
_FIELDS: Final = tuple(item.name for item in fields(VerifiedClaims) if item.name != "derived")
_MEMBERS: Final = frozenset({"schema", *_FIELDS})


def claims_to_text(claims: VerifiedClaims) -> bytes:
    """The claims as UTF-8 JSON.

    Raises:
        ValueError: They could not be read back equal; ``verify`` makes no such claims. The message quotes no value.
    """
    try:
        members = {
            "schema": SCHEMA,
            **{name: getattr(claims, name) for name in _FIELDS},
            "origins": None if claims.origins is None else list(claims.origins.entries),
            "grants": [grant.to_claim() for grant in claims.grants],
            "audiences": list(claims.audiences),
            "rls": None if claims.rls is None else _thawed(claims.rls),
        }
        text = json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise ValueError("the claims hold a value that JSON cannot carry") from None
    if claims_from_text(text) != claims:
        raise ValueError("the claims could not be read back as they were")
    return text


def claims_from_text(text: bytes) -> VerifiedClaims | None:
    """The claims of a stored text, or None where it is not exactly what ``claims_to_text`` of this version writes.

    Never raises for any bytes.
    """
    try:
        return _read(strict_json(text))
    except ValueError:
        return None


def _read(members: object) -> VerifiedClaims:
    if not isinstance(members, dict) or members.keys() != _MEMBERS or type(members["schema"]) is not int:
        raise ValueError("not the members of this schema")
    if members["schema"] != SCHEMA:
        raise ValueError("another schema version")
    rls = members["rls"]
    if rls is not None and not isinstance(rls, dict):
        raise ValueError("rls is an object")
    not_before, first_issued_at = members["not_before"], members["first_issued_at"]
    return VerifiedClaims(
        issuer=_text(members["issuer"]),
        audiences=tuple(_texts(members["audiences"])),
        subject=_text(members["subject"]),
        token_id=_text(members["token_id"]),
        issued_at=_time(members["issued_at"]),
        expires_at=_time(members["expires_at"]),
        not_before=None if not_before is None else _time(not_before),
        tenant=_optional(members["tenant"]),
        origins=_origins(members["origins"]),
        grants=_grants(members["grants"]),
        rls=None if rls is None else MappingProxyType({name: _frozen(value) for name, value in rls.items()}),
        region=_optional(members["region"]),
        key_id=_key_id(members["key_id"]),
        algorithm=_text(members["algorithm"]),
        token_type=_text(members["token_type"]),
        session_seconds=_seconds(members["session_seconds"]),
        first_issued_at=None if first_issued_at is None else _time(first_issued_at),
        key_mark=_empty_or_text(members["key_mark"]),
        reading=_empty_or_text(members["reading"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is missing")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _empty_or_text(value: object) -> str:
    return "" if value == "" else _text(value)


def _key_id(value: object) -> str | None:
    # A ``kid`` may be an empty text (RFC 7515 §4.1.4); no other name may.
    return None if value is None else _empty_or_text(value)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of texts")
    return value


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**53) <= value <= 2**53:
        raise ValueError("not a time")
    return value


def _seconds(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= 2**53:
        raise ValueError("not a number of seconds")
    return value


def _origins(value: object) -> OriginAllowlist | None:
    if value is None:
        return None
    try:
        # Whether http is in order was decided when the token was verified; here only the grammar counts.
        origins = OriginAllowlist.parse(_texts(value), development=True)
    except ConfigError:
        raise ValueError("not a list of origins") from None
    if list(origins.entries) != value:
        raise ValueError("the origins are not in the form that is written")
    return origins


def _grants(value: object) -> tuple[Grant, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list of grants")
    grants = tuple(grant for claim in value if (grant := Grant.from_claim(claim)) is not None)
    if len(grants) != len(value):
        raise ValueError("not a grant")
    return grants


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    return value


def _thawed(value: object) -> object:
    """The JSON value of a frozen one; a value that would come back as another is refused."""
    if isinstance(value, tuple):
        return [_thawed(item) for item in value]
    if isinstance(value, Mapping):
        if not all(type(name) is str for name in value):
            raise ValueError("the claims hold a name that is not text")
        return {name: _thawed(item) for name, item in value.items()}
    if value is None or type(value) in (str, bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    raise ValueError("the claims hold a value that JSON cannot carry")
