"""What a host gives for a token, as claims; and every reason for which a guard would refuse them.

What is wrong is returned as sentences, or added to ``problems`` where the claim itself is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from ipaddress import ip_address
from urllib.parse import urlsplit
from uuid import UUID

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.token_policy import RESERVED_CLAIMS, ClaimNames


def text_problems(name: str, value: object) -> list[str]:
    """What is wrong with a text."""
    return [] if isinstance(value, str) and value else [f"{name} must be text that is not empty"]


def is_positive(value: object) -> bool:
    """Whether this is a whole number of seconds that every reader of JSON keeps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def lifetime_problems(seconds: object, limit: int | None) -> list[str]:
    """What is wrong with a lifetime; ``limit`` is that of a bootstrap token, in seconds."""
    if not is_positive(seconds):
        return ["lifetime_seconds must be a whole number, 1 or more"]
    if limit is not None and isinstance(seconds, int) and seconds > limit:
        return [f"a bootstrap token lives {limit} seconds at most"]
    return []


def grant_claims(grants: object, problems: list[str]) -> list[dict[str, object]]:
    """The claim of these grants."""
    if isinstance(grants, str | bytes | Mapping) or not isinstance(grants, Iterable):
        problems.append("grants must be a collection of Grant")
        return []
    claims = []
    for grant in grants:
        read = grant if isinstance(grant, Grant) else Grant.from_claim(grant)
        if read is None:
            problems.append("a member of grants is neither a Grant nor exactly type, id and actions")
        else:
            claims.append(read.to_claim())
    return claims


def listed_origins(origins: object, problems: list[str], *, development: bool) -> list[str] | None:
    """The claim of these origins; None is none."""
    if origins is None:
        return None
    if isinstance(origins, str | bytes | Mapping) or not isinstance(origins, Iterable):
        problems.append("origins must be a collection of origins, not one string")
        return None
    listed = list(origins)
    try:
        OriginAllowlist.parse(listed, development=True)
    except ConfigError as error:
        problems.extend(error.problems)
        return None
    # A guard in production refuses these. Those of this machine are let through, because nobody ships them by mistake.
    far = [entry for entry in listed if not development and entry.startswith("http:") and not _is_loopback(entry)]
    problems.extend(f"the origin {entry!r} is not https; use https, or development=True" for entry in far)
    return listed


def _is_loopback(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def attribute_claims(rls: object, problems: list[str]) -> dict[str, object] | None:
    """The claim of these row-level attributes; None is none."""
    if rls is None:
        return None
    if not isinstance(rls, Mapping) or not all(isinstance(name, str) for name in rls):
        problems.append("rls must be a mapping from attribute names to values")
        return {}
    return {name: _plain(value) for name, value in rls.items()}


def _plain(value: object) -> object:
    """What a policy calls a date, a time or a UUID is text in a token."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def extra_claims_of(claims: object, names: ClaimNames, problems: list[str]) -> Mapping[str, object]:
    """Claims for other readers, none of which is one of ours."""
    if claims is None:
        return {}
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        problems.append("extra_claims must be a mapping from claim names to values")
        return {}
    ours = {*RESERVED_CLAIMS, names.tenant, names.grants, names.rls, names.origins, names.region}
    problems.extend(
        f"extra_claims may not set {name!r}, which has an argument of its own" for name in sorted(ours & claims.keys())
    )
    return claims
