"""What PostgreSQL is told about one embed: the claims, signed, good for a minute and for one backend.

The text goes into a setting of the transaction, which whoever can run SQL can write as well. So it is
signed, and the database checks it in one function (``postgres_policies.py``) with a key that only that
function's owner can read:

``<key id, 16 hex digits>.<HMAC-SHA-256 of the rest, 64 hex digits>.<JSON, ASCII only>``

The JSON holds each usable attribute as text that PostgreSQL casts, and what is ours under names that no
attribute can have: ``$embed`` (whose rows these are), ``$end`` (seconds since the epoch) and ``$pid``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from toucan_guard.core.errors import ConfigError, NoEmbedContext
from toucan_guard.core.row_filter import RowFilter

CONTEXT_SECONDS: Final = 60
MIN_KEY_BYTES: Final = 32
_BLOCK: Final = 64  # of SHA-256 (RFC 2104 §2)

Pooler = Literal["none", "transaction"]
POOLERS: Final[tuple[Pooler, ...]] = ("none", "transaction")


class DatabaseContext:
    """The key that signs what the database sees, and how it is reached.

    Args:
        key: At least 32 bytes; the same on every worker, and in the database (``toucan-guard rls-sql --set-key``).
        pooler: ``transaction`` where a pooler hands each transaction to another backend: the context then
            names no backend.
        leeway_seconds: How long after its end a token is still accepted, as the guard has it.

    Raises:
        ConfigError: The key is too short, or the pooler unknown.
    """

    __slots__ = ("_key", "_leeway", "key_id", "pooler")

    def __init__(self, key: str | bytes, *, pooler: Pooler = "none", leeway_seconds: float = 0) -> None:
        secret = key.encode() if isinstance(key, str) else bytes(key)
        length = len(secret)
        self._key = hashlib.sha256(secret).digest() if length > _BLOCK else secret
        del key, secret  # a traceback that prints local variables shows none, and us as we are
        self._leeway = leeway_seconds
        self.pooler: Pooler = pooler
        self.key_id = hmac.digest(self._key, b"toucan_guard context key", "sha256").hex()[:16]
        if length < MIN_KEY_BYTES:
            raise ConfigError(f"the context key has less than {MIN_KEY_BYTES} bytes: make a longer one")
        if pooler not in POOLERS:
            raise ConfigError(f"the pooler must be {' or '.join(POOLERS)}")

    def pads(self) -> tuple[bytes, bytes]:
        """The key as the database keeps it: the inner and the outer block of HMAC (RFC 2104 §2)."""
        block = self._key.ljust(_BLOCK, b"\0")
        return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)

    def sign(self, row_filter: RowFilter, *, now: float, backend_pid: int) -> str:
        """The setting's value for one transaction of one embed.

        Args:
            row_filter: Whose rows.
            now: Seconds since the epoch.
            backend_pid: The database process that the connection talks to; not used with a pooler.

        Raises:
            NoEmbedContext: The token has ended.
        """
        end = now + CONTEXT_SECONDS
        if row_filter.expires_at is not None:
            until = row_filter.expires_at + self._leeway
            if not until > now:
                raise NoEmbedContext("the token has ended, and with it what the database may show")
            end = min(end, until)
        content: dict[str, object] = {"$embed": row_filter.fingerprint, "$end": math.floor(end * 1000) / 1000}
        if self.pooler == "none":
            content["$pid"] = backend_pid
        for name, value in row_filter.attributes.items():
            if isinstance(value, tuple):
                # An empty list opens nothing, whatever the operator: it is as if it were absent.
                if value:
                    content[name] = _array(value)
            else:
                content[name] = _text(value)
        body = json.dumps(content, separators=(",", ":"))
        mac = hmac.digest(self._key, body.encode("ascii"), "sha256").hex()
        return f"{self.key_id}.{mac}.{body}"

    def __repr__(self) -> str:
        return f"DatabaseContext(key_id={self.key_id!r}, pooler={self.pooler!r})"


def _text(value: object) -> str:
    """One value as PostgreSQL reads it, whatever the session's settings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, int | float | str | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not an attribute's value")


def _array(values: tuple[object, ...]) -> str:
    """An array as PostgreSQL reads it; each item is quoted, so that NULL is a word."""
    quoted = (_text(value).replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"
