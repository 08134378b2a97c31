"""What ``bind`` asks the database, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from toucan_guard.core.errors import RowSecurityError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.postgres_policies import POLICIES

# What comes back instead of whose rows the database shows, where an earlier transaction has left a cursor open
# (DECLARE … WITH HOLD): its rows were read for whoever was bound then, and nothing filters them again.
HELD: Final = "held"

# The sub-queries run from the inside out: OFFSET 0 keeps PostgreSQL from merging them. What comes back is whose rows
# the database now shows.
BIND_NEW: Final = """
SELECT CASE WHEN is_holdable THEN 'held' ELSE toucan_guard.context() ->> '$embed' END FROM (
  SELECT set_config('toucan_guard.context', %(value)s, true) OFFSET 0
) AS bound LEFT JOIN pg_catalog.pg_cursor() ON is_holdable"""

# What is bound already is kept, unless it is this embed's, or not believed. This transaction may hold cursors of its
# own open.
BIND_AGAIN: Final = """
SELECT CASE WHEN is_holdable THEN 'held' ELSE toucan_guard.context() ->> '$embed' END FROM (
  SELECT set_config('toucan_guard.context', CASE
    WHEN before IS NULL OR before = %(embed)s THEN %(value)s
    ELSE current_setting('toucan_guard.context', true) END, true)
  FROM (SELECT toucan_guard.context() ->> '$embed' AS before OFFSET 0) AS earlier
  OFFSET 0
) AS bound LEFT JOIN pg_catalog.pg_cursor() ON is_holdable AND creation_time < transaction_timestamp()"""

# One row for the connection's roles, under the name of no table, and one for each table that is there. The role that
# logged in counts, not the one that was set: RESET ROLE leads back to it.
INSPECT: Final = r"""
WITH login AS (
  SELECT oid FROM pg_roles WHERE oid IN (
    (SELECT usesysid FROM pg_stat_get_activity(pg_backend_pid())),
    (SELECT oid FROM pg_roles WHERE rolname = session_user))
)
SELECT NULL AS name, true AS alone,
  NOT EXISTS (SELECT FROM login, pg_roles AS role
    WHERE pg_has_role(login.oid, role.oid, 'MEMBER') AND (role.rolsuper OR role.rolbypassrls)) AS closed,
  NOT EXISTS (SELECT FROM login, pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'toucan_guard') AND relname = 'context_key'
    AND pg_has_role(login.oid, relowner, 'MEMBER')) AS theirs
UNION ALL
SELECT named.name,
  bool_and(NOT EXISTS (SELECT FROM login, pg_policy, unnest(polroles) AS role
    WHERE polrelid = relation.oid AND polpermissive AND polname <> ALL (%(policies)s::name[])
    AND (role = 0 OR pg_has_role(login.oid, role, 'MEMBER')))),
  bool_and(relkind IN ('r', 'p') AND relrowsecurity AND relforcerowsecurity
    AND EXISTS (SELECT FROM pg_policy WHERE polrelid = relation.oid AND polname LIKE 'toucan\_guard\_%%')),
  bool_and(NOT EXISTS (SELECT FROM login WHERE pg_has_role(login.oid, relowner, 'MEMBER')))
FROM unnest(%(names)s::text[], %(schemas)s::text[], %(tables)s::text[]) AS named (name, schema_name, table_name)
JOIN pg_class AS relation ON relname = table_name AND relkind IN ('r', 'p', 'f', 'm')
JOIN pg_namespace ON pg_namespace.oid = relnamespace
  AND nspname = ANY (CASE WHEN schema_name = '' THEN current_schemas(false) ELSE ARRAY[schema_name::name] END)
GROUP BY named.name"""

# The first releases in which a role's statistics or cached plans do not show it rows behind a policy
# (CVE-2024-10976 and CVE-2025-8713).
_SAFE_MINOR: Final[Mapping[int, int]] = {15: 14, 16: 10, 17: 6}


def inspection_parameters(policy: RlsPolicy) -> dict[str, object]:
    """The parameters of ``INSPECT``: the policy's tables in three lists, and what our policies are called."""
    parts = [name.rpartition(".") for name in policy.tables]
    return {
        "names": list(policy.tables),
        "schemas": [schema for schema, _, _ in parts],
        "tables": [table for _, _, table in parts],
        "policies": list(POLICIES.values()),
    }


def protected_tables(rows: Iterable[Any]) -> frozenset[str]:
    """The policy's tables that this database has, all of them protected.

    Raises:
        RowSecurityError: The connection's role could go round a policy, or a table has none.
    """
    tables: set[str] = set()
    for name, alone, closed, theirs in rows:
        if name is None:
            if not closed:
                raise RowSecurityError(
                    "the connection's role is a superuser or can go round row-level security: connect as the app's role"
                )
            if not theirs:
                raise RowSecurityError("the connection's role can read the context keys: connect as the app's role")
            continue
        if not closed:
            raise RowSecurityError(f"the database has no policy for the table {name!r}: run toucan-guard rls-sql")
        if not theirs:
            raise RowSecurityError(f"the connection's role owns the table {name!r}: connect as the app's role")
        if not alone:
            raise RowSecurityError(f"another policy opens rows of the table {name!r} to the connection's role: drop it")
        tables.add(name)
    return frozenset(tables)


def server_warning(version: int) -> str:
    """What an old server does not keep to itself; empty for a good one. ``version`` as libpq gives it, 170005."""
    major, minor = divmod(version, 10_000)
    needed = _SAFE_MINOR.get(major)
    if major < min(_SAFE_MINOR) or (needed is not None and minor < needed):
        better = f"{major}.{needed}" if needed is not None else "a supported version"
        return (
            f"PostgreSQL {major}.{minor} can show a role rows behind its policies through statistics or cached plans "
            f"(CVE-2025-8713, CVE-2024-10976): update to {better}"
        )
    return ""
