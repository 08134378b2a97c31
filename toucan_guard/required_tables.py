"""Before the first request: does the policy know every table that an endpoint must have filtered?

``require_row_filter`` names tables (``receipts.py``). No query is ever filtered on one that the policy does not name,
so such an endpoint could answer nobody: a mistake that should stop the start. What no route tells by then, because it
is added later, or because an endpoint names its tables as it goes, is refused when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from starlette.middleware import Middleware

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.endpoints import Endpoint, endpoints
from toucan_guard.layers import EmbedTokenMiddleware, RowLevelSecurityMiddleware
from toucan_guard.receipts import unknown_table
from toucan_guard.settings import GuardSettings
from toucan_guard.templates import shown

_NOBODY_SAYS: Final = object()


def check_required_tables(*apps: Any) -> None:
    """Look at every endpoint below these apps that stands behind a guard.

    Raises:
        ConfigError: Endpoints require what no request can bring: each with its path, the table and the mend.
    """
    found = (f"{at.path} {problem}" for app in apps for at in endpoints(app) for problem in table_problems(at))
    problems = tuple(dict.fromkeys(found))
    if problems:
        raise ConfigError(problems)


def table_problems(endpoint: Endpoint) -> Iterator[str]:
    """Why the row filters that an endpoint requires can never have run; nothing where that cannot be told."""
    layers = tuple(passed.layer for passed in endpoint.passed)
    said = (shown(asking, "required_tables") for asking in (*layers, *endpoint.dependencies()))
    required = frozenset[str]().union(
        *(tables for tables in said if isinstance(tables, frozenset)),
        *map(_declared, layers),
    )
    policy = _policy_of(layers)
    if required and policy is None:
        yield (
            f"requires a row filter on {', '.join(sorted(required))}, but no row-level security stands in front of it: "
            "give the guard a policy (TOUCAN_GUARD_INSECURE_NO_RLS switches it off), or require nothing"
        )
    if isinstance(policy, RlsPolicy):
        yield from (unknown_table(table, policy) for table in sorted(required - policy.tables.keys()))


def _policy_of(layers: Iterable[Any]) -> object:
    """The innermost policy, which judges an endpoint's rows; None behind a guard that has none."""
    policy: object = _NOBODY_SAYS  # no guard is to be seen: it may stand around all of this
    for layer in layers:
        if isinstance(layer, RowLevelSecurityMiddleware):
            policy = layer.policy
        elif isinstance(layer, EmbedTokenMiddleware) and policy is _NOBODY_SAYS:
            policy = None
        elif isinstance(layer, Middleware):
            kind: Any = layer.cls
            if isinstance(settings := layer.kwargs.get("settings"), GuardSettings):
                policy = settings.policy or (None if policy is _NOBODY_SAYS else policy)
            elif kind is RowLevelSecurityMiddleware:
                policy = layer.kwargs.get("policy", _NOBODY_SAYS)
    return policy


def _declared(layer: Any) -> Iterable[str]:
    """The tables that a layer requires which is not made yet; what is no list of names fails when it is."""
    tables = layer.kwargs.get("require_row_filter") if isinstance(layer, Middleware) else None
    if isinstance(tables, list | tuple | set | frozenset):
        return [name for name in tables if isinstance(name, str)]
    return ()
