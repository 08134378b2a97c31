"""Puts the demo together: four web servers in one process, each on an origin of its own."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import data
import uvicorn
import viz
from cryptography.hazmat.primitives.asymmetric import ec
from data import DemoError
from jwt.algorithms import ECAlgorithm
from portal import AUDIENCE, DELTA, ISSUER, UNITED, Portal
from starlette.types import ASGIApp
from stranger import Stranger

from toucan_guard import GuardSettings

# uvicorn reports every refused WebSocket as if the app had forgotten to answer it; the guard has answered.
logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing handshake" not in record.getMessage())

# Browsers resolve every name under .localhost to this machine, and each name is a site of its own.
HOSTS = ("viz.localhost", "united.localhost", "delta.localhost", "stranger.localhost")
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Demo:
    """The running demo, and what its scenes need to know of it."""

    viz: str
    stranger: str
    united: Portal
    delta: Portal
    signing_keys: Mapping[str, Mapping[str, Any]]
    audit: Path


@contextmanager
def running(port_base: int, folder: Path, audit: Path | None = None) -> Iterator[Demo]:
    """Run the demo while the block runs.

    Args:
        port_base: The first of four ports in a row; 0 takes any four that are free.
        folder: For the audit file and the list of origins; belongs to this run.
        audit: Where audit lines go, if not into the folder.

    Raises:
        DemoError: A port is taken, or the data is not there.
        ConfigError: The guard refuses its settings.
    """
    url = data.database_url()
    on_postgres = url.get_backend_name() == "postgresql"
    if on_postgres:
        postgres = _postgres()
        postgres.prepare(url)
    with ExitStack() as stack:
        sockets = [stack.enter_context(_listen(port_base and port_base + index)) for index in range(len(HOSTS))]
        origins = [f"http://{host}:{sock.getsockname()[1]}" for host, sock in zip(HOSTS, sockets, strict=True)]
        charts, united_origin, delta_origin, stranger_origin = origins

        keys = {airline.carrier: _key_pair(f"{airline.brand}-1") for airline in (UNITED, DELTA)}
        tenants = folder / "tenant-origins.toml"
        tenants.write_text(f'UA = ["{united_origin}"]\nDL = ["{delta_origin}"]\n', encoding="utf-8")
        settings = GuardSettings(
            environment="development",  # http and localhost are for trying out
            allowed_origins=[united_origin, delta_origin],
            public_origin=[charts],
            tenant_origins_file=tenants,
            issuer=ISSUER,
            audience=AUDIENCE,
            keys=json.dumps({"keys": [public for _, public in keys.values()]}),
            token_carriers=["authorization", "x-embed-token", "websocket", "session"],
            rls_policy=Path(__file__).parent / "policy.toml",
            exempt_paths=["/healthz", "/widget.js"],
            exempt_prefixes=["/assets"],
            audit=str(audit or folder / "audit.jsonl"),
            # PostgreSQL checks with it what it is told. One run, one key; a deployment keeps its own.
            pg_context_key=secrets.token_urlsafe(48) if on_postgres else None,
        )
        assert settings.policy is not None  # noqa: S101 - a policy file was named above
        united, delta = (
            Portal(airline, origin=origin, charts=charts, signing_key=keys[airline.carrier][0], policy=settings.policy)
            for airline, origin in ((UNITED, united_origin), (DELTA, delta_origin))
        )
        engine = postgres.guarded_engine(url, settings) if on_postgres else data.prepare(url)
        stack.callback(engine.dispose)
        apps = (viz.create_app(settings, engine), united.app, delta.app, Stranger(united, charts=charts).app)
        for app, sock in zip(apps, sockets, strict=True):
            stack.enter_context(_serving(app, sock))
        yield Demo(
            viz=charts,
            stranger=stranger_origin,
            united=united,
            delta=delta,
            signing_keys={carrier: private for carrier, (private, _) in keys.items()},
            audit=Path(settings.audit),
        )


def _postgres() -> ModuleType:
    """PostgreSQL needs a driver, which the rest of the demo does without."""
    try:
        import on_postgres
    except ModuleNotFoundError as missing:
        if missing.name != "psycopg":
            raise
        raise DemoError("PostgreSQL needs its driver: pip install 'toucan-guard[postgres]'") from None
    return on_postgres


def _listen(port: int) -> socket.socket:
    """A socket on this machine alone: a demo is nothing for the network."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise DemoError(f"port {port} cannot be used ({error.strerror}): choose others with --port-base") from None
    sock.listen(128)
    return sock


@contextmanager
def _serving(app: ASGIApp, sock: socket.socket) -> Iterator[None]:
    """One web server in a thread, up and answering while the block runs."""
    config = uvicorn.Config(app, ws="websockets-sansio", log_config=None, access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    give_up = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > give_up:
            raise DemoError("a web server of the demo did not start; its error stands above")
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def _key_pair(kid: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An ES256 key pair as JWKs: the private half for a portal, the public half for the guard."""
    key = ec.generate_private_key(ec.SECP256R1())
    extra = {"kid": kid, "alg": "ES256", "use": "sig"}
    return (
        {**ECAlgorithm.to_jwk(key, as_dict=True), **extra},
        {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), **extra},
    )
