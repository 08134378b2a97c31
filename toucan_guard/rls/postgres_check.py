"""Where a live database differs from the policy: what ``toucan-guard rls-sql --check`` tells.

The expected policies are made on an empty temporary copy of each table, inside a transaction that is rolled
back, and compared as PostgreSQL writes them: nothing that the database says of itself is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_rules import TableRule
from toucan_guard.rls import postgres_policies as ddl
from toucan_guard.rls.postgres_context import DatabaseContext, Pooler
from toucan_guard.rls.postgres_expressions import (
    CONTEXT,
    FITTING,
    identifier,
    needed_columns,
    quoted_table,
)
from toucan_guard.rls.postgres_server import server_warning
from toucan_guard.rls.postgres_templates import TYPE

_SET_KEY: Final = "toucan-guard rls-sql --set-key DATABASE_URL"
_SERVER_ROLES: Final = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")


class Difference(NamedTuple):
    """One thing that is not as the policy wants it.

    Attributes:
        place: The table, role or part of the database.
        problem: What is wrong, and what to do where that is not running ``rls-sql`` again.
    """

    place: str
    problem: str


def differences(
    connection: psycopg.Connection[Any],
    policy: RlsPolicy,
    *,
    schema: str = "public",
    app_role: str = ddl.APP_ROLE,
    pooler: Pooler = "none",
    context: DatabaseContext | None = None,
) -> list[Difference]:
    """Everything in which a database differs from the policy; nothing is changed.

    Args:
        connection: As a superuser, or as the role that ran the SQL.
        policy: The rules.
        schema: Where the tables are that the policy names without a schema.
        app_role: The role that the app connects as, or is a member of.
        pooler: As for ``policy_sql``.
        context: The key that ``bind`` signs with, to see whether the database has it.
    """
    with connection.transaction(force_rollback=True):
        return list(_Check(connection, policy, schema, app_role, pooler).run(context))


class _Check:
    def __init__(
        self, connection: psycopg.Connection[Any], policy: RlsPolicy, schema: str, app_role: str, pooler: Pooler
    ) -> None:
        self._connection = connection
        self._policy, self._schema, self._app, self._pooler = policy, schema, app_role, pooler
        self._guarded: list[int] = []
        self._comparable = True

    def run(self, context: DatabaseContext | None) -> Iterator[Difference]:
        if warning := server_warning(self._connection.info.server_version):
            yield Difference("server", warning)
        if not self._one("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", self._app):
            yield Difference(f"role {self._app}", "is not there")
            return
        if not self._one("SELECT to_regnamespace('toucan_guard') IS NOT NULL"):
            yield Difference("schema toucan_guard", "is not there")
            return
        if not self._one("SELECT has_schema_privilege('toucan_guard', 'USAGE')"):
            # Whoever ran the SQL may become its owner, here until the transaction is rolled back.
            self._connection.execute(f"GRANT {ddl.OWNER} TO CURRENT_USER".encode())
        yield from self._role()
        yield from self._key_table(context)
        yield from self._function()
        for table in self._policy.tables.values():
            yield from self._table(table)
        yield from self._others()

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        with self._connection.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(query.encode(), parameters).fetchall()

    def _one(self, query: str, *parameters: object) -> Any:
        return self._rows(query, *parameters)[0][0]

    def _role(self) -> Iterator[Difference]:
        place = f"role {self._app}"
        for row in self._rows(
            "SELECT rolname FROM pg_roles WHERE pg_has_role(%s, oid, 'MEMBER') AND (rolsuper OR rolbypassrls)"
            " ORDER BY rolname", self._app,
        ):  # fmt: skip
            yield Difference(place, f"can go round row-level security, as {row.rolname}: take that away")
        for row in self._rows(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND pg_has_role(%s, oid, 'MEMBER') ORDER BY rolname",
            [ddl.OWNER, *_SERVER_ROLES], self._app,
        ):  # fmt: skip
            yield Difference(place, f"is a member of {row.rolname}: take it out")
        if self._one(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s AND (rolcanlogin OR rolsuper))", ddl.OWNER
        ):
            yield Difference(f"role {ddl.OWNER}", "can log in or is a superuser: nobody should")
        if self._one("SELECT has_database_privilege(%s, current_database(), 'TEMPORARY')", self._app):
            yield Difference(place, "may make temporary tables, which can stand before the real ones")
        for row in self._rows(
            "SELECT nspname FROM pg_namespace WHERE has_schema_privilege(%s, oid, 'CREATE') ORDER BY nspname", self._app
        ):
            yield Difference(place, f"may make tables and functions in the schema {row.nspname}: take that away")

    def _key_table(self, context: DatabaseContext | None) -> Iterator[Difference]:
        found = self._rows(
            "SELECT relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner) AS owner,"
            " has_table_privilege(%s, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS open"
            " FROM pg_class WHERE oid = to_regclass(%s)", self._app, ddl.KEYS,
        )  # fmt: skip
        if not found:
            yield Difference(ddl.KEYS, "is not there")
            return
        if found[0].owner != ddl.OWNER:
            yield Difference(ddl.KEYS, f"belongs to {found[0].owner}, not to {ddl.OWNER}")
        if found[0].open:
            yield Difference(ddl.KEYS, f"is open to {self._app}")
        if not (found[0].relrowsecurity and found[0].relforcerowsecurity):
            yield Difference(ddl.KEYS, "has no forced row-level security")
        if not self._one("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"):
            return  # whether there is a key, only a superuser sees
        keys = [row.id for row in self._rows(f"SELECT id FROM {ddl.KEYS} ORDER BY id")]
        if not keys:
            yield Difference(ddl.KEYS, f"has no key, so that every query sees no rows: {_SET_KEY}")
        elif context is not None and context.key_id not in keys:
            yield Difference(ddl.KEYS, f"has other keys than TOUCAN_GUARD_PG_CONTEXT_KEY: {_SET_KEY}")

    def _function(self) -> Iterator[Difference]:
        query = (
            "SELECT prosrc, prosecdef, provolatile, proparallel, proconfig, lanname, proargtypes::text AS taken,"
            " prorettype::regtype::text AS returned, pg_get_userbyid(proowner) AS owner FROM pg_proc"
            " JOIN pg_language ON pg_language.oid = prolang WHERE pg_proc.oid = to_regprocedure(%s)"
        )
        found = self._rows(query, CONTEXT)
        if not found:
            self._comparable = False
            yield Difference(CONTEXT, "is not there, and neither is any policy that would ask it")
            return
        self._connection.execute(ddl.context_function(self._pooler).replace(CONTEXT, "pg_temp.context()").encode())
        expected = self._rows(query, "pg_temp.context()")[0]
        for name in ("prosrc", "prosecdef", "provolatile", "proparallel", "proconfig", "lanname", "taken", "returned"):
            if getattr(found[0], name) != getattr(expected, name):
                yield Difference(CONTEXT, "was changed, or made for another --pooler")
                break
        if found[0].owner != ddl.OWNER:
            yield Difference(CONTEXT, f"belongs to {found[0].owner}, not to {ddl.OWNER}")
        if not self._one("SELECT has_function_privilege(%s, %s, 'EXECUTE')", self._app, CONTEXT):
            yield Difference(CONTEXT, f"cannot be called by {self._app}")

    def _table(self, table: TableRule) -> Iterator[Difference]:
        name, place = quoted_table(table.name, self._schema), f"table {table.name}"
        found = self._rows(
            "SELECT oid, relkind, pg_has_role(%s, relowner, 'MEMBER') AS owned,"
            " has_schema_privilege(%s, relnamespace, 'USAGE') AS reachable FROM pg_class WHERE oid = to_regclass(%s)",
            self._app, self._app, name,
        )  # fmt: skip
        if not found:
            yield Difference(place, "is not there")
            return
        if found[0].relkind not in ("r", "p"):
            yield Difference(place, "is no table, and only tables have row-level security")
            return
        if found[0].owned:
            yield Difference(place, f"belongs to {self._app}, or to a role that it is a member of: give it to another")
        if not found[0].reachable:
            yield Difference(place, f"its schema is closed to {self._app}")
        types = {row.attname: row.type for row in self._columns(found[0].oid)}
        wrong = list(self._unfit(table, types))
        yield from wrong
        comparable = self._comparable and not wrong
        expected = self._expected(table, name, types) if comparable else {}
        tree = self._rows(
            "WITH RECURSIVE tree AS (SELECT %s::oid AS oid UNION SELECT inhrelid FROM tree JOIN pg_inherits"
            " ON inhparent = tree.oid) SELECT tree.oid, relname, relkind, relrowsecurity, relforcerowsecurity"
            " FROM tree JOIN pg_class ON pg_class.oid = tree.oid ORDER BY tree.oid <> %s, relname",
            found[0].oid, found[0].oid,
        )  # fmt: skip
        for relation in tree:
            self._guarded.append(relation.oid)
            part = place if relation.oid == found[0].oid else f"{place}, partition {relation.relname}"
            if relation.relkind not in ("r", "p"):
                yield Difference(part, "is no table, and only tables have row-level security")
                continue
            if not relation.relrowsecurity:
                yield Difference(part, "row-level security is off")
            if not relation.relforcerowsecurity:
                yield Difference(part, "row-level security is not forced, so that its owner sees every row")
            if comparable:
                yield from self._policies(part, relation.oid, expected)
        yield from self._privileges(table, place, found[0].oid, types)

    def _columns(self, oid: int) -> list[Any]:
        return self._rows(
            f"SELECT attname, {TYPE} AS type FROM pg_attribute"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum", oid,
        )  # fmt: skip

    def _unfit(self, table: TableRule, types: dict[str, str]) -> Iterator[Difference]:
        place = f"table {table.name}"
        needs = [] if table.rule is None else needed_columns(table.rule)
        for column, type_ in needs:
            if column not in types:
                yield Difference(place, f"has no column {column}")
            elif type_ is not None and types[column] not in FITTING[type_]:
                words = " or ".join(FITTING[type_])
                yield Difference(place, f"{column} is {types[column]}, and its rule compares {words}")
        for column in sorted((table.show or frozenset()) - types.keys() - table.columns):
            yield Difference(place, f"has no column {column}")

    def _expected(self, table: TableRule, name: str, types: dict[str, str]) -> dict[str, Any]:
        rule = ddl.rule_sql(table, types)
        copy = "pg_temp.toucan_guard_expected"
        with self._connection.transaction(force_rollback=True):
            self._connection.execute(f"CREATE TEMPORARY TABLE toucan_guard_expected (LIKE {name})".encode())
            for command in ddl.commands(table):
                self._connection.execute(
                    f"CREATE POLICY {ddl.POLICIES[command]} ON {copy} FOR {command} TO {identifier(self._app)}"
                    f"{ddl.clauses(command, rule)}".encode()
                )
            oid = self._one("SELECT %s::regclass::oid", copy)
            return {row.polname: row for row in self._live(oid)}

    def _live(self, oid: int) -> list[Any]:
        return self._rows(
            "SELECT polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid) AS using,"
            " pg_get_expr(polwithcheck, polrelid) AS checked,"
            " ARRAY(SELECT pg_get_userbyid(role) FROM unnest(polroles) AS role WHERE role <> 0 ORDER BY 1) AS roles,"
            " EXISTS (SELECT FROM unnest(polroles) AS role WHERE role = 0 OR pg_has_role(%s, role, 'MEMBER'))"
            " AS applies FROM pg_policy WHERE polrelid = %s ORDER BY polname", self._app, oid,
        )  # fmt: skip

    def _policies(self, place: str, oid: int, expected: dict[str, Any]) -> Iterator[Difference]:
        live = {row.polname: row for row in self._live(oid)}
        for name in expected.keys() - live.keys():
            yield Difference(place, f"the policy {name} is missing")
        for name, row in live.items():
            if name not in expected:
                if row.applies:
                    effect = "opens more rows" if row.polpermissive else "closes rows"
                    yield Difference(place, f"the policy {name} is extra, and {effect} for {self._app}")
            elif row != expected[name]:
                yield Difference(place, f"the policy {name} was changed, or written for another policy file")

    def _privileges(self, table: TableRule, place: str, oid: int, types: dict[str, str]) -> Iterator[Difference]:
        # TRUNCATE asks no policy; TRIGGER runs code as whoever writes next.
        allowed = {"SELECT", "INSERT", "UPDATE", "DELETE"} if table.write else {"SELECT"}
        for privilege in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"):
            if privilege not in allowed and self._one(
                "SELECT has_table_privilege(%s, %s::oid, %s)", self._app, oid, privilege
            ):
                yield Difference(place, f"{self._app} has {privilege} on it: take that away")
        shown = types.keys() if table.show is None else table.show
        readable = {
            row.attname
            for row in self._rows(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
                " AND has_column_privilege(%s, attrelid, attnum, 'SELECT')", oid, self._app,
            )
        }  # fmt: skip
        for column in sorted(readable - shown):
            yield Difference(place, f"{self._app} can read the column {column}, which the policy does not show")
        if missing := sorted((shown & types.keys()) - readable):
            yield Difference(place, f"{self._app} cannot read {', '.join(missing)}")

    def _others(self) -> Iterator[Difference]:
        """What else the role can read or run, past every policy."""
        views = [table.name for table in self._policy.tables.values() if table.show is not None]
        for row in self._rows(
            "SELECT nspname, relname, relkind, coalesce(reloptions, '{}') AS options FROM pg_class"
            " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND nspname NOT LIKE 'pg\\_t%%' AND pg_class.oid <> ALL (%s)"
            " AND has_any_column_privilege(%s, pg_class.oid, 'SELECT, INSERT, UPDATE') ORDER BY nspname, relname",
            self._guarded, self._app,
        ):  # fmt: skip
            if row.relkind == "v" and "security_invoker=true" in row.options:
                if row.nspname == ddl.SCHEMA and row.relname in views:
                    views.remove(row.relname)
                continue
            what = "view without security_invoker" if row.relkind == "v" else "table that the policy does not name"
            yield Difference(f"{row.nspname}.{row.relname}", f"{self._app} can read this {what}")
        for name in views:
            yield Difference(f"view {ddl.SCHEMA}.{identifier(name)}", "is not there, or not open")
        for row in self._rows(
            "SELECT pg_proc.oid::regprocedure::text AS name FROM pg_proc"
            " JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE prosecdef AND nspname <> 'pg_catalog'"
            " AND pg_proc.oid IS DISTINCT FROM to_regprocedure(%s)"
            " AND has_function_privilege(%s, pg_proc.oid, 'EXECUTE')"
            " AND has_schema_privilege(%s, pronamespace, 'USAGE') AND nspname NOT LIKE 'pg\\_t%%' ORDER BY 1",
            CONTEXT, self._app, self._app,
        ):  # fmt: skip
            yield Difference(
                row.name, f"{self._app} can run this SECURITY DEFINER function, which asks no policy of its"
            )


def set_key(connection: psycopg.Connection[Any], context: DatabaseContext, *, retire_others: bool = False) -> int:
    """Give the database the key, in bound parameters; returns how many keys it has now.

    Args:
        connection: As a superuser, or a role that may become ``toucan_guard_owner``.
        context: The key.
        retire_others: Take the other keys away: contexts that they signed are not believed any more.
    """
    inner, outer = context.pads()
    with connection.transaction():
        connection.execute(f"SET LOCAL ROLE {ddl.OWNER}".encode())
        connection.execute(
            f"INSERT INTO {ddl.KEYS} (id, inner_pad, outer_pad) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING".encode(),
            (context.key_id, inner, outer),
        )
        if retire_others:
            connection.execute(f"DELETE FROM {ddl.KEYS} WHERE id <> %s".encode(), (context.key_id,))
        row = connection.execute(f"SELECT count(*) FROM {ddl.KEYS}".encode()).fetchone()
    return int(row[0]) if row else 0
