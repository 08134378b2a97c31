"""Work that outlives the request that began it, on asyncio and on trio.

Such work starts in an empty context: a request's context variables say on whose behalf it runs, and what many requests
share runs on nobody's. It ends by itself and soon, so that nobody has to wait for it at shutdown.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

_running: set[asyncio.Task[None]] = set()  # an event loop holds its tasks weakly


def on_trio() -> bool:
    """Whether the caller runs in a trio task; trio is not imported to find out."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task() is True


def spawn(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin work that nobody waits for; cancelling the caller does not cancel it. It must never raise."""
    if on_trio():
        sys.modules["trio"].lowlevel.spawn_system_task(work, context=Context())
        return
    task = asyncio.get_running_loop().create_task(work(), context=Context())
    _running.add(task)
    task.add_done_callback(_running.discard)


def after(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin work later, if the caller's event loop still runs then. It must never raise."""
    if not on_trio():
        asyncio.get_running_loop().call_later(seconds, spawn, work, context=Context())
        return
    trio = sys.modules["trio"]

    async def sleep_and_work() -> None:
        await trio.sleep(seconds)
        await work()

    trio.lowlevel.spawn_system_task(sleep_and_work, context=Context())
