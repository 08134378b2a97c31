"""FastAPI: the embed as a dependency, grants at the endpoint, the security scheme in ``/docs``.

@app.get("/dashboards/{dashboard_id}")
def dashboard(
    dashboard_id: str,
    embed: Annotated[Embed, Depends(require_grant("dashboard", "dashboard_id", action="view"))],
): ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from toucan_guard.core.embed import Embed
from toucan_guard.layers.grant import check_grant, describe_grant, guarded_embed, object_id_of
from toucan_guard.receipts import checked_tables, require_receipts

__all__ = ["CurrentEmbed", "require_grant", "require_row_filter"]


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
    require_row_filter: Iterable[str] = (),
) -> Callable[..., Awaitable[Embed]]:
    """A dependency that refuses (403 ``grant_missing``) an embed without this grant.

    Args:
        type: The kind of object, as grants name it.
        id_param: The path parameter that holds the object's id.
        action: What is done to the object, as grants name it.
        id: The object's id, where the route serves just one; then without ``id_param``.
        require_row_filter: Tables that have to be filtered before the answer may leave; else 500.

    Returns:
        A dependency whose value is the ``Embed``.

    Raises:
        ValueError: Neither or both of ``id_param`` and ``id`` are given.
    """
    if (id_param is None) == (id is None):
        raise ValueError("require_grant takes either id_param or id")
    tables = checked_tables(require_row_filter)

    async def granted(connection: HTTPConnection, _scheme: Annotated[None, Security(_scheme)]) -> Embed:
        object_id = str(id) if id_param is None else object_id_of(connection.scope, id_param)
        embed = check_grant(connection.scope, type, object_id, action)
        require_receipts(connection.scope, tables)
        return embed

    granted.describes_grant = describe_grant(type, id_param, id, action)  # type: ignore[attr-defined]
    granted.grant_id_param = id_param  # type: ignore[attr-defined]
    granted.required_tables = tables  # type: ignore[attr-defined]
    return granted


def require_row_filter(*tables: str) -> Callable[..., Awaitable[Embed]]:
    """A dependency that holds the answer until each of these tables was filtered in the request.

    Where one was not, the answer is 500 ``row_filter_missing``: whatever it contains, it did not come from
    filtered rows alone.

    Args:
        tables: As the policy names them.

    Returns:
        A dependency whose value is the ``Embed``.

    Raises:
        ConfigError: A table is not a name.
    """
    required = checked_tables(tables)

    async def filtered(connection: HTTPConnection, _scheme: Annotated[None, Security(_scheme)]) -> Embed:
        embed = guarded_embed(connection.scope)
        require_receipts(connection.scope, required)
        return embed

    filtered.required_tables = required  # type: ignore[attr-defined]
    return filtered
