"""Count what the lines of the record say, one after the other, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from toucan_guard.audit.report.figures import BadLine, Totals, UnreadFile
from toucan_guard.audit.report.hours import ALLOWED, FAILED, REFUSED, WOULD_REFUSE, Hours
from toucan_guard.audit.report.kinds import gives_token, is_fault, is_preflight, step_beside, steps_of
from toucan_guard.audit.report.lines import LineReader, capped, number_of, text_of, texts_of
from toucan_guard.audit.report.people import People
from toucan_guard.audit.report.tallies import Seen, Tally, Told, Top
from toucan_guard.core.audit_event import Event
from toucan_guard.core.decisions import Reason

ScopeName = tuple[tuple[str, ...], tuple[str, ...]]  # grants, and the names of row-level attributes
KeyName = tuple[str, str]  # kid and issuer

LIFETIMES: Final = (300, 900, 3_600, 28_800, None)  # seconds; None is more

_OUTCOME: Final = {"allow": ALLOWED, "deny": REFUSED, "would_deny": WOULD_REFUSE, "error": FAILED}
_SEALED: Final = b'{"chain":'
_FIRST: Final = "2025"  # before the first version; what a clock that was never set says
_MOST_BAD: Final = 50
_MOST_KEYS: Final = 4_000
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})


class Gatherer:
    """Takes lines of any number of files in any order.

    Args:
        since: Events before this time (RFC 3339 in UTC) only say what was known already.
        until: Events after this time lie in the future: a clock was wrong, or a line is not genuine.
        files: The names of the files, for the report.
    """

    def __init__(self, *, since: str | None, until: str, files: Iterable[str] = ()) -> None:
        self.since = since
        self.until = until
        self.files = tuple(files)
        self.sealed = 0  # lines that claim to belong to a chain
        self.lines = self.before = self.bad = self.misdated = 0
        self.bad_lines: list[BadLine] = []
        self.unread: list[UnreadFile] = []
        self.span = Seen()  # of the whole record
        self.period = Seen()
        self.numbers = dict.fromkeys(Totals.__slots__, 0)
        self.hours = Hours()
        self.reasons: Tally[str] = Tally(500)
        self.sites: Tally[str] = Tally(5_000)
        self.scopes: Tally[ScopeName] = Tally(1_000)
        self.widest: Top[ScopeName] = Top(50)
        self.unlimited = 0
        self.long_tokens: Top[str] = Top(50)
        self.lifetimes = [0] * len(LIFETIMES)
        self.keys: Tally[KeyName] = Tally(_MOST_KEYS)
        self.issued: dict[KeyName, int] = {}
        self.tenants: Tally[str] = Tally(5_000)
        self.regions: Tally[str] = Tally(200)
        self.tables: Tally[str] = Tally(1_000)
        self.report_only: Tally[str] = Tally(500)
        self.clients: Tally[str] = Tally(5_000)  # without refusals of whoever names a site: the site tells of those
        self.people = People()
        self._told = Told(2_500)
        self._reader = LineReader()

    def feed(self, line: bytes, *, file: str, number: int) -> None:
        """Take one line, with or without its newline; whatever is in it, this does not raise.

        Args:
            line: The bytes of the line.
            file: The name of its file.
            number: Its place in the file, from 1.
        """
        self.lines += 1
        if line.startswith(_SEALED):
            self.sealed += 1
        event = self._reader.read(line)
        if isinstance(event, str):
            self.bad += 1
            if len(self.bad_lines) < _MOST_BAD:
                self.bad_lines.append(BadLine(file, number, event))
            return
        time: str = event["time"]
        if time > self.until or time < _FIRST:
            self.misdated += 1
            return
        self.span.at(time)
        in_period = self.since is None or time >= self.since
        if not in_period:
            self.before += 1
        elif event["event"] == "decision":
            self._decision(event, time)
        else:
            self._other(event)
        if not in_period and event["event"] == "decision":
            self._known(event, time)
        if in_period:
            self.period.at(time)

    def cannot_read(self, file: str, why: str) -> None:
        """Note a file that cannot be read, or only in part.

        Args:
            file: Its name.
            why: What whoever tried was told, as the rest of a sentence about the file.
        """
        self.unread.append(UnreadFile(file, why))

    def _known(self, event: Event, time: str) -> None:
        """What an event says that is not counted: which sites and keys there were."""
        site = text_of(event, "embedder") or text_of(event, "origin")
        if site is not None:
            self.sites.known(site, time)
        issuer = text_of(event, "issuer")
        if issuer is not None:
            self.keys.known((text_of(event, "key_id") or "", issuer), time)

    def _other(self, event: Event) -> None:
        self._dropped(event)
        if event["event"] == "open":
            self.numbers["starts"] += 1
        elif event["event"] == "completion":
            outcome = event.get("outcome")
            if outcome == "error" or (outcome == "deny" and is_fault(event, text_of(event, "reason") or "unknown")):
                self.numbers["cut"] += 1
            elif outcome == "deny":
                self.numbers["closed"] += 1
            self._tables(event, "decision_id")

    def _dropped(self, event: Event) -> None:
        if "dropped" in event:
            self.numbers["dropped"] += max(0, int(number_of(event, "dropped") or 0))
        if "truncated" in event:
            self.numbers["shortened"] += event["truncated"] is True

    def _tables(self, event: Event, decided_in: str) -> None:
        """Count each table once for a request: a completion repeats what its decision told."""
        tables = event.get("tables")
        if isinstance(tables, dict) and tables:
            decision = text_of(event, decided_in)
            for name in map(capped, tables):
                if decision is None or self._told.is_new(decision, name):
                    self.tables.count(name, event["time"])

    def _decision(self, event: Event, time: str) -> None:
        self._dropped(event)
        if event.get("exempt") is True:
            self.numbers["exempt"] += 1
            return
        outcome, steps = _OUTCOME[event["outcome"]], steps_of(event)
        trials = steps.trials
        if Reason.STORE_UNAVAILABLE in trials:
            # Not a rule on trial: a switch lets in whom the store could not be asked about.
            self.numbers["unasked"] += outcome in (ALLOWED, WOULD_REFUSE)
            trials = tuple(reason for reason in trials if reason != Reason.STORE_UNAVAILABLE)
            outcome = ALLOWED if outcome == WOULD_REFUSE and not trials else outcome
        let_in = outcome in (ALLOWED, WOULD_REFUSE)
        beside = step_beside(event, steps) if let_in else None
        embedder = text_of(event, "embedder")
        site = embedder or text_of(event, "origin")
        reason = "" if let_in else text_of(event, "reason") or "unknown"
        if outcome == REFUSED and is_fault(event, reason):
            outcome = FAILED
        refused = outcome == REFUSED
        client = text_of(event, "client")
        if client is not None and (site is None or not refused):
            seen = self.clients.count(client, time, let_in=let_in, refused=refused)
            if refused:
                seen.note(reason)
        # Our own page's calls name no other site.
        page = site if embedder is not None or text_of(event, "fetch_site") in _OTHER_SITES else None
        if beside is not None:
            self._beside(event, time, beside, page)
            return
        self.numbers[("allowed", "refused", "would_refuse", "failed")[outcome]] += 1
        self.hours.count(time, outcome)
        if refused:
            self.numbers["refused_preflights"] += is_preflight(event, steps)
            self.hours.refuse(time, reason, site)
        if reason:
            seen = self.reasons.count(reason, time, refused=refused)
            if site is not None:
                seen.note(site)
        if site is None:
            self.numbers["siteless"] += 1
            self.numbers["refused_siteless"] += refused
        else:
            seen = self.sites.count(site, time, let_in=let_in, refused=refused)
            if refused:
                seen.note(reason)
        for trial in trials:
            seen = self.report_only.count(capped(trial), time, let_in=let_in, refused=refused)
            if site is not None:
                seen.note(site)
        region = text_of(event, "region")
        if region is not None:
            self.regions.count(region, time, let_in=let_in, refused=refused)
        self._tables(event, "event_id")
        if let_in or not gives_token(steps):
            self._token(event, time, outcome, reason, page)

    def _beside(self, event: Event, time: str, beside: str, page: str | None) -> None:
        """A step that is counted apart: it uses a key, or gives a token away, and shows where somebody is."""
        self.numbers[beside] += 1
        self._known(event, time)
        issuer, tenant = text_of(event, "issuer"), text_of(event, "tenant")
        if issuer is None:
            return
        key: KeyName = (text_of(event, "key_id") or "", issuer)
        if beside == "issued" and (key in self.issued or len(self.issued) < _MOST_KEYS):
            self.issued[key] = self.issued.get(key, 0) + 1
        if tenant is not None:
            self.keys.known(key, time).note(tenant)
        self._long_token(event, time, key[0])
        if beside == "redirects":
            self._person(event, time, tenant, page)

    def _token(self, event: Event, time: str, outcome: int, reason: str, page: str | None) -> None:
        """What a verified token says, of somebody who asked for a chart with it."""
        issuer, tenant = text_of(event, "issuer"), text_of(event, "tenant")
        let_in, refused = outcome in (ALLOWED, WOULD_REFUSE), outcome == REFUSED
        if tenant is not None:
            seen = self.tenants.count(tenant, time, let_in=let_in, refused=refused)
            if refused:
                seen.note(reason)
        if issuer is None:
            return
        self.numbers["with_token"] += 1
        key: KeyName = (text_of(event, "key_id") or "", issuer)
        seen_key = self.keys.count(key, time, let_in=let_in, refused=refused)
        if tenant is not None:
            seen_key.note(tenant)
        left = self._long_token(event, time, key[0])
        if let_in:
            self.numbers["let_in_with_token"] += 1
            self._scope(event, time, tenant, left)
        self._person(event, time, tenant, page)

    def _long_token(self, event: Event, time: str, key_id: str) -> float | None:
        """How long the token still has to live, which is remembered of those that live longest."""
        left = number_of(event, "expires_in_seconds")
        if left is not None and self.long_tokens.wants(left):
            token, tenant, subject = text_of(event, "token_id"), text_of(event, "tenant"), text_of(event, "subject")
            if token is not None:
                self.long_tokens.offer(token, left, (tenant, subject, key_id, time))
        return left

    def _scope(self, event: Event, time: str, tenant: str | None, left: float | None) -> None:
        scope: ScopeName = (texts_of(event, "grants"), texts_of(event, "rls_attributes"))
        seen = self.scopes.count(scope, time)
        if tenant is not None:
            seen.note(tenant)
        if not scope[1]:
            self.unlimited += 1
        wide: Seen | None = self.widest.held(scope)
        if wide is None:
            wide = Seen()
            self.widest.offer(scope, width_of(scope), wide)
        wide.count += 1
        wide.at(time)
        if tenant is not None:
            wide.note(tenant)
        if left is not None:
            for index, limit in enumerate(LIFETIMES):
                if limit is None or left <= limit:
                    self.lifetimes[index] += 1
                    break

    def _person(self, event: Event, time: str, tenant: str | None, page: str | None) -> None:
        """Whose chart is shown in whose page."""
        subject = None if page is None else text_of(event, "subject")
        if page is not None and subject is not None:
            self.people.at((subject, tenant), page, time)


def width_of(scope: ScopeName) -> tuple[bool, int, int, int]:
    """How much a scope opens: no limit on rows is the widest, then ``*`` grants, then actions, then grants."""
    grants, attributes = scope
    return (not attributes, sum(map(opens_every_object, grants)), actions_of(grants), len(grants))


def opens_every_object(grant: str) -> bool:
    """Whether a grant as the record writes it, ``type:id:action,action``, opens every object of its type."""
    # A type may have colons in it, and so may an id; the one wildcard is the whole of the id.
    return grant.rpartition(":")[0].endswith(":*")


def actions_of(grants: Iterable[str]) -> int:
    """How many actions the grants allow, together."""
    return sum(grant.rpartition(":")[2].count(",") + 1 for grant in grants)
