"""What the layers have found about a kind of token and what a request says, kept while neither changes.

A chart asks many times, with one token or with one for each viewer, and browsers say the same each time. What the
layers decide about that depends on the configuration, on those headers, and on the little that they look at of a
token: its tenant, origins and region, and which row-level attributes it has. So it is kept by that, and the next token
of the kind is let in by it. What is the token's own is worked out for each: whether it is valid, its rows, its embed.

Kept is what every layer has let pass, and nothing else; for refusals see ``turned_away.py``. What may change by itself
is asked at every request all the same (``layers/admission.py``): the time, the keys, revocations, the path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cachetools import LRUCache
from starlette.types import Scope

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decision_line import DecisionLine
from toucan_guard.core.decisions import Allow, Deny
from toucan_guard.core.embed import Embed, make_embed
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.decision_facts import facts_of, line_of
from toucan_guard.headers import Header
from toucan_guard.trail import Trail
from toucan_guard.turned_away import Refusals, Verdict

_MOST: Final = 4  # kinds of requests that are kept for one token
_MOST_FINDINGS: Final = 1024
_MOST_KINDS: Final = 256  # of tokens, for requests that say the same
_MOST_ORIGINS: Final = 64  # of a kind; what a token with more says is kept beside its claims only, where it is counted
_MOST_ANSWERS: Final = 16  # of an app, told apart by the names of their headers
_LONGEST: Final = 512  # bytes of a method and of headers; whoever says more is judged each time

Said = tuple[object, ...]  # the method, what headers say, and what a trusted proxy says of us


class Sought(NamedTuple):
    """Noted on the Trail of a request about which nothing is known.

    Attributes:
        admissions: Keeps what is found about requests that are let in.
        refusals: Keeps how others are refused.
        said: What the request says.
        accept: What it wants to read.
        verdict: What is known of its token, if that is all that it brings.
    """

    admissions: Admissions
    refusals: Refusals
    said: Said
    accept: bytes | None
    verdict: Verdict

    def let_in(self, scope: Scope, trail: Trail) -> None:
        """See ``WantsFindings``."""
        self.admissions.keep(self.said, scope, trail)

    def refused(self, scope: Scope, trail: Trail) -> None:
        """See ``WantsFindings``."""
        self.refusals.keep(scope, trail, self.said, self.accept, self.verdict)


class Finding:
    """What the layers have found about a kind of token, and what its request says.

    Attributes:
        steps: What each layer decided: yes.
        line: Writes the record of requests that are admitted by it.
        embedder: See ``Embed``.
        usual_additions: What ``additions`` has found before about an answer's header names, where nobody has decided
            more; or None.
    """

    # No token's claims are among them.
    __slots__ = (
        "_additions",
        "_caller",
        "_edits",
        "_embedder",
        "_narrowing",
        "_opaque_caller",
        "_own_page",
        "_report_only_grants",
        "embedder",
        "line",
        "steps",
        "usual_additions",
    )

    def __init__(self, trail: Trail, embedder: str | None, line: DecisionLine) -> None:
        self.embedder = embedder
        self.line = line
        self.steps = trail.steps
        self._edits = trail.edits
        self._caller, self._embedder = trail.caller, trail.embedder
        self._opaque_caller, self._own_page = trail.opaque_caller, trail.own_page
        self._narrowing = trail.narrowing
        self._report_only_grants = trail.report_only_grants
        self._additions: dict[bytes, Sequence[Header]] = {}
        self.usual_additions: Final = self._additions.get

    def put_on(self, trail: Trail) -> None:
        """Note on the Trail of a request that says the same what the layers would note."""
        trail.steps = self.steps
        trail.edits = self._edits
        trail.caller, trail.embedder = self._caller, self._embedder
        trail.opaque_caller, trail.own_page = self._opaque_caller, self._own_page
        trail.narrowing = self._narrowing
        trail.report_only_grants = self._report_only_grants

    def additions(self, names: bytes, trail: Trail) -> Sequence[Header] | None:
        """What the layers add to an answer.

        Args:
            names: The answer's header names, one on each line.
            trail: Of the connection.

        Returns:
            Headers, or None where the answer's own must be looked at, or somebody has decided more.
        """
        if trail.edits is not self._edits or trail.narrowing is not self._narrowing or trail.refusal is not None:
            return None
        known = self._additions.get(names)
        if known is not None:
            return known
        added = trail.additions(names.lower().decode("latin-1"))
        if added is not None:
            if len(self._additions) >= _MOST_ANSWERS:
                self._additions.clear()
            self._additions[names] = tuple(added)
        return added


class Admission(NamedTuple):
    """What lets one token in.

    Attributes:
        found: What the layers have found about its kind.
        embed: What the app sees.
        identity: See ``Recorder.identity_of``.
    """

    found: Finding
    embed: Embed
    identity: str


Kinds = dict[object, Finding]


class Admissions:
    """What is known of the tokens and requests of one guard.

    Args:
        policy: The row-level policy; None where there is none.
        tenants_listed: Whether tenants have lists of their own, so that it matters which one a token names.
        identity_of: See ``Recorder``.
    """

    def __init__(
        self, *, policy: RlsPolicy | None, tenants_listed: bool, identity_of: Callable[[VerifiedClaims], str]
    ) -> None:
        self._policy = policy
        self._tenants_listed = tenants_listed
        # Counted by kinds. What was asked for least lately makes room: who says ever other things pushes out no others.
        self._findings: LRUCache[Said, Kinds] = LRUCache(_MOST_FINDINGS, getsizeof=len)
        self._identity_of = identity_of

    def kinds(self, said: Said) -> Kinds | None:
        """What was found about each kind of token that was let in with a request that said this, if one was."""
        try:
            return self._findings[said]
        except KeyError:  # half as dear as a look whether it is there
            return None

    def admission(self, claims: VerifiedClaims, said: Said, kinds: Kinds | None, *, again: bool) -> Admission | None:
        """What lets this token in with a request that says this; None where the layers have to be asked.

        Args:
            claims: What the token says.
            said: What the request says.
            kinds: What ``kinds`` has found about that, where it was asked.
            again: The token has been here before, so it may come once more: what comes once is not worth keeping.
        """
        kept = claims.derived.get(self)
        if isinstance(kept, dict):
            known: Admission | None = kept.get(said)
            if known is not None:
                return known
        kinds = kinds or self.kinds(said)
        if kinds is None:
            return None
        rows = self._rows_of(claims)
        found = None if isinstance(rows, Deny) else kinds.get(self._kind(claims, rows))
        if found is None or isinstance(rows, Deny):
            return None
        embed = make_embed(
            claims.subject,
            claims.tenant,
            claims.grants,
            rows,
            claims.issuer,
            claims.token_id,
            claims.expires_at,
            found.embedder,
        )
        admission = Admission(found, embed, self._identity_of(claims))
        if again:
            self._keep(claims, said, admission)
        return admission

    def keep(self, said: Said, scope: Scope, trail: Trail) -> None:
        """Keep what the layers have found about a request that stands in front of the app, if all have let it pass."""
        claims, embed = trail.claims, trail.embed
        if (
            claims is None
            or embed is None
            or not all(isinstance(step.decision, Allow) for step in trail.steps)
            or len(scope["method"]) + sum(map(len, filter(None, trail.said or ()))) > _LONGEST
        ):
            return
        line = line_of(scope, trail, facts_of(trail), None)
        if line is None:
            return
        found = Finding(trail, embed.embedder, line)
        if claims.origins is None or len(claims.origins) <= _MOST_ORIGINS:
            kinds = self._findings.get(said, {})
            self._findings[said] = {**(kinds if len(kinds) < _MOST_KINDS else {}), self._kind(claims, embed.rls): found}
        self._keep(claims, said, Admission(found, embed, self._identity_of(claims)))

    def _keep(self, claims: VerifiedClaims, said: Said, admission: Admission) -> None:
        kept = claims.derived.get(self)
        if not isinstance(kept, dict) or len(kept) >= _MOST:
            kept = claims.derived[self] = {}
        kept[said] = admission

    def _rows_of(self, claims: VerifiedClaims) -> RowFilter | Deny | None:
        if self._policy is None:
            return None
        return self._policy.row_filter(
            claims.rls, issuer=claims.issuer, tenant=claims.tenant, expires_at=claims.expires_at
        )

    def _kind(self, claims: VerifiedClaims, rows: RowFilter | None) -> object:
        """All that the layers look at of a token, but for what is its own."""
        return (
            claims.tenant if self._tenants_listed else None,
            claims.origins,
            claims.region,
            None if rows is None else rows.attribute_names,
        )


def keep(scope: Scope, trail: Trail) -> None:
    """Keep what the layers have found, where somebody wants it."""
    sought, trail.sought = trail.sought, None
    if sought is not None:
        sought.let_in(scope, trail)
