"""The store and revocation on a real Valkey server, from several processes, while it is stopped and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.token_policy import BOOTSTRAP
from toucan_guard.tokens.redis_store import RedisStore
from toucan_guard.tokens.revocation import MAX_REVOCATIONS, Revocation, RevocationKind, end_of_life, revoke
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.sessions import EmbedSessions, OpenedSession

ISSUER = "https://host.example"
SECRET_WORDS = ("s3cret", "odd:signs", "s3cret%2F")


def _claims(**changes: Any) -> VerifiedClaims:
    now = int(time.time())
    given: dict[str, Any] = {
        "issuer": ISSUER, "audiences": ("charts",), "subject": "u-1", "token_id": "t-1", "issued_at": now,
        "expires_at": now + 60, "not_before": None, "tenant": "acme",
        "origins": OriginAllowlist.parse(["https://portal.example"]),
        "grants": (Grant("dashboard", "delays", ("view",)),),
        "rls": MappingProxyType({"carrier": "AA", "airports": ("JFK",)}), "region": None, "key_id": "k-1",
        "algorithm": "HS256", "token_type": BOOTSTRAP, "session_seconds": 900, **changes,
    }  # fmt: skip
    return VerifiedClaims(**given)


@pytest.fixture
async def open_store(anyio_backend: str) -> AsyncIterator[Callable[[str], RedisStore]]:
    """``open_store(url)``: a store that is closed when the test ends."""
    opened: list[RedisStore] = []

    def open_one(url: str) -> RedisStore:
        opened.append(RedisStore(url))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.aclose()


@pytest.fixture
def store(valkey: Any, open_store: Callable[[str], RedisStore]) -> RedisStore:
    """A store on the server of ``valkey``."""
    return open_store(valkey.url)


async def _refused(store: RedisStore, *, within: float = 10) -> str:
    """A call that must fail and not hang; what it tells."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await store.spend(f"x-{random.random()}", expires_at=time.time() + 60)
    assert time.monotonic() - began <= within
    assert not any(word in repr(caught.value) for word in SECRET_WORDS)
    assert caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.anyio
async def test_a_session_lives_in_the_store_and_every_worker_finds_it(valkey: Any, open_store: Any) -> None:
    stores = [open_store(valkey.url), open_store(valkey.url)]
    one, other = (EmbedSessions(store, lifetime_seconds=3600, leeway_seconds=30) for store in stores)
    claims = _claims()
    opened = await one.exchange(claims, {}, now=time.time())
    assert isinstance(opened, OpenedSession)
    found = await other.find(opened.handle, str(opened.secret), now=time.time())
    assert found == replace(claims, expires_at=claims.issued_at + 900, token_type="embed-session")
    assert isinstance(await other.find(opened.handle, "guess", now=time.time()), Deny)
    spent = await other.exchange(claims, {}, now=time.time())
    assert isinstance(spent, Deny)
    assert spent.reason == Reason.TOKEN_SPENT
    again = await other.exchange(claims, {opened.handle: str(opened.secret)}, now=time.time())
    assert isinstance(again, OpenedSession), "the browser that holds the session is led to it"


@pytest.mark.anyio
async def test_the_secret_of_a_session_is_nowhere_in_the_store_and_every_key_has_an_end(
    valkey: Any, store: RedisStore
) -> None:
    sessions = EmbedSessions(store, lifetime_seconds=3600, leeway_seconds=30)
    opened = await sessions.exchange(_claims(), {}, now=time.time())
    assert isinstance(opened, OpenedSession)
    keys = valkey.ask("KEYS", "*").split(b"\r\n")[2::2]
    assert len(keys) == 2
    for key in keys:
        assert key.startswith(b"toucan_guard:")
        assert str(opened.secret).encode() not in key + valkey.ask("GET", key.decode())
        assert 0 < int(valkey.ask("TTL", key.decode())[1:-2]) <= 900


@pytest.mark.anyio
async def test_an_end_is_kept_by_the_server(valkey: Any, store: RedisStore) -> None:
    end = time.time() + 60
    assert await store.spend("k", expires_at=end)
    await store.put("s", _claims(), expires_at=end)
    assert not await store.spend("k", expires_at=end)
    assert await store.get("s") is not None
    for key in ("toucan_guard:k", "toucan_guard:s"):
        assert 0 < int(valkey.ask("TTL", key)[1:-2]) <= 60
        valkey.ask("EXPIRE", key, "0")  # the end has come
    assert await store.get("s") is None
    assert await store.spend("k", expires_at=end)


