"""The report as one page of HTML that needs nothing else: no script, no font, no address of anybody's.

Its own Content-Security-Policy allows its style sheet, by its hash, and nothing more. It is written for a security
officer's screen, a board's paper, and a phone.
"""

from __future__ import annotations

from typing import Final

from toucan_guard.audit.report import over_time, reason_sections, sections, token_sections
from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.headline import counting, covered, headline, tiles, verdict
from toucan_guard.audit.report.markup import Html, element, words
from toucan_guard.audit.report.parts import icon
from toucan_guard.audit.report.style import POLICY, STYLE
from toucan_guard.audit.report.words import listed, minute, number, plural

_CONTENTS: Final = (
    ("attention", "What to look at"),
    ("time", "Over time"),
    ("reasons", "Reasons"),
    ("sites", "Web sites"),
    ("scopes", "Scopes"),
    ("tokens", "Tokens"),
    ("keys", "Keys"),
    ("customers", "Customers"),
    ("filters", "Row filters"),
    ("regions", "Regions"),
    ("trial", "On trial"),
    ("gaps", "Gaps"),
    ("genuine", "Genuine?"),
)


def page(report: Report) -> str:
    """The whole page."""
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title in _CONTENTS]
    state = verdict(report)
    header = element(
        "header",
        element("p", f"Embed security report · {covered(report)}", class_="over"),
        element("h1", headline(report)),
        element("div", icon(state.level), element("p", element("strong", state.title), state.text),
                class_=f"verdict {state.level}"),
        _tiles(report),
        element("p", words(counting(report)), class_="counting") if counting(report) else "",
        element("nav", element("ul", *links), aria_label="Contents"),
    )  # fmt: skip
    aside = element("div", token_sections.filters(report), token_sections.regions(report))
    main = element(
        "main",
        sections.attention(report),
        over_time.timeline(report),
        reason_sections.reasons(report),
        reason_sections.failures(report),
        sections.sites(report),
        sections.people(report),
        token_sections.scopes(report),
        token_sections.tokens(report),
        token_sections.keys(report),
        token_sections.customers(report),
        element("div", aside, sections.gaps(report), class_="two"),
        reason_sections.trial(report),
        sections.genuine(report),
    )  # fmt: skip
    body = element("div", header, main, _footer(report), class_="page")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
        f"{element('title', f'Embed security report, {covered(report)}')}<style>{STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _tiles(report: Report) -> Html:
    return element(
        "dl",
        *(
            element("div", element("dt", tile.label), element("dd", tile.value, element("small", tile.more)),
                    class_="bad" if tile.bad else False)
            for tile in tiles(report)
        ),
        class_="tiles",
    )  # fmt: skip


def _footer(report: Report) -> Html:
    source = report.source
    unread = {file.file for file in source.unread}
    files = [f"{file} (not read to its end)" if file in unread else file for file in source.files]
    before = f", {number(source.before)} of them from before this time" if source.before else ""
    return element(
        "footer",
        element(
            "p",
            f"All times are UTC. Made on {minute(report.made)} from {plural(source.lines, 'line')}{before} of "
            f"{listed(files) if files else 'no file'}.",
        ),
        element(
            "p",
            "A token is the pass that a customer's server gives to a viewer. A scope is all that it opens. "
            "A web site is counted by its origin, as browsers name it.",
        ),
    )
