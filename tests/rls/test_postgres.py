"""PostgreSQL's policies and their signed context, as far as no database is needed; the rest is in tests/services."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import string
import tomllib
import traceback
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.errors import ConfigError, NoEmbedContext, RowSecurityError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Attribute, Leaf, TableRule
from toucan_guard.rls.postgres_context import DatabaseContext
from toucan_guard.rls.postgres_expressions import concatenation, expression, identifier, literal
from toucan_guard.rls.postgres_policies import policy_sql, policy_statements

KEY = "a-context-key-for-tests-of-postgres-0123456789"
POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"
    airports = { type = "string", list = true, required = false }
    since = { type = "datetime", required = false }
    active = { type = "boolean", required = false }
    id = { type = "uuid", required = false }

    [tables.flights]
    all = [
      { column = "carrier", op = "eq", attribute = "carrier" },
      { any = [ { column = "origin", op = "in", attribute = "airports" },
                { column = "at", op = "ge", attribute = "since" },
                { column = "dest", op = "is_set" } ] },
    ]
    columns = { show = ["carrier", "origin"] }

    [tables."sales.orders"]
    write = true
    all = [ { column = "carrier", op = "ne", attribute = "carrier" } ]

    [tables.airlines]
    open = true
    """
)


def judged(**attributes: Any) -> RowFilter:
    return RowFilter(POLICY, {"carrier": "UA", **attributes}, issuer="i", tenant="t")


def opened(value: str, key: str = KEY) -> dict[str, Any]:
    """What the database makes of a value, with the standard library's own HMAC."""
    key_id, mac, body = value.split(".", 2)
    assert hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest() == mac
    assert (len(key_id), len(mac), body.isascii()) == (16, 64, True)
    made: dict[str, Any] = json.loads(body)
    return made


class TestTheContext:
    def test_it_holds_the_claims_its_end_its_backend_and_whose_rows_these_are(self) -> None:
        row_filter = judged(airports=["JFK", 'a"b', "c\\d", "NULL", ""], active=True, since="2013-01-31T13:00:00+01:00")
        assert opened(DatabaseContext(KEY).sign(row_filter, now=1000.0, backend_pid=42)) == {
            "$embed": row_filter.fingerprint,
            "$end": 1060,
            "$pid": 42,
            "carrier": "UA",
            "airports": '{"JFK","a\\"b","c\\\\d","NULL",""}',
            "active": "true",
            "since": "2013-01-31T12:00:00+00:00",
        }

    @given(st.text())
    def test_text_arrives_as_it_was(self, text: str) -> None:
        row_filter = judged(carrier=text)
        known = opened(DatabaseContext(KEY).sign(row_filter, now=0.0, backend_pid=1))
        assert known.get("carrier") == row_filter.attributes.get("carrier")

    def test_what_is_absent_or_empty_is_not_in_it(self) -> None:
        known = opened(DatabaseContext(KEY).sign(judged(airports=[], id="no uuid"), now=0.0, backend_pid=1))
        assert set(known) == {"$embed", "$end", "$pid", "carrier"}

    @pytest.mark.parametrize("options", [{"key": KEY[:20]}, {"key": KEY, "pooler": "session"}], ids=["short", "pooler"])
    def test_what_is_wrong_with_it_is_told_without_the_key(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError) as raised:
            DatabaseContext(**options)
        *_, last = traceback.TracebackException.from_exception(raised.value, capture_locals=True).stack
        assert last.locals
        assert not [value for value in last.locals.values() if KEY[:20] in value]

    def test_behind_a_pooler_it_names_no_backend(self) -> None:
        context = DatabaseContext(KEY, pooler="transaction")
        assert "$pid" not in opened(context.sign(judged(), now=0.0, backend_pid=42))

    @pytest.mark.parametrize(
        ("expires_at", "leeway", "end"),
        [
            pytest.param(None, 0, 1060, id="no end is known"),
            pytest.param(5000, 0, 1060, id="the token lives for longer"),
            pytest.param(1030.5, 0, 1030.5, id="the token ends before"),
            pytest.param(1030, 20, 1050, id="the guard's leeway counts"),
            pytest.param(990, 20, 1010, id="a token within its leeway"),
        ],
    )
    def test_it_ends_with_the_token_or_after_a_minute(self, expires_at: float | None, leeway: int, end: float) -> None:
        row_filter = RowFilter(POLICY, {"carrier": "UA"}, expires_at=expires_at)
        signed = DatabaseContext(KEY, leeway_seconds=leeway).sign(row_filter, now=1000.0, backend_pid=1)
        assert opened(signed)["$end"] == end

    @pytest.mark.parametrize("expires_at", [999.0, 1000.0, -math.inf, math.nan])
    def test_a_token_that_has_ended_is_not_signed(self, expires_at: float) -> None:
        row_filter = RowFilter(POLICY, {"carrier": "UA"}, expires_at=expires_at)
        with pytest.raises(NoEmbedContext):
            DatabaseContext(KEY).sign(row_filter, now=1000.0, backend_pid=1)

    @pytest.mark.parametrize("key", ["x" * 31 + "y", KEY, "k" * 64, "k" * 65, "é" * 40])
    def test_the_pads_are_those_of_hmac(self, key: str) -> None:
        inner, outer = DatabaseContext(key).pads()
        mac = hashlib.sha256(outer + hashlib.sha256(inner + b"body").digest()).hexdigest()
        assert mac == hmac.new(key.encode(), b"body", hashlib.sha256).hexdigest()

    def test_the_key_s_name_tells_keys_apart_and_nothing_of_them(self) -> None:
        one, other = DatabaseContext(KEY), DatabaseContext(KEY.encode() + b"?")
        assert one.key_id == DatabaseContext(KEY).key_id != other.key_id
        assert set(one.key_id) <= set(string.hexdigits)
        assert KEY not in repr(one)

    @pytest.mark.parametrize(
        "made",
        [
            pytest.param(lambda: DatabaseContext("x" * 31), id="a short key"),
            pytest.param(lambda: DatabaseContext(KEY, pooler="session"), id="an unknown pooler"),  # type: ignore[arg-type]
        ],
    )
    def test_what_cannot_be_used_is_refused(self, made: Any) -> None:
        with pytest.raises(ConfigError):
            made()

    def test_an_end_is_no_part_of_whose_rows_these_are(self) -> None:
        assert RowFilter(POLICY, {"carrier": "UA"}, expires_at=1.0) == RowFilter(POLICY, {"carrier": "UA"})
        made = POLICY.row_filter({"carrier": "UA"}, expires_at=7.0)
        assert isinstance(made, RowFilter)
        assert made.expires_at == 7.0


