"""``toucan-guard rls-sql`` where no database is asked; the rest is in tests/services."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from toucan_guard.cli import app
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.postgres_policies import policy_sql

TOML = """
[attributes]
carrier = "string"

[tables.flights]
all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
"""
KEY = "w8RtY2-hNs5_pLx0cVq7BmJ3zKd9FgUeAiSo"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "policy.toml").write_text(TOML)
    (tmp_path / "key").write_text("too short\n")
    return str(tmp_path / "policy.toml")


@pytest.fixture
def configured(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ALLOWED_ORIGINS": "https://portal.example",
        "ISSUER": "https://host.example",
        "AUDIENCE": "charts",
        "SECRET": "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEaPqKo",
        "RLS_POLICY": policy,
        "PG_CONTEXT_KEY": KEY,
        "PG_POOLER": "transaction",
    }.items():
        monkeypatch.setenv(f"TOUCAN_GUARD_{name}", value)


def test_a_policy_that_is_named_needs_no_settings(policy: str) -> None:
    done = CliRunner().invoke(app, ["rls-sql", "--policy", policy, "--schema", "air", "--full-access", "jobs"])
    assert done.exit_code == 0, done.output
    assert done.stdout == policy_sql(RlsPolicy.from_toml(TOML), schema="air", full_access_roles=["jobs"])


@pytest.mark.usefixtures("configured")
def test_the_configured_policy_and_pooler_are_the_usual_ones() -> None:
    done = CliRunner().invoke(app, ["rls-sql"])
    assert done.exit_code == 0, done.output
    assert done.stdout == policy_sql(RlsPolicy.from_toml(TOML), pooler="transaction")
    assert KEY not in done.output


def test_settings_that_are_wrong_are_told(policy: str) -> None:
    # 1 would say that the database differs.
    for options in ([], ["--check", "dbname=charts"]):
        done = CliRunner().invoke(app, ["rls-sql", *options])
        assert done.exit_code == 2
        assert "TOUCAN_GUARD_ISSUER" in done.stderr


def test_the_help_tells_what_a_check_leaves_with() -> None:
    told = " ".join(CliRunner().invoke(app, ["rls-sql", "--help"]).output.replace("│", " ").split())
    assert "with 1 where it differs, and with 2 where nobody could look" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(["--check", "x", "--set-key", "x"], "two commands", id="two commands"),
        pytest.param(["--retire-keys"], "--set-key", id="keys to retire without a database"),
        pytest.param(["--json"], "--check", id="JSON of what is no report"),
        pytest.param(["--pooler", "pgbouncer"], "none or transaction", id="an unknown pooler"),
        pytest.param(["--app-role", ""], "1 to 63 bytes", id="a role without a name"),
        pytest.param(["--app-role", "a$toucan_guard$b"], "around its blocks", id="a role that would end a block"),
        pytest.param(["--policy", "/nowhere.toml"], "No such file", id="no policy"),
        pytest.param(["--set-key", "x", "--key-file", "/nowhere"], "No such file", id="no key"),
        pytest.param(["--set-key", "x", "--key-file", "KEY"], "shorter than 32", id="a short key"),
    ],
)
def test_wrong_use_is_2(options: list[str], told: str, policy: str) -> None:
    given = [policy.replace("policy.toml", "key") if option == "KEY" else option for option in options]
    done = CliRunner().invoke(app, ["rls-sql", *given, *([] if "--policy" in options else ["--policy", policy])])
    assert (done.exit_code, told in done.output) == (2, True), done.output


def test_a_policy_with_mistakes_is_told_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"tables": {"flights": {}}}')
    done = CliRunner().invoke(app, ["rls-sql", "--policy", str(tmp_path / "policy.json")])
    assert (done.exit_code, "tables.flights: has no rules" in done.output) == (2, True), done.output
