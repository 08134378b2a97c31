"""The body of ``POST /embed/generate-token``: what a host asks for, judged as a whole.

Its shape is the reference product's, and what our tokens need besides::

    {
      "user": {"distinctId": "u-17", "role": "explorer", "attributes": {"carrier": "AA"}},
      "permissions": [{"type": "dashboard", "id": "delays", "actions": ["view"]}],
      "tenant": "AA",
      "origins": ["https://portal.example"],
      "lifetimeSeconds": 300,
      "frame": true,
      "sessionSeconds": 900
    }

``distinctId`` becomes ``sub``, ``attributes`` become ``rls``, ``permissions`` become ``grants``; a ``role`` is a name
for grants that the API key's entry spells out. What is absent is the narrowest that the key allows; null is absent. A
member that is not known is a mistake: a misspelt restriction must not become a wider token.

Every mistake is told at once, each with its place, so that it fails at the host and not in a customer's browser.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel

from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.attribute_policy import AttributePolicy
from toucan_guard.core.errors import ConfigError, MintError
from toucan_guard.core.grants import Grant
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.strict_json import strict_json

MAX_BODY_BYTES: Final = 16_384  # a token has 8 KiB at most
DEFAULT_LIFETIME_SECONDS: Final = 300
DEFAULT_SESSION_SECONDS: Final = 900
_MAX_MISTAKES: Final = 50
_MAX_ITEMS: Final = 200
_NO_BODY: Final = "the body must be one JSON object in UTF-8, without repeated members"


@dataclass(frozen=True, slots=True)
class MintingRules:
    """What a request of one API key is judged by.

    Attributes:
        limits: The key's own limits.
        roles: The key's roles: name to grants.
        policy: The deployment's row rules; None where they are switched off.
        allowlist: The deployment's origins.
        lifetime_seconds: The deployment's longest token.
        require_tenant: A token must name its tenant.
        frames: Whether the deployment takes bootstrap tokens.
        development: Whether ``http`` and loopback origins are in order.
    """

    limits: ApiKeyLimits
    roles: Mapping[str, tuple[Grant, ...]]
    policy: AttributePolicy | None
    allowlist: OriginAllowlist
    lifetime_seconds: int
    require_tenant: bool = True
    frames: bool = True
    development: bool = False

    @property
    def longest(self) -> int:
        """How long a token of this key lives at most."""
        return min(self.limits.lifetime_seconds or self.lifetime_seconds, self.lifetime_seconds)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a body.

    Attributes:
        pointer: Where, as a JSON pointer (RFC 6901); empty for the whole.
        detail: One sentence without any value of the body.
        beyond_limits: The key may not ask for this; the rest are mistakes of form.
    """

    pointer: str
    detail: str
    beyond_limits: bool = False


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a host asks for, within the limits of its key.

    Attributes:
        subject: The host's own user id.
        tenant: The customer organisation, or None.
        grants: The objects that the token opens.
        rls: The row-level attributes; None where the deployment has no row rules.
        origins: Where it may be embedded; None for wherever the guard allows.
        lifetime_seconds: How long it lives.
        session_seconds: How long a frame's session lasts; None where no bootstrap token is asked for.
    """

    subject: str
    tenant: str | None
    grants: tuple[Grant, ...]
    rls: Mapping[str, object] | None = field(repr=False)
    origins: tuple[str, ...] | None
    lifetime_seconds: int
    session_seconds: int | None


def read_token_request(body: bytes, rules: MintingRules) -> TokenRequest | tuple[Mistake, ...]:
    """Read and judge a body.

    Returns:
        The request, or every mistake in it (the first 50).

    Never raises for any bytes.
    """
    try:
        content = strict_json(body)
    except ValueError:
        return (Mistake("", _NO_BODY),)
    if not isinstance(content, dict):
        return (Mistake("", _NO_BODY),)
    try:
        read = _Body.model_validate(content, context=rules)
    except ValidationError as error:
        return tuple(islice(_mistakes(error), _MAX_MISTAKES))
    return _request(read, rules)


def _request(body: _Body, rules: MintingRules) -> TokenRequest:
    limits, user = rules.limits, body.user
    named = () if user.role is None else rules.roles[user.role]
    granted = (*named, *(_grant(item) for item in body.permissions or ()))
    origins = limits.origins if body.origins is None else _allowlist(body.origins, rules)
    # What nobody asked for is short: a page can ask again, and a token that was passed on soon ends.
    usual = limits.lifetime_seconds or DEFAULT_LIFETIME_SECONDS
    session = None
    if body.frame:
        session = body.session_seconds or min(DEFAULT_SESSION_SECONDS, rules.longest)
    return TokenRequest(
        subject=user.distinct_id,
        tenant=_only_tenant(limits) if body.tenant is None else body.tenant,
        grants=tuple(dict.fromkeys(granted)),
        rls=None if rules.policy is None else user.attributes or {},
        origins=None if origins is None else origins.entries,
        lifetime_seconds=body.lifetime_seconds or min(usual, rules.longest),
        session_seconds=session,
    )


def _only_tenant(limits: ApiKeyLimits) -> str | None:
    """The tenant of a key that has just one, which need not be said."""
    return limits.tenants[0] if limits.tenants is not None and len(limits.tenants) == 1 else None


def _allowlist(origins: Iterable[str], rules: MintingRules) -> OriginAllowlist:
    return OriginAllowlist.parse(origins, development=rules.development)


# The rules of single members. Each yields sentences and whether the key's limits, and not the form, are hurt.
_Problems = Iterable[tuple[str, bool]]


class _RuledError(ValueError):
    """A member hurts its rule; pydantic hands this on as the cause."""

    def __init__(self, problems: tuple[tuple[str, bool], ...]) -> None:
        super().__init__("a rule of this service")
        self.problems = problems


def _ruled(rule: Callable[[Any, MintingRules, Mapping[str, Any]], _Problems]) -> AfterValidator:
    """Judge a member by the rules that the validation was begun with."""

    def judge(value: Any, info: ValidationInfo) -> Any:
        rules: Any = info.context  # given at every validation here
        problems = tuple(rule(value, rules, info.data))
        if problems:
            raise _RuledError(problems)
        return value

    return AfterValidator(judge)


def _text_rule(value: str | None, _: MintingRules, __: Mapping[str, Any]) -> _Problems:
    if value is not None and not value.isprintable():
        yield "must not hold a control character", False


def _role_rule(role: str | None, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    if role is not None and role not in rules.roles:
        yield "this API key has no role of this name: name permissions, or have the role added to the key", True


def _attributes_rule(attributes: dict[str, Any] | None, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    given = attributes or {}
    if rules.policy is not None:
        yield from ((problem, False) for problem in rules.policy.problems(given))
    elif given:
        yield "this deployment has no row-level policy, so that attributes would limit nothing", False
    for name, value in given.items():
        yield from ((problem, True) for problem in rules.limits.attribute_problems(name, value))


def _permission_rule(permission: _Permission, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    try:
        grant = _grant(permission)
    except MintError as error:
        yield from ((problem, False) for problem in error.problems)
    else:
        yield from ((problem, True) for problem in rules.limits.grant_problems(grant))


def _tenant_rule(tenant: str | None, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    meant = _only_tenant(rules.limits) if tenant is None else tenant
    if meant is None and rules.require_tenant:
        yield "is missing", False
    elif meant is not None or rules.limits.tenants is not None:
        yield from ((problem, True) for problem in rules.limits.tenant_problems(meant))


def _origin_rule(origin: str, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    try:
        named = _allowlist([origin], rules)
    except ConfigError:  # its sentence would repeat the value
        yield "must be an origin such as https://portal.example", False
        return
    if not rules.allowlist.covers(named):
        yield "is not among the origins of this deployment, so that the token could not be used there", False
    else:
        yield from ((problem, True) for problem in rules.limits.origin_problems(named))


def _lifetime_rule(seconds: int | None, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    if seconds is not None and seconds > rules.longest:
        yield f"must be at most {rules.longest}", True


def _frame_rule(frame: object, rules: MintingRules, _: Mapping[str, Any]) -> _Problems:
    if frame and not rules.frames:
        yield "this deployment opens no embed sessions (TOUCAN_GUARD_TOKEN_CARRIERS)", False


def _session_rule(seconds: int | None, _: MintingRules, others: Mapping[str, Any]) -> _Problems:
    if seconds is not None and others.get("frame", True) is not True:
        yield 'is for "frame": true only', False


_Text = Annotated[str, Field(min_length=1, max_length=256), _ruled(_text_rule)]
_MaybeText = Annotated[str | None, Field(min_length=1, max_length=256), _ruled(_text_rule)]
_Seconds = Annotated[int | None, Field(ge=1), _ruled(_lifetime_rule)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        validate_default=True,
    )


class _User(_Strict):
    distinct_id: _Text
    role: Annotated[_MaybeText, _ruled(_role_rule)] = None
    attributes: Annotated[dict[str, JsonValue] | None, Field(max_length=_MAX_ITEMS), _ruled(_attributes_rule)] = None


class _Permission(_Strict):
    type: str
    id: str
    actions: Annotated[list[str], Field(max_length=_MAX_ITEMS)]


class _Body(_Strict):
    user: _User
    permissions: Annotated[
        list[Annotated[_Permission, _ruled(_permission_rule)]] | None, Field(max_length=_MAX_ITEMS)
    ] = None
    tenant: Annotated[_MaybeText, _ruled(_tenant_rule)] = None
    origins: Annotated[list[Annotated[str, _ruled(_origin_rule)]] | None, Field(max_length=_MAX_ITEMS)] = None
    lifetime_seconds: _Seconds = None
    frame: Annotated[bool | None, _ruled(_frame_rule)] = None
    session_seconds: Annotated[_Seconds, _ruled(_session_rule)] = None


_MEMBERS: Final = tuple(sorted(to_camel(name) for model in (_Body, _User, _Permission) for name in model.model_fields))
_WORDS: Final = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "has too many characters",
    "too_long": f"has more than {_MAX_ITEMS} entries",
    "greater_than_equal": "must be 1 or more",
    "int_parsing_size": "is too large",
}


def _grant(permission: _Permission) -> Grant:
    return Grant(permission.type, permission.id, tuple(permission.actions))


def _mistakes(error: ValidationError) -> Iterable[Mistake]:
    for part in error.errors(include_input=False, include_url=False):
        place = part["loc"]
        if part["type"] == "extra_forbidden":
            # The name is the sender's, and may be anything.
            yield Mistake(_pointer(place[:-1]), f"the member {_shown(place[-1])} is not known{_meant(place[-1])}")
            continue
        cause = part.get("ctx", {}).get("error")
        problems = cause.problems if isinstance(cause, _RuledError) else ((_words(part["type"], part["msg"]), False),)
        for sentence, beyond_limits in problems:
            yield Mistake(_pointer(place), sentence, beyond_limits)


def _words(kind: str, message: str) -> str:
    return _WORDS.get(kind, message[:1].lower() + message[1:])


def _pointer(place: Iterable[int | str]) -> str:
    # Steps are members of ours and numbers of items; a name that the sender chose is never one.
    return "".join(f"/{step}" for step in place)


def _shown(name: object) -> str:
    text = ascii(str(name))
    return text if len(text) <= 66 else f"{text[:62]}...'"


def _meant(name: object) -> str:
    near = difflib.get_close_matches(str(name)[:64], _MEMBERS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
