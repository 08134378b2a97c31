"""Connections to Redis or Valkey through redis-py: commands that end in time, and failures in our own words.

Nothing is tried twice: a lost answer to "take this key" may mean that the key is ours, and asking again would say that
somebody else took it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.tokens.background import on_trio, spawn
from toucan_guard.tokens.store_url import StoreAddress

TIMEOUT_SECONDS: Final = 0.25
_SLICES: Final = 5
_LONGEST_SECONDS: Final = 2.0  # after which a command ends that nobody waits for
_CONNECTIONS: Final = 16
_OPENING_SECONDS: Final = 5.0

T = TypeVar("T")

# What the operator is told, by the name of the driver's exception or of one of its bases. The driver's own text may
# hold a host, a key or a part of a password.
CAUSES: Final[Mapping[str, str]] = {
    "AuthenticationError": "the store refuses the user name or password of its URL, or wants one",
    "AuthenticationWrongNumberOfArgsError": "the store refuses the user name or password of its URL, or wants one",
    "NoPermissionError": "the store does not let its user run a command that is needed",
    "TimeoutError": f"the store does not answer within {TIMEOUT_SECONDS} seconds",
    "OutOfMemoryError": "the store is full",
    "ReadOnlyError": "the store is a replica that cannot be written to",
    "BusyLoadingError": "the store is still loading its data",
    "ClusterDownError": "the store's cluster does not serve every key",
    "RedisClusterException": "the store's cluster does not serve every key",
    "ConnectionError": "the store cannot be reached",
    "OSError": "the store cannot be reached",
    "ResponseError": "the store refuses a command",
}
UNEXPECTED: Final = "the store gives an answer that makes no sense"


def require_driver() -> None:
    """Import redis-py at start-up, and not in the middle of the first request.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import redis.asyncio  # noqa: F401 - it is imported to find out
    except ImportError:
        raise ConfigError(
            "TOUCAN_GUARD_STORE_URL names a Redis or Valkey server, but its driver is not installed; "
            "install toucan-guard[redis]"
        ) from None


class _Driver(Protocol):
    """What is used of redis-py's clients; the blocking one returns the answer itself."""

    def execute_command(self, *command: str | bytes | int) -> Any: ...


class _Failure:
    """A command that failed, as a value: no exception of the driver travels with ours, as its context or otherwise."""

    def __init__(self, error: BaseException) -> None:
        names = (kind.__name__ for kind in type(error).__mro__)
        self.cause = next((CAUSES[name] for name in names if name in CAUSES), UNEXPECTED)
        self.moved = type(error).__name__ in {"MovedError", "AskError"}


@dataclass(frozen=True, slots=True)
class _Client:
    """The client of one event loop.

    Attributes:
        driver: redis-py's client.
        cluster: Whether it speaks to a cluster.
        places: As many commands at a time as there may be connections.
        opening: Finds the nodes of a cluster, which takes several answers: the commands that wait for it give up in
            time, and it goes on for those that come after them.
    """

    driver: _Driver
    cluster: bool
    places: asyncio.Semaphore
    opening: asyncio.Task[bool] | None


class _Turn:
    """Where a command stands.

    Attributes:
        come: It has got one of the connections.
        over: Nobody waits for its answer any more.
    """

    come = False
    over = False


