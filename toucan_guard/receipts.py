"""Receipts: an answer that must come from filtered rows does not leave before they were filtered.

An adapter writes a receipt when it filters a table (``rls/context.py``). An endpoint says whose receipts
it wants (``require_row_filter=("flights",)``); until all of them are there, what it sends is held here.
A proof that a filter ran, whatever the code between the query and the answer does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from toucan_guard.asgi import Refused, deny
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError, GuardMissing
from toucan_guard.core.hints import did_you_mean
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.trail import Trail, existing_trail

_log: Final = logging.getLogger("toucan_guard")
_LARGEST_HELD_BYTES: Final = 1 << 20
_HARMLESS: Final = ("http.response.debug", "websocket.accept", "websocket.close")
_HINTS: Final = ("http.response.early_hint", "http.response.push")
# Clients read the detail, and what tables are called is none of their business.
_UNFILTERED: Final = Deny(Reason.ROW_FILTER_MISSING, "the answer did not come from the filtered tables that it must")
_NO_CONTENT: Final = (204, 304)  # RFC 9110 §15.3.5 and §15.4.5


def checked_tables(tables: object) -> frozenset[str]:
    """The tables that an endpoint names.

    Raises:
        ConfigError: It is one text, or contains something else than names.
    """
    names = frozenset(tables) if isinstance(tables, Iterable) and not isinstance(tables, str | bytes) else None
    if names is None or not all(isinstance(name, str) and name for name in names):
        raise ConfigError('require_row_filter takes a list of tables as the policy names them, such as ("flights",)')
    return names


def require_receipts(scope: Scope, tables: frozenset[str]) -> None:
    """Hold this connection's answer until each of these tables was filtered.

    Raises:
        GuardMissing: No row-level security stands in front, so that nobody could hold it.
        Refused: The policy does not name one of them, so that it never is: the log says so, with the mend.
    """
    if not tables:
        return
    trail = existing_trail(scope)
    if trail is None or trail.access is None:
        raise GuardMissing("this endpoint requires a row filter, but no row-level security stands in front of it")
    policy = trail.access.row_filter.policy
    if not tables <= policy.tables.keys():
        for table in sorted(tables - policy.tables.keys()):
            _log.error("%s %s", _route_of(scope), unknown_table(table, policy))
        trail.add("row_filter", _UNFILTERED)
        raise Refused(_UNFILTERED)
    trail.required_tables |= tables


def unknown_table(table: str, policy: RlsPolicy) -> str:
    """What to say of an endpoint that requires a row filter on a table which the policy does not name."""
    return (
        f"requires a row filter on the table {table!r}, which the policy does not name"
        f"{did_you_mean(table, policy.tables)}: write it as the policy does, or add its rules to "
        "TOUCAN_GUARD_RLS_POLICY or TOUCAN_GUARD_RLS_COLUMNS"
    )


class HeldResponse:
    """What the app sends, held until the receipts are there. One for each connection.

    Answers from 400 upward pass: an error says what went wrong, and is no chart. So do 204 and 304, which cannot
    have content, where they have none: nothing else that the app says then leaves. Hints that come before the
    receipts are dropped. What is held is at most 1 MiB; a stream that asks its first query later than that is refused
    like one that never does.
    """

    # Set where there is something to hold; a connection costs no more than what it sets.
    _open = False
    _over = False  # an answer went out that is not the app's, or that has no content: whatever it still says is dropped
    _held: tuple[Message, ...] = ()
    _bytes = 0

    def __init__(self, scope: Scope, receive: Receive, send: Send, trail: Trail) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._trail = trail

    async def send(self, message: Message) -> None:
        """Send a message on, or hold it, or refuse in place of what is held."""
        if self._open:
            return await self._send(message)
        if message["type"] == "http.response.start" and not self._trail.required_tables:
            await self._send(message)
            self._open = True  # nearly every answer: nobody has asked for receipts before it began
            return
        if self._over:
            return
        kind = message["type"]
        if kind in _HARMLESS:
            return await self._send(message)
        missing = self._missing()
        if kind in _HINTS:
            return None if missing else await self._send(message)
        answers_an_error = not self._held and message.get("status", 0) >= 400
        if not missing or answers_an_error:
            self._open = True
            return await self._release(message)
        if kind == "http.response.body" and message.get("more_body", False) and not message.get("body"):
            return None  # nothing to hold: a stream may say for hours that it still lives
        self._held = (*self._held, message)
        self._bytes += len(message.get("body", b""))
        begins = kind.endswith(".start")
        if (begins or message.get("more_body", False)) and self._bytes <= _LARGEST_HELD_BYTES:
            return
        self._over = True
        if self._has_no_content():
            return await self._release()
        self._held = ()
        await self._refuse(missing)

    async def _release(self, *more: Message) -> None:
        held, self._held = self._held, ()
        for message in (*held, *more):
            await self._send(message)

    def _has_no_content(self) -> bool:
        """Whether what is held is a whole answer that cannot carry content, and carries none."""
        start, *parts = self._held
        return (
            start["type"] == "http.response.start"
            and start["status"] in _NO_CONTENT
            and not self._bytes
            and all(part["type"] == "http.response.body" for part in parts)
        )

    def _missing(self) -> list[str]:
        required, access = self._trail.required_tables, self._trail.access
        if not required or access is None:
            return sorted(required)
        return sorted(required - access.receipts.keys())

    async def _refuse(self, missing: list[str]) -> None:
        access = self._trail.access
        rules = {} if access is None else access.row_filter.policy.tables
        unruled = [table for table in missing if table in rules and rules[table].rule is None]
        why = (
            f" ({', '.join(unruled)}: open to all, so that nothing but PostgreSQL's policies filters)"
            if unruled
            else ""
        )
        _log.error("%s: no query was filtered on %s%s", _route_of(self._scope), ", ".join(missing), why)
        self._trail.add("row_filter", _UNFILTERED)
        if self._scope["type"] == "http":
            await deny(self._scope, self._receive, self._send, _UNFILTERED)
        elif self._trail.audit is not None:
            raise Refused(_UNFILTERED)
        else:
            await self._send({"type": "websocket.close", "code": 1008, "reason": str(_UNFILTERED.reason)})


def _route_of(scope: Scope) -> str:
    """The route's template; a path may carry what nobody should find in a log."""
    return str(getattr(scope.get("route"), "path", "a route without a name"))
