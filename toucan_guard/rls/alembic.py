"""PostgreSQL's policies as an operation of an Alembic migration.

    from alembic import op
    from toucan_guard.core.rls_policy import RlsPolicy
    from toucan_guard.rls.alembic import apply_policy

    def upgrade():
        apply_policy(op, RlsPolicy.from_toml(Path("policy-7.toml").read_text()))

A migration says what was true on its day: give it a copy of the policy that does not change any more, or the plain
file that ``toucan-guard rls-sql`` prints. ``alembic upgrade --sql`` writes the statements out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import TextClause, text

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.postgres_context import Pooler
from toucan_guard.rls.postgres_policies import APP_ROLE, policy_statements


class _Operations(Protocol):
    def execute(self, sqltext: Any, /) -> None: ...


def apply_policy(
    operations: _Operations,
    policy: RlsPolicy,
    *,
    schema: str = "public",
    app_role: str = APP_ROLE,
    pooler: Pooler = "none",
    full_access_roles: Sequence[str] = (),
    keep_temp: bool = False,
) -> None:
    """Run ``policy_statements`` in the migration's own transaction.

    Args:
        operations: ``alembic.op``, or anything else that executes SQLAlchemy's text.
        policy: The rules; the other arguments as for ``policy_statements``.

    Raises:
        ConfigError: A name that PostgreSQL cannot hold, or an unknown pooler.
    """
    for statement in policy_statements(
        policy,
        schema=schema,
        app_role=app_role,
        pooler=pooler,
        full_access_roles=full_access_roles,
        keep_temp=keep_temp,
    ):
        operations.execute(_verbatim(statement))


def _verbatim(statement: str) -> TextClause:
    """Text without parameters, whatever colons are in it."""
    return text(statement.replace(":", r"\:"))