@pytest.mark.anyio
async def test_a_text_that_is_damaged_or_of_another_version_is_no_session(valkey: Any, store: RedisStore) -> None:
    await store.put("s", _claims(), expires_at=time.time() + 60)
    await store.put("t", _claims(subject="u-2"), expires_at=time.time() + 60)
    text = valkey.ask("GET", "toucan_guard:s").split(b"\r\n")[1].decode()
    assert await store.get("s") is not None
    for changed in (text[:-1], text.replace('"schema":1', '"schema":2'), "", "null", text.partition("\n")[2]):
        valkey.ask("SET", "toucan_guard:s", changed)
        assert await store.get("s") is None
    valkey.ask("SET", "toucan_guard:t", text)
    assert await store.get("t") is None, "a session under another session's key"
    valkey.ask("DEL", "toucan_guard:s")
    valkey.ask("HSET", "toucan_guard:s", "a", "b")
    with pytest.raises(StoreUnavailable, match="refuses a command"):
        await store.get("s")


_SPENDER = """
import asyncio, sys, time
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.tokens.redis_store import RedisStore
async def main():
    store = RedisStore(sys.argv[2])
    await store.get("warm")
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        key, count, at = line.split()
        await asyncio.sleep(float(at) - time.time())
        async def one():
            try:
                return await store.spend(key, expires_at=time.time() + 60)
            except StoreUnavailable:
                return None
        got = await asyncio.gather(*(one() for _ in range(int(count))))
        print(got.count(True), got.count(False), got.count(None), flush=True)
    await store.aclose()
asyncio.run(main())
"""


def test_of_a_thousand_presentations_to_four_workers_one_wins(valkey: Any, workers: Any) -> None:
    group = workers(_SPENDER, 4, valkey.url)
    rounds = []
    for number in range(6):
        heard = [list(map(int, line.split())) for line in group.ask(f"token-{number} 250 {time.time() + 0.1}")]
        won, lost, unanswered = (sum(column) for column in zip(*heard, strict=True))
        assert won + lost + unanswered == 1000
        assert won <= 1, heard
        assert valkey.ask("EXISTS", f"toucan_guard:token-{number}") == b":1\r\n"
        # Of a machine that is busy some workers may run out of their quarter second, the winner's among them. They say
        # that they do not know, and never that they have won.
        assert won == 1 or unanswered, heard
        rounds.append(won)
    assert sum(rounds) >= 3, "positive control"


@pytest.mark.anyio
async def test_a_hundred_presentations_in_one_process_are_spent_once(store: RedisStore) -> None:
    await store.get("the first connection")
    got: list[bool | None] = []

    async def present() -> None:
        try:
            got.append(await store.spend("token", expires_at=time.time() + 60))
        except StoreUnavailable:
            got.append(None)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(present)
    assert len(got) == 100
    assert got.count(True) == 1 or (got.count(True) == 0 and None in got)
    assert not await store.spend("token", expires_at=time.time() + 60)


@pytest.mark.anyio
async def test_a_server_that_stops_is_told_at_once_and_used_again_when_it_is_back(
    valkey: Any, store: RedisStore
) -> None:
    assert await store.spend("before", expires_at=time.time() + 60)
    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(lambda number: store.get(f"open connections {number}"), number)
    valkey.stop()
    for _ in range(20):
        assert "cannot be reached" in await _refused(store)
    valkey.start()
    assert await store.spend("after", expires_at=time.time() + 60)
    assert not await store.spend("after", expires_at=time.time() + 60)


@pytest.mark.anyio
async def test_a_server_that_restarts_between_two_requests_is_not_noticed(valkey: Any, store: RedisStore) -> None:
    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(lambda number: store.get(f"open connections {number}"), number)
    valkey.stop()
    valkey.start()
    await anyio.sleep(0.05)  # the event loop hears of the connections' ends
    for number in range(16):
        assert await store.spend(f"k-{number}", expires_at=time.time() + 60)


@pytest.mark.anyio
async def test_a_server_that_freezes_is_told_in_a_quarter_second_and_used_again(valkey: Any, store: RedisStore) -> None:
    assert await store.spend("before", expires_at=time.time() + 60)
    valkey.freeze()
    try:
        for _ in range(3):
            assert "does not answer within" in await _refused(store)
    finally:
        valkey.thaw()
    assert await store.spend("after", expires_at=time.time() + 60)


