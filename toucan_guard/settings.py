"""GuardSettings: everything that an operator can say, read and checked at once when it is built.

Only this module and ``settings_env`` below it read the environment. The rules that hold here:

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
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, SecretStr, model_validator

from toucan_guard import settings_rules as rules
from toucan_guard import settings_values as values
from toucan_guard.core.csp import FrameAncestors
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import Origin, OriginAllowlist, parse_pattern
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.token import ClaimNames, TokenPolicy
from toucan_guard.rls.postgres_context import MIN_KEY_BYTES, DatabaseContext
from toucan_guard.settings_api_keys import api_key_contradictions, read_api_keys, refuse_secrets_beside_api_keys
from toucan_guard.settings_audit import key_bytes
from toucan_guard.settings_env import EnvironmentSettings, with_files
from toucan_guard.settings_keys import KEY_SOURCES, key_contradictions, read_jwks_url
from toucan_guard.settings_regions import region_contradictions
from toucan_guard.settings_rules import Network
from toucan_guard.settings_store import memory_contradictions, store_address
from toucan_guard.settings_values import variable
from toucan_guard.tokens.api_keys import ApiKeys
from toucan_guard.tokens.key_checks import secret_problem
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.redis_store import RedisStore
from toucan_guard.tokens.store import Store, shared_memory_store
from toucan_guard.tokens.store_url import StoreAddress

_REQUIRED: Final = {
    "allowed_origins": "name the origins that may call and frame this service, or set it empty for nobody",
    "issuer": "give the iss value of this service's tokens",
    "audience": "give the aud value of this service's tokens",
}

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

_Flag = Annotated[bool, BeforeValidator(values.read_flag)]
_List = Annotated[tuple[str, ...], BeforeValidator(values.read_list)]
_Word = Annotated[str, BeforeValidator(values.read_text)]
_MaybeText = Annotated[str | None, BeforeValidator(values.read_text)]
_MaybePath = Annotated[Path | None, BeforeValidator(values.read_path)]
_MaybeSecret = Annotated[SecretStr | None, BeforeValidator(values.read_secret)]
_Claim = Annotated[str, BeforeValidator(rules.read_claim)]


class GuardSettings(EnvironmentSettings):
    """The settings of one guard, from ``TOUCAN_GUARD_…`` variables and keywords of the same names in lower case.

    Frozen, and safe to print: secrets are masked. The compiled parts are properties at the end.

    Raises:
        ConfigError: With every mistake at once; never shows a secret.
    """

    required_settings: ClassVar[Mapping[str, str]] = _REQUIRED

    if TYPE_CHECKING:
        # A keyword takes more than its field holds (a list, a str for a secret, a mapping of columns), and the
        # environment may give what is required. At run time this would be one more frame that holds secrets.
        def __init__(self, /, **given: Any) -> None: ...

    allowed_origins: _List
    """Who may call us and frame us; empty is nobody."""
    frame_ancestors: Annotated[tuple[str, ...] | None, BeforeValidator(values.read_list)] = None
    """Who may frame us, only where that differs from the allowed origins; empty is nobody."""
    framing: Annotated[Literal["narrow", "sole"], BeforeValidator(values.one_of("narrow", "sole"))] = "narrow"
    """``narrow``: the app's own frame-ancestors still count; ``sole``: they are removed."""
    frame_report_uri: _MaybeText = None
    """Where browsers report frames that report-only would have refused."""
    tenant_origins_file: _MaybePath = None
    """TOML of tenants and their origins, which narrow the allowed ones."""
    public_origin: _List = ()
    """Our own origins, for "self"."""
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(rules.read_networks)] = ()
    """The networks whose forwarded headers and request ids count."""
    cors: _Flag = True
    """Answer preflights and send CORS headers for listed origins."""

    issuer: _Word
    """The exact ``iss``."""
    audience: Annotated[tuple[str, ...], BeforeValidator(values.read_audience)]
    """The exact ``aud``, or several of which a token must name one."""
    keys: Annotated[SecretStr | None, BeforeValidator(values.read_keys)] = None
    """Verification keys as JWKS."""
    keys_file: _MaybePath = None
    """Verification keys in a file, as JWKS or PEM."""
    secret: _MaybeSecret = None
    """One HS256 secret."""
    secret_file: _MaybePath = None
    """One HS256 secret in a file; one newline at its end is not part of it."""
    jwks_url: Annotated[str | None, BeforeValidator(read_jwks_url)] = None
    """Where the issuer's keys are fetched: https, or http on this machine."""
    jwks_max_stale_seconds: Annotated[int, BeforeValidator(values.whole_number(60, 604_800))] = 3600
    """How long fetched keys stay good while they cannot be fetched again."""
    token_lifetime_seconds: Annotated[int, BeforeValidator(values.whole_number(1, 86_400))] = 3600
    """The longest accepted ``exp - iat``."""
    leeway_seconds: Annotated[int, BeforeValidator(values.whole_number(0, 60))] = 30
    """Accepted clock skew."""
    token_carriers: Annotated[tuple[str, ...], BeforeValidator(rules.read_carriers)] = (
        "authorization",
        "x-embed-token",
    )
    """Where a token may travel; also ``websocket`` and ``session``."""
    token_cache_size: Annotated[int, BeforeValidator(values.whole_number(0, 10_000_000))] = 10_000
    """Verified tokens to remember, with what was let in of their requests; 0 remembers none."""
    require_tenant: _Flag = True
    """A token must name its tenant."""
    require_token_origins: _Flag = False
    """A token must name its origins, unless its tenant has a list."""
    claim_tenant: _Claim = "tenant"
    """The name of the claim ``tenant`` in this issuer's tokens."""
    claim_grants: _Claim = "grants"
    """The name of the claim ``grants``."""
    claim_rls: _Claim = "rls"
    """The name of the claim ``rls``."""
    claim_origins: _Claim = "origins"
    """The name of the claim ``origins``."""
    claim_region: _Claim = "region"
    """The name of the claim ``region``."""

    rls_policy: _MaybePath = None
    """The row rules, in TOML or (``.json``) JSON."""
    rls_columns: Annotated[tuple[str, ...] | None, BeforeValidator(rules.read_columns)] = None
    """The row rules as shorthand, ``flights.carrier=carrier``; a mapping in Python."""
    region: _MaybeText = None
    """Where this deployment's data stays."""
    store_region: _MaybeText = None
    """Where the store is; must be ``REGION``."""
    jwks_region: _MaybeText = None
    """Where the endpoint of ``JWKS_URL`` is; must be ``REGION``."""
    audit_region: _MaybeText = None
    """Where audit records go to; must be ``REGION``."""
    store_url: _MaybeSecret = None
    """Sessions, spent tokens and revocations: ``memory://``, the default, or a Redis or Valkey server."""
    store_url_file: _MaybePath = None
    """The store's URL, which has a password, in a file."""
    workers: Annotated[int, BeforeValidator(values.whole_number(1, 10_000))] = 1
    """Worker processes; ``WEB_CONCURRENCY`` where it is not set."""
    revocation_staleness_seconds: Annotated[int, BeforeValidator(values.whole_number(1, 3600))] = 5
    """How late a worker may learn of a revocation."""

    api_keys_file: _MaybePath = None
    """The API keys of the token service."""
    api_key_pepper: _MaybeSecret = None
    """Hides stored API keys."""
    api_key_pepper_file: _MaybePath = None
    """The pepper in a file."""
    token_service_key: _MaybeSecret = None
    """Signs what the token service hands out."""
    token_service_key_file: _MaybePath = None
    """The token service's key in a file."""
    token_refresh_seconds: Annotated[int, BeforeValidator(values.whole_number(0, 604_800))] = 28_800
    """How long after its first issue a token of the token service may still be renewed; 0 never."""
    pg_context_key: _MaybeSecret = None
    """Signs the claims that PostgreSQL sees."""
    pg_context_key_file: _MaybePath = None
    """The context key in a file."""
    pg_pooler: Annotated[Literal["none", "transaction"], BeforeValidator(values.one_of("none", "transaction"))] = "none"
    """What pools connections in front of PostgreSQL."""

    audit: Annotated[str, BeforeValidator(rules.read_audit)] = "stdout"
    """Where events go: ``stdout``, ``structlog`` or a path."""
    audit_mode: Annotated[Literal["strict", "best_effort"], BeforeValidator(values.one_of("strict", "best_effort"))] = (
        "strict"
    )
    """``strict``: no answer without a record."""
    audit_hmac_key: _MaybeSecret = None
    """Makes pseudonyms of subjects, token ids and client addresses."""
    audit_hmac_key_file: _MaybePath = None
    """The pseudonym key in a file."""
    audit_chain_key: _MaybeSecret = None
    """Keys the audit chain."""
    audit_chain_key_file: _MaybePath = None
    """The chain key in a file."""
    audit_queue_size: Annotated[int, BeforeValidator(values.whole_number(1, 1_000_000))] = 10_000
    """``best_effort``: how many events may wait for a slow sink."""
    metrics: _Flag = False
    """Count decisions through the OpenTelemetry API."""

    report_only: Annotated[tuple[str, ...], BeforeValidator(rules.read_report_only)] = ()
    """Decisions that are recorded and not enforced: ``origin frame_ancestors region grant``."""
    exempt_paths: Annotated[tuple[str, ...], BeforeValidator(rules.read_exempt_paths)] = ()
    """Exact paths that are not guarded."""
    exempt_prefixes: Annotated[tuple[str, ...], BeforeValidator(rules.read_exempt_prefixes)] = ()
    """Whole-segment prefixes that are not guarded, for GET and HEAD."""
    environment: Annotated[
        Literal["production", "development"], BeforeValidator(values.one_of("production", "development"))
    ] = "production"
    """Only ``development`` takes http and localhost origins."""

    insecure_no_rls: _Flag = False
    """Everybody with a token sees every row."""
    insecure_no_audit: _Flag = False
    """Nothing is recorded."""
    insecure_any_origin: _Flag = False
    """``*`` may stand among the allowed origins: any site may call and frame us."""
    insecure_null_origin: _Flag = False
    """Sandboxed and local documents may call us, with a token."""
    insecure_websocket_without_origin: _Flag = False
    """Clients that are no browsers may open WebSockets, with a token."""
    insecure_typ_jwt: _Flag = False
    """Tokens of ``typ: JWT`` are accepted: others that this issuer signs may open charts."""
    insecure_store_fail_open: _Flag = False
    """While the store does not answer, tokens pass that may have been revoked."""

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
        with _naming(source if source in self.model_fields_set else f"{source}_file"):
            try:
                return KeyRing.load(text) if source == "keys" else KeyRing.from_secret(text)
            except ValueError:  # whatever a library says about a key could quote it
                raise ValueError("holds nothing that can be read as a key: make it anew") from None

    @cached_property
    def api_keys(self) -> ApiKeys | None:
        """The API keys, which follow their file; None where there is none."""
        if self.api_keys_file is None or self.token_service_key is None:
            return None
        return read_api_keys(
            self.api_keys_file,
            service_key=self.token_service_key,
            pepper=self.api_key_pepper,
            development=self._development,
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
        return None if self.store_url is None else store_address(self.store_url.get_secret_value())

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
        with _naming("audit_hmac_key"):
            key = key_bytes(self.audit_hmac_key)
        return None if key is None else Pseudonyms(key)

    @cached_property
    def chain_key(self) -> bytes | None:
        """What keys the chain of audit lines."""
        with _naming("audit_chain_key"):
            return key_bytes(self.audit_chain_key)

    @cached_property
    def database_context(self) -> DatabaseContext | None:
        """What signs the claims for PostgreSQL's policies; None where there is no key."""
        if self.pg_context_key is None:
            return None
        secret = self.pg_context_key.get_secret_value()
        with _naming("pg_context_key"):
            if problem := secret_problem(secret.encode(), MIN_KEY_BYTES):
                raise ConfigError(problem)
            return DatabaseContext(secret, pooler=self.pg_pooler, leeway_seconds=self.leeway_seconds)

    @property
    def insecure(self) -> tuple[str, ...]:
        """The variables of the dangerous switches that are on, sorted."""
        names = type(self).model_fields
        return tuple(variable(name) for name in sorted(names) if name.startswith("insecure_") and self.__dict__[name])

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
