"""What the layers have found about a token and what a request says, kept while neither changes.

A chart asks many times with one token, and its browser says the same each time. What the layers decide about that
depends on the configuration, the token and those headers alone, so it is kept beside the token's claims.

Kept is what every layer has let pass, and nothing else: a refusal is worked out each time. What may change by itself
is asked at every request all the same (``layers/admission.py``): the time, the keys, revocations, the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.types import Scope

from toucan_guard.core.decision_line import DecisionLine
from toucan_guard.core.decisions import Allow
from toucan_guard.core.embed import Embed
from toucan_guard.core.token import VerifiedClaims
from toucan_guard.headers import Header
from toucan_guard.recorder import facts_of, line_of
from toucan_guard.trail import Trail

_MOST: Final = 4  # kinds of requests that are kept for one token
_LONGEST: Final = 512  # bytes of a method and of headers; whoever says more is judged each time

Said = tuple[object, ...]  # the method, what headers say, and what a trusted proxy says of us


class Sought(NamedTuple):
    """Noted on the Trail of a request whose token is known and what it says is not.

    Attributes:
        owner: Who wants to keep what is found, and finds it under this.
        said: What the request says.
    """

    owner: object
    said: Said


class Admission:
    """What the layers have found.

    Attributes:
        embed: What the app sees.
        steps: What each layer decided: yes.
        line: Writes the record of requests that were admitted alike.
    """

    # Its claims are not among them: what is kept beside them would hold them.
    __slots__ = (
        "_added",
        "_caller",
        "_edits",
        "_embedder",
        "_names",
        "_narrowing",
        "_opaque_caller",
        "_own_page",
        "_report_only_grants",
        "embed",
        "line",
        "steps",
    )

    def __init__(self, trail: Trail, embed: Embed, line: DecisionLine) -> None:
        self.embed = embed
        self.line = line
        self.steps = trail.steps
        self._edits = trail.edits
        self._caller, self._embedder = trail.caller, trail.embedder
        self._opaque_caller, self._own_page = trail.opaque_caller, trail.own_page
        self._narrowing = trail.narrowing
        self._report_only_grants = trail.report_only_grants
        self._names: bytes | None = None
        self._added: Sequence[Header] = ()

    def put_on(self, trail: Trail, claims: VerifiedClaims) -> None:
        """Note on the Trail of a request that says the same what the layers would note; its rows apart."""
        trail.claims = claims
        trail.admission = self
        trail.steps = self.steps
        trail.edits = self._edits
        trail.caller, trail.embedder = self._caller, self._embedder
        trail.opaque_caller, trail.own_page = self._opaque_caller, self._own_page
        trail.narrowing = self._narrowing
        trail.report_only_grants = self._report_only_grants

    def additions(self, names: bytes, trail: Trail) -> Sequence[Header] | None:
        """What the layers add to an answer, kept from the last one with the same headers.

        Args:
            names: The answer's header names, one on each line.
            trail: Of the connection.

        Returns:
            Headers, or None where the answer's own must be looked at, or somebody has decided more.
        """
        if trail.edits is not self._edits or trail.narrowing is not self._narrowing or trail.refusal is not None:
            return None
        if names == self._names:
            return self._added
        added = trail.additions(names.lower().decode("latin-1"))
        if added is not None:
            self._names, self._added = names, tuple(added)
        return added


def keep(scope: Scope, trail: Trail) -> None:
    """Keep what the layers have found about a request that stands in front of the app, where somebody wants it."""
    sought, trail.sought = trail.sought, None
    claims, embed = trail.claims, trail.embed
    if (
        sought is None
        or claims is None
        or embed is None
        or not all(isinstance(step.decision, Allow) for step in trail.steps)
        or len(scope["method"]) + sum(map(len, filter(None, trail.said or ()))) > _LONGEST
    ):
        return
    kept = claims.derived.get(sought.owner)
    if not isinstance(kept, dict) or len(kept) >= _MOST:
        kept = claims.derived[sought.owner] = {}
    line = line_of(scope, trail, facts_of(trail), None)
    if line is not None:
        kept[sought.said] = Admission(trail, embed, line)
