"""PostgreSQL's own row-level security, written from the policy: ``policy_sql(policy)``.

What it makes, all of it again and again without harm:

- ``toucan_guard_owner``, a role that nobody can log in as, and the schema ``toucan_guard`` with what it
  owns: the table of context keys, and the one function that checks a signed context with them.
- The role that the app connects as, or is a member of. It owns nothing and may do nothing but what is granted here.
- For each table of the policy, and each of its partitions: ENABLE and FORCE ROW LEVEL SECURITY and a policy
  for that role. Only a table with ``write = true`` may be written, and only rows that pass before and after.
- Where the policy shows some columns only: SELECT on those alone, and a view with just them.

A table that left the policy keeps row-level security on and loses its policy, so that it is closed.
The types of columns are looked at when the SQL runs: one that cannot be compared as the policy means
it stops everything, and PostgreSQL does not let anybody change the type of a column that a policy names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_rules import TableRule
from toucan_guard.rls.postgres_context import POOLERS, Pooler
from toucan_guard.rls.postgres_expressions import (
    CONTEXT,
    FITTING,
    concatenation,
    expression,
    identifier,
    literal,
    needed_columns,
    quoted_table,
    table_parts,
    varies,
)

SCHEMA: Final = "toucan_guard"
OWNER: Final = "toucan_guard_owner"
APP_ROLE: Final = "toucan_guard_app"
KEYS: Final = f"{SCHEMA}.context_key"
POLICIES: Final = {
    "SELECT": "toucan_guard_select",
    "INSERT": "toucan_guard_insert",
    "UPDATE": "toucan_guard_update",
    "DELETE": "toucan_guard_delete",
}
FULL_ACCESS: Final = "toucan_guard_full_access"
_MAX_NAME_BYTES: Final = 63
_OURS: Final = r"toucan\_guard\_%"


def policy_sql(
    policy: RlsPolicy,
    *,
    schema: str = "public",
    app_role: str = APP_ROLE,
    pooler: Pooler = "none",
    full_access_roles: Sequence[str] = (),
    keep_temp: bool = False,
) -> str:
    """The whole as one script, in one transaction; ``policy_statements`` gives its parts.

    Raises:
        ConfigError: A name that PostgreSQL cannot hold, or an unknown pooler.
    """
    statements = policy_statements(
        policy,
        schema=schema,
        app_role=app_role,
        pooler=pooler,
        full_access_roles=full_access_roles,
        keep_temp=keep_temp,
    )
    head = (
        f"-- Row-level security for the policy {policy.version}, written by toucan-guard rls-sql. Run it as a superuser,\n"
        "-- or as the tables' owner with CREATEROLE. It may be run again at any time. It holds no secret: the key comes\n"
        "-- with `toucan-guard rls-sql --set-key`.\n"
    )
    return head + "\nBEGIN;\n\n" + "\n\n".join(f"{statement};" for statement in statements) + "\n\nCOMMIT;\n"


def policy_statements(
    policy: RlsPolicy,
    *,
    schema: str = "public",
    app_role: str = APP_ROLE,
    pooler: Pooler = "none",
    full_access_roles: Sequence[str] = (),
    keep_temp: bool = False,
) -> tuple[str, ...]:
    """The statements one by one, for whoever brings the transaction along (a migration).

    Args:
        policy: The rules.
        schema: Where the tables are that the policy names without a schema.
        app_role: The role that the app connects as, or a role that it is a member of. Made where it is not there.
        pooler: ``transaction`` where the context cannot name a backend.
        full_access_roles: Roles that see and write every row (jobs, migrations): FORCE closes the tables to
            their owner as well.
        keep_temp: Leave it allowed to make temporary tables, with which one viewer could put a table of the
            same name before another's queries on the same connection.

    Raises:
        ConfigError: A name that PostgreSQL cannot hold, or an unknown pooler.
    """
    if isinstance(full_access_roles, str):
        raise ConfigError("full_access_roles must be a list of roles, not one string")
    if pooler not in POOLERS:
        raise ConfigError(f"the pooler must be {' or '.join(POOLERS)}")
    _check_names(policy, schema, app_role, full_access_roles)
    return (
        _roles(app_role),
        *_context(app_role, pooler),
        _drop_policies(app_role),
        *(
            statement
            for table in policy.tables.values()
            for statement in _table(table, schema, app_role, full_access_roles)
        ),
        *_views(policy, schema, app_role),
        *([] if keep_temp else [_no_temp(app_role)]),
        _leave_owner(),
    )


def rule_sql(table: TableRule, column_types: Mapping[str, str]) -> str:
    """The condition of a table's policies.

    Args:
        table: What the policy says of it.
        column_types: Column to type, in the table's order.
    """
    if table.rule is not None:
        return expression(table.rule, lambda column: column_types.get(column, ""))
    return open_rule(identifier(next(iter(column_types)))) if table.open and column_types else "false"


def open_rule(column: str) -> str:
    """Open to every embed, which is not open to nobody: there has to be one.

    The part that looks at a column is always true. Without it a linter takes the policy for a forgotten one.
    """
    return f"(({column} IS NULL OR {column} IS NOT NULL) AND (SELECT {CONTEXT}) IS NOT NULL)"


def commands(table: TableRule) -> tuple[str, ...]:
    """What the app role may do with a table."""
    return tuple(POLICIES) if table.write else ("SELECT",)


def clauses(command: str, rule: str) -> str:
    """USING and WITH CHECK of a policy for one command."""
    using = "" if command == "INSERT" else f" USING ({rule})"
    return using + (f" WITH CHECK ({rule})" if command in ("INSERT", "UPDATE") else "")


def _check_names(policy: RlsPolicy, schema: str, app_role: str, more: Sequence[str]) -> None:
    names = {schema: "the schema", app_role: "the app role", **dict.fromkeys(more, "the full-access role")}
    for table in policy.tables.values():
        names |= {part: f"tables.{table.name}" for part in table.name.split(".")}
        names |= {column: f"tables.{table.name}" for column in table.columns | (table.show or frozenset())}
    problems = [
        f"{place}: a name in PostgreSQL has 1 to {_MAX_NAME_BYTES} bytes, and {name[:20]!r}… has {len(name.encode())}"
        for name, place in names.items()
        if not 0 < len(name.encode()) <= _MAX_NAME_BYTES or "\x00" in name
    ]
    if app_role in (OWNER, "public", *more):
        problems.append(f"the app role cannot be {app_role}: give the app a role of its own")
    for table in policy.tables.values():
        if table_parts(table.name, schema)[0] == SCHEMA:
            problems.append(f"tables.{table.name}: the schema {SCHEMA} is kept for the guard")
        if table.show is not None and table.name == KEYS.partition(".")[2]:
            problems.append(f"tables.{table.name}: a view of this name would stand where the guard's keys are")
    if problems:
        raise ConfigError(problems)


def _do(*lines: str, declare: str = "") -> str:
    head = f"DECLARE\n  {declare}\n" if declare else ""
    return "DO $toucan_guard$\n" + head + "BEGIN\n" + "\n".join(f"  {line}" for line in lines) + "\nEND\n$toucan_guard$"


def _roles(app_role: str) -> str:
    app, quoted = literal(app_role), identifier(app_role)
    return _do(
        # Two that write at once would each drop what the other has made.
        "PERFORM pg_advisory_xact_lock(7867623);",
        "IF current_setting('server_version_num')::integer < 150000 THEN",
        "  RAISE EXCEPTION 'toucan_guard needs PostgreSQL 15 or newer';",
        "END IF;",
        f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN",
        f"  CREATE ROLE {OWNER} NOLOGIN NOINHERIT;",
        "END IF;",
        f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {app}) THEN",
        f"  CREATE ROLE {quoted} NOLOGIN;",
        "END IF;",
        f"IF EXISTS (SELECT FROM pg_roles WHERE pg_has_role({app}, oid, 'MEMBER') AND (rolsuper OR rolbypassrls)) THEN",
        f"  RAISE EXCEPTION 'the role % can go round row-level security: give the app another one', {app};",
        "END IF;",
        f"IF pg_has_role({app}, '{OWNER}', 'MEMBER') THEN",
        f"  RAISE EXCEPTION 'the role % can read the context keys: take it out of {OWNER}', {app};",
        "END IF;",
        # Whoever is no superuser has to be a member to give things to the owner; the last statement ends that.
        f"IF NOT pg_has_role('{OWNER}', 'USAGE') OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN",
        f"  EXECUTE format('GRANT {OWNER} TO %I', current_user);",
        "END IF;",
    )


def _leave_owner() -> str:
    return _do(
        "IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN",
        f"  EXECUTE format('REVOKE {OWNER} FROM %I', current_user);",
        "END IF;",
    )


def _context(app_role: str, pooler: Pooler) -> Iterator[str]:
    app = identifier(app_role)
    yield f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}"
    yield f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {app}"
    yield (
        f"CREATE TABLE IF NOT EXISTS {KEYS} (\n"
        "  id text PRIMARY KEY,\n"
        "  inner_pad bytea NOT NULL,\n"
        "  outer_pad bytea NOT NULL,\n"
        "  added timestamp with time zone NOT NULL DEFAULT now()\n)"
    )
    yield f"ALTER TABLE {KEYS} OWNER TO {OWNER}"
    yield f"REVOKE ALL ON TABLE {KEYS} FROM PUBLIC, {app}"
    yield f"ALTER TABLE {KEYS} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    yield f"DROP POLICY IF EXISTS toucan_guard_owner ON {KEYS}"
    yield (
        f"CREATE POLICY toucan_guard_owner ON {KEYS} TO {OWNER} USING (id IS NOT NULL) WITH CHECK (id IS NOT NULL)"
    )
    yield context_function(pooler)
    yield f"ALTER FUNCTION {CONTEXT} OWNER TO {OWNER}"
    yield f"REVOKE ALL ON FUNCTION {CONTEXT} FROM PUBLIC"
    yield f"GRANT EXECUTE ON FUNCTION {CONTEXT} TO {app}"


def context_function(pooler: Pooler) -> str:
    """The one function that believes a context, after it has checked the signature, the end and the backend."""
    backend = {
        "none": "  IF (context ->> '$pid')::integer IS DISTINCT FROM pg_backend_pid() THEN\n    RETURN NULL;\n  END IF;\n",
        "transaction": "",
    }[pooler]
    return f"""CREATE OR REPLACE FUNCTION {CONTEXT} RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $toucan_guard${_CONTEXT_BODY}{backend}  RETURN context;