@pytest.mark.anyio
async def test_after_timeouts_and_cancellations_nobody_gets_anothers_answer(valkey: Any, store: RedisStore) -> None:
    subjects = [f"u-{number}" for number in range(8)]
    for subject in subjects:
        await store.put(subject, _claims(subject=subject), expires_at=time.time() + 600)
    wrong: list[tuple[str, str]] = []
    right = 0

    async def read(subject: str, patience: float) -> None:
        nonlocal right
        with anyio.move_on_after(patience):
            try:
                found = await store.get(subject)
            except StoreUnavailable:
                return
            if found is None or found.subject != subject:
                wrong.append((subject, repr(found)))
            right += 1

    seeded = random.Random(1)
    for turn in range(12):
        if turn % 4 == 3:
            valkey.freeze()
        async with anyio.create_task_group() as group:
            for subject in subjects * 3:
                group.start_soon(read, subject, seeded.choice([0.0, 0.0005, 0.001, 0.003, 0.3, 1.0]))
            if turn % 4 == 3:
                await anyio.sleep(0.1)
                valkey.thaw()
    assert wrong == []
    assert right > 20, "positive control"
    deadline = time.monotonic() + 20
    while not await _answers(store, "nothing"):  # a busy machine is still at what nobody waits for any more
        assert time.monotonic() < deadline
    for subject in subjects:
        found = await store.get(subject)
        assert found is not None
        assert found.subject == subject


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_connections_are_bounded_and_cancellations_lose_none(valkey: Any, store: RedisStore) -> None:

    async def read() -> None:
        with anyio.move_on_after(0.001):
            await store.get("k")

    for _ in range(10):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(read)
    await asyncio.gather(*(store.get("k") for _ in range(100)))
    clients = valkey.ask("CLIENT", "LIST").count(b" addr=")
    assert 1 <= clients - 1 <= 16, "one is the connection that asks"
    await store.aclose()
    deadline = time.monotonic() + 20
    while valkey.ask("CLIENT", "LIST").count(b" addr=") > 1:
        assert time.monotonic() < deadline, "connections are left open"
        await asyncio.sleep(0.02)