class RedisConnections:
    """Runs commands on a server, or on its cluster where it answers that it is part of one.

    Connections are opened at the first command, and anew on every event loop. On asyncio this is redis-py's asyncio
    client; on trio, which that does not know, its blocking client in threads.

    Raises:
        ConfigError: redis-py is not installed.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._address: Final = address
        self._cluster = False
        require_driver()
        self._asyncio: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()
        self._running: set[asyncio.Task[Any]] = set()  # an event loop holds its tasks weakly
        self._answered = 0
        self._blocking: tuple[bool, _Driver] | None = None
        self._threads: anyio.CapacityLimiter | None = None
        self._making = threading.Lock()

    async def run(self, *command: str | bytes | int) -> object:
        """The answer to one command.

        Raises:
            StoreUnavailable: No answer, or not one in time, or an error for an answer.
        """
        answer = await (self._run_in_thread(command) if on_trio() else self._run_on_asyncio(command))
        # Raised here, outside every ``except``, so that the driver's exception is not even the context of ours.
        if isinstance(answer, _Failure):
            raise StoreUnavailable(answer.cause)
        return answer

    async def _run_on_asyncio(self, command: tuple[str | bytes | int, ...]) -> object:
        # A task of its own: a request that is cancelled, twice perhaps, would leave a connection half-read or lost to
        # the pool. And in an empty context, so that nothing of the request reaches what listens to the driver.
        turn = _Turn()
        task = self._begin(self._command(command, turn))
        for patience in self._patience(turn):
            await asyncio.wait({task}, timeout=patience)
            if task.done():
                return task.result()
        # The driver uses ``asyncio.wait_for``, which may swallow this on Python 3.11. Then the task ends a little
        # later, by its own deadline, with nobody waiting for it.
        task.cancel()
        return _Failure(TimeoutError())

    def _patience(self, turn: _Turn) -> Iterator[float]:
        """Seconds to wait, again and again, until a quarter second of them is the server's fault.

        In slices: while the event loop is busy with a thousand others, an answer that has arrived is not read. A slice
        that took long for that reason still counts as one; a slice in which others were answered does not count for a
        command that waits for its turn.
        """
        give_up, left = time.monotonic() + _LONGEST_SECONDS, _SLICES
        while left and time.monotonic() < give_up:
            answered = self._answered
            yield TIMEOUT_SECONDS / _SLICES
            left -= turn.come or answered == self._answered

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _command(self, command: tuple[str | bytes | int, ...], turn: _Turn) -> object:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                while True:
                    client = self._asyncio_client()
                    if client.opening is not None and not await asyncio.shield(client.opening):
                        self._asyncio.pop(asyncio.get_running_loop(), None)
                        raise ConnectionError
                    try:
                        async with client.places:
                            turn.come = True
                            answer = await client.driver.execute_command(*command)
                        self._answered += 1
                        return answer
                    except Exception as error:
                        if client.cluster or not _Failure(error).moved:
                            raise
                        self._cluster = True
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the store did not answer
            return _Failure(error)

    def _asyncio_client(self) -> _Client:
        loop = asyncio.get_running_loop()
        held = self._asyncio.get(loop)
        if held is None or held.cluster != self._cluster:
            from redis import asyncio as client
            from redis.asyncio.retry import Retry

            if held is not None:
                self._begin(_aclose(held.driver))
            driver = self._driver(client, Retry, _LONGEST_SECONDS)
            opening = self._begin(_opened(driver)) if self._cluster else None
            held = _Client(driver, self._cluster, asyncio.Semaphore(_CONNECTIONS), opening)
            self._asyncio[loop] = held
        return held

    async def _run_in_thread(self, command: tuple[str | bytes | int, ...]) -> object:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_CONNECTIONS)
        threads, turn, landed, answers = self._threads, _Turn(), anyio.Event(), list[object]()
        run = partial(Context().run, self._blocking_command, command, turn)

        async def work() -> None:
            try:
                answers.append(await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=threads))
            finally:
                landed.set()

        spawn(work)
        try:
            for patience in self._patience(turn):
                with anyio.move_on_after(patience):
                    await landed.wait()
                    break
        finally:
            turn.over = True
        return answers[0] if answers else _Failure(TimeoutError())

    def _blocking_command(self, command: tuple[str | bytes | int, ...], turn: _Turn) -> object:
        try:
            while True:
                cluster, driver = self._blocking_driver()
                turn.come = True
                if turn.over:
                    raise TimeoutError  # nobody waits any more, so nothing is taken on anybody's behalf
                try:
                    answer = driver.execute_command(*command)
                except Exception as error:
                    if cluster or not _Failure(error).moved:
                        raise
                    self._cluster = True
                else:
                    self._answered += 1
                    return answer
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the store did not answer
            return _Failure(error)

    def _blocking_driver(self) -> tuple[bool, _Driver]:
        with self._making:
            if self._blocking is None or self._blocking[0] != self._cluster:
                import redis as client
                from redis.retry import Retry

                if self._blocking is not None:
                    _close(self._blocking[1])
                self._blocking = (self._cluster, self._driver(client, Retry, TIMEOUT_SECONDS))
            return self._blocking

    def _driver(self, client: Any, retry: Any, patience: float) -> _Driver:
        from redis.backoff import NoBackoff

        address = self._address
        options: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "username": address.username,
            "password": address.password,
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "retry": retry(NoBackoff(), 0),
            "protocol": 2,  # nothing that the server pushes by itself
        }
        if address.tls:
            options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if self._cluster:
            driver: _Driver = client.RedisCluster(**options)
        else:
            driver = client.Redis(**options, db=address.database)
        return driver

    async def aclose(self) -> None:
        """Close the connections of this event loop. The next command opens new ones."""
        if on_trio():
            with self._making:
                blocking, self._blocking = self._blocking, None
            if blocking is not None:
                await anyio.to_thread.run_sync(_close, blocking[1])
            return
        held = self._asyncio.pop(asyncio.get_running_loop(), None)
        if held is not None:
            with anyio.move_on_after(TIMEOUT_SECONDS):
                await _aclose(held.driver)


async def _opened(driver: Any) -> bool:
    try:
        async with asyncio.timeout(_OPENING_SECONDS):
            await driver.initialize()
    except Exception:  # noqa: BLE001 - the next command tries again
        return False
    return True


async def _aclose(driver: Any) -> None:
    with contextlib.suppress(Exception):  # a server that is gone needs no goodbye
        await driver.aclose()


def _close(driver: Any) -> None:
    with contextlib.suppress(Exception):
        driver.close()
