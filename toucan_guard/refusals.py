"""What a refused client reads: problem details for programs, a plain page for people.

Neither carries a claim's value, key material, exception or driver text, or the allowlist.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from string import Template
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from toucan_guard.core.decisions import Deny

_STYLE: Final = (
    ":root{color-scheme:light dark;--ink:#1d2733;--soft:#5b6876;--paper:#fff;--line:#dde3ea}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e8edf3;--soft:#9aa8b6;--paper:#151b22;--line:#2c3642}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:24px;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:34rem;border:1px solid var(--line);border-radius:12px;padding:28px 32px}"
    "h1{margin:0 0 12px;font-size:1.25rem;line-height:1.3}"
    "p{margin:0 0 12px}"
    "dl{margin:20px 0 0;padding-top:16px;border-top:1px solid var(--line);display:grid;"
    "grid-template-columns:auto 1fr;gap:2px 12px;font-size:.8125rem;color:var(--soft)}"
    "dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,Menlo,Consolas,monospace}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
_PAGE: Final = Template(
    "<!doctype html>"
    '<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="robots" content="noindex">'
    f"<title>$title</title><style>{_STYLE}</style></head>"
    "<body><main><h1>$title</h1><p>$advice</p>"
    "<dl><dt>Reason</dt><dd>$reason</dd><dt>Reference</dt><dd>$request_id</dd></dl>"
    "</main></body></html>\n"
)


def refusal_response(scope: Scope, decision: Deny, request_id: str) -> Response:
    """The answer to a refused request, for either kind of reader.

    401 carries ``WWW-Authenticate: Bearer`` (RFC 6750 §3); the JSON body is RFC 9457's.
    """
    told = decision.explanation
    headers = {"cache-control": "no-store", "referrer-policy": "same-origin", "x-content-type-options": "nosniff"}
    if told.status == 401:
        headers["www-authenticate"] = f'Bearer error="{told.error}"' if told.error else "Bearer"
    if _prefers_page(scope):
        headers["content-security-policy"] = _PAGE_POLICY
        page = _PAGE.substitute(
            title=escape(told.title),
            advice=escape(told.advice),
            reason=escape(decision.reason),
            request_id=escape(request_id),
        )
        return Response(page, told.status, headers, media_type="text/html")
    problem = {
        "type": f"urn:toucan-guard:reason:{decision.reason}",
        "title": told.title,
        "status": told.status,
        "detail": decision.detail or told.advice,
        "advice": told.advice,
        "reason": decision.reason,
        "request_id": request_id,
    }
    return Response(json.dumps(problem), told.status, headers, media_type="application/problem+json")


def _prefers_page(scope: Scope) -> bool:
    """Whether a person will look at the answer: a navigation that asks for HTML before JSON."""
    accept = ""
    for name, value in scope["headers"]:
        if name == b"sec-fetch-mode" and value != b"navigate":
            return False
        if name == b"accept":
            accept += "," + value.decode("latin-1").lower()
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
    whole, _, fraction = text.partition(".")
    if len(text) <= 5 and whole in ("0", "1") and (not fraction or (fraction.isascii() and fraction.isdigit())):
        return float(text)
    return 0.0
