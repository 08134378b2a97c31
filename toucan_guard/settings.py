"""GuardSettings: everything that an operator can say (``settings_fields.py``), read and checked at once.

Of these modules only ``settings_env`` reads the environment. The rules that hold here:

- A keyword beats the environment; ``.env`` files are not read. An explicit ``None`` unsets an optional setting.
- Every mistake is told in one ``ConfigError``, each beginning with its variable and saying the mend.
- No secret's value appears in an error, a traceback, a ``repr`` or a dump.
- Whatever is compiled from the settings (allowlists, keys, policy) is compiled while they are checked, so that
  settings that exist are settings that work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import SecretStr, model_validator

from toucan_guard import settings_rules as rules
from toucan_guard import settings_values as values
from toucan_guard.core.csp import FrameAncestors
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import Origin, OriginAllowlist, parse_pattern
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.token_policy import ClaimNames, TokenPolicy
from toucan_guard.rls.postgres_context import MIN_KEY_BYTES, DatabaseContext
from toucan_guard.settings_api_keys import api_key_contradictions, read_api_keys, refuse_secrets_beside_api_keys
from toucan_guard.settings_audit import key_bytes
from toucan_guard.settings_env import with_files
from toucan_guard.settings_fields import SettingsFields
from toucan_guard.settings_keys import KEY_SOURCES, key_contradictions
from toucan_guard.settings_regions import region_contradictions
from toucan_guard.settings_store import memory_contradictions, store_address
from toucan_guard.settings_values import variable
from toucan_guard.tokens.api_keys import ApiKeys
from toucan_guard.tokens.key_checks import secret_problem
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.redis_store import RedisStore
from toucan_guard.tokens.store import Store, shared_memory_store
from toucan_guard.tokens.store_url import StoreAddress

_CLAIMS: Final = ("claim_tenant", "claim_grants", "claim_rls", "claim_origins", "claim_region")

# What is compiled, and the settings without which it cannot be tried.
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "allowlist": frozenset({"allowed_origins"}),
    "frame_ancestors_policy": frozenset({"allowed_origins"}),
    "tenant_origins": frozenset(),
    "public_origins": frozenset(),
    "policy": frozenset(),
    "api_keys": frozenset({"api_keys_file", "token_service_key", "api_key_pepper"}),
    "token_policy": frozenset({"issuer", "audience"}),
    "store_address": frozenset({"store_url", "store_url_file"}),
    "pseudonyms": frozenset({"audit_hmac_key"}),
    "chain_key": frozenset({"audit_chain_key"}),
    "database_context": frozenset({"pg_context_key", "pg_pooler", "leeway_seconds"}),
}


class GuardSettings(SettingsFields):
    """The settings of one guard, from ``TOUCAN_GUARD_…`` variables and keywords of the same names in lower case.

    Frozen, and safe to print: secrets are masked. The compiled parts are properties.

    Raises:
        ConfigError: With every mistake at once; never shows a secret.
    """

    if TYPE_CHECKING:
        # A keyword takes more than its field holds (a list, a str for a secret, a mapping of columns), and the
        # environment may give what is required. At run time this would be one more frame that holds secrets.
        def __init__(self, /, **given: Any) -> None: ...

    @cached_property
    def allowlist(self) -> OriginAllowlist:
        """Who may call us."""
        with _naming("allowed_origins"):
            return OriginAllowlist.parse(
                self.allowed_origins, development=self._development, allow_any=self.insecure_any_origin
            )

    @cached_property
    def frame_ancestors_policy(self) -> FrameAncestors:
        """Who may frame us, as it goes into the header."""
        if self.frame_ancestors is not None:
            with _naming("frame_ancestors"):
                return FrameAncestors.parse(
                    self.frame_ancestors, development=self._development, allow_any=self.insecure_any_origin
                )
        allowlist = self.allowlist
        with _naming("allowed_origins", "name who may frame this service in TOUCAN_GUARD_FRAME_ANCESTORS: "):
            return FrameAncestors.of(allowlist)

    @cached_property
    def public_origins(self) -> frozenset[Origin]:
        """Our own origins."""
        origins: set[Origin] = set()
        problems: list[str] = []
        for text in self.public_origin:
            try:
                pattern = parse_pattern(text, development=self._development)
                if not isinstance(pattern, Origin) or pattern.scheme not in {"http", "https"}:
                    raise ValueError(
                        f"{values.quoted(text)} is not one web origin: write such as https://charts.example"
                    )
                origins.add(pattern)
            except ValueError as error:
                problems.append(str(error))
        with _naming("public_origin"):
            if problems:
                raise ConfigError(problems)
        return frozenset(origins)

    @cached_property
    def tenant_origins(self) -> Mapping[str, OriginAllowlist]:
        """Tenant to its origins, which narrow the allowed ones; empty where there is no file."""
        if self.tenant_origins_file is None:
            return MappingProxyType({})
        lists: dict[str, OriginAllowlist] = {}
        problems: list[str] = []
        with _naming("tenant_origins_file"):
            for tenant, entries in rules.tenant_table(values.read_file(self.tenant_origins_file)).items():
                try:
                    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
                        raise ConfigError('its origins must be a list of strings, such as ["https://portal.example"]')
                    if not tenant or tenant != tenant.strip():
                        raise ConfigError("its name is empty or padded with space: write it as tokens do")
                    lists[tenant] = OriginAllowlist.parse(entries, development=self._development)
                except ConfigError as error:
                    problems += [f"tenant {values.quoted(tenant)}: {problem}" for problem in error.problems]
            if problems:
                raise ConfigError(problems)
        return MappingProxyType(lists)

    @cached_property
    def key_ring(self) -> KeyRing:
        """The keys that verify tokens, where they are configured; those of ``jwks_url`` are fetched by the guard.

        Raises:
            ConfigError: They are fetched, or those of API keys are the only ones.
        """
        if self.jwks_url is not None:
            raise ConfigError("TOUCAN_GUARD_JWKS_URL: the keys are fetched and not configured: ask the guard for them")
        if not self.keys_configured:
            raise ConfigError("TOUCAN_GUARD_API_KEYS_FILE: the keys of API keys change: ask the guard for them")
        return self._ring("secret" if self.keys is None else "keys")

    @property
    def keys_configured(self) -> bool:
        """Whether the settings themselves hold keys, as texts or in files."""
        return self.keys is not None or self.secret is not None

    def _ring(self, source: Literal["keys", "secret"]) -> KeyRing:
        text = self.__dict__[source].get_secret_value()
        with _naming(self._given_as(source)):
            try:
                return KeyRing.load(text) if source == "keys" else KeyRing.from_secret(text)
            except ValueError:  # whatever a library says about a key could quote it
                raise ValueError("holds nothing that can be read as a key: make it anew") from None

    @cached_property
    def api_keys(self) -> ApiKeys | None:
        """The API keys, which follow their file; None where there is none."""
        if self.api_keys_file is None or self.token_service_key is None:
            return None
        policy: RlsPolicy | None = self.__dict__.get("policy")  # read before; its own mistakes are told there
        return read_api_keys(
            self.api_keys_file,
            service_key=self.token_service_key,
            pepper=self.api_key_pepper,
            given_as=self._given_as,
            development=self._development,
            attributes=None if policy is None else policy.attributes,
        )

    @cached_property
    def token_policy(self) -> TokenPolicy:
        """What a token must say."""
        users: dict[str, list[str]] = {}
        for name in _CLAIMS:
            users.setdefault(self.__dict__[name], []).append(name)
        if clashes := [names for names in users.values() if len(names) > 1]:
            raise ConfigError(f"{_together(names)} name the same claim: give each its own" for names in clashes)
        return TokenPolicy(
            issuer=self.issuer,
            audiences=self.audience,
            lifetime_seconds=self.token_lifetime_seconds,
            leeway_seconds=self.leeway_seconds,
            require_tenant=self.require_tenant,
            claim_names=ClaimNames(
                tenant=self.claim_tenant,
                grants=self.claim_grants,
                rls=self.claim_rls,
                origins=self.claim_origins,
                region=self.claim_region,
            ),
            insecure_typ_jwt=self.insecure_typ_jwt,
            development=self._development,
        )

    @cached_property
    def policy(self) -> RlsPolicy | None:
        """The row rules; None where they are switched off aloud."""
        if self.rls_columns is not None:
            with _naming("rls_columns"):
                return RlsPolicy.from_columns(self.rls_columns)
        if self.rls_policy is None:
            return None
        with _naming("rls_policy"):
            text = values.read_file(self.rls_policy)
            return RlsPolicy.from_json(text) if self.rls_policy.suffix == ".json" else RlsPolicy.from_toml(text)

    @cached_property
    def store_address(self) -> StoreAddress | None:
        """The server of the store; None for the memory of this process."""
        if self.store_url is None:
            return None
        return store_address(self.store_url.get_secret_value(), variable(self._given_as("store_url")))

    @cached_property
    def store(self) -> Store:
        """Sessions, spent tokens and revocations; guards of one process that take the same tokens share it."""
        if self.store_address is not None:
            return RedisStore(self.store_address)
        keys = self.key_ring.generation if self.keys_configured else self.jwks_url or str(self.api_keys_file)
        return shared_memory_store(self.issuer, self.audience, keys, clock=time.time)

    @property
    def revocable(self) -> bool:
        """Whether a revocation reaches every worker: not where each of several has a memory of its own."""
        return self.store_address is not None or self.workers == 1

    @cached_property
    def pseudonyms(self) -> Pseudonyms | None:
        """What hides people in the record; None where they are written as they are."""
        with _naming(self._given_as("audit_hmac_key")):
            key = key_bytes(self.audit_hmac_key)
        return None if key is None else Pseudonyms(key)

    @property
    def chain_key(self) -> bytes | None:
        """What keys the chain of audit lines. Not kept: it is the secret itself, which whoever looks would see."""
        with _naming(self._given_as("audit_chain_key")):
            return key_bytes(self.audit_chain_key)

    @cached_property
    def database_context(self) -> DatabaseContext | None:
        """What signs the claims for PostgreSQL's policies; None where there is no key."""
        if self.pg_context_key is None:
            return None
        secret = self.pg_context_key.get_secret_value()
        with _naming(self._given_as("pg_context_key")):
            if problem := secret_problem(secret.encode(), MIN_KEY_BYTES):
                raise ConfigError(problem)
            return DatabaseContext(secret, pooler=self.pg_pooler, leeway_seconds=self.leeway_seconds)

    @property
    def insecure(self) -> tuple[str, ...]:
        """The variables of the dangerous switches that are on, sorted."""
        names = type(self).model_fields
        return tuple(variable(name) for name in sorted(names) if name.startswith("insecure_") and self.__dict__[name])

    def _given_as(self, secret: str) -> str:
        """The setting that a secret was given by: itself, or its file."""
        return secret if secret in self.model_fields_set else f"{secret}_file"

    @property
    def _development(self) -> bool:
        return self.environment == "development"

    @model_validator(mode="after")
    def _every_mistake_at_once(self) -> Self:
        if "token_policy" in self.__dict__:
            return self  # a host's own model holds these settings: they were checked when they were built
        mistakes = self._take_mistakes()
        problems = [*mistakes.values()]
        problems += self._take_files()
        problems += self._contradictions(mistakes)
        for part, needs in _PARTS.items():
            if needs.isdisjoint(mistakes):
                with _collected(problems):
                    getattr(self, part)
        if self.keys_configured and self.jwks_url is None:
            with _collected(problems):
                refuse_secrets_beside_api_keys(self.key_ring, self.api_keys_file)
        if self.keys is not None and self.secret is not None:
            with _collected(problems):
                self._ring("secret")
        if problems:
            raise ConfigError(problems)
        return self

    def _take_files(self) -> Iterator[str]:
        """Put the content of every secret's file where the secret itself would stand."""
        for name in with_files(type(self).model_fields):
            path = self.__dict__[f"{name}_file"]
            if path is None:
                continue
            if self.__dict__[name] is not None:
                if name not in KEY_SOURCES:
                    yield f"{variable(name)} and {variable(name)}_FILE are both set: keep one of them"
                continue
            try:
                text = values.read_file(path)
                if name != "keys":  # JSON and PEM may end as they like
                    text = values.secret_of(
                        values.without_one_newline(text), newline_mend="keep one at most in the file"
                    ).get_secret_value()
                self.__dict__[name] = SecretStr(text)
            except ValueError as error:
                yield f"{variable(name)}_FILE {error}"

    def _contradictions(self, mistakes: Mapping[str, str]) -> Iterator[str]:
        """Find what is each well written and cannot hold together. What failed already counts as given."""
        given = self.model_fields_set

        yield from key_contradictions(given)
        yield from region_contradictions(self, mistakes)
        yield from api_key_contradictions(given, self.__dict__)

        row_rules = [name for name in ("rls_policy", "rls_columns") if name in given]
        if self.insecure_no_rls and row_rules:
            yield f"TOUCAN_GUARD_INSECURE_NO_RLS=true contradicts {_together(row_rules)}: remove one of them"
        elif len(row_rules) > 1:
            yield f"{_together(row_rules)} are given together: write all rules into the policy's file"
        elif not row_rules and not self.insecure_no_rls and "insecure_no_rls" not in mistakes:
            yield (
                "TOUCAN_GUARD_RLS_POLICY or TOUCAN_GUARD_RLS_COLUMNS is required: say which rows a token may see, "
                "or say aloud with TOUCAN_GUARD_INSECURE_NO_RLS=true that everybody sees all of them"
            )

        if "store_url" not in mistakes and "store_url_file" not in mistakes:
            yield from memory_contradictions(self, given)

        if self.audit == "structlog" and self.audit_chain_key is not None:
            yield (
                "TOUCAN_GUARD_AUDIT_CHAIN_KEY needs lines that stay as they are written, and TOUCAN_GUARD_AUDIT is "
                "structlog, whose processors may change them: write to stdout or a file, or remove the key"
            )

        if self.frame_report_uri is not None:
            wrong = rules.wrong_report_uri(self.frame_report_uri, development=self._development)
            if wrong:
                yield f"TOUCAN_GUARD_FRAME_REPORT_URI {wrong}"


class ApiKeySettings(GuardSettings):
    """The same settings before there is a first API key: the file need not exist yet."""

    @cached_property
    def api_keys(self) -> ApiKeys | None:
        """The API keys; None where there is no file."""
        missing = self.api_keys_file is not None and not self.api_keys_file.exists()
        return None if missing else super().api_keys


def _together(names: Iterable[str]) -> str:
    return " and ".join(variable(name) for name in names)


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    """Note what is wrong and go on, so that the operator reads everything at once."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems


@contextmanager
def _naming(name: str, mend: str = "") -> Iterator[None]:
    """Put the variable's name in front of every problem that the inner parts find."""
    problems: tuple[str, ...]
    try:
        yield
        return
    except ConfigError as error:
        problems = tuple(f"{variable(name)}: {mend}{problem}" for problem in error.problems)
    except ValueError as error:
        problems = (f"{variable(name)} {mend}{error}",)
    except RecursionError:
        problems = (f"{variable(name)} is nested too deep: write it flatter",)
    raise ConfigError(problems)
