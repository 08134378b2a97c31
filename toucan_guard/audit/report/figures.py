"""The report as a plain value: what both renderers read, and what ``--json`` prints.

Everything in it is text, a number or a tuple of these; names are as they stand in the record, unescaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["act", "look"]
StrangerKind = Literal["site", "customer", "client"]
Unit = Literal["minute", "hour", "day", "week", "month"]


@dataclass(frozen=True, slots=True)
class Row:
    """One name of a list.

    Attributes:
        name: As the record has it.
        count: How often it was certainly seen in the period.
        at_most: How often it may have been seen, where the list was too long to keep whole; else ``count``.
        let_in: How many of ``count`` were let in.
        refused: How many of ``count`` were refusals.
        failed: How many of ``count`` were neither.
        first: When it was first seen, RFC 3339 in UTC; before the period too.
        last: When it was last seen.
        notes: What it was seen with, the most frequent first, and how often.
        unnoted: How often it was seen with something that is not in ``notes``.
    """

    name: str
    count: int
    at_most: int
    let_in: int
    refused: int
    failed: int
    first: str
    last: str
    notes: tuple[tuple[str, int], ...]
    unnoted: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Names with what was counted of each, the most frequent first.

    Attributes:
        rows: The first of them.
        names: How many names there were; at least so many where ``overflowed``.
        total: Everything that was counted, under any name.
        overflowed: There were more names than could be kept: those with the least are counted together.
    """

    rows: tuple[Row, ...]
    names: int
    total: int
    overflowed: bool

    @property
    def others(self) -> int:
        """How much of the total belongs to names that have no row."""
        return self.total - sum(row.count for row in self.rows)


@dataclass(frozen=True, slots=True)
class Scope:
    """What tokens open, as a whole: every grant, and the attributes that limit rows.

    Attributes:
        grants: Each as ``type:id:action,action``.
        rls_attributes: The names of the row-level attributes; empty is no limit on rows.
        count: How many requests were let in with it.
        at_most: See ``Row``.
        tenants: Whose tokens these were, some of them.
        last: When it was last used.
        objects_of_a_type: How many of the grants open every object of their type (``*``).
        actions: How many actions the grants allow, together.
    """

    grants: tuple[str, ...]
    rls_attributes: tuple[str, ...]
    count: int
    at_most: int
    tenants: tuple[str, ...]
    last: str
    objects_of_a_type: int
    actions: int


