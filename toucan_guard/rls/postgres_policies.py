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
from toucan_guard.rls import postgres_templates as sql
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
KEYS: Final = "toucan_guard.context_key"
OWNER: Final = sql.OWNER
APP_ROLE: Final = "toucan_guard_app"
POLICIES: Final = {
    "SELECT": "toucan_guard_select",
    "INSERT": "toucan_guard_insert",
    "UPDATE": "toucan_guard_update",
    "DELETE": "toucan_guard_delete",
}
FULL_ACCESS: Final = "toucan_guard_full_access"
_MAX_NAME_BYTES: Final = 63
_TAG: Final = "$toucan_guard$"


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
    body = "\n\n".join(f"{statement};" for statement in statements)
    return sql.fill(sql.HEAD, version=policy.version) + body + "\n\nCOMMIT;\n"


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
    app = {"app": identifier(app_role), "app_text": literal(app_role)}
    tables = ", ".join(literal(quoted_table(name, schema)) for name in policy.tables)
    before = [sql.ROLES, *sql.KEY_TABLE, sql.fill(sql.CONTEXT, backend=_backend(pooler)), *sql.CONTEXT_RIGHTS]
    after = [*([] if keep_temp else [sql.NO_TEMPORARY]), sql.LEAVE_OWNER]
    return (
        *(sql.fill(part, **app) for part in before),
        sql.fill(sql.DROP, **app, tables=tables),
        *(sql.fill(sql.FULL_ACCESS, **app, role_text=literal(role)) for role in full_access_roles),
        *(part for table in policy.tables.values() for part in _table(table, schema, app, full_access_roles)),
        *(sql.fill(part, **app) for part in after),
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
        columns = table.columns | (table.show or frozenset())
        names |= dict.fromkeys((*table.name.split("."), *sorted(columns)), f"tables.{table.name}")
    problems = [
        f"{place}: a name in PostgreSQL has 1 to {_MAX_NAME_BYTES} bytes, and {name[:20]!r}… has {len(name.encode())}"
        for name, place in names.items()
        if not 0 < len(name.encode()) <= _MAX_NAME_BYTES or "\x00" in name
    ]
    if app_role in (OWNER, "public", *more):
        problems.append(f"the app role cannot be {app_role}: give the app a role of its own")
    problems += [
        f"{names[name]}: $toucan_guard$ is what the SQL puts around its blocks" for name in names if _TAG in name
    ]
    places: dict[tuple[str, str], TableRule] = {}
    for table in policy.tables.values():
        other = places.setdefault(table_parts(table.name, schema), table)
        if other.to_plain() != table.to_plain():
            problems.append(
                f"tables.{table.name}: is the table {other.name} in the schema {schema}, and has other rules: keep one "
                "of the two, or write both alike"
            )
        if table_parts(table.name, schema)[0] == SCHEMA:
            problems.append(f"tables.{table.name}: the schema {SCHEMA} is kept for the guard")
        if table.show is not None and table.name == KEYS.partition(".")[2]:
            problems.append(f"tables.{table.name}: a view of this name would stand where the guard's keys are")
    if problems:
        raise ConfigError(problems)


def context_function(pooler: Pooler) -> str:
    """The one function that believes a context, after it has checked the signature, the end and the backend."""
    return sql.fill(sql.CONTEXT, backend=_backend(pooler))


def _backend(pooler: Pooler) -> str:
    return sql.BACKEND if pooler == "none" else ""


def _table(table: TableRule, schema: str, app: Mapping[str, str], full_access: Sequence[str]) -> Iterator[str]:
    name = quoted_table(table.name, schema)
    parts = {**app, "table": name, "table_text": literal(name), "type": sql.TYPE}
    yield sql.fill(sql.TABLE, **parts, comment=table.name if table.name.isprintable() else ascii(table.name))
    if needs := tuple(_needs(table)):
        yield sql.fill(sql.COLUMNS, **parts, needs=",\n    ".join(needs))
    # In front of the grants: it locks the table, which they do not. A vacuum that came between the two would wait for
    # the grant while the lock waits for the vacuum: a deadlock.
    yield sql.fill(
        sql.POLICIES,
        **parts,
        rule=_rule_text(table, parts),
        policies="".join(_policies(table, app["app"], full_access)),
    )
    shown = "" if table.show is None else f" ({', '.join(map(identifier, sorted(table.show)))})"
    yield f"REVOKE ALL ON TABLE {name} FROM {app['app']}"
    yield f"GRANT USAGE ON SCHEMA {identifier(table_parts(table.name, schema)[0])} TO {app['app']}"
    yield f"GRANT SELECT{shown} ON TABLE {name} TO {app['app']}"
    if table.write:
        yield f"GRANT INSERT, UPDATE, DELETE ON TABLE {name} TO {app['app']}"
        yield sql.fill(sql.SEQUENCES, **parts)
    if table.show is not None:
        view = f"{SCHEMA}.{identifier(table.name)}"
        columns = ", ".join(map(identifier, sorted(table.show)))
        yield from (sql.fill(part, **parts, view=view, columns=columns) for part in sql.VIEW)


def _needs(table: TableRule) -> Iterator[str]:
    """The columns that have to be there, with the types that they may have."""
    for column, type_ in () if table.rule is None else needed_columns(table.rule):
        fitting = f"ARRAY[{', '.join(map(literal, FITTING[type_]))}]" if type_ else "NULL::text[]"
        yield f"({literal(column)}, {fitting})"
    for column in sorted((table.show or frozenset()) - table.columns):
        yield f"({literal(column)}, NULL::text[])"


def _rule_text(table: TableRule, parts: Mapping[str, str]) -> str:
    """An SQL expression that yields the table's condition, once the types of its columns are known."""
    if table.rule is None:
        if not table.open:
            return "'false'"
        before, after = open_rule("@").split("@", 1)
        middle = " || ".join(f"{sql.fill(sql.FIRST_COLUMN, **parts)} || {literal(piece)}" for piece in after.split("@"))
        return f"{literal(before)} || {middle}"
    if not varies(table.rule):
        return literal(expression(table.rule, str))
    return concatenation(table.rule, lambda column: sql.fill(sql.TYPE_OF_COLUMN, **parts, column_text=literal(column)))


def _policies(table: TableRule, app: str, full_access: Sequence[str]) -> Iterator[str]:
    for command in commands(table):
        policy = f"CREATE POLICY {POLICIES[command]} ON %1$s FOR {command} TO {_in_format(app)}"
        yield sql.fill(sql.POLICY, policy_text=literal(policy + clauses(command, "%2$s")))
    for role in full_access:
        name = identifier(f"{FULL_ACCESS}_{role}"[:_MAX_NAME_BYTES])
        policy = f"CREATE POLICY {_in_format(name)} ON %1$s TO {_in_format(identifier(role))}"
        yield sql.fill(sql.POLICY, policy_text=literal(f"{policy} USING (true) WITH CHECK (true)"))


def _in_format(text: str) -> str:
    return text.replace("%", "%%")
