"""The command line, as an operator uses it: exit statuses, what is said, and that no secret is."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toucan_guard
from toucan_guard.audit.open import open_sink
from toucan_guard.cli import app
from toucan_guard.testing import TEST_SECRET

ENVIRONMENT = {
    "TOUCAN_GUARD_ALLOWED_ORIGINS": "https://portal.example",
    "TOUCAN_GUARD_ISSUER": "https://host.example",
    "TOUCAN_GUARD_AUDIENCE": "charts",
    "TOUCAN_GUARD_SECRET": TEST_SECRET,
    "TOUCAN_GUARD_RLS_COLUMNS": "flights.carrier=carrier",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command in an environment that is in order, but for what a test changes."""

    def invoke(*arguments: str, stdin: str | None = None, **changes: str | None) -> Any:
        for name, value in {**ENVIRONMENT, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


def test_the_version_is_the_package_s(run: Any) -> None:
    asked = run("--version", TOUCAN_GUARD_ISSUER=None)
    assert (asked.exit_code, asked.stdout) == (0, f"{toucan_guard.__version__}\n")
    assert "Look at a guard from outside" in run("--help").stdout


def test_check_is_content_with_a_sound_configuration(run: Any) -> None:
    result = run("check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"errors": [], "findings": []})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"TOUCAN_GUARD_ISSUER": None}, "TOUCAN_GUARD_ISSUER", id="a missing variable is named"),
        pytest.param({"TOUCAN_GUARD_ALOWED_ORIGINS": "x"}, "did you mean", id="a mistyped name is recognised"),
        pytest.param({"TOUCAN_GUARD_SECRET": "changeme"}, "TOUCAN_GUARD_SECRET", id="a placeholder secret is refused"),
        pytest.param(
            {"TOUCAN_GUARD_ALLOWED_ORIGINS": "https://*.github.io"}, "public suffix", id="a public suffix is a finding"
        ),
        pytest.param(
            {"TOUCAN_GUARD_ALLOWED_ORIGINS": "https://a.example,https://b.example"},
            "REQUIRE_TOKEN_ORIGINS",
            id="several customers on one list are advised",
        ),
        pytest.param({"TOUCAN_GUARD_INSECURE_NULL_ORIGIN": "true"}, "Sandboxed and local", id="a danger is explained"),
        pytest.param(
            {"TOUCAN_GUARD_FRAME_ANCESTORS": "https:"}, "every site", id="a scheme as frame ancestor is named"
        ),
        pytest.param({"TOUCAN_GUARD_REPORT_ONLY": "origin"}, "REPORT_ONLY", id="report-only is named"),
        pytest.param({"TOUCAN_GUARD_ENVIRONMENT": "development"}, "development", id="development is named"),
        pytest.param({"TOUCAN_GUARD_TOKEN_CARRIERS": "session"}, "PUBLIC_ORIGIN", id="sessions want our own origin"),
        pytest.param({"TOUCAN_GUARD_WORKERS": "2"}, "Nothing can be revoked", id="a memory in each of several workers"),
        pytest.param({"TOUCAN_GUARD_AUDIT": "/dev/null"}, "nothing is recorded", id="a record that nobody keeps"),
        pytest.param(
            {"TOUCAN_GUARD_INSECURE_STORE_FAIL_OPEN": "true"}, "may have been revoked", id="the store's switch is told"
        ),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["for people", "as JSON"])
def test_check_finds(run: Any, changes: dict[str, str | None], words: str, as_json: bool) -> None:
    result = run("check", *(["--json"] if as_json else []), **changes)
    assert result.exit_code == 1
    assert words in result.stdout
    assert TEST_SECRET not in result.output
    if as_json:
        found = json.loads(result.stdout)
        assert found["errors"] or found["findings"]


def test_check_finds_a_tenant_s_origin_that_is_not_listed(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text('AA = ["https://portel.example"]\nUA = ["https://portal.example"]\n')
    result = run("check", TOUCAN_GUARD_TENANT_ORIGINS_FILE=str(file))
    assert (result.exit_code, "of the tenant 'AA' is not among" in result.stdout) == (1, True)
    assert "'UA'" not in result.stdout
    framed = {"TOUCAN_GUARD_FRAME_ANCESTORS": "https://portal.example,https://portel.example"}
    assert "of the tenant" not in run("check", TOUCAN_GUARD_TENANT_ORIGINS_FILE=str(file), **framed).stdout


def test_check_is_content_where_its_advice_was_followed(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text('AA = ["https://a.example"]\n')
    advised = {
        "TOUCAN_GUARD_ALLOWED_ORIGINS": "https://a.example,https://b.example",
        "TOUCAN_GUARD_TENANT_ORIGINS_FILE": str(file),
    }
    assert "REQUIRE_TOKEN_ORIGINS=true, and name origins" in run("check", **advised).stdout
    assert run("check", **advised, TOUCAN_GUARD_REQUIRE_TOKEN_ORIGINS="true").exit_code == 0


def test_explain_names_the_check_that_refuses(run: Any) -> None:
    result = run("explain", "/dashboards/delays", "-H", "Origin: https://evil.example")
    assert result.exit_code == 1
    assert "origin_not_allowed" in result.stdout
    assert "frame-ancestors 'none'" in result.stdout


def test_explain_shows_every_check_of_an_allowed_request(run: Any, make_token: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(make_token() + "\n")
    result = run("explain", "https://charts.example/d?x=1", "--token-file", str(tmp_path / "token"), "--json")
    explained = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [step["layer"] for step in explained["steps"]] == [
        "origin",
        "embed_token",
        "region",
        "tenancy",
        "row_level_security",
    ]
    assert ["content-security-policy", "frame-ancestors https://portal.example"] in explained["response_headers"]


def test_explain_judges_a_websocket(run: Any, make_token: Any) -> None:
    header = ["-H", "Origin: https://portal.example"]
    refused = run("explain", "/live", "--websocket", *header)
    allowed = run("explain", "/live", "--websocket", *header, "--token-file", "-", stdin=make_token())
    assert (refused.exit_code, allowed.exit_code) == (1, 0)
    assert "token_missing" in refused.stdout


def test_explain_reads_the_token_that_a_browser_offers_as_a_subprotocol(run: Any, make_token: Any) -> None:
    headers = [
        "-H",
        "Origin: https://portal.example",
        "-H",
        f"Sec-WebSocket-Protocol: embed, embed.token.{make_token()}",
    ]
    asked = ["explain", "/live", "--websocket", *headers]
    off = run(*asked)
    assert (off.exit_code, "TOUCAN_GUARD_TOKEN_CARRIERS" in off.stdout) == (1, True)
    assert run(*asked, TOUCAN_GUARD_TOKEN_CARRIERS="authorization,websocket").exit_code == 0


def test_explain_speaks_to_those_who_run_the_guard(run: Any, make_token: Any) -> None:
    refused = run("explain", "/d", "-H", "Origin: https://evil.example")
    assert "What helps: add it to ALLOWED_ORIGINS, if it is yours" in refused.stdout
    assert "people who run the web site" not in refused.stdout, "that is for viewers"
    passed = run("explain", "/d", "--token-file", "-", stdin=make_token())
    assert "What the endpoint itself asks for" in passed.stdout
    exempt = run("explain", "/health", TOUCAN_GUARD_EXEMPT_PATHS="/health")
    assert "What the endpoint itself asks for" not in exempt.stdout


@pytest.mark.parametrize(
    ("header", "framing", "kept_out"),
    [
        pytest.param("X-Frame-Options: DENY", "narrow", ["https://portal.example"], id="DENY keeps everybody out"),
        pytest.param(
            "Content-Security-Policy: frame-ancestors https://other.example",
            "narrow",
            ["https://portal.example"],
            id="another list keeps ours out",
        ),
        pytest.param("Content-Security-Policy: frame-ancestors https:", "narrow", [], id="a wider list does not"),
        pytest.param("X-Frame-Options: DENY", "sole", [], id="the guard alone decides"),
    ],
)
def test_explain_says_whom_the_apps_own_header_keeps_out(
    run: Any, make_token: Any, header: str, framing: str, kept_out: list[str]
) -> None:
    ask = ["explain", "/", "--token-file", "-", "--app-header", header]
    asked = {"stdin": make_token(), "TOUCAN_GUARD_FRAMING": framing}
    assert json.loads(run(*ask, "--json", **asked).stdout)["kept_out"] == kept_out
    told = run(*ask, **asked)
    assert told.exit_code == (1 if kept_out else 0)
    assert ("keeps it out" in told.stdout) is bool(kept_out)


def test_explain_writes_nothing_to_the_real_record(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    run("explain", "/", TOUCAN_GUARD_AUDIT=str(path))
    assert not path.exists() or path.read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["/", "-H", "Origin"], "Name: value", id="half a header"),
        pytest.param(["/", "-H", "Origin https://evil.example"], "Name: value", id="a header without its first colon"),
        pytest.param(["/", "-H", ": https://evil.example"], "Name: value", id="a header without a name"),
        pytest.param(["/", "--app-header", "X Frame Options: DENY"], "Name: value", id="the app's header with a space"),
        pytest.param(["/", "--token-file", "no/such/file"], "cannot be read", id="no token file"),
        pytest.param(["https://[charts.example/"], "not a URL", id="half an address"),
        pytest.param(["dashboards/delays"], "begin a path with /", id="a path without its slash"),
        pytest.param(["/d\udcff"], "cannot stand in a URL", id="a byte of a terminal that is not UTF-8"),
        pytest.param(["/d\n"], "cannot stand in a URL", id="a newline"),
    ],
)
def test_explain_says_what_it_cannot_use(run: Any, arguments: list[str], words: str) -> None:
    result = run("explain", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("url", "status"),
    [
        pytest.param("/health", 0, id="as it is exempt"),
        pytest.param("/he%61lth", 0, id="a letter is encoded"),
        pytest.param("https://charts.example/caf%C3%A9?a=%2F", 0, id="as browsers show it in a log"),
        pytest.param("/caf\xe9", 0, id="as people write it"),
        pytest.param("/health%2Fx", 1, id="a slash is encoded"),
        pytest.param("/caf%E9", 1, id="another encoding"),
    ],
)
def test_explain_decodes_a_path_as_servers_do(run: Any, url: str, status: int) -> None:
    assert run("explain", url, TOUCAN_GUARD_EXEMPT_PATHS="/health,/caf\xe9").exit_code == status


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        pytest.param("Orign: https://evil.example", "Origin", id="a letter is missing"),
        pytest.param("referrer: https://evil.example/", "Referer", id="the word as it is spelt elsewhere"),
        pytest.param("Authorisation: Bearer a.b.c", "Authorization", id="another spelling"),
        pytest.param("Sec-Fetch-User: ?1", None, id="a browser's own header that is like one of them"),
        pytest.param("X-Forwarded-For: 203.0.113.9", None, id="a header that says nothing to the guard"),
        pytest.param("ORIGIN: https://portal.example", None, id="another case"),
    ],
)
def test_explain_notes_a_header_that_is_nearly_one_that_decides(
    run: Any, make_token: Any, header: str, meant: str | None
) -> None:
    result = run("explain", "/d", "-H", header, "--token-file", "-", "--json", stdin=make_token())
    assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (0, "allow")
    assert (f"did you mean {meant}?" in result.stderr) if meant else (result.stderr == "")


