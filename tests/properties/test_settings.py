"""Whatever an operator writes, there are settings or one ConfigError, and no secret in anything that can be printed."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import GuardSettings

GOOD = {
    "ALLOWED_ORIGINS": "https://portal.example",
    "ISSUER": "https://host.example",
    "AUDIENCE": "charts",
    "SECRET": "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEaPqKo",
    "RLS_COLUMNS": "flights.carrier=carrier",
}
NAMES = sorted(name.upper() for name in GuardSettings.model_fields)
SECRETS = [name for name in NAMES if f"{name}_FILE" in NAMES]

# What the operating system lets an environment variable hold, undecodable bytes included.
environment_text = st.binary(max_size=60).filter(lambda value: b"\0" not in value).map(os.fsdecode)
# A core that appears in no message by chance, so that finding a part of the secret is finding the secret.
secret_core = st.text(alphabet="ABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=10, max_size=30).map(
    lambda text: f"qZ7{text}"
)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("TOUCAN") or name == "WEB_CONCURRENCY":
                patch.delenv(name)
        for name, value in values.items():
            patch.setenv(f"TOUCAN_GUARD_{name}", value)
        yield


def outcome() -> GuardSettings | ConfigError:
    try:
        return GuardSettings()
    except ConfigError as error:
        return error


def shown(result: GuardSettings | ConfigError) -> str:
    if isinstance(result, GuardSettings):
        return repr(result) + repr(result.model_dump()) + result.model_dump_json() + repr(vars(result))
    deep = traceback.TracebackException.from_exception(result, capture_locals=True).format()
    return str(result) + repr(vars(result)) + "".join(traceback.format_exception(result)) + "".join(deep)


@given(st.dictionaries(st.sampled_from(NAMES), environment_text, max_size=6))
def test_any_environment_gives_settings_or_one_error(values: dict[str, str]) -> None:
    values = {name: value for name, value in values.items() if not name.endswith("_FILE") and name != "AUDIT"}
    with environment({**GOOD, **values}):
        result = outcome()
    if isinstance(result, ConfigError):
        assert result.problems
        assert all(problem.startswith("TOUCAN_GUARD_") for problem in result.problems)
        assert all(problem.isprintable() for problem in result.problems)
        assert result.__context__ is None


@given(st.sampled_from(NAMES), environment_text)
def test_any_text_in_one_variable_is_told_under_its_name(name: str, value: str) -> None:
    good = {key: text for key, text in GOOD.items() if not (key == "SECRET" and name.startswith(("KEYS", "SECRET")))}
    with environment({**good, name: value}):
        result = outcome()
    if isinstance(result, ConfigError):
        assert any(f"TOUCAN_GUARD_{name}" in problem for problem in result.problems), result.problems


def _shapes(core: str) -> list[str]:
    pem = f"-----BEGIN PUBLIC KEY-----\n{core}\n-----END PUBLIC KEY-----"
    return [
        core,
        core + "\n",
        f" {core}",
        f"\ufeff{core}",
        core * 3,
        json.dumps({"keys": [{"kty": "oct", "k": core, "alg": "HS256"}]}),
        json.dumps({"keys": [{"kty": core}, {core: core}], "k": core}),
        json.dumps({"kty": "RSA", "n": core, "e": core, "d": core, "kid": 7, "alg": "RS256"}),
        f'{{"keys": [{{"k": "{core}", "k": "{core}"}}]}}',
        f'{{"keys": "{core}',
        pem,
        pem.replace("PUBLIC", "PRIVATE"),
        f"ssh-ed25519 {core} me@host",
    ]


def _put(name: str, form: str, shape: str, folder: str) -> dict[str, str]:
    if form == "direct":
        return {name: shape}
    if form == "in place of a path":
        return {f"{name}_FILE": shape}
    path = Path(folder) / name
    path.write_text(shape)
    return {f"{name}_FILE": str(path)}


FORMS = ("direct", "in a file", "in place of a path")
SHAPES = range(len(_shapes("")))


@given(
    core=secret_core,
    places=st.dictionaries(
        st.sampled_from(SECRETS), st.tuples(st.sampled_from(FORMS), st.sampled_from(SHAPES)), min_size=1
    ),
    mistake=st.sampled_from(({}, {"LEEWAY_SECONDS": "x"})),
)
def test_no_representation_shows_a_secret(
    core: str, places: dict[str, tuple[str, int]], mistake: dict[str, str]
) -> None:
    values = {name: value for name, value in GOOD.items() if name != "SECRET"}
    with TemporaryDirectory() as folder:
        for name, (form, shape) in places.items():
            values |= _put(name, form, _shapes(core)[shape], folder)
        with environment({**values, **mistake}):
            told = shown(outcome())
    assert core not in told


@pytest.mark.parametrize("name", ["KEYS", "SECRET"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_source_of_keys_is_shown_in_any_shape(name: str, form: str, shape: int, tmp_path: Path) -> None:
    core = "qZ7AVERYSECRETSECRET"
    values = {key: value for key, value in GOOD.items() if key != "SECRET"}
    with environment({**values, **_put(name, form, _shapes(core)[shape], str(tmp_path))}):
        assert core not in shown(outcome())
