"""Grant: does this token reach this object? Rules in ``core/grants.py``; for FastAPI see ``fastapi.py``."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Refused, deny
from toucan_guard.core.decisions import Decision, Deny
from toucan_guard.core.embed import Embed
from toucan_guard.core.errors import ConfigError, GuardMissing
from toucan_guard.core.grants import reaches
from toucan_guard.receipts import checked_tables, require_receipts
from toucan_guard.trail import existing_trail, trail_of


class GrantMiddleware:
    """Requires a grant on the object that a route's path names.

    Stands on a route: ``Route("/dashboards/{id}", …, middleware=[Middleware(GrantMiddleware, type="dashboard",
    id_param="id", action="view")])``.

    Args:
        app: The route's endpoint.
        type: The kind of object, as grants name it.
        action: What is done to it, as grants name it.
        id_param: The path parameter that holds the object's id …
        id: … or the one object that this route serves.
        require_row_filter: Tables that have to be filtered before the answer may leave; else 500.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        type: str,  # noqa: A002 - the claim's own name
        action: str,
        id_param: str | None = None,
        id: str | None = None,  # noqa: A002 - the claim's own name
        require_row_filter: Iterable[str] = (),
    ) -> None:
        if (id_param is None) == (id is None):
            raise ConfigError("GrantMiddleware takes either id_param or id")
        self.app = app
        self.describes = describe_grant(type, id_param, id, action)
        self.id_param = id_param
        self._type = type
        self._action = action
        self._id = id
        self.required_tables = checked_tables(require_row_filter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        object_id = self._id if self.id_param is None else object_id_of(scope, self.id_param)
        try:
            check_grant(scope, self._type, str(object_id), self._action)
            require_receipts(scope, self.required_tables)
        except Refused as refused:
            return await deny(scope, receive, send, refused.decision)
        await self.app(scope, receive, send)


def describe_grant(object_type: str, id_param: str | None, object_id: str | None, action: str) -> str:
    """A required grant on one line, for the inventory of routes: ``dashboard:{dashboard_id}:view``."""
    return f"{object_type}:{f'{{{id_param}}}' if id_param is not None else object_id}:{action}"


def object_id_of(scope: Scope, id_param: str) -> str:
    """The object's id from the path, and from nowhere else: a query or a body never decides what is asked for."""
    try:
        return str(scope.get("path_params", {})[id_param])
    except KeyError:
        raise GuardMissing(f"the route has no path parameter {id_param!r} that a grant could be asked for") from None


def check_grant(scope: Scope, object_type: str, object_id: str, action: str) -> Embed:
    """The embed, where it holds the grant; else ``Refused``. Without a guard in front: ``GuardMissing``."""
    embed = guarded_embed(scope)
    decision: Decision = reaches(embed.grants, object_type, object_id, action)
    trail = trail_of(scope)
    trail.add("grant", decision, report_only=trail.report_only_grants)
    if isinstance(decision, Deny) and not trail.report_only_grants:
        raise Refused(decision)
    return embed


def guarded_embed(scope: Scope) -> Embed:
    """The embed that the guard verified; ``GuardMissing`` where no guard stands in front, or the path is exempt."""
    trail = existing_trail(scope)
    if trail is None or trail.embed is None:
        why = "its path is exempt from the guard" if trail is not None and trail.exempt else "no guard stands in front"
        raise GuardMissing(f"this endpoint asks for the embed, but {why}: mount ToucanGuard around it")
    return trail.embed
