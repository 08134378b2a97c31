"""HTML in which nothing that stands in the record can be markup: text is escaped unless it is ``Html``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from toucan_guard.audit.report.words import harmless

_LONGEST_SENTENCES: Final = 4_000  # the names in them are capped one by one


class Html(str):
    """Markup of our own making. Plain text becomes it by ``esc`` alone."""

    __slots__ = ()


def esc(text: str) -> Html:
    """Text as markup that shows it: escaped, and with nothing hidden in it."""
    return text if isinstance(text, Html) else Html(escape(harmless(text), quote=True))


def element(name: str, *children: str, **attributes: str | bool) -> Html:
    """An element; children and values are escaped. ``class_`` is the attribute ``class``, ``data_x`` is ``data-x``."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{esc(value)}"')
        for key, value in attributes.items()
        if not isinstance(value, bool) or value
    )
    return Html(f"<{name}{written}>{''.join(map(esc, children))}</{name}>")


def name(text: str, *, empty: str = "none") -> Html:
    """A name out of the record. Writing from right to left stays within it."""
    if not text:
        return element("span", empty, class_="soft")
    # A long name may break behind a dot.
    return element("bdi", Html(esc(text).replace(".", ".<wbr>")), class_="name")


def words(text: str) -> Html:
    """Sentences of ours, whole however long; what stands between backticks is typed as it stands."""
    parts = [Html(escape(harmless(part, _LONGEST_SENTENCES), quote=True)) for part in text.split("`")]
    return Html("".join(element("code", part) if index % 2 else part for index, part in enumerate(parts)))


def sentence(text: str) -> Html:
    """The same, with a capital and a full stop."""
    text = text if text.startswith("`") else text[:1].upper() + text[1:]
    return words(text if text.endswith((".", "?")) else text + ".")


def lines(*parts: str) -> Html:
    """One below the other."""
    return Html("".join(element("span", part, class_="line") for part in parts if part))


def bar(part: int, whole: int, kind: str = "") -> Html:
    """A lying bar: how much of the whole."""
    width = 100 * part / whole if whole else 0
    return Html(
        f'<svg class="bar {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="track" width="100" height="6"/><rect class="fill" width="{max(width, 0.8 if part else 0):.1f}" '
        'height="6"/></svg>'
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading; on a phone, the label of each cell.
        kind: ``number`` stands at the right; ``main`` is what a row is about; ``wide`` has room.
    """

    title: str
    kind: str = ""


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Html:
    """A table that a phone shows row by row; the first cell of a row is its heading."""
    head = "".join(
        element("th", column.title, scope="col", role="columnheader", class_=column.kind or False) for column in columns
    )
    body = "".join(
        element("tr", Html("".join(_cell(column, cell, first=index == 0) for index, (column, cell) in enumerate(
            zip(columns, row, strict=True)))), role="row")
        for row in rows
    )  # fmt: skip
    return Html(
        f'<table role="table">{element("caption", caption)}'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
    )


def _cell(column: Column, cell: str, *, first: bool) -> Html:
    if first:
        return element("th", cell, scope="row", role="rowheader", class_=column.kind or False)
    # On a phone the label and this box stand beside each other.
    return element("td", element("div", cell), role="cell", class_=column.kind or False, data_label=column.title)
