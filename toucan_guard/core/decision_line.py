"""The audit line of a decision, put together from parts of which most are the same each time and encoded once.

What such a line says, and in which order, is ``decision_event``'s. A test holds this line to it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from toucan_guard.core.audit_event import SCHEMA_VERSION, grant_text, rendered_steps, to_the_second
from toucan_guard.core.audit_line import MAX_LINE_BYTES, dump_json
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.grants import Grant
from toucan_guard.core.pseudonyms import Pseudonyms

# What a chain adds, and a count of dropped events. Longer lines are capped, which is the encoder of events' to do.
_MOST_BYTES: Final = MAX_LINE_BYTES - 512
_THOUSANDTHS: Final = [f"{rest:03d}" for rest in range(1000)]
_DECIMALS: Final = [digits.rstrip("0") or "0" for digits in _THOUSANDTHS]
_START: Final = f'{{"schema":{SCHEMA_VERSION},"event":"decision","time":"'


class DecisionLine:
    """Writes the lines of connections that were decided alike.

    Args:
        steps: What each layer decided, as ``step_text`` says it; one at least, where ``more_steps`` follow.
        exempt: Whether the path is not protected, which is told at the end.

    See ``decision_event`` for the rest, and for what ``of`` is given.
    """

    __slots__ = ("_came_from", "_decided", "_exempt", "_rules", "_to_route", "_was_asked")

    def __init__(
        self,
        *,
        outcome: str,
        reason: str | None,
        detail: str | None,
        steps: Sequence[tuple[str, str]],
        kind: str,
        method: str | None,
        origin: str | None,
        embedder: str | None,
        fetch_site: str | None,
        fetch_dest: str | None,
        rls_attributes: Sequence[str],
        policy_version: str | None,
        exempt: bool,
    ) -> None:
        decided = {"outcome": outcome, "reason": reason, "detail": detail, "steps": rendered_steps(steps)}
        came_from = {"origin": origin, "embedder": embedder, "fetch_site": fetch_site, "fetch_dest": fetch_dest}
        self._decided = _members(decided)[:-1]  # layers behind these may have more to say
        # With the punctuation and the names beside them: the fewer parts, the sooner they are put together.
        self._was_asked = f'],{_members({"kind": kind, "method": method})},"route":'
        self._to_route = self._decided + self._was_asked
        self._came_from = f",{_members(came_from)},"
        rules = {"rls_attributes": list(rls_attributes), "policy_version": policy_version}
        self._rules = f',{_members(rules)},"tables":'
        self._exempt = f",{_members({'exempt': exempt})}"

    def of(
        self,
        *,
        now: float,
        event_id: str,
        request_id: str,
        trace_id: str | None,
        more_steps: tuple[tuple[str, str], ...],
        route: str | None,
        status: int | None,
        seconds_to_first_byte: float,
        identity: str,
        expires_at: float | None,
        tables: Mapping[str, str],
        region: str | None,
        client: str | None,
        dropped: int,
    ) -> bytes | None:
        """The line of one connection, its newline included; None where it has to be encoded as an event.

        Args:
            event_id: In letters, digits, ``.``, ``_`` and ``-``, as ``request_id`` is.
            more_steps: What was decided behind the others, and changes nothing in the outcome.
            identity: See ``identity_text`` and ``nobody_text``.
            expires_at: When the token ends; None without one.
        """
        if status.__class__ is not int and status is not None:
            return None
        written = int(now * 1000)
        first_byte = int(seconds_to_first_byte * 1000 * 1000)
        left = 0 if expires_at is None else int((expires_at - now) * 1000)
        if first_byte < 0 or left < 0:
            return None  # in its last seconds a token has ended, and is let in by the leeway
        to_route = f"{self._decided}{_more(more_steps)}{self._was_asked}" if more_steps else self._to_route
        line = (
            f'{_START}{to_the_second(written // 1000)}.{_THOUSANDTHS[written % 1000]}Z",'
            f'"event_id":"{event_id}","request_id":"{request_id}","trace_id":'
            f"{'null' if trace_id is None else encode_basestring_ascii(trace_id)},"
            f"{to_route}{'null' if route is None else _text(route)},"
            f'"status":{"null" if status is None else status},"first_byte_ms":'
            # Written like this, a number of thousandths costs a third of a float.
            f"{first_byte // 1000}.{_DECIMALS[first_byte % 1000]}{self._came_from}{identity},"
            f'"expires_in_seconds":{"null" if expires_at is None else f"{left // 1000}.{_DECIMALS[left % 1000]}"}'
            f'{self._rules}{_object(tuple(tables.items())) if tables else "{}"},"region":'
            f"{'null' if region is None else _text(region)},"
            f'"client":{"null" if client is None else encode_basestring_ascii(client)}{self._exempt}'
            f"{_dropped(dropped) if dropped else ''}}}\n"
        )
        return line.encode("ascii") if len(line) <= _MOST_BYTES else None


def identity_text(claims: VerifiedClaims, pseudonyms: Pseudonyms | None) -> str:
    """Who a token speaks for, as ``DecisionLine.of`` is given it."""
    subject, token_id = claims.subject, claims.token_id
    if pseudonyms is not None:
        subject, token_id = pseudonyms.of("subject", subject), pseudonyms.of("token_id", token_id)
    tenant = "null" if claims.tenant is None else encode_basestring_ascii(claims.tenant)
    return (
        f'{_signer(claims.issuer, claims.key_id)},"token_id":{encode_basestring_ascii(token_id)},'
        f'"subject":{encode_basestring_ascii(subject)},"tenant":{tenant},"grants":{_grants(claims.grants)}'
    )


@lru_cache(maxsize=256)
def nobody_text(key_id: str | None) -> str:
    """That nobody is known, or only the API key that was named."""
    return _members({"issuer": None, "key_id": key_id, "token_id": None, "subject": None, "tenant": None, "grants": []})


def _members(part: Mapping[str, Any]) -> str:
    return dump_json(part).decode()[1:-1]


@lru_cache(maxsize=1024)
def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


@lru_cache(maxsize=256)
def _signer(issuer: str, key_id: str | None) -> str:
    return _members({"issuer": issuer, "key_id": key_id})


@lru_cache(maxsize=1024)
def _object(items: tuple[tuple[str, str], ...]) -> str:
    return dump_json(dict(items)).decode()


@lru_cache(maxsize=1024)
def _grants(grants: tuple[Grant, ...]) -> str:
    return dump_json({"": list(map(grant_text, grants))}).decode()[len('{"":') : -1]


@lru_cache(maxsize=1024)
def _more(steps: tuple[tuple[str, str], ...]) -> str:
    return "".join("," + dump_json(step).decode() for step in rendered_steps(steps))


def _dropped(count: int) -> str:
    return f',"dropped":{count}'
