"""Everything that an operator can say: one field for each ``TOUCAN_GUARD_…`` variable, and how its text is read.

What follows from them, and what cannot hold together, is ``settings.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, SecretStr

from toucan_guard import settings_rules as rules
from toucan_guard import settings_values as values
from toucan_guard.settings_env import EnvironmentSettings
from toucan_guard.settings_keys import read_jwks_url
from toucan_guard.settings_rules import Network

_REQUIRED: Final = {
    "allowed_origins": "name the origins that may call and frame this service, or set it empty for nobody",
    "issuer": "give the iss value of this service's tokens",
    "audience": "give the aud value of this service's tokens",
}

_Flag = Annotated[bool, BeforeValidator(values.read_flag)]
_List = Annotated[tuple[str, ...], BeforeValidator(values.read_list)]
_Word = Annotated[str, BeforeValidator(values.read_text)]
_MaybeText = Annotated[str | None, BeforeValidator(values.read_text)]
_MaybePath = Annotated[Path | None, BeforeValidator(values.read_path)]
_MaybeSecret = Annotated[SecretStr | None, BeforeValidator(values.read_secret)]
_Claim = Annotated[str, BeforeValidator(rules.read_claim)]


class SettingsFields(EnvironmentSettings):
    """The fields of ``GuardSettings``, each checked by itself."""

    required_settings: ClassVar[Mapping[str, str]] = _REQUIRED

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
