"""The file of API keys: read whole or not at all, every mistake with its place, changed without a gap."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry
from toucan_guard.tokens.api_key_file import read_api_keys, read_time, write_api_keys
from toucan_guard.tokens.api_key_store import change_book

# A machine under load is no finding.
calm = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PEPPER = b"p" * 16 + b"0123456789abcdef"
DIGEST = "ab" * 32
KEY_ID = "0123456789ab"
VIEW = Grant("dashboard", "*", ("view",))


def text(**changes: Any) -> str:
    entry = {"environment": "live", "digest": DIGEST, **changes}
    kept = {name: value for name, value in entry.items() if value is not ...}
    return json.dumps({"version": 1, "pepper": DIGEST, "keys": {KEY_ID: kept}})


def problems(content: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_api_keys(content)
    assert DIGEST not in str(caught.value)
    return caught.value.problems


def full_entry() -> ApiKeyEntry:
    return ApiKeyEntry(
        KEY_ID,
        "live",
        bytes.fromhex(DIGEST),
        label="AA’s portal",
        created=1_790_000_000,
        not_before=1_790_000_001,
        not_after=1_800_000_000,
        retired=1_795_000_000,
        limits=ApiKeyLimits(
            tenants=("AA",),
            origins=OriginAllowlist.parse(["https://portal.example"]),
            grants=(VIEW,),
            attributes=MappingProxyType({"carrier": ("AA", 1, True, None)}),
            lifetime_seconds=900,
        ),
        roles=MappingProxyType({"explorer": (VIEW,)}),
    )


def test_what_was_written_is_read() -> None:
    book = ApiKeyBook.empty(PEPPER).with_entry(full_entry()).with_entry(ApiKeyEntry("b" * 12, "test", bytes(32)))
    assert read_api_keys(write_api_keys(book)) == book


def test_no_limit_and_an_empty_one_differ() -> None:
    nobody = ApiKeyLimits(tenants=(), origins=OriginAllowlist(), grants=())
    entry = ApiKeyEntry(KEY_ID, "live", bytes(32), limits=nobody)
    read = read_api_keys(write_api_keys(ApiKeyBook.empty(PEPPER).with_entry(entry)))
    assert read.keys[KEY_ID].limits == nobody
    assert read_api_keys(text()).keys[KEY_ID].limits == ApiKeyLimits()


def test_roles_widen_what_a_limited_key_may_grant_and_nothing_else() -> None:
    other = Grant("dashboard", "x", ("edit",))
    entry = replace(full_entry(), roles={"editor": (other,)})
    assert entry.mintable == replace(entry.limits, grants=(VIEW, other))
    open_one = replace(entry, limits=ApiKeyLimits())
    assert open_one.mintable == ApiKeyLimits()


@pytest.mark.parametrize(
    ("now", "state"),
    [(99, "early"), (100, "valid"), (199.9, "valid"), (200, "expired")],
)
def test_the_state_follows_the_time(now: float, state: str) -> None:
    entry = ApiKeyEntry(KEY_ID, "live", bytes(32), not_before=100, not_after=200)
    assert entry.state_at(now) == state
    assert replace(entry, retired=1).state_at(now) == "retired"
    assert replace(entry, not_after=None).state_at(10**12) == "valid"


MISTAKES: list[tuple[str, str, str]] = [
    ("nothing", "", "not strict JSON"),
    ("half a file", text()[:-5], "not strict JSON"),
    ("a list", "[]", "JSON object"),
    ("a repeated key", '{"version": 1, "pepper": "x", "keys": {"a": {}, "a": {}}}', "repeated"),
    ("endless nesting", "[" * 100_000, "not strict JSON"),
    ("an unknown member", json.dumps({**json.loads(text()), "kyes": {}}), "'kyes'".replace("'", "")),
    ("another version", json.dumps({**json.loads(text()), "version": 2}), "version must be 1"),
    ("true for a version", json.dumps({**json.loads(text()), "version": True}), "version must be 1"),
    ("no pepper", json.dumps({**json.loads(text()), "pepper": None}), "pepper must be 64"),
    ("a list of keys", json.dumps({**json.loads(text()), "keys": []}), "keys must be an object"),
    ("another id", json.dumps({**json.loads(text()), "keys": {"A B": {}}}), "12 lower-case"),
    ("an id with a newline", json.dumps({**json.loads(text()), "keys": {"a\nb": {}}}), r"keys.a\nb"),
    ("a list for an entry", json.dumps({**json.loads(text()), "keys": {KEY_ID: []}}), "must be an object"),
    ("too many keys", json.dumps({**json.loads(text()), "keys": {str(n): {} for n in range(1_001)}}), "1000 at most"),
    ("no digest", text(digest=...), "digest must be 64"),
    ("a short digest", text(digest="ab"), "digest must be 64"),
    ("a digest in capitals", text(digest="AB" * 32), "digest must be 64"),
    ("a digest of other digits", text(digest="٣" * 64), "digest must be 64"),
    ("no environment", text(environment=...), "environment must be a word"),
    ("an environment with a separator", text(environment="a_b"), "environment must be a word"),
    ("a number for a label", text(label=7), "label must be text"),
    ("a label with a newline", text(label="a\nb"), "label must be text"),
    ("a time without its zone", text(not_before="2026-12-01T00:00:00"), "not_before must be a time in UTC"),
    ("a number for a time", text(not_after=7), "not_after must be a time in UTC"),
    ("a time beyond time", text(created="9999-12-31T23:59:59-12:00"), "created must be a time in UTC"),
    ("null for a time", text(retired=None), "retired must be a time in UTC"),
    ("an end before its beginning", text(not_before="2027-01-01T00:00:00Z", not_after="2026-01-01T00:00:00Z"),
     "later than not_before"),
    ("an unknown limit", text(limits={"tenant": ["AA"]}), "has the member tenant"),
    ("null for a limit", text(limits={"tenants": None}), "tenants must be a list"),
    ("one tenant for a list", text(limits={"tenants": "AA"}), "tenants must be a list"),
    ("an empty tenant", text(limits={"tenants": [""]}), "each a text"),
    ("a wrong origin", text(limits={"origins": ["nonsense"]}), "limits.origins"),
    ("a number for an origin", text(limits={"origins": [7]}), "limits.origins"),
    ("a local origin", text(limits={"origins": ["http://localhost"]}), "limits.origins"),
    ("half a grant", text(limits={"grants": [{"type": "a"}]}), "grants[0] must be exactly"),
    ("no list of values", text(limits={"attributes": {"carrier": "AA"}}), "attributes.carrier must be a list"),
    ("no lifetime", text(limits={"lifetime_seconds": 0}), "from 1 to 86400"),
    ("a bool for a lifetime", text(limits={"lifetime_seconds": True}), "from 1 to 86400"),
    ("an endless lifetime", text(limits={"lifetime_seconds": 86_401}), "from 1 to 86400"),
    ("half a role", text(roles={"explorer": [{}]}), "roles.explorer[0] must be exactly"),
    ("a role without a name", text(roles={"": []}), "role without a name"),
    ("a list of roles", text(roles=[]), "roles must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_has_its_place(content: str, words: str) -> None:
    found = problems(content)
    assert any(words in problem for problem in found), found
    assert all(problem.isprintable() for problem in found)


def test_every_mistake_is_told_at_once() -> None:
    assert len(problems(text(digest=1, environment=1, limits={"tenants": 1, "lifetime_seconds": "x"}, roles=1))) == 5


def test_development_takes_local_origins() -> None:
    content = text(limits={"origins": ["http://localhost:3000"]})
    read = read_api_keys(content, development=True)
    assert read.keys[KEY_ID].limits.origins is not None


@calm
@given(st.text(max_size=60))
def test_any_text_is_a_time_or_a_value_error(value: str) -> None:
    with suppress(ValueError):
        read_time(value)


@calm
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_file_or_a_config_error(content: str) -> None:
    with pytest.raises(ConfigError):
        read_api_keys(content)


class TestChanging:
    def test_a_new_file_belongs_to_its_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        book = change_book(path, lambda book: book.with_entry(full_entry()), pepper=PEPPER)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read_api_keys(path.read_text()) == book
        assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]

    @pytest.mark.parametrize(("before", "after"), [(0o644, 0o640), (0o640, 0o640), (0o400, 0o600), (0o666, 0o640)])
    def test_a_group_that_may_read_keeps_that_and_nobody_gains(self, before: int, after: int, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(text())
        path.chmod(before)
        change_book(path, lambda book: book.with_entry(full_entry()))
        assert stat.S_IMODE(path.stat().st_mode) == after

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text(text())
        (tmp_path / "link").symlink_to("real")
        change_book(tmp_path / "link", lambda book: book.with_entry(full_entry()))
        assert (tmp_path / "link").is_symlink()
        assert read_api_keys((tmp_path / "real").read_text()).keys[KEY_ID] == full_entry()

    def test_a_change_that_fails_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(text())

        def broken(book: ApiKeyBook) -> ApiKeyBook:
            return book.with_entry(replace(full_entry(), environment="A B"))

        with pytest.raises(ConfigError, match="environment"):
            change_book(path, broken)
        assert path.read_text() == text()
        assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]

    @pytest.mark.parametrize("content", [b"{", b"\xff"])
    def test_a_broken_file_is_not_written_over(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(content)
        with pytest.raises(ConfigError):
            change_book(path, lambda book: book, pepper=PEPPER)
        assert path.read_bytes() == content

    def test_a_missing_file_is_made_only_where_a_key_is(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            change_book(tmp_path / "none.json", lambda book: book)
        with pytest.raises(ConfigError, match="cannot be read"):
            change_book(tmp_path / "no" / "folder.json", lambda book: book, pepper=PEPPER)

    def test_two_who_change_it_wait_for_each_other(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(write_api_keys(ApiKeyBook.empty(PEPPER)))
        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(_add_ten, path, letter) for letter in "abc"]:
                done.result(60)
        assert len(read_api_keys(path.read_text()).keys) == 30


def _add_ten(path: Path, letter: str) -> None:
    for number in range(10):
        entry = ApiKeyEntry(f"{letter}{number:011}", "live", bytes(32))
        change_book(path, lambda book, entry=entry: book.with_entry(entry))  # type: ignore[misc]
