"""``toucan-guard apikey``: a key is shown once, its file keeps none, and a retired key is no key."""

from __future__ import annotations

import json
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toucan_guard.cli import app
from toucan_guard.core.api_key import parse_api_key
from toucan_guard.core.decisions import Deny
from toucan_guard.tokens.api_key_file import read_api_keys, read_time
from toucan_guard.tokens.api_keys import ApiKeys

PEPPER = "a pepper of this test, 32 bytes long"
SERVICE_KEY = "a service key of this test, 32 bytes"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, path: Path) -> Callable[..., Any]:
    """Run ``apikey`` in an environment that is in order, but for what a test changes."""

    def invoke(*arguments: str, **changes: str | None) -> Any:
        environment = {
            "TOUCAN_GUARD_ALLOWED_ORIGINS": "https://portal.example",
            "TOUCAN_GUARD_ISSUER": "https://host.example",
            "TOUCAN_GUARD_AUDIENCE": "charts",
            "TOUCAN_GUARD_RLS_COLUMNS": "flights.carrier=carrier",
            "TOUCAN_GUARD_API_KEYS_FILE": str(path),
            "TOUCAN_GUARD_API_KEY_PEPPER": PEPPER,
            "TOUCAN_GUARD_TOKEN_SERVICE_KEY": SERVICE_KEY,
            **changes,
        }
        for name, value in environment.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, ["apikey", *arguments])

    return invoke


def holds(path: Path, text: str) -> bool:
    keys = ApiKeys(path, service_key=SERVICE_KEY.encode(), pepper=PEPPER.encode())
    found = keys.authenticate(text, now=time.time() + 1)
    keys.close()
    return not isinstance(found, Deny)


def test_a_key_is_shown_once_and_works(run: Any, path: Path) -> None:
    made = run("create", "--label", "AA")
    text = made.stdout.strip()
    key = parse_api_key(text)
    assert made.exit_code == 0
    assert key is not None
    assert key.environment == "live"
    assert holds(path, text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in made.stderr
    for later in (run("list"), run("list", "--json")):
        assert key.key_id in later.stdout
        assert text.split("_")[3] not in later.output + path.read_text()


def test_every_limit_goes_into_the_file(run: Any, path: Path) -> None:
    made = run(
        "create", "--label", "AA", "--env", "staging", "--tenant", "AA", "--tenant", "UA", "--origin",
        "https://portal.example", "--grant", "dashboard:*:view,export", "--attribute", "carrier=AA", "--attribute",
        'carrier=["UA","DL"]', "--role", "explorer=dashboard:delays:view", "--role", "explorer=chart:*:view",
        "--lifetime", "600", "--not-before", "2026-12-01T00:00:00Z", "--days", "31", "--json",
    )  # fmt: skip
    shown = json.loads(made.stdout)
    assert made.exit_code == 0
    (entry,) = read_api_keys(path.read_text()).keys.values()
    assert (shown["id"], shown["environment"], shown["state"]) == (entry.key_id, "staging", shown["state"])
    assert shown["not_after"] == "2027-01-01T00:00:00Z"
    assert "digest" not in shown
    assert parse_api_key(shown["key"]) is not None
    assert shown["limits"] == {
        "tenants": ["AA", "UA"],
        "origins": ["https://portal.example"],
        "grants": [{"type": "dashboard", "id": "*", "actions": ["view", "export"]}],
        "attributes": {"carrier": ["AA", "UA", "DL"]},
        "lifetime_seconds": 600,
    }
    assert [grant.type for grant in entry.roles["explorer"]] == ["dashboard", "chart"]


def test_development_makes_test_keys(run: Any) -> None:
    assert run("create", "--label", "x", TOUCAN_GUARD_ENVIRONMENT="development").stdout.startswith("tgk_test_")


def test_two_keys_overlap_and_the_old_one_is_retired(run: Any, path: Path) -> None:
    old, new = (run("create", "--label", label).stdout.strip() for label in ("old", "new"))
    assert holds(path, old)
    assert holds(path, new)
    key_id = old.split("_")[2]
    retired = run("retire", key_id)
    assert (retired.exit_code, holds(path, old), holds(path, new)) == (0, False, True)
    listed = {key["id"]: key["state"] for key in json.loads(run("list", "--json").stdout)["keys"]}
    assert listed == {key_id: "retired", new.split("_")[2]: "valid"}


def test_retiring_twice_is_retiring_once(run: Any, path: Path) -> None:
    key_id = run("create", "--label", "x").stdout.split("_")[2]
    once = json.loads(run("retire", key_id, "--json").stdout)
    before = path.read_text()
    again = run("retire", key_id, "--json")
    assert (again.exit_code, json.loads(again.stdout)["retired"]) == (0, once["retired"])
    assert path.read_text() == before
    assert read_time(once["retired"]) <= time.time()


def test_a_key_that_ends_soon_is_a_finding(run: Any) -> None:
    run("create", "--label", "soon", "--days", "5")
    run("create", "--label", "later", "--days", "50")
    assert run("list").exit_code == 0
    assert run("list", "--expiring", "3").exit_code == 0
    found = run("list", "--expiring", "7")
    assert found.exit_code == 1
    assert "ends within 7 days" in found.stdout
    assert len(json.loads(run("list", "--expiring", "60", "--json").stdout)["expiring"]) == 2


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        pytest.param(["--origin", "https://else.example"], {}, "ALLOWED_ORIGINS", id="an origin that is not ours"),
        pytest.param(["--origin", "nonsense"], {}, "scheme", id="no origin"),
        pytest.param(["--grant", "nonsense"], {}, "type:id:action", id="no grant"),
        pytest.param(["--grant", "*:x:view"], {}, "only the id", id="a grant of every type"),
        pytest.param(["--role", "explorer"], {}, "type:id:action", id="a role without a grant"),
        pytest.param(["--role", "a=:b:c"], {}, "the type of a grant", id="a role with half a grant"),
        pytest.param(["--role", "=a:b:c"], {}, "without a name", id="a role without a name"),
        pytest.param(["--attribute", "carrier"], {}, "name=value", id="no attribute"),
        pytest.param(["--attribute", "carier=AA"], {}, "no attribute 'carier'", id="an unknown attribute"),
        pytest.param(["--lifetime", "9999"], {}, "TOKEN_LIFETIME_SECONDS is 3600", id="too long a life"),
        pytest.param(["--not-before", "tomorrow"], {}, "a time in UTC", id="no time"),
        pytest.param(["--days", "5", "--not-after", "2027-01-01T00:00:00Z"], {}, "say the same", id="two ends"),
        pytest.param(
            ["--not-after", "2020-01-01T00:00:00Z"], {}, "--not-after must be later", id="an end that has passed"
        ),
        pytest.param(["--env", "a_b"], {}, "environment", id="a wrong environment"),
        pytest.param([], {"TOUCAN_GUARD_API_KEY_PEPPER": None}, "API_KEY_PEPPER", id="no pepper"),
    ],
)
def test_a_key_that_could_never_work_is_not_made(
    arguments: list[str], changes: dict[str, str | None], words: str, run: Any, path: Path
) -> None:
    made = run("create", "--label", "x", *arguments, **changes)
    assert (made.exit_code, made.stdout) == (2, "")
    assert words in made.stderr
    assert not path.exists()


