"""The machinery below GuardSettings: read the environment, collect every mistake, keep secrets out of sight.

It knows no setting by name. pydantic alone would stop at the first failed stage, overlook unknown environment
names, and carry the refused values inside its errors; each method here closes one of these gaps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from difflib import SequenceMatcher
from typing import Any, ClassVar, Final, Self

from pydantic import (
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings_values import PREFIX, Mistake, Text, did_you_mean, one_line, variable

# Kubernetes puts these into every pod of a namespace that has a service named toucan-guard.
_SERVICE_LINK: Final = re.compile(r"TOUCAN_GUARD_(?:SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_[0-9]+_\w+)", re.ASCII)


# A copy is made of what was read once: what the environment says is no part of it, neither now nor where it was unset.
_copying: Final[ContextVar[bool]] = ContextVar("toucan_guard_copying", default=False)

_OURS: Final = "TOUCANGUARD"
_ALIKE: Final = 0.85


class _MaskedDict(dict[Any, Any]):
    """Keys given as a parsed object, with nothing to see in its ``repr``."""

    def __repr__(self) -> str:
        return "'**********'"


class _Environment(EnvSettingsSource):
    """Hands every variable over as the text that it is, marked with where it came from.

    The parent would decode JSON for collections, and would not tell a list's text from a list given in Python.
    """

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if _copying.get():
            return found
        for name in self.settings_cls.model_fields:
            if variable(name) in os.environ:
                found[name] = Text(os.environ[variable(name)], variable(name))
        # Process managers and platforms say the number of workers here.
        if "workers" in self.settings_cls.model_fields and "WEB_CONCURRENCY" in os.environ:
            found.setdefault("workers", Text(os.environ["WEB_CONCURRENCY"], "WEB_CONCURRENCY"))
        return found


class EnvironmentSettings(BaseSettings):
    """Frozen settings that are read and judged as a whole."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        case_sensitive=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    # What must be given, and the mend where it is not.
    required_settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, /, **given: Any) -> None:
        known = type(self).model_fields
        problems = [*(() if _copying.get() else _unknown_variables(known)), *_unknown_keywords(known, given)]
        # Secrets are masked before pydantic-settings sees them: its debug log shows what it finds.
        secrets = with_files(known)
        masked: dict[str, Any] = {
            name: _masked(given[name]) if name in secrets else given[name] for name in known if name in given
        }
        try:
            super().__init__(**masked)
        except ConfigError as error:
            problems += error.problems
        except ValidationError as error:
            problems += [_sentence(variable(str(part["loc"][0])), part["msg"]) for part in error.errors()]
        # The error is raised out here, from a frame that holds no value any more: not even a traceback
        # that prints local variables can show a secret.
        given.clear()
        masked.clear()
        if problems:
            del self
            raise ConfigError(dict.fromkeys(map(one_line, problems))) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords, then the environment; neither ``.env`` files nor a folder of secrets."""
        return init_settings, _Environment(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Drop what an explicit None unsets, and put a mistake where a required value is missing."""
        unsettable = {name for name, field in cls.model_fields.items() if field.is_required() or field.default is None}
        kept = {name: value for name, value in given.items() if value is not None or name not in unsettable}
        for name, mend in cls.required_settings.items():
            kept.setdefault(name, Mistake(f"{variable(name)} is required: {mend}"))
        return kept

    @field_validator("*", mode="wrap")
    @classmethod
    def _collect(cls, value: object, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        """Read one value, and let a mistake take its place instead of ending the reading."""
        name = str(info.field_name)
        if isinstance(value, Mistake):
            return value
        source = value.variable if isinstance(value, Text) else variable(name)
        try:
            accepted: object = read(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            return Mistake(_sentence(source, str(first.get("ctx", {}).get("error", first["msg"]))))
        return accepted

    def _take_mistakes(self) -> dict[str, str]:
        """Take every mistake out of the fields, leaving their defaults, so that the other checks can go on."""
        taken: dict[str, str] = {}
        for name, field in type(self).model_fields.items():
            value = self.__dict__[name]
            if isinstance(value, Mistake):
                taken[name] = value.sentence
                self.__dict__[name] = None if field.is_required() else field.default
        return taken

    def __setattr__(self, name: str, value: object) -> None:
        # pydantic's own refusal would carry the value, which may be a secret.
        del value
        raise ValidationError.from_exception_data(
            type(self).__name__, [{"type": "frozen_instance", "loc": (name,), "input": None}], hide_input=True
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, which are checked like everything else (pydantic's own copy checks nothing). The
        environment is not read again; files are."""
        del deep
        if not update:
            return self
        before = _copying.set(True)
        try:
            return type(self)(**{name: self.__dict__[name] for name in self.model_fields_set} | dict(update))
        except ConfigError as error:
            problems = error.problems
        finally:
            _copying.reset(before)
        del update  # as in __init__
        raise ConfigError(problems) from None

    # Frozen to the depth: a copy is the thing itself, and keys need not be copyable.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self


def with_files(known: Iterable[str]) -> tuple[str, ...]:
    """The settings whose value may stand in a file instead: they are the secret ones."""
    names = tuple(known)
    return tuple(name for name in names if f"{name}_file" in names)


def _masked(value: object) -> object:
    if isinstance(value, str):
        return SecretStr(value)
    return _MaskedDict(value) if isinstance(value, Mapping) else value


def _sentence(source: str, words: str) -> str:
    mend = " (read because TOUCAN_GUARD_WORKERS is not set)" if source == "WEB_CONCURRENCY" else ""
    return f"{source} {words}{mend}"


def _squeezed(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:100]


def _unknown_variables(known: Iterable[str]) -> Iterator[str]:
    """Find what looks like one of our variables and is none: a typing mistake must not switch a protection off.

    Names count in upper case only. A name that differs in case is refused and not matched, because on POSIX
    both spellings can be set at once and nobody could tell which one counts.
    """
    ours = {variable(name) for name in known}
    near = {_squeezed(name): name for name in ours}
    for name in sorted(os.environ):
        if name in ours:
            continue
        if meant := near.get(_squeezed(name)):
            yield f"{_shown(name)} is not a setting (did you mean {meant}?): case and underscores count, rename it"
        elif _SERVICE_LINK.fullmatch(name):
            yield (
                f"{name} is not a setting; it looks like what Kubernetes sets for a service named toucan-guard: "
                "set enableServiceLinks: false in the pod, or rename the service"
            )
        elif name.upper().startswith(PREFIX) or _squeezed(name) == _squeezed(PREFIX):
            yield f"{_shown(name)} is not a setting{did_you_mean(name.upper(), ours)}: correct its name or remove it"
        elif meant := _with_a_slip_in_front(name, ours):
            yield f"{_shown(name)} is not a setting (did you mean {meant}?): correct its name or remove it"


def _with_a_slip_in_front(name: str, ours: Iterable[str]) -> str | None:
    """The variable that differs in a letter of the prefix or two, as ``TOUCAN_GAURD_SECRET`` does from ours."""
    for meant in ours:
        rest = _squeezed(meant.removeprefix(PREFIX))
        if not _squeezed(name).endswith(rest):
            continue
        front = _squeezed(name).removesuffix(rest)
        # Where all of the prefix is there, what stands in front of it makes the variable somebody else's.
        near = abs(len(front) - len(_OURS)) <= 1 and not front.endswith(_OURS)
        if near and SequenceMatcher(None, front, _OURS).ratio() > _ALIKE:
            return meant
    return None


def _unknown_keywords(known: Iterable[str], given: Iterable[str]) -> Iterator[str]:
    names = set(known)
    for name in sorted(set(given) - names):
        bare = name.lower().removeprefix(PREFIX.lower())
        meant = f" (did you mean {bare}?)" if bare in names else did_you_mean(bare, names)
        shown = _shown(variable(bare) if bare.isidentifier() else name)
        yield f"{shown} (keyword {_shown(name)}) is not a setting{meant}: correct the keyword or remove it"