def test_a_store_that_is_used_on_several_event_loops_works_on_each(valkey: Any) -> None:
    store = RedisStore(valkey.url)

    async def use() -> bool:
        try:
            return await store.spend("k", expires_at=time.time() + 60)
        finally:
            await store.aclose()

    assert [anyio.run(use, backend=backend) for backend in ("asyncio", "trio", "asyncio")] == [True, False, False]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("userinfo", "told"),
    [
        pytest.param(":wr0ng-s3cret@", "refuses the user name or password", id="a wrong password"),
        pytest.param("nobody:wr0ng-s3cret@", "refuses the user name or password", id="an unknown user"),
        pytest.param("", "wants one", id="no password"),
    ],
)
async def test_a_password_that_is_refused_is_told_and_not_shown(
    valkey: Any,
    open_store: Any,
    userinfo: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    store = open_store(f"valkey://{userinfo}127.0.0.1:{valkey.port}")
    assert told in await _refused(store)
    shown = caplog.text + "".join(capfd.readouterr())
    assert "wr0ng-s3cret" not in shown


@pytest.mark.anyio
async def test_a_user_with_few_rights_is_enough(valkey: Any, open_store: Any) -> None:
    valkey.ask(
        "ACL", "SETUSER", "guard", "on", ">pw", "~toucan_guard:*", "-@all", "+get", "+set", "+hget", "+hkeys", "+hset",
        "+hdel",
    )  # fmt: skip
    store = open_store(f"valkey://guard:pw@127.0.0.1:{valkey.port}")
    assert await store.spend("k", expires_at=time.time() + 60)
    await store.put("s", _claims(), expires_at=time.time() + 60)
    assert await store.get("s") == _claims()
    await revoke(store, ISSUER, Revocation(RevocationKind.TOKEN, "t", time.time() + 60), now=time.time())
    assert len(await store.warnings()) == 1, "it may not ask for the policy, and says so"
    valkey.ask("ACL", "SETUSER", "guard", "-set")
    assert "does not let its user" in await _refused(store)


@pytest.mark.anyio
async def test_a_server_that_evicts_is_warned_of_and_one_that_is_full_is_unavailable(
    valkey: Any, store: RedisStore
) -> None:
    valkey.ask("CONFIG", "SET", "appendonly", "yes")
    assert await store.warnings() == ()
    valkey.ask("CONFIG", "SET", "maxmemory", "1")
    assert await _refused(store) == "the store is full"
    valkey.ask("CONFIG", "SET", "maxmemory", "0")
    valkey.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "is not noeviction" in " ".join(await store.warnings())
    valkey.stop()
    with pytest.raises(StoreUnavailable):
        await store.warnings()


@pytest.mark.anyio
async def test_a_replica_is_not_written_to(valkey: Any, open_store: Any, make_valkey: Callable[..., Any]) -> None:
    replica = make_valkey()
    replica.ask("REPLICAOF", "127.0.0.1", str(valkey.port))
    store = open_store(replica.url)
    told = await _refused(store)
    assert told == "the store is a replica that cannot be written to"


def _certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{host}.pem"
    path.write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


def _relay(outside: ssl.SSLSocket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as inside:
        while True:
            ready = [outside] if outside.pending() else select.select([outside, inside], [], [], 5)[0]
            for one, other in ((outside, inside), (inside, outside)):
                if one in ready:
                    received = one.recv(65536)
                    if not received:
                        return
                    other.sendall(received)


@contextlib.contextmanager
def _behind_tls(valkey: Any, certificate: Path) -> Iterator[str]:
    """The server behind a TLS proxy, since the wheel's has no TLS of its own; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as outside:
                _relay(outside, valkey.port)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield valkey.url.replace("valkey://", "valkeys://").replace(
                f":{valkey.port}", f":{server.server_address[1]}"
            )
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "trusted", "works"),
    [
        pytest.param("127.0.0.1", True, True, id="a trusted certificate with the server's name"),
        pytest.param("127.0.0.1", False, False, id="a certificate that nobody vouches for"),
        pytest.param("127.0.0.2", True, False, id="a trusted certificate with another name"),
    ],
)
async def test_over_tls_the_certificate_is_checked(
    valkey: Any, open_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, works: bool
) -> None:
    certificate = _certificate(tmp_path, host)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with _behind_tls(valkey, certificate) as url:
        store = open_store(url)
        if works:
            assert await store.spend("k", expires_at=time.time() + 60)
        else:
            assert "cannot be reached" in await _refused(store)
        assert valkey.ask("EXISTS", "toucan_guard:k") == (b":1\r\n" if works else b":0\r\n")
        await store.aclose()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


async def _answers(store: RedisStore, *keys: str) -> bool:
    try:
        return all([await store.get(key) is None for key in keys])
    except StoreUnavailable:
        return False


@pytest.mark.anyio
async def test_a_cluster_works(make_valkey: Callable[..., Any], open_store: Any) -> None:
    buses = _free_ports(2)
    nodes = [make_valkey("--cluster-enabled", "yes", "--cluster-port", str(bus)) for bus in buses]
    for node, (first, last) in zip(nodes, (("0", "8191"), ("8192", "16383")), strict=True):
        assert node.ask("CLUSTER", "ADDSLOTSRANGE", first, last) == b"+OK\r\n"
    nodes[0].ask("CLUSTER", "SET-CONFIG-EPOCH", "1")
    nodes[1].ask("CLUSTER", "SET-CONFIG-EPOCH", "2")
    nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[1].port), str(buses[1]))
    deadline = time.monotonic() + 60
    while not all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes):
        assert time.monotonic() < deadline
        await anyio.sleep(0.1)
    store = open_store(nodes[0].url)
    keys = [f"k-{number}" for number in range(20)]
    while not await _answers(store, *keys):  # finding the nodes takes longer than one command may
        assert time.monotonic() < deadline
        await anyio.sleep(0.1)
    assert [await store.spend(key, expires_at=time.time() + 60) for key in keys] == [True] * 20
    assert [await store.spend(key, expires_at=time.time() + 60) for key in keys] == [False] * 20
    await store.put("s", _claims(), expires_at=time.time() + 60)
    assert await store.get("s") == _claims()
    await revoke(store, ISSUER, Revocation(RevocationKind.TOKEN, "t-1", time.time() + 60), now=time.time())
    copy = Revocations(store, issuer=ISSUER, staleness_seconds=5)
    await copy.refresh()
    assert isinstance(copy.judge(_claims(), time.time()), Deny)
    (told,) = await store.warnings()
    assert "set appendonly to yes" in told
    assert all(int(node.ask("DBSIZE")[1:-2]) > 0 for node in nodes), "both nodes have keys"


_JUDGE = """
import asyncio, json, sys, time
from types import MappingProxyType
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.tokens.redis_store import RedisStore
from toucan_guard.tokens.revoked import Revocations
async def main():
    store = RedisStore(sys.argv[2])
    copy = Revocations(store, issuer="https://host.example", staleness_seconds=float(sys.argv[3]))
    await copy.keep_fresh()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        ask = json.loads(line)
        claims = VerifiedClaims(
            issuer="https://host.example", audiences=("charts",), origins=None, grants=(), rls=MappingProxyType({}),
            not_before=None, region=None, algorithm="HS256", token_type="embed+jwt", session_seconds=None,
            expires_at=time.time() + 300, **ask["claims"],
        )
        noticed, last, served = False, 0.0, 0
        end = time.time() + ask["seconds"]
        while time.time() < end:
            began = time.time()
            await copy.keep_fresh()
            denied = copy.judge(claims, time.time())
            if denied is not None and denied.reason == ask["until"]:
                noticed = True
                break
            if denied is None:
                last, served = began, served + 1
                if served >= ask.get("enough", 10**9):
                    break
            await asyncio.sleep(0.005)
        print(json.dumps({"noticed": noticed, "last_served": last, "served": served}), flush=True)
    await store.aclose()
asyncio.run(main())
"""

STALENESS = 1.0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param("token", "t-1", id="a token"),
        pytest.param("subject", "u-1", id="a subject"),
        pytest.param("tenant", "acme", id="a tenant"),
        pytest.param("key", "k-1", id="a key"),
        pytest.param("issued_before", None, id="what was issued before now"),
    ],
)
def test_every_worker_notices_a_revocation_within_the_declared_time(
    valkey: Any, workers: Any, kind: str, value: str | None
) -> None:
    group = workers(_JUDGE, 4, valkey.url, str(STALENESS))
    now = time.time()
    claims = {"subject": "u-1", "token_id": "t-1", "tenant": "acme", "key_id": "k-1", "issued_at": now - 10}
    serve = {"claims": claims, "until": "token_revoked", "seconds": 30}
    before = [json.loads(line) for line in group.ask(json.dumps({**serve, "enough": 10}))]
    assert all(not heard["noticed"] and heard["served"] for heard in before), "positive control"

    group.tell(json.dumps(serve))
    revocation = Revocation(
        RevocationKind(kind), value or str(int(now)), end_of_life(now, lifetime_seconds=60, leeway_seconds=30)
    )

    async def from_outside() -> float:
        store = RedisStore(valkey.url)
        await revoke(store, ISSUER, revocation, now=time.time())
        await store.aclose()
        return time.time()

    revoked_at = anyio.run(from_outside)
    for line in group.hear():
        heard = json.loads(line)
        assert heard["noticed"]
        assert heard["last_served"] <= revoked_at + STALENESS, "a request that came later was served"


def test_workers_close_when_the_store_is_gone_for_too_long_and_open_again(valkey: Any, workers: Any) -> None:
    group = workers(_JUDGE, 4, valkey.url, str(STALENESS))
    claims = {"subject": "u-1", "token_id": "t-1", "tenant": "acme", "key_id": "k-1", "issued_at": time.time()}
    valkey.stop()
    stopped_at = time.time()
    for line in group.ask(json.dumps({"claims": claims, "until": "store_unavailable", "seconds": 20})):
        heard = json.loads(line)
        assert heard["noticed"]
        assert heard["last_served"] <= stopped_at + STALENESS
    valkey.start()
    for line in group.ask(json.dumps({"claims": claims, "until": "token_revoked", "seconds": 30, "enough": 10})):
        heard = json.loads(line)
        assert not heard["noticed"]
        assert heard["served"], "served again, without a restart"


@pytest.mark.anyio
async def test_a_full_list_of_revocations_is_read_in_time(valkey: Any, store: RedisStore) -> None:
    now = time.time()
    first = Revocation(RevocationKind.TOKEN, "first", now + 3600)
    await revoke(store, ISSUER, first, now=now)
    hash_key = valkey.ask("KEYS", "toucan_guard:revoked:*").split(b"\r\n")[2].decode()
    entries = [Revocation(RevocationKind.TOKEN, f"{n:036}", now + 3600).to_entry() for n in range(MAX_REVOCATIONS - 1)]
    for start in range(0, len(entries), 500):
        pairs = [word for entry in entries[start : start + 500] for word in (entry, "1")]
        valkey.ask("HSET", hash_key, *pairs)
    with pytest.raises(ValueError, match="in force already"):
        await revoke(store, ISSUER, Revocation(RevocationKind.TOKEN, "one more", now + 60), now=now)
    copy = Revocations(store, issuer=ISSUER, staleness_seconds=5)
    await copy.refresh()
    for token_id, revoked in (("first", True), (f"{7:036}", True), ("other", False)):
        assert isinstance(copy.judge(_claims(token_id=token_id), time.time()), Deny) is revoked
