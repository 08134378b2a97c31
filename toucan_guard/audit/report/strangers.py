"""Notices of whoever was refused every time: a customer with a fault, a site that is not listed, somebody who tries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from toucan_guard.audit.report.figures import Notice, Report, Stranger, StrangerKind
from toucan_guard.audit.report.words import harmless, listed, minute, number, plural, told_of
from toucan_guard.core.decisions import Reason

_MOST_OF_A_KIND: Final = 4
_KINDS: Final[tuple[tuple[StrangerKind, str], ...]] = (("site", "web site"), ("customer", "customer"))
_NOT_LISTED: Final = frozenset({Reason.ORIGIN_NOT_ALLOWED, Reason.EMBEDDER_NOT_ALLOWED})


def strangers(report: Report) -> Iterator[Notice]:
    """A notice for each of the first few sites and customers, one for all others, and one for all addresses."""
    for kind, called in _KINDS:
        refused = [stranger for stranger in report.strangers if stranger.kind == kind]
        for stranger in refused[:_MOST_OF_A_KIND]:
            yield Notice(
                f"always_refused_{kind}",
                "look",
                f"{harmless(stranger.name)} was refused every time ({number(stranger.count)})",
                f"{_why(stranger)} The last time was on {minute(stranger.last)}.",
                _what_it_means(stranger),
            )
        others = refused[_MOST_OF_A_KIND:]
        if others:
            yield Notice(
                f"always_refused_{kind}",
                "look",
                f"{plural(len(others), f'more {called} was', f'more {called}s were')} refused every time",
                f"{listed([harmless(other.name) for other in others])}.",
                "Ask the same of each: whose is it, and should it see charts?",
            )
    clients = [stranger for stranger in report.strangers if stranger.kind == "client"]
    if clients:
        names = listed([f"{harmless(client.name)} ({number(client.count)})" for client in clients])
        yield Notice(
            "always_refused_client",
            "look",
            f"{plural(len(clients), 'address was', 'addresses were')} refused every time",
            f"{names}, naming no web site. {_why(clients[0])} The last time was on {minute(clients[0].last)}.",
            "Nothing was shown. A page was left open, a customer's program has a fault, or somebody tries.",
        )


def _why(stranger: Stranger) -> str:
    reason, count = stranger.reasons[0]
    if _is_not_listed(stranger):
        return "It is not on the list of web sites that may show charts."
    often = "Each time" if count == stranger.count else f"{number(count)} of {number(stranger.count)} times"
    return f"{often} because: {told_of(reason).meaning}."


def _what_it_means(stranger: Stranger) -> str:
    reason, _ = stranger.reasons[0]
    if reason in _NOT_LISTED:
        return (
            "Nothing was shown there. Either a customer has a new site, or somebody tries: add it to ALLOWED_ORIGINS "
            "only if you know whose it is."
        )
    return f"Nothing was shown. If it is a customer, what helps: {told_of(reason).mend}."


def _is_not_listed(stranger: Stranger) -> bool:
    return sum(count for reason, count in stranger.reasons if reason in _NOT_LISTED) == stranger.count
