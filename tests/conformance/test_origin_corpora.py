"""Our grammar of origins against browsers' URL tests, and our decisions against Go's.

Sources: web-platform-tests (urltestdata) and ada for origins; Go's
CrossOriginProtection, through FiloSottile/csrf, for requests.
"""

from __future__ import annotations

from typing import Any

import can_ada
import pytest

from toucan_guard.core.decisions import Allow
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy, parse_origin

# Origins that the URL standard can serialise and that we refuse all the same, with the reason.
_NOT_A_HOST_NAME = "a host without a name, or with quotes and braces in it, is in no DNS and on no list"
_PORT_ZERO = "port 0 cannot be connected to"
_REFUSED_ON_PURPOSE = {
    "http://.": _NOT_A_HOST_NAME,
    "http://..": _NOT_A_HOST_NAME,
    "http://'": _NOT_A_HOST_NAME,
    "http://!\"$&'()*+,-.;=_`{}~": _NOT_A_HOST_NAME,
    "wss://!\"$&'()*+,-.;=_`{}~": _NOT_A_HOST_NAME,
    "http://f:0": _PORT_ZERO,
}

_OWN_ORIGINS = [
    pytest.param("https://a.example", True, id="plain"),
    pytest.param("https://a.example:8443", True, id="with a port"),
    pytest.param("https://[2001::1]", True, id="IPv6"),
    pytest.param("https://a.example/", False, id="a final slash"),
    pytest.param("https://example.com\\@evil.com", False, id="backslash before the at sign"),
    pytest.param("https://exa\tmple.com", False, id="a tab that browsers drop"),
    pytest.param("https://127.1", False, id="a short IPv4 address"),
    pytest.param("https://[2001:0::1]", False, id="IPv6 that is not compressed"),
]

_EXEMPT_PATH = "Go exempts paths by pattern; here EXEMPT_PATHS is decided before the origin is"
_GO_DEVIATIONS: dict[str, str] = {
    f"TestPatternBypass/{name}": _EXEMPT_PATH
    for name in (
        "bypass path without sec-fetch-site",
        "bypass path with cross-site",
        "redirect to bypass path without ..",
        "redirect to bypass path with trailing slash",
        "wildcard bypass",
    )
} | {"TestServer/bypass path": _EXEMPT_PATH}

_OWN_REQUESTS: list[Any] = [
    pytest.param("POST", {"Sec-Fetch-Site": "same-origin"}, True, id="same-origin post"),
    pytest.param("POST", {"Sec-Fetch-Site": "cross-site"}, False, id="cross-site post without an origin"),
    pytest.param("POST", {"Origin": "https://trusted.example"}, True, id="trusted origin"),
    pytest.param("POST", {"Origin": "https://attacker.example"}, False, id="untrusted origin"),
    pytest.param("POST", {"Origin": "null"}, False, id="null"),
    pytest.param("GET", {"Sec-Fetch-Site": "cross-site"}, True, id="cross-site get without an origin"),
]


@pytest.mark.parametrize(("value", "expected"), _OWN_ORIGINS)
def test_an_origin_is_its_own_serialisation(value: str, expected: bool) -> None:
    parsed = parse_origin(value)
    assert (parsed is not None) is expected
    assert parsed is None or str(parsed) == value


def test_url_origins(load_corpus: Any, conformance_report: Any) -> None:
    rows = load_corpus("url_origin.json")
    deviations, wrong = [], []
    for row in rows:
        origin, text = row["origin"], row["input"]
        if origin is not None and origin != "null":
            parsed = parse_origin(origin)
            if origin in _REFUSED_ON_PURPOSE:
                deviations.append((origin, _REFUSED_ON_PURPOSE[origin]))
                if parsed is not None:
                    wrong.append(row)
                continue
            if parsed is None or str(parsed) != origin:
                wrong.append(row)
        # An input that is not its own serialisation is no Origin; where the row does not say, another URL parser does.
        accepted = parse_origin(text)
        if accepted is not None and str(accepted) != (origin or _oracle(row)):
            wrong.append(row)
    conformance_report.add("url_origin.json", len(rows), len(rows) - len(wrong) - len(deviations), deviations)
    assert not wrong


def _oracle(row: dict[str, Any]) -> str | None:
    """What can_ada, an implementation of the URL standard, makes of the input alone; None where it refuses."""
    try:
        return str(can_ada.parse(row["input"]).origin)
    except ValueError:
        return None


@pytest.mark.parametrize(("method", "headers", "allowed"), _OWN_REQUESTS)
def test_a_request_is_judged_by_its_headers(method: str, headers: dict[str, str], allowed: bool) -> None:
    row = {"method": method, "headers": headers, "scheme": "https", "host": "a.example"}
    assert _decide(row | {"trusted_origins": ["https://trusted.example"]}) is allowed


def test_go_cross_origin_protection(load_corpus: Any, conformance_report: Any) -> None:
    rows = load_corpus("origin_requests.json")
    deviations, wrong = [], []
    for row in rows:
        if _decide(row) is row["allowed"]:
            continue
        if row["test"] in _GO_DEVIATIONS:
            deviations.append((row["test"], _GO_DEVIATIONS[row["test"]]))
        else:
            wrong.append(row)
    conformance_report.add("origin_requests.json", len(rows), len(rows) - len(wrong) - len(deviations), deviations)
    assert {row["allowed"] for row in rows} == {True, False}
    assert not wrong
    assert {name for name, _ in deviations} == set(_GO_DEVIATIONS), "a deviation that is none any more is taken off"


def _decide(row: dict[str, Any]) -> bool:
    own = parse_origin(f"{row['scheme']}://{row['host']}")
    assert own is not None
    policy = OriginPolicy(
        allowlist=OriginAllowlist.parse(row["trusted_origins"]),
        public_origins=frozenset((own,)),
    )
    headers = {name.lower(): [value] for name, value in row["headers"].items()}
    decision = policy.decide(
        row["method"],
        headers.get("origin", []),
        fetch_site=headers.get("sec-fetch-site", []),
        referers=headers.get("referer", []),
    )
    return isinstance(decision, Allow)
