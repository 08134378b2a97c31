"""How the settings are read that have rules of their own: proxies, carriers, exemptions, claims, columns, audit.

Readers as in ``settings_values``: ``ValueError`` with the words that follow the variable's name.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from toucan_guard.core.credentials import CARRIERS
from toucan_guard.core.origins import parse_origin
from toucan_guard.core.token_policy import TAKEN_CLAIMS
from toucan_guard.core.toml_text import load_toml
from toucan_guard.settings_values import Text, did_you_mean, judged, kind, quoted, read_list, read_text, variable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REPORTABLE: Final = ("frame_ancestors", "grant", "origin", "region")
_NEVER_REPORT_ONLY: Final = ("audience", "expiry", "issuer", "rls", "signature")


def read_networks(value: object) -> tuple[Network, ...]:
    """Read IP addresses and networks; a name would have to be resolved, and could change."""
    if isinstance(value, list | tuple | set | frozenset):
        addresses = ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network
        value = [str(item) if isinstance(item, addresses) else item for item in value]
    return judged(read_list(value), _network)


def _network(item: str) -> Network:
    try:
        network = ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise ValueError(
            f"holds {quoted(item)}, which is no IP address or network: write such as 10.0.0.7 or 10.0.0.0/8"
        ) from None
    try:
        ipaddress.ip_network(item)
    except ValueError:
        raise ValueError(f"holds {quoted(item)}, whose host bits are set: write {network} for the network") from None
    if network.prefixlen == 0:
        raise ValueError(f"holds {quoted(item)}, which trusts every address: name your proxies' own networks")
    return network


def read_carriers(value: object) -> tuple[str, ...]:
    """Read where a token may travel; two of the words are header names, so case does not count."""
    carriers = judged(read_list(value), _carrier)
    if not carriers:
        raise ValueError(f"is empty, so that no token could arrive: name some of {', '.join(CARRIERS)}")
    return tuple(sorted(carriers))


def _carrier(item: str) -> str:
    carrier = item.lower()
    if carrier in CARRIERS:
        return carrier
    raise ValueError(f"holds {quoted(item)}{did_you_mean(carrier, CARRIERS)}: it may name {', '.join(CARRIERS)}")


def read_report_only(value: object) -> tuple[str, ...]:
    """Read which decisions are only recorded."""
    return tuple(sorted(judged(read_list(value), _reportable)))


def _reportable(item: str) -> str:
    if item in _REPORTABLE:
        return item
    if item in _NEVER_REPORT_ONLY:
        raise ValueError(
            f"holds {item}, which is never report-only, because a request that fails it could see data that is not "
            "its own: remove it"
        )
    raise ValueError(f"holds {quoted(item)}{did_you_mean(item, _REPORTABLE)}: it may name {', '.join(_REPORTABLE)}")


def _exempt(item: str) -> str:
    wrong = ""
    if not item.startswith("/"):
        wrong = "does not begin with /: write the path from the root"
    elif "//" in item or "\\" in item:
        wrong = "has // or a backslash in it: write single slashes"
    elif any(segment in {".", ".."} for segment in item.split("/")):
        wrong = "has . or .. in it: write the path that is meant"
    elif "?" in item or "#" in item:
        wrong = "has a query or fragment: only the path is compared, so remove it"
    elif "*" in item:
        wrong = (
            "has a wildcard: write whole paths in TOUCAN_GUARD_EXEMPT_PATHS and whole segments in "
            "TOUCAN_GUARD_EXEMPT_PREFIXES"
        )
    elif "%" in item:
        wrong = "has a percent sign: write the decoded path, as the application sees it"
    elif not item.isprintable() or item != item.strip():
        wrong = "has a space around it or a control character in it: remove it"
    if wrong:
        raise ValueError(f"holds {quoted(item)}, which {wrong}")
    return item


def read_exempt_paths(value: object) -> tuple[str, ...]:
    """Read exact paths that are not guarded."""
    return tuple(sorted(judged(read_list(value), _exempt)))


def read_exempt_prefixes(value: object) -> tuple[str, ...]:
    """Read whole-segment prefixes that are not guarded; ``/static/`` and ``/static`` mean the same."""
    return tuple(sorted(judged(read_list(value), _exempt_prefix)))


def _exempt_prefix(item: str) -> str:
    if item == "/":
        raise ValueError("holds '/', which would exempt everything: name the folders, such as /static")
    return _exempt(item).removesuffix("/")


def read_claim(value: object) -> str:
    """Read the name that a claim of ours has in foreign tokens."""
    name = read_text(value)
    if name in TAKEN_CLAIMS:
        raise ValueError(f"is {name}, which has a meaning of its own in every token: name another claim")
    if len(name) > 256:
        raise ValueError("is longer than 256 characters: check it")
    return name


def read_columns(value: object) -> tuple[str, ...]:
    """Read the shorthand of row rules into ``table.column=attribute`` items."""
    if isinstance(value, Mapping):
        for pair in value.items():
            if not all(isinstance(part, str) and part.strip() and not {",", "="} & set(part) for part in pair):
                raise ValueError('must map columns to attributes, such as {"flights.carrier": "carrier"}: check it')
        value = [f"{column}={attribute}" for column, attribute in value.items()]
    elif isinstance(value, str) and not isinstance(value, Text):
        value = Text(value, variable("rls_columns"))
    items = read_list(value)
    if not items:
        raise ValueError("names no column: write such as flights.carrier=carrier, or remove it")
    return items


def read_audit(value: object) -> str:
    """Read where audit events go, and find out now whether a file could be written there."""
    if not isinstance(value, str | Path):
        raise ValueError(f"must be stdout, structlog or a path, not {kind(value)}: give a str or a Path")
    text = read_text(str(value).strip() if isinstance(value, Text) else str(value))
    if text in {"stdout", "structlog"}:
        return text
    path = Path(text)
    # "stdotu" is a misspelling and not a file: a bare word would log into a file that nobody looks for.
    if path.name == text and not path.suffix:
        hint = did_you_mean(text.lower(), ("stdout", "structlog"))
        raise ValueError(
            f"must be stdout, structlog or a path, not {quoted(text)}{hint}: write ./ before a file's name"
        )
    try:
        if text.endswith("/") or path.is_dir():
            raise ValueError("names a folder: name a file in it")
        if not path.parent.is_dir():
            raise ValueError("names a file in a folder that does not exist: make the folder first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError("names a file that may not be written: check the rights")
    except OSError as error:
        raise ValueError(f"names a file that cannot be reached ({error.strerror}): check path and rights") from None
    return text


def tenant_table(text: str) -> Mapping[str, object]:
    """Read the TOML of tenants and their origins: plain pairs, or the same in a ``[tenants]`` table."""
    try:
        table: dict[str, object] = load_toml(text)
    except ValueError as error:
        raise ValueError(f"names a file that is not TOML: {error}") from None
    inner = table.get("tenants")
    if not isinstance(inner, dict):
        return table
    if len(table) > 1:
        others = ", ".join(quoted(name) for name in sorted(table) if name != "tenants")
        raise ValueError(f"has {others} beside its [tenants] table: move every tenant into the table")
    return inner


def wrong_report_uri(text: str, *, development: bool) -> str:
    """Say what is wrong with the address of frame reports, or nothing.

    It goes into a header whose directives end at ``;`` and whose values end at ``,``: one such byte, and browsers
    would read another policy (CSP Level 3 §2.2.1).
    """
    parts = re.fullmatch(r"(https?)://([^/?#@]+)(?:[/?][!$%&'()*+./0-9:=?@A-Z_a-z~-]*)?", text)
    if parts is None or parse_origin(f"{parts[1]}://{parts[2]}".lower()) is None:
        return "must be a URL such as https://reports.example/csp, without spaces, commas, semicolons or user: mend it"
    if parts[1] == "http" and not development:
        return "must be an https URL: http is for TOUCAN_GUARD_ENVIRONMENT=development only"
    return ""