def test_inspect_shows_claims_and_verdict(run: Any, make_token: Any) -> None:
    result = run("inspect", "-", stdin=make_token())
    assert result.exit_code == 0
    assert "sub: user-1" in result.stdout
    assert "The guard accepts this token" in result.stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"rls": {"carrier": 1.5}}, "rls_attribute_invalid", id="a mistyped attribute"),
        pytest.param({"issuer": "https://other.example"}, "issuer_not_allowed", id="a foreign issuer"),
        pytest.param({"now": 1_700_000_000}, "token_expired", id="an old token"),
    ],
)
def test_inspect_says_why_a_token_is_refused(run: Any, make_token: Any, changes: dict[str, Any], reason: str) -> None:
    result = run("inspect", "-", "--json", stdin=make_token(**changes))
    verdict = json.loads(result.stdout)
    assert (result.exit_code, verdict["valid"], verdict["reason"]) == (1, False, reason)
    assert verdict["claims"]["sub"] == "user-1"


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "\x1b[31m.e30.e30"], ids=repr)
def test_inspect_survives_what_is_no_token(run: Any, text: str) -> None:
    result = run("inspect", "-", stdin=text)
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout


def in_a_process(*arguments: str, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[bytes]:
    """The command with streams of its own, which the runner for tests replaces."""
    return subprocess.run(
        [sys.executable, "-m", "toucan_guard", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **ENVIRONMENT, **changes},
    )


def test_inspect_judges_bytes_that_are_no_text() -> None:
    result = in_a_process("inspect", "-", stdin=b"\xff\xfe.e30.e30")
    assert (result.returncode, result.stderr) == (1, b"")


def test_a_terminal_that_cannot_show_a_tick_is_no_breakdown() -> None:
    result = in_a_process("check", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"The guard starts with this configuration." in result.stdout
    result = in_a_process("check", PYTHONIOENCODING="ascii", TOUCAN_GUARD_LEEWAY_SECONDS="9999")
    assert (result.returncode, result.stderr) == (1, b"")
    assert b"TOUCAN_GUARD_LEEWAY_SECONDS" in result.stdout


def test_inspect_does_not_read_a_device_for_ever(run: Any) -> None:
    assert run("inspect", "/dev/zero").exit_code == 1


def test_inspect_cannot_read_a_missing_file(run: Any, tmp_path: Path) -> None:
    assert run("inspect", str(tmp_path / "none")).exit_code == 2


def test_a_wrong_configuration_leaves_with_every_mistake(run: Any) -> None:
    for arguments in (
        ["explain", "/"],
        ["inspect", "-"],
        ["mint", "--subject", "u", "--key-file", "k"],
        ["apikey", "list"],
    ):
        result = run(*arguments, TOUCAN_GUARD_ISSUER=None, TOUCAN_GUARD_AUDIENCE=None)
        assert result.exit_code == 2, "nothing was looked at"
        assert "TOUCAN_GUARD_ISSUER" in result.stderr
        assert "TOUCAN_GUARD_AUDIENCE" in result.stderr


NOWHERE = {"TOUCAN_GUARD_STORE_URL": "redis://:hunter2hunter2@127.0.0.1:9/0"}


def test_a_store_that_cannot_be_asked_is_no_verdict(run: Any, make_token: Any, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    (tmp_path / "key").write_text(TEST_SECRET)
    minted = ["mint", "--subject", "u", "--tenant", "AA", "--rls", "carrier=AA", "--key-file", str(tmp_path / "key")]
    for arguments in (["inspect", "-"], ["explain", "/d", "--token-file", "-"], minted):
        result = run(*arguments, stdin=make_token(), **NOWHERE)
        assert result.exit_code == 2
        assert "the store cannot be reached" in result.output
        assert "lets this request pass" not in result.output
        assert "hunter2" not in result.output
    told = json.loads(run("explain", "/d", "--token-file", "-", "--json", stdin=make_token(), **NOWHERE).stdout)
    assert "the store cannot be reached" in told["not_asked"]


def test_what_needs_no_store_is_judged_without_it(run: Any, make_token: Any) -> None:
    pytest.importorskip("redis")
    old = make_token(now=1_700_000_000)
    assert run("inspect", "-", stdin=old, **NOWHERE).exit_code == 1
    assert run("explain", "/d", "--token-file", "-", stdin=old, **NOWHERE).exit_code == 1
    assert run("explain", "/d", **NOWHERE).exit_code == 1
    assert run("explain", "/health", TOUCAN_GUARD_EXEMPT_PATHS="/health", **NOWHERE).exit_code == 0
    framed = ["-H", "Referer: https://portal.example/", "--app-header", "X-Frame-Options: DENY"]
    assert run("explain", "/d", "--token-file", "-", *framed, stdin=make_token(), **NOWHERE).exit_code == 1


def test_a_command_that_breaks_down_has_found_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from toucan_guard import __main__, cli

    def broken() -> None:
        raise RuntimeError("of the test")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as left:
        __main__.main()
    assert left.value.code == 2
    assert "of the test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("streams", "status", "told"),
    [
        pytest.param("--version > /dev/full", 2, "cannot be written", id="a full disk"),
        pytest.param("audit verify nothing 2> /dev/full", 2, "", id="a full disk for complaints"),
        pytest.param("audit verify audit.jsonl <&- 2>&-", 0, "", id="no other stream"),
        pytest.param("audit verify - <&-", 2, "", id="no standard input for a record"),
        pytest.param("audit report --json audit.jsonl >&-", 0, "", id="no standard output"),
    ],
)
def test_streams_that_are_full_or_closed_are_no_breakdown(streams: str, status: int, told: str, tmp_path: Path) -> None:
    if "/dev/full" in streams and not Path("/dev/full").exists():
        pytest.skip("there is no device that is full")
    sink = open_sink(str(tmp_path / "audit.jsonl"))
    for number in range(5):
        sink.write({"schema": 1, "event": "decision", "event_id": f"e-{number}"})
    sink.close()
    command = f"{shlex.quote(sys.executable)} -m toucan_guard {streams}"
    result = subprocess.run(
        ["/bin/sh", "-c", command],
        check=False,
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, told in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_report_that_nobody_reads_to_its_end_says_nothing(tmp_path: Path) -> None:
    """With ``pipefail`` a verdict of 1 would be evidence of tampering."""
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    for number in range(500):
        sink.write({"schema": 1, "event": "decision", "event_id": f"e-{number}"})
    sink.close()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[::2]))
    for reads in (True, False):
        with subprocess.Popen(
            [sys.executable, "-m", "toucan_guard", "audit", "verify", "--json", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as running:
            assert running.stdout is not None
            if reads:
                assert len(running.stdout.read()) > 1 << 16
            running.stdout.close()
            assert running.wait(60) == (1 if reads else 2)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "HS256"])
def test_a_new_key_signs_what_the_guard_accepts(run: Any, tmp_path: Path, algorithm: str) -> None:
    made = run("keygen", "-a", algorithm, "--kid", "k/1", "--out", str(tmp_path))
    assert made.exit_code == 0
    private = [path for path in tmp_path.iterdir() if ".private." in path.name or path.suffix == ".secret"]
    assert private
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)

    key_file = tmp_path / ("k_1.secret" if algorithm == "HS256" else "k_1.private.jwk.json")
    keys = {"TOUCAN_GUARD_SECRET": None, "TOUCAN_GUARD_KEYS_FILE": str(tmp_path / "k_1.jwks.json")}
    options = ["--subject", "u", "--tenant", "AA", "--rls", "carrier=AA", "--grant", "dashboard:delays:view,export"]
    named = ["--kid", "k/1"] if algorithm == "HS256" else []
    token = run("mint", *options, *named, "--key-file", str(key_file), **keys)
    assert token.exit_code == 0, token.output
    seen = run("inspect", "-", "--json", stdin=token.stdout, **keys)
    assert json.loads(seen.stdout)["valid"], seen.stdout
    assert json.loads(seen.stdout)["header"]["kid"] == "k/1"
    assert json.loads(seen.stdout)["claims"]["grants"][0]["actions"] == ["view", "export"]

    again = run("keygen", "-a", algorithm, "--kid", "k/1", "--out", str(tmp_path))
    assert again.exit_code == 2, "a key is never overwritten"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_new_pair_is_the_same_key_as_jwks_and_as_pem(run: Any, tmp_path: Path, algorithm: str) -> None:
    assert run("keygen", "-a", algorithm, "--out", str(tmp_path)).exit_code == 0
    (jwks,) = tmp_path.glob("*.jwks.json")
    kid = json.loads(jwks.read_text())["keys"][0]["kid"]
    options = ["--subject", "u", "--tenant", "AA", "--rls", "carrier=AA"]
    for private in (tmp_path / f"{kid}.private.pem", tmp_path / f"{kid}.private.jwk.json"):
        for public in (jwks, tmp_path / f"{kid}.public.pem"):
            keys = {"TOUCAN_GUARD_SECRET": None, "TOUCAN_GUARD_KEYS_FILE": str(public)}
            token = run("mint", *options, "--key-file", str(private), **keys)
            assert token.exit_code == 0, token.output
            # Without a name of its own, a key is named by its thumbprint, in PEM too.
            seen = run("inspect", "-", "--json", stdin=token.stdout, **keys)
            assert json.loads(seen.stdout)["header"] == {"alg": algorithm, "kid": kid, "typ": "embed+jwt"}
    modes = {path.name.removeprefix(kid): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {".private.pem": 0o600, ".private.jwk.json": 0o600, ".public.pem": 0o644, ".jwks.json": 0o644}


def test_two_public_keys_in_one_set_are_a_rotation(run: Any, tmp_path: Path) -> None:
    for kid in ("old", "new"):
        run("keygen", "--kid", kid, "--out", str(tmp_path))
    sets = [json.loads((tmp_path / f"{kid}.jwks.json").read_text())["keys"] for kid in ("old", "new")]
    (tmp_path / "both.json").write_text(json.dumps({"keys": [*sets[0], *sets[1]]}))
    options = ["--subject", "u", "--tenant", "AA", "--rls", "carrier=AA"]

    def verdict(kid: str, keys: str) -> int:
        changes = {"TOUCAN_GUARD_SECRET": None, "TOUCAN_GUARD_KEYS_FILE": str(tmp_path / keys)}
        return int(run("mint", *options, "--key-file", str(tmp_path / f"{kid}.private.jwk.json"), **changes).exit_code)

    assert [verdict("old", "both.json"), verdict("new", "both.json")] == [0, 0]
    assert [verdict("old", "new.jwks.json"), verdict("new", "new.jwks.json")] == [1, 0]


def test_the_mend_for_a_short_secret_is_a_command_whose_file_is_taken(run: Any, tmp_path: Path) -> None:
    """For SECRET, and for the other secrets that the same sentence is said of."""
    short = run("check", TOUCAN_GUARD_SECRET="short", TOUCAN_GUARD_AUDIT_CHAIN_KEY="short")
    assert short.stdout.count("`toucan-guard keygen -a HS256`") == 2
    command = short.stdout.split("`")[1].split()
    assert run(*command[1:], "--out", str(tmp_path)).exit_code == 0
    (made,) = tmp_path.glob("*.secret")
    for given in (
        {"TOUCAN_GUARD_SECRET": made.read_text().strip()},
        {"TOUCAN_GUARD_SECRET": None, "TOUCAN_GUARD_SECRET_FILE": str(made)},
        {"TOUCAN_GUARD_AUDIT_CHAIN_KEY": made.read_text().strip()},
        {"TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE": str(made)},
    ):
        clear = dict.fromkeys(("TOUCAN_GUARD_SECRET_FILE", "TOUCAN_GUARD_AUDIT_CHAIN_KEY"))
        clear["TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE"] = None
        checked = run("check", "--json", **{**clear, **given})
        assert (checked.exit_code, checked.stdout) == (0, '{\n  "errors": [],\n  "findings": []\n}\n')


def test_a_secret_that_is_given_as_keys_is_sent_to_its_own_variable(run: Any) -> None:
    refused = run("check", TOUCAN_GUARD_SECRET=None, TOUCAN_GUARD_KEYS=TEST_SECRET)
    assert "a secret for HS256 is set as TOUCAN_GUARD_SECRET" in refused.stdout
    assert TEST_SECRET not in refused.output
    assert run("check", TOUCAN_GUARD_KEYS=None, TOUCAN_GUARD_SECRET=TEST_SECRET).exit_code == 0


@pytest.mark.parametrize("taken", ["k.private.jwk.json", "k.public.pem", "k.jwks.json"])
def test_keygen_makes_all_files_or_none(run: Any, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    result = run("keygen", "--kid", "k", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert taken in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_keygen_that_cannot_write_leaves_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("keygen", "--kid", "k", "--out", str(tmp_path))
    assert (result.exit_code, len(synced)) == (2, 3)
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_keygen_follows_no_link_that_waits_for_a_key(run: Any, tmp_path: Path) -> None:
    (tmp_path / "k.private.jwk.json").symlink_to(tmp_path / "elsewhere")
    assert run("keygen", "--kid", "k", "--out", str(tmp_path)).exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
def test_keygen_refuses_a_name_that_no_token_may_carry(run: Any, tmp_path: Path, algorithm: str) -> None:
    result = run("keygen", "-a", algorithm, "--kid", "k" * 257, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "kid" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_advises_the_regions_of_endpoints(run: Any) -> None:
    result = run("check", TOUCAN_GUARD_REGION="eu")
    assert result.exit_code == 1
    assert "TOUCAN_GUARD_AUDIT_REGION" in result.stdout
    result = run("check", TOUCAN_GUARD_REGION="eu", TOUCAN_GUARD_AUDIT_REGION="us")
    assert "✗ TOUCAN_GUARD_AUDIT_REGION is 'us'" in result.stdout
    sound = {"TOUCAN_GUARD_REGION": "eu", "TOUCAN_GUARD_AUDIT_REGION": "eu"}
    assert run("check", **sound).exit_code == 0
    assert "token_missing" in run("explain", "/d", **sound).stdout


def test_the_private_half_is_in_no_public_file(run: Any, tmp_path: Path) -> None:
    run("keygen", "--kid", "k", "--out", str(tmp_path))
    secret = json.loads((tmp_path / "k.private.jwk.json").read_text())["d"]
    for name in ("k.jwks.json", "k.public.pem"):
        text = (tmp_path / name).read_text()
        assert secret not in text
        assert "PRIVATE" not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--rls", "carier=AA"], "carier", id="an undeclared attribute"),
        pytest.param(["--rls", "carrier"], "name=value", id="an attribute without a value"),
        pytest.param(["--rls", "carrier=AA", "--rls", "carrier=UA"], "given twice", id="an attribute twice"),
        pytest.param(["--rls", f"carrier={'[' * 100_000}"], "nested too deep", id="a deep attribute"),
        pytest.param(["--rls", "carrier=AA", "--grant", "dashboard"], "type:id:action", id="half a grant"),
        pytest.param(["--rls", "carrier=AA", "--origin", "https://*.com"], "https://*.com", id="an origin too wide"),
    ],
)
def test_mint_refuses_what_the_guard_would(run: Any, tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "key").write_text(TEST_SECRET)
    result = run("mint", "--subject", "u", "--tenant", "AA", "--key-file", str(tmp_path / "key"), *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert TEST_SECRET not in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param([], "claim_missing", id="no tenant"),
        pytest.param(["--tenant", "AA", "--lifetime", "7200"], "token_lifetime_too_long", id="a long life"),
        pytest.param(
            ["--tenant", "AA", "--origin", "https://portel.example"],
            "TOUCAN_GUARD_ALLOWED_ORIGINS",
            id="a typing mistake",
        ),
    ],
)
def test_mint_says_which_token_the_configured_guard_refuses(
    run: Any, tmp_path: Path, options: list[str], words: str
) -> None:
    (tmp_path / "key").write_text(TEST_SECRET)
    result = run("mint", "--subject", "u", "--rls", "carrier=AA", "--key-file", str(tmp_path / "key"), *options)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stdout.split(".")) == 3


