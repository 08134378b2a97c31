"""GuardSettings: every variable from both sides, every mistake told with its mend, no secret shown."""

from __future__ import annotations

import copy
import ipaddress
import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, SecretStr, ValidationError

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origins import parse_origin
from toucan_guard.rls.postgres_context import DatabaseContext
from toucan_guard.settings import GuardSettings
from toucan_guard.settings_audit import settings_digest
from toucan_guard.tokens.keys import KeyRing

SECRET = "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEaPqKo"
OTHER_SECRET = "w8RtY2-hNs5_pLx0cVq7BmJ3zKd9FgUeAiSo"
JWK_BYTES = "azN1SjdmLVF4OV8ybVZiOHNacjRUblcxeUxjNkhkRWFQcUtv"
JWKS = json.dumps({"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": JWK_BYTES}]})
PEM = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
POLICY_TOML = """
[attributes]
carrier = "string"

[tables.flights]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]
"""
POLICY_JSON = json.dumps(
    {
        "attributes": {"carrier": "string"},
        "tables": {"flights": {"all": [{"column": "carrier", "op": "eq", "attribute": "carrier"}]}},
    }
)

# The table of DESIGN section 11, written out: the code's fields are compared with it, not it with the code.
CONTRACT = """
    ALLOWED_ORIGINS FRAME_ANCESTORS FRAMING FRAME_REPORT_URI TENANT_ORIGINS_FILE PUBLIC_ORIGIN TRUSTED_PROXIES CORS
    ISSUER AUDIENCE KEYS KEYS_FILE SECRET SECRET_FILE JWKS_URL JWKS_MAX_STALE_SECONDS TOKEN_LIFETIME_SECONDS
    LEEWAY_SECONDS TOKEN_CARRIERS TOKEN_CACHE_SIZE REQUIRE_TENANT REQUIRE_TOKEN_ORIGINS CLAIM_TENANT CLAIM_GRANTS
    CLAIM_RLS CLAIM_ORIGINS CLAIM_REGION RLS_POLICY RLS_COLUMNS INSECURE_NO_RLS REGION STORE_URL STORE_URL_FILE WORKERS
    STORE_REGION JWKS_REGION AUDIT_REGION
    REVOCATION_STALENESS_SECONDS API_KEYS_FILE API_KEY_PEPPER API_KEY_PEPPER_FILE TOKEN_SERVICE_KEY
    TOKEN_SERVICE_KEY_FILE PG_CONTEXT_KEY PG_CONTEXT_KEY_FILE PG_POOLER AUDIT INSECURE_NO_AUDIT AUDIT_MODE
    AUDIT_HMAC_KEY AUDIT_HMAC_KEY_FILE AUDIT_CHAIN_KEY AUDIT_CHAIN_KEY_FILE AUDIT_QUEUE_SIZE METRICS
    REPORT_ONLY EXEMPT_PATHS EXEMPT_PREFIXES
    ENVIRONMENT INSECURE_ANY_ORIGIN INSECURE_NULL_ORIGIN INSECURE_WEBSOCKET_WITHOUT_ORIGIN INSECURE_TYP_JWT
    INSECURE_STORE_FAIL_OPEN TOKEN_REFRESH_SECONDS
""".split()  # noqa: SIM905 - a list literal of sixty lines would hide the table

DEFAULTS: dict[str, object] = {
    "frame_ancestors": None,
    "framing": "narrow",
    "frame_report_uri": None,
    "tenant_origins_file": None,
    "public_origin": (),
    "trusted_proxies": (),
    "cors": True,
    "keys": None,
    "keys_file": None,
    "secret_file": None,
    "jwks_url": None,
    "jwks_max_stale_seconds": 3600,
    "token_lifetime_seconds": 3600,
    "leeway_seconds": 30,
    "token_carriers": ("authorization", "x-embed-token"),
    "token_cache_size": 10_000,
    "require_tenant": True,
    "require_token_origins": False,
    "claim_tenant": "tenant",
    "claim_grants": "grants",
    "claim_rls": "rls",
    "claim_origins": "origins",
    "claim_region": "region",
    "rls_policy": None,
    "region": None,
    "store_region": None,
    "jwks_region": None,
    "audit_region": None,
    "store_url": None,
    "store_url_file": None,
    "workers": 1,
    "revocation_staleness_seconds": 5,
    "api_keys_file": None,
    "token_refresh_seconds": 28_800,
    "pg_pooler": "none",
    "audit": "stdout",
    "audit_mode": "strict",
    "audit_hmac_key": None,
    "audit_hmac_key_file": None,
    "audit_chain_key": None,
    "audit_chain_key_file": None,
    "audit_queue_size": 10_000,
    "metrics": False,
    "report_only": (),
    "exempt_paths": (),
    "exempt_prefixes": (),
    "environment": "production",
    "insecure_no_rls": False,
    "insecure_no_audit": False,
    "insecure_any_origin": False,
    "insecure_null_origin": False,
    "insecure_websocket_without_origin": False,
    "insecure_typ_jwt": False,
    "insecure_store_fail_open": False,
}

