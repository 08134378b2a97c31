"""Tenancy: a tenant's list and a token's own origins take origins away, and never add one."""

from __future__ import annotations

from typing import Any

import pytest

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Allow, Deny, Reason
from toucan_guard.core.origins import Origin, OriginAllowlist, parse_origin
from toucan_guard.core.tenancy import TenancyPolicy

ONE = "https://one.example"
TWO = "https://two.example"


def _list(*entries: str) -> OriginAllowlist:
    return OriginAllowlist.parse(entries)


def _origin(text: str) -> Origin:
    origin = parse_origin(text)
    assert origin is not None
    return origin


def _claims(**changes: Any) -> VerifiedClaims:
    given: dict[str, Any] = {
        "issuer": "i", "audiences": ("a",), "subject": "s", "token_id": "t", "issued_at": 0.0, "expires_at": 9.0,
        "not_before": None, "tenant": "acme", "origins": None, "grants": (), "rls": None, "region": None,
        "key_id": None, "algorithm": "HS256", "token_type": "embed+jwt", "session_seconds": None, **changes,
    }  # fmt: skip
    return VerifiedClaims(**given)


@pytest.mark.parametrize(
    ("tenant_list", "token_list", "expected"),
    [
        pytest.param(None, None, None, id="neither names any: no narrowing"),
        pytest.param(_list(ONE), None, (ONE,), id="the tenant's alone"),
        pytest.param(None, _list(TWO), (TWO,), id="the token's alone"),
        pytest.param(_list(ONE, TWO), _list(TWO), (TWO,), id="what both name"),
        pytest.param(_list(ONE), _list(TWO), (), id="nothing in common is nobody, not everybody"),
        pytest.param(_list(ONE), _list(), (), id="an empty claim is nobody"),
        pytest.param(_list(), None, (), id="an empty tenant list is nobody"),
    ],
)
def test_narrowing(tenant_list: Any, token_list: Any, expected: tuple[str, ...] | None) -> None:
    policy = TenancyPolicy(tenant_origins={} if tenant_list is None else {"acme": tenant_list})
    narrowed = policy.narrowing(_claims(origins=token_list))
    assert (None if narrowed is None else narrowed.entries) == expected


@pytest.mark.parametrize(
    ("deployment", "token", "allowed"),
    [
        pytest.param(None, None, True, id="nobody names a region"),
        pytest.param("eu", "eu", True, id="the same region"),
        pytest.param("eu", "us", False, id="another region"),
        pytest.param("eu", None, False, id="the token names none"),
        pytest.param(None, "eu", False, id="the deployment names none"),
        pytest.param("eu", "EU", False, id="another spelling is another region"),
    ],
)
def test_region(deployment: str | None, token: str | None, allowed: bool) -> None:
    decision = TenancyPolicy(region=deployment).decide_region(_claims(region=token))
    if allowed:
        assert decision == (Allow({"region": deployment}) if deployment else Allow())
    else:
        assert isinstance(decision, Deny)
        assert decision.reason == Reason.REGION_MISMATCH


@pytest.mark.parametrize(
    ("tenant_list", "token_list", "callers", "opaque", "reason"),
    [
        pytest.param(None, None, [ONE], False, None, id="no list: the configured one has decided"),
        pytest.param(None, None, [], True, None, id="no list: null was let in by its switch"),
        pytest.param(_list(ONE), None, [ONE], False, None, id="on the tenant's list"),
        pytest.param(_list(ONE), None, [TWO], False, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="not on the tenant's list"),
        pytest.param(_list(ONE), None, [ONE, TWO], False, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="the embedder is not"),
        pytest.param(_list(ONE), None, [], True, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="null is on no tenant's list"),
        pytest.param(None, _list(ONE), [ONE], False, None, id="among the token's origins"),
        pytest.param(None, _list(ONE), [TWO], False, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="not among the token's"),
        pytest.param(None, _list(), [ONE], False, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="an empty claim is nobody"),
        pytest.param(None, _list(ONE), [], True, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="null is not among the token's"),
        pytest.param(_list(ONE), _list(ONE), [], False, None, id="a server names no origin: the token decides"),
    ],
)
def test_origins(tenant_list: Any, token_list: Any, callers: list[str], opaque: bool, reason: Reason | None) -> None:
    policy = TenancyPolicy(tenant_origins={} if tenant_list is None else {"acme": tenant_list})
    decision = policy.decide_origins(_claims(origins=token_list), tuple(map(_origin, callers)), opaque_caller=opaque)
    assert (decision.reason if isinstance(decision, Deny) else None) == reason


@pytest.mark.parametrize(
    ("tenant", "token_list", "refused"),
    [
        pytest.param("other", None, True, id="no claim and no list"),
        pytest.param(None, None, True, id="no tenant at all"),
        pytest.param("acme", None, False, id="the tenant has a list"),
        pytest.param("other", _list(ONE), False, id="the token names origins"),
        pytest.param("other", _list(), False, id="the token names nobody, which it does say"),
    ],
)
def test_required_origins(tenant: str | None, token_list: Any, refused: bool) -> None:
    policy = TenancyPolicy(tenant_origins={"acme": _list(ONE)}, require_token_origins=True)
    decision = policy.decide_origins(_claims(tenant=tenant, origins=token_list), ())
    assert (decision.reason if isinstance(decision, Deny) else None) == (Reason.ORIGINS_MISSING if refused else None)


def test_the_policy_does_not_print_its_customers() -> None:
    assert "acme" not in repr(TenancyPolicy(tenant_origins={"acme": _list(ONE)}))
