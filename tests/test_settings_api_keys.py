"""The settings of API keys: what belongs together, and what must never share a ring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette

from toucan_guard import GuardSettings, ToucanGuard
from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import ApiKeySettings
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry
from toucan_guard.tokens.api_key_file import write_api_keys
from toucan_guard.tokens.api_keys import signing_key
from toucan_guard.tokens.keys import SigningKey
from toucan_guard.verification_keys import verification_keys

PEPPER = "w8RtY2-hNs5_pLx0cVq7BmJ3zKd9FgUeAiSo"
SERVICE_KEY = "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEaPqKo"
KEY_ID = "0123456789ab"
OCT = {"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": "azN1SjdmLVF4OV8ybVZiOHNacjRUblcxeUxjNkhkRWFQcUtv"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    entry = ApiKeyEntry(KEY_ID, "live", bytes(32))
    (tmp_path / "keys.json").write_text(write_api_keys(ApiKeyBook.empty(PEPPER.encode()).with_entry(entry)))
    return tmp_path / "keys.json"


@pytest.fixture
def build(path: Path) -> Iterator[Callable[..., GuardSettings]]:
    """Settings whose only keys are those of API keys, and whatever a test changes; None leaves out."""
    made: list[GuardSettings] = []

    def make(kind: type[GuardSettings] = GuardSettings, **changes: Any) -> GuardSettings:
        given = {
            "allowed_origins": ["https://portal.example"],
            "issuer": "https://host.example",
            "audience": "charts",
            "rls_columns": {"flights.carrier": "carrier"},
            "api_keys_file": path,
            "token_service_key": SERVICE_KEY,
            **changes,
        }
        made.append(kind(**{name: value for name, value in given.items() if value is not None}))
        return made[-1]

    yield make
    for settings in made:
        if settings.api_keys is not None:
            settings.api_keys.close()


def problems(make: Callable[..., GuardSettings], **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    assert SERVICE_KEY not in str(caught.value)
    assert PEPPER not in str(caught.value)
    return list(caught.value.problems)


def test_a_deployment_may_have_no_keys_but_those_of_api_keys(build: Any) -> None:
    settings = build()
    ring = verification_keys(settings).ring
    assert ring is not None
    assert ring.keys == (signing_key(SERVICE_KEY.encode(), KEY_ID).verification_key(),)
    ToucanGuard(Starlette(), settings=settings)
    with pytest.raises(ConfigError, match="API_KEYS_FILE"):
        _ = settings.key_ring


def test_a_limit_of_an_attribute_that_the_policy_has_not_stops_the_start(build: Any, path: Path) -> None:
    content = json.loads(path.read_text())
    content["keys"][KEY_ID]["limits"] = {"attributes": {"carier": ["AA"]}}
    path.write_text(json.dumps(content))
    [problem] = problems(build)
    assert problem == (
        f"TOUCAN_GUARD_API_KEYS_FILE: keys.{KEY_ID}.limits.attributes.carier is no attribute of the row-level policy "
        "(did you mean carrier?)"
    )
    assert len(problems(build, rls_columns=None)) == 1, "there is no policy to hold it to, which is the mistake"
    build(rls_columns=None, insecure_no_rls=True)

    content["keys"][KEY_ID]["retired"] = "2026-11-01T00:00:00Z"
    path.write_text(json.dumps(content))
    build()


def test_a_deployment_that_has_no_api_key_yet_verifies_nothing(build: Any, path: Path) -> None:
    path.write_text(write_api_keys(ApiKeyBook.empty(PEPPER.encode())))
    source = verification_keys(build())
    assert source.ring is None
    assert source.complete


def test_the_host_s_own_public_keys_stand_beside_them(build: Any) -> None:
    own = SigningKey.load(Ed25519PrivateKey.generate(), kid="own").verification_key()
    ring = verification_keys(build(keys={"keys": [own.public_jwk()]})).ring
    assert ring is not None
    assert {key.kid for key in ring.keys} == {"own", KEY_ID}


def test_a_key_of_the_host_with_the_name_of_an_api_key_is_told_with_both_variables(build: Any) -> None:
    own = SigningKey.load(Ed25519PrivateKey.generate(), kid=KEY_ID).verification_key()
    settings = build(keys={"keys": [own.public_jwk()]})
    with pytest.raises(ConfigError, match=r"TOUCAN_GUARD_KEYS and TOUCAN_GUARD_API_KEYS_FILE .*the same kid"):
        ToucanGuard(Starlette(), settings=settings)


def test_the_secrets_may_stand_in_files(build: Any, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text(PEPPER + "\n")
    (tmp_path / "service").write_text(SERVICE_KEY + "\n")
    settings = build(
        token_service_key=None,
        token_service_key_file=tmp_path / "service",
        api_key_pepper_file=tmp_path / "pepper",
    )
    assert settings.api_keys is not None
    assert settings.api_key_pepper.get_secret_value() == PEPPER
    assert PEPPER not in repr(settings)


def test_they_are_read_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ALLOWED_ORIGINS": "", "ISSUER": "https://host.example", "AUDIENCE": "charts", "RLS_COLUMNS": "a.b=c",
        "API_KEYS_FILE": str(path), "TOKEN_SERVICE_KEY": SERVICE_KEY, "API_KEY_PEPPER": PEPPER,
        "TOKEN_REFRESH_SECONDS": "60",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TOUCAN_GUARD_{name}", value)
    settings = GuardSettings()
    assert settings.api_keys is not None
    assert settings.token_refresh_seconds == 60


MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    ("no service key", {"token_service_key": None}, "TOKEN_SERVICE_KEY", "is required with"),
    ("a service key alone", {"api_keys_file": None, "keys": {"keys": [OCT["keys"][0]]}}, "TOKEN_SERVICE_KEY",
     "without TOUCAN_GUARD_API_KEYS_FILE"),
    ("a pepper alone", {"api_keys_file": None, "token_service_key": None, "api_key_pepper": PEPPER, "keys": OCT},
     "API_KEY_PEPPER", "without TOUCAN_GUARD_API_KEYS_FILE"),
    ("a refresh alone",
     {"api_keys_file": None, "token_service_key": None, "token_refresh_seconds": 60, "keys": OCT},
     "TOKEN_REFRESH_SECONDS", "API_KEYS_FILE"),
    ("a short service key", {"token_service_key": "short"}, "TOKEN_SERVICE_KEY", "shorter than 32 bytes"),
    ("a placeholder", {"token_service_key": "changeme"}, "TOKEN_SERVICE_KEY", "shorter"),
    ("a padded pepper", {"api_key_pepper": "k3uJ7f" + "a" * 40}, "API_KEY_PEPPER", "padded"),
    ("another pepper", {"api_key_pepper": PEPPER[::-1]}, "API_KEYS_FILE", "another pepper"),
    ("a file that is not there", {"api_keys_file": "/nowhere/keys.json"}, "API_KEYS_FILE", "cannot be read"),
    ("a secret beside them", {"secret": PEPPER[::-1]}, "API_KEYS_FILE", "never shares a ring"),
    ("a secret among the keys", {"keys": OCT}, "API_KEYS_FILE", "TOUCAN_GUARD_KEYS_FILE"),
    ("too long a refresh", {"token_refresh_seconds": 604_801}, "TOKEN_REFRESH_SECONDS", "lower it"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "mend"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_names_the_variable_and_the_mend(changes: dict[str, Any], name: str, mend: str, build: Any) -> None:
    (problem,) = problems(build, **changes)
    assert problem.startswith(f"TOUCAN_GUARD_{name}")
    assert mend in problem


def test_one_secret_for_two_is_refused(build: Any, path: Path) -> None:
    path.write_text(write_api_keys(ApiKeyBook.empty(SERVICE_KEY.encode())))
    (problem,) = problems(build, api_key_pepper=SERVICE_KEY)
    assert "the same" in problem


def test_both_secrets_are_judged_at_once(build: Any) -> None:
    assert len(problems(build, token_service_key="short", api_key_pepper="other")) == 2


def test_every_mistake_of_the_file_names_the_variable(build: Any, path: Path) -> None:
    content = json.loads(path.read_text())
    content["keys"][KEY_ID] |= {"label": 7, "digest": "x"}
    path.write_text(json.dumps(content))
    found = problems(build)
    assert len(found) == 2
    assert all(problem.startswith(f"TOUCAN_GUARD_API_KEYS_FILE: keys.{KEY_ID}.") for problem in found)


def test_a_secret_is_refused_beside_a_file_without_keys_too(build: Any, path: Path) -> None:
    path.write_text(write_api_keys(ApiKeyBook.empty(PEPPER.encode())))
    (problem,) = problems(build, secret=PEPPER[::-1])
    assert "never shares a ring" in problem


def test_the_first_key_may_be_made_before_there_is_a_file(build: Any, path: Path) -> None:
    path.unlink()
    assert build(ApiKeySettings).api_keys is None
    path.write_text(write_api_keys(ApiKeyBook.empty(PEPPER.encode())))
    assert build(ApiKeySettings).api_keys is not None