GOOD: dict[str, str] = {
    "ALLOWED_ORIGINS": "https://portal.example",
    "ISSUER": "https://host.example",
    "AUDIENCE": "charts",
    "SECRET": SECRET,
    "RLS_COLUMNS": "flights.carrier=carrier",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TOUCAN") or name == "WEB_CONCURRENCY":
            monkeypatch.delenv(name)


FromEnvironment = Callable[..., GuardSettings]


@pytest.fixture
def from_env(monkeypatch: pytest.MonkeyPatch) -> FromEnvironment:
    """Settings from an environment that is good but for what a test changes; None removes a variable."""

    def read(changes: Mapping[str, str | None] | None = None, /, **keywords: Any) -> GuardSettings:
        for name, value in {**GOOD, **(changes or {})}.items():
            if value is not None:
                monkeypatch.setenv(f"TOUCAN_GUARD_{name}", value)
        return GuardSettings(**keywords)

    return read


def from_python(**changes: Any) -> GuardSettings:
    good: dict[str, Any] = {
        "allowed_origins": ["https://portal.example"],
        "issuer": "https://host.example",
        "audience": "charts",
        "secret": SECRET,
        "rls_columns": {"flights.carrier": "carrier"},
    }
    return GuardSettings(**{**good, **changes})


def refusal(make: Callable[[], GuardSettings]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        make()
    return caught.value.problems


def only_problem(make: Callable[[], GuardSettings]) -> str:
    problems = refusal(make)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_fields_are_the_contract_and_nothing_else() -> None:
    assert sorted(GuardSettings.model_fields) == sorted(name.lower() for name in CONTRACT)
    assert len(set(CONTRACT)) == len(CONTRACT)


def test_every_field_says_what_it_does() -> None:
    assert [name for name, field in GuardSettings.model_fields.items() if not field.description] == []


def test_defaults_are_the_contract() -> None:
    settings = from_python()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert settings.allowed_origins == ("https://portal.example",)
    assert settings.audience == ("charts",)
    assert settings.insecure == ()


# Variable, its text in the environment, the same from Python, what the field then holds. `TMP` stands for a folder.
VALUES: list[tuple[str, str, Any, Any]] = [
    (
        "ALLOWED_ORIGINS",
        " https://a.example , ,https://b.example,",
        ["https://a.example", "https://b.example"],
        ("https://a.example", "https://b.example"),
    ),
    ("ALLOWED_ORIGINS", "", [], ()),
    ("FRAME_ANCESTORS", "https://a.example,'self'", ("https://a.example", "'self'"), ("https://a.example", "'self'")),
    ("FRAME_ANCESTORS", "", [], ()),
    ("FRAMING", "sole", "sole", "sole"),
    ("FRAME_REPORT_URI", "https://r.example/csp?x=1", "https://r.example/csp?x=1", "https://r.example/csp?x=1"),
    ("TENANT_ORIGINS_FILE", "TMP/tenants.toml", Path("TMP/tenants.toml"), Path("TMP/tenants.toml")),
    ("PUBLIC_ORIGIN", "https://charts.example", ["https://charts.example"], ("https://charts.example",)),
    (
        "TRUSTED_PROXIES",
        "10.0.0.7, 2001:db8::/32",
        [ipaddress.ip_address("10.0.0.7"), "2001:db8::/32"],
        (ipaddress.ip_network("10.0.0.7/32"), ipaddress.ip_network("2001:db8::/32")),
    ),
    ("CORS", "off", False, False),
    ("ISSUER", "https://idp.example/", "https://idp.example/", "https://idp.example/"),
    ("AUDIENCE", "charts, tables", ["charts", "tables"], ("charts", "tables")),
    ("AUDIENCE", "charts,tables", "charts,tables", ("charts", "tables")),
    ("SECRET", OTHER_SECRET, OTHER_SECRET, SecretStr(OTHER_SECRET)),
    ("TOKEN_LIFETIME_SECONDS", "900", 900, 900),
    ("LEEWAY_SECONDS", " 0 ", 0, 0),
    ("LEEWAY_SECONDS", "60", 60, 60),
    ("TOKEN_CARRIERS", "X-Embed-Token,websocket", ["x-embed-token", "websocket"], ("websocket", "x-embed-token")),
    ("TOKEN_CARRIERS", "session", {"session"}, ("session",)),
    ("TOKEN_CACHE_SIZE", "0", 0, 0),
    ("REQUIRE_TENANT", "False", False, False),
    ("REQUIRE_TOKEN_ORIGINS", "1", True, True),
    ("CLAIM_TENANT", "https://a.example/org", "https://a.example/org", "https://a.example/org"),
    ("CLAIM_GRANTS", "scopes", "scopes", "scopes"),
    ("CLAIM_RLS", "https://a.example/rls", "https://a.example/rls", "https://a.example/rls"),
    ("CLAIM_ORIGINS", "sites", "sites", "sites"),
    ("CLAIM_REGION", "zone", "zone", "zone"),
    ("RLS_COLUMNS", "f.a=x, f.b=y", {"f.a": "x", "f.b": "y"}, ("f.a=x", "f.b=y")),
    ("RLS_COLUMNS", "f.a=x", "f.a=x", ("f.a=x",)),
    ("RLS_COLUMNS", "f.a=x", ["f.a=x"], ("f.a=x",)),
    ("REGION", "eu-west", "eu-west", "eu-west"),
    ("STORE_URL", "memory://", "memory://", SecretStr("memory://")),
    ("WORKERS", "4", 4, 4),
    ("PG_POOLER", "transaction", "transaction", "transaction"),
    ("PG_CONTEXT_KEY", OTHER_SECRET, OTHER_SECRET, SecretStr(OTHER_SECRET)),
    ("AUDIT", "structlog", "structlog", "structlog"),
    ("AUDIT", "TMP/audit.jsonl", Path("TMP/audit.jsonl"), "TMP/audit.jsonl"),
    ("AUDIT", "/dev/full", "/dev/full", "/dev/full"),
    ("AUDIT_MODE", "best_effort", "best_effort", "best_effort"),
    ("AUDIT_QUEUE_SIZE", "500", 500, 500),
    ("METRICS", "true", True, True),
    ("REPORT_ONLY", "region,origin", ["region", "origin"], ("origin", "region")),
    ("REPORT_ONLY", "grant,frame_ancestors", ["grant", "frame_ancestors"], ("frame_ancestors", "grant")),
    ("EXEMPT_PATHS", "/healthz,/", ["/healthz", "/"], ("/", "/healthz")),
    ("EXEMPT_PREFIXES", "/static/,/img", ["/static/", "/img"], ("/img", "/static")),
    ("ENVIRONMENT", "development", "development", "development"),
    ("INSECURE_ANY_ORIGIN", "true", True, True),
    ("INSECURE_NULL_ORIGIN", "yes", True, True),
    ("INSECURE_WEBSOCKET_WITHOUT_ORIGIN", "on", True, True),
    ("INSECURE_TYP_JWT", "TRUE", True, True),
    ("INSECURE_STORE_FAIL_OPEN", "false", False, False),
    ("INSECURE_NO_AUDIT", "true", True, True),
]


def _in(folder: Path, value: Any) -> Any:
    if isinstance(value, Path):
        return Path(_in(folder, str(value)))
    return value.replace("TMP", str(folder)) if isinstance(value, str) else value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tenants.toml").write_text('AA = ["https://aa.example"]\nUA = []\n')
    (tmp_path / "policy.toml").write_text(POLICY_TOML)
    (tmp_path / "policy.json").write_text(POLICY_JSON)
    (tmp_path / "keys.json").write_text(JWKS + "\n")
    (tmp_path / "keys.pem").write_text(PEM)
    (tmp_path / "secret").write_text(SECRET + "\n")
    return tmp_path


@pytest.mark.parametrize(("name", "text", "value", "expected"), VALUES)
def test_a_value_means_the_same_from_the_environment_and_from_python(
    name: str, text: str, value: Any, expected: Any, from_env: FromEnvironment, folder: Path
) -> None:
    expected = _in(folder, expected)
    assert getattr(from_python(**{name.lower(): _in(folder, value)}), name.lower()) == expected
    assert getattr(from_env({name: _in(folder, text)}), name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEYS", JWKS),
        ("KEYS", PEM),
        ("KEYS_FILE", "TMP/keys.json"),
        ("KEYS_FILE", "TMP/keys.pem"),
        ("SECRET_FILE", "TMP/secret"),
    ],
)
def test_every_source_of_keys_makes_a_ring(name: str, value: str, from_env: FromEnvironment, folder: Path) -> None:
    text = _in(folder, value)
    assert len(from_python(secret=None, **{name.lower(): text}).key_ring) == 1
    assert len(from_env({"SECRET": None, name: text}).key_ring) == 1


def test_keys_may_be_a_parsed_jwks_or_masked_text_in_python() -> None:
    assert len(from_python(secret=None, keys=json.loads(JWKS)).key_ring) == 1
    assert len(from_python(secret=None, keys=SecretStr(JWKS)).key_ring) == 1
    assert len(from_python(secret=SecretStr(SECRET)).key_ring) == 1


@pytest.mark.parametrize("name", ["policy.toml", "policy.json"])
def test_the_policy_file_is_read_by_its_suffix(name: str, from_env: FromEnvironment, folder: Path) -> None:
    settings = from_env({"RLS_COLUMNS": None, "RLS_POLICY": str(folder / name)})
    assert settings.policy is not None
    assert settings.policy.version == from_python(rls_columns=None, rls_policy=folder / name).policy.version  # type: ignore[union-attr]
    assert settings.rls_policy == folder / name


def test_rls_can_be_switched_off_aloud(from_env: FromEnvironment) -> None:
    settings = from_env({"RLS_COLUMNS": None, "INSECURE_NO_RLS": "true"})
    assert settings.policy is None
    assert settings.insecure == ("TOUCAN_GUARD_INSECURE_NO_RLS",)


def test_audit_can_be_switched_off_aloud_although_it_has_a_place(from_env: FromEnvironment) -> None:
    # AUDIT has a default, so that the switch always stands against a value; row rules have none.
    settings = from_env({"AUDIT": "stdout", "INSECURE_NO_AUDIT": "true"})
    assert settings.insecure == ("TOUCAN_GUARD_INSECURE_NO_AUDIT",)


def test_dangerous_switches_are_listed_in_order() -> None:
    settings = from_python(insecure_typ_jwt=True, insecure_any_origin=True, insecure_no_audit=True)
    assert settings.insecure == (
        "TOUCAN_GUARD_INSECURE_ANY_ORIGIN",
        "TOUCAN_GUARD_INSECURE_NO_AUDIT",
        "TOUCAN_GUARD_INSECURE_TYP_JWT",
    )


class TestWhichSourceCounts:
    def test_a_keyword_beats_the_environment(self, from_env: FromEnvironment) -> None:
        assert from_env({"LEEWAY_SECONDS": "50"}, leeway_seconds=5).leeway_seconds == 5
        assert from_env({"LEEWAY_SECONDS": "50"}).leeway_seconds == 50

    def test_a_keyword_beats_a_broken_variable(self, from_env: FromEnvironment) -> None:
        assert from_env({"LEEWAY_SECONDS": "broken"}, leeway_seconds=5).leeway_seconds == 5

    def test_an_explicit_none_unsets_an_optional_variable(self, from_env: FromEnvironment) -> None:
        assert from_env({"REGION": "eu"}, region=None).region is None
        assert len(from_env({"KEYS_FILE": "/nowhere"}, keys_file=None).key_ring) == 1

    def test_none_is_no_value_for_a_switch_or_a_number(self) -> None:
        names = ("cors", "leeway_seconds", "require_tenant", "token_carriers", "workers")
        problems = refusal(lambda: from_python(**dict.fromkeys(names)))
        assert sorted(problem.split()[0] for problem in problems) == [f"TOUCAN_GUARD_{name.upper()}" for name in names]

    def test_none_for_a_required_setting_is_its_absence(self, from_env: FromEnvironment) -> None:
        assert "ISSUER is required" in only_problem(lambda: from_env(issuer=None))

    def test_env_files_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".env").write_text("TOUCAN_GUARD_LEEWAY_SECONDS=7\n")
        monkeypatch.chdir(tmp_path)
        assert from_python().leeway_seconds == 30

    def test_workers_come_from_web_concurrency(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEB_CONCURRENCY", "3")
        assert from_python().workers == 3
        assert from_python(workers=2).workers == 2
        monkeypatch.setenv("TOUCAN_GUARD_WORKERS", "5")
        assert from_python().workers == 5

    def test_a_broken_web_concurrency_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEB_CONCURRENCY", "many")
        problem = only_problem(from_python)
        assert problem.startswith("WEB_CONCURRENCY ")
        assert "TOUCAN_GUARD_WORKERS" in problem
        assert from_python(workers=1).workers == 1


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("TOUCAN_GUARD_ALOWED_ORIGINS", "TOUCAN_GUARD_ALLOWED_ORIGINS"),
            ("TOUCAN_GUARD_REQUIRE_TOKEN_ORIGIN", "TOUCAN_GUARD_REQUIRE_TOKEN_ORIGINS"),
            ("TOUCAN_GUARD_KEY_FILE", "TOUCAN_GUARD_KEYS_FILE"),
            ("toucan_guard_secret", "TOUCAN_GUARD_SECRET"),
            ("Toucan_Guard_Region", "TOUCAN_GUARD_REGION"),
            ("TOUCAN_GUARD_region", "TOUCAN_GUARD_REGION"),
            ("toucan_guard_reqion", "TOUCAN_GUARD_REGION"),
            ("TOUCANGUARD_REGION", "TOUCAN_GUARD_REGION"),
            ("TOUCAN_GUARD__REGION", "TOUCAN_GUARD_REGION"),
            ("TOUCAN-GUARD-REGION", "TOUCAN_GUARD_REGION"),
            ("TOUCAN_GUARD_PORT_8000_TCP_ADDR", "enableServiceLinks"),
            ("TOUCAN_GUARD_SERVICE_HOST", "enableServiceLinks"),
            ("TOUCAN_GUARD_ZZZZZZZZ", "remove it"),
            ("TOUCAN_GUARD_", "remove it"),
            ("TOUCAN_GUARD", "remove it"),
            ("TOUCAN_GAURD_AUDIT_HMAC_KEY", "TOUCAN_GUARD_AUDIT_HMAC_KEY"),
            ("TOCAN_GUARD_REGION", "TOUCAN_GUARD_REGION"),
            ("toucan_guards_region", "TOUCAN_GUARD_REGION"),
        ],
    )
    def test_an_unknown_variable_is_refused(
        self, name: str, hint: str, monkeypatch: pytest.MonkeyPatch, from_env: FromEnvironment
    ) -> None:
        monkeypatch.setenv(name, "some-value")
        problem = only_problem(from_env)
        assert problem.startswith(f"{name} is not a setting")
        assert hint in problem
        assert "some-value" not in problem

    def test_other_names_are_nobody_s_business(
        self, monkeypatch: pytest.MonkeyPatch, from_env: FromEnvironment
    ) -> None:
        for name in (
            "TOUCAN_GUARDIAN_REGION",
            "TOUCAN_GAURD",
            "TOUCAN_REGION",
            "TOUCAN_BOARD_REGION",
            "MY_TOUCAN_GUARD_REGION",
            "X_TOUCAN_GUARD_REGION",
            "REGION",
        ):
            monkeypatch.setenv(name, "x")
        assert from_env().region is None

    @pytest.mark.parametrize(
        ("keyword", "hint"),
        [
            ("alowed_origins", "allowed_origins"),
            ("SECRET", "secret"),
            ("TOUCAN_GUARD_REGION", "region"),
            ("_env_file", "TOUCAN_GUARD__ENV_FILE"),
            ("_secrets_dir", "TOUCAN_GUARD__SECRETS_DIR"),
            ("self", "TOUCAN_GUARD_SELF"),
            ("given", "TOUCAN_GUARD_GIVEN"),
            ("a b\n", "a b\\n"),
        ],
    )
    def test_an_unknown_keyword_is_refused(self, keyword: str, hint: str) -> None:
        problem = only_problem(lambda: from_python(**{keyword: "some-value"}))
        assert "is not a setting" in problem
        assert hint in problem
        assert "some-value" not in problem
        assert "\n" not in problem


