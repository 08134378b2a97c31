"""Where keys are fetched, in the settings: one source of keys, https, and what is said of a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from toucan_guard import GuardSettings, ToucanGuard
from toucan_guard.core.errors import ConfigError
from toucan_guard.testing import TEST_SECRET

URL = "https://login.example/.well-known/jwks.json"


def refusal(make: Callable[..., GuardSettings], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def test_a_url_is_a_source_of_keys(make_settings: Callable[..., GuardSettings]) -> None:
    settings = make_settings(secret=None, jwks_url=URL)
    assert (settings.jwks_url, settings.jwks_max_stale_seconds) == (URL, 3600)
    assert URL in repr(settings)
    with pytest.raises(ConfigError, match="fetched"):
        _ = settings.key_ring


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"secret": TEST_SECRET}, id="a secret"),
        pytest.param({"keys": '{"keys": []}'}, id="keys"),
        pytest.param({"keys_file": "/nowhere"}, id="a file of keys"),
        pytest.param({"secret_file": "/nowhere"}, id="a file with a secret"),
    ],
)
def test_beside_another_source_it_is_a_mistake(
    other: dict[str, str], make_settings: Callable[..., GuardSettings]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_settings(**{"secret": None, "jwks_url": URL, **other})
    assert "keep one source of keys" in str(caught.value)
    assert "ask the guard" not in str(caught.value), "what only code can do is no mend for an operator"
    assert "TOUCAN_GUARD_JWKS_URL" in str(caught.value)
    assert TEST_SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("http://login.example/keys", "write https://", id="http"),
        pytest.param("file:///etc/keys.json", "https URL", id="a file"),
        pytest.param("https://user:hunter2@login.example/keys", "without user", id="a user and password"),
        pytest.param(URL + " ", "space", id="a space at its end"),
        pytest.param("", "empty", id="nothing"),
    ],
)
def test_a_mistaken_url_names_its_variable_once_and_is_not_quoted(
    url: str, words: str, make_settings: Callable[..., GuardSettings]
) -> None:
    problem = refusal(make_settings, secret=None, jwks_url=url)
    assert problem.startswith("TOUCAN_GUARD_JWKS_URL ")
    assert words in problem
    assert "hunter2" not in problem


def test_loopback_may_be_http(make_settings: Callable[..., GuardSettings]) -> None:
    assert make_settings(secret=None, jwks_url="http://127.0.0.1:8080/keys").jwks_url


@pytest.mark.parametrize("seconds", [0, 59, 604_801])
def test_an_age_that_would_always_or_never_end_is_refused(
    seconds: int, make_settings: Callable[..., GuardSettings]
) -> None:
    problem = refusal(make_settings, secret=None, jwks_url=URL, jwks_max_stale_seconds=seconds)
    assert problem.startswith("TOUCAN_GUARD_JWKS_MAX_STALE_SECONDS ")


def test_an_age_of_keys_that_are_not_fetched_is_a_mistake(make_settings: Callable[..., GuardSettings]) -> None:
    problem = refusal(make_settings, jwks_max_stale_seconds=600)
    assert problem.startswith("TOUCAN_GUARD_JWKS_MAX_STALE_SECONDS ")
    assert "TOUCAN_GUARD_JWKS_URL" in problem


def test_without_the_http_library_the_start_says_what_to_install(
    make_settings: Callable[..., GuardSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert "pip install 'toucan-guard[jwks]'" in refusal(make_settings, secret=None, jwks_url=URL)


def test_no_source_of_keys_is_one_mistake_that_names_all(make_settings: Callable[..., GuardSettings]) -> None:
    problem = refusal(make_settings, secret=None)
    assert problem.startswith("TOUCAN_GUARD_KEYS_FILE ")
    assert "JWKS_URL" in problem


def test_sessions_of_guards_that_fetch_from_one_place_are_in_one_store(
    make_settings: Callable[..., GuardSettings],
) -> None:
    async def fetch(url: str) -> bytes:
        raise OSError

    def store(**changes: Any) -> object:
        settings = make_settings(secret=None, token_carriers=["session"], **changes)
        guards.append(ToucanGuard(lambda *_: None, settings=settings, fetch_keys=fetch))  # type: ignore[arg-type, return-value]
        return settings.store

    guards: list[ToucanGuard] = []
    assert store(jwks_url=URL) is store(jwks_url=URL)
    assert store(jwks_url=URL) is not store(jwks_url="https://other.example/keys")
