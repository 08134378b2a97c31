"""The app behind ``test_audit_workers``: served by uvicorn, configured from the environment."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from toucan_guard import GuardSettings, ToucanGuard


async def chart(request: Any) -> PlainTextResponse:
    return PlainTextResponse(f"chart of {request.state.embed.subject}")


async def crash(request: Any) -> PlainTextResponse:
    raise RuntimeError("on purpose")


async def stream(request: Any) -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(3):
            yield b"part"

    return StreamingResponse(parts())


app = ToucanGuard(
    Starlette(routes=[Route("/charts/{id}", chart), Route("/crash", crash), Route("/stream", stream)]),
    settings=GuardSettings(),
)
