"""API keys at work: one answer for every key that does not hold, the same work for each, a file that is followed."""

from __future__ import annotations

import hmac
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.core.api_key import ApiKey, format_api_key
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import encode_segment
from toucan_guard.tokens import api_keys
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry
from toucan_guard.tokens.api_key_file import write_api_keys
from toucan_guard.tokens.api_key_store import change_book
from toucan_guard.tokens.api_keys import ApiKeys, api_key_digest, service_secret, signing_key
from toucan_guard.tokens.keys import KeyRing

# A machine under load is no finding.
calm = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PEPPER = b"a pepper of this test, 32 bytes long"
SERVICE_KEY = b"a service key of this test, 32 bytes"
NOW = 1_800_000_000.0
KEY = format_api_key("live", "0123456789ab", bytes(range(32)))
OTHER = format_api_key("live", "ba9876543210", bytes(range(1, 33)))


def entry(key: ApiKey = KEY, **changes: Any) -> ApiKeyEntry:
    return replace(ApiKeyEntry(key.key_id, key.environment, api_key_digest(PEPPER, key.text)), **changes)


def write(path: Path, *entries: ApiKeyEntry) -> None:
    book = ApiKeyBook.empty(PEPPER)
    for each in entries:
        book = book.with_entry(each)
    change_book(path, lambda _: book, pepper=PEPPER)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "keys.json", entry())
    return tmp_path / "keys.json"


@pytest.fixture
def open_keys(path: Path) -> Iterator[Callable[..., ApiKeys]]:
    opened: list[ApiKeys] = []

    def make(**changes: Any) -> ApiKeys:
        given_options: dict[str, Any] = {"service_key": SERVICE_KEY, "pepper": PEPPER, "clock": lambda: NOW, **changes}
        opened.append(ApiKeys(path, **given_options))
        return opened[-1]

    yield make
    for keys in opened:
        keys.close()


