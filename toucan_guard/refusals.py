"""What a refused client reads: problem details for programs, a plain page for people.

Neither carries a claim's value, key material, exception or driver text, or the allowlist.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import lru_cache
from html import escape
from json.encoder import encode_basestring_ascii
from string import Template
from typing import Final, NamedTuple

from starlette.types import Receive, Scope, Send

from toucan_guard.core.decisions import Deny, Reason

_STYLE: Final = (
    ":root{color-scheme:light dark;--ink:#1d2733;--soft:#5b6876;--paper:#fff;--line:#dde3ea}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e8edf3;--soft:#9aa8b6;--paper:#151b22;--line:#2c3642}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:24px;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{width:100%;max-width:32rem;border:1px solid var(--line);border-radius:12px;padding:28px 32px}"
    "svg{display:block;width:28px;height:28px;margin:0 0 14px;color:var(--soft)}"
    "h1{margin:0 0 8px;font-size:1.25rem;line-height:1.3;text-wrap:balance}"
    "p{margin:0;text-wrap:pretty}"
    "dl{margin:20px 0 0;padding-top:16px;border-top:1px solid var(--line);display:grid;"
    "grid-template-columns:auto 1fr;gap:2px 12px;font-size:.8125rem;color:var(--soft)}"
    "dt,dd{margin:0}"
    "dd{overflow-wrap:anywhere;font-family:ui-monospace,Menlo,Consolas,monospace}"
    # Charts are often embedded in small frames; there, what to do must show without scrolling.
    "@media(max-width:480px),(max-height:380px){body{padding:12px}main{padding:16px 18px}svg{display:none}"
    "h1{font-size:1.0625rem}p{font-size:.9375rem}dl{margin-top:12px;padding-top:10px;font-size:.75rem}}"
    "@media(max-height:220px){body{padding:0 12px}main{border:0;padding:0}dl{margin-top:6px;padding-top:6px}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_ALWAYS: Final = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_LONGEST_KEPT: Final = 256  # characters of a detail
_API_KEY_REASONS: Final = (Reason.API_KEY_MISSING, Reason.API_KEY_INVALID)
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_PAGE_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
_PAGE: Final = Template(
    "<!doctype html>"
    '<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="robots" content="noindex">'
    f"<title>$title</title><style>{_STYLE}</style></head>"
    '<body><main><svg viewBox="0 0 28 28" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" '
    'aria-hidden="true"><path d="M3 3v22h22M9 20v-5M15 20V9M21 20v-8M3 25 25 3"/></svg>'
    "<h1>$title</h1><p>$advice</p>"
    "<dl><dt>Reason</dt><dd>$reason</dd><dt>Reference</dt><dd>$request_id</dd></dl>"
    "</main></body></html>\n"
)


class RefusalResponse(NamedTuple):
    """An answer that is whole when it is made: an ASGI app."""

    status_code: int
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def refusal_response(scope: Scope, decision: Deny, request_id: str) -> RefusalResponse:
    """The answer to a refused request, for either kind of reader.

    401 carries ``WWW-Authenticate: Bearer`` (RFC 6750 §3); the JSON body is RFC 9457's.
    """
    if _prefers_page(scope):
        told = decision.explanation
        page = _PAGE.substitute(
            title=escape(told.title),
            advice=escape(told.advice),
            reason=escape(decision.reason),
            request_id=escape(request_id),
        )
        headers = [
            *_headers(decision),
            (b"content-security-policy", _PAGE_POLICY.encode("ascii")),
            (b"content-type", b"text/html; charset=utf-8"),
        ]
        return _whole(told.status, headers, page.encode())
    # A detail may quote a client; what is short is kept for a while.
    problem = _problem if len(decision.detail) <= _LONGEST_KEPT else _problem.__wrapped__
    status, kept, text = problem(decision.reason, decision.detail, decision.status)
    text += f', "request_id": {encode_basestring_ascii(request_id)}'
    if decision.errors:
        errors = [{"pointer": pointer, "detail": detail} for pointer, detail in decision.errors]
        text += f', "errors": {json.dumps(errors)}'
    return _whole(status, kept, f"{text}}}".encode("ascii"))


@lru_cache(maxsize=256)
def _problem(reason: str, detail: str, status: int | None) -> tuple[int, list[tuple[bytes, bytes]], str]:
    """Status, headers and the beginning of the body: all that is the same for all who are refused like this."""
    decision = Deny(reason, detail, status)
    told = decision.explanation
    problem = {
        "type": f"urn:toucan-guard:reason:{decision.reason}",
        "title": told.title,
        "status": told.status,
        "detail": detail or told.advice,
        "advice": told.advice,
        "reason": decision.reason,
    }
    return told.status, [*_headers(decision), (b"content-type", b"application/problem+json")], json.dumps(problem)[:-1]


def _headers(decision: Deny) -> list[tuple[bytes, bytes]]:
    told = decision.explanation
    if decision.reason in _API_KEY_REASONS:
        # RFC 9110 §15.5.2 demands a challenge; a bearer token is not the answer.
        return [*_ALWAYS, (b"www-authenticate", b"ApiKey")]
    if told.status == 401:
        challenge = f'Bearer error="{told.error}"' if told.error else "Bearer"
        return [*_ALWAYS, (b"www-authenticate", challenge.encode("ascii"))]
    return [*_ALWAYS]


def _whole(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> RefusalResponse:
    return RefusalResponse(status, [*headers, (b"content-length", b"%d" % len(body))], body)


def _prefers_page(scope: Scope) -> bool:
    """Whether a person will look at the answer: a navigation that asks for HTML before JSON."""
    if dict(scope["headers"]).get(b"sec-fetch-mode", b"navigate") != b"navigate":
        return False
    accept = ",".join(value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"accept")
    if "text/html" not in accept:
        return False
    html, other = 0.0, 0.0
    for entry in accept.split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = _quality(parameter[2:])
        if media_type == "text/html":
            html = max(html, quality)
        elif media_type in ("application/json", "application/problem+json"):
            other = max(other, quality)
    return html > other


def _quality(text: str) -> float:
    """The weight of a media type (RFC 9110 §12.4.2); what is no weight counts as none."""
    return float(text) if _QUALITY.fullmatch(text) else 0.0
