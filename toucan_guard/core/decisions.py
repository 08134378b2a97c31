"""What a layer decides: ``Allow``, or ``Deny`` with a reason.

Both are frozen and neither may be used as a boolean, so that nobody writes
``if decision:`` and lets every refusal pass. The table at the end says of each
reason what the client is told: a status, a title, and one sentence in everyday
words that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NoReturn

_NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


class Reason(StrEnum):
    """Why a request was refused. Append-only: a published value never changes its meaning."""

    # Origin (core/origins.py)
    ORIGIN_REPEATED = "origin_repeated"
    ORIGIN_MALFORMED = "origin_malformed"
    ORIGIN_NULL = "origin_null"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    ORIGIN_MISSING = "origin_missing"
    FETCH_SITE_CONFLICT = "fetch_site_conflict"
    EMBEDDER_NOT_ALLOWED = "embedder_not_allowed"
    EMBEDDER_UNKNOWN = "embedder_unknown"
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    PREFLIGHT_NOT_ALLOWED = "preflight_not_allowed"

    # Token (core/token.py)
    TOKEN_MISSING = "token_missing"
    CREDENTIALS_REPEATED = "credentials_repeated"
    TOKEN_TOO_LARGE = "token_too_large"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_TYPE_NOT_ALLOWED = "token_type_not_allowed"
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE_INVALID = "signature_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_LIFETIME_TOO_LONG = "token_lifetime_too_long"
    ISSUER_NOT_ALLOWED = "issuer_not_allowed"
    AUDIENCE_NOT_ALLOWED = "audience_not_allowed"
    CLAIM_MISSING = "claim_missing"
    CLAIM_INVALID = "claim_invalid"

    # Bootstrap tokens and embed sessions (tokens/sessions.py)
    BOOTSTRAP_NOT_NAVIGATION = "bootstrap_not_navigation"
    TOKEN_SPENT = "token_spent"
    SESSION_UNKNOWN = "session_unknown"
    SESSION_AMBIGUOUS = "session_ambiguous"
    SESSION_NOT_SAME_ORIGIN = "session_not_same_origin"

    # Revocation (tokens/revocation.py)
    TOKEN_REVOKED = "token_revoked"

    # Tenancy
    ORIGINS_MISSING = "origins_missing"
    TOKEN_ORIGIN_NOT_ALLOWED = "token_origin_not_allowed"
    TENANT_ORIGIN_NOT_ALLOWED = "tenant_origin_not_allowed"
    REGION_MISMATCH = "region_mismatch"

    # Row-level security (core/rls_policy.py)
    RLS_MISSING = "rls_missing"
    RLS_ATTRIBUTE_UNKNOWN = "rls_attribute_unknown"
    RLS_ATTRIBUTE_MISSING = "rls_attribute_missing"
    RLS_ATTRIBUTE_INVALID = "rls_attribute_invalid"

    # Receipts (receipts.py)
    ROW_FILTER_MISSING = "row_filter_missing"

    # Grants (core/grants.py)
    GRANT_MISSING = "grant_missing"

    # The token service (token_service.py)
    API_KEY_MISSING = "api_key_missing"
    API_KEY_INVALID = "api_key_invalid"
    API_KEY_EXPOSED = "api_key_exposed"
    API_KEY_LIMIT = "api_key_limit"
    TOKEN_REQUEST_INVALID = "token_request_invalid"
    REFRESH_NOT_ALLOWED = "refresh_not_allowed"

    # Something that the guard needs does not answer: it stays closed
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    APP_FAILED = "app_failed"
    KEYS_UNAVAILABLE = "keys_unavailable"

    # The request itself (layers/admission.py)
    REQUEST_MALFORMED = "request_malformed"


@dataclass(frozen=True, slots=True)
class Allow:
    """The layer lets the request pass.

    Attributes:
        facts: What was established on the way, for the audit record (small strings, no secrets).
    """

    facts: Mapping[str, str] = field(default_factory=lambda: _NO_FACTS)

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision is not a boolean: use isinstance(decision, Deny)")


ALLOW: Final = Allow()
"""Yes, and nothing to add."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The layer refuses the request.

    Attributes:
        reason: A member of ``Reason``, or a reason of the host's own: ``x_`` and a name, 64 characters at most.
        detail: One sentence for developers; never a claim's value, key material or the allowlist.
        status: HTTP status of an own ``x_…`` reason; the table's status otherwise.
        facts: What was established before the refusal, for the audit record. The fact ``cause`` stands there in the
            place of a detail that tells the client less.
        errors: Every mistake of a request that can have several: a JSON pointer and a sentence each (RFC 9457 §3.1.3).
    """

    reason: str
    detail: str = ""
    status: int | None = None
    facts: Mapping[str, str] = field(default_factory=lambda: _NO_FACTS)
    errors: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.reason, Reason):
            given: object = self.reason  # typed as text, but hosts give their own
            if isinstance(given, str) and given in _BY_VALUE:
                object.__setattr__(self, "reason", _BY_VALUE[given])
            elif not isinstance(given, str) or _OWN_NAME.fullmatch(given) is None:
                raise ValueError("a reason is a member of Reason, or a name of your own such as x_office_hours")
            elif type(given) is not str:
                # A host's own enumeration: its members equal their texts, and some of them print otherwise.
                object.__setattr__(self, "reason", str.__str__(given))
        if self.status is not None and not 400 <= self.status <= 599:
            raise ValueError("a refusal has a status from 400 to 599")

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision is not a boolean: use isinstance(decision, Deny)")

    @property
    def explanation(self) -> Explanation:
        """What the client is told about this refusal."""
        told = EXPLANATIONS[self.reason] if isinstance(self.reason, Reason) else _OWN_REASON
        if self.status is None or self.status == told.status:
            return told
        return Explanation(self.status, told.title, told.advice, told.error)


Decision = Allow | Deny


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a refused client is told.

    Attributes:
        status: HTTP status code.
        title: A few everyday words.
        advice: One sentence that says what to do, for readers who are no developers.
        error: RFC 6750 §3.1 error code for ``WWW-Authenticate``, or None for none.
    """

    status: int
    title: str
    advice: str
    error: str | None = None


