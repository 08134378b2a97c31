"""From what was counted to the report: a plain value that every renderer reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from toucan_guard.audit.report.figures import (
    Integrity,
    Key,
    Listing,
    LongToken,
    NewSite,
    Report,
    Row,
    Scope,
    SealFinding,
    Source,
    Stranger,
    StrangerKind,
    Totals,
    Traveller,
)
from toucan_guard.audit.report.gather import LIFETIMES, Gatherer, KeyName, ScopeName, actions_of, opens_every_object
from toucan_guard.audit.report.hours import moment_of, text_of_moment
from toucan_guard.audit.report.notices import notices_of
from toucan_guard.audit.report.tallies import Seen, Tally
from toucan_guard.audit.verdict import UNPROVED, Verdict

FEWEST_REFUSALS: Final = 5  # so many refusals, and nothing else, are worth a word
FEWEST_REFUSALS_OF_A_CLIENT: Final = 20  # a page that was left open asks in vain for a while
NEW_DAYS: Final = 7  # without --since, whoever came in the last week and was never seen before is new

_UNSEALED: Final = Integrity(
    state="unsealed",
    with_key=False,
    keyed=False,
    lines=0,
    chains=0,
    unknown_lines=0,
    unknown_chains=0,
    open_ended=0,
    findings=(),
    more=0,
)

_MOST_ROWS: Final = 200
_MOST_SCOPES: Final = 50
_MOST_TOKENS: Final = 20
_MOST_SEALS: Final = 50


def finish(gathered: Gatherer, verdict: Verdict | None, *, made: datetime) -> Report:
    """Put the report together.

    Args:
        gathered: What was counted.
        verdict: What the check of the chains says; None where it was not made.
        made: Now.
    """
    some = bool(gathered.period.last)
    # What lies before the record's beginning is no time in which nothing happened.
    begins, ends = max(gathered.since or "", gathered.span.first), gathered.period.last
    unit, timeline = gathered.hours.timeline(begins, ends) if some else ("day", ())
    known_since = _known_since(gathered)
    report = Report(
        made=text_of_moment(made),
        since=gathered.since,
        begins=begins if some else None,
        ends=ends if some else None,
        newest=gathered.span.last or None,
        known_since=known_since,
        source=Source(
            files=gathered.files,
            lines=gathered.lines,
            before=gathered.before,
            bad=gathered.bad,
            bad_lines=tuple(gathered.bad_lines),
            misdated=gathered.misdated,
            unread=tuple(gathered.unread),
        ),
        totals=Totals(**gathered.numbers),
        unit=unit,
        timeline=timeline,
        reasons=_listing(gathered.reasons),
        sites=_listing(gathered.sites, by_refused=True),
        scopes=tuple(_scope(name, seen) for name, seen in islice(gathered.scopes.ranked(), _MOST_SCOPES) if seen.count),
        widest=tuple(_scope(name, seen) for name, _, seen in gathered.widest.ranked()[:_MOST_SCOPES]),
        scopes_known=len(gathered.scopes),
        scopes_overflowed=gathered.scopes.overflowed,
        unlimited=gathered.unlimited,
        long_tokens=tuple(
            LongToken(token, round(left, 3), *value)
            for token, left, value in gathered.long_tokens.ranked()[:_MOST_TOKENS]
        ),
        lifetimes=tuple(zip(LIFETIMES, gathered.lifetimes, strict=True)),
        keys=_keys(gathered),
        keys_overflowed=gathered.keys.overflowed,
        tenants=_listing(gathered.tenants),
        regions=_listing(gathered.regions),
        tables=_listing(gathered.tables),
        report_only=_listing(gathered.report_only),
        bursts=gathered.hours.bursts(begins, ends) if some else (),
        new_sites=_new_sites(gathered, known_since),
        strangers=_strangers(gathered),
        travellers=tuple(
            Traveller(subject, tenant, tuple(known.sites), known.last)
            for (subject, tenant), known in sorted(
                gathered.people.travellers.items(), key=lambda item: (-len(item[1].sites), str(item[0]))
            )[:_MOST_ROWS]
        ),
        people_overflowed=gathered.people.overflowed,
        integrity=_integrity(verdict, claimed=gathered.sealed),
    )
    return replace(report, notices=notices_of(report))


def _known_since(gathered: Gatherer) -> str | None:
    """From when on a site is new; None where too little came before it to compare with."""
    if gathered.since is not None:
        return gathered.since if gathered.span.first < gathered.since else None
    if not gathered.span.last:
        return None
    start = moment_of(gathered.span.last) - timedelta(days=NEW_DAYS)
    return text_of_moment(start) if moment_of(gathered.span.first) <= start - timedelta(days=NEW_DAYS) else None


def _listing(tally: Tally[str], *, by_refused: bool = False) -> Listing:
    counted = [(name, seen) for name, seen in tally.ranked() if seen.count]
    if by_refused:
        counted.sort(key=lambda item: -item[1].refused)  # stable: by count among equals
    return Listing(
        rows=tuple(_row(name, seen) for name, seen in counted[:_MOST_ROWS]),
        names=len(counted),
        total=tally.total,
        overflowed=tally.overflowed,
    )


def _notes(seen: Seen) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(seen.notes.items(), key=lambda note: (-note[1], note[0])))


def _row(name: str, seen: Seen) -> Row:
    return Row(
        name=name,
        count=seen.count,
        at_most=seen.count + seen.missing,
        let_in=seen.let_in,
        refused=seen.refused,
        failed=seen.failed,
        first=seen.first,
        last=seen.last,
        notes=_notes(seen),
        unnoted=seen.unnoted,
    )


def _scope(name: ScopeName, seen: Seen) -> Scope:
    grants, attributes = name
    return Scope(
        grants=grants,
        rls_attributes=attributes,
        count=seen.count,
        at_most=seen.count + seen.missing,
        tenants=_names(seen),
        last=seen.last,
        objects_of_a_type=sum(map(opens_every_object, grants)),
        actions=actions_of(grants),
    )


def _names(seen: Seen) -> tuple[str, ...]:
    return tuple(sorted(seen.notes, key=lambda name: (-seen.notes[name], name))) + (("…",) if seen.unnoted else ())


def _keys(gathered: Gatherer) -> tuple[Key, ...]:
    def key(name: KeyName, seen: Seen) -> Key:
        return Key(
            key_id=name[0],
            issuer=name[1],
            api_key=name in gathered.issued,
            used=seen.count,
            let_in=seen.let_in,
            refused=seen.refused,
            failed=seen.failed,
            issued=gathered.issued.get(name, 0),
            last=seen.last,
            unused_days=(moment_of(gathered.span.last) - moment_of(seen.last)).days,
            tenants=_names(seen),
        )

    keys = [key(name, seen) for name, seen in gathered.keys.ranked()]
    return tuple(sorted(keys, key=lambda key: (-key.unused_days, -key.used - key.issued, key.key_id))[:_MOST_ROWS])


def _new_sites(gathered: Gatherer, known_since: str | None) -> tuple[NewSite, ...]:
    if known_since is None:
        return ()
    return tuple(
        NewSite(site, seen.first, seen.count, seen.refused)
        for site, seen in gathered.sites.ranked()
        # A site that may have been let go for want of room may be an old one.
        if seen.count and seen.first >= known_since and not seen.missing
    )[:_MOST_ROWS]


def _strangers(gathered: Gatherer) -> tuple[Stranger, ...]:
    """Whoever was refused every time. A name that may have been let go for want of room may have been let in before."""
    found: list[Stranger] = []
    kinds: tuple[tuple[StrangerKind, Tally[str], int], ...] = (
        ("site", gathered.sites, FEWEST_REFUSALS),
        ("customer", gathered.tenants, FEWEST_REFUSALS),
        ("client", gathered.clients, FEWEST_REFUSALS_OF_A_CLIENT),
    )
    for kind, tally, fewest in kinds:
        refused = [
            Stranger(kind, name, seen.count, seen.first, seen.last, _notes(seen))
            for name, seen in tally.ranked()
            if seen.count == seen.refused >= fewest and not seen.missing
        ]
        found += refused[:_MOST_ROWS]
    return tuple(found)


def _integrity(verdict: Verdict | None, *, claimed: int) -> Integrity:
    if verdict is None or not (verdict.lines or claimed):
        return _UNSEALED
    # Evidence of tampering first, then what is not proved; within both, in the order of places.
    findings = sorted(verdict.findings, key=lambda finding: (not finding.tampering, finding.kind not in UNPROVED))
    told = [
        SealFinding(
            place=f"{finding.file}:{finding.number}" if finding.number else finding.file,
            kind=finding.kind,
            tampering=finding.tampering,
            sentence=finding.sentence,
        )
        for finding in findings
    ]
    checked = verdict.lines > 0 and not verdict.unproved
    unknown = [chain.lines for chain in verdict.chains if not chain.checked]
    return Integrity(
        state="tampered" if verdict.tampered else "intact" if checked else "unchecked",
        with_key=verdict.with_key,
        keyed=all(chain.keyed for chain in verdict.chains),
        lines=verdict.lines,
        chains=len(verdict.chains),
        unknown_lines=sum(unknown),
        unknown_chains=len(unknown),
        open_ended=sum(not chain.closed for chain in verdict.chains),
        findings=tuple(told[:_MOST_SEALS]),
        more=verdict.more + max(0, len(told) - _MOST_SEALS),
    )
