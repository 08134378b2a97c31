"""What the layers have found about a token and what a request says, kept while neither changes.

A chart asks many times with one token, and its browser says the same each time. What the layers decide about that
depends on the configuration, the token and those headers alone, so it is kept beside the token's claims.

Kept is what every layer has let pass, and nothing else: a refusal is worked out each time. What may change by itself
is asked at every request all the same (``layers/admission.py``): the time, the keys, revocations, the path.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from toucan_guard.asgi import Trail
from toucan_guard.core.audit_event import AdmittedEvents
from toucan_guard.core.credentials import COOKIE_PREFIX
from toucan_guard.core.decisions import Allow
from toucan_guard.core.embed import Embed
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.token import EMBED, VerifiedClaims
from toucan_guard.recorded import events_of

_LONGEST: Final = 1024  # bytes of headers; whoever says more is judged each time
# With one of these another credential than one bearer token is in play, or has to be taken out.
_OTHERS: Final = (b"sec-websocket-protocol", b"x-api-key", b"x-embed-token")
_SESSION: Final = COOKIE_PREFIX.encode()

Said = tuple[object, ...]  # the method, what headers say, and what a trusted proxy says of us


class Admission:
    """What the layers have found.

    Attributes:
        claims: The verified token.
        embed: What the app sees.
        steps: What each layer decided: yes.
        row_filter: Which rows are open; None where row-level security is off.
        events: Writes the record of requests that were admitted alike.
    """

    __slots__ = (
        "_caller",
        "_edits",
        "_embedder",
        "_narrowing",
        "_opaque_caller",
        "_origins",
        "_own_page",
        "_report_only_grants",
        "claims",
        "embed",
        "events",
        "row_filter",
        "steps",
    )

    def __init__(
        self, trail: Trail, claims: VerifiedClaims, embed: Embed, edits_before: int, events: AdmittedEvents
    ) -> None:
        self.claims = claims
        self.embed = embed
        self.events = events
        self.row_filter: RowFilter | None = None if trail.access is None else trail.access.row_filter
        self.steps = tuple(trail.steps)
        self._edits = tuple(trail.edits[edits_before:])
        self._origins = trail.origins
        self._caller, self._embedder = trail.caller, trail.embedder
        self._opaque_caller, self._own_page = trail.opaque_caller, trail.own_page
        self._narrowing = trail.narrowing
        self._report_only_grants = trail.report_only_grants

    def put_on(self, trail: Trail) -> None:
        """Note on the Trail of a request that says the same what the layers would note; its embed and rows apart."""
        trail.admission = self
        trail.claims = self.claims
        trail.steps += self.steps
        trail.edits += self._edits
        trail.origins = self._origins
        trail.caller, trail.embedder = self._caller, self._embedder
        trail.opaque_caller, trail.own_page = self._opaque_caller, self._own_page
        trail.narrowing = self._narrowing
        trail.report_only_grants = self._report_only_grants


def admission_of(scope: Scope, trail: Trail, edits_before: int) -> Admission | None:
    """What the layers have found about a request that stands in front of the app; None where it is not to be kept."""
    claims, embed, raw = trail.claims, trail.embed, trail.raw
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
    return Admission(trail, claims, embed, edits_before, events_of(scope, trail))