@dataclass(frozen=True, slots=True)
class LongToken:
    """A token that had long to live when it was used.

    Attributes:
        token_id: Its ``jti``, or its pseudonym.
        seconds: The longest time that it still had to live.
        tenant: Whose it was.
        subject: Who used it.
        key_id: Which key signed it.
        time: When.
    """

    token_id: str
    seconds: float
    tenant: str | None
    subject: str | None
    key_id: str | None
    time: str


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key, or an API key (which signs with a key of the same name).

    Attributes:
        key_id: ``kid``; empty where tokens name none.
        issuer: Whose tokens it signs.
        api_key: It asked the token service for tokens.
        used: How many requests came with its tokens in the period.
        let_in: How many of these were let in.
        refused: How many of these were refused.
        failed: How many of these were neither.
        issued: How many tokens it was given by the token service in the period.
        last: When it was last used, in the period or before.
        unused_days: Whole days from its last use to the end of the record.
        tenants: Whose tokens it signed, some of them.
    """

    key_id: str
    issuer: str
    api_key: bool
    used: int
    let_in: int
    refused: int
    failed: int
    issued: int
    last: str
    unused_days: int
    tenants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """One column of the charts.

    Attributes:
        start: When it begins, RFC 3339 in UTC.
        allowed: Requests that every rule let in.
        refused: Requests that were refused.
        would_refuse: Requests that were let in because a rule only reports.
        failed: See ``Totals``.
    """

    start: str
    allowed: int
    refused: int
    would_refuse: int
    failed: int

    @property
    def let_in(self) -> int:
        """Those that were let in, for either reason."""
        return self.allowed + self.would_refuse

    @property
    def requests(self) -> int:
        """All of them."""
        return self.allowed + self.refused + self.would_refuse + self.failed


@dataclass(frozen=True, slots=True)
class Burst:
    """Many refusals of one reason in a short time.

    Attributes:
        reason: Why they were refused.
        start: When it began.
        hours: How many hours or days it lasted.
        unit: ``hour`` or ``day``.
        count: How many.
        usual: How many there are in such a time otherwise.
        site: The web site that certainly sent more than half of them, if there is one.
        site_count: How many it certainly sent.
    """

    reason: str
    start: str
    hours: int
    unit: Unit
    count: int
    usual: float
    site: str | None
    site_count: int


@dataclass(frozen=True, slots=True)
class NewSite:
    """A web site that the record had not seen before.

    Attributes:
        site: Its origin.
        first: When it came.
        count: How often it was seen.
        refused: How often it was refused.
    """

    site: str
    first: str
    count: int
    refused: int


@dataclass(frozen=True, slots=True)
class Traveller:
    """A person who was seen in the pages of two web sites or more."""

    subject: str
    tenant: str | None
    sites: tuple[str, ...]
    last: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody who asked often in the period, and was refused every time.

    Attributes:
        kind: ``site``; ``customer``, named by valid tokens; ``client``, an address (or its pseudonym) whose requests
            named no web site.
        name: As the record has it.
        count: How often; every one a refusal.
        first: When it was first seen, in the period or before.
        last: When it was last seen.
        reasons: Why, the most frequent first, and how often.
    """

    kind: StrangerKind
    name: str
    count: int
    first: str
    last: str
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted in the period. A request asks for a chart, its data or its live feed.

    What shows nothing and was let in is counted apart, and nowhere else: ``exempt``, ``preflights``, ``redirects``,
    ``issued`` and ``renewed``. Refused or failed, the same counts as a request.

    Attributes:
        allowed: Requests that every rule let in.
        refused: Requests that were refused.
        would_refuse: Requests that were let in because a rule only reports.
        failed: Requests that ended in an error, or without an answer; or that nobody could decide, because the store,
            the keys or the record did not answer. Why, is in ``Report.reasons``.
        with_token: Requests whose token was valid, whatever became of them.
        let_in_with_token: Those of them that were let in.
        siteless: Requests that named no web site, as a chart's own calls for its data do not.
        refused_siteless: Those of them that were refused.
        refused_preflights: Refused requests of which only the browser's question beforehand came.
        unasked: Whoever was let in while the store of withdrawn tokens did not answer; steps counted apart too.
        exempt: Requests to paths that are not protected.
        preflights: Browsers' questions beforehand that were answered with yes; the request that follows is counted.
        redirects: Answers that send the browser on, as into a frame; the request that follows is counted.
        issued: Tokens that the token service gave to servers with an API key.
        renewed: Tokens that were renewed.
        cut: Answers that broke off, and live feeds that ended because the store or the keys did not answer.
        closed: WebSockets and streams that were ended because their token ended or was withdrawn.
        dropped: Entries that could not be written down.
        shortened: Lines that were too long and lost everything but the essential.
        starts: Processes that began.
    """

    allowed: int = 0
    refused: int = 0
    would_refuse: int = 0
    failed: int = 0
    with_token: int = 0
    let_in_with_token: int = 0
    siteless: int = 0
    refused_siteless: int = 0
    refused_preflights: int = 0
    unasked: int = 0
    exempt: int = 0
    preflights: int = 0
    redirects: int = 0
    issued: int = 0
    renewed: int = 0
    cut: int = 0
    closed: int = 0
    dropped: int = 0
    shortened: int = 0
    starts: int = 0

    @property
    def let_in(self) -> int:
        """Requests that were let in, those on trial included."""
        return self.allowed + self.would_refuse

    @property
    def requests(self) -> int:
        """All requests: let in, refused and failed."""
        return self.let_in + self.refused + self.failed


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no audit event.

    Attributes:
        file: Where.
        number: The line in it, from 1.
        problem: What is wrong with it.
    """

    file: str
    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that could not be read, or only in part.

    Attributes:
        file: Its name.
        problem: Why, as the rest of a sentence about it.
    """

    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Source:
    """What was read.

    Attributes:
        files: The names of the files.
        lines: All of their lines.
        before: Lines from before the period.
        bad: Lines that are no audit events.
        bad_lines: The first of these.
        misdated: Events dated in the future, or before there was a guard; counted nowhere else.
        unread: Files that could not be read, or only in part; what stands in there is counted nowhere.
    """

    files: tuple[str, ...]
    lines: int
    before: int
    bad: int
    bad_lines: tuple[BadLine, ...]
    misdated: int
    unread: tuple[UnreadFile, ...]


@dataclass(frozen=True, slots=True)
class SealFinding:
    """Something that the check of the record's seals has found."""

    place: str
    kind: str
    tampering: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Integrity:
    """Whether the record is as it was written.

    Attributes:
        state: ``intact``; ``tampered``; ``unchecked``, where nothing is known of some lines; ``unsealed``, where no
            line belongs to a chain.
        with_key: A key was given to check it with.
        keyed: Every chain was made with a key.
        lines: Lines of chains.
        chains: How many chains.
        unknown_lines: Of them, lines that fit no key that was given.
        unknown_chains: The chains of these.
        open_ended: How many of them ended without ``close``.
        findings: The first findings, tampering first.
        more: How many are left out.
    """

    state: Literal["intact", "tampered", "unchecked", "unsealed"]
    with_key: bool
    keyed: bool
    lines: int
    chains: int
    unknown_lines: int
    unknown_chains: int
    open_ended: int
    findings: tuple[SealFinding, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the report points out.

    Attributes:
        kind: A stable name.
        level: ``act``: somebody has to do something, and the command leaves with 1; ``look``: worth a look.
        title: In a few words.
        text: What was found.
        advice: What to do.
    """

    kind: str
    level: Level
    title: str
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the report says.

    Attributes:
        made: When the report was made, RFC 3339 in UTC.
        since: From when on events were counted; None is from the record's beginning.
        begins: When the period begins, the record's beginning at the earliest; None where no event falls into it.
        ends: The last event of the period.
        newest: The last event of the whole record, before the period too.
        known_since: Sites that came later than this are new; None where nothing came before it to compare with.
        lifetimes: How long tokens still had to live when they were used: an upper bound in seconds (None is more),
            and how many requests were let in.
        strangers: Whoever was refused every time, sites first, then customers, then clients; the most frequent first.
    """

    made: str
    since: str | None
    begins: str | None
    ends: str | None
    newest: str | None
    known_since: str | None
    source: Source
    totals: Totals
    unit: Unit
    timeline: tuple[Slot, ...]
    reasons: Listing
    sites: Listing
    scopes: tuple[Scope, ...]
    widest: tuple[Scope, ...]
    scopes_known: int
    scopes_overflowed: bool
    unlimited: int
    long_tokens: tuple[LongToken, ...]
    lifetimes: tuple[tuple[int | None, int], ...]
    keys: tuple[Key, ...]
    keys_overflowed: bool
    tenants: Listing
    regions: Listing
    tables: Listing
    report_only: Listing
    bursts: tuple[Burst, ...]
    new_sites: tuple[NewSite, ...]
    strangers: tuple[Stranger, ...]
    travellers: tuple[Traveller, ...]
    people_overflowed: bool
    integrity: Integrity
    notices: tuple[Notice, ...] = ()
