"""What the settings say of API keys: where they are, and what does not go together with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from pydantic import SecretStr

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings_values import variable
from toucan_guard.tokens.api_keys import ApiKeys, service_secret
from toucan_guard.tokens.keys import KeyRing


def read_api_keys(
    path: Path,
    *,
    service_key: SecretStr,
    pepper: SecretStr | None,
    development: bool,
    attributes: Collection[str] | None,
    given_as: Callable[[str], str],
) -> ApiKeys:
    """Read the file of API keys, with the secrets that belong to it; see ``ApiKeys``.

    Args:
        given_as: The setting that a secret was given by, for what is wrong with it.

    Raises:
        ConfigError: With every mistake, none quoting a secret.
    """
    problems: list[str] = []
    secrets: dict[str, bytes] = {}
    for name, secret in (("token_service_key", service_key), ("api_key_pepper", pepper)):
        if secret is None:
            continue
        try:
            secrets[name] = service_secret(secret.get_secret_value())
        except ConfigError as error:
            problems += [f"{variable(given_as(name))}: {problem}" for problem in error.problems]
    try:
        if not problems:
            return ApiKeys(
                path,
                service_key=secrets["token_service_key"],
                pepper=secrets.get("api_key_pepper"),
                development=development,
                attributes=attributes,
            )
    except ConfigError as error:
        problems += [f"TOUCAN_GUARD_API_KEYS_FILE: {problem}" for problem in error.problems]
    raise ConfigError(problems)


def refuse_secrets_beside_api_keys(ring: KeyRing, api_keys_file: Path | None) -> None:
    """Refuse an HMAC secret beside the public keys of API keys (RFC 8725 §2.1).

    Raises:
        ConfigError: There are both.
    """
    if api_keys_file is not None and any(key.symmetric for key in ring.keys):
        raise ConfigError(
            "TOUCAN_GUARD_API_KEYS_FILE is given beside an HMAC secret, and a secret never shares a ring with the "
            "public keys of API keys: sign the host's own tokens with a key pair (`toucan-guard keygen`) and name its "
            "public half in TOUCAN_GUARD_KEYS_FILE, or let API keys make all tokens and remove the secret"
        )


def api_key_contradictions(given: Collection[str], found: Mapping[str, object]) -> Iterator[str]:
    """Find what cannot hold together among the settings of the token service.

    Args:
        given: The settings that were given, those that could not be read too.
        found: The settings as they were read.
    """
    named = {name.removesuffix("_file") for name in given}
    if "api_keys_file" in given and "token_service_key" not in named:
        yield (
            "TOUCAN_GUARD_TOKEN_SERVICE_KEY (or TOUCAN_GUARD_TOKEN_SERVICE_KEY_FILE) is required with "
            "TOUCAN_GUARD_API_KEYS_FILE: the tokens of API keys are signed and verified with what is made from it"
        )
    for name in ("token_service_key", "api_key_pepper"):
        if name in named and "api_keys_file" not in given:
            yield f"{variable(name)} is set without TOUCAN_GUARD_API_KEYS_FILE: name the file of API keys, or remove it"
    if "token_refresh_seconds" in given and "api_keys_file" not in given:
        yield (
            "TOUCAN_GUARD_TOKEN_REFRESH_SECONDS is set, but only tokens of the token service are renewed: set "
            "TOUCAN_GUARD_API_KEYS_FILE or remove it"
        )
    secrets = [found.get(name) for name in ("token_service_key", "api_key_pepper")]
    texts = [secret.get_secret_value() for secret in secrets if isinstance(secret, SecretStr)]
    if len(set(texts)) != len(texts):
        yield "TOUCAN_GUARD_TOKEN_SERVICE_KEY and TOUCAN_GUARD_API_KEY_PEPPER are the same: make one for each"