def test_all_mistakes_are_told_at_once(from_env: FromEnvironment) -> None:
    problems = refusal(
        lambda: from_env(
            {
                "ISUER": "x",
                "ISSUER": " padded",
                "AUDIENCE": ",",
                "ALLOWED_ORIGINS": "https://*.com,https://a.example/path",
                "SECRET": "changeme",
                "RLS_COLUMNS": "nonsense",
                "CORS": "maybe",
                "LEEWAY_SECONDS": "61",
                "WORKERS": "2",
                "TOKEN_CARRIERS": "session",
                "REPORT_ONLY": "signature,nothing",
                "TRUSTED_PROXIES": "10.0.0.1/8,proxy.example",
                "CLAIM_RLS": "tenant",
                "TENANT_ORIGINS_FILE": "/nowhere/tenants.toml",
                "PUBLIC_ORIGIN": "https://*.example.org",
                "JWKS_URL": "https://x.example",
            },
            unknown_thing=1,
        )
    )
    told = "\n".join(problems)
    for name in (
        "ISUER",
        "UNKNOWN_THING",
        "ISSUER",
        "AUDIENCE",
        "ALLOWED_ORIGINS",
        "SECRET",
        "RLS_COLUMNS",
        "CORS",
        "LEEWAY_SECONDS",
        "WORKERS",
        "REPORT_ONLY",
        "TRUSTED_PROXIES",
        "TENANT_ORIGINS_FILE",
        "PUBLIC_ORIGIN",
        "JWKS_URL",
    ):
        assert f"TOUCAN_GUARD_{name}" in told
    assert "signature" in told
    assert "nothing" in told
    assert "proxy.example" in told
    assert all(problem.startswith("TOUCAN_GUARD_") for problem in problems)
    assert len(problems) == len(set(problems))


