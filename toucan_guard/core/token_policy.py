"""What a token must say to be accepted: type, issuer, audience, longest life, and how its claims are named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from typing import Final

from toucan_guard.core.errors import ConfigError

EMBED: Final = "embed+jwt"
BOOTSTRAP: Final = "embed-bootstrap+jwt"
VERSION: Final = 1

MAX_LEEWAY_SECONDS: Final = 60
MAX_BOOTSTRAP_SECONDS: Final = 60
MAX_TOKEN_BYTES: Final = 8192
RESERVED_CLAIMS: Final = frozenset({"iss", "aud", "sub", "jti", "iat", "exp", "nbf", "ver", "session_seconds"})
FIRST_ISSUED: Final = "first_iat"
# What no claim of ours may be renamed to: the token service could not say when a token was first issued.
TAKEN_CLAIMS: Final = RESERVED_CLAIMS | {FIRST_ISSUED}
FOREIGN: Final = " typ=JWT"
"""Behind the reading of a token that ``insecure_typ_jwt`` let in."""


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Under which names a token carries our claims; identity providers force namespaces upon them.

    Raises:
        ConfigError: Two claims share a name, or a name is empty or a registered claim's.
    """

    tenant: str = "tenant"
    grants: str = "grants"
    rls: str = "rls"
    origins: str = "origins"
    region: str = "region"

    def __post_init__(self) -> None:
        names = {item.name: getattr(self, item.name) for item in fields(self)}
        problems = [
            f"the name of the claim {name!r} must be text, and not one of {', '.join(sorted(TAKEN_CLAIMS))}"
            for name, value in names.items()
            if not _is_text(value) or value in TAKEN_CLAIMS
        ]
        if not problems and len(set(names.values())) != len(names):
            problems.append("two claims have the same name; tenant, grants, rls, origins and region must differ")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What a token must say to be accepted.

    Attributes:
        issuer: The exact ``iss``.
        audiences: ``aud`` must name at least one of these, exactly.
        lifetime_seconds: The longest accepted ``exp - iat``, and the longest remaining life.
        leeway_seconds: Accepted clock skew, at most 60.
        require_tenant: Refuse a token that does not name its tenant.
        claim_names: Remapped claim names.
        insecure_typ_jwt: Accept ``typ: JWT`` as an embed token, for issuers that cannot set a type. Any token that such
            an issuer signs for this audience then opens charts (RFC 8725 §3.11).
        max_token_bytes: Longer tokens are refused unread.
        development: Accept http and localhost in a token's ``origins``.
        reading: What of this shapes the claims that are read: tokens and sessions that were read otherwise say
            something else here. Empty for the usual one.

    Raises:
        ConfigError: With every problem.
    """

    issuer: str
    audiences: tuple[str, ...]
    lifetime_seconds: int = 3600
    leeway_seconds: int = 30
    require_tenant: bool = True
    claim_names: ClaimNames = field(default_factory=ClaimNames)
    insecure_typ_jwt: bool = False
    max_token_bytes: int = MAX_TOKEN_BYTES
    development: bool = False
    reading: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problems = []
        if not _is_text(self.issuer):
            problems.append("the issuer must be the exact text of the tokens' iss, not empty")
        audiences: object = self.audiences
        if isinstance(audiences, str) or not isinstance(audiences, Iterable):
            problems.append("the audiences must be a collection of strings, not one string")
        else:
            object.__setattr__(self, "audiences", tuple(audiences))
            if not self.audiences or not all(_is_text(audience) for audience in self.audiences):
                problems.append("at least one audience is needed, and none may be empty")
        if not _is_count(self.lifetime_seconds) or self.lifetime_seconds < 1:
            problems.append("the token lifetime must be a whole number of seconds, 1 or more")
        if not _is_count(self.leeway_seconds) or not 0 <= self.leeway_seconds <= MAX_LEEWAY_SECONDS:
            problems.append(f"the leeway must be a whole number of seconds from 0 to {MAX_LEEWAY_SECONDS}")
        if not _is_count(self.max_token_bytes) or not 1 <= self.max_token_bytes <= 1_048_576:
            problems.append("the longest token must have from 1 to 1048576 bytes")
        if problems:
            raise ConfigError(problems)
        if self.development or self.claim_names != _USUAL_NAMES:
            object.__setattr__(self, "reading", repr((self.development, *astuple(self.claim_names))))

    def reads_alike(self, reading: str) -> bool:
        """Whether claims that were read so are what this policy would have read.

        Args:
            reading: Of another policy, with ``FOREIGN`` behind it where the token's type was another issuer's.
        """
        return reading == self.reading or (self.insecure_typ_jwt and reading == self.reading + FOREIGN)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_USUAL_NAMES: Final = ClaimNames()
