"""What the layers have found about a token and what a request says, kept while neither changes.

A chart asks many times with one token, and its browser says the same each time. What the layers decide about that
depends on the configuration, the token and those headers alone, so it is kept beside the token's claims.

Kept is what every layer has let pass, and nothing else: a refusal is worked out each time. What may change by itself
is asked at every request all the same (``layers/admission.py``): the time, the keys, revocations, the path.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from starlette.types import Scope

from toucan_guard.asgi import Step, Trail
from toucan_guard.core.audit_event import AdmittedEvents
from toucan_guard.core.credentials import COOKIE_PREFIX
from toucan_guard.core.decisions import Allow
from toucan_guard.core.embed import Embed
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.token import EMBED, VerifiedClaims
from toucan_guard.headers import HeaderEdit
from toucan_guard.recorded import events_of

_LONGEST: Final = 1024  # bytes of headers; whoever says more is judged each time
# What layers note on a Trail, beside steps and edits; not the keys, which are asked each time.
_NOTED: Final = (
    "caller",
    "claims",
    "embedder",
    "narrowing",
    "opaque_caller",
    "origins",
    "own_page",
    "report_only_grants",
)
# With one of these another credential than one bearer token is in play, or has to be taken out.
_OTHERS: Final = (b"sec-websocket-protocol", b"x-api-key", b"x-embed-token")
_SESSION: Final = COOKIE_PREFIX.encode()

Said = tuple[object, ...]  # the method, what headers say, and what a trusted proxy says of us


class Admission(NamedTuple):
    """What the layers have found.

    Attributes:
        claims: The verified token.
        embed: What the app sees.
        noted: Attributes of the Trail.
        steps: What each layer decided: yes.
        edits: What is done to the headers of answers.
        row_filter: Which rows are open; None where row-level security is off.
        events: Writes the record of requests that were admitted alike.
    """

    claims: VerifiedClaims
    embed: Embed
    noted: dict[str, Any]
    steps: tuple[Step, ...]
    edits: tuple[HeaderEdit, ...]
    row_filter: RowFilter | None
    events: AdmittedEvents


def admission_of(scope: Scope, trail: Trail, edits_before: int) -> Admission | None:
    """What the layers have found about a request that stands in front of the app; None where it is not to be kept."""
    claims, embed, access, raw = trail.claims, trail.embed, trail.access, trail.raw
    if (
        claims is None
        or embed is None
        or claims.token_type != EMBED
        or not all(isinstance(step.decision, Allow) and step.enforced for step in trail.steps)
        or not raw.get(b"authorization", b"").startswith(b"Bearer ")
        or any(name in raw for name in _OTHERS)
        or _SESSION in raw.get(b"cookie", b"")
        or sum(map(len, filter(None, trail.said or ()))) > _LONGEST
    ):
        return None
    return Admission(
        claims,
        embed,
        {name: getattr(trail, name) for name in _NOTED},
        tuple(trail.steps),
        tuple(trail.edits[edits_before:]),
        None if access is None else access.row_filter,
        events_of(scope, trail),
    )
