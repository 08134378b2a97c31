"""What the report points out. Each notice is a function of its own; none looks at anything but the report.

``act`` is for what somebody has to do something about now: the record was changed or has holes, or a secret is out.
Everything else that is worth a look is ``look``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from toucan_guard.audit.report.figures import Burst, Key, Notice, Report, Traveller
from toucan_guard.audit.report.gather import opens_every_object
from toucan_guard.audit.report.hours import moment_of
from toucan_guard.audit.report.kinds import UNREADY
from toucan_guard.audit.report.seal_notices import no_seals, seals
from toucan_guard.audit.report.strangers import strangers
from toucan_guard.audit.report.words import day, duration, harmless, listed, minute, number, plural, share, told_of

UNUSED_DAYS: Final = 30
LONG_SECONDS: Final = 4_000  # an hour, and some leeway for clocks

_FAILURES_OF_A_HUNDRED: Final = 1
_MOST_OF_A_KIND: Final = 4


def notices_of(report: Report) -> tuple[Notice, ...]:
    """Everything that the report points out, what needs somebody to act first."""
    found = [notice for make in _ALL for notice in make(report)]
    return tuple(sorted(found, key=lambda notice: notice.level != "act"))


def many_failed(report: Report) -> bool:
    """Whether so many requests failed that it is worth a word."""
    totals = report.totals
    return totals.failed > 0 and totals.failed * 100 >= totals.requests * _FAILURES_OF_A_HUNDRED


def retirable(key: Key) -> bool:
    """Whether a key was unused for so long that it can probably go."""
    return key.unused_days >= UNUSED_DAYS


def _holes(report: Report) -> Iterator[Notice]:
    dropped = report.totals.dropped
    if dropped:
        yield Notice(
            "dropped",
            "act",
            f"{plural(dropped, 'entry was', 'entries were')} not written down",
            "The guard could not write to its record at the time, so this report cannot count what they told.",
            "Look at the disk or the collector that the record goes to. AUDIT_MODE=strict answers nothing that it "
            "cannot write down.",
        )
    unread = report.source.unread
    if unread:
        counted = " Lines of a damaged one were counted as they were read, and are not all as they were written."
        damaged = counted if any(finding.kind == "damaged" for finding in report.integrity.findings) else ""
        yield Notice(
            "unread_file",
            "look",
            f"{plural(len(unread), 'file')} could not be read",
            f"{listed([f'{harmless(file.file)} {harmless(file.problem)}' for file in unread])}. What stands there is "
            f"not in this report, so its numbers are too low.{damaged}",
            "Make the report again with the whole file, or with a copy of it.",
        )
    bad = report.source.bad
    if bad:
        first = report.source.bad_lines[0]
        yield Notice(
            "unreadable",
            "look",
            f"{plural(bad, 'line')} could not be read",
            f"The first is line {number(first.number)} of {harmless(first.file)}: {first.problem}.",
            "Lines of other programs in the same file are harmless. Otherwise something damaged the record.",
        )
    misdated = report.source.misdated
    if misdated:
        yield Notice(
            "misdated",
            "look",
            f"{plural(misdated, 'line has', 'lines have')} a date that cannot be",
            "They are dated in the future, or before there was a guard, and are not counted.",
            "Set the clock of the machine that wrote them, or find out who wrote them.",
        )


def _exposed_key(report: Report) -> Iterator[Notice]:
    for row in report.reasons.rows:
        if row.name == "api_key_exposed":
            yield Notice(
                "api_key_exposed",
                "act",
                "An API key was sent from a web browser",
                f"{plural(row.count, 'time')}, last on {minute(row.last)}. A key that a browser has can be read by "
                "anybody who looks.",
                "Retire the key and make a new one; it must stay on the server.",
            )


def _no_limit_on_rows(report: Report) -> Iterator[Notice]:
    if report.unlimited:
        yield Notice(
            "no_row_limit",
            "look",
            f"{plural(report.unlimited, 'request')} could see every row",
            "The token that was let in had no limit on rows, because row-level security is switched off or the "
            "policy has no rule for it.",
            "See that INSECURE_NO_RLS is not set where customers share tables.",
        )


def _travellers(report: Report) -> Iterator[Notice]:
    groups: dict[tuple[str, ...], list[Traveller]] = {}
    for person in report.travellers:
        groups.setdefault(tuple(sorted(person.sites)), []).append(person)
    for sites, people in list(groups.items())[:_MOST_OF_A_KIND]:
        first = people[0]
        whose = f" of {harmless(first.tenant)}" if first.tenant else ""
        others = f" and {plural(len(people) - 1, 'other')}" if len(people) > 1 else ""
        yield Notice(
            "two_sites",
            "look",
            f"{plural(len(people), 'person was', 'people were')} seen on {plural(len(sites), 'web site')}",
            f"{harmless(first.subject)}{whose}{others} came from the pages of "
            f"{listed([harmless(site) for site in sites])}, last on {minute(max(person.last for person in people))}.",
            "Right, if these sites belong to one customer. Otherwise a token was handed on: ask the customer, and let "
            "tokens name their origins.",
        )
    more = len(groups) - _MOST_OF_A_KIND
    if more > 0:
        yield Notice(
            "two_sites",
            "look",
            f"People were seen on {plural(more, 'more pair')} of web sites",
            "They are listed under “People seen on several web sites”.",
            "Ask the customers whether the sites belong together.",
        )


def _bursts(report: Report) -> Iterator[Notice]:
    reasons: dict[str, list[Burst]] = {}
    for burst in report.bursts:
        reasons.setdefault(burst.reason, []).append(burst)
    for reason, bursts in list(reasons.items())[:_MOST_OF_A_KIND]:
        most = bursts[0]
        again = f" It happened {plural(len(bursts), 'time')} in all." if len(bursts) > 1 else ""
        most_of_them = "all" if most.site_count == most.count else f"{number(most.site_count)} or more"
        site = f", {most_of_them} of them from {harmless(most.site)}" if most.site else ""
        usual = f"about {number(most.usual)}" if most.usual >= 1 else "hardly any"
        yield Notice(
            "burst",
            "look",
            f"A burst of refusals: {told_of(reason).meaning}",
            f"{number(most.count)} in {plural(most.hours, most.unit)} from {minute(most.start)}{site}. "
            f"In as long a time there are {usual} otherwise.{again}",
            f"What helps: {told_of(reason).mend}.",
        )


def _new_sites(report: Report) -> Iterator[Notice]:
    if not report.new_sites or report.known_since is None:
        return
    let_in = [site for site in report.new_sites if site.count > site.refused]
    since = day(report.known_since)
    if let_in:
        yield Notice(
            "new_site",
            "look",
            f"{plural(len(let_in), 'web site shows', 'web sites show')} charts for the first time",
            f"{listed([harmless(site.site) for site in let_in])}: never seen before {since}.",
            "Right, if a customer has a new site. Otherwise take it off ALLOWED_ORIGINS.",
        )
    told = {stranger.name for stranger in report.strangers if stranger.kind == "site"}
    turned_away = [site for site in report.new_sites if site.count == site.refused and site.site not in told]
    if turned_away:
        yield Notice(
            "new_site_refused",
            "look",
            f"{plural(len(turned_away), 'unknown web site')} tried for the first time",
            f"{listed([harmless(site.site) for site in turned_away])}: new since {since}, and refused each time.",
            "Nothing was shown. If a customer has moved to a new address, add it to ALLOWED_ORIGINS.",
        )


def _unused_keys(report: Report) -> Iterator[Notice]:
    idle = [key for key in report.keys if retirable(key)]
    if idle:
        names = [harmless(key.key_id) or "a key without a name" for key in idle]
        yield Notice(
            "unused_key",
            "look",
            f"{plural(len(idle), 'key was', 'keys were')} not used for {UNUSED_DAYS} days or more",
            f"{listed(names)}, last used on {day(idle[0].last)}{' and later' if len(idle) > 1 else ''}.",
            "A key that nobody uses can be retired: it can only be lost.",
        )


def _wide_scopes(report: Report) -> Iterator[Notice]:
    wide = [scope for scope in report.widest if scope.objects_of_a_type]
    if wide:
        yield Notice(
            "wide_scope",
            "look",
            f"{plural(len(wide), 'kind of token opens', 'kinds of token open')} every object of a type",
            f"{plural(sum(scope.count for scope in wide), 'request was', 'requests were')} let in with one, as with "
            f"{harmless(next(filter(opens_every_object, wide[0].grants)))}.",
            "Let tokens name the dashboards that they open.",
        )
    long = [token for token in report.long_tokens if token.seconds > LONG_SECONDS]
    if long:
        yield Notice(
            "long_token",
            "look",
            f"A token had {duration(long[0].seconds)} left to live",
            "Whoever gets hold of such a token can use it for that long.",
            "Mint tokens for minutes and renew them; TOKEN_LIFETIME_SECONDS sets the limit.",
        )


def _report_only(report: Report) -> Iterator[Notice]:
    rules = [row for row in report.report_only.rows if row.let_in]
    if report.totals.would_refuse and rules:
        yield Notice(
            "report_only",
            "look",
            f"{plural(report.totals.would_refuse, 'request was', 'requests were')} let in on trial",
            f"REPORT_ONLY let in what would have been refused: {listed([told_of(row.name).meaning for row in rules])}.",
            "If none of them is a customer of yours, end the trial. If some are, list them first.",
        )
    unasked = report.totals.unasked
    if unasked:
        yield Notice(
            "store_fail_open",
            "look",
            f"{plural(unasked, 'time')} nobody knew whether a token was withdrawn",
            "The store did not answer, and INSECURE_STORE_FAIL_OPEN let the token in all the same.",
            "Look at the store. Without the switch nobody is let in while it does not answer.",
        )


def _failures(report: Report) -> Iterator[Notice]:
    failed = report.totals.failed
    if many_failed(report):
        rows = sorted((row for row in report.reasons.rows if row.failed), key=lambda row: -row.failed)
        why = [f"{told_of(row.name).meaning} ({number(row.failed)})" for row in rows]
        yield Notice(
            "failures",
            "look",
            f"{share(failed, report.totals.requests)} of the requests failed",
            f"They were neither answered nor refused: {listed(why)}.",
            "Show the people who run the app and the guard the logs of that time.",
        )
    for row in report.reasons.rows:
        if row.name in UNREADY:
            first = f"first on {minute(row.first)}, " if row.first[:16] != row.last[:16] else ""
            yield Notice(
                row.name,
                "look",
                f"The service was not ready {plural(row.count, 'time')}",
                f"{told_of(row.name).meaning.capitalize()}, {first}last on {minute(row.last)}. These requests were "
                "neither let in nor refused: nobody could decide.",
                f"What helps: {told_of(row.name).mend}.",
            )


def covered_days(report: Report) -> int:
    """How many days the record covers, from its first event (of the period) to its last."""
    if report.begins is None or report.ends is None:
        return 0
    return (moment_of(report.ends) - moment_of(report.begins)).days


_ALL: Final = (
    seals,
    _holes,
    _exposed_key,
    _no_limit_on_rows,
    _bursts,
    strangers,
    _travellers,
    _new_sites,
    _wide_scopes,
    _report_only,
    _failures,
    _unused_keys,
    no_seals,
)
