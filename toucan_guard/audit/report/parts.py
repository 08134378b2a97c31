"""What the sections of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toucan_guard.audit.report.figures import Listing
from toucan_guard.audit.report.markup import Html, element, lines, name
from toucan_guard.audit.report.words import plural

ROWS: Final = 15  # of a table; what is left out is counted below it
_ICONS: Final = {
    "act": '<path d="M12 3 2.5 20h19L12 3Z"/><path d="M12 10v4.5M12 17.4v.1"/>',
    "look": '<circle cx="12" cy="12" r="9.2"/><path d="M12 7.5v5.2M12 16.2v.1"/>',
    "calm": '<circle cx="12" cy="12" r="9.2"/><path d="m8 12.3 2.8 2.8 5.4-6"/>',
}


def icon(level: str) -> Html:
    """A sign beside what is also said in words."""
    return Html(
        '<svg class="mark" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{_ICONS[level]}</svg>'
    )


def section(anchor: str, title: str, *content: str) -> Html:
    """A section with its heading."""
    return element("section", element("h2", title, id=anchor), *content, aria_labelledby=anchor)


def fact_list(facts: Sequence[tuple[str, str]]) -> Html:
    return element("dl", *(element(tag, text) for fact in facts for tag, text in zip(("dt", "dd"), fact, strict=True)),
                   class_="facts")  # fmt: skip


def several(names: Sequence[str]) -> Html:
    if not names:
        return element("span", "none", class_="soft")
    more = len(names) - 2
    return lines(*map(name, names[:2]), element("span", f"and {more} more", class_="soft") if more > 0 else "")


def counted(listing: Listing, one: str) -> str:
    return f"more than {plural(listing.names, one)}" if listing.overflowed else plural(listing.names, one)


def left_out(more: int, one: str, requests: int = 0, *, many: str | None = None) -> Html:
    if more <= 0:
        return Html("")
    counted = f", with {plural(requests, 'request')}" if requests else ""
    return element("p", f"And {plural(more, one, many)} more{counted}; --json lists up to 200.")


def overflow(listing: Listing, many: str) -> Html:
    if not listing.overflowed:
        return Html("")
    return element(
        "p",
        f"There were more {many} than could be kept apart. Those with the most are certain to be here; where a number "
        f"is given as “from … to …”, some of the first requests may be missing. "
        f"{plural(listing.others, 'request')} of other {many} are counted together.",
    )