# What an operator gets wrong, in the environment; the variable that the error names first, and words of its mend.
MISTAKES: list[tuple[str, dict[str, str | None], str, str]] = [
    ("origins are required", {"ALLOWED_ORIGINS": None}, "ALLOWED_ORIGINS", "empty for nobody"),
    ("an issuer is required", {"ISSUER": None}, "ISSUER", "iss"),
    ("an audience is required", {"AUDIENCE": None}, "AUDIENCE", "aud"),
    ("an empty issuer is none", {"ISSUER": ""}, "ISSUER", "empty"),
    ("an empty audience is none", {"AUDIENCE": ""}, "AUDIENCE", "names nobody"),
    ("an audience of commas is none", {"AUDIENCE": " , "}, "AUDIENCE", "names nobody"),
    ("an issuer is compared exactly", {"ISSUER": "https://host.example "}, "ISSUER", "remove"),
    ("an issuer from a Windows file", {"ISSUER": "https://host.example\r"}, "ISSUER", "remove"),
    ("a control character in an issuer", {"ISSUER": "a\x07b"}, "ISSUER", "printable"),
    ("keys are required", {"SECRET": None}, "KEYS_FILE", "required"),
    ("two sources of keys", {"KEYS": JWKS}, "KEYS", "keep one"),
    ("secret and its file", {"SECRET_FILE": "/nowhere"}, "SECRET", "keep one"),
    ("keys and their file", {"SECRET": None, "KEYS": JWKS, "KEYS_FILE": "/nowhere"}, "KEYS", "keep one"),
    ("an empty secret", {"SECRET": ""}, "SECRET", "empty"),
    ("a blank secret", {"SECRET": "   "}, "SECRET", "empty"),
    ("a placeholder", {"SECRET": "changeme"}, "SECRET", ""),
    ("a short secret", {"SECRET": "k3uJ7f-Qx9"}, "SECRET", ""),
    ("a secret with a newline", {"SECRET": SECRET + "\n"}, "SECRET", "printf"),
    ("a secret with two newlines", {"SECRET": SECRET + "\n\n"}, "SECRET", "printf"),
    ("a secret with a space before", {"SECRET": " " + SECRET}, "SECRET", "remove"),
    ("a secret with a space after", {"SECRET": SECRET + " "}, "SECRET", "remove"),
    ("a secret in quotation marks", {"SECRET": f'"{SECRET}"'}, "SECRET", "quotation marks"),
    ("an issuer in quotation marks", {"ISSUER": "'https://host.example'"}, "ISSUER", "quotation marks"),
    ("an audience in quotation marks", {"AUDIENCE": '"charts"'}, "AUDIENCE", "quotation marks"),
    ("a list in quotation marks", {"ALLOWED_ORIGINS": '"https://a.example"'}, "ALLOWED_ORIGINS", "quotation marks"),
    ("a secret with a byte order mark", {"SECRET": "\ufeff" + SECRET}, "SECRET", "byte order mark"),
    ("a public key as secret", {"SECRET": PEM.strip()}, "SECRET", ""),
    ("a secret that is not UTF-8", {"SECRET": SECRET + "\udcff"}, "SECRET", "UTF-8"),
    ("a secret's file that is not there", {"SECRET": None, "SECRET_FILE": "/nowhere/secret"}, "SECRET_FILE", "No such"),
    ("a secret's folder", {"SECRET": None, "SECRET_FILE": "/tmp"}, "SECRET_FILE", "directory"),
    ("an endless file", {"SECRET": None, "SECRET_FILE": "/dev/zero"}, "SECRET_FILE", "32 MiB"),
    ("an empty file", {"SECRET": None, "SECRET_FILE": "/dev/null"}, "SECRET_FILE", "empty"),
    ("an empty path", {"SECRET": None, "SECRET_FILE": ""}, "SECRET_FILE", "empty"),
    ("keys that are no JSON", {"SECRET": None, "KEYS": "{"}, "KEYS", ""),
    ("keys nested without end", {"SECRET": None, "KEYS": "[" * 100_000}, "KEYS", ""),
    ("an empty JWKS", {"SECRET": None, "KEYS": '{"keys": []}'}, "KEYS", ""),
    ("empty keys", {"SECRET": None, "KEYS": ""}, "KEYS", "empty"),
    ("row rules are required", {"RLS_COLUMNS": None}, "RLS_POLICY", "INSECURE_NO_RLS"),
    ("no is no row rule", {"RLS_COLUMNS": None, "INSECURE_NO_RLS": "false"}, "RLS_POLICY", "required"),
    ("an empty switch is no answer", {"RLS_COLUMNS": None, "INSECURE_NO_RLS": ""}, "INSECURE_NO_RLS", "empty"),
    ("two kinds of row rules", {"RLS_POLICY": "TMP/policy.toml"}, "RLS_POLICY", "given together"),
    ("row rules, and none", {"INSECURE_NO_RLS": "true"}, "INSECURE_NO_RLS", "contradicts"),
    ("an empty shorthand", {"RLS_COLUMNS": ""}, "RLS_COLUMNS", "names no column"),
    ("a broken shorthand", {"RLS_COLUMNS": "carrier"}, "RLS_COLUMNS", ""),
    ("a missing policy", {"RLS_COLUMNS": None, "RLS_POLICY": "/nowhere/p.toml"}, "RLS_POLICY", "No such file"),
    ("a broken policy", {"RLS_COLUMNS": None, "RLS_POLICY": "TMP/secret"}, "RLS_POLICY", ""),
    ("a path in an origin", {"ALLOWED_ORIGINS": "https://a.example/x"}, "ALLOWED_ORIGINS", ""),
    ("everybody without the switch", {"ALLOWED_ORIGINS": "*"}, "ALLOWED_ORIGINS", ""),
    ("http in production", {"ALLOWED_ORIGINS": "http://a.example"}, "ALLOWED_ORIGINS", "development"),
    ("localhost in production", {"ALLOWED_ORIGINS": "http://localhost:3000"}, "ALLOWED_ORIGINS", "development"),
    ("a broken frame ancestor", {"FRAME_ANCESTORS": "https://a.example;x"}, "FRAME_ANCESTORS", ""),
    ("an address as frame ancestor", {"ALLOWED_ORIGINS": "https://192.0.2.7"}, "ALLOWED_ORIGINS", "FRAME_ANCESTORS"),
    ("framing misspelt", {"FRAMING": "Narrow"}, "FRAMING", "did you mean narrow"),
    ("framing empty", {"FRAMING": ""}, "FRAMING", "empty"),
    ("a report over http", {"FRAME_REPORT_URI": "http://r.example/"}, "FRAME_REPORT_URI", "https"),
    ("a report that ends the header", {"FRAME_REPORT_URI": "https://r.example/;x"}, "FRAME_REPORT_URI", "semicolons"),
    ("a report with a comma", {"FRAME_REPORT_URI": "https://r.example/,x"}, "FRAME_REPORT_URI", "commas"),
    ("a report with a space", {"FRAME_REPORT_URI": "https://r.example/a b"}, "FRAME_REPORT_URI", "spaces"),
    ("a report with a newline", {"FRAME_REPORT_URI": "https://r.example/a\nb"}, "FRAME_REPORT_URI", "printable"),
    ("a report with a user", {"FRAME_REPORT_URI": "https://u:p@r.example/"}, "FRAME_REPORT_URI", "user"),
    ("a report to a path", {"FRAME_REPORT_URI": "/csp"}, "FRAME_REPORT_URI", "must be a URL"),
    ("a wildcard of our own", {"PUBLIC_ORIGIN": "https://*.a.example"}, "PUBLIC_ORIGIN", "not one web origin"),
    ("an app scheme of our own", {"PUBLIC_ORIGIN": "capacitor://localhost"}, "PUBLIC_ORIGIN", "not one web origin"),
    ("our own with a path", {"PUBLIC_ORIGIN": "https://a.example/x"}, "PUBLIC_ORIGIN", ""),
    ("a proxy by name", {"TRUSTED_PROXIES": "proxy.example"}, "TRUSTED_PROXIES", "10.0.0.7"),
    ("any proxy", {"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES", "10.0.0.7"),
    ("the whole internet", {"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES", "every address"),
    ("the whole new internet", {"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES", "every address"),
    ("host bits", {"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES", "10.0.0.0/8"),
    ("a switch empty", {"CORS": ""}, "CORS", "empty"),
    ("a switch in doubt", {"REQUIRE_TENANT": "perhaps"}, "REQUIRE_TENANT", "true or false"),
    ("a number empty", {"LEEWAY_SECONDS": ""}, "LEEWAY_SECONDS", "empty"),
    ("a number in words", {"LEEWAY_SECONDS": "thirty"}, "LEEWAY_SECONDS", "digits"),
    ("a number with a unit", {"TOKEN_LIFETIME_SECONDS": "1h"}, "TOKEN_LIFETIME_SECONDS", "digits"),
    ("a number with underscores", {"TOKEN_CACHE_SIZE": "1_000"}, "TOKEN_CACHE_SIZE", "digits"),
    ("a number in other digits", {"LEEWAY_SECONDS": "٣"}, "LEEWAY_SECONDS", "digits"),
    ("a number of a thousand digits", {"LEEWAY_SECONDS": "9" * 5000}, "LEEWAY_SECONDS", "digits"),
    ("a fraction", {"LEEWAY_SECONDS": "1.5"}, "LEEWAY_SECONDS", "digits"),
    ("too much leeway", {"LEEWAY_SECONDS": "61"}, "LEEWAY_SECONDS", "from 0 to 60"),
    ("negative leeway", {"LEEWAY_SECONDS": "-1"}, "LEEWAY_SECONDS", "from 0 to 60"),
    ("no lifetime", {"TOKEN_LIFETIME_SECONDS": "0"}, "TOKEN_LIFETIME_SECONDS", "from 1 to 86400"),
    ("more than a day", {"TOKEN_LIFETIME_SECONDS": "86401"}, "TOKEN_LIFETIME_SECONDS", "from 1 to 86400"),
    ("a negative cache", {"TOKEN_CACHE_SIZE": "-1"}, "TOKEN_CACHE_SIZE", "from 0"),
    ("no workers", {"WORKERS": "0"}, "WORKERS", "from 1"),
    ("sessions in many workers", {"WORKERS": "2", "TOKEN_CARRIERS": "session"}, "WORKERS", "one worker"),
    (
        "revocations in many workers",
        {"WORKERS": "2", "STORE_URL": "memory://", "REVOCATION_STALENESS_SECONDS": "9"},
        "WORKERS",
        "TOUCAN_GUARD_STORE_URL",
    ),
    ("a store that is no URL", {"STORE_URL": "redis"}, "STORE_URL", "memory://"),
    ("a store of another kind", {"STORE_URL": "memcached://store.example"}, "STORE_URL", "valkeys://"),
    ("a store with options", {"STORE_URL": "redis://store.example?ssl=no"}, "STORE_URL", "no options"),
    ("a store without a name", {"STORE_URL": ""}, "STORE_URL", "empty"),
    ("a memory with a name", {"STORE_URL": "memory://one"}, "STORE_URL", "memory://"),
    ("a store's file that is not there", {"STORE_URL_FILE": "/nowhere/url"}, "STORE_URL_FILE", "No such"),
    ("a store and its file", {"STORE_URL": "memory://", "STORE_URL_FILE": "/nowhere"}, "STORE_URL", "keep one"),
    ("news of revocations never", {"REVOCATION_STALENESS_SECONDS": "0"}, "REVOCATION_STALENESS_SECONDS", "from 1"),
    ("no carrier", {"TOKEN_CARRIERS": ""}, "TOKEN_CARRIERS", "no token could arrive"),
    ("an unknown carrier", {"TOKEN_CARRIERS": "cookie"}, "TOKEN_CARRIERS", "it may name"),
    ("a carrier misspelt", {"TOKEN_CARRIERS": "autorization"}, "TOKEN_CARRIERS", "did you mean authorization"),
    ("a registered claim", {"CLAIM_TENANT": "sub"}, "CLAIM_TENANT", "another claim"),
    ("the version's claim", {"CLAIM_REGION": "ver"}, "CLAIM_REGION", "another claim"),
    ("the first issue's claim", {"CLAIM_TENANT": "first_iat"}, "CLAIM_TENANT", "another claim"),
    ("an empty claim", {"CLAIM_GRANTS": ""}, "CLAIM_GRANTS", "empty"),
    ("one claim twice", {"CLAIM_TENANT": "rls"}, "CLAIM_TENANT and TOUCAN_GUARD_CLAIM_RLS", "its own"),
    ("an empty region", {"REGION": ""}, "REGION", "empty"),
    ("audit misspelt", {"AUDIT": "stdotu"}, "AUDIT", "did you mean stdout"),
    ("audit in capitals", {"AUDIT": "STDOUT"}, "AUDIT", "did you mean stdout"),
    ("audit to stderr", {"AUDIT": "stderr"}, "AUDIT", "must be stdout"),
    ("audit empty", {"AUDIT": ""}, "AUDIT", "empty"),
    ("audit into a missing folder", {"AUDIT": "/nowhere/audit.jsonl"}, "AUDIT", "make the folder"),
    ("audit into a folder", {"AUDIT": "/tmp"}, "AUDIT", "name a file in it"),
    ("audit into a folder to be", {"AUDIT": "/tmp/audit-of-nobody/"}, "AUDIT", "name a file in it"),
    ("audit below a file", {"AUDIT": "/dev/null/audit"}, "AUDIT", "make the folder"),
    ("audit mode misspelt", {"AUDIT_MODE": "best-effort"}, "AUDIT_MODE", "did you mean best_effort"),
    ("rows never report-only", {"REPORT_ONLY": "rls"}, "REPORT_ONLY", "not its own"),
    ("signatures never report-only", {"REPORT_ONLY": "signature"}, "REPORT_ONLY", "never report-only"),
    ("expiry never report-only", {"REPORT_ONLY": "expiry"}, "REPORT_ONLY", "never report-only"),
    ("issuer never report-only", {"REPORT_ONLY": "issuer"}, "REPORT_ONLY", "never report-only"),
    ("audience never report-only", {"REPORT_ONLY": "audience"}, "REPORT_ONLY", "never report-only"),
    ("report-only misspelt", {"REPORT_ONLY": "origins"}, "REPORT_ONLY", "did you mean origin"),
    ("a relative path", {"EXEMPT_PATHS": "healthz"}, "EXEMPT_PATHS", "from the root"),
    ("a path with a query", {"EXEMPT_PATHS": "/healthz?x"}, "EXEMPT_PATHS", "query"),
    ("a path with dots", {"EXEMPT_PATHS": "/a/../b"}, "EXEMPT_PATHS", ".."),
    ("a path with one dot", {"EXEMPT_PATHS": "/a/."}, "EXEMPT_PATHS", ".."),
    ("a path with two slashes", {"EXEMPT_PATHS": "//healthz"}, "EXEMPT_PATHS", "single slashes"),
    ("a path with a backslash", {"EXEMPT_PATHS": "/a\\b"}, "EXEMPT_PATHS", "single slashes"),
    ("a path with a wildcard", {"EXEMPT_PATHS": "/static/*"}, "EXEMPT_PATHS", "EXEMPT_PREFIXES"),
    ("an encoded path", {"EXEMPT_PATHS": "/a%2Fb"}, "EXEMPT_PATHS", "decoded"),
    ("a path with a control", {"EXEMPT_PATHS": "/a\tb"}, "EXEMPT_PATHS", "control"),
    ("a path as URL", {"EXEMPT_PATHS": "https://a.example/healthz"}, "EXEMPT_PATHS", "from the root"),
    ("everything exempt", {"EXEMPT_PREFIXES": "/"}, "EXEMPT_PREFIXES", "everything"),
    ("everything exempt twice", {"EXEMPT_PREFIXES": "//"}, "EXEMPT_PREFIXES", "single slashes"),
    ("a relative prefix", {"EXEMPT_PREFIXES": "static"}, "EXEMPT_PREFIXES", "from the root"),
    ("a short context key", {"PG_CONTEXT_KEY": "k3uJ7f-Qx9"}, "PG_CONTEXT_KEY", "shorter than 32"),
    ("a placeholder as context key", {"PG_CONTEXT_KEY": "changeme" * 5}, "PG_CONTEXT_KEY", "placeholder"),
    ("a context key's file that is not there", {"PG_CONTEXT_KEY_FILE": "/nowhere"}, "PG_CONTEXT_KEY_FILE", "No such"),
    ("an unknown pooler", {"PG_POOLER": "pgbouncer"}, "PG_POOLER", "none or transaction"),
    ("an unknown environment", {"ENVIRONMENT": "prod"}, "ENVIRONMENT", "did you mean production"),
    ("a switch of danger empty", {"INSECURE_TYP_JWT": ""}, "INSECURE_TYP_JWT", "empty"),
    ("tenants missing", {"TENANT_ORIGINS_FILE": "/nowhere/t.toml"}, "TENANT_ORIGINS_FILE", "No such file"),
]


@pytest.mark.parametrize(("changes", "name", "mend"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_an_operator_s_mistake_names_the_variable_and_the_mend(
    changes: dict[str, str | None], name: str, mend: str, from_env: FromEnvironment, folder: Path
) -> None:
    problem = only_problem(lambda: from_env({key: _in(folder, value) for key, value in changes.items()}))
    assert problem.startswith(f"TOUCAN_GUARD_{name}")
    assert problem[len(f"TOUCAN_GUARD_{name}")] in " :="
    assert mend in problem
    assert problem.isprintable()
    assert SECRET not in problem


def test_the_environment_that_every_mistake_is_put_into_is_good(from_env: FromEnvironment) -> None:
    assert from_env().key_ring


# The same in Python: types are taken strictly there.
PYTHON_MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    ("a bare string of origins", {"allowed_origins": "https://a.example"}, "ALLOWED_ORIGINS", "list"),
    ("a bare string of frame ancestors", {"frame_ancestors": "https://a.example"}, "FRAME_ANCESTORS", "list"),
    ("a bare string of own origins", {"public_origin": "https://a.example"}, "PUBLIC_ORIGIN", "list"),
    ("a bare string of proxies", {"trusted_proxies": "10.0.0.1"}, "TRUSTED_PROXIES", "list"),
    ("a bare string of carriers", {"token_carriers": "session"}, "TOKEN_CARRIERS", "list"),
    ("a bare string of reports", {"report_only": "origin"}, "REPORT_ONLY", "list"),
    ("a bare string of paths", {"exempt_paths": "/healthz"}, "EXEMPT_PATHS", "list"),
    ("a bare string of prefixes", {"exempt_prefixes": "/static"}, "EXEMPT_PREFIXES", "list"),
    ("bytes of origins", {"allowed_origins": b"https://a.example"}, "ALLOWED_ORIGINS", "list"),
    ("a mapping of origins", {"allowed_origins": {"https://a.example": 1}}, "ALLOWED_ORIGINS", "list"),
    ("a number among origins", {"allowed_origins": ["https://a.example", 7]}, "ALLOWED_ORIGINS", "strings only"),
    ("an empty origin", {"allowed_origins": ["https://a.example", ""]}, "ALLOWED_ORIGINS", "empty item"),
    ("a number of proxies", {"trusted_proxies": [167772161]}, "TRUSTED_PROXIES", "strings"),
    ("a word for a switch", {"cors": "false"}, "CORS", "bool"),
    ("a number for a switch", {"insecure_typ_jwt": 1}, "INSECURE_TYP_JWT", "bool"),
    ("a word for a number", {"leeway_seconds": "30"}, "LEEWAY_SECONDS", "int"),
    ("a bool for a number", {"leeway_seconds": True}, "LEEWAY_SECONDS", "int"),
    ("a float for a number", {"leeway_seconds": 30.0}, "LEEWAY_SECONDS", "int"),
    ("too large a number", {"token_lifetime_seconds": 10**5000}, "TOKEN_LIFETIME_SECONDS", "lower it"),
    ("a number for text", {"issuer": 7}, "ISSUER", "str"),
    ("a list for an issuer", {"issuer": ["https://host.example"]}, "ISSUER", "str"),
    ("no audience", {"audience": []}, "AUDIENCE", "names nobody"),
    ("an empty audience", {"audience": [""]}, "AUDIENCE", "empty"),
    ("a padded audience", {"audience": ["charts "]}, "AUDIENCE", "remove"),
    ("a number for an audience", {"audience": 7}, "AUDIENCE", "list"),
    ("bytes for a secret", {"secret": SECRET.encode()}, "SECRET", "str"),
    ("a masked secret with a newline", {"secret": SecretStr(SECRET + "\n")}, "SECRET", "printf"),
    ("a list for keys", {"secret": None, "keys": [1]}, "KEYS", "str"),
    ("keys that JSON cannot hold", {"secret": None, "keys": {"keys": [object()]}}, "KEYS", "JSON"),
    ("a number for a path", {"secret": None, "keys_file": 7}, "KEYS_FILE", "Path"),
    ("a number for a word", {"framing": 7}, "FRAMING", "one of the words"),
    ("a number for the audit", {"audit": 1}, "AUDIT", "str or a Path"),
    ("columns to numbers", {"rls_columns": {"flights.carrier": 7}}, "RLS_COLUMNS", "map columns"),
    ("columns smuggled in", {"rls_columns": {"f.a": "x,f.b=y"}}, "RLS_COLUMNS", "map columns"),
    ("no columns", {"rls_columns": {}}, "RLS_COLUMNS", "names no column"),
    ("a claim too long", {"claim_rls": "x" * 257}, "CLAIM_RLS", "256"),
]


@pytest.mark.parametrize(
    ("changes", "name", "mend"), [row[1:] for row in PYTHON_MISTAKES], ids=[row[0] for row in PYTHON_MISTAKES]
)
def test_a_developer_s_mistake_names_the_variable_and_the_mend(changes: dict[str, Any], name: str, mend: str) -> None:
    problem = only_problem(lambda: from_python(**changes))
    assert problem.startswith(f"TOUCAN_GUARD_{name} ")
    assert mend in problem
    assert SECRET not in problem


class TestTheContextOfTheDatabase:
    def test_without_a_key_there_is_none(self, from_env: FromEnvironment) -> None:
        assert from_env().database_context is None

    def test_it_has_the_key_the_pooler_and_no_secret_to_show(self, from_env: FromEnvironment) -> None:
        settings = from_env({"PG_CONTEXT_KEY": OTHER_SECRET, "PG_POOLER": "transaction"})
        context = settings.database_context
        assert context is not None
        assert context.key_id == DatabaseContext(OTHER_SECRET).key_id
        assert context.pooler == "transaction"
        assert OTHER_SECRET not in repr(context) + repr(settings)


SECRETS_WITH_FILES = (
    "secret",
    "pg_context_key",
    "audit_hmac_key",
    "audit_chain_key",
)


class TestKeysOfTheRecord:
    @pytest.mark.parametrize("name", ["audit_hmac_key", "audit_chain_key"])
    @pytest.mark.parametrize(
        ("key", "words"),
        [
            pytest.param("tiny-key", "shorter than 32 bytes", id="short"),
            pytest.param("ab" * 40, "repeats", id="a pattern"),
            pytest.param("your-256-bit-secret" + "0" * 40, "", id="a placeholder, padded"),
        ],
    )
    def test_a_weak_key_stops_the_start(self, name: str, key: str, words: str) -> None:
        problem = only_problem(lambda: from_python(**{name: key}))
        assert problem.startswith(f"TOUCAN_GUARD_{name.upper()}: the secret ")
        assert words in problem
        assert key not in problem

    def test_without_keys_there_is_neither_pseudonym_nor_keyed_chain(self) -> None:
        assert from_python().pseudonyms is None
        assert from_python().chain_key is None

    def test_with_keys_there_are_both(self) -> None:
        settings = from_python(audit_hmac_key=OTHER_SECRET, audit_chain_key=OTHER_SECRET)
        assert settings.pseudonyms is not None
        assert settings.chain_key == OTHER_SECRET.encode()
        assert OTHER_SECRET not in repr(settings)

    def test_a_keyed_chain_through_the_hosts_processors_would_not_hold(self) -> None:
        problem = only_problem(lambda: from_python(audit="structlog", audit_chain_key=OTHER_SECRET))
        assert problem.startswith("TOUCAN_GUARD_AUDIT_CHAIN_KEY needs lines that stay as they are written")

    def test_the_digest_of_a_configuration_differs_where_it_does_and_knows_no_secret(self) -> None:
        digest = settings_digest(from_python())
        assert digest == settings_digest(from_python())
        assert digest == settings_digest(from_python(secret=OTHER_SECRET))
        assert digest != settings_digest(from_python(leeway_seconds=7))


class TestSecretsInFiles:
    @pytest.mark.parametrize("name", SECRETS_WITH_FILES)
    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_one_newline_at_the_end_is_not_part_of_it(self, name: str, end: str, tmp_path: Path) -> None:
        (tmp_path / "s").write_bytes((OTHER_SECRET + end).encode())
        settings = from_python(**{"secret": None if name == "secret" else SECRET, f"{name}_file": tmp_path / "s"})
        assert getattr(settings, name).get_secret_value() == OTHER_SECRET

    @pytest.mark.parametrize("name", SECRETS_WITH_FILES)
    @pytest.mark.parametrize(
        "content",
        [OTHER_SECRET + "\n\n", OTHER_SECRET + " \n", " " + OTHER_SECRET, "\ufeff" + OTHER_SECRET, "", "\n", "\xff"],
        ids=[
            "two newlines",
            "a space after",
            "a space before",
            "a byte order mark",
            "nothing",
            "a newline",
            "not UTF-8",
        ],
    )
    def test_a_file_with_more_is_refused(self, name: str, content: str, tmp_path: Path) -> None:
        (tmp_path / "s").write_bytes(b"\xff\xfe" if content == "\xff" else content.encode())
        changes = {"secret": None if name == "secret" else SECRET, f"{name}_file": tmp_path / "s"}
        problem = only_problem(lambda: from_python(**changes))
        assert problem.startswith(f"TOUCAN_GUARD_{name.upper()}_FILE ")
        assert OTHER_SECRET not in problem

    @pytest.mark.parametrize("name", SECRETS_WITH_FILES)
    def test_both_forms_together_are_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "s").write_text(OTHER_SECRET)
        problem = only_problem(lambda: from_python(**{name: SECRET, f"{name}_file": tmp_path / "s"}))
        assert f"TOUCAN_GUARD_{name.upper()} and TOUCAN_GUARD_{name.upper()}_FILE" in problem

    @pytest.mark.parametrize("name", SECRETS_WITH_FILES)
    def test_the_secret_in_place_of_its_path_is_not_shown(self, name: str) -> None:
        changes = {"secret": None if name == "secret" else SECRET, f"{name}_file": OTHER_SECRET}
        problem = only_problem(lambda: from_python(**changes))
        assert problem.startswith(f"TOUCAN_GUARD_{name.upper()}_FILE ")
        assert OTHER_SECRET not in problem

    @pytest.mark.parametrize("name", SECRETS_WITH_FILES)
    @pytest.mark.parametrize("value", [OTHER_SECRET + "\n", OTHER_SECRET + "\t", ""])
    def test_a_direct_secret_is_checked_the_same(self, name: str, value: str) -> None:
        problem = only_problem(lambda: from_python(**{name: value}))
        assert problem.startswith(f"TOUCAN_GUARD_{name.upper()} ")

    def test_an_unreadable_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        problem = only_problem(lambda: from_python(secret=None, secret_file=tmp_path / "s"))
        assert problem.startswith("TOUCAN_GUARD_SECRET_FILE names a file that cannot be read")

    def test_what_the_ring_says_of_a_file_s_content_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("short")
        assert only_problem(lambda: from_python(secret=None, secret_file=tmp_path / "s")).startswith(
            "TOUCAN_GUARD_SECRET_FILE: "
        )
        assert only_problem(lambda: from_python(secret=None, keys_file=tmp_path / "s")).startswith(
            "TOUCAN_GUARD_KEYS_FILE: "
        )

    @pytest.mark.parametrize("name", [*SECRETS_WITH_FILES, "store_url", "token_service_key", "api_key_pepper"])
    def test_what_is_wrong_with_a_file_s_content_is_said_of_the_variable_that_names_it(
        self, name: str, tmp_path: Path
    ) -> None:
        (tmp_path / "s").write_text("short")
        (tmp_path / "keys.json").write_text('{"keys": {}}')
        changes: dict[str, Any] = {f"{name}_file": tmp_path / "s"}
        if name == "secret":
            changes["secret"] = None
        if name in ("token_service_key", "api_key_pepper"):
            changes = {"secret": None, "api_keys_file": tmp_path / "keys.json", "token_service_key": SECRET, **changes}
            if name == "token_service_key":
                del changes["token_service_key"]
        assert only_problem(lambda: from_python(**changes)).startswith(f"TOUCAN_GUARD_{name.upper()}_FILE")


class TestCompiledParts:
    def test_the_allowlist_frames_too_unless_framing_differs(self) -> None:
        settings = from_python(allowed_origins=["https://a.example", "https://*.b.example"])
        assert settings.allowlist.entries == ("https://*.b.example", "https://a.example")
        assert set(settings.frame_ancestors_policy.sources) == {"https://a.example", "https://*.b.example"}
        other = from_python(frame_ancestors=["https://c.example"])
        assert other.frame_ancestors_policy.sources == ("https://c.example",)
        assert other.allowlist.entries == ("https://portal.example",)

    def test_an_empty_list_is_nobody(self) -> None:
        settings = from_python(allowed_origins=[])
        assert len(settings.allowlist) == 0
        assert "'none'" in str(settings.frame_ancestors_policy.header_value)
        assert "'none'" in str(from_python(frame_ancestors=[]).frame_ancestors_policy.header_value)

    def test_an_address_may_call_where_framing_is_named_apart(self) -> None:
        settings = from_python(allowed_origins=["https://192.0.2.7"], frame_ancestors=["https://a.example"])
        assert len(settings.allowlist) == 1

    def test_anybody_needs_the_switch(self) -> None:
        assert from_python(allowed_origins=["*"], insecure_any_origin=True).allowlist.any

    def test_development_takes_http_everywhere(self, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_text('AA = ["http://localhost:5173"]')
        settings = from_python(
            environment="development",
            allowed_origins=["http://localhost:3000"],
            public_origin=["http://localhost:8000"],
            frame_report_uri="http://localhost:9000/csp",
            tenant_origins_file=tmp_path / "t.toml",
        )
        assert settings.public_origins == {parse_origin("http://localhost:8000")}
        assert settings.token_policy.development
        assert set(settings.tenant_origins) == {"AA"}

    def test_the_token_policy_says_what_the_settings_say(self) -> None:
        policy = from_python(
            audience=["a", "b"],
            token_lifetime_seconds=60,
            leeway_seconds=5,
            require_tenant=False,
            insecure_typ_jwt=True,
            claim_rls="https://x.example/rls",
        ).token_policy
        assert (policy.issuer, policy.audiences) == ("https://host.example", ("a", "b"))
        assert (policy.lifetime_seconds, policy.leeway_seconds, policy.require_tenant) == (60, 5, False)
        assert policy.insecure_typ_jwt
        assert (policy.claim_names.rls, policy.claim_names.tenant) == ("https://x.example/rls", "tenant")
        assert not policy.development

    def test_claims_may_trade_places(self) -> None:
        assert from_python(claim_rls="tenant", claim_tenant="rls").token_policy.claim_names.rls == "tenant"

    def test_parts_are_compiled_once(self) -> None:
        settings = from_python()
        for part in (
            "allowlist",
            "frame_ancestors_policy",
            "public_origins",
            "key_ring",
            "policy",
            "tenant_origins",
            "token_policy",
        ):
            assert part in vars(settings)
            assert getattr(settings, part) is getattr(settings, part)


@pytest.mark.parametrize("error", [ValueError(SECRET), RecursionError(SECRET)])
def test_what_a_library_says_about_a_key_is_not_repeated(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise error

    monkeypatch.setattr(KeyRing, "from_secret", fail)
    problem = only_problem(from_python)
    assert problem.startswith("TOUCAN_GUARD_SECRET ")
    assert SECRET not in problem


def test_an_audit_file_that_may_not_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert from_python(audit=tmp_path / "audit.jsonl").audit
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "check the rights" in only_problem(lambda: from_python(audit=tmp_path / "audit.jsonl"))


def test_an_audit_file_with_an_impossible_name_is_refused() -> None:
    problem = only_problem(lambda: from_python(audit="/tmp/" + "x" * 5000 + "/audit.jsonl"))
    assert problem.startswith("TOUCAN_GUARD_AUDIT names a file ")


class TestTenantOrigins:
    @pytest.mark.parametrize(
        "text",
        ['AA = ["https://aa.example"]\n"U A" = []', '[tenants]\nAA = ["https://aa.example"]\n"U A" = []'],
        ids=["plain pairs", "a table of tenants"],
    )
    def test_both_forms_mean_the_same(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_text(text)
        tenants = from_python(tenant_origins_file=tmp_path / "t.toml").tenant_origins
        assert {name: origins.entries for name, origins in tenants.items()} == {
            "AA": ("https://aa.example",),
            "U A": (),
        }
        with pytest.raises(TypeError):
            tenants["AA"] = tenants["U A"]  # type: ignore[index]

    def test_a_tenant_may_be_called_tenants(self, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_text('tenants = ["https://aa.example"]\nAA = []')
        assert set(from_python(tenant_origins_file=tmp_path / "t.toml").tenant_origins) == {"AA", "tenants"}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("AA = [", "not TOML"),
            ('AA = ["https://a.example"]\nAA = []', "not TOML"),
            ('AA = "https://a.example"', "tenant 'AA'"),
            ("AA = [1]", "tenant 'AA'"),
            ("AA = { origins = [] }", "tenant 'AA'"),
            ('AA = ["https://a.example/path"]', "tenant 'AA'"),
            ('AA = ["*"]', "tenant 'AA'"),
            ('AA = ["http://a.example"]', "tenant 'AA'"),
            ('" " = []', "tenant ' '"),
            ('"" = []', "tenant ''"),
            ("BB = []\n[tenants]\nAA = []", "'BB' beside"),
            ("A = " + "[" * 50_000, ""),
        ],
    )
    def test_a_mistake_names_file_and_tenant(self, text: str, words: str, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_text(text)
        problem = only_problem(lambda: from_python(tenant_origins_file=tmp_path / "t.toml"))
        assert problem.startswith("TOUCAN_GUARD_TENANT_ORIGINS_FILE")
        assert words in problem

    def test_every_wrong_tenant_is_named_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "t.toml").write_text('AA = ["nonsense"]\nBB = []\nCC = "x"')
        problems = refusal(lambda: from_python(tenant_origins_file=tmp_path / "t.toml"))
        assert [name in "".join(problems) for name in ("'AA'", "'BB'", "'CC'")] == [True, False, True]


def _below(error: BaseException) -> TracebackType | None:
    """The traceback of an error, without the frame that has caught it."""
    return None if error.__traceback__ is None else error.__traceback__.tb_next


def everything_shown(error: BaseException) -> str:
    shown = [str(error), repr(error), repr(vars(error)), repr(error.args)]
    shown += traceback.format_exception(error)
    shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "\n".join(shown)


class TestNothingShowsASecret:
    @pytest.mark.parametrize(
        "changes",
        [
            {"secret": SECRET, "issuer": ""},
            {"store_url": f"redis://:{SECRET}@@store"},
            {"audit_chain_key": f"{SECRET} "},
            {"keys": json.dumps({"keys": [{"kty": "oct", "k": SECRET}]})},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_neither_do_changes_that_are_refused(self, changes: dict[str, Any]) -> None:
        settings = from_python()
        with pytest.raises(ConfigError) as raised:
            settings.model_copy(update={**changes, "audience": []})
        # But for this frame, which has what it gives.
        assert SECRET not in everything_shown(raised.value.with_traceback(_below(raised.value)))

    def test_good_settings_do_not(self) -> None:
        settings = from_python()
        deep = [repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()]
        deep += [repr(vars(settings)), repr(list(settings)), f"{settings}", repr(settings.key_ring)]
        assert SECRET not in "".join(deep)
        assert settings.secret is not None
        assert settings.secret.get_secret_value() == SECRET

    def test_neither_do_settings_from_files_and_key_sets(self, folder: Path) -> None:
        for settings in (
            from_python(secret=None, secret_file=folder / "secret"),
            from_python(secret=None, keys=JWKS),
            from_python(secret=None, keys=json.loads(JWKS)),
            from_python(secret=None, keys_file=folder / "keys.json"),
        ):
            shown = repr(settings) + repr(settings.model_dump()) + settings.model_dump_json() + repr(vars(settings))
            assert SECRET not in shown
            assert JWK_BYTES not in shown

    @pytest.mark.parametrize("name", sorted({*SECRETS_WITH_FILES} - {"keys", "secret", "store_url"}))
    def test_neither_does_what_is_compiled_from_another_secret(self, name: str) -> None:
        settings = from_python(**{name: OTHER_SECRET})
        assert OTHER_SECRET not in repr(vars(settings)) + repr(list(settings)) + repr(settings.__getstate__())

    def test_an_error_has_no_cause_and_no_context(self, from_env: FromEnvironment) -> None:
        with pytest.raises(ConfigError) as caught:
            from_env({"SECRET": SECRET + "\n", "LEEWAY_SECONDS": "x"})
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        assert error.__suppress_context__

    def test_no_frame_of_ours_holds_it_when_an_error_is_raised(self) -> None:
        try:
            GuardSettings(secret=SECRET + " ", audit_hmac_key=OTHER_SECRET, keys={"keys": [{"k": JWK_BYTES}]})
        except ConfigError as error:
            shown = everything_shown(error)
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
            assert [frame.f_code.co_name for frame in frames] == ["__init__"]
        assert SECRET not in repr([frame.f_locals for frame in frames])
        # The test's own source line is in the traceback; it names variables only.
        assert not [secret for secret in (SECRET, OTHER_SECRET, JWK_BYTES) if secret in shown]

    def test_assignment_is_refused_without_the_value(self) -> None:
        settings = from_python()
        with pytest.raises(ValidationError) as caught:
            settings.secret = OTHER_SECRET  # type: ignore[assignment]
        assert OTHER_SECRET not in repr(caught.value.errors()) + everything_shown(caught.value) + caught.value.json()
        with pytest.raises(ValidationError):
            settings.leeway_seconds = 5
        with pytest.raises(ValidationError):
            del settings.secret
        assert settings.leeway_seconds == 30

    def test_the_debug_log_of_pydantic_settings_does_not(
        self, from_env: FromEnvironment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
        with caplog.at_level(logging.DEBUG):
            from_env({"SECRET": SECRET})
            from_python(secret=OTHER_SECRET)
            from_python(secret=None, keys=json.loads(JWKS), rls_columns=["f.a=b"])
        assert not [secret for secret in (SECRET, OTHER_SECRET, JWK_BYTES) if secret in caplog.text]

    def test_a_store_s_password_is_not_shown(self, from_env: FromEnvironment) -> None:
        url = "redis://:hunter2hunter2@store.example/first"
        assert "hunter2" not in only_problem(lambda: from_env({"STORE_URL": url}))


class TestFrozen:
    def test_a_copy_is_the_thing_itself(self) -> None:
        settings = from_python()
        assert copy.copy(settings) is settings
        assert copy.deepcopy(settings) is settings
        assert settings.model_copy() is settings

    def test_a_changed_copy_is_checked_and_compiled_anew(self) -> None:
        settings = from_python()
        changed = settings.model_copy(update={"allowed_origins": ["https://b.example"]})
        assert changed.allowlist.entries == ("https://b.example",)
        assert settings.allowlist.entries == ("https://portal.example",)
        assert "ALLOWED_ORIGINS" in only_problem(lambda: settings.model_copy(update={"allowed_origins": ["*"]}))

    def test_a_changed_copy_reads_its_secret_s_file_again(self, folder: Path) -> None:
        settings = from_python(secret=None, secret_file=folder / "secret")
        assert settings.model_copy(update={"leeway_seconds": 1}).leeway_seconds == 1

    def test_a_changed_copy_does_not_take_what_was_unset_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOUCAN_GUARD_FRAME_ANCESTORS", "https://stranger.example")
        monkeypatch.setenv("TOUCAN_GUARD_RLS_POLICY", "policy.toml")
        settings = from_python(frame_ancestors=None, rls_policy=None)
        changed = settings.model_copy(update={"cors": False})
        assert changed.frame_ancestors is None
        assert changed.frame_ancestors_policy.origins.entries == ("https://portal.example",)
        assert changed.model_copy(update={"cors": True}) == settings

    def test_a_changed_copy_does_not_read_the_environment_of_its_own_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = from_python()
        monkeypatch.setenv("TOUCAN_GUARD_INSECURE_TYP_JWT", "true")
        monkeypatch.setenv("TOUCAN_GUARD_NO_SUCH_THING", "x")
        monkeypatch.setenv("WEB_CONCURRENCY", "many")
        assert settings.model_copy(update={"leeway_seconds": 1}).insecure == ()
        assert "did you mean leeway_seconds?" in only_problem(lambda: settings.model_copy(update={"leeway_second": 1}))
        with pytest.raises(ConfigError, match="NO_SUCH_THING"):
            from_python()

    def test_equal_settings_are_equal(self) -> None:
        assert from_python() == from_python()
        assert hash(from_python()) == hash(from_python())
        assert from_python() != from_python(leeway_seconds=1)

    def test_validation_by_pydantic_s_own_door_is_the_same(self) -> None:
        good = {"allowed_origins": ["https://a.example"], "issuer": "i", "audience": "a", "rls_columns": ["f.a=b"]}
        assert GuardSettings.model_validate({**good, "secret": SECRET}).issuer == "i"
        with pytest.raises(ConfigError):
            GuardSettings.model_validate({**good, "secret": "changeme"})

    def test_a_host_s_own_model_may_hold_settings(self, folder: Path) -> None:
        class Host(BaseModel):
            guard: GuardSettings

        settings = from_python(secret=None, secret_file=folder / "secret")
        assert Host(guard=settings).guard is settings
        assert Host.model_validate({"guard": settings}).guard is settings
        assert GuardSettings.model_validate(settings) is settings

    def test_a_host_s_own_setting_is_read_and_judged_with_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Own(GuardSettings):
            motto: str

        good = {**from_python().model_dump(include={"allowed_origins", "issuer", "audience"}), "insecure_no_rls": True}
        good["secret"] = SECRET
        assert only_problem(lambda: Own(**good)) == "TOUCAN_GUARD_MOTTO Field required"
        monkeypatch.setenv("TOUCAN_GUARD_MOTTO", "slow is smooth")
        assert Own(**good).motto == "slow is smooth"
        assert "MOTTO" in only_problem(from_python)

    def test_settings_that_were_never_checked_have_no_parts(self) -> None:
        unchecked = GuardSettings.model_construct(allowed_origins=("*",))
        with pytest.raises(ConfigError):
            _ = unchecked.allowlist
        with pytest.raises(AttributeError):
            _ = unchecked.token_policy

    def test_the_schema_names_every_setting(self) -> None:
        assert set(GuardSettings.model_json_schema()["properties"]) == set(GuardSettings.model_fields)