_ASK_SITE = "Please tell the people who run the web site you came from, and give them the reference."
_ELSE_ASK_SITE = (
    "If that does not help, please tell the people who run the web site you came from, and give them the reference."
)
_ASK_HOST = "Please tell the people who run the server that asked, and give them the reference."
_RELOAD = "Reload the page that you came from to get a new pass."

_NOT_LISTED = Explanation(
    403,
    "This page may not show this chart",
    f"The web site that asks is not on the list of sites that may. {_ASK_SITE}",
)
_BAD_TOKEN = Explanation(401, "The pass for this chart is not valid", f"{_RELOAD} {_ELSE_ASK_SITE}", "invalid_token")
_WRONG_ROWS = Explanation(
    403,
    "The pass for this chart does not say whose data to show",
    f"Nothing is shown, so that nobody sees somebody else's data. {_ASK_SITE}",
)

EXPLANATIONS: Final[Mapping[Reason, Explanation]] = MappingProxyType(
    {
        Reason.ORIGIN_REPEATED: _NOT_LISTED,
        Reason.ORIGIN_MALFORMED: _NOT_LISTED,
        Reason.ORIGIN_NULL: _NOT_LISTED,
        Reason.ORIGIN_NOT_ALLOWED: _NOT_LISTED,
        Reason.ORIGIN_MISSING: _NOT_LISTED,
        Reason.FETCH_SITE_CONFLICT: _NOT_LISTED,
        Reason.EMBEDDER_NOT_ALLOWED: _NOT_LISTED,
        Reason.EMBEDDER_UNKNOWN: Explanation(
            403,
            "We cannot tell which page asks for this chart",
            "The page that shows this chart must say where it is: its frame needs "
            'referrerpolicy="strict-origin". ' + _ASK_SITE,
        ),
        Reason.DESTINATION_NOT_ALLOWED: Explanation(
            403, "This chart cannot be shown in this way", f"It may be shown in a frame only. {_ASK_SITE}"
        ),
        Reason.PREFLIGHT_NOT_ALLOWED: Explanation(
            403,
            "This kind of request is not allowed from another site",
            f"The method or a header that was asked for is not allowed. {_ASK_SITE}",
        ),
        Reason.TOKEN_MISSING: Explanation(
            401,
            "A pass is needed to see this chart",
            f"Open the chart from the page that it belongs to. {_ELSE_ASK_SITE}",
        ),
        Reason.CREDENTIALS_REPEATED: Explanation(
            400, "More than one pass was sent", f"Exactly one pass may be sent. {_ASK_SITE}", "invalid_request"
        ),
        Reason.TOKEN_TOO_LARGE: _BAD_TOKEN,
        Reason.TOKEN_MALFORMED: _BAD_TOKEN,
        Reason.TOKEN_TYPE_NOT_ALLOWED: _BAD_TOKEN,
        Reason.ALGORITHM_NOT_ALLOWED: _BAD_TOKEN,
        Reason.KEY_UNKNOWN: _BAD_TOKEN,
        Reason.SIGNATURE_INVALID: _BAD_TOKEN,
        Reason.TOKEN_EXPIRED: Explanation(401, "The pass for this chart has run out", _RELOAD, "invalid_token"),
        Reason.TOKEN_NOT_YET_VALID: Explanation(
            401,
            "The pass for this chart is not valid yet",
            f"A clock may be wrong. Wait a minute and reload. {_ELSE_ASK_SITE}",
            "invalid_token",
        ),
        Reason.TOKEN_LIFETIME_TOO_LONG: _BAD_TOKEN,
        Reason.ISSUER_NOT_ALLOWED: _BAD_TOKEN,
        Reason.AUDIENCE_NOT_ALLOWED: _BAD_TOKEN,
        Reason.CLAIM_MISSING: _BAD_TOKEN,
        Reason.CLAIM_INVALID: _BAD_TOKEN,
        Reason.BOOTSTRAP_NOT_NAVIGATION: Explanation(
            401,
            "This pass works only for opening a chart in a frame",
            f"It was sent with another kind of request. {_ASK_SITE}",
            "invalid_token",
        ),
        Reason.TOKEN_SPENT: Explanation(
            401,
            "The pass for this chart was used already",
            f"Each pass opens one chart once. {_RELOAD}",
            "invalid_token",
        ),
        Reason.SESSION_UNKNOWN: Explanation(401, "The pass for this chart has run out", _RELOAD, "invalid_token"),
        Reason.SESSION_AMBIGUOUS: Explanation(
            400,
            "Several charts are open and this request does not say which one it belongs to",
            "Requests from a chart's page must carry its embed parameter. " + _ASK_SITE,
            "invalid_request",
        ),
        Reason.SESSION_NOT_SAME_ORIGIN: Explanation(
            401,
            "A pass is needed to see this chart",
            f"The pass of an open chart cannot be used from another page. {_RELOAD}",
            "invalid_token",
        ),
        Reason.TOKEN_REVOKED: Explanation(
            401, "The pass for this chart was withdrawn", f"It does not work any more. {_ASK_SITE}", "invalid_token"
        ),
        Reason.ORIGINS_MISSING: Explanation(
            403,
            "The pass for this chart does not say where it may be shown",
            f"It must name the web sites that may show it. {_ASK_SITE}",
        ),
        Reason.TOKEN_ORIGIN_NOT_ALLOWED: Explanation(
            403, "This pass belongs to another web site", f"It may not be used from the page that sent it. {_ASK_SITE}"
        ),
        Reason.TENANT_ORIGIN_NOT_ALLOWED: Explanation(
            403,
            "This customer's charts may not be shown on this web site",
            f"The web site is not on this customer's list. {_ASK_SITE}",
        ),
        Reason.REGION_MISMATCH: Explanation(
            403,
            "This pass belongs to another region",
            f"The data stays in its region, and this server is in another one. {_ASK_SITE}",
        ),
        Reason.RLS_MISSING: _WRONG_ROWS,
        Reason.RLS_ATTRIBUTE_UNKNOWN: _WRONG_ROWS,
        Reason.RLS_ATTRIBUTE_MISSING: _WRONG_ROWS,
        Reason.RLS_ATTRIBUTE_INVALID: _WRONG_ROWS,
        Reason.ROW_FILTER_MISSING: Explanation(
            500,
            "Something went wrong",
            "The chart was made without checking whose numbers are in it, so it is not shown. " + _ASK_SITE,
        ),
        Reason.GRANT_MISSING: Explanation(
            403, "This pass does not open this chart", f"It opens other charts, or allows less. {_ASK_SITE}"
        ),
        Reason.API_KEY_MISSING: Explanation(
            401, "An API key is needed", f"It belongs into the header x-api-key. {_ASK_HOST}"
        ),
        Reason.API_KEY_INVALID: Explanation(401, "The API key is not valid", _ASK_HOST),
        Reason.API_KEY_EXPOSED: Explanation(
            403,
            "An API key was sent from a web browser",
            "It must never leave the server that it was made for, and should be replaced now. " + _ASK_SITE,
        ),
        Reason.API_KEY_LIMIT: Explanation(
            403, "The API key does not allow this", f"It asked for more than it may give away. {_ASK_HOST}"
        ),
        Reason.TOKEN_REQUEST_INVALID: Explanation(
            400, "The request for a pass has mistakes", f"The answer names them. {_ASK_HOST}"
        ),
        Reason.REFRESH_NOT_ALLOWED: Explanation(403, "This pass cannot be renewed", _RELOAD),
        Reason.STORE_UNAVAILABLE: Explanation(
            503, "The service is not ready", "It cannot check passes at this moment. Please try again in a minute."
        ),
        Reason.AUDIT_UNAVAILABLE: Explanation(
            503, "The service is not ready", "It cannot keep its records at this moment. Please try again in a minute."
        ),
        Reason.APP_FAILED: Explanation(
            500,
            "Something went wrong",
            "The chart could not be made. Please try again in a minute. If it fails again, give the reference to the "
            "people who run the web site you came from.",
        ),
        Reason.KEYS_UNAVAILABLE: Explanation(
            503, "The service is not ready", "It cannot check passes at this moment. Please try again in a minute."
        ),
        Reason.REQUEST_MALFORMED: Explanation(
            400, "The request cannot be read", f"It came in a form that no web server hands on. {_ASK_HOST}"
        ),
    }
)

_OWN_NAME: Final = re.compile(r"x_[A-Za-z0-9_]{1,62}")
_OWN_REASON: Final = Explanation(403, "This is not allowed here", _ASK_SITE)
_BY_VALUE: Final[Mapping[str, Reason]] = {reason.value: reason for reason in Reason}
