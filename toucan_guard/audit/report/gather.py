"""Count what the lines of the record say, one after the other, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from toucan_guard.audit.report.figures import BadLine, Totals
from toucan_guard.audit.report.hours import ALLOWED, FAILED, REFUSED, WOULD_REFUSE, Hours
from toucan_guard.audit.report.lines import LineReader, capped, number_of, text_of, texts_of
from toucan_guard.audit.report.tallies import Seen, Tally, Top
from toucan_guard.core.audit_event import Event

ScopeName = tuple[tuple[str, ...], tuple[str, ...]]  # grants, and the names of row-level attributes
KeyName = tuple[str, str]  # kid and issuer
PersonName = tuple[str, str | None]  # subject and tenant

LIFETIMES: Final = (300, 900, 3_600, 28_800, None)  # seconds; None is more

_OUTCOME: Final = {"allow": ALLOWED, "deny": REFUSED, "would_deny": WOULD_REFUSE, "error": FAILED}
_SEALED: Final = b'{"chain":'
_FIRST: Final = "2025"  # before the first version; what a clock that was never set says
_MOST_BAD: Final = 50
_MOST_PEOPLE: Final = 100_000
_MOST_SITES: Final = 5_000
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
        self.span = Seen()  # of the whole record
        self.period = Seen()
        self.numbers = dict.fromkeys(Totals.__slots__, 0)
        self.hours = Hours()
        self.reasons: Tally[str] = Tally(500)
        self.sites: Tally[str] = Tally(_MOST_SITES)
        self.scopes: Tally[ScopeName] = Tally(1_000)
        self.widest: Top[ScopeName] = Top(50)
        self.unlimited = 0
        self.long_tokens: Top[str] = Top(50)
        self.lifetimes = [0] * len(LIFETIMES)
        self.keys: Tally[KeyName] = Tally(4_000)
        self.issued: dict[KeyName, int] = {}
        self.tenants: Tally[str] = Tally(5_000)
        self.regions: Tally[str] = Tally(200)
        self.tables: Tally[str] = Tally(1_000)
        self.report_only: Tally[str] = Tally(500)
        self.people_overflowed = False
        self.travellers: dict[PersonName, Traveller] = {}
        self._homes: dict[int, int] = {}
        self._site_numbers: dict[str, int] = {}
        self._site_names: list[str] = []
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
            self._decision(event, time, line)
        else:
            self._other(event)
        if not in_period and event["event"] == "decision":
            self._known(event, time)
        if in_period:
            self.period.at(time)

    def _known(self, event: Event, time: str) -> None:
        """What an event of before the period says: which sites and keys there were."""
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
            if event.get("outcome") == "error":
                self.numbers["cut"] += 1
            elif event.get("outcome") == "deny":
                self.numbers["closed"] += 1
            self._tables(event)

    def _dropped(self, event: Event) -> None:
        dropped = number_of(event, "dropped")
        if dropped is not None and dropped > 0:
            self.numbers["dropped"] += int(dropped)
        if event.get("truncated") is True:
            self.numbers["shortened"] += 1

    def _tables(self, event: Event) -> None:
        tables = event.get("tables")
        if isinstance(tables, dict) and tables:
            for name in tables:
                self.tables.count(capped(name), event["time"])

    def _decision(self, event: Event, time: str, line: bytes) -> None:
        self._dropped(event)
        if event.get("exempt") is True:
            self.numbers["exempt"] += 1
            return
        outcome = _OUTCOME[event["outcome"]]
        self.numbers[("allowed", "refused", "would_refuse", "failed")[outcome]] += 1
        self.hours.count(time, outcome)
        embedder, origin = text_of(event, "embedder"), text_of(event, "origin")
        site = embedder or origin
        refused = outcome == REFUSED
        if refused or outcome == FAILED:
            reason = text_of(event, "reason") or "unknown"
            seen = self.reasons.count(reason, time, refused=refused)
            if site is not None:
                seen.note(site)
            if refused:
                self.hours.refuse(time, reason, site)
        if site is not None:
            seen = self.sites.count(site, time, refused=refused)
            if refused:
                seen.note(text_of(event, "reason") or "unknown")
        if b"would_deny:" in line:
            self._would_deny(event, time, site)
        region = text_of(event, "region")
        if region is not None:
            self.regions.count(region, time, refused=refused)
        self._tables(event)
        issuer, tenant = text_of(event, "issuer"), text_of(event, "tenant")
        issued = b'"api_key"' in line and _issues(event)
        if tenant is not None and not issued:
            self.tenants.count(tenant, time, refused=refused)
        if issuer is not None:
            site_of_person = embedder or (origin if event.get("fetch_site") in _OTHER_SITES else None)
            self._claims(event, time, issuer, outcome, site_of_person, issued=issued)

    def _claims(self, event: Event, time: str, issuer: str, outcome: int, site: str | None, *, issued: bool) -> None:
        """What a verified token says; one that is given away now is not used yet."""
        tenant, subject = text_of(event, "tenant"), text_of(event, "subject")
        key: KeyName = (text_of(event, "key_id") or "", issuer)
        if issued:
            seen = self.keys.known(key, time)
            if key in self.issued or len(self.issued) < 4_000:
                self.issued[key] = self.issued.get(key, 0) + 1
        else:
            seen = self.keys.count(key, time, refused=outcome == REFUSED)
        if tenant is not None:
            seen.note(tenant)
        left = number_of(event, "expires_in_seconds")
        token = text_of(event, "token_id")
        if left is not None and token is not None:
            self.long_tokens.offer(token, left, (tenant, subject, key[0], time))
        if issued:
            return
        if outcome in (ALLOWED, WOULD_REFUSE):
            self._scope(event, time, tenant, left)
        if subject is not None and site is not None:
            self._person((subject, tenant), site, time)

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

    def _would_deny(self, event: Event, time: str, site: str | None) -> None:
        steps = event.get("steps")
        for step in steps if isinstance(steps, list) else ():
            decided = step.get("decision") if isinstance(step, dict) else None
            if isinstance(decided, str) and decided.startswith("would_deny:"):
                seen = self.report_only.count(capped(decided.partition(":")[2]) or "unknown", time)
                if site is not None:
                    seen.note(site)

    def _person(self, person: PersonName, site: str, time: str) -> None:
        """Notice whoever is seen in the pages of a second site; of everybody else only the first site is kept."""
        number = self._site_numbers.get(site)
        if number is None:
            if len(self._site_names) >= _MOST_SITES:
                self.people_overflowed = True
                return
            number = self._site_numbers[site] = len(self._site_names)
            self._site_names.append(site)
        name = hash(person)
        home = self._homes.get(name)
        if home is None:
            if len(self._homes) >= _MOST_PEOPLE:
                self.people_overflowed = True
                self._homes.clear()
            self._homes[name] = number
        elif home != number:
            known = self.travellers.get(person)
            if known is None:
                if len(self.travellers) >= 1_000:
                    self.people_overflowed = True
                    return
                known = self.travellers[person] = Traveller(self._site_names[home])
            known.at(site, time)


class Traveller:
    """Somebody who was seen in the pages of two sites or more."""

    __slots__ = ("last", "sites")

    def __init__(self, home: str) -> None:
        self.sites: dict[str, None] = {home: None}
        self.last = ""

    def at(self, site: str, time: str) -> None:
        """They were seen here."""
        if len(self.sites) < 8:
            self.sites[site] = None
        self.last = max(self.last, time)


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


def _issues(event: Event) -> bool:
    """Whether this is the token service giving a token away."""
    steps: Any = event.get("steps")
    return isinstance(steps, list) and any(
        isinstance(step, dict) and step.get("layer") == "api_key" and step.get("decision") == "allow" for step in steps
    )
