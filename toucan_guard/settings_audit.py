"""The keys of the record: how they are judged, and how a command that needs only them finds them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pydantic import BaseModel, SecretStr

from toucan_guard import settings_values as values
from toucan_guard.core.errors import ConfigError
from toucan_guard.settings_values import Text, variable
from toucan_guard.tokens.key_checks import secret_problem

_LEAST_BYTES = 32


def key_bytes(secret: SecretStr | None) -> bytes | None:
    """The key in a setting, if it is set; ``ConfigError`` with what is wrong with it."""
    if secret is None:
        return None
    raw = secret.get_secret_value().encode()
    problem = secret_problem(raw, _LEAST_BYTES)
    if problem is not None:
        raise ConfigError(problem)
    return raw


def settings_digest(settings: BaseModel) -> str:
    """A digest of a configuration, secrets left out: another one means that something was configured anew."""
    shown = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def audit_key(name: str, path: Path | None) -> bytes | None:
    """The key for a command: from the file that is given, else from the variables of the setting ``name``.

    Raises:
        ConfigError: The key cannot be read, or could not have been the guard's.
    """
    label = "the key file" if path is not None else variable(name)
    try:
        if path is None and variable(name) in os.environ:
            return key_bytes(values.read_secret(Text(os.environ[variable(name)], variable(name))))
        if path is None and variable(f"{name}_file") in os.environ:
            label = variable(f"{name}_file")
            path = values.read_path(Text(os.environ[label], label))
        if path is None:
            return None
        text = values.without_one_newline(values.read_file(path))
        return key_bytes(values.secret_of(text, newline_mend="keep one at most in the file"))
    except ConfigError as error:
        raise ConfigError(f"{label}: {problem}" for problem in error.problems) from None
    except ValueError as error:
        raise ConfigError(f"{label} {error}") from None
