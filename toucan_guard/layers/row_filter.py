"""RowFilter: an answer that must come from filtered rows. Rules in ``receipts.py``; for FastAPI see ``fastapi.py``."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Refused, deny
from toucan_guard.receipts import checked_tables, require_receipts


class RowFilterMiddleware:
    """Holds a route's answer until each of these tables was filtered in its request; else 500.

    Stands on a route: ``Route("/charts/delays", …, middleware=[Middleware(RowFilterMiddleware,
    require_row_filter=("flights",))])``.

    Args:
        app: The route's endpoint.
        require_row_filter: Tables, as the policy names them.
    """

    def __init__(self, app: ASGIApp, *, require_row_filter: Iterable[str]) -> None:
        self.app = app
        self.required_tables = checked_tables(require_row_filter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in GUARDED_SCOPES:
            try:
                require_receipts(scope, self.required_tables)
            except Refused as refused:
                return await deny(scope, receive, send, refused.decision)
        await self.app(scope, receive, send)
