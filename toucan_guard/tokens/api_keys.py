"""API keys at work: who presents one, what it may sign with, and which of its tokens still hold.

Stored is an HMAC-SHA-256 of each key under a pepper that stands elsewhere, so the file alone gives nobody a key and
nobody's guesses can be tried on it. Each key signs with an Ed25519 key of its own, made from the service's key and the
key's id; a verifier needs the file and the service's key. A key that is retired leaves the ring, and with it every
token that it made stops working, remembered or not.

The file is followed: a thread of its own looks at it every second, so that no request ever waits for it, and a worker
that serves nobody learns of a retired key as soon as one that does. A file that cannot be read leaves everything as it
is, and says so in the log.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import ref

import anyio.to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from toucan_guard.core.api_key import is_key_id, parse_api_key
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.token_policy import MAX_LEEWAY_SECONDS
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry, pepper_check
from toucan_guard.tokens.api_key_file import read_api_keys
from toucan_guard.tokens.key_checks import secret_problem
from toucan_guard.tokens.keys import KeyRing, SigningKey
from toucan_guard.whole_file import read_whole

LOOK_SECONDS: Final = 1.0
MIN_SECRET_BYTES: Final = 32

_log: Final = logging.getLogger("toucan_guard")
_ALGORITHM: Final = "EdDSA"
_NOBODY: Final = bytes(32)
# The granularity of a file system's times: a file that was written just now may change without looking changed.
_SETTLED_SECONDS: Final = 3.0
STATES: Final = {
    "retired": "the API key was retired",
    "early": "the API key is not valid yet",
    "expired": "the API key has expired",
}
_PAUSE_SECONDS: Final = 0.25  # so that made-up key ids cost nothing
_INVALID: Final = "the API key is not valid"
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024  # a device such as /dev/zero must not fill the memory
_Stamp = tuple[int, int, int, int]


def signing_key(service_key: bytes, key_id: str) -> SigningKey:
    """The key that an API key's tokens are signed with (HKDF, RFC 5869, of the service's key and the key's id)."""
    seed = HKDF(SHA256(), 32, salt=None, info=b"toucan_guard token service, Ed25519 seed of " + key_id.encode())
    private = Ed25519PrivateKey.from_private_bytes(seed.derive(service_key))
    return SigningKey.load(private, kid=key_id, algorithm=_ALGORITHM)


def api_key_digest(pepper: bytes, text: str) -> bytes:
    """What is stored of an API key."""
    return hmac.digest(pepper, b"toucan_guard API key:" + text.encode("ascii"), "sha256")


def service_secret(text: str) -> bytes:
    """The bytes of a pepper or a service key.

    Raises:
        ConfigError: It is short, known or padded.
    """
    raw = text.encode("utf-8")
    problem = secret_problem(raw, MIN_SECRET_BYTES)
    if problem is not None:
        raise ConfigError(problem)
    return raw