class TestExpressions:
    def test_values_are_read_in_sub_queries_that_name_no_column(self) -> None:
        rule = POLICY.tables["flights"].rule
        assert rule is not None
        assert expression(rule, lambda column: "timestamp with time zone") == (
            "((\"carrier\" = (SELECT (toucan_guard.context() ->> 'carrier')::text))"
            " AND ((\"origin\" = ANY ((SELECT (toucan_guard.context() ->> 'airports')::text[])::text[]))"
            " OR (\"at\" >= (SELECT (toucan_guard.context() ->> 'since')::timestamp with time zone))"
            ' OR ("dest" IS NOT NULL)))'
        )

    def test_what_depends_on_a_column_s_type_is_chosen_where_it_is_known(self) -> None:
        rule = POLICY.tables["flights"].rule
        assert rule is not None
        text = concatenation(rule, lambda column: f"type_of({column})")
        assert text.startswith('\'(("carrier" = ')
        assert "|| CASE type_of(at) WHEN 'timestamp with time zone' THEN '(\"at\" >= " in text
        assert "AT TIME ZONE ''UTC''" in text

    @pytest.mark.parametrize(
        ("name", "quoted"),
        [("a", '"a"'), ('a"b', '"a""b"'), ("A b", '"A b"'), ("é", '"é"'), ('"; DROP', '"""; DROP"')],
    )
    def test_names_are_quoted(self, name: str, quoted: str) -> None:
        assert identifier(name) == quoted

    @pytest.mark.parametrize(
        ("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\", "E'a\\\\'"), ("\\'", "E'\\\\'''")]
    )
    def test_literals_are_quoted(self, text: str, quoted: str) -> None:
        assert literal(text) == quoted


class TestTheSql:
    def test_it_is_one_transaction_and_the_same_each_time(self) -> None:
        text = policy_sql(POLICY)
        assert text == policy_sql(POLICY)
        assert text.startswith(f"-- Row-level security for the policy {POLICY.version}")
        assert text.rstrip().endswith("COMMIT;")
        assert text.count("\nBEGIN;\n") == 1

    def test_only_tables_that_may_be_written_are_and_then_with_a_check(self) -> None:
        text = policy_sql(POLICY)
        assert 'GRANT INSERT, UPDATE, DELETE ON TABLE "sales"."orders"' in text
        assert text.count("GRANT INSERT") == 1
        assert text.count("FOR UPDATE TO") == text.count("FOR INSERT TO") == text.count("FOR DELETE TO") == 1
        assert text.count("WITH CHECK (%2$s)") == 2

    def test_columns_that_are_shown_are_granted_one_by_one_and_are_a_view(self) -> None:
        text = policy_sql(POLICY, schema="air")
        assert 'GRANT SELECT ("carrier", "origin") ON TABLE "air"."flights"' in text
        assert 'CREATE VIEW toucan_guard."flights" WITH (security_invoker = true' in text

    def test_its_parts_carry_no_transaction_of_their_own(self) -> None:
        parts = policy_statements(POLICY, full_access_roles=["jobs"], keep_temp=True)
        assert not {"BEGIN", "COMMIT"} & set(parts)
        assert any('TO "jobs" USING (true)' in part for part in parts)
        assert not any("TEMPORARY" in part for part in parts)

    def test_the_backend_is_asked_for_unless_there_is_a_pooler(self) -> None:
        assert "pg_backend_pid" in policy_sql(POLICY)
        assert "pg_backend_pid" not in policy_sql(POLICY, pooler="transaction")

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            pytest.param({"app_role": ""}, "1 to 63 bytes", id="a role without a name"),
            pytest.param({"schema": "é" * 32}, "has 64", id="a schema with too long a name"),
            pytest.param({"app_role": "toucan_guard_owner"}, "role of its own", id="the owner as the app's role"),
            pytest.param(
                {"app_role": "jobs", "full_access_roles": ["jobs"]}, "role of its own", id="a role that sees all"
            ),
            pytest.param({"full_access_roles": "jobs"}, "list of roles", id="a bare string of roles"),
            pytest.param({"schema": "toucan_guard"}, "kept for the guard", id="the guard's own schema"),
            pytest.param({"schema": "a$toucan_guard$"}, "around its blocks", id="a name that would end a block"),
            pytest.param({"pooler": "pgbouncer"}, "none or transaction", id="an unknown pooler"),
        ],
    )
    def test_what_cannot_be_written_is_refused(self, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            policy_sql(POLICY, **options)

    def test_a_view_does_not_stand_where_the_keys_are(self) -> None:
        leaf = Leaf("a", "eq", Attribute("a", "string"))
        policy = RlsPolicy([Attribute("a", "string")], [TableRule("context_key", leaf, show=frozenset({"a"}))])
        with pytest.raises(ConfigError, match="where the guard's keys are"):
            policy_sql(policy)

    def test_two_names_of_one_table_are_refused_where_their_rules_differ(self) -> None:
        text = '[tables.flights]\nopen = true\n[tables."sales.flights"]\nopen = true\n'
        policy = RlsPolicy.from_toml(f"{text}write = true")
        assert policy_sql(policy), "two tables"
        with pytest.raises(ConfigError, match=r"tables\.sales\.flights: is the table flights in the schema sales"):
            policy_sql(policy, schema="sales")
        assert policy_sql(RlsPolicy.from_toml(text), schema="sales"), "both alike"

    def test_the_linter_s_one_exception_is_shipped(self) -> None:
        text = (files("toucan_guard.rls") / "pgrls.toml").read_text()
        assert tomllib.loads(text) == {"lint": {"rules": {"SEC014": {"allowlist": ["toucan_guard.context"]}}}}


class TestTheServer:
    @pytest.mark.parametrize(
        ("version", "told"),
        [
            pytest.param(180000, "", id="18"),
            pytest.param(170006, "", id="17 with its fix"),
            pytest.param(170005, "17.6", id="17 without"),
            pytest.param(150013, "15.14", id="15 without"),
            pytest.param(140019, "a supported version", id="one on which no policy stands"),
        ],
    )
    def test_an_old_one_is_told(self, version: int, told: str) -> None:
        from toucan_guard.rls.postgres_server import server_warning

        assert (told in server_warning(version)) if told else server_warning(version) == ""

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            pytest.param((None, True, False, True), "superuser", id="a role that goes round"),
            pytest.param((None, True, True, False), "context keys", id="a role that reads the keys"),
            pytest.param(
                ("flights", True, False, True), "no policy for the table 'flights'", id="a table without policy"
            ),
            pytest.param(("flights", True, True, False), "owns the table 'flights'", id="an owner"),
            pytest.param(("flights", False, True, True), "another policy opens", id="a second policy"),
        ],
    )
    def test_what_could_be_gone_round_is_refused(self, row: tuple[object, ...], problem: str) -> None:
        from toucan_guard.rls.postgres_server import protected_tables

        with pytest.raises(RowSecurityError, match=problem):
            protected_tables([row])
        assert protected_tables([(None, True, True, True), ("a", True, True, True)]) == {"a"}


class TestBind:
    @pytest.fixture(autouse=True)
    def _nothing_configured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("psycopg")
        from toucan_guard.rls import postgres

        monkeypatch.setattr(postgres._process, "context", None)

    def test_without_a_key_it_says_what_to_call(self) -> None:
        from toucan_guard.rls.postgres import bind, bind_each_transaction, configure

        with pytest.raises(ConfigError, match=r"configure\(settings\)"):
            bind(object(), judged())  # type: ignore[call-overload]
        with pytest.raises(ConfigError, match=r"configure\(settings\)"):
            bind_each_transaction(object())
        with pytest.raises(ConfigError, match="TOUCAN_GUARD_PG_CONTEXT_KEY"):
            configure(SimpleNamespace(database_context=None))

    def test_it_takes_a_connection_of_psycopg(self) -> None:
        from toucan_guard.rls.postgres import bind, configure

        configure(SimpleNamespace(database_context=DatabaseContext(KEY)))
        with pytest.raises(TypeError, match="psycopg 3 connection, not object"):
            bind(object(), judged())  # type: ignore[call-overload]