def settled(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestAuthentication:
    def test_whoever_looks_sees_no_secret(self, open_keys: Any) -> None:
        keys = open_keys()
        for secret in (PEPPER, SERVICE_KEY):
            assert repr(secret)[2:-1] not in repr(keys) + repr(vars(keys))

    def test_what_is_wrong_with_the_file_is_told_where_local_variables_are_printed(
        self, path: Path, open_keys: Any
    ) -> None:
        path.write_text("no keys")
        with pytest.raises(ConfigError) as raised:
            open_keys()
        frames = traceback.TracebackException.from_exception(raised.value, capture_locals=True).stack
        assert [frame.locals["self"] for frame in frames if frame.name == "__init__" and frame.locals] == ["ApiKeys()"]

    def test_a_key_is_its_entry(self, open_keys: Any) -> None:
        assert open_keys().authenticate(KEY.text, now=NOW) == entry()

    @pytest.mark.parametrize(
        ("stored", "presented", "cause"),
        [
            pytest.param(entry(), "nonsense", "not well-formed", id="no key at all"),
            pytest.param(entry(), OTHER.text, "no API key has this id", id="an unknown id"),
            pytest.param(
                entry(), format_api_key("live", KEY.key_id, bytes(32)).text, "not the one of this id", id="a wrong key"
            ),
            pytest.param(
                entry(),
                format_api_key("test", KEY.key_id, bytes(range(32))).text,
                "not the one",
                id="another environment",
            ),
            pytest.param(entry(not_before=NOW + 1), KEY.text, "not valid yet", id="too early"),
            pytest.param(entry(not_after=NOW), KEY.text, "has expired", id="expired"),
            pytest.param(entry(retired=NOW - 1), KEY.text, "was retired", id="retired"),
        ],
    )
    def test_what_does_not_hold_looks_the_same_to_its_holder(
        self, stored: ApiKeyEntry, presented: str, cause: str, path: Path, open_keys: Any
    ) -> None:
        write(path, stored)
        refused = open_keys().authenticate(presented, now=NOW)
        assert isinstance(refused, Deny)
        assert (refused.reason, refused.detail) == (Reason.API_KEY_INVALID, "the API key is not valid")
        assert cause in refused.facts["cause"]
        assert presented not in repr(refused)

    def test_every_well_formed_key_costs_the_same(
        self, open_keys: Any, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(path, entry(), entry(OTHER, retired=NOW))
        keys = open_keys()
        work: list[tuple[str, int]] = []
        digest, compare = hmac.digest, hmac.compare_digest

        def counted_digest(key: bytes, message: bytes, name: str) -> bytes:
            work.append(("hmac", len(message)))
            return digest(key, message, name)

        def counted_compare(one: bytes, two: bytes) -> bool:
            work.append(("compare", len(one) + len(two)))
            return compare(one, two)

        monkeypatch.setattr(hmac, "digest", counted_digest)
        monkeypatch.setattr(hmac, "compare_digest", counted_compare)
        done = []
        for presented in (
            KEY.text,
            OTHER.text,
            format_api_key("live", KEY.key_id, bytes(32)).text,
            format_api_key("live", "x" * 12, bytes(32)).text,
        ):
            work.clear()
            keys.authenticate(presented, now=NOW)
            done.append(list(work))
        assert done == [[("hmac", len(KEY.text) + 21), ("compare", 64)]] * 4

    @calm
    @given(st.text() | st.binary(max_size=90).map(lambda raw: f"tgk_live_{raw.decode('latin-1')}"))
    def test_any_text_is_refused(self, presented: str) -> None:
        keys = ApiKeys.__new__(ApiKeys)
        keys._digest_of = lambda text: api_key_digest(PEPPER, text)  # type: ignore[misc]
        keys._book, keys._watched_by = ApiKeyBook.empty(PEPPER), os.getpid()
        assert isinstance(keys.authenticate(presented, now=NOW), Deny)

    def test_every_changed_character_is_refused(self, open_keys: Any) -> None:
        keys = open_keys()
        for place, character in enumerate(KEY.text):
            for other in {character.swapcase(), "0", "z", "_", " "} - {character}:
                changed = KEY.text[:place] + other + KEY.text[place + 1 :]
                assert isinstance(keys.authenticate(changed, now=NOW), Deny)

    def test_without_a_pepper_nobody_can_present_a_key(self, open_keys: Any) -> None:
        with pytest.raises(ConfigError, match="API_KEY_PEPPER"):
            open_keys(pepper=None).authenticate(KEY.text, now=NOW)


class TestSigning:
    def test_each_key_signs_with_a_key_of_its_own(self) -> None:
        one, again, other = (signing_key(SERVICE_KEY, name) for name in ("a" * 12, "a" * 12, "b" * 12))
        elsewhere = signing_key(PEPPER, "a" * 12)
        assert one.verification_key() == again.verification_key()
        assert len({repr(key.verification_key().public_jwk()["x"]) for key in (one, other, elsewhere)}) == 3
        assert (one.kid, one.algorithm) == ("a" * 12, "EdDSA")

    def test_the_derivation_does_not_change(self) -> None:
        # Tokens of one release must be verified by the next. HKDF written out (RFC 5869 §2), and its value kept.
        extracted = hmac.digest(bytes(32), b"0" * 32, "sha256")
        info = b"toucan_guard token service, Ed25519 seed of 0123456789ab"
        seed = hmac.digest(extracted, info + b"\x01", "sha256")
        by_hand = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        jwk = signing_key(b"0" * 32, "0123456789ab").verification_key().public_jwk()
        assert jwk["x"] == "0k1dr0j23sMOy3_nXcN2jYYFJY8n0HKcsypD4vzYwks"
        assert encode_segment(by_hand).decode() == jwk["x"]

    def test_the_ring_holds_what_may_still_hold(self, path: Path, open_keys: Any) -> None:
        write(path, entry(), entry(OTHER, retired=NOW))
        (key,) = open_keys().ring.keys
        assert key == signing_key(SERVICE_KEY, KEY.key_id).verification_key()

    @pytest.mark.parametrize(("ended", "held"), [(NOW + 1, 1), (NOW - 59, 1), (NOW - 61, 0)])
    def test_a_key_that_ended_long_ago_is_gone(self, ended: float, held: int, path: Path, open_keys: Any) -> None:
        write(path, entry(not_after=ended))
        ring = open_keys().ring
        assert (0 if ring is None else len(ring)) == held

    def test_a_key_that_begins_later_is_known_already(self, path: Path, open_keys: Any) -> None:
        write(path, entry(not_before=NOW + 10_000))
        assert len(open_keys().ring) == 1

    def test_a_verifier_needs_no_pepper(self, open_keys: Any) -> None:
        assert isinstance(open_keys(pepper=None).ring, KeyRing)

    @pytest.mark.parametrize("secret", ["", "short", "changeme", "a" * 40, " " + "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEa"])
    def test_a_weak_secret_is_refused(self, secret: str) -> None:
        with pytest.raises(ConfigError):
            service_secret(secret)


class TestFollowing:
    def test_a_key_that_is_retired_leaves_the_ring(self, path: Path, open_keys: Any) -> None:
        keys = open_keys(look_seconds=0.01)
        before = keys.ring
        assert before is keys.ring
        write(path, entry(retired=NOW))
        settled(lambda: keys.ring is None)
        assert isinstance(keys.authenticate(KEY.text, now=NOW), Deny)

    @pytest.mark.parametrize(
        "broken", [b"", b"{", b"\xff", b'{"version": 2}', write_api_keys(ApiKeyBook.empty(SERVICE_KEY)).encode()]
    )
    def test_a_broken_file_changes_nothing_and_is_reported_once(
        self, broken: bytes, path: Path, open_keys: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = open_keys(look_seconds=3600)
        before = keys.ring
        path.write_bytes(broken)
        with caplog.at_level(logging.INFO, logger="toucan_guard"):
            assert [keys.look(), keys.look(), keys.look()] == [False] * 3
        assert keys.ring is before
        assert keys.authenticate(KEY.text, now=NOW) == entry()
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(set(errors)) == len(errors) >= 1
        assert "TOUCAN_GUARD_API_KEYS_FILE" in errors[0]
        path.unlink()
        write(path, entry(), entry(OTHER))
        assert keys.look()
        assert len(keys.ring) == 2

    def test_a_file_that_is_gone_changes_nothing(
        self, path: Path, open_keys: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = open_keys()
        path.unlink()
        assert not keys.look()
        assert not keys.look()
        assert len(keys.ring) == 1
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        write(path, entry())  # and back again, as it was
        keys.look()
        path.unlink()
        keys.look()
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2

    def test_a_file_that_says_the_same_is_the_same_ring(self, path: Path, open_keys: Any) -> None:
        keys = open_keys()
        before = keys.ring
        path.touch()
        assert not keys.look()
        assert keys.ring is before

    def test_a_change_that_leaves_size_and_time_alone_is_noticed(self, path: Path, open_keys: Any) -> None:
        keys = open_keys()
        stat = path.stat()
        content = path.read_text()
        path.write_text(content.replace(api_key_digest(PEPPER, KEY.text).hex(), "0" * 64))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert keys.look()

    def test_a_key_whose_end_comes_leaves_the_ring_though_nobody_touches_the_file(
        self, path: Path, open_keys: Any
    ) -> None:
        write(path, entry(not_after=NOW + 10), entry(OTHER))
        now = [NOW]
        keys = open_keys(clock=lambda: now[0], look_seconds=3600)
        assert len(keys.ring) == 2
        now[0] = NOW + 10 + 59  # its tokens may still be in their leeway
        keys.look()
        assert len(keys.ring) == 2
        now[0] = NOW + 10 + 60
        assert keys.look()
        assert [key.kid for key in keys.ring.keys] == [OTHER.key_id]
        assert not keys.look()

    def test_nobody_is_left_when_the_keys_are(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        follow, followed = api_keys._follow, []

        def noted(watched: ref[ApiKeys], end: threading.Event, seconds: float) -> None:
            followed.append((id(watched()), threading.current_thread()))
            follow(watched, end, seconds)

        monkeypatch.setattr(api_keys, "_follow", noted)
        keys = ApiKeys(path, service_key=SERVICE_KEY, look_seconds=0.01)
        assert keys.ring is not None
        # Keys that other tests have left behind may be followed too.
        mine = id(keys)
        settled(lambda: mine in dict(followed))
        watcher = dict(followed)[mine]
        assert watcher.daemon
        assert watcher.is_alive()
        del keys
        settled(lambda: not watcher.is_alive())

    def test_whoever_asks_again_after_the_end_is_followed_again(self, path: Path, open_keys: Any) -> None:
        keys = open_keys(look_seconds=0.01)
        assert keys.ring is not None
        keys.close()
        assert keys.ring is not None
        write(path, entry(retired=NOW))
        settled(lambda: keys.ring is None)

    def test_a_process_that_was_forked_follows_too(self, path: Path, open_keys: Any) -> None:
        keys = open_keys(look_seconds=0.01)
        assert keys.ring is not None
        watcher = keys._end_of_watch
        keys._watched_by = -1  # as after a fork: threads of the parent are not here
        assert keys.ring is not None
        assert keys._end_of_watch is not watcher

    @pytest.mark.anyio
    async def test_it_is_a_key_source(self, open_keys: Any) -> None:
        keys = open_keys()
        await keys.start()
        await keys.look_again("nobody")
        assert keys.complete
        assert keys._watched_by == os.getpid()

    @pytest.mark.anyio
    async def test_the_first_token_of_a_new_key_is_looked_for(self, path: Path, open_keys: Any) -> None:
        keys = open_keys(look_seconds=600)
        assert len(keys.ring) == 1
        write(path, entry(), entry(OTHER))
        for nobody in (None, "", "nobody", OTHER.text):
            await keys.look_again(nobody)
        assert len(keys.ring) == 1
        await keys.look_again(OTHER.key_id)
        assert len(keys.ring) == 2

    @pytest.mark.anyio
    async def test_made_up_keys_cost_one_look_in_a_while(self, open_keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, looks = open_keys(look_seconds=600), 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            raise RuntimeError("this is nobody's business here")

        monkeypatch.setattr(keys, "look", look)
        monkeypatch.setattr("toucan_guard.tokens.api_keys._PAUSE_SECONDS", 600)
        for number in range(100):
            await keys.look_again(f"{number:012}")
        assert looks == 1

    def test_a_process_without_room_for_a_thread_tries_again(
        self, path: Path, open_keys: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def no_room(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        keys = open_keys(look_seconds=0.01)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_room)
            assert [len(keys.ring) for _ in range(3)] == [1, 1, 1]
        assert caplog.text.count("no thread can be started") == 1
        assert len(keys.ring) == 1
        write(path, entry(retired=NOW))
        settled(lambda: keys.ring is None)

    def test_an_unexpected_error_ends_no_watch(
        self, path: Path, open_keys: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = open_keys(look_seconds=0.01)
        monkeypatch.setattr(keys, "look", lambda: 1 / 0)
        assert keys.ring is not None
        settled(lambda: "cannot be followed (ZeroDivisionError)" in caplog.text)
        monkeypatch.undo()
        write(path, entry(retired=NOW))
        settled(lambda: keys.ring is None)
