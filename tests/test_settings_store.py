"""What the settings say of the store: which one there is, who shares it, and whether a revocation reaches everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.store import MemoryStore

SERVER = "valkeys://guard:hunter2hunter2@store.example:6380/0"


def test_the_memory_of_this_process_is_the_default(make_settings: Any) -> None:
    for changes in ({}, {"store_url": "memory://"}, {"store_url": None}):
        settings: GuardSettings = make_settings(**changes)
        assert settings.store_address is None
        assert isinstance(settings.store, MemoryStore)
        assert settings.revocable


def test_settings_that_take_the_same_tokens_share_their_memory(make_settings: Any) -> None:
    one, same, other = make_settings(), make_settings(), make_settings(issuer="https://other.example")
    assert one.store is same.store
    assert one.store is not other.store


def test_in_several_workers_a_memory_each_revokes_nothing(make_settings: Any) -> None:
    assert not make_settings(workers=2).revocable


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_server_is_named_in_a_variable_or_in_a_file(end: str, make_settings: Any, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    from toucan_guard.tokens.redis_store import RedisStore

    file = tmp_path / "store-url"
    file.write_text(SERVER + end)
    for changes in ({"store_url": SERVER}, {"store_url_file": file}):
        settings = make_settings(workers=4, token_carriers=["session"], revocation_staleness_seconds=2, **changes)
        assert isinstance(settings.store, RedisStore)
        assert repr(settings.store) == "RedisStore(valkeys://store.example:6380/0)"
        assert settings.revocable
        assert "hunter2" not in repr(settings) + repr(settings.model_dump())


def test_a_mistake_in_the_file_is_told_without_the_password(make_settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "store-url"
    file.write_text("redis://hunter2hunter2@store.example/zero\n")
    with pytest.raises(ConfigError) as caught:
        make_settings(store_url_file=file)
    assert all(problem.startswith("TOUCAN_GUARD_STORE_URL_FILE ") for problem in caught.value.problems)
    assert len(caught.value.problems) == 2
    assert "hunter2" not in repr(caught.value) + str(caught.value.problems)


def test_without_the_driver_a_server_stops_the_start(make_settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"install toucan-guard\[redis\]"):
        make_settings(store_url=SERVER)


def test_the_switch_is_listed_with_what_it_opens(make_settings: Any) -> None:
    settings = make_settings(insecure_store_fail_open=True)
    assert settings.insecure == ("TOUCAN_GUARD_INSECURE_STORE_FAIL_OPEN",)
    described = GuardSettings.model_fields["insecure_store_fail_open"].description
    assert described == "While the store does not answer, tokens pass that may have been revoked."
