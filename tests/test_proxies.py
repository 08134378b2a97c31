"""Forwarded headers count from named proxies, and from nobody else."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from toucan_guard.proxies import client_address, from_trusted_proxy, inherited_request_id, own_origin

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PROXY = ("10.1.2.3", 443)
FORWARDED = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"charts.example")]


def _scope(client: Any = PROXY, headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    return {"client": client, "headers": FORWARDED if headers is None else headers}


@pytest.mark.parametrize(
    ("client", "trusted"),
    [
        pytest.param(PROXY, True, id="a named proxy"),
        pytest.param(["10.1.2.3", 443], True, id="a server that gives a list"),
        pytest.param(("fd00::1", 443), True, id="a named proxy on IPv6"),
        pytest.param(("::ffff:10.1.2.3", 443), True, id="an IPv4 proxy, as a server on IPv6 shows it"),
        pytest.param(("192.0.2.7", 443), False, id="a stranger"),
        pytest.param(("::ffff:192.0.2.7", 443), False, id="a stranger, as a server on IPv6 shows it"),
        pytest.param(("::10.1.2.3", 443), False, id="another way to write it is another address"),
        pytest.param(("10.1.2.3, 192.0.2.7", 443), False, id="a list is no address"),
        pytest.param(("", 0), False, id="a socket without an address"),
        pytest.param(("unix", 0), False, id="a name"),
        pytest.param(None, False, id="no peer"),
    ],
)
def test_who_is_a_proxy(client: Any, trusted: bool) -> None:
    assert from_trusted_proxy(_scope(client), TRUSTED) is trusted


def test_without_named_proxies_nobody_is_one() -> None:
    assert not from_trusted_proxy(_scope(), ())
    assert not from_trusted_proxy({"headers": []}, TRUSTED)


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        pytest.param(FORWARDED, "https://charts.example", id="both say so once"),
        pytest.param(
            [(b"x-forwarded-proto", b"wss"), (b"x-forwarded-host", b"charts.example:8443")],
            "https://charts.example:8443",
            id="the scheme of a handshake",
        ),
        pytest.param([(b"x-forwarded-proto", b"ws"), FORWARDED[1]], "http://charts.example", id="in the clear"),
        pytest.param([FORWARDED[0]], None, id="no host"),
        pytest.param([FORWARDED[1]], None, id="no scheme"),
        pytest.param([*FORWARDED, FORWARDED[1]], None, id="the host twice, one of them a stranger's"),
        pytest.param([*FORWARDED, FORWARDED[0]], None, id="the scheme twice"),
        pytest.param([FORWARDED[0], (b"x-forwarded-host", b"a.example, b.example")], None, id="a list of hosts"),
        pytest.param([(b"x-forwarded-proto", b"https,http"), FORWARDED[1]], None, id="a list of schemes"),
        pytest.param([(b"x-forwarded-proto", b"capacitor"), FORWARDED[1]], None, id="a scheme that is not the web's"),
        pytest.param([FORWARDED[0], (b"x-forwarded-host", b"charts.example/../evil")], None, id="a path"),
        pytest.param([FORWARDED[0], (b"x-forwarded-host", b"u@charts.example")], None, id="userinfo"),
        pytest.param([FORWARDED[0], (b"x-forwarded-host", b"\xff")], None, id="bytes that are no host"),
        pytest.param([FORWARDED[0], (b"x-forwarded-host", b"")], None, id="empty"),
        pytest.param([FORWARDED[0], (b"x_forwarded_host", b"charts.example")], None, id="underscores"),
    ],
)
def test_our_own_origin(headers: list[tuple[bytes, bytes]], origin: str | None) -> None:
    found = own_origin(_scope(headers=headers), TRUSTED)
    assert (None if found is None else [str(one) for one in found]) == (None if origin is None else [origin])
    assert own_origin(_scope(("192.0.2.7", 1), headers), TRUSTED) is None, "a stranger may say what he likes"


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        pytest.param([b"0af7651916cd43dd8448eb211c80319c"], True, id="a trace id"),
        pytest.param([b"req_1.A-b"], True, id="every harmless character"),
        pytest.param([b"short"], False, id="too short to be one"),
        pytest.param([b"a" * 65], False, id="too long"),
        pytest.param([b"abcdefgh\n{}"], False, id="a line of its own in the log"),
        pytest.param([b"abcdefgh\xe9"], False, id="latin-1"),
        pytest.param([b"abcdefgh", b"abcdefgi"], False, id="repeated"),
        pytest.param([], False, id="none"),
    ],
)
def test_request_ids(values: list[bytes], kept: bool) -> None:
    headers = [(b"x-request-id", value) for value in values]
    assert inherited_request_id(_scope(headers=headers), TRUSTED) == (values[0].decode() if kept else None)
    assert inherited_request_id(_scope(("192.0.2.7", 1), headers), TRUSTED) is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param("192.0.2.7", [], "192.0.2.7", id="a peer is itself"),
        pytest.param("192.0.2.7", [b"203.0.113.9"], "192.0.2.7", id="a stranger forwards for nobody"),
        pytest.param("10.0.0.1", [b"203.0.113.9"], "203.0.113.9", id="a proxy forwards for its client"),
        pytest.param("10.0.0.1", [b"1.2.3.4, 203.0.113.9"], "203.0.113.9", id="what the client claims does not count"),
        pytest.param("10.0.0.1", [b"203.0.113.9, 10.0.0.2"], "203.0.113.9", id="a chain of proxies is followed"),
        pytest.param("10.0.0.1", [b"203.0.113.9", b"10.0.0.2"], "203.0.113.9", id="several fields are one list"),
        pytest.param("10.0.0.1", [b"nonsense"], "10.0.0.1", id="nonsense names nobody"),
        pytest.param("10.0.0.1", [b"203.0.113.9, nonsense"], "10.0.0.1", id="nothing is read past nonsense"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that says nothing is itself"),
        pytest.param("10.0.0.1", [b"10.0.0.2"], "10.0.0.1", id="proxies alone are no client"),
        pytest.param("10.0.0.1", [b"2001:DB8::1"], "2001:db8::1", id="IPv6 in one form"),
    ],
)
def test_the_clients_address_comes_from_named_proxies_alone(peer: str, forwarded: list[bytes], address: str) -> None:
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    assert client_address(_scope((peer, 1), headers), TRUSTED) == address


def test_no_peer_is_no_client() -> None:
    assert client_address(_scope(None), TRUSTED) is None
