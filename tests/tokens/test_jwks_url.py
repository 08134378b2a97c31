"""Where keys may be fetched: https, or http on this machine, and nothing that two readers read in two ways."""

from __future__ import annotations

import pytest

from toucan_guard.tokens.jwks_url import jwks_url_problem


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example/.well-known/jwks.json",
        "https://login.example",
        "HTTPS://Login.Example:8443/keys?tenant=a&v=2.0",
        "https://10.0.0.7/keys",
        "https://[2001:db8::1]:8443/keys",
        "http://localhost:8080/keys",
        "http://127.0.0.1/keys",
        "http://127.8.8.8:1/keys",
        "http://[::1]:8080/keys",
    ],
)
def test_https_and_loopback_are_taken(url: str) -> None:
    assert jwks_url_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/keys.json",
        "file://localhost/etc/keys.json",
        "ftp://login.example/keys",
        "data:application/json,{}",
        "//login.example/keys",
        "login.example/keys",
        "/keys",
        "",
        "https://",
        "https:///keys",
        "https://user@login.example/keys",
        "https://user:password@login.example/keys",
        "https://login.example@evil.example/keys",
        "https://login.example\\@evil.example/keys",
        "https://login.example/keys#fragment",
        "https://login.example/a b",
        "https://login.example/\n",
        "https://login.example/keys\r\nHost: evil.example",
        "https://löschen.example/keys",
        "https://login.example:0/keys",
        "https://login.example:65536/keys",
        "https://login.example:/keys",
        "https://login.example:8o/keys",
        "https://.example/keys",
        "https://login.example?keys",
        "http://login.example/keys",
        "http://localhost.example/keys",
        "http://localhost.:80/keys",
        "http://127.0.0.1.example/keys",
        "http://127.1/keys",
        "http://2130706433/keys",
        "http://0x7f.0.0.1/keys",
        "http://0.0.0.0/keys",
        "http://10.0.0.7/keys",
        "http://[::ffff:10.0.0.7]/keys",
        "http://[fe80::1]/keys",
        "http://[::]/keys",
        "http://[127.0.0.1]/keys",
    ],
)
def test_everything_else_is_refused_and_not_quoted(url: str) -> None:
    """CVE-2026-48522 (PyJWT): a key set was read from ``file://``."""
    problem = jwks_url_problem(url)
    assert "https" in problem
    assert "evil" not in problem
    assert "password" not in problem
