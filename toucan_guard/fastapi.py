"""FastAPI: the embed as a dependency, grants at the endpoint, the security scheme in ``/docs``.

@app.get("/dashboards/{dashboard_id}")
def dashboard(
    dashboard_id: str,
    embed: Annotated[Embed, Depends(require_grant("dashboard", "dashboard_id", action="view"))],
): ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from toucan_guard.core.embed import Embed
from toucan_guard.layers.grant import check_grant, describe_grant, guarded_embed, object_id_of

__all__ = ["CurrentEmbed", "require_grant"]


class _EmbedTokenScheme(HTTPBearer):
    """Shows the embed token in OpenAPI. It reads nothing: the guard in front has verified the token."""

    async def __call__(self, connection: HTTPConnection) -> None:
        return None


_scheme: Final = _EmbedTokenScheme(
    scheme_name="EmbedToken",
    bearerFormat="JWT",
    description="A short-lived embed token, signed by the host's own backend.",
    auto_error=False,
)


async def _current_embed(connection: HTTPConnection, _scheme: Annotated[None, Security(_scheme)]) -> Embed:
    return guarded_embed(connection.scope)


CurrentEmbed = Annotated[Embed, Depends(_current_embed)]


def require_grant(
    type: str,  # noqa: A002 - the claim's own name
    id_param: str | None = None,
    *,
    action: str,
    id: str | None = None,  # noqa: A002 - the claim's own name
) -> Callable[..., Awaitable[Embed]]:
    """A dependency that refuses (403 ``grant_missing``) an embed without this grant.

    Args:
        type: The kind of object, as grants name it.
        id_param: The path parameter that holds the object's id.
        action: What is done to the object, as grants name it.
        id: The object's id, where the route serves just one; then without ``id_param``.

    Returns:
        A dependency whose value is the ``Embed``.

    Raises:
        ValueError: Neither or both of ``id_param`` and ``id`` are given.
    """
    if (id_param is None) == (id is None):
        raise ValueError("require_grant takes either id_param or id")

    async def granted(connection: HTTPConnection, _scheme: Annotated[None, Security(_scheme)]) -> Embed:
        object_id = str(id) if id_param is None else object_id_of(connection.scope, id_param)
        return check_grant(connection.scope, type, object_id, action)

    granted.describes_grant = describe_grant(type, id_param, id, action)  # type: ignore[attr-defined]
    return granted