@pytest.mark.parametrize("label", ["", "  "])
def test_a_key_without_a_label_is_not_made(label: str, run: Any, path: Path) -> None:
    made = run("create", "--label", label)
    assert (made.exit_code, made.stdout, path.exists()) == (2, "", False)
    assert "--label is empty" in made.stderr


def test_every_mistake_of_a_new_key_is_named_at_once(run: Any, path: Path) -> None:
    mistakes = {
        "--grant": ("foo", "'foo' is not a grant"),
        "--origin": ("portal.example", "write https://"),
        "--attribute": ("carier=AA", "no attribute 'carier' (did you mean carrier?)"),
        "--role": ("explorer", "'explorer' is not a role"),
        "--lifetime": ("9999", "TOKEN_LIFETIME_SECONDS"),
        "--not-after": ("tomorrow", "--not-after must be a time in UTC"),
    }
    options = [part for option, (given, _) in mistakes.items() for part in (option, given)]
    made = run("create", "--label", "", *options, "--attribute", "carrier")
    assert (made.exit_code, made.stdout, path.exists()) == (2, "", False)
    for words in ("--label is empty", "'carrier' is not an attribute", *(said for _, said in mistakes.values())):
        assert words in made.stderr


def test_a_day_is_its_beginning_in_utc(run: Any) -> None:
    made = json.loads(
        run("create", "--label", "x", "--not-before", "2099-01-01", "--not-after", "2100-01-01", "--json").stdout
    )
    assert (made["not_before"], made["not_after"]) == ("2099-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
    assert "or a day such as" in run("create", "--label", "x", "--not-after", "2027-02-30").stderr


def test_without_the_file_s_name_nothing_works(run: Any) -> None:
    names = ("TOUCAN_GUARD_API_KEYS_FILE", "TOUCAN_GUARD_API_KEY_PEPPER", "TOUCAN_GUARD_TOKEN_SERVICE_KEY")
    bare = {**dict.fromkeys(names), "TOUCAN_GUARD_SECRET": "k3uJ7f-Qx9_2mVb8sZr4TnW1yLc6HdEaPqKo"}
    for arguments in (["create", "--label", "x"], ["list"], ["retire", "0" * 12]):
        done = run(*arguments, **bare)
        assert done.exit_code == 2
        assert "TOUCAN_GUARD_API_KEYS_FILE" in done.stderr


def test_another_pepper_is_noticed(run: Any, path: Path) -> None:
    run("create", "--label", "x")
    before = path.read_text()
    made = run("create", "--label", "y", TOUCAN_GUARD_API_KEY_PEPPER="another pepper of this test, 32 bytes")
    assert made.exit_code == 2
    assert "another pepper" in made.stderr
    assert path.read_text() == before


@pytest.mark.parametrize("key_id", ["0" * 12, "nonsense"])
def test_only_a_key_of_the_file_is_retired(key_id: str, run: Any, path: Path) -> None:
    run("create", "--label", "x")
    before = path.read_text()
    assert run("retire", key_id).exit_code == 2
    assert path.read_text() == before


def test_a_whole_key_in_place_of_its_id_is_not_repeated(run: Any) -> None:
    text = run("create", "--label", "x").stdout.strip()
    done = run("retire", text)
    assert done.exit_code == 2
    assert text not in done.output


def test_a_broken_file_is_told_and_left_alone(run: Any, path: Path) -> None:
    path.write_text("{")
    for arguments in (["create", "--label", "x"], ["list"], ["retire", "0" * 12]):
        done = run(*arguments)
        assert done.exit_code == 2
        assert "API_KEYS_FILE" in done.stderr
    assert path.read_text() == "{"


def test_a_missing_file_is_an_error_but_for_the_first_key(run: Any) -> None:
    done = run("list")
    assert (done.exit_code, "cannot be read" in done.stderr) == (2, True)
    assert "`toucan-guard apikey create`" in done.stderr
    checked = CliRunner().invoke(app, ["check"])
    assert (checked.exit_code, "make the first key with `toucan-guard apikey create`" in checked.stdout) == (1, True)
    run("create", "--label", "x")
    assert CliRunner().invoke(app, ["check"]).exit_code == 0


def _findings() -> list[str]:
    result = CliRunner().invoke(app, ["check", "--json"])
    return [finding for finding in json.loads(result.stdout)["findings"] if "API" in finding]


def test_check_looks_at_the_keys_too(run: Any, path: Path) -> None:
    made = json.loads(run("create", "--label", "x", "--json").stdout)
    assert _findings() == []
    path.chmod(0o620)
    assert "written by others" in "".join(_findings())
    path.chmod(0o600)
    run("retire", made["id"])
    assert "No API key works now" in "".join(_findings())
    soon = json.loads(run("create", "--label", "x", "--days", "13", "--json").stdout)
    assert f"The API key {soon['id']} ends at {soon['not_after']}" in "".join(_findings())


def test_routes_knows_what_the_token_service_asks_for(
    run: Any, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("create", "--label", "x")
    (tmp_path / "served_with_api_keys.py").write_text(
        "from starlette.applications import Starlette\n"
        "from toucan_guard import GuardSettings, token_service\n"
        "app = Starlette(routes=token_service.routes(GuardSettings()))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    result = CliRunner().invoke(app, ["routes", "served_with_api_keys:app", "--json"])
    assert result.exit_code == 0
    assert [(row["path"], row["methods"], row["guard"], row["grant"]) for row in json.loads(result.stdout)] == [
        ("/embed/generate-token", "any", "api key", "what the API key may give"),
        ("/embed/refresh-token", "any", "guarded", "the token itself"),
    ]
    sys.modules.pop("served_with_api_keys").app.routes[0].app.app._issuer.keys.close()


def test_routes_finds_api_keys_behind_a_guard(
    run: Any, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("create", "--label", "x")
    (tmp_path / "served_behind_a_guard.py").write_text(
        "from starlette.applications import Starlette\n"
        "from toucan_guard import GuardSettings, ToucanGuard, token_service\n"
        "def made(exempt):\n"
        "    settings = GuardSettings(**exempt)\n"
        "    app = Starlette(routes=token_service.routes(settings))\n"
        "    app.add_middleware(ToucanGuard, settings=settings)\n"
        "    return app\n"
        "no = made({})\n"
        "prefix = made({'exempt_prefixes': ['/embed']})\n"
        "path = made({'exempt_paths': ['/embed/generate-token']})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    for name, guard, status in (("no", "guarded", 1), ("prefix", "guarded", 1), ("path", "api key", 0)):
        result = CliRunner().invoke(app, ["routes", f"served_behind_a_guard:{name}", "--json"])
        generate, refresh = json.loads(result.stdout)
        assert (result.exit_code, generate["guard"]) == (status, guard)
        assert ("TOUCAN_GUARD_EXEMPT_PATHS" in generate["problem"]) == (status == 1)
        assert refresh["problem"] == ""