class ApiKeys:
    """The API keys of a file, and the ring of the keys that their tokens are verified with.

    Args:
        path: The file.
        service_key: What the signing keys are made from.
        pepper: What the digests are made with; None where keys are not presented but only their tokens verified.
        development: Whether ``http`` and loopback origins are in order in limits.
        attributes: Those of the row-level policy; None where there is none.
        clock: Seconds since the epoch.
        look_seconds: How often the file is looked at.

    Raises:
        ConfigError: The file has mistakes, or its keys were made with another pepper.
    """

    def __init__(
        self,
        path: Path,
        *,
        service_key: bytes,
        pepper: bytes | None = None,
        development: bool = False,
        attributes: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._path: Final = path
        # Not kept as they are: they are the secrets themselves, which whoever looks would see.
        self._signs_with: Final[Callable[[str], SigningKey]] = lambda key_id: signing_key(service_key, key_id)
        self._digest_of: Final[Callable[[str], bytes] | None] = (
            None if pepper is None else lambda text: api_key_digest(pepper, text)
        )
        self._pepper_check: Final = None if pepper is None else pepper_check(pepper)
        self._development: Final = development
        self._attributes: Final = attributes
        self._clock: Final = clock
        self._look_seconds: Final = look_seconds
        self._watched_by: int | None = None
        self._next_look = 0.0
        self._end_of_watch = threading.Event()
        self._lock = threading.Lock()
        self._reported: tuple[str, ...] = ()
        self._stamp, text = _read(path)
        self._text_digest = hashlib.sha256(text.encode()).digest()
        self._book = self._understood(text)
        self._ring, self._ring_ends = self._ring_of(self._book)

    def __repr__(self) -> str:
        if not hasattr(self, "_book"):  # a traceback that prints local variables: the file was no good
            return "ApiKeys()"
        return f"ApiKeys({len(self._book.keys)} keys)"

    # The file is what there is: a token whose key it does not have is refused for good.
    complete: Final = True

    @property
    def ring(self) -> KeyRing | None:
        """The verification keys of every API key that was not retired and has not long expired; see ``KeySource``."""
        self._watch_if_nobody_does()
        return self._ring

    async def start(self) -> None:
        """See ``KeySource``: begins to follow the file."""
        self._watch_if_nobody_does()

    async def look_again(self, kid: str | None) -> None:
        """See ``KeySource``: another machine may know a new key a moment earlier, so its first token is looked for."""
        if not is_key_id(kid) or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _PAUSE_SECONDS
        with suppress(Exception):  # the next look of the watch says what is wrong
            await anyio.to_thread.run_sync(self.look)

    def entry(self, key_id: str | None) -> ApiKeyEntry | None:
        """What is known of a key, or None."""
        return None if key_id is None else self._current().keys.get(key_id)

    @property
    def entries(self) -> tuple[ApiKeyEntry, ...]:
        """What is known of every key."""
        return tuple(self._current().keys.values())

    def authenticate(self, presented: str, *, now: float) -> ApiKeyEntry | Deny:
        """Whose API key this is.

        Every key that is well-formed costs the same: one HMAC and one comparison, with a digest that no key has
        where nobody knows its id. Unknown, wrong, expired, early and retired keys get one answer; the fact ``cause``
        tells them apart in the record, and the fact ``key_id`` names the key.

        Raises:
            ConfigError: There is no pepper; whatever is presented is an entry or a refusal.
        """
        if self._digest_of is None:
            raise ConfigError("TOUCAN_GUARD_API_KEY_PEPPER is required where API keys are presented")
        key = parse_api_key(presented)
        if key is None:
            return _refused("the API key is not well-formed")
        entry = self._current().keys.get(key.key_id)
        stored = _NOBODY if entry is None else entry.digest
        right = hmac.compare_digest(self._digest_of(key.text), stored)
        if entry is None:
            return _refused("no API key has this id", key.key_id)
        if not right:
            return _refused("the API key is not the one of this id", key.key_id)
        state = entry.state_at(now)
        return entry if state == "valid" else _refused(STATES[state], key.key_id)

    def signing_key(self, key_id: str) -> SigningKey:
        """The key that signs for an API key."""
        return self._signs_with(key_id)

    def look(self) -> bool:
        """Look at the file now, and at the clock: a key whose end has come leaves the ring. Whether something changed.

        A file that is broken changes nothing, and is reported once.
        """
        with self._lock:
            over = self._clock() >= self._ring_ends
            if over:
                self._ring, self._ring_ends = self._ring_of(self._book)
            return self._look_at_the_file() or over

    def _look_at_the_file(self) -> bool:
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp and time.time() - stamp[0] / 1e9 > _SETTLED_SECONDS:
                return False
            self._stamp, text = _read(self._path)
            digest = hashlib.sha256(text.encode()).digest()
            if digest == self._text_digest:
                self._reported = ()
                return False
            self._text_digest = digest
            book = self._understood(text)
            ring, ends = self._ring_of(book)
        except ConfigError as error:
            self._report(error.problems)
            return False
        self._book, self._ring, self._ring_ends, self._reported = book, ring, ends, ()
        _log.info("toucan_guard: the API keys were read anew, %d of them", len(book.keys))
        return True

    def close(self) -> None:
        """Stop following the file, until somebody asks again."""
        self._watched_by = None
        self._end_of_watch.set()

    def _report(self, problems: tuple[str, ...]) -> None:
        if problems != self._reported:
            self._reported = problems
            for problem in problems:
                _log.error("toucan_guard: TOUCAN_GUARD_API_KEYS_FILE %s; the keys stay as they were", ascii(problem))

    def _current(self) -> ApiKeyBook:
        self._watch_if_nobody_does()
        return self._book

    def _understood(self, text: str) -> ApiKeyBook:
        book = read_api_keys(text, development=self._development, attributes=self._attributes)
        if self._pepper_check is not None and not hmac.compare_digest(self._pepper_check, book.pepper_check):
            raise ConfigError(
                "holds keys that were made with another pepper: set the TOUCAN_GUARD_API_KEY_PEPPER that they were "
                "made with, or begin a new file"
            )
        return book

    def _ring_of(self, book: ApiKeyBook) -> tuple[KeyRing | None, float]:
        """The ring of now, and when the next of its keys is over.

        A token that was made when its key had a later end ends with the key all the same, but for the leeway.
        """
        over = self._clock() - MAX_LEEWAY_SECONDS
        living = [
            entry
            for entry in book.keys.values()
            if entry.retired is None and (entry.not_after is None or entry.not_after > over)
        ]
        ends = min((entry.not_after for entry in living if entry.not_after is not None), default=math.inf)
        keys = [self.signing_key(entry.key_id).verification_key() for entry in living]
        return KeyRing(keys) if keys else None, ends + MAX_LEEWAY_SECONDS

    def _watch_if_nobody_does(self) -> None:
        # Threads do not survive a fork, and servers fork.
        if self._watched_by != os.getpid():
            self._watch()

    def _watch(self) -> None:
        # Whoever comes second here ends the watch of whoever came first, so that one is left. A lock may have been
        # taken by a thread that the fork left behind.
        self._lock = threading.Lock()
        self._end_of_watch.set()
        end = self._end_of_watch = threading.Event()
        watched = ref(self, lambda _: end.set())
        follower = threading.Thread(
            target=_follow, args=(watched, end, self._look_seconds), name="toucan_guard API keys", daemon=True
        )
        try:
            follower.start()
        except RuntimeError:  # the process has no room for one now, and the next request tries again
            self._report(("cannot be followed, because no thread can be started",))
        else:
            self._watched_by = os.getpid()


def _follow(watched: ref[ApiKeys], end: threading.Event, seconds: float) -> None:
    """Look at the file until nobody needs it any more."""
    while not end.wait(seconds):
        keys = watched()
        if keys is None:
            return
        try:
            keys.look()
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave retired keys alive
            _log.error("toucan_guard: the API keys cannot be followed (%s)", type(error).__name__)
        del keys


def _refused(cause: str, key_id: str | None = None) -> Deny:
    facts = {"cause": cause} if key_id is None else {"cause": cause, "key_id": key_id}
    return Deny(Reason.API_KEY_INVALID, _INVALID, facts=facts)


def _stamp(path: Path) -> _Stamp:
    try:
        return _stamp_of(path.stat())
    except OSError as error:
        raise ConfigError(_unreadable(error)) from None


def _stamp_of(found: os.stat_result) -> _Stamp:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _read(path: Path) -> tuple[_Stamp, str]:
    """The text of the file and the stamp that belongs to it; errors name no path and show no content."""
    try:
        state, content = read_whole(path, most=_MAX_FILE_BYTES)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError("names a file of more than 16 MiB: check the path")
        return _stamp_of(state), content.decode("utf-8")
    except OSError as error:
        raise ConfigError(_unreadable(error)) from None
    except UnicodeDecodeError:
        raise ConfigError("names a file that is not UTF-8 text: check the path") from None


def _unreadable(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError)
    mend = (
        "make the first key with `toucan-guard apikey create`, or check the path"
        if missing
        else "check path and rights"
    )
    return f"names a file that cannot be read ({error.strerror}): {mend}"
