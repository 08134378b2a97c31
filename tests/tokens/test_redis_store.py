"""The Redis store without a server: its URL, its failures, and what neither of them ever shows."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.tokens.store_url import StoreAddress, parse_store_url

PASSWORD = "hunter2hunter2"

pytest.importorskip("redis", reason="the extra [redis] has the driver")

from redis import exceptions  # noqa: E402 - after the skip

from toucan_guard.tokens import redis_driver  # noqa: E402 - after the skip
from toucan_guard.tokens.redis_store import RedisStore  # noqa: E402 - after the skip


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("redis://store", StoreAddress("store"), id="a host"),
        pytest.param("valkey://store.example:7000/3", StoreAddress("store.example", 7000, database=3), id="everything"),
        pytest.param("rediss://store/", StoreAddress("store", tls=True), id="encrypted, with an empty path"),
        pytest.param("valkeys://store/0", StoreAddress("store", tls=True), id="encrypted, the other name"),
        pytest.param("redis://[::1]:7000", StoreAddress("::1", 7000), id="IPv6"),
        pytest.param("redis://10.0.0.1", StoreAddress("10.0.0.1"), id="IPv4"),
        pytest.param("redis://my_store-1:6379", StoreAddress("my_store-1"), id="a container's name"),
        pytest.param("redis://:pw@store", StoreAddress("store", password="pw"), id="a password alone"),
        pytest.param("redis://me:pw@store", StoreAddress("store", username="me", password="pw"), id="a user"),
        pytest.param(
            "redis://m%40e:%2F%3A%40%25%C3%A9%20@store",
            StoreAddress("store", username="m@e", password="/:@%é "),
            id="encoded signs",
        ),
    ],
)
def test_a_url_is_read(url: str, address: StoreAddress) -> None:
    assert parse_store_url(url) == address


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        pytest.param("", "starts with", id="nothing"),
        pytest.param("store:6379", "starts with", id="no scheme"),
        pytest.param("http://store", "starts with", id="another scheme"),
        pytest.param("REDIS://store", "starts with", id="a scheme in upper case"),
        pytest.param("unix:///run/redis.sock", "starts with", id="a socket"),
        pytest.param("redis://", "does not name a host", id="no host"),
        pytest.param("redis:///0", "does not name a host", id="no host before the database"),
        pytest.param("redis://:6379", "does not name a host", id="a port alone"),
        pytest.param("redis://a,b", "does not name a host", id="two hosts"),
        pytest.param("redis://::1", "does not name a host", id="IPv6 without brackets"),
        pytest.param("redis://[::1", "does not name a host", id="one bracket"),
        pytest.param("redis://[zz]", "does not name a host", id="brackets around no address"),
        pytest.param("redis://[fe80::1%eth0]", "does not name a host", id="an address with a zone"),
        pytest.param("redis://-store", "does not name a host", id="a host that begins like an option"),
        pytest.param("redis://store:", "port", id="a colon without a port"),
        pytest.param("redis://store:0", "port", id="port 0"),
        pytest.param("redis://store:65536", "port", id="a port that is too high"),
        pytest.param("redis://store:6379x", "port", id="a port that is no number"),
        pytest.param("redis://store/one", "number of a database", id="a database in words"),
        pytest.param("redis://store/-1", "number of a database", id="a negative database"),
        pytest.param("redis://store/00", "number of a database", id="a database with zeros"),
        pytest.param("redis://store/0/1", "number of a database", id="two databases"),
        pytest.param("redis://store?db=1", "no options", id="an option"),
        pytest.param("redis://store/0#x", "no options", id="a fragment"),
        pytest.param("redis://store ", "space", id="a space at the end"),
        pytest.param("redis://store\n", "space", id="a line end, as files have it"),
        pytest.param("redis://störe", "ASCII", id="a letter that is not ASCII"),
        pytest.param(f"redis://{PASSWORD}@store", ":password@", id="a password without its colon"),
        pytest.param(f"redis://{PASSWORD}:@store", ":password@", id="a user without a password"),
        pytest.param("redis://:@store", ":password@", id="an empty password"),
        pytest.param(f"redis://:{PASSWORD}@@store", "%40", id="a bare @ in the password"),
        pytest.param(f"redis://:{PASSWORD}/x@store", "%2F", id="a bare slash in the password"),
        pytest.param(f"redis://:{PASSWORD}:x@store", "%3A", id="a bare colon in the password"),
        pytest.param(f"redis://:{PASSWORD}?x@store", "%3F", id="a bare question mark in the password"),
        pytest.param(f"redis://:{PASSWORD}#x@store", "%23", id="a bare hash in the password"),
        pytest.param(f"redis://:{PASSWORD}%@store", "%25", id="a bare percent sign in the password"),
        pytest.param(f"redis://:{PASSWORD}%ff@store", "%25", id="encoded bytes that are no text"),
        pytest.param(f"redis://:{PASSWORD} @store", "%20", id="a bare space in the password"),
        pytest.param(f"redis//:{PASSWORD}@store", "starts with", id="a mistyped scheme before a password"),
        pytest.param(f"redis://:{PASSWORD}@store:{PASSWORD}/{PASSWORD}", "port", id="the password everywhere"),
    ],
)
def test_a_mistake_in_a_url_is_named_with_its_mend_and_without_the_url(url: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_store_url(url)
    assert mend in str(caught.value)
    for problem in caught.value.problems:
        assert problem.startswith("TOUCAN_GUARD_STORE_URL ")
    shown = "".join(traceback.format_exception(caught.value, chain=True)[-1:]) + repr(caught.value)
    assert PASSWORD not in shown
    assert caught.value.__cause__ is None


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_store_url("redis://user@:0/x?ssl=no")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("address", [StoreAddress("s", password=PASSWORD, username="who-we-are"), StoreAddress("::1")])
def test_an_address_shows_no_credentials(address: StoreAddress) -> None:
    for shown in (str(address), repr(address)):
        assert PASSWORD not in shown
        assert "who-we-are" not in shown
    assert parse_store_url(str(address)) == StoreAddress(address.host)


def test_a_store_shows_no_credentials() -> None:
    store = RedisStore(f"rediss://me:{PASSWORD}@store.example/2")
    assert repr(store) == "RedisStore(valkeys://store.example:6379/2)"
    assert PASSWORD not in repr(store._connections)


def test_without_the_driver_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"install toucan-guard\[redis\]") as caught:
        RedisStore(f"redis://:{PASSWORD}@store")
    assert PASSWORD not in str(caught.value)


def test_importing_the_store_does_not_import_the_driver() -> None:
    import subprocess

    script = (
        "import sys, toucan_guard.tokens.redis_store, toucan_guard.tokens.revoked\n"
        "print(sorted({'redis', 'trio'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


class Driver:
    """A driver that answers or raises what it is told to."""

    def __init__(self, answer: object, *, blocking: bool) -> None:
        self._answer = answer
        self._blocking = blocking
        self.commands: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any) -> Any:
        self.commands.append(command)
        if not self._blocking:
            return self._later()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    async def _later(self) -> object:
        await asyncio.sleep(0)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


@pytest.fixture
def with_driver(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> Callable[[object], tuple[RedisStore, Driver]]:
    """A store whose driver answers as given."""

    def make(answer: object) -> tuple[RedisStore, Driver]:
        driver = Driver(answer, blocking=anyio_backend_name == "trio")
        monkeypatch.setattr(redis_driver.RedisConnections, "_driver", lambda *_: driver)
        return RedisStore(f"redis://:{PASSWORD}@store", clock=lambda: 1000.0), driver

    return make


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(exceptions.ConnectionError(PASSWORD), "cannot be reached", id="no connection"),
        pytest.param(ConnectionResetError(PASSWORD), "cannot be reached", id="a connection that was reset"),
        pytest.param(socket.gaierror(PASSWORD), "cannot be reached", id="a name that nobody knows"),
        pytest.param(exceptions.TimeoutError(PASSWORD), "does not answer within", id="the driver's timeout"),
        pytest.param(TimeoutError(PASSWORD), "does not answer within", id="a timeout of the system"),
        pytest.param(exceptions.AuthenticationError(PASSWORD), "refuses the user name", id="a wrong password"),
        pytest.param(exceptions.NoPermissionError(PASSWORD), "does not let its user", id="no permission"),
        pytest.param(exceptions.OutOfMemoryError(PASSWORD), "is full", id="no memory"),
        pytest.param(exceptions.ReadOnlyError(PASSWORD), "replica", id="a replica"),
        pytest.param(exceptions.BusyLoadingError(PASSWORD), "still loading", id="a server that is starting"),
        pytest.param(exceptions.ResponseError(PASSWORD), "refuses a command", id="another error of the server"),
        pytest.param(exceptions.InvalidResponse(PASSWORD), "makes no sense", id="not the protocol"),
        pytest.param(RuntimeError(PASSWORD), "makes no sense", id="a bug in the driver"),
    ],
)
async def test_every_failure_is_the_same_exception_in_our_own_words(
    with_driver: Any, error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = with_driver(error)
    caplog.set_level(logging.DEBUG)
    calls: list[Callable[[], Any]] = [
        lambda: store.spend("k", expires_at=1001),
        lambda: store.get("k"),
        lambda: store.revoked("iss"),
        lambda: store.revoke("iss", "x"),
        lambda: store.forget("iss", ["x"]),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match=told) as caught:
            await call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("expires_at", "seconds"),
    [
        pytest.param(1030, 30, id="whole seconds"),
        pytest.param(1000.001, 1, id="rounded up, so that nothing is forgotten early"),
        pytest.param(1001.5, 2, id="rounded up above a second"),
        pytest.param(900, 1, id="an end that has passed"),
        pytest.param(2.0**53, 2**31, id="an end that no server takes"),
        pytest.param(float("inf"), 2**31, id="no end"),
    ],
)
async def test_a_key_is_taken_in_one_command_that_also_says_its_end(
    with_driver: Any, expires_at: float, seconds: int
) -> None:
    store, driver = with_driver(True)
    assert await store.spend("spent:x", expires_at=expires_at) is True
    assert driver.commands == [("SET", b"toucan_guard:spent:x", b"1", "NX", "EX", seconds)]


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [b"OK", "OK", 1, b"1", [], False])
async def test_an_answer_that_is_none_of_the_two_does_not_win(with_driver: Any, answer: object) -> None:
    store, _ = with_driver(answer)
    with pytest.raises(StoreUnavailable, match="makes no sense"):
        await store.spend("k", expires_at=1001)


@pytest.mark.anyio
async def test_an_answer_that_is_no_bytes_is_no_session(with_driver: Any) -> None:
    store, _ = with_driver("text")
    with pytest.raises(StoreUnavailable, match="makes no sense"):
        await store.get("k")
    with pytest.raises(StoreUnavailable, match="makes no sense"):
        await store.revoked("iss")


KEEPS = {"maxmemory_policy": "noeviction", "aof_enabled": 1, "connected_slaves": 0, "role": "master"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param({"maxmemory_policy": "noeviction"}, None, id="it does not evict"),
        pytest.param({"maxmemory_policy": "allkeys-lru"}, "is not noeviction", id="it evicts everything"),
        pytest.param({"maxmemory_policy": "volatile-ttl"}, "is not noeviction", id="it evicts what has an end"),
        pytest.param({}, "does not tell", id="it does not say"),
        pytest.param({**KEEPS, "aof_enabled": 0}, "set appendonly", id="it writes nothing down"),
        pytest.param({**KEEPS, "aof_enabled": 0, "connected_slaves": 1}, None, id="it has a replica"),
        pytest.param({**KEEPS, "aof_enabled": 0, "role": "slave"}, None, id="it is a replica"),
        pytest.param(KEEPS, None, id="it writes everything down"),
        pytest.param(exceptions.NoPermissionError(), "does not tell", id="it may not be asked"),
        pytest.param(exceptions.ResponseError(), "does not tell", id="it does not know the question"),
    ],
)
async def test_a_server_that_may_forget_is_warned_of(with_driver: Any, answer: object, told: str | None) -> None:
    store, _ = with_driver(answer)
    warnings = await store.warnings()
    assert len(warnings) == (told is not None)
    assert all(told in warning for warning in warnings)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.anyio
async def test_a_server_that_says_nothing_costs_a_quarter_second(silent: int) -> None:
    store = RedisStore(f"redis://:{PASSWORD}@127.0.0.1:{silent}")
    took = []

    async def ask() -> None:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer within"):
            await store.spend("k", expires_at=time.time() + 60)
        took.append(time.monotonic() - began)

    async with anyio.create_task_group() as group:
        for _ in range(40):  # more than there are connections
            group.start_soon(ask)
    assert len(took) == 40
    assert max(took) < 5, "waiting for a place counts too"
    await store.aclose()


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = RedisStore(f"redis://127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await store.get("k")
    assert time.monotonic() - began < 5
    await store.aclose()
    await store.aclose()