END
$toucan_guard$"""


_CONTEXT_BODY: Final = f"""
DECLARE
  given text := current_setting('toucan_guard.context', true);
  body bytea;
  key record;
  context jsonb;
BEGIN
  IF given IS NULL OR given = '' THEN
    RETURN NULL;
  END IF;
  SELECT inner_pad, outer_pad INTO key FROM {KEYS} WHERE id = left(given, 16);
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  body := convert_to(substr(given, 83), 'UTF8');
  -- Both sides are hashed once more with the key: how long a comparison takes tells nothing of the signature.
  IF sha256(key.outer_pad || convert_to(substr(given, 17, 66), 'UTF8')) IS DISTINCT FROM sha256(key.outer_pad || convert_to(
    '.' || encode(sha256(key.outer_pad || sha256(key.inner_pad || body)), 'hex') || '.', 'UTF8')) THEN
    RETURN NULL;
  END IF;
  context := convert_from(body, 'UTF8')::jsonb;
  IF (context ->> '$end')::numeric <= extract(epoch FROM clock_timestamp()) THEN
    RETURN NULL;
  END IF;
"""


def _drop_policies(app_role: str) -> str:
    app = identifier(app_role)
    return _do(
        f"FOR found IN SELECT polname, polrelid::regclass AS relation FROM pg_policy WHERE polname LIKE '{_OURS}'",
        f"  AND polrelid <> '{KEYS}'::regclass LOOP",
        "  EXECUTE format('DROP POLICY %I ON %s', found.polname, found.relation);",
        f"  EXECUTE format('REVOKE ALL ON %s FROM {app.replace('%', '%%')}', found.relation);",
        "END LOOP;",
        declare="found record;",
    )


def _table(table: TableRule, schema: str, app_role: str, full_access: Sequence[str]) -> Iterator[str]:
    name, app = quoted_table(table.name, schema), identifier(app_role)
    yield f"-- {_comment(table.name)}\n" + _check_columns(table, name, app_role)
    yield f"REVOKE ALL ON TABLE {name} FROM {app}"
    yield f"GRANT USAGE ON SCHEMA {identifier(table_parts(table.name, schema)[0])} TO {app}"
    shown = "" if table.show is None else f" ({', '.join(map(identifier, sorted(table.show)))})"
    yield f"GRANT SELECT{shown} ON TABLE {name} TO {app}"
    if table.write:
        yield f"GRANT INSERT, UPDATE, DELETE ON TABLE {name} TO {app}"
    yield _policies(table, name, app_role, full_access)


def _check_columns(table: TableRule, name: str, app_role: str) -> str:
    needs = [] if table.rule is None else list(needed_columns(table.rule))
    rows = [
        f"({literal(column)}, {literal(' or '.join(FITTING[type_])) if type_ else 'NULL'},"
        f" {'ARRAY[' + ', '.join(map(literal, FITTING[type_])) + ']' if type_ else 'NULL::text[]'})"
        for column, type_ in needs
    ]
    rows += [f"({literal(column)}, NULL, NULL)" for column in sorted(table.show or ()) if column not in table.columns]
    where = literal(table.name)
    lines = [
        f"IF (SELECT relkind FROM pg_class WHERE oid = {literal(name)}::regclass) NOT IN ('r', 'p') THEN",
        f"  RAISE EXCEPTION '% is no table, and only tables have row-level security', {where};",
        "END IF;",
        f"IF pg_has_role({literal(app_role)}, (SELECT relowner FROM pg_class WHERE oid = {literal(name)}::regclass), 'MEMBER') THEN",
        f"  RAISE EXCEPTION 'the role % owns %, and could take its policies away', {literal(app_role)}, {where};",
        "END IF;",
    ]
    if rows:
        lines += [
            f"FOR need IN SELECT * FROM (VALUES {', '.join(rows)}) AS needs (name, words, fitting) LOOP",
            f"  SELECT {TYPE_NAME} AS type, coalesce(collisdeterministic, true) AS exact INTO actual",
            "  FROM pg_attribute LEFT JOIN pg_collation ON pg_collation.oid = attcollation",
            f"  WHERE attrelid = {literal(name)}::regclass AND attname = need.name AND attnum > 0 AND NOT attisdropped;",
            "  IF NOT FOUND THEN",
            f"    RAISE EXCEPTION '% has no column %', {where}, need.name;",
            "  ELSIF actual.type <> ALL (need.fitting) THEN",
            f"    RAISE EXCEPTION '%.% is %, and its rule compares %', {where}, need.name, actual.type, need.words;",
            "  ELSIF need.fitting IS NOT NULL AND NOT actual.exact THEN",
            f"    RAISE EXCEPTION '%.% has a collation for which different texts are equal', {where}, need.name;",
            "  END IF;",
            "END LOOP;",
        ]
    return _do(*lines, declare="need record;\n  actual record;" if rows else "")


TYPE_NAME: Final = (
    "(WITH RECURSIVE base AS (SELECT atttypid AS type UNION ALL SELECT typbasetype FROM base JOIN pg_type"
    " ON pg_type.oid = type WHERE typtype = 'd') SELECT type::regtype::text FROM base JOIN pg_type"
    " ON pg_type.oid = type WHERE typtype <> 'd')"
)


def _policies(table: TableRule, name: str, app_role: str, full_access: Sequence[str]) -> str:
    """Row-level security and policies on a table and everything that inherits from it."""
    app = identifier(app_role)
    if table.rule is None:
        first = (
            f"(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = {literal(name)}::regclass"
            " AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1)"
        )
        rule = f"replace({literal(open_rule('@'))}, '@', {first})" if table.open else "'false'"
    elif varies(table.rule):

        def kind_of(column: str) -> str:
            where = f"attrelid = {literal(name)}::regclass AND attname = {literal(column)}"
            return f"(SELECT {TYPE_NAME} FROM pg_attribute WHERE {where})"

        rule = concatenation(table.rule, kind_of)
    else:
        rule = literal(expression(table.rule, str))
    lines = [
        "FOR relation IN WITH RECURSIVE tree AS (",
        f"  SELECT {literal(name)}::regclass::oid AS oid UNION SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid",
        ") SELECT tree.oid::regclass FROM tree JOIN pg_class ON pg_class.oid = tree.oid AND relkind IN ('r', 'p') LOOP",
        "  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', relation);",
    ]
    for command in commands(table):
        parts = clauses(command, "%2$s")
        text = f"CREATE POLICY {POLICIES[command]} ON %1$s FOR {command} TO {app.replace('%', '%%')}{parts}"
        lines.append(f"  EXECUTE format({literal(text)}, relation, rule);")
    for role in full_access:
        text = (
            f"CREATE POLICY {identifier(f'{FULL_ACCESS}_{role}'[:_MAX_NAME_BYTES])} ON %1$s TO {identifier(role)}"
            " USING (true) WITH CHECK (true)"
        )
        lines.append(f"  EXECUTE format({literal(text)}, relation);")
    lines.append("END LOOP;")
    if table.write:
        lines += [
            "FOR relation IN SELECT objid::regclass FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'",
            f"  WHERE refobjid = {literal(name)}::regclass AND deptype = 'a' LOOP",
            f"  EXECUTE format({literal(f'GRANT USAGE ON SEQUENCE %s TO {app.replace("%", "%%")}')}, relation);",
            "END LOOP;",
        ]
    return _do(*lines, declare=f"relation regclass;\n  rule text := {rule};")


def _views(policy: RlsPolicy, schema: str, app_role: str) -> Iterator[str]:
    yield _do(
        f"FOR relation IN SELECT oid::regclass FROM pg_class WHERE relkind = 'v' AND relnamespace = '{SCHEMA}'::regnamespace LOOP",
        "  EXECUTE format('DROP VIEW %s', relation);",
        "END LOOP;",
        declare="relation regclass;",
    )
    for table in policy.tables.values():
        if table.show is None:
            continue
        view = f"{SCHEMA}.{identifier(table.name)}"
        columns = ", ".join(map(identifier, sorted(table.show)))
        yield (
            f"CREATE VIEW {view} WITH (security_invoker = true, security_barrier = true) AS\n"
            f"SELECT {columns} FROM {quoted_table(table.name, schema)}"
        )
        yield f"ALTER VIEW {view} OWNER TO {OWNER}"
        yield f"GRANT SELECT ON {view} TO {identifier(app_role)}"


def _no_temp(app_role: str) -> str:
    app = identifier(app_role).replace("%", "%%")
    return _do(
        f"EXECUTE format({literal(f'REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, {app}')}, current_database());",
    )


def _comment(name: str) -> str:
    return name if name.isprintable() else ascii(name)
