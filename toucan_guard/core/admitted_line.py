"""The audit line of a connection that was let in like one before it: what is the same in all of them is encoded once.

What such a line says, and in which order, is ``decision_event``'s; what is filled in here is what differs from one
connection to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Final

from toucan_guard.core.audit_event import decision_event, identity_of, rendered_steps, timestamp, to_thousandths
from toucan_guard.core.audit_line import MAX_LINE_BYTES, dump_json
from toucan_guard.core.decisions import ALLOW, Decision
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.core.token import VerifiedClaims

# What a chain adds, and a count of dropped events. Longer lines are capped, which is the encoder of events' to do.
_MAX_BYTES: Final = MAX_LINE_BYTES - 512
_OPEN: Final = "\0"
_OPENED: Final = dump_json({"": _OPEN}).decode()[4:-1]
_PIECES: Final = 14
_STEPS: Final = 4
_IDENTITY: Final = ("key_id", "token_id", "subject", "tenant", "grants")  # stand behind the issuer


class AdmittedLine:
    """Writes the lines of connections that were admitted alike.

    Args:
        steps: What the layers decided: yes.
        kind: ``http`` or ``websocket``.
        method: The request's.

    See ``decision_event`` for the rest, and for what ``of`` is given.
    """

    __slots__ = ("_pieces",)

    def __init__(
        self,
        *,
        steps: Iterable[tuple[str, Decision, bool]],
        kind: str,
        method: str,
        origin: str | None,
        embedder: str | None,
        fetch_site: str | None,
        fetch_dest: str | None,
        rls_attributes: Sequence[str],
        policy_version: str | None,
    ) -> None:
        event = decision_event(
            now=0.0,
            event_id=_OPEN,
            request_id=_OPEN,
            trace_id=_OPEN,
            outcome="allow",
            reason=None,
            steps=steps,
            kind=kind,
            method=method,
            route=_OPEN,
            status=None,
            seconds_to_first_byte=0.0,
            origin=origin,
            embedder=embedder,
            fetch_site=fetch_site,
            fetch_dest=fetch_dest,
            claims=None,
            rls_attributes=rls_attributes,
            policy_version=policy_version,
            tables={},
            region=_OPEN,
            client=_OPEN,
            exempt=False,
            dropped=0,
        )
        event["steps"].append(_OPEN)
        for name in ("time", "status", "first_byte_ms", "issuer", "expires_in_seconds", "tables"):
            event[name] = _OPEN
        for name in _IDENTITY:
            del event[name]
        pieces = dump_json(event)[:-1].decode().split(_OPENED)
        # Without a step, or with a text that looks like an open place, all lines are left to the encoder of events.
        whole = len(pieces) == _PIECES and pieces[_STEPS].endswith(",")
        if whole:
            pieces[_STEPS] = pieces[_STEPS][:-1]
        self._pieces = tuple(pieces) if whole else ()

    def of(
        self,
        *,
        now: float,
        event_id: str,
        request_id: str,
        trace_id: str | None,
        more_layers: tuple[str, ...],
        route: str | None,
        status: int,
        seconds_to_first_byte: float,
        identity: str,
        expires_at: float,
        tables: Mapping[str, str],
        region: str | None,
        client: str | None,
        dropped: int,
    ) -> bytes | None:
        """The line of one connection, its newline included; None where it has to be encoded as an event.

        Args:
            more_layers: They said yes after the admission.
            identity: See ``identity_text``.
            expires_at: When the token ends.
        """
        pieces = self._pieces
        if not pieces or status.__class__ is not int:
            return None
        at, event, request, trace, steps, kind, answer, first, origin, ends, rules, place, asks, last = pieces
        line = (
            f'{at}"{timestamp(now)}"{event}"{event_id}"{request}"{request_id}"{trace}'
            f"{_text(trace_id)}{steps}{_steps(more_layers) if more_layers else ''}{kind}{_text(route)}{answer}{status}"
            f"{first}{to_thousandths(seconds_to_first_byte * 1000)}{origin}{identity}{ends}"
            f"{to_thousandths(expires_at - now)}"
            f"{rules}{_object(tuple(tables.items())) if tables else '{}'}{place}{_text(region)}{asks}"
            f"{'null' if client is None else encode_basestring_ascii(client)}{last}"
            f"{_dropped(dropped) if dropped else ''}}}\n"
        )
        return line.encode("ascii") if len(line) <= _MAX_BYTES else None


def identity_text(claims: VerifiedClaims, pseudonyms: Pseudonyms | None) -> str:
    """Who a token speaks for, as ``AdmittedLine.of`` is given it."""
    identity = dict(identity_of(claims))
    if pseudonyms is not None:
        pseudonyms.hide(identity)
    return dump_json(identity).decode()[len('{"issuer":') : -1]


@lru_cache(maxsize=1024)
def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


@lru_cache(maxsize=1024)
def _object(items: tuple[tuple[str, str], ...]) -> str:
    return dump_json(dict(items)).decode()


@lru_cache(maxsize=1024)
def _steps(layers: tuple[str, ...]) -> str:
    steps = rendered_steps((layer, ALLOW, True) for layer in layers)
    return "".join("," + dump_json(step).decode() for step in steps)


def _dropped(count: int) -> str:
    return f',"dropped":{count}'
