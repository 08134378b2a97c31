"""The frame-ancestors header that we send: who may frame a response.

Three rules shape this file. We add a Content-Security-Policy field of our own
and never edit the app's, because browsers enforce every policy, so that an added
one can only narrow. Every source is checked when it is configured, because one
bad byte makes browsers drop the whole directive and opens the frame. And an
X-Frame-Options of the app is folded into our list, because browsers ignore it as
soon as there is an enforced frame-ancestors: adding ours beside ``DENY`` would
open the page.

Our list is written in ``core/frame_ancestors.py``; how a browser reads other people's headers is in
``core/csp_meaning.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from toucan_guard.core.csp_meaning import (
    ASCII_WHITESPACE,
    FRAME_ANCESTORS,
    Framing,
    SourceList,
    effective,
    parse_source_list,
    subsumes,
)
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.frame_ancestors import CSP, NONE, X_FRAME_OPTIONS, FrameAncestors, Header
from toucan_guard.core.origin_grammar import Origin

__all__ = [
    "NONE",
    "FrameAncestors",
    "Framing",
    "Header",
    "SourceList",
    "effective",
    "outgoing_headers",
    "parse_source_list",
    "subsumes",
]

_CSP_REPORT_ONLY: Final = b"content-security-policy-report-only"
_FRAMING_HEADERS: Final = frozenset({CSP, X_FRAME_OPTIONS})
_REPORT_URI: Final = re.compile(r"[!-+\--:<-~]+")  # printable ASCII without a space, a comma or a semicolon
_SPACES: Final = ASCII_WHITESPACE.encode("ascii")
_SPACE: Final = re.compile(rb"[" + _SPACES + rb"]")


def outgoing_headers(
    headers: Iterable[Header],
    ours: FrameAncestors,
    *,
    framing: Literal["narrow", "sole"] = "narrow",
    report_only: bool = False,
    report_uri: str | None = None,
    self_origins: frozenset[Origin] = frozenset(),
) -> list[Header]:
    """The headers of a response with our framing policy added.

    Args:
        headers: What the app sends; left as it is.
        ours: Who may frame this response.
        framing: ``narrow`` lets the app's own rules count as well. ``sole`` removes them: the app's frame-ancestors
            directives (the rest of its policies stays, byte by byte) and X-Frame-Options.
        report_only: Add our policy as a report only, and leave the app's headers alone.
        report_uri: Where browsers send those reports.
        self_origins: Who we are, to see whether an app's SAMEORIGIN and our list have anybody in common.

    Returns:
        A new list.

    Raises:
        ConfigError: Where ``report_uri`` would end the directive or the header.
    """
    if report_only:
        return [*headers, (_CSP_REPORT_ONLY, _report_only_value(ours, report_uri))]
    found = list(headers)
    for name, _ in found:
        if name.lower() in _FRAMING_HEADERS:
            break
    else:
        return [*found, *ours.headers]  # the common case: the app says nothing about framing
    kept = [(name, value) for name, value in found if name.lower() != X_FRAME_OPTIONS]
    if framing == "sole":
        return [*_without_frame_ancestors(kept), *ours.headers]
    theirs = effective(_values(found, CSP), _values(found, X_FRAME_OPTIONS))
    if not theirs.lists:
        # Ours will be the only enforced list, so browsers would no longer look at their X-Frame-Options.
        if theirs.frame_options == "deny":
            ours = NONE
        elif theirs.frame_options == "sameorigin":
            ours = ours.same_origin_only(self_origins)
    return [*kept, *ours.headers]


def _report_only_value(ours: FrameAncestors, report_uri: str | None) -> bytes:
    if report_uri is None:
        return ours.header_value.encode("ascii")
    if _REPORT_URI.fullmatch(report_uri) is None:
        raise ConfigError(
            "TOUCAN_GUARD_FRAME_REPORT_URI is a URL in ASCII without spaces, commas and semicolons; escape them"
        )
    return f"{ours.header_value}; report-uri {report_uri}".encode("ascii")


def _values(headers: list[Header], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name.lower() == wanted]


def _without_frame_ancestors(headers: list[Header]) -> Iterator[Header]:
    for name, value in headers:
        if name.lower() != CSP:
            yield name, value
            continue
        policies = value.split(b",")
        kept = [_policy_without_frame_ancestors(policy) for policy in policies]
        if kept == policies:
            yield name, value
        elif rest := b",".join(filter(None, kept)):
            yield name, rest


def _policy_without_frame_ancestors(policy: bytes) -> bytes:
    directives = policy.split(b";")
    kept = [directive for directive in directives if not _is_frame_ancestors(directive)]
    return policy if len(kept) == len(directives) else b";".join(kept).strip(_SPACES + b";")


def _is_frame_ancestors(directive: bytes) -> bool:
    # A vertical tab is no space in the specification, but one to Chromium at the ends of a directive.
    name = _SPACE.split(directive.strip(_SPACES + b"\v"), maxsplit=1)[0]
    return name.lower() == FRAME_ANCESTORS.encode("ascii")