def test_mint_makes_a_token_for_a_site_that_may_frame_and_not_call(run: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(TEST_SECRET)
    options = ["--subject", "u", "--tenant", "AA", "--rls", "carrier=AA", "--origin", "https://frames.example"]
    options += ["--key-file", str(tmp_path / "key")]
    framed = {
        "TOUCAN_GUARD_FRAME_ANCESTORS": "https://frames.example",
        "TOUCAN_GUARD_TOKEN_CARRIERS": "authorization,session",
    }
    made = run("mint", *options, **framed)
    assert (made.exit_code, made.stderr) == (0, "")
    # A bootstrap token asks for a listed Referer.
    assert run("mint", *options, "--frame", **framed).exit_code == 1


def test_mint_tells_each_mistake_on_its_line(run: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(TEST_SECRET)
    result = run("mint", "--subject", "", "--tenant", "AA", "--rls", "carier=AA", "--key-file", str(tmp_path / "key"))
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 3
    options = ["--grant", "a", "--grant", "b", "--rls", "carrier", "--origin", "portal.example", "--lifetime", "0"]
    result = run("mint", "--subject", "u", "--key-file", str(tmp_path / "key"), *options)
    assert result.exit_code == 2
    for words in ("'a' is not a grant", "'b' is not a grant", "name=value", "portal.example", "lifetime_seconds"):
        assert words in result.stderr


def test_help_lists_each_command_in_a_sentence(run: Any) -> None:
    listed = run("--help", COLUMNS="200").stdout
    assert "Print a token for the configured issuer and audience." in listed
    assert "Leaves with" not in listed
    paragraph = run("audit", "report", "--help", COLUMNS="200").stdout
    assert "or fits no key that was given, or an API key is out" in paragraph


def test_mint_makes_the_token_of_a_frame(run: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(TEST_SECRET)
    options = [
        "--subject",
        "u",
        "--tenant",
        "AA",
        "--rls",
        "carrier=AA",
        "--key-file",
        str(tmp_path / "key"),
        "--frame",
    ]
    # Without frames nobody exchanges it.
    made = run("mint", *options)
    assert (made.exit_code, "'session' is switched off" in made.stderr) == (1, True)
    assert run("inspect", "-", stdin=made.stdout).exit_code == 1
    framed = {"TOUCAN_GUARD_TOKEN_CARRIERS": "authorization,session"}
    made = run("mint", *options, **framed)
    seen = json.loads(run("inspect", "-", "--json", stdin=made.stdout, **framed).stdout)
    assert (made.exit_code, seen["valid"], seen["header"]["typ"]) == (0, True, "embed-bootstrap+jwt")


def test_mint_cannot_read_a_missing_key(run: Any, tmp_path: Path) -> None:
    assert run("mint", "--subject", "u", "--key-file", str(tmp_path / "none")).exit_code == 2


APP = """
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from toucan_guard import Embed, GuardSettings, ToucanGuard
from toucan_guard.fastapi import CurrentEmbed, require_grant
from toucan_guard.layers import GrantMiddleware, RowFilterMiddleware

settings = GuardSettings(exempt_paths=["/healthz"])

app = FastAPI(openapi_url=None)

@app.get("/dashboards/{dashboard_id}")
def dashboard(embed: Annotated[Embed, Depends(require_grant("dashboard", "dashboard_id", action="view"))]):
    return {}

@app.get("/healthz")
def healthz():
    return {}

app.add_middleware(ToucanGuard, settings=settings)

def page(request):
    return PlainTextResponse("")

grant = Middleware(GrantMiddleware, type="report", id_param="id", action="view")
inner = Starlette(routes=[
    Route("/", page),
    Mount(
        "/embed",
        routes=[Route("/r/{id}", page, middleware=[grant])],
        middleware=[Middleware(ToucanGuard, settings=settings)],
    ),
])
wrapped = ToucanGuard(Starlette(routes=[Route("/x", page)]), settings=settings)

# Routers in a router: FastAPI keeps them apart, and asks each for its routes when it needs them.
router = APIRouter(prefix="/reports")

@router.get("/{report_id}", dependencies=[Depends(require_grant("report", "report_id", action="view"))])
def report():
    return {}

@router.post("/{dashboard_id}/notes")
def notes():
    return {}

@router.websocket("/{report_id}/live")
async def live(websocket: WebSocket):
    await websocket.accept()

router.routes.append(Mount("/files", routes=[Route("/{id}", page, middleware=[grant])]))
between = APIRouter(routes=[Route("/{id}/plain", page, middleware=[grant])])
between.include_router(router)
included = FastAPI(openapi_url=None)
included.include_router(
    between, prefix="/api", dependencies=[Depends(require_grant("site", id="all", action="enter"))]
)
included.add_middleware(ToucanGuard, settings=settings)

# FastAPI's own /docs, /redoc and /openapi.json.
documented = FastAPI()
documented.add_middleware(ToucanGuard, settings=settings)
described = FastAPI(routes=[Mount("/embed", app=documented)])
described.mount("/looks_like_it", Starlette(routes=[Route("/docs", page)]))
plain = FastAPI()

mistyped = FastAPI(openapi_url=None)

@mistyped.get("/dashboards/{dashboard_id}", dependencies=[
    Depends(require_grant("dashboard", "dash_id", action="view")),
    Depends(require_grant("site", id="all", action="enter")),
])
def mistyped_dashboard():
    return {}

mistyped.mount("/{id}", Starlette(routes=[
    Route("/inside/{file:path}", page, middleware=[grant]),
    Route("/other", page, middleware=[
        Middleware(GrantMiddleware, type="report", id_param="report", action="view"),
    ]),
]))
mistyped.add_middleware(ToucanGuard, settings=settings)

# Nothing is exempt; a host, a grant for a whole mount and one for a whole app.
class OwnGuard(ToucanGuard):
    pass

plainly = GuardSettings()
behind = Starlette(routes=[Route("/x", page), Mount("/files", page)])
behind.add_middleware(GrantMiddleware, type="site", id="all", action="enter")
behind.add_middleware(OwnGuard, settings=plainly)
around = ToucanGuard(Starlette(routes=[
    Mount("/reports/{id}", routes=[Route("/{page}", page)], middleware=[grant]),
    Mount("/late", routes=[Route("/{id}", page)], middleware=[grant]),
    Host("{id}.charts.example", Starlette(routes=[Route("/h", page, middleware=[grant])])),
]), settings=plainly)
unknown = Starlette(routes=[
    Mount("/files", page, middleware=[Middleware(RowFilterMiddleware, require_row_filter=["fligths", "flights"])]),
])
unknown.add_middleware(ToucanGuard)  # which will read the environment
shapes = Starlette(routes=[Mount("/behind", behind), Mount("/around", around)])
"""

DOCUMENTATION = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")


@pytest.fixture
def hosts_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hosts_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "hosts_app", raising=False)
    return "hosts_app"


def test_routes_lists_grants_and_exemptions(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:app", "--json")
    assert json.loads(result.stdout) == [
        {
            "path": "/dashboards/{dashboard_id}",
            "methods": "GET",
            "guard": "guarded",
            "grant": "dashboard:{dashboard_id}:view",
            "problem": "",
        },
        {"path": "/healthz", "methods": "GET", "guard": "exempt", "grant": "", "problem": ""},
    ]
    assert result.exit_code == 0


def test_routes_looks_into_included_routers(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:included", "--json")
    rows = {row["path"]: (row["methods"], row["guard"], row["grant"]) for row in json.loads(result.stdout)}
    assert rows["/api/reports/{report_id}"] == ("GET", "guarded", "site:all:enter, report:{report_id}:view")
    assert rows["/api/reports/{dashboard_id}/notes"] == ("POST", "guarded", "site:all:enter")
    assert rows["/api/reports/{report_id}/live"] == ("WEBSOCKET", "guarded", "site:all:enter")
    assert rows["/api/files/{id}"] == ("GET,HEAD", "guarded", "report:{id}:view")
    # FastAPI leaves out the middleware of a plain route that it includes, and so its grant.
    assert rows["/api/{id}/plain"] == ("GET,HEAD", "guarded", "")
    assert result.exit_code == 1


def test_routes_sees_through_every_guard_and_layer(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:shapes", "--json")
    rows = {row["path"]: (row["guard"], row["grant"], row["problem"]) for row in json.loads(result.stdout)}
    late = rows.pop("/around/late/{id}")
    assert rows == {
        "/behind/x": ("guarded", "site:all:enter", ""),
        "/behind/files/…": ("guarded", "site:all:enter", ""),
        "/around/reports/{id}/{page}": ("guarded", "report:{id}:view", ""),
        "{id}.charts.example/around/h": ("guarded", "report:{id}:view", ""),
    }
    # A layer around a mount sees what the mount's own path names, and nothing of the routes in it.
    assert late[:2] == ("guarded", "report:{id}:view")
    assert late[2].startswith("the path has no parameter 'id' for the grant, so every request is answered with 500")
    assert result.exit_code == 1


def test_routes_finds_a_row_filter_on_a_table_that_the_policy_does_not_name(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:unknown", "--json")
    assert result.exit_code == 1
    (problem,) = _problems(result)
    assert problem.startswith(
        "it requires a row filter on the table 'fligths', which the policy does not name (did you mean flights?): write"
    )
    assert "! /files/… (any): it requires a row filter on" in run("routes", f"{hosts_app}:unknown").stdout
    told = _problems(
        run("routes", f"{hosts_app}:unknown", "--json", TOUCAN_GUARD_RLS_COLUMNS="fligths.a=b,flights.a=b")
    )
    assert told == [""]


def test_a_parameter_may_come_from_a_mount_around_the_app(run: Any, hosts_app: str) -> None:
    unless = ", unless a mount around this app names it (say so with --mounted-at)"
    (told,) = [line for line in _problems(run("routes", f"{hosts_app}:mistyped", "--json")) if "'report'" in line]
    assert told == f"the path has no parameter 'report' for the grant, so every request is answered with 500{unless}"

    result = run("routes", f"{hosts_app}:mistyped", "--mounted-at", "/of/{dash_id}/{report}", "--json")
    assert (result.exit_code, _problems(result)) == (0, ["", "", ""])
    assert json.loads(result.stdout)[2]["path"] == "/of/{dash_id}/{report}/{id}/other"

    (told,) = [
        line
        for line in _problems(run("routes", f"{hosts_app}:mistyped", "--mounted-at", "/", "--json"))
        if "'report'" in line
    ]
    assert told == "the path has no parameter 'report' for the grant, so every request is answered with 500"

    result = run("routes", f"{hosts_app}:app", "--mounted-at", "/of/")
    assert "/of/healthz" in result.stdout  # which the guard does not know by this name
    assert "2 routes, 1 without guard or grant" in result.stdout
    assert run("routes", f"{hosts_app}:app", "--mounted-at", "of").exit_code == 2


def _problems(result: Any) -> list[str]:
    return [row["problem"] for row in json.loads(result.stdout)]


def test_routes_finds_what_stands_open(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:inner", "--json")
    rows = {row["path"]: (row["guard"], row["grant"]) for row in json.loads(result.stdout)}
    assert rows == {"/": ("open", ""), "/embed/r/{id}": ("guarded", "report:{id}:view")}
    assert result.exit_code == 1


def test_what_fastapi_says_of_the_api_needs_no_grant_behind_the_guard(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:documented", "--json")
    rows = {row["path"]: (row["guard"], row["grant"]) for row in json.loads(result.stdout)}
    assert rows == dict.fromkeys(DOCUMENTATION, ("guarded", "(the API's description)"))
    assert result.exit_code == 0
    # Only that: a route of the host's own at such a path is one like all others.
    result = run("routes", f"{hosts_app}:described", "--public-docs", "--json")
    rows = {row["path"]: (row["guard"], row["grant"]) for row in json.loads(result.stdout)}
    assert rows["/looks_like_it/docs"] == ("open", "")
    assert rows["/embed/docs"] == ("guarded", "(the API's description)")
    assert rows["/docs"] == ("open", "(the API's description)")
    assert result.exit_code == 1


def test_what_fastapi_says_of_the_api_to_everybody_is_a_finding_unless_it_is_meant(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:plain")
    assert result.exit_code == 1
    assert "4 routes, 4 without guard or grant" in result.stdout
    assert "FastAPI(openapi_url=None)" in result.stdout
    result = run("routes", f"{hosts_app}:plain", "--public-docs")
    assert result.exit_code == 0
    assert "4 routes, 0 without guard or grant" in result.stdout
    assert "open" in result.stdout


def test_routes_finds_a_guarded_route_without_a_grant(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:wrapped")
    assert result.exit_code == 1
    assert "1 route, 1 without guard or grant" in result.stdout


def test_routes_finds_a_grant_whose_parameter_the_path_does_not_have(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:mistyped", "--json")
    assert result.exit_code == 1
    problems = {row["path"]: row["problem"] for row in json.loads(result.stdout)}
    assert problems == {
        "/dashboards/{dashboard_id}": "the path has no parameter 'dash_id' for the grant (did you mean dashboard_id?), "
        "so every request is answered with 500, unless a mount around this app names it (say so with --mounted-at)",
        "/{id}/inside/{file:path}": "",
        "/{id}/other": "the path has no parameter 'report' for the grant, so every request is answered with 500, "
        "unless a mount around this app names it (say so with --mounted-at)",
    }
    told = run("routes", f"{hosts_app}:mistyped")
    assert told.exit_code == 1
    assert "3 routes, 0 without guard or grant" in told.stdout
    assert "! /dashboards/{dashboard_id} (GET): the path has no parameter 'dash_id'" in told.stdout


def test_routes_shows_a_long_grant_whole(run: Any, hosts_app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from toucan_guard.cli import output

    monkeypatch.setattr(output.out, "_width", 40)
    result = run("routes", f"{hosts_app}:app")
    assert "…" not in result.stdout


def test_routes_tells_a_wrong_configuration_line_by_line(run: Any, hosts_app: str) -> None:
    result = run("routes", f"{hosts_app}:app", TOUCAN_GUARD_ISSUER=None, TOUCAN_GUARD_AUDIENCE=None)
    assert result.exit_code == 2
    assert "\n✗ TOUCAN_GUARD_ISSUER" in result.stderr
    assert "\n✗ TOUCAN_GUARD_AUDIENCE" in result.stderr


@pytest.mark.parametrize("target", ["hosts_app", "nowhere:app", "hosts_app:nothing", "hosts_app:settings"])
def test_routes_says_what_it_cannot_load(run: Any, hosts_app: str, target: str) -> None:
    assert run("routes", target).exit_code == 2


def test_without_the_extra_the_command_says_which(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from toucan_guard import __main__

    monkeypatch.setitem(sys.modules, "toucan_guard.cli", None)

    def missing(name: str, *rest: Any) -> Any:
        raise ModuleNotFoundError("No module named 'typer'", name="typer")

    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(SystemExit) as left:
        __main__.main()
    assert left.value.code == 2
    assert "toucan-guard[cli]" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("apikey", "create"), ("mint",)])
def test_help_shows_grants_as_they_are_written(command: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, [*command, "--help"], terminal_width=200).stdout
    assert "dashboard:delays:view" in told
